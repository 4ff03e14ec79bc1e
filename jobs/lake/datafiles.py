"""Data files as their Parquet footers describe them: rows, and the statistics that Delta keeps of each file."""

import json
import posixpath
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from headgate.jobs.lake.storage import file_system

INDEXED = 32  # columns with statistics, as Delta's own writers have by default
LONGEST = 32  # characters of a text that statistics hold
LAST = "\U0010ffff"  # of all characters
READERS = 8  # footers at once


@dataclass(frozen=True)
class DataFile:
    """One data file: its path below its table, bytes, rows, and its statistics as Delta's JSON."""

    path: str
    size: int
    rows: int
    stats: str


def data_files(table: str, folder: str, own: str) -> list[DataFile]:
    """Return the data files of a folder below a table, or of one path; names starting with `own` get no statistics."""
    files, base = file_system(table)
    place = files.get_file_info(f"{base}/{folder}")
    inside = fs.FileSelector(place.path, recursive=True, allow_not_found=True)
    found = [place] if place.type == fs.FileType.File else files.get_file_info(inside)
    chosen = sorted((f for f in found if is_data(f)), key=lambda f: f.path)

    def read(info: fs.FileInfo) -> DataFile:
        with files.open_input_file(info.path) as opened, pq.ParquetFile(opened) as file:
            rows = file.metadata.num_rows
            stats = {"numRecords": rows, **statistics(file, own)}
        path = posixpath.relpath(info.path, base)
        return DataFile(path, info.size, rows, json.dumps(stats, ensure_ascii=False))

    if len(chosen) < 2:
        return [read(f) for f in chosen]
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(read, chosen))


def is_data(info: fs.FileInfo) -> bool:
    return (
        info.type == fs.FileType.File and info.path.endswith(".parquet") and not info.base_name.startswith(("_", "."))
    )


def statistics(file: pq.ParquetFile, own: str) -> dict[str, Any]:
    """Return least and greatest values and nulls of a file's first plain columns.

    Least and greatest are left out for floating-point numbers (NaN is greater than all others in Spark, and no footer
    counts it), decimals, bytes and booleans.
    """
    least: dict[str, Any] = {}
    greatest: dict[str, Any] = {}
    nulls: dict[str, int] = {}
    for leaf, column in plain_columns(file.schema_arrow, own):
        groups = [file.metadata.row_group(i).column(leaf).statistics for i in range(file.metadata.num_row_groups)]
        if not groups or any(s is None for s in groups):
            continue
        if all(s.has_null_count for s in groups):
            nulls[column.name] = sum(s.null_count for s in groups)
        if not (is_ordered(column.type) and all(s.has_min_max or s.num_values == 0 for s in groups)):
            continue
        try:
            values = [(s.min, s.max) for s in groups if s.has_min_max]
            if values:
                low, high = floor_of(min(v[0] for v in values)), ceiling_of(max(v[1] for v in values))
                if low is not None and high is not None:
                    least[column.name], greatest[column.name] = low, high
        except (ValueError, OverflowError, TypeError):
            continue  # a value that Python's types do not hold
    return {"minValues": least, "maxValues": greatest, "nullCount": nulls}


def plain_columns(schema: pa.Schema, own: str) -> Iterator[tuple[int, pa.Field]]:
    """Yield the first columns that are not nested, each with its place among the leaves of the file."""
    leaf = taken = 0
    for column in schema:
        if not pa.types.is_nested(column.type) and not column.name.startswith(own):
            if taken == INDEXED:
                return
            taken += 1
            yield leaf, column
        leaf += leaves_of(column.type)


def leaves_of(kind: pa.DataType) -> int:
    return sum(leaves_of(kind.field(i).type) for i in range(kind.num_fields)) if pa.types.is_nested(kind) else 1


def is_ordered(kind: pa.DataType) -> bool:
    tests = (pa.types.is_integer, pa.types.is_string, pa.types.is_date, pa.types.is_timestamp)
    return any(test(kind) for test in tests)


def floor_of(value: Any) -> Any:
    """Return a value of Delta's statistics that is not greater; None where there is none."""
    if isinstance(value, str):
        return value[:LONGEST]
    if isinstance(value, datetime):
        return moment(value - timedelta(microseconds=value.microsecond % 1000))
    return value.isoformat() if isinstance(value, date) else value


def ceiling_of(value: Any) -> Any:
    """Return a value of Delta's statistics that is not less; None where there is none."""
    if isinstance(value, str):
        if value[LONGEST : LONGEST + 1] == LAST:
            return None
        return value if len(value) <= LONGEST else value[:LONGEST] + LAST
    if isinstance(value, datetime):
        return moment(value + timedelta(microseconds=-value.microsecond % 1000))
    return value.isoformat() if isinstance(value, date) else value


def moment(value: datetime) -> str:
    utc = value.astimezone(timezone.utc) if value.tzinfo else value
    return f"{utc.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"
