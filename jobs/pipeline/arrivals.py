"""Arrivals, all that a table's source has that is new: files that landed, or rows that a pull-based source gave."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headgate.jobs.config.columns import name_of
from headgate.jobs.config.models import FileSource, Publish, PullSource
from headgate.jobs.errors import FileRefused
from headgate.jobs.lake.storage import remove
from headgate.jobs.lake.system import SAME_CONTENT, now
from headgate.jobs.pipeline.planning import TablePlan
from headgate.jobs.pipeline.records import record_files
from headgate.jobs.pipeline.work import Arrival, Run
from headgate.jobs.sources.base import source_name
from headgate.jobs.sources.delta import with_delta_facts
from headgate.jobs.sources.files import (
    columns_before,
    columns_known,
    count_records,
    fingerprint,
    read_files,
    with_columns_of,
)
from headgate.jobs.sources.landing import LandedFile
from headgate.jobs.sources.policy import apply_file_policy
from headgate.jobs.sources.pull import pull
from headgate.jobs.sources.rows import with_identity
from headgate.transforms.deduplication.exact import DropDuplicates
from headgate.transforms.rows import (
    FILE,
    FILE_DATE,
    OWN,
    REJECTED,
    ROW_ID,
    Rejection,
    content_key,
    local_frame,
    quoted,
    reject,
    with_bookkeeping,
)


def arrival_of(run: Run, plan: TablePlan) -> Arrival | None:
    """Return what a table's source has that is new; None where it turns out to hold what it held before."""
    source = run.pipeline.tables[plan.table].source
    run.lake.forget_unpublished_files(plan.table)
    with run.progress.phase(plan.table, "ingest"):
        return new_files_of(run, plan, source) if isinstance(source, FileSource) else pulled(run, plan, source)


def new_files_of(run: Run, plan: TablePlan, source: FileSource) -> Arrival | None:
    """Return the files whose content is new; those that replace an earlier content replace its rows."""
    landing, spark, table = run.environment.landing, run.spark, plan.table
    taken: list[LandedFile] = []
    changed, touched = [], []
    before_all = columns_known(plan.known.values()) if source.format != "delta" else {}
    if source.format == "delta":
        taken = [apply_file_policy(source, with_delta_facts(spark, landing, f), None) for f in plan.fresh]
        changed = [f.path for f in plan.fresh]
    else:
        reference, known = columns_before(plan.known.values()), before_all
        for file in fingerprint(spark, landing, source, plan.fresh):
            before = plan.known.get(file.path)
            if before is not None and before["sha256"] == file.sha256:
                touched.append(replace(file, problem=before.get("problem")))
                continue
            if before is not None:
                if source.on_changed_file == "refuse" and not before.get("problem"):
                    how = "shrank" if file.size < before["size"] else "changed"
                    sizes = f"({before['size']:,} bytes then, {file.size:,} now)"
                    raise FileRefused(
                        f"{file.path}: the file {how} since it was taken up {sizes}",
                        ". Put it back, or set source.on_changed_file: replace",
                        "put it back as it was",
                    )
                changed.append(file.path)
            file = apply_file_policy(source, file, reference, known)
            if file.problem is None and file.columns is not None:
                reference, known = reference or dict(file.columns), with_columns_of(known, file.columns)
            if file.problem is not None:
                run.progress.tell("warning", table=table, message=f"set aside {file.path}: {file.problem}")
            elif not file.size:
                run.progress.tell("warning", table=table, message=f"{file.path} is empty (0 bytes): it brings no rows")
            taken.append(file)
    if touched and plan.current:
        last = run.lake.last_build(table) or {}
        record_files(run, table, touched, last.get("base", plan.base), SAME_CONTENT)
    if not taken:
        return None
    # A commit that replaces rows may hold none of other files: those that are new have none to be replaced.
    replaced = tuple(f.path for f in taken) if changed and plan.base >= 0 else ()
    return Arrival(
        taken,
        lambda: landed_rows(run, table, taken, before_all),
        count_records(taken),
        Publish(mode="append"),
        replaced,
    )


def landed_rows(run: Run, table: str, files: list[LandedFile], known: Mapping[str, str]) -> DataFrame:
    """Return the rows of files; `known`: the columns of the files that were taken up before them."""
    source = run.pipeline.tables[table].source
    assert isinstance(source, FileSource)
    return read_files(run.spark, run.environment.landing, source, table, files, known)


