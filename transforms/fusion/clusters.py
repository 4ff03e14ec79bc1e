"""From links to entities, in numpy: components, their parts that hold together, and one partner for each record.

Two clusters are joined only while the mean evidence over *all* their cross pairs is for it; a pair that is not among
the links counts as evidence against. So a chain of near neighbours does not take strangers together.
"""

import heapq
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

ABSENT = -4.0  # bits of a cross pair that is not among the links
LIMIT = 12.0  # bits that one pair may give either way


def components(n: int, one: Ints, other: Ints) -> Ints:
    """Label each of n records with the smallest record that it hangs together with."""
    label = np.arange(n)
    while True:
        low = np.minimum(label[one], label[other])
        new = label.copy()
        for place in (one, other, label[one], label[other]):
            np.minimum.at(new, place, low)
        new = new[new]
        if (new == label).all():
            return label
        label = new


def one_to_one(one: Ints, other: Ints, side: Ints, score: Floats, common: Floats) -> Bools:
    """Choose pairs best first, so that no record has two; ties by `common`, then by the numbers of the records.

    side: of each pair, a number for the two sources: one record may have a partner in each.
    """
    used: set[tuple[int, int]] = set()
    keep = np.zeros(len(one), np.bool_)
    for i in np.lexsort((other, one, -common, -score)).tolist():
        mine, theirs = (int(one[i]), int(side[i])), (int(other[i]), int(side[i]))
        if mine not in used and theirs not in used:
            keep[i] = True
            used |= {mine, theirs}
    return keep


def parts(
    n: int,
    one: Sequence[int],
    other: Sequence[int],
    score: Sequence[float],
    must: Sequence[bool],
    cannot: Sequence[bool],
    source: Sequence[int] | None = None,
) -> list[int]:
    """Label each of n records with the smallest record of its part: average-link agglomeration, deterministic in ties.

    score: bits for each pair being one entity. must: pairs that are, whatever the score; cannot: pairs whose records
    may not meet in one part, and do not even where must-links lead from one to the other. source: of each record, where
    no two of one source may meet.
    """
    size, member = dict.fromkeys(range(n), 1), {x: [x] for x in range(n)}
    near: dict[int, dict[int, tuple[float, int]]] = {x: {} for x in range(n)}
    apart: dict[int, set[int]] = {x: set() for x in range(n)}
    held = {x: {source[x]} if source is not None else set() for x in range(n)}
    for a, b, w, never in zip(one, other, score, cannot, strict=True):
        near[a][b] = near[b][a] = (min(max(w, -LIMIT), LIMIT), 1)
        if never:
            apart[a].add(b)
            apart[b].add(a)

    def mean(a: int, b: int) -> float:
        total, pairs = near[a].get(b, (0.0, 0))
        return (total + ABSENT * (size[a] * size[b] - pairs)) / (size[a] * size[b])

    def join(a: int, b: int) -> int:
        if size[a] < size[b] or (size[a] == size[b] and a > b):
            a, b = b, a
        for c, (w, k) in near.pop(b).items():
            near[c].pop(b)
            if c != a:
                before, pairs = near[a].get(c, (0.0, 0))
                near[a][c] = near[c][a] = (before + w, pairs + k)
        for c in apart.pop(b):
            apart[c].discard(b)
            apart[c].add(a)
            apart[a].add(c)
        size[a] += size.pop(b)
        member[a] += member.pop(b)
        held[a] |= held.pop(b)
        return a

    at = list(range(n))
    for a, b, bound in sorted(zip(one, other, must, strict=True)):
        mine, theirs = at[a], at[b]
        if bound and mine != theirs and theirs not in apart[mine]:
            joined = join(mine, theirs)
            for x in member[joined]:
                at[x] = joined
    heap = [(-mean(a, b), a, b, size[a], size[b]) for a in near for b in near[a] if a < b]
    heapq.heapify(heap)
    while heap:
        against, a, b, size_a, size_b = heapq.heappop(heap)
        if against >= 0:
            break
        if size.get(a) != size_a or size.get(b) != size_b or b in apart[a] or held[a] & held[b]:
            continue
        a = join(a, b)
        for c in near[a]:
            heapq.heappush(heap, (-mean(a, c), a, c, size[a], size[c]))
    label = [0] * n
    for members in member.values():
        for x in members:
            label[x] = min(members)
    return label
