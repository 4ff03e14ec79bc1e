"""Columns: types, names, selection and derived values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from pyspark.errors import ParseException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from headgate.transforms.cleaning.conversion import converted, require_convertible
from headgate.transforms.cleaning.expressions import checked, times_in, type_after
from headgate.transforms.cleaning.markers import MARKERS
from headgate.transforms.kinds import require_type, simple
from headgate.transforms.parsing import Marks, check_pattern, holds_days, outside, trimmed, without_ntz
from headgate.transforms.rows import (
    FILE,
    FILE_DATE,
    Rejection,
    change_cells,
    drop_values,
    is_own,
    quoted,
    reject,
    with_values,
)
from headgate.transforms.step import Columns, Context, NoSuchColumn, Step, StepError, require_columns, user_columns


@dataclass(frozen=True, kw_only=True)
class Cast(Step):
    """Convert columns to other types.

    columns: column -> Spark type, such as `int`, `double`, `date`, `timestamp`, `decimal(10,2)`.
    invalid: what happens to a row with a value that the type cannot hold: `reject` (default) marks it with the
        value as evidence, `null` empties the cell and notes it in `_changed`.
    decimal, thousands, date_format, timestamp_format: how the texts are written, as in a csv source.
    markers: whether texts that other programs write for a missing value ("?", "N/A", "NULL"; any case) are read as null
        (default false); each is noted in `_changed`.
    Texts are read strictly: all of a text must be a value of the type, held exactly (see `transforms/parsing.py`).
    A value of another type is invalid where the type would round or cut it: 1.7 as int, 10:30 as date, bytes that are
    not UTF-8 as text; so is an array, map or struct that holds such a value. Doubles and decimals are rounded to
    floats. Nulls stay null; `NaN` becomes the floating-point NaN, and is invalid in other numbers. Types that have
    nothing to do with each other, as a number and a date, are refused.
    Cost: one pass, no shuffle.
    """

    name: ClassVar[str] = "cast"
    revision: ClassVar[int] = 2
    columns: Mapping[str, str]
    invalid: Literal["reject", "null"] = "reject"
    decimal: str = "."
    thousands: str = ""
    date_format: str | None = None
    timestamp_format: str | None = None
    markers: bool = False

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        check_pattern("date_format", self.date_format, time=False)
        check_pattern("timestamp_format", self.timestamp_format, time=True)
        require_columns(self.columns, have)
        for column, kind in self.columns.items():
            require_type(kind)
            if (known := have[column]) is not None:
                require_convertible(column, known, simple(kind))
        return {**have, **{column: simple(kind) for column, kind in self.columns.items()}}

    def apply(self, df: DataFrame) -> DataFrame:
        have = {f.name: f.dataType for f in df.schema.fields}
        if self.markers:
            texts = {c: F.col(quoted(c)) for c in self.columns if isinstance(have[c], T.StringType)}
            marked = {c: F.coalesce(F.lower(trimmed(t)).isin(*sorted(MARKERS)), F.lit(False)) for c, t in texts.items()}
            df = change_cells(df, self.id, {c: F.when(~marked[c], t) for c, t in texts.items()}, marked)
        kinds = {c: without_ntz(type_of(t)) for c, t in self.columns.items()}
        converted = {c: self.converted(F.col(quoted(c)), have[c], kind, c) for c, kind in kinds.items()}
        df, made = with_values(df, list(converted.values()))
        converted = dict(zip(converted, made, strict=True))
        invalid = {c: F.col(quoted(c)).isNotNull() & v.isNull() for c, v in converted.items()}
        if self.invalid == "null":
            return drop_values(change_cells(df, self.id, converted, invalid), made)
        rejections = []
        for column, when in invalid.items():
            evidence = {
                "column": F.lit(column),
                "value": F.col(quoted(column)),
                "type": F.lit(self.columns[column]),
            }
            rejections.append(Rejection(when, "wrong_type", evidence))
        return drop_values(reject(df, self.id, *rejections).withColumns(converted), made)

    def converted(self, value: Column, have: T.DataType, kind: T.DataType, column: str) -> Column:
        """The value in another type; null where that cannot hold it."""
        marks = Marks(
            decimal=self.decimal,
            thousands=self.thousands,
            date_format=self.date_format,
            timestamp_format=self.timestamp_format,
        )
        return converted(value, have, kind, marks, column)


def type_of(text: str) -> T.DataType:
    """The type that a text of Spark's DDL names; raises `StepError` on what is none."""
    try:
        return T._parse_datatype_string(text)
    except ParseException as e:
        raise StepError(f"'{text}' is not a type of Spark SQL, such as int, double, date or decimal(10,2)") from e


