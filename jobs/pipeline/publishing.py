"""Writing rows: the staged table, the ledger, and the one commit that publishes."""

import functools
import json
import math
import operator
import re
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import pyarrow.compute as pc
from delta.exceptions import base as delta_errors
from delta.tables import DeltaTable as SparkDeltaTable
from deltalake.exceptions import CommitFailedError
from py4j.protocol import Py4JJavaError
from pyarrow import fs
from pyspark.sql import Column, DataFrame, DataFrameWriter, SparkSession
from pyspark.sql import functions as F

from headgate.expectations.gate import MASK
from headgate.jobs.config.models import Publish
from headgate.jobs.errors import HeadgateError, LostRace, UsageError
from headgate.jobs.lake.lake import Lake, Published
from headgate.jobs.lake.storage import file_system
from headgate.transforms.rows import CONTENT, FILE, FILE_DATE, MADE, REJECTED, ROW_ID, canonical, content_of, quoted

CONFLICTS = (
    delta_errors.DeltaConcurrentModificationException,
    delta_errors.ConcurrentWriteException,
    delta_errors.MetadataChangedException,
    delta_errors.ProtocolChangedException,
    delta_errors.ConcurrentAppendException,
    delta_errors.ConcurrentDeleteReadException,
    delta_errors.ConcurrentDeleteDeleteException,
    delta_errors.ConcurrentTransactionException,
)

MISSING = ("does not exist", "not found", "not_exist", "no such file", "path_not_found", "not a delta table")

TRIES = 5  # of an append that other runs may disturb and that is safe to repeat

FILE_BYTES = 64 << 20

SMALL_FILE_BYTES = 4 << 20

ABANDONED = timedelta(days=1)

KEY_LENGTH = 32  # of the key of staged work, with which the names of its folders begin

LEDGER_COLUMNS = {
    "run_id": "string",
    "build": "string",
    "table": "string",
    "row_id": "string",
    "step": "string",
    "reason": "string",
    "evidence": "map<string,string>",
}


def stage(df: DataFrame, path: str) -> None:
    """Write kept and rejected rows, with their marks and masks, in one pass.

    Plain Parquet: only the build that wrote it reads it, and a table's log would cost more than its rows.
    """
    df.write.mode("overwrite").parquet(path)


def write_ledger(lake: Lake, entries: DataFrame, *, run_id: str, build: str, table: str, expected: int) -> None:
    """Append the rejected rows of a build to the ledger, once however often it is tried.

    entries: row_id, step, reason, evidence. Raises `HeadgateError` if other than `expected` rows were written.
    """
    path = lake.path("ledger")
    constants = {"run_id": run_id, "build": build, "table": table}
    rows = entries.withColumns({name: F.lit(value) for name, value in constants.items()}).select(
        *(F.col(name).cast(kind) for name, kind in LEDGER_COLUMNS.items())
    )
    writer = (
        few_files(rows, expected * 200)
        .write.format("delta")
        .mode("append")
        .partitionBy("table")
        .option("txnAppId", f"headgate:{table}:{build}")
        .option("txnVersion", 1)
        .option("userMetadata", json.dumps({"run_id": run_id, "build": build}))
    )
    append(writer, path)
    delta = lake.open("ledger")
    written = (
        delta.to_pyarrow_dataset().count_rows(filter=(pc.field("table") == table) & (pc.field("build") == build))
        if delta
        else 0
    )
    if written != expected:
        raise HeadgateError(
            f"table '{table}': {expected:,} rows were rejected but the ledger holds {written:,} of them"
        )


def append(writer: DataFrameWriter, path: str) -> None:
    """Append to a Delta table by a writer that carries a transaction, again where another run was in its way."""
    for last in (*[False] * (TRIES - 1), True):
        try:
            writer.save(path)
            return
        except Exception as e:
            if last or not is_conflict(e):
                raise


