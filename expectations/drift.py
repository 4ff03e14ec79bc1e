"""headgate's own expectation of distributions: how far they are from those of another table, or of another split."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from great_expectations.compatibility import pydantic
from great_expectations.expectations.expectation import BatchExpectation
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from headgate.expectations.balance import SPLIT
from headgate.expectations.distances import jensen_shannon, kolmogorov_smirnov, stability
from headgate.expectations.judged import TABLE_DOMAIN, TableMetric

QUANTILES = {"psi": 10, "js": 10, "ks": 100}
HASHED = 256  # bins of values that are no numbers
MISSING = "missing"


class DistributionDistance(TableMetric):
    metric_name = "headgate.distribution_distance"
    value_keys = ("column", "parent_table", "splits", "split", "method")

    @staticmethod
    def of(df: DataFrame, options: Mapping[str, Any], parents: Mapping[str, DataFrame]) -> float | None:
        column, splits = options["column"], options["splits"]
        if splits is not None:
            sides = [df.where(F.col(options["split"]) == name) for name in splits]
        else:
            sides = [parents[options["parent_table"]], df]
        return distance(sides[0], sides[1], column, options["method"])


def distance(before: DataFrame, now: DataFrame, column: str, method: str) -> float | None:
    """Return the distance of a column's two distributions; None where one of them has no row."""
    values = [side.select(F.col(column).alias("_hg_v")) for side in (before, now)]
    kind = values[0].schema["_hg_v"].dataType
    if kind != values[1].schema["_hg_v"].dataType:
        raise ValueError(f"'{column}' is {kind.simpleString()} on one side and not on the other")
    numeric = isinstance(kind, T.NumericType)
    if method == "ks" and not numeric:
        raise ValueError(f"'{column}' is {kind.simpleString()}, and ks compares numbers")
    value, edges = F.col("_hg_v"), None
    if numeric:
        value = value.cast("double")
        value = F.when(~F.isnan(value), value)
        parts = QUANTILES[method]
        # The extremes are edges of the statistic that looks at every value; of shares they would make empty bins.
        inner = range(1, parts) if method != "ks" else range(parts + 1)
        cuts = F.array(*(F.lit(i / parts) for i in inner))
        found = values[0].agg(F.percentile(value, cuts)).first()
        edges = sorted(set((found[0] if found else None) or ()))
    counts = [
        {r["bin"]: r["count"] for r in side.groupBy(bin_of(value, edges).alias("bin")).count().collect()}
        for side in values
    ]
    if not all(counts):
        return None
    measures = {"psi": stability, "js": jensen_shannon, "ks": kolmogorov_smirnov}
    if method == "ks":
        counts = [{b: n for b, n in side.items() if b != MISSING} for side in counts]
    return measures[method](counts[0], counts[1])


def bin_of(value: Column, edges: list[float] | None) -> Column:
    if edges is None:
        place = F.pmod(F.xxhash64(value.cast("string")), F.lit(HASHED))
    else:
        place = F.size(F.filter(F.array(*map(F.lit, edges)), lambda e: value > e)) if edges else F.lit(0)
    return F.when(value.isNull(), MISSING).otherwise(F.lpad(place.cast("string"), 4, "0"))


class ExpectDistributionToStayNear(BatchExpectation):
    """The distribution of a column is near that in another table of the pipeline, or alike in two splits.

    column: numbers are compared by the quantiles of the other side, other values by a hash into 256 bins; parent_table:
    the table to compare with; splits: in its place, two names in the column `split`; split: another such column;
    method: psi (population stability index), js (Jensen-Shannon distance), ks (Kolmogorov-Smirnov statistic of numbers,
    on 100 quantiles); max_value: what it may be at most (0.25). Nulls and NaN are a bin of their own, but not in ks. A
    side without any row fails.
    """

    column: str
    parent_table: str | None = None
    splits: list[str] | None = None
    split: str = SPLIT
    method: Literal["psi", "js", "ks"] = "psi"
    max_value: float = 0.25
    metric_dependencies: ClassVar[tuple[str, ...]] = ("headgate.distribution_distance",)
    domain_keys: ClassVar[tuple[str, ...]] = TABLE_DOMAIN
    success_keys: ClassVar[tuple[str, ...]] = ("column", "parent_table", "splits", "split", "method", "max_value")

    @pydantic.root_validator(skip_on_failure=True)
    def names_two_sides(cls, values: Any) -> Any:
        splits = values.get("splits")
        if (values.get("parent_table") is None) == (splits is None) or (splits is not None and len(splits) != 2):
            raise ValueError("give parent_table, or two splits")
        return values

    def _validate(
        self, metrics: dict[str, Any], runtime_configuration: Any = None, execution_engine: Any = None
    ) -> dict[str, Any]:
        found = metrics["headgate.distribution_distance"]
        success = found is not None and found <= self._get_success_kwarg("max_value")
        return {"success": success, "result": {"observed_value": found}}
