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
from headgate.words import cell

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
class Cut:
    """The best cut of a class's probability: rows at or above it are of the class.

    cuts, f1: with each seed; half: the F1 of a cut of one half. held: whether it was found on a validation split; else
    by cross-validation. rows, members: how many it was found on, and how many of them are of the class.
    """

    name: str
    cuts: Sequence[float]
    f1: Sequence[float]
    half: Sequence[float]
    held: bool
    rows: int
    members: int

    @property
    def value(self) -> float:
        return float(np.median(self.cuts))

    def facts(self) -> dict[str, float | str]:
        """Return what the cut is to be seen beside."""
        means = {"f1": float(np.mean(self.f1)), "f1_at_half": float(np.mean(self.half))}
        ends = {"lowest": min(self.cuts), "highest": max(self.cuts)}
        return {"class": self.name, **means, **ends, "rows": self.rows, "of_class": self.members}

    def line(self, where: str) -> str:
        f1, half = np.mean(self.f1), np.mean(self.half)
        return f"best cut of class {cell(self.name)} on {where}: {self.value:.2f} (F1 {f1:.3f}; at .5 {half:.3f})"


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


def cuts_of(
    table: Table, names: Sequence[str], held: Table | None, method: str, seeds: int = 5, folds: int = 3
) -> list[Cut]:
    """Return the best cut of each measured class for models that learn from rows balanced by a method.

    held: rows of a validation split, on which it is found, labels of other classes than those of the table being -1;
    where there is no row of the class among them, or none of others, it is found by cross-validation.
    """
    found: dict[int, Cut] = {}
    for rows in (held, table):
        if rows is None:
            continue
        truths = {c: rows.labels == c for c in measured(table) if c not in found}
        truths = {c: truth for c, truth in truths.items() if truth.any() and not truth.all()}
        if truths:
            every = np.arange(len(table.labels))
            chances = [
                chances_of(table, method, seed, folds)
                if rows is table
                else learned(table, every, rows.matrix, method, seed)
                for seed in range(seeds)
            ]
            for c, truth in truths.items():
                found[c] = cut_of(names[c], truth, [chance[:, c] for chance in chances], rows is held)
    return [cut for _, cut in sorted(found.items())]


def cut_of(name: str, truth: np.ndarray[Any, Any], chances: Sequence[np.ndarray[Any, Any]], held: bool) -> Cut:
    best = [best_cut(truth, chance) for chance in chances]
    half = [float(2 * (truth & (p >= 0.5)).sum() / (truth.sum() + (p >= 0.5).sum())) for p in chances]
    return Cut(name, [cut for _, cut in best], [f1 for f1, _ in best], half, held, len(truth), int(truth.sum()))


def score_of(runs: Sequence[tuple[float, float, float, float]]) -> Score:
    precision, f1, brier, cuts = zip(*runs, strict=True)
    return Score(precision, f1, brier, float(np.median(cuts)))


def run_of(table: Table, method: str, seed: int, folds: int) -> tuple[float, float, float, float]:
    """Return average precision, best F1, Brier score and best cut of one method with one seed."""
    from sklearn.metrics import average_precision_score

    chances = chances_of(table, method, seed, folds)
    results = []
    for c in measured(table):
        truth = table.labels == c
        f1, cut = best_cut(truth, chances[:, c])
        brier = float(np.mean((chances[:, c] - truth) ** 2))
        results.append((float(average_precision_score(truth, chances[:, c])), f1, brier, cut))
    means = np.mean(results, axis=0)
    return float(means[0]), float(means[1]), float(means[2]), float(means[3])


def measured(table: Table) -> Sequence[int]:
    """Return the classes that are measured: of two the smaller one, else all."""
    sizes = np.bincount(table.labels)
    return [int(np.argmin(sizes))] if len(sizes) == 2 else range(len(sizes))


def chances_of(table: Table, method: str, seed: int, folds: int) -> np.ndarray[Any, Any]:
    """Return the probabilities of the classes for each row by models that learned from the other folds."""
    from sklearn.model_selection import StratifiedKFold

    chances = np.zeros((len(table.labels), int(table.labels.max()) + 1))
    for fit, held in StratifiedKFold(folds, shuffle=True, random_state=seed).split(table.matrix, table.labels):
        chances[held] = learned(table, fit, table.matrix[held], method, seed)
    return chances


def learned(
    table: Table, fit: np.ndarray[Any, Any], asked: np.ndarray[Any, Any], method: str, seed: int
) -> np.ndarray[Any, Any]:
    """Return the probabilities of the classes for other rows by a model of some rows, balanced by a method."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    x, y, weight = balanced(table, fit, method, seed)
    model = HistGradientBoostingClassifier(max_iter=50, random_state=seed, early_stopping=False)
    chances = np.zeros((len(asked), int(table.labels.max()) + 1))
    with threadpool_limits(1):  # threads that wait for each other on a busy machine took ten times as long
        chances[:, np.unique(y)] = model.fit(x, y, sample_weight=weight).predict_proba(asked)
    return chances


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
    return Table(matrix_from(numbers, len(labels)), categories_from(texts, texts, len(labels)), codes), names


def held_from(
    known: Sequence[Any], names: Sequence[str], numbers: Sequence[Any], texts: Sequence[Any], labels: Sequence[str]
) -> Table:
    """Return columns of other rows, coded as those of a table with such texts and classes; -1 for what it has not."""
    codes, _ = codes_of(labels, names)
    return Table(matrix_from(numbers, len(labels)), categories_from(texts, known, len(labels)), codes)


def matrix_from(numbers: Sequence[Any], rows: int) -> np.ndarray[Any, Any]:
    matrix = np.array(numbers, dtype=float).reshape(len(numbers), rows).T
    return np.where(np.isfinite(matrix), matrix, np.nan)


def categories_from(texts: Sequence[Any], known: Sequence[Any], rows: int) -> np.ndarray[Any, Any]:
    codes = [codes_of(t, sorted(set(k)))[0] for t, k in zip(texts, known, strict=True)]
    return np.array(codes, dtype=np.int64).reshape(len(texts), rows).T
