"""The files that tables took up from their sources."""

from typing import Any

import pyarrow.compute as pc

from headgate.jobs.errors import LostRace
from headgate.jobs.lake.commits import Commits, facts_of
from headgate.jobs.lake.conflicts import TRIES, retrying
from headgate.jobs.lake.dataset import dataset
from headgate.jobs.lake.system import SAME_CONTENT


class Files(Commits):
    """The files taken up into the tables of a lake."""

    def files_of(self, table: str) -> dict[str, dict[str, Any]]:
        """The files taken up into the table's present content, by path.

        Files are recorded just before the commit that publishes them, so a run that died, that lost a race, or that a
        restore undid leaves records that do not count: only those of builds that led to the present content do.
        """
        delta, builds = self.open("files"), self.builds(table)
        if delta is None or not builds:
            return {}
        rows = dataset(delta).to_table(filter=pc.field("table_name") == table).to_pylist()
        counting = {(b["base"], b["build"]) for b in builds} | {(b["base"], SAME_CONTENT) for b in builds}
        rows = sorted(rows, key=lambda r: (r["base"], r["recorded_at"]))
        return {r["path"]: r for r in rows if (r["base"], r["build"]) in counting}

    def files_of_build(self, table: str, build: str) -> list[dict[str, Any]]:
        """The files that a build took up, in the order of their paths."""
        delta = self.open("files")
        wanted = (pc.field("table_name") == table) & (pc.field("build") == build)
        rows = dataset(delta).to_table(filter=wanted).to_pylist() if delta else []
        return sorted(rows, key=lambda r: r["path"])

    def forget_unpublished_files(self, table: str) -> None:
        """Delete the records of files whose build was never published and no longer can be.

        Records on a later base than the newest build's stay: their run may be about to publish.
        """
        delta = self.open(table)
        if delta is None or self.open("files") is None:
            return
        base = (self.last_build(table) or {}).get("base", -2)
        known: set[Any] | None = None
        lost = LostRace(f"the table of files changed {TRIES} times while '{table}' was being planned; run again")
        for attempt in retrying(otherwise=lost):  # another run records its files, or deletes these
            with attempt:
                files = self.need_table("files")
                old = (pc.field("table_name") == table) & (pc.field("base") <= base)
                mine = old & (pc.field("build") != SAME_CONTENT)
                builds = set(dataset(files).to_table(columns=["build"], filter=mine)["build"].to_pylist())
                if builds and known is None:
                    known = {facts_of(c).get("build") for c in delta.history()}
                dead = sorted(builds - (known or set()))
                if not dead:
                    return
                names = ", ".join(f"'{b}'" for b in dead)
                files.delete(f"table_name = '{table}' AND base <= {base} AND build IN ({names})")
