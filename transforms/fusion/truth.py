"""Truth discovery: how far each source is to be trusted, learned from claims that contradict one another; numpy only.

Each method alternates between the truth, given the sources, and the sources, given the truth. What it needs of the
claims in a round are sums over objects, in whole numbers: so the claims may lie in any number of parts, on the driver
or in Spark, and the answer is the same. Ties go to the value with more claims, then to the smaller one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

ROUNDS = 60
UNIT = 1 << 30  # of a probability: sums of whole numbers do not depend on their order
GOOD, BAD = 8.0, 2.0  # answers that a source is taken to have given before, right and wrong
SHRINK = 1.0  # answers by which a source is drawn to what holds for all sources, or for one with its accuracy alone
SETTLED = 1e-6


class Claims:
    """Claims of sources on objects: which value each says. Values and objects are numbered in the order of their texts.

    obj, src, val: whole numbers, of each claim. number: of claims that are numbers, these. A candidate is a value that
    is claimed of an object.
    """

    def __init__(self, obj: Ints, src: Ints, val: Ints, number: Floats | None = None) -> None:
        self.obj, self.src, self.val, self.number = obj, src, val, number
        values = int(val.max()) + 1 if len(val) else 1
        key, self.cand = np.unique(obj * values + val, return_inverse=True)
        self.of, self.value = key // values, key % values
        self.objects = int(obj.max()) + 1 if len(obj) else 0
        self.votes: Floats = np.bincount(self.cand, minlength=len(key)).astype(float)
        self.options: Ints = np.bincount(self.of, minlength=self.objects)

    def total(self, weight: Floats) -> Floats:
        """Add up a weight of each claim for each candidate."""
        found: Floats = np.bincount(self.cand, weight, len(self.of)).astype(float)
        return found

    def shares(self, score: Floats) -> Floats:
        """Return the probabilities of candidates from log scores, within each object."""
        top = np.full(self.objects, -np.inf)
        np.maximum.at(top, self.of, score)
        e = np.exp(score - top[self.of])
        found: Floats = e / np.bincount(self.of, e, self.objects)[self.of]
        return found

    def best(self, score: Floats) -> Ints:
        """Return the best candidate of each object."""
        order = np.lexsort((self.value, -self.votes, -np.round(score, 9), self.of))
        first = np.r_[True, self.of[order][1:] != self.of[order][:-1]] if len(order) else np.zeros(0, bool)
        found: Ints = order[first]
        return found


class Method(Protocol):
    """A way to learn. State and sums are arrays; state None is the beginning, where all sources count alike."""

    def probabilities(self, claims: Claims, state: Any) -> Floats:
        """Return the probability of each candidate."""
        ...

    def sums(self, claims: Claims, state: Any) -> Ints:
        """Return what the next state needs, added up over objects."""
        ...

    def next(self, sums: Ints, state: Any) -> tuple[Any, bool]:
        """Return the next state, and whether it is settled."""
        ...


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """One accuracy for each source, errors spread evenly over other values (Dong, Berti-Equille, Srivastava 2009)."""

    sources: int

    def probabilities(self, claims: Claims, state: Floats | None) -> Floats:
        if state is None:
            return claims.shares(np.log(claims.votes))
        wrong = np.maximum(claims.options[claims.obj], 1)
        return claims.shares(claims.total(np.log(state[claims.src] * wrong / (1 - state[claims.src]))))

    def sums(self, claims: Claims, state: Floats | None) -> Ints:
        right = np.rint(UNIT * self.probabilities(claims, state)[claims.cand])
        right_of = np.bincount(claims.src, right, self.sources)
        return np.asarray(np.r_[right_of, np.bincount(claims.src, minlength=self.sources)], np.int64)

    def next(self, sums: Ints, state: Floats | None) -> tuple[Floats, bool]:
        right, n = sums[: self.sources] / UNIT, sums[self.sources :]
        new = np.clip((right + GOOD) / (n + GOOD + BAD), 1e-3, 1 - 1e-3)
        return new, state is not None and bool(np.abs(new - state).max() < SETTLED)


@dataclass(frozen=True, kw_only=True)
class Distance:
    """Weights of sources by their distance from the truth (CRH; Li et al. 2014), which here is the share of errors."""

    sources: int

    def probabilities(self, claims: Claims, state: Floats | None) -> Floats:
        weight = np.ones(self.sources) if state is None else state
        score = claims.total(weight[claims.src])
        found: Floats = score / np.maximum(np.bincount(claims.of, score, claims.objects)[claims.of], 1e-9)
        return found

    def sums(self, claims: Claims, state: Floats | None) -> Ints:
        best = np.zeros(len(claims.of), bool)
        best[claims.best(self.probabilities(claims, state))] = True
        wrong = np.bincount(claims.src, ~best[claims.cand], self.sources)
        return np.asarray(np.r_[wrong, np.bincount(claims.src, minlength=self.sources)], np.int64)

    def next(self, sums: Ints, state: Floats | None) -> tuple[Floats, bool]:
        loss = sums[: self.sources] / np.maximum(sums[self.sources :], 1)
        new = np.maximum(-np.log(np.maximum(loss, 1e-3) / max(loss.sum(), 1e-9)), 1e-6)
        return new, state is not None and bool((new == state).all())


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """A matrix of confusions for each source (Dawid and Skene 1979), for columns of few values.

    Drawn by `SHRINK` answers each to what all sources confuse, and to what one with the source's accuracy does that
    confuses all values alike. State: log prior of a value, log of P(said | true).
    """

    sources: int
    values: int

    def probabilities(self, claims: Claims, state: tuple[Floats, Floats] | None) -> Floats:
        everything = self.over_all(claims, state)
        found: Floats = everything[claims.of, claims.value]
        return found

    def over_all(self, claims: Claims, state: tuple[Floats, Floats] | None) -> Floats:
        """Return the probability of each value of each object, also of those that nobody claims."""
        if state is None:
            votes = np.zeros((claims.objects, self.values))
            np.add.at(votes, (claims.obj, claims.val), 1.0)
            start: Floats = votes / np.maximum(votes.sum(1, keepdims=True), 1e-9)
            return start
        prior, confusion = state
        score = np.tile(prior, (claims.objects, 1))
        np.add.at(score, claims.obj, confusion[claims.src, :, claims.val])
        score -= score.max(1, keepdims=True)
        e = np.exp(score)
        found: Floats = e / e.sum(1, keepdims=True)
        return found

    def sums(self, claims: Claims, state: tuple[Floats, Floats] | None) -> Ints:
        p = np.rint(UNIT * self.over_all(claims, state))
        counts = np.zeros((self.sources, self.values, self.values))
        for k in range(self.values):
            np.add.at(counts[:, k, :], (claims.src, claims.val), p[claims.obj, k])
        return np.asarray(np.r_[counts.ravel(), p.sum(0)], np.int64)

    def next(self, sums: Ints, state: tuple[Floats, Floats] | None) -> tuple[tuple[Floats, Floats], bool]:
        k = self.values
        counts = (sums[:-k] / UNIT).reshape(self.sources, k, k)
        of_value = sums[-k:] / UNIT
        right, n = np.trace(counts, axis1=1, axis2=2), counts.sum((1, 2))
        accuracy = (right + SHRINK * right.sum() / max(n.sum(), 1e-9)) / (n + SHRINK)
        coin = np.where(np.eye(k, dtype=bool), accuracy[:, None, None], ((1 - accuracy) / max(k - 1, 1))[:, None, None])
        every = counts.sum(0) + SHRINK * coin.mean(0)
        smooth = np.maximum(counts + SHRINK * (coin + every / every.sum(1, keepdims=True)), 1e-12)
        new = np.log((of_value + 1) / (of_value.sum() + k)), np.log(smooth / smooth.sum(2, keepdims=True))
        return new, state is not None and bool(np.abs(new[1] - state[1]).max() < SETTLED)


def learn(method: Method, summed: Callable[[Any], Ints]) -> Any:
    """Return the state in which a method settles; summed: the sums over all claims, given a state."""
    state = None
    for _ in range(ROUNDS):
        state, settled = method.next(summed(state), state)
        if settled:
            break
    return state
