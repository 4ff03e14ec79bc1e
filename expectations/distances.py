"""Distances of two distributions, each given as counts by bins."""

import math
from collections.abc import Mapping

LEAST = 1e-4  # share of an empty bin


def shares_of(before: Mapping[str, int], now: Mapping[str, int]) -> list[tuple[float, float]] | None:
    """Return the two shares of each bin, in the order of their names; None where one of the two is empty."""
    one, other = sum(before.values()), sum(now.values())
    if not one or not other:
        return None
    return [(before.get(b, 0) / one, now.get(b, 0) / other) for b in sorted(before.keys() | now.keys())]


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
    """Return the largest distance of two cumulative distributions, counted by bins whose names are in order.

    0 where one of them is empty; at most the statistic of the values themselves (Smirnov 1939).
    """
    upto, worst = 0.0, 0.0
    for p, q in shares_of(before, now) or ():
        upto += p - q
        worst = max(worst, abs(upto))
    return worst
