"""Candidate pairs from shared keys, whose cost grows with the rows of a key and never with their square.

A record has *single* keys: whole values, words, the beginnings of values. A key that few records hold blocks alone. One
over the cap is refined by another common key of the same record (a *double* key), and what is over a cap again is
dropped and counted. So a value that covers a third of all rows costs its rows times the cap. The caps are as large as
the pairs can be afforded.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import Window as W
from pyspark.sql import functions as F

from headgate.transforms.fusion.keys import KEYS, emitted
from headgate.transforms.fusion.meetings import UNKNOWN, Limits, affordable, evidence, lower, paired
from headgate.transforms.fusion.neighbourhood import met_in_spark, worth_of
from headgate.transforms.fusion.values import JOINED, Comparison
from headgate.transforms.rows import arrow_frame
from headgate.transforms.step import Context

REFINED = 12  # common keys of a record that are combined two by two
# A key blocks at most half the square of the cap in pairs; small tables can afford more.
CAPS = (6, 8, 10, 12, 15, 18, 21, 25, 30, 35, 42, 50, 100, 200)
SKEWED = 3  # columns whose keys are too frequent that are named
SMALL_BUDGET = 500_000  # pairs that any table can afford


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Candidate pairs, and what blocking has to say of itself.

    space: comparable pairs in all; found: pairs that keys proposed; trimmed: whether records kept their best ones
    alone; limits: pairs of a key at most; refined: keys over the cap; dropped, lost: refined keys over it again, and
    their pairs; skew: of keys over the cap, the columns (as bits) and the records that one of them meets, the most
    frequent first.
    """

    space: int
    found: int
    trimmed: bool
    limits: Limits
    refined: int
    dropped: int
    lost: int
    skew: tuple[tuple[int, int], ...]


def space_of(sizes: Sequence[int]) -> int:
    """Count the comparable pairs: across sources where there are several, within the source where there is one."""
    n = sum(sizes)
    return n * (n - 1) // 2 if len(sizes) == 1 else (n * n - sum(s * s for s in sizes)) // 2


def words_of(value: Column) -> Column:
    """Return the distinct words of a normal form; none for a null."""
    split = F.array_distinct(F.split(F.translate(value, JOINED, " "), " "))
    return F.coalesce(split, F.array().cast("array<string>"))


def counted(keys: DataFrame, sources: int) -> DataFrame:
    """Add to keys that several comparable records share how many pairs each makes, and of how many a row is part."""
    by_key = W.partitionBy("key").rowsBetween(W.unboundedPreceding, W.unboundedFollowing)
    rows = F.count(F.lit(1)).over(by_key)
    if sources == 1:
        return keys.withColumn("partners", rows - 1).withColumn(
            "pairs", F.col("partners") * (F.col("partners") + 1) / 2
        )
    each = [F.sum(F.when(F.col("src") == s, 1).otherwise(0)).over(by_key) for s in range(sources)]
    own = F.element_at(F.array(*(F.col(f"n{s}") for s in range(sources))), F.col("src") + 1)
    squares = sum((F.col(f"n{s}") * F.col(f"n{s}") for s in range(sources)), F.lit(0))
    made = keys.withColumns({"n": rows} | {f"n{s}": n for s, n in enumerate(each)})
    made = made.withColumns({"partners": F.col("n") - own, "pairs": (F.col("n") * F.col("n") - squares) / 2})
    return made.drop("n", *(f"n{s}" for s in range(sources)))


