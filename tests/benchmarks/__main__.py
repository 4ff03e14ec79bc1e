"""Runs the measurements: `make bench`, or `python -m tests.benchmarks [NAME ...]`."""

import importlib
import sys

BENCHMARKS = (
    "pipeline",
    "parity",
    "gate",
    "growth",
    "scale",
    "diff",
    "dedup",
    "dedup_sets",
    "fusion",
    "fusion_nights",
    "splink",
    "labels",
    "imputation",
    "imputation_size",
    "rebalancing",
    "cluster",
)

if __name__ == "__main__":
    for name in sys.argv[1:] or BENCHMARKS:
        if name not in BENCHMARKS:
            sys.exit(f"there is no benchmark '{name}' (there are: {', '.join(BENCHMARKS)})")
        print(f"== {name}", flush=True)
        importlib.import_module(f"tests.benchmarks.{name}").run()
