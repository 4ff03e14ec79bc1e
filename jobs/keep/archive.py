"""Versions of tables that are about to be removed, copied to a folder elsewhere, where each table can be read."""

from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pyarrow import fs

from headgate.jobs.errors import UsageError
from headgate.jobs.keep.contents import AT_ONCE, SIDECARS, chunks, log_of
from headgate.jobs.lake.commits import facts_of
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.log import LOG, commits, deletion_vectors, history, stored_files
from headgate.jobs.lake.storage import file_system, located, put_chunks


def archive(lake: Lake, table: str, versions: Collection[int], root: str) -> int:
    """Copy versions of a table to `root`/table, where Delta reads them by their numbers; return how many files it took.

    Of these versions, those whose files are all in the lake or in the archive. Data files come first, then commits in
    their order, so that a kill leaves what was whole before. Raises `UsageError` where rows were erased since the table
    was archived.
    """
    source, target = lake.path(table), f"{located(root)}/{table}"
    there = {path: info.size for path, info in stored_files(source).items()}
    held = {path: info.size for path, info in stored_files(target).items()}
    named = history(source, versions).files
    whole = {v: paths for v, paths in named.items() if paths <= there.keys() | held.keys()}
    if not whole:
        return 0
    logs = log_of(source, max(whole))
    need_same_past(source, target, logs)
    files, base = file_system(target)
    inside = fs.FileSelector(f"{base}/{LOG}", recursive=True, allow_not_found=True)
    known = {f.path.removeprefix(f"{base}/"): f.size for f in files.get_file_info(inside)}
    data = {p for p in frozenset().union(*whole.values()) & there.keys() if held.get(p) != there[p]}
    data |= deletion_vectors(source).keys() - deletion_vectors(target).keys()
    fresh = sorted((p for p, size in logs.items() if known.get(p) != size), key=lambda p: (SIDECARS not in p, p))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda path: put_chunks(target, path, chunks(f"{source}/{path}")), data))
    for path in fresh:
        put_chunks(target, path, chunks(f"{source}/{path}"))
    return len(data) + len(fresh)


def need_same_past(source: str, target: str, logs: Collection[str]) -> None:
    """Raise `UsageError` where an erasure changed the log of a table, or reached it, after it was archived.

    Also where the archive holds another table, of which somebody removed the folder.
    """
    before = dict(commits(target))
    if not before:
        return
    ids = {identity(next(commits(place))[1]) for place in (source, target)}
    if len(ids - {None}) > 1:
        raise UsageError(f"{target} holds another table, of before {source} was made: archive it elsewhere")
    for version, actions in commits(source):
        known = before.get(version)
        changed = known is not None and known != actions
        erased = (
            known is None
            and f"{LOG}/{version:020}.json" in logs
            and any("erasure" in facts_of(a["commitInfo"]) for a in actions if "commitInfo" in a)
        )
        if changed or erased:
            raise UsageError(
                f"rows of {source} were erased since it was archived: remove {target}, which may hold them still, and "
                "run again"
            )


def identity(actions: Iterable[Mapping[str, Any]]) -> str | None:
    """Return the id that a commit gives its table; None where it names none."""
    return next((str(a["metaData"]["id"]) for a in actions if "metaData" in a), None)
