"""Impossible and outlying values: fixed bounds, and bounds learned from the interquartile range."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from fractions import Fraction
from typing import Any, ClassVar

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.transforms.cleaning.expressions import checked, times_in, type_after
from headgate.transforms.kinds import (
    EXACT,
    EXACT_DOUBLES,
    FLOATS,
    WHOLE,
    exact,
    need_kinds,
    present,
    range_of,
    require_few,
    rounded,
    scale_of,
)
from headgate.transforms.quantiles import exact_quantiles, spreads_of
from headgate.transforms.rows import Rejection, change_cells, quoted, reject
from headgate.transforms.step import (
    Action,
    Columns,
    Context,
    Estimator,
    Step,
    StepError,
    require_columns,
    user_columns,
    with_new,
)
from headgate.words import REASONS


@dataclass(frozen=True, kw_only=True)
class CheckBounds(Step):
    """Act on values outside fixed bounds.

    columns: column -> [lowest, highest], both inclusive; null for an open end.
    action: `reject` (default) marks the row, with the value and the bounds as evidence; `clip` moves the value to the
        nearest one within the bounds that its type holds (5 in an integer column for 4.5); `null` empties the
        cell; `flag` adds a boolean column `<column>_out_of_bounds`.
    Nulls are never out of bounds; NaN always is, and clips to null. Whole numbers and decimals are compared exactly, as
    the bounds are written. Changed cells are noted in `_changed`. Columns that are no numbers raise `StepError`.
    Cost: one pass, no shuffle.
    """

    name: ClassVar[str] = "check_bounds"
    columns: Mapping[str, tuple[Decimal | None, Decimal | None]]
    action: Action = "reject"

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns(self.columns, have)
        for column, (low, high) in self.columns.items():
            if low is not None and high is not None and low > high:
                raise StepError(f"the bounds of '{column}' are the wrong way round: [{low}, {high}]")
        need_kinds(have, self.name, self.columns, numbers=True)
        return with_flags(have, self.columns, self.action)

    def learned(self) -> bool:
        return any(bound is not None for pair in self.columns.values() for bound in pair)

    def apply(self, df: DataFrame) -> DataFrame:
        kinds = dict(df.dtypes)
        limits = {c: Limits.of(bounds, kinds[c]) for c, bounds in self.columns.items()}
        outside = {c: limits[c].excludes(F.col(quoted(c))) for c in self.columns}
        if self.action == "flag":
            return df.withColumns({flag_name(c): when for c, when in outside.items()})
        if self.action == "reject":
            rejections = []
            for column, when in outside.items():
                lowest, highest = (None if b is None else f"{exact(b):f}" for b in self.columns[column])
                evidence = {
                    "column": F.lit(column),
                    "value": F.col(quoted(column)),
                    "lowest": F.lit(lowest),
                    "highest": F.lit(highest),
                }
                rejections.append(Rejection(when, "out_of_bounds", evidence))
            return reject(df, self.id, *rejections)
        values = {}
        for column in self.columns:
            value = F.col(quoted(column))
            values[column] = F.when(~outside[column], value)
            if self.action == "clip":
                low, high = limits[column].ends(column)
                nan = F.isnan(value) if kinds[column] in FLOATS else F.lit(False)
                clipped = F.when(~outside[column], value).when(nan, F.lit(None))
                clipped = clipped if low is None else clipped.when(value < low, low)
                values[column] = clipped if high is None else clipped.when(value > high, high)
        return change_cells(df, self.id, values, outside)


@dataclass(frozen=True)
class Limits:
    """Bounds as a column's type sees them: of whole numbers, [4.5, 15.5] is [5, 15]. None is an open end."""

    kind: str
    low: Decimal | None
    high: Decimal | None

    @classmethod
    def of(cls, bounds: Sequence[Any], kind: str) -> "Limits":
        low, high = (None if b is None else exact(b) for b in bounds)
        scale = scale_of(kind)
        if scale is not None:
            least, most = range_of(kind)
            low = None if low is None or low <= least else low if low > most else rounded(low, scale, ROUND_CEILING)
            high = None if high is None or high >= most else high if high < least else rounded(high, scale, ROUND_FLOOR)
        return cls(kind, low, high)

    def excludes(self, value: Column) -> Column:
        """Return whether a value is NaN or outside; false for a null."""
        outside = F.isnan(value) if self.kind in FLOATS else F.lit(False)
        if self.low is not None:
            outside = outside | (value < self.literal(self.low) if self.holds(self.low) else value.isNotNull())
        if self.high is not None:
            outside = outside | (value > self.literal(self.high) if self.holds(self.high) else value.isNotNull())
        return F.coalesce(outside, F.lit(False))

    def holds(self, bound: Decimal) -> bool:
        return self.kind in FLOATS or range_of(self.kind)[0] <= bound <= range_of(self.kind)[1]

    def literal(self, bound: Decimal) -> Column:
        return F.lit(float(bound)) if self.kind in FLOATS else F.lit(f"{bound:f}").cast(self.kind)

    def ends(self, column: str) -> tuple[Column | None, Column | None]:
        """The least and the greatest value of the type that lie within; raises `StepError` if none does."""
        low, high = self.low, self.high
        if self.kind == "float":  # a bound rounded to 32 bits may lie outside
            low = None if low is None else single(low, math.inf)
            high = None if high is None else single(high, -math.inf)
        if any(b is not None and not self.holds(b) for b in (low, high)) or (
            low is not None and high is not None and low > high
        ):
            raise StepError(f"'{column}' is {self.kind}, and no value of that type lies within its bounds to clip to")
        least, greatest = (None if b is None else self.literal(b).cast(self.kind) for b in (low, high))
        return least, greatest


