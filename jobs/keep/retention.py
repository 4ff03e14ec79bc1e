"""Retention: releases, the versions they hold, files that nobody needs any more."""

import itertools
import posixpath
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any

from deltalake import CommitProperties
from pyarrow import fs

from headgate.jobs.errors import InputMissing, LostRace, UsageError
from headgate.jobs.keep.archive import archive
from headgate.jobs.lake.artifacts import indexes
from headgate.jobs.lake.commits import facts_of, origin_of
from headgate.jobs.lake.conflicts import is_conflict
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.leftovers import claimed, folder_in, remove_unnamed
from headgate.jobs.lake.log import history, stored_files
from headgate.jobs.lake.storage import file_system, open_table
from headgate.jobs.lake.system import SYSTEM_TABLES, compact
from headgate.words import did_you_mean

GRACE_HOURS = 24.0  # that files are spared, as a run may be about to commit them


def vacuum(
    lake: Lake,
    retention_days: int,
    grace_hours: float,
    tables: Collection[str] = (),
    dry_run: bool = False,
    days_of: Mapping[str, int] = MappingProxyType({}),
    archive_to: str | None = None,
) -> list[dict[str, Any]]:
    """Remove the files that no kept version of a table needs; tells for each table what went.

    Kept are the newest version, every version that a release holds, and every version that was the newest one within
    the last `retention_days`, or those that `days_of` says for its table; others are copied to an archive first, where
    one is given. Files younger than `grace_hours` stay: a run may be about to commit them. No commit is
    made, so versions keep their numbers. Leftovers of runs that died and fitted state of versions that are gone go
    too; the system tables are compacted. Cost: one reading of each table's log and one listing of its folder.
    """
    if archive_to is not None:
        lake.need_no_erasure()
    known = lake.tables()
    for name in tables:
        if name not in known:
            there = f"{did_you_mean(name, known)} (tables: {', '.join(known)})" if known else ""
            raise InputMissing(f"--table: the lake has no table '{name}'{there}")
    pinned: dict[str, set[int]] = {}
    for release in lake.releases:
        for entry in release["tables"]:
            pinned.setdefault(entry["table_name"], set()).add(entry["version"])
    now = datetime.now(timezone.utc)
    young = now - timedelta(hours=grace_hours)
    rows: list[dict[str, Any]] = []
    builds: set[str] = set()
    for table in tables or known:
        found = history(lake.path(table), wanted=())
        days = days_of.get(table, retention_days)
        kept = kept_versions(found.at, pinned.get(table, set()), now - timedelta(days=days))
        if archive_to is not None and not dry_run:
            archive(lake, table, found.at.keys() - kept, archive_to)
        spared = claimed(lake, table, since=young)
        gone, size = remove_unneeded(lake.path(table), kept, young, dry_run, spared)
        commits = {c["version"]: c for c in lake.need_table(table).history()}
        facts = [facts_of(commits.get(origin_of(commits, v), {})) for v in kept]
        builds |= {f[key] for f in facts for key in ("build_key", "state") if f.get(key)}
        for index in indexes(lake, table):
            more, bytes_more = remove_unneeded(index, {open_table(index).version()}, young, dry_run)
            gone, size = gone + more, size + bytes_more
        readable = [v for v in found.at if v in kept]
        rows.append(row(table, len(found.at), len(readable), gone, size))
    if tables:
        return rows
    for name in SYSTEM_TABLES:
        delta = lake.open(name)
        if delta is not None:
            if not dry_run:
                compact(delta)
            newest = open_table(lake.path(name)).version()
            gone, size = remove_unneeded(lake.path(name), {newest}, young, dry_run)
            rows.append(row(name, newest + 1, 1, gone, size))
    gone, size = remove_leftovers(lake, builds, young, dry_run)
    rows.append(row("(leftovers of runs)", None, None, gone, size))
    return rows


def row(table: str, versions: int | None, kept: int | None, files: int, size: int) -> dict[str, Any]:
    removed = {"table": table, "versions": versions, "kept": kept, "files_removed": files}
    return removed | {"mb_removed": round(size / 1e6, 3), "bytes_removed": size}


def kept_versions(at: dict[int, datetime], pinned: Collection[int], since: datetime) -> set[int]:
    """The newest version, the pinned ones, and those that were the newest at any time after `since`."""
    ordered = sorted(at)
    superseded = dict(itertools.pairwise(ordered))
    return {v for v in ordered if v in pinned or v not in superseded or at[superseded[v]] > since}


