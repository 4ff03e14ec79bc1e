"""Pairs judged again where others of their records changed: of records that have one partner at most in each source."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headgate.transforms.fusion.clusters import DECIDED, one_to_one
from headgate.transforms.fusion.few import rivals_of, shared_words
from headgate.transforms.fusion.holders import some_of
from headgate.transforms.fusion.keys import Bools, Ints
from headgate.transforms.fusion.learned import Knowledge
from headgate.transforms.fusion.partners import PAIRS_AT_ONCE
from headgate.transforms.fusion.scoring import LINK, PARTS, SHOWN, Floats, odds_of
from headgate.transforms.rows import ROW_ID, arrow_frame
from headgate.transforms.step import Context, MakeAll


@dataclass(frozen=True)
class Rejudged:
    """The pairs that are others now, and the ids of the rows of the previous version that they replace."""

    rows: DataFrame
    replaced: DataFrame


def rejudged(
    known: Knowledge, shown: pa.Table, before: DataFrame, touched: DataFrame, raw: DataFrame, context: Context
) -> Rejudged:
    """Judge pairs that were compared anew against those that stay, and those against them.

    shown: the pairs compared anew. touched: the ids of their records (one column, rid). What is read of the pairs that
    stay is narrow: ids, sources, scores.
    """
    if before.count() > PAIRS_AT_ONCE:
        raise MakeAll(f"more than {PAIRS_AT_ONCE:,} pairs are judged against each other")
    ends = {"one": F.xxhash64("id_a"), "other": F.xxhash64("id_b")}
    fresh = context.keep(arrow_frame(raw.sparkSession, shown), "fresh").withColumns(ends)
    stays = before.withColumns(ends)
    for end in ("one", "other"):
        mine = touched.withColumnRenamed("rid", end)
        stays = stays.join(F.broadcast(mine), on=end, how="left_anti")
    narrow = ["one", "other", "source_a", "source_b", "score", "rule", "probability", "linked"]
    sides = [rows.select(*narrow, F.lit(new).alias("fresh")) for rows, new in ((fresh, True), (stays, False))]
    table = sides[0].unionByName(sides[1]).toArrow()
    probability, linked = judged_together(known, table, raw)
    is_fresh = table["fresh"].to_numpy()
    differs = (probability != table["probability"].to_numpy()) | (linked != table["linked"].to_numpy())
    some = np.flatnonzero(is_fresh | differs)
    cells = {
        "one": table["one"].take(pa.array(some)),
        "other": table["other"].take(pa.array(some)),
        "probability": pa.array(probability[some]),
        "linked": pa.array(linked[some]),
    }
    now = arrow_frame(raw.sparkSession, pa.table(cells))
    both = fresh.select(*LINK, "one", "other").unionByName(stays.select(*LINK, "one", "other"))
    rows = both.drop("probability", "linked").join(F.broadcast(now), on=["one", "other"], how="inner").select(*LINK)
    changed = arrow_frame(raw.sparkSession, pa.table(cells).filter(pa.array(~is_fresh[some])))
    return Rejudged(rows, stays.join(F.broadcast(changed), on=["one", "other"], how="left_semi").select(ROW_ID))


def judged_together(known: Knowledge, pairs: pa.Table, raw: DataFrame) -> tuple[Floats, Bools]:
    """Return the probability of each pair against its rivals, and whether it is linked, as `Few` does."""
    one, other = (pairs[c].to_numpy() for c in ("one", "other"))
    names = pa.array(known.sources)
    src_one, src_other = (pc.index_in(pairs[c], names).to_numpy().astype(np.int64) for c in ("source_a", "source_b"))
    score = pairs["score"].to_numpy()
    odds = odds_of(score)
    counted = np.where(score >= SHOWN, odds, 0.0)
    all_one, _ = rivals_of(one, src_other, other, score, counted)
    all_other, _ = rivals_of(other, src_one, one, score, counted)
    probability = np.floor(odds / (1.0 + all_one + all_other - counted) * PARTS + 0.5) / PARTS
    must, cannot = (pc.equal(pairs["rule"], rule).to_numpy() for rule in ("must_link", "cannot_link"))
    likely = np.where(must | cannot, must, probability >= known.cut)
    at = np.flatnonzero(likely)
    one, other, side = one[at], other[at], src_one[at] * (1 << 31) + src_other[at]
    common = np.zeros(len(at))
    contested = repeats(one, side) | repeats(other, side)
    if contested.any():
        common[contested] = words_shared(known, raw, one[contested], other[contested])
    rank = np.where(must, DECIDED, score)[at]
    linked = np.zeros(len(likely), np.bool_)
    linked[at[one_to_one(one, other, side, rank, common)]] = True
    return probability, linked


def repeats(record: Ints, side: Ints) -> Bools:
    """Return of which pairs the record is in another one of the same two sources."""
    _, of, n = np.unique(np.column_stack([record, side]), axis=0, return_inverse=True, return_counts=True)
    return np.asarray(n[of.ravel()] > 1)


def words_shared(known: Knowledge, raw: DataFrame, one: Ints, other: Ints) -> Floats:
    """Return the share of the words of two records that both have."""
    some = some_of(raw, np.unique(np.r_[one, other]), len(known.comparisons))
    records = known.ready(raw, some, known.sizes)
    assert records.table is not None
    rid = records.table["rid"].to_numpy()
    size = len(known.comparisons)
    return shared_words(records.table, size, np.searchsorted(rid, one), np.searchsorted(rid, other))
