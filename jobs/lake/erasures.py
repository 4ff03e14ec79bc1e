"""Finished and unfinished erasures, and what the versions that they touched hold since."""

import json
from typing import Any

from headgate.jobs.errors import LostRace
from headgate.jobs.lake.commits import Commits, facts_of
from headgate.jobs.lake.records import Records
from headgate.jobs.lake.system import REARRANGING


class Erasures(Commits, Records):
    """The erasures of a lake."""

    @property
    def erasures(self) -> list[dict[str, Any]]:
        """The certificates of finished erasures, in their order."""
        rows = [r for r in self.system("erasures").to_pylist() if r["event"] == "finished"]
        return sorted(rows, key=lambda r: r["recorded_at"])

    @property
    def unfinished_erasures(self) -> list[dict[str, Any]]:
        rows = self.system("erasures").to_pylist()
        finished = {r["erasure"] for r in rows if r["event"] == "finished"}
        return [r for r in rows if r["event"] == "started" and r["erasure"] not in finished]

    def need_no_erasure(self) -> None:
        """Raise `LostRace` where an erasure is not finished: what it has not reached yet must not spread."""
        for erasure in self.unfinished_erasures:
            raise LostRace(f"the erasure {erasure['erasure']} is not finished: headgate erase --resume")

    @property
    def erasing(self) -> int:
        """A number that grows with every start and end of an erasure."""
        table = self.open("erasures")
        return -1 if table is None else table.version()

    def erased_versions(self, table: str) -> dict[int, dict[str, Any]]:
        """version -> rows and content after the last erasure that touched it."""
        found: dict[int, dict[str, Any]] = {}
        for erasure in self.erasures:
            versions = json.loads(erasure["tables"]).get(table, {}).get("versions", {})
            found |= {int(v): facts for v, facts in versions.items()}
        return found

    def erased_entries(self, build: str) -> int:
        """Return how many ledger entries of a build were erased."""
        return sum(json.loads(e["entries"]).get(build, 0) for e in self.erasures)

    def content_total(self, table: str, version: int) -> str | None:
        """The recorded sum of the hashes of a version's rows, as an erasure left it; None where none is recorded."""
        erased = self.erased_versions(table)
        if erased and version not in erased and version < max(erased):
            return None  # perhaps written anew by an erasure, which counted only what releases hold
        delta = self.need_table(table)
        for commit in delta.history():
            if commit["version"] > version:
                continue
            if commit["version"] in erased:
                return str(erased[commit["version"]]["content"])
            facts = facts_of(commit)
            if "restored_version" in facts:
                return self.content_total(table, facts["restored_version"])
            if commit.get("operation") not in REARRANGING:
                return facts.get("content_total")
        return None
