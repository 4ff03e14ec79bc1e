"""Trees of median cuts whose leaves overlap: which rows are searched together where one search of all is too dear.

A tree is learned from some of the rows. Every row has one leaf for its home, in which its neighbours are searched, and
is a candidate in the other leaves that begin within a margin of it (a spill tree: Liu et al. 2004).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SPILL = 0.4  # of the rows of a node, those that go to both sides at most
LEAST = 0.1  # of the rows of a node, those on either side at least


@dataclass(frozen=True)
class Leaf:
    """Rows that are searched together; those of more than one part fall into them by their hash, as no cut does it."""

    number: int  # of its first part
    parts: int


@dataclass(frozen=True)
class Cut:
    """A cut of a coordinate: rows up to `at` go `below`, the others `above`, and rows within `margin` of it to both."""

    column: int
    at: float
    margin: float
    below: "Cut | Leaf"
    above: "Cut | Leaf"


Tree = Cut | Leaf


def grown(points: Any, stands_for: float, most: int, fewest: int, margins: Sequence[float], first: int) -> Tree:
    """Return a tree for rows of which some are known, with leaves of about `most` rows at most, candidates apart.

    points: (n, d) coordinates of the known rows, each of which stands for as many as `stands_for` says. fewest: known
    rows of a leaf, at least. margins: how far apart neighbours are in each coordinate. first: number of the first leaf.
    """
    rows = len(points) * stands_for
    if rows <= most:
        return Leaf(first, 1)
    found = best_cut(points, max(fewest, round(LEAST * len(points))), margins)
    if found is None:
        return Leaf(first, int(np.ceil(rows / most)))
    column, at, margin = found
    low = points[:, column] <= at
    below = grown(points[low], stands_for, most, fewest, margins, first)
    above = grown(points[~low], stands_for, most, fewest, margins, first + parts_of(below))
    return Cut(column, at, margin, below, above)


def best_cut(points: Any, fewest: int, margins: Sequence[float]) -> tuple[int, float, float] | None:
    """Return column, place and margin of the cut near a median that fewest rows lie about; None if there is none."""
    best: tuple[float, int, float, float] | None = None
    for column, values in enumerate(np.sort(points, axis=0).T):
        at = values[(len(values) - 1) // 2]
        if at == values[-1]:
            at = values[max(np.searchsorted(values, at) - 1, 0)]
        low = int(np.searchsorted(values, at, side="right"))
        if min(low, len(values) - low) < fewest:
            continue
        off = np.abs(values - at)
        cost = float(np.mean(off <= margins[column])) + abs(0.5 - low / len(values))
        if best is None or cost < best[0]:
            best = cost, column, float(at), min(float(margins[column]), float(np.quantile(off, SPILL)))
    return None if best is None else best[1:]


def parts_of(tree: Tree) -> int:
    """Return how many leaves a tree has, counting each part."""
    return tree.parts if isinstance(tree, Leaf) else parts_of(tree.below) + parts_of(tree.above)


def routed(tree: Tree, points: Any, hashes: Any) -> tuple[Any, Any, Any]:
    """Return the leaves of rows as flat arrays: position of a row, number of a leaf, whether it is the row's home."""
    found = []
    open_: list[tuple[Tree, Any, Any]] = [(tree, np.arange(len(points)), np.ones(len(points), dtype=bool))]
    while open_:
        node, rows, home = open_.pop()
        if isinstance(node, Leaf):
            part = (hashes[rows] % np.uint64(node.parts)).astype(np.int64)
            found.append((rows, node.number + part, home))
            continue
        off = points[rows, node.column] - node.at
        for child, side in ((node.below, off <= 0), (node.above, off > 0)):
            goes = side | (np.abs(off) <= node.margin)
            open_.append((child, rows[goes], (home & side)[goes]))
    at, leaf, home = (np.concatenate(x) for x in zip(*found, strict=True))
    return at, leaf, home
