"""The gate at work: the rows of a build counted by what happens to them, and the table that readers will see judged."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.expectations.drift import PREVIOUS
from headgate.expectations.gate import MASK, Gate
from headgate.expectations.suites import SuiteError, parameters_in
from headgate.expectations.verdict import Verdict
from headgate.jobs.errors import GateBlocked, HeadgateError, UsageError
from headgate.jobs.lake.commits import Published
from headgate.jobs.lake.confirmations import confirm
from headgate.jobs.pipeline.outcome import QUARANTINE
from headgate.jobs.pipeline.planning import TablePlan
from headgate.jobs.pipeline.prepare import pinned
from headgate.jobs.pipeline.records import record_coverage, record_figures, record_verdict
from headgate.jobs.pipeline.replacing import replaced_rows
from headgate.jobs.pipeline.staging import KEPT, QUARANTINED, REJECTS, staged_rows
from headgate.jobs.pipeline.work import Pin, Run, Staged, Work, digest
from headgate.jobs.sources.landing import LandedFile
from headgate.transforms.rows import MADE, PARENTS, REJECTED, quoted
from headgate.words import REASONS, rejected_line


@dataclass
class Counts:
    """The rows of a build, counted by where they went."""

    rows_in: int = 0
    made: int = 0
    rejected: dict[str, int] = field(default_factory=dict)  # "step: reason (columns)" -> rows
    quarantined: int = 0
    published: int = 0
    content: int = 0  # sum of the hashes of the published rows
    rejected_in: int = 0  # of the rejected rows, those that came in

    def lost(self, grain: str) -> int:
        """Return how many rows are not accounted for. Of a table of another grain, what was made is balanced alone."""
        if grain == "new":
            return self.made - self.published - sum(self.rejected.values()) + self.rejected_in
        return self.rows_in + self.made - self.published - sum(self.rejected.values())


@dataclass(frozen=True)
class Judged:
    """The staged rows of a build, counted, and what the suite says of the table that they make."""

    counts: Counts
    gate: Gate | None
    verdict: Verdict | None


def beyond_ceiling(counts: Counts, ceiling: float) -> str:
    """Return why a build must not be published for the rows that it rejects; those that a gate set aside left out."""
    rejected = {why: n for why, n in counts.rejected.items() if why != QUARANTINE}
    total, rows = sum(rejected.values()), counts.rows_in + counts.made
    if total <= ceiling * rows:
        return ""
    most = ", ".join(rejected_line(why, n) for why, n in list(rejected.items())[:5])
    return f"{total:,} of {rows:,} rows are rejected, {total / rows:.1%}; rejected_ceiling is {ceiling:g} ({most})"


def gate_of(run: Run, work: Work) -> tuple[Gate | None, str]:
    """Return the gate of a build's table, and the key of its row rules as they are for this build."""
    parents = parents_of(run, work.table, work.parents, work.base)
    return make_gate(run, work.table, parents, parameters_of(run, work.files, work.previous_rows))


def make_gate(
    run: Run, table: str, parents: Mapping[str, DataFrame], parameters: Mapping[str, Any]
) -> tuple[Gate | None, str]:
    suite = run.pipeline.suites[table]
    if suite is None:
        return None, ""
    ceiling = run.pipeline.tables[table].quarantine_ceiling
    try:
        gate = Gate(run.spark, suite, parents=parents, parameters=parameters, ceiling=ceiling)
    except SuiteError as e:
        raise UsageError(str(e)) from e
    rules = suite.configurations()
    return gate, digest([rules, {name: parameters[name] for name in named_in(rules) if name in parameters}])


def named_in(rules: Any) -> list[str]:
    """Return the parameters that rules name, as `{$PARAMETER: name}` or in a calculation."""
    return sorted({name for text in parameters_in(rules) for name in re.findall(r"[A-Za-z_]\w*", text)})


def parents_of(run: Run, table: str, parents: Mapping[str, int], base: int) -> dict[str, DataFrame]:
    """Return the tables that a table's suite reads; `base` is the version that it compares with, if there is one."""
    suite = run.pipeline.suites[table]
    own = {PREVIOUS: run.read(table, base)} if suite and suite.reads_previous and base >= 0 else {}
    return own | {name: pinned(run, name, Pin(version)) for name, version in parents.items()}


