"""Bringing an older version back."""

import json
from collections.abc import Sequence
from typing import Any

from headgate.jobs.errors import LostRace, UsageError
from headgate.jobs.lake.conflicts import is_conflict
from headgate.jobs.lake.dataset import need_readable
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.log import missing_files


def restore(lake: Lake, targets: Sequence[tuple[str, int]], run_id: str) -> list[dict[str, Any]]:
    """Make an older version of each table the newest again, by a new commit that names it.

    Raises `LostRace` where another writer changes a table meanwhile, or an erasure is not finished; `UsageError` where
    files of a version are gone, or its rows are told by more than its files.
    """
    from deltalake import CommitProperties

    lake.need_no_erasure()
    for table, version in targets:  # all are checked before the first is touched
        for delta in (lake.need_table(table), lake.open(table, version)):
            if delta is not None:
                need_readable(delta)  # deltalake restores no rows that deletion vectors mark, and says nothing of it
        missing = missing_files(lake, table, version)
        if missing:
            raise UsageError(f"version {version} of table '{table}' cannot be restored: vacuum removed {missing[0]}")
    rows: list[dict[str, Any]] = []
    for table, version in targets:
        delta = lake.need_table(table)
        if delta.version() != version:
            facts = {"run_id": run_id, "restored_version": version, "base": delta.version()}
            properties = CommitProperties(custom_metadata={"userMetadata": json.dumps(facts)}, max_commit_retries=0)
            try:
                delta.restore(version, commit_properties=properties)
            except Exception as e:
                if not is_conflict(e):
                    raise
                done = f"; restored are {', '.join(str(r['table']) for r in rows)}" if rows else ""
                why = f"table '{table}' was changed by another writer while it was being restored"
                raise LostRace(f"{why}; run again{done}") from e
        found = lake.published(table)
        rows.append(
            {"table": table, "version": found.version if found else None, "content_of": version}
            | {"rows": found.rows if found else None}
        )
    return rows
