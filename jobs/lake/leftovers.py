"""Data files that a run wrote before a commit named them, and the claims by which they are found if it dies."""

import json
from datetime import datetime

from pyarrow import fs

from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.log import history
from headgate.jobs.lake.storage import file_system, put, remove


def claim(lake: Lake, table: str, key: str, run_id: str, folder: str) -> None:
    """Write, before any data file, that a run uses a folder below a table for the work of a key."""
    put(lake.staging(table), f"{key}-{run_id}.json", json.dumps({"folder": folder}).encode())


def release(lake: Lake, table: str, key: str, run_id: str) -> None:
    """Remove the claim of a run that is done with its folder."""
    remove(f"{lake.staging(table)}/{key}-{run_id}.json")


def staging_areas(lake: Lake) -> list[str]:
    """Return the tables for which runs left anything that is not finished."""
    files, base = file_system(f"{lake.root}/_staging")
    found = files.get_file_info(fs.FileSelector(base, allow_not_found=True))
    return sorted(f.base_name for f in found if f.type == fs.FileType.Directory)


def claimed(lake: Lake, table: str, since: datetime | None = None) -> set[str]:
    """Return the folders below a table that runs claim; `since`: by claims that are younger."""
    files, base = file_system(lake.staging(table))
    found = files.get_file_info(fs.FileSelector(base, allow_not_found=True))
    young = (f for f in found if f.type == fs.FileType.File and (since is None or f.mtime is None or f.mtime > since))
    return {folder for f in young if (folder := folder_in(files, f.path)) is not None}


def folder_in(files: fs.FileSystem, path: str) -> str | None:
    """Return the folder that a claim names; None for another file, or one that a kill cut short."""
    try:
        with files.open_input_stream(path) as stream:
            folder = json.loads(stream.readall()).get("folder")
    except (OSError, ValueError, AttributeError):
        return None
    return folder if isinstance(folder, str) and "-" in path.rpartition("/")[2] else None


def remove_unnamed(lake: Lake, table: str, folder: str, dry_run: bool = False) -> tuple[int, int]:
    """Remove the files of a folder below a table that no version of the table names; return their number and bytes."""
    files, base = file_system(lake.path(table))
    named = {p for paths in history(lake.path(table)).files.values() for p in paths if p.startswith(f"{folder}/")}
    found = files.get_file_info(fs.FileSelector(f"{base}/{folder}", recursive=True, allow_not_found=True))
    gone = [f for f in found if f.type == fs.FileType.File and f.path.removeprefix(f"{base}/") not in named]
    if not dry_run:
        if not named:
            remove(f"{lake.path(table)}/{folder}")
        for file in gone if named else ():
            remove(f"{lake.path(table)}/{file.path.removeprefix(f'{base}/')}")
    return len(gone), sum(f.size or 0 for f in gone)
