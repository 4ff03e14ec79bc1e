"""headgate's own expectation of distributions: how far they are from those before, of another table or split."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from great_expectations.compatibility import pydantic
from great_expectations.expectations.expectation import BatchExpectation
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headgate.expectations.balance import SPLIT
from headgate.expectations.distances import (
    DECILES,
    MISSING,
    bin_of,
    jensen_shannon,
    kolmogorov_smirnov,
    measure_of,
    stability,
)
from headgate.expectations.table_metric import TABLE_DOMAIN, TableMetric
from headgate.words import value_or_null

# Of the statistic that looks at every value, the extremes are edges too.
QUANTILES = {"psi": DECILES, "js": DECILES, "ks": tuple(i / 100 for i in range(101))}
HASHED = 256  # bins of values that are neither numbers nor times
MOST_STRATA = 1_000
PREVIOUS = "(previous)"  # the table's own version before, among the tables that a suite reads


class DistributionDistance(TableMetric):
    metric_name = "headgate.distribution_distance"
    value_keys = ("column", "parent_table", "previous", "splits", "split", "method", "by")

    @staticmethod
    def of(df: DataFrame, options: Mapping[str, Any], parents: Mapping[str, DataFrame]) -> dict[str, float | None]:
        splits, parent = options["splits"], options["parent_table"]
        if splits is not None:
            sides = [df.where(F.col(options["split"]) == name) for name in splits]
        elif parent is None and PREVIOUS not in parents:
            return {}  # it is the first version
        else:
            sides = [parents[PREVIOUS if parent is None else parent], df]
        return distances(sides[0], sides[1], options["column"], options["method"], options["by"])


def distances(
    before: DataFrame, now: DataFrame, column: str, method: str, by: Sequence[str] | None
) -> dict[str, float | None]:
    """Return the distance of a column's two distributions in each stratum; None where one of them has no row.

    Strata are named as JSON; without `by` there is one. Cost: the quantiles, and one aggregate over each side.
    """
    stratum = F.to_json(F.struct(*by), {"ignoreNullFields": "false"}) if by else F.lit("")
    sides = [side.select(stratum.alias("_hg_s"), F.col(column).alias("_hg_v")) for side in (before, now)]
    kind = sides[0].schema["_hg_v"].dataType
    if kind != sides[1].schema["_hg_v"].dataType:
        raise ValueError(f"'{column}' is {kind.simpleString()} on one side and not on the other")
    value = measure_of(F.col("_hg_v"), kind.simpleString())
    if method == "ks" and value is None:
        raise ValueError(f"'{column}' is {kind.simpleString()}, and ks compares numbers and times")
    if value is not None:
        cuts = F.array(*(F.lit(share) for share in QUANTILES[method]))
        edges = F.array_sort(F.array_distinct(F.coalesce(F.percentile(value, cuts), F.array().cast("array<double>"))))
        found = sides[0].groupBy("_hg_s").agg(edges.alias("_hg_e")).limit(MOST_STRATA + 1).collect()
        if found:
            lookup = F.broadcast(before.sparkSession.createDataFrame(found, "_hg_s string, _hg_e array<double>"))
            sides = [side.join(lookup, on="_hg_s", how="left") for side in sides]
    edges_of_row = F.col("_hg_e") if "_hg_e" in sides[0].columns else None
    place = bin_of(F.col("_hg_v").cast("string") if value is None else value, edges_of_row, HASHED)
    counts: list[dict[str, dict[str, int]]] = [{}, {}]
    for known, side in zip(counts, sides, strict=True):
        binned = side.groupBy("_hg_s", place.alias("bin")).count().limit(MOST_STRATA * (HASHED + 1) + 1)
        for name, where, n in binned.collect():
            known.setdefault(name, {})[where] = n
    strata = sorted(counts[0].keys() | counts[1].keys())
    if len(strata) > MOST_STRATA:
        raise ValueError(f"by: there are more than {MOST_STRATA:,} strata of {', '.join(by or ())}")
    one, other = counts
    return {s: distance(one.get(s, {}), other.get(s, {}), method) for s in strata} or {"": None}


def distance(before: Mapping[str, int], now: Mapping[str, int], method: str) -> float | None:
    if not before or not now:
        return None
    measures = {"psi": stability, "js": jensen_shannon, "ks": kolmogorov_smirnov}
    one, other = ({b: n for b, n in side.items() if method != "ks" or b != MISSING} for side in (before, now))
    return measures[method](one, other)


def words_of(stratum: str) -> str:
    """Return a stratum that is named as JSON as messages name it: `carrier=9E, origin=(null)`."""
    return ", ".join(f"{name}={value_or_null(value)}" for name, value in json.loads(stratum).items())


class ExpectDistributionToStayNear(BatchExpectation):
    """The distribution of a column is near that of the version before, of another table, or alike in two splits.

    column: numbers and times are compared by the quantiles of the other side, other values by a hash into 256 bins;
    parent_table: the table to compare with; previous: true for the table's own version before, which the first one
    passes; splits: in place of both, two names in the column `split`; split: another such column; by: columns inside
    whose strata, at most 1,000, it is compared, and of which the farthest counts; method: psi (population stability
    index), js (Jensen-Shannon distance), ks (Kolmogorov-Smirnov statistic of numbers and times, on 100 quantiles);
    max_value: what it may be at most (0.25). Nulls and NaN are a bin of their own, but not in ks. A side, or a stratum
    of it, without any row fails.
    """

    column: str
    parent_table: str | None = None
    previous: bool = False
    splits: list[str] | None = None
    split: str = SPLIT
    method: Literal["psi", "js", "ks"] = "psi"
    by: list[str] | None = None
    max_value: float = 0.25
    metric_dependencies: ClassVar[tuple[str, ...]] = ("headgate.distribution_distance",)
    domain_keys: ClassVar[tuple[str, ...]] = TABLE_DOMAIN
    success_keys: ClassVar[tuple[str, ...]] = (
        *("column", "parent_table", "previous", "splits", "split", "method", "by", "max_value"),
    )

    @pydantic.root_validator(skip_on_failure=True)
    def names_two_sides(cls, values: Any) -> Any:
        splits, previous = values.get("splits"), bool(values.get("previous"))
        given = (values.get("parent_table") is not None) + previous + (splits is not None)
        if given != 1 or (splits is not None and len(splits) != 2):
            raise ValueError("give one of parent_table, previous and two splits")
        return values

    def _validate(
        self, metrics: dict[str, Any], runtime_configuration: Any = None, execution_engine: Any = None
    ) -> dict[str, Any]:
        found, most = metrics["headgate.distribution_distance"], self._get_success_kwarg("max_value")
        known = [d for d in found.values() if d is not None]
        far = {s: d for s, d in found.items() if d is None or d > most}
        result: dict[str, Any] = {"observed_value": max(known, default=None)}
        if self._get_success_kwarg("by"):
            result["details"] = {"strata": found, "far": sorted(far)}
            worst = min(found, key=lambda s: (found[s] is not None, -(found[s] or 0), s), default=None)
            if worst is not None:
                result["details"]["farthest"] = words_of(worst) + (
                    ", of one side alone" if found[worst] is None else ""
                )
        return {"success": not far, "result": result}
