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
from headgate.transforms.rows import SPLIT, TRAIN, is_kept, stable_hash, training_rows
from headgate.transforms.step import Columns, Context, Estimator, Step, StepError, require_columns

NEW = "new"  # the split of rows that nothing was learned from


@dataclass(frozen=True, kw_only=True)
class SplitByHash(Step):
    """Assign rows to splits by a hash of a stable key, into the column `split`.

    key: columns whose equal values must fall into the same split (all flights of one aircraft, say).
    shares: split -> share of the keys; they add up to 1 and one of them is `train`.
    seed: another seed gives another assignment.
    The shares hold in expectation over keys, not exactly. A null in the key counts as a value. The assignment of a key
    never changes as data grow. Steps that learn look at `train` alone from here on. Cost: one pass, no shuffle.
    """

    name: ClassVar[str] = "split_by_hash"
    key: tuple[str, ...]
    shares: Mapping[str, float] = field(default_factory=lambda: {TRAIN: 0.8, "valid": 0.1, "test": 0.1})
    seed: int = 0

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns(self.key, have)
        if TRAIN not in self.shares:
            raise StepError(f"shares: one of them must be named '{TRAIN}' (given: {', '.join(self.shares)})")
        total = sum(self.shares.values())
        if any(s < 0 for s in self.shares.values()) or not math.isfinite(total) or abs(total - 1) > 1e-9:
            raise StepError(f"shares must be positive and add up to 1, not {total}")
        if SPLIT in have:
            raise StepError(f"there is a column '{SPLIT}' already; rename or drop it before")
        return {**have, SPLIT: "string"}

    def for_new_rows(self) -> Step:
        return dataclasses.replace(self, shares={TRAIN: 0.0, NEW: 1.0}).at(self.id)

    def apply(self, df: DataFrame) -> DataFrame:
        resolution = 1_000_000_000
        place = F.pmod(stable_hash(df, self.seed, self.key), F.lit(resolution))
        chosen, upto = None, 0.0
        names = list(self.shares)
        for name in names[:-1]:
            upto += self.shares[name]
            inside = place < F.lit(round(upto * resolution))
            chosen = F.when(inside, F.lit(name)) if chosen is None else chosen.when(inside, F.lit(name))
        last = F.lit(names[-1])
        return df.withColumn(SPLIT, last if chosen is None else chosen.otherwise(last))


def splits_after(step: Step, splits: Collection[str], tables: Mapping[str, Collection[str]]) -> set[str]:
    """Follow the columns that `split_by_hash` made through a step; `tables` has those of the other tables."""
    if isinstance(step, SplitByHash):
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
            f"the column '{SPLIT}' here was not made by split_by_hash, and steps that learn, sample or weigh take it "
            f"for the split of training rows; put a rename step for it before (rename: {{columns: {{{SPLIT}: …}}}})"
        )
    if SPLIT not in have and splits:
        raise StepError(
            f"the split is in '{min(splits)}', and steps that learn, sample or weigh look for '{SPLIT}': they would "
            "learn from all rows. Rename it after them"
        )
    if SPLIT not in have and step.name == "sample_strata":
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
