"""The files that make up a lake at one moment, or at a release: logs, data, what steps learned, indexes."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pyarrow import fs

from headgate.jobs.errors import InputMissing, UsageError
from headgate.jobs.lake.artifacts import FITTED, indexes
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.log import LOG, deletion_vectors, history, stored_files
from headgate.jobs.lake.storage import file_system, open_table
from headgate.jobs.lake.system import SYSTEM_TABLES

CHUNK = 4 << 20  # bytes read at once
AT_ONCE = 8  # files that are copied
SIDECARS = f"{LOG}/_sidecars/"  # of checkpoints of version 2: the files that they name


@dataclass(frozen=True)
class Contents:
    """Files by their paths below the lake, with their bytes; tables with their newest versions among these."""

    files: Mapping[str, int]
    tables: Mapping[str, int]


def contents(lake: Lake, release: str | None = None) -> Contents:
    """Return what a lake holds now: of every table all versions, or only the one that a release pins.

    A release's tables end at its versions, as if nothing had come after. What a run records comes before its commit,
    so system tables are looked at after the tables, and releases, which name versions of these, before them. Left out
    is what no version names: leftovers, staged work, old versions of system tables.
    """
    found = files_of(lake, lake.path("releases"), None, only_newest=True) if lake.open("releases") else {}
    pinned = lake.pins(release) if release else None
    tables = {t: lake.need_table(t).version() for t in lake.tables()} if pinned is None else pinned
    for table, version in tables.items():
        found |= files_of(lake, lake.path(table), version, only_newest=release is not None)
        for index in indexes(lake, table):
            found |= files_of(lake, index, None, only_newest=True)
        found |= below(lake, f"{lake.root}{FITTED}/{table}")
    for name in SYSTEM_TABLES:
        if name != "releases" and lake.open(name) is not None:
            found |= files_of(lake, lake.path(name), None, only_newest=True)
    return Contents(found, tables)


def files_of(lake: Lake, table: str, version: int | None, only_newest: bool) -> dict[str, int]:
    """Return the log of a table up to a version (None: the newest), and the data files of all these versions or of it.

    With them come all deletion vectors of other writers, which are small: the log has their names encoded. Raises
    `InputMissing` where a data file of that version is not there.
    """
    newest = open_table(table).version() if version is None else version
    there = {path: info.size for path, info in stored_files(table).items()}
    named = history(table, {newest} if only_newest else None).files
    missing = sorted(named[newest] - there.keys())
    if missing:
        raise InputMissing(f"{table}: version {newest} has lost {missing[0]}")
    wanted = frozenset().union(*(paths for v, paths in named.items() if v <= newest)) & there.keys()
    vectors = {path: info.size for path, info in deletion_vectors(table).items()}
    found = log_of(table, newest) | {path: there[path] for path in wanted} | vectors
    inside = table.removeprefix(f"{lake.root}/")
    return {f"{inside}/{path}": size for path, size in found.items()}


def log_of(table: str, newest: int) -> dict[str, int]:
    """Return the files of a table's log up to a version, below the table, with their bytes.

    With the checkpoints come the sidecars of those of version 2. Left out are the hint at the last checkpoint, which
    may be written anew at any moment, and commits that other writers put together: readers do without.
    """
    files, base = file_system(table)
    found = {}
    for info in files.get_file_info(fs.FileSelector(f"{base}/{LOG}", recursive=True)):
        path = info.path.removeprefix(f"{base}/")
        number = re.match(rf"{LOG}/(\d{{20}})\.(?!\d+\.compacted)", path)
        if path.startswith(SIDECARS) or (number is not None and int(number[1]) <= newest):
            found[path] = info.size
    return found


def below(lake: Lake, folder: str) -> dict[str, int]:
    """Return all files below a folder of a lake, by their paths below the lake, with their bytes."""
    files, base = file_system(folder)
    found = files.get_file_info(fs.FileSelector(base, recursive=True, allow_not_found=True))
    inside = folder.removeprefix(f"{lake.root}/")
    return {f"{inside}/{f.path.removeprefix(f'{base}/')}": f.size for f in found if f.type == fs.FileType.File}


def chunks(place: str) -> Iterator[bytes]:
    """Yield the content of a file, a part at a time."""
    files, path = file_system(place)
    with files.open_input_stream(path) as stream:
        while chunk := stream.read(CHUNK):
            yield chunk


def need_apart(lake: Lake, root: str, what: str = "backup") -> None:
    """Raise `UsageError` where a place for copies of a lake lies in it, or the lake there."""
    if f"{root}/".startswith(f"{lake.root}/") or f"{lake.root}/".startswith(f"{root}/"):
        raise UsageError(f"the {what} {root} and the lake {lake.root} must not lie in each other")
