"""Staged work: the rows of a build as data files below their table that no commit names yet, split by their fate.

Each row is written once. The files of the kept ones are published as they are; beside the columns that a table shows
they hold the bits of its gate and the marks of its build, which no schema names and every reader passes over.
"""

import dataclasses
import itertools
import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone

from pyarrow import fs
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, Observation
from pyspark.sql import functions as F

from headgate.expectations.gate import MASK, Gate
from headgate.expectations.suites import SuiteError
from headgate.jobs.config.models import FileSource
from headgate.jobs.errors import HeadgateError, UsageError, source_failure
from headgate.jobs.lake.artifacts import read_small, write_small
from headgate.jobs.lake.datafiles import DataFile, data_files
from headgate.jobs.lake.frames import parquet
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.log import history
from headgate.jobs.lake.storage import file_system, remove
from headgate.jobs.pipeline.layout import laid_out, published_columns
from headgate.jobs.pipeline.prepare import prepare, scratch_of
from headgate.jobs.pipeline.work import KEY_LENGTH, Prepared, Run, Staged, Work
from headgate.jobs.pipeline.writing import columns_before, few_files, named_as, need_held, parquet_writer
from headgate.jobs.sources.files import assert_unchanged
from headgate.transforms.rows import CONTENT, MADE, OWN, REJECTED, content_hash, hash_sum, quoted, total_of

ROW_BYTES = 200  # of a row whose size is not known
ABANDONED = timedelta(days=1)
UNJUDGED = "no gate"  # for the key of the rules whose bits are staged: there is none,
BROKEN = "no bits"  # or a row condition raises on some row

KEPT, QUARANTINED, REJECTS = "kept", "quarantined", "rejected"  # the fates of rows


def marker_of(run: Run, work: Work) -> str:
    return f"{run.lake.staging(work.table)}/{work.key}.json"


def claim_of(run: Run, work: Work) -> str:
    """The file that names a run's data files before they are written, so that they are found if the run dies."""
    return f"{run.lake.staging(work.table)}/{work.key}-{run.run_id}.json"


def taken_up(run: Run, work: Work, gate: Gate | None, rules: str) -> Staged | None:
    """Return what a run that died left of the same work, whole, judged by the same rules; None if there is nothing."""
    left = read_small(marker_of(run, work))
    if left is None:
        return None
    files = {fate: [DataFile(**f) for f in found] for fate, found in left["files"].items()}
    staged = Staged(**(left | {"files": files}))
    system, base = file_system(run.lake.path(work.table))
    wanted = {f"{base}/{f.path}": f.size for found in files.values() for f in found}
    there = {f.path: f.size for f in system.get_file_info(list(wanted))} if wanted else {}
    scratch = [path for path, *_ in staged.recorded.values()]
    whole = there == wanted and all(has_files(path) for path in scratch)
    if not whole or staged.masks not in (rules if gate else UNJUDGED, BROKEN):
        return None
    if gate is not None and staged.masks == BROKEN:
        gate.without_masks()
    elif gate is not None:
        rows = staged_rows(run, work, staged, KEPT)
        masks_of(gate, rows.drop(*(c for c in rows.columns if c.startswith(MASK))))
    return staged


def has_files(folder: str) -> bool:
    files, base = file_system(folder)
    return bool(files.get_file_info(fs.FileSelector(base, allow_not_found=True)))


def stage(run: Run, work: Work, gate: Gate | None, rules: str) -> Staged:
    """Make the rows of a build and write them, with their marks and masks, in one pass.

    Each run stages in a folder of its own, so that two at once do not write over each other.
    """
    table = work.table
    folder = f"{work.key[:16]}-{run.run_id}"
    with run.progress.phase(table, "steps"):
        made = prepare(run, work, scratch_of(run, work))
        need_held(table, made.rows.schema)
        masks = masks_of(gate, made.rows)
    with run.progress.phase(table, "stage"):
        write_small(claim_of(run, work), {"folder": folder})
        try:
            written = write(run, work, made, masks, gate, folder)
        except PySparkException as e:
            # Perhaps a row rule raises on some row. If a step does, it does so again.
            if gate is None or source_failure(e) is not None:
                raise
            gate.without_masks(str(e).splitlines()[0])
            rules = BROKEN
            written = write(run, work, made, {}, gate, folder)
        if isinstance(run.pipeline.tables[table].source, FileSource):
            assert_unchanged(run.environment.landing, work.files)
        staged = dataclasses.replace(written, masks=rules if gate else UNJUDGED)
        write_small(marker_of(run, work), dataclasses.asdict(staged))
    return staged


