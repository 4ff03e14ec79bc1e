"""Which way of balancing classes helps a model, if any: measured on held-out rows in their natural proportions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headgate.transforms.balancing.neighbours import (
    Points,
    codes_of,
    counts_of,
    mixed,
    nearest,
    scale_of,
    space_of,
    synthesized,
    unlike_of,
)

METHODS = ("nothing", "weights", "oversample", "undersample", "smote")
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}  # 95 %, by seeds
MEASURES = ("precision", "f1", "brier")


@dataclass(frozen=True)
class Table:
    """Rows to learn from: (n, k) numbers, NaN for none, (n, c) codes of texts, and (n,) codes of classes."""

    numbers: np.ndarray[Any, Any]
    categories: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]

    @property
    def matrix(self) -> np.ndarray[Any, Any]:
        return np.hstack([self.numbers, self.categories.astype(float)])


@dataclass(frozen=True)
class Score:
    """What a method reached with each seed. precision: average precision; f1: the best; cut: where that is."""

    precision: Sequence[float]
    f1: Sequence[float]
    brier: Sequence[float]
    cut: float


@dataclass(frozen=True)
class Advice:
    """The method to take, why, and what each of them reached."""

    method: str
    why: str
    scores: Mapping[str, Score]

    def lines(self) -> list[str]:
        """Return what a run's summary shows."""
        rows = []
        for method, score in self.scores.items():
            parts = [f"{name} {interval(getattr(score, name))}" for name in MEASURES]
            rows.append(f"{method}: average {', '.join(parts)}, best cut {score.cut:.2f}")
        return [f"balancing classes: {self.method}: {self.why}", *rows]


def interval(values: Any) -> str:
    return f"{np.mean(values):.3f} ± {half_width(values):.3f}"


def half_width(values: Any) -> float:
    """Return the half of the 95 % interval of a mean (Student's t)."""
    return STUDENT[len(values)] * float(np.std(values, ddof=1)) / math.sqrt(len(values))


def advise(table: Table, methods: Sequence[str] = METHODS, seeds: int = 5, folds: int = 3) -> Advice:
    """Compare ways of balancing by cross-validation and return the one to take; it may be `nothing`.

    Classifiers of boosted trees learn from balanced training folds and are measured on the others as they are. Of two
    classes the smaller one is measured, of more the mean of all, each against the others. A method is taken if its
    average precision is surely above that of nothing (its paired difference over the seeds, 95 %) and its Brier score
    not surely worse; of several the one with the highest. Deterministic. Needs scikit-learn.
    """
    found = {m: [run_of(table, m, seed, folds) for seed in range(seeds)] for m in ("nothing", *methods)}
    scores = {m: score_of(runs) for m, runs in found.items()}
    base, taken, why = scores["nothing"], "nothing", "no method is surely better on held-out rows; leave it"
    worse = []
    for method, score in sorted(scores.items(), key=lambda x: -float(np.mean(x[1].precision))):
        gain = np.subtract(score.precision, base.precision)
        harm = np.subtract(score.brier, base.brier)
        if method == "nothing" or np.mean(gain) - half_width(gain) <= 0:
            continue
        if np.mean(harm) - half_width(harm) > 0:
            worse.append(method)
            continue
        taken, why = method, f"average precision rises by {interval(gain)} on held-out rows"
        break
    if taken == "nothing" and worse:
        why = f"{', '.join(worse)} would raise the average precision, but worsen the probabilities (Brier score)"
    return Advice(taken, why, scores)


def score_of(runs: Sequence[tuple[float, float, float, float]]) -> Score:
    precision, f1, brier, cuts = zip(*runs, strict=True)
    return Score(precision, f1, brier, float(np.median(cuts)))


