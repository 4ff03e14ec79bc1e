"""Near-duplicate removal with rensa: R-MinHash sketches and its streaming LSH deduplicator."""

import json
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version

import pyarrow.parquet as pq
from rensa import RMinHash, RMinHashDeduplicator

BANDS, ROWS, SEED, CHUNK = 14, 8, 42, 200
WORD = re.compile(r"\w+")


def shingles(text):
    words = WORD.findall(text.lower())
    return [" ".join(words[i : i + 5]) for i in range(max(1, len(words) - 4))]


def sketch(texts):
    return RMinHash.from_token_sets([shingles(t) for t in texts], num_perm=BANDS * ROWS, seed=SEED)


def longest_first(doc):
    return -len(doc[1]), doc[0]


def main(corpus, out):
    table = pq.read_table(corpus, columns=["id", "text"])
    docs = sorted(zip(*(table[c].to_pylist() for c in ("id", "text")), strict=True), key=longest_first)
    ids, texts = zip(*docs, strict=True)
    dedup = RMinHashDeduplicator(threshold=0.8, num_perm=BANDS * ROWS, use_lsh=True, num_bands=BANDS, seed=SEED)
    kept = []
    with ProcessPoolExecutor(2) as pool:
        for sketches in pool.map(sketch, [texts[i : i + CHUNK] for i in range(0, len(texts), CHUNK)]):
            keys = map(str, ids[len(kept) : len(kept) + len(sketches)])
            kept += dedup.add_pairs(zip(keys, sketches, strict=True))
    removed = [i for i, keep in zip(ids, kept, strict=True) if not keep]
    note = (
        f"word 5-grams (\\w+, lower-cased), {BANDS}x{ROWS} bands, estimated Jaccard >= 0.8; streaming greedy: a "
        "document goes if it matches one already kept; fed longest first, so the longest stays; 2 sketching processes"
    )
    with open(out, "w") as f:
        json.dump({"tool": "rensa", "version": version("rensa"), "removed": removed, "note": note}, f)


if __name__ == "__main__":
    main(*sys.argv[1:3])