def remove_unneeded(
    table: str, kept: Collection[int], young: datetime, dry_run: bool, spared: Collection[str] = ()
) -> tuple[int, int]:
    """Remove the data files that no kept version needs and that are old enough; returns their number and bytes.

    spared: folders below the table that runs claim: they may be about to commit what they took up there.
    """
    needed = frozenset().union(*history(table, kept).files.values())
    files, _ = file_system(table)
    gone = size = 0
    for path, info in stored_files(table).items():
        if path not in needed and is_older(info, young) and path.split("/")[0] not in spared:
            gone, size = gone + 1, size + (info.size or 0)
            if not dry_run:
                files.delete_file(info.path)
    return gone, size


def is_older(info: fs.FileInfo, than: datetime) -> bool:
    return info.mtime is not None and info.mtime.astimezone(timezone.utc) <= than


def remove_leftovers(lake: Lake, builds: Collection[str], young: datetime, dry_run: bool) -> tuple[int, int]:
    """Remove what runs that died left: markers, claims with their data files, scratch; and the fitted state of builds
    other than the given ones (by their keys).
    """
    files, base = file_system(lake.root)
    gone = size = 0
    for area in ("_staging", "_system/fitted"):
        for table in files.get_file_info(fs.FileSelector(f"{base}/{area}", allow_not_found=True)):
            folders = files.get_file_info(fs.FileSelector(table.path, allow_not_found=True))
            for folder in sorted(folders, key=lambda f: (len(f.base_name), f.path)):  # of staged work, the marker first
                inside = [folder]
                if folder.type == fs.FileType.Directory:
                    inside = files.get_file_info(fs.FileSelector(folder.path, recursive=True, allow_not_found=True))
                needed = area == "_system/fitted" and posixpath.basename(folder.path) in builds
                # A folder of an object store has no time.
                if needed or not all(is_older(f, young) for f in (folder, *inside) if f.mtime is not None):
                    continue
                claim = folder_in(files, folder.path) if folder.type == fs.FileType.File else None
                if claim is not None:
                    more, bytes_more = remove_unnamed(lake, table.base_name, claim, dry_run)
                    gone, size = gone + more, size + bytes_more
                gone, size = gone + len(inside), size + sum(f.size or 0 for f in inside)
                if not dry_run and folder.type == fs.FileType.Directory:
                    files.delete_dir(folder.path)
                elif not dry_run:
                    files.delete_file(folder.path)
    return gone, size


def drop_releases(
    lake: Lake,
    names: Sequence[str] = (),
    keep: int | None = None,
    older_than: int | None = None,
    pipeline: str | None = None,
    dry_run: bool = False,
) -> list[dict[str, Any]]:
    """Drop releases by name, or those beyond the newest `keep` and older than `older_than` days, of each pipeline.

    The newest release of a pipeline is never dropped. The tables lose nothing until `vacuum`. Raises `LostRace` where
    another writer changes the releases meanwhile.
    """
    delta = lake.open("releases")
    known = lake.releases
    newest = {r["pipeline"]: r["number"] for r in known}
    if pipeline is not None and pipeline not in newest:
        there = f"{did_you_mean(pipeline, newest)} (pipelines: {', '.join(newest)})" if newest else ""
        raise InputMissing(f"--pipeline: the lake has no release of a pipeline '{pipeline}'{there}")
    if names:
        chosen = [lake.release(name) for name in dict.fromkeys(names) if name != "latest"]
        for r in chosen:
            if r["number"] == newest[r["pipeline"]]:
                raise UsageError(f"'{r['release']}' is the newest release of '{r['pipeline']}' and cannot be dropped")
        if "latest" in names:
            raise UsageError("'latest' cannot be dropped")
    else:
        since = datetime.now(timezone.utc) - timedelta(days=older_than or 0)
        chosen = []
        for name in newest:
            if pipeline in (None, name):
                mine = [r for r in known if r["pipeline"] == name]
                chosen += [r for r in mine[: len(mine) - max(keep or 1, 1)] if r["recorded_at"] <= since]
    if chosen and not dry_run and delta is not None:
        numbers = ", ".join(str(r["number"]) for r in chosen)
        try:
            delta.delete(f"number IN ({numbers})", commit_properties=CommitProperties(max_commit_retries=0))
        except Exception as e:
            if is_conflict(e):
                raise LostRace("the releases changed while some were being dropped; run again") from e
            raise
    at = [r["recorded_at"].isoformat(timespec="seconds") for r in chosen]
    return [{"release": r["release"], "pipeline": r["pipeline"], "at": a} for r, a in zip(chosen, at, strict=True)]
