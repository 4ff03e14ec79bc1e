"""Buckets of rows that are searched together, and the recall of the neighbours that are found in them.

Rows of one group, such as a class and segment, are searched together. A large group is parted into cells, each of which
is a bucket; small ones go whole, several into one bucket.
"""

import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headgate.transforms.balancing.cells import Cells, cells_of
from headgate.transforms.balancing.neighbours import Metric, codes_of, nearest_with_ties
from headgate.transforms.rows import local_frame
from headgate.transforms.step import Context

Batches = Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]
Group = tuple[str, str]  # class and segment
BUCKET = 10_000  # rows that are searched together, candidates from other cells apart
SAMPLE = 200_000  # rows that centres are learned from, at most,
KNOWN = 50  # of each bucket as a rule
ASKED = 500  # rows whose exact neighbours are searched: half of them for the overlap, half for the recall
MOST_SPILL = 16  # cells in which a row is a candidate
NEAR = "base long, distance double, found boolean, place array<double>"


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search for the k nearest rows. recall: the share of them that shall be found. what: names them in figures."""

    metric: Metric
    k: int
    recall: float
    seed: int
    what: str


@dataclass(frozen=True)
class Buckets:
    """The buckets of all rows: those of large groups by their cells, from number `first` on those of the others.

    spill: in how many cells of a large group a row is a candidate.
    """

    cells: Mapping[Group, Cells] = field(default_factory=dict)
    first: int = 0
    others: int = 1
    spill: int = 1

    def placed(self, groups: Sequence[Group], space: Any, hashes: Any) -> tuple[Any, Any, Any]:
        """Return the buckets of rows as flat arrays: position of a row, number of a bucket, whether it is its home."""
        parts = []
        for name, rows in rows_by(groups).items():
            cells = self.cells.get(name)
            if cells is None:
                key = f"{len(name[0])}:{name[0]}{name[1]}".encode()
                number = self.first + zlib.crc32(key) % self.others
                parts.append((rows, np.full(len(rows), number), np.ones(len(rows), dtype=bool)))
            else:
                at, bucket, home = cells.placed(space[rows], hashes[rows], self.spill)
                parts.append((rows[at], bucket, home))
        at, bucket, home = (np.concatenate(x) for x in zip(*parts, strict=True))
        return at, bucket, home


def buckets_of(base: DataFrame, groups: DataFrame, search: Search, context: Context) -> Buckets:
    """Return the buckets of all rows; the recall of the neighbours that are found in them is a figure of the build.

    base: rows with id, label, segment, hash, n0 … and t0 …; groups: label, segment, and how many rows have them. Rows
    are candidates in as many cells as it takes for the recall that is asked for, but in 16 at most.
    """
    sizes = {(r["label"], r["segment"]): r["rows"] for r in groups.where(F.col("rows") > BUCKET).collect()}
    rest = groups.where(F.col("rows").between(2, BUCKET)).agg(F.coalesce(F.sum("rows"), F.lit(0)).alias("n")).first()
    others = max(1, math.ceil((rest["n"] if rest else 0) / BUCKET))
    if not sizes:
        return Buckets(others=others)
    names = local_frame(base.sparkSession, sorted(sizes), "label string, segment string")
    large, metric = base.join(F.broadcast(names), on=["label", "segment"], how="left_semi"), search.metric
    total = sum(sizes.values())
    compared = [*(f"n{i}" for i in range(len(metric.scale))), *(f"t{i}" for i in range(metric.texts))]
    keys = large.select("id", "label", "segment", *compared)
    known = drawn(keys, min(SAMPLE, math.ceil(total * KNOWN / BUCKET)) / total, "cells", search.seed)
    points, of_group = metric.coordinates(known), rows_by(groups_in(known))
    cells: dict[Group, Cells] = {}
    first = 0
    for group in sorted(sizes):
        mine = points[of_group.get(group, np.zeros(0, dtype=np.int64))]
        cells[group] = cells_of(mine, sizes[group], BUCKET, 2 * (search.k + 1), first)
        first = cells[group].end
    queries = drawn(large, ASKED / total, "asked", search.seed)
    half = queries.num_rows // 2
    spill = spill_for(large, queries.slice(0, half), search, cells)
    buckets = Buckets(cells, first, others, spill)
    tell_recall(large, queries.slice(half), search, buckets, context)
    return buckets


def drawn(base: DataFrame, rate: float, salt: str, seed: int) -> pa.Table:
    """Return about a share of the rows to the driver, by a hash of their ids, in the order of these."""
    uniform = F.shiftrightunsigned(F.xxhash64(F.lit(seed).cast("long"), F.lit(salt), F.col("id")), 11) * 2.0**-53
    some = base.where(uniform < F.lit(rate)).toArrow()
    return some.sort_by([(c, "ascending") for c in some.column_names])  # several may have one id


def spill_for(base: DataFrame, queries: pa.Table, search: Search, cells: Mapping[Group, Cells]) -> int:
    """Return in how many cells rows must be candidates for some to find the share of neighbours that is asked for."""
    near = nearest_of(base, queries, search, None)
    points, of_base = search.metric.coordinates(queries), near["base"].to_numpy()
    others = np.array(near["place"].to_pylist(), dtype=float).reshape(near.num_rows, points.shape[1])
    ranks = np.full(near.num_rows, MOST_SPILL)
    for group, rows in rows_by(groups_in(queries)).items():
        mine = np.flatnonzero(np.isin(of_base, rows))
        if len(mine):
            home = cells[group].nearest(points[of_base[mine]], 1)
            there = np.hstack([cells[group].nearest(others[mine], MOST_SPILL) == home, np.ones((len(mine), 1), bool)])
            ranks[mine] = there.argmax(axis=1)
    upto = [float(np.mean(ranks < spill)) if len(ranks) else 1.0 for spill in range(1, MOST_SPILL + 1)]
    return next((i for i, recall in enumerate(upto, 1) if recall >= search.recall), MOST_SPILL)


def tell_recall(base: DataFrame, queries: pa.Table, search: Search, buckets: Buckets, context: Context) -> None:
    """Record the share of the exact neighbours of some rows that are in the bucket in which theirs are searched."""
    found = nearest_of(base, queries, search, buckets)["found"].to_numpy(zero_copy_only=False)
    if not len(found):
        return
    recall = float(found.mean())
    facts = {"rows": queries.num_rows, "buckets": buckets.first + buckets.others, "candidates": buckets.spill}
    context.measure(f"recall of {search.what}", recall, facts)
    if recall < search.recall - 2 * math.sqrt(search.recall * (1 - search.recall) / len(found)):  # not by chance alone
        context.warn(
            f"{1 - recall:.0%} of the {search.what} are missed, as there are too many rows and columns for a search "
            "that finds more; the next ones are taken. Name fewer columns, or use class_weights"
        )


def nearest_of(base: DataFrame, queries: pa.Table, search: Search, buckets: Buckets | None) -> pa.Table:
    """Return the exact nearest rows of the group of each of some rows: base, place (its coordinates), found.

    found: whether a row is in the bucket in which the neighbours of the other are searched; of equally near ones those
    that are come first.
    """
    near = F.struct("distance", (~F.col("found")).alias("missed"), "place", "found")
    some = base.mapInArrow(searching(queries, search, buckets), NEAR)
    merged = some.groupBy("base").agg(F.slice(F.array_sort(F.collect_list(near)), 1, search.k).alias("near"))
    return merged.select("base", F.explode("near").alias("n")).select("base", "n.place", "n.found").toArrow()


def searching(queries: pa.Table, search: Search, buckets: Buckets | None) -> Batches:
    """Return the function of the rows of a partition that gives the k nearest of them to each of some rows."""
    metric, k = search.metric, search.k
    _, _, names, wanted = metric.cells(queries)
    asked = rows_by(groups_in(queries))
    own = queries["id"].to_numpy(zero_copy_only=False)
    home = None if buckets is None else homes_of(buckets, queries, metric.coordinates(queries))

    def searched(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        some = [batch for batch in batches if batch.num_rows]
        if not some or not len(own):
            return
        table = pa.Table.from_batches(some)
        space, ids = metric.cells(table, names)[3], table["id"].to_numpy(zero_copy_only=False)
        there, hashes, points = rows_by(groups_in(table)), hashes_of(table), metric.coordinates(table)
        for group in sorted(asked.keys() & there.keys()):
            mine, rows = asked[group], there[group]
            at, place, distance = nearest_with_ties(space[rows], wanted[mine], k + 1)
            at, place = mine[at], rows[place]
            other = ids[place] != own[at]
            at, place, distance = at[other], place[other], distance[other]
            found = np.zeros(len(at), dtype=bool)
            if buckets is not None and home is not None:
                unique, back = np.unique(place, return_inverse=True)
                row, bucket, _ = buckets.placed([group] * len(unique), points[unique], hashes[unique])
                pairs = {*zip(row.tolist(), bucket.tolist(), strict=True)}
                found = np.array([(r, home[a]) in pairs for r, a in zip(back.tolist(), at.tolist(), strict=True)])
            by_place = points[place].T[::-1]  # among equally near rows, whatever their partition
            order = np.lexsort((*by_place, ~found, distance, at))
            starts = np.searchsorted(at[order], at[order])
            first = order[np.arange(len(order)) - starts < k]
            places = list(points[place[first]])
            cells = [pa.array(at[first], pa.int64()), pa.array(distance[first], pa.float64())]
            cells += [pa.array(found[first], pa.bool_()), pa.array(places, pa.list_(pa.float64()))]
            yield pa.RecordBatch.from_arrays(cells, ["base", "distance", "found", "place"])

    return searched


def homes_of(buckets: Buckets, table: pa.Table, space: Any) -> list[int]:
    if not table.num_rows:
        return []
    at, bucket, home = buckets.placed(groups_in(table), space, hashes_of(table))
    found = np.zeros(table.num_rows, dtype=np.int64)
    found[at[home]] = bucket[home]
    return [int(b) for b in found]


def groups_in(table: pa.Table) -> list[Group]:
    return list(zip(table["label"].to_pylist(), table["segment"].to_pylist(), strict=True))


def rows_by(groups: Sequence[Group]) -> dict[Group, Any]:
    """Return the positions of the rows of each group, in the order of the groups."""
    codes, _ = codes_of([f"{len(c)}:{c}{s}" for c, s in groups])
    found = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1]) if len(codes) else []
    return dict(sorted((groups[rows[0]], rows) for rows in found))


def hashes_of(table: pa.Table) -> Any:
    return table["hash"].to_numpy().astype(np.int64).view(np.uint64)


def placing(buckets: Buckets, metric: Metric) -> Batches:
    """Return the function of rows that gives each for its home and for all buckets in which it is a candidate."""

    def placed(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.num_rows:
                table = pa.Table.from_batches([batch])
                at, bucket, home = buckets.placed(groups_in(table), metric.coordinates(table), hashes_of(table))
                rows = batch.take(pa.array(at))
                first = [pa.array(bucket, pa.int64()), pa.array(home, pa.bool_())]
                yield pa.RecordBatch.from_arrays([*first, *rows.columns], ["bucket", "home", *batch.schema.names])

    return placed
