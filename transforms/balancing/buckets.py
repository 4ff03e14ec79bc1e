"""Synthetic rows of small classes that are too many for one search: their neighbours are looked for in buckets.

Rows of one class and segment are one group. A large one is parted by a tree of cuts, whose leaves are buckets; small
ones go whole, several into one bucket.
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

from headgate.transforms.balancing.draws import Order, cuts_of, keys_of, measured
from headgate.transforms.balancing.neighbours import (
    Metric,
    Points,
    codes_of,
    matrix_of,
    median_of,
    nearest,
    nearest_with_ties,
    synthesized,
)
from headgate.transforms.balancing.trees import Tree, grown, parts_of, routed
from headgate.transforms.rows import ROW_ID, local_frame
from headgate.transforms.scaling.exact import moments
from headgate.transforms.step import Context

Batches = Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]
Group = tuple[str, str]  # class and segment
BUCKET = 10_000  # rows that are searched together, candidates from beyond a cut apart
SAMPLE = 100_000  # rows that trees are learned from; more where a bucket would have fewer than
KNOWN = 50  # of them
ASKED = 500  # rows whose exact neighbours are searched: half of them for the margins, half for the recall
APART = 0.95  # of neighbours, those that are no farther apart in a coordinate than its margin
POOR = 0.9  # a recall that a warning tells of
NEAR = "base long, distance double, found boolean, numbers array<double>"
MADE = "id string, other_id string, number long, numbers array<double>, texts array<string>, label string"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is made. needs: class -> synthetic rows; numbers, texts, within: how many columns n0 …, t0 … and w0 …"""

    needs: Mapping[str, int]
    numbers: int
    texts: int
    within: int
    neighbours: int
    scaled: bool
    seed: int

    @property
    def shown(self) -> tuple[str, ...]:
        return ("label", *(f"w{i}" for i in range(self.within)))

    @property
    def schema(self) -> str:
        return ", ".join([MADE, *(f"w{i} string" for i in range(self.within))])


@dataclass(frozen=True)
class Forest:
    """The buckets of all rows: those of large groups by their trees, from number `first` on those of the others."""

    trees: Mapping[Group, Tree] = field(default_factory=dict)
    first: int = 0
    others: int = 1

    def placed(self, groups: Sequence[Group], space: Any, hashes: Any) -> tuple[Any, Any, Any]:
        """Return the buckets of rows as flat arrays: position of a row, number of a bucket, whether it is its home."""
        codes, names = codes_of([f"{len(c)}:{c}{s}" for c, s in groups])
        parts = []
        for code, name in enumerate(names):
            rows = np.flatnonzero(codes == code)
            tree = self.trees.get(groups[rows[0]])
            if tree is None:
                number = self.first + zlib.crc32(name.encode()) % self.others
                parts.append((rows, np.full(len(rows), number), np.ones(len(rows), dtype=bool)))
            else:
                at, leaf, home = routed(tree, space[rows], hashes[rows])
                parts.append((rows[at], leaf, home))
        at, bucket, home = (np.concatenate(x) for x in zip(*parts, strict=True))
        return at, bucket, home


def made_in_buckets(usable: DataFrame, asked: Asked, context: Context) -> DataFrame | str:
    """Return synthetic rows as `MADE` says with their segments, or the class that has no two rows in one segment.

    usable: rows with id, label, segment, hash, n0 …, t0 … and w0 …; of those with one id the least is taken. Cost: the
    rows are written once; passes over their keys for the counts, over their numbers for the scale, and two that search
    them for the neighbours of `ASKED` of them; a shuffle of them to their buckets, each searched by one task.
    """
    first = F.min(F.struct(*(c for c in usable.columns if c != "id"))).alias("first")
    base = context.keep(usable.groupBy("id").agg(first).select("id", "first.*"), "base")
    groups = context.keep(base.groupBy("label", "segment").agg(F.count(F.lit(1)).alias("rows")), "groups")
    alone = groups.where("rows = 1").count()
    if alone:
        context.warn(f"{alone:,} rows are alone in their class and segment, and are no parents")
        base = base.join(groups.where("rows > 1"), on=["label", "segment"], how="left_semi")
    counted = with_counts(base, asked)
    if isinstance(counted, str):
        return counted
    metric = metric_of(base, asked)
    forest = forest_of(base, groups, metric, asked, context)
    placed = counted.mapInArrow(placing(forest, metric), f"bucket long, home boolean, {ddl(counted)}")
    return placed.groupBy("bucket").applyInArrow(making(metric, asked), asked.schema)