def block(
    records: DataFrame,
    comparisons: Sequence[Comparison],
    sizes: Sequence[int],
    drawn: DataFrame,
    context: Context,
    *,
    limits: Limits | None = None,
    cap: int | None,
    per_record: int,
    minhash: int = 0,
    neighbours: int = 0,
) -> tuple[DataFrame, Blocks]:
    """Find the pairs of records that share a rare key or two common ones: one, src_one, other, src_other, mask.

    mask: the columns through which the pair was found; 0: drawn at random.

    records: rid, src (its source's number), v0 … (normal forms). drawn: pairs to add, with their `family`: 0 for pairs
    at random, of which those that keys propose too are not at random.
    limits: those that were learned before; None: they are chosen.
    cap: None for the largest of `CAPS` with which the pairs stay in the budget.
    neighbours: that a record meets in the order of each column's values.
    per_record: pairs of a record on average. Where even the smallest caps give twice as many, each keeps its best ones.
    """
    sources, space, n = len(sizes), space_of(sizes), sum(sizes)
    budget = max(per_record * n, SMALL_BUDGET)
    made = records.select("rid", "src", *(f"v{j}" for j in range(len(comparisons)))).mapInArrow(
        emitted(comparisons, minhash), KEYS
    )
    there = "pairs >= 1" if limits is None else "pairs >= 1 OR NOT fine"
    keys = context.keep(counted(made, sources).where(there), "keys")
    cap = limits.single if limits is not None else cap or cap_of(keys.where("fine"), CAPS, budget)
    limit = cap * cap // 2
    single = in_blocks(keys.where(F.col("fine") & (F.col("pairs") <= limit)), sources, space, two=False)
    common = keys.where(~F.col("fine") | (F.col("pairs") > limit))
    in_order = common.withColumn("place", F.col("pairs").cast("long")) if limits is None else placed(common, limits)
    double = context.keep(counted(combined(in_order), sources).where("pairs >= 1"), "double_keys")
    if limits is None:
        order = common.groupBy("key").agg(F.first("pairs").cast("long").alias("n")).toArrow().sort_by("key")
        double_cap = cap_of(double, lower(cap, CAPS), budget)
        limits = Limits(single=cap, double=double_cap, order=(order["key"].to_numpy(), order["n"].to_numpy()))
    double_limit = limits.double**2 // 2
    pairs = single.unionByName(in_blocks(double.where(F.col("pairs") <= double_limit), sources, space, two=True))
    if neighbours:
        worth = worth_of(n, neighbours, space)
        pairs = pairs.unionByName(met_in_spark(records, comparisons, neighbours, sources, worth, context))
    at_random = drawn.withColumns({c: F.lit(0).cast("long") for c in ("bits", "two")})
    same = ["one", "src_one", "other", "src_other"]
    mask, bits = F.bit_or("family").alias("mask"), F.greatest(F.sum("bits"), F.max("two")).alias("bits")
    pairs = context.keep(pairs.unionByName(at_random).groupBy(*same).agg(mask, bits), "pairs")
    found = pairs.where("mask > 0").count()
    trimmed = found > 2 * budget
    if trimmed:
        pairs = context.keep(best(pairs, max(1, budget // n)), "best_pairs")
        found = pairs.where("mask > 0").count()
    over, lost = F.count_distinct("key").alias("keys"), F.sum(F.col("partners") / 2).alias("pairs")
    refined = common.where("fine").agg(over).first()
    dropped = double.where(F.col("pairs") > double_limit).agg(over, lost).first()
    by_columns = common.where("fine").groupBy("family").agg(F.max("partners").alias("n"))
    skew = by_columns.orderBy(F.desc("n"), "family").limit(SKEWED).collect()
    assert refined is not None and dropped is not None  # aggregates of all rows
    said = Blocks(
        space=space,
        found=found,
        trimmed=trimmed,
        limits=limits,
        refined=refined["keys"],
        dropped=dropped["keys"],
        lost=int(dropped["pairs"] or 0),
        skew=tuple((row["family"], row["n"]) for row in skew),
    )
    return pairs.drop("bits"), said


def cap_of(keys: DataFrame, caps: Sequence[int], budget: int) -> int:
    """Return the largest cap with which keys make no more pairs than the budget."""
    made = [F.sum(F.when(F.col("pairs") <= c * c // 2, F.col("partners")).otherwise(0)) / 2 for c in caps]
    found = keys.agg(*(pairs.alias(f"c{c}") for c, pairs in zip(caps, made, strict=True))).first()
    assert found is not None  # an aggregate of all rows
    return affordable({c: found[f"c{c}"] or 0 for c in caps}, budget)


def placed(common: DataFrame, limits: Limits) -> DataFrame:
    """Add to common keys their places in the order that was learned."""
    keys, places = limits.order
    known = arrow_frame(common.sparkSession, pa.table({"key": pa.array(keys), "place": pa.array(places)}))
    both = common.join(F.broadcast(known), on="key", how="left")
    return both.withColumn("place", F.coalesce("place", F.lit(UNKNOWN)))


def combined(common: DataFrame) -> DataFrame:
    """Return the double keys of records: of each, the `REFINED` first common keys two by two, of other columns."""
    entry = F.struct("place", "key", "family")
    rarest = F.slice(F.array_sort(F.collect_list(entry)), 1, REFINED)
    rows = common.groupBy("rid", "src").agg(rarest.alias("common"))

    def with_others(a: Column) -> Column:
        others = F.filter("common", lambda b: (b["key"] > a["key"]) & (b["family"].bitwiseAND(a["family"]) == 0))
        return F.transform(
            others,
            lambda b: F.struct(
                a["family"].bitwiseOR(b["family"]).alias("family"), F.xxhash64(a["key"], b["key"]).alias("key")
            ),
        )

    doubles = F.explode(F.flatten(F.transform("common", with_others)))
    return rows.select("rid", "src", doubles.alias("k")).select("rid", "src", "k.*")


def in_blocks(keys: DataFrame, sources: int, space: int, *, two: bool) -> DataFrame:
    """Return the pairs of records under each key, with the evidence that sharing the key is."""
    entry = F.struct("src", "rid", "family")
    blocks = keys.groupBy("key").agg(F.array_sort(F.collect_list(entry)).alias("rows"), F.max("pairs").alias("pairs"))
    made = blocks.select("rows", "pairs").mapInArrow(
        pairs_in(sources > 1, space), "one long, src_one int, other long, src_other int, family long, bits long"
    )
    nothing = F.lit(0).cast("long")
    return made.withColumns({"two": F.col("bits"), "bits": nothing} if two else {"two": nothing})


def pairs_in(linking: bool, space: int) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    """Return the body of a map from blocks (rows in order of source and id, pairs) to their pairs."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        for batch in batches:
            lists = batch.column("rows")
            rows = lists.flatten()
            src, rid, family = (rows.field(i).to_numpy(zero_copy_only=False) for i in range(3))
            ends = np.cumsum(lists.value_lengths().to_numpy().astype(np.int64))
            one, other, block = paired(src, ends, linking)
            columns = [rid[one], src[one], rid[other], src[other], family[one] | family[other]]
            bits = evidence(batch.column("pairs").to_numpy(), space)[block]
            names = ["one", "src_one", "other", "src_other", "family", "bits"]
            yield pa.RecordBatch.from_arrays([pa.array(c) for c in (*columns, bits)], names)

    return run


def best(pairs: DataFrame, each: int) -> DataFrame:
    """Keep the pairs that are among the `each` best of either record, and those drawn at random."""
    place = [
        F.row_number().over(W.partitionBy(mine, F.col("mask") > 0).orderBy(F.desc("bits"), theirs))
        for mine, theirs in (("one", "other"), ("other", "one"))
    ]
    ranked = pairs.withColumns({"place_one": place[0], "place_other": place[1]})
    kept = (F.col("mask") == 0) | (F.col("place_one") <= each) | (F.col("place_other") <= each)
    return ranked.where(kept).drop("place_one", "place_other")


def missed(found_once: float, found_twice: float) -> float:
    """Estimate the matches that no key found, from those found through one column and through two (Chao 1987)."""
    return found_once * (found_once - 1) / (2 * (found_twice + 1)) if found_once > 1 else 0.0
