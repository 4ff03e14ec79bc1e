"""Texts that lie within others: which may hold which, by shingles that one asks for and the other has.

A short text within a long one is not similar to it by Jaccard's measure, so no bands find the pair. Here each text asks
for a few of its own shingles, those of the least hashes (the bottom-k sketch of Broder 1997). Of a text that lies in
another so many of them are answered that one at least is among its rarest: only for these it looks where they stand
(the prefix filter of Chaudhuri, Ganti and Kaushik 2006). A text answers with its shingles and with its parts: the
shorter runs of tokens that a text too short for shingles asks for.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import Window as W
from pyspark.sql import functions as F

from headgate.transforms.deduplication.minhash import Bands
from headgate.transforms.deduplication.pairs import Ints
from headgate.transforms.deduplication.shingles import sets_of
from headgate.transforms.rows import ROW_ID
from headgate.transforms.step import Context

ASKED = 32


@dataclass(frozen=True)
class Contained:
    """The limits within which one text is worth an exact look for another.

    threshold: the least share of the other's shingles. recall: of texts at the threshold, the share that is found at
    least. window: rows of a bucket that a row is compared with.
    """

    columns: ClassVar[tuple[str, ...]] = ("asks",)
    threshold: float
    recall: float
    window: int

    @property
    def asked(self) -> int:
        """Return how many shingles a text asks for: enough that one is answered, and for an estimate."""
        return max(ASKED, Bands.needed(self.threshold, 1, self.recall))

    @property
    def least_answers(self) -> int:
        """The most answers that may be wanted: that fewer come at the threshold is rarer than what is lost by chance.

        Answers are counted as if drawn with replacement, which spreads them wider than they are.
        """
        n, t = self.asked, self.threshold
        fewer, answers = 0.0, 0
        while answers < n:
            fewer += math.comb(n, answers) * t**answers * (1 - t) ** (n - answers)
            if fewer > 1 - self.recall:
                break
            answers += 1
        return max(answers, 1)

    @property
    def least_share(self) -> float:
        """The least share of a text's asked shingles that one with it inside has."""
        return min(self.least_answers / self.asked, self.threshold)

    def likely(self, rows: pa.Table, one: Ints, other: Ints) -> tuple[Ints, Ints]:
        """Return the pairs, in the order of `keep`, whose second row is new, asks, and may lie within by its length."""
        old, asks, size = (rows[c].to_numpy() for c in ("old", "asks", "size"))
        fits = ~old[other] & asks[other] & (size[one] >= self.threshold * size[other] - 1e-9)
        return one[fits], other[fits]

    def assign_buckets(self, new: DataFrame, old: DataFrame | None, sets: DataFrame, context: Context) -> DataFrame:
        """All rows under the shingles that new ones look for: bucket, second, asks, old, size, rank."""
        hashes = sets.mapInArrow(opened, OPENED)
        few = F.explode(F.slice("hashes", 1, F.least("size", F.lit(self.asked)))).alias("bucket")
        asked = hashes.join(new.select(ROW_ID), on=ROW_ID, how="left_semi").select(
            ROW_ID, F.col("size").alias("n"), few
        )
        asked = context.keep(asked, "asked")
        answers = hashes.select(ROW_ID, F.explode("hashes").alias("bucket"))
        answers = context.keep(answers.join(asked.select("bucket").distinct(), on="bucket", how="left_semi"), "answers")

        unanswered = F.when(F.col("n") > self.asked, self.asked - self.least_answers).otherwise(
            F.col("n") - F.ceil(F.col("n") * self.threshold - 1e-9)
        )
        rarest = W.partitionBy(ROW_ID).orderBy("crowd", "bucket")
        looked = asked.join(answers.groupBy("bucket").agg(F.count("*").alias("crowd")), on="bucket")
        looked = looked.withColumn("place", F.row_number().over(rarest)).where(F.col("place") <= unanswered + 1)
        looked = context.keep(looked.where("crowd > 1").select(ROW_ID, "bucket", F.lit(True).alias("looks")), "touched")

        rows = new if old is None else new.unionByName(old)
        placed = answers.join(looked.select("bucket").distinct(), on="bucket", how="left_semi")
        placed = placed.join(looked, on=[ROW_ID, "bucket"], how="left").join(rows, on=ROW_ID)
        asks = F.coalesce("looks", F.lit(False)).alias("asks")
        return context.keep(placed.select("bucket", F.lit(0).alias("second"), asks, "old", "size", "rank"), "placed")


OPENED = f"{ROW_ID} string, size int, hashes array<bigint>"


def opened(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Sets of hashes, sorted, as lists of whole numbers; behind `size` of them those of a text's parts."""
    for batch in batches:
        hashes, starts = sets_of(batch.column("shingles"))
        lists = pa.ListArray.from_arrays(pa.array(starts.astype(np.int32)), pa.array(hashes.astype(np.int64)))
        yield pa.RecordBatch.from_arrays(
            [batch.column(ROW_ID), batch.column("size"), lists], [ROW_ID, "size", "hashes"]
        )
