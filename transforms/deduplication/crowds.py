"""Rows of crowded buckets, looked at again by their rarest features.

Texts that share a long frame (a page's menu, a form) come into the same buckets, however much their own words differ.
Of two similar sets, ordered by how rare their features are in the crowd, the first few of either have one in common
(the prefix filter of Chaudhuri, Ganti and Kaushik 2006; the shorter one for the smaller set: Xiao et al. 2008). What
all share is at the end of that order, and brings nobody together.
"""

from pyspark.sql import DataFrame
from pyspark.sql import Window as W
from pyspark.sql import functions as F

from headgate.transforms.deduplication.containment import OPENED, opened
from headgate.transforms.rows import ROW_ID
from headgate.transforms.step import Context


def rare(
    rows: DataFrame, sets: DataFrame, threshold: float, window: int, context: Context
) -> tuple[DataFrame, DataFrame]:
    """The rows (`_row_id` and what they carry) under their rare features, `bucket`; and who stood in a crowd again.

    Each pair whose similarity reaches the threshold shares a bucket; the second frame, `_row_id`, has the rows of those
    buckets with more than `window` others.
    """
    hashes = sets.join(rows.select(ROW_ID), on=ROW_ID, how="left_semi").mapInArrow(opened, OPENED)
    each = hashes.select(ROW_ID, "size", F.explode("hashes").alias("hash"))
    each = each.join(each.groupBy("hash").agg(F.count("*").alias("crowd")), on="hash")
    place = F.row_number().over(W.partitionBy(ROW_ID).orderBy("crowd", "hash"))
    size, least = F.col("size"), 2 * threshold / (1 + threshold)
    looks = F.col("place") <= size - F.ceil(threshold * size - 1e-9) + 1
    # Of a pair the smaller set, or either of two equal ones, needs no more than these.
    first = F.col("place") <= size - F.ceil(least * size - 1e-9) + 1
    each = each.withColumn("place", place).where(looks).where("crowd > 1").select(ROW_ID, "hash", first.alias("first"))
    each = context.keep(each, "rare")
    shared = each.groupBy("hash").agg(F.count("*").alias("crowd"), F.max("first").alias("first"))
    shared = context.keep(shared.where("crowd > 1 AND first").select("hash", "crowd"), "rare_shared")
    placed = each.join(shared, on="hash")
    crowded = context.keep(placed.where(F.col("crowd") > window + 1).select(ROW_ID).distinct(), "crowded")
    buckets = placed.select(ROW_ID, F.xxhash64(F.lit("rare"), "hash").alias("bucket"))
    return rows.join(buckets, on=ROW_ID), crowded