def publish(
    spark: SparkSession,
    lake: Lake,
    table: str,
    rows: DataFrame,
    how: Publish,
    *,
    base: int,
    staged_bytes: int,
    facts: dict[str, Any],
    replaced_files: Sequence[str],
    evolves: bool,
) -> Published:
    """Publish rows in one atomic commit on top of version `base`; raises `LostRace` if another run was there first.

    The commit carries the transaction (table, base + 1): of two writers from the same base, Delta lets the first
    write and silently passes over the second, which then finds the other's mark in the log.
    replaced_files: of a table with a source, the files whose rows this commit replaces. evolves: whether rows that are
    appended may bring new columns.
    """
    path = lake.path(table)
    current = lake.published(table)
    if (current.version if current else -1) != base:
        raise LostRace(f"table '{table}' was changed by another writer while it was being built; run again")
    if how.sort_by:
        rows = few_files(rows, staged_bytes).sortWithinPartitions(*(F.col(quoted(c)) for c in how.sort_by))
    else:
        rows = few_files(rows, staged_bytes)
    if how.mode == "merge":
        need_unique(table, rows, how.key)
    after = content_after(spark, lake, current, int(facts["content"], 16), path, how, rows, replaced_files)
    facts = {**facts, "content_total": None if after is None else f"{after:016x}"}
    options = {"txnAppId": f"headgate:{table}", "txnVersion": str(base + 1), "userMetadata": json.dumps(facts)}
    try:
        if how.mode == "merge" and base >= 0:
            merge(spark, path, rows, how.key, options)
        else:
            writer = rows.write.format("delta").options(**options)
            if evolves:
                writer = writer.option("mergeSchema", "true")
            if replaced_files:
                names = ", ".join("'" + f.replace("\\", "\\\\").replace("'", "\\'") + "'" for f in replaced_files)
                writer.mode("overwrite").option("replaceWhere", f"{FILE} IN ({names})").save(path)
            elif how.mode == "append":
                writer.mode("append").save(path)
            else:
                writer.option("mergeSchema", "false").mode("overwrite").option("overwriteSchema", "true").save(path)
    except Exception as e:
        if is_conflict(e):
            raise LostRace(f"table '{table}' was changed by another writer while it was published; run again") from e
        raise
    written = lake.last_output_rows(table)
    done = lake.published(table)
    if done is None or done.facts.get("run_id") != facts["run_id"] or done.facts.get("build") != facts["build"]:
        raise LostRace(f"another run published table '{table}' first; run again to build on it")
    expected = facts["rows"]["published"]
    if how.mode != "merge" and not replaced_files and written != expected:
        raise HeadgateError(f"table '{table}': {expected:,} rows were to be published, the commit holds {written:,}")
    return done


def need_unique(table: str, rows: DataFrame, key: Sequence[str]) -> None:
    """Raise `UsageError` for rows that are equal in the key by which they are merged."""
    keys = [F.col(quoted(c)) for c in key]
    repeated = rows.groupBy(*keys).agg(F.count("*").alias("_hg_n")).where("_hg_n > 1").orderBy(*keys).first()
    if repeated is not None:
        named = ", ".join(f"{c}={v}" for c, v in zip(key, repeated, strict=False))
        raise UsageError(
            f"table '{table}' has {repeated['_hg_n']} rows with {named}: the key of a merge must be unique. "
            "Put drop_duplicates before, or merge by more columns"
        )


def is_conflict(error: BaseException) -> bool:
    """Whether Delta refused a commit because of another writer; some reach Python bare, as an error of py4j."""
    if isinstance(error, Py4JJavaError):
        return "io.delta.exceptions." in str(error.java_exception)
    return isinstance(error, CONFLICTS)


def comes_from_another_run(error: BaseException | None, folders: Sequence[str]) -> bool:
    """Whether an error, or what caused it, is a conflict, or a file that another run removed from these folders."""
    while error is not None:
        text = f"{error} {getattr(error, 'java_exception', '')}"
        gone = any(word in text.lower() for word in MISSING) and any(f in text for f in folders)
        if gone or is_conflict(error) or isinstance(error, CommitFailedError):
            return True
        error = error.__cause__
    return False


def merge(spark: SparkSession, path: str, rows: DataFrame, key: tuple[str, ...], options: dict[str, str]) -> None:
    """Update the rows whose key is there, insert the others, leave unchanged ones alone."""
    kinds = {f.name: f.dataType for f in rows.schema.fields}

    def alike(column: str) -> Column:
        sides = [F.col(f"_hg_{side}.{quoted(column)}") for side in "ts"]
        if "map<" in kinds[column].simpleString():  # Spark compares no maps
            sides = [canonical(side, kinds[column]) for side in sides]
        return sides[0].eqNullSafe(sides[1])

    target = SparkDeltaTable.forPath(spark, path)
    there = target.toDF().columns
    matches = functools.reduce(operator.and_, map(alike, key))
    differs = [
        ~alike(c) if c in there else F.col(f"_hg_s.{quoted(c)}").isNotNull() for c in rows.columns if c not in key
    ]
    settings = {
        "spark.databricks.delta.write.txnAppId": options["txnAppId"],
        "spark.databricks.delta.write.txnVersion": options["txnVersion"],
        "spark.databricks.delta.commitInfo.userMetadata": options["userMetadata"],
    }
    try:
        for name, value in settings.items():
            spark.conf.set(name, value)
        (
            target.alias("_hg_t")
            .merge(rows.alias("_hg_s"), matches)
            .withSchemaEvolution()
            .whenMatchedUpdateAll(condition=functools.reduce(operator.or_, differs) if differs else None)
            .whenNotMatchedInsertAll()
            .execute()
        )
    finally:
        for name in settings:
            spark.conf.unset(name)


