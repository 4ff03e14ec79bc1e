"""Building a table from what changed alone: which of its rows must be made again so that it is as if built anew.

A row must be made again if it changed, if the row of another table that it looks up did, or if it shares a tie with
such a row: what `Step.tie` says two rows must share to have a say in each other's fate. Every other row would come out
as it is published.
"""

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headgate.jobs.config.pipeline import Pipeline
from headgate.jobs.lake.artifacts import TIES, index_of
from headgate.jobs.lake.frames import frame_at
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.log import moved_files
from headgate.jobs.lake.storage import has_table, open_table
from headgate.jobs.pipeline.changed import changed_ids, changed_rows, of, sides, union
from headgate.jobs.pipeline.context import BuildContext
from headgate.jobs.pipeline.fitted import load_fitted
from headgate.jobs.pipeline.increments import columns_of
from headgate.jobs.pipeline.planning import TablePlan
from headgate.jobs.pipeline.prepare import pinned, renamed_as, together
from headgate.jobs.pipeline.work import Pin, Run, Work, config_key, digest
from headgate.transforms.fusion.clusters import components
from headgate.transforms.rows import ROW_ID, SOURCE, arrow_frame, quoted, with_bookkeeping
from headgate.transforms.step import Changes, Estimator, MakeAll, Step

SMALL = 2 << 20  # bytes of the tables that one starts from, up to which finding what changed costs more than it saves,
# or so many times this as the last step says where it renews (`Step.light`)
TIES_AT_ONCE = 1_000_000  # rows with ties that the driver may hold, some 60 bytes each
LINKS = 16  # of a chain of ties that are followed one by one
LARGEST = 0.5  # share of an input that may have changed; beyond it all is built anew
TIE = "_hg_tie_"  # before the number of a step: the hash of what rows share that it ties


def moved_inputs(pipeline: Pipeline, lake: Lake, plan: TablePlan) -> tuple[dict[str, tuple[int, int]] | None, str]:
    """Return the versions between which the inputs of a table changed, by input, where only what changed need be built.

    Otherwise None. The second value says what is built, and why.
    """
    table = plan.table
    if plan.current is None:
        return None, "all of it: it does not exist yet"
    if plan.forced:
        return None, "all of it, as asked for"
    starts = pipeline.tables[table].starts
    if plan.current.facts.get("config") != config_key(pipeline, table) or plan.pins.keys() != plan.before.keys():
        return None, "all of it: its configuration, or the meaning of a step, changed"
    if plan.current.facts.get("state") != plan.state and plan.state is not None:
        return None, "all of it: what another build learned is applied"
    steps = pipeline.steps[table] if plan.state is None else load_fitted(lake, table, pipeline.steps[table], plan.state)
    renewing = renews(steps)
    if not renewing and plan.current.facts.get("unforeseen", plan.current.facts.get("rows", {}).get("made")):
        return None, "all of it: its steps make rows"
    if any(pin.as_of or plan.before[n][1] for n, pin in plan.pins.items()):
        return None, "all of it: --as-of leaves out rows"
    costly = renewing or any(step.follows for step in steps)  # so that how much changed is counted row by row
    least = SMALL * steps[-1].light if renewing else SMALL
    if sum(lake.bytes_of(name) for name in starts) < least:
        return None, "all of it: there is little of it"
    moved = {n: (plan.before[n][0], p.version) for n, p in plan.pins.items() if plan.before[n][0] != p.version}
    why = prevents(steps, starts, moved) or depends(pipeline, table)
    if why:
        return None, f"all of it: {why}"
    for name, (then, now) in moved.items():
        files = moved_files(lake.path(name), then, now)
        if files is None or columns_of(lake, name, then) != columns_of(lake, name, now):
            return None, f"all of it: '{name}' changed otherwise than by builds, or has other columns"
        if not lake.has_files(name, {**files[0], **files[1]}):
            return None, f"all of it: what '{name}' held before is not there any more"
        held = sum(lake.file_sizes(name, now).values())
        if not costly and name in starts and sum(files[1].values()) > LARGEST * held:
            return None, f"all of it: most of '{name}' changed"
    learned = f", by what was learned on {plan.fitted_on}" if plan.state else ""
    return moved, f"what changed in {', '.join(sorted(moved)) or 'nothing'}{learned}"


