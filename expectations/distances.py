"""Distances of two distributions, each given as counts by bins, and the bins that values fall into."""

import math
from collections.abc import Mapping

from pyspark.sql import Column
from pyspark.sql import functions as F

NUMBERS = ("tinyint", "smallint", "int", "bigint", "float", "double")
TIMES = ("date", "timestamp", "timestamp_ntz")
DECILES = tuple(i / 10 for i in range(1, 10))  # the extremes would make bins that are empty on one side
MISSING = "missing"
LEAST = 1e-4  # share of an empty bin


def shares_of(before: Mapping[str, int], now: Mapping[str, int]) -> list[tuple[float, float]] | None:
    """Return the two shares of each bin, in the order of their names; None where one of the two is empty."""
    one, other = sum(before.values()), sum(now.values())
    if not one or not other:
        return None
    return [(before.get(b, 0) / one, now.get(b, 0) / other) for b in in_order(before, now)]


def in_order(before: Mapping[str, int], now: Mapping[str, int]) -> list[str]:
    return sorted(before.keys() | now.keys(), key=lambda name: (len(name), name))  # 10 comes after 9


def measure_of(value: Column, kind: str) -> Column | None:
    """Return a number, or a time as seconds, as a double: null for null and NaN; None for values of another type."""
    if kind in TIMES:
        return value.cast("timestamp").cast("double")
    if kind not in NUMBERS and not kind.startswith("decimal"):
        return None
    number = value.cast("double")
    return F.when(~F.isnan(number), number)


def bin_of(value: Column, edges: Column | None, hashed: int) -> Column:
    """Return the bin of a value: how many of its edges are below it; without edges, one of `hashed` by a hash.

    value: as of `measure_of`, or a text. Nulls are a bin of their own. So all indices of a column are of equal bins.
    """
    if edges is None:
        place = F.pmod(F.xxhash64(value), F.lit(hashed)).cast("int")
    else:
        place = F.size(F.filter(edges, lambda e: value > e))
    return F.when(value.isNull(), MISSING).otherwise(place.cast("string"))


def stability(before: Mapping[str, int], now: Mapping[str, int]) -> float:
    """Return the population stability index of two counts by bins; 0 where one of them is empty.

    The sum of (p - q) ln(p / q) over the bins, an empty one taken for a share of 0.0001 (Siddiqi, Credit Risk
    Scorecards, 2006). Below .1 the distributions count as alike, above .25 as different.
    """
    floored = [(max(p, LEAST), max(q, LEAST)) for p, q in shares_of(before, now) or ()]
    return math.fsum((p - q) * math.log(p / q) for p, q in floored)


def jensen_shannon(before: Mapping[str, int], now: Mapping[str, int]) -> float:
    """Return the Jensen-Shannon distance (the root of the divergence to base 2) of two counts: 0 alike, 1 disjoint.

    0 where one of them is empty. Source: Endres and Schindelin 2003; scipy's `jensenshannon(base=2)`.
    """
    total = 0.0
    for p, q in shares_of(before, now) or ():
        middle = (p + q) / 2
        total += sum(x * math.log2(x / middle) / 2 for x in (p, q) if x)
    return math.sqrt(max(total, 0.0))


def kolmogorov_smirnov(before: Mapping[str, int], now: Mapping[str, int]) -> float:
    """Return the largest distance of two cumulative distributions, counted by bins whose names are numbers in order.

    0 where one of them is empty; at most the statistic of the values themselves (Smirnov 1939).
    """
    one, other, worst = 0, 0, 0.0
    if before and now:
        for name in in_order(before, now):
            one, other = one + before.get(name, 0), other + now.get(name, 0)
            worst = max(worst, abs(one / sum(before.values()) - other / sum(now.values())))
    return worst
