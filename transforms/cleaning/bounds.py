"""Impossible and outlying values: fixed bounds, and bounds learned from the interquartile range."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from transforms.rows import Rejection, change_cells, quoted, reject
from transforms.step import Action, Learner, Step, StepError, need


@dataclass(frozen=True, kw_only=True)
class CheckBounds(Step):
    """Act on values outside fixed bounds.

    columns: column -> [lowest, highest], both inclusive; null for an open end.
    action: `reject` (default) marks the row, with the value and the bounds as evidence; `clip` moves the value to the
        nearest bound; `null` empties the cell; `flag` adds a boolean column `<column>_out_of_bounds`.
    marked_by: the step name that the ledger shows; fitted steps put their own here.
    Nulls are never out of bounds; NaN always is, and clips to null. Changed cells are noted in `_changed`.
    Cost: one pass, no shuffle.
    """

    name: ClassVar[str] = "check_bounds"
    columns: Mapping[str, tuple[float | None, float | None]]
    action: Action = "reject"
    marked_by: str = "check_bounds"

    def names_after(self, have: Sequence[str], tables: Mapping[str, Sequence[str]]) -> list[str]:
        need(self.columns, have)
        for column, (low, high) in self.columns.items():
            if low is not None and high is not None and low > high:
                raise StepError(f"the bounds of '{column}' are the wrong way round: [{low}, {high}]")
        return names_with_flags(have, self.columns, self.action)

    def apply(self, df: DataFrame, tables: Mapping[str, DataFrame]) -> DataFrame:
        outside = {c: self.is_outside(c) for c in self.columns}
        if self.action == "flag":
            return df.withColumns({flag_name(c): when for c, when in outside.items()})
        if self.action == "reject":
            rejections = []
            for column, when in outside.items():
                low, high = self.columns[column]
                evidence = {
                    "column": F.lit(column),
                    "value": F.col(quoted(column)),
                    "lowest": F.lit(low),
                    "highest": F.lit(high),
                }
                rejections.append(Rejection(when, f"{column} is out of bounds", evidence))
            return reject(df, self.marked_by, *rejections)
        kinds = dict(df.dtypes)
        values = {c: self.replacement(c, outside[c]).cast(kinds[c]) for c in self.columns}
        return change_cells(df, self.marked_by, values, outside)

    def is_outside(self, column: str) -> Column:
        value = F.col(quoted(column))
        low, high = self.columns[column]
        outside = F.isnan(value.cast("double"))
        if low is not None:
            outside = outside | (value < F.lit(low))
        if high is not None:
            outside = outside | (value > F.lit(high))
        return F.coalesce(outside, F.lit(False))

    def replacement(self, column: str, outside: Column) -> Column:
        value = F.col(quoted(column))
        if self.action == "null":
            return F.when(~outside, value)
        low, high = self.columns[column]
        clipped = F.when(F.isnan(value.cast("double")), F.lit(None))
        if low is not None:
            clipped = clipped.when(value < F.lit(low), F.lit(low))
        if high is not None:
            clipped = clipped.when(value > F.lit(high), F.lit(high))
        return clipped.otherwise(value)


@dataclass(frozen=True, kw_only=True)
class CheckOutliersIqr(Learner):
    """Act on values far outside the middle half of the training rows (Tukey's fences, 1977).

    columns: numeric columns.
    factor: how many interquartile ranges below the first and above the third quartile a value may lie (1.5).
    action: as in `check_bounds`.
    Learns the fences from exact quartiles of the unmarked training rows; nulls and NaN are left out of the
    quartiles. A column without any value gets no fences. Cost: one pass to fit, with memory in proportion to the
    distinct values of the columns; one pass to apply.
    """

    name: ClassVar[str] = "check_outliers_iqr"
    columns: tuple[str, ...]
    factor: float = 1.5
    action: Action = "reject"

    def names_after(self, have: Sequence[str], tables: Mapping[str, Sequence[str]]) -> list[str]:
        need(self.columns, have)
        return names_with_flags(have, self.columns, self.action)

    def fit(self, df: DataFrame) -> CheckBounds:
        quartiles = df.agg(
            *(
                F.percentile(F.nanvl(F.col(quoted(c)).cast("double"), F.lit(None)), F.array(F.lit(0.25), F.lit(0.75)))
                for c in self.columns
            )
        ).first()
        bounds: dict[str, tuple[float | None, float | None]] = {}
        for column, pair in zip(self.columns, quartiles, strict=True):
            if pair is None or not all(math.isfinite(q) for q in pair):
                bounds[column] = (None, None)
            else:
                reach = self.factor * (pair[1] - pair[0])
                bounds[column] = (pair[0] - reach, pair[1] + reach)
        return CheckBounds(columns=bounds, action=self.action, marked_by=self.name)


@dataclass(frozen=True, kw_only=True)
class RejectRows(Step):
    """Mark the rows for which a Spark SQL predicate is true.

    where: the predicate, over the columns of the row; a null verdict marks nothing.
    reason: why, in words for the ledger.
    show: columns whose values go into the evidence.
    Cost: one pass, no shuffle.
    """

    name: ClassVar[str] = "reject_rows"
    where: str
    reason: str
    show: tuple[str, ...] = ()

    def names_after(self, have: Sequence[str], tables: Mapping[str, Sequence[str]]) -> list[str]:
        need(self.show, have)
        return list(have)

    def apply(self, df: DataFrame, tables: Mapping[str, DataFrame]) -> DataFrame:
        evidence = {"where": F.lit(self.where), **{c: F.col(quoted(c)) for c in self.show}}
        return reject(df, self.name, Rejection(F.expr(self.where), self.reason, evidence))


def flag_name(column: str) -> str:
    return f"{column}_out_of_bounds"


def names_with_flags(have: Sequence[str], columns: Sequence[str] | Mapping[str, object], action: Action) -> list[str]:
    return [*have, *(flag_name(c) for c in columns if action == "flag" and flag_name(c) not in have)]