def single(bound: Decimal, toward: float) -> Decimal:
    """A bound as a number of 32 bits, on the side of it that lies within."""
    import numpy as np

    near = np.float32(float(bound))
    beyond = float(near) > bound if toward < 0 else float(near) < bound
    return exact(float(np.nextafter(near, np.float32(toward)) if beyond else near))


@dataclass(frozen=True, kw_only=True)
class CheckOutliersIqr(Estimator):
    """Act on values far outside the middle half of the training rows (Tukey's fences, 1977).

    columns: numeric columns.
    factor: how many interquartile ranges below the first and above the third quartile a value may lie (1.5).
    action: as in `check_bounds`.
    Learns the fences from exact quartiles of the unmarked training rows; nulls and NaN are left out of the
    quartiles. A column without any value gets no fences. Cost: a count and two passes to fit (one where there are few
    rows), and for decimals, or whole numbers beyond 2^52, a sort of the distinct values; one pass to apply.
    """

    name: ClassVar[str] = "check_outliers_iqr"
    columns: tuple[str, ...]
    factor: float = 1.5
    action: Action = "reject"

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns(self.columns, have)
        require_few(self.columns)
        if not math.isfinite(self.factor) or self.factor < 0:
            raise StepError(f"factor must be a number of at least 0, not {self.factor}")
        need_kinds(have, self.name, self.columns, numbers=True)
        return with_flags(have, self.columns, self.action)

    def learns_from(self) -> tuple[str, ...]:
        return self.columns

    def fit(self, df: DataFrame, context: Context) -> CheckBounds:
        kinds = dict(df.dtypes)
        found = spreads_of(df, [(present(c, kinds[c]), (0.25, 0.75)) for c in self.columns])[()]
        bounds: dict[str, tuple[Decimal | None, Decimal | None]] = {}
        for column, spread in zip(self.columns, found, strict=True):
            kind, pair = kinds[column], spread.quantiles if spread else []
            if spread is None or not all(map(math.isfinite, pair)):
                bounds[column] = (None, None)
            elif kind in FLOATS or (kind in WHOLE and max(-spread.low, spread.high) <= EXACT_DOUBLES):
                reach = self.factor * (pair[1] - pair[0])
                fences = (pair[0] - reach, pair[1] + reach)
                below, above = (exact(f) if math.isfinite(f) else None for f in fences)
                bounds[column] = (below, above)
            else:
                first, third = exact_quantiles(df, F.col(quoted(column)), [], (1, 3))[()]
                wide = Fraction(exact(self.factor)) * (third - first)
                ends = (first - wide, third + wide)
                below, above = (EXACT.divide(Decimal(f.numerator), Decimal(f.denominator)) for f in ends)
                bounds[column] = (below, above)
        return CheckBounds(columns=bounds, action=self.action)


@dataclass(frozen=True, kw_only=True)
class RejectRows(Step):
    """Mark the rows for which a Spark SQL predicate is true.

    where: the predicate, over the columns of the row; a null verdict marks nothing. As in `derive`, only what gives the
        same for the same row in every run is allowed.
    reason: why, for the ledger: a code of your own, such as `test_account`; headgate's own codes are refused.
    show: columns whose values go into the evidence.
    Cost: one pass, no shuffle.
    """

    name: ClassVar[str] = "reject_rows"
    where: str
    reason: str
    show: tuple[str, ...] = ()

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns(self.show, have)
        if self.reason in REASONS:
            raise StepError(f"reason: '{self.reason}' is a code of headgate's own steps; choose another")
        checked(self.where, list(have), times_in(have))
        kind = type_after(self.where, have)
        if kind not in (None, "boolean"):
            raise StepError(f"where: '{self.where}' is {kind}, not a predicate")
        return have

    def check(self, df: DataFrame, context: Context) -> None:
        super().check(df, context)
        have = user_columns(df)
        checked(self.where, list(have), times_in(have))

    def apply(self, df: DataFrame) -> DataFrame:
        predicate = "where" if "where" not in self.show else "_hg_where"
        evidence = {predicate: F.lit(self.where), **{c: F.col(quoted(c)) for c in self.show}}
        return reject(df, self.id, Rejection(F.expr(self.where), self.reason, evidence))


def flag_name(column: str) -> str:
    return f"{column}_out_of_bounds"


def with_flags(have: Columns, columns: Iterable[str], action: Action) -> Columns:
    return with_new(have, {flag_name(c): "boolean" for c in columns if action == "flag"})