def ddl(df: DataFrame) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in df.dtypes)


def with_counts(base: DataFrame, asked: Asked) -> DataFrame | str:
    """Add how many synthetic rows are made of each row: equally many in a class, but for one, by a hash."""
    order = Order(seed=asked.seed, salt="smote")
    by_id = base.withColumnRenamed("id", ROW_ID)
    keys = keys_of(by_id, F.col("label"), order)
    found = measured(keys, ("label",))
    without = next((c for c in asked.needs if c not in found.sizes), None)
    if without is not None:
        return without
    rest = {c: n % found.sizes[c] for c, n in asked.needs.items() if n % found.sizes[c]}
    cuts = cuts_of(keys, found, [(c, c) for c in rest], rest, order)
    ends = {r["pool"]: (r["order"], r["row_id"]) for r in (cuts.collect() if cuts is not None else ())}
    rows = [(c, n // found.sizes[c], *ends.get(c, (None, None))) for c, n in asked.needs.items()]
    lookup = local_frame(base.sparkSession, rows, "label string, whole long, cut long, cut_id string")
    mine, cut = order.of(by_id, F.col("id")), F.col("cut")
    more = (mine < cut) | ((mine == cut) & (F.col("id") <= F.col("cut_id")))
    count = F.col("whole") + F.when(cut.isNotNull() & more, 1).otherwise(0)
    return base.join(F.broadcast(lookup), on="label").select(*base.columns, count.alias("count"))


def metric_of(base: DataFrame, asked: Asked) -> Metric:
    """Return what distances are made of, by exact sums, so that no order of the rows enters it."""
    found = moments(base, [F.col(f"n{i}") for i in range(asked.numbers)])[()] if asked.numbers else []
    deviation = np.array([math.sqrt(m.variance) for m in found])
    scale = np.where(deviation > 0, deviation, 1.0) if asked.scaled else np.ones(asked.numbers)
    return Metric(scale, median_of(deviation / scale), asked.texts)


def forest_of(base: DataFrame, groups: DataFrame, metric: Metric, asked: Asked, context: Context) -> Forest:
    """Return the buckets of all rows; the recall of the neighbours that are found in them is a figure of the build."""
    sizes = {(r["label"], r["segment"]): r["rows"] for r in groups.where(F.col("rows") > BUCKET).collect()}
    rest = groups.where(F.col("rows").between(2, BUCKET)).agg(F.coalesce(F.sum("rows"), F.lit(0)).alias("n")).first()
    others = max(1, math.ceil((rest["n"] if rest else 0) / BUCKET))
    if not sizes:
        return Forest(others=others)
    names = local_frame(base.sparkSession, sorted(sizes), "label string, segment string")
    large = base.join(F.broadcast(names), on=["label", "segment"], how="left_semi")
    total = sum(sizes.values())
    share = min(1.0, max(SAMPLE / total, KNOWN / BUCKET))
    known = drawn(
        large.select("id", "label", "segment", *(f"n{i}" for i in range(asked.numbers))), share, "tree", asked.seed
    )
    queries = drawn(large, ASKED / total, "asked", asked.seed)
    half = queries.num_rows // 2
    apart = distances_apart(large, queries.slice(0, half), metric, asked)
    points = matrix_of(known, asked.numbers) / metric.scale
    trees: dict[Group, Tree] = {}
    first, of_group = 0, groups_in(known)
    for group in sorted(sizes):
        mine = points[np.fromiter((g == group for g in of_group), bool, len(of_group))]
        trees[group] = grown(mine, 1 / share, BUCKET, 2 * (asked.neighbours + 1), apart, first)
        first += parts_of(trees[group])
    forest = Forest(trees, first, others)
    tell_recall(large, queries.slice(half), metric, asked, forest, context)
    return forest


def drawn(base: DataFrame, rate: float, salt: str, seed: int) -> pa.Table:
    """Return about a share of the rows to the driver, by a hash of their ids, in the order of these."""
    uniform = F.shiftrightunsigned(F.xxhash64(F.lit(seed).cast("long"), F.lit(salt), F.col("id")), 11) * 2.0**-53
    return base.where(uniform < F.lit(rate)).toArrow().sort_by("id")


def distances_apart(base: DataFrame, queries: pa.Table, metric: Metric, asked: Asked) -> list[float]:
    """Return how far apart in each coordinate most neighbours are, by the exact ones of some rows."""
    numbers = matrix_of(queries, asked.numbers) / metric.scale
    near = nearest_of(base, queries, metric, asked, None)
    found = np.array(near["numbers"].to_pylist(), dtype=float).reshape(near.num_rows, asked.numbers)
    apart = np.abs(found - numbers[near["base"].to_numpy()])
    return [float(x) for x in np.quantile(apart, APART, axis=0)] if len(apart) else [0.0] * asked.numbers


def tell_recall(
    base: DataFrame, queries: pa.Table, metric: Metric, asked: Asked, forest: Forest, context: Context
) -> None:
    """Record the share of the exact neighbours of some rows that are in the bucket in which theirs are searched."""
    found = nearest_of(base, queries, metric, asked, forest)["found"].to_numpy(zero_copy_only=False)
    if not len(found):
        return
    recall = float(found.mean())
    context.measure("recall of neighbours", recall, {"rows": queries.num_rows, "buckets": forest.first + forest.others})
    if recall < POOR:
        context.warn(
            f"{1 - recall:.0%} of the nearest neighbours are missed, as there are too many rows and columns for an "
            "exact search; the next ones are taken. Name fewer columns, or use class_weights"
        )


def nearest_of(base: DataFrame, queries: pa.Table, metric: Metric, asked: Asked, forest: Forest | None) -> pa.Table:
    """Return the exact nearest rows of the group of each of some rows: `NEAR`; numbers are coordinates.

    found: whether a row is in the bucket in which the neighbours of the other are searched; of equally near ones those
    that are come first.
    """
    near = F.struct("distance", (~F.col("found")).alias("missed"), "numbers", "found")
    some = base.mapInArrow(searching(queries, metric, asked.neighbours, forest), NEAR)
    merged = some.groupBy("base").agg(F.slice(F.array_sort(F.collect_list(near)), 1, asked.neighbours).alias("near"))
    return merged.select("base", F.explode("near").alias("n")).select("base", "n.numbers", "n.found").toArrow()


def searching(queries: pa.Table, metric: Metric, k: int, forest: Forest | None) -> Batches:
    """Return the function of the rows of a partition that gives the k nearest of them to each of some rows."""
    _, _, names, wanted = metric.cells(queries)
    groups = groups_in(queries)
    own = queries["id"].to_numpy(zero_copy_only=False)
    home = None if forest is None else homes_of(forest, queries, wanted)

    def searched(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        some = [batch for batch in batches if batch.num_rows]
        if not some or not len(own):
            return
        table = pa.Table.from_batches(some)
        space, ids, of_rows = (
            metric.cells(table, names)[3],
            table["id"].to_numpy(zero_copy_only=False),
            groups_in(table),
        )
        rows_of: dict[Group, list[int]] = {}
        for row, group in enumerate(of_rows):
            rows_of.setdefault(group, []).append(row)
        hashes = hashes_of(table)
        for group in sorted(set(groups) & rows_of.keys()):
            mine, rows = np.array([i for i, g in enumerate(groups) if g == group]), np.array(rows_of[group])
            at, place, distance = nearest_with_ties(space[rows], wanted[mine], k + 1)
            at, place = mine[at], rows[place]
            other = ids[place] != own[at]
            at, place, distance = at[other], place[other], distance[other]
            found = np.zeros(len(at), dtype=bool)
            if forest is not None and home is not None:
                unique, back = np.unique(place, return_inverse=True)
                row, bucket, _ = forest.placed([group] * len(unique), space[unique], hashes[unique])
                there = {*zip(row.tolist(), bucket.tolist(), strict=True)}
                found = np.array([(r, home[a]) in there for r, a in zip(back.tolist(), at.tolist(), strict=True)])
            numbers_of = space[place, : len(metric.scale)].T[::-1]  # among equally near rows, whatever their partition
            order = np.lexsort((*numbers_of, ~found, distance, at))
            starts = np.searchsorted(at[order], at[order])
            first = order[np.arange(len(order)) - starts < k]
            numbers = list(space[place[first], : len(metric.scale)])
            yield pa.RecordBatch.from_arrays(
                [
                    pa.array(at[first], pa.int64()),
                    pa.array(distance[first], pa.float64()),
                    pa.array(found[first], pa.bool_()),
                    pa.array(numbers, pa.list_(pa.float64())),
                ],
                ["base", "distance", "found", "numbers"],
            )

    return searched


def homes_of(forest: Forest, table: pa.Table, space: Any) -> list[int]:
    at, bucket, home = forest.placed(groups_in(table), space, hashes_of(table))
    found = np.zeros(table.num_rows, dtype=np.int64)
    found[at[home]] = bucket[home]
    return [int(b) for b in found]


def groups_in(table: pa.Table) -> list[Group]:
    return list(zip(table["label"].to_pylist(), table["segment"].to_pylist(), strict=True))


def hashes_of(table: pa.Table) -> Any:
    return table["hash"].to_numpy().astype(np.int64).view(np.uint64)


def placing(forest: Forest, metric: Metric) -> Batches:
    """Return the function of rows that gives each for its home and for all buckets in which it is a candidate."""

    def placed(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.num_rows:
                table = pa.Table.from_batches([batch])
                points = matrix_of(table, len(metric.scale)) / metric.scale
                at, bucket, home = forest.placed(groups_in(table), points, hashes_of(table))
                rows = batch.take(pa.array(at))
                first = [pa.array(bucket, pa.int64()), pa.array(home, pa.bool_())]
                yield pa.RecordBatch.from_arrays([*first, *rows.columns], ["bucket", "home", *batch.schema.names])

    return placed


def making(metric: Metric, asked: Asked) -> Callable[[pa.Table], pa.Table]:
    """Return the function of a bucket that gives the synthetic rows of those whose home it is."""

    def made(table: pa.Table) -> pa.Table:
        table = table.sort_by("id")
        numbers, categories, names, space = metric.cells(table)
        codes, _ = codes_of([f"{len(c)}:{c}{s}" for c, s in groups_in(table)])
        ids = table["id"].to_numpy(zero_copy_only=False)
        points = Points(ids, numbers, categories, codes)
        counts = np.where(table["home"].to_numpy(zero_copy_only=False), table["count"].to_numpy(), 0)
        rows = np.flatnonzero(counts)
        near = nearest(space, codes, rows, asked.neighbours)
        if (near[:, 0] < 0).any():  # leaves hold several of the rows that their tree was learned from
            raise ValueError("a row is alone in its bucket")
        found = synthesized(points, near, counts[rows], hashes_of(table), rows, asked.seed)
        words = [[n[c] for c, n in zip(row, names, strict=True)] for row in found.categories]
        cells = [pa.array(ids[found.base], pa.string()), pa.array(ids[found.other], pa.string())]
        cells += [pa.array(found.number, pa.int64()), pa.array(list(found.numbers), pa.list_(pa.float64()))]
        cells += [pa.array(words, pa.list_(pa.string()))]
        shown = [table[c].take(pa.array(found.base)).cast(pa.string()) for c in asked.shown]
        return pa.table([*cells, *shown], names=[c.split()[0] for c in asked.schema.split(", ")])

    return made
