"""Columns scaled by a shift and a factor: min-max, standard, robust and max-abs scaling, overall or per group."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.transforms.cleaning.outliers import finite
from headgate.transforms.imputation.models import as_kind
from headgate.transforms.kinds import EXACT_DOUBLES, FLOATS, WHOLE, as_text, need_kinds, require_few
from headgate.transforms.quantiles import spreads_of
from headgate.transforms.rows import local_frame, quoted
from headgate.transforms.scaling.exact import Moments, merged, moments
from headgate.transforms.step import Columns, Context, Estimator, Step, StepError, require_columns

MOST_GROUPS = 100_000
Line = tuple[float | None, float | None]  # centre and spread; null where nothing was learned


@dataclass(frozen=True, kw_only=True)
class ScaleLinear(Step):
    """Subtract a centre, divide by a spread, add an offset: what every fitted linear scaling becomes.

    columns: column -> [centre, spread]; a column without them becomes null.
    kinds: column -> the type that it had, to which `headgate apply --inverse` brings it back.
    origins: column -> a whole number that is taken off before all else, exactly: of columns beyond what doubles hold.
    offset: added to what is scaled. within: the range into which results are clipped.
    by, groups: with `by`, each entry of `groups` is {"key": [values of `by`], "columns": {column: [centre, spread]}};
        unseen groups and null keys have those of all rows.
    Null stays null, NaN stays NaN, infinities stay infinite unless clipped. Cost: one pass; groups are broadcast.
    """

    name: ClassVar[str] = "scale_linear"
    columns: Mapping[str, Line]
    kinds: Mapping[str, str]
    origins: Mapping[str, int] | None = None
    offset: float = 0.0
    within: tuple[float, float] | None = None
    by: tuple[str, ...] = ()
    groups: tuple[Mapping[str, Any], ...] = ()

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns([*self.columns, *self.by], have)
        need_kinds(have, self.name, self.columns, numbers=True)
        return {**have, **dict.fromkeys(self.columns, "double")}

    def learned(self) -> bool:
        return any(centre is not None for centre, _ in self.columns.values())

    def origin(self, column: str) -> int:
        return (self.origins or {}).get(column, 0)

    def apply(self, df: DataFrame) -> DataFrame:
        kinds = dict(df.dtypes)

        def scaled(column: str, value: Column, centre: Column, spread: Column) -> Column:
            result = (as_double(value, kinds[column], self.origin(column)) - centre) / spread + F.lit(self.offset)
            if self.within is None:
                return result
            low, high = map(F.lit, self.within)
            return F.when(F.isnan(result), result).when(result < low, low).when(result > high, high).otherwise(result)

        return self.changed(df, list(self.columns), scaled)

    def undone(self) -> Sequence[str]:
        return tuple(self.columns)

    def undo(self, df: DataFrame) -> DataFrame:
        def restored(column: str, value: Column, centre: Column, spread: Column) -> Column:
            number, kind = (value - F.lit(self.offset)) * spread + centre, self.kinds[column]
            origin = self.origin(column)
            if origin:
                return (as_kind(number, exact_kind(kind)) + F.lit(Decimal(origin))).try_cast(kind)
            return number.cast(kind) if kind in FLOATS else as_kind(number, kind)

        here = [c for c in self.columns if c in df.columns]
        lacking = next((c for c in self.by if c not in df.columns), None) if self.groups else None
        if here and lacking is not None:
            by = ", ".join(self.by)
            raise StepError(f"'{here[0]}' was scaled by {by}; it cannot be brought back without the column '{lacking}'")
        return self.changed(df, here, restored) if here else df

    def changed(
        self, df: DataFrame, columns: Sequence[str], change: Callable[[str, Column, Column, Column], Column]
    ) -> DataFrame:
        """Return the rows with columns changed by their centre and spread, those of the row's group if it has some."""
        before, lines = df.columns, {}
        for i, column in enumerate(columns):
            centre, spread = (F.lit(x).cast("double") for x in self.columns[column])
            if self.groups:
                known = F.col("_hg_known").isNotNull()
                centre = F.when(known, F.col(f"_hg_centre{i}")).otherwise(centre)
                spread = F.when(known, F.col(f"_hg_spread{i}")).otherwise(spread)
            lines[column] = (centre, spread)
        if self.groups:
            df = self.with_groups(df, columns)
        values = {c: change(c, F.col(quoted(c)), *line) for c, line in lines.items()}
        return df.withColumns(values).select(*map(quoted, before))

    def with_groups(self, df: DataFrame, columns: Sequence[str]) -> DataFrame:
        require_columns(self.by, df.columns)
        kinds = dict(df.dtypes)
        rows = [(*g["key"], True, *(x for c in columns for x in g["columns"][c])) for g in self.groups]
        ddl = [f"_hg_key{i} string" for i in range(len(self.by))] + ["_hg_known boolean"]
        ddl += [f"_hg_{what}{i} double" for i in range(len(columns)) for what in ("centre", "spread")]
        lookup = local_frame(df.sparkSession, rows, ", ".join(ddl))
        matches = F.lit(True)
        for i, column in enumerate(self.by):
            matches = matches & (as_text(F.col(quoted(column)), kinds[column]) == F.col(f"_hg_key{i}"))
        return df.join(F.broadcast(lookup), on=matches, how="left")


