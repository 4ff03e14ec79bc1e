"""One size of `scale` in a process of its own: tables are landed, then those of the verbs are built from them.

`python -m tests.benchmarks.scale_run KIND SIZE plain|skewed DATA OUT` writes the figures as JSON. Executors are
processes of their own (`local-cluster`: a worker with two cores), so that what the driver holds and does is told apart.
Each figure speaks of one run of the pipeline for one table, from planning to its commit.
"""

import contextlib
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from headgate.jobs.config.models import Environment
from headgate.jobs.config.pipeline import load_pipeline
from headgate.jobs.lake.lake import Lake
from headgate.jobs.pipeline.run import run as run_pipeline
from headgate.jobs.progress import Progress
from headgate.jobs.spark.session import LOCAL_CONF, start
from tests.benchmarks.measure import TICKS, spent
from tests.conftest import ROOT

PARTITIONS = 16
UNTIL = "HEADGATE_SCALE_UNTIL"  # seconds since 1970: no verb is begun later
SETTINGS = {
    **LOCAL_CONF,
    "spark.master": "local-cluster[1,2,4096]",
    "spark.executor.memory": "4g",
    "spark.driver.memory": "1g",
    "spark.executorEnv.PYTHONPATH": str(ROOT),
    # A task holds the same share of the rows at every size, and what grows with them is broadcast at none.
    "spark.sql.shuffle.partitions": str(PARTITIONS),
    "spark.sql.adaptive.coalescePartitions.enabled": "false",
    "spark.sql.autoBroadcastJoinThreshold": "32k",
    # What a task holds shows in pages of this size; Spark's own, of 64 MB here, would be the peak of any task.
    "spark.buffer.pageSize": "1m",
    "spark.eventLog.enabled": "true",
    "spark.eventLog.rolling.enabled": "false",
    "spark.eventLog.compress": "false",
}


def source(table: str, key: str) -> dict[str, Any]:
    """Return a table of files; its suite has the name of its key."""
    return {"source": {"format": "parquet", "path": f"{table}/*.parquet", "key": [key]}, "suite": key}


def built(of: str, *steps: dict[str, Any], suite: str | None = "line", **more: Any) -> dict[str, Any]:
    return {"from": of, "steps": list(steps), "suite": suite, **more}


X = [f"x{i}" for i in range(4)]
CLEANING = (
    {"normalize_text": {"columns": ["item"], "case": "lower", "spaces": "collapse"}},
    {"cast": {"columns": {"customer_id": "string"}}},
    {"check_bounds": {"columns": {"x0": [-3, 13], "x1": [-3, 14]}}},
)
TABLES: dict[str, dict[str, Any]] = {
    "orders": {
        "orders": source("orders", "line"),
        "customers": source("customers", "customer_id"),
        "cleaned": built("orders", *CLEANING, suite="cleaned"),
        "deduplicated": built("orders", {"drop_duplicates": {"columns": ["order_id"], "keep": "line"}}),
        "imputed": built("orders", {"impute_median": {"columns": X, "by": ["shop"]}}),
        "modelled": built("orders", {"impute_gaussian": {"columns": X}}),
        "joined": built(
            "orders",
            {
                "join_table": {
                    "table": "customers",
                    "on": {"customer_id": "customer_id"},
                    "columns": {"customer": "name", "since": "since"},
                    "matched": "known",
                }
            },
        ),
        "sampled": built(
            "orders",
            {"split_by_hash": {"key": ["line"], "shares": {"train": 0.9, "test": 0.1}}},
            {"sample_strata": {"by": ["region", "label"], "share": 0.3, "temperature": 2.0}},
        ),
    },
    "texts": {
        "texts": source("texts", "id"),
        "deduplicated": built("texts", {"drop_near_duplicates": {"columns": ["text"], "similarity": 0.8}}, suite="id"),
    },
    "records": {
        "records": source("records", "id"),
        "pairs": built("records", {"link_records": {"key": ["id"]}}, suite=None, grain="new"),
        "entities": built("records", {"assign_entities": {"links": "pairs"}}, suite=None),
    },
}
# Of each kind: what is measured, and the tables that are built for it. What is landed comes first.
VERBS: dict[str, dict[str, tuple[str, ...]]] = {
    "orders": {
        "land": ("orders", "customers"),
        "clean": ("cleaned",),
        "gate": ("cleaned",),  # once more, by other rules
        "deduplicate": ("deduplicated",),
        "impute by group": ("imputed",),
        "impute by model": ("modelled",),
        "join": ("joined",),
        "rebalance": ("sampled",),
    },
    "texts": {"land texts": ("texts",), "deduplicate texts": ("deduplicated",)},
    "records": {"land records": ("records",), "link": ("pairs",), "entities": ("entities",)},
}


