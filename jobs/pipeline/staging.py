"""Staged work: the rows of a build as data files below their table that no commit names yet, split by their fate.

Each row is written once. The files of the kept ones are published as they are; beside the columns that a table shows
they hold the bits of its gate and the marks of its build, which no schema names and every reader passes over.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone

from pyarrow import fs
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from headgate.expectations.gate import MASK, Gate
from headgate.expectations.suites import SuiteError
from headgate.jobs.config.models import FileSource
from headgate.jobs.errors import HeadgateError, UsageError, first_line, source_failure
from headgate.jobs.lake.artifacts import read_small, write_small
from headgate.jobs.lake.datafiles import DataFile, data_files
from headgate.jobs.lake.frames import parquet
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.leftovers import claim, folder_in, release, remove_unnamed
from headgate.jobs.lake.sessions import observation
from headgate.jobs.lake.storage import file_system, remove
from headgate.jobs.lake.transaction import need_plain
from headgate.jobs.pipeline.affected import affected, changes_of, ids_at, renews
from headgate.jobs.pipeline.fitted import load_fitted
from headgate.jobs.pipeline.layout import laid_out, published_columns
from headgate.jobs.pipeline.prepare import prepare, scratch_of
from headgate.jobs.pipeline.work import KEY_LENGTH, SCRATCH, Prepared, Run, Staged, Work
from headgate.jobs.pipeline.writing import columns_before, conformed, few_files, merged, need_held, parquet_writer
from headgate.jobs.sources.files import assert_unchanged
from headgate.transforms.rows import (
    CONTENT,
    MADE,
    REJECTED,
    content_hash,
    hash_sum,
    quoted,
    total_of,
)
from headgate.transforms.step import Step
from headgate.words import cell

ROW_BYTES = 200  # of a row whose size is not known
ABANDONED = timedelta(days=1)
BROKEN = "no bits for"  # before the key of rules of which a row condition raises on some row
STALE = "other rules"  # for the key of the rules whose bits are staged: they are made anew

KEPT, QUARANTINED, REJECTS = "kept", "quarantined", "rejected"  # the fates of rows


def marker_of(run: Run, work: Work) -> str:
    return f"{run.lake.staging(work.table)}/{work.key}.json"


def taken_up(run: Run, work: Work, gate: Gate | None, rules: str) -> Staged | None:
    """Return what a run that died left of the same work, whole; None if there is nothing.

    Where the rules changed that judge rows, their bits are made anew: none of them decides the fate of a row.
    """
    left = read_small(marker_of(run, work))
    if left is None or left.keys() != {f.name for f in dataclasses.fields(Staged)}:
        return None
    staged = Staged(**(left | {"files": {k: [DataFile(**f) for f in found] for k, found in left["files"].items()}}))
    claim(run.lake, work.table, work.key, run.run_id, staged.folder)
    scratch = [path for path, *_ in staged.recorded.values()] + ([staged.affected] if staged.affected else [])
    files = [f for found in staged.files.values() for f in found]
    if not are_there(run.lake, work.table, files) or not all(map(has_files, scratch)):
        return None
    broken = staged.masks.startswith(BROKEN)
    if broken and staged.masks != f"{BROKEN} {rules}":
        return None
    if gate is not None and broken:
        gate.without_masks()
    elif gate is not None and staged.masks == rules:
        rows = staged_rows(run, work, staged, None, KEPT)
        masks_of(gate, rows.drop(*(c for c in rows.columns if c.startswith(MASK))))
    elif gate is not None:
        staged = dataclasses.replace(staged, masks=STALE)
    return staged


def are_there(lake: Lake, table: str, files: Sequence[DataFile]) -> bool:
    """Return whether data files are there as they were written."""
    system, base = file_system(lake.path(table))
    wanted = {f"{base}/{f.path}": f.size for f in files}
    return not wanted or {f.path: f.size for f in system.get_file_info(list(wanted))} == wanted


def has_files(folder: str) -> bool:
    files, base = file_system(folder)
    return bool(files.get_file_info(fs.FileSelector(base, allow_not_found=True)))


def stage(run: Run, work: Work, gate: Gate | None, rules: str) -> Staged:
    """Make the rows of a build and write them, with their marks and masks, in one pass.

    Each run stages in a folder of its own, so that two at once do not write over each other.
    """
    table, before = work.table, columns_before(run, work)
    there = run.lake.open(table, work.base) if work.base >= 0 else None
    if there is not None:
        need_plain(there, all_replaced=work.replaces_all)
    with run.progress.phase(table, "steps"):
        scratch = scratch_of(run, work)
        renewing = work.moved is not None and renews(steps_of(run, work))
        changes = changes_of(run, work, scratch) if renewing else None
        ids, ties = affected(run, work, scratch) if work.moved is not None and not renewing else (None, {})
        made = prepare(run, work, scratch, only=None if ids is None else ids_at(run, ids), changes=changes)
        ids = made.replaced if renewing else ids
        rows = conformed(made.rows, before)
        need_held(table, rows.schema)
        merged(table, before, T.StructType([rows.schema[c] for c in published_columns(rows, work.arrival is not None)]))
        masks = masks_of(gate, rows)
    with run.progress.phase(table, "stage"):
        claim(run.lake, table, work.key, run.run_id, folder_of(run, work))
        try:
            written = write(run, work, rows, made, masks, gate)
        except PySparkException as e:
            # Perhaps a row rule raises on some row. If a step does, it does so again.
            if gate is None or source_failure(e) is not None:
                raise
            gate.without_masks(cell(first_line(e)))
            rules = f"{BROKEN} {rules}"
            written = write(run, work, rows, made, {}, gate)
        if isinstance(run.pipeline.tables[table].source, FileSource):
            assert_unchanged(run.environment.landing, work.files)
        staged = dataclasses.replace(written, masks=rules, affected=ids, recorded=written.recorded | ties)
        write_small(marker_of(run, work), dataclasses.asdict(staged))
    return staged


def steps_of(run: Run, work: Work) -> Sequence[Step]:
    """Return the steps of a build as they are applied, but for those that learn anew."""
    steps = run.pipeline.steps[work.table]
    return steps if work.state is None else load_fitted(run.lake, work.table, steps, work.state)


def write(run: Run, work: Work, rows: DataFrame, made: Prepared, masks: dict[str, Column], gate: Gate | None) -> Staged:
    """Write rows to a folder of the run below their table, by fate; count them, and sum the hashes of the kept ones."""
    folder = folder_of(run, work)
    path = f"{run.lake.path(work.table)}/{folder}"
    columns = published_columns(rows, raw=work.arrival is not None)
    taken = {c.lower() for c in rows.columns}
    fate = next(n for n in itertools.chain(["fate"], (f"fate{i}" for i in itertools.count())) if n not in taken)
    rows = rows.withColumns({**masks, CONTENT: content_hash(rows, columns)})
    quarantined = gate.is_quarantined() if gate else F.lit(False)
    fates = F.when(F.col(REJECTED).isNotNull(), REJECTS).when(quarantined, QUARANTINED).otherwise(KEPT)
    rows = few_files(rows.withColumn(fate, fates), bytes_of(run, work))
    if work.mode.sort_by:
        rows = rows.sortWithinPartitions(fate, *(F.col(quoted(c)) for c in work.mode.sort_by))
    seen = observation(run.spark)
    is_made, is_rejected = F.col(MADE).isNotNull(), F.col(REJECTED).isNotNull()
    content = hash_sum(F.when(F.col(fate) == KEPT, F.col(CONTENT)))
    rows = rows.observe(
        seen,
        F.count(F.lit(1)).alias("rows"),
        F.count_if(is_made).alias("made"),
        F.count_if(is_made & is_rejected).alias("made_rejected"),
        F.count_if(is_made & ~F.col(MADE).isin(*made.foretold)).alias("unforeseen"),
        content["high"].alias("high"),
        content["low"].alias("low"),
    )
    staged = rows.select(*laid_out(columns), REJECTED, MADE, *masks, fate)
    parquet_writer(staged).partitionBy(fate).parquet(path)
    counted = seen.get
    files = {f: data_files(run.lake.path(work.table), f"{folder}/{fate}={f}") for f in (KEPT, QUARANTINED, REJECTS)}
    if sum(f.rows for found in files.values() for f in found) != counted["rows"]:
        raise HeadgateError(
            f"table '{work.table}': {counted['rows']:,} rows were written, the files in {path} hold another number"
        )
    return Staged(
        folder=folder,
        files=files,
        schema=staged.drop(fate).schema.jsonValue(),
        rows_in=made.rows_in,
        made=counted["made"],
        made_rejected=counted["made_rejected"],
        unforeseen=counted["unforeseen"],
        content=total_of(counted["high"], counted["low"]),
        recorded=dict(made.recorded),
        lineage=dataclasses.asdict(made.lineage) if made.lineage else None,
        affected=None,
        masks="",
        warnings=list(made.warnings),
        figures=[dict(figure) for figure in made.figures],
    )


def folder_of(run: Run, work: Work) -> str:
    """Return the folder below the table for the data files that a run stages."""
    return f"{work.key[:16]}-{run.run_id}"


def masks_of(gate: Gate | None, rows: DataFrame) -> dict[str, Column]:
    """Return the bits of the gate's row rules; raise `UsageError` for a rule that these rows cannot have."""
    try:
        return gate.masks(rows) if gate else {}
    except SuiteError as e:
        raise UsageError(str(e)) from e


