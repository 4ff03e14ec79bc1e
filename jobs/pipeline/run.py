"""A run: build every table that is not up to date, then release all versions together."""

import contextlib
import getpass
import json
import os
import re
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from headgate.jobs.config.models import Environment
from headgate.jobs.config.pipeline import Pipeline
from headgate.jobs.errors import HeadgateError, Interrupted, LostRace, UsageError, storage_failure
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.system import now
from headgate.jobs.pipeline.events import RunEnded, RunStarted, TableDone, TableFailed, TableStarted
from headgate.jobs.pipeline.outcome import BUILT, JUDGED, SAME_ROWS, UP_TO_DATE, Outcome, TableOutcome
from headgate.jobs.pipeline.planning import SUITE_CHANGED, TablePlan, bytes_to_read, plan_table
from headgate.jobs.pipeline.side_by_side import default_at_once, side_by_side
from headgate.jobs.pipeline.work import Run
from headgate.jobs.progress import Progress
from headgate.jobs.sources.landing import absolute
from headgate.words import did_you_mean

SILENCE = timedelta(days=7)  # after which a run on another machine that has not finished is taken for dead


def check_release(release: str | None, tables: Sequence[str]) -> None:
    """Raise `UsageError` for a name that no release can have, or one beside a choice of tables."""
    if release and not re.fullmatch(r"[A-Za-z0-9][\w.-]*", release):
        raise UsageError(f"--release: invalid name '{release}': use letters, digits, '_', '-' and '.'")
    if release and tables:
        raise UsageError("--release names all tables together; it cannot be combined with --table")


def chosen_tables(pipeline: Pipeline, tables: Sequence[str]) -> list[str]:
    for table in tables:
        if table not in pipeline.tables:
            raise UsageError(f"--table: there is no table '{table}'{did_you_mean(table, pipeline.tables)}")
    return pipeline.upstream(tables or list(pipeline.tables))


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
) -> Outcome:
    """Build the tables (default: all) with what they are built from, and release them.

    start_spark: called where something is to be built, with about how many bytes that reads, None where not known.
    A lost race is tried again so many times, on what the winner left; then `LostRace` is raised.
    """
    options: dict[str, Any] = {"tables": tables, "as_of": as_of, "release": release, "force": force}
    for left in range(retries, 0, -1):
        try:
            return run_once(pipeline, environment, lake, start_spark, progress, **options, again=True)
        except LostRace as e:
            progress.tell("retry", message=f"{e} ({left} tries left)")
    return run_once(pipeline, environment, lake, start_spark, progress, **options)


def run_once(
    pipeline: Pipeline,
    environment: Environment,
    lake: Lake,
    start_spark: Callable[[int | None], SparkSession],
    progress: Progress,
    *,
    tables: Sequence[str],
    as_of: date | None,
    release: str | None,
    force: bool,
    again: bool = False,
) -> Outcome:
    """One try of a run; `again`: if it loses a race, another follows.

    Tables that are up to date are skipped; Spark starts only if something is to be built. A release is made of all
    tables of the pipeline, when any version moved since the last one and no choice of tables was made.
    """
    started = time.monotonic()
    run_id = uuid.uuid4().hex[:12]
    latest = lake.latest_release(pipeline.name)
    wanted = chosen_tables(pipeline, tables)
    progress.expect(len(wanted))
    records: list[TableOutcome] = []
    building: Run | None = None
    recorded = False
    common = {"run_id": run_id, "pipeline": pipeline.name, "run_by": user(), "as_of": as_of}
    error: BaseException | None = None
    outcome: Outcome | None = None
    name = latest["release"] if latest else None
    progress.emit(RunStarted(run_id, pipeline.name, lake, as_of))
    with storage_failures(environment, lake):
        record_the_dead(lake, pipeline.name)

    def task(table: str) -> Callable[[], TableOutcome]:
        """Plan a table, and start Spark where it must be built or judged."""
        nonlocal building, recorded
        plan = plan_table(pipeline, environment, lake, table, as_of, force)
        for note in plan.notes:
            progress.tell("warning", table=table, message=note)
        if plan.why_to_act is None:
            return partial(skipped, plan)
        if building is None:
            pipeline.check_thoroughly(wanted)
            lake.need_writable()
            erasing = lake.erasing  # first: an erasure that begins now stops what is built from here on
            for erasure in lake.unfinished_erasures:
                raise LostRace(f"the erasure {erasure['erasure']} is not finished: headgate erase --resume")
            begins = {"event": "started", "status": "running", "recorded_at": now(), "process": this_process()}
            recorded = True  # first: an interruption may come in the midst of it
            lake.record("runs", [{**common, **begins}])
            with progress.phase("spark", "start"):
                spark = start_spark(bytes_to_read(pipeline, environment, lake, wanted, as_of))
            progress.spark = spark
            building = Run(spark, pipeline, environment, lake, progress, run_id, as_of, erasing)
        return partial(build_one, building, plan)

    try:
        needs = {table: pipeline.inputs(table) & set(wanted) for table in wanted}
        at_once = environment.tables_at_once or default_at_once()
        for record in side_by_side(wanted, needs, task, at_once):
            records.append(record)
            progress.finished(record.asdict())
            progress.emit(TableDone(record))
        records.sort(key=lambda r: wanted.index(r.table))
        if not tables:
            versions = {r.table: r.version for r in records if r.version is not None}
            pinned = {t["table_name"]: t["version"] for t in latest["tables"]} if latest else None
            if pinned != versions or release:
                seen = latest["number"] if latest else None
                name = lake.publish_release(pipeline.name, run_id, versions, as_of, seen, release)
        done = sum(r.built for r in records)
        outcome = Outcome(run_id, name, records, time.monotonic() - started, done)
        return outcome
    except BaseException as e:
        error = e
        moved = [f"{r.table} version {r.version}" for r in records if r.status == BUILT]
        if moved and not tables:
            stays = f"the newest release stays {name}" if name else "there is no release yet"
            progress.tell("warning", message=f"published, but in no release: {', '.join(moved)}; {stays}")
        if isinstance(e, HeadgateError) or not isinstance(e, Exception):
            raise
        failure = storage_failure(e, lake.root, absolute(environment.landing))
        if failure is None:
            raise
        error = failure
        raise failure from e
    finally:
        if recorded:
            status = error.status if isinstance(error, Interrupted) else type(error).__name__ if error else "succeeded"
            message = str(error)[:2000] if isinstance(error, HeadgateError) else ""
            finished = {"event": "finished", "status": status, "recorded_at": now(), "message": message}
            tables = json.dumps([r.asdict() for r in records], default=str)
            details = {"release": name if error is None else None, "tables": tables}
            row = {**common, **finished, **details, "seconds": time.monotonic() - started}
            try:
                lake.record("runs", [row])
            except Exception:
                if error is None:
                    raise  # otherwise a full disk would hide why the run failed
        tried_again = again and isinstance(error, LostRace)
        progress.emit(RunEnded(pipeline.name, error, outcome, time.monotonic() - started, tried_again))


