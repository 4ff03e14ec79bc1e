"""The outcome of a run, as a plain record."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

QUARANTINE = "gate: failed_expectation"  # why rows are set aside, beside the reasons for which steps reject them
BUILT, SAME_ROWS, JUDGED, UP_TO_DATE = "built", "same rows", "judged", "up to date"
OF_JUDGED = ("table", "status", "version", "rows", "why", "seconds", "warnings", "expectations", "passed")


@dataclass(frozen=True)
class TableOutcome:
    """The outcome for one table; beside its version and rows, all speaks of tables that were built or judged."""

    table: str
    status: str  # built | same rows (nothing was published) | judged (by a changed suite) | up to date
    why: str = ""
    version: int | None = None
    rows: int | None = None
    seconds: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)  # phase -> seconds
    rows_in: int = 0
    made: int = 0
    published: int = 0
    rejected: dict[str, int] = field(default_factory=dict)  # "step: reason (columns)" -> rows
    expectations: int = 0
    passed: int = 0
    warnings: list[str] = field(default_factory=list)
    figures: list[dict[str, Any]] = field(default_factory=list)  # of its steps and its gate: step, name, value, facts

    @property
    def built(self) -> bool:
        return self.status in (BUILT, SAME_ROWS)

    @property
    def quarantined(self) -> int:
        return self.rejected.get(QUARANTINE, 0)

    def asdict(self) -> dict[str, Any]:
        """Return the record as JSON has it: what speaks of a build only where there was one."""
        record = dataclasses.asdict(self)
        names = list(record) if self.built else OF_JUDGED if self.status == JUDGED else OF_JUDGED[:4]
        return {name: record[name] for name in names}


@dataclass(frozen=True)
class Outcome:
    """The outcome for each table, and the release that now stands."""

    run_id: str
    release: str | None
    tables: list[TableOutcome]
    seconds: float
    built: int  # how many tables, those that gave the same rows included
    missing: list[dict[str, Any]] = field(default_factory=list)  # of sources whose expected files are not all there

    def asdict(self) -> dict[str, Any]:
        """Return the record as `headgate run --json` prints it."""
        record = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return record | {"tables": [t.asdict() for t in self.tables]}
