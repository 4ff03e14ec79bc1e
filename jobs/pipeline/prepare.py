"""The rows of a build, before they are staged: its inputs at their pinned versions, and its table's steps."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headgate.jobs.config.columns import NOT_WRITABLE, UNWRITABLE, name_of, stored_name
from headgate.jobs.config.pipeline import Pipeline
from headgate.jobs.errors import UsageError, first_line
from headgate.jobs.lake.artifacts import fitted_of, index_of
from headgate.jobs.lake.frames import parquet
from headgate.jobs.lake.sessions import is_connect
from headgate.jobs.pipeline.arrivals import arrived
from headgate.jobs.pipeline.context import BuildContext
from headgate.jobs.pipeline.drift import Profile, profile
from headgate.jobs.pipeline.fitted import follow_drift, load_fitted, profile_of, save_fitted, save_profile
from headgate.jobs.pipeline.learning import followed, rows_to_learn
from headgate.jobs.pipeline.origins import Lookups, Origins, ids_of
from headgate.jobs.pipeline.work import SCRATCH, Pin, Prepared, Run, Work
from headgate.transforms.balancing.split import check_split, fitted
from headgate.transforms.parsing import without_ntz
from headgate.transforms.rows import (
    FILE_DATE,
    JOINED,
    JOINED_TYPE,
    OWN,
    ROW_ID,
    SOURCE,
    quoted,
    training_rows,
    with_bookkeeping,
    with_columns,
)
from headgate.transforms.step import (
    Changes,
    Estimator,
    LearnAnew,
    MakeAll,
    NoSuchColumn,
    Step,
    StepError,
    user_columns,
)
from headgate.words import cell

MANY_FITS = 20  # of one step: a run says beforehand that there are more


def prepare(
    run: Run,
    work: Work,
    scratch: str,
    save: bool = True,
    only: DataFrame | None = None,
    changes: tuple[Changes, int] | None = None,
) -> Prepared:
    """Make the rows of a build, marked and with their bookkeeping; nothing is evaluated that need not be.

    scratch: the folder for what steps need more than once. save: keep what they learned beside the lake's tables. only:
    the ids of the rows to be made; None: all. changes: for a last step that renews: what changed before the steps, and
    how many rows.
    """
    if work.arrival is not None:
        rows = arrived(run, work.arrival.rows())
        rows = renamed(rows, stored_name) if work.table in run.pipeline.raw_of else rows
        return Prepared(zoned(work.table, rows), work.arrival.count)
    table = run.pipeline.tables[work.table]
    frames = {name: pinned(run, name, pin) for name, pin in work.inputs.items()}
    refit, steps = table.refit, run.pipeline.steps[work.table]
    applied = steps if work.state is None else load_fitted(run.lake, work.table, steps, work.state)
    looked_up = {t: frames[t] for step in steps for t in step.tables()}
    # Read twice where the table looks up itself, so that what it has and what a join brought are told apart.
    part = work.part
    anew = {
        t: pinned(run, t, work.inputs[t], None if part is None else part[t])
        for t in table.starts
        if part is not None or work.moved is not None or t in looked_up
    }
    starts = {t: anew.get(t, frames[t]) for t in table.starts}
    if only is not None:
        ids = only.select(F.col(ROW_ID).alias(f"{OWN}only"))
        starts = {t: rows.join(ids, F.col(ROW_ID) == F.col(f"{OWN}only"), "left_semi") for t, rows in starts.items()}
    rows_in = changes[1] if changes else sum(count_in(run, work, t, rows) for t, rows in starts.items())
    context = BuildContext(
        spark=run.spark,
        folder=scratch,
        index=index_of(run.lake, work.table),
        fitted=fitted_of(run.lake, work.table, work.made_by) if save else f"{scratch}/fitted",
        frames=frames,
        unique={t: proven_unique(run, t, work.inputs[t]) for t in looked_up} if save else {},
        before=lambda: run.read(work.table, work.base) if work.base >= 0 else None,
        published=lambda: newest(run, work.inputs),
        lasting=table.publish.mode == "increment",
        rows_in=rows_in,
        partial=only is not None or changes is not None,
        builds=work.builds,
    )
    df = with_bookkeeping(together(run.pipeline, work.table, starts))
    columns = user_columns(df)
    watch = refit == "on_drift" and save
    df, frozen, seen, lookups = with_steps(run, work, df, context, applied, watch, changes and changes[0])
    if save and work.state is None:
        save_fitted(run.lake, work.table, work.made_by, columns, steps, frozen)
    if watch:
        beside = work.moved is not None and changes is None  # rows that stay and are not seen
        last = (run.lake.last_build(work.table) or {}).get("build_key") if beside else None
        now = seen if work.state is None else follow_drift(run.lake, work.table, work.state, last, seen)
        save_profile(run.lake, work.table, work.made_by, now)
    foretold = [step.id for step in frozen if step.foretells or step.renews]
    # Spark Connect gives no plan away: erasure then says that the lineage of columns is not known.
    lineage = None if is_connect(run.spark) else Origins.of(df, starts, lookups, context.kept)
    return Prepared(
        rows=zoned(work.table, df),
        rows_in=rows_in,
        recorded=context.all_recorded,
        lineage=lineage,
        warnings=context.warnings,
        figures=context.figures,
        foretold=foretold,
        replaced=context.replaced[-1] if context.replaced else None,
    )


def newest(run: Run, inputs: Mapping[str, Pin]) -> datetime:
    """Return when the newest of pinned versions was published."""
    found = (run.lake.published(name, pin.version) for name, pin in inputs.items())
    return max((p.at for p in found if p is not None), default=datetime.fromtimestamp(0, tz=timezone.utc))


def proven_unique(run: Run, table: str, pin: Pin) -> list[frozenset[str]]:
    """Return the keys that are unique in a pinned version as its suite blocked nothing: it was judged in this run."""
    suite, published = run.pipeline.suites.get(table), run.lake.published(table, pin.version)
    if suite is None or published is None or "build" not in published.facts or table in run.pipeline.raw_of:
        return []
    return [rule.proves_unique for rule in suite.rules if rule.proves_unique]


def scratch_of(run: Run, work: Work) -> str:
    return f"{run.lake.staging(work.table)}/{work.key}-{run.run_id}{SCRATCH}"


def pinned(run: Run, table: str, pin: Pin, files: list[str] | None = None) -> DataFrame:
    """Return the rows of an input at its pinned version, or of some of its data files, without those of later days."""
    rows = run.read(table, pin.version)
    if files is not None:
        rows = parquet(run.spark, rows.schema.jsonValue(), [f"{run.lake.path(table)}/{file}" for file in files])
    if pin.as_of is not None:
        rows = rows.where(F.col(FILE_DATE).isNull() | (F.col(FILE_DATE) <= pin.as_of))
    return renamed_as(run, table, rows)


def renamed_as(run: Run, table: str, rows: DataFrame) -> DataFrame:
    """Return the rows of a table under the names that its readers' steps know."""
    return renamed(rows, name_of) if table in run.pipeline.raw_of else rows


