"""Folders and files of a lake, on any file system."""

import contextlib

import obstore
import pyarrow.dataset as ds
from obstore.exceptions import AlreadyExistsError
from obstore.store import LocalStore, ObjectStore, from_url
from pyarrow import fs


def file_system(folder: str) -> tuple[fs.FileSystem, str]:
    """The file system of a folder and the folder's path there."""
    return fs.FileSystem.from_uri(folder) if "://" in folder else (fs.LocalFileSystem(), folder)


def store_of(folder: str) -> ObjectStore:
    if folder.startswith("file://"):
        return from_url(folder, mkdir=True)
    return from_url(folder) if "://" in folder else LocalStore(folder, mkdir=True)


def put_new(folder: str, name: str, content: bytes) -> bool:
    """Write an object below a folder, whole, unless there is one of that name; return whether it was written."""
    try:
        obstore.put(store_of(folder), name, content, mode="create")
    except AlreadyExistsError:
        return False
    return True


def put(folder: str, name: str, content: bytes) -> None:
    """Write an object below a folder, whole, or replace the one that is there."""
    obstore.put(store_of(folder), name, content)


def remove(folder: str) -> None:
    """Remove a folder or file of the lake's own, where there is one."""
    files, base = file_system(folder)
    kind = files.get_file_info(base).type
    with contextlib.suppress(FileNotFoundError):  # another run may remove the same
        if kind == fs.FileType.Directory:
            files.delete_dir(base)
        elif kind == fs.FileType.File:
            files.delete_file(base)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def parquet_format() -> ds.ParquetFileFormat:
    """Return how data files are read: times that a writer put down as INT96 would overflow as nanoseconds."""
    return ds.ParquetFileFormat(read_options=ds.ParquetReadOptions(coerce_int96_timestamp_unit="us"))
