"""Synthetic rows between near neighbours of one class, in numpy: SMOTE and its kin."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

MASK = (1 << 64) - 1
PROBES = 32  # rows by which it is seen whether a tree of the rows spares distances,
TREE = 10  # one of which costs it as much as so many that are products of matrices
SPARE = 4  # candidates beyond those asked for, which show whether rounding kept one of these out
ROUNDING = 1e-11  # of a squared distance that is made of products, as a share of the squared lengths
CHUNK = 4_096  # rows that are asked for at once
SIGNS = 8  # coordinates of a text where rows fall into buckets; fewer where there are more than
ALL_SIGNS = 64  # of all texts together


@dataclass(frozen=True)
class Points:
    """Rows of some classes, sorted by row id.

    ids: (n,) row ids. numbers: (n, k) doubles without NaN. categories: (n, c) codes of texts. group: (n,) numbers of
    the class and segment: neighbours are of one group.
    """

    ids: np.ndarray[Any, Any]
    numbers: np.ndarray[Any, Any]
    categories: np.ndarray[Any, Any]
    group: np.ndarray[Any, Any]


@dataclass(frozen=True)
class Metric:
    """What distances are made of: the columns n0, n1 … of tables, divided by `scale`, and the texts t0, t1 …"""

    scale: np.ndarray[Any, Any]
    unlike: float
    texts: int

    def cells(
        self, table: pa.Table, known: Sequence[Sequence[str]] | None = None
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], list[list[str]], np.ndarray[Any, Any]]:
        """Return rows as numbers, codes of texts and what these stand for, and coordinates (see `space_of`)."""
        numbers = matrix_of(table, len(self.scale))
        texts = [table[f"t{i}"].to_pylist() for i in range(self.texts)]
        coded = [codes_of(column, known[i] if known else None) for i, column in enumerate(texts)]
        codes = np.array([c for c, _ in coded], dtype=np.int64).reshape(self.texts, table.num_rows).T
        names = [n for _, n in coded]
        return numbers, codes, names, space_of(numbers, codes, self.scale, [*map(len, names)], self.unlike)

    def coordinates(self, table: pa.Table) -> np.ndarray[Any, Any]:
        """Return rows as (n, d) coordinates whose distances are about those of `cells`, whatever texts there are.

        Numbers are divided by `scale`; a text is a vector of as many signs as its hash has, so that two that differ
        are `unlike` apart in the mean of their squares (feature hashing: Weinberger et al. 2009).
        """
        signs = max(1, min(SIGNS, ALL_SIGNS // max(self.texts, 1)))
        parts = [matrix_of(table, len(self.scale)) / self.scale]
        for i in range(self.texts):
            codes, names = codes_of(table[f"t{i}"].to_pylist())
            hashed = np.array([zlib.crc32(name.encode()) for name in names], dtype=np.uint64)
            bits = mixed(i, hashed, np.zeros(len(names)), 3)[:, None] >> np.arange(signs, dtype=np.uint64)
            found = (2.0 * (bits & np.uint64(1)).astype(float) - 1) * (self.unlike / np.sqrt(2 * signs))
            parts.append(found[codes])
        return np.hstack(parts)


def matrix_of(table: pa.Table, numbers: int) -> np.ndarray[Any, Any]:
    """Return the columns n0, n1 … as (n, numbers) doubles."""
    columns = [table[f"n{i}"].to_numpy() for i in range(numbers)]
    return np.array(columns, dtype=float).reshape(numbers, table.num_rows).T


def space_of(
    numbers: np.ndarray[Any, Any], categories: np.ndarray[Any, Any], scale: Any, sizes: Sequence[int], unlike: float
) -> np.ndarray[Any, Any]:
    """Return rows as (n, d) coordinates whose Euclidean distances are those of SMOTE-NC.

    Numbers are divided by `scale`; each category that differs adds `unlike` squared to the square of a distance.
    sizes: how many codes each category has; a code of -1 is of none of them.
    """
    parts = [numbers / scale]
    for column, size in zip(categories.T, sizes, strict=True):
        one_hot = np.zeros((len(column), size + 1))
        one_hot[np.arange(len(column)), column] = unlike / np.sqrt(2)
        parts.append(one_hot)
    return np.hstack(parts)


def closest(space: Any, wanted: Any, k: int) -> tuple[Any, Any]:
    """Return distances and positions of the k nearest rows to each wanted one (fewer if there are not so many).

    In the order of distances, then of positions; of rows as near as the last one, the earlier ones as far as the search
    tells them. Exact: distances are those of each pair alone, whatever is searched together. Cost: about log n for each
    wanted row where a tree parts the rows well, else all n distances, by products of matrices.
    """
    from sklearn.neighbors import KDTree, NearestNeighbors

    k, some = min(k, len(space)), min(k + SPARE, len(space))
    tree, middle, flat = KDTree(space), space.mean(axis=0), None
    tree.query(wanted[:PROBES], some)
    if TREE * tree.get_n_calls() > len(space) * len(wanted[:PROBES]):
        flat = NearestNeighbors(n_neighbors=some, algorithm="brute").fit(space - middle)
    distances, places = np.empty((len(wanted), k)), np.empty((len(wanted), k), dtype=np.int64)
    for start in range(0, len(wanted), CHUNK):
        part = wanted[start : start + CHUNK]
        if flat is None:
            distance, place = by_distance(space, part, tree.query(part, some, return_distance=False))
        else:
            distance, place = by_distance(space, part, flat.kneighbors(part - middle, return_distance=False))
            squared = distance**2
            lengths = ((part - middle) ** 2).sum(axis=1) + squared[:, -1]
            unsure = (squared[:, -1] - squared[:, k - 1] <= ROUNDING * lengths) & (some < len(space))
            if unsure.any():
                again = tree.query(part[unsure], some, return_distance=False)
                distance[unsure], place[unsure] = by_distance(space, part[unsure], again)
        distances[start : start + CHUNK], places[start : start + CHUNK] = distance[:, :k], place[:, :k]
    return distances, places


def by_distance(space: Any, wanted: Any, place: Any) -> tuple[Any, Any]:
    """Return the distances to some rows of each wanted one, and these rows, in their order."""
    distance = apart(space[place], wanted[:, None])
    order = np.lexsort((place, distance), axis=1)
    return np.take_along_axis(distance, order, axis=1), np.take_along_axis(place, order, axis=1)


def apart(one: Any, other: Any) -> Any:
    return np.sqrt(((one - other) ** 2).sum(axis=-1))


def nearest(space: np.ndarray[Any, Any], group: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any], k: int) -> Any:
    """Return the k nearest other rows of the group of each wanted row as (len(wanted), k) positions, as `closest` does.

    wanted: positions. -1 where a group has fewer.
    """
    found = np.full((len(wanted), k), -1, dtype=np.int64)
    for number in np.unique(group[wanted]):
        rows, asked = np.flatnonzero(group == number), np.flatnonzero(group[wanted] == number)
        if len(rows) < 2:
            continue
        some = min(k, len(rows) - 1)
        distance, place = closest(space[rows], space[wanted[asked]], some + 1)
        # A row itself is left out by its position: copies of it lie as near, and may come before it.
        distance = np.where(rows[place] == wanted[asked][:, None], np.inf, distance)
        order = np.lexsort((place, distance), axis=1)[:, :some]
        found[asked, :some] = rows[np.take_along_axis(place, order, axis=1)]
    return found


def nearest_with_ties(space: Any, wanted: Any, k: int) -> tuple[Any, Any, Any]:
    """Return the k nearest rows to each wanted one, and all others that lie as near as the last of them.

    As three flat arrays: which wanted row, which row, their distance. So what is taken of several parts of the rows
    does not depend on how they are parted.
    """
    from sklearn.neighbors import KDTree

    distance, place = closest(space, wanted, k + 1)
    more = distance.shape[1] > k
    tied = np.flatnonzero(distance[:, k] == distance[:, k - 1]) if more else np.zeros(0, dtype=np.int64)
    distance, place = distance[:, :k], place[:, :k]
    whole = np.setdiff1d(np.arange(len(wanted)), tied)
    parts = [(np.repeat(whole, distance.shape[1]), place[whole].ravel(), distance[whole].ravel())]
    if len(tied):
        last = distance[tied, -1]
        found = KDTree(space).query_radius(wanted[tied], last * (1 + 1e-12))
        at, near = np.repeat(np.arange(len(tied)), [len(f) for f in found]), np.concatenate(found)
        exact = apart(space[near], wanted[tied[at]])
        inside = exact <= last[at]
        parts.append((tied[at[inside]], near[inside], exact[inside]))
    one, two, three = (np.concatenate(x) for x in zip(*parts, strict=True))
    return one, two, three


def counts_of(hashes: np.ndarray[Any, Any], weights: np.ndarray[Any, Any], total: int) -> np.ndarray[Any, Any]:
    """Divide `total` synthetic rows over base rows in proportion to weights, exactly, by largest remainders.

    Ties fall to the smaller hash. With equal weights every row gets equally many, but for one.
    """
    if weights.sum() <= 0:
        weights = np.ones(len(weights))
    exact = total * (weights / weights.sum())
    whole = np.floor(exact + 1e-9).astype(np.int64)
    order = np.lexsort((hashes, -np.round(exact - whole, 9)))
    whole[order[: total - int(whole.sum())]] += 1
    counts: np.ndarray[Any, Any] = whole
    return counts


def mixed(seed: int, base: np.ndarray[Any, Any], number: np.ndarray[Any, Any], salt: int) -> np.ndarray[Any, Any]:
    """Return uniform 64-bit numbers of a seed, a base row's hash and a running number (SplitMix64's finalizer)."""
    start = (seed * 0x9E3779B97F4A7C15 + salt * 0xD1B54A32D192ED03) & MASK
    with np.errstate(over="ignore"):
        z: np.ndarray[Any, Any] = (
            base.astype(np.uint64) + number.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(start)
        )
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return z


@dataclass(frozen=True)
class Made:
    """Synthetic rows: positions of both parents, the number among those of the first one, and their cells."""

    base: np.ndarray[Any, Any]
    other: np.ndarray[Any, Any]
    number: np.ndarray[Any, Any]
    numbers: np.ndarray[Any, Any]
    categories: np.ndarray[Any, Any]


def synthesized(points: Points, near: Any, counts: Any, hashes: Any, rows: Any, seed: int) -> Made:
    """Return the synthetic rows of some base rows: each on the line from its base to one of the nearest others.

    rows: positions of the base rows; near: their neighbours, as of `nearest`; counts: how many to make of each.
    hashes: uniform numbers of all rows. Categories take the most frequent one of the base's neighbours; of equally
    frequent ones that of the base, else the first.
    """
    at = np.repeat(np.arange(len(rows)), counts)
    base, there = rows[at], (near >= 0).sum(axis=1)
    number = np.concatenate([np.arange(n) for n in counts]) if len(rows) else np.zeros(0, dtype=np.int64)
    pick = (mixed(seed, hashes[base], number, 1) % there[at].astype(np.uint64)).astype(np.int64)
    other = near[at, pick]
    gap = ((mixed(seed, hashes[base], number, 2) >> np.uint64(11)).astype(float) + 0.5) * 2.0**-53
    numbers = points.numbers[base] + gap[:, None] * (points.numbers[other] - points.numbers[base])
    width = points.categories.shape[1]
    frequent = [category_of(points, near[i, : there[i]], rows[i]) if width else [] for i in range(len(rows))]
    categories = np.array(frequent, dtype=np.int64).reshape(len(rows), width)[at]
    return Made(base, other, number, numbers, categories)


def as_lists(made: Made, names: Sequence[Sequence[str]]) -> tuple[pa.ListArray, pa.ListArray]:
    """Return the numbers and the texts of synthetic rows as lists; names: what the codes of each column are."""
    columns = [np.array(n, dtype=object)[c] for n, c in zip(names, made.categories.T, strict=True)]
    texts = np.array(columns, dtype=object).reshape(len(names), len(made.base)).T
    return list_of(made.numbers, pa.float64()), list_of(texts, pa.string())


def list_of(cells: np.ndarray[Any, Any], kind: pa.DataType) -> pa.ListArray:
    ends = np.arange(len(cells) + 1, dtype=np.int32) * cells.shape[1]
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(cells.ravel(), kind))


def category_of(points: Points, neighbours: np.ndarray[Any, Any], base: int) -> list[int]:
    found = []
    for c in range(points.categories.shape[1]):
        values, counts = np.unique(points.categories[neighbours, c], return_counts=True)
        best = values[counts == counts.max()]
        own = points.categories[base, c]
        found.append(int(own if own in best else best[0]))
    return found


def unlike_of(numbers: np.ndarray[Any, Any], scale: Any) -> float:
    """Return by how much rows that differ in a category are apart: the median deviation of the numbers, or 1."""
    return median_of((numbers / scale).std(axis=0) if len(numbers) else np.zeros(0))


def median_of(deviations: np.ndarray[Any, Any]) -> float:
    """Return the median of those above 0, or 1 where none is."""
    some = deviations[deviations > 0]
    return float(np.median(some)) if len(some) else 1.0


def scale_of(numbers: np.ndarray[Any, Any], scaled: bool) -> np.ndarray[Any, Any]:
    """Return what numbers are divided by: their standard deviations, or 1."""
    deviation = numbers.std(axis=0) if scaled and len(numbers) else np.ones(numbers.shape[1])
    return np.where(deviation > 0, deviation, 1.0)


def codes_of(texts: Sequence[str], known: Sequence[str] | None = None) -> tuple[np.ndarray[Any, Any], list[str]]:
    """Return texts as codes, and what these stand for, in order; with known ones, -1 for any other."""
    names = sorted(set(texts)) if known is None else list(known)
    codes = {name: i for i, name in enumerate(names)}
    return np.array([codes.get(text, -1) for text in texts], dtype=np.int64), names
