"""Exact strata beside `sampleBy` and `row_number`, SMOTE beside imbalanced-learn, and models on rare classes.

`python -m tests.benchmarks rebalancing`; in the environment, PARTS names some of strata, many_strata, synthetic, wide
and models, and ROWS sets the size of the first two (10,000,000).
"""

import csv
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyspark.sql import Window as W
from pyspark.sql import functions as F

from headgate.jobs.pipeline.context import BuildContext
from headgate.transforms.balancing.advice import advise, table_from
from headgate.transforms.balancing.smote import MakeMinority
from headgate.transforms.balancing.strata import SampleStrata
from headgate.transforms.rows import is_kept, with_bookkeeping
from tests.benchmarks.dedup import PEERS, peers_python
from tests.benchmarks.measure import spent
from tests.conftest import SHARED_DATA, TEST_SETTINGS

STRATA, WANTED = 8, 420_000
LARGE, SMALL = 700_000, (4_000, 16_000, 150_000, 300_000, 600_000)  # beyond 100,000 they are searched in buckets
TINY = (2_000, 100)  # classes whose rows cost next to nothing
WIDE = (20, 300_000)  # columns, and rows of the small class
PEERS_MOST = 16_000  # rows of the small class for which the peer is run
MANY_STRATA = 100_000
SETS = ("im_mammography/mammography.csv", "im_keel_open/haberman.csv", "im_keel_open/glass5.csv")


def run() -> None:
    from headgate.jobs.spark.session import start

    parts = os.environ.get("PARTS", "strata,many_strata,synthetic,wide,models").split(",")
    with_spark = [part for part in (strata, many_strata, synthetic, wide) if part.__name__ in parts]
    if with_spark:
        spark = start({**TEST_SETTINGS, "spark.sql.adaptive.enabled": "true"})
        with tempfile.TemporaryDirectory() as folder:
            for lines in with_spark:
                for line in lines(spark, folder):
                    print(line, flush=True)
        spark.stop()
    if "models" in parts:
        for line in models():
            print(line, flush=True)


def rows_in(spark: Any, folder: str) -> tuple[int, str]:
    """Write the rows of the first two parts, where they are not there."""
    rows, path = int(os.environ.get("ROWS", "10000000")), f"{folder}/rows"
    if not Path(path).exists():
        made = spark.range(rows).withColumn("s", (F.col("id") % STRATA).cast("string"))
        made.select(F.md5(F.col("id").cast("string")).alias("_row_id"), "id", "s").write.parquet(path)
    return rows, path


