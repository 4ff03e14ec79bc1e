"""Missing values filled by a constant or by a statistic of the training rows, overall or per group."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, ClassVar

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.transforms.kinds import (
    EXACT,
    EXACT_DOUBLES,
    FLOATS,
    TIMES,
    WHOLE,
    as_text,
    constant,
    held,
    known_kinds,
    missing,
    need_kinds,
    present,
    require_few,
    scale_of,
)
from headgate.transforms.quantiles import FEW, Spread, exact_quantiles, spreads_of
from headgate.transforms.rows import ROW_ID, change_cells, local_frame, quoted, stable_hash
from headgate.transforms.scaling.exact import merged, moments
from headgate.transforms.step import Columns, Context, Estimator, Step, StepError, require_columns

LARGEST_STATE = 100_000  # groups that a fitted step may hold: they are broadcast and saved as JSON
LARGEST_EXACT = 1e26  # from here on a decimal of 38 digits, 12 of them behind the point, does not hold a double
LEAST_MEAN = Fraction(1, 10**20)  # sums in 38 digits give a mean as far away from zero as this to a double's digits


@dataclass(frozen=True, kw_only=True)
class FillMissing(Step):
    """Fill missing cells with fixed values: what every fitted imputation becomes.

    values: column -> value, which the column's type must hold exactly: no 7.5 in an integer column, days as 2013-01-31
        and times as 2013-01-31T12:00:00Z.
    by, groups: with `by`, each entry of `groups` is {"key": [values of `by`], "values": {column: value}}; a group's
        value goes before the overall one, which serves unseen groups, null keys and groups without any value.
    levels: more of such groups, each {"by": [...], "groups": [...]}, asked in turn where those before have no value.
    Null and NaN count as missing. A column whose value is null stays as it was. Cost: one pass; groups are
    broadcast.
    """

    name: ClassVar[str] = "fill_missing"
    values: Mapping[str, Any]
    by: tuple[str, ...] = ()
    groups: tuple[Mapping[str, Any], ...] = ()
    levels: tuple[Mapping[str, Any], ...] = ()

    @property
    def lookups(self) -> list[tuple[Sequence[str], Sequence[Mapping[str, Any]]]]:
        """Return the columns and the groups of each level."""
        return [(self.by, self.groups), *((level["by"], level["groups"]) for level in self.levels)]

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns([*self.values, *(c for by, _ in self.lookups for c in by)], have)
        return have

    def check(self, df: DataFrame, context: Context) -> None:
        super().check(df, context)
        need_kinds(df, self.name, [c for by, _ in self.lookups for c in by], numbers=False)
        kinds = dict(df.dtypes)
        for values in (self.values, *(g["values"] for _, groups in self.lookups for g in groups)):
            for column, value in values.items():
                constant(value, kinds[column], column)

    def learned(self) -> bool:
        return any(v is not None for v in self.values.values())

    def apply(self, df: DataFrame) -> DataFrame:
        kinds = dict(df.dtypes)
        fills: dict[str, Column] = {c: constant(v, kinds[c], c) for c, v in self.values.items()}
        before = df.columns
        for depth, (by, groups) in reversed(list(enumerate(self.lookups))):
            if not groups:
                continue
            key, fill = f"_hg_key{depth}_", f"_hg_fill{depth}_"
            rows = [(*map(str, g["key"]), *(g["values"].get(c) for c in self.values)) for g in groups]
            key_types = [f"{key}{i} string" for i in range(len(by))]
            value_types = [
                f"{fill}{i} {carrier(g['values'].get(c) for g in groups)}" for i, c in enumerate(self.values)
            ]
            lookup = local_frame(df.sparkSession, rows, ", ".join(key_types + value_types))
            matches = F.lit(True)
            for i, column in enumerate(by):
                kind = kinds[column]
                there = as_text(F.col(f"{key}{i}").try_cast(kind), kind)
                matches = matches & (as_text(F.col(quoted(column)), kind) == there)
            df = df.join(F.broadcast(lookup), on=matches, how="left")
            fills = {c: F.coalesce(F.col(f"{fill}{i}").cast(kinds[c]), fills[c]) for i, c in enumerate(self.values)}
        filled = {c: missing(c, kinds[c]) & fills[c].isNotNull() for c in self.values}
        values = {c: F.when(filled[c], fills[c]).otherwise(F.col(quoted(c))) for c in self.values}
        return change_cells(df, self.id, values, filled).select(*(quoted(c) for c in before))


@dataclass(frozen=True, kw_only=True)
class ImputeConstant(Step):
    """Fill missing cells with given constants.

    values: column -> constant, which the column's type must hold exactly: no 7.5 in an integer column, no infinity in
        one of doubles, days as 2013-01-31 and times as 2013-01-31T12:00:00Z. Null and NaN count as missing; filled
        cells are noted in `_changed`.
    Cost: one pass, no shuffle.
    """

    name: ClassVar[str] = "impute_constant"
    values: Mapping[str, Any]

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns(self.values, have)
        for column, kind in known_kinds(have, self.values):
            value = self.values[column]
            if kind in FLOATS and isinstance(value, float) and not math.isfinite(value):
                raise StepError(f"values: '{column}' is {kind}; expected a finite number, not {value}")
            held(value, kind, column)
        return have

    def apply(self, df: DataFrame) -> DataFrame:
        return FillMissing(values=self.values).at(self.id).apply(df)


@dataclass(frozen=True, kw_only=True)
class ImputeStatistic(Estimator):
    """The base of imputation by mean, median and mode: fit overall and per group, become a `FillMissing`."""

    columns: tuple[str, ...]
    by: tuple[str, ...] = ()
    levels: tuple[tuple[str, ...], ...] = ()
    numbers: ClassVar[bool] = True  # whether it needs numbers

    @property
    def keys(self) -> tuple[str, ...]:
        """Return the columns of all groups."""
        return tuple(dict.fromkeys([*self.by, *(c for level in self.levels for c in level)]))

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns([*self.columns, *self.keys], have)
        require_few(self.columns)
        if not all(self.levels) or (self.levels and not self.by):
            raise StepError("levels: each names columns, and `by` those of the groups that are asked first")
        need_kinds(have, self.name, [c for c in self.columns if have[c] not in ("date", *TIMES)], self.numbers)
        need_kinds(have, self.name, self.keys, numbers=False)
        return have

    def learns_from(self) -> tuple[str, ...]:
        return (*self.columns, *self.keys)

    def statistic(self, column: str, kind: str) -> Column:
        raise NotImplementedError

    def settled(self, found: Any, column: str, kind: str) -> Any:
        """Make a fitted value of what `statistic` found: one that JSON and the column's type hold exactly."""
        return found

    def fit(self, df: DataFrame, context: Context) -> FillMissing:
        kinds = dict(df.dtypes)
        overall, groups = self.groups_of(df, kinds, self.by)
        levels = [{"by": list(by), "groups": self.groups_of(df, kinds, by)[1]} for by in self.levels]
        return FillMissing(values=overall, by=self.by, groups=tuple(groups), levels=tuple(levels))

    def groups_of(
        self, df: DataFrame, kinds: Mapping[str, str], by: Sequence[str]
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return the value of each column of all rows, and those of the groups of some columns."""
        found = self.values_of(df, kinds, [as_text(F.col(quoted(c)), kinds[c]) for c in by])
        overall = found.pop((), [None] * len(self.columns))
        named = sorted((key, values) for key, values in found.items() if None not in key)
        groups = [{"key": list(key), "values": dict(zip(self.columns, values, strict=True))} for key, values in named]
        return dict(zip(self.columns, overall, strict=True)), groups

    def values_of(
        self, df: DataFrame, kinds: Mapping[str, str], keys: Sequence[Column]
    ) -> dict[tuple[Any, ...], list[Any]]:
        """Return the fitted value of each column for each group, and for all rows under the empty key."""
        names = [f"_hg_key{i}" for i in range(len(keys))]
        statistics = [self.statistic(c, kinds[c]).alias(f"_hg_s{i}") for i, c in enumerate(self.columns)]
        if keys:
            keyed = df.withColumns(dict(zip(names, keys, strict=True)))
            grouped = keyed.groupingSets([[F.col(n) for n in names], []], *names)
            found = grouped.agg(F.grouping_id().alias("_hg_all"), *statistics)
        else:
            found = df.agg(F.lit(1).alias("_hg_all"), *statistics)
        rows = found.limit(LARGEST_STATE + 2).collect()
        if len(rows) > LARGEST_STATE + 1:
            raise StepError(f"by: more than {LARGEST_STATE:,} groups of {', '.join(self.keys)}")
        return {
            () if row["_hg_all"] else tuple(row[: len(keys)]): [
                self.settled(row[f"_hg_s{i}"], c, kinds[c]) for i, c in enumerate(self.columns)
            ]
            for row in rows
        }


@dataclass(frozen=True, kw_only=True)
class ImputeMean(ImputeStatistic):
    """Fill missing cells with the mean of the training rows.

    columns: numbers, dates and times; by: columns whose groups each have their own mean (the overall mean serves unseen
    groups and null keys); levels: columns of larger groups, asked in turn before the overall mean, as `[[city]]` with
    `by: [shop, city]`. Null and NaN count as missing; an infinity among the values is refused.
    Whole numbers and decimals are summed exactly; an integer column takes the mean rounded toward zero, a decimal one
    rounded half up to its scale. Doubles are summed exactly or in decimals of 38 digits, so that the mean does not
    depend on the order of rows. A sum of decimals beyond 38 digits is refused. Dates and times are rounded to the day
    and the microsecond. A column without any value stays as it is. Filled cells are noted in `_changed`.
    Cost: one pass to fit, one more for doubles whose sum is beyond 1e26 or whose mean is below 1e-20; one to apply.
    """

    name: ClassVar[str] = "impute_mean"
    revision: ClassVar[int] = 2

    def statistic(self, column: str, kind: str) -> Column:
        value, kind = measured(column, kind)
        exact = value.try_cast(f"decimal(38,{12 if kind in FLOATS else scale_of(kind)})")
        rest = F.lit(0)
        if kind in FLOATS:  # what 12 digits do not hold, times 2^40, which loses nothing
            rest = F.try_sum(((value - exact.cast("double")) * F.lit(2.0**40)).try_cast("decimal(38,26)"))
        most = F.max(F.abs(value)) if kind in FLOATS else F.lit(0)
        extent = (F.count(value).alias("n"), most.alias("most"))
        return F.struct(F.try_sum(exact).alias("sum"), rest.alias("rest"), *extent)

    def settled(self, found: Any, column: str, kind: str) -> Any:
        if not found["n"]:
            return None
        if found["most"] == math.inf:
            raise StepError(f"impute_mean: '{column}' holds an infinity, and so has no mean; put a check_bounds before")
        if kind in FLOATS and (found["sum"] is None or found["most"] >= LARGEST_EXACT):
            return ...  # left to the exact way
        if found["sum"] is None:
            raise StepError(f"impute_mean: '{column}' holds values or a sum beyond 38 digits")
        mean = (Fraction(found["sum"]) + Fraction(found["rest"] or 0) / 2**40) / found["n"]
        if found["most"] and abs(mean) < LEAST_MEAN:
            return ...
        return in_type(mean, kind)

    def values_of(
        self, df: DataFrame, kinds: Mapping[str, str], keys: Sequence[Column]
    ) -> dict[tuple[Any, ...], list[Any]]:
        values = super().values_of(df, kinds, keys)
        places = [i for i in range(len(self.columns)) if any(found[i] is ... for found in values.values())]
        if places:
            wanted = [present(self.columns[i], kinds[self.columns[i]]) for i in places]
            groups = moments(df, wanted, keys, f"groups of {', '.join(self.keys)}")
            for key, found in values.items():
                sums = groups[key] if key in groups else merged(groups)
                for i, each in zip(places, sums, strict=True):
                    found[i] = each.mean if each.n else None
        return values


@dataclass(frozen=True, kw_only=True)
class ImputeMedian(ImputeStatistic):
    """Fill missing cells with the median of the training rows.

    columns: numbers, dates and times; by, levels: as in `impute_mean`.
    sample: about how many training rows it is of, those of the smallest hashes of their row id; its rank is then off by
        about half a part in the root of them, a thousandth where they are 250,000. Without it (default) it is exact. A
        group without a row among them has none.
    Null and NaN count as missing; a median between -inf and inf is refused. Between two middle values the median is
    their mean; an integer column takes it rounded toward zero, a decimal one rounded half up to its scale, dates and
    times to the day and the microsecond. Filled cells are noted in `_changed`.
    Cost: a count and two passes to fit (one where there are few rows), whatever the number of distinct values; for a
    decimal column, or one of whole numbers beyond 2^52, a sort of its distinct values; one pass to apply.
    """

    name: ClassVar[str] = "impute_median"
    sample: int | None = None

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        if self.sample is not None and not 1 <= self.sample <= FEW:
            raise StepError(f"sample: {self.sample} is not within 1 and {FEW:,}")
        return super().columns_after(have, tables)

    def fit(self, df: DataFrame, context: Context) -> FillMissing:
        rows = df.count() if self.sample is not None else 0
        if self.sample is not None and rows > self.sample:
            df = df.where(stable_hash(df, 0, [ROW_ID]) < F.lit(int(self.sample / rows * 2**64) - 2**63))
        return super().fit(df, context)

    def settled(self, found: Spread | None, column: str, kind: str) -> Any:
        if found is None or kind in FLOATS:
            if found and math.isnan(found.quantiles[0]):
                what = f"'{column}' has its median between -inf and inf, where it is undefined"
                raise StepError(f"impute_median: {what}; put a check_bounds before")
            return found and found.quantiles[0]
        whole = kind in (*WHOLE, "date", *TIMES)
        small = whole and max(-found.low, found.high) <= EXACT_DOUBLES
        return in_type(Fraction(found.quantiles[0]), kind) if small else ...  # left to the exact way

    def values_of(
        self, df: DataFrame, kinds: Mapping[str, str], keys: Sequence[Column]
    ) -> dict[tuple[Any, ...], list[Any]]:
        wanted = [(measured(c, kinds[c])[0], (0.5,)) for c in self.columns]
        most = (LARGEST_STATE, f"groups of {', '.join(self.keys)}")
        spreads = spreads_of(df, wanted, keys, overall=True, most=most)
        values = {
            key: [self.settled(s, c, kinds[c]) for s, c in zip(found, self.columns, strict=True)]
            for key, found in spreads.items()
        }
        for i, column in enumerate(self.columns):
            if any(found[i] is ... for found in values.values()):
                value, _ = measured(column, kinds[column])
                medians = exact_quantiles(df, value, [], (2,))
                medians |= exact_quantiles(df, value, keys, (2,)) if keys else {}
                for key, found in values.items():
                    if found[i] is ...:
                        found[i] = in_type(medians[key][0], kinds[column])
        return values


@dataclass(frozen=True, kw_only=True)
class ImputeMode(ImputeStatistic):
    """Fill missing cells with the most frequent value of the training rows.

    columns: columns of any plain type; by, levels: as in `impute_mean`. Null and NaN count as missing. Of equally
    frequent values the smallest wins. Filled cells are noted in `_changed`.
    Cost: one pass to fit, with memory in proportion to the distinct values; one pass to apply.
    """

    name: ClassVar[str] = "impute_mode"
    numbers: ClassVar[bool] = False

    def statistic(self, column: str, kind: str) -> Column:
        mode = F.mode(present(column, kind), deterministic=True)
        # Python would read a time as one of the machine's zone.
        return mode if kind in (*WHOLE, *FLOATS, "boolean") else as_text(mode, kind)


def measured(column: str, kind: str) -> tuple[Column, str]:
    """Return a cell as a number, and that number's type: a date in days, a time in microseconds, of 1970."""
    value = present(column, kind)
    if kind == "date":
        return F.unix_date(value), "int"
    return (F.unix_micros(value.cast("timestamp")), "bigint") if kind in TIMES else (value, kind)


def in_type(number: Fraction, kind: str) -> Any:
    """Return a fitted number as the column's type holds it.

    Toward zero in whole numbers; half up in decimals, days and microseconds, these as text.
    """
    if kind == "date" or kind in TIMES:
        units = math.floor(number + Fraction(1, 2))
        if kind == "date":
            return (date(1970, 1, 1) + timedelta(days=units)).isoformat()
        return (datetime(1970, 1, 1) + timedelta(microseconds=units)).isoformat() + "Z" * (kind == "timestamp")
    if kind in FLOATS:
        return float(number)
    if kind in WHOLE:
        return math.trunc(number)
    scale = scale_of(kind) or 0
    scaled = math.floor(abs(number) * 10**scale + Fraction(1, 2))
    return f"{Decimal(scaled if number >= 0 else -scaled).scaleb(-scale, EXACT):f}"


def carrier(values: Iterable[Any]) -> str:
    """The type that holds one column's fitted values, until a cast makes them those of the column."""
    kinds = {bool: "boolean", int: "bigint", float: "double"}
    return next((kinds.get(type(v), "string") for v in values if v is not None), "string")
