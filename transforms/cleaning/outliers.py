"""Outlying values of a column: fences learned by z-score, quartiles, median deviation or percentiles, also by group."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, ClassVar, Literal

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.transforms.cleaning.bounds import CheckBounds, Limits, flag_name, with_flags
from headgate.transforms.kinds import FLOATS, as_text, exact, need_kinds, require_few, scale_of
from headgate.transforms.quantiles import Spread, spreads_of
from headgate.transforms.rows import Rejection, change_cells, local_frame, quoted, reject
from headgate.transforms.step import Action, Columns, Context, Estimator, Step, StepError, require_columns

Method = Literal["zscore", "iqr", "mad", "percentiles"]
FACTORS: dict[str, float] = {"zscore": 3.0, "iqr": 1.5, "mad": 3.5, "percentiles": 0.01}
NORMAL_MAD = 1.4826022185056018  # standard deviations in a median absolute deviation of a normal distribution
NORMAL_MEAN = 1.2533141373155  # the same in a mean absolute deviation
MOST_GROUPS = 100_000


@dataclass(frozen=True, kw_only=True)
class CheckGroupBounds(Step):
    """Act on values outside the bounds of their group: what `check_outliers` with `by` becomes once fitted.

    columns: column -> [lowest, highest] for rows of other groups. by, groups: each entry of `groups` is
        {"key": [values of `by`], "bounds": {column: [lowest, highest]}}.
    action: as in `check_bounds`. Cost: one pass; groups are broadcast.
    """

    name: ClassVar[str] = "check_group_bounds"
    columns: Mapping[str, tuple[Decimal | None, Decimal | None]]
    by: tuple[str, ...]
    groups: tuple[Mapping[str, Any], ...]
    action: Action = "reject"

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns([*self.columns, *self.by], have)
        need_kinds(have, self.name, self.columns, numbers=True)
        need_kinds(have, self.name, self.by, numbers=False)
        return with_flags(have, self.columns, self.action)

    def learned(self) -> bool:
        return any(b is not None for pair in self.columns.values() for b in pair) or bool(self.groups)

    def apply(self, df: DataFrame) -> DataFrame:
        before, kinds = df.columns, dict(df.dtypes)
        names = list(self.columns)
        rows = []
        for group in self.groups:
            bounds = [group["bounds"].get(c, (None, None)) for c in names]
            rows.append((*map(str, group["key"]), True, *(None if b is None else str(b) for p in bounds for b in p)))
        ddl = [f"_hg_key{i} string" for i in range(len(self.by))] + ["_hg_known boolean"]
        ddl += [f"_hg_{end}{i} string" for i in range(len(names)) for end in ("low", "high")]
        lookup = local_frame(df.sparkSession, rows, ", ".join(ddl))
        matches = F.lit(True)
        for i, column in enumerate(self.by):
            matches = matches & (as_text(F.col(quoted(column)), kinds[column]) == F.col(f"_hg_key{i}"))
        df = df.join(F.broadcast(lookup), on=matches, how="left")
        outside, ends = {}, {}
        for i, column in enumerate(names):
            bounds = []
            for end, overall in zip(("low", "high"), self.columns[column], strict=True):
                text = F.lit(None if overall is None else str(overall)).cast("string")
                bounds.append(F.when(F.col("_hg_known"), F.col(f"_hg_{end}{i}")).otherwise(text))
            ends[column] = tuple(within_type(b, kinds[column], up) for b, up in zip(bounds, (True, False), strict=True))
            outside[column] = excluded(F.col(quoted(column)), kinds[column], *ends[column])
        if self.action == "flag":
            made = {flag_name(c): when for c, when in outside.items()}
            return df.withColumns(made).select(*map(quoted, before), *(quoted(flag_name(c)) for c in names))
        if self.action == "reject":
            rejections = [
                Rejection(
                    outside[c],
                    "out_of_bounds",
                    {"column": F.lit(c), "value": F.col(quoted(c)), "lowest": ends[c][0], "highest": ends[c][1]},
                )
                for c in names
            ]
            return reject(df, self.id, *rejections).select(*map(quoted, before))
        values = {}
        for column in names:
            value = F.col(quoted(column))
            values[column] = F.when(~outside[column], value)
            if self.action == "clip":
                low, high = ends[column]
                nan = F.isnan(value) if kinds[column] in FLOATS else F.lit(False)
                clipped = F.when(~outside[column], value).when(nan, F.lit(None))
                values[column] = clipped.when(value < low, low).when(value > high, high).cast(kinds[column])
        return change_cells(df, self.id, values, outside).select(*map(quoted, before))


def within_type(bound: Column, kind: str, up: bool) -> Column:
    """Return a bound, given as text, as the nearest number of the type that lies within; null for an open end."""
    if kind in FLOATS:
        return bound.cast("double").cast(kind)
    # Fences have at most 12 digits behind the point; a bound beyond the type bounds nothing.
    number = bound.try_cast("decimal(38,12)")
    scale = F.lit(scale_of(kind) or 0)
    return (F.ceil(number, scale) if up else F.floor(number, scale)).try_cast(kind)


def excluded(value: Column, kind: str, low: Column, high: Column) -> Column:
    nan = F.isnan(value) if kind in FLOATS else F.lit(False)
    below, above = F.coalesce(value < low, F.lit(False)), F.coalesce(value > high, F.lit(False))
    return F.coalesce(nan, F.lit(False)) | below | above


@dataclass(frozen=True, kw_only=True)
class CheckOutliers(Estimator):
    """Act on values far from most of the training rows, overall or of their group.

    columns: numeric columns.
    method: `iqr` (default): factor interquartile ranges beyond the quartiles (Tukey 1977); `mad`: factor median
        absolute deviations, in units of a standard deviation, from the median (Iglewicz and Hoaglin 1993; where half of
        the values are alike, mean absolute deviations); `zscore`: factor standard deviations from the mean, which
        outliers widen; `percentiles`: the lowest and the highest share.
    factor: 1.5 for `iqr`, 3.5 for `mad`, 3 for `zscore`; for `percentiles` the share at either end, .01.
    by: columns whose groups each have their own fences; groups with fewer than `least` values, unseen groups and null
        keys have those of all rows.
    least: values that a group must have for fences of its own (20).
    action: as in `check_bounds`.
    Nulls, NaN and infinities are left out of what is learned; without two values, or without any spread, there is no
    fence. Fences are doubles; those of whole numbers and decimals are the next ones outward, so that no value within is
    marked where doubles do not hold it. `check_outliers_iqr` has exact ones. More than 100,000 groups are refused.
    Cost: a count and two passes to fit (one where there are few rows), one more for `zscore`, and as many again for
    `mad`; one pass to apply.
    """

    name: ClassVar[str] = "check_outliers"
    revision: ClassVar[int] = 2
    columns: tuple[str, ...]
    method: Method = "iqr"
    factor: float | None = None
    by: tuple[str, ...] = ()
    least: int = 20
    action: Action = "reject"

    @property
    def reach(self) -> float:
        return FACTORS[self.method] if self.factor is None else self.factor

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns([*self.columns, *self.by], have)
        require_few(self.columns)
        most = 0.5 if self.method == "percentiles" else math.inf
        if not 0 <= self.reach < most:
            raise StepError(f"factor: {self.factor} is not a number of at least 0 (of percentiles, below .5)")
        if self.least < 2:
            raise StepError(f"least: {self.least} is not a number of at least 2")
        need_kinds(have, self.name, self.columns, numbers=True)
        need_kinds(have, self.name, self.by, numbers=False)
        return with_flags(have, self.columns, self.action)

    def learns_from(self) -> tuple[str, ...]:
        return (*self.columns, *self.by)

    def fit(self, df: DataFrame, context: Context) -> CheckBounds | CheckGroupBounds:
        kinds = dict(df.dtypes)
        found = self.fences(df, kinds)
        overall = {c: fence for c, (_, *fence) in zip(self.columns, found.pop((), ()), strict=False)}
        bounds = {c: bounds_of(overall.get(c, (None, None)), kinds[c]) for c in self.columns}
        if not self.by:
            return CheckBounds(columns=bounds, action=self.action)
        groups = []
        for key, listed in sorted((k, v) for k, v in found.items() if None not in k):
            own = {}
            for column, (n, *fence) in zip(self.columns, listed, strict=True):
                pair = bounds_of(fence, kinds[column]) if n >= self.least else bounds[column]
                own[column] = [None if b is None else str(b) for b in pair]
            groups.append({"key": list(key), "bounds": own})
        return CheckGroupBounds(columns=bounds, by=self.by, groups=tuple(groups), action=self.action)

    def fences(
        self, df: DataFrame, kinds: Mapping[str, str]
    ) -> dict[tuple[Any, ...], list[tuple[int, float | None, float | None]]]:
        """Return (values, lowest, highest) of each column for each group, and for all rows under the empty key."""
        values = {f"_hg_x{i}": finite(c, kinds[c]) for i, c in enumerate(self.columns)}
        names = [f"_hg_key{i}" for i in range(len(self.by))]
        keys = [as_text(F.col(quoted(c)), kinds[c]).alias(n) for c, n in zip(self.by, names, strict=True)]
        rows = df.select(*keys, *(v.alias(n) for n, v in values.items()))
        if keys:  # each row counts in its group and, as one of another, among all
            own = F.struct(F.lit("group").alias("_hg_of"), *names)
            whole = F.struct(F.lit("all").alias("_hg_of"), *(F.lit(None).cast("string").alias(n) for n in names))
            rows = rows.select(F.explode(F.array(own, whole)).alias("key"), *values).select("key.*", *values)
            names = ["_hg_of", *names]
        share = self.reach if self.method == "percentiles" else 0.25
        found = self.spread(rows, names, list(values), () if self.method == "zscore" else (share, 0.5, 1 - share))
        apart = self.apart(rows, found, names, list(values)) if self.method in ("mad", "zscore") else {}
        nothing = [None] * len(values)
        return {
            () if key[:1] == ("all",) else key[1:]: [
                (s.n, *fence_of(self.method, self.reach, s, a)) if s else (0, None, None)
                for s, a in zip(listed, apart.get(key, nothing), strict=True)
            ]
            for key, listed in found.items()
        }

    def spread(
        self, rows: DataFrame, names: Sequence[str], values: Sequence[str], shares: Sequence[float]
    ) -> dict[tuple[Any, ...], list[Spread | None]]:
        most = (MOST_GROUPS + 1, f"groups of {', '.join(self.by)}")
        return spreads_of(rows, [(F.col(x), shares) for x in values], [F.col(n) for n in names], most=most)

    def apart(
        self,
        rows: DataFrame,
        spreads: Mapping[tuple[Any, ...], Sequence[Spread | None]],
        names: Sequence[str],
        values: Sequence[str],
    ) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
        """Return, for each group and column, sums of what values are apart from a centre, in units of their range.

        With `mad`, their median as well. The centre is the median of `mad` and the lowest value of `zscore`. Sums are
        exact, of 28 digits behind the point, so that they do not depend on the order of rows.
        """
        looked_up = []
        for key, listed in spreads.items():
            cells: list[float | None] = []
            for s in listed:
                centre = s and (s.quantiles[1] if self.method == "mad" else s.low)
                reach = s.high - s.low if s else 0.0
                cells += [centre, reach if 0 < reach < math.inf else None]
            looked_up.append((*key, *cells))
        ddl = [f"_hg_m{n} string" for n in names] + [f"{end}{x} double" for x in values for end in ("_hg_m", "_hg_r")]
        lookup = local_frame(rows.sparkSession, looked_up, ", ".join(ddl))
        matches = F.lit(True)
        for name in names:
            matches = matches & F.col(name).eqNullSafe(F.col(f"_hg_m{name}"))
        joined = rows.join(F.broadcast(lookup), on=matches, how="inner")
        far = {x: F.abs((F.col(x) - F.col(f"_hg_m{x}")) / F.col(f"_hg_r{x}")) for x in values}
        rows = joined.select(*names, *(distance.alias(x) for x, distance in far.items()))
        sums = [
            F.struct(exact_sum(F.col(x)).alias("sum"), exact_sum(F.col(x) * F.col(x)).alias("squares")).alias(x)
            for x in values
        ]
        found = rows.groupBy(*names).agg(*sums).collect()
        told = {tuple(r[: len(names)]): [r[x].asDict() for x in values] for r in found}
        if self.method == "mad":
            for key, listed in self.spread(rows, names, values, (0.5,)).items():
                for parts, s in zip(told[key], listed, strict=True):
                    parts["median"] = s and s.quantiles[0]
        return told


def exact_sum(value: Column) -> Column:
    return F.try_sum(value.cast("decimal(38,28)"))


def finite(column: str, kind: str) -> Column:
    """Return a number as a double, null where it is NaN or infinite."""
    value = F.col(quoted(column)).cast("double")
    return F.when(F.abs(value) <= F.lit(1.7976931348623157e308), value)


def fence_of(method: str, reach: float, found: Spread, spread: Any) -> tuple[float | None, float | None]:
    """Return the fences of one group from its statistics; none without two values or without spread."""
    if found.n < 2:
        return None, None
    if method == "percentiles":
        return found.quantiles[0], found.quantiles[2]
    if method == "iqr":
        low, _, high = found.quantiles
        far = reach * (high - low)
    elif spread is None or spread["sum"] is None:
        return None, None
    elif method == "mad":
        low = high = found.quantiles[1]
        mean = float(Fraction(spread["sum"]) / found.n)
        far = reach * (found.high - found.low) * (NORMAL_MAD * spread["median"] or NORMAL_MEAN * mean)
    else:
        total, squares, n = Fraction(spread["sum"]), Fraction(spread["squares"]), found.n
        width = found.high - found.low
        low = high = found.low + width * float(total / n)
        far = reach * width * math.sqrt(max(float((squares - total * total / n) / (n - 1)), 0.0))
    return (low - far, high + far) if far > 0 or (reach == 0 and high > low) else (None, None)


def bounds_of(fence: Sequence[float | None], kind: str) -> tuple[Decimal | None, Decimal | None]:
    """Return fences as bounds; those of exact numbers one double outward, in whole units of the type."""
    known = [f if f is not None and math.isfinite(f) else None for f in fence]
    if kind in FLOATS:
        low, high = (None if f is None else exact(f) for f in known)
        return low, high
    outward = [
        None if f is None else math.nextafter(f, end) for f, end in zip(known, (-math.inf, math.inf), strict=True)
    ]
    limits = Limits.of(outward, kind)
    return limits.low, limits.high
