"""A chain of boosted trees on top of a normal model, for tables of numbers and categories; numpy alone to apply.

A numeric cell is its mean under the normal model, given all others, plus what trees predict of the rest: linear
structure costs no trees. A category is what a tree classifier finds likeliest. Trees are kept as plain arrays, so that
nothing is unpickled and workers need no scikit-learn.
"""

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headgate.transforms.imputation.gaussian import Gaussian, fill, fit_rows, known_cells, standardised
from headgate.transforms.step import StepError

LEVELS = 16  # of a category, the most frequent ones that become features
LEVEL_ROWS = 10  # rows that a level must have to become one
CLASSES = 50  # that a classifier tells apart; a column with more falls back to its mode
TREES: dict[str, Any] = {"learning_rate": 0.15, "max_leaf_nodes": 15, "max_bins": 63, "early_stopping": False}
ITERATIONS = 100
OLDEST = "1.5"  # of scikit-learn
PROVED = 200  # rows on which trees as arrays are proved
REGULAR = 1.0  # of the classifier's leaves: without it, rare classes run away

Table = Mapping[str, Any]  # column -> (n,) doubles, NaN where unknown; or (n,) objects, texts or None


@dataclass(frozen=True, kw_only=True)
class Design:
    """Describe how rows become numbers: numbers as they are, frequent levels of categories as 0 and 1.

    levels: category -> its levels, most frequent first; the first is the reference and has no column of its own.
    domain: category -> its known values up to `CLASSES`, most frequent first.
    """

    numbers: tuple[str, ...]
    levels: Mapping[str, tuple[str, ...]]
    domain: Mapping[str, tuple[str, ...]]

    def names(self) -> list[str]:
        """Return the names of the design's columns."""
        return [*self.numbers, *(f"{c}={v}" for c, vs in self.levels.items() for v in vs[1:])]

    def places(self, column: str) -> list[int]:
        """Return which design columns belong to a column."""
        if column in self.numbers:
            return [self.numbers.index(column)]
        start = len(self.numbers)
        for c, vs in self.levels.items():
            if c == column:
                return list(range(start, start + len(vs) - 1))
            start += len(vs) - 1
        return []

    def matrix(self, table: Table, rows: int) -> Any:
        """Return (n, k) doubles, NaN where unknown; a level that training never saw counts as none of the levels."""
        parts = [np.where(known_cells(table[c]), table[c], np.nan)[:, None] for c in self.numbers]
        for c, vs in self.levels.items():
            known = np.array([v is not None for v in table[c]], dtype=bool)
            dummies = np.column_stack([table[c] == v for v in vs[1:]]).astype(float)
            parts.append(np.where(known[:, None], dummies, np.nan))
        return np.concatenate(parts, axis=1) if parts else np.empty((rows, 0))


def design_of(table: Table) -> Design:
    """Learn the design of a sample. A category without two levels of `LEVEL_ROWS` rows gives no features."""
    levels, domain = {}, {}
    numbers = tuple(c for c, values in table.items() if values.dtype != object)
    for c, values in table.items():
        if c not in numbers:
            counts = Counter(v for v in values if v is not None)
            ranked = sorted(counts.items(), key=lambda vn: (-vn[1], vn[0]))
            domain[c] = tuple(v for v, _ in ranked[:CLASSES])
            frequent = tuple(v for v, n in ranked[:LEVELS] if n >= LEVEL_ROWS)
            if len(frequent) > 1 and sum(counts[v] for v in frequent) >= 0.2 * counts.total():
                levels[c] = frequent
    return Design(numbers=numbers, levels=levels, domain=domain)


