"""Columns: types, names, selection and derived values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from transforms.cleaning.expressions import checked
from transforms.rows import FILE, FILE_DATE, Rejection, change_cells, is_own, quoted, reject
from transforms.step import Step, StepError, need, user_columns


@dataclass(frozen=True, kw_only=True)
class Cast(Step):
    """Convert columns to other types.

    columns: column -> Spark type, such as `int`, `double`, `date`, `timestamp`, `decimal(10,2)`.
    invalid: what happens to a row with a value that the type cannot hold: `reject` (default) marks it with the
        value as evidence, `null` empties the cell and notes it in `_changed`.
    Nulls stay null; `NaN` becomes the floating-point NaN, and null in an integer column counts as invalid.
    Cost: one pass, no shuffle.
    """

    name: ClassVar[str] = "cast"
    columns: Mapping[str, str]
    invalid: Literal["reject", "null"] = "reject"

    def names_after(self, have: Sequence[str], tables: Mapping[str, Sequence[str]]) -> list[str]:
        need(self.columns, have)
        return list(have)

    def apply(self, df: DataFrame, tables: Mapping[str, DataFrame]) -> DataFrame:
        converted = {c: F.col(quoted(c)).try_cast(t) for c, t in self.columns.items()}
        invalid = {c: F.col(quoted(c)).isNotNull() & v.isNull() for c, v in converted.items()}
        if self.invalid == "null":
            return change_cells(df, self.name, converted, invalid)
        rejections = []
        for column, when in invalid.items():
            evidence = {
                "column": F.lit(column),
                "value": F.col(quoted(column)),
                "type": F.lit(self.columns[column]),
            }
            rejections.append(Rejection(when, f"{column} is not {self.columns[column]}", evidence))
        return reject(df, self.name, *rejections).withColumns(converted)


@dataclass(frozen=True, kw_only=True)
class Rename(Step):
    """Rename columns.

    columns: old name -> new name. A new name must not be taken. Cost: none.
    """

    name: ClassVar[str] = "rename"
    columns: Mapping[str, str]

    def names_after(self, have: Sequence[str], tables: Mapping[str, Sequence[str]]) -> list[str]:
        need(self.columns, have)
        return [self.columns.get(c, c) for c in have]

    def apply(self, df: DataFrame, tables: Mapping[str, DataFrame]) -> DataFrame:
        # All at once: Spark's own renaming goes one by one, and two names that change places would become one.
        return df.select(*(F.col(quoted(c)).alias(self.columns.get(c, c)) for c in df.columns))


@dataclass(frozen=True, kw_only=True)
class SelectColumns(Step):
    """Keep the listed columns, in this order; the bookkeeping columns always stay. Cost: none."""

    name: ClassVar[str] = "select_columns"
    columns: tuple[str, ...]

    def names_after(self, have: Sequence[str], tables: Mapping[str, Sequence[str]]) -> list[str]:
        need(self.columns, have)
        return list(self.columns)

    def apply(self, df: DataFrame, tables: Mapping[str, DataFrame]) -> DataFrame:
        kept = [c for c in df.columns if is_own(c) and c not in (*self.columns, FILE, FILE_DATE)]
        return df.select(*(quoted(c) for c in (*self.columns, *kept)))


@dataclass(frozen=True, kw_only=True)
class DropColumns(Step):
    """Drop the listed columns. Cost: none."""

    name: ClassVar[str] = "drop_columns"
    columns: tuple[str, ...]

    def names_after(self, have: Sequence[str], tables: Mapping[str, Sequence[str]]) -> list[str]:
        need(self.columns, have)
        return [c for c in have if c not in self.columns]

    def apply(self, df: DataFrame, tables: Mapping[str, DataFrame]) -> DataFrame:
        return df.select(*(quoted(c) for c in df.columns if c not in self.columns))


@dataclass(frozen=True, kw_only=True)
class Derive(Step):
    """Add columns computed by Spark SQL expressions over the columns of the same row.

    columns: new column -> expression, such as `arr_delay > 15`. All expressions see the columns before the step.
    Only scalar functions that give the same for the same row in every run are allowed: no aggregate, window or
    subquery, nothing random, no clock. A column that is there already is replaced, without a note in `_changed`.
    Nulls and NaN follow Spark SQL. Cost: one pass, no shuffle.
    """

    name: ClassVar[str] = "derive"
    columns: Mapping[str, str]

    def names_after(self, have: Sequence[str], tables: Mapping[str, Sequence[str]]) -> list[str]:
        self.read(have)
        return [*have, *(c for c in self.columns if c not in have)]

    def check(self, df: DataFrame, tables: Mapping[str, DataFrame]) -> None:
        super().check(df, tables)
        self.read(user_columns(df), [c for c, kind in df.dtypes if kind.startswith(("date", "timestamp"))])

    def read(self, have: Sequence[str], times: Sequence[str] = ()) -> None:
        for column, expression in self.columns.items():
            if is_own(column):
                raise StepError(f"'{column}' is a name of headgate's own bookkeeping; choose another name")
            try:
                checked(expression, have, times)
            except StepError as e:
                raise StepError(f"{column}: {e}") from None

    def apply(self, df: DataFrame, tables: Mapping[str, DataFrame]) -> DataFrame:
        return df.withColumns({c: F.expr(e) for c, e in self.columns.items()})
