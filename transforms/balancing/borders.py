"""Rows of large classes left out by where they lie: Tomek links, edited nearest neighbours, NearMiss."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headgate.transforms.balancing.buckets import Batches, Search, buckets_of, placing
from headgate.transforms.balancing.neighbours import Metric, closest, matrix_of, nearest_with_ties
from headgate.transforms.balancing.smote import MOST_BASE, complete, once
from headgate.transforms.balancing.synthetic import ddl
from headgate.transforms.cleaning.scores import need_scikit
from headgate.transforms.kinds import as_text, need_kinds
from headgate.transforms.rows import ROW_ID, Rejection, is_training, local_frame, quoted, reject, training_rows
from headgate.transforms.scaling.exact import moments
from headgate.transforms.step import Columns, Context, Step, StepError, require_columns
from headgate.words import few_of

GONE = "gone string, near string, distance double"
AROUND = "id string, class string, near string, near_class string, distance double, foreign int, found int"
NEAR = "base long, distance double, id string, label string"


@dataclass(frozen=True, kw_only=True)
class ThinMajority(Step):
    """Leave out training rows of large classes that lie near, or among, other classes.

    label: the class column; rows without a class are left alone.
    columns: the numbers that distances are of.
    method: `tomek` (default) leaves out a row whose nearest row is one of another class that has it as its nearest too;
        `enn` one of whose `neighbours` nearest rows most are of other classes; `nearmiss` keeps the `rows` rows of each
        thinned class whose mean distance to the `neighbours` nearest rows of the spared ones is least.
    spare: classes of which no row is left out; by default the smallest one.
    rows: of `nearmiss`: how many rows each other class keeps; by default as many as the smallest has.
    neighbours: of `enn` and `nearmiss` (3).
    scale: true (default) divides numbers by their standard deviation over the training rows.
    recall: where rows are searched in buckets (see the cost), the share of nearest rows that shall be found (0.95).
    Rows with a null, NaN or infinity in `columns` are not compared and stay. Evidence: the nearest row's id and the
    distance. Ties fall to the smaller row id; the same in any partitioning. `nearmiss` keeps exactly its rows.
    Needs the extra `models`. Cost: exact up to 100,000 rows of the spared classes, which all tasks get: `tomek`
    searches all training rows for each of these and again for each candidate, `enn` for each training row, of which
    there are at most 100,000 then. More are searched in buckets, as `make_minority` does: nearly all of the nearest
    rows are found, a share that is measured on 250 of them and is a figure of the run. There `enn` may misjudge a row
    near a tie of votes, and `tomek` miss a link or take the second nearest for one. `nearmiss` is exact, and refuses
    more than 100,000 rows of spared classes. Source: Tomek 1976, Wilson 1972, Zhang and Mani 2003 (NearMiss-1).
    """

    name: ClassVar[str] = "thin_majority"
    scope: ClassVar[Literal["row", "table"]] = "table"
    by_split: ClassVar[bool] = True
    label: str
    columns: tuple[str, ...]
    method: Literal["tomek", "enn", "nearmiss"] = "tomek"
    spare: tuple[str, ...] = ()
    rows: int | None = None
    neighbours: int = 3
    scale: bool = True
    recall: float = 0.95

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns([self.label, *self.columns], have)
        if not self.columns or self.label in self.columns:
            raise StepError("columns: name at least one, other than label")
        if not 1 <= self.neighbours <= 100 or (self.rows or 0) < 0:
            raise StepError("neighbours must be 1 to 100, and rows at least 0")
        if self.rows is not None and self.method != "nearmiss":
            raise StepError("rows: only nearmiss keeps a number of rows")
        if not 0 < self.recall <= 1:
            raise StepError("recall must be above 0 and at most 1")
        need_kinds(have, self.name, [self.label], numbers=False)
        need_kinds(have, self.name, self.columns, numbers=True)
        need_scikit()
        return have

    def for_new_rows(self) -> None:
        return None

    def run(self, df: DataFrame, context: Context) -> DataFrame:
        kinds = dict(df.dtypes)
        rows = training_rows(df).where(F.col(quoted(self.label)).isNotNull())
        numbers = [F.col(quoted(c)).cast("double").alias(f"n{i}") for i, c in enumerate(self.columns)]
        label = as_text(F.col(quoted(self.label)), kinds[self.label]).alias("label")
        cells = rows.select(F.col(ROW_ID).alias("id"), label, *numbers)
        sizes = {r["label"]: r["count"] for r in cells.groupBy("label").count().orderBy("label").limit(1001).collect()}
        if len(sizes) > 1000:
            raise StepError(f"label: '{self.label}' has more than 1,000 classes")
        if len(sizes) < 2:
            return df
        spared = list(self.spare) or [min(sizes, key=lambda name: (sizes[name], name))]
        unknown = [name for name in spared if name not in sizes]
        if unknown:
            there = few_of(sorted(sizes))
            raise StepError(f"spare: no training row is of class {few_of(unknown)} (there are: {there})")
        usable = cells.where(complete(len(self.columns), 0))
        scale = self.scales(usable)
        searched = sum(n for name, n in sizes.items() if self.method == "enn" or name in spared)
        near = {"tomek": self.tomek, "enn": self.enn, "nearmiss": self.nearmiss}[self.method]
        if searched > MOST_BASE and self.method != "nearmiss":
            near = self.in_buckets
        gone = near(usable, spared, scale, self.rows if self.rows is not None else min(sizes.values()), context)
        once = gone.groupBy(F.col("gone").alias("_hg_gone")).agg(F.min(F.struct("distance", "near")).alias("_hg_first"))
        marks = once.select("_hg_gone", *(F.col(f"_hg_first.{c}").alias(f"_hg_{c}") for c in ("near", "distance")))
        df = df.join(F.broadcast(marks), on=is_training(df) & (F.col(ROW_ID) == F.col("_hg_gone")), how="left")
        evidence = {"nearest_row_id": F.col("_hg_near"), "distance": F.col("_hg_distance")}
        df = reject(df, self.id, Rejection(F.col("_hg_gone").isNotNull(), "thinned", evidence))
        return df.drop("_hg_gone", "_hg_near", "_hg_distance")

    def scales(self, usable: DataFrame) -> list[float]:
        """Return what numbers are divided by: their standard deviation, of exact sums, so that no order enters it."""
        if not self.scale:
            return [1.0] * len(self.columns)
        found = moments(usable, [F.col(f"n{i}") for i in range(len(self.columns))])[()]
        return [(math.sqrt(m.variance) if m.n else 0.0) or 1.0 for m in found]

    def base(self, rows: DataFrame, what: str) -> pa.Table:
        """Return rows to the driver, each id once, in the order of their ids; raise `StepError` for too many."""
        table = rows.limit(MOST_BASE + 1).toArrow()
        if table.num_rows > MOST_BASE:
            raise StepError(
                f"more than {MOST_BASE:,} {what}: nearmiss sends them to all tasks; draw fewer of them by "
                "sample_strata before, spare a smaller class, or take method: tomek or enn"
            )
        return once(table)

    def found(self, base: pa.Table, among: DataFrame, k: int, scale: Sequence[float]) -> pa.Table:
        """Return the k nearest rows to each of some rows, themselves left out: base, distance, id, label, in order."""
        candidates = among.mapInArrow(searching(base, k, scale), NEAR)
        nearest = F.slice(F.array_sort(F.collect_list(F.struct("distance", "id", "label"))), 1, k)
        merged = candidates.groupBy("base").agg(nearest.alias("near"))
        return merged.select("base", F.posexplode("near").alias("rank", "n")).select("base", "rank", "n.*").toArrow()

    def tomek(
        self, usable: DataFrame, spared: Sequence[str], scale: Sequence[float], rows: int, context: Context
    ) -> DataFrame:
        small = self.base(usable.where(F.col("label").isin(*spared)), f"rows of {few_of(spared)}")
        ids = small["id"].to_pylist()
        first = self.found(small, usable, 1, scale).to_pylist()
        pairs = {(ids[r["base"]], r["id"]): r["distance"] for r in first if r["label"] not in spared}
        others = {b for _, b in pairs}
        asked = local_frame(usable.sparkSession, [(b,) for b in sorted(others)], "id string")
        large = self.base(usable.join(F.broadcast(asked), on="id", how="left_semi"), "rows next to those")
        names = large["id"].to_pylist()
        back = {names[r["base"]]: r["id"] for r in self.found(large, usable, 1, scale).to_pylist()}
        links = [(b, a, d) for (a, b), d in sorted(pairs.items()) if back.get(b) == a]
        return local_frame(usable.sparkSession, links, GONE)

    def enn(
        self, usable: DataFrame, spared: Sequence[str], scale: Sequence[float], rows: int, context: Context
    ) -> DataFrame:
        every = self.base(usable, "training rows")
        ids, labels = every["id"].to_pylist(), every["label"].to_pylist()
        around: dict[int, list[dict[str, Any]]] = {}
        for r in self.found(every, usable, self.neighbours, scale).to_pylist():
            around.setdefault(r["base"], []).append(r)
        gone = []
        for i, near in sorted(around.items()):
            foreign = sum(r["label"] != labels[i] for r in near)
            if labels[i] not in spared and 2 * foreign > len(near):
                first = min(near, key=lambda r: r["rank"])
                gone.append((ids[i], first["id"], first["distance"]))
        return local_frame(usable.sparkSession, gone, GONE)

    def in_buckets(
        self, usable: DataFrame, spared: Sequence[str], scale: Sequence[float], rows: int, context: Context
    ) -> DataFrame:
        """Return what `tomek` and `enn` do by neighbours that are searched in buckets."""
        metric, k = Metric(np.array(scale), 1.0, 0), self.neighbours if self.method == "enn" else 1
        first = F.min(F.struct(*(c for c in usable.columns if c != "id"))).alias("first")
        unique = usable.groupBy("id").agg(first).select("id", "first.*").withColumnRenamed("label", "class")
        whole = {"label": F.lit(""), "segment": F.lit(""), "hash": F.xxhash64("id")}  # all are searched together
        every = context.keep(unique.withColumns(whole), "every")
        groups = every.groupBy("label", "segment").agg(F.count(F.lit(1)).alias("rows"))
        search = Search(metric=metric, k=k, recall=self.recall, seed=0, what="nearest rows")
        placed = every.mapInArrow(
            placing(buckets_of(every, groups, search, context), metric), f"bucket long, home boolean, {ddl(every)}"
        )
        near = placed.groupBy("bucket").applyInArrow(surrounding(metric, k), AROUND)
        foreign, thinned = F.col("class") != F.col("near_class"), ~F.col("class").isin(*spared)
        if self.method == "enn":
            gone = near.where(thinned & (2 * F.col("foreign") > F.col("found")))
            return gone.select(F.col("id").alias("gone"), "near", "distance")
        pairs = context.keep(near.where(foreign), "pairs")
        links = pairs.where(thinned).select(F.col("id").alias("gone"), "near", "distance")
        back = pairs.where(~thinned).select(F.col("id").alias("near"), F.col("near").alias("gone"))
        return links.join(back, on=["near", "gone"], how="left_semi").select("gone", "near", "distance")

    def nearmiss(
        self, usable: DataFrame, spared: Sequence[str], scale: Sequence[float], rows: int, context: Context
    ) -> DataFrame:
        small = self.base(usable.where(F.col("label").isin(*spared)), f"rows of {few_of(spared)}")
        if not small.num_rows:
            raise StepError(f"no row of {few_of(spared)} has all of columns")
        large = usable.where(~F.col("label").isin(*spared))
        measured = large.mapInArrow(measuring(small, self.neighbours, scale), f"label string, {GONE}")
        kept = context.keep(measured, "distances")
        classes = [r[0] for r in kept.select("label").distinct().collect()]
        parts = []
        for name in sorted(classes):  # a sort of each class, which keeps its first rows alone
            mine = kept.where(F.col("label") == name)
            first = mine.orderBy("distance", "gone").limit(rows)
            last = first.agg(F.max(F.struct("distance", "gone")).alias("last")).first()
            if last is None or last["last"] is None:
                parts.append(mine)
                continue
            beyond = F.struct("distance", "gone") > F.struct(
                F.lit(last["last"][0]).alias("distance"), F.lit(last["last"][1]).alias("gone")
            )
            parts.append(mine.where(beyond))
        gone = parts[0]
        for part in parts[1:]:
            gone = gone.unionByName(part)
        return gone.select("gone", "near", "distance")


def space(table: pa.Table, scale: Sequence[float]) -> np.ndarray[Any, Any]:
    divided: np.ndarray[Any, Any] = matrix_of(table, len(scale)) / np.array(scale)
    return divided


def searching(base: pa.Table, k: int, scale: Sequence[float]) -> Batches:
    """Return the function of the rows of a partition that gives the k nearest of them to each base row."""
    wanted, own = space(base, scale), base["id"].to_numpy(zero_copy_only=False)

    def searched(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        some = [batch for batch in batches if batch.num_rows]
        if not some or not len(wanted):
            return
        table = pa.Table.from_batches(some)
        ids, labels = (table[c].to_numpy(zero_copy_only=False) for c in ("id", "label"))
        at, place, distance = nearest_with_ties(space(table, scale), wanted, k + 1)
        other = ids[place] != own[at]
        cells = [pa.array(at[other], pa.int64()), pa.array(distance[other], pa.float64())]
        cells += [pa.array(ids[place[other]], pa.string()), pa.array(labels[place[other]], pa.string())]
        yield pa.RecordBatch.from_arrays(cells, ["base", "distance", "id", "label"])

    return searched


def surrounding(metric: Metric, k: int) -> Callable[[pa.Table], pa.Table]:
    """Return the function of a bucket that gives the nearest rows to each row whose home it is, as `AROUND` says."""

    def surrounded(table: pa.Table) -> pa.Table:
        table = table.sort_by("id")
        points = metric.cells(table)[3]
        ids, labels, home = (table[c].to_numpy(zero_copy_only=False) for c in ("id", "class", "home"))
        mine = np.flatnonzero(home)
        at, place, distance = nearest_with_ties(points, points[mine], k + 1) if len(mine) else (mine, mine, mine)
        other = place != mine[at]
        at, place, distance = at[other], place[other], distance[other]
        order = np.lexsort((place, distance, at))  # ids are in order
        starts = np.searchsorted(at[order], at[order])
        first = order[np.arange(len(order)) - starts < k]
        rows, begins, found = np.unique(at[first], return_index=True, return_counts=True)
        foreign = np.bincount(at[first], weights=labels[place[first]] != labels[mine[at[first]]], minlength=len(mine))
        nearest = place[first[begins]]
        cells = [ids[mine[rows]], labels[mine[rows]], ids[nearest], labels[nearest]]
        arrays = [pa.array(c, pa.string()) for c in cells]
        arrays += [pa.array(distance[first[begins]], pa.float64()), pa.array(foreign[rows].astype(np.int32))]
        return pa.table([*arrays, pa.array(found.astype(np.int32))], names=[c.split()[0] for c in AROUND.split(", ")])

    return surrounded


def measuring(small: pa.Table, k: int, scale: Sequence[float]) -> Batches:
    """Return the function of rows that gives each one's mean distance to the k nearest of some, and the nearest."""
    there, names = space(small, scale), small["id"].to_numpy(zero_copy_only=False)

    def measured(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.num_rows:
                table = pa.Table.from_batches([batch])
                distance, place = closest(there, space(table, scale), k)
                cells = [batch.column("label"), batch.column("id"), pa.array(names[place[:, 0]], pa.string())]
                cells.append(pa.array(distance.mean(axis=1), pa.float64()))
                yield pa.RecordBatch.from_arrays(cells, ["label", "gone", "near", "distance"])

    return measured
