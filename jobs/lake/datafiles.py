"""Data files as their Parquet footers describe them.

Of Delta's statistics only the number of rows is kept. deltalake's dataset passes over a file, as if no row of it
matched, that lacks the least value of a column (booleans, NaN, long texts) while others have it or its number of nulls
is known. Without statistics every reader looks into every file, where Parquet's own let it skip.
"""

import posixpath
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow.parquet as pq
from pyarrow import fs

from headgate.jobs.lake.storage import file_system
from headgate.jobs.lake.stores import CONNECTIONS

READERS = 8  # small files, or footers, at once on this machine
FILE_BYTES = 64 << 20  # of a file of a table that needs several


@dataclass(frozen=True)
class DataFile:
    """One data file: its path below its table, bytes, rows."""

    path: str
    size: int
    rows: int


def data_files(table: str, folder: str) -> list[DataFile]:
    """Return the data files of a folder below a table, or of one path."""
    files, base = file_system(table)
    place = files.get_file_info(f"{base}/{folder}")
    inside = fs.FileSelector(place.path, recursive=True, allow_not_found=True)
    found = [place] if place.type == fs.FileType.File else files.get_file_info(inside)
    return described(table, [f for f in found if is_data(f)])


def described(table: str, found: Collection[fs.FileInfo]) -> list[DataFile]:
    """Return data files of a table, in order of their paths, as their footers describe them."""
    files, base = file_system(table)
    chosen = sorted(found, key=lambda f: f.path)

    def read(info: fs.FileInfo) -> DataFile:
        with files.open_input_file(info.path) as opened, pq.ParquetFile(opened) as file:
            rows = file.metadata.num_rows
        path = posixpath.relpath(info.path, base)
        return DataFile(path, info.size, rows)

    if len(chosen) < 2:
        return [read(f) for f in chosen]
    with ThreadPoolExecutor(readers(files)) as pool:
        return list(pool.map(read, chosen))


def readers(files: fs.FileSystem) -> int:
    """Return how many small files, or footers, are read at once: many where each request takes its time."""
    return READERS if isinstance(files, fs.LocalFileSystem) else CONNECTIONS


def is_data(info: fs.FileInfo) -> bool:
    return (
        info.type == fs.FileType.File and info.path.endswith(".parquet") and not info.base_name.startswith(("_", "."))
    )
