"""Building a table from what is new alone: what its input gained, and what earlier builds know of the rows before."""

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deltalake import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from headgate.jobs.config.pipeline import Pipeline
from headgate.jobs.lake.artifacts import index_of, indexes
from headgate.jobs.lake.lake import Lake, facts_of
from headgate.jobs.lake.log import history
from headgate.jobs.lake.storage import remove
from headgate.jobs.lake.system import compact_now_and_then
from headgate.jobs.pipeline.planning import TablePlan, build_key
from headgate.jobs.pipeline.publishing import append
from headgate.transforms.rows import OWN, ROW_ID
from headgate.transforms.step import Comparer, Step
from headgate.version import VERSION

BUILD = f"{OWN}build"  # in an index: the build that published the row


@dataclass
class BuildSpace:
    """The workspace of one build: scratch in Parquet, and for a table that grows by increments an index in Delta.

    folder: of the scratch. index: of the index, a Delta table for each comparing step, whose rows name the build that
    published them. lasting: whether the table grows by increments. builds: those of which its present rows come; none
    where all is built anew. step: the name of the step at work, by `step_name`.
    """

    spark: SparkSession
    folder: str
    index: str
    lasting: bool = False
    builds: tuple[str, ...] = ()
    recorded: dict[str, list[str]] = field(default_factory=dict)  # name -> where in the scratch, and the columns
    step: str = ""
    warnings: list[str] = field(default_factory=list)

    def keep(self, df: DataFrame, name: str) -> DataFrame:
        path = f"{self.folder}/{self.step}/{name}"
        # Hashes do not compress (nor do they in the index), and no dictionary of them is of use.
        plain = df.write.mode("overwrite").option("compression", "none").option("parquet.enable.dictionary", "false")
        plain.parquet(path)
        return self.spark.read.schema(df.schema).parquet(path)

    def known(self, name: str) -> DataFrame | None:
        if not self.builds:
            return None
        rows = self.spark.read.format("delta").load(f"{self.index}/{self.step}-{name}")
        return rows.where(F.col(BUILD).isin(*self.builds)).drop(BUILD)

    def record(self, name: str, kept: str, columns: Sequence[str]) -> None:
        self.recorded[f"{self.step}-{name}"] = [f"{self.folder}/{self.step}/{kept}", *columns]

    def warn(self, message: str) -> None:
        if message not in self.warnings:
            self.warnings.append(message)


def step_name(steps: Sequence[Step], i: int, df: DataFrame) -> str:
    """Name a step within a table by all that decides what it records of the rows `df`.

    That is the steps up to it with their options, the columns that reach it with their types, headgate's version. So
    what another configuration recorded is never taken for its own.
    """
    upto = [{s.name: dataclasses.asdict(s)} for s in steps[: i + 1]]
    facts = json.dumps([VERSION, upto, df.dtypes], sort_keys=True, default=str)
    return f"{i}-{steps[i].name}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"


def save_index(
    spark: SparkSession, lake: Lake, table: str, build: str, recorded: Mapping[str, Sequence[str]], published: DataFrame
) -> None:
    """Append what the build's steps recorded of the rows that it publishes, once however often it is tried."""
    for name, (path, *columns) in recorded.items():
        rows = spark.read.parquet(path).select(*columns).join(published.select(ROW_ID), on=ROW_ID, how="left_semi")
        writer = rows.withColumn(BUILD, F.lit(build)).write.format("delta").mode("append")
        once = {"txnAppId": f"headgate:index:{build}", "txnVersion": "1"}
        append(writer.options(compression="none", **once), f"{index_of(lake, table)}/{name}")
        compact_now_and_then(DeltaTable(f"{index_of(lake, table)}/{name}"))


def drop_indexes(lake: Lake, table: str, but: Collection[str]) -> None:
    """Remove the indexes that a table's steps recorded under another configuration."""
    for index in indexes(lake, table):
        if index.rsplit("/", 1)[1] not in but:
            remove(index)


def config_key(pipeline: Pipeline, table: str) -> str:
    """A hash of all that decides a table's content but its inputs."""
    return build_key(pipeline, table, {})


def new_part(pipeline: Pipeline, lake: Lake, plan: TablePlan) -> list[str] | None:
    """The files that a table's `from` gained since the last build, if they are all that changed; None: build anew."""
    table = plan.table
    if pipeline.tables[table].publish.mode != "increment" or plan.current is None:
        return None
    facts, start = plan.current.facts, str(pipeline.tables[table].from_)
    before: Mapping[str, Any] = facts.get("inputs") or {}
    if facts.get("config") != config_key(pipeline, table) or start not in before or plan.forced:
        return None
    if any(start in step.tables() for step in pipeline.steps[table]):
        return None  # new rows may match rows of before
    if any(pin.as_of or before.get(n, [None, ""])[1] for n, pin in plan.pins.items()):
        return None
    if any(before.get(n) != [pin.version, ""] for n, pin in plan.pins.items() if n != start):
        return None
    names: Sequence[str] = facts.get("indexes") or ()
    for i, step in enumerate(pipeline.steps[table]):
        mine = [n for n in names if n.startswith(f"{i}-{step.name}-") and n.endswith(f"-{getattr(step, 'state', '')}")]
        if isinstance(step, Comparer) and not mine:
            return None
    if not all(DeltaTable.is_deltatable(f"{index_of(lake, table)}/{name}") for name in names):
        return None
    then, now = before[start][0], plan.pins[start].version
    files = gained(lake, start, then, now)
    if files is not None and columns_of(lake, start, then) != columns_of(lake, start, now):
        return None
    return files


def columns_of(lake: Lake, table: str, version: int) -> list[tuple[str, str]]:
    """The columns of a version of a table with their types."""
    delta = lake.open(table, version)
    return [(f.name, str(f.type)) for f in delta.schema().fields] if delta else []


def gained(lake: Lake, table: str, before: int, now: int) -> list[str] | None:
    """The data files that a table gained between two versions; None if anything but gains came between."""
    for commit in lake.need_table(table).history():
        if before < commit["version"] <= now and "build" not in facts_of(commit):
            return None
    files = history(lake.path(table), {before, now}).files
    if not files.keys() >= {before, now} or not files[before] <= files[now]:
        return None
    return sorted(files[now] - files[before])
