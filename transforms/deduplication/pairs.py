"""Similar sets among sketches: candidates from shared buckets, exact similarities, and who stays.

Each function here is a body of `mapInArrow`: it sees the rows of one partition in an order that its caller gives them,
one Arrow batch after another, and holds a bounded number of rows between batches.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headgate.transforms.deduplication.minhash import different, most_different
from headgate.transforms.deduplication.shingles import sets_of

Batches = Iterable[pa.RecordBatch]
Ints = npt.NDArray[np.int64]


class Limits(Protocol):
    """The limits within which two rows that share a bucket are worth an exact comparison."""

    columns: ClassVar[tuple[str, ...]]  # of the rows, beside bucket, second, old, size and row

    @property
    def window(self) -> int:
        """Return how many rows of a bucket a row is compared with."""
        ...

    def likely(self, rows: pa.Table, one: Ints, other: Ints) -> tuple[Ints, Ints]:
        """Those of the pairs of places that are."""
        ...


@dataclass(frozen=True)
class Similar:
    """The limits of sizes and estimate within which two sets may reach the threshold of Jaccard similarity."""

    columns: ClassVar[tuple[str, ...]] = ("bits",)
    threshold: float
    values: int  # of a signature
    window: int
    loss: float  # of pairs at the threshold, the share that their estimate may leave out

    def likely(self, rows: pa.Table, one: Ints, other: Ints) -> tuple[Ints, Ints]:
        """Leave out pairs of old rows, pairs whose sizes forbid the similarity, and pairs whose estimate is too low."""
        old, size = rows["old"].to_numpy(), rows["size"].to_numpy()
        fits = ~(old[one] & old[other])
        small, large = np.minimum(size[one], size[other]), np.maximum(size[one], size[other])
        fits &= small >= self.threshold * large - 1e-9
        one, other = one[fits], other[fits]
        if len(one):
            bits = np.frombuffer(b"".join(rows["bits"].to_pylist()), np.uint8).reshape(rows.num_rows, -1)
            close = different(bits[one], bits[other]) <= most_different(self.threshold, self.values, self.loss)
            one, other = one[close], other[close]
        return one, other


def candidates(limits: Limits) -> Callable[[Batches], Batches]:
    """Pairs that share a bucket and are likely by the limits.

    Rows come sorted by bucket, then second (another bucket of theirs), then rank: columns bucket, second, old, size,
    row, and those that the limits name. Each row meets the `window` rows before it in its bucket and the first `window`
    that agree in second too, so that the cost of a bucket grows with its rows and not with their square; a bucket of at
    most `window` + 1 rows is compared in full. Gives `one` and `other`, the `row`s of each pair.
    """

    def pairs(batches: Batches) -> Batches:
        carried: pa.Table | None = None
        for batch in batches:
            fresh = pa.Table.from_batches([batch])
            have = carried.num_rows if carried is not None else 0
            rows = (pa.concat_tables([carried, fresh]) if carried is not None else fresh).combine_chunks()
            bucket, second = (rows[c].to_numpy() for c in ("bucket", "second"))
            starts = starts_of(bucket, second)
            one, other = pair_rows(bucket, starts, have, limits.window)
            one, other = limits.likely(rows, one, other)
            if len(one):
                row = rows["row"].combine_chunks()
                yield pa.RecordBatch.from_arrays([row.take(pa.array(i)) for i in (one, other)], ["one", "other"])
            carried = rows.take(pa.array(to_carry(bucket, starts, limits.window)))

    return pairs


def starts_of(*columns: npt.NDArray[Any]) -> Ints:
    """For each row, the first row of its run of equal values."""
    n = len(columns[0])
    changes = np.ones(n, np.bool_)
    if n:
        changes[1:] = np.logical_or.reduce([c[1:] != c[:-1] for c in columns])
    return np.maximum.accumulate(np.where(changes, np.arange(n), 0))


def pair_rows(bucket: npt.NDArray[Any], starts: Ints, have: int, window: int) -> tuple[Ints, Ints]:
    """Which rows meet; the first `have` rows have met among themselves already."""
    n, first, later = len(bucket), [], []
    for distance in range(1, window + 1):
        at = np.flatnonzero(bucket[distance:] == bucket[:-distance]) if distance < n else np.zeros(0, np.int64)
        if not len(at):
            break
        at = at[at + distance >= have]
        first.append(at)
        later.append(at + distance)
    far = np.flatnonzero((np.arange(n) - starts > window) & (np.arange(n) >= have))
    for place in range(window if len(far) else 0):
        at = far[far - (starts[far] + place) > window]
        first.append(starts[at] + place)
        later.append(at)
    if not first:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return np.concatenate(first), np.concatenate(later)


def to_carry(bucket: npt.NDArray[Any], starts: Ints, window: int) -> Ints:
    """The rows that rows to come may meet: of the last bucket its last rows, and the first of its last run."""
    n = len(bucket)
    if not n:
        return np.zeros(0, np.int64)
    last = np.arange(max(n - window, 0), n)
    head = np.arange(starts[-1], min(starts[-1] + window, n))
    return np.union1d(last[bucket[last] == bucket[-1]], head)


def similarities(threshold: float, contained: bool = False) -> Callable[[Batches], Batches]:
    """The exact Jaccard similarity of candidates, where it reaches the threshold; or how much of `gone` lies in `kept`.

    Rows come sorted by kept, the row itself (`gone` null) before its candidates: columns kept, gone, shingles, sorted
    but for what may lie within `kept`. Gives kept, gone, score, common (the size of the intersection).
    """

    def scores(batches: Batches) -> Batches:
        holder, hashes = None, np.zeros(0, np.uint64)
        for batch in batches:
            found: list[tuple[str, str, float, int]] = []
            of_all, starts = sets_of(batch.column("shingles"))
            names = (batch.column(c).to_pylist() for c in ("kept", "gone"))
            for kept, gone, start, end in zip(*names, starts[:-1], starts[1:], strict=True):
                these = of_all[start:end]
                if gone is None:
                    holder, hashes = kept, np.sort(these) if contained else these
                    continue
                if kept != holder:
                    raise ValueError(f"the shingles of {kept} are missing")
                common = in_common(hashes, these)
                score = common / (len(these) if contained else len(hashes) + len(these) - common)
                if score >= threshold:
                    found.append((kept, gone, score, common))
            yield scored(found)

    return scores


def scored(found: Sequence[tuple[str, str, float, int]]) -> pa.RecordBatch:
    """Return candidates that were confirmed: kept, gone, score, common."""
    columns = zip(*found, strict=True) if found else [[]] * 4
    kinds = (pa.string(), pa.string(), pa.float64(), pa.int64())
    arrays = [pa.array(list(c), kind) for c, kind in zip(columns, kinds, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, ["kept", "gone", "score", "common"])


def in_common(one: npt.NDArray[np.uint64], other: npt.NDArray[np.uint64]) -> int:
    """Return how many hashes two sorted sets share: each of the smaller one is looked up in the larger."""
    small, large = sorted((one, other), key=len)
    at = np.searchsorted(large, small)
    at[at == len(large)] = 0
    return int(np.count_nonzero(large[at] == small))


def select_survivors(batches: Batches) -> Batches:
    """The rows that go, from all edges at once: columns kept, gone, score, where `kept` ranks before `gone`.

    A row goes if one that ranks before it stays and is similar to it; so in the order of ranks, whatever the order of
    the edges. Gives for each its most similar row that stays and ranks before it, of several the one with the smallest
    id: gone, kept, score. Memory: about 150 bytes an edge.
    """
    tables = [pa.Table.from_batches([b]) for b in batches]
    if not tables:
        return
    edges = pa.concat_tables(tables)
    names = pa.chunked_array([*edges["kept"].chunks, *edges["gone"].chunks]).dictionary_encode().combine_chunks()
    if isinstance(names, pa.ChunkedArray):
        names = names.chunk(0)
    codes, n = names.indices.to_numpy(), len(names.dictionary)
    kept, gone = codes[: edges.num_rows], codes[edges.num_rows :]
    leaves, place = np.zeros(n, np.bool_), np.zeros(n, np.int64)
    leaves[greedy_removals(kept, gone, n)] = True
    place[pc.sort_indices(names.dictionary).to_numpy()] = np.arange(n)
    at = np.flatnonzero(~leaves[kept])
    at = at[np.lexsort((place[kept[at]], -edges["score"].to_numpy()[at], gone[at]))]
    best = edges.take(pa.array(at[starts_of(gone[at]) == np.arange(len(at))]))
    yield from best.select(["gone", "kept", "score"]).combine_chunks().to_batches()


def greedy_removals(kept: npt.NDArray[Any], gone: npt.NDArray[Any], n: int) -> Ints:
    """The greedy choice, all rows at once that are ready for it."""
    stays, leaves = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    while True:
        open_edges = ~leaves[kept] & ~leaves[gone]
        kept, gone = kept[open_edges], gone[open_edges]
        waits = np.zeros(n, np.bool_)
        waits[gone] = True
        now_stay = np.zeros(n, np.bool_)
        now_stay[kept] = True
        now_stay &= ~waits & ~stays
        now_leave = gone[stays[kept]]
        if not now_stay.any() and not len(now_leave):
            return np.flatnonzero(leaves)
        stays |= now_stay
        leaves[now_leave] = True
