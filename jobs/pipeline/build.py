"""Building one table: take up or prepare and stage, judge, publish."""

import dataclasses
from datetime import datetime, timezone
from typing import Any

from pyspark.errors import PySparkException

from headgate.jobs.config.models import FileSource, Frozen
from headgate.jobs.errors import UsageError, first_line, source_failure
from headgate.jobs.lake.storage import remove
from headgate.jobs.pipeline.affected import moved_inputs
from headgate.jobs.pipeline.arrivals import arrival_of
from headgate.jobs.pipeline.drift import Drifted
from headgate.jobs.pipeline.increments import new_part
from headgate.jobs.pipeline.judging import gate_of, judge, quarantine_values
from headgate.jobs.pipeline.planning import TablePlan
from headgate.jobs.pipeline.prepare import scratch_of
from headgate.jobs.pipeline.publishing import Built, publish
from headgate.jobs.pipeline.staging import remove_work, stage, taken_up
from headgate.jobs.pipeline.work import Run, Work, build_key, digest, work_key
from headgate.transforms.step import LearnAnew, MakeAll
from headgate.words import cell


def build(run: Run, work: Work) -> Built:
    """Build and publish one table."""
    gate, rules = gate_of(run, work)
    try:
        staged = taken_up(run, work, gate, rules) or stage(run, work, gate, rules)
    except (Drifted, LearnAnew) as e:
        if work.state is None or isinstance(run.pipeline.tables[work.table].refit, Frozen):
            raise UsageError(f"table '{work.table}': refit: {e}; leave refit out for one build") from e
        remove(scratch_of(run, work))
        return build(run, learned_anew(run, work, f"{e}: its steps learn anew"))
    except MakeAll as e:
        remove(scratch_of(run, work))
        return build(run, made_anew(work, f"{e}: all of it is made anew"))
    if work.moved is not None and staged.unforeseen:  # ids of their own, which no change names
        remove_work(run, work, staged, published=False)
        return build(run, made_anew(work))
    judged = judge(run, work, staged, gate)
    return publish(run, work, staged, judged)


def made_anew(work: Work, why: str = "") -> Work:
    """Return the work of the same inputs in which all rows are made, by what was learned before."""
    how = work.mode.model_copy(update={"mode": "replace"})
    return dataclasses.replace(work, key=digest([work.key, "all"]), moved=None, mode=how, note=why)


def learned_anew(run: Run, work: Work, why: str) -> Work:
    """Return the work of the same inputs with steps that learn from them."""
    made_by = build_key(run.pipeline, work.table, {n: p.as_recorded() for n, p in work.inputs.items()})
    how = work.mode.model_copy(update={"mode": "replace"}) if work.moved is not None else work.mode
    key = digest([work.key, made_by])
    return dataclasses.replace(work, key=key, made_by=made_by, state=None, moved=None, mode=how, note=why)


def build_planned(run: Run, plan: TablePlan) -> Built | None:
    """Build what a plan says; None if the table's source turns out to hold what it held before."""
    try:
        work = work_of(run, plan)
        return None if work is None else build(run, work)
    except PySparkException as e:
        failure = source_failure(e) or row_failure(e, plan.table)
        if failure is None:
            raise
        raise failure from e


def row_failure(error: PySparkException, table: str) -> UsageError | None:
    """Return the error as an expression that fails on a row, such as a division by zero; None if it is another."""
    if not (error.getSqlState() or "").startswith("22"):  # of data, by the SQL standard
        return None
    found = next((c.fragment() for c in error.getQueryContext() or () if c.fragment()), None)
    expression = f"the expression '{found}'" if found else "an expression of its steps"
    return UsageError(f"table '{table}': {expression} fails on one of its rows: {cell(first_line(error))}")


def work_of(run: Run, plan: TablePlan) -> Work | None:
    """Return the work of a plan, whose key covers all that decides what it stages; None if nothing is new."""
    table = plan.table
    common: dict[str, Any] = {
        "table": table,
        "base": plan.base,
        "parents": plan.parents,
        "judge_key": plan.judge_key,
        "previous_rows": plan.current.rows if plan.current else -1,
    }
    source = run.pipeline.tables[table].source
    if source is None:
        how = run.pipeline.tables[table].publish
        part = new_part(run.pipeline, run.lake, plan)
        moved = moved_inputs(run.pipeline, run.lake, plan)[0] if how.mode == "auto" else None
        if how.mode in ("increment", "auto"):
            how = how.model_copy(update={"mode": "replace" if part is None and moved is None else "append"})
        builds = () if part is None else tuple(run.lake.present_builds(table))
        made_by = str(plan.build_key)
        values = quarantine_values(run, table, (), common["previous_rows"])
        key = work_key(made_by, plan.base, how, part, moved, builds, values)
        common |= {"inputs": plan.pins, "part": part, "moved": moved, "state": plan.state, "fitted_on": plan.fitted_on}
        return Work(**common, key=key, made_by=made_by, mode=how, builds=builds)
    arrival = arrival_of(run, plan)
    if arrival is None:
        return None
    made_by = build_key(run.pipeline, table, {"files": [[f.path, f.sha256] for f in arrival.files], "base": plan.base})
    day = None if isinstance(source, FileSource) else str(run.as_of or datetime.now(timezone.utc).date())
    erased = [e["erasure"] for e in run.lake.erasures]
    details = [[f.problem, f.watermark] for f in arrival.files]
    values = quarantine_values(run, table, arrival.files, common["previous_rows"])
    key = work_key(made_by, plan.base, arrival.how, arrival.replaces, day, erased, details, values)
    return Work(**common, key=key, made_by=made_by, mode=arrival.how, inputs={}, arrival=arrival)