def exact_kind(kind: str) -> str:
    """Return the decimal type that holds all numbers of a type of exact numbers."""
    return "decimal(20,0)" if kind in WHOLE else kind


def as_double(value: Column, kind: str, origin: int) -> Column:
    """Return a number as a double, after a whole number was taken off it exactly."""
    return (value.cast(exact_kind(kind)) - F.lit(Decimal(origin)) if origin else value).cast("double")


@dataclass(frozen=True, kw_only=True)
class LinearScaler(Estimator):
    """The base of linear scaling: fit overall and per group, become a `ScaleLinear`."""

    columns: tuple[str, ...]
    by: tuple[str, ...] = ()

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns([*self.columns, *self.by], have)
        require_few(self.columns)
        both = set(self.columns) & set(self.by)
        if both:
            raise StepError(f"'{min(both)}' cannot be scaled and be in `by` as well")
        need_kinds(have, self.name, self.columns, numbers=True)
        need_kinds(have, self.name, self.by, numbers=False)
        return {**have, **dict.fromkeys(self.columns, "double")}

    def learns_from(self) -> tuple[str, ...]:
        return (*self.columns, *self.by)

    def statistic(self, value: Column) -> Column:
        """Return the aggregate of a column's finite numbers from which its line follows; null where there is none."""
        raise NotImplementedError

    def line(self, found: Any) -> tuple[float, float]:
        """Return centre and spread from what `statistic` found; a spread of zero where the column is constant."""
        raise NotImplementedError

    def offset_and_range(self) -> tuple[float, tuple[float, float] | None]:
        """Return what is added to scaled values, and the range into which they are clipped, if any."""
        return 0.0, None

    def spread_of_constant(self) -> float:
        return 1.0

    def fit(self, df: DataFrame, context: Context) -> ScaleLinear:
        kinds = dict(df.dtypes)
        keys = [as_text(F.col(quoted(c)), kinds[c]) for c in self.by]
        found = self.found(df, [finite(c, kinds[c]) for c in self.columns], keys)
        overall = found.pop((), [None] * len(self.columns))
        origins = {c: o for c, x in zip(self.columns, overall, strict=True) if (o := self.origin(c, x, kinds[c]))}
        if origins:
            cells = {c: F.col(quoted(c)) if kinds[c] not in FLOATS else finite(c, kinds[c]) for c in self.columns}
            found = self.found(df, [as_double(v, kinds[c], origins.get(c, 0)) for c, v in cells.items()], keys)
            overall = found.pop(())
        lines = {c: self.settled(c, x) for c, x in zip(self.columns, overall, strict=True)}
        groups = []
        for key, listed in sorted((k, v) for k, v in found.items() if None not in k):
            own = {c: self.settled(c, x) for c, x in zip(self.columns, listed, strict=True)}
            groups.append(
                {"key": list(key), "columns": {c: o if o[0] is not None else lines[c] for c, o in own.items()}}
            )
        offset, within = self.offset_and_range()
        had = {c: kinds[c] for c in self.columns}
        options: dict[str, Any] = {"offset": offset, "within": within, "by": self.by, "groups": tuple(groups)}
        return ScaleLinear(columns=lines, kinds=had, origins=origins or None, **options)

    def origin(self, column: str, found: Any, kind: str) -> int:
        """Return what is taken off whole numbers and decimals whose centre is beyond what doubles hold; else 0."""
        centre, _ = (None, None) if found is None or kind in FLOATS else self.settled(column, found)
        return int(centre) if centre is not None and abs(centre) > EXACT_DOUBLES else 0

    def settled(self, column: str, found: Any) -> Line:
        if found is None:
            return None, None
        centre, spread = self.line(found)
        if not math.isfinite(spread):
            raise StepError(f"{self.name}: the values of '{column}' are too far apart for a double")
        return centre, spread or self.spread_of_constant()

    def found(
        self, df: DataFrame, values: Sequence[Column], keys: Sequence[Column]
    ) -> dict[tuple[Any, ...], list[Any]]:
        """Return the statistic of each column for each group, and for all rows under the empty key."""
        names = [f"_hg_key{i}" for i in range(len(keys))]
        inner = [v.alias(f"_hg_x{i}") for i, v in enumerate(values)]
        rows = df.select(*(k.alias(n) for k, n in zip(keys, names, strict=True)), *inner)
        statistics = [self.statistic(F.col(f"_hg_x{i}")).alias(f"_hg_s{i}") for i in range(len(values))]
        grouped = rows.groupingSets([[F.col(n) for n in names], []], *names) if keys else rows.groupBy()
        level = F.grouping_id() if keys else F.lit(1)
        found = grouped.agg(level.alias("_hg_all"), *statistics).limit(MOST_GROUPS + 2).collect()
        if len(found) > MOST_GROUPS + 1:
            raise StepError(f"by: more than {MOST_GROUPS:,} groups of {', '.join(self.by)}")
        return {
            () if row["_hg_all"] else tuple(row[: len(keys)]): [row[f"_hg_s{i}"] for i in range(len(values))]
            for row in found
        }


