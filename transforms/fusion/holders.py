"""Which records hold which keys, counted and looked up in Spark; and the double keys that follow from common ones."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headgate.transforms.fusion.blocking import COMMON, REFINED
from headgate.transforms.fusion.groups import one_array
from headgate.transforms.fusion.keys import Bools, Ints, keys_of, member
from headgate.transforms.fusion.meetings import Limits, combined, places
from headgate.transforms.fusion.records import CHARACTERS, normalised
from headgate.transforms.fusion.values import LONGEST, Comparison
from headgate.transforms.rows import arrow_frame
from headgate.transforms.step import Context, MakeAll

KEYED = "rid long, src int, name string, keys array<long>, families array<long>, fine array<boolean>"
HIT = "rid long, src int, family long, key long"
SKETCH = 23  # bits of a hash by which most keys are told from those that are looked for
HITS = 10_000_000  # keys of records that the driver may hold, some 75 bytes each,
FEW = 100_000  # records whose keys it may hold, some 5 KB each, and
RECORDS = 500_000  # with their cells, of `MUCH` characters
MUCH = 4 * CHARACTERS
Body = Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]


@dataclass(frozen=True, kw_only=True)
class Held:
    """Keys of records, a row a record and key; fine: whether the key may block alone, where it is not common."""

    rid: Ints
    src: Ints
    family: Ints
    key: Ints
    fine: Bools

    def where(self, some: Bools) -> "Held":
        return Held(**{name: cells[some] for name, cells in vars(self).items()})

    def plus(self, *others: "Held") -> "Held":
        return Held(**{name: np.concatenate([c, *(vars(o)[name] for o in others)]) for name, c in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How many records of each source hold a key, of the keys in order."""

    key: Ints
    n: Ints  # a row a key, a column a source

    @classmethod
    def of(cls, held: Held, sources: int) -> "Tally":
        return cls.summed(held.key, held.src, np.ones(len(held.key), np.int64), sources)

    @classmethod
    def summed(cls, key: Ints, src: Ints, n: Ints, sources: int) -> "Tally":
        keys, at = np.unique(key, return_inverse=True)
        summed = np.bincount(at * sources + src, n, len(keys) * sources).astype(np.int64)
        return cls(key=keys, n=summed.reshape(-1, sources))

    def at(self, keys: Ints) -> Ints:
        """Return the counts of some keys; 0 of others."""
        if not len(self.key):
            return np.zeros((len(keys), self.n.shape[1]), np.int64)
        at = np.minimum(np.searchsorted(self.key, keys), len(self.key) - 1)
        return np.where((self.key[at] == keys)[:, None], self.n[at], 0)


