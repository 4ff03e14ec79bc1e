"""One partner for each record in each other source: the greedy choice, best pairs first, of any number of pairs."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import Window as W
from pyspark.sql import functions as F

from headgate.transforms.fusion.clusters import DECIDED, one_to_one
from headgate.transforms.step import Context

PAIRS_AT_ONCE = 2_000_000  # that one task may hold, some 100 bytes each


def one_partner_each(pairs: DataFrame, words: DataFrame, context: Context) -> DataFrame:
    """Leave of the linked pairs those of the greedy choice; others are not linked. What people decided comes first,
    and stays.

    words: rid, words (all words of a record). Of pairs with one score, that with the larger share of common words is
    better, then the one of smaller ids.

    In one task if it can hold them, else in rounds of pairs that are the best of both records, until it can.
    """
    rank = F.when(F.col("rule") == "must_link", F.lit(DECIDED)).otherwise(F.col("score"))
    same = ["one", "src_one", "other", "src_other"]
    linked = pairs.where("linked").select(*same, rank.alias("score"))
    for mine in ("one", "other"):
        of = words.select(F.col("rid").alias(mine), F.col("words").alias(f"words_{mine}"))
        linked = linked.join(of, on=mine, how="inner")
    both = F.size(F.array_intersect("words_one", "words_other")) / F.size(F.array_union("words_one", "words_other"))
    left = context.keep(linked.select(*same, "score", F.coalesce(both, F.lit(0.0)).alias("common")), "to_choose")
    chosen, turn = [], 0
    while left.count() > PAIRS_AT_ONCE:
        place = {
            f"place_{mine}": F.row_number().over(
                W.partitionBy(mine, "src_one", "src_other").orderBy(F.desc("score"), F.desc("common"), "one", "other")
            )
            for mine in ("one", "other")
        }
        first = (F.col("place_one") == 1) & (F.col("place_other") == 1)
        best = left.withColumns(place).where(first | (F.col("score") >= DECIDED)).select(*same)
        best = context.keep(best, f"chosen_{turn}")
        chosen.append(best)
        for mine in ("one", "other"):
            left = left.join(
                best.select(mine, "src_one", "src_other"), on=[mine, "src_one", "src_other"], how="left_anti"
            )
        left = context.keep(left.select(*same, "score", "common"), f"to_choose_{turn}")
        turn += 1
    schema = ", ".join(f"{c} {'int' if c.startswith('src') else 'long'}" for c in same)
    last = left.coalesce(1).mapInArrow(choose, schema)
    for best in chosen:
        last = last.unionByName(best)
    marked = pairs.join(last.withColumn("stays", F.lit(True)), on=same, how="left")
    return marked.withColumn("linked", F.col("linked") & F.coalesce("stays", F.lit(False))).drop("stays")


def choose(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
    """Give the pairs of the greedy choice."""
    tables = [pa.Table.from_batches([b]) for b in batches]
    if not tables:
        return
    pairs = pa.concat_tables(tables).combine_chunks()
    one, src_one, other, src_other, score, common = (pairs[c].to_numpy() for c in pairs.column_names)
    side = src_one.astype(np.int64) * (1 << 31) + src_other
    kept = pairs.filter(pa.array(one_to_one(one, other, side, score, common)))
    yield from kept.drop_columns(["score", "common"]).to_batches()