def write(run: Run, work: Work, made: Prepared, masks: dict[str, Column], gate: Gate | None, folder: str) -> Staged:
    """Write prepared rows to a folder below their table, by fate; count them, and sum the hashes of the kept ones."""
    path = f"{run.lake.path(work.table)}/{folder}"
    columns = published_columns(made.rows, raw=work.arrival is not None)
    kept = named_as(columns_before(run, work), laid_out(columns), columns)
    fate = next(n for n in itertools.chain(["fate"], (f"fate{i}" for i in itertools.count())) if n not in columns)
    rows = made.rows.withColumns({**masks, CONTENT: content_hash(made.rows, columns)})
    quarantined = gate.is_quarantined() if gate else F.lit(False)
    rows = rows.withColumn(
        fate,
        F.when(F.col(REJECTED).isNotNull(), REJECTS).when(quarantined, QUARANTINED).otherwise(KEPT),
    )
    rows = few_files(rows, bytes_of(run, work))
    if work.mode.sort_by:
        rows = rows.sortWithinPartitions(fate, *(F.col(quoted(c)) for c in work.mode.sort_by))
    seen = Observation()
    is_made, is_rejected = F.col(MADE).isNotNull(), F.col(REJECTED).isNotNull()
    content = hash_sum(F.when(F.col(fate) == KEPT, F.col(CONTENT)))
    rows = rows.observe(
        seen,
        F.count(F.lit(1)).alias("rows"),
        F.count_if(is_made).alias("made"),
        F.count_if(is_made & is_rejected).alias("made_rejected"),
        content["high"].alias("high"),
        content["low"].alias("low"),
    )
    marks = [F.col(c) for c in (REJECTED, MADE, *masks)]
    staged = rows.select(*kept, *marks, fate)
    parquet_writer(staged).partitionBy(fate).parquet(path)
    counted = seen.get
    files = {
        f: data_files(run.lake.path(work.table), f"{folder}/{fate}={f}", OWN) for f in (KEPT, QUARANTINED, REJECTS)
    }
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
        content=total_of(counted["high"], counted["low"]),
        recorded=dict(made.recorded),
        lineage=dataclasses.asdict(made.lineage) if made.lineage else None,
        masks="",
        warnings=list(made.warnings),
    )


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
    for table in run.pipeline.tables[work.table].starts:
        sizes = run.lake.file_sizes(table, work.inputs[table].version)
        total += sum(sizes.values() if work.part is None else (sizes[f] for f in work.part[table]))
    return total


def staged_rows(run: Run, work: Work, staged: Staged, *fates: str) -> DataFrame:
    """Return the staged rows of some fates, with the bits of their gate."""
    return files_rows(run, work, staged.schema, [f for fate in fates for f in staged.files[fate]])


def files_rows(run: Run, work: Work, schema: dict[str, object], files: Iterable[DataFile]) -> DataFrame:
    return parquet(run.spark, schema, [f"{run.lake.path(work.table)}/{f.path}" for f in files])


def remove_files(lake: Lake, table: str, files: Sequence[DataFile]) -> None:
    """Remove staged files that no commit names."""
    system, base = file_system(lake.path(table))
    for folder in sorted({f.path.rpartition("/")[0] for f in files}):
        if system.get_file_info(f"{base}/{folder}").type == fs.FileType.Directory:
            system.delete_dir(f"{base}/{folder}")


def remove_abandoned(lake: Lake, table: str) -> None:
    """Remove what runs that died left of a table's staged work, once it is a day old: until then a run may use it.

    Of what belongs to one key the marker goes first, so that none names what is gone. Data files that a commit names
    stay, whoever wrote them.
    """
    files, base = file_system(lake.staging(table))
    works: dict[str, list[fs.FileInfo]] = {}
    for child in sorted(files.get_file_info(fs.FileSelector(base, allow_not_found=True)), key=lambda f: f.path):
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
        for child in sorted(children, key=lambda c: len(c.base_name)):
            if child.type == fs.FileType.Directory:
                files.delete_dir(child.path)
                continue
            with files.open_input_stream(child.path) as stream:
                folder = json.loads(stream.readall()).get("folder")
            named = history(lake.path(table)).files.values() if folder else ()
            if folder and not any(path.startswith(f"{folder}/") for paths in named for path in paths):
                remove(f"{lake.path(table)}/{folder}")
            files.delete_file(child.path)
