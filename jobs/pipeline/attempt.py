"""One try of a run: its lease, its tables side by side, its release, and its end in the table of runs."""

import contextlib
import json
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any

from pyspark.sql import SparkSession

from headgate.jobs.config.models import Environment
from headgate.jobs.config.pipeline import Pipeline
from headgate.jobs.disclosure import without_secrets
from headgate.jobs.errors import (
    HeadgateError,
    InputMissing,
    Interrupted,
    LostRace,
    UsageError,
    ending,
    storage_failure,
)
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.lease import Lease, held
from headgate.jobs.lake.processes import is_gone, process_space, this_process, user
from headgate.jobs.lake.system import now
from headgate.jobs.pipeline.events import FilesDue, RunEnded, RunStarted, TableDone
from headgate.jobs.pipeline.expected import Due, due_files
from headgate.jobs.pipeline.outcome import BUILT, Outcome, TableOutcome
from headgate.jobs.pipeline.planning import TablePlan, bytes_to_read, plan_table
from headgate.jobs.pipeline.side_by_side import default_at_once, side_by_side
from headgate.jobs.pipeline.tables import build_one, skipped
from headgate.jobs.pipeline.work import Run
from headgate.jobs.progress import Progress
from headgate.jobs.sources.landing import absolute
from headgate.words import counted, did_you_mean

SILENCE = timedelta(days=7)  # after which a run on another machine that has not finished is taken for dead


@dataclass(frozen=True)
class Choice:
    """What a caller chooses of a run: as the options of `headgate run`."""

    tables: Sequence[str] = ()
    as_of: date | None = None
    release: str | None = None
    force: bool = False
    wait: timedelta = timedelta(0)


def chosen_tables(pipeline: Pipeline, tables: Sequence[str]) -> list[str]:
    for table in tables:
        if table not in pipeline.tables:
            known = f"{did_you_mean(table, pipeline.tables)} (tables: {', '.join(pipeline.tables)})"
            raise UsageError(f"--table: there is no table '{table}'{known}")
    return pipeline.upstream(tables or list(pipeline.tables))


@contextlib.contextmanager
def storage_failures(environment: Environment, lake: Lake) -> Iterator[None]:
    """Tell an error of a storage as what it is, with the place that failed."""
    try:
        yield
    except HeadgateError:
        raise
    except Exception as e:
        failure = storage_failure(e, lake.root, absolute(environment.landing))
        if failure is None:
            raise
        raise failure from e


