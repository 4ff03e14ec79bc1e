"""A score learned from labelled pairs, which begins with what was learned without them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headgate.transforms.fusion.model import LARGEST, Model, probability

Floats = npt.NDArray[np.float64]
Levels = npt.NDArray[np.int8]

STEPS = 50
RIDGE = 1.0  # pseudo-pairs that hold a weight at what was learned without labels
HELD = 100.0  # the same for slope and bias: labelled pairs match more often than others do
LIMIT = 30.0  # bits of the score without labels, beyond which it says no more


@dataclass(frozen=True, kw_only=True)
class Supervised:
    """A logistic regression on the unsupervised score and on each level: score = slope · score + bias + levels' bits.

    bits: per comparison a vector over levels, 0 for null.
    """

    before: Model
    slope: float
    bias: float
    bits: tuple[tuple[float, ...], ...]

    def score(self, patterns: Levels) -> Floats:
        found: Floats = np.clip(self.weights(patterns).sum(axis=1), -LARGEST, LARGEST)
        return found

    def weights(self, patterns: Levels) -> Floats:
        """Return the parts of each score, as `Model.weights` does."""
        parts = self.before.weights(patterns)
        shrunk = np.clip(self.before.score(patterns), -LIMIT, LIMIT) / np.where(parts.sum(1) == 0, 1, parts.sum(1))
        parts = parts * (self.slope * shrunk)[:, None]
        parts[:, 0] += self.bias
        for j, table in enumerate(self.bits):
            parts[:, j + 1] += np.array(table)[np.minimum(patterns[:, j], len(table) - 1)]
        found: Floats = parts
        return found


def fit(before: Model, patterns: Levels, same: npt.NDArray[np.bool_]) -> Supervised:
    """Learn from labelled pairs by penalised maximum likelihood (Newton's method); their order does not matter.

    Raises ValueError unless there are pairs of both kinds.
    """
    if same.all() or not same.any():
        raise ValueError("all labelled pairs are of one kind; both are needed, pairs that match and pairs that do not")
    order = np.lexsort((same, *patterns.T[::-1]))
    patterns, same = patterns[order], same[order]
    sizes = patterns.max(axis=0).astype(int) + 1
    first = np.r_[0, np.cumsum(sizes)]
    x = np.zeros((len(patterns), 2 + first[-1]))
    x[:, 0], x[:, 1] = np.clip(before.score(patterns), -LIMIT, LIMIT), 1.0
    for j in range(len(sizes)):
        x[np.arange(len(x)), 2 + first[j] + patterns[:, j]] = patterns[:, j] > 0
    start = np.zeros(x.shape[1])
    start[0] = 1.0
    ridge = np.full(x.shape[1], RIDGE)
    ridge[:2] = HELD
    beta = start.copy()
    for _ in range(STEPS):
        p = probability(x @ beta)
        slope = x.T @ (same - p) - ridge * (beta - start)
        curve = (x * (np.log(2) * p * (1 - p))[:, None]).T @ x + np.diag(ridge)
        move = np.linalg.solve(curve, slope)
        beta += np.clip(move, -5, 5)
        if np.abs(move).max() < 1e-8:
            break
    bits = tuple(tuple(beta[2 + first[j] : 2 + first[j + 1]].tolist()) for j in range(len(sizes)))
    return Supervised(before=before, slope=float(beta[0]), bias=float(beta[1]), bits=bits)
