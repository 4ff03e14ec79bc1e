"""A Delta table's log as it stands on disk: which files each version consists of, and which nobody needs."""

import json
import posixpath
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any
from urllib.parse import unquote

from deltalake import DeltaTable
from pyarrow import fs

from headgate.jobs.lake.commits import facts_of
from headgate.jobs.lake.datafiles import readers
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.storage import file_system, open_table
from headgate.jobs.lake.system import REARRANGING

LOG = "_delta_log"
AHEAD = 64  # commits that are read ahead


def commits(table: str, after: int = -1) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """(version, actions) of every commit of a table later than `after` whose log is there, in order."""
    files, base = file_system(table)
    selector = fs.FileSelector(f"{base}/{LOG}", allow_not_found=True)
    found = [posixpath.splitext(f.base_name) for f in files.get_file_info(selector) if f.type == fs.FileType.File]
    versions = sorted(int(stem) for stem, extension in found if extension == ".json" and stem.isdigit())

    def read(version: int) -> bytes:
        with files.open_input_stream(f"{base}/{LOG}/{version:020}.json") as stream:
            return bytes(stream.readall())

    with ThreadPoolExecutor(readers(files)) as pool:
        for some in batched([v for v in versions if v > after], AHEAD):
            for version, content in zip(some, pool.map(read, some), strict=True):
                yield version, [json.loads(line) for line in content.decode().splitlines() if line.strip()]


def batched(versions: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (versions[i : i + size] for i in range(0, len(versions), size))


@dataclass(frozen=True)
class History:
    """All versions of a table, by its log."""

    at: dict[int, datetime]  # version -> time of its commit, never before that of an earlier one
    files: dict[int, frozenset[str]] = field(default_factory=dict)  # version -> its data files, of those asked for


def history(table: str, wanted: Collection[int] | None = None) -> History:
    """Read a log once; `wanted`: the versions whose files are to be told (None: of all)."""
    at: dict[int, datetime] = {}
    files: dict[int, frozenset[str]] = {}
    active: set[str] = set()
    whole = True
    stamp = 0
    for version, actions in commits(table):
        whole = whole and (version == 0 or version - 1 in at)
        for action in actions:
            if "remove" in action:
                active.discard(unquote(action["remove"]["path"]))
            elif "add" in action:
                active.add(unquote(action["add"]["path"]))
            elif "commitInfo" in action:
                stamp = max(stamp, action["commitInfo"].get("timestamp", 0))  # a clock may have gone back
        at[version] = datetime.fromtimestamp(stamp / 1000, tz=timezone.utc)
        if whole and (wanted is None or version in wanted):
            files[version] = frozenset(active)
    if not whole:  # the start of the log is gone: a checkpoint stands for it
        for version in at if wanted is None else wanted:
            if version not in files and version in at:
                files[version] = frozenset(paths_of(open_table(table, version=version)))
    return History(at, files)


def moved_files(table: str, then: int, now: int) -> tuple[dict[str, int], dict[str, int]] | None:
    """Return the data files that builds took from a table and added to it between two versions, with their bytes.

    Commits that only rearranged files are passed over. None unless builds made all others, and the log has them; and
    where a build took a file in which a rearrangement had mixed rows from before with rows that came since.
    """
    lost: dict[str, int] = {}
    gained: dict[str, int] = {}
    mixed: set[str] = set()  # files in which a rearrangement put rows that were there with rows that came since
    seen = 0
    for version, actions in commits(table, then):
        if version > now:
            break
        seen += 1
        info: dict[str, Any] = next((a["commitInfo"] for a in actions if "commitInfo" in a), {})
        if info.get("operation") in REARRANGING:
            if any(unquote(a["remove"]["path"]) in gained.keys() | mixed for a in actions if "remove" in a):
                mixed |= {unquote(a["add"]["path"]) for a in actions if "add" in a}
            continue
        if "build" not in facts_of(info):
            return None
        for action in actions:
            if "remove" in action:
                path = unquote(action["remove"]["path"])
                if path in mixed:
                    return None
                if gained.pop(path, None) is None:
                    lost[path] = action["remove"].get("size", 0)
            elif "add" in action:
                gained[unquote(action["add"]["path"])] = action["add"]["size"]
    return (lost, gained) if seen == now - then else None


def paths_of(delta: DeltaTable) -> list[str]:
    """Paths of the data files of a table's open version, below the table."""
    return [unquote(str(p)) for p in delta.get_add_actions().column("path").to_pylist()]


def stored_files(table: str) -> dict[str, fs.FileInfo]:
    """Every data file below a table's folder, referred to or not."""
    return below(table, "", ".parquet")


def below(table: str, start: str, end: str) -> dict[str, fs.FileInfo]:
    """Return the files below a table's folder, but for its log, whose names start and end so."""
    files, base = file_system(table)
    found = files.get_file_info(fs.FileSelector(base, recursive=True, allow_not_found=True))
    named = [f for f in found if f.type == fs.FileType.File and f.base_name.startswith(start)]
    paths = {posixpath.relpath(f.path, base): f for f in named if f.base_name.endswith(end)}
    return {path: f for path, f in paths.items() if not path.startswith(LOG)}


def deletion_vectors(table: str) -> dict[str, fs.FileInfo]:
    """Every file of deletion vectors below a table's folder: other writers mark the rows in it as deleted."""
    return below(table, "deletion_vector_", ".bin")


def missing_files(lake: Lake, table: str, version: int) -> list[str]:
    """The data files of a version that are not there any more."""
    found = history(lake.path(table), {version}).files
    return sorted(found.get(version, frozenset()) - set(stored_files(lake.path(table))))
