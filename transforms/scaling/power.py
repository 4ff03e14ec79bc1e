"""Power transforms that make columns more like normal ones: Box-Cox and Yeo-Johnson."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.transforms.cleaning.scores import need_scikit
from headgate.transforms.rows import quoted
from headgate.transforms.scaling.exact import moments_of
from headgate.transforms.scaling.logs import Invalid, only_above
from headgate.transforms.scaling.sampled import ApplySampled, TransformSampled
from headgate.transforms.step import Columns, Context, StepError

Method = Literal["yeo_johnson", "box_cox"]
NEARLY = 2.0**-52  # an exponent within this of 0 (or 2) is the logarithm


def fit_power(values: Any, method: Method, standardize: bool) -> dict[str, float] | None:
    """Return the exponent of greatest likelihood of the finite ones of some numbers, then mean and deviation.

    None without any number; an exponent of 1 for equal numbers. The likelihood is maximised by SciPy, as scikit-learn
    does.
    """
    from scipy import special, stats

    known = values[np.isfinite(values)]
    if not len(known):
        return None
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        if known.min() == known.max():
            exponent = 1.0
        else:
            exponent = float((stats.boxcox if method == "box_cox" else stats.yeojohnson)(known)[1])
        moved = (special.boxcox if method == "box_cox" else stats.yeojohnson)(known, exponent)
    found = moments_of(moved)
    if not math.isfinite(exponent) or found.n < len(known):
        raise ArithmeticError(f"exponent {exponent}")
    deviation = math.sqrt(found.variance) if known.min() < known.max() else 0.0
    if deviation == 0 and known.min() < known.max():
        raise ArithmeticError(f"exponent {exponent} makes all values one")
    line = (found.mean, deviation or 1.0) if standardize else (0.0, 1.0)
    return {"exponent": exponent, "mean": line[0], "deviation": line[1]}


@dataclass(frozen=True, kw_only=True)
class ApplyPower(ApplySampled):
    """Raise columns to fitted powers: what `transform_power` becomes.

    columns: column -> {exponent, mean, deviation}, null where nothing was learned: such a column becomes null.
    kinds: column -> the type that it had, to which `headgate apply --inverse` brings it back.
    method, invalid: as in `transform_power`. Cost: one pass.
    """

    name: ClassVar[str] = "apply_power"
    columns: Mapping[str, Mapping[str, float] | None]
    method: Method = "yeo_johnson"
    invalid: Invalid = "reject"

    def apply(self, df: DataFrame) -> DataFrame:
        values = {c: F.lit(None).cast("double") for c in self.columns}
        raised = box_cox if self.method == "box_cox" else yeo_johnson
        for column, found in self.columns.items():
            if found:
                power = raised(F.col(quoted(column)).cast("double"), found["exponent"])
                values[column] = (power - F.lit(found["mean"])) / F.lit(found["deviation"])
        if self.method == "yeo_johnson":
            return df.withColumns(values)
        return only_above(df, self.id, 0.0, values, self.invalid)

    def undo(self, df: DataFrame) -> DataFrame:
        values = {}
        root = box_cox_inverse if self.method == "box_cox" else yeo_johnson_inverse
        for column, found in self.columns.items():
            if column in df.columns and found:
                power = F.col(quoted(column)) * F.lit(found["deviation"]) + F.lit(found["mean"])
                values[column] = self.typed(column, root(power, found["exponent"]))
        return df.withColumns(values) if values else df


def box_cox(x: Column, exponent: float) -> Column:
    return raised(F.log(x), exponent)


def box_cox_inverse(y: Column, exponent: float) -> Column:
    return F.exp(lowered(y, exponent))


def yeo_johnson(x: Column, exponent: float) -> Column:
    return F.when(x >= 0, raised(F.log1p(x), exponent)).otherwise(-raised(F.log1p(-x), 2 - exponent))


def yeo_johnson_inverse(y: Column, exponent: float) -> Column:
    return F.when(y >= 0, F.expm1(lowered(y, exponent))).otherwise(-F.expm1(lowered(-y, 2 - exponent)))


def raised(logarithm: Column, exponent: float) -> Column:
    """Return (z^exponent - 1) / exponent of a number with a given logarithm; that itself where the exponent is 0."""
    return logarithm if abs(exponent) < NEARLY else F.expm1(logarithm * F.lit(exponent)) / F.lit(exponent)


def lowered(power: Column, exponent: float) -> Column:
    """Return the logarithm of the number of which `raised` gives a power; null where there is none."""
    return power if abs(exponent) < NEARLY else F.log1p(power * F.lit(exponent)) / F.lit(exponent)


@dataclass(frozen=True, kw_only=True)
class TransformPower(TransformSampled):
    """Make columns more like normal ones by the power of greatest likelihood.

    columns: numeric columns, which become doubles.
    method: `yeo_johnson` (default) takes any number; `box_cox` numbers above 0 only.
    standardize: whether the result is scaled to mean 0 and standard deviation 1.
    invalid: of `box_cox`, what happens to a row with a value at or below 0: `reject` (default) marks it with the value
        as evidence, `null` empties the cell and notes it in `_changed`. Among the rows to learn from it is refused.
    sample: training rows on which power, mean and deviation are fitted, those of the smallest hashes of their row id
        (100,000): of fewer rows, all.
    Null stays null, NaN stays NaN; they and infinities are left out of what is learned. A constant column keeps the
    power 1, one without any value becomes null. The cells are not noted in `_changed`, as all are changed. Can be
    undone (`headgate apply --inverse`). Neither order nor partitioning matters. Same numbers as scikit-learn's
    `PowerTransformer` on the sample. Needs the extra `models` to fit, not to apply. Source: Box and Cox 1964; Yeo and
    Johnson 2000.
    Cost: one pass to draw the sample, which comes to the driver; some 30 passes over each column of it; one pass to
    apply.
    """

    name: ClassVar[str] = "transform_power"
    method: Method = "yeo_johnson"
    standardize: bool = True
    invalid: Invalid = "reject"

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        need_scikit()
        return super().columns_after(have, tables)

    def fit(self, df: DataFrame, context: Context) -> ApplyPower:
        kinds = dict(df.dtypes)
        found = {}
        for column, numbers in self.numbers(df).items():
            if self.method == "box_cox" and (numbers <= 0).any():
                raise StepError(
                    f"transform_power: '{column}' has values at or below 0, of which box_cox knows no power; put "
                    "reject_rows before it, or use method yeo_johnson"
                )
            try:
                found[column] = fit_power(numbers, self.method, self.standardize)
            except (ArithmeticError, ValueError) as e:
                raise StepError(
                    f"transform_power: no power of '{column}' can be found that doubles hold ({e}); put check_outliers "
                    "before it, or use transform_quantile"
                ) from e
        had = {c: kinds[c] for c in self.columns}
        return ApplyPower(columns=found, kinds=had, method=self.method, invalid=self.invalid)