def pairs_of(n: Ints) -> Ints:
    """Return the pairs that keys make, by how many records of each source hold them."""
    total = n.sum(axis=1)
    if n.shape[1] == 1:
        return np.asarray(total * (total - 1) // 2)
    return np.asarray((total * total - (n * n).sum(axis=1)) // 2)


def keyed(comparisons: tuple[Comparison, ...], minhash: int) -> Body:
    """Return the body of a map from records (rid, src, id, key, cells) to their keys, a row a record: see `KEYED`."""
    forms = normalised(comparisons)

    def run(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        for batch in forms(batches):
            found = keys_of(comparisons, batch.columns[4:], minhash)
            order = np.argsort(found.record, kind="stable")
            ends = np.cumsum(np.bincount(found.record, minlength=len(batch)))
            offsets = pa.array(np.r_[0, ends].astype(np.int32))
            lists = [
                pa.ListArray.from_arrays(offsets, pa.array(c[order])) for c in (found.key, found.family, found.fine)
            ]
            rid, src, name = (batch.column(i) for i in (0, 1, 3))
            cells = [rid, src.cast(pa.int32()), name, *lists]
            yield pa.RecordBatch.from_arrays(cells, ["rid", "src", "name", "keys", "families", "fine"])

    return run


def held(records: pa.RecordBatch | pa.Table) -> Held:
    """Return the keys of records, of rows of `KEYED`."""
    cells = {c: one_array(records[c]) if isinstance(records, pa.Table) else records.column(c) for c in LISTS}
    each = cells["keys"].value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    key, family, fine = (cells[c].flatten().to_numpy(zero_copy_only=False) for c in ("keys", "families", "fine"))
    rid, src = (np.repeat(cells[c].to_numpy(zero_copy_only=False), each) for c in ("rid", "src"))
    return Held(rid=rid, src=src.astype(np.int64), family=family, key=key, fine=fine.astype(np.bool_))


LISTS = ("rid", "src", "keys", "families", "fine")


def doubles(of: Held, over: Ints, limits: Limits) -> Held:
    """Return the double keys of records. over: the keys that make too many pairs, in order."""
    common = of.where(~of.fine | member(of.key, over))
    rid, family, key = combined(common.rid, common.family, common.key, places(limits.order, common.key), REFINED)
    rids, first = np.unique(common.rid, return_index=True)
    src = common.src[first][np.searchsorted(rids, rid)] if len(rid) else np.zeros(0, np.int64)
    return Held(rid=rid, src=src, family=family, key=key, fine=np.zeros(len(rid), np.bool_))


class Hits(Protocol):
    """The records that hold some keys, with these."""

    def tally(self) -> Tally:
        """Count the records of each key."""

    def of(self, keys: Ints) -> pa.Table:
        """Return those of some keys, in order: rows of `HIT`."""


class Holders(Protocol):
    """The keys of all records: in Spark, or at once where records are few. Both say the same.

    In Spark each raises `MakeAll` where what it returns is more than the driver may hold.
    """

    @property
    def sources(self) -> int:
        """Return how many sources there are."""

    def sizes(self) -> list[tuple[int, int, int]]:
        """Return of each source its number, how many rows it has and how many records."""

    def named(self, column: str, values: pa.Array) -> pa.Table:
        """Return the rows of `KEYED` with some values in a column."""

    def count(self, keys: Ints, limit: int) -> Tally:
        """Count the records that hold some keys, and all keys that make more pairs than the limit."""

    def singles(self, keys: Ints) -> pa.Table:
        """Return the records that hold some keys, in order, which may block alone: rows of `HIT`."""

    def doubles(self, keys: Ints, of: Ints, over: Ints, limits: Limits) -> Hits:
        """Return the records that hold some double keys. of: keys among which are those that they are made of.

        keys, of, over: in order.
        """


@dataclass(frozen=True)
class FewHits:
    """See `Hits`."""

    held: Held
    sources: int

    def tally(self) -> Tally:
        return Tally.of(self.held, self.sources)

    def of(self, keys: Ints) -> pa.Table:
        return pa.Table.from_batches([as_hits(self.held.where(member(self.held.key, keys)))])


def at_most(rows: DataFrame, most: int, what: str) -> pa.Table:
    """Return rows at once; raise `MakeAll` where there are more than so many. what: they are, after a number."""
    table = rows.limit(most + 1).toArrow()
    if len(table) > most:
        raise MakeAll(f"more than {most:,} {what}")
    return table


def some_of(raw: DataFrame, rid: Ints, cells: int) -> pa.Table:
    """Return the raw records with some ids, each once; raise `MakeAll` where they are too many or too long."""
    if len(rid) > RECORDS:
        raise MakeAll(f"changed records are compared with others, more than {RECORDS:,} in all")
    here = arrow_frame(raw.sparkSession, pa.table({"rid": rid}))
    some = raw.join(F.broadcast(here), on="rid", how="left_semi")
    if len(rid) * cells * LONGEST > MUCH:  # if every cell is as long as one may be
        length = F.sum(F.length(F.concat_ws("", *(f"c{j}" for j in range(cells)))))
        found = some.agg(length.alias("n")).first()
        if found is not None and (found["n"] or 0) > MUCH:
            raise MakeAll(f"changed records are compared with others, more than {MUCH:,} characters in all")
    return some.toArrow()  # bounded above


class FewHolders:
    """The keys of few records, held at once: see `Holders`."""

    def __init__(self, rows: pa.Table, sources: int) -> None:
        self.rows, self.sources, self.held = rows, sources, held(rows)
        self.two: Held | None = None

    def sizes(self) -> list[tuple[int, int, int]]:
        src, rid = self.rows["src"].to_numpy(), self.rows["rid"].to_numpy()
        return [(s, int((src == s).sum()), len(np.unique(rid[src == s]))) for s in np.unique(src).tolist()]

    def named(self, column: str, values: pa.Array) -> pa.Table:
        return self.rows.filter(pc.is_in(self.rows[column], values))

    def count(self, keys: Ints, limit: int) -> Tally:
        tally = Tally.of(self.held, self.sources)
        some = member(tally.key, np.sort(keys)) | (pairs_of(tally.n) > limit)
        return Tally(key=tally.key[some], n=tally.n[some])

    def singles(self, keys: Ints) -> pa.Table:
        return FewHits(self.held.where(self.held.fine), self.sources).of(keys)

    def doubles(self, keys: Ints, of: Ints, over: Ints, limits: Limits) -> FewHits:
        if self.two is None:  # once: of one build, what is common does not change
            self.two = doubles(self.held, over, limits)
        return FewHits(self.two.where(member(self.two.key, keys)), self.sources)


@dataclass(frozen=True)
class ManyHits:
    """See `Hits`. rows: of `HIT`."""

    rows: DataFrame
    sources: int

    def tally(self) -> Tally:
        counts = self.rows.groupBy("key", "src").agg(F.count(F.lit(1)).alias("n"))
        table = at_most(counts, HITS, "keys of changed records are counted")
        key, src, n = (table[c].to_numpy().astype(np.int64) for c in ("key", "src", "n"))
        return Tally.summed(key, src, n, self.sources)

    def of(self, keys: Ints) -> pa.Table:
        some = arrow_frame(self.rows.sparkSession, pa.table({"key": keys}))
        found = self.rows.join(F.broadcast(some), on="key", how="left_semi").select(*self.rows.columns)
        return at_most(found, HITS, "keys of records are shared with those that changed")


@dataclass(frozen=True)
class ManyHolders:
    """The keys of any number of records, in Spark, rows of `KEYED`: see `Holders`."""

    rows: DataFrame
    sources: int
    context: Context

    def keys(self) -> int:
        """Return how many keys all records have together, each row counting for one more."""
        found = self.rows.agg(F.sum(F.size("keys") + 1).alias("n")).first()
        return int(found["n"] or 0) if found is not None else 0

    def sizes(self) -> list[tuple[int, int, int]]:
        counts = self.rows.groupBy("src").agg(F.count(F.lit(1)).alias("n"), F.count_distinct("rid").alias("ids"))
        return [(row["src"], row["n"], row["ids"]) for row in counts.collect()]  # a row a source

    def named(self, column: str, values: pa.Array) -> pa.Table:
        some = arrow_frame(self.rows.sparkSession, pa.table({column: values}))
        found = self.rows.join(F.broadcast(some), on=column, how="left_semi")
        return at_most(found, FEW, "records have keys that changed")

    def count(self, keys: Ints, limit: int) -> Tally:
        each = self.rows.select("src", F.explode("keys").alias("key")).groupBy("key")
        n = [F.count_if(F.col("src") == s).alias(f"n{s}") for s in range(self.sources)]
        counts = each.agg(*n)
        total = sum((F.col(f"n{s}") for s in range(self.sources)), F.lit(0))
        squares = sum((F.col(f"n{s}") * F.col(f"n{s}") for s in range(self.sources)), F.lit(0))
        made = total * (total - 1) if self.sources == 1 else total * total - squares
        some = arrow_frame(self.rows.sparkSession, pa.table({"key": keys})).withColumn("asked", F.lit(True))
        found = counts.join(F.broadcast(some), on="key", how="left").where(F.col("asked") | (made > 2 * limit))
        table = at_most(found.drop("asked"), len(keys) + COMMON, "keys are shared by many records").sort_by("key")
        columns = [table[f"n{s}"].to_numpy() for s in range(self.sources)]
        return Tally(key=table["key"].to_numpy(), n=np.column_stack(columns).astype(np.int64))

    def singles(self, keys: Ints) -> pa.Table:
        each = self.rows.select("rid", "src", F.inline(F.arrays_zip("families", "keys", "fine")))
        fine = each.where("fine").select("rid", "src", F.col("families").alias("family"), F.col("keys").alias("key"))
        return ManyHits(fine, self.sources).of(keys)

    def doubles(self, keys: Ints, of: Ints, over: Ints, limits: Limits) -> ManyHits:
        found = self.rows.mapInArrow(doubles_among(keys, of, over, limits), HIT)
        name = "_".join(["doubles", *map(str, keys[:1].tolist())])  # it is asked once of a key
        return ManyHits(self.context.keep(found, name), self.sources)


def doubles_among(keys: Ints, of: Ints, over: Ints, limits: Limits) -> Body:
    """Return the body of a map from rows of `KEYED` to those of `HIT`: of some double keys. See `Holders.doubles`."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        near = np.zeros(1 << SKETCH, np.bool_)
        near[sketched(keys)] = True
        for batch in batches:
            lists = batch.column("keys")
            seen = np.r_[0, np.cumsum(member(lists.flatten().to_numpy(), of))]
            ends = np.r_[0, np.cumsum(lists.value_lengths().to_numpy())]
            found = doubles(held(batch.filter(pa.array(np.diff(seen[ends]) > 1))), over, limits)
            found = found.where(near[sketched(found.key)])
            yield as_hits(found.where(member(found.key, keys)))

    return run


def sketched(keys: Ints) -> Ints:
    return (keys.view(np.uint64) >> np.uint64(64 - SKETCH)).astype(np.int64)


def as_hits(found: Held) -> pa.RecordBatch:
    """Return keys of records as rows of `HIT`."""
    cells = [pa.array(c) for c in (found.rid, found.src.astype(np.int32), found.family, found.key)]
    return pa.RecordBatch.from_arrays(cells, ["rid", "src", "family", "key"])
