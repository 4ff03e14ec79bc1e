"""Synthetic rows of small classes that are too many for one search: their neighbours are looked for in buckets."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headgate.transforms.balancing.buckets import Search, buckets_of, groups_in, hashes_of, placing
from headgate.transforms.balancing.draws import Order, cuts_of, keys_of, measured
from headgate.transforms.balancing.neighbours import (
    Metric,
    Points,
    as_lists,
    codes_of,
    median_of,
    nearest,
    nearest_with_ties,
    synthesized,
)
from headgate.transforms.rows import ROW_ID, local_frame
from headgate.transforms.scaling.exact import moments
from headgate.transforms.step import Context, StepError
from headgate.words import cell

Method = Literal["smote", "borderline", "adasyn"]
MADE = "id string, other_id string, number long, numbers array<double>, texts array<string>, label string"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is made. needs: class -> synthetic rows; numbers, texts, within: how many columns n0 …, t0 … and w0 …"""

    needs: Mapping[str, int]
    numbers: int
    texts: int
    within: int
    method: Method
    neighbours: int
    border: int
    recall: float
    scaled: bool
    seed: int

    @property
    def cells(self) -> list[str]:
        return [*(f"n{i}" for i in range(self.numbers)), *(f"t{i}" for i in range(self.texts))]

    @property
    def shown(self) -> tuple[str, ...]:
        return ("label", *(f"w{i}" for i in range(self.within)))

    @property
    def schema(self) -> str:
        return ", ".join([MADE, *(f"w{i} string" for i in range(self.within))])

    def search(self, metric: Metric, k: int, what: str) -> Search:
        return Search(metric=metric, k=k, recall=self.recall, seed=self.seed, what=what)


def no_parents(name: str, within: Any) -> StepError:
    return StepError(
        f"class {cell(name)}: a synthetic row needs two rows of it with all of columns"
        f"{' in one segment' if within else ''}; fill them, or leave the class out by `targets`"
    )


def none_near(name: str) -> StepError:
    return StepError(f"class {cell(name)}: no row is near other classes; use method: smote")


def weights_of(shares: Any, method: Method) -> Any:
    """Return in proportion to what rows are made of rows with such shares of other classes among the nearest."""
    return shares if method == "adasyn" else (shares >= 0.5) & (shares < 1)


def made_in_buckets(usable: DataFrame, every: DataFrame, asked: Asked, context: Context) -> DataFrame:
    """Return synthetic rows as `MADE` says with their segments.

    usable: rows with id, label, segment, hash, n0 …, t0 … and w0 …; of those with one id the least is taken. every:
    those of all classes. Raises `StepError` for a class of which no row can be made. Cost: the rows are written once;
    passes over their keys for the counts, over their numbers for the scale, and two that search them for the neighbours
    of 500 of them; a shuffle of them to their buckets, each searched by one task. If not `smote`, the same of all rows
    before.
    """
    first = F.min(F.struct(*(c for c in usable.columns if c != "id"))).alias("first")
    base = context.keep(usable.groupBy("id").agg(first).select("id", "first.*"), "base")
    groups = context.keep(base.groupBy("label", "segment").agg(F.count(F.lit(1)).alias("rows")), "groups")
    alone = groups.where("rows = 1").count()
    if alone:
        context.warn(f"{alone:,} rows are alone in their class and segment, and are no parents")
        base = base.join(groups.where("rows > 1"), on=["label", "segment"], how="left_semi")
    metric = metric_of(base, asked)
    weight = F.lit(1)
    if asked.method != "smote":
        base = base.join(weighted(every, metric, asked, context), on="id", how="inner")
        weight = F.col("weight")
    counted = with_counts(base.withColumn("weight", weight), asked)
    buckets = buckets_of(base, groups, asked.search(metric, asked.neighbours, "neighbours"), context)
    placed = counted.mapInArrow(placing(buckets, metric), f"bucket long, home boolean, {ddl(counted)}")
    return placed.groupBy("bucket").applyInArrow(making(metric, asked), asked.schema)


def ddl(df: DataFrame) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in df.dtypes)


def weighted(every: DataFrame, metric: Metric, asked: Asked, context: Context) -> DataFrame:
    """Return the weight of each row of the classes that grow, by the rows of all classes that are nearest to it."""
    small = F.col("label").isin(*asked.needs).alias("small")
    rows = every.select("id", F.col("label").alias("class"), small, "hash", *asked.cells)
    rows = rows.withColumns({"label": F.lit(""), "segment": F.lit("")})  # they are all searched together
    rows = context.keep(rows, "every")
    groups = rows.groupBy("label", "segment").agg(F.count(F.lit(1)).alias("rows"))
    buckets = buckets_of(rows, groups, asked.search(metric, asked.border, "nearest rows of all classes"), context)
    placed = rows.mapInArrow(placing(buckets, metric), f"bucket long, home boolean, {ddl(rows)}")
    found = placed.groupBy("bucket").applyInArrow(bordering(metric, asked), "id string, weight int")
    return context.keep(found.groupBy("id").agg(F.max("weight").alias("weight")), "weights")


