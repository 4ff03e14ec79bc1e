"""Cells of rows that are searched together where one search of all is too dear.

Each cell has a centre, which k-means finds in a sample of the rows. A row's neighbours are searched in the cell of its
nearest centre, its home; it is a candidate in those of the next nearest centres too, so that most of the neighbours of
rows near an edge are found (an inverted file: Jégou et al. 2011).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from headgate.transforms.balancing.neighbours import closest

LARGE = 4  # times as many rows as a cell shall have, from which on its rows fall into parts by their hash


@dataclass(frozen=True)
class Cells:
    """Cells by their centres, (n, d) coordinates. first: (n,) number of the first part of each, and of its next cell's.

    Rows that no centres part, as they are equal, fall into parts of a cell by their hash.
    """

    centres: np.ndarray[Any, Any]
    parts: np.ndarray[Any, Any]
    first: int

    @property
    def end(self) -> int:
        return self.first + int(self.parts.sum())

    def nearest(self, points: Any, most: int) -> Any:
        """Return the nearest cells of each row, (n, most) or fewer, the first one of which is its home."""
        if len(self.centres) == 1:
            return np.zeros((len(points), 1), dtype=np.int64)
        return closest(self.centres, points, most)[1]

    def placed(self, points: Any, hashes: Any, spill: int) -> tuple[Any, Any, Any]:
        """Return the cells of rows as flat arrays: position of a row, number of a part, whether it is the row's home.

        spill: in how many cells a row is a candidate, its home being one.
        """
        near = self.nearest(points, spill)
        begins = self.first + np.cumsum(self.parts) - self.parts
        number = begins[near] + (hashes[:, None] % self.parts[near].astype(np.uint64)).astype(np.int64)
        home = np.zeros(near.shape, dtype=bool)
        home[:, 0] = True
        return np.repeat(np.arange(len(points)), near.shape[1]), number.ravel(), home.ravel()


def cells_of(points: Any, rows: int, most: int, fewest: int, first: int) -> Cells:
    """Return cells for so many rows, of which some are known, with about `most` rows each, candidates apart.

    points: (n, d) coordinates of the known rows. fewest: known rows of a cell, at least. first: number of the first.
    """
    number = min(math.ceil(rows / most), len(points) // (2 * fewest))
    centres = points[:1] if number < 2 or not points.shape[1] else centres_of(points, number, fewest)
    cells = Cells(centres, np.ones(len(centres), dtype=np.int64), first)
    known = np.bincount(cells.nearest(points, 1)[:, 0], minlength=len(centres))
    parts = np.ceil(known * (rows / max(len(points), 1)) / most)
    return Cells(centres, np.where(parts > LARGE, parts, 1).astype(np.int64), first)


def centres_of(points: Any, number: int, fewest: int) -> Any:
    """Return centres of some points, those left out of which fewer are nearest to; the same in every run."""
    from sklearn.cluster import BisectingKMeans
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # sums of several threads may come in any order
        halves = BisectingKMeans(number, bisecting_strategy="largest_cluster", random_state=0).fit(points)
    centres = np.unique(halves.cluster_centers_, axis=0)
    while len(centres) > 1:
        known = np.bincount(closest(centres, points, 1)[1][:, 0], minlength=len(centres))
        if known.min() >= fewest:
            break
        centres = np.delete(centres, known.argmin(), axis=0)
    return centres
