"""Random tables and suites, judged by the gate and by the stock engine: whether any verdict differs."""

import logging
import sys
import time
from collections import Counter
from typing import Any

from headgate.expectations.catalogue import known_types
from headgate.jobs.spark.session import start
from tests.expectations.pairs import LIKE_FILES, differences, random_pair

PAIRS = 2000
FIRST = 1_000_000
SETTINGS = LIKE_FILES | {
    # Tiny tables: one core, one partition, no re-planning, no call sites noted, no time lost on optimising bytecode.
    "spark.master": "local[1]",
    "spark.sql.shuffle.partitions": "1",
    "spark.sql.adaptive.enabled": "false",
    "spark.default.parallelism": "1",
    "spark.driver.memory": "2g",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1",
    "spark.python.sql.dataFrameDebugging.enabled": "false",
}


def run(first: int = FIRST, pairs: int = PAIRS) -> None:
    spark = session()
    started, rules, differing, kinds = time.monotonic(), 0, 0, Counter[str]()
    print(f"seeds {first} to {first + pairs - 1}")
    for seed in range(first, first + pairs):
        pair = random_pair(seed)
        rules += len(pair.suite.rules)
        kinds.update(r.type for r in pair.suite.rules)
        try:
            found = differences(spark, pair.table, pair.suite)
        except Exception as e:
            found = [f"{type(e).__name__}: {str(e)[:500]}"]
        if found:
            differing += 1
            told = "\n  ".join(found)
            print(f"seed {seed} (tests.benchmarks.parity.tell({seed}) shows it):\n  {told}", flush=True)
    spark.stop()
    print(
        f"{pairs:,} pairs, {rules:,} rules of {len(kinds)} types (of {len(known_types())}; the rarest "
        f"{min(kinds.values())} times): {differing} pairs differ; {time.monotonic() - started:.0f} s"
    )
    if differing:
        sys.exit(f"{differing} of {pairs} pairs differ")


def tell(seed: int) -> None:
    """Print the pair of a seed and how its verdicts differ."""
    pair = random_pair(seed)
    print(pair)
    print("\n".join(differences(session(), pair.table, pair.suite)) or "no difference")


def session() -> Any:
    logging.getLogger("SQLQueryContextLogger").setLevel(logging.CRITICAL)  # a page for every rule that raises
    return start(SETTINGS)