def run_of(table: Table, method: str, seed: int, folds: int) -> tuple[float, float, float, float]:
    """Return average precision, best F1, Brier score and best cut of one method with one seed."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import average_precision_score
    from sklearn.model_selection import StratifiedKFold

    classes = int(table.labels.max()) + 1
    chances = np.zeros((len(table.labels), classes))
    for fit, held in StratifiedKFold(folds, shuffle=True, random_state=seed).split(table.matrix, table.labels):
        x, y, weight = balanced(table, fit, method, seed)
        model = HistGradientBoostingClassifier(max_iter=50, random_state=seed, early_stopping=False)
        chances[np.ix_(held, np.unique(y))] = model.fit(x, y, sample_weight=weight).predict_proba(table.matrix[held])
    sizes = np.bincount(table.labels)
    measured = [int(np.argmin(sizes))] if classes == 2 else range(classes)
    results = []
    for c in measured:
        truth = table.labels == c
        f1, cut = best_cut(truth, chances[:, c])
        brier = float(np.mean((chances[:, c] - truth) ** 2))
        results.append((float(average_precision_score(truth, chances[:, c])), f1, brier, cut))
    means = np.mean(results, axis=0)
    return float(means[0]), float(means[1]), float(means[2]), float(means[3])


def best_cut(truth: np.ndarray[Any, Any], chance: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Return the best F1 of all cuts of a probability, and the cut (rows at it are of the class): threshold moving."""
    order = np.argsort(-chance, kind="stable")
    hits = np.cumsum(truth[order])
    f1 = 2 * hits / (np.arange(1, len(order) + 1) + truth.sum())
    ends = np.append(chance[order][1:] != chance[order][:-1], True)  # a cut takes all rows of one probability
    best = int(np.argmax(np.where(ends, f1, -1)))
    return float(f1[best]), float(chance[order][best])


def balanced(table: Table, fit: np.ndarray[Any, Any], method: str, seed: int) -> tuple[Any, Any, Any]:
    """Return matrix, labels and weights (or None) of training rows, balanced by a method."""
    y = table.labels[fit]
    sizes = np.bincount(y, minlength=int(table.labels.max()) + 1)
    if method == "nothing":
        return table.matrix[fit], y, None
    if method == "weights":
        return table.matrix[fit], y, (len(y) / (np.count_nonzero(sizes) * sizes[y]))
    hashes = mixed(seed, np.arange(len(table.labels)), np.zeros(len(table.labels)), 7)
    if method in ("oversample", "undersample"):
        wanted = int(sizes.max() if method == "oversample" else sizes[sizes > 0].min())
        rows = np.concatenate([drawn(fit[y == c], hashes, wanted) for c in np.flatnonzero(sizes)])
        return table.matrix[rows], table.labels[rows], None
    parts = [table.matrix[fit]]
    labels = [y]
    for c in np.flatnonzero(sizes):
        made = made_of(table, fit[y == c], hashes, int(sizes.max() - sizes[c]), seed)
        parts.append(made)
        labels.append(np.full(len(made), c))
    return np.vstack(parts), np.concatenate(labels), None


def drawn(rows: np.ndarray[Any, Any], hashes: np.ndarray[Any, Any], wanted: int) -> np.ndarray[Any, Any]:
    """Return so many rows: all of them as often as it takes, and those of the smallest hashes once more."""
    order = rows[np.argsort(hashes[rows], kind="stable")]
    whole: np.ndarray[Any, Any] = np.concatenate([np.tile(order, wanted // len(order)), order[: wanted % len(order)]])
    return whole


def made_of(table: Table, rows: np.ndarray[Any, Any], hashes: np.ndarray[Any, Any], need: int, seed: int) -> Any:
    """Return the cells of synthetic rows of one class; none where it has no two complete rows."""
    rows = rows[np.isfinite(table.numbers[rows]).all(axis=1)]
    if need <= 0 or len(rows) < 2:
        return np.zeros((0, table.matrix.shape[1]))
    points = Points(rows, table.numbers[rows], table.categories[rows], np.zeros(len(rows), dtype=np.int64))
    scale = scale_of(points.numbers, True)
    sizes = [int(c.max(initial=0)) + 1 for c in points.categories.T]
    space = space_of(points.numbers, points.categories, scale, sizes, unlike_of(points.numbers, scale))
    every = np.arange(len(rows))
    near = nearest(space, points.group, every, 5)
    made = synthesized(points, near, counts_of(hashes[rows], np.ones(len(rows)), need), hashes[rows], every, seed)
    return np.hstack([made.numbers, made.categories.astype(float)])


def table_from(
    numbers: Sequence[Any], texts: Sequence[Sequence[str]], labels: Sequence[str]
) -> tuple[Table, list[str]]:
    """Return columns as a table to learn from, and the classes that its labels stand for."""
    codes, names = codes_of(labels)
    matrix = np.array(numbers, dtype=float).reshape(len(numbers), len(labels)).T
    matrix = np.where(np.isfinite(matrix), matrix, np.nan)
    categories = np.array([codes_of(t)[0] for t in texts], dtype=np.int64).reshape(len(texts), len(labels)).T
    return Table(matrix, categories, codes), names
