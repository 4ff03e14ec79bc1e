"""Releases: the versions of all tables together, each published by exactly one winner."""

import re
from collections.abc import Collection, Mapping
from datetime import date, datetime, timedelta, timezone
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, write_deltalake

from headgate.jobs.errors import InputMissing, LostRace, UsageError
from headgate.jobs.lake.conflicts import TRIES, retrying
from headgate.jobs.lake.dataset import dataset
from headgate.jobs.lake.records import Records
from headgate.jobs.lake.system import SCHEMAS, TABLE_NAME, compact_now_and_then, now
from headgate.words import did_you_mean

CLOCKS = timedelta(minutes=5)  # by which those of machines may differ


class Releases(Records):
    """The releases of a lake."""

    @property
    def releases(self) -> list[dict[str, Any]]:
        return sorted(self.system("releases").to_pylist(), key=lambda r: r["number"])

    def latest_release(self, pipeline: str | None = None) -> dict[str, Any] | None:
        found = [r for r in self.releases if pipeline in (None, r["pipeline"])]
        return found[-1] if found else None

    def release(self, name: str) -> dict[str, Any]:
        """A release by its name or number, or `latest`."""
        known = self.releases
        if not known:
            raise InputMissing(f"the lake {self.root} has no release yet")
        if name == "latest":
            return known[-1]
        names = [r["release"] for r in known]
        for listed in (names, [str(r["number"]) for r in known]):  # a name goes before a number
            if name in listed:
                return known[listed.index(name)]
        if re.match(TABLE_NAME, name) and self.open(name) is not None:
            raise InputMissing(f"'{name}' is a table, not a release; a version of it is {name}@VERSION")
        raise InputMissing(f"there is no release '{name}'{did_you_mean(name, names)} (newest: {', '.join(names[-5:])})")

    def pins(self, name: str, tables: Collection[str] = ()) -> dict[str, int]:
        """Return the versions that a release pins, of some tables or (default) of all.

        Raises `InputMissing` for a table that it does not pin, one that is gone, and one that was made anew since: its
        versions are others than the release's.
        """
        release = self.release(name)
        pins = {t["table_name"]: int(t["version"]) for t in release["tables"]}
        for table in tables:
            if table not in pins:
                self.need_table(table)
                raise InputMissing(f"release '{name}' has no table '{table}'{did_you_mean(table, pins)}")
        chosen = {t: v for t, v in pins.items() if not tables or t in tables}
        anew = self.made_anew(release, CLOCKS)
        for table in chosen:
            if self.open(table) is None:
                raise InputMissing(f"release '{name}' names table '{table}', which does not exist in lake {self.root}")
            if table in anew:
                raise InputMissing(
                    f"release '{name}' names version {pins[table]} of a table '{table}' that is gone: the one in lake "
                    f"{self.root} was made anew at {anew[table]:%Y-%m-%d %H:%M:%S} UTC"
                )
        return chosen

    def made_anew(self, release: Mapping[str, Any], clocks: timedelta = timedelta(0)) -> dict[str, datetime]:
        """Return the tables of a release that are there, but were made after it, and when.

        clocks: by how much those of machines may differ.
        """
        found = {}
        for table, version in ((t["table_name"], t["version"]) for t in release["tables"]):
            delta = self.open(table)
            if delta is None or delta.version() < version:
                continue
            # As that version says it: another writer may have replaced the table by a later one of its own.
            there = delta if delta.version() == version else self.open(table, version)
            made = (there.metadata().created_time if there else None) or 0
            at = datetime.fromtimestamp(made / 1000, tz=timezone.utc)
            if at > release["recorded_at"] + clocks:
                found[table] = at
        return found

    def pinned_version(self, table: str, name: str) -> int:
        """Return the version of a table that a release pins; raise `InputMissing` as `pins` does."""
        return self.pins(name, [table])[table]

    def publish_release(
        self,
        pipeline: str,
        run_id: str,
        tables: dict[str, int],
        as_of: date | None,
        seen: int | None,
        name: str | None,
        note: str = "",
    ) -> str:
        """Name the versions of all tables together.

        `seen` is the number of the pipeline's newest release when the run pinned its inputs: if another has appeared
        since, this run lost and raises `LostRace`.
        """
        lost = LostRace(
            f"the releases of {self.root} changed {TRIES} times while this one was being written; run again"
        )
        release, at = "", now()
        for attempt in retrying(otherwise=lost):
            with attempt:
                delta = self.open_or_create("releases")
                known = dataset(delta).to_table().to_pylist()
                own = [r["release"] for r in known if (r["run_id"], r["recorded_at"]) == (run_id, at)]
                if own:
                    return str(own[0])  # it was published, and the answer was lost on the way
                mine = [r["number"] for r in known if r["pipeline"] == pipeline]
                if (max(mine) if mine else None) != seen:
                    raise LostRace(
                        f"another run of '{pipeline}' published a release meanwhile; run again to build on it"
                    )
                number = max((r["number"] for r in known), default=0) + 1
                release = name or f"{pipeline}-{number}"
                if any(r["release"] == release for r in known):
                    raise UsageError(f"there is a release '{release}' already; a release never changes")
                row = {
                    "number": number,
                    "release": release,
                    "pipeline": pipeline,
                    "run_id": run_id,
                    "recorded_at": at,
                    "as_of": as_of,
                    "note": note,
                    "tables": [{"table_name": t, "version": v} for t, v in sorted(tables.items())],
                }
                data = pa.Table.from_pylist([row], schema=SCHEMAS["releases"])
                write_deltalake(delta, data, mode="append", commit_properties=CommitProperties(max_commit_retries=0))
                compact_now_and_then(delta)
        return release