def bordering(metric: Metric, asked: Asked) -> Callable[[pa.Table], pa.Table]:
    """Return the function of a bucket that gives the weight of each row of the classes that grow whose home it is."""

    def bordered(table: pa.Table) -> pa.Table:
        table = table.sort_by("id")
        space = metric.cells(table)[3]
        ids, labels, small, home = (table[c].to_numpy(zero_copy_only=False) for c in ("id", "class", "small", "home"))
        mine = np.flatnonzero(small & home)
        shares = np.zeros(0)
        if len(mine):
            at, place, distance = nearest_with_ties(space, space[mine], asked.border + 1)
            other = ids[place] != ids[mine[at]]
            at, place, distance = at[other], place[other], distance[other]
            shares = foreign_share(at, distance, labels[place] != labels[mine[at]], len(mine), asked.border)
        weights = np.rint(weights_of(shares, asked.method) * asked.border)
        return pa.table({"id": pa.array(ids[mine], pa.string()), "weight": pa.array(weights.astype(np.int32))})

    return bordered


def foreign_share(at: Any, distance: Any, foreign: Any, rows: int, k: int) -> Any:
    """Return the share of foreign ones among the k nearest of each row; of equally near ones the others come first."""
    order = np.lexsort((foreign, distance, at))
    first = order[np.arange(len(order)) - np.searchsorted(at[order], at[order]) < k]
    there = np.bincount(at[first], minlength=rows)
    return np.bincount(at[first], weights=foreign[first], minlength=rows) / np.maximum(there, 1)


def with_counts(base: DataFrame, asked: Asked) -> DataFrame:
    """Add how many synthetic rows are made of each row, in proportion to its weight; what is left over by a hash."""
    order = Order(seed=asked.seed, salt="smote")
    by_id = base.withColumnRenamed("id", ROW_ID)
    stratum = F.concat(F.col("weight").cast("string"), F.lit(":"), F.col("label"))
    keys = keys_of(by_id, stratum, order)
    found = measured(keys, ("label",))
    sizes: dict[str, dict[int, int]] = {}
    for name, size in found.sizes.items():
        weight, _, label = name.partition(":")
        sizes.setdefault(label, {})[int(weight)] = size
    wanted: dict[str, int] = {}
    for label, need in asked.needs.items():
        if label not in sizes:
            raise no_parents(label, asked.within)
        if not any(sizes[label]):
            raise none_near(label)
        wanted |= {f"{weight}:{label}": n for weight, n in allotted(need, sizes[label]).items()}
    rest = {s: n % found.sizes[s] for s, n in wanted.items() if n % found.sizes[s]}
    ends = {s: (cut.order, cut.row_id) for s, cut in cuts_of(keys, found, [(s, s) for s in rest], rest).items()}
    rows = [(s, n // found.sizes[s], *ends.get(s, (None, None))) for s, n in wanted.items()]
    lookup = local_frame(base.sparkSession, rows, "stratum string, whole long, cut long, cut_id string")
    mine, cut = order.of(by_id, F.col("id")), F.col("cut")
    more = (mine < cut) | ((mine == cut) & (F.col("id") <= F.col("cut_id")))
    count = F.col("whole") + F.when(cut.isNotNull() & more, 1).otherwise(0)
    joined = base.join(F.broadcast(lookup), on=stratum == F.col("stratum"), how="inner")
    return joined.select(*(c for c in base.columns if c != "weight"), count.alias("count"))


def allotted(need: int, sizes: Mapping[int, int]) -> dict[int, int]:
    """Divide `need` over rows in proportion to their weights, by largest remainders: weight -> all that its rows get.

    sizes: how many rows have each weight.
    """
    total = sum(weight * n for weight, n in sizes.items())
    found = {weight: n * (need * weight // total) for weight, n in sizes.items()}
    left = need - sum(found.values())
    for weight in sorted(sizes, key=lambda w: (-(need * w % total), -w)):
        more = min(left, sizes[weight])
        found[weight] += more
        left -= more
    return found


def metric_of(base: DataFrame, asked: Asked) -> Metric:
    """Return what distances are made of, by exact sums, so that no order of the rows enters it."""
    found = moments(base, [F.col(f"n{i}") for i in range(asked.numbers)])[()] if asked.numbers else []
    deviation = np.array([math.sqrt(m.variance) for m in found])
    scale = np.where(deviation > 0, deviation, 1.0) if asked.scaled else np.ones(asked.numbers)
    return Metric(scale, median_of(deviation / scale), asked.texts)


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
        if (near[:, 0] < 0).any():  # cells hold several of the rows that their centres were learned from
            raise ValueError("a row is alone in its bucket")
        found = synthesized(points, near, counts[rows], hashes_of(table), rows, asked.seed)
        cells = [pa.array(ids[found.base], pa.string()), pa.array(ids[found.other], pa.string())]
        cells += [pa.array(found.number, pa.int64()), *as_lists(found, names)]
        shown = [table[c].take(pa.array(found.base)).cast(pa.string()) for c in asked.shown]
        return pa.table([*cells, *shown], names=[c.split()[0] for c in asked.schema.split(", ")])

    return made
