"""Files that a source expects of a day: how many are there, and what follows where some are missing."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timezone
from typing import Any

from headgate.jobs.config.models import DATE_PLACE, Environment, FileSource
from headgate.jobs.config.nightly import Expected
from headgate.jobs.config.pipeline import Pipeline
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.system import now
from headgate.jobs.sources.files import list_files


@dataclass(frozen=True)
class Due:
    """The files of a day that a source expects, at the time of a run."""

    table: str
    day: date
    expected: int
    found: int
    by: datetime
    late: bool  # whether that time has passed
    must: bool  # whether a run fails without them

    @property
    def missing(self) -> int:
        return max(0, self.expected - self.found)

    @property
    def fails(self) -> bool:
        return bool(self.missing and self.late and self.must)

    def sentence(self) -> str:
        files = f"{self.found} of {self.expected} expected files of {self.day} are there"
        when = f"by {self.by:%Y-%m-%d %H:%M} {self.by.tzinfo}"
        return f"table '{self.table}': {files}; they {'were' if self.late else 'are'} due {when}"

    def asdict(self) -> dict[str, Any]:
        facts = {"table": self.table, "day": self.day, "expected": self.expected, "found": self.found}
        return {**facts, "by": self.by.isoformat(), "late": self.late}

    def metric(self) -> dict[str, Any]:
        """Return what the table of metrics says of missing files."""
        facts = {"table_name": self.table, "recorded_at": now(), "kind": "arrival", "name": f"files of {self.day}"}
        facts |= {"dimension": "timeliness", "severity": "critical" if self.fails else "warning", "success": False}
        return {**facts, "element_count": self.expected, "unexpected_count": self.missing, "value": float(self.found)}


def due_files(
    pipeline: Pipeline, environment: Environment, lake: Lake, tables: Iterable[str], as_of: date | None, at: datetime
) -> list[Due]:
    """Return what the sources of these tables expect in a run of a day (default: that of `at`), found or not."""
    found = []
    for table in tables:
        source = pipeline.tables[table].source
        expected = source.expected if isinstance(source, FileSource) else None
        due = expected.due(as_of or at.astimezone(expected.zone).date()) if expected else None
        if expected and due and isinstance(source, FileSource):
            day, by = due
            paths = files_of(environment, lake, table, source, expected, day)
            facts = {"late": at >= by, "must": expected.on_missing == "fail"}
            found.append(Due(table, day, expected.files, len(paths), by, **facts))
    return found


def files_of(
    environment: Environment, lake: Lake, table: str, source: FileSource, expected: Expected, day: date
) -> set[str]:
    """Return the files of a day, those that were taken up before and are gone since included.

    The day of a file is that in its name, where the pattern has one, else that of its last change.
    """

    def is_of_the_day(date: date | None, modified: datetime) -> bool:
        changed = modified if modified.tzinfo else modified.replace(tzinfo=timezone.utc)
        return (date if DATE_PLACE in source.path else changed.astimezone(expected.zone).date()) == day

    there = {f.path for f in list_files(environment.landing, source, None).files if is_of_the_day(f.date, f.modified)}
    return there | {p for p, f in lake.files_of(table).items() if is_of_the_day(f["date"], f["modified"])}
