"""Missing values filled by a constant or by a statistic of the training rows, overall or per group."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from transforms.rows import change_cells, frame_of, quoted
from transforms.step import Learner, Step, StepError, need

LARGEST_STATE = 100_000  # groups that a fitted step may hold: they are broadcast and saved as JSON


@dataclass(frozen=True, kw_only=True)
class FillMissing(Step):
    """Fill missing cells with fixed values: what every fitted imputation becomes.

    values: column -> value.
    by, groups: with `by`, each entry of `groups` is {"key": [values of `by`], "values": {column: value}}; a group's
        value goes before the overall one, which serves unseen groups, null keys and groups without any value.
    marked_by: the step name that `_changed` shows for the cells filled.
    Null and NaN count as missing. A column whose value is null stays as it was. Cost: one pass; groups are
    broadcast.
    """

    name: ClassVar[str] = "fill_missing"
    values: Mapping[str, Any]
    by: tuple[str, ...] = ()
    groups: tuple[Mapping[str, Any], ...] = ()
    marked_by: str = "fill_missing"

    def names_after(self, have: Sequence[str], tables: Mapping[str, Sequence[str]]) -> list[str]:
        need([*self.values, *self.by], have)
        return list(have)

    def apply(self, df: DataFrame, tables: Mapping[str, DataFrame]) -> DataFrame:
        kinds = dict(df.dtypes)
        fills: dict[str, Column] = {c: F.lit(v).cast(kinds[c]) for c, v in self.values.items()}
        before = df.columns
        if self.groups:
            rows = [(*g["key"], *(g["values"].get(c) for c in self.values)) for g in self.groups]
            key_types = [f"_hg_key{i} string" for i in range(len(self.by))]
            value_types = [
                f"_hg_fill{i} {carrier(g['values'].get(c) for g in self.groups)}" for i, c in enumerate(self.values)
            ]
            lookup = frame_of(df.sparkSession, rows, ", ".join(key_types + value_types))
            matches = F.lit(True)
            for i, column in enumerate(self.by):
                matches = matches & (F.col(quoted(column)).cast("string") == F.col(f"_hg_key{i}"))
            df = df.join(F.broadcast(lookup), on=matches, how="left")
            fills = {c: F.coalesce(F.col(f"_hg_fill{i}").cast(kinds[c]), fills[c]) for i, c in enumerate(self.values)}
        missing = {c: is_missing(c, kinds[c]) for c in self.values}
        filled = {c: missing[c] & fills[c].isNotNull() for c in self.values}
        values = {c: F.when(filled[c], fills[c]).otherwise(F.col(quoted(c))) for c in self.values}
        return change_cells(df, self.marked_by, values, filled).select(*(quoted(c) for c in before))


@dataclass(frozen=True, kw_only=True)
class ImputeConstant(Step):
    """Fill missing cells with given constants.

    values: column -> constant. Null and NaN count as missing; filled cells are noted in `_changed`.
    Cost: one pass, no shuffle.
    """

    name: ClassVar[str] = "impute_constant"
    values: Mapping[str, Any]

    def names_after(self, have: Sequence[str], tables: Mapping[str, Sequence[str]]) -> list[str]:
        need(self.values, have)
        return list(have)

    def apply(self, df: DataFrame, tables: Mapping[str, DataFrame]) -> DataFrame:
        return FillMissing(values=self.values, marked_by=self.name).apply(df, tables)


@dataclass(frozen=True, kw_only=True)
class ImputeStatistic(Learner):
    """What imputation by mean, median and mode share: fit overall and per group, become a `FillMissing`."""

    columns: tuple[str, ...]
    by: tuple[str, ...] = ()

    def names_after(self, have: Sequence[str], tables: Mapping[str, Sequence[str]]) -> list[str]:
        need([*self.columns, *self.by], have)
        return list(have)

    def statistic(self, column: str, kind: str) -> Column:
        raise NotImplementedError

    def fit(self, df: DataFrame) -> FillMissing:
        kinds = dict(df.dtypes)
        statistics = [self.statistic(c, kinds[c]).alias(f"_hg_s{i}") for i, c in enumerate(self.columns)]
        overall = df.agg(*statistics).first()
        groups = []
        if self.by:
            keys = [F.col(quoted(c)).cast("string").alias(f"_hg_key{i}") for i, c in enumerate(self.by)]
            rows = df.groupBy(*keys).agg(*statistics).limit(LARGEST_STATE + 1).collect()
            if len(rows) > LARGEST_STATE:
                raise StepError(f"by: more than {LARGEST_STATE:,} groups of {', '.join(self.by)}")
            for row in rows:
                key, values = row[: len(keys)], row[len(keys) :]
                if None not in key:
                    groups.append(
                        {"key": list(key), "values": dict(zip(self.columns, map(plain, values), strict=True))}
                    )
            groups.sort(key=lambda g: g["key"])
        values = dict(zip(self.columns, map(plain, overall), strict=True))
        return FillMissing(values=values, by=self.by, groups=tuple(groups), marked_by=self.name)


@dataclass(frozen=True, kw_only=True)
class ImputeMean(ImputeStatistic):
    """Fill missing cells with the mean of the training rows.

    columns: numeric columns; by: columns whose groups each have their own mean (the overall mean serves unseen
    groups and null keys). Null and NaN count as missing; an infinity among the values is refused.
    The sum is taken in decimal(38,12), so that the mean does not depend on the order of rows; a sum
    beyond 1e26 is refused. An integer column takes the mean rounded toward zero.
    A column without any value stays as it is. Filled cells are noted in `_changed`.
    Cost: one pass to fit (two with `by`), one to apply.
    """

    name: ClassVar[str] = "impute_mean"

    def statistic(self, column: str, kind: str) -> Column:
        present = F.when(~is_missing(column, kind), F.col(quoted(column)))
        exact = present.try_cast("decimal(38,12)")
        too_large = F.concat(F.lit(f"impute_mean: '{column}' holds values or a sum beyond 1e26"))
        mean = F.try_sum(exact).cast("double") / F.count(present)
        lost = (F.count(present) > F.count(exact)) | (F.try_sum(exact).isNull() & (F.count(present) > 0))
        return F.when(lost, F.raise_error(too_large).cast("double")).when(F.count(present) > 0, mean)


@dataclass(frozen=True, kw_only=True)
class ImputeMedian(ImputeStatistic):
    """Fill missing cells with the exact median of the training rows.

    columns: numeric columns; by: as in `impute_mean`. Null and NaN count as missing. Between two middle values the
    median is their mean; an integer column takes it rounded toward zero. Filled cells are noted in `_changed`.
    Cost: one pass to fit (two with `by`), with memory in proportion to the distinct values; one pass to apply.
    """

    name: ClassVar[str] = "impute_median"

    def statistic(self, column: str, kind: str) -> Column:
        return F.percentile(F.when(~is_missing(column, kind), F.col(quoted(column))).cast("double"), F.lit(0.5))


@dataclass(frozen=True, kw_only=True)
class ImputeMode(ImputeStatistic):
    """Fill missing cells with the most frequent value of the training rows.

    columns: columns of any plain type; by: as in `impute_mean`. Null and NaN count as missing. Of equally frequent
    values the smallest wins. Filled cells are noted in `_changed`.
    Cost: one pass to fit (two with `by`), with memory in proportion to the distinct values; one pass to apply.
    """

    name: ClassVar[str] = "impute_mode"

    def statistic(self, column: str, kind: str) -> Column:
        return F.mode(F.when(~is_missing(column, kind), F.col(quoted(column))), deterministic=True)


def is_missing(column: str, kind: str) -> Column:
    value = F.col(quoted(column))
    return value.isNull() | F.isnan(value) if kind in ("double", "float") else value.isNull()


def carrier(values: Iterable[Any]) -> str:
    """The type that holds one column's fitted values, until a cast makes them those of the column."""
    kinds = {bool: "boolean", int: "bigint", float: "double"}
    return next((kinds.get(type(v), "string") for v in values if v is not None), "string")


def plain(value: Any) -> Any:
    """A fitted value as JSON can hold it: dates and decimals as text, which a cast turns back."""
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