def prevents(steps: Sequence[Step], starts: Collection[str], moved: Collection[str]) -> str | None:
    """Return why a table of these steps cannot be built from what changed; None if it can."""
    looked_up = followed = False
    if renews(steps):
        return prevents_renewal(steps, starts, moved)
    for step in steps:
        if isinstance(step, Estimator):
            return f"'{step.id}' learns from all rows"
        if not says_its_scope(type(step)):
            return f"'{step.id}' does not say its scope"
        if step.grain == "new" or (step.reads_previous and not step.follows):
            return f"'{step.id}' makes rows of all that it reads"
        if step.scope == "table" and type(step).tie is Step.tie and not step.follows:
            return f"'{step.id}' looks at all rows"
        if followed and (step.scope == "table" or step.tables()):
            return f"'{step.id}' depends on what a step before makes of several rows"
        if step.scope == "table" and looked_up:
            return f"'{step.id}' compares rows after a table was looked up that changed"
        for name in step.tables():
            if name in starts or (name in moved and not step.keys_of(name) and not step.follows):
                return f"'{step.id}' reads all of '{name}'"
            looked_up = looked_up or name in moved
        followed = followed or step.follows
    return None


def renews(steps: Sequence[Step]) -> bool:
    """Return whether the last step of a table, told what changed, makes again only the rows that this reaches."""
    return bool(steps) and steps[-1].renews


def prevents_renewal(steps: Sequence[Step], starts: Collection[str], moved: Collection[str]) -> str | None:
    """Return why the last step of a table, which renews, cannot be told what changed before it."""
    for step in steps[:-1]:
        if not says_its_scope(type(step)) or step.scope == "table" or step.grain == "new" or step.reads_previous:
            return f"'{step.id}' looks at all rows"
        if set(step.tables()) & set(moved):
            return f"a table that '{step.id}' reads changed"
    own = next((name for name in steps[-1].tables() if name in starts), None)
    return f"'{steps[-1].id}' reads all of '{own}'" if own is not None else None


def says_its_scope(kind: type[Step]) -> bool:
    """Return whether a step is headgate's or names its scope: only then it is known to change rows one by one."""
    if kind.__module__.startswith("headgate."):
        return True
    own = (base for base in kind.__mro__ if issubclass(base, Step) and base not in (Step, Estimator))
    return any("scope" in vars(base) for base in own)


def depends(pipeline: Pipeline, table: str) -> str | None:
    suite = pipeline.suites[table]
    rules = [rule.configuration() for rule in suite.rules if rule.quarantine] if suite else []
    return "a rule that quarantines rows has a parameter" if "$PARAMETER" in str(rules) else None


