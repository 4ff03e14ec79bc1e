"""Exact quantiles of exact numbers: Spark's own go through doubles, which end at 2^53."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import Window as W
from pyspark.sql import functions as F


def exact_quantiles(
    df: DataFrame, value: Column, keys: Sequence[Column], quarters: Sequence[int]
) -> dict[tuple[Any, ...], list[Fraction]]:
    """Return the given quartiles of `value` in each group of equal keys, interpolated as Spark's `percentile` does.

    value: whole numbers or decimals; nulls are left out, and so is a group without any value. quarters: 1, 2 or 3.
    Cost: a shuffle of the distinct values and a sort of them in each group; two rows a quartile come to the driver.
    """
    names = [f"_hg_k{i}" for i in range(len(keys))]
    groups = [F.col(n) for n in names] or [F.lit(0)]
    values = df.select(value.alias("_hg_value"), *(k.alias(n) for k, n in zip(keys, names, strict=True)))
    counted = values.where("_hg_value is not null").groupBy(*names, "_hg_value").agg(F.count(F.lit(1)).alias("_hg_n"))
    whole = W.partitionBy(*groups).rowsBetween(W.unboundedPreceding, W.unboundedFollowing)
    upto = W.partitionBy(*groups).orderBy("_hg_value").rowsBetween(W.unboundedPreceding, W.currentRow)
    placed = counted.withColumns({"_hg_upto": F.sum("_hg_n").over(upto), "_hg_all": F.sum("_hg_n").over(whole)})
    first = F.col("_hg_upto") - F.col("_hg_n")
    hit = F.lit(False)
    for q in quarters:
        fourfold = (F.col("_hg_all") - 1) * q
        for place in (F.shiftright(fourfold, 2), F.shiftright(fourfold + 3, 2)):
            hit = hit | ((first <= place) & (place < F.col("_hg_upto")))
    found: dict[tuple[Any, ...], list[Any]] = {}
    for row in placed.where(hit).select(*names, "_hg_value", first.alias("_hg_first"), "_hg_upto", "_hg_all").collect():
        found.setdefault(tuple(row[n] for n in names), []).append(row)
    return {key: [quantile(rows, q) for q in quarters] for key, rows in found.items()}


def quantile(rows: Sequence[Any], quarter: int) -> Fraction:
    place = Fraction((rows[0]["_hg_all"] - 1) * quarter, 4)
    low, high = (
        next(Fraction(r["_hg_value"]) for r in rows if r["_hg_first"] <= at < r["_hg_upto"])
        for at in (math.floor(place), math.ceil(place))
    )
    return low + (high - low) * (place - math.floor(place))
