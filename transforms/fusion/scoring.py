"""Scores of compared pairs: what is learned from the counts of patterns, rivals for one partner, and the cut."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import Window as W
from pyspark.sql import functions as F

from headgate.transforms.fusion import model
from headgate.transforms.fusion.tiles import as_levels
from headgate.transforms.step import Context

Floats = npt.NDArray[np.float64]
Levels = npt.NDArray[np.int8]

LEARNT_FROM = 1_000_000  # candidate pairs at most, chosen by hash, whose patterns are counted to learn from
PATTERNS = 150_000  # distinct patterns at most that the model is fitted to
PARTS = 1_000_000  # of a probability when many are added up: whole numbers have one sum in any order
ASKED = 1 << 62  # in the mask of a pair: labelled or decided by people, whether or not keys proposed it
STEPS = 1_000  # of a probability, for the choice of the cut


class Scorer(Protocol):
    """What gives patterns a score in bits, and the parts that add up to it."""

    def score(self, patterns: Levels) -> Floats: ...
    def weights(self, patterns: Levels) -> Floats: ...


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Distinct patterns with the pairs of each: candidates, those drawn at random; `start` where it is known."""

    patterns: Levels
    blocked: Floats
    background: Floats
    start: Floats | None = None


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Candidate pairs with pattern, score and probability, and what they say together.

    matches: expected in all; once, twice: those found through one column, through two; cut: the probability from which
    on linking gives the best expected F1, and that F1.
    """

    pairs: DataFrame
    matches: float
    once: float
    twice: float
    cut: float
    f1: float
    histogram: dict[int, tuple[int, float]] = field(default_factory=dict)


def count_patterns(pairs: DataFrame, size: int, found: int, unseen: float, *, seed: int, started: bool) -> Counted:
    """Count the patterns of compared pairs; of very many, those of a sample, scaled to all.

    found: candidates. unseen: comparable pairs that are none, for which those drawn at random (mask 0) stand.
    """
    share = min(1.0, LEARNT_FROM / max(found, 1))
    rows = pairs
    if share < 1:
        drawn = F.pmod(F.xxhash64(F.lit(seed), "one", "other"), F.lit(PARTS)) < int(share * PARTS)
        rows = rows.where((F.col("mask") == 0) | drawn)
    sure = F.sum(F.round(F.col("probability") * PARTS).cast("long")) if started else F.lit(0).cast("long")
    counts = rows.groupBy("pattern").agg(
        F.count(F.when(F.col("mask") > 0, 1)).alias("blocked"),
        F.count(F.when(F.col("mask") == 0, 1)).alias("drawn"),
        F.coalesce(sure, F.lit(0).cast("long")).alias("sure"),
    )
    table = counts.select("pattern", "blocked", "drawn", "sure").toArrow()
    levels = as_levels(table["pattern"].combine_chunks(), size)
    blocked, drawn, sure_of = (table[c].to_numpy().astype(float) for c in ("blocked", "drawn", "sure"))
    start = sure_of / PARTS / np.maximum(blocked, 1) if started else None
    background = drawn * (unseen / max(drawn.sum(), 1))
    order = np.lexsort(levels.T[::-1])
    if len(order) > PATTERNS:  # patterns of one pair each, for the most part: every so many-th stands for the others
        common = order[blocked[order] + drawn[order] > 1]
        seldom = order[blocked[order] + drawn[order] <= 1]
        every = max(1, len(seldom) // max(PATTERNS - len(common), 1))
        blocked[seldom] *= every
        background[seldom] *= every
        order = np.r_[common[-PATTERNS:], seldom[::every]]
    blocked *= found / max(blocked[order].sum(), 1)
    return Counted(
        patterns=levels[order],
        blocked=blocked[order],
        background=background[order],
        start=None if start is None else start[order],
    )


def scored(pairs: DataFrame, scorer: Scorer, size: int) -> DataFrame:
    """Add the score to candidate pairs."""
    columns = "one long, src_one int, other long, src_other int, mask long, pattern binary, score double"
    return pairs.where("mask > 0").select(*columns_of(columns)[:-1]).mapInArrow(score_body(scorer, size), columns)


def columns_of(ddl: str) -> list[str]:
    return [part.split()[0] for part in ddl.split(",")]


def score_body(scorer: Scorer, size: int) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    def run(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        for batch in batches:
            found = scorer.score(as_levels(batch.column("pattern"), size))
            yield batch.append_column("score", pa.array(found, pa.float64()))

    return run


def with_parts(pairs: DataFrame, scorer: Scorer, size: int) -> DataFrame:
    """Add to pairs the parts of their scores, as the array `parts`."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        for batch in batches:
            parts = scorer.weights(as_levels(batch.column("pattern"), size))
            offsets = pa.array(np.arange(len(parts) + 1, dtype=np.int32) * parts.shape[1])
            yield batch.append_column("parts", pa.ListArray.from_arrays(offsets, pa.array(parts.ravel())))

    schema = ", ".join(f"{c} {kind}" for c, kind in pairs.dtypes)
    return pairs.mapInArrow(run, f"{schema}, parts array<double>")


