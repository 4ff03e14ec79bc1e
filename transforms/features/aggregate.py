"""Rows summed up into others: one for each group."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.transforms.kinds import FLOATS, WHOLE, is_number, need_kinds, present, scale_of
from headgate.transforms.rows import (
    BOOKKEEPING,
    CHANGED,
    CHANGED_TYPE,
    FILE,
    FILE_DATE,
    JOINED,
    MADE,
    PARENTS,
    REJECTED,
    ROW_ID,
    content_key,
    is_kept,
    quoted,
)
from headgate.transforms.step import Columns, Step, StepError, require_columns

How = Literal["count", "count_distinct", "sum", "mean", "min", "max"]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Which column is summed up, and how; `count` without a column counts rows."""

    how: How
    of: str | None = None


@dataclass(frozen=True, kw_only=True)
class Aggregate(Step):
    """Make one row of each group of rows: counts, sums, means, least and greatest values.

    by: the columns whose distinct tuples are the groups; a null counts as a value, NaN equals NaN. Columns of plain
        types alone.
    columns: new column -> {how, of}. `count` counts the rows, or with `of` its values; `count_distinct` counts distinct
        ones; `sum` and `mean` are of whole numbers and decimals (put a cast to decimal before: a sum of doubles depends
        on their order); `min` and `max` of any plain type. Nulls and NaN are left out; of nothing, a count is 0 and all
        else null. A sum of whole numbers is bigint, one of decimals has 10 digits more, a mean is a double. With
        none, a row is the columns of `by` alone: their distinct tuples.
    The table's `grain` is new: each row has the id of its group and names in `_parents` the rows that came in and of
    which it was made, and in `_joined` those whose cells they took. Rows that an earlier step marked stay marked and
    are in no group. A sum beyond a bigint ends the run. Cost: one shuffle of the named columns and the row ids.
    """

    name: ClassVar[str] = "aggregate"
    scope: ClassVar[Literal["row", "table"]] = "table"
    grain: ClassVar[Literal["rows", "new"]] = "new"
    by: tuple[str, ...]
    columns: Mapping[str, Summary]

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        if not self.by and not self.columns:
            raise StepError("by, columns: name a column to group by, or one to make")
        require_columns([*self.by, *(s.of for s in self.columns.values() if s.of is not None)], have)
        place = next((c for c in self.by if c in (FILE, FILE_DATE)), None)
        if place is not None:
            raise StepError(f"by: '{place}' is not published; derive a column from it before, and group by that")
        need_kinds(have, self.name, [*self.by, *(s.of for s in self.columns.values() if s.of)], numbers=False)
        after: dict[str, str | None] = {column: have[column] for column in self.by}
        for column, summary in self.columns.items():
            if column in after:
                raise StepError(f"there is a column '{column}' already; choose another name")
            if summary.of is None and summary.how != "count":
                raise StepError(f"{column}: {summary.how} needs a column: of: …")
            kind = have[summary.of] if summary.of else None
            if summary.how in ("sum", "mean") and kind is not None and (kind in FLOATS or not is_number(kind)):
                raise StepError(
                    f"{column}: '{summary.of}' is {kind}, not a whole number or a decimal; put a cast before"
                )
            after[column] = type_of(summary, kind)
        return after

    def apply(self, df: DataFrame) -> DataFrame:
        kinds = dict(df.dtypes)
        groups = df.where(is_kept()).groupBy(*(F.col(quoted(c)) for c in self.by))
        made = groups.agg(
            *(summed(s, kinds).alias(c) for c, s in self.columns.items()),
            sorted_union(F.when(F.col(MADE).isNull(), F.array(ROW_ID)).otherwise(F.col(PARENTS))).alias(PARENTS),
            *([sorted_union(F.col(JOINED)).alias(JOINED)] if JOINED in df.columns else []),
        )
        new = {
            ROW_ID: F.md5(content_key(made, self.by, F.lit(self.id))),
            CHANGED: F.array().cast(CHANGED_TYPE),
            REJECTED: F.lit(None).cast(BOOKKEEPING[REJECTED]),
            MADE: F.lit(self.id),
        }
        made = made.withColumns(new)
        joined = [JOINED] if JOINED in df.columns else []
        marked = df.where(~is_kept()).select(*(quoted(c) for c in (*self.by, *BOOKKEEPING, *joined)))
        return made.unionByName(marked, allowMissingColumns=True)


def sorted_union(lists: Column) -> Column:
    """Return what stands in any of a group's lists, once each and in order."""
    return F.array_sort(F.array_distinct(F.flatten(F.collect_list(lists))))


def type_of(summary: Summary, kind: str | None) -> str | None:
    """Return the type of a summary of a column of a type."""
    if summary.how in ("count", "count_distinct"):
        return "bigint"
    if summary.how == "mean":
        return "double"
    if summary.how == "sum" and kind is not None:
        if kind.startswith("decimal("):
            precision, scale = kind.removeprefix("decimal(").rstrip(")").split(",")
            return f"decimal({min(38, int(precision) + 10)},{scale})"
        return "bigint" if kind in WHOLE else None
    return kind if summary.how in ("min", "max") else None


def summed(summary: Summary, kinds: Mapping[str, str]) -> Column:
    if summary.of is None:
        return F.count(F.lit(1))
    kind = kinds[summary.of]
    value = present(summary.of, kind)
    if summary.how == "mean":
        exact = value.cast(f"decimal(38,{scale_of(kind) or 0})")  # whole numbers could add up to more than a bigint
        return F.sum(exact).cast("double") / F.nullif(F.count(value), F.lit(0)).cast("double")
    how = {"count": F.count, "count_distinct": F.count_distinct, "sum": F.sum, "min": F.min, "max": F.max}
    return how[summary.how](value)
