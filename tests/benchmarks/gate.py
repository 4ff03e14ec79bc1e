"""What the gate costs on 5 million rows of 20 columns: a write with masks and its judgement, beside the plain write."""

import os
import statistics
import tempfile
import time
from typing import Any

from pyspark.sql import functions as F

from headgate.expectations.gate import Gate
from headgate.expectations.suites import Suite, load_suite
from headgate.jobs.spark.session import start
from tests.benchmarks.measure import sample

ROWS = 5_000_000


def columns() -> list[Any]:
    """Twenty columns of mixed types, a plain function of the row's number."""
    n = F.col("id")
    whole = [((n * (i + 3)) % (1000 * (i + 1))).alias(f"i{i}") for i in range(6)]
    real = [(((n * (i + 11)) % 100_003) / 7.0).alias(f"x{i}") for i in range(6)]
    texts = [F.concat(F.lit(f"t{i}-"), ((n * (i + 5)) % 5000).cast("string")).alias(f"s{i}") for i in range(6)]
    return [n, *whole, *real, *texts, F.timestamp_seconds(n % 100_000_000).alias("at")]


def suite(rules: int) -> Suite:
    """Row rules on every column in turn, four aggregates, and one uniqueness."""
    uses: list[tuple[str, dict[str, Any]]] = [
        ("expect_table_row_count_to_be_between", {"min_value": 1}),
        ("expect_column_to_exist", {"column": "id"}),
        ("expect_column_values_to_be_unique", {"column": "id"}),
        ("expect_column_mean_to_be_between", {"column": "x0", "min_value": 0}),
        ("expect_column_max_to_be_between", {"column": "i0", "max_value": 1000}),
        ("expect_column_min_to_be_between", {"column": "x1", "min_value": 0}),
    ]
    i = 0
    while len(uses) < rules:
        k, turn = i % 6, i // 6
        kinds = (
            ("expect_column_values_to_not_be_null", {"column": f"i{k}"}),
            ("expect_column_values_to_be_between", {"column": f"x{k}", "min_value": -turn, "max_value": 20_000}),
            ("expect_column_value_lengths_to_be_between", {"column": f"s{k}", "min_value": 1, "max_value": 20 + turn}),
            ("expect_column_values_to_be_between", {"column": f"i{k}", "min_value": -turn}),
        )
        uses.append(kinds[turn % 4])
        i += 1
    entries = [{"type": t, "kwargs": kw, "meta": {"dimension": "validity"}} for t, kw in uses]
    return load_suite({"name": "gate", "expectations": entries}, lambda *place: "gate")


def spent() -> tuple[float, float]:
    cpu: dict[int, float] = {}
    sample(os.getsid(0), cpu)
    return time.monotonic(), sum(cpu.values())


def run(rows: int = ROWS) -> None:
    os.setsid() if os.getpid() != os.getsid(0) else None
    spark = start({"spark.master": "local[2]", "spark.driver.memory": "4g"})
    table = spark.range(rows).select(*columns())
    with tempfile.TemporaryDirectory() as folder:

        def plain() -> None:
            table.write.mode("overwrite").parquet(f"{folder}/plain")

        def gated(rules: int) -> None:
            gate = Gate(spark, suite(rules))
            masked = table.withColumns(gate.masks(table))
            masked.write.mode("overwrite").parquet(f"{folder}/gated")
            verdict = gate.judge(spark.read.schema(masked.schema).parquet(f"{folder}/gated"), rows)
            assert not verdict.blocking and len(verdict.results) == rules

        def cost(work: Any, *arguments: Any) -> tuple[float, float]:
            before = spent()
            work(*arguments)
            after = spent()
            return after[0] - before[0], after[1] - before[1]

        for rules in (20, 60):
            # The two in turn, once to warm up and five times: the middle one of each counts.
            pairs = [(cost(plain), cost(gated, rules)) for _ in range(6)][1:]
            write, whole = (statistics.median(p[i][1] for p in pairs) for i in (0, 1))
            walls = [statistics.median(p[i][0] for p in pairs) for i in (0, 1)]
            print(
                f"{rows:,} rows x 20 columns, {rules} rules: plain write {write:.1f} CPU s ({walls[0]:.1f} s wall), "
                f"with the gate {whole:.1f} CPU s ({walls[1]:.1f} s wall): ratio {whole / write:.2f}",
                flush=True,
            )
    spark.stop()