@dataclass(frozen=True, kw_only=True)
class Trees:
    """Hold boosted trees as arrays over all nodes of all trees; a leaf leads to itself.

    classes: of a category; empty for a number. base: (g,) where sums start. roots, group: (trees,) the first node of
    each tree, and the sum that it adds to. feature, threshold, left, right, value: (nodes,). depth: of the deepest.
    """

    classes: tuple[str, ...]
    base: Any
    roots: Any
    group: Any
    feature: Any
    threshold: Any
    left: Any
    right: Any
    value: Any
    depth: int

    def sums(self, x: Any) -> Any:
        """Return (n, g) sums of the trees for rows (n, k) without NaN."""
        out = np.tile(self.base, (len(x), 1))
        flat, start = np.ascontiguousarray(x).ravel(), np.arange(len(x)) * x.shape[1]
        for root, group in zip(self.roots, self.group, strict=True):
            node = np.full(len(x), root)
            for _ in range(self.depth):
                goes_left = flat[start + self.feature[node]] <= self.threshold[node]
                node = np.where(goes_left, self.left[node], self.right[node])
            out[:, group] += self.value[node]
        return out

    def odds(self, x: Any) -> Any:
        """Return (n, classes) probabilities."""
        sums = self.sums(x)
        sums = np.column_stack([np.zeros(len(x)), sums]) if sums.shape[1] == 1 else sums
        powers = np.exp(sums - sums.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def state(self) -> dict[str, Any]:
        """Return the trees as values that JSON holds; arrays as base64 of their little-endian bytes."""
        arrays = {n: base64.b64encode(getattr(self, n).astype(t).tobytes()).decode() for n, t in ARRAYS.items()}
        return {"classes": list(self.classes), "depth": self.depth} | arrays

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> "Trees":
        """Return the trees of `state`."""
        arrays: dict[str, Any] = {n: np.frombuffer(base64.b64decode(state[n]), t) for n, t in ARRAYS.items()}
        return cls(classes=tuple(state["classes"]), depth=state["depth"], **arrays)


ARRAYS = {"base": "<f8", "roots": "<i4", "group": "<i4", "feature": "<i4", "threshold": "<f8"}
ARRAYS |= {"left": "<i4", "right": "<i4", "value": "<f8"}


def trees_of(learner: Any, rows: Any, classes: Sequence[str] = ()) -> Trees:
    """Return a fitted histogram gradient boosting of scikit-learn as arrays.

    scikit-learn has no public form of these trees, so they are proved on some rows (n, k): the arrays must predict what
    its own `predict` or `predict_proba` does. Raises `StepError` with its version where they cannot be read, or do not.
    """
    from sklearn import __version__

    unread = StepError(
        f"scikit-learn {__version__} keeps boosted trees in a form that cannot be read; use one from {OLDEST} on that "
        "headgate's extra `models` allows"
    )
    try:
        trees = arrays_of(learner, classes)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as e:
        raise unread from e
    rows = rows[:PROVED]
    known = learner.predict_proba(rows) if classes else learner.predict(rows)[:, None]
    if not np.allclose(trees.odds(rows) if classes else trees.sums(rows), known, rtol=1e-6, atol=1e-6):
        raise unread
    return trees


def arrays_of(learner: Any, classes: Sequence[str]) -> Trees:
    parts, roots, groups, deepest = [], [], [], 0
    size = 0
    for turn in learner._predictors:
        for group, tree in enumerate(turn):
            nodes = tree.nodes
            own, leaf = np.arange(len(nodes)), nodes["is_leaf"].astype(bool)
            roots.append(size)
            groups.append(group)
            deepest = max(deepest, int(nodes["depth"].max()))
            parts.append(
                (
                    np.where(leaf, 0, nodes["feature_idx"]),
                    np.where(leaf, np.inf, nodes["num_threshold"]),
                    size + np.where(leaf, own, nodes["left"]),
                    size + np.where(leaf, own, nodes["right"]),
                    nodes["value"],
                )
            )
            size += len(nodes)
    feature, threshold, left, right, value = (np.concatenate(p) for p in zip(*parts, strict=True))
    base = np.asarray(learner._baseline_prediction, dtype=float).ravel()
    plain = {"base": base, "roots": np.array(roots), "group": np.array(groups), "depth": deepest}
    nodes = {"feature": feature, "threshold": threshold, "left": left, "right": right, "value": value}
    return Trees(classes=tuple(classes), **plain, **nodes)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Hold a fitted chain: rounds of column -> trees, in the order of application."""

    design: Design
    gaussian: Gaussian
    rounds: tuple[Mapping[str, Trees], ...]

    def state(self) -> dict[str, Any]:
        """Return the chain as values that JSON holds."""
        design = self.design
        return {
            "numbers": list(design.numbers),
            "levels": {c: list(vs) for c, vs in design.levels.items()},
            "domain": {c: list(vs) for c, vs in design.domain.items()},
            "gaussian": self.gaussian.state(),
            "rounds": [{c: t.state() for c, t in turn.items()} for turn in self.rounds],
        }

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> "Chain":
        """Return the chain of `state`."""
        levels, domain = ({c: tuple(vs) for c, vs in state[n].items()} for n in ("levels", "domain"))
        return cls(
            design=Design(numbers=tuple(state["numbers"]), levels=levels, domain=domain),
            gaussian=Gaussian.from_state(state["gaussian"]),
            rounds=tuple({c: Trees.of(t) for c, t in turn.items()} for turn in state["rounds"]),
        )


def unknown(values: Any) -> Any:
    """Return where a column is unknown: None, NaN, infinite or nearly so."""
    return np.array([v is None for v in values], dtype=bool) if values.dtype == object else ~known_cells(values)


def linear_part(x: Any, model: Gaussian, precision: Any, place: int) -> Any:
    """Return the conditional mean of one design column given all others, for filled rows (n, k)."""
    z = standardised(x, model.mean, model.scale)
    pull = np.zeros(len(x))
    for j in range(z.shape[1]):  # one order of sums whatever the number of rows
        if j != place:
            pull += z[:, j] * precision[j, place]
    scale = model.scale[place] if model.scale[place] > 0 else 0.0
    return model.mean[place] - scale * pull / precision[place, place]


def fit_chain(table: Table, targets: Sequence[str], *, rounds: int = 2, seed: int = 0) -> Chain:
    """Fit the chain on a sample, in the order of its hashes.

    targets: columns to fill; ascending by missing share, ties by name. A target without two known rows, or a category
    without two values of `LEVEL_ROWS` rows, gets no trees and keeps its mean or mode. rounds: sweeps; later ones see
    what earlier ones filled. Source: van Buuren 2018 (chained equations), Stekhoven and Bühlmann 2012 (missForest).
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits

    design = design_of(table)
    raw = design.matrix(table, len(next(iter(table.values()))))
    model = fit_rows(raw, design.names())
    precision = np.linalg.inv(model.covariance)
    x = np.nan_to_num(fill(raw, model), nan=0.0)
    gone = {c: unknown(values) for c, values in table.items()}
    turns = []
    # More threads than free cores wait for each other: one is several times as fast on a busy machine.
    with threadpool_limits(1, user_api="openmp"):
        for _ in range(rounds):
            turn: dict[str, Trees] = {}
            for column in sorted(targets, key=lambda c: (gone[c].mean(), c)):
                places, known = design.places(column), ~gone[column]
                others = [i for i in range(x.shape[1]) if i not in places]
                if known.sum() < 2 or not others:
                    continue
                if column in design.numbers:
                    rest = raw[known, places[0]] - linear_part(x[known], model, precision, places[0])
                    learner = HistGradientBoostingRegressor(random_state=seed % 2**32, max_iter=ITERATIONS, **TREES)
                    seen = x[known][:, others]
                    turn[column] = trees_of(learner.fit(seen, rest), seen)
                else:
                    counts = Counter(table[column][known])
                    common = {v for v in design.domain[column] if counts[v] >= LEVEL_ROWS}
                    if len(common) < 2 or len(design.domain[column]) >= CLASSES:
                        continue
                    taken = known & np.array([v in common for v in table[column]])
                    options = TREES | {"max_iter": max(10, ITERATIONS // len(common)), "l2_regularization": REGULAR}
                    chosen = HistGradientBoostingClassifier(random_state=seed % 2**32, **options)
                    seen = x[taken][:, others]
                    chosen.fit(seen, table[column][taken].astype(str))
                    turn[column] = trees_of(chosen, seen, [str(v) for v in chosen.classes_])
                predict(x, np.flatnonzero(gone[column]), column, turn[column], design, model, precision)
            turns.append(turn)
    return Chain(design=design, gaussian=model, rounds=tuple(turns))


def predict(x: Any, rows: Any, column: str, trees: Trees, design: Design, model: Gaussian, precision: Any) -> Any:
    """Predict one column for some rows, write it into the filled design, and return the values."""
    places = design.places(column)
    others = [i for i in range(x.shape[1]) if i not in places]
    features = x[rows][:, others]
    if column in design.numbers:
        p = places[0]
        values = linear_part(x[rows], model, precision, p) + trees.sums(features)[:, 0]
        x[rows, p] = np.clip(values, model.low[p], model.high[p])
        return x[rows, p]
    odds = trees.odds(features)
    for place, level in zip(places, design.levels.get(column, ())[1:], strict=True):
        x[rows, place] = odds[:, trees.classes.index(level)] if level in trees.classes else 0.0
    return np.array(trees.classes, dtype=object)[odds.argmax(axis=1)]


def fill_chain(
    table: Table, chain: Chain, columns: Sequence[str], blends: Mapping[str, Mapping[str, float]] | None = None
) -> dict[str, Any]:
    """Return some columns with their unknown cells filled. Row-local.

    blends: number -> weights of `gaussian`, its mean under the normal model, and `trees`, and the `centre` that has the
        rest of the weight; a number without an entry has the trees' value.
    Numbers stay within the known range; a column without trees gets its mean under the normal model or, a category, the
    most frequent value; one that never had a value stays unknown.
    """
    design, model = chain.design, chain.gaussian
    rows = len(next(iter(table.values())))
    x = np.nan_to_num(fill(design.matrix(table, rows), model), nan=0.0)
    first = x.copy()
    precision = np.linalg.inv(model.covariance)
    predicted: dict[str, Any] = {}
    gone = {c: unknown(values) for c, values in table.items()}
    for turn in chain.rounds:
        for column, trees in turn.items():
            missing = np.flatnonzero(gone[column])
            if len(missing):
                predicted[column] = predict(x, missing, column, trees, design, model, precision)
    out = {}
    for column in columns:
        out[column], cells = table[column].copy(), gone[column]
        if column in design.numbers:
            place = design.places(column)[0]
            if np.isfinite(model.mean[place]):
                plain = first[cells, place]
                value = predicted.get(column, plain)
                weights = (blends or {}).get(column)
                if weights is not None:
                    plain, value = (weights.get(m, 0.0) * v for m, v in (("gaussian", plain), ("trees", value)))
                    left = 1.0 - weights.get("gaussian", 0.0) - weights.get("trees", 0.0)
                    value = plain + value + left * weights.get("centre", 0.0)
                out[column][cells] = value
        elif column in predicted:
            out[column][cells] = predicted[column]
        elif design.domain[column]:
            out[column][cells] = design.domain[column][0]
    return out
