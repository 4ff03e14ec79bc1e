"""How cost grows: with the rows of a table, with the number of tables, with the number of nights."""

import math
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headgate.jobs.config.models import Environment
from headgate.jobs.config.pipeline import load_pipeline
from headgate.jobs.lake.lake import Lake
from headgate.jobs.pipeline.run import run as run_pipeline
from headgate.jobs.progress import Progress
from headgate.jobs.spark.session import start
from tests.benchmarks.measure import measure, sample
from tests.conftest import ROOT

FLOOR = "  - {type: expect_table_row_count_to_be_between, kwargs: {min_value: 1}, meta: {dimension: completeness}}\n"
SUITE = f"name: any\nexpectations:\n{FLOOR}" + (
    "  - {type: expect_table_columns_to_match_set, kwargs: {column_set: [id, v], exact_match: false}, "
    "meta: {dimension: validity}}\n"
    "  - {type: expect_column_values_to_not_be_null, kwargs: {column: id}, meta: {dimension: completeness}}\n"
)
CLEAN = SUITE.replace("name: any", "name: clean") + "".join(
    f"  - {{type: {kind}, kwargs: {{{kwargs}}}, meta: {{dimension: validity}}}}\n"
    for kind, kwargs in (
        ("expect_column_values_to_be_between", "column: x, min_value: -100, max_value: 100"),
        ("expect_column_values_to_be_between", "column: id, min_value: 0"),
        ("expect_column_value_lengths_to_be_between", "column: v, min_value: 1, max_value: 40"),
        ("expect_column_values_to_match_regex", "column: v, regex: '^[a-z0-9 ]+$'"),
        ("expect_column_mean_to_be_between", "column: x, min_value: -1, max_value: 1"),
    )
)
ROWS = """
pipeline: growth
suites: .
tables:
  raw:
    source: {format: parquet, path: 'rows/*.parquet', key: [id]}
    suite: any
  clean:
    from: raw
    steps:
      - normalize_text: {columns: [v], case: lower, spaces: collapse}
      - check_bounds: {columns: {x: [-4, 4]}}
    suite: clean
"""
ENVIRONMENT = "spark:\n  spark.master: 'local[2]'\n  spark.driver.memory: 2g\n"
CSV = "source: {format: csv, path: 't%s/*.csv', schema: 'id INT, v STRING', key: [id]}"


def write_rows(folder: Path, rows: int) -> None:
    """Parquet files of a million rows: an id, a text with spaces and capitals, a normal number."""
    folder.mkdir(parents=True)
    for part in range(math.ceil(rows / 1_000_000)):
        n = min(1_000_000, rows - part * 1_000_000)
        ids = np.arange(n) + part * 1_000_000
        texts = pa.array(np.char.add("Row  ", ids.astype(str)))
        numbers = np.random.default_rng(part).normal(size=n)
        pq.write_table(pa.table({"id": ids, "v": texts, "x": numbers}), folder / f"{part}.parquet")


def fitted(points: list[tuple[float, float]]) -> float:
    """The exponent of y ~ x^k by least squares of the logarithms."""
    x, y = np.log([p[0] for p in points]), np.log([p[1] for p in points])
    return float(np.polyfit(x, y, 1)[0])


def with_rows(sizes: tuple[int, ...] = (1_000_000, 3_000_000, 10_000_000)) -> None:
    points = []
    for rows in sizes:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            write_rows(folder / "landing" / "rows", rows)
            (folder / "env").mkdir()
            (folder / "env" / "local.yaml").write_text(ENVIRONMENT)
            (folder / "any.yaml").write_text(SUITE)
            (folder / "clean.yaml").write_text(CLEAN)
            (folder / "p.yaml").write_text(ROWS)
            cost = measure([sys.executable, "-m", "headgate", "run", "p.yaml"], folder, PYTHONPATH=str(ROOT))
            if cost.code:
                sys.exit(cost.stderr[-2000:])
            points.append((rows, cost.cpu))
            print(f"{rows:>12,} rows       {cost}", flush=True)
    marginal = (points[-1][1] - points[0][1]) / (points[-1][0] - points[0][0]) * 1e6
    print(f"CPU ~ rows^{fitted(points):.2f} with the start of Spark; {marginal:.2f} CPU s for a further million rows")


class Session:
    """One Spark session and a folder, for many runs in one process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spark = start({"spark.master": "local[2]", "spark.driver.memory": "1g"})
        (folder / "any.yaml").write_text(SUITE)

    def run(self, tables: str) -> Any:
        (self.folder / "p.yaml").write_text(f"pipeline: p\nsuites: .\ntables:\n{tables}")
        environment = Environment(lake=str(self.folder / "lake"), landing=str(self.folder / "landing"))
        pipeline = load_pipeline(self.folder / "p.yaml")
        return run_pipeline(
            pipeline, environment, Lake(environment.lake), lambda _: self.spark, Progress(watched=False)
        )

    def land(self, table: int | str, name: str, first: int, rows: int) -> None:
        file = self.folder / "landing" / f"t{table}" / f"{name}.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("id,v\n" + "".join(f"{i},v{i}\n" for i in range(first, first + rows)))

    def jobs(self) -> int:
        return int(self.spark.sparkContext._jsc.sc().dagScheduler().nextJobId())


def cpu_and_memory() -> tuple[float, float]:
    cpu: dict[int, float] = {}
    resident = sample(os.getsid(0), cpu)
    return sum(cpu.values()), resident


def with_tables(tables: int = 100) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        session = Session(Path(scratch))
        text = ""
        for i in range(tables):
            session.land(i, "a", 0, 100)
            text += f"  t{i}:\n    {CSV % i}\n    suite: any\n"
        jobs, began = session.jobs(), time.monotonic()
        outcome = session.run(text)
        wall, jobs = time.monotonic() - began, session.jobs() - jobs
        seconds = [r.seconds for r in outcome.tables]
        print(f"{tables} tables of 100 rows: {wall:.1f} s, {jobs / tables:.1f} Spark jobs a table")
        print(f"  the first ten {sum(seconds[:10]) / 10:.2f} s each, the last ten {sum(seconds[-10:]) / 10:.2f} s each")
        for i in range(tables):
            session.land(i, "b", 0, 0)
        session.spark.stop()


def with_nights(nights: int = 1000) -> None:
    """Nightly runs of one small table, with a release each; the system tables grow with every one."""
    with tempfile.TemporaryDirectory() as scratch:
        session = Session(Path(scratch))
        seconds, memory = [], []
        for night in range(nights):
            session.land(0, f"{night:05}", night * 100, 100)
            began = time.monotonic()
            session.run(f"  t0:\n    {CSV % 0}\n    suite: any\n")
            seconds.append(time.monotonic() - began)
            memory.append(cpu_and_memory()[1])
            if (night + 1) % max(nights // 10, 1) == 0:
                last = seconds[-max(nights // 10, 1) :]
                print(
                    f"  nights up to {night + 1:5}: {sum(last) / len(last):.2f} s each, {memory[-1]:.0f} MB", flush=True
                )
        lake = Lake(str(Path(scratch) / "lake"))
        rows = lake.published("t0")
        assert rows is not None and rows.rows == nights * 100
        warm = nights // 10
        points = [(i + 1.0, s) for i, s in enumerate(seconds)][warm:]
        print(f"{nights} nights: a night ~ nights^{fitted(points):.2f} after the first {warm}")
        session.spark.stop()


def run() -> None:
    with_rows()
    with_tables()
    with_nights(int(os.environ.get("NIGHTS", "1000")))