def parameters_of(run: Run, files: Sequence[LandedFile], previous_rows: int) -> dict[str, Any]:
    """Return the values that a suite may name."""
    days = [f.date for f in files if f.date]
    return {
        "as_of": str(run.as_of or datetime.now(timezone.utc).date()),
        "newest_file_date": str(max(days)) if days else "",
        "previous_rows": previous_rows,
    }


def quarantine_values(run: Run, table: str, files: Sequence[LandedFile], previous_rows: int) -> dict[str, Any]:
    """Return the parameters, with their values, that decide which rows a build sets aside."""
    suite = run.pipeline.suites[table]
    rules = [rule.configuration() for rule in suite.rules if rule.quarantine] if suite else []
    values = parameters_of(run, files, previous_rows)
    return {name: values[name] for name in named_in(rules) if name in values}


def judge(run: Run, work: Work, staged: Staged, gate: Gate | None) -> Judged:
    """Count the staged rows and judge the whole table that readers will see once they are published.

    Raises `HeadgateError` if the rows do not balance, `GateBlocked` if too many are rejected or the suite refuses the
    table. Cost: one aggregate
    over the rejected rows, and what the suite asks for over the columns that its rules name, of the staged rows and,
    where they are added to a table, of those that stay there.
    """
    table = work.table
    with run.progress.phase(table, "balance"):
        counts = counts_of(run, work, staged)
        lost = counts.lost(run.pipeline.tables[table].grain)
        if lost:
            came = counts.rejected_in if run.pipeline.tables[table].grain == "new" else counts.rows_in
            raise HeadgateError(
                f"table '{table}': the rows do not balance: {came:,} in + {counts.made:,} made, but "
                f"{counts.published:,} kept + {sum(counts.rejected.values()):,} rejected"
            )
    beyond = beyond_ceiling(counts, run.pipeline.tables[table].rejected_ceiling)
    if beyond:
        left = f"version {work.base} stays" if work.base >= 0 else "nothing was published"
        raise GateBlocked(f"table '{table}': {beyond}; {left}")
    record_coverage(run, work, coverage_of(run, work, staged, counts))
    record_figures(run, work, staged.figures)
    if gate is None:
        return Judged(counts, None, None)
    with run.progress.phase(table, "gate"):
        rows = staged_rows(run, work, staged, gate, KEPT, QUARANTINED)
        masks = [c for c in rows.columns if c.startswith(MASK)]
        whole = rows.drop(REJECTED, MADE)
        stays, stuck = staying(run, work, staged), False
        if stays is not None:
            stays = with_bits(gate, stays, whole, masks)
            whole = whole.unionByName(stays, allowMissingColumns=True)
            stuck = bool(gate.quarantine_bits()) and not stays.where(gate.is_quarantined()).isEmpty()
        verdict = gate.judge(whole, counts.published + counts.quarantined, counts.quarantined)
        verdict = verdict.without_quarantine() if stuck else verdict  # what is published cannot be set aside any more
        record_verdict(run, table, work.build, work.judge_key, verdict)
        if verdict.blocking:
            raise GateBlocked(blocked_message(run, table, verdict, work.base))
    return Judged(counts, gate, verdict)


def judge_again(run: Run, plan: TablePlan) -> Verdict:
    """Judge the published rows of a table whose suite, or a table that it reads, changed; nothing is built.

    Raises `GateBlocked` if the suite refuses them: no row can be set aside any more, so a rule that asks for it blocks.
    A rule that compares with the version before has none where that was removed, as with the first one.
    """
    assert plan.current is not None
    table, version = plan.table, plan.current.version
    last = plan.known.values()
    days = [f["date"] for f in last if f["date"]]
    parameters = {
        "as_of": str(run.as_of or datetime.now(timezone.utc).date()),
        "newest_file_date": str(max(days)) if days else "",
        "previous_rows": plan.current.rows,
    }
    with run.progress.phase(table, "gate"):
        rows = run.read(table, version)
        parents = parents_of(run, table, plan.parents, version_before(run, plan.current))
        gate, _ = make_gate(run, table, parents, parameters)
        assert gate is not None  # without a suite there is nothing to judge
        try:
            masked = rows.withColumns(gate.masks(rows))
        except SuiteError as e:
            raise UsageError(str(e)) from e
        verdict = gate.judge(masked, plan.current.rows).without_quarantine()
        record_verdict(run, table, plan.build, plan.judge_key, verdict)
        if verdict.blocking:
            raise GateBlocked(blocked_message(run, table, verdict, version))
        confirm(run.lake, table, plan.build, run.run_id, plan.judge_key)
    return verdict