def strata(spark: Any, folder: str) -> Iterator[str]:
    rows, path = rows_in(spark, folder)
    spark.read.parquet(path).where("id % 1000 = 0").groupBy("s").count().collect()  # the code is compiled once

    def ours(df: Any) -> Any:
        step = SampleStrata(by=("s",), total=WANTED)
        context = BuildContext(spark, f"{folder}/scratch", fitted=f"{folder}/fitted", rows=df)
        marked = with_bookkeeping(df)
        return step.fit(marked, context).run(marked, context).where(is_kept()).select("id")

    def sample_by(df: Any) -> Any:
        return df.sampleBy("s", dict.fromkeys(map(str, range(STRATA)), WANTED / rows), seed=1).select("id")

    def row_number(df: Any) -> Any:
        ranked = df.withColumn("n", F.row_number().over(W.partitionBy("s").orderBy(F.xxhash64("_row_id"), "_row_id")))
        return ranked.where(F.col("n") <= WANTED // STRATA).select("id")

    for name, sample in (("headgate", ours), ("sampleBy", sample_by), ("row_number", row_number)):
        df = spark.read.parquet(path)
        before = spent()
        counted = sample(df).agg(F.count("*"), F.sum(F.xxhash64("id") % 1000)).first()
        seconds = spent() - before
        again = sample(df.repartition(5)).agg(F.count("*"), F.sum(F.xxhash64("id") % 1000)).first()
        same = "the same" if counted == again else "other"
        drawn = f"{counted[0]:,} of {WANTED:,} drawn from {rows:,} rows"
        yield f"{name:10} {drawn}, {seconds:.1f} CPU s; {same} rows repartitioned"


def many_strata(spark: Any, folder: str) -> Iterator[str]:
    df = spark.read.parquet(rows_in(spark, folder)[1]).withColumn("s", (F.col("id") % MANY_STRATA).cast("string"))
    context = BuildContext(spark, f"{folder}/scratch", fitted=f"{folder}/fitted", rows=df)
    marked, before = with_bookkeeping(df), spent()
    drawn = SampleStrata(by=("s",), rows=7).fit(marked, context).run(marked, context).where(is_kept())
    sizes = drawn.groupBy("s").count().agg(F.min("count"), F.max("count"), F.count("*")).first()
    yield f"headgate   {sizes[2]:,} strata: {sizes[0]} to {sizes[1]} rows of each, {spent() - before:.1f} CPU s"


def synthetic(spark: Any, folder: str) -> Iterator[str]:
    python = peers_python()
    for large, small in (TINY, TINY, *((LARGE, small) for small in SMALL)):  # the first one compiles the code
        yield smote(spark, folder, large, small, 10)
        if not TINY[1] < small <= PEERS_MOST:
            continue
        command = [str(python), str(PEERS / "rebalancing" / "with_imblearn.py"), str(large), str(small)]
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        yield f"imbalanced-learn {answer[3]} SMOTE {large:,} / {small:,}: {answer[1]}, {float(answer[2]):.1f} CPU s"


def wide(spark: Any, folder: str) -> Iterator[str]:
    columns, small = WIDE
    for method in ("smote", "borderline", "adasyn"):
        yield smote(spark, folder, LARGE, small, columns if method == "smote" else 4, method)


def smote(spark: Any, folder: str, large: int, small: int, columns: int, method: Any = "smote") -> str:
    """Return what it takes to make a small class as large as the other; their numbers are uniform noise."""
    names = [f"x{i}" for i in range(columns)]
    df = spark.range(large + small).select(
        F.md5(F.col("id").cast("string")).alias("_row_id"),
        F.when(F.col("id") < small, "rare").otherwise("often").alias("y"),
        F.lit("train").alias("split"),
        *((F.xxhash64("id", F.lit(i)) / F.lit(2.0**63)).alias(name) for i, name in enumerate(names)),
    )
    df.write.mode("overwrite").parquet(f"{folder}/classes")
    df = with_bookkeeping(spark.read.parquet(f"{folder}/classes"))
    step = MakeMinority(label="y", columns=tuple(names), method=method)
    context = BuildContext(spark, f"{folder}/scratch", rows=df)
    before, wall = spent(), time.perf_counter()
    counts = {r["y"]: r["count"] for r in step.run(df, context).groupBy("y").count().collect()}
    cost = f"{spent() - before:.1f} CPU s, {time.perf_counter() - wall:.1f} s"
    told = "".join(f", {f['name']} {f['value']:.3f} in {f['facts']['candidates']}" for f in context.figures)
    return f"headgate   {method} {large:,} / {small:,}, {columns} columns: {counts}, {cost}{told}"


def models() -> Iterator[str]:
    for name in SETS:
        file = SHARED_DATA / name
        if not file.exists():
            continue
        table = table_of(file)
        start = time.process_time()
        advice = advise(table)
        yield f"{name}: {len(table.labels):,} rows, {time.process_time() - start:.0f} CPU s"
        yield from (f"  {line}" for line in advice.lines())


def table_of(file: Path, most: int = 5_000) -> Any:
    """Read the numbers and the class, in the last column, of a csv with or without a header."""
    with file.open(newline="") as lines:
        rows = [row for row in csv.reader(lines) if row]
    try:
        float(rows[0][0])
    except ValueError:
        rows = rows[1:]
    rows = rows[:: -(-len(rows) // most)]
    columns = list(zip(*rows, strict=True))
    return table_from([[float(v) for v in column] for column in columns[:-1]], [], list(columns[-1]))[0]
