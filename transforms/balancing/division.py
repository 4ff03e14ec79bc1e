"""Splits and folds of exact sizes, stratum by stratum."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headgate.transforms.balancing.draws import LOWEST, Order, cuts_of, keys_of, measured, stratum_of
from headgate.transforms.balancing.multilabel import with_label_strata
from headgate.transforms.balancing.split import SHARES, MakesSplit, check_shares
from headgate.transforms.cleaning.columns import Derive
from headgate.transforms.kinds import need_kinds
from headgate.transforms.rows import (
    ROW_ID,
    SPLIT,
    content_key,
    is_kept,
    is_training,
    local_frame,
    quoted,
    training_rows,
)
from headgate.transforms.step import Columns, Context, Step, StepError, require_columns, with_new

MOST_CLASSES = 1_000
NULL = "-"  # the stratum of rows without a class
DEALT = "_hg_stratum string, _hg_dealt array<array<int>>"


@dataclass(frozen=True, kw_only=True)
class SplitExactly(MakesSplit, Step):
    """Assign rows to splits in exact numbers, stratum by stratum, into the column `split`.

    shares: split -> share of the rows; they add up to 1 and one of them is `train`. Each stratum is divided by largest
        remainders, so that every split has its share of it to within one row.
    by: columns whose tuples are the strata (the label, say); a null counts as a value. Without it, all rows are one. Of
        a list of labels the set of its three rarest ones counts (two or one where such sets are more than 100,000):
        each set is divided to within one row, so that a label is off by less than the number of sets that it is in; as
        sets with the same rarest labels are divided one after another, by a few rows as a rule.
    key: columns whose equal values must fall into the same split: what is divided are the keys then. The stratum of a
        key is that of its first row by a hash, so that rows of a key in several strata stay together.
    seed: another seed gives another assignment.
    Which rows fall into a split is decided by a hash of the row id (of the key): the same in any partitioning. Unlike
    `split_by_hash`, rows may change their split as data grow. Steps that learn look at `train` alone from here on.
    Cost: a pass over the keys, for each split but one another one over a part of them, and one pass to apply, with a
    shuffle if there is a key; strata, at most 1,000,000, come to the driver, and so do labels, at most 100,000. A list
    of labels takes two more passes. Source: Sechidis et al. 2011 (the rarest label first).
    """

    name: ClassVar[str] = "split_exactly"
    revision: ClassVar[int] = 2
    scope: ClassVar[Literal["row", "table"]] = "table"
    by: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    shares: Mapping[str, float] = field(default_factory=lambda: dict(SHARES))
    seed: int = 0

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns([*self.by, *self.key], have)
        check_shares(self.shares)
        return self.with_split(have)

    def run(self, df: DataFrame, context: Context) -> DataFrame:
        order = Order(seed=self.seed, salt="split")
        numbered, parts = divided(df, context, self.by, self.key, by_shares([*self.shares.values()]), order)
        names = F.array(*(F.lit(n) for n in self.shares))
        split = F.try_element_at(names, F.col("_hg_part") + 1)
        before = [quoted(c) for c in df.columns]
        empty = [name for i, name in enumerate(self.shares) if self.shares[name] > 0 and not parts[i]]
        if empty:
            context.warn(f"no row is in {', '.join(empty)}: there are too few rows")
        return numbered.select(*before, F.when(is_kept(), split).alias(SPLIT))


@dataclass(frozen=True, kw_only=True)
class FoldExactly(Step):
    """Assign rows to folds of cross-validation of equal size, stratum by stratum.

    folds: how many (5); they are numbered from 0.
    by: columns whose tuples are the strata: every fold has as many rows of each, to within one. Without it, all rows
        are one stratum. Of a list of labels the rarest ones count, as in `split_exactly`.
    key: as in `split_exactly`: rows with one key are in one fold.
    into: the new column (`fold`), an int; null of rows that are not of the training split, where there is one.
    seed: another seed gives other folds.
    Unlike with `assign_folds`, rows may change their fold as data grow. Cost: as `split_exactly`.
    """

    name: ClassVar[str] = "fold_exactly"
    revision: ClassVar[int] = 2
    scope: ClassVar[Literal["row", "table"]] = "table"
    by_split: ClassVar[bool] = True
    folds: int = 5
    by: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    into: str = "fold"
    seed: int = 0

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns([*self.by, *self.key], have)
        if not 2 <= self.folds <= 100:
            raise StepError("folds must be 2 to 100")
        return with_new(have, {self.into: "int"})

    def for_new_rows(self) -> Step:
        return Derive(columns={self.into: "CAST(NULL AS INT)"}).at(self.id)

    def run(self, df: DataFrame, context: Context) -> DataFrame:
        order = Order(seed=self.seed, salt="fold")
        numbered, parts = divided(df, context, self.by, self.key, by_shares([1 / self.folds] * self.folds), order)
        if not all(parts):
            context.warn(f"there are fewer rows than folds ({sum(parts):,})")
        return numbered.select(*(quoted(c) for c in df.columns), F.col("_hg_part").alias(self.into))


@dataclass(frozen=True, kw_only=True)
class BagExactly(Step):
    """Deal training rows into balanced bags: each has as many rows of every class, for an ensemble of models.

    label: the class column; rows without a class are in no bag.
    bags: how many (10), at most 100.
    rows: of each class in a bag; by default as many as the smallest class has. A class that has no more is in every bag
        whole; larger ones are dealt evenly, so that no row is in two bags while another is in none.
    key: columns whose equal values go together; what is counted are the keys then, of the class of their first row by
        a hash.
    into: the new column (`bags`), an array with 1 for each bag that a row is in and 0 for the others, as of
        `assign_bags`; null of rows that are not of the training split, where there is one.
    seed: another seed deals other bags.
    The same in any partitioning; rows may change their bags as data grow. Cost: as `split_exactly` with twice as many
    splits as there are bags. Source: Liu et al. 2009 (EasyEnsemble).
    """

    name: ClassVar[str] = "bag_exactly"
    scope: ClassVar[Literal["row", "table"]] = "table"
    by_split: ClassVar[bool] = True
    label: str
    bags: int = 10
    rows: int | None = None
    key: tuple[str, ...] = ()
    into: str = "bags"
    seed: int = 0

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns([self.label, *self.key], have)
        need_kinds(have, self.name, [self.label], numbers=False)
        if not 1 <= self.bags <= 100 or (self.rows is not None and self.rows < 1):
            raise StepError("bags must be 1 to 100, and rows at least 1")
        return with_new(have, {self.into: "array<int>"})

    def for_new_rows(self) -> Step:
        return Derive(columns={self.into: "CAST(NULL AS ARRAY<INT>)"}).at(self.id)

    def run(self, df: DataFrame, context: Context) -> DataFrame:
        order, dealt = Order(seed=self.seed, salt="bag"), Dealt(self.bags, self.rows)
        numbered, _ = divided(df, context, [self.label], self.key, dealt.parts, order)
        lookup = local_frame(df.sparkSession, sorted(dealt.bags.items()), DEALT)
        numbered = numbered.join(F.broadcast(lookup), on="_hg_stratum", how="left")
        bags = F.try_element_at("_hg_dealt", F.col("_hg_part") + 1)
        return numbered.select(*(quoted(c) for c in df.columns), bags.alias(self.into))


@dataclass(frozen=True)
class Dealt:
    """Bags of classes: each takes so many of a class in the order of hashes, from evenly spaced places on, in a circle.

    bags: after `parts`, for each class and each of its parts, which bags that is in; nothing of rows without a class.
    """

    number: int
    rows: int | None
    bags: dict[str, list[list[int]]] = field(default_factory=dict)

    def parts(self, sizes: Mapping[str, int]) -> dict[str, list[int]]:
        """Return the sizes of the parts of each class within which all rows are in the same bags."""
        classes = {name: size for name, size in sizes.items() if name != NULL}
        if len(classes) > MOST_CLASSES:
            raise StepError(f"label: there are more than {MOST_CLASSES:,} classes")
        wanted = self.rows if self.rows is not None else min(classes.values(), default=0)
        found = {name: [size] for name, size in sizes.items()}
        for name, size in classes.items():
            starts = [bag * size // self.number for bag in range(self.number)]
            taken = min(wanted, size)
            places = sorted({0, size, *starts, *((start + taken) % size for start in starts)})
            found[name] = [b - a for a, b in itertools.pairwise(places)]
            self.bags[name] = [[int((place - start) % size < taken) for start in starts] for place in places[:-1]]
        return found


def by_shares(shares: Sequence[float]) -> Callable[[Mapping[str, int]], dict[str, list[int]]]:
    """Return what divides strata into parts by shares."""
    return lambda sizes: parts_of(sizes, shares)


def divided(
    df: DataFrame,
    context: Context,
    by: Sequence[str],
    key: Sequence[str],
    division: Callable[[Mapping[str, int]], Mapping[str, Sequence[int]]],
    order: Order,
) -> tuple[DataFrame, list[int]]:
    """Return the rows with `_hg_part`, the number of their part, and how many rows (with a key: keys) each part has.

    division: gives the sizes of the parts of each stratum, which add up to its size. Rows that are marked, or not of
    the training split where there is one, have no part.
    """
    df, strata_by = with_label_strata(df, training_rows(df), by)
    rows = training_rows(df)
    stratum = stratum_of(df, strata_by) if by else F.lit("")
    df = df.withColumns({"_hg_unit": F.md5(content_key(df, key)) if key else F.col(ROW_ID), "_hg_stratum": stratum})
    if key:
        rows = training_rows(df)
        first = F.min(F.struct(order.of(df), F.col(ROW_ID), F.col("_hg_stratum").alias("stratum")))["stratum"]
        units = rows.groupBy(F.col("_hg_unit").alias(ROW_ID)).agg(first.alias("stratum"))
        units = context.keep(units, "units")
    else:
        units = rows.select(ROW_ID, stratum.alias("stratum"))
    keys = keys_of(units, F.col("stratum"), order)
    found = measured(keys, by)
    # A row's part is told by the ends of all parts but the last.
    parts = {s: [*n, 0] if len(n) == 1 else n for s, n in division(found.sizes).items()}
    ends = [(s, f"{i}:{s}", i, sum(n[: i + 1])) for s, n in sorted(parts.items()) for i in range(len(n) - 1)]
    ahead = {pool: rank for _, pool, _, rank in ends if rank}
    spark = df.sparkSession
    cuts = cuts_of(keys, found, [(s, pool) for s, pool, _, rank in ends if rank], ahead)
    places = [(s, part, *cuts.get(pool, (LOWEST, ""))[:2]) for s, pool, part, _ in ends]
    listed = local_frame(spark, places, "_hg_stratum string, part int, order long, row_id string")
    ends_of = F.array_sort(F.collect_list(F.struct("part", F.struct("order", "row_id").alias("end"))))
    lookup = context.keep(listed.groupBy("_hg_stratum").agg(ends_of.alias("_hg_ends")), "parts")
    if key:
        strata = units.select(F.col(ROW_ID).alias("_hg_unit"), F.col("stratum").alias("_hg_stratum"))
        df = df.drop("_hg_stratum").join(strata, on="_hg_unit", how="left")
    df = df.join(F.broadcast(lookup), on="_hg_stratum", how="left")
    place = F.struct(order.of(df, F.col("_hg_unit")).alias("order"), F.col("_hg_unit").alias("row_id"))
    part = F.size(F.filter("_hg_ends", lambda e: e["end"] < place))
    totals = [sum(numbers) for numbers in itertools.zip_longest(*parts.values(), fillvalue=0)]
    return df.withColumn("_hg_part", F.when(is_training(df), part).cast("int")), totals


def parts_of(sizes: Mapping[str, int], shares: Sequence[float]) -> dict[str, list[int]]:
    """Divide the rows of each stratum by shares into whole numbers, each to within one row.

    What is left over goes to the parts that lack most so far, so that these have their shares of all rows too.
    """
    parts, lacking = {}, [0.0] * len(shares)
    for stratum, size in sorted(sizes.items()):
        exact = [size * share for share in shares]
        whole = [math.floor(n + 1e-9) for n in exact]
        lacking = [gap + n - w for gap, n, w in zip(lacking, exact, whole, strict=True)]
        open_ = sorted((i for i, n in enumerate(exact) if n > whole[i]), key=lambda i: (-lacking[i], i))
        for i in open_[: size - sum(whole)]:
            whole[i] += 1
            lacking[i] -= 1
        parts[stratum] = whole
    return parts
