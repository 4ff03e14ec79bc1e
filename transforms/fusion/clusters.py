"""From links to entities, in numpy: components, their parts that hold together, and one partner for each record.

Two clusters are joined only while the mean evidence over *all* their cross pairs is for it; a pair that is not among
the links counts as evidence against. So a chain of near neighbours does not take strangers together.
"""

import heapq
import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

ABSENT = -4.0  # bits of a cross pair that is not among the links
DECIDED = 1e6  # the score of a pair that people decided to be one
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

    Pairs with a score of `DECIDED` or more are all chosen: people said so.
    side: of each pair, a number for the two sources: one record may have a partner in each.
    """
    used: set[tuple[int, int]] = set()
    keep = np.zeros(len(one), np.bool_)
    for i in np.lexsort((other, one, -common, -score)).tolist():
        mine, theirs = (int(one[i]), int(side[i])), (int(other[i]), int(side[i]))
        if score[i] >= DECIDED or (mine not in used and theirs not in used):
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


def grouped(links: pa.Table, apart: bool) -> pa.RecordBatch:
    """Take the components of links apart where they do not hold together.

    links: in order of component. Returns id, grp, weakest, pair, component.
    """
    cells = {c: links[c].to_pylist() for c in links.column_names}
    component = np.array(cells["component"], object)
    starts = [*np.flatnonzero(np.r_[True, component[1:] != component[:-1]][: len(component)]).tolist(), len(component)]
    out: tuple[list[str], list[str], list[float | None], list[list[str] | None], list[str]] = ([], [], [], [], [])
    for low, high in itertools.pairwise(starts):
        a, b, score, rule = (cells[c][low:high] for c in ("id_a", "id_b", "score", "rule"))
        source = dict(zip(a, cells["source_a"][low:high], strict=True))
        source |= dict(zip(b, cells["source_b"][low:high], strict=True))
        ids = sorted(source)
        at = {x: i for i, x in enumerate(ids)}
        one, other = [at[x] for x in a], [at[x] for x in b]
        must, cannot = [r == "must_link" for r in rule], [r == "cannot_link" for r in rule]
        numbers = {s: i for i, s in enumerate(sorted({str(s) for s in source.values()}))}
        of = [numbers[str(source[x])] for x in ids] if apart else None
        label = parts(len(ids), one, other, score, must, cannot, of)
        weakest = weakest_links(len(ids), one, other, score, label)
        out[0].extend(ids)
        out[1].extend(ids[x] for x in label)
        found = [weakest[x] for x in label]
        out[2].extend(w and w[0] for w in found)
        out[3].extend(w and sorted((ids[w[1]], ids[w[2]])) for w in found)
        out[4].extend([cells["component"][low]] * len(ids))
    kinds = (pa.string(), pa.string(), pa.float64(), pa.list_(pa.string()), pa.string())
    arrays = [pa.array(c, k) for c, k in zip(out, kinds, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, ["id", "grp", "weakest", "pair", "component"])


def weakest_links(
    n: int, one: list[int], other: list[int], score: list[float], label: list[int]
) -> dict[int, tuple[float, int, int] | None]:
    """Return for each group the weakest of the links that hold it together at best: of a spanning tree of the best.

    A link is its score and its ends; None for a group without links.
    """
    tree = list(range(n))

    def root(x: int) -> int:
        while tree[x] != x:
            tree[x] = tree[tree[x]]
            x = tree[x]
        return x

    weakest: dict[int, tuple[float, int, int] | None] = dict.fromkeys(label)
    for w, a, b in sorted(zip(score, one, other, strict=True), key=lambda e: (-e[0], e[1], e[2])):
        if label[a] == label[b] and root(a) != root(b):
            tree[root(a)] = root(b)
            weakest[label[a]] = (w, a, b)
    return weakest