def rule(kind: str, **kwargs: Any) -> dict[str, Any]:
    return {"type": kind, "kwargs": kwargs, "meta": {"dimension": "validity"}}


def write_suites(folder: Path, again: bool = False) -> None:
    """Write a suite for each key, and that of the cleaned orders; `again`: with other bounds, to judge anew."""
    for key in ("line", "customer_id", "id"):
        write_suite(folder, key, [])
    rules = [
        *(rule("expect_column_values_to_not_be_null", column=c) for c in ("line", "order_id", "shop")),
        *(rule("expect_column_values_to_be_between", column=c, min_value=-9 - again, max_value=30) for c in X),
        rule("expect_column_value_lengths_to_be_between", column="item", min_value=1, max_value=60 + again),
        rule("expect_column_values_to_match_regex", column="item", regex="^[a-z]+ [a-z]+$"),
        rule("expect_column_mean_to_be_between", column="x0", min_value=-1 - again, max_value=20),
        rule("expect_column_values_to_be_unique", column="line"),
    ]
    write_suite(folder, "cleaned", rules)


def write_suite(folder: Path, name: str, rules: list[dict[str, Any]]) -> None:
    column = "line" if name == "cleaned" else name
    least = [
        rule("expect_table_row_count_to_be_between", min_value=1),
        rule("expect_column_to_exist", column=column),
    ]
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({"name": name, "expectations": [*least, *rules]}))


# -- what a run costs


class Watch:
    """The peak memory and the CPU seconds of this process, Spark's driver, executors and their Pythons."""

    def __init__(self) -> None:
        self.peaks: dict[str, float] = {}
        self.own = 0.0  # what looking costs
        self.stopped = threading.Event()
        self.cpu = spent()
        self.driver = self.driver_cpu()
        for process in self.processes():
            with contextlib.suppress(OSError):
                (process / "clear_refs").write_text("5")  # the peak starts anew
        self.thread = threading.Thread(target=self.look, daemon=True)
        self.thread.start()

    def look(self) -> None:
        while not self.stopped.wait(0.5):
            self.note()
        self.own = time.thread_time()

    def note(self) -> None:
        for process in self.processes():
            with contextlib.suppress(OSError, StopIteration):
                lines = (process / "status").read_text().splitlines()
                peak = int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
                role = self.role(process)
                self.peaks[role] = max(self.peaks.get(role, 0.0), peak)

    @staticmethod
    def processes() -> list[Path]:
        """Return the folders of /proc of this process and of all that came of it."""
        parents = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with contextlib.suppress(OSError):
                    parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
        mine = {os.getpid()}
        while more := {p for p, parent in parents.items() if parent in mine} - mine:
            mine |= more
        return [Path(f"/proc/{p}") for p in mine]

    @staticmethod
    def role(process: Path) -> str:
        if process.name == str(os.getpid()):
            return "driver's Python"
        command = (process / "cmdline").read_bytes()
        if b"CoarseGrainedExecutorBackend" in command:
            return "executor"
        return "driver's Java" if b"SparkSubmit" in command else "Python worker"

    def driver_cpu(self) -> float:
        seconds = 0.0
        for process in self.processes():
            with contextlib.suppress(OSError):
                if self.role(process).startswith("driver"):
                    fields = (process / "stat").read_text().rsplit(")", 1)[1].split()
                    seconds += (int(fields[11]) + int(fields[12])) / TICKS
        return seconds

    def stop(self) -> dict[str, float]:
        self.note()
        self.stopped.set()
        self.thread.join()
        memory = {f"{role}, MB": round(peak) for role, peak in self.peaks.items()}
        driver = sum(peak for role, peak in self.peaks.items() if role.startswith("driver"))
        costs = {"cpu": spent() - self.cpu, "driver_cpu": self.driver_cpu() - self.driver}
        cpu = {name: round(seconds - self.own, 2) for name, seconds in costs.items()}
        return {**cpu, **memory, "driver_mb": round(driver)}