class Attempt:
    """One try of a run; `again`: if it loses a race, another follows.

    Tables that are up to date are skipped; Spark starts only if something is to be built. A release is made of all
    tables of the pipeline, when any version moved since the last one and no choice of tables was made.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        environment: Environment,
        lake: Lake,
        start_spark: Callable[[int | None], SparkSession],
        progress: Progress,
        choice: Choice,
        again: bool,
    ) -> None:
        self.pipeline, self.environment, self.lake = pipeline, environment, lake
        self.start_spark, self.progress, self.choice, self.again = start_spark, progress, choice, again
        self.started = time.monotonic()
        self.run_id = uuid.uuid4().hex[:12]
        self.wanted = chosen_tables(pipeline, choice.tables)
        self.plans: dict[str, TablePlan] = {}  # that nothing changed since
        self.latest = lake.latest_release(pipeline.name)
        self.lease: Lease | None = None
        self.building: Run | None = None
        self.recorded = False
        self.records: list[TableOutcome] = []
        self.missing: list[Due] = []

    def run(self) -> Outcome:
        error: BaseException | None = None
        outcome: Outcome | None = None
        self.progress.emit(RunStarted(self.run_id, self.pipeline.name, self.lake, self.choice.as_of))
        try:
            with storage_failures(self.environment, self.lake):
                record_the_dead(self.lake, self.pipeline.name)
                self.expect_files()
                with self.alone():
                    outcome = self.work()
            return outcome
        except BaseException as e:
            error = ending(e)
            self.tell_unreleased()
            raise
        finally:
            self.end(error, outcome)

    def expect_files(self) -> None:
        """Tell of expected files that are missing; raise `InputMissing` where a run fails without them."""
        choice = self.choice
        due = due_files(self.pipeline, self.environment, self.lake, self.wanted, choice.as_of, now())
        for found in due:
            self.progress.emit(FilesDue(found))
        self.missing = [d for d in due if d.missing]
        self.lake.record("metrics", [{"run_id": self.run_id, **d.metric()} for d in self.missing])
        failing = [d.sentence() for d in self.missing if d.fails]
        if failing:
            raise InputMissing("\n".join(failing))
        for d in self.missing:
            self.progress.tell("warning", table=d.table, message=d.sentence())

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the pipeline's lease where there is anything to do; a run without writes nothing."""
        if not self.anything_to_do():
            yield
            return
        self.lake.need_writable()

        def tell(message: str) -> None:
            self.progress.tell("warning", message=message)

        with held(self.lake, self.pipeline.name, self.run_id, self.choice.wait, tell) as self.lease:
            self.plans.clear()  # another run may have been at work until now
            self.latest = self.lake.latest_release(self.pipeline.name)
            yield

    def anything_to_do(self) -> bool:
        """Return whether a table is to be built or judged, or a release to be made; keep the plans made meanwhile."""
        for table in self.wanted:
            plan = self.plans[table] = self.plan(table)
            if plan.why_to_act is not None:
                return True
        return not self.choice.tables and self.needs_release([skipped(plan) for plan in self.plans.values()])

    def plan(self, table: str) -> TablePlan:
        choice = self.choice
        return plan_table(self.pipeline, self.environment, self.lake, table, choice.as_of, choice.force)

    def work(self) -> Outcome:
        self.progress.expect(len(self.wanted))
        needs = {table: self.pipeline.inputs(table) & set(self.wanted) for table in self.wanted}
        at_once = self.environment.tables_at_once or default_at_once()
        for record in side_by_side(self.wanted, needs, self.task, at_once):
            self.records.append(record)
            self.progress.finished(record.asdict())
            self.progress.emit(TableDone(record))
        self.records.sort(key=lambda r: self.wanted.index(r.table))
        name = self.latest["release"] if self.latest else None
        if not self.choice.tables and self.needs_release(self.records):
            seen = self.latest["number"] if self.latest else None
            facts = (versions_of(self.records), self.choice.as_of, seen, self.choice.release)
            name = self.lake.publish_release(self.pipeline.name, self.run_id, *facts)
        built = sum(r.built for r in self.records)
        missing = [d.asdict() for d in self.missing]
        return Outcome(self.run_id, name, self.records, time.monotonic() - self.started, built, missing)

    def needs_release(self, records: Sequence[TableOutcome]) -> bool:
        if self.latest is None or self.choice.release:
            return True
        pinned = {t["table_name"]: t["version"] for t in self.latest["tables"]}
        return pinned != versions_of(records) or bool(self.lake.made_anew(self.latest))

    def task(self, table: str) -> Callable[[], TableOutcome]:
        """Plan a table, and start Spark where it must be built or judged."""
        if self.lease is not None:
            self.lease.need()
        plan = self.plans.pop(table, None) or self.plan(table)
        for note in plan.notes:
            self.progress.tell("warning", table=table, message=note)
        if plan.current is None:
            self.tell_made_anew(table)
        if plan.why_to_act is None:
            return partial(skipped, plan)
        if self.building is None:
            self.building = self.begin()
        return partial(build_one, self.building, plan)

    def tell_made_anew(self, table: str) -> None:
        """Say which releases name versions of a table that is not there any more."""
        names = [r["release"] for r in self.lake.releases if table in {t["table_name"] for t in r["tables"]}]
        if names:
            gone = f"what {counted(len(names), 'release')} named of it is gone (newest: {names[-1]})"
            self.progress.tell("warning", table=table, message=f"table '{table}' is made anew: {gone}")

    def begin(self) -> Run:
        """Record the start of the run, and start Spark."""
        self.pipeline.check_thoroughly(self.wanted)
        self.lake.need_writable()
        erasing = self.lake.erasing  # first: an erasure that begins now stops what is built from here on
        self.lake.need_no_erasure()
        process = f"{this_process()} {process_space()}"
        begins = {"event": "started", "status": "running", "recorded_at": now(), "process": process}
        self.recorded = True  # first: an interruption may come in the midst of it
        self.lake.record("runs", [{**self.common, **begins}])
        with self.progress.phase("spark", "start"):
            reads = bytes_to_read(self.pipeline, self.environment, self.lake, self.wanted, self.choice.as_of)
            spark = self.start_spark(reads)
        self.progress.spark = spark
        as_of = self.choice.as_of
        return Run(spark, self.pipeline, self.environment, self.lake, self.progress, self.run_id, as_of, erasing)

    @property
    def common(self) -> dict[str, Any]:
        facts = {"run_id": self.run_id, "pipeline": self.pipeline.name}
        return {**facts, "run_by": user(), "as_of": self.choice.as_of}

    def tell_unreleased(self) -> None:
        """Say which tables a run published before it failed."""
        moved = [f"{r.table} version {r.version}" for r in self.records if r.status == BUILT]
        if moved and not self.choice.tables:
            none = f"the pipeline '{self.pipeline.name}' has no release yet"
            stays = f"the newest release stays {self.latest['release']}" if self.latest else none
            self.progress.tell("warning", message=f"published, but in no release: {', '.join(moved)}; {stays}")

    def end(self, error: BaseException | None, outcome: Outcome | None) -> None:
        """Record the end of a run that began to build, and tell the observers."""
        seconds = time.monotonic() - self.started
        if self.recorded:
            status = error.status if isinstance(error, Interrupted) else type(error).__name__ if error else "succeeded"
            message = without_secrets(str(error))[:2000] if isinstance(error, HeadgateError) else ""
            finished = {"event": "finished", "status": status, "recorded_at": now(), "message": message}
            tables = json.dumps([r.asdict() for r in self.records], default=str)
            details = {"release": outcome.release if outcome else None, "tables": tables}
            try:
                self.lake.record("runs", [{**self.common, **finished, **details, "seconds": seconds}])
            except Exception:
                if error is None:
                    raise  # otherwise a full disk would hide why the run failed
        again = self.again and isinstance(error, LostRace)
        self.progress.emit(RunEnded(self.pipeline.name, error, outcome, seconds, again))


