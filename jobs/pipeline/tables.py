"""One table of a run: built, judged again or skipped, with what is told of it."""

import time
from dataclasses import replace

from headgate.jobs.errors import LostRace
from headgate.jobs.lake.lake import Lake
from headgate.jobs.pipeline.events import TableFailed, TableStarted
from headgate.jobs.pipeline.outcome import BUILT, JUDGED, SAME_ROWS, UP_TO_DATE, TableOutcome
from headgate.jobs.pipeline.planning import SUITE_CHANGED, TablePlan
from headgate.jobs.pipeline.work import Run


def build_one(building: Run, plan: TablePlan) -> TableOutcome:
    """Build or judge a table by its plan; return what is told of it."""
    from headgate.jobs.pipeline.build import build_planned

    table, progress = plan.table, building.progress
    before = dict(progress.seconds)
    begun = time.monotonic()
    source = building.pipeline.tables[table].source
    progress.emit(TableStarted(table, {n: p.version for n, p in plan.pins.items()}, source))
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
        figures=built.figures,
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