def tasks_of(log: Path, since: float) -> dict[str, float]:
    """Return what the tasks that began after a time (milliseconds) read, wrote and held, by Spark's log of events."""
    total = {"shuffle_mb": 0.0, "spill_mb": 0.0, "result_mb": 0.0, "tasks": 0, "written_mb": 0.0}
    largest = {"task_mb": 0.0, "task_seconds": 0.0, "task_shuffle_mb": 0.0}
    shares: dict[int, list[int]] = {}
    for line in log.open():
        if '"SparkListenerTaskEnd"' not in line[:60]:
            continue
        event = json.loads(line)
        info, metrics = event["Task Info"], event.get("Task Metrics")
        if info["Launch Time"] < since or not metrics:
            continue
        read = metrics["Shuffle Read Metrics"]
        fetched = read["Remote Bytes Read"] + read["Local Bytes Read"]
        total["tasks"] += 1
        total["shuffle_mb"] += metrics["Shuffle Write Metrics"]["Shuffle Bytes Written"] / 1e6
        total["spill_mb"] += metrics["Disk Bytes Spilled"] / 1e6
        total["result_mb"] += metrics["Result Size"] / 1e6
        total["written_mb"] += metrics["Output Metrics"]["Bytes Written"] / 1e6
        seconds = (info["Finish Time"] - info["Launch Time"]) / 1e3
        peaks = {"task_mb": metrics["Peak Execution Memory"] / 1e6, "task_seconds": seconds}
        for name, value in {**peaks, "task_shuffle_mb": fetched / 1e6}.items():
            largest[name] = max(largest[name], value)
        shares.setdefault(event["Stage ID"], []).append(read["Total Records Read"])
    # Of the records that a stage reads of a shuffle, the largest share that one task reads; of stages with many.
    many = [max(found) / sum(found) for found in shares.values() if len(found) >= PARTITIONS and sum(found) > 10_000]
    return {**{k: round(v, 3) for k, v in (total | largest).items()}, "task_share": round(max(many, default=0.0), 4)}


# -- one size


def measured(kind: str, size: int, skewed: bool, data: Path, folder: Path, known: set[str]) -> Iterator[dict[str, Any]]:
    """Yield the figures of each verb but those that are known, in the order in which they can be built.

    folder: of the lake; what was landed in it before is not landed again.
    """
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch)
        shutil.rmtree(folder / "lake" / "_staging", ignore_errors=True)  # a killed run's: it would be taken up
        folder.mkdir(exist_ok=True)
        write_suites(folder)
        (folder / "p.yaml").write_text(
            yaml.safe_dump({"pipeline": "p", "suites": ".", "tables": TABLES[kind]}, sort_keys=False)
        )
        settings = {**SETTINGS, "spark.eventLog.dir": str(log)}
        spark = start(settings)
        environment = Environment(lake=str(folder / "lake"), landing=str(data))
        landed = json.loads((data / "about.json").read_text())
        for verb, tables in VERBS[kind].items():
            if verb in known and not verb.startswith("land"):
                continue
            if time.time() > float(os.environ.get(UNTIL, "inf")):
                break
            if verb == "gate":
                write_suites(folder, again=True)
            spark._jvm.System.gc()
            since, began, watch = time.time() * 1e3, time.monotonic(), Watch()
            outcome = run_pipeline(
                load_pipeline(folder / "p.yaml"),
                environment,
                Lake(environment.lake),
                lambda _: spark,
                Progress(watched=False),
                tables=tables,
            )
            seconds, costs = time.monotonic() - began, watch.stop()
            time.sleep(1)  # Spark writes its log beside
            (events,) = (f for f in log.iterdir() if not f.name.startswith("."))
            done = {t.table: t for t in outcome.tables}
            of = [t for t in landed if verb.startswith("land") or t in inputs_of(kind, tables)]
            yield {
                "kind": kind,
                "verb": verb,
                "size": size,
                "skewed": skewed,
                "rows": sum(landed[t]["rows"] for t in of),
                "mb": round(sum(landed[t]["bytes"] for t in of) / 1e6, 3),
                "seconds": round(seconds, 1),
                **costs,
                **tasks_of(events, since),
                "status": {t: [done[t].status, done[t].rows, done[t].rejected] for t in tables},
                "warnings": [w for t in tables for w in done[t].warnings],
            }
        spark.stop()


def inputs_of(kind: str, tables: tuple[str, ...]) -> set[str]:
    """Return the landed tables that the rows of some tables start from."""
    return {str(TABLES[kind][t]["from"]) for t in tables if "from" in TABLES[kind][t]}


def main(kind: str, size: str, skew: str, data: str, out: str) -> None:
    from headgate.transforms.fusion import records

    records.FEW = 0  # in Spark at every size
    figures = json.loads(Path(out).read_text()) if Path(out).exists() else []
    known = {f["verb"] for f in figures}
    folder = Path(out).with_suffix(".lake")
    for found in measured(kind, int(size), skew == "skewed", Path(data), folder, known):
        if found["verb"] not in known:
            figures.append(found)
            Path(out).write_text(json.dumps(figures))
            print(json.dumps({k: found[k] for k in ("verb", "cpu", "shuffle_mb", "seconds")}), flush=True)
    if {f["verb"] for f in figures} == VERBS[kind].keys():
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