def bytes_of(run: Run, work: Work) -> int:
    """Return about how many bytes the rows of a build are read from, as stored."""
    if work.arrival is not None:
        source = run.pipeline.tables[work.table].source
        sized = isinstance(source, FileSource) and source.format != "delta"
        return sum(f.size for f in work.files) if sized else work.arrival.count * ROW_BYTES
    total = 0
    for table, pin in work.inputs.items():
        sizes = run.lake.file_sizes(table, pin.version)
        part = work.part.get(table) if work.part is not None else None
        total += sum(sizes.values() if part is None else (sizes.get(f, 0) for f in part))
    return total


def staged_rows(run: Run, work: Work, staged: Staged, gate: Gate | None, *fates: str) -> DataFrame:
    """Return the staged rows of some fates, with the bits of a gate as its rules are now."""
    rows = files_rows(run, work, staged.schema, [f for fate in fates for f in staged.files[fate]])
    if staged.masks != STALE or gate is None:
        return rows
    plain = rows.drop(*(c for c in rows.columns if c.startswith(MASK)))
    return plain.withColumns(masks_of(gate, plain))


def files_rows(run: Run, work: Work, schema: dict[str, object], files: Iterable[DataFile]) -> DataFrame:
    """Return the rows of data files below the table of a build."""
    return parquet(run.spark, schema, [f"{run.lake.path(work.table)}/{f.path}" for f in files])


