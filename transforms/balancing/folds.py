"""Folds and bags for ensembles, by a hash of a stable key: rows of one key go together, in every build alike."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.transforms.rows import stable_hash
from headgate.transforms.step import Columns, Step, StepError, require_columns, with_new

RESOLUTION = 1_000_000_000
MOST = 12  # times that a key may be in one bag; more has a chance of 6e-11


@dataclass(frozen=True, kw_only=True)
class AssignFolds(Step):
    """Assign rows to folds of cross-validation by a hash of a key: all rows of an entity are in one fold.

    by: columns whose equal values must be in the same fold. A null counts as a value.
    folds: how many (5), at most 1,000.
    into: the new column, a whole number from 0.
    seed: another seed gives other folds.
    Folds are of equal size in expectation over keys. The fold of a key never changes as data grow. `stack_predictions`
    with the same key, number and seed has the same folds. Cost: one pass, no shuffle.
    """

    name: ClassVar[str] = "assign_folds"
    by: tuple[str, ...]
    folds: int = 5
    into: str = "fold"
    seed: int = 0

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        need_keys(self.by, have)
        if not 2 <= self.folds <= 1000:
            raise StepError(f"folds: {self.folds} is not 2 to 1,000")
        return with_new(have, {self.into: "int"})

    def apply(self, df: DataFrame) -> DataFrame:
        return df.withColumn(self.into, fold_of(df, self.by, self.folds, self.seed))


@dataclass(frozen=True, kw_only=True)
class AssignBags(Step):
    """Draw bags for bagging: how often each row is in each of some bootstrap samples, by a hash of a key.

    by: columns whose equal values are drawn together, such as the entity. A null counts as a value.
    bags: how many (10), at most 1,000.
    into: the new column, an array of whole numbers, one for each bag: 0 where a row is not in it (out of bag).
    seed: another seed gives other bags.
    The counts are of a Poisson distribution with mean 1, to which those of drawing with replacement tend: each bag has
    as many keys as there are in expectation, 63 % of them distinct. The draw of a key never changes as data grow. For
    bags with as many rows of each class see `bag_exactly`. Cost: one pass, no shuffle. Source: Breiman 1996; Oza and
    Russell 2001.
    """

    name: ClassVar[str] = "assign_bags"
    by: tuple[str, ...]
    bags: int = 10
    into: str = "bags"
    seed: int = 0

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        need_keys(self.by, have)
        if not 1 <= self.bags <= 1000:
            raise StepError(f"bags: {self.bags} is not 1 to 1,000")
        return with_new(have, {self.into: "array<int>"})

    def apply(self, df: DataFrame) -> DataFrame:
        key = stable_hash(df, self.seed, self.by)
        bags = F.sequence(F.lit(0), F.lit(self.bags - 1))
        return df.withColumn(self.into, F.transform(bags, lambda bag: drawn(F.xxhash64(key, bag))))


def need_keys(by: tuple[str, ...], have: Columns) -> None:
    if not by:
        raise StepError("by: name the columns whose equal values go together")
    require_columns(by, have)


def fold_of(df: DataFrame, by: tuple[str, ...], folds: int, seed: int) -> Column:
    """Return the fold of each row."""
    return F.pmod(stable_hash(df, seed, by), F.lit(folds)).cast("int")


def drawn(place: Column) -> Column:
    """Return a number of a Poisson distribution with mean 1 from a uniform 64-bit hash."""
    uniform = F.pmod(place, F.lit(RESOLUTION))
    upto, found = 0.0, None
    for n in range(MOST):
        upto += math.exp(-1) / math.factorial(n)
        below = uniform < F.lit(round(upto * RESOLUTION))
        found = F.when(below, F.lit(n)) if found is None else found.when(below, F.lit(n))
    assert found is not None  # MOST is above 0
    return found.otherwise(F.lit(MOST))