def renamed(rows: DataFrame, name: Callable[[str], str]) -> DataFrame:
    """Return rows with other names for their columns, where any differs; see `stored_name`."""
    if all(name(c) == c for c in rows.columns):
        return rows
    return rows.select(*(F.col(quoted(c)).alias(name(c)) for c in rows.columns))


def count_in(run: Run, work: Work, table: str, rows: DataFrame) -> int:
    """Return how many rows come from a table, from its log where that tells."""
    pin = work.inputs[table]
    if pin.as_of is None and work.part is None and work.moved is None:
        found = run.lake.published(table, pin.version)
        return found.rows if found else 0
    return rows.count()


def together(pipeline: Pipeline, table: str, starts: Mapping[str, DataFrame]) -> DataFrame:
    """Return the rows of all tables that one starts from, by column names; of several, each row names its own."""
    if len(starts) == 1:
        return next(iter(starts.values()))
    kinds: dict[str, tuple[str, str]] = {}
    for name, rows in starts.items():
        for column, kind in rows.dtypes:
            other, before = kinds.setdefault(column, (name, kind))
            if before != kind:
                raise UsageError(
                    f"table '{table}': column '{column}' is {before} in table '{other}' and {kind} in '{name}'; put a "
                    "cast into one of them"
                )
    named = [rows.withColumn(SOURCE, F.lit(pipeline.mapped.get(name, name))) for name, rows in starts.items()]
    df = functools.reduce(lambda a, b: a.unionByName(b, allowMissingColumns=True), named)
    return df.withColumn(JOINED, F.coalesce(JOINED, F.array().cast(JOINED_TYPE))) if JOINED in df.columns else df


