"""What all steps share that keep one of several rows whose sets of features are similar: texts, images."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import Window as W
from pyspark.sql import functions as F
from pyspark.sql import types as T

from headgate.transforms.deduplication import pairs
from headgate.transforms.deduplication.crowds import rare
from headgate.transforms.deduplication.exact import DropDuplicates
from headgate.transforms.deduplication.keep import need_order, order_of, ordered_by, precedes
from headgate.transforms.deduplication.shingles import PACKED
from headgate.transforms.rows import FILE, ROW_ID, Rejection, is_kept, is_own, reject, struct_of
from headgate.transforms.step import Columns, Context, Step, StepError, require_columns

LENGTH = "length"  # in `keep`: of the compared text, where no column has this name
WINDOW = 64  # rows of a crowded bucket that each of its rows is compared with
PAIRS_AT_ONCE = 1_000_000  # candidates whose ids every task may hold, some 200 bytes each
FOUND = "length int, size int, set binary, buckets array<bigint>, bits binary, shingles binary"
EDGES_AT_ONCE = 4_000_000  # similar pairs that one task may hold, some 150 bytes each
SKETCHES = "sketches_49"  # named anew when they change: an index of others is then not read, but built anew


@dataclass(frozen=True, kw_only=True)
class NearStep(Step):
    """The base of all steps that keep one of several rows whose sets of features are similar."""

    scope: ClassVar[Literal["row", "table"]] = "table"
    state: ClassVar[str] = SKETCHES
    many_features: ClassVar[bool] = True  # whether sets differ enough in their features to be told apart by rare ones
    unreadable: ClassVar[str] = ""  # what cells are that cannot be compared though they are not empty
    columns: tuple[str, ...]
    keep: str = f"{LENGTH} desc"
    cluster: str | None = None

    @property
    def threshold(self) -> float:
        """Least Jaccard similarity."""
        raise NotImplementedError

    @property
    def buckets(self) -> int:
        """Return how many buckets each row is put into."""
        raise NotImplementedError

    @property
    def limits(self) -> pairs.Limits:
        raise NotImplementedError

    @property
    def rule(self) -> str:
        """In words: what is compared, for the ledger."""
        raise NotImplementedError

    @property
    def reason(self) -> str:
        return "near_duplicate"

    def compared(self, df: DataFrame) -> Column:
        """Return what is sketched: null or of no length where there is nothing to compare."""
        raise NotImplementedError

    def sketch(self) -> Callable[[pa.Array], Mapping[str, pa.Array]]:
        """Return what sketches an Arrow array of it: length, size (0: not compared), set, buckets, bits, shingles."""
        raise NotImplementedError

    def for_new_rows(self) -> Step | None:
        return super().for_new_rows() if self.cluster else None

    def with_cluster(self, have: Columns) -> Columns:
        """The columns after the step, given those before it."""
        require_columns((c for c, _ in order_of(self.keep) if not is_own(c) and c != LENGTH), have)
        need_order(order_of(self.keep), have)
        new = [] if self.cluster is None else [self.cluster, f"{self.cluster}_similarity"]
        for column in new:
            if column.lower() in (c.lower() for c in have):
                raise StepError(f"cluster: there is a column '{column}' already")
        return {**have, **dict(zip(new, ("string", "double"), strict=False))}

    def run(self, df: DataFrame, context: Context) -> DataFrame:
        sketches, known = self.kept_sketches(df, context), context.recorded(SKETCHES)
        known = None if known is None else known.where("size > 0")
        repeats = context.keep(self.repeats(sketches, known), "repeats")
        if repeats.where("same_id").count():
            # A record that came twice: marks are found by row id, so only one of its rows may be in question.
            again = DropDuplicates(columns=(ROW_ID,))
            before = None
            if known is not None:
                before = known.select(ROW_ID, F.lit(None).alias(FILE), again.key(known).alias("_hg_key")).distinct()
            df = again.marked(df, before, self.id, "duplicate_row_id")
            sketches = self.kept_sketches(df, context)
            repeats = context.keep(self.repeats(sketches, known), "repeats")
        decisions = context.keep(self.decided(sketches, known, repeats.select(ROW_ID, "leader"), context), "decisions")
        lasting = SKETCHES
        if self.cluster is not None and context.lasting:
            # Members of clusters are published too; new rows are compared with their heads alone.
            context.keep(sketches.join(decisions, on=ROW_ID, how="left_anti"), lasting := "heads")
        context.record(SKETCHES, lasting, [c for c in sketches.columns if c != "rank"])
        return self.marked(df, decisions)

    # -- sketches

    def kept_sketches(self, df: DataFrame, context: Context) -> DataFrame:
        if not self.unreadable:
            return context.keep(self.sketched(df).where("size > 0"), SKETCHES)
        made = context.keep(self.sketched(df), SKETCHES)
        if nothing := made.where("size = 0").count():
            context.warn(f"{self.name}: {nothing:,} cells of {', '.join(self.columns)} {self.unreadable}")
        return made.where("size > 0")

    def sketched(self, df: DataFrame) -> DataFrame:
        """Return of every row to be compared: row id, rank (what `keep` orders by), and its sketch."""
        value, kinds = self.compared(df), dict(df.dtypes)
        order = {f"o{i}": c for i, (c, _) in enumerate(order_of(self.keep)) if c in df.columns}
        rows = df.where(is_kept() & (F.octet_length(value) > 0)).select(
            value.alias("value"), ROW_ID, *(ordered_by(c, kinds[c]).alias(o) for o, c in order.items())
        )
        schema = T.StructType([*rows.schema.fields[1:], *struct_of(FOUND).fields])
        sketches = rows.mapInArrow(sketch_batches(self.sketch()), schema)
        rank = [F.col(o if o in order else LENGTH).alias(o) for o, _ in self.order()[:-1]]
        rank.append(F.col(ROW_ID).alias("id"))
        return sketches.withColumn("rank", F.struct(*rank)).drop(LENGTH, *order)

    # -- who stays

    def order(self) -> list[tuple[str, bool]]:
        """The order of `rank`: what `keep` says, then the row id."""
        return [*((f"o{i}", descending) for i, (_, descending) in enumerate(order_of(self.keep))), ("id", False)]

    def decided(
        self, sketches: DataFrame, known: DataFrame | None, duplicates: DataFrame, context: Context
    ) -> DataFrame:
        """The rows that go: _row_id, kept_row_id, score. duplicates: those with the set of a row before them."""
        new, old = self.with_age(sketches, known)
        sets = (new if old is None else new.unionByName(old)).select(ROW_ID, "size", "shingles")
        leaders = new.join(duplicates, on=ROW_ID, how="left_anti").drop("shingles")
        placed = self.assign_buckets(leaders, None if old is None else old.drop("shingles"), sets, context)
        edges = self.verify_candidates(context.keep(self.candidates(placed), "candidates"), sets, context)
        leaving = self.select_survivors(edges, context).select("kept", "score", F.col("gone").alias("leader"))
        # Duplicates go where their leader goes, or to their leader.
        led = leaving.withColumn(ROW_ID, F.col("leader")).unionByName(duplicates, allowMissingColumns=True)
        alike = W.partitionBy("leader")
        return led.select(
            ROW_ID,
            F.coalesce(F.max("kept").over(alike), "leader").alias("kept_row_id"),
            F.coalesce(F.max("score").over(alike), F.lit(1.0)).alias("score"),
        )

    def with_age(self, sketches: DataFrame, known: DataFrame | None) -> tuple[DataFrame, DataFrame | None]:
        """New and earlier rows with the same columns: of the rank of these all but the id is null."""
        new = sketches.withColumn("old", F.lit(False))
        if known is None:
            return new, None
        kinds = cast(T.StructType, sketches.schema["rank"].dataType)
        nothing = [F.lit(None).cast(kinds[c].dataType).alias(c) for c, _ in self.order()[:-1]]
        rank = F.struct(*nothing, F.col(ROW_ID).alias("id"))
        return new, known.withColumns({"rank": rank, "old": F.lit(True)}).select(new.columns)

    def repeats(self, sketches: DataFrame, known: DataFrame | None) -> DataFrame:
        """The rows whose set, or whose id, a row before them has: _row_id, leader (the first of these), same_id."""
        new, old = self.with_age(sketches, known)
        keys = F.posexplode(F.array("set", F.col(ROW_ID).cast("binary"))).alias("which", "key")
        rows = new.select(ROW_ID, "old", "rank", keys)
        if old is not None:
            # A text that is published already stays, whatever comes later.
            before = old.select(ROW_ID, "old", "rank", keys)
            rows = rows.unionByName(before.join(rows.select("key"), on="key", how="left_semi"))
        order = W.partitionBy("key").orderBy(F.col("old").desc(), *self.rank_order())
        leader = F.first(ROW_ID).over(order.rowsBetween(W.unboundedPreceding, W.currentRow))
        rows = rows.select(ROW_ID, "old", leader.alias("leader"), F.row_number().over(order).alias("place"), "which")
        return rows.where("NOT old AND place > 1").select(ROW_ID, "leader", F.expr("which = 1").alias("same_id"))

    def rank_order(self, rank: str = "rank") -> list[Column]:
        columns = ((F.col(f"{rank}.{c}"), descending) for c, descending in self.order())
        return [c.desc_nulls_last() if descending else c.asc_nulls_last() for c, descending in columns]

    def verify_candidates(self, likely: DataFrame, sets: DataFrame, context: Context) -> DataFrame:
        """The exact similarity of candidates, where it reaches the threshold: kept, gone, score, common."""
        return context.keep(compared(likely, sets, pairs.similarities(self.threshold)), "edges")

    def assign_buckets(self, new: DataFrame, old: DataFrame | None, sets: DataFrame, context: Context) -> DataFrame:
        """The rows in those buckets that several share, one of them new: bucket, second, and theirs.

        Rows of crowded buckets come under their rare features instead, and under both if these are crowded too.
        """
        rows = in_buckets(new, self.buckets)
        if old is not None:
            there = in_buckets(old, self.buckets).join(rows.select("bucket"), on="bucket", how="left_semi")
            rows = context.keep(rows.unionByName(there), "placed")
        # Most buckets hold one row, which is not shuffled. Written first: Spark broadcasts what it knows to be small.
        shared = context.keep(rows.groupBy("bucket").agg(F.count("*").alias("crowd")).where("crowd > 1"), "shared")
        crowded = shared.where(F.col("crowd") > WINDOW + 1).select("bucket")
        if not crowded.count():
            return rows.join(shared.select("bucket"), on="bucket", how="left_semi")
        placed = rows.join(shared.where(F.col("crowd") <= WINDOW + 1).select("bucket"), on="bucket", how="left_semi")
        rows = rows.join(crowded, on="bucket", how="left_semi")
        who = context.keep(rows.select(ROW_ID).distinct(), "crowd")
        if self.many_features:
            again = (new if old is None else new.unionByName(old)).drop("buckets").join(who, on=ROW_ID, how="left_semi")
            again, who = rare(again, sets, self.threshold, WINDOW, context)
            placed = placed.unionByName(again.withColumn("second", F.lit(0).cast("long")), allowMissingColumns=True)
        self.tell_crowd(who.count(), context)
        return placed.unionByName(rows.join(who, on=ROW_ID, how="left_semi"), allowMissingColumns=True)

    def tell_crowd(self, rows: int, context: Context) -> None:
        if rows:
            context.warn(
                f"{self.name}: {rows:,} rows are in crowds of more than {WINDOW + 1} that look alike, and were "
                f"compared with at most {2 * WINDOW} of each; more pairs may be missed among them than the recall says"
            )

    def candidates(self, rows: DataFrame) -> DataFrame:
        """Pairs of rows in buckets that may be similar: kept, gone."""
        sent = rows.select(
            "bucket", "second", "old", "size", *self.limits.columns, F.struct("old", "rank").alias("row")
        )
        order = [F.col("second"), F.col("old").desc(), *self.rank_order("row.rank")]
        sent = sent.repartition("bucket").sortWithinPartitions("bucket", *order)
        kind = sent.schema["row"].dataType
        found = sent.mapInArrow(pairs.candidates(self.limits), T.StructType().add("one", kind).add("other", kind))
        first = F.col("one.old") | (~F.col("other.old") & precedes(self.order(), "one.rank", "other.rank"))
        both = [F.col("one.rank.id"), F.col("other.rank.id")]
        return found.select(
            F.when(first, both[0]).otherwise(both[1]).alias("kept"),
            F.when(first, both[1]).otherwise(both[0]).alias("gone"),
        ).distinct()

    def select_survivors(self, edges: DataFrame, context: Context) -> DataFrame:
        """The rows that go, each with the most similar row that stays and comes before it: gone, kept, score.

        In one task if it can hold the edges, else round by round until it can.
        """
        left, leaving, turn = edges.select("kept", "gone", "score"), [], 0
        while left.count() > EDGES_AT_ONCE:
            # Who has nobody before it stays, and takes with it all that are similar.
            stays = left.select("kept").join(left.select(F.col("gone").alias("kept")), on="kept", how="left_anti")
            leaves = context.keep(
                left.join(stays.distinct(), on="kept", how="left_semi").select("gone").distinct(), f"gone_{turn}"
            )
            leaving.append(leaves)
            left = left.join(leaves, on="gone", how="left_anti")
            left = left.join(leaves.select(F.col("gone").alias("kept")), on="kept", how="left_anti")
            left = context.keep(left, f"edges_{turn}")
            turn += 1
        last = left.coalesce(1).mapInArrow(pairs.select_survivors, "gone string, kept string, score double")
        if not leaving:
            return last
        gone = functools.reduce(DataFrame.unionByName, leaving, last.select("gone"))
        standing = edges.join(gone.select(F.col("gone").alias("kept")), on="kept", how="left_anti")
        best = F.min_by("kept", F.struct(-F.col("score"), F.col("kept"))).alias("kept")
        return standing.groupBy("gone").agg(best, F.max("score").alias("score"))

    # -- marks

    def marked(self, df: DataFrame, decisions: DataFrame) -> DataFrame:
        df = df.join(
            decisions.withColumnsRenamed({"kept_row_id": "_hg_kept", "score": "_hg_score"}), on=ROW_ID, how="left"
        )
        if self.cluster is not None:
            columns = {
                self.cluster: F.when(is_kept(), F.coalesce("_hg_kept", F.col(ROW_ID))),
                f"{self.cluster}_similarity": F.when(is_kept(), F.coalesce("_hg_score", F.lit(1.0))),
            }
            return df.withColumns(columns).drop("_hg_kept", "_hg_score")
        evidence = {
            "columns": F.lit(", ".join(self.columns)),
            "kept_row_id": F.col("_hg_kept"),
            "score": F.round("_hg_score", 6),
            "threshold": F.lit(self.threshold),
            "rule": F.lit(self.rule),
        }
        again = Rejection(F.col("_hg_kept").isNotNull(), self.reason, evidence)
        return reject(df, self.id, again).drop("_hg_kept", "_hg_score")


def sketch_batches(
    sketch: Callable[[pa.Array], Mapping[str, pa.Array]],
) -> Callable[[pairs.Batches], pairs.Batches]:
    def run(batches: pairs.Batches) -> pairs.Batches:
        for batch in batches:
            value, *passed = batch.columns
            found = sketch(value)
            yield pa.RecordBatch.from_arrays([*passed, *found.values()], [*batch.schema.names[1:], *found])

    return run


def compared(
    likely: DataFrame, sets: DataFrame, how: Callable[..., pairs.Batches], few: Column | None = None
) -> DataFrame:
    """Pairs (kept, gone) with the sets of either, or the first `few` of that of `gone`, by what `how` makes of them."""
    own = likely.select(F.col("kept").alias(ROW_ID), "kept", F.lit(True).alias("own")).distinct()
    asked = own.unionByName(likely.select(F.col("gone").alias(ROW_ID), "kept", F.lit(False).alias("own")))
    if likely.count() <= PAIRS_AT_ONCE:  # of what was written: from the files' footers
        asked = F.broadcast(asked)  # the sets, some hundred times as large, then stay where they are
    gone = F.when(~F.col("own"), F.col(ROW_ID)).alias("gone")
    shingles = F.col("shingles")
    if few is not None:
        shingles = F.when(F.col("own"), shingles).otherwise(F.substring("shingles", F.lit(1), few * PACKED.itemsize))
    found = sets.join(asked, on=ROW_ID).select("kept", gone, shingles.alias("shingles"))
    found = found.repartition("kept").sortWithinPartitions("kept", F.col("gone").asc_nulls_first())
    return found.mapInArrow(how, "kept string, gone string, score double, common bigint")


def in_buckets(sketches: DataFrame, bands: int) -> DataFrame:
    """A row for each bucket of each sketch, and the bucket of the next band as `second`."""
    place = sketches.select("*", F.posexplode("buckets").alias("band", "bucket"))
    return place.withColumn("second", F.col("buckets")[(F.col("band") + 1) % bands]).drop("buckets", "band")