def versions_of(records: Sequence[TableOutcome]) -> dict[str, int]:
    return {r.table: r.version for r in records if r.version is not None}


def is_dead(started: dict[str, Any], at: datetime) -> bool:
    """Return whether the process of a run that has not finished is gone; elsewhere, after `SILENCE`."""
    host, pid, began, *space = (started.get("process") or "- 0 -").split(" ")
    known = " ".join(space) if space else process_space()  # earlier versions did not record it
    return is_gone(f"{host} {pid} {began}", known, at - started["recorded_at"], SILENCE)


def record_the_dead(lake: Lake, pipeline: str) -> None:
    """Give every run of the pipeline that ended without a word the end `abandoned`."""
    runs = [r for r in lake.system("runs").to_pylist() if r["pipeline"] == pipeline]
    finished = {r["run_id"] for r in runs if r["event"] == "finished"}
    open_runs = [r for r in runs if r["event"] == "started" and r["run_id"] not in finished]
    at = now()
    same = ("run_id", "pipeline", "run_by", "as_of")
    message = "its process was gone when the next run began"
    abandoned = {"event": "finished", "status": "abandoned", "recorded_at": at, "message": message}
    lake.record("runs", [{**{k: r[k] for k in same}, **abandoned} for r in open_runs if is_dead(r, at)])
