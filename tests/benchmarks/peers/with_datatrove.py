"""Near-duplicate removal with datatrove: its four-stage MinHash pipeline on the local executor."""

import json
import os
import re
import sys
import tempfile
from importlib.metadata import version

import pyarrow.parquet as pq
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.readers import JsonlReader, ParquetReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.text import TextNormConfig
from datatrove.utils.word_tokenizers import WordTokenizer

WORKERS = 2


class Words(WordTokenizer):
    """Every built-in tokenizer wants spaCy or another extra package; this one splits by regular expression."""

    def word_tokenize(self, text):
        return re.findall(r"\w+", text)

    sent_tokenize = span_tokenize = None


def main(corpus, out):
    norm = TextNormConfig(lowercase=True, remove_punctuation=False, norm_numbers=False, norm_unicode_diacritics=False)
    config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8, norm_config=norm)
    with tempfile.TemporaryDirectory() as tmp:
        table = pq.read_table(corpus, columns=["id", "text"])  # one file for each task: tasks share out whole files
        step = -(-len(table) // WORKERS)
        os.mkdir(f"{tmp}/in")
        for k in range(WORKERS):
            pq.write_table(table.slice(k * step, step), f"{tmp}/in/{k}.parquet")
        read = ParquetReader(f"{tmp}/in")
        stages = [
            ([read, MinhashDedupSignature(f"{tmp}/sigs", config, language=Words())], WORKERS),
            ([MinhashDedupBuckets(f"{tmp}/sigs", f"{tmp}/buckets", config=config)], config.num_buckets),
            ([MinhashDedupCluster(f"{tmp}/buckets", f"{tmp}/remove", config=config)], 1),
            ([read, MinhashDedupFilter(f"{tmp}/remove", exclusion_writer=JsonlWriter(f"{tmp}/removed"))], WORKERS),
        ]
        for k, (pipeline, tasks) in enumerate(stages):
            LocalPipelineExecutor(pipeline, tasks=tasks, workers=min(tasks, WORKERS), logging_dir=f"{tmp}/log{k}").run()
        removed = sorted(int(doc.id) for doc in JsonlReader(f"{tmp}/removed")())
    note = (
        "word 5-grams (\\w+, lower-cased, numbers and diacritics left alone), 14x8 bands of 64-bit hashes, no check of "
        "similarity (LSH threshold about 0.72); union-find, keeps its root (not choosable); 2 workers"
    )
    with open(out, "w") as f:
        json.dump({"tool": "datatrove", "version": version("datatrove"), "removed": removed, "note": note}, f)


if __name__ == "__main__":
    main(*sys.argv[1:3])
