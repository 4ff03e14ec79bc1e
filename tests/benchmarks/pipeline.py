"""Whole pipelines beside what one would write by hand: plain Spark with stock Great Expectations, and DuckDB.

Each part prints CPU seconds of the whole process tree, and ratios within one run; `PARTS=flights,rows,tables` chooses.
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from deltalake import DeltaTable

from tests.benchmarks.measure import Cost, measure
from tests.conftest import ROOT

PYTHON = [sys.executable, "-m"]
PLAIN = "tests.benchmarks.peers.plain_spark"
ENVIRONMENT = "spark:\n  spark.master: local[*]\n"


def cost_of(folder: Path, *command: str) -> Cost:
    cost = measure([*PYTHON, *command], folder, PYTHONPATH=str(ROOT), HEADGATE_LOG="json")
    if cost.code:
        sys.exit(f"{' '.join(command)} failed with {cost.code}:\n{cost.stderr[-2000:]}")
    return cost


def headgate(folder: Path, *arguments: str) -> Cost:
    return cost_of(folder, "headgate", *arguments)


def phases(cost: Cost) -> dict[str, float]:
    """Seconds of each phase, over all tables; fits are part of the steps."""
    total: dict[str, float] = {}
    for line in cost.stderr.splitlines():
        if '"phase"' in line:
            event = json.loads(line)
            if not event["phase"].startswith("fit "):
                total[event["phase"]] = round(total.get(event["phase"], 0) + event["seconds"], 1)
    return total


def tell(what: str, cost: Cost, beside: Cost | None = None, of: str = "") -> None:
    print(f"{what:<28} {cost}" + (f"  {cost.cpu / beside.cpu:.3f} of {of}" if beside else ""), flush=True)


def flights() -> None:
    """The real year: built, looked at with nothing new, and grown by a day, beside the rivals."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        shutil.copytree(ROOT / "conf", folder / "conf")
        suites = shutil.copytree(ROOT / "expectations" / "suites", folder / "expectations" / "suites")
        pipeline = str(folder / "conf" / "flights.yaml")
        headgate(folder, "sample", "flights", "--into", "landing", "--to", "2013-12-30")
        full = headgate(folder, "run", pipeline)
        plain = cost_of(folder, PLAIN, "flights", "landing", "plain", str(suites))
        tell("plain Spark, 364 days", plain)
        tell("headgate, 364 days", full, plain, "plain Spark")
        print(f"  seconds by phase: {phases(full)}")
        tell("headgate, nothing new", headgate(folder, "run", pipeline), full, "its year")
        tell(
            "DuckDB, no gate",
            cost_of(folder, "tests.benchmarks.peers.with_duckdb", "landing", "duckdb"),
            full,
            "headgate",
        )
        headgate(folder, "sample", "flights", "--into", "landing", "--to", "2013-12-31")
        day = headgate(folder, "run", pipeline)
        tell("headgate, one more day", day, full, "its year")
        print(f"  seconds by phase: {phases(day)}")
        for name in ("flights", "flights_fused", "flights_training"):
            counts = {lake: DeltaTable(str(folder / lake / name)).count() for lake in ("plain", "duckdb")}
            ours = DeltaTable(str(folder / "lake" / name), version=0).count()
            print(f"  rows of {name}: headgate {ours:,}, " + ", ".join(f"{k} {v:,}" for k, v in counts.items()))


def write_rows(folder: Path, rows: int) -> None:
    """Parquet files of a million rows × 20 columns: an id, seven numbers, six counts, six texts with stray spaces."""
    folder.mkdir(parents=True)
    for part, first in enumerate(range(0, rows, 1_000_000)):
        ids = np.arange(first, min(first + 1_000_000, rows))
        columns: dict[str, object] = {"id": ids}
        columns |= {f"x{i}": (ids * (i + 11) % 100_003) / 7.0 for i in range(7)}
        columns |= {f"n{i}": (ids * (i + 3)) % (1000 * (i + 1)) for i in range(6)}
        columns |= {f"s{i}": pa.array(np.char.add(f" t{i}  ", (ids * (i + 5) % 5000).astype(str))) for i in range(6)}
        pq.write_table(pa.table(columns), folder / f"{part:03}.parquet")


