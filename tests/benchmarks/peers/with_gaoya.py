"""Near-duplicate removal with gaoya: its MinHash LSH index, filled and queried in bulk."""

import json
import re
import sys
from importlib.metadata import version

import pyarrow.parquet as pq
from gaoya.minhash import MinHashStringIndex

BANDS, ROWS = 14, 8
WORD = re.compile(r"\w+")


def longest_first(doc):
    return -len(doc[1]), doc[0]


def main(corpus, out):
    table = pq.read_table(corpus, columns=["id", "text"])
    docs = sorted(zip(*(table[c].to_pylist() for c in ("id", "text")), strict=True), key=longest_first)
    ids = [i for i, _ in docs]
    # gaoya's word analyzer splits at white space only, so punctuation is dropped beforehand
    texts = [" ".join(WORD.findall(t.lower())) for _, t in docs]
    index = MinHashStringIndex(
        hash_size=32,
        jaccard_threshold=0.8,
        num_bands=BANDS,
        band_size=ROWS,
        analyzer="word",
        lowercase=False,
        ngram_range=(5, 5),
    )
    index.par_bulk_insert_docs(ids, texts)
    removed = set()
    for i, similar in zip(ids, index.par_bulk_query(texts), strict=True):
        if i not in removed:
            removed.update(j for j in similar if j != i)
    note = (
        f"word 5-grams (\\w+, lower-cased), {BANDS}x{ROWS} bands of 32-bit hashes, estimated Jaccard >= 0.8; gaoya "
        "only answers queries, so a longest-first greedy pass over its answers removes what is similar to a kept one"
    )
    with open(out, "w") as f:
        json.dump({"tool": "gaoya", "version": version("gaoya"), "removed": sorted(removed), "note": note}, f)


if __name__ == "__main__":
    main(*sys.argv[1:3])