def build_one(building: Run, plan: TablePlan) -> TableOutcome:
    """Build or judge a table by its plan; return what is told of it."""
    from headgate.jobs.pipeline.build import build_planned

    table, progress = plan.table, building.progress
    before = dict(progress.seconds)
    begun = time.monotonic()
    progress.emit(TableStarted(table, {n: p.version for n, p in plan.pins.items()}))
    try:
        built = build_planned(building, plan) if plan.why else None
        if built is None and not plan.judged:
            return judged_again(building, plan, begun)
    except Exception as e:
        lost = not isinstance(e, LostRace) and is_lost(e, building.lake, plan)
        error = LostRace(f"another run published table '{table}' first; run again to build on it") if lost else e
        progress.emit(TableFailed(table, error))
        if not lost:
            raise
        raise error from e
    if built is None:
        return skipped(plan)
    verdict = built.verdict
    return TableOutcome(
        table=table,
        status=SAME_ROWS if built.same else BUILT,
        why=plan.why or "",
        version=built.published.version,
        rows=built.published.rows,
        seconds=round(time.monotonic() - begun, 2),
        phases={p: round(s - before.get((t, p), 0.0), 2) for (t, p), s in list(progress.seconds.items()) if t == table},
        rows_in=built.counts.rows_in,
        made=built.counts.made,
        published=built.counts.published,
        rejected=built.counts.rejected,
        expectations=len(verdict.results) if verdict else 0,
        passed=verdict.passed if verdict else 0,
        warnings=built.warnings,
    )


def is_lost(error: Exception, lake: Lake, plan: TablePlan) -> bool:
    """Return whether a build failed as another run published the table: by a conflict, or by what that run removed.

    A run that won removes what it had staged, also from under one that took it for a dead run's, and the indexes of
    another configuration.
    """
    from headgate.jobs.lake.artifacts import index_of
    from headgate.jobs.pipeline.writing import comes_from_another_run

    delta = lake.open(plan.table)
    target_changed = (delta.version() if delta else -1) != plan.base
    folders = (lake.staging(plan.table), lake.path(plan.table), index_of(lake, plan.table))
    return target_changed and comes_from_another_run(error, folders)


def this_process() -> str:
    """The host, the number of this process, and when it began: no other process has all three."""
    return f"{socket.gethostname()} {os.getpid()} {began(os.getpid())}"


def began(pid: int) -> str:
    """When a process began, in the system's own count (field 22 of proc(5)); `-` where it does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return "-"


def is_dead(started: dict[str, Any], at: datetime) -> bool:
    """Return whether the process of a run that has not finished is gone; on another host, after `SILENCE`."""
    host, pid, began_at = (started.get("process") or "- 0 -").split(" ")
    if host != socket.gethostname():
        return bool(at - started["recorded_at"] > SILENCE)
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # somebody else's process
    return began(int(pid)) != began_at


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


def skipped(plan: TablePlan) -> TableOutcome:
    current = plan.current
    version, rows = (current.version, current.rows) if current else (None, None)
    return TableOutcome(table=plan.table, status=UP_TO_DATE, version=version, rows=rows)


def judged_again(run: Run, plan: TablePlan, begun: float) -> TableOutcome:
    """Judge a table's published rows by its changed suite; return what is told of it."""
    from headgate.jobs.pipeline.judging import judge_again

    verdict = judge_again(run, plan)
    for warning in verdict.warnings:
        run.progress.tell("warning", table=plan.table, message=f"table '{plan.table}': {warning}")
    return replace(
        skipped(plan),
        status=JUDGED,
        why=SUITE_CHANGED,
        seconds=round(time.monotonic() - begun, 2),
        warnings=verdict.warnings,
        expectations=len(verdict.results),
        passed=verdict.passed,
    )


def user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
