"""Texts of validation and test rows that training rows have too, or nearly."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headgate.transforms.cleaning.columns import Derive
from headgate.transforms.deduplication.forms import Ignored
from headgate.transforms.deduplication.near import RECALL, DropNearDuplicates
from headgate.transforms.deduplication.pairs import Ints, Limits, Similar
from headgate.transforms.deduplication.similar import WINDOW
from headgate.transforms.deduplication.tokens import Unit
from headgate.transforms.rows import ROW_ID, SPLIT, is_kept, is_training, training_rows
from headgate.transforms.step import Columns, Context, NoSuchColumn, Step, StepError, with_new


@dataclass(frozen=True, kw_only=True)
class FindLeaks(Step):
    """Tell of each row of another split which training row has its text, or nearly: what a model has seen in training.

    columns: the text, compared as by `drop_near_duplicates`; several are one text.
    similarity: least Jaccard similarity of the sets of shingles (0.8), above 0, to 1.
    shingle, unit, ignore, recall: as in `drop_near_duplicates`.
    into: a new column (`leak_of`) with the row id of the most similar training row, of several the smallest; null where
        there is none, and of training rows. Beside it is `<into>_similarity`.
    No row is marked. In a suite, `expect_column_values_to_be_null` over the column blocks a table that leaks. Rows that
    are marked are not looked at, nor are texts of one split compared with each other. Cost: as `drop_near_duplicates`,
    of the distinct texts of each side; exact ones are found by a join.
    """

    name: ClassVar[str] = "find_leaks"
    scope: ClassVar[Literal["row", "table"]] = "table"
    by_split: ClassVar[bool] = True
    columns: tuple[str, ...]
    similarity: float = 0.8
    shingle: int = 5
    unit: Unit = "auto"
    ignore: tuple[Ignored, ...] = ()
    recall: float = RECALL
    into: str = "leak_of"

    @property
    def finder(self) -> "Across":
        finder = Across(
            columns=self.columns,
            similarity=self.similarity,
            shingle=self.shingle,
            unit=self.unit,
            ignore=self.ignore,
            recall=self.recall,
        )
        return finder.at(self.id)

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        self.finder.columns_after(have, tables)
        if SPLIT not in have:
            why = f"there is no column '{SPLIT}': put split_by_hash or another step that splits before"
            raise StepError(why) from NoSuchColumn(SPLIT, [*have])
        return with_new(have, {self.into: "string", f"{self.into}_similarity": "double"})

    def for_new_rows(self) -> Step:
        empty = {self.into: "CAST(NULL AS STRING)", f"{self.into}_similarity": "CAST(NULL AS DOUBLE)"}
        return Derive(columns=empty).at(self.id)

    def run(self, df: DataFrame, context: Context) -> DataFrame:
        finder = self.finder
        training = texts_of(finder.sketched(training_rows(df)).where("size > 0"))
        training = context.keep(training, "training")
        others = context.keep(finder.sketched(df.where(is_kept() & ~is_training(df))).where("size > 0"), "others")
        of_text = context.keep(self.leaks(finder, training, others, context), "leaks")
        # One row id is there once, unless a record was delivered twice: then both rows have the more similar text.
        best = F.max_by(F.struct("leak", "similarity"), F.struct("similarity", "set")).alias("best")
        marks = others.join(of_text, on="set").groupBy(F.col(ROW_ID).alias("_hg_id")).agg(best)
        marks = marks.select("_hg_id", *(F.col(f"best.{c}").alias(f"_hg_{c}") for c in ("leak", "similarity")))
        df = df.join(marks, on=is_kept() & ~is_training(df) & (F.col(ROW_ID) == F.col("_hg_id")), how="left")
        found = {self.into: F.col("_hg_leak"), f"{self.into}_similarity": F.col("_hg_similarity")}
        return df.withColumns(found).drop("_hg_id", "_hg_leak", "_hg_similarity")

    def leaks(self, finder: "Across", training: DataFrame, others: DataFrame, context: Context) -> DataFrame:
        """Return the leaking texts of other splits as set, leak (the row id of a training row) and similarity."""
        seen = training.select("set", F.col("first").alias("leak"))
        exact = texts_of(others).join(seen, on="set").select("set", "leak", F.lit(1.0).alias("similarity"))
        rest = texts_of(others).join(seen, on="set", how="left_anti")
        new, old = finder.with_age(context.keep(rest, "rest"), training)
        assert old is not None  # there are training rows, if none
        sets = new.unionByName(old).select(ROW_ID, "size", "shingles")
        placed = finder.assign_buckets(new.drop("shingles"), old.drop("shingles"), sets, context)
        edges = finder.verify_candidates(context.keep(finder.candidates(placed), "candidates"), sets, context)
        of_training = training.select(F.col(ROW_ID).alias("kept"), F.col("first").alias("leak"))
        near = edges.join(of_training, on="kept").groupBy(F.unhex("gone").alias("set"))
        nearest = near.agg(F.min_by(F.struct("leak", "score"), F.struct(-F.col("score"), F.col("leak"))).alias("best"))
        return exact.unionByName(nearest.select("set", "best.leak", F.col("best.score").alias("similarity")))


def texts_of(sketches: DataFrame) -> DataFrame:
    """Return the distinct texts of sketches: the row id is that of the text, and `first` the least of its rows."""
    same = [F.first(c).alias(c) for c in sketches.columns if c not in (ROW_ID, "set", "rank")]
    text = F.hex("set")
    texts = sketches.groupBy("set").agg(F.min(ROW_ID).alias("first"), *same)
    return texts.withColumns({ROW_ID: text, "rank": F.struct(text.alias("id"))})


@dataclass(frozen=True)
class AcrossSides(Similar):
    """The limits of pairs of which one is old, a text of training, and the other is not."""

    def likely(self, rows: pa.Table, one: Ints, other: Ints) -> tuple[Ints, Ints]:
        old = rows["old"].to_numpy()
        across = old[one] != old[other]
        return super().likely(rows, one[across], other[across])


@dataclass(frozen=True, kw_only=True)
class Across(DropNearDuplicates):
    """The search for pairs of similar texts across two sides."""

    name: ClassVar[str] = FindLeaks.name

    @property
    def limits(self) -> Limits:
        like = super().limits
        assert isinstance(like, Similar)  # by Jaccard similarity
        return AcrossSides(like.threshold, like.values, WINDOW, like.loss)

    def order(self) -> list[tuple[str, bool]]:
        return [("id", False)]
