"""The one commit that publishes a build's rows, on top of the version that it was built from."""

import functools
import json
import operator
from collections.abc import Sequence
from typing import Any

from delta.tables import DeltaTable as SparkDeltaTable
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from headgate.jobs.config.models import Publish
from headgate.jobs.errors import HeadgateError, LostRace, UsageError
from headgate.jobs.lake.commits import Published
from headgate.jobs.lake.conflicts import is_conflict
from headgate.jobs.lake.lake import Lake
from headgate.jobs.pipeline.work import Run, Work
from headgate.jobs.pipeline.writing import few_files
from headgate.transforms.rows import FILE, canonical, content_of, quoted


def commit(run: Run, work: Work, rows: DataFrame, facts: dict[str, Any], staged_bytes: int) -> Published:
    """Publish rows in one atomic commit on top of the work's base; raise `LostRace` if another run was there first.

    The commit carries the transaction (table, base + 1): of two writers from the same base, Delta lets the first
    write and silently passes over the second, which then finds the other's mark in the log. What arrived may bring new
    columns.
    """
    spark, lake, table, how, base = run.spark, run.lake, work.table, work.mode, work.base
    replaced_files = work.arrival.replaces if work.arrival else ()
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
            if work.arrival:
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
