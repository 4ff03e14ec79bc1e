"""Columns mapped to a uniform or a normal distribution by the quantiles of the training rows."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.transforms.batches import by_batches
from headgate.transforms.cleaning.scores import numbers_of
from headgate.transforms.rows import drop_values, with_values
from headgate.transforms.scaling.sampled import ApplySampled, TransformSampled
from headgate.transforms.step import Columns, Context, StepError

Shape = Literal["uniform", "normal"]
END = 1e-7 - 2.0**-52  # shares of a normal distribution are kept this far from 0 and 1, as in scikit-learn
NEAR = 1e-7  # values this near to an end are at it


def fit_quantiles(values: Any, number: int) -> list[float] | None:
    """Return evenly spaced quantiles of the finite ones of some numbers, at most as many as there are cells."""
    known = values[np.isfinite(values)]
    if not len(known):
        return None
    found: list[float] = np.percentile(known, shares(min(number, len(values))) * 100).tolist()
    return found


def shares(number: int) -> Any:
    return np.linspace(0, 1, number)


def to_shape(values: Any, quantiles: Sequence[float], shape: Shape) -> Any:
    """Return the shares below numbers, or the normal deviates of these shares; NaN stays NaN.

    Between two quantiles it is interpolated; of equal quantiles, the mean of the first and the last share.
    """
    points, places = np.asarray(quantiles), shares(len(quantiles))
    up, down = np.interp(values, points, places), np.interp(-values, -points[::-1], -places[::-1])
    found = 0.5 * (up - down)
    near = NEAR if shape == "normal" else 0.0
    with np.errstate(invalid="ignore"):
        found = np.where(values + near > points[-1] if near else values >= points[-1], 1.0, found)
        found = np.where(values - near < points[0] if near else values <= points[0], 0.0, found)
    found = np.where(np.isnan(values), np.nan, found)
    return found if shape == "uniform" else deviates(np.clip(found, END, 1 - END))


def from_shape(values: Any, quantiles: Sequence[float], shape: Shape) -> Any:
    """Return the numbers of which `to_shape` gave these shares or deviates; NaN stays NaN."""
    points, places = np.asarray(quantiles), shares(len(quantiles))
    found = values if shape == "uniform" else below(values)
    near = NEAR if shape == "normal" else 0.0
    numbers = np.interp(found, places, points)
    with np.errstate(invalid="ignore"):
        numbers = np.where(found + near > 1, points[-1], numbers)
        numbers = np.where(found - near < 0, points[0], numbers)
    return np.where(np.isnan(values), np.nan, numbers)


def deviates(places: Any) -> Any:
    """Return the standard normal deviate of each share within 0 and 1 (Wichura 1988); NaN stays NaN."""
    quantile = NormalDist().inv_cdf
    return np.array([quantile(p) if p == p else math.nan for p in places.tolist()], float)


def below(values: Any) -> Any:
    """Return the share of a standard normal distribution below each number; NaN stays NaN."""
    half = math.sqrt(0.5)
    return np.array([0.5 * math.erfc(-v * half) for v in values.tolist()], float)


@dataclass(frozen=True, kw_only=True)
class ApplyQuantiles(ApplySampled):
    """Map columns by fitted quantiles: what `transform_quantile` becomes.

    columns: column -> its quantiles, evenly spaced; null where nothing was learned: such a column becomes null.
    kinds: column -> the type that it had, to which `headgate apply --inverse` brings it back.
    shape: as in `transform_quantile`. Cost: one pass in Arrow batches.
    """

    name: ClassVar[str] = "apply_quantiles"
    columns: Mapping[str, tuple[float, ...] | None]
    shape: Shape = "uniform"

    def apply(self, df: DataFrame) -> DataFrame:
        return self.mapped(df, list(self.columns), to_shape, lambda column, value: value)

    def undo(self, df: DataFrame) -> DataFrame:
        return self.mapped(df, [c for c in self.columns if c in df.columns], from_shape, self.typed)

    def mapped(
        self,
        df: DataFrame,
        columns: Sequence[str],
        change: Callable[[Any, Sequence[float], Shape], Any],
        typed: Callable[[str, Column], Column],
    ) -> DataFrame:
        known = {c: q for c in columns if (q := self.columns[c])}
        values = {c: F.lit(None).cast("double") for c in columns if c not in known}
        if known:
            mapping = mapping_of(list(known.values()), self.shape, change)
            returns = f"struct<{','.join(f'c{i}:double' for i in range(len(known)))}>"
            df, (found,) = with_values(df, [by_batches(mapping, returns, numbers_of(known))])
            values |= {c: found[f"c{i}"] for i, c in enumerate(known)}
            return drop_values(df.withColumns({c: typed(c, v) for c, v in values.items()}), [found])
        return df.withColumns({c: typed(c, v) for c, v in values.items()}) if values else df


def mapping_of(
    quantiles: Sequence[Sequence[float]], shape: Shape, change: Callable[[Any, Sequence[float], Shape], Any]
) -> Callable[[pa.Array], pa.Array]:
    """Return the function of a batch of rows that maps each of its columns."""

    def mapped(cells: pa.Array) -> pa.Array:
        arrays = []
        for i, points in enumerate(quantiles):
            cell = cells.field(i)
            found = change(cell.to_numpy(zero_copy_only=False).astype(float), points, shape)
            arrays.append(pa.array(found, pa.float64(), mask=cell.is_null().to_numpy(zero_copy_only=False)))
        return pa.StructArray.from_arrays(arrays, [f"c{i}" for i in range(len(arrays))])

    return mapped


@dataclass(frozen=True, kw_only=True)
class TransformQuantile(TransformSampled):
    """Spread columns evenly, or normally, by the share of the training rows that is below each value.

    columns: numeric columns, which become doubles.
    shape: `uniform` (default), within 0 and 1; `normal`, standard normal deviates within -5.2 and 5.2.
    quantiles: how many are kept (1,000), evenly spaced; between two of them it is interpolated.
    sample: training rows of which the quantiles are, those of the smallest hashes of their row id (100,000): of fewer
        rows, all.
    Values beyond those of the sample are at the ends, infinities too. Null stays null, NaN stays NaN; they and
    infinities are left out of what is learned. A constant column becomes the lower end, one without any value null. The
    cells are not noted in `_changed`, as all are changed. Can be undone (`headgate apply --inverse`) within the known
    range. Neither order nor partitioning matters. Same numbers as scikit-learn's `QuantileTransformer` on the sample.
    Cost: one pass to draw the sample, which comes to the driver; one pass in Arrow batches to apply.
    """

    name: ClassVar[str] = "transform_quantile"
    shape: Shape = "uniform"
    quantiles: int = 1_000

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        if not 2 <= self.quantiles <= 10_000:
            raise StepError("quantiles must be 2 to 10,000")
        return super().columns_after(have, tables)

    def fit(self, df: DataFrame, context: Context) -> ApplyQuantiles:
        kinds = dict(df.dtypes)
        found = {c: fit_quantiles(v, self.quantiles) for c, v in self.numbers(df).items()}
        kept = {c: None if q is None else tuple(q) for c, q in found.items()}
        return ApplyQuantiles(columns=kept, kinds={c: kinds[c] for c in self.columns}, shape=self.shape)
