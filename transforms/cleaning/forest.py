"""An isolation forest as plain arrays: fitted by scikit-learn on a sample, scored by numpy alone."""

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Forest:
    """Hold an isolation forest as plain arrays: complete binary trees, the children of node i are 2 i + 1 and 2 i + 2.

    feature, threshold: (trees, inner nodes); a leaf above the deepest level sends all rows left.
    length: (trees, leaves) the path length to a leaf, with the correction for the rows in it.
    fill: (k,) medians that stand in for unknown cells.
    norm: the mean path length of the trees' samples. cut: the score from which a row is an outlier.
    """

    columns: tuple[str, ...]
    feature: Any
    threshold: Any
    length: Any
    fill: Any
    norm: float
    cut: float

    def state(self) -> dict[str, Any]:
        """Return the forest as values that JSON holds; arrays as base64 of their little-endian bytes."""
        plain = {"columns": list(self.columns), "norm": self.norm, "cut": self.cut, "fill": self.fill.tolist()}
        shape = {"trees": len(self.feature), "nodes": self.feature.shape[1]}
        arrays = {"feature": "<i4", "threshold": "<f4", "length": "<f8"}
        texts = {n: base64.b64encode(getattr(self, n).astype(t).tobytes()).decode() for n, t in arrays.items()}
        return plain | shape | texts

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> "Forest":
        """Return the forest of `state`."""

        def array(name: str, kind: str, width: int) -> Any:
            return np.frombuffer(base64.b64decode(state[name]), kind).reshape(state["trees"], width)

        return cls(
            columns=tuple(state["columns"]),
            feature=array("feature", "<i4", state["nodes"]),
            threshold=array("threshold", "<f4", state["nodes"]),
            length=array("length", "<f8", state["nodes"] + 1),
            fill=np.array(state["fill"], dtype=float),
            norm=state["norm"],
            cut=state["cut"],
        )


def average_path(n: Any) -> Any:
    """Return the mean path length of an unsuccessful search among n rows (Liu, Ting, Zhou 2008, equation 1)."""
    n = np.asarray(n, dtype=float)
    big = np.where(n > 2, n, 3.0)
    long = 2.0 * (np.log(big - 1.0) + np.euler_gamma) - 2.0 * (big - 1.0) / big
    return np.where(n > 2, long, np.where(n == 2, 1.0, 0.0))


def fit_forest(
    values: Any,
    columns: tuple[str, ...],
    *,
    share: float = 0.01,
    trees: int = 100,
    rows: int = 256,
    seed: int = 0,
) -> Forest:
    """Fit scikit-learn's isolation forest on a sample (n, k), and keep its trees as arrays.

    share: the share of the sample that is to be called outlying (sets `cut`, not the scores). Unknown cells (NaN,
    infinities) take the column's median. A column without any value is 0.
    """
    from sklearn.ensemble import IsolationForest

    known = np.where(np.isfinite(values), values, np.nan)
    fill = np.array([np.nanmedian(c) if np.isfinite(c).any() else 0.0 for c in known.T])
    x = np.where(np.isnan(known), fill, known).astype(np.float32)
    options = {"max_samples": min(rows, len(x)), "random_state": seed % 2**32, "n_jobs": 1}
    forest = IsolationForest(n_estimators=trees, **options).fit(x)
    deepest = max(t.tree_.max_depth for t in forest.estimators_)
    inner = 2**deepest - 1
    feature, threshold = np.zeros((trees, inner), np.int32), np.full((trees, inner), np.inf, np.float32)
    length = np.zeros((trees, inner + 1))
    for i, (tree, chosen) in enumerate(zip(forest.estimators_, forest.estimators_features_, strict=True)):
        t = tree.tree_
        todo = [(0, 0, 0)]  # node of the tree, place in the complete tree, depth
        while todo:
            node, place, depth = todo.pop()
            if t.children_left[node] >= 0:
                feature[i, place], threshold[i, place] = chosen[t.feature[node]], below(t.threshold[node])
                todo.append((int(t.children_left[node]), 2 * place + 1, depth + 1))
                todo.append((int(t.children_right[node]), 2 * place + 2, depth + 1))
            else:
                for _ in range(deepest - depth):  # a leaf's rows go left to the bottom
                    place = 2 * place + 1
                length[i, place - inner] = depth + average_path(t.n_node_samples[node])
    made = Forest(
        columns=columns, feature=feature, threshold=threshold, length=length, fill=fill,
        norm=float(average_path(np.array(min(rows, len(x))))), cut=math.inf,
    )  # fmt: skip
    scores = score_forest(values, made)
    return Forest(**{**made.__dict__, "cut": float(np.quantile(scores, 1 - share, method="higher"))})


def below(threshold: float) -> np.float32:
    """Return the largest float32 not above a double: for a float32 x, x <= threshold just where x <= it."""
    near = np.float32(threshold)
    return near if float(near) <= threshold else np.nextafter(near, np.float32(-np.inf))


def score_forest(values: Any, forest: Forest, *, block: int = 16_384) -> Any:
    """Return the outlier score of each row, in (0, 1); higher is more outlying. Row-local, numpy alone.

    The score is 2^(-mean path / norm), scikit-learn's `-score_samples`. Comparisons are made in float32, as there.
    """
    out = np.empty(len(values))
    safe = np.where(np.isfinite(values), values, forest.fill).astype(np.float32)
    inner = forest.feature.shape[1]
    deepest = (inner + 1).bit_length() - 1
    for start in range(0, len(safe), block):
        x = safe[start : start + block]
        n, k = x.shape
        flat, base = x.ravel(), np.arange(0, n * k, k, dtype=np.int32)
        total = np.zeros(n)
        for feature, threshold, length in zip(forest.feature, forest.threshold, forest.length, strict=True):
            if not deepest:
                total += length[0]
                continue
            node = (x[:, feature[0]] > threshold[0]).astype(np.int32) + np.int32(1)
            for _ in range(deepest - 1):
                right = flat.take(feature.take(node) + base) > threshold.take(node)
                node += node
                node += 1
                node += right
            total += length.take(node - inner)
        longest = len(forest.feature) * forest.norm
        out[start : start + block] = 2.0 ** -(total / longest if longest else 1.0)  # of one row: .5, as in scikit-learn
    return out