def remove_work(run: Run, work: Work, staged: Staged, published: bool) -> None:
    """Remove what a finished build needs no more: the marker first, so that it never names what is gone."""
    folder, area = f"{run.lake.path(work.table)}/{staged.folder}", run.lake.staging(work.table)
    remove(marker_of(run, work))
    if not published:
        remove(folder)
    for place in {f.path.rpartition("/")[0] for fate in (QUARANTINED, REJECTS) for f in staged.files[fate]}:
        remove(f"{run.lake.path(work.table)}/{place}")
    for run_id in {run.run_id, staged.folder.rpartition("-")[2]}:  # the run that staged it may have died
        remove(f"{area}/{work.key}-{run_id}{SCRATCH}")
        release(run.lake, work.table, work.key, run_id)


def remove_abandoned(lake: Lake, table: str) -> None:
    """Remove what runs that died left of a table's staged work, once it is a day old: until then a run may use it.

    Of what belongs to one key the marker goes first, so that none names what is gone. Data files that a commit names
    stay, whoever wrote them.
    """
    files, base = file_system(lake.staging(table))
    works: dict[str, list[fs.FileInfo]] = {}
    for child in files.get_file_info(fs.FileSelector(base, allow_not_found=True)):
        works.setdefault(child.base_name[:KEY_LENGTH], []).append(child)
    for children in works.values():
        inside = [
            f
            for c in children
            if c.type == fs.FileType.Directory
            for f in files.get_file_info(fs.FileSelector(c.path, recursive=True, allow_not_found=True))
        ]
        newest = max((f.mtime for f in (*children, *inside) if f.mtime), default=None)
        if newest is None or datetime.now(timezone.utc) - newest.astimezone(timezone.utc) <= ABANDONED:
            continue
        for child in sorted(children, key=lambda c: (len(c.base_name), c.path)):
            folder = folder_in(files, child.path) if child.type == fs.FileType.File else None
            if folder is not None:
                remove_unnamed(lake, table, folder)
            remove(f"{lake.staging(table)}/{child.base_name}")
