"""Publishing a build: entries in the ledger, lineage, indexes, and the one commit that publishes its rows."""

import json
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

from pyspark.sql import functions as F
from pyspark.sql import types as T

from headgate.expectations.verdict import Verdict
from headgate.jobs.lake.commits import Published
from headgate.jobs.lake.confirmations import confirm
from headgate.jobs.lake.log import missing_files
from headgate.jobs.lake.storage import remove
from headgate.jobs.pipeline.commit import commit
from headgate.jobs.pipeline.increments import drop_indexes, save_index, save_ties
from headgate.jobs.pipeline.judging import Counts, Judged
from headgate.jobs.pipeline.layout import shown
from headgate.jobs.pipeline.ledger import ledger_entries, write_ledger
from headgate.jobs.pipeline.records import record_files, record_lineage
from headgate.jobs.pipeline.replacing import Replaced, find_replaced
from headgate.jobs.pipeline.staging import (
    KEPT,
    QUARANTINED,
    REJECTS,
    remove_abandoned,
    remove_work,
    staged_rows,
)
from headgate.jobs.pipeline.work import Run, Staged, Work, config_key
from headgate.jobs.pipeline.writing import nullable
from headgate.transforms.step import Estimator


@dataclass(frozen=True)
class Built:
    """The outcome for one table in a run; `same`: its rows are those that were published, so nothing new was."""

    published: Published
    counts: Counts
    verdict: Verdict | None
    warnings: list[str]  # of its steps and its gate
    figures: list[dict[str, Any]]  # of its steps and its gate
    same: bool = False


def publish(run: Run, work: Work, staged: Staged, judged: Judged) -> Built:
    """Publish a build: its rejected rows to the ledger first, then its kept rows in one commit.

    Where the rows are those that are published already, nothing is committed and the table keeps its version, so that
    nothing is built anew downstream. Raises `LostRace` if another run published the table meanwhile.
    """
    table, lake, counts = work.table, run.lake, judged.counts
    verdict = judged.verdict
    warnings = [work.note] if work.note else []
    warnings += [*staged.warnings, *((*verdict.warnings, *verdict.fallbacks) if verdict else ())]
    for warning in warnings:
        run.progress.tell("warning", table=table, message=f"table '{table}': {warning}")
    with run.progress.phase(table, "publish"):
        rejected = sum(counts.rejected.values())
        if rejected:
            rows = staged_rows(run, work, staged, judged.gate, REJECTS, QUARANTINED)
            entries = ledger_entries(rows, judged.gate.quarantine_reason() if judged.gate else F.lit(None))
            write_ledger(lake, entries, run_id=run.run_id, build=work.build, table=table, expected=rejected)
        record_lineage(run, work, staged)
        if work.arrival:
            record_files(run, table, work.files, work.base, work.build)
        facts = facts_of(run, work, staged, counts)
        growing = run.pipeline.tables[table].publish.mode == "increment"
        if not growing:
            save_ties(run.spark, lake, table, staged.recorded)
        replaced = find_replaced(run, work, staged)
        current = same_as_before(run, work, staged, facts, counts, replaced)
        same = current is not None
        if current is not None:
            build = current.facts["build"]
            confirm(lake, table, build, run.run_id, work.judge_key, work, facts["inputs"])
            published = current
        else:
            if growing:
                kept = staged_rows(run, work, staged, None, KEPT)
                save_index(run.spark, lake, table, work.build, staged.recorded, kept)
            published = commit(run, work, staged, facts, replaced)
        if work.part is None and any(step.scope == "table" for step in run.pipeline.steps[table]):
            drop_indexes(lake, table, but=staged.recorded)
    remove_work(run, work, staged, published=not same)
    if work.arrival and work.arrival.scratch:
        remove(work.arrival.scratch)
    remove_abandoned(lake, table)
    figures = [*staged.figures, *(verdict.figures if verdict else ())]
    return Built(published, counts, verdict, warnings, figures, same)


def facts_of(run: Run, work: Work, staged: Staged, counts: Counts) -> dict[str, Any]:
    """Return what the commit says of its build."""
    growing = run.pipeline.tables[work.table].publish.mode == "increment"
    source = run.pipeline.tables[work.table].source
    return {
        "run_id": run.run_id,
        "pipeline": run.pipeline.name,
        "build": work.build,
        "build_key": work.made_by,
        "judge_key": work.judge_key,
        "base": work.base,
        "config": config_key(run.pipeline, work.table),
        "grain": run.pipeline.tables[work.table].grain,
        "key": list(source.key) if source else None,
        "increment": work.part is not None,
        "moved": dict(work.moved) if work.moved is not None else None,
        "unforeseen": staged.unforeseen,
        **learned(run, work),
        "indexes": sorted(staged.recorded) if growing else None,
        "inputs": {n: p.as_recorded() for n, p in work.inputs.items()},
        "parents": dict(work.parents),
        "publish": (work.mode if work.arrival else run.pipeline.tables[work.table].publish).model_dump(mode="json"),
        "as_of": str(run.as_of or ""),
        "rows": {k: v for k, v in asdict(counts).items() if k != "content"},
        "content": f"{counts.content:016x}",
    }


def learned(run: Run, work: Work) -> dict[str, str]:
    """Return which build's fitted state was applied and when that was learned; nothing if no step learns."""
    if not any(isinstance(step, Estimator) for step in run.pipeline.steps[work.table]):
        return {}
    if work.state is not None:
        return {"state": work.state, "fitted_on": str(work.fitted_on)}
    return {"state": work.made_by, "fitted_on": str(run.as_of or datetime.now(timezone.utc).date())}


def same_as_before(
    run: Run, work: Work, staged: Staged, facts: dict[str, Any], counts: Counts, replaced: Replaced
) -> Published | None:
    """Return the published version that a build would only repeat; None where it gives anything else.

    Of a table that is built anew: the same rows under the same columns, to be laid out in the same way. Of an
    increment: no row. What a source brought is always committed, as its files are known by their commits.
    """
    growing = run.pipeline.tables[work.table].publish.mode == "increment"
    if work.base < 0 or work.arrival is not None or work.mode.mode == "merge" or (growing and work.part is None):
        return None
    current = run.lake.published(work.table)
    if current is None or current.version != work.base or "build" not in current.facts:
        return None
    if work.part is not None:
        return current if not counts.published else None
    there = T.StructType.fromJson(json.loads(run.lake.columns_json(work.table, work.base)))
    mine = shown(T.StructType.fromJson(staged.schema))
    alike = [(f.name, f.dataType, f.metadata.get("comment")) for f in nullable(mine).fields] == [
        (f.name, f.dataType, f.metadata.get("comment")) for f in there.fields
    ]
    if work.moved is not None:
        same_rows = (replaced.rows, replaced.content) == (counts.published, counts.content)
        return current if alike and same_rows else None
    same = (
        alike
        and current.rows == counts.published
        and run.lake.content_total(work.table, work.base) == facts["content"]
        and current.facts.get("publish") == facts["publish"]
        and not missing_files(run.lake, work.table, work.base)
    )
    return current if same else None