def affected(run: Run, work: Work, scratch: str) -> tuple[str, dict[str, list[str]]]:
    """Write the ids of the rows to be made again to a folder of the scratch; return it, and what to record of ties.

    `ids_at` reads the ids. Cost: one pass over the changed files. Where a table that is looked up changed, or nothing
    is known of the ties of the rows before, one over the columns that decide that, of all rows; else where rows are
    tied to others, a few over ids and ties alone.
    """
    assert work.moved is not None
    looked_up = {t: pinned(run, t, work.inputs[t]) for step in run.pipeline.steps[work.table] for t in step.tables()}
    context = BuildContext(
        spark=run.spark,
        folder=scratch,
        frames=looked_up,
        state="affected",
        before=lambda: run.read(work.table, work.base),
    )
    starts = run.pipeline.tables[work.table].starts
    changed = {name: changed_rows(run, name, *work.moved[name]) for name in starts if name in work.moved}
    steps: Sequence[Step] = run.pipeline.steps[work.table]
    if work.state is not None:
        steps = load_fitted(run.lake, work.table, steps, work.state)
    moved = [i for i, s in enumerate(steps) if set(s.tables()) & work.moved.keys()]
    following = [i for i, s in enumerate(steps) if s.follows]
    tying = [i for i, s in enumerate(steps) if s.scope == "table" and not s.follows]
    found = [changed_ids(run, name, *work.moved[name]) for name in changed]
    known = None if moved or following or not tying else ties_before(run, work)
    rows = {name: pinned(run, name, work.inputs[name]) for name in starts} if known is None else {}
    ties: list[DataFrame] = []
    recorded: dict[str, list[str]] = {}
    if moved or tying or following:
        df = with_changed(run.pipeline, work.table, rows, changed)
        for i, step in enumerate(steps[: max(moved + tying + following) + 1]):
            for name in sorted(set(step.tables()) & work.moved.keys()):
                there = changed_rows(run, name, *work.moved[name])
                mine = step.reached(name, there) if step.follows else looking_up(run, df, step.keys_of(name), there)
                found.append(mine)
            if step.follows:
                told = step.tied_rows(df, context.at(steps, i, df)).select(ROW_ID, F.xxhash64("tie").alias(f"{TIE}{i}"))
                ties.append(context.keep(told, f"told-{i}"))
            elif step.scope == "table":  # it marks rows and changes no cell
                tie = step.tie(df)
                # Hashes: rows that only share one are made again too, and come out as they are published.
                df = df.withColumn(f"{TIE}{i}", F.when(tie.isNotNull(), F.xxhash64(tie)))
            else:
                df = step.run(df, context.at(steps, i, df))
        if tying:
            new = df.select(ROW_ID, *(f"{TIE}{i}" for i in tying))
            ties.append(context.keep(new if known is None else known.unionByName(new), "ties"))
            if not following:
                kept = [f"{scratch}/{context.state}/ties", *ties[-1].columns]
                recorded = {ties_name(run, work, work.inputs): kept}
    name = "changed"
    ids = context.keep(union(found).distinct(), name)
    if ties:
        name = closed(ids, functools.reduce(lambda a, b: a.unionByName(b, allowMissingColumns=True), ties), context)
    if following:
        need_few(run, work, ids_at(run, f"{scratch}/{context.state}/{name}").count())
    copying = [step for step in steps if step.foretells]
    if copying:
        ids = ids_at(run, f"{scratch}/{context.state}/{name}")
        for step in copying:
            ids = ids.unionByName(step.copies(ids))
        name = "with_copies"
        context.keep(ids, name)
    return f"{scratch}/{context.state}/{name}", recorded


def need_few(run: Run, work: Work, changed: int) -> None:
    """Raise `MakeAll` where so many rows must be made again that all of them may as well be."""
    every = sum(p.rows for n in run.pipeline.tables[work.table].starts if (p := run.lake.published(n)) is not None)
    if changed > LARGEST * every:
        raise MakeAll(f"{changed:,} of {every:,} rows changed")


def changes_of(run: Run, work: Work, scratch: str) -> tuple[Changes, int]:
    """Return what changed in the tables that one starts from, before its steps, and how many rows.

    Cost: two hashes of the rows of files that were lost and gained.
    """
    assert work.moved is not None
    moved = work.moved
    context = BuildContext(spark=run.spark, folder=scratch, state="changes")
    starts = run.pipeline.tables[work.table].starts
    none = run.read(starts[0], work.inputs[starts[0]].version).select(ROW_ID).limit(0)
    found = [changed_ids(run, name, *moved[name]) for name in starts if name in moved]
    ids = context.keep(union([none, *found]).distinct(), "changed")
    before = {}
    for name in starts:
        lost = sides(run, name, *moved[name])[0] if name in moved else None
        there = renamed_as(run, name, run.read(name, work.inputs[name].version))
        before[name] = there.limit(0) if lost is None else of(lost, ids)

    def other(name: str) -> DataFrame | None:
        return changed_rows(run, name, *moved[name]) if name in moved else None

    return Changes(ids, with_bookkeeping(together(run.pipeline, work.table, before)), other), ids.count()


def with_changed(
    pipeline: Pipeline, table: str, rows: Mapping[str, DataFrame], changed: Mapping[str, DataFrame]
) -> DataFrame:
    """Return rows of the tables that one starts from and, beside them, those that changed, as they were and are."""
    frames = [together(pipeline, table, rows)] if rows else []
    several = len(pipeline.tables[table].starts) > 1
    for name, r in changed.items():
        frames.append(r.withColumn(SOURCE, F.lit(pipeline.mapped.get(name, name))) if several else r)
    df = functools.reduce(lambda a, b: a.unionByName(b, allowMissingColumns=True), frames)
    return with_bookkeeping(df)


