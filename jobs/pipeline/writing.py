"""Writes by Spark: data files below a table, which a commit makes visible, once however often it is tried."""

import json
import math
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from pyspark.sql import DataFrame, DataFrameWriter
from pyspark.sql import functions as F
from pyspark.sql import types as T

from headgate.jobs.errors import HeadgateError, LostRace, UsageError
from headgate.jobs.lake.conflicts import is_conflict, retrying
from headgate.jobs.lake.datafiles import FILE_BYTES, data_files
from headgate.jobs.lake.sessions import cores
from headgate.jobs.lake.storage import open_table, remove
from headgate.jobs.lake.transaction import Change, commit
from headgate.jobs.pipeline.work import Run, Work
from headgate.transforms.rows import with_columns

MISSING = ("does not exist", "not found", "not_exist", "no such file", "path_not_found", "not a delta table")

SMALL_FILE_BYTES = 4 << 20


def append_once(
    rows: DataFrame,
    path: str,
    application: str,
    facts: Mapping[str, Any],
    *,
    expected: int | None = None,
    partition: Mapping[str, str] | None = None,
    compression: str = "zstd",
) -> bool:
    """Append rows to a Delta table by one commit, unless the table has taken up this application's; return whether.

    The table is made where there is none. Raises `HeadgateError` if other than `expected` rows were written.
    """
    if has_taken(path, application):
        return False
    folder = f"{application.rsplit(':', 1)[-1]}-{uuid.uuid4().hex[:12]}"
    parquet_writer(rows, compression).parquet(f"{path}/{folder}")
    files = data_files(path, folder)
    written = sum(f.rows for f in files)
    if expected is not None and written != expected:
        raise HeadgateError(f"{path}: {expected:,} rows were to be written, the files hold {written:,}")
    for attempt in retrying(otherwise=LostRace(f"{path} is being written by many runs; run again")):
        with attempt:
            delta = opened(path)
            if delta is not None and delta.transaction_version(application) is not None:
                remove(f"{path}/{folder}")
                return False
            schema = None if delta is not None else delta_schema(rows.schema)
            change = Change("WRITE", files, (), (application, 1), facts, schema, partition or {})
            commit(path, delta.version() if delta is not None else -1, change)
    return True


def parquet_writer(rows: DataFrame, compression: str = "zstd") -> DataFrameWriter:
    """Return a writer of data files, into a folder that holds nothing else."""
    plain = rows.write.mode("overwrite").option("compression", compression)
    # A task's files are moved once: what a failed job leaves is never named.
    committer = "mapreduce.fileoutputcommitter"
    return plain.option(f"{committer}.marksuccessfuljobs", "false").option(f"{committer}.algorithm.version", "2")


def opened(path: str) -> DeltaTable | None:
    try:
        return open_table(path)
    except TableNotFoundError:
        return None


def has_taken(path: str, application: str) -> bool:
    """Return whether a Delta table has a commit of an application."""
    delta = opened(path)
    return delta is not None and delta.transaction_version(application) is not None


def comes_from_another_run(error: BaseException | None, folders: Sequence[str]) -> bool:
    """Return whether an error or a cause of it is a conflict, or a file of these folders that another run removed."""
    names = [f.partition("://")[2] or f for f in folders]
    while error is not None:
        text = f"{error} {getattr(error, 'java_exception', '')}"
        gone = any(word in text.lower() for word in MISSING) and any(name in text for name in names)
        if gone or is_conflict(error):
            return True
        error = error.__cause__
    return False


def few_files(rows: DataFrame, size: int) -> DataFrame:
    """Fewer, larger files without a shuffle; small tables are still written by all cores."""
    small = math.ceil(size / SMALL_FILE_BYTES)
    small = min(small, cores(rows.sparkSession)) if small > 1 else small
    return rows.coalesce(max(1, math.ceil(size / FILE_BYTES), small))


def delta_schema(kind: T.StructType) -> str:
    """Return the columns of a table as Delta's JSON, all of which may be null."""
    return str(nullable(kind).json())


def nullable(kind: Any) -> Any:
    if isinstance(kind, T.StructType):
        return T.StructType([T.StructField(f.name, nullable(f.dataType), True, f.metadata) for f in kind.fields])
    if isinstance(kind, T.ArrayType):
        return T.ArrayType(nullable(kind.elementType), True)
    if isinstance(kind, T.MapType):
        return T.MapType(nullable(kind.keyType), nullable(kind.valueType), True)
    return kind


HELD = (T.NumericType, T.StringType, T.BinaryType, T.BooleanType, T.DateType, T.TimestampType)


def need_held(table: str, kind: Any, place: str = "") -> None:
    """Raise `UsageError` for a column whose type no Delta table at reader version 1 holds."""
    if isinstance(kind, T.StructType):
        for f in kind.fields:
            need_held(table, f.dataType, f"{place}.{f.name}" if place else f.name)
    elif isinstance(kind, T.ArrayType):
        need_held(table, kind.elementType, place)
    elif isinstance(kind, T.MapType):
        need_held(table, kind.keyType, place)
        need_held(table, kind.valueType, place)
    elif not isinstance(kind, HELD):
        raise UsageError(
            f"table '{table}': column '{place}' has the type {kind.simpleString()}, which cannot be published; "
            "cast it or leave it out"
        )


def merged(table: str, there: T.StructType, rows: T.StructType) -> T.StructType:
    """Return the columns of a table to which rows are added: its own, then new ones.

    Names that differ in case alone are one column. Raises `UsageError` where a column has another type.
    """
    known = {f.name.lower(): f for f in there.fields}
    for f in rows.fields:
        same = known.get(f.name.lower())
        if same is not None and nullable(same.dataType) != nullable(f.dataType):
            raise UsageError(
                f"table '{table}': column '{f.name}' is {same.dataType.simpleString()} there and "
                f"{f.dataType.simpleString()} in the new rows; cast it, or publish it as a table of another "
                "name"
            )
    new = [f for f in rows.fields if f.name.lower() not in known]
    return T.StructType([*there.fields, *new])


def columns_before(run: Run, work: Work) -> T.StructType:
    """Return the columns of the version that a build adds rows to; none where it replaces all."""
    if work.base < 0 or work.replaces_all:
        return T.StructType([])
    return T.StructType.fromJson(json.loads(run.lake.columns_json(work.table, work.base)))


def conformed(rows: DataFrame, there: T.StructType) -> DataFrame:
    """Return rows with the columns of the table that they are added to.

    Names that differ in case alone become the table's; a column that the rows lack is null.
    """
    known = {f.name.lower(): f for f in there.fields}
    names = {c: known[c.lower()].name for c in rows.columns if c.lower() in known and known[c.lower()].name != c}
    lacking = known.keys() - {c.lower() for c in rows.columns}
    nulls = {f.name: F.lit(None).cast(f.dataType) for f in there.fields if f.name.lower() in lacking}
    return with_columns(rows.withColumnsRenamed(names) if names else rows, nulls)
