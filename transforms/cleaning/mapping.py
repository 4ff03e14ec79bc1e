"""The columns of a source as others know them: names, types, units, time zones, code lists."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import pydantic
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from headgate.transforms.cleaning.columns import Cast, type_of
from headgate.transforms.cleaning.conversion import require_convertible
from headgate.transforms.cleaning.times import LocalToUtc
from headgate.transforms.cleaning.units import UnitChange, factor_and_offset
from headgate.transforms.kinds import (
    as_text,
    constant,
    held,
    is_number,
    is_plain,
    is_text,
    key_texts,
    named_values,
    require_type,
    simple,
)
from headgate.transforms.parsing import Marks, check_pattern, parsed, without_ntz
from headgate.transforms.rows import (
    FILE,
    FILE_DATE,
    SOURCE,
    Rejection,
    change_cells,
    is_own,
    quoted,
    reject,
    with_values,
)
from headgate.transforms.step import Columns, Context, NoSuchColumn, Step, StepError, require_columns

STAYS = (FILE, FILE_DATE, SOURCE)


def as_text_of_yaml(code: Any) -> Any:
    """Return a boolean as the text that it was written as: pydantic takes true for 1."""
    return str(code).lower() if isinstance(code, bool) else code


Code = Annotated[str | int, pydantic.BeforeValidator(as_text_of_yaml, json_schema_input_type=str | int | bool)]


@dataclass(frozen=True, kw_only=True)
class MappedColumn:
    """Where a column comes from: `of` a column of the source, and how its values are read, or a constant `value`."""

    of: str | None = None
    value: str | int | float | bool | None = None
    type: str | None = None
    codes: Mapping[Code, Code | None] | None = None
    unit: str | None = None
    to_unit: str | None = None
    time_zone: str | None = None
    decimal: str = "."
    thousands: str = ""
    date_format: str | None = None
    timestamp_format: str | None = None


def written(column: Any) -> Any:
    """Return a column that is written as a name alone as one with options."""
    return {"of": column} if isinstance(column, str) else column


Mapped = Annotated[MappedColumn, pydantic.BeforeValidator(written, json_schema_input_type=str | MappedColumn)]


@dataclass(frozen=True, kw_only=True)
class MapColumns(Step):
    """Map the columns of a source to those that other sources share: names, types, units, time zones and code lists.

    columns: new column -> the source's column, or {of, type, codes, unit, to_unit, time_zone, decimal, thousands,
        date_format, timestamp_format}, or {value}: a constant, in `type` if that is given. `codes` is a list of the
        source's codes (in quotes if they begin with 0) -> values (null for none), applied first; then `type` as in
        `cast`, `unit` and `to_unit` as in `convert_units` (the result is a double), or `time_zone` as in
        `local_to_utc`: one of the three.
    others: what happens to columns that are not mapped: `keep` (default) or `drop`.
    invalid: what happens to a row with a value that cannot be mapped: `reject` (default) marks it, with column, value
        and what was expected as evidence; `null` empties the cell and notes it in `_changed`.
    Reasons are `unknown_code` for a value that is not in the code list, `wrong_type`, `invalid_local_time`; the run's
    summary counts each. Nulls stay null. A column may be mapped twice; a mapped one is not kept under its old name.
    Cost: one pass, no shuffle.
    """

    name: ClassVar[str] = "map_columns"
    revision: ClassVar[int] = 2
    columns: Mapping[str, Mapped]
    others: Literal["keep", "drop"] = "keep"
    invalid: Literal["reject", "null"] = "reject"

    def kept(self, have: Columns) -> list[str]:
        """Return the columns that stay as they are."""
        used = {m.of for m in self.columns.values()}
        return [c for c in have if c in STAYS or (self.others == "keep" and c not in used)]

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        after: dict[str, str | None] = {c: have[c] for c in self.kept(have)}
        for new, column in self.columns.items():
            try:
                kind = self.checked(column, have)
            except NoSuchColumn as e:
                raise e.at(new) from e
            except StepError as e:
                raise StepError(f"{new}: {e}") from e
            if new in after:
                raise StepError(f"{new}: the source has a column '{new}' itself; map that one too, or drop others")
            after[new] = kind
        return after

    def checked(self, column: MappedColumn, have: Columns) -> str | None:
        """Return the type of a mapped column; raise `StepError` for options that do not go together."""
        if (column.of is None) == (column.value is None):
            raise StepError("give exactly one of of and value")
        if column.type is not None:
            require_type(column.type)
        check_pattern("date_format", column.date_format, time=False)
        check_pattern("timestamp_format", column.timestamp_format, time=True)
        if column.of is None:
            if column.codes or column.unit or column.to_unit or column.time_zone:
                raise StepError("value: a constant has no codes, unit or time_zone")
            of_constant = simple(column.type) if column.type else constant_type(column.value)
            held(column.value, of_constant, "value")
            return of_constant
        require_columns([column.of], have)
        if (column.unit is None) != (column.to_unit is None):
            raise StepError("give unit and to_unit together, or neither")
        if sum(x is not None for x in (column.type, column.unit, column.time_zone)) > 1:
            raise StepError("give one of type, unit and time_zone: the latter two decide the type")
        kind = have[column.of]
        if kind is not None and not is_plain(kind):
            raise StepError(f"'{column.of}' is {kind}, not a plain value")
        if column.unit and column.to_unit:
            if kind is not None and column.codes is None and not is_number(kind) and not is_text(kind):
                raise StepError(f"'{column.of}' is {kind}, not a number")
            factor_and_offset(UnitChange(from_unit=column.unit, to_unit=column.to_unit))
            return "double"
        if column.time_zone is not None:
            local(column, column.of).columns_after({column.of: "string" if column.codes is not None else kind}, {})
            return "timestamp"
        if column.type is not None and kind is not None:
            require_convertible(column.of, "string" if column.codes is not None else kind, simple(column.type))
        return simple(column.type) if column.type else "string" if column.codes is not None else kind

    def check(self, df: DataFrame, context: Context) -> None:
        super().check(df, context)
        kinds = dict(df.dtypes)
        for new, column in self.columns.items():
            if column.codes and column.of is not None:
                codes = f"{new}: codes"
                named_values(df.sparkSession, map(str, column.codes), kinds[column.of], column.of, codes)

    def apply(self, df: DataFrame) -> DataFrame:
        kinds = {f.name: f.dataType for f in df.schema.fields}
        names = dict(df.dtypes)
        mapped = self.columns
        coded, values = {}, {}
        for new, column in mapped.items():
            if column.of is None:
                values[new] = constant_of(column)
                continue
            coded[new] = with_codes(column, F.col(quoted(column.of)), names[column.of])
            kind = T.StringType() if column.codes is not None else kinds[column.of]
            values[new] = converted(column, coded[new], kind)
        df, made = with_values(df, [*coded.values(), *values.values()])
        coded = dict(zip(coded, made, strict=False))
        values = dict(zip(values, made[len(coded) :], strict=True))
        rejections, lost = [], {}
        for new, code in coded.items():
            column, given = mapped[new], F.col(quoted(mapped[new].of or ""))
            evidence = {"column": F.lit(new), "value": given}
            if column.codes is not None:
                unknown = given.isNotNull() & ~listed(column, given, names[column.of or ""])
                rejections.append(Rejection(unknown, "unknown_code", evidence))
                lost[new] = unknown
            wrong = code.isNotNull() & values[new].isNull()
            lost[new] = lost.get(new, F.lit(False)) | wrong
            if column.time_zone is not None:
                zone = {"time_zone": F.lit(column.time_zone)}
                rejections.append(Rejection(wrong, "invalid_local_time", evidence | zone))
            elif column.type is not None or column.unit is not None:
                wanted = {"type": F.lit(column.type or f"a number ({column.unit})")}
                rejections.append(Rejection(wrong, "wrong_type", evidence | wanted))
        stays = [c for c in df.columns if is_own(c) and c not in STAYS and c not in made_names(made)]
        shown = self.kept({c: None for c in names if c in STAYS or not is_own(c)})
        marks = self.invalid == "reject"
        df = reject(df, self.id, *rejections) if marks else change_cells(df, self.id, {}, lost)
        return df.select(*map(quoted, shown), *(v.alias(n) for n, v in values.items()), *map(quoted, stays))


def made_names(made: list[Column]) -> list[str]:
    return [f"_hg_value_{i}" for i in range(len(made))]


def local(column: MappedColumn, name: str = "local") -> LocalToUtc:
    return LocalToUtc(columns={name: "utc"}, time_zone=column.time_zone, timestamp_format=column.timestamp_format)


def with_codes(column: MappedColumn, value: Column, kind: str) -> Column:
    """Return the values that codes stand for, as texts; null for a code that is not listed."""
    if column.codes is None:
        return value
    texts = key_texts(map(str, column.codes), kind, column.of or "")
    given, found = as_text(value, kind), F.lit(None).cast("string")
    for code, meaning in column.codes.items():
        found = F.when(given == texts[str(code)], F.lit(None if meaning is None else str(meaning))).otherwise(found)
    return found


def listed(column: MappedColumn, value: Column, kind: str) -> Column:
    texts = key_texts(map(str, column.codes or ()), kind, column.of or "")
    return as_text(value, kind).isin(*texts.values())


def converted(column: MappedColumn, value: Column, kind: T.DataType) -> Column:
    """Return a value in its type, unit or zone; null where it cannot be."""
    if column.time_zone is not None:
        return local(column).instant(value, kind, F.lit(column.time_zone))
    if column.unit and column.to_unit:
        factor, offset = factor_and_offset(UnitChange(from_unit=column.unit, to_unit=column.to_unit))
        marks = Marks(decimal=column.decimal, thousands=column.thousands)
        number = parsed(value, T.DoubleType(), marks) if isinstance(kind, T.StringType) else value.try_cast("double")
        return number * F.lit(factor) + F.lit(offset)
    if column.type is None:
        return value
    cast = Cast(
        columns={},
        decimal=column.decimal,
        thousands=column.thousands,
        date_format=column.date_format,
        timestamp_format=column.timestamp_format,
    )
    return cast.converted(value, kind, without_ntz(type_of(column.type)), column.of or "")


def constant_type(value: object) -> str:
    kinds: dict[type, str] = {bool: "boolean", int: "bigint", float: "double"}
    return kinds.get(type(value), "string")


def constant_of(column: MappedColumn) -> Column:
    """Return a constant in its type; raise `StepError` where that does not hold it."""
    kind = simple(column.type) if column.type else constant_type(column.value)
    return constant(column.value, kind, "value")