def rule(kind: str, **kwargs: object) -> dict[str, object]:
    return {"type": kind, "kwargs": kwargs, "meta": {"dimension": "validity"}}


def twenty_rules() -> list[dict[str, object]]:
    return [
        rule("expect_table_row_count_to_be_between", min_value=1),
        rule("expect_column_to_exist", column="id"),
        rule("expect_column_values_to_be_unique", column="id"),
        rule("expect_column_mean_to_be_between", column="x0", min_value=0),
        rule("expect_column_max_to_be_between", column="n0", max_value=1000),
        *(rule("expect_column_values_to_not_be_null", column=f"n{i}") for i in range(6)),
        *(rule("expect_column_values_to_be_between", column=f"x{i}", min_value=0, max_value=20_000) for i in range(4)),
        *(
            rule("expect_column_value_lengths_to_be_between", column=f"s{i}", min_value=1, max_value=20)
            for i in range(2)
        ),
        *(rule("expect_column_values_to_match_regex", column=f"s{i}", regex="^t[0-9] [0-9]+$") for i in range(3)),
    ]


def write_suite(folder: Path, name: str, rules: list[dict[str, object]]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({"name": name, "expectations": rules}))


def write_pipeline(folder: Path, tables: dict[str, object]) -> None:
    (folder / "env").mkdir()
    (folder / "env" / "local.yaml").write_text(ENVIRONMENT)
    (folder / "p.yaml").write_text(
        yaml.safe_dump({"pipeline": "p", "suites": "suites", "tables": tables}, sort_keys=False)
    )


def rows(sizes: tuple[int, ...] = (1_000_000, 5_000_000, 10_000_000)) -> None:
    """One wide table: trimmed, bounded, rid of repeats, judged by twenty rules, published; the raw one as well."""
    points = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            write_rows(folder / "landing" / "rows", size)
            write_suite(folder / "suites", "raw", twenty_rules()[:2])
            write_suite(folder / "suites", "clean", twenty_rules())
            texts = [f"s{i}" for i in range(6)]
            steps = [
                {"normalize_text": {"columns": texts}},
                {"check_bounds": {"columns": {"x1": [0, 1_000_000]}}},
                {"drop_duplicates": {"columns": ["id"]}},
            ]
            raw = {"source": {"format": "parquet", "path": "rows/*.parquet", "key": ["id"]}, "suite": "raw"}
            write_pipeline(folder, {"raw": raw, "clean": {"from": "raw", "steps": steps, "suite": "clean"}})
            ours = headgate(folder, "run", "p.yaml")
            plain = cost_of(folder, PLAIN, "rows", "landing/rows", "plain", "suites")
            tell(f"plain Spark, {size:,} rows", plain)
            tell(f"headgate, {size:,} rows", ours, plain, "plain Spark")
            points.append((size, ours.cpu))
    if len(points) > 1:
        exponent = float(np.polyfit(*np.log(np.array(points)).T, 1)[0])
        print(f"  CPU ~ rows^{exponent:.2f}, with the start of Spark")


def tables(count: int = 60) -> None:
    """Many small tables."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "landing").mkdir()
        for i in range(count):
            lines = "".join(f"{n}, name {n},{n / 7}\n" for n in range(100))
            (folder / "landing" / f"t{i}.csv").write_text(f"id,name,x\n{lines}")
        write_suite(
            folder / "suites",
            "small",
            [
                *twenty_rules()[:2],
                rule("expect_column_values_to_not_be_null", column="name"),
                rule("expect_column_values_to_be_unique", column="id"),
                rule("expect_column_values_to_be_between", column="x", min_value=0),
            ],
        )
        schema = "id INT, name STRING, x DOUBLE"
        write_pipeline(
            folder,
            {
                f"t{i}": {
                    "source": {"format": "csv", "path": f"t{i}.csv", "key": ["id"], "schema": schema},
                    "suite": "small",
                }
                for i in range(count)
            },
        )
        plain = cost_of(folder, PLAIN, "tables", "landing", "plain", "suites")
        tell(f"plain Spark, {count} tables", plain)
        tell(f"headgate, {count} tables", headgate(folder, "run", "p.yaml"), plain, "plain Spark")


def run() -> None:
    for part in os.environ.get("PARTS", "flights,rows,tables").split(","):
        {"flights": flights, "rows": rows, "tables": tables}[part]()
