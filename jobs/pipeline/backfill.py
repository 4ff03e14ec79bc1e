"""Runs as of one day after the other, which may be taken up where they stopped."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from typing import Any

from pyspark.sql import SparkSession

from headgate.jobs.config.models import Environment
from headgate.jobs.config.pipeline import Pipeline
from headgate.jobs.errors import UsageError
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.processes import user
from headgate.jobs.lake.system import now
from headgate.jobs.pipeline.outcome import Outcome
from headgate.jobs.pipeline.run import run
from headgate.jobs.progress import Progress


@dataclass(frozen=True)
class Day:
    """A day of a backfill, and the outcome of its run; None where it was done before."""

    day: date
    outcome: Outcome | None


def days_between(first: date, last: date) -> list[date]:
    """Return the days from the first to the last; raise `UsageError` where there are none, or some are to come."""
    if last < first:
        raise UsageError(f"--to {last} is before --from {first}")
    if last > (today := datetime.now(timezone.utc).date()):
        raise UsageError(f"--to {last} is after today ({today})")
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def done_days(lake: Lake, pipeline: Pipeline) -> set[date]:
    """Return the days as of which a run of all tables of a pipeline succeeded."""
    ends = [r for r in lake.system("runs").to_pylist() if r["pipeline"] == pipeline.name and r["status"] == "succeeded"]
    return {r["as_of"] for r in ends if r["as_of"] and set(pipeline.order) <= tables_in(r["tables"])}


def tables_in(records: str | None) -> set[str]:
    return {r["table"] for r in json.loads(records or "[]")}


def backfill(
    pipeline: Pipeline,
    environment: Environment,
    lake: Lake,
    start_spark: Callable[[int | None], SparkSession],
    progress: Progress,
    days: Sequence[date],
    *,
    again: bool = False,
    around: Callable[[], AbstractContextManager[None]],
    **options: Any,
) -> Iterator[Day]:
    """Run a pipeline as of each day, and yield what came of it; `options`: as of `run`.

    again: whether days that were done before are run once more. around: what surrounds each run. The first error ends
    it, with what was done until then recorded.
    """
    done = set() if again else done_days(lake, pipeline)
    for number, day in enumerate(days, 1):
        if day in done:
            progress.tell("day", message=f"{day}: done before, skipped ({number} of {len(days)})")
            yield Day(day, None)
            continue
        try:
            with around():
                outcome = run(pipeline, environment, lake, start_spark, progress, as_of=day, **options)
        except BaseException:
            progress.tell("warning", message=f"the backfill stopped at {day} ({number} of {len(days)})")
            raise
        record(lake, pipeline, day, outcome)
        release = f"release {outcome.release or 'none'}"
        progress.tell("day", message=f"{day}: {outcome.built} tables built; {release} ({number} of {len(days)})")
        yield Day(day, outcome)


def record(lake: Lake, pipeline: Pipeline, day: date, outcome: Outcome) -> None:
    """Record that a day is done, where its run had nothing to build and so recorded nothing."""
    if outcome.run_id in lake.system("runs")["run_id"].to_pylist():
        return
    tables = json.dumps([t.asdict() for t in outcome.tables], default=str)
    facts = {"run_id": outcome.run_id, "pipeline": pipeline.name, "run_by": user(), "as_of": day}
    ended = {"event": "finished", "status": "succeeded", "recorded_at": now(), "release": outcome.release}
    lake.record("runs", [{**facts, **ended, "tables": tables, "seconds": outcome.seconds}])
