"""Logarithms of columns, signed or not, and what happens to values that have none."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.transforms.kinds import need_kinds
from headgate.transforms.rows import Rejection, change_cells, quoted, reject
from headgate.transforms.step import Columns, Step, StepError, require_columns

Invalid = Literal["reject", "null"]


@dataclass(frozen=True, kw_only=True)
class TransformLog(Step):
    """Replace columns by their logarithm, to make skewed values less so.

    columns: numeric columns, which become doubles.
    plus_one: whether one is added before (`log1p`, precise near zero): so zero stays zero.
    signed: whether the sign is kept and the logarithm is of the absolute value plus one, sign(x) log(1 + |x|): so every
        number has one.
    base: of the logarithm (e).
    invalid: what happens to a row with a value that has no logarithm, at or below 0 (with `plus_one`, -1): `reject`
        (default) marks it with the value as evidence, `null` empties the cell and notes it in `_changed`.
    Null stays null, NaN stays NaN, infinity stays infinite. Nothing is learned; can be undone (`headgate apply
    --inverse`), which gives doubles. Other changed cells are not noted in `_changed`, as all are changed.
    Cost: one pass, no shuffle.
    """

    name: ClassVar[str] = "transform_log"
    columns: tuple[str, ...]
    plus_one: bool = False
    signed: bool = False
    base: float | None = None
    invalid: Invalid = "reject"

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns(self.columns, have)
        if not self.columns:
            raise StepError("columns: name one or more")
        if self.base is not None and not (0 < self.base < math.inf and self.base != 1):
            raise StepError(f"base: {self.base} is not a number above 0 other than 1")
        need_kinds(have, self.name, self.columns, numbers=True)
        return {**have, **dict.fromkeys(self.columns, "double")}

    @property
    def unit(self) -> Column:
        return F.lit(1.0 if self.base is None else math.log(self.base))

    def apply(self, df: DataFrame) -> DataFrame:
        numbers = {c: F.col(quoted(c)).cast("double") for c in self.columns}
        if self.signed:
            return df.withColumns({c: F.signum(x) * F.log1p(F.abs(x)) / self.unit for c, x in numbers.items()})
        logarithm = F.log1p if self.plus_one else F.log
        values = {c: logarithm(x) / self.unit for c, x in numbers.items()}
        return only_above(df, self.id, -1.0 if self.plus_one else 0.0, values, self.invalid)

    def undone(self) -> Sequence[str]:
        return self.columns

    def undo(self, df: DataFrame) -> DataFrame:
        numbers = {c: F.col(quoted(c)) * self.unit for c in self.columns if c in df.columns}
        if self.signed:
            return df.withColumns({c: F.signum(x) * F.expm1(F.abs(x)) for c, x in numbers.items()})
        return df.withColumns({c: (F.expm1 if self.plus_one else F.exp)(x) for c, x in numbers.items()})


def only_above(df: DataFrame, step: str, bound: float, values: Mapping[str, Column], invalid: Invalid) -> DataFrame:
    """Replace columns by `values`, null where the column is at or below a bound: such a row is rejected, or noted."""
    below = {c: F.coalesce(F.col(quoted(c)).cast("double") <= F.lit(bound), F.lit(False)) for c in values}
    safe = {c: F.when(~below[c], v) for c, v in values.items()}
    if invalid == "null":
        return change_cells(df, step, safe, below)
    return reject(df, step, *rejections(values, below, bound)).withColumns(safe)


def rejections(columns: Iterable[str], below: Mapping[str, Column], bound: float) -> list[Rejection]:
    return [
        Rejection(
            below[c],
            "out_of_bounds",
            {"column": F.lit(c), "value": F.col(quoted(c)), "above": F.lit(bound)},
        )
        for c in columns
    ]
