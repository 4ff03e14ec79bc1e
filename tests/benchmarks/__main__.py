"""Runs the measurements: `make bench`, or `python -m tests.benchmarks [NAME ...]`."""

import sys

from tests.benchmarks import spine

BENCHMARKS = {"spine": spine.run}

if __name__ == "__main__":
    for name in sys.argv[1:] or BENCHMARKS:
        if name not in BENCHMARKS:
            sys.exit(f"there is no benchmark '{name}' (there are: {', '.join(BENCHMARKS)})")
        print(f"== {name}")
        BENCHMARKS[name]()
