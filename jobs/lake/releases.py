"""Releases: the versions of all tables together, each published by exactly one winner."""

import re
from datetime import date
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, write_deltalake

from headgate.jobs.errors import InputMissing, LostRace, UsageError
from headgate.jobs.lake.conflicts import TRIES, retrying
from headgate.jobs.lake.dataset import dataset
from headgate.jobs.lake.records import Records
from headgate.jobs.lake.system import SCHEMAS, TABLE_NAME, compact_now_and_then, now
from headgate.words import did_you_mean


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
        for row in known:
            if name in (row["release"], str(row["number"])):
                return row
        names = [r["release"] for r in known]
        if re.match(TABLE_NAME, name) and self.open(name) is not None:
            raise InputMissing(f"'{name}' is a table, not a release; a version of it is {name}@VERSION")
        raise InputMissing(f"there is no release '{name}'{did_you_mean(name, names)} (newest: {', '.join(names[-5:])})")

    def pinned_version(self, table: str, name: str) -> int:
        """Return the version of a table that a release pins; raise `InputMissing` where it pins none."""
        pins = {t["table_name"]: t["version"] for t in self.release(name)["tables"]}
        if table not in pins:
            self.need_table(table)
            raise InputMissing(f"release '{name}' has no table '{table}'{did_you_mean(table, pins)}")
        return int(pins[table])

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
