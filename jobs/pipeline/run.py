"""A run: build every table that is not up to date, then release all versions together."""

import re
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from typing import Any

import tenacity
from pyspark.sql import SparkSession

from headgate.jobs.config.models import Environment
from headgate.jobs.config.pipeline import Pipeline
from headgate.jobs.errors import LostRace, UsageError
from headgate.jobs.lake.lake import Lake
from headgate.jobs.pipeline.attempt import Attempt, Choice, chosen_tables, storage_failures
from headgate.jobs.pipeline.outcome import Outcome
from headgate.jobs.pipeline.planning import SUITE_CHANGED, plan_table
from headgate.jobs.progress import Progress

LONGEST_PAUSE = 60  # seconds before another try


def check_release(release: str | None, tables: Sequence[str]) -> None:
    """Raise `UsageError` for a name that no release can have, or one beside a choice of tables."""
    if release and not re.fullmatch(r"[A-Za-z0-9][\w.-]*", release):
        raise UsageError(f"--release: invalid name '{release}': use letters, digits, '_', '-' and '.'")
    if release and (release == "latest" or release.isdecimal()):
        what = "the newest release" if release == "latest" else "a release by its number"
        raise UsageError(f"--release: '{release}' stands for {what} everywhere; choose another name")
    if release and tables:
        raise UsageError("--release names all tables together; it cannot be combined with --table")


def dry_run(
    pipeline: Pipeline, environment: Environment, lake: Lake, tables: Sequence[str], as_of: date | None, force: bool
) -> list[dict[str, Any]]:
    """Return what a run would build, and why. Nothing is read but logs and listings, nothing is written.

    what: of a table whose inputs are all there, whether all of it will be built or what changed alone, and why.
    """
    plans: dict[str, str | None] = {}
    answers = []
    with storage_failures(environment, lake):
        for table in chosen_tables(pipeline, tables):
            moved = [t for t in sorted(pipeline.inputs(table)) if plans.get(t)]
            if moved:
                why: str | None = f"{', '.join(moved)} will be built, and may give other rows"
            else:
                plan = plan_table(pipeline, environment, lake, table, as_of, force)
                why = plan.why
                if why is None and not plan.judged:
                    answers.append({"table": table, "build": False, "why": SUITE_CHANGED, "what": ""})
                    continue
            plans[table] = why
            answer = {"table": table, "build": why is not None, "why": why or "up to date", "what": ""}
            if why is not None and not moved and pipeline.tables[table].publish.mode == "auto" and plan.pins:
                from headgate.jobs.pipeline.affected import moved_inputs

                answer["what"] = moved_inputs(pipeline, lake, plan)[1]
            answers.append(answer)
    stale = [str(t["table"]) for t in answers if t["why"] != "up to date"]
    if stale:
        pipeline.check_thoroughly(stale)
    return answers


def run(
    pipeline: Pipeline,
    environment: Environment,
    lake: Lake,
    start_spark: Callable[[int | None], SparkSession],
    progress: Progress,
    *,
    tables: Sequence[str] = (),
    as_of: date | None = None,
    release: str | None = None,
    force: bool = False,
    retries: int = 0,
    wait: timedelta = timedelta(0),
) -> Outcome:
    """Build the tables (default: all) with what they are built from, and release them.

    start_spark: called where something is to be built, with about how many bytes that reads, None where not known.
    wait: for how long another run of the pipeline may keep this one waiting.
    A lost race is tried again so many times, on what the winner left, after a random pause whose bound doubles from a
    second to a minute; then `LostRace` is raised.
    """

    def tell(state: tenacity.RetryCallState) -> None:
        assert state.outcome is not None and state.next_action is not None
        left, pause = retries + 1 - state.attempt_number, state.next_action.sleep
        progress.tell("retry", message=f"{state.outcome.exception()} (again in {pause:.1f} s; {left} tries left)")

    tries = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(LostRace),
        stop=tenacity.stop_after_attempt(retries + 1),
        wait=tenacity.wait_random_exponential(multiplier=1, max=LONGEST_PAUSE),
        before_sleep=tell,
        reraise=True,
    )
    if release in [r["release"] for r in lake.releases]:
        raise UsageError(f"--release: there is a release '{release}' already; a release never changes")
    choice = Choice(tables, as_of, release, force, wait)
    for number, attempt in enumerate(tries):
        with attempt:
            return Attempt(pipeline, environment, lake, start_spark, progress, choice, number < retries).run()
    raise AssertionError("tenacity gives at least one try")