def with_steps(
    run: Run,
    work: Work,
    df: DataFrame,
    context: BuildContext,
    steps: Sequence[Step],
    watch: bool,
    changes: Changes | None = None,
) -> tuple[DataFrame, list[Step], Profile, Lookups]:
    """Apply the table's steps, fitting those that learn; return the rows and the steps as they were applied.

    With them come the profile that was seen, and what was looked up.

    watch: whether to see how the columns that steps learn from are distributed, in the rows that they learn from.
    changes: for a last step that renews: what changed before the first one.
    """
    frozen: list[Step] = []
    lookups = Lookups()
    table, seen = work.table, Profile()
    learning: DataFrame | None = None
    like = profile_of(run.lake, table, work.state) if watch and work.state is not None else None
    for i, (configured, step) in enumerate(zip(run.pipeline.steps[table], steps, strict=True)):
        mine, had = context.at(steps, i, df, changes), set(df.columns)
        anew = {t: pinned(run, t, work.inputs[t]) for t in configured.tables() if t in dict(lookups.frames)}
        mine = dataclasses.replace(mine, frames={**mine.frames, **anew})
        lookups.frames += [(t, mine.table(t)) for t in configured.tables()]
        try:
            configured.check(df, mine)
            check_split(configured, df.columns, run.pipeline.splits(table, i))
            if isinstance(configured, Estimator) and watch:
                columns = [c for c in configured.watched(user_columns(df)) if c not in seen.known]
                seen = seen.with_more(profile(training_rows(df), columns, like))
            if isinstance(step, Estimator):
                if step.fits > MANY_FITS:
                    run.progress.tell("warning", message=f"{table}: {step.name} learns {step.fits:,} times")
                with run.progress.phase(table, f"fit {step.name}"):
                    if learning is None:
                        learning = rows_to_learn(df, steps[i:], mine)
                    step = fitted(step, df, mine, learning)
                df = step.run(df, mine)
            elif step.scope == "table":
                with run.progress.phase(table, f"compare: {step.name}"):
                    df = step.run(df, mine)
            else:
                df = step.run(df, mine)
                changes = changes and dataclasses.replace(changes, before=step.run(changes.before, mine))
        except (LearnAnew, MakeAll):
            raise
        except (StepError, AnalysisException) as e:
            why = first_line(e)
            if isinstance(e, NoSuchColumn):
                why = str(NoSuchColumn(e.column, e.there, e.place, of_data=True))  # else `check` had told
            elif isinstance(e, AnalysisException):
                why = cell(why)
            raise UsageError(f"tables.{table}.steps[{i}].{step.name}: {why}") from e
        frozen.append(step)
        if step.tables() and JOINED in df.columns and not is_connect(run.spark):
            new = ids_of(df, set(df.columns) - had)
            lookups.brought += [
                (f"{other}.{column}", known) for other in step.tables() for column, known in new.items()
            ]
        learning = followed(learning, step, mine) if any(isinstance(s, Estimator) for s in steps[i + 1 :]) else None
    return df, frozen, seen, lookups


def zoned(table: str, df: DataFrame) -> DataFrame:
    """Return the rows as Delta can hold them at reader version 1: times without a zone as timestamps in UTC.

    Raises `UsageError` for a name that Delta cannot hold: of a source without a schema, only its files tell it.
    """
    unwritable = next((c for c in df.columns if set(c) & set(UNWRITABLE)), None)
    if unwritable is not None:
        raise UsageError(f"table '{table}': the column {cell(unwritable)} {NOT_WRITABLE}")
    kinds = {f.name: without_ntz(f.dataType) for f in df.schema.fields}
    changed = [f.name for f in df.schema.fields if kinds[f.name] != f.dataType]
    return with_columns(df, {c: F.col(quoted(c)).cast(kinds[c]) for c in changed})
