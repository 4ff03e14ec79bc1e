"""The commits of a table: when, by whom, of what, and how many rows."""

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from headgate.jobs.lake.dataset import dataset
from headgate.jobs.lake.folder import Folder
from headgate.jobs.lake.system import REARRANGING


@dataclass(frozen=True)
class Published:
    """One version of a table, as its commit describes it."""

    table: str
    path: str
    version: int
    rows: int
    at: datetime
    operation: str
    facts: dict[str, Any]  # what headgate wrote into the commit: run_id, build, build_key, base, inputs, ...
    rows_of: int  # the version that first had these rows; later ones only rearranged the files that hold them


class Commits(Folder):
    """The commits of the tables of a lake."""

    def published(self, table: str, version: int | None = None) -> Published | None:
        delta = self.open(table, version)
        if delta is None:
            return None
        newest = delta if version is None else self.need_table(table)
        age = newest.version() - delta.version()
        commits = newest.history(age + 1)  # a table opened at an older version numbers its history wrongly
        found = describe(table, self.path(table), delta, commits[age] if age < len(commits) else {})
        if "restored_version" in found.facts:  # the content, and so the build, is that of the version restored
            origin = self.published(table, found.facts["restored_version"])
            found = replace(found, facts=origin.facts if origin else {})
        elif found.operation in REARRANGING and found.version > 0:
            before = self.published(table, found.version - 1)
            found = replace(found, facts=before.facts, rows_of=before.rows_of) if before else found
        return found

    def rearranged(self, table: str, version: int) -> int:
        """Return the newest version with just the rows of this one whose files are all there; else this one."""
        newest = self.need_table(table)
        if newest.version() <= version:
            return version
        later = reversed(newest.history(newest.version() - version))
        same = itertools.takewhile(lambda commit: commit.get("operation") in REARRANGING, later)
        for commit in reversed(list(same)):
            if self.has_files(table, self.file_sizes(table, commit["version"])):
                return int(commit["version"])
        return version

    def last_build(self, table: str) -> dict[str, Any] | None:
        """The facts of the newest build in a table's content, past other writers and restores; None without one."""
        for limit in (1, 20, None):
            found = self.builds(table, limit)
            if found:
                return found[0]
        return None

    def builds(self, table: str, limit: int | None = None) -> list[dict[str, Any]]:
        """The facts of the builds that led to a table's present content, the newest first, among so many commits.

        What a restore undid is not among them; commits of other writers have no facts.
        """
        delta = self.open(table)
        found, undone_after = [], None
        for commit in delta.history(limit) if delta else ():
            if undone_after is not None and commit["version"] > undone_after:
                continue
            facts = facts_of(commit)
            if "restored_version" in facts:
                undone_after = facts["restored_version"]
            elif "build" in facts:
                found.append(facts)
        return found

    def present_builds(self, table: str) -> list[str]:
        """The builds that a table's present rows come from, the newest first: the last full one, increments since."""
        names = []
        for facts in self.builds(table):
            names.append(facts["build"])
            if not facts.get("increment") and facts.get("moved") is None:
                break
        return names


def describe(table: str, path: str, delta: DeltaTable, commit: dict[str, Any], version: int | None = None) -> Published:
    """Return the facts of a commit; the rows are those of `delta`, and not counted for another `version` of it."""
    return Published(
        table=table,
        path=path,
        version=delta.version() if version is None else version,
        rows=count_rows(delta) if version is None else -1,
        at=datetime.fromtimestamp(commit.get("timestamp", 0) / 1000, tz=timezone.utc),
        operation=commit.get("operation", ""),
        facts=facts_of(commit),
        rows_of=delta.version() if version is None else version,
    )


def facts_of(commit: dict[str, Any]) -> dict[str, Any]:
    """Return what headgate wrote into a commit; of another writer's, only which version it restored, where it did."""
    try:
        facts = json.loads(commit.get("userMetadata") or "{}")
    except ValueError:
        facts = {}
    version = str((commit.get("operationParameters") or {}).get("version", ""))
    if commit.get("operation") == "RESTORE" and version.isdigit():
        return {"restored_version": int(version)} | (facts if isinstance(facts, dict) else {})
    return facts if isinstance(facts, dict) else {}


def origin_of(commits: Mapping[int, dict[str, Any]], version: int) -> int:
    """Return the version whose commit tells of the build of a version's rows, past restores and rearrangements."""
    while version in commits:
        restored = facts_of(commits[version]).get("restored_version")
        if restored is None and commits[version].get("operation") not in REARRANGING:
            break
        version = version - 1 if restored is None else restored
    return version


def count_rows(delta: DeltaTable) -> int:
    """Rows of a table from the statistics of its log; files without statistics are counted."""
    files = pa.table(delta.get_add_actions(flatten=True))
    if not files.num_rows:
        return 0
    rows = files["num_records"]
    return dataset(delta).count_rows() if rows.null_count else int(pc.sum(rows).as_py())
