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

from headgate.transforms.fusion.keys import Bools, Ints, keys_of, member
from headgate.transforms.fusion.meetings import (
    Limits,
    affordable,
    combined,
    evidence,
    lower,
    paired,
    places,
    sizes_of,
)
from headgate.transforms.fusion.neighbourhood import met_in_spark, worth_of
from headgate.transforms.fusion.values import JOINED, Comparison
from headgate.transforms.step import Context

REFINED = 12  # common keys of a record that are combined two by two
# A key blocks at most half the square of the cap in pairs; small tables can afford more.
CAPS = (6, 8, 10, 12, 15, 18, 21, 25, 30, 35, 42, 50, 100, 200)
SKEWED = 3  # columns whose keys are too frequent that are named
KEYS = "rid long, src int, family long, key long, fine boolean"
SMALL_BUDGET = 500_000  # pairs that any table can afford
COMMON = 5_000_000  # keys that many records share, which the driver and each task hold, some 32 bytes each


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
    """Count the records of each key that several comparable ones share.

    pairs: that it makes. fine, others: its records for which it may block alone, or not. family: the columns of the
    former; most: of their partners, of one record; partners: of all of them.
    """
    n, f = ([F.col(f"{c}{s}") for s in range(sources)] for c in "nf")
    of = [(F.col("src") == s, s) for s in range(sources)]
    rows = [F.count_if(is_of).alias(f"n{s}") for is_of, s in of]
    fine = [F.count_if(is_of & F.col("fine")).alias(f"f{s}") for is_of, s in of]
    family = F.bit_or(F.when(F.col("fine"), F.col("family")).otherwise(0)).alias("family")
    total = sum(n, F.lit(0))
    partners = [total - (1 if sources == 1 else mine) for mine in n]
    most = [F.when(mine > 0, others).otherwise(0) for mine, others in zip(f, partners, strict=True)]
    said = {
        "pairs": sum((mine * others for mine, others in zip(n, partners, strict=True)), F.lit(0)) / 2,
        "fine": sum(f, F.lit(0)),
        "others": total - sum(f, F.lit(0)),
        "partners": sum((mine * others for mine, others in zip(f, partners, strict=True)), F.lit(0)),
        "most": F.greatest(F.lit(0), *most),
    }
    shown = keys.groupBy("key").agg(*rows, *fine, family).withColumns(said)
    return shown.select("key", "family", *said).where("pairs >= 1")


def met(keys: DataFrame, sources: int) -> DataFrame:
    """Add to double keys that several comparable records share how many pairs each makes, and of how many a row is."""
    by_key = W.partitionBy("key").rowsBetween(W.unboundedPreceding, W.unboundedFollowing)
    rows = F.count(F.lit(1)).over(by_key)
    if sources == 1:
        made = keys.withColumn("partners", rows - 1)
        return made.withColumn("pairs", F.col("partners") * (F.col("partners") + 1) / 2).where("pairs >= 1")
    each = [F.sum(F.when(F.col("src") == s, 1).otherwise(0)).over(by_key) for s in range(sources)]
    own = F.element_at(F.array(*(F.col(f"n{s}") for s in range(sources))), F.col("src") + 1)
    squares = sum((F.col(f"n{s}") * F.col(f"n{s}") for s in range(sources)), F.lit(0))
    made = keys.withColumns({"n": rows} | {f"n{s}": n for s, n in enumerate(each)})
    made = made.withColumns({"partners": F.col("n") - own, "pairs": (F.col("n") * F.col("n") - squares) / 2})
    return made.drop("n", *(f"n{s}" for s in range(sources))).where("pairs >= 1")


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
    rows = records.select("rid", "src", *(f"v{j}" for j in range(len(comparisons))))
    kinds = tuple(comparisons)
    counts = context.keep(counted(rows.mapInArrow(single_keys(kinds, minhash), KEYS), sources), "keys")
    cap = limits.single if limits is not None else cap or cap_of(counts, CAPS, budget)
    limit = cap * cap // 2
    is_common = F.col("pairs") > limit
    shared, each, whole = most_common(counts.where(is_common if limits else is_common | (F.col("others") > 0)), context)
    over, order = shared[each > limit], (shared, each) if limits is None else limits.order
    rest = rows.mapInArrow(single_keys(kinds, minhash, but=over), KEYS)
    single = in_blocks(rest, sources, space, two=False, most=limit)
    known = shared if limits is None and whole else None
    double = rows.mapInArrow(double_keys(kinds, minhash, over, order, known), KEYS)
    double = context.keep(met(double.drop("fine"), sources), "double_keys")
    if limits is None:
        limits = Limits(single=cap, double=cap_of(double, lower(cap, CAPS), budget), order=order)
    double_limit = limits.double**2 // 2
    few = double.where(F.col("pairs") <= double_limit).withColumn("fine", F.lit(True))
    pairs = single.unionByName(in_blocks(few, sources, space, two=True, most=double_limit))
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
    lost = F.count_distinct("key").alias("keys"), F.sum(F.col("partners") / 2).alias("pairs")
    dropped = double.where(F.col("pairs") > double_limit).agg(*lost).first()
    assert dropped is not None  # an aggregate of all rows
    refined = counts.where((F.col("fine") > 0) & (F.col("pairs") > limit))
    skew = refined.groupBy("family").agg(F.max("most").alias("n")).orderBy(F.desc("n"), "family").limit(SKEWED)
    said = Blocks(
        space=space,
        found=found,
        trimmed=trimmed,
        limits=limits,
        refined=refined.count(),
        dropped=dropped["keys"],
        lost=int(dropped["pairs"] or 0),
        skew=tuple((row["family"], row["n"]) for row in skew.collect()),
    )
    return pairs.drop("bits"), said


