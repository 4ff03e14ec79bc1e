"""Rows of a table that a build replaces: the files that hold any are written again without them."""

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.jobs.errors import HeadgateError
from headgate.jobs.lake.datafiles import DataFile, data_files
from headgate.jobs.lake.frames import frame_at
from headgate.jobs.lake.transaction import paths
from headgate.jobs.pipeline.affected import ids_at
from headgate.jobs.pipeline.changed import of
from headgate.jobs.pipeline.staging import KEPT, files_rows, staged_rows
from headgate.jobs.pipeline.work import STAYS, Run, Staged, Work
from headgate.jobs.pipeline.writing import few_files, parquet_writer
from headgate.transforms.rows import FILE, ROW_ID, content_of, quoted


@dataclass(frozen=True)
class Replaced:
    """The rows that a build replaces: the files that hold any, how many they are, and the sum of their hashes."""

    paths: tuple[str, ...] = ()  # as the log has them
    files: tuple[DataFile, ...] = ()
    rows: int = 0
    content: int = 0


def replaced_rows(run: Run, work: Work, staged: Staged) -> tuple[Sequence[str], Callable[[DataFrame, bool], DataFrame]]:
    """Return the columns by which a build replaces rows of its table, and what finds these rows or the others.

    These are the rows that came with files delivered anew, those that were made again, or those of a merged key; no
    columns where nothing is replaced.
    """
    files = list(work.arrival.replaces) if work.arrival else []
    if files:
        came = F.coalesce(F.col(FILE).isin(files), F.lit(False))
        return (FILE,), lambda rows, others: rows.where(~came if others else came)
    if staged.affected is not None:
        ids = ids_at(run, staged.affected)
        return (ROW_ID,), lambda rows, others: of(rows, ids, others)
    if work.mode.mode != "merge":
        return (), lambda rows, others: rows if others else rows.limit(0)
    key = work.mode.key
    keys = (F.col(quoted(c)).alias(f"_hg_key{i}") for i, c in enumerate(key))
    new = staged_rows(run, work, staged, None, KEPT).select(*keys)
    match: Column = functools.reduce(
        operator.and_, (F.col(quoted(c)).eqNullSafe(F.col(f"_hg_key{i}")) for i, c in enumerate(key))
    )
    return key, lambda rows, others: rows.join(new, on=match, how="left_anti" if others else "left_semi")


def find_replaced(run: Run, work: Work, staged: Staged) -> Replaced:
    """Find the rows that a build replaces; none of a table that it replaces as a whole.

    Cost: one pass over the columns that tell which, and one over the files that hold any.
    """
    if work.base < 0 or work.replaces_all:
        return Replaced()
    columns, other = replaced_rows(run, work, staged)
    lake, table = run.lake, work.table
    delta = lake.open(table, work.base) or lake.need_table(table)
    named = paths(delta)
    by_name = {unquote(p).rpartition("/")[2]: p for p in named}
    if len(by_name) < len(named):
        raise HeadgateError(f"table '{table}': data files in two folders have one name; build it anew by --rebuild")
    if not columns or not by_name:
        return Replaced()
    old = frame_at(run.spark, delta, lake.path(table))
    keys = old.select(*(F.col(quoted(c)) for c in columns), F.col("_metadata.file_name").alias("_hg_name"))
    names = sorted(by_name[unquote(r[0])] for r in other(keys, False).select("_hg_name").distinct().collect())
    if not names:
        return Replaced()
    files = [f for n in names for f in data_files(lake.path(table), unquote(n))]
    rows, content = content_of(other(files_rows(run, work, old.schema.jsonValue(), files), False))
    return Replaced(tuple(names), tuple(files), rows, int(content, 16))


def write_survivors(run: Run, work: Work, staged: Staged, replaced: Replaced) -> list[DataFile]:
    """Write the other rows of the files that hold replaced ones anew; return their files."""
    left = sum(f.rows for f in replaced.files) - replaced.rows
    if not left:
        return []
    lake, table = run.lake, work.table
    _, other = replaced_rows(run, work, staged)
    schema = run.read(table, work.base).schema.jsonValue()
    rows = other(files_rows(run, work, schema, replaced.files), True)
    rows = few_files(rows, sum(f.size for f in replaced.files))
    if work.mode.sort_by:
        rows = rows.sortWithinPartitions(*(F.col(quoted(c)) for c in work.mode.sort_by))
    folder = f"{staged.folder}/{STAYS}{run.run_id}"
    parquet_writer(rows).parquet(f"{lake.path(table)}/{folder}")
    written = data_files(lake.path(table), folder)
    if sum(f.rows for f in written) != left:
        raise HeadgateError(
            f"table '{table}': {left:,} rows stay beside those that are replaced, but "
            f"{sum(f.rows for f in written):,} were written"
        )
    return written
