"""Missing values filled from the rows before and after in an order: previous, next, linear interpolation."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from pyspark.sql import Column, DataFrame
from pyspark.sql import Window as W
from pyspark.sql import functions as F

from headgate.transforms.kinds import FLOATS, LARGEST, TIMES, WHOLE, is_number, known_kinds, missing, need_kinds
from headgate.transforms.rows import ROW_ID, SPLIT, change_cells, is_kept, quoted
from headgate.transforms.step import Columns, Step, StepError, require_columns


@dataclass(frozen=True, kw_only=True)
class ImputeOrdered(Step):
    """The base of imputation from neighbours in an order."""

    scope: ClassVar[Literal["row", "table"]] = "table"
    numbers: ClassVar[bool] = False  # whether it needs numbers
    columns: tuple[str, ...]
    by: tuple[str, ...]
    order: str
    longest: float | None = None
    across_splits: bool = False

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns([*self.columns, *self.by, self.order], have)
        if not self.by:
            raise StepError("by: name the columns whose groups are each in an order of their own")
        both = set(self.columns) & {*self.by, self.order}
        if both:
            raise StepError(f"'{min(both)}' cannot be filled and be in `by` or `order` as well")
        if self.longest is not None and not 0 < self.longest < math.inf:
            raise StepError(f"longest: {self.longest} is not above 0")
        need_kinds(have, self.name, self.columns, self.numbers)
        need_kinds(have, self.name, self.by, numbers=False)
        for _, kind in known_kinds(have, [self.order]):
            if not is_number(kind) and kind != "date" and kind not in TIMES:
                raise StepError(f"order: '{self.order}' is {kind}, not a number, a date or a time")
        return have

    def value(self, before: Column, after: Column, since: Column, until: Column, kind: str) -> Column:
        """Return what fills a cell, from the known neighbours and how far they are away."""
        raise NotImplementedError

    def apply(self, df: DataFrame) -> DataFrame:
        kinds, names = dict(df.dtypes), df.columns
        place = kinds[self.order]
        df = df.withColumn("_hg_at", place_of(F.col(quoted(self.order)), place))
        group = [quoted(c) for c in self.by]
        if SPLIT in names and not self.across_splits and SPLIT not in self.by:
            group.append(SPLIT)
        placed = F.col("_hg_at").isNotNull()
        for column in self.by:
            placed = placed & F.col(quoted(column)).isNotNull()
        # Rows without a place have no neighbours, and need not be in one task. A group's order ends in the row id, so
        # that rows of one place are in an order of their own.
        series = W.partitionBy(*group, F.when(~placed, F.col(ROW_ID)))
        upward = series.orderBy("_hg_at", ROW_ID)
        downward = series.orderBy(F.col("_hg_at").desc(), F.col(ROW_ID).desc())
        neighbours = {}
        for i, column in enumerate(self.columns):
            cell = F.struct(F.col("_hg_at").alias("at"), F.col(quoted(column)).alias("value"))
            known = F.when(is_kept() & placed & ~missing(column, kinds[column]), cell)
            # `unboundedFollowing` would look through the rest of the group for each row.
            for name, way in (("before", upward), ("after", downward)):
                upto = way.rowsBetween(W.unboundedPreceding, W.currentRow)
                neighbours[f"_hg_{name}{i}"] = F.last(known, ignorenulls=True).over(upto)
        df = df.withColumns(neighbours)
        values, changes = {}, {}
        for i, column in enumerate(self.columns):
            kind = kinds[column]
            before, after = F.col(f"_hg_before{i}"), F.col(f"_hg_after{i}")
            gaps = (distance(before["at"], F.col("_hg_at"), place), distance(F.col("_hg_at"), after["at"], place))
            fill = self.value(before["value"], after["value"], *gaps, kind)
            changes[column] = missing(column, kind) & placed & fill.isNotNull()
            values[column] = F.when(changes[column], fill).otherwise(F.col(quoted(column)))
        return change_cells(df, self.id, values, changes).select(*(quoted(c) for c in names))

    def near(self, gap: Column) -> Column:
        return F.lit(True) if self.longest is None else gap <= F.lit(float(self.longest))


def place_of(order: Column, kind: str) -> Column:
    """Return a place in an order as an exact number: days of dates, microseconds of times; null for NaN, infinities."""
    if kind == "date":
        return F.unix_date(order)
    if kind in TIMES:
        return F.unix_micros(order.cast("timestamp"))
    return F.when(F.abs(order) <= F.lit(LARGEST[kind]), order) if kind in FLOATS else order


def distance(low: Column, high: Column, kind: str) -> Column:
    """Return how far two places are apart as a double, in the units of `longest`.

    Places are subtracted before anything is rounded: as doubles, moments of one millisecond, or numbers beyond 2^53,
    would not be told apart.
    """
    if kind in FLOATS:
        return high.cast("double") - low.cast("double")
    # The parts before and behind the point each, as a difference of all 38 digits would lose the last one.
    low, high = (x.cast("decimal(20,0)") if not kind.startswith("decimal") else x for x in (low, high))
    whole = F.try_subtract(F.floor(high), F.floor(low)).cast("double")
    gap = whole + (F.pmod(high, F.lit(1)) - F.pmod(low, F.lit(1))).cast("double")
    return gap / F.lit(1e6) if kind in TIMES else gap


@dataclass(frozen=True, kw_only=True)
class ImputePrevious(ImputeOrdered):
    """Fill missing cells with the last known value before them in their group.

    columns: columns of any plain type; null and NaN count as missing.
    by: the columns of a group, such as a station; rows with a null in them, or in `order`, stay as they are.
    order: the column by which a group is in order: a number, a date or a time. Rows of one place are in the order of
        their row ids.
    longest: how far back the known value may lie, in units of `order`: days of dates, seconds of times.
    across_splits: whether rows may take values of another split (default false: put it after the step that splits).
    Looks at no later row, and only at unmarked ones. Filled cells are noted in `_changed`. Cost: one shuffle by group,
    and two sorts in each; a group is worked on by one task.
    """

    name: ClassVar[str] = "impute_previous"
    revision: ClassVar[int] = 2

    def value(self, before: Column, after: Column, since: Column, until: Column, kind: str) -> Column:
        return F.when(self.near(since), before)


@dataclass(frozen=True, kw_only=True)
class ImputeAhead(ImputeOrdered):
    """The base of imputation from later rows."""

    look_ahead: bool = False


@dataclass(frozen=True, kw_only=True)
class ImputeNext(ImputeAhead):
    """Fill missing cells with the first known value after them in their group.

    columns, by, order, longest, across_splits: as in `impute_previous`; `longest` says how far ahead the value may lie.
    look_ahead: whether it may look at later rows where a step names a time, by `learn_as_of`, `split_by_time` or the
        `time` of `encode_target`, in this table or one that has to do with it (default false: it is refused there).
    What it fills could not have been known then: for features of a forecast take `impute_previous`. Filled cells are
    noted in `_changed`. Cost: as `impute_previous`.
    """

    name: ClassVar[str] = "impute_next"
    revision: ClassVar[int] = 2

    def value(self, before: Column, after: Column, since: Column, until: Column, kind: str) -> Column:
        return F.when(self.near(until), after)


@dataclass(frozen=True, kw_only=True)
class ImputeInterpolated(ImputeAhead):
    """Fill missing cells on the straight line between the known values before and after them in their group.

    columns: numeric columns; whole numbers are rounded half up, decimals to their scale.
    by, order, across_splits: as in `impute_previous`.
    look_ahead: as in `impute_next`.
    longest: how far the two known values may lie apart, in units of `order`: days of dates, seconds of times.
    Cells before the first and after the last known value stay as they are, as do those next to an infinity, or to a
    decimal of more than 36 digits. It looks at later rows: for features of a forecast take `impute_previous`. Filled
    cells are noted in `_changed`. Cost: as `impute_previous`.
    """

    name: ClassVar[str] = "impute_interpolated"
    revision: ClassVar[int] = 2
    numbers: ClassVar[bool] = True

    def value(self, before: Column, after: Column, since: Column, until: Column, kind: str) -> Column:
        gap = since + until
        share = F.when(gap > 0, since / gap).when(gap == 0, F.lit(0.0))
        low, high = (x.cast("double") for x in (before, after))
        step = (high - low) * share
        if kind in FLOATS:
            most = F.lit(LARGEST[kind])
            step = F.when(F.abs(high - low) <= F.lit(LARGEST["double"]), step).otherwise(high * share - low * share)
            finite = (F.abs(low) <= most) & (F.abs(high) <= most)
            return F.when(self.near(gap) & finite, (low + step).cast(kind))
        # Of whole numbers beyond 2^53 only the step goes through a double. The type leaves room for the sum and a half.
        precision, scale = (19, 0) if kind in WHOLE else map(int, re.findall(r"\d+", kind))
        digits = max(scale, min(10, 36 - precision + scale))
        exact = f"decimal({max(36, digits)},{digits})"
        line = before.try_cast(exact) + step.try_cast(exact)
        whole = F.floor(line + F.lit("0.5").cast("decimal(2,1)")) if kind in WHOLE else line
        return F.when(self.near(gap), whole.try_cast(kind))
