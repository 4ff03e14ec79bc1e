"""Entries of a build in the system tables: the verdict of its gate, lineage, the files that it took up."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from headgate.expectations.verdict import Verdict
from headgate.jobs.config.models import FileSource
from headgate.jobs.lake.system import SAME_CONTENT, now
from headgate.jobs.pipeline.events import ColumnsTraced, TableJudged
from headgate.jobs.pipeline.work import Run, Staged, Work
from headgate.jobs.sources.base import source_name
from headgate.jobs.sources.landing import LandedFile


def record_coverage(run: Run, work: Work, coverage: float | None) -> None:
    """Record the share of the rows that came in from which rows of another grain were made; None: nothing."""
    if coverage is not None:
        row = {"run_id": run.run_id, "table_name": work.table, "build": work.build, "recorded_at": now()}
        row |= {"kind": "coverage", "name": "rows that came in and are parents", "value": coverage}
        run.lake.record("metrics", [row], f"{work.build}:coverage")


def record_figures(run: Run, work: Work, figures: Sequence[Mapping[str, Any]]) -> None:
    """Record what steps measured of what they did, a row for each figure."""
    common = {"run_id": run.run_id, "table_name": work.table, "build": work.build, "recorded_at": now()}
    rows = [
        {
            **common,
            "kind": "figure",
            "name": f"{f['step']}: {f['name']}",
            "value": f["value"],
            "result": json.dumps(f["facts"]),
        }
        for f in figures
    ]
    if rows:
        run.lake.record("metrics", rows, f"{work.build}:figures")


def record_verdict(run: Run, table: str, build: str, judge_key: str, verdict: Verdict) -> None:
    """Record a row for each rule and quality dimension, and one for the whole; once for each build, suite and run."""
    common = {"run_id": run.run_id, "table_name": table, "build": build, "recorded_at": now()}
    rows: list[dict[str, Any]] = [
        {
            **common,
            "kind": "expectation",
            "name": r.rule.type,
            "columns": list(r.rule.columns),
            "dimension": r.rule.dimension,
            "severity": r.rule.severity,
            "success": r.success,
            "element_count": r.element_count,
            "unexpected_count": r.unexpected_count,
            "value": r.observed,
            "result": json.dumps({"kwargs": dict(r.rule.kwargs), "result": r.result, "raised": r.raised}),
        }
        for r in verdict.results
    ]
    rows += [
        {**common, "kind": "dimension", "name": name, "dimension": name, "value": value}
        for name, value in verdict.dimensions().items()
    ]
    if verdict.fallbacks:
        left_over = {"name": "rules left to the stock engine", "value": len(verdict.fallbacks)}
        rows.append({**common, "kind": "fallback", **left_over, "result": json.dumps(verdict.fallbacks)})
    rows.append(
        {
            **common,
            "kind": "validation",
            "name": str(verdict.document.get("suite_name")),
            "success": not verdict.blocking,
            "result": json.dumps(verdict.document, default=str),
        }
    )
    run.lake.record("metrics", rows, f"{build}:{judge_key}:{run.run_id}")
    run.progress.emit(TableJudged(table, verdict))


def record_lineage(run: Run, work: Work, staged: Staged) -> None:
    """Record what a build read, its steps, and the columns that its columns were made from."""
    steps = json.dumps([{s.name: dataclasses.asdict(s)} for s in run.pipeline.steps[work.table]], default=str)
    source = run.pipeline.tables[work.table].source
    common = {"run_id": run.run_id, "table_name": work.table, "build": work.build, "steps": steps, "state": work.state}
    common |= {name: json.dumps(value) for name, value in (staged.lineage or {}).items()}
    rows: list[dict[str, Any]] = [
        {**common, "input": name, "input_version": pin.version, "as_of": pin.as_of} for name, pin in work.inputs.items()
    ]
    if source is not None:
        name = f"landing:{source.path}" if isinstance(source, FileSource) else source_name(source)
        rows.append({**common, "input": name, "as_of": run.as_of})
    run.lake.record("lineage", rows, work.build)
    run.progress.emit(ColumnsTraced(work.table, (staged.lineage or {}).get("columns") or {}))


def record_files(run: Run, table: str, files: Sequence[LandedFile], base: int, build: str) -> None:
    """Record the files that a build takes up, on top of version `base` of its table."""
    rows = [
        {
            "table_name": table,
            "path": f.path,
            "date": f.date,
            "size": f.size,
            "modified": f.modified,
            "sha256": f.sha256,
            "columns": json.dumps(f.columns) if f.columns is not None else None,
            "watermark": f.watermark,
            "records": f.records,
            "problem": f.problem,
            "recorded_at": now(),
            "base": base,
            "build": build,
            "run_id": run.run_id,
        }
        for f in files
    ]
    run.lake.record("files", rows, build if build != SAME_CONTENT else None)
