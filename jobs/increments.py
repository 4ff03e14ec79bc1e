"""Building a table from what is new alone: what its input gained, and what earlier builds know of the rows before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deltalake import DeltaTable
from pyarrow import fs
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.config import Pipeline
from jobs.deltalog import file_system, history
from jobs.lake import Lake, compact_now_and_then, facts_of
from jobs.planning import TablePlan, build_key
from transforms.rows import ROW_ID
from transforms.step import Comparer


@dataclass
class BuildSpace:
    """The workspace of one build: scratch in Parquet, and for a table that grows by increments an index in Delta.

    folder: of the scratch. index: of the index, a Delta table for each comparing step, whose rows name the build that
    published them. lasting: whether the table grows by increments. builds: those of which its present rows come; none
    where all is built anew.
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
        return rows.where(F.col("build").isin(*self.builds)).drop("build")

    def record(self, name: str, kept: str, columns: Sequence[str]) -> None:
        self.recorded[f"{self.step}-{name}"] = [f"{self.folder}/{self.step}/{kept}", *columns]

    def warn(self, message: str) -> None:
        if message not in self.warnings:
            self.warnings.append(message)


def index_of(lake: Lake, table: str) -> str:
    return f"{lake.root}/_system/index/{table}"


def save_index(
    spark: SparkSession, lake: Lake, table: str, build: str, recorded: Mapping[str, Sequence[str]], published: DataFrame
) -> None:
    """Append what the build's steps recorded of the rows that it publishes, once however often it is tried."""
    for name, (path, *columns) in recorded.items():
        rows = spark.read.parquet(path).select(*columns).join(published.select(ROW_ID), on=ROW_ID, how="left_semi")
        writer = rows.withColumn("build", F.lit(build)).write.format("delta").mode("append")
        once = {"txnAppId": f"headgate:index:{build}", "txnVersion": "1"}
        writer.options(compression="none", **once).save(f"{index_of(lake, table)}/{name}")
        compact_now_and_then(DeltaTable(f"{index_of(lake, table)}/{name}"))


def indexes(lake: Lake, table: str) -> list[str]:
    """The Delta tables of a table's index."""
    files, base = file_system(index_of(lake, table))
    found = files.get_file_info(fs.FileSelector(base, allow_not_found=True))
    return sorted(f"{index_of(lake, table)}/{f.base_name}" for f in found if f.type == fs.FileType.Directory)


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
    if any(pin.as_of or before.get(n, [None, ""])[1] for n, pin in plan.pins.items()):
        return None
    if any(before.get(n) != [pin.version, ""] for n, pin in plan.pins.items() if n != start):
        return None
    for i, step in enumerate(pipeline.steps[table]):
        if isinstance(step, Comparer) and not DeltaTable.is_deltatable(f"{index_of(lake, table)}/{i}-{step.state}"):
            return None
    return gained(lake, start, before[start][0], plan.pins[start].version)


def gained(lake: Lake, table: str, before: int, now: int) -> list[str] | None:
    """The data files that a table gained between two versions; None if anything but gains came between."""
    for commit in lake.need_table(table).history():
        if before < commit["version"] <= now and "build" not in facts_of(commit):
            return None
    files = history(lake.path(table), {before, now}).files
    if not files.keys() >= {before, now} or not files[before] <= files[now]:
        return None
    return sorted(files[now] - files[before])