def require_distinct(names: Sequence[str]) -> None:
    """Raise `StepError` for a name that two columns would have."""
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise StepError(f"two columns would be named '{twice}'")


@dataclass(frozen=True, kw_only=True)
class Rename(Step):
    """Rename columns.

    columns: old name -> new name. A new name must not be taken. Cost: none.
    """

    name: ClassVar[str] = "rename"
    columns: Mapping[str, str]

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns(self.columns, have)
        after = [self.columns.get(c, c) for c in have]
        require_distinct(after)
        return dict(zip(after, have.values(), strict=True))

    def apply(self, df: DataFrame) -> DataFrame:
        # All at once: Spark's own renaming goes one by one, and two names that change places would become one.
        return df.select(*(F.col(quoted(c)).alias(self.columns.get(c, c)) for c in df.columns))


@dataclass(frozen=True, kw_only=True)
class SelectColumns(Step):
    """Keep the listed columns, in this order; the bookkeeping columns always stay. Cost: none."""

    name: ClassVar[str] = "select_columns"
    columns: tuple[str, ...]

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns(self.columns, have)
        return {column: have[column] for column in self.columns}

    def apply(self, df: DataFrame) -> DataFrame:
        kept = [c for c in df.columns if is_own(c) and c not in (*self.columns, FILE, FILE_DATE)]
        return df.select(*(quoted(c) for c in (*self.columns, *kept)))


@dataclass(frozen=True, kw_only=True)
class DropColumns(Step):
    """Drop the listed columns. Cost: none."""

    name: ClassVar[str] = "drop_columns"
    columns: tuple[str, ...]

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns(self.columns, have)
        return {column: kind for column, kind in have.items() if column not in self.columns}

    def apply(self, df: DataFrame) -> DataFrame:
        return df.select(*(quoted(c) for c in df.columns if c not in self.columns))


@dataclass(frozen=True, kw_only=True)
class Derive(Step):
    """Add columns computed by Spark SQL expressions over the columns of the same row.

    columns: new column -> expression, such as `arr_delay > 15`. All expressions see the columns before the step.
    Only scalar functions that give the same for the same row in every run are allowed: no aggregate, window or
    subquery, nothing random, no clock. A column that is there already is replaced, without a note in `_changed`.
    Nulls and NaN follow Spark SQL. A row whose new date or time is outside the years 1 to 9999, which not every reader
    can hold, is marked with its text as evidence. Cost: one pass, no shuffle.
    """

    name: ClassVar[str] = "derive"
    revision: ClassVar[int] = 2
    columns: Mapping[str, str]

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        self.read(have)
        return {**have, **{c: type_after(expression, have) for c, expression in self.columns.items()}}

    def check(self, df: DataFrame, context: Context) -> None:
        super().check(df, context)
        self.read(user_columns(df))

    def read(self, have: Columns) -> None:
        for column, expression in self.columns.items():
            if is_own(column):
                raise StepError(f"'{column}' is a name of headgate's own bookkeeping; choose another name")
            try:
                checked(expression, list(have), times_in(have))
            except NoSuchColumn as e:
                raise e.at(column) from e
            except StepError as e:
                raise StepError(f"{column}: {e}") from e

    def apply(self, df: DataFrame) -> DataFrame:
        made = df.withColumns({c: F.expr(e) for c, e in self.columns.items()})
        kinds = {f.name: f.dataType for f in made.schema if f.name in self.columns and holds_days(f.dataType)}
        if not kinds:
            return made
        far = {c: outside(F.col(quoted(c)), kind) for c, kind in kinds.items()}
        shown = {c: {"column": F.lit(c), "text": F.col(quoted(c)).cast("string")} for c in kinds}
        marked = reject(made, self.id, *(Rejection(far[c], "unsupported_date", shown[c]) for c in kinds))
        return marked.withColumns({c: F.when(~far[c], F.col(quoted(c))) for c in kinds})
