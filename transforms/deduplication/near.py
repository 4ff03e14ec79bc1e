"""Near duplicates of texts and of records: found by MinHash, proved by the exact Jaccard similarity."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.transforms.deduplication import pairs
from headgate.transforms.deduplication.containment import Contained
from headgate.transforms.deduplication.forms import Ignored, visible, without
from headgate.transforms.deduplication.minhash import Bands
from headgate.transforms.deduplication.shingles import sketch
from headgate.transforms.deduplication.similar import LENGTH, WINDOW, NearStep, compared
from headgate.transforms.deduplication.tokens import Unit
from headgate.transforms.rows import quoted
from headgate.transforms.step import Columns, Context, StepError, require_columns

RECALL = 0.999
ESTIMATE = 0.3  # of the pairs that may be missed, the share left to the estimate; the rest is left to the bands


@dataclass(frozen=True, kw_only=True)
class DropNearDuplicates(NearStep):
    """Keep one of the texts that are nearly the same and mark the others: only what is proved similar to a kept text.

    columns: the text; several columns are compared as one text, in their order, a null as an empty one. Texts are
        compared in the normal form C of Unicode and without invisible characters (soft hyphens, zero-width spaces …;
        the joiners stay where they spell a word or an emoji).
    similarity: least similarity of a marked text and the kept one, above 0, to 1.
    measure: of their sets of shingles: `jaccard` (the common ones among those of either text), or `containment` (the
        common ones among those of the marked text: how much of it lies within the kept one, however long that is).
    shingle: tokens of a shingle. A shingle counts once, and again where it follows upon itself (ha ha ha …). Shorter
        texts are compared by all their characters: every one that is no letter, digit or white space is a token too,
        and shingles are pairs of tokens, or the one, as often as they come. By containment they are found in longer
        texts too.
    unit: what a token is: `words` (runs of letters, digits and _, in lower case), `characters`, or `auto` (words, but
        every character of scripts that put no spaces between words: Chinese, Japanese, Thai, Lao, Khmer, Burmese).
        Marks belong to the letter that they stand on (Unicode Annex 29).
    ignore: what else makes no difference: `case` (by full folding: ß is ss), `accents`, `unicode` (the forms that
        Unicode holds for compatible, by NFKC), `punctuation` (with symbols), `spaces` (they make none anyway).
    keep: which text stays, as the ORDER BY list of `drop_duplicates`; `length` is the text's number of characters in
        the form compared, but for `ignore`; a column of that name comes before it. Nulls and NaN come last, ties fall
        to the smaller `_row_id`. Texts are taken in this order, and one goes if a text that stays is similar to it: no
        chain of similar texts takes one away whose own likeness is gone. Rows of earlier builds come first.
    recall: least probability that a pair at the threshold is found; more alike pairs are found with a higher one.
    cluster: the name of a new column: nothing is marked, but the row id of the text that would stay is written there
        (of a row that stays, its own), and beside it `<cluster>_similarity`, the similarity with that text.
    Null texts, empty and blank ones are never compared. Evidence: the kept row's id, the similarity (score),
    the threshold and the rule. Of rows with one id, as when a record was delivered twice, one is compared, and the
    others are marked for their id; so is one whose record an earlier build has published.
    Cost: one pass over the texts (some 30 MB a CPU second measured on manual pages), shuffles of sketches, and an exact
    comparison for each candidate pair. Rows of crowded buckets are compared by their rarest shingles; if these are
    crowded too, with at most 128 others of each crowd, so that no step grows with a square; then a warning says so. An
    increment also reads the index of earlier rows once through: six bytes for each shingle, little else.
    Containment sends every shingle's hash through a join with those that are asked for, for an increment those of all
    earlier rows too: some five times the cost, measured on manual pages. Source: Broder 1997; Indyk and Motwani 1998;
    the choice is the greedy maximal independent set.
    """

    name: ClassVar[str] = "drop_near_duplicates"
    similarity: float = 0.8
    measure: Literal["jaccard", "containment"] = "jaccard"
    shingle: int = 5
    unit: Unit = "auto"
    ignore: tuple[Ignored, ...] = ()
    recall: float = RECALL

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns(self.columns, have)
        if not self.columns:
            raise StepError("columns: name the column of the text")
        for option, value in (("similarity", self.similarity), ("recall", self.recall)):
            if not 0 < value <= 1 or (option == "recall" and value == 1):
                raise StepError(f"{option}: {value} is not above 0 and {'below' if option == 'recall' else 'up to'} 1")
        if self.shingle < 1:
            raise StepError(f"shingle: {self.shingle} is less than one token")
        return self.with_cluster(have)

    @property
    def bands(self) -> Bands:
        lost = (1 - self.recall) * (1 - ESTIMATE)
        return Bands(1, 1) if self.contained else Bands.of(self.similarity, 1 - lost)

    @property
    def threshold(self) -> float:
        return self.similarity

    @property
    def buckets(self) -> int:
        return self.bands.bands

    @property
    def contained(self) -> Contained | None:
        return Contained(self.similarity, self.recall, WINDOW) if self.measure == "containment" else None

    @property
    def limits(self) -> pairs.Limits:
        lost = (1 - self.recall) * ESTIMATE
        return self.contained or pairs.Similar(self.similarity, self.bands.values, WINDOW, lost)

    @property
    def reason(self) -> str:
        return "contained_duplicate" if self.contained else super().reason

    @property
    def rule(self) -> str:
        return f"{self.measure} of {self.shingle}-token shingles ({self.unit})"

    def assign_buckets(self, new: DataFrame, old: DataFrame | None, sets: DataFrame, context: Context) -> DataFrame:
        return (self.contained.assign_buckets if self.contained else super().assign_buckets)(new, old, sets, context)

    def verify_candidates(self, likely: DataFrame, sets: DataFrame, context: Context) -> DataFrame:
        if not self.contained:
            return super().verify_candidates(likely, sets, context)
        # First by the few shingles that each asks for: most candidates are none, and all their sets are large.
        few, least = self.contained.asked, self.contained.least_share
        answered = compared(likely, sets, pairs.similarities(least, contained=True), F.least("size", F.lit(few)))
        likely = context.keep(answered.select("kept", "gone"), "answered")
        scores = pairs.similarities(self.threshold, contained=True)
        return context.keep(compared(likely, sets, scores, F.col("size")), "edges")

    def compared(self, df: DataFrame) -> Column:
        if len(self.columns) == 1:
            return F.col(quoted(self.columns[0])).cast("string")
        return F.concat_ws("\n", *(F.coalesce(F.col(quoted(c)).cast("string"), F.lit("")) for c in self.columns))

    def sketch(self) -> Callable[[pa.Array], Mapping[str, pa.Array]]:
        size, unit, bands, ignore, parts = self.shingle, self.unit, self.bands, self.ignore, self.contained is not None

        def sketches(texts: pa.Array) -> dict[str, pa.Array]:
            texts = visible(texts)
            length = pc.utf8_length(texts).cast(pa.int32())
            return {LENGTH: length, **sketch(without(texts, ignore), size, unit, bands, parts).columns()}

        return sketches