def pulled(run: Run, plan: TablePlan, source: Any) -> Arrival | None:
    """Return what a pull-based source has that is not yet in the table."""
    table, name = plan.table, source_name(source)
    before = plan.known.get(name, {})
    scratch = f"{run.lake.staging(table)}/pulled-{run.run_id}"
    found = pull(run.spark, source, run.pipeline.code[table], before.get("watermark"), scratch)
    rows = with_identity(found.rows, table, found.schema, source)
    day = F.lit(run.as_of or datetime.now(timezone.utc).date()).cast("date").alias(FILE_DATE)
    columns = found.schema.names
    rows = rows.select(*(F.col(quoted(c)) for c in columns), ROW_ID, FILE, day, REJECTED)
    whole = source.watermark is None
    if not whole and plan.base >= 0:
        there = run.read(table, plan.base)
        if table in run.pipeline.raw_of:
            there = there.select(*(F.col(quoted(c)).alias(name_of(c)) for c in there.columns))
        rows = not_yet_in(rows, there, source, columns)
    count = rows.count()
    nothing_new = before.get("sha256") == found.sha256 if whole else not count
    if nothing_new and plan.base >= 0:
        remove(scratch)
        return None
    landed = LandedFile(
        name,
        None,
        count,
        now(),
        sha256=found.sha256,
        records=count,
        watermark=found.watermark or before.get("watermark"),
    )
    merged = Publish(mode="merge", key=(ROW_ID,))
    how = Publish(mode="replace") if whole else merged if source.key else Publish(mode="append")
    return Arrival([landed], lambda: newest_of_each(rows, source), count, how, scratch=scratch)


def arrived(run: Run, rows: DataFrame) -> DataFrame:
    """Return rows that arrived with their bookkeeping; those that were erased on request are rejected."""
    erased = sorted({i for e in run.lake.erasures for i in e["row_ids"]})
    df = with_bookkeeping(rows)
    if not erased:
        return df
    known = F.broadcast(local_frame(run.spark, [(i,) for i in erased], "_hg_erased string"))
    again = Rejection(F.col("_hg_erased").isNotNull(), "erased_on_request", {})
    joined = df.join(known, on=F.col(ROW_ID) == F.col("_hg_erased"), how="left")
    return reject(joined, "ingest", again).drop("_hg_erased")


def not_yet_in(rows: DataFrame, table: DataFrame, source: PullSource, columns: list[str]) -> DataFrame:
    """Return the rows of a look-back without the records whose newest form the table has, or has a newer one of.

    Without a key a record is its content, so that one that is there has nothing new. Rows that were rejected come
    again, and are judged again.
    """
    there = table.select(ROW_ID)
    if not source.key:
        return rows.join(there, on=ROW_ID, how="left_anti")
    mark = quoted(str(source.watermark))
    shared = [c for c in columns if c in table.columns]
    newest = rows.groupBy(ROW_ID).agg(F.max(mark).alias("mark"))
    present = table.select(
        ROW_ID,
        content_key(table, shared).alias("there"),
        *([F.col(mark).alias("at")] if source.watermark in table.columns else []),
    )
    asked = rows.select(ROW_ID, content_key(rows, shared).alias("content"), F.col(mark).alias("own"))
    both = asked.join(newest, on=ROW_ID).join(present, on=ROW_ID)
    same = (F.col("own").eqNullSafe(F.col("mark"))) & (F.col("content") == F.col("there"))
    later = F.col("at") > F.col("mark") if "at" in present.columns else F.lit(False)
    settled = both.where(same | later).select(ROW_ID).distinct()
    return rows.join(settled, on=ROW_ID, how="left_anti")


def newest_of_each(rows: DataFrame, source: PullSource) -> DataFrame:
    """Return the rows with all forms of a record marked but the one of the highest watermark."""
    older = ("ingest", "superseded_record")
    if source.watermark is None:
        return DropDuplicates(columns=(ROW_ID,)).marked(rows, None, *older)
    ordered = rows.withColumn(f"{OWN}mark", F.col(quoted(source.watermark)))
    return DropDuplicates(columns=(ROW_ID,), keep=f"{OWN}mark desc").marked(ordered, None, *older).drop(f"{OWN}mark")