def version_before(run: Run, current: Published) -> int:
    """Return the version that the build of a published one found; -1 where there was none, or its files are gone."""
    base, suite = int(current.facts.get("base", -1)), run.pipeline.suites[current.table]
    if base < 0 or suite is None or not suite.reads_previous:
        return -1
    held = run.lake.file_sizes(current.table, run.lake.rearranged(current.table, base))
    return base if run.lake.has_files(current.table, held) else -1


def staying(run: Run, work: Work, staged: Staged) -> DataFrame | None:
    """Return the published rows that stay beside those of a build; None where it replaces all of them."""
    if work.base < 0 or work.replaces_all:
        return None
    _, rows_of = replaced_rows(run, work, staged)
    return rows_of(run.read(work.table, work.base), True)


def with_bits(gate: Gate, stays: DataFrame, like: DataFrame, masks: list[str]) -> DataFrame:
    """Return published rows with the columns and the bits of those that they stand beside."""
    there = set(stays.columns)
    kinds = {f.name: f.dataType for f in like.schema.fields}
    wanted = [c for c in like.columns if c not in masks]
    cells = [(F.col(quoted(c)) if c in there else F.lit(None)).cast(kinds[c]).alias(c) for c in wanted]
    rows = stays.select(*cells, *(quoted(c) for c in stays.columns if c not in wanted))
    return rows.withColumns(gate.bits) if masks else rows


def counts_of(run: Run, work: Work, staged: Staged) -> Counts:
    """Count the staged rows by what happens to them: by the files' own footers, the rejected ones by their marks."""
    kept, quarantined, rejected = (sum(f.rows for f in staged.files[fate]) for fate in (KEPT, QUARANTINED, REJECTS))
    counts = Counts(rows_in=staged.rows_in, made=staged.made, published=kept, quarantined=quarantined)
    counts.content, counts.rejected_in = staged.content, rejected - staged.made_rejected
    if quarantined:
        counts.rejected[QUARANTINE] = quarantined
    if rejected:
        mark = F.col(REJECTED)
        groups = (
            staged_rows(run, work, staged, None, REJECTS)
            .groupBy(mark["step"].alias("step"), mark["reason"].alias("reason"), faulty_columns().alias("columns"))
            .count()
            .collect()
        )
        for group in groups:
            columns = f" ({group['columns']})" if group["columns"] is not None else ""
            why = f"{group['step']}: {group['reason']}{columns}"
            counts.rejected[why] = counts.rejected.get(why, 0) + group["count"]
    counts.rejected = dict(sorted(counts.rejected.items(), key=lambda x: (-x[1], x[0])))
    return counts


def faulty_columns() -> Column:
    """The columns for which a row is rejected, of headgate's own reasons: a user's evidence may be any value."""
    evidence = F.col(REJECTED)["evidence"]
    known = F.col(REJECTED)["reason"].isin(*REASONS)
    return F.when(known, F.coalesce(evidence["column"], evidence["columns"]))


def coverage_of(run: Run, work: Work, staged: Staged, counts: Counts) -> float | None:
    """Return the share of the rows that came in from which rows of another grain were made.

    None for other tables, and where only what changed is made.
    """
    if run.pipeline.tables[work.table].grain != "new" or not counts.rows_in or work.moved is not None:
        return None
    rows = staged_rows(run, work, staged, None, KEPT, QUARANTINED, REJECTS)
    parents = rows.where(F.col(MADE).isNotNull()).select(F.explode(PARENTS).alias("parent"))
    return parents.distinct().count() / counts.rows_in


def blocked_message(run: Run, table: str, verdict: Verdict, version: int) -> str:
    suite = run.pipeline.suites[table]
    stays = f"version {version} stays" if version >= 0 else "nothing was published"
    reasons = "\n".join(f"  - {reason}" for reason in verdict.blocking)
    return f"the gate blocked table '{table}' (suite '{suite.name if suite else ''}'); {stays}:\n{reasons}"
