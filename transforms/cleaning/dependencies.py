"""Dependencies between columns found in a sample: where rows alike in one column are nearly always alike in another."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from headgate.transforms.cleaning.votes import Rule

AGREEMENT = 0.9  # share of the cells that agree with the others of their group
GAIN = 0.8  # share of the disagreement of rows at large that the groups take away
GROUPED = 0.5  # share of the rows that must have a companion in their group
GROUPS = 3


def discover(table: Mapping[str, Sequence[str | None]]) -> list[tuple[Rule, float]]:
    """Return the dependencies of one column on another that a sample shows, with their agreement, by names.

    table: column -> texts, None where unknown. Agreement is the share of the cells, in groups of two rows or more, that
    have the most frequent value of the others in the group. It must be `AGREEMENT` or more, and take away `GAIN` of the
    disagreement between any two rows: so a column of nearly one value depends on nothing. A determinant needs `GROUPS`
    groups of two rows or more, with `GROUPED` of its rows in them: keys determine everything and prove nothing. Cost:
    linear in the rows, square in the columns. Source: approximate dependencies, Huhtala et al. 1999 (TANE).
    """
    codes = {column: coded(values) for column, values in table.items()}
    found = []
    for a, b in itertools.permutations(sorted(codes), 2):
        agreement = agreed(codes[a], codes[b])
        if agreement is not None:
            found.append((Rule((a,), b), round(agreement, 4)))
    return found


def coded(values: Sequence[str | None]) -> Any:
    """Return (n,) numbers of the values, -1 where unknown."""
    numbers: dict[str, int] = {}
    return np.array([-1 if v is None else numbers.setdefault(v, len(numbers)) for v in values], dtype=np.int64)


def agreed(determinant: Any, decided: Any) -> float | None:
    """Return the agreement of a column within the groups of another; None where that shows no dependency."""
    known = (determinant >= 0) & (decided >= 0)
    key, value = determinant[known], decided[known]
    if not len(key):
        return None
    pairs, n = np.unique(key * (value.max() + 1) + value, return_counts=True)
    group = pairs // (value.max() + 1)
    _, starts = np.unique(group, return_index=True)
    rows = np.add.reduceat(n, starts)
    top = np.maximum.reduceat(n, starts)
    grouped = rows > 1
    if grouped.sum() < GROUPS or rows[grouped].sum() < GROUPED * len(key):
        return None
    leaders = np.add.reduceat(n == np.repeat(top, np.diff([*starts, len(n)])), starts)
    # Without itself, a row of the leading value agrees with the others only if no other value leads as well.
    agree = np.where((top > 1) & (leaders == 1), top, 0)[grouped].sum() / rows[grouped].sum()
    shares = np.bincount(value) / len(value)
    chance = float((shares**2).sum())
    return float(agree) if agree >= AGREEMENT and agree - chance > GAIN * (1 - chance) else None