def most_common(keys: DataFrame, context: Context) -> tuple[Ints, Ints, bool]:
    """Return the keys that many records share, in order, how many pairs each makes, and whether these are all.

    Of more than `COMMON`, those that make most pairs; ties fall to the smaller key. Those left out block nothing.
    """
    keys, n = keys.select("key", F.col("pairs").cast("long")), keys.count()
    if n > COMMON:
        keys = keys.orderBy(F.desc("pairs"), "key").limit(COMMON)
        context.warn(
            f"{n:,} keys are shared by many records: the {COMMON:,} most frequent are refined by a second one; of the "
            "others those that have more pairs than a key may make are dropped"
        )
    table = keys.toArrow().sort_by("key")  # bounded above
    return table["key"].to_numpy(), table["pairs"].to_numpy(), n <= COMMON


def cap_of(keys: DataFrame, caps: Sequence[int], budget: int) -> int:
    """Return the largest cap with which keys make no more pairs than the budget."""
    made = [F.sum(F.when(F.col("pairs") <= c * c // 2, F.col("partners")).otherwise(0)) / 2 for c in caps]
    found = keys.agg(*(pairs.alias(f"c{c}") for c, pairs in zip(caps, made, strict=True))).first()
    assert found is not None  # an aggregate of all rows
    return affordable({c: found[f"c{c}"] or 0 for c in caps}, budget)


def single_keys(
    comparisons: tuple[Comparison, ...], minhash: int, but: Ints | None = None
) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    """Return the body of a map from records (rid, src, v0 …) to their keys but some, which are in order: see `KEYS`."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        for batch in batches:
            found = keys_of(comparisons, batch.columns[2:], minhash)
            some = slice(None) if but is None else ~member(found.key, but)
            yield as_keys(batch, found.record[some], found.family[some], found.key[some], found.fine[some])

    return run


def double_keys(
    comparisons: tuple[Comparison, ...], minhash: int, over: Ints, order: tuple[Ints, Ints], known: Ints | None
) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    """Return the body of a map from records (rid, src, v0 …) to their double keys: see `KEYS`.

    over: the keys that make too many pairs. order: common keys with their places. known: the keys that others hold too;
    None: all are combined that may not block alone.
    """

    def run(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        for batch in batches:
            found = keys_of(comparisons, batch.columns[2:], minhash)
            common = ~found.fine | member(found.key, over)
            if known is not None:
                common &= member(found.key, known)
            record, family, key = (c[common] for c in (found.record, found.family, found.key))
            record, family, key = combined(record, family, key, places(order, key), REFINED)
            yield as_keys(batch, record, family, key, np.ones(len(key), np.bool_))

    return run


def as_keys(records: pa.RecordBatch, record: Ints, family: Ints, key: Ints, fine: Bools) -> pa.RecordBatch:
    """Return keys as rows of `KEYS`. record: the places of the records that they are of."""
    at = pa.array(record)
    cells = [records.column(0).take(at), records.column(1).take(at), *(pa.array(c) for c in (family, key, fine))]
    return pa.RecordBatch.from_arrays(cells, ["rid", "src", "family", "key", "fine"])


def in_blocks(keys: DataFrame, sources: int, space: int, *, two: bool, most: int) -> DataFrame:
    """Return the pairs of records under each key that makes so many at most, with the evidence that sharing it is."""
    entry = F.struct("src", "rid", "family", "fine")
    blocks = keys.groupBy("key").agg(F.array_sort(F.collect_list(entry)).alias("rows"))
    made = (
        blocks.where("size(rows) > 1")
        .select("rows")
        .mapInArrow(
            pairs_in(sources, space, most), "one long, src_one int, other long, src_other int, family long, bits long"
        )
    )
    nothing = F.lit(0).cast("long")
    return made.withColumns({"two": F.col("bits"), "bits": nothing} if two else {"two": nothing})


def pairs_in(sources: int, space: int, most: int) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    """Return the body of a map from blocks (rows in order of source and id) to the pairs of those that block alone.

    most: pairs that a block makes; larger ones give none.
    """

    def run(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        for batch in batches:
            lists = batch.column("rows")
            block = np.repeat(np.arange(len(batch)), lists.value_lengths().to_numpy(zero_copy_only=False))
            cells = (lists.flatten().field(i).to_numpy(zero_copy_only=False) for i in range(4))
            src, rid, family, fine = cells
            _, pairs = sizes_of(block, src.astype(np.int64), sources)
            some = fine & (pairs <= most)
            block, src, rid, family, pairs = (c[some] for c in (block, src, rid, family, pairs))
            ends = np.cumsum(np.bincount(block, minlength=len(batch)))
            one, other, _ = paired(src, ends, sources > 1)
            bits = evidence(pairs[one].astype(float), space)
            columns = [rid[one], src[one], rid[other], src[other], family[one] | family[other], bits]
            names = ["one", "src_one", "other", "src_other", "family", "bits"]
            yield pa.RecordBatch.from_arrays([pa.array(c) for c in columns], names)

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
