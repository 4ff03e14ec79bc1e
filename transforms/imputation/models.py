"""Missing values filled by models of all columns together, fitted on a hash sample of the training rows."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.transforms.batches import by_batches, drawn, matrix_of
from headgate.transforms.imputation.gaussian import Gaussian, fill, fit_rows
from headgate.transforms.kinds import FLOATS, TIMES, WHOLE, is_number, known_kinds, missing
from headgate.transforms.rows import ROW_ID, change_cells, drop_values, quoted, stable_hash, with_values
from headgate.transforms.step import Columns, Context, Estimator, Step, StepError, require_columns


@dataclass(frozen=True, kw_only=True)
class FillGaussian(Step):
    """Fill missing cells by a fitted normal model: what `impute_gaussian` becomes.

    columns: those that are filled. using: all columns of the model, in its order. model: its mean and covariance, as
        plain values; null if nothing was learned. draw: a seed, for draws in place of means.
    Cost: one pass in Arrow batches.
    """

    name: ClassVar[str] = "fill_gaussian"
    columns: tuple[str, ...]
    using: tuple[str, ...]
    model: Mapping[str, Any] | None
    draw: int | None = None

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns(self.using, have)
        return have

    def check(self, df: DataFrame, context: Context) -> None:
        super().check(df, context)
        need_measures(df, self.name, self.using)

    def learned(self) -> bool:
        return self.model is not None and any(math.isfinite(m) for m in self.model["mean"] if m is not None)

    def apply(self, df: DataFrame) -> DataFrame:
        if self.model is None:
            return df
        kinds = dict(df.dtypes)
        rows = F.struct(stable_hash(df, 0, [ROW_ID]).alias("id"), measures_of(self.using, kinds).alias("cells"))
        df, (filled,) = with_values(df, [by_batches(filling(self.model, self.draw), "array<double>", rows)])
        values, changes = {}, {}
        for column in self.columns:
            new = as_kind(filled[self.using.index(column)], kinds[column])
            changes[column] = missing(column, kinds[column]) & new.isNotNull()
            values[column] = F.when(changes[column], new).otherwise(F.col(quoted(column)))
        return drop_values(change_cells(df, self.id, values, changes), [filled])


@dataclass(frozen=True, kw_only=True)
class ImputeByModel(Estimator):
    """The base of imputation by a model of several columns, fitted on a hash sample."""

    most: ClassVar[int] = 200  # columns of a model
    columns: tuple[str, ...]
    using: tuple[str, ...] = ()
    sample: int = 50_000

    @property
    def modelled(self) -> tuple[str, ...]:
        """Return all columns of the model."""
        return tuple(dict.fromkeys([*self.columns, *self.using]))

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns(self.modelled, have)
        if not 2 <= self.sample <= 1_000_000:
            raise StepError(f"sample: {self.sample:,} is not within 2 and 1,000,000")
        if not self.columns or len(self.modelled) > self.most:
            raise StepError(f"columns: name one or more, with `using` at most {self.most}, not {len(self.modelled):,}")
        return have

    def learns_from(self) -> tuple[str, ...]:
        return self.modelled


@dataclass(frozen=True, kw_only=True)
class ImputeGaussian(ImputeByModel):
    """Fill missing cells with what the row's known cells make likeliest, if all were normally distributed together.

    columns: columns to fill: numbers, dates, times and booleans.
    using: further columns of these types that help to tell.
    draw: a seed: cells are then drawn from their distribution instead of set to its mean, each by row id, column and
        seed alone, under a model that is fitted on rows drawn anew from the sample with the same seed. Tables made with
        several seeds show how unsure what is computed of them is (multiple imputation; `headgate impute --draws`).
    sample: training rows to fit on (50,000), those of the smallest hashes of their row id.
    iterations: most of them (100); it stops before when no parameter moves by a ten-thousandth of a deviation.
    Null and NaN are missing; infinities, and numbers beyond 1e150, unknown but not filled. Fills stay within the known
    range of the column, to the digits of a double; whole numbers and dates are rounded, booleans are true from one half
    on. A row that knows nothing gets the means; a column without any value stays as it is; collinear and constant
    columns do no harm. Filled cells are noted in `_changed`. The same row gets the same value in any partitioning.
    Cost: one pass to draw the sample, which comes to the driver; one pass to apply. Source: Dempster, Laird, Rubin
    1977; draws: Honaker and King 2010 (bootstrap and EM).
    """

    name: ClassVar[str] = "impute_gaussian"
    revision: ClassVar[int] = 2
    most: ClassVar[int] = 500
    draw: int | None = None
    iterations: int = 100

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        if self.iterations < 1:
            raise StepError(f"iterations: {self.iterations} is not at least 1")
        after = super().columns_after(have, tables)
        need_measures(have, self.name, self.modelled)
        return after

    def fit(self, df: DataFrame, context: Context) -> FillGaussian:
        cells = measures_of(self.modelled, dict(df.dtypes))
        values = matrix_of(drawn(df, cells, self.sample, seed=0))
        if self.draw is not None and len(values):
            values = values[np.random.default_rng(self.draw % 2**64).integers(len(values), size=len(values))]
        model = fit_rows(values, self.modelled, iterations=self.iterations).state() if len(values) else None
        return FillGaussian(columns=self.columns, using=self.modelled, model=model, draw=self.draw)


def need_measures(have: DataFrame | Columns, step: str, columns: Sequence[str]) -> None:
    """Raise `StepError` for the first column that is neither a number nor a date, a time or a boolean."""
    for column, kind in known_kinds(have, columns):
        if not is_number(kind) and kind not in ("date", "boolean", *TIMES):
            allowed = "a number, a date, a time or a boolean"
            raise StepError(f"{step}: '{column}' is {kind}, not {allowed}; put a cast before")


def measure_of(column: str, kind: str) -> Column:
    """Return a cell as a double: days of dates, seconds of times, 0 and 1 of booleans."""
    value = F.col(quoted(column))
    if kind == "date":
        return F.unix_date(value).cast("double")
    return F.unix_micros(value.cast("timestamp")) / F.lit(1e6) if kind in TIMES else value.cast("double")


def measures_of(columns: Sequence[str], kinds: Mapping[str, str]) -> Column:
    """Return cells as a struct of doubles."""
    return F.struct(*(measure_of(c, kinds[c]).alias(f"c{i}") for i, c in enumerate(columns)))


def as_kind(number: Column, kind: str) -> Column:
    """Return a double as a value of a type, rounded where it must be; null for NaN and what the type does not hold."""
    number = F.nanvl(number, F.lit(None).cast("double"))
    if kind in FLOATS:
        return number.cast(kind)
    if kind == "boolean":
        return number >= 0.5
    if kind == "date":
        return F.date_from_unix_date(F.rint(number).try_cast("int"))
    if kind in TIMES:
        return F.timestamp_micros(F.rint(number * 1e6).try_cast("bigint")).cast(kind)
    return F.rint(number).try_cast("decimal(38,0)").try_cast(kind) if kind in WHOLE else number.try_cast(kind)


def filling(state: Mapping[str, Any], draw: int | None) -> Callable[[pa.Array], pa.Array]:
    """Return the function of a batch of rows that gives their cells filled."""
    model = Gaussian.from_state(state)

    def filled(rows: pa.Array) -> pa.Array:
        ids = rows.field(0).to_numpy(zero_copy_only=False).astype(np.int64).view(np.uint64)
        out = fill(matrix_of(rows.field(1)), model, ids=ids, seed=draw)
        ends = pa.array(np.arange(len(out) + 1) * len(model.columns), pa.int32())
        return pa.ListArray.from_arrays(ends, pa.array(out.ravel(), pa.float64()))

    return filled
