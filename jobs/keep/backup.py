"""Backups of a lake in a folder elsewhere, and lakes made of them.

A backup is one JSON object that names every file by its path, size and SHA-256 (`backups/<time>-<its own hash>.json`);
the files lie beside, once each, by their hash (`objects/ab/ab12…`). The JSON is written last, so that a backup that was
killed is none, and what it had copied is there for the next.
"""

import hashlib
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from pyarrow import fs

from headgate.jobs.errors import HeadgateError, InputMissing, LostRace, UsageError
from headgate.jobs.keep.contents import AT_ONCE, chunks, contents, need_apart
from headgate.jobs.lake.artifacts import read_small
from headgate.jobs.lake.dataset import dataset
from headgate.jobs.lake.folder import FORMAT, Folder
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.lease import Lease, held
from headgate.jobs.lake.log import LOG
from headgate.jobs.lake.storage import file_system, located, open_table, put, put_chunks, remove
from headgate.jobs.lake.system import now
from headgate.words import did_you_mean

FORMAT_FILE = "_system/format.json"
STAMP, STEP = "%Y%m%dT%H%M%S%f", timedelta(microseconds=1)  # of the names of backups
BACKUPS, OBJECTS = "backups", "objects"
LEFT = timedelta(days=1)  # after which nobody goes on with what a killed backup copied


@dataclass(frozen=True)
class Backup:
    """What a backup holds. files: path below the lake -> bytes and SHA-256."""

    made: str
    format: int  # of the lake
    release: str | None
    tables: Mapping[str, int]
    erasures: list[str]  # that were finished then
    files: Mapping[str, tuple[int, str]]


