"""Events of a run: what its observers are given, in this order; phases of tables (`PhaseDone`) come between.

RunStarted; FilesDue for each source that expects files; then for each table that is built or judged TableStarted,
TableJudged where it has a suite, ColumnsTraced as it is published, TableDone or TableFailed; of tables that are up to
date TableDone alone; RunEnded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from headgate.jobs.config.models import Source
from headgate.jobs.lake.lake import Lake
from headgate.jobs.pipeline.expected import Due
from headgate.jobs.pipeline.outcome import Outcome, TableOutcome

if TYPE_CHECKING:
    from headgate.expectations.verdict import Verdict  # Great Expectations takes seconds to import


@dataclass(frozen=True)
class RunStarted:
    """A run begins, or a further try of one."""

    run_id: str
    pipeline: str
    lake: Lake
    as_of: date | None


@dataclass(frozen=True)
class FilesDue:
    """The files of a day that a source expects, found or missing."""

    due: Due


@dataclass(frozen=True)
class TableStarted:
    """A table begins to be built or judged, from these versions of its inputs, or from a source."""

    table: str
    inputs: Mapping[str, int]
    source: Source | None


@dataclass(frozen=True)
class TableJudged:
    """The gate has judged a table; it may block."""

    table: str
    verdict: "Verdict"


@dataclass(frozen=True)
class ColumnsTraced:
    """The columns of a table's inputs (`table.column`) whose values are in each of its own."""

    table: str
    columns: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class TableDone:
    """A table is published, found good again, or was up to date."""

    outcome: TableOutcome


@dataclass(frozen=True)
class TableFailed:
    """A table could not be built, or the gate blocked it."""

    table: str
    error: BaseException


@dataclass(frozen=True)
class RunEnded:
    """A run ended, well or by an error; it may have come before `RunStarted`.

    again: whether another try follows.
    """

    pipeline: str
    error: BaseException | None
    outcome: Outcome | None
    seconds: float
    again: bool = False

    @property
    def exit_code(self) -> int:
        return getattr(self.error, "exit_code", 1) if self.error else 0
