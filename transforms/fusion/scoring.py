"""Scores of compared pairs: what is learned from the counts of patterns, rivals for one partner, and the cut."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import Window as W
from pyspark.sql import functions as F

from headgate.transforms.fusion import model
from headgate.transforms.fusion.blocking import Blocks
from headgate.transforms.fusion.levels import Frequencies
from headgate.transforms.fusion.tiles import as_levels

Floats = npt.NDArray[np.float64]
Levels = npt.NDArray[np.int8]

LEARNT_FROM = 1_000_000  # candidate pairs at most, chosen by hash, whose patterns are counted to learn from
PATTERNS = 30_000  # distinct patterns at most that the model is fitted to
PARTS = 1_000_000  # of a probability when many are added up: whole numbers have one sum in any order
ASKED = 1 << 62  # in the mask of a pair: labelled or decided by people, whether or not keys proposed it
STEPS = 1_000  # of a probability, for the choice of the cut
TOLD = 30  # pairs from which a share is told
MOSTLY = 0.5  # of them, the share that is worth a word
NAMED = 3  # columns
SHOWN = -8.0  # bits from which on a pair is a row: what stands against two records being one counts too
LINK = {
    "source_a": "string",
    "id_a": "string",
    "source_b": "string",
    "id_b": "string",
    "key_a": "string",
    "key_b": "string",
    "score": "double",
    "probability": "double",
    "pattern": "string",
    "weights": "map<string,double>",
    "rule": "string",
    "linked": "boolean",
}


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
    """What scored candidate pairs say together.

    matches: expected in all; likely: pairs that are a match more probably than not, which leaves out the many that are
    so with a small probability each, of which few are; several: those of records with values in several columns, which
    may be found through more than one of them; once, twice: of these, those found through one, through two; cut: the
    probability from which on linking gives the best expected F1, and that F1; histogram: pairs and expected matches by
    `STEPS` of probability.
    """

    matches: float
    likely: int
    several: float
    once: float
    twice: float
    cut: float
    f1: float
    histogram: dict[int, tuple[int, float]] = field(default_factory=dict)

    def f1_from(self, cut: float) -> float:
        """Return the expected F1 of linking from a probability on, to the whole `STEPS` above it."""
        linked = [h for step, h in self.histogram.items() if step >= cut * STEPS - 1e-9]
        pairs, right = sum(n for n, _ in linked), sum(p for _, p in linked)
        return 2 * right / (pairs + self.matches) if pairs + self.matches > 0 else 0.0


class Pairs(Protocol):
    """Candidate pairs of records with their levels: in Spark, or at once where records are few. Both say the same."""

    blocks: Blocks
    frequencies: Sequence[Frequencies]

    @property
    def spark(self) -> SparkSession: ...

    def counts(self, *, started: bool) -> Counted:
        """Count the patterns; started: with the expected matches of each by the last judgement."""

    def labelled(self) -> tuple[Levels, npt.NDArray[np.bool_]]:
        """Return the patterns of labelled pairs, and whether these are the same."""

    def judge(self, scorer: Scorer, *, alone: bool) -> Scored:
        """Score the candidates. alone: a record has at most one partner in each other source."""

    def add_lead(self) -> None:
        """Add the lead over rivals by the last judgement as one more level, 1 (far behind, or at random) to 7."""

    def drop_lead(self) -> None:
        """Take the lead away again."""

    def rows(self, scorer: Scorer, names: Sequence[str], cut: float, *, alone: bool) -> DataFrame:
        """Return the pairs worth a look after the last judgement: the columns of `LINK`."""


def counted_from(
    levels: Levels, blocked: Floats, drawn: Floats, sure: Floats | None, found: int, unseen: float
) -> Counted:
    """Return the counts of distinct patterns in order; of very many, those of a sample, scaled to all.

    found: candidates. unseen: comparable pairs that are none, for which those drawn at random stand. sure: expected
    matches, in `PARTS`.
    """
    start = None if sure is None else sure / PARTS / np.maximum(blocked, 1)
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


def count_patterns(pairs: DataFrame, size: int, found: int, unseen: float, *, started: bool) -> Counted:
    """Count the patterns of compared pairs; of very many, those of a sample, scaled to all."""
    rows, share = pairs, learnt_share(found)
    if share < PARTS:
        drawn = F.pmod(F.col("one").bitwiseXOR(F.col("other")), F.lit(PARTS)) < share
        rows = rows.where((F.col("mask") == 0) | drawn)
    sure = F.sum(F.floor(F.col("probability") * PARTS + 0.5)) if started else F.lit(0).cast("long")
    counts = rows.groupBy("pattern").agg(
        F.count(F.when(F.col("mask") > 0, 1)).alias("blocked"),
        F.count(F.when(F.col("mask") == 0, 1)).alias("drawn"),
        F.coalesce(sure, F.lit(0).cast("long")).alias("sure"),
    )
    table = counts.select("pattern", "blocked", "drawn", "sure").toArrow()
    levels = as_levels(table["pattern"].combine_chunks(), size)
    blocked, at_random, sure_of = (table[c].to_numpy().astype(float) for c in ("blocked", "drawn", "sure"))
    return counted_from(levels, blocked, at_random, sure_of if started else None, found, unseen)


def differ_in(counts: Counted, scorer: Scorer, cut: float, columns: Sequence[str]) -> list[tuple[str, float]]:
    """Return the columns in which most pairs that score as links differ, and their share, the most telling first.

    Pairs in which a value is missing do not count, nor do columns in which fewer than `TOLD` of them have values.
    """
    linked = counts.blocked * (scorer.score(counts.patterns) >= np.log2(cut / (1 - cut)) if cut < 1 else 0)
    found = []
    for j, column in enumerate(columns):
        levels = counts.patterns[:, j]
        there, differ = linked[levels > 0].sum(), linked[levels == 1].sum()
        if there >= TOLD and differ > MOSTLY * there:
            found.append((column, float(differ / there)))
    return sorted(found, key=lambda c: -c[1])[:NAMED]


def learnt_share(found: int) -> int:
    """Return the share of the candidates, in `PARTS`, whose patterns are counted."""
    return int(min(1.0, LEARNT_FROM / max(found, 1)) * PARTS)


def scored(pairs: DataFrame, scorer: Scorer, size: int, compared: int) -> DataFrame:
    """Return the distinct patterns of pairs: pattern, score, odds, several (whether `ways_of` counts).

    compared: levels that are of a column.
    """
    body = score_body(scorer, size, compared)
    return (
        pairs.select("pattern")
        .distinct()
        .mapInArrow(body, "pattern binary, score double, odds double, several boolean")
    )


def with_scores(pairs: DataFrame, patterns: DataFrame) -> DataFrame:
    """Add to candidate pairs what is said of their patterns, and `ways_of`."""
    met = F.least(F.bit_count(F.col("mask").bitwiseAND(F.lit(ASKED - 1))), F.lit(3))
    ways = F.when(F.col("several"), met).otherwise(0).cast("long")
    return pairs.where("mask > 0").join(patterns, on="pattern", how="inner").withColumn("ways", ways).drop("several")


def several_of(levels: Levels) -> npt.NDArray[np.bool_]:
    """Return of which pairs both records have values in more than one column."""
    return np.asarray((levels > 0).sum(axis=1) > 1)


def ways_of(mask: npt.NDArray[np.int64], levels: Levels) -> npt.NDArray[np.int64]:
    """Return through how many columns pairs met, 3 standing for more; 0 where both have values in one column alone."""
    met = np.minimum(np.bitwise_count(mask & (ASKED - 1)), 3)
    return np.where(several_of(levels), met, 0).astype(np.int64)


def odds_of(score: Floats) -> Floats:
    found: Floats = np.exp2(np.clip(score, -model.LARGEST, model.LARGEST))
    return found


def score_body(
    scorer: Scorer, size: int, compared: int
) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    def run(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        for batch in batches:
            levels = as_levels(batch.column("pattern"), size)
            found = scorer.score(levels)
            rated = batch.append_column("score", pa.array(found, pa.float64()))
            rated = rated.append_column("odds", pa.array(odds_of(found)))
            yield rated.append_column("several", pa.array(several_of(levels[:, :compared])))

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


def judged(pairs: DataFrame, *, alone: bool) -> DataFrame:
    """Add the probability to scored pairs: of the score or, where a record has one partner only, against its rivals.

    alone: a record has at most one partner in each other source. Adds `lead` too then: the bits by which a pair leads
    the best rival of either record.
    """
    rated = against_rivals(pairs) if alone else pairs.withColumn("probability", F.col("odds") / (1 + F.col("odds")))
    return rated.withColumn("probability", F.floor(F.col("probability") * PARTS + 0.5) / PARTS).drop("odds")


def summed(rated: DataFrame) -> Scored:
    """Return what pairs with probabilities say together, by one aggregate of some 3,000 rows."""
    step = F.floor(F.col("probability") * STEPS).cast("int").alias("step")
    sure = F.sum(F.floor(F.col("probability") * PARTS + 0.5)).alias("sure")
    rows = rated.groupBy(step, "ways").agg(F.count(F.lit(1)).alias("pairs"), sure).collect()
    return summary([(r["step"], r["ways"], r["pairs"], r["sure"]) for r in rows])


def summary(rows: Iterable[tuple[int, int, int, int]]) -> Scored:
    """Return what pairs say together. rows: step of probability, `ways_of`, pairs, expected matches."""
    histogram: dict[int, tuple[int, float]] = {}
    by_ways = {0: 0.0, 1: 0.0, 2: 0.0, 3: 0.0}
    for step, ways, pairs, sure in sorted(rows):
        n, p = histogram.get(step, (0, 0.0))
        histogram[step] = (n + pairs, p + sure / PARTS)
        by_ways[ways] += sure / PARTS
    matches = sum(by_ways.values())
    cut, f1 = best_cut(histogram, matches)
    return Scored(
        matches=matches,
        likely=sum(n for step, (n, _) in histogram.items() if step >= STEPS / 2),
        several=matches - by_ways[0],
        once=by_ways[1],
        twice=by_ways[2],
        cut=cut,
        f1=f1,
        histogram=histogram,
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

    A pair's odds stand against those of all pairs worth a look of either record together, and against none being right.
    """
    rows, rivals = pairs.withColumn("shown", F.when(F.col("score") >= SHOWN, F.col("odds")).otherwise(F.lit(0.0))), []
    for mine, theirs in (("one", "other"), ("other", "one")):
        # In order, so that a sum of doubles is the same wherever the rows lie.
        all_of = W.partitionBy(mine, f"src_{theirs}").orderBy(F.desc("score"), theirs)
        all_of = all_of.rowsBetween(W.unboundedPreceding, W.unboundedFollowing)
        first, second = F.first("score").over(all_of), F.nth_value("score", 2).over(all_of)
        rival = F.coalesce(F.when(F.col("score") >= first, second).otherwise(first), F.lit(-99.0))
        rows = rows.withColumns({f"all_{mine}": F.sum("shown").over(all_of), f"rival_{mine}": rival})
        rivals.append(F.col(f"rival_{mine}"))
    against = F.lit(1.0) + F.col("all_one") + F.col("all_other") - F.col("shown")
    found = rows.withColumns({"probability": F.col("odds") / against, "lead": F.col("score") - F.greatest(*rivals)})
    return found.drop("shown", "all_one", "all_other", "rival_one", "rival_other")


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
