"""Near-duplicate removal with text-dedup: its text_dedup.minhash command on a local parquet file."""

import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version

import pyarrow.parquet as pq
from datasets import load_from_disk


def main(corpus, out):
    with tempfile.TemporaryDirectory() as tmp:  # a fresh cache: datasets would reuse the signatures of an earlier run
        env = dict(os.environ, HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_HOME=f"{tmp}/hf")
        command = [
            sys.executable,
            "-m",
            "text_dedup.minhash",
            "--path",
            "parquet",
            "--data_files",
            os.path.abspath(corpus),
            "--split",
            "train",
            "--cache_dir",
            f"{tmp}/cache",
            "--output",
            f"{tmp}/out",
            "--column",
            "text",
            "--ngram",
            "5",
            "--threshold",
            "0.8",
            "--num_perm",
            "128",
            "--hash_func",
            "xxh3",
            "--num_proc",
            "2",
        ]
        subprocess.run(command, check=True, env=env, cwd=tmp)
        kept = set(load_from_disk(f"{tmp}/out")["id"])
    removed = [i for i in pq.read_table(corpus, columns=["id"])["id"].to_pylist() if i not in kept]
    note = (
        "word 5-grams (split at each \\W, lower-cased), 128 permutations, 9x13 bands as derived from threshold 0.8, no "
        "check of similarity; union-find, keeps its root (not choosable); drops documents under 5 words; 2 processes"
    )
    with open(out, "w") as f:
        json.dump({"tool": "text-dedup", "version": version("text-dedup"), "removed": removed, "note": note}, f)


if __name__ == "__main__":
    main(*sys.argv[1:3])
