"""One partner for each record in each other source: the greedy choice, best pairs first, of any number of pairs."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import Window as W
from pyspark.sql import functions as F

from headgate.transforms.fusion.clusters import one_to_one
from headgate.transforms.step import Context

PAIRS_AT_ONCE = 2_000_000  # that one task may hold, some 100 bytes each


def one_partner_each(pairs: DataFrame, context: Context) -> DataFrame:
    """Leave of the linked pairs those of the greedy choice; others are not linked. What people decided comes first.

    In one task if it can hold them, else in rounds of pairs that are the best of both records, until it can.
    """
    rank = F.when(F.col("rule") == "must_link", F.lit(1e6)).otherwise(F.col("score"))
    same = ["one", "src_one", "other", "src_other"]
    left = context.keep(pairs.where("linked").select(*same, rank.alias("score")), "to_choose")
    chosen, turn = [], 0
    while left.count() > PAIRS_AT_ONCE:
        place = {
            f"place_{mine}": F.row_number().over(
                W.partitionBy(mine, "src_one", "src_other").orderBy(F.desc("score"), "one", "other")
            )
            for mine in ("one", "other")
        }
        best = context.keep(
            left.withColumns(place).where("place_one = 1 AND place_other = 1").select(*same), f"chosen_{turn}"
        )
        chosen.append(best)
        for mine in ("one", "other"):
            left = left.join(
                best.select(mine, "src_one", "src_other"), on=[mine, "src_one", "src_other"], how="left_anti"
            )
        left = context.keep(left.select(*same, "score"), f"to_choose_{turn}")
        turn += 1
    schema = ", ".join(f"{c} {'int' if c.startswith('src') else 'long'}" for c in same)
    last = left.coalesce(1).mapInArrow(choose, schema)
    for best in chosen:
        last = last.unionByName(best)
    marked = pairs.join(last.withColumn("stays", F.lit(True)), on=same, how="left")
    return marked.withColumn("linked", F.col("linked") & F.coalesce("stays", F.lit(False))).drop("stays")


def choose(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Give the pairs of the greedy choice."""
    tables = [pa.Table.from_batches([b]) for b in batches]
    if not tables:
        return
    pairs = pa.concat_tables(tables).combine_chunks()
    one, src_one, other, src_other, score = (pairs[c].to_numpy() for c in pairs.column_names)
    side = src_one.astype(np.int64) * (1 << 31) + src_other
    kept = pairs.filter(pa.array(one_to_one(one, other, side, score)))
    yield from kept.drop_columns(["score"]).to_batches()
