"""Synthetic rows of small classes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from headgate.transforms.balancing.buckets import Batches
from headgate.transforms.balancing.neighbours import (
    Metric,
    Points,
    as_lists,
    codes_of,
    counts_of,
    matrix_of,
    nearest,
    nearest_with_ties,
    scale_of,
    synthesized,
    unlike_of,
)
from headgate.transforms.balancing.synthetic import (
    Asked,
    Method,
    made_in_buckets,
    no_parents,
    none_near,
    weights_of,
)
from headgate.transforms.cleaning.scores import need_scikit
from headgate.transforms.kinds import WHOLE, as_text, is_category, is_number, known_kinds, named_values, need_kinds
from headgate.transforms.kinds import scale_of as digits_of
from headgate.transforms.rows import (
    CHANGED,
    CHANGED_TYPE,
    MADE,
    PARENTS,
    ROW_ID,
    SPLIT,
    TRAIN,
    content_key,
    quoted,
    training_rows,
)
from headgate.transforms.step import Columns, Context, Step, StepError, require_columns
from headgate.words import cell, few_of

MOST_BASE = 100_000  # rows of small classes that come to the driver and go to every task; more are searched in buckets
MOST_CLASSES = 1_000
BASE_ROWS = 4_000  # that are searched at once
TASK = 16_000**2  # distances of a task, about: an import of scikit-learn costs a worker as much CPU as so many
MOST_TASKS = 64
FOUND = "base long, other long, number long, numbers array<double>, texts array<string>"


@dataclass(frozen=True, kw_only=True)
class MakeMinority(Step):
    """Add synthetic training rows of small classes, each between a row and a near neighbour of its class.

    label: the class column; rows without a class are left alone.
    columns: what the neighbours are found by and synthetic rows have: numbers, and texts or booleans (SMOTE-NC).
    rows: how many rows every class shall have, as `targets`: class -> rows, for single classes; by default as many as
        the largest class. Classes that have as many are left alone; `sample_strata` makes classes smaller.
    method: `smote` (default) makes equally many of every row; `borderline` of those rows alone of whose `border`
        nearest rows of all classes half or more, but not all, are of others; `adasyn` in proportion to their share.
    neighbours: of how many nearest rows of the class the other parent is one (5).
    border: see `method` (10; for `adasyn` 5 as a rule).
    recall: where rows are searched in buckets (see the cost), the share of nearest rows that shall be found (0.9).
    within: columns of segments: both parents, and so the synthetic row, are of one segment.
    scale: true (default) divides numbers by their standard deviation in the small classes before distances are taken.
    seed: another seed makes other rows.
    A synthetic row lies on the line between its parents, which `_parents` names (the first is its base); texts take
    the most frequent value among the base's neighbours. Whole numbers are rounded. Columns not named here are null.
    Every class gets exactly its rows. Rows with a null, NaN or infinity in `columns` are no parents, nor are rows that
    are alone in their class and segment; a class without any two such rows is an error. Which rows are made is decided
    by hashes of row ids: the same in any partitioning.
    Needs the extra `models`. Cost: up to 100,000 usable rows of the classes that grow come to the driver and go to all
    tasks, which find the exact neighbours of some of them each: for n such rows about n log n where columns are few or
    go together, else n^2. More of them are searched in buckets of some 10,000 rows each, those nearest to one of the
    centres that k-means finds in a sample, of 200,000 rows at most, in which the signs of its hash stand for a text. A
    row is in the buckets of its nearest centres, so many that the share `recall` of the neighbours is found, 16 at
    most: one shuffle, in which one of 300,000 rows comes once with 4 columns, 3 times with 10 and 7 times with 20 that
    do not go together. The recall, measured on 250 rows, is a figure of the run, and below `recall` a warning.
    `borderline` and `adasyn` search all training rows for each base row too, in buckets of their own where the base
    rows are more than 100,000.
    Source: Chawla et al. 2002 (SMOTE, SMOTE-NC), Han et al. 2005 (Borderline-SMOTE1), He et al. 2008 (ADASYN).
    """

    name: ClassVar[str] = "make_minority"
    revision: ClassVar[int] = 4
    scope: ClassVar[Literal["row", "table"]] = "table"
    by_split: ClassVar[bool] = True
    label: str
    columns: tuple[str, ...]
    rows: int | None = None
    targets: Mapping[str, int] | None = None
    method: Method = "smote"
    neighbours: int = 5
    border: int = 10
    recall: float = 0.9
    within: tuple[str, ...] = ()
    scale: bool = True
    seed: int = 0

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns([self.label, *self.columns, *self.within], have)
        if not self.columns or self.label in (*self.columns, *self.within) or set(self.columns) & set(self.within):
            raise StepError("columns: name at least one, other than label and within")
        if self.rows is not None and self.targets is not None:
            raise StepError("give rows or targets, not both")
        if min([self.rows or 0, *(self.targets or {}).values()]) < 0:
            raise StepError("rows and targets must be at least 0")
        if not 1 <= self.neighbours <= 100 or not 1 <= self.border <= 100:
            raise StepError("neighbours and border must be 1 to 100")
        if not 0 < self.recall <= 1:
            raise StepError("recall must be above 0 and at most 1")
        self.need_features(have, self.name)
        need_scikit()
        return have

    def need_features(self, have: Columns, step: str) -> None:
        """Raise `StepError` for a column that synthetic rows cannot be made of; `step` names who asks for them."""
        need_kinds(have, step, [self.label, *self.within], numbers=False)
        for column, kind in known_kinds(have, self.columns):
            if not is_number(kind) and not is_category(kind):
                raise StepError(f"{step}: '{column}' is {kind}, not a number, a text or a boolean; put a cast before")

    def for_new_rows(self) -> None:
        return None

    def run(self, df: DataFrame, context: Context) -> DataFrame:
        kinds = dict(df.dtypes)
        numbers = [c for c in self.columns if is_number(kinds[c])]
        texts = [c for c in self.columns if not is_number(kinds[c])]
        rows = training_rows(df).where(F.col(quoted(self.label)).isNotNull())
        needs = self.needs(rows, kinds[self.label])
        if not needs:
            return df
        cells = rows.select(*self.cells(rows, kinds, numbers, texts)).where(complete(len(numbers), len(texts)))
        usable = cells.where(F.col("label").isin(*needs))
        base = usable.limit(MOST_BASE + 1).toArrow()
        if base.num_rows > MOST_BASE:
            made = made_in_buckets(usable, cells, self.asked(needs, len(numbers), len(texts)), context)
        else:
            base = once(base)
            state = self.state_of(base, cells, needs, len(numbers), len(texts), context)
            made = self.at_once(state, base, df.sparkSession)
        return df.unionByName(self.as_rows(made, df, numbers, texts))

    def at_once(self, state: "State", base: pa.Table, spark: SparkSession) -> DataFrame:
        """Return synthetic rows of base rows that every task has: as of `made_in_buckets`."""
        tasks = max(1, min(len(state.rows) * len(state.space) // TASK, MOST_TASKS))
        made = spark.range(0, len(state.rows), 1, tasks).mapInArrow(making(state, self.neighbours, self.seed), FOUND)
        shown = ["id", "label", *(f"w{i}" for i in range(len(self.within)))]
        parents = spark.createDataFrame(
            base.select(shown).append_column("base", pa.array(range(base.num_rows), pa.int64()))
        )
        others = parents.select(F.col("base").alias("other"), F.col("id").alias("other_id"))
        made = made.join(F.broadcast(parents), on="base", how="inner")
        return made.join(F.broadcast(others), on="other", how="inner")

    def asked(self, needs: Mapping[str, int], numbers: int, texts: int) -> Asked:
        return Asked(
            needs=needs,
            numbers=numbers,
            texts=texts,
            within=len(self.within),
            method=self.method,
            neighbours=self.neighbours,
            border=self.border,
            recall=self.recall,
            scaled=self.scale,
            seed=self.seed,
        )

    def needs(self, rows: DataFrame, kind: str) -> dict[str, int]:
        """Return how many rows each class lacks, by its text, without those that lack none."""
        label = as_text(F.col(quoted(self.label)), kind)
        found = rows.groupBy(label.alias("label")).count().limit(MOST_CLASSES + 1).collect()
        if len(found) > MOST_CLASSES:
            raise StepError(f"label: '{self.label}' has more than {MOST_CLASSES:,} classes")
        sizes = {r["label"]: r["count"] for r in found}
        if self.targets is not None:
            named = named_values(rows.sparkSession, self.targets, kind, self.label, "targets")
            wanted = {value: self.targets[name] for value, name in named.items()}
            unknown = next((name for name in wanted if name not in sizes), None)
            if unknown is not None:
                raise StepError(
                    f"targets: no training row is of class {cell(unknown)} (there are: {few_of(sorted(sizes))})"
                )
        else:
            wanted = dict.fromkeys(sizes, self.rows if self.rows is not None else max(sizes.values(), default=0))
        return {name: n - sizes[name] for name, n in sorted(wanted.items()) if n > sizes[name]}

    def cells(
        self, rows: DataFrame, kinds: Mapping[str, str], numbers: Sequence[str], texts: Sequence[str]
    ) -> list[Column]:
        segment = content_key(rows, self.within) if self.within else F.lit("")
        label = as_text(F.col(quoted(self.label)), kinds[self.label])
        within = [as_text(F.col(quoted(c)), kinds[c]).alias(f"w{i}") for i, c in enumerate(self.within)]
        return [
            F.col(ROW_ID).alias("id"),
            label.alias("label"),
            segment.alias("segment"),
            F.xxhash64(F.lit(self.seed).cast("long"), F.col(ROW_ID)).alias("hash"),
            *(F.col(quoted(c)).cast("double").alias(f"n{i}") for i, c in enumerate(numbers)),
            *(F.col(quoted(c)).cast("string").alias(f"t{i}") for i, c in enumerate(texts)),
            *within,
        ]

    def state_of(
        self, base: pa.Table, cells: DataFrame, needs: Mapping[str, int], numbers: int, texts: int, context: Context
    ) -> "State":
        matrix = matrix_of(base, numbers)
        scale = scale_of(matrix, self.scale)
        metric = Metric(scale, unlike_of(matrix, scale), texts)
        numbers_of, categories, names, space = metric.cells(base)
        labels = base["label"].to_pylist()
        pairs = list(zip(labels, base["segment"].to_pylist(), strict=True))
        groups, _ = codes_of([f"{len(c)}:{c}{s}" for c, s in pairs])
        points = Points(base["id"].to_numpy(zero_copy_only=False), numbers_of, categories, groups)
        hashes = base["hash"].to_numpy().astype(np.int64).view(np.uint64)
        weights = np.ones(base.num_rows)
        if self.method != "smote" and base.num_rows:
            search = Search(space, points.ids, np.array(labels, dtype=object), metric, names, self.border)
            weights = weights_of(foreign_shares(search, cells), self.method).astype(float)
        alone = np.bincount(groups, minlength=1)[groups] < 2 if len(groups) else np.zeros(0, dtype=bool)
        counts = np.zeros(base.num_rows, dtype=np.int64)
        for name, need in needs.items():
            mine = np.flatnonzero((np.array(labels, dtype=object) == name) & ~alone)
            if not len(mine):
                raise no_parents(name, self.within)
            if weights[mine].sum() <= 0:
                raise none_near(name)
            counts[mine] = counts_of(hashes[mine], weights[mine], need)
        if alone.any():
            context.warn(f"{int(alone.sum()):,} rows are alone in their class and segment, and are no parents")
        rows = np.flatnonzero(counts)
        return State(points, space, hashes, rows, counts[rows], names)

    def as_rows(self, made: DataFrame, df: DataFrame, numbers: Sequence[str], texts: Sequence[str]) -> DataFrame:
        """Return synthetic rows with the columns of `df`."""
        kinds = dict(df.dtypes)
        values = {c: as_number(F.col("numbers")[i], kinds[c]) for i, c in enumerate(numbers)}
        values |= {c: F.col("texts")[i] for i, c in enumerate(texts)}
        values |= {self.label: F.col("label")} | {c: F.col(f"w{i}") for i, c in enumerate(self.within)}
        values |= {
            ROW_ID: F.md5(content_key(made, ["id", "other_id", "number"], F.lit(self.id))),
            PARENTS: F.array("id", "other_id"),
            MADE: F.lit(self.id),
            CHANGED: F.array().cast(CHANGED_TYPE),
        }
        values |= {SPLIT: F.lit(TRAIN)} if SPLIT in kinds else {}
        null = F.lit(None)
        return made.select(*(values.get(f.name, null).cast(f.dataType).alias(f.name) for f in df.schema.fields))


@dataclass(frozen=True)
class State:
    """What tasks need to make synthetic rows. rows, counts: the base rows, and how many are made of each."""

    points: Points
    space: np.ndarray[Any, Any]
    hashes: np.ndarray[Any, Any]
    rows: np.ndarray[Any, Any]
    counts: np.ndarray[Any, Any]
    names: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Search:
    """What tasks need to find the nearest rows of all classes to some base rows."""

    space: np.ndarray[Any, Any]
    ids: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]
    metric: Metric
    names: Sequence[Sequence[str]]
    k: int


def making(state: State, k: int, seed: int) -> Batches:
    """Return the function of batches of numbers of base rows that gives their synthetic rows."""

    def made(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            at = batch.column(0).to_numpy()
            for start in range(0, len(at), BASE_ROWS):
                some = at[start : start + BASE_ROWS]
                rows = state.rows[some]
                near = nearest(state.space, state.points.group, rows, k)
                found = synthesized(state.points, near, state.counts[some], state.hashes, rows, seed)
                cells = [pa.array(x, pa.int64()) for x in (found.base, found.other, found.number)]
                cells += as_lists(found, state.names)
                yield pa.RecordBatch.from_arrays(cells, ["base", "other", "number", "numbers", "texts"])

    return made


def foreign_shares(search: Search, cells: DataFrame) -> np.ndarray[Any, Any]:
    """Return the share of rows of other classes among the k nearest training rows of each base row.

    Cost: each partition is searched for every base row; k candidates for each of them are merged.
    """
    found = cells.mapInArrow(searching(search), "base long, distance double, foreign boolean")
    merged = F.slice(F.array_sort(F.collect_list(F.struct("distance", "foreign"))), 1, search.k)
    foreign = F.size(F.filter(merged, lambda n: n["foreign"])) / F.size(merged)
    table = found.groupBy("base").agg(foreign.alias("share")).toArrow()
    shares = np.zeros(len(search.ids))
    shares[table["base"].to_numpy()] = table["share"].to_numpy()
    return shares


def searching(search: Search) -> Batches:
    def searched(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        some = [batch for batch in batches if batch.num_rows]
        if not some:
            return
        table = pa.Table.from_batches(some)
        space = search.metric.cells(table, search.names)[3]
        ids, labels = (table[c].to_numpy(zero_copy_only=False) for c in ("id", "label"))
        at, place, distance = nearest_with_ties(space, search.space, search.k + 1)
        other = ids[place] != search.ids[at]
        at, place, distance = at[other], place[other], distance[other]
        foreign = labels[place] != search.labels[at]
        cells = [pa.array(at, pa.int64()), pa.array(distance, pa.float64()), pa.array(foreign, pa.bool_())]
        yield pa.RecordBatch.from_arrays(cells, ["base", "distance", "foreign"])

    return searched


def once(base: pa.Table) -> pa.Table:
    """Return rows, each id once, in the order of their ids."""
    base = base.sort_by([(name, "ascending") for name in base.column_names])
    ids = base["id"].to_numpy(zero_copy_only=False)
    first = np.append(True, ids[1:] != ids[:-1]) if len(ids) else np.zeros(0, dtype=bool)
    return base.filter(pa.array(first))


def complete(numbers: int, texts: int) -> Column:
    """Return whether a row has all cells that distances are made of."""
    whole = F.lit(True)
    for i in range(numbers):
        value = F.col(f"n{i}")
        whole = whole & value.isNotNull() & ~F.isnan(value) & (F.abs(value) < float("inf"))
    for i in range(texts):
        whole = whole & F.col(f"t{i}").isNotNull()
    return whole


def as_number(value: Column, kind: str) -> Column:
    """Return a double as a number of a column's type: whole ones rounded."""
    digits = 0 if kind in WHOLE else digits_of(kind)
    return value if digits is None else F.round(value, digits)
