"""Staged work: the rows of a build written once, beside them the bits of its gate, and a marker that names both."""

import dataclasses
from datetime import datetime, timedelta, timezone

from deltalake import DeltaTable
from pyarrow import fs
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame
from pyspark.sql import types as T

from headgate.expectations.gate import MASK, Gate
from headgate.expectations.suites import SuiteError
from headgate.jobs.config.models import FileSource
from headgate.jobs.errors import UsageError, source_failure
from headgate.jobs.lake.artifacts import read_small, write_small
from headgate.jobs.lake.storage import file_system, size_of
from headgate.jobs.pipeline.layout import published_columns
from headgate.jobs.pipeline.prepare import prepare, scratch_of
from headgate.jobs.pipeline.work import KEY_LENGTH, Run, Staged, Work
from headgate.jobs.sources.files import assert_unchanged
from headgate.transforms.rows import CONTENT, content_hash

ABANDONED = timedelta(days=1)
UNJUDGED = "no gate"  # for the key of the rules whose bits are staged: there is none,
BROKEN = "no bits"  # or a row condition raises on some row


def marker_of(run: Run, work: Work) -> str:
    return f"{run.lake.staging(work.table)}/{work.key}"


def taken_up(run: Run, work: Work) -> Staged | None:
    """Return what a run that died left of the same work, whole; None if there is nothing."""
    marker = marker_of(run, work)
    if not DeltaTable.is_deltatable(marker):
        return None
    left = Staged(**read_small(marker))
    folders = [left.path, *(path for path, *_ in left.recorded.values())]
    return left if all(size_of(folder) for folder in folders) else None


def stage(run: Run, work: Work, gate: Gate | None, rules: str) -> Staged:
    """Make the rows of a build and write them, kept and rejected, with their marks and masks, in one pass.

    Plain Parquet: only the build that wrote it reads it, and a table's log would cost more than its rows. Each run
    stages in a folder of its own, so that two at once do not write over each other.
    """
    table, path = work.table, f"{marker_of(run, work)}-{run.run_id}"
    with run.progress.phase(table, "steps"):
        made = prepare(run, work, scratch_of(run, work))
        masks = masks_of(gate, made.rows)
        content = {CONTENT: content_hash(made.rows, published_columns(made.rows, raw=work.arrival is not None))}
        rows = made.rows.withColumns({**masks, **content})
    with run.progress.phase(table, "stage"):
        try:
            rows.write.mode("overwrite").parquet(path)
        except PySparkException as e:
            # Perhaps a row rule raises on some row. If a step does, it does so again.
            if gate is None or source_failure(e) is not None:
                raise
            gate.without_masks(str(e).splitlines()[0])
            rules, rows = BROKEN, made.rows.withColumns(content)
            rows.write.mode("overwrite").parquet(path)
        if isinstance(run.pipeline.tables[table].source, FileSource):
            assert_unchanged(run.environment.landing, work.files)
        staged = Staged(
            path=path,
            schema=rows.schema.jsonValue(),
            rows_in=made.rows_in,
            recorded=dict(made.recorded),
            lineage=dataclasses.asdict(made.lineage) if made.lineage else None,
            masks=rules if gate else UNJUDGED,
            warnings=list(made.warnings),
        )
        write_small(marker_of(run, work), dataclasses.asdict(staged))
    return staged


def masks_of(gate: Gate | None, rows: DataFrame) -> dict[str, Column]:
    """Return the bits of the gate's row rules; raise `UsageError` for a rule that these rows cannot have."""
    try:
        return gate.masks(rows) if gate else {}
    except SuiteError as e:
        raise UsageError(str(e)) from e


def staged_rows(run: Run, staged: Staged, gate: Gate | None, rules: str, anew: bool) -> DataFrame:
    """Return the staged rows with the bits of the gate as it is now.

    anew: whether this run staged them. Of rows that a dead run staged, the bits beside them are taken where they are of
    the same rules; where the suite changed since, its rules are judged on what was staged.
    """
    rows = run.spark.read.schema(T.StructType.fromJson(staged.schema)).parquet(staged.path)
    if gate is None or anew:
        return rows
    plain = rows.drop(*(c for c in rows.columns if c.startswith(MASK)))
    masks = masks_of(gate, plain.drop(CONTENT))
    if staged.masks == rules:
        return rows
    if staged.masks == BROKEN:
        gate.without_masks()
        return plain
    return plain.withColumns(masks)


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