@dataclass(frozen=True, kw_only=True)
class ScaleMinMax(LinearScaler):
    """Scale columns so that the training rows span a range.

    columns: numeric columns, which become doubles.
    by: columns whose groups each have their own least and greatest value; unseen groups, null keys and groups without
        any value have those of all rows.
    range: the least and the greatest value afterwards (0 and 1).
    clip: whether values beyond those of the training rows are brought to the ends of the range.
    Null stays null, NaN stays NaN; they and infinities are left out of what is learned. A constant column becomes the
    lower end, one without any value null. The cells are not noted in `_changed`, as all are changed. Can be undone
    (`headgate apply --inverse`), but for what was clipped. Same numbers as scikit-learn's `MinMaxScaler`.
    Cost: one aggregate over all columns to fit, one pass to apply.
    """

    name: ClassVar[str] = "scale_min_max"
    range: tuple[float, float] = (0.0, 1.0)
    clip: bool = False

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        low, high = self.range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise StepError(f"range: [{low}, {high}] is not a least and a greater number")
        return super().columns_after(have, tables)

    def statistic(self, value: Column) -> Column:
        return F.when(F.count(value) > 0, F.struct(F.min(value).alias("low"), F.max(value).alias("high")))

    def line(self, found: Any) -> tuple[float, float]:
        return found["low"], (found["high"] - found["low"]) / (self.range[1] - self.range[0])

    def spread_of_constant(self) -> float:
        return 1 / (self.range[1] - self.range[0])

    def offset_and_range(self) -> tuple[float, tuple[float, float] | None]:
        return self.range[0], self.range if self.clip else None