def ties_name(run: Run, work: Work, inputs: Mapping[str, Pin]) -> str:
    """Return the name under which the ties of a table's rows are kept, by all that decides them."""
    facts = [config_key(run.pipeline, work.table), work.state, {n: p.as_recorded() for n, p in sorted(inputs.items())}]
    return f"{TIES}{digest(facts)[:16]}"


def ties_before(run: Run, work: Work) -> DataFrame | None:
    """Return the ties of the rows of the versions from which the inputs moved, as an earlier build kept them."""
    assert work.moved is not None
    then = {n: replace(p, version=work.moved[n][0]) if n in work.moved else p for n, p in work.inputs.items()}
    path = f"{index_of(run.lake, work.table)}/{ties_name(run, work, then)}"
    return frame_at(run.spark, open_table(path), path) if has_table(path) else None


def ids_at(run: Run, folder: str) -> DataFrame:
    return run.spark.read.schema(f"{ROW_ID} string").parquet(folder)


def closed(ids: DataFrame, ties: DataFrame, context: BuildContext) -> str:
    """Keep the ids with all that are tied to them, directly or through others; return the name of what was kept.

    Cost: up to `TIES_AT_ONCE` ties, the driver has them; beyond that, for each link in the longest chain of ties, two
    passes over ids and ties, and no shuffle while few rows changed. Raises `MakeAll` for a chain of more than `LINKS`.
    """
    columns = [c for c in ties.columns if c != ROW_ID]
    some, few = (rows.limit(TIES_AT_ONCE + 1).toArrow() for rows in (ids, ties))
    if max(len(some), len(few)) <= TIES_AT_ONCE:
        found = closed_at_once(pc.unique(some[ROW_ID]), few)
        context.keep(arrow_frame(ids.sparkSession, pa.table({ROW_ID: found})), "tied")
        return "tied"
    known = -1
    for i in range(LINKS):
        mine = context.keep(ties.join(ids, on=ROW_ID, how="left_semi"), f"tying-{i}")
        found = [ties.join(mine.select(c).distinct(), on=c, how="left_semi").select(ROW_ID) for c in columns]
        ids = context.keep(union([*found, ids]).distinct(), f"tied-{i}")
        count = ids.count()
        if count == known:
            return f"tied-{i}"
        known = count
    raise MakeAll(f"rows are tied to those that changed through more than {LINKS} others")


def looking_up(run: Run, df: DataFrame, keys: Mapping[str, str], changed: DataFrame) -> DataFrame:
    """Return the ids of the rows whose key is that of a changed row of another table. keys: column here -> there."""
    names = [f"_hg_k{i}" for i in range(len(keys))]
    there = changed.select(*(F.col(quoted(c)).alias(n) for c, n in zip(keys.values(), names, strict=True))).distinct()
    match = F.lit(True)
    for here, name in zip(keys, names, strict=True):
        match = match & (F.col(quoted(here)) == F.col(name))
    return df.join(there, on=match, how="left_semi").select(ROW_ID)


def closed_at_once(ids: pa.Array, ties: pa.Table) -> pa.Array:
    """Return ids with all that are tied to them, directly or through others.

    Cost: a pass over the ties for each of the first `LINKS` links of a chain, then 2 CPU s a million ties for the rest.
    """
    columns = [c for c in ties.column_names if c != ROW_ID]
    for _ in range(LINKS):
        mine = ties.filter(pc.is_in(ties[ROW_ID], ids))
        found = [ties.filter(pc.is_in(ties[c], mine[c].drop_null()))[ROW_ID] for c in columns]
        every = pc.unique(pa.chunked_array([ids, *(c for f in found for c in f.chunks)]))
        if len(every) == len(ids):
            return ids
        ids = every
    names = pc.unique(pa.chunked_array([ids, *ties[ROW_ID].chunks]))
    n, one, other = len(names), [], []
    for c in columns:
        rows = ties.filter(pc.is_valid(ties[c]))
        values = pc.unique(rows[c])
        one.append(pc.index_in(rows[ROW_ID], names).to_numpy().astype(np.int64))
        other.append(n + pc.index_in(rows[c], values).to_numpy().astype(np.int64))
        n += len(values)
    label = components(n, np.concatenate(one), np.concatenate(other))[: len(names)]
    return names.filter(pa.array(np.isin(label, label[pc.index_in(ids, names).to_numpy()])))
