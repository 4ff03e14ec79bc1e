"""Building a table from what is new alone: what its inputs gained, and what earlier builds know of the rows before."""

from collections.abc import Collection, Mapping, Sequence

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from headgate.jobs.config.pipeline import Pipeline
from headgate.jobs.lake.artifacts import index_of, indexes
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.log import moved_files
from headgate.jobs.lake.storage import has_table, open_table, remove
from headgate.jobs.lake.system import compact_now_and_then
from headgate.jobs.pipeline.context import BUILD
from headgate.jobs.pipeline.planning import TablePlan
from headgate.jobs.pipeline.work import config_key
from headgate.jobs.pipeline.writing import append_once
from headgate.transforms.rows import ROW_ID


def save_index(
    spark: SparkSession, lake: Lake, table: str, build: str, recorded: Mapping[str, Sequence[str]], published: DataFrame
) -> None:
    """Append what the build's steps recorded of the rows that it publishes, once however often it is tried."""
    for name, (path, *columns) in recorded.items():
        rows = spark.read.parquet(path).select(*columns).join(published.select(ROW_ID), on=ROW_ID, how="left_semi")
        rows, index = rows.withColumn(BUILD, F.lit(build)), f"{index_of(lake, table)}/{name}"
        append_once(rows, index, f"headgate:index:{build}", {"build": build}, compression="none")
        compact_now_and_then(open_table(f"{index_of(lake, table)}/{name}"))


def save_ties(spark: SparkSession, lake: Lake, table: str, recorded: Mapping[str, Sequence[str]]) -> None:
    """Write what a build knows of the ties of all rows of its inputs, once however often it is tried."""
    for name, (path, *columns) in recorded.items():
        rows = spark.read.parquet(path).select(*columns)
        append_once(rows, f"{index_of(lake, table)}/{name}", f"headgate:{name}", {}, compression="none")


def drop_indexes(lake: Lake, table: str, but: Collection[str]) -> None:
    """Remove the indexes that a table's builds recorded under another configuration, or of other inputs."""
    for index in indexes(lake, table):
        if index.rsplit("/", 1)[1] not in but:
            remove(index)


def new_part(pipeline: Pipeline, lake: Lake, plan: TablePlan) -> dict[str, list[str]] | None:
    """Return the files that the tables which one starts from gained since its last build, by table.

    None where it must be built anew: something else changed, or what earlier builds recorded is not there.
    """
    table = plan.table
    configured = pipeline.tables[table]
    if configured.publish.mode != "increment" or plan.current is None or plan.forced:
        return None
    facts, before, starts = plan.current.facts, plan.before, configured.starts
    if facts.get("config") != config_key(pipeline, table) or not set(starts) <= set(before):
        return None
    if any(start in step.tables() for step in pipeline.steps[table] for start in starts):
        return None  # new rows may match rows of before
    if any(pin.as_of or before.get(n, [None, ""])[1] for n, pin in plan.pins.items()):
        return None
    if any(before.get(n) != pin.as_recorded() for n, pin in plan.pins.items() if n not in starts):
        return None
    names: Sequence[str] = facts.get("indexes") or ()
    for i, step in enumerate(pipeline.steps[table]):
        mine = [n for n in names if n.startswith(f"{i}-{step.name}-") and n.endswith(f"-{step.state}")]
        if step.state and not mine:
            return None
    if not all(has_table(f"{index_of(lake, table)}/{name}") for name in names):
        return None
    part = {}
    for start in starts:
        then, now = before[start][0], plan.pins[start].version
        files = gained(lake, start, then, now)
        if files is None or columns_of(lake, start, then) != columns_of(lake, start, now):
            return None
        part[start] = files
    return part


def columns_of(lake: Lake, table: str, version: int) -> list[tuple[str, str]]:
    """The columns of a version of a table with their types."""
    delta = lake.open(table, version)
    return [(f.name, str(f.type)) for f in delta.schema().fields] if delta else []


def gained(lake: Lake, table: str, before: int, now: int) -> list[str] | None:
    """The data files that a table gained between two versions; None if all else came between, or one is not there."""
    moved = moved_files(lake.path(table), before, now)
    if moved is None or moved[0] or not lake.has_files(table, moved[1]):
        return None
    return sorted(moved[1])
