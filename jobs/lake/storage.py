"""Folders and files of a lake, on any file system."""

import pyarrow.dataset as ds
from pyarrow import fs


def file_system(folder: str) -> tuple[fs.FileSystem, str]:
    """The file system of a folder and the folder's path there."""
    return fs.FileSystem.from_uri(folder) if "://" in folder else (fs.LocalFileSystem(), folder)


def size_of(folder: str) -> int:
    """Bytes of the files in a folder; none if it is not there."""
    files, base = file_system(folder)
    return sum(f.size or 0 for f in files.get_file_info(fs.FileSelector(base, allow_not_found=True)))


def remove(folder: str) -> None:
    """Remove a folder of the lake's own staging area."""
    files, base = file_system(folder)
    if files.get_file_info(base).type != fs.FileType.NotFound:
        files.delete_dir(base)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def parquet_format() -> ds.ParquetFileFormat:
    """Return how data files are read: times that a writer put down as INT96 would overflow as nanoseconds."""
    return ds.ParquetFileFormat(read_options=ds.ParquetReadOptions(coerce_int96_timestamp_unit="us"))
