"""The split into training, validation and test rows, and what keeps it apart from a user's own column `split`."""

import dataclasses
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headgate.transforms.cleaning.columns import Derive, DropColumns, Rename, SelectColumns
from headgate.transforms.features.aggregate import Aggregate
from headgate.transforms.fusion.join import JoinTable
from headgate.transforms.kinds import TIMES, as_text, constant, held, key_texts, named_values, need_kinds
from headgate.transforms.rows import SPLIT, TRAIN, Rejection, is_kept, quoted, reject, stable_hash, training_rows
from headgate.transforms.step import Columns, Context, Estimator, Step, StepError, require_columns

NEW = "new"  # the split of rows that nothing was learned from
RESOLUTION = 1_000_000_000
RESAMPLING = ("sample_strata", "mix_sources", "make_minority", "balance_classes")
SHARES = {TRAIN: 0.8, "valid": 0.1, "test": 0.1}


def check_shares(shares: Mapping[str, float]) -> None:
    """Raise `StepError` unless the shares add up to 1 and one of them is of the training split."""
    if TRAIN not in shares:
        raise StepError(f"shares: one of them must be named '{TRAIN}' (given: {', '.join(shares)})")
    total = sum(shares.values())
    if any(s < 0 for s in shares.values()) or not math.isfinite(total) or abs(total - 1) > 1e-9:
        raise StepError(f"shares must be positive and add up to 1, not {total}")


class MakesSplit:
    """A step that makes the column `split`."""

    def with_split(self, have: Columns) -> Columns:
        if SPLIT in have:
            raise StepError(f"there is a column '{SPLIT}' already; rename or drop it before")
        return {**have, SPLIT: "string"}

    def for_new_rows(self) -> Step | None:
        return SplitByHash(key=(), shares={TRAIN: 0.0, NEW: 1.0}).at(getattr(self, "id", ""))


@dataclass(frozen=True, kw_only=True)
class SplitByHash(MakesSplit, Step):
    """Assign rows to splits by a hash of a stable key, into the column `split`.

    key: columns whose equal values must fall into the same split (all flights of one aircraft, say).
    shares: split -> share of the keys; they add up to 1 and one of them is `train`.
    seed: another seed gives another assignment.
    The shares hold in expectation over keys, not exactly. A null in the key counts as a value. The assignment of a key
    never changes as data grow. Steps that learn look at `train` alone from here on. Cost: one pass, no shuffle.
    """

    name: ClassVar[str] = "split_by_hash"
    key: tuple[str, ...]
    shares: Mapping[str, float] = field(default_factory=lambda: dict(SHARES))
    seed: int = 0

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns(self.key, have)
        check_shares(self.shares)
        return self.with_split(have)

    def for_new_rows(self) -> Step:
        return dataclasses.replace(self, shares={TRAIN: 0.0, NEW: 1.0}).at(self.id)

    def apply(self, df: DataFrame) -> DataFrame:
        place = F.pmod(stable_hash(df, self.seed, self.key), F.lit(RESOLUTION))
        chosen, upto = None, 0.0
        names = list(self.shares)
        for name in names[:-1]:
            upto += self.shares[name]
            inside = place < F.lit(round(upto * RESOLUTION))
            chosen = F.when(inside, F.lit(name)) if chosen is None else chosen.when(inside, F.lit(name))
        last = F.lit(names[-1])
        return df.withColumn(SPLIT, last if chosen is None else chosen.otherwise(last))


@dataclass(frozen=True, kw_only=True)
class SplitByTime(MakesSplit, Step):
    """Assign rows to splits by time, into the column `split`: train on what was, test on what came after.

    column: a date or a time.
    starts: split -> the day or moment from which on rows are of it, as 2013-01-31 or 2013-01-31T12:00:00Z; one split
        has none (null) and gets all that is before: `train`, as a rule.
    gap_days: days before each start whose rows are of no split (0): labels that look ahead would leak. They are marked.
    Rows without a time are marked. Cost: one pass, no shuffle.
    """

    name: ClassVar[str] = "split_by_time"
    column: str
    starts: Mapping[str, str | None]
    gap_days: int = 0

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns([self.column], have)
        if TRAIN not in self.starts or [*self.starts.values()].count(None) != 1 or len(self.starts) < 2:
            raise StepError(f"starts: name two splits or more, '{TRAIN}' among them; just one of them has no start")
        if self.gap_days < 0:
            raise StepError("gap_days must be at least 0")
        kind = have[self.column]
        if kind is not None:
            if kind not in ("date", *TIMES):
                raise StepError(f"{self.name}: '{self.column}' is {kind}, neither a date nor a time; put a cast before")
            for start in self.starts.values():
                held(start, kind, "starts")
        return self.with_split(have)

    def check(self, df: DataFrame, context: Context) -> None:
        super().check(df, context)
        kind = dict(df.dtypes)[self.column]
        first = {name: constant(start, kind, "starts") for name, start in self.starts.items() if start is not None}
        told = df.sparkSession.range(1).select(*(value.alias(f"s{i}") for i, value in enumerate(first.values())))
        if len(set(told.first() or ())) < len(first):
            raise StepError("starts: two splits start at one moment")

    def apply(self, df: DataFrame) -> DataFrame:
        kind, value = dict(df.dtypes)[self.column], F.col(quoted(self.column))
        starts = {name: constant(start, kind, "starts") for name, start in self.starts.items() if start is not None}
        (first,) = (name for name, start in self.starts.items() if start is None)
        # The latest start that a row has reached; a null is less than all others.
        reached = [
            F.when(value >= start, F.struct(start.alias("at"), F.lit(n).alias("n"))) for n, start in starts.items()
        ]
        latest = F.greatest(F.struct(F.lit(None).cast(kind).alias("at"), F.lit(first).alias("n")), *reached)
        df = df.withColumn(SPLIT, F.when(value.isNotNull(), latest["n"]))
        text = as_text(value, kind)
        gap = F.lit(False)
        for start in starts.values():
            early = (
                F.date_sub(start, self.gap_days) if kind == "date" else start - F.make_dt_interval(F.lit(self.gap_days))
            )
            gap = gap | ((value >= early) & (value < start))
        rejections = [Rejection(value.isNull(), "no_split", {"column": F.lit(self.column)})]
        rejections.append(Rejection(gap, "no_split", {"column": F.lit(self.column), "value": text}))
        return reject(df, self.id, *rejections)