def judged(pairs: DataFrame, context: Context, name: str, *, alone: bool) -> Scored:
    """Add the probability to scored pairs: of the score or, where a record has one partner only, against its rivals.

    alone: a record has at most one partner in each other source. Adds `lead` too then: the bits by which a pair leads
    the best rival of either record.
    """
    if alone:
        rated = against_rivals(pairs)
    else:
        rated = pairs.withColumn("probability", F.lit(1.0) / (F.lit(1.0) + F.pow(F.lit(2.0), -F.col("score"))))
    rated = context.keep(rated.withColumn("probability", F.round("probability", 6)), name)
    step = F.floor(F.col("probability") * STEPS).cast("int").alias("step")
    columns = F.least(F.bit_count(F.col("mask").bitwiseAND(F.lit(ASKED - 1))), F.lit(3)).alias("columns")
    sure = F.sum(F.round(F.col("probability") * PARTS).cast("long")).alias("sure")
    rows = rated.groupBy(step, columns).agg(F.count(F.lit(1)).alias("pairs"), sure).collect()  # some 3,000 rows
    histogram: dict[int, tuple[int, float]] = {}
    by_columns = {0: 0.0, 1: 0.0, 2: 0.0, 3: 0.0}
    for row in rows:
        n, p = histogram.get(row["step"], (0, 0.0))
        histogram[row["step"]] = (n + row["pairs"], p + row["sure"] / PARTS)
        by_columns[row["columns"]] += row["sure"] / PARTS
    matches = sum(by_columns.values())
    cut, f1 = best_cut(histogram, matches)
    return Scored(
        pairs=rated, matches=matches, once=by_columns[1], twice=by_columns[2], cut=cut, f1=f1, histogram=histogram
    )


def best_cut(histogram: dict[int, tuple[int, float]], matches: float) -> tuple[float, float]:
    """Return the probability from which on linking gives the best expected F1, and that F1."""
    best, f1, pairs, right = STEPS, 0.0, 0, 0.0
    for step in sorted(histogram, reverse=True):
        n, p = histogram[step]
        pairs, right = pairs + n, right + p
        expected = 2 * right / (pairs + matches) if pairs + matches > 0 else 0.0
        if expected > f1:
            best, f1 = step, expected
    return best / STEPS, f1


def against_rivals(pairs: DataFrame) -> DataFrame:
    """Add `probability` and `lead` where a record has at most one partner in each other source.

    A pair's odds stand against those of all pairs of either record together, and against none being right.
    """
    odds = F.pow(F.lit(2.0), F.greatest(F.least(F.col("score"), F.lit(model.LARGEST)), F.lit(-model.LARGEST)))
    rows = pairs.withColumn("odds", odds)
    rivals = []
    for mine, theirs in (("one", "other"), ("other", "one")):
        # In order, so that a sum of doubles is the same wherever the rows lie.
        all_of = W.partitionBy(mine, f"src_{theirs}").orderBy(F.desc("score"), theirs)
        all_of = all_of.rowsBetween(W.unboundedPreceding, W.unboundedFollowing)
        first, second = F.first("score").over(all_of), F.nth_value("score", 2).over(all_of)
        rival = F.coalesce(F.when(F.col("score") >= first, second).otherwise(first), F.lit(-99.0))
        rows = rows.withColumns({f"all_{mine}": F.sum("odds").over(all_of), f"rival_{mine}": rival})
        rivals.append(F.col(f"rival_{mine}"))
    against = F.lit(1.0) + F.col("all_one") + F.col("all_other") - F.col("odds")
    found = rows.withColumns({"probability": F.col("odds") / against, "lead": F.col("score") - F.greatest(*rivals)})
    return found.drop("odds", "all_one", "all_other", "rival_one", "rival_other")


def with_lead(pairs: DataFrame, leads: DataFrame) -> DataFrame:
    """Add the lead over rivals to patterns, as one more level: 1 (far behind, and pairs at random) to 7."""
    level: Column = F.lit(1)
    for bits in model.GAPS.tolist():
        level = level + F.when(F.col("lead") > bits, 1).otherwise(0)
    as_byte = F.unhex(F.concat(F.lit("0"), level.cast("string")))
    same = ["one", "src_one", "other", "src_other", "mask"]
    candidates = leads.select(*same, F.concat("pattern", as_byte).alias("pattern"), "probability")
    at_random = pairs.where("mask = 0").select(
        *same, F.concat("pattern", F.unhex(F.lit("01"))).alias("pattern"), F.lit(0.0).alias("probability")
    )
    return candidates.unionByName(at_random)
