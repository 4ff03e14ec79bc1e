"""Folders and files of a lake, on any file system."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
import pyarrow.dataset as ds
from deltalake import DeltaTable
from obstore.exceptions import AlreadyExistsError
from obstore.store import LocalStore, ObjectStore
from pyarrow import fs

from headgate.jobs.errors import UsageError
from headgate.jobs.lake.stores import SCHEMES, arrow_files, object_store, scheme_of, storage_options
from headgate.words import did_you_mean


def located(place: str) -> str:
    """Return a place in the one form that is used everywhere: an absolute path, or a URI that is not of `file:`.

    Raises `UsageError` for a URI of an unknown scheme, or without a bucket.
    """
    scheme = scheme_of(place)
    if not scheme:
        return str(Path(place).absolute())
    if scheme not in SCHEMES:
        hint = did_you_mean(scheme, SCHEMES)
        raise UsageError(f"{place}: unknown scheme '{scheme}'{hint}; expected a path or one of {', '.join(SCHEMES)}")
    if scheme == "file":
        return str(Path(unquote(urlsplit(place).path)))
    host, _, path = place.partition("://")[2].partition("/")
    if not host:
        raise UsageError(f"{place}: no bucket; expected {scheme}://BUCKET/FOLDER")
    return f"{'s3' if scheme == 's3a' else scheme}://{host}/{path}".rstrip("/")


def is_remote(place: str) -> bool:
    """Return whether a located place is a URI."""
    return "://" in place


def file_system(folder: str) -> tuple[fs.FileSystem, str]:
    """The file system of a folder and the folder's path there."""
    return arrow_files(folder) if is_remote(folder) else (fs.LocalFileSystem(), folder)


def store_of(folder: str) -> ObjectStore:
    return object_store(folder) if is_remote(folder) else LocalStore(folder, mkdir=True)


def open_table(path: str, version: int | None = None) -> DeltaTable:
    """Open a Delta table at a version (default: newest); raise deltalake's `TableNotFoundError` where there is none."""
    return DeltaTable(path, version=version, storage_options=storage_options(path))


def has_table(path: str) -> bool:
    return DeltaTable.is_deltatable(path, storage_options=storage_options(path))


def put_new(folder: str, name: str, content: bytes) -> bool:
    """Write an object below a folder, whole, unless there is one of that name; return whether it was written."""
    if scheme_of(folder) == "hdfs":
        return moved_into_place(folder, name, content)
    try:
        obstore.put(store_of(folder), name, content, mode="create")
    except AlreadyExistsError:
        return False
    return True


def put(folder: str, name: str, content: bytes) -> None:
    """Write an object below a folder, whole, or replace the one that is there."""
    if scheme_of(folder) != "hdfs":
        obstore.put(store_of(folder), name, content)
    elif not moved_into_place(folder, name, content):
        remove(f"{folder}/{name}")
        moved_into_place(folder, name, content)


def put_chunks(folder: str, name: str, chunks: Iterator[bytes]) -> None:
    """Write an object below a folder from its parts, whole; not at all where giving them fails."""
    if scheme_of(folder) == "hdfs":
        put(folder, name, b"".join(chunks))
    else:
        obstore.put(store_of(folder), name, chunks)


def moved_into_place(folder: str, name: str, content: bytes) -> bool:
    """Write a file beside its place and move it there; return whether there was none: HDFS moves over no file."""
    files, base = file_system(folder)
    part, place = f"{base}/{name}.{uuid.uuid4().hex}", f"{base}/{name}"
    files.create_dir(os.path.dirname(part))
    with files.open_output_stream(part) as out:
        out.write(content)
    try:
        files.move(part, place)
    except OSError:
        files.delete_file(part)
        if files.get_file_info(place).type == fs.FileType.NotFound:
            raise
        return False
    return True


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
