"""Truth of numbers: how far sources are off, learned from claims that contradict one another; numpy only."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from headgate.transforms.fusion.truth import SETTLED, UNIT, Claims

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

MOST = 16.0  # deviations, squared or not, that one claim counts at most: so no sum of whole numbers overflows
SHRINK = 4.0  # claims by which a source is drawn to what all are off
SMALL = 2.0**-64  # numbers times it add up to no infinity
GRAIN = 1 << 20  # parts of a weight of 1
Middle = Literal["mean", "median"]
SIDES: tuple[Literal["left"], Literal["right"]] = ("left", "right")


def middle_of(entity: Ints, number: Floats, weight: Floats, entities: int, middle: Middle) -> Floats:
    """Return the weighted mean or median of each entity's numbers; NaN for none.

    Numbers are added up in their order, whatever order they come in. A median that falls between two numbers is their
    mean.
    """
    order = np.lexsort((weight, number, entity))
    entity, number, weight = entity[order], number[order], weight[order]
    found = np.full(entities, np.nan)
    if middle == "mean":
        total = np.bincount(entity, weight, entities)
        there = total > 0
        with np.errstate(over="ignore", invalid="ignore"):
            found[there] = np.bincount(entity, weight * number, entities)[there] / total[there]
        known = np.bincount(entity, ~np.isfinite(number), entities) == 0
        beyond = there & known & ~np.isfinite(found)  # the sum of numbers near 1e308, not their mean
        if beyond.any():
            small = np.bincount(entity, weight * (number * SMALL), entities)[beyond] / total[beyond]
            found[beyond] = small / SMALL
        return found
    # In whole numbers: so sums over the entities before leave no trace.
    whole = np.maximum(np.rint(weight * GRAIN), 1).astype(np.int64)
    upto = np.r_[0, np.cumsum(whole)]
    starts, ends = (np.searchsorted(entity, np.arange(entities), side) for side in SIDES)
    twice, total = 2 * (upto[1:] - upto[starts][entity]), (upto[ends] - upto[starts])[entity]
    for reached in (twice >= total, twice > total):  # the middle from below, and from above
        at = np.flatnonzero(reached)
        known, first = np.unique(entity[at], return_index=True)
        one, other = found[known], number[at[first]]
        with np.errstate(over="ignore", invalid="ignore"):
            both = (one + other) / 2
            both = np.where(np.isinf(both), one / 2 + other / 2, both)  # of two numbers near 1e308
        found[known] = np.where(np.isnan(one), other, both)
    return found


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """A weight for each source by how far its numbers are off (CRH for numbers; Li et al. 2014).

    A deviation is in units of the spread of an object's claims: squared over the variance for `mean`, absolute over
    the mean deviation for `median`. Objects on which all claims agree tell nothing.
    """

    sources: int
    middle: Middle

    def probabilities(self, claims: Claims, state: Floats | None) -> Floats:
        """Return the share of the weight of each candidate."""
        score = claims.total(self.weights(claims.src, state))
        found: Floats = score / np.maximum(np.bincount(claims.of, score, claims.objects)[claims.of], 1e-300)
        return found

    def weights(self, src: Ints, state: Floats | None) -> Floats:
        return np.ones(len(src)) if state is None else state[src]

    def sums(self, claims: Claims, state: Floats | None) -> Ints:
        assert claims.number is not None  # of a rule for numbers
        known = np.isfinite(claims.number)
        obj, src, number = claims.obj[known], claims.src[known], claims.number[known]
        truth = middle_of(obj, number, self.weights(src, state), claims.objects, self.middle)
        plain = middle_of(obj, number, np.ones(len(obj)), claims.objects, "mean")
        power = 2 if self.middle == "mean" else 1
        spread = middle_of(obj, np.abs(number - plain[obj]) ** power, np.ones(len(obj)), claims.objects, "mean")
        tells = spread[obj] > 0
        off = np.abs(number - truth[obj])[tells] ** power / spread[obj][tells]
        whole = np.rint(UNIT * np.minimum(off, MOST))
        counts = np.bincount(src[tells], minlength=self.sources)
        return np.asarray(np.r_[np.bincount(src[tells], whole, self.sources), counts], np.int64)

    def next(self, sums: Ints, state: Floats | None) -> tuple[Floats, bool]:
        off, n = sums[: self.sources] / UNIT, sums[self.sources :]
        usual = off.sum() / max(n.sum(), 1)
        loss = np.maximum((off + SHRINK * max(usual, 1e-6)) / (n + SHRINK), 1e-9)
        new = np.maximum(-np.log(loss / loss.sum()), 1e-6)
        new = new / new.max()
        return new, state is not None and bool(np.abs(new - state).max() < SETTLED)