def backup(
    lake: Lake,
    root: str,
    release: str | None = None,
    keep: int | None = None,
    tell: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Copy what a lake holds now, or what a release of it pins, to a folder elsewhere; tell what was copied.

    keep: remove all but so many of the newest backups there, and the files that only these hold. tell: is told of a
    backup that died. Raises `LostRace` where another backup to that folder is at work, or an erasure or a vacuum came
    in between. Cost: what is new is read twice, to know its hash before its name is written; of data files that the
    newest backup has by name and size, nothing is read.
    """
    root = located(root)
    need_apart(lake, root)
    erasing = lake.erasing  # first: an erasure that begins now ends this
    lake.need_no_erasure()
    what, run_id = f"backup to {root}", f"backup-{uuid.uuid4().hex[:12]}"
    with held(Folder(root), "backup", run_id, timedelta(0), tell, what) as lease:  # one that ends removes files
        return copied(lake, root, release, keep, erasing, lease)


def copied(lake: Lake, root: str, release: str | None, keep: int | None, erasing: int, lease: Lease) -> dict[str, Any]:
    """Make a backup as the only one at work at its root."""
    whole = contents(lake, release)
    before = backups(root)
    known = read_backup(root, before[-1]).files if before else {}
    there = objects(root)

    def copy(path: str) -> tuple[str, tuple[int, str], bool]:
        size, place = whole.files[path], f"{lake.root}/{path}"
        old = known.get(path)
        if old and is_data(path) and old[0] == size and there.get(old[1]) == size:
            return path, (size, old[1]), False
        digest, size = digest_of(place)
        if there.get(digest) == size:
            return path, (size, digest), False
        changed = LostRace(f"{place} changed while it was being copied; run again")
        put_chunks(root, object_name(digest), proven(place, digest, changed))
        return path, (size, digest), True

    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            done = list(pool.map(copy, whole.files))
    except FileNotFoundError as e:
        raise LostRace(f"the lake {lake.root} lost a file while it was being copied; run again") from e
    if lake.erasing != erasing:
        raise LostRace("rows were erased from the lake while it was being copied; run again")
    files = {path: facts for path, facts, _ in done}
    erased = sorted(e["erasure"] for e in lake.erasures)
    made = Backup(now().isoformat(timespec="seconds"), FORMAT, release, whole.tables, erased, files)
    name = write_backup(root, made)
    there = objects(root)
    if any(there.get(digest) != size for size, digest in files.values()):
        remove(f"{root}/{BACKUPS}/{name}.json")
        raise LostRace(f"{root}: another backup removed what this one needs; run again")
    lease.need()
    gone = prune(root, keep) if keep is not None else []
    fresh = {digest: size for _, (size, digest), new in done if new}
    return {
        "backup": name,
        "files": len(files),
        "bytes": sum(size for size, _ in files.values()),
        "files_copied": len(fresh),
        "bytes_copied": sum(fresh.values()),
        "backups_removed": gone,
        "erased_since": [b for b in backups(root) if set(erased) - set(read_backup(root, b).erasures)],
    }


def recover(lake: Lake, root: str, name: str | None = None) -> dict[str, Any]:
    """Make a lake of a backup (default: the newest), in a folder that holds nothing; every file is proved by its hash.

    Until all is there the lake cannot be opened; the same command again goes on where it was killed.
    """
    root = located(root)
    need_apart(lake, root)
    chosen = named(root, name)
    found = read_backup(root, chosen)
    if found.format != FORMAT:
        raise UsageError(f"the backup {chosen} is of format {found.format}; this version of headgate reads {FORMAT}")
    there = need_empty(lake, chosen)
    stored = objects(root)
    put(lake.root, FORMAT_FILE, json.dumps({"recovering": chosen, "from": root}).encode())

    def bring(path: str) -> None:
        size, digest = found.files[path]
        if there.get(path) == size and digest_of(f"{lake.root}/{path}") == (digest, size):
            return
        fault = "is not there" if digest not in stored else "is not what was copied"
        why = HeadgateError(
            f"the backup {chosen} is damaged: {object_name(digest)}, of {path}, {fault}. `headgate recover --check` "
            f"lists all damage; a backup of a lake that still has the file copies it again; or remove {lake.root} and "
            "recover another backup (--backup)"
        )
        if stored.get(digest) != size:
            raise why
        put_chunks(lake.root, path, proven(f"{root}/{object_name(digest)}", digest, why))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(bring, found.files))
    for path in there.keys() - {*found.files, FORMAT_FILE}:
        remove(f"{lake.root}/{path}")
    if found.release is not None:
        drop_unreadable(lake, found.tables)
    put(lake.root, FORMAT_FILE, json.dumps({"format": FORMAT}).encode())
    held = sum(size for size, _ in found.files.values())
    return {"backup": chosen, "made": found.made, "tables": len(found.tables), "files": len(found.files), "bytes": held}


def check(root: str, name: str | None = None) -> dict[str, Any]:
    """Read every file of a backup (default: the newest) and compare its hash; `damaged` names those that differ."""
    root = located(root)
    chosen = named(root, name)
    found = read_backup(root, chosen)
    paths = {digest: path for path, (_, digest) in found.files.items()}

    def is_whole(digest: str) -> bool:
        try:
            return digest_of(f"{root}/{object_name(digest)}")[0] == digest
        except FileNotFoundError:
            return False

    with ThreadPoolExecutor(AT_ONCE) as pool:
        damaged = [paths[d] for d, whole in zip(paths, pool.map(is_whole, paths), strict=True) if not whole]
    told = {"backup": chosen, "made": found.made, "tables": len(found.tables), "files": len(found.files)}
    return told | {"bytes": sum(size for size, _ in found.files.values()), "damaged": sorted(damaged)}


def need_empty(lake: Lake, backup: str) -> dict[str, int]:
    """Return what an earlier recovery from the same backup left; raise `UsageError` where anything else is there."""
    files, base = file_system(lake.root)
    found = files.get_file_info(fs.FileSelector(base, recursive=True, allow_not_found=True))
    there = {f.path.removeprefix(f"{base}/"): f.size for f in found if f.type == fs.FileType.File}
    if there:
        begun = read_small(f"{lake.root}/{FORMAT_FILE}") or {}
        known = begun.get("recovering")
        if known is None:
            raise UsageError(f"{lake.root} is not empty: a lake is recovered into an empty folder (--lake)")
        if known != backup:
            raise UsageError(
                f"{lake.root} holds a part of the backup {known}: go on with that (--backup {known}), or remove "
                "the folder"
            )
    return there


def drop_unreadable(lake: Lake, tables: Mapping[str, int]) -> None:
    """Drop the releases that name other versions than those that tables end with."""
    delta = open_table(lake.path("releases"))
    for row in dataset(delta).to_table().to_pylist():
        if any(tables.get(t["table_name"]) != t["version"] for t in row["tables"]):
            delta.delete(f"number = {row['number']}")


# -- what lies at the root of backups


def backups(root: str) -> list[str]:
    """Return the names of the backups at a root, the oldest first."""
    files, base = file_system(f"{root}/{BACKUPS}")
    found = files.get_file_info(fs.FileSelector(base, allow_not_found=True))
    return sorted(f.base_name.removesuffix(".json") for f in found if f.base_name.endswith(".json"))


def named(root: str, name: str | None) -> str:
    """Return the name of a backup, or of the newest; raise `InputMissing` where there is none."""
    known = backups(root)
    if not known:
        raise InputMissing(f"there is no backup at {root}")
    if name is not None and name not in known:
        raise InputMissing(f"there is no backup '{name}' at {root}{did_you_mean(name, known)} (newest: {known[-1]})")
    return name or known[-1]


def write_backup(root: str, made: Backup) -> str:
    content, at = json.dumps(asdict(made)).encode(), now()
    for newest in backups(root)[-1:]:  # names are in the order of backups, though a clock may have gone back
        at = max(at, datetime.strptime(newest.partition("-")[0], STAMP).replace(tzinfo=timezone.utc) + STEP)
    name = f"{at:{STAMP}}-{hashlib.sha256(content).hexdigest()[:16]}"
    put(root, f"{BACKUPS}/{name}.json", content)
    return name


def read_backup(root: str, name: str) -> Backup:
    files, path = file_system(f"{root}/{BACKUPS}/{name}.json")
    with files.open_input_stream(path) as stream:
        content = stream.readall()
    if hashlib.sha256(content).hexdigest()[:16] != name.rpartition("-")[2]:
        raise HeadgateError(f"the backup {root}/{BACKUPS}/{name}.json is damaged: its content is not what was written")
    facts = json.loads(content)
    return Backup(**(facts | {"files": {path: (size, digest) for path, (size, digest) in facts["files"].items()}}))


def object_name(digest: str) -> str:
    return f"{OBJECTS}/{digest[:2]}/{digest}"


def objects(root: str) -> dict[str, int]:
    """Return the hashes of the files at a root of backups, with their bytes."""
    return {name: info.size for name, info in stored_objects(root).items()}


def stored_objects(root: str) -> dict[str, fs.FileInfo]:
    files, base = file_system(f"{root}/{OBJECTS}")
    found = files.get_file_info(fs.FileSelector(base, recursive=True, allow_not_found=True))
    return {f.base_name: f for f in found if f.type == fs.FileType.File}


def prune(root: str, keep: int) -> list[str]:
    """Remove all but the newest backups, what only they hold, and what backups that were killed left a day ago."""
    known = backups(root)
    gone = known[: len(known) - keep]
    held = {digest for name in gone for _, digest in read_backup(root, name).files.values()}
    for name in gone:
        remove(f"{root}/{BACKUPS}/{name}.json")
    needed = {digest for name in backups(root) for _, digest in read_backup(root, name).files.values()}
    files, _ = file_system(root)
    for digest, info in stored_objects(root).items():
        if digest not in needed and (digest in held or is_old(info)):
            files.delete_file(info.path)
    return gone


def is_old(info: fs.FileInfo) -> bool:
    return info.mtime is not None and now() - info.mtime.astimezone(timezone.utc) > LEFT


# -- files


def is_data(path: str) -> bool:
    """Return whether a file is one of those whose names are never used again."""
    return path.endswith((".parquet", ".bin")) and f"/{LOG}/" not in path


def digest_of(place: str) -> tuple[str, int]:
    """Return the SHA-256 of a file, and its bytes."""
    digest, size = hashlib.sha256(), 0
    for chunk in chunks(place):
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest(), size


def proven(place: str, wanted: str, otherwise: HeadgateError) -> Iterator[bytes]:
    """Yield the content of a file; at its end raise an error unless it has the wanted SHA-256."""
    digest = hashlib.sha256()
    for chunk in chunks(place):
        digest.update(chunk)
        yield chunk
    if digest.hexdigest() != wanted:
        raise otherwise