@dataclass(frozen=True, kw_only=True)
class ScaleStandard(LinearScaler):
    """Scale columns to mean 0 and standard deviation 1 in the training rows.

    columns: numeric columns, which become doubles.
    by: columns whose groups each have their own mean and deviation; unseen groups, null keys and groups without any
        value have those of all rows.
    center: whether the mean is subtracted. scale: whether to divide by the (population) standard deviation.
    Null stays null, NaN stays NaN; they and infinities are left out of what is learned. A constant column becomes 0
    (its distance from the mean), one without any value null. Sums are exact, so that neither order nor partitioning
    matters, whatever the magnitudes. The cells are not noted in `_changed`, as all are changed. Can be undone
    (`headgate apply --inverse`). Same numbers as scikit-learn's `StandardScaler`.
    Cost: one pass in Arrow batches over all columns to fit, one pass to apply; with `by`, what is shuffled grows with
    groups and columns.
    """

    name: ClassVar[str] = "scale_standard"
    center: bool = True
    scale: bool = True

    def found(
        self, df: DataFrame, values: Sequence[Column], keys: Sequence[Column]
    ) -> dict[tuple[Any, ...], list[Any]]:
        groups = moments(df, values, keys, f"groups of {', '.join(self.by)}")
        overall = merged(groups) if groups else [Moments()] * len(values)
        known = {**groups, (): overall}
        return {key: [m if m.n else None for m in listed] for key, listed in known.items()}

    def line(self, found: Moments) -> tuple[float, float]:
        return found.mean if self.center else 0.0, math.sqrt(found.variance) if self.scale else 1.0


@dataclass(frozen=True, kw_only=True)
class ScaleRobust(LinearScaler):
    """Scale columns by the median and the range between two quantiles of the training rows, which outliers do not move.

    columns: numeric columns, which become doubles.
    by: columns whose groups each have their own quantiles; unseen groups, null keys and groups without any value have
        those of all rows.
    quantiles: the lower and the upper one, as shares (.25 and .75); exact, linearly interpolated.
    center: whether the median is subtracted. scale: whether to divide by the range between the quantiles.
    Null stays null, NaN stays NaN; they and infinities are left out of what is learned. A column whose quantiles are
    equal is centred alone, one without any value becomes null. The cells are not noted in `_changed`, as all are
    changed. Can be undone (`headgate apply --inverse`). Same numbers as scikit-learn's `RobustScaler`.
    Cost: a count and two passes to fit (one where there are few rows), one pass to apply.
    """

    name: ClassVar[str] = "scale_robust"
    quantiles: tuple[float, float] = (0.25, 0.75)
    center: bool = True
    scale: bool = True

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        low, high = self.quantiles
        if not 0 <= low < high <= 1:
            raise StepError(f"quantiles: [{low}, {high}] are not a share and a greater one, within 0 and 1")
        return super().columns_after(have, tables)

    def found(
        self, df: DataFrame, values: Sequence[Column], keys: Sequence[Column]
    ) -> dict[tuple[Any, ...], list[Any]]:
        shares = (self.quantiles[0], 0.5, self.quantiles[1])
        most = (MOST_GROUPS, f"groups of {', '.join(self.by)}")
        spreads = spreads_of(df, [(v, shares) for v in values], keys, overall=True, most=most)
        return {key: [s and s.quantiles for s in listed] for key, listed in spreads.items()}

    def line(self, found: Any) -> tuple[float, float]:
        low, median, high = found
        return median if self.center else 0.0, high - low if self.scale else 1.0


@dataclass(frozen=True, kw_only=True)
class ScaleMaxAbs(LinearScaler):
    """Scale columns by the greatest absolute value of the training rows; zero stays zero.

    columns: numeric columns, which become doubles.
    by: columns whose groups each have their own greatest absolute value; unseen groups, null keys and groups without
        any value have that of all rows.
    Null stays null, NaN stays NaN; they and infinities are left out of what is learned. A column of zeros stays, one
    without any value becomes null. The cells are not noted in `_changed`, as all are changed. Can be undone (`headgate
    apply --inverse`). Same numbers as scikit-learn's `MaxAbsScaler`.
    Cost: one aggregate over all columns to fit, one pass to apply.
    """

    name: ClassVar[str] = "scale_max_abs"

    def statistic(self, value: Column) -> Column:
        return F.max(F.abs(value))

    def line(self, found: Any) -> tuple[float, float]:
        return 0.0, found