def few_files(rows: DataFrame, size: int) -> DataFrame:
    """Fewer, larger files without a shuffle; small tables are still written by all cores."""
    cores = rows.sparkSession.sparkContext.defaultParallelism
    return rows.coalesce(max(1, math.ceil(size / FILE_BYTES), min(cores, math.ceil(size / SMALL_FILE_BYTES))))


def published_columns(staged: DataFrame, raw: bool) -> list[str]:
    """What readers get of a staged table: its data, then the bookkeeping of identity, changes and parents."""
    left_out = {REJECTED, MADE, CONTENT} | (set() if raw else {FILE, FILE_DATE})
    return [c for c in staged.columns if c not in left_out and not re.fullmatch(rf"{MASK}(_\d+)?", c)]


def content_after(
    spark: SparkSession,
    lake: Lake,
    before: Published | None,
    added: int,
    path: str,
    how: Publish,
    rows: DataFrame,
    files: Sequence[str],
) -> int | None:
    """The sum of the hashes of all rows that a table will hold; None where that is not known.

    What a commit replaces is taken away: only the rows of the replaced files, or of the merged keys, are read. Where
    the version before has none on record, as after another writer's commit, all of its rows are read once. It is not
    known where the columns change.
    """
    if before is None or (how.mode == "replace" and not files):
        return added
    old = spark.read.format("delta").option("versionAsOf", before.version).load(path)
    if set(old.columns) != set(rows.columns):
        return None
    total = int(lake.content_total(before.table, before.version) or content_of(old)[1], 16) + added
    if how.mode == "append" and not files:
        return total % (1 << 64)
    if files:
        gone = old.where(F.col(FILE).isin(list(files)))
    else:
        keys = rows.select(*(F.col(quoted(c)).alias(f"_hg_key{i}") for i, c in enumerate(how.key)))
        match = functools.reduce(
            operator.and_, (F.col(quoted(c)).eqNullSafe(F.col(f"_hg_key{i}")) for i, c in enumerate(how.key))
        )
        gone = old.join(keys, on=match, how="left_semi")
    return (total - int(content_of(gone)[1], 16)) % (1 << 64)


def ledger_entries(staged: DataFrame, quarantined: Column, reason: Column) -> DataFrame:
    """row_id, step, reason, evidence of the rows that a step rejected or the gate quarantines."""
    mark = F.col(REJECTED)
    return staged.where(mark.isNotNull() | quarantined).select(
        F.col(ROW_ID).alias("row_id"),
        F.coalesce(mark["step"], F.lit("gate")).alias("step"),
        F.coalesce(mark["reason"], F.lit("fails a row rule")).alias("reason"),
        F.coalesce(mark["evidence"], F.create_map(F.lit("rules"), reason)).alias("evidence"),
    )


def remove_abandoned(folder: str) -> None:
    """Remove what runs that died left in a table's staging area, once it is a day old: until then a run may use it.

    What belongs to one key goes together, the marker first, so that none names what is gone.
    """
    files, base = file_system(folder)
    works: dict[str, list[fs.FileInfo]] = {}
    for child in sorted(files.get_file_info(fs.FileSelector(base, allow_not_found=True)), key=lambda f: f.path):
        works.setdefault(child.base_name[:KEY_LENGTH], []).append(child)
    for children in works.values():
        inside = [
            f
            for c in children
            for f in files.get_file_info(fs.FileSelector(c.path, recursive=True, allow_not_found=True))
        ]
        newest = max((f.mtime for f in (*children, *inside) if f.mtime), default=None)
        if newest is not None and datetime.now(timezone.utc) - newest.astimezone(timezone.utc) > ABANDONED:
            for child in children:
                files.delete_dir(child.path)