@dataclass(frozen=True, kw_only=True)
class SplitByColumn(MakesSplit, Step):
    """Take a column that is there already for the split.

    column: holds the name of each row's split; it stays, unless it is `split` itself.
    values: what it holds, as text -> name of the split, as {dev: valid}, or of numbers {"0": train, "1": test}; without
        it, the names are taken as they are.
    Rows without a value, or with one that `values` does not have, are marked. Cost: one pass, no shuffle.
    """

    name: ClassVar[str] = "split_by_column"
    column: str
    values: Mapping[str, str] | None = None

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns([self.column], have)
        if self.values is not None and TRAIN not in self.values.values():
            raise StepError(f"values: one of them must stand for '{TRAIN}'")
        need_kinds(have, self.name, [self.column], numbers=False)
        return dict(have) if self.column == SPLIT else self.with_split(have)

    def for_new_rows(self) -> Step | None:
        return None if self.column == SPLIT else super().for_new_rows()

    def check(self, df: DataFrame, context: Context) -> None:
        super().check(df, context)
        if self.values is not None:
            named_values(df.sparkSession, self.values, dict(df.dtypes)[self.column], self.column, "values")

    def apply(self, df: DataFrame) -> DataFrame:
        kind = dict(df.dtypes)[self.column]
        given = as_text(F.col(quoted(self.column)), kind)
        found = given
        if self.values is not None:
            texts = key_texts(self.values, kind, self.column)
            pairs = [x for value, name in self.values.items() for x in (texts[value], F.lit(name))]
            found = F.try_element_at(F.create_map(*pairs), given)
        df = df.withColumns({"_hg_given": given, "_hg_split": found})
        evidence = {"column": F.lit(self.column), "value": F.col("_hg_given")}
        df = reject(df, self.id, Rejection(F.col("_hg_split").isNull(), "no_split", evidence))
        return df.withColumn(SPLIT, F.col("_hg_split")).drop("_hg_given", "_hg_split")


def splits_after(step: Step, splits: Collection[str], tables: Mapping[str, Collection[str]]) -> set[str]:
    """Follow the columns that `split_by_hash` made through a step; `tables` has those of the other tables."""
    if isinstance(step, MakesSplit):
        return {*splits, SPLIT}
    if isinstance(step, Rename):
        return {step.columns.get(c, c) for c in splits}
    if isinstance(step, SelectColumns):
        return {c for c in splits if c in step.columns}
    if isinstance(step, DropColumns | Derive):
        return {c for c in splits if c not in step.columns}
    if isinstance(step, Aggregate):
        return {c for c in splits if c in step.by}
    if isinstance(step, JoinTable):
        return {*splits, *(here for here, there in step.columns.items() if there in tables.get(step.table, ()))}
    return set(splits)


def check_split(step: Step, have: Collection[str], splits: Collection[str]) -> None:
    """Raise `StepError` if a step that looks at training rows would not find them.

    have: the columns before the step; splits: those of them that `split_by_hash` made.
    """
    if not step.by_split:
        return
    if SPLIT in have and SPLIT not in splits:
        raise StepError(
            f"the column '{SPLIT}' here was not made by split_by_hash or another step that splits, and steps that "
            "learn, sample or weigh take it for the split of training rows. If it is, say so by split_by_column: "
            f"{{column: {SPLIT}}}; else put a rename step for it before (rename: {{columns: {{{SPLIT}: …}}}})"
        )
    if SPLIT not in have and splits:
        raise StepError(
            f"the split is in '{min(splits)}', and steps that learn, sample or weigh look for '{SPLIT}': they would "
            "learn from all rows. Rename it after them"
        )
    if SPLIT not in have and step.name in RESAMPLING:
        raise StepError("resampling touches training rows only; put split_by_hash before it")


def fitted(step: Estimator, df: DataFrame, context: Context, training: DataFrame | None = None) -> Step:
    """Fit a step on the training rows of `df`; raise `StepError` if there are rows, but none to learn from.

    training: these rows where they are kept, with the columns that the step names; some may have been marked since.
    Costs what the fit does, and one more aggregate where that learned nothing.
    """
    frozen = step.fit(training_rows(df if training is None else training), context).at(step.id)
    if not frozen.learned() and SPLIT in df.columns:
        counts = df.where(is_kept()).groupBy(F.col(SPLIT).alias("_hg_split")).agg(F.count(F.lit(1)).alias("_hg_rows"))
        found = {r[0]: r[1] for r in counts.orderBy(F.col("_hg_rows").desc(), "_hg_split").limit(10).collect()}
        if found and TRAIN not in found:
            there = ", ".join(f"{value}: {rows:,} rows" for value, rows in found.items())
            raise StepError(f"no row is in the split '{TRAIN}', so there is nothing to learn from ({there})")
    return frozen
