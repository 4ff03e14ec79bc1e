"""Candidate pairs of any number of records, in Spark."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from headgate.transforms.fusion import scoring, supervised
from headgate.transforms.fusion.asked import ASKED_AT_ONCE
from headgate.transforms.fusion.blocking import block, words_of
from headgate.transforms.fusion.levels import Frequencies
from headgate.transforms.fusion.meetings import Limits
from headgate.transforms.fusion.partners import one_partner_each
from headgate.transforms.fusion.records import NO_PAIRS, Records, drawn_pairs, frequencies_of
from headgate.transforms.fusion.scoring import ASKED, LINK, SHOWN, Counted, Levels, Scored, Scorer
from headgate.transforms.fusion.tiles import as_levels, compared
from headgate.transforms.rows import arrow_frame
from headgate.transforms.step import Context

ENDS = ["one", "src_one", "other", "src_other"]


class Many:
    """Blocked and compared pairs; see `Pairs`."""

    def __init__(
        self,
        records: Records,
        labels: DataFrame | None,
        decisions: DataFrame | None,
        context: Context,
        *,
        limits: Limits | None = None,
        frequencies: Sequence[Frequencies] | None = None,
        cap: int | None,
        per_record: int,
        minhash: int,
        neighbours: int,
        seed: int,
    ) -> None:
        self.records, self.labels, self.decisions, self.context = records, labels, decisions, context
        self.size, self.turn = len(records.comparisons), 0
        at_random = drawn_pairs(records, seed) if frequencies is None else NO_PAIRS
        drawn = arrow_frame(self.spark, at_random)
        for asked in (labels, decisions):
            if asked is not None:
                drawn = drawn.unionByName(asked.drop("same").withColumn("family", F.lit(ASKED).cast("long")))
        pairs, self.blocks = block(
            records.many,
            records.comparisons,
            records.sizes,
            drawn,
            context,
            limits=limits,
            cap=cap,
            per_record=per_record,
            minhash=minhash,
            neighbours=neighbours,
        )
        self.frequencies = frequencies_of(records) if frequencies is None else frequencies
        levels = compared(records, pairs, self.frequencies)
        self.pairs = context.keep(levels, "compared")
        self.rated = self.without = self.pairs

    @property
    def unseen(self) -> float:
        return float(max(self.blocks.space - self.blocks.found, 0))

    @property
    def spark(self) -> SparkSession:
        return self.records.raw.sparkSession

    def counts(self, *, started: bool) -> Counted:
        return scoring.count_patterns(self.pairs, self.size, self.blocks.found, self.unseen, started=started)

    def labelled(self) -> tuple[Levels, npt.NDArray[np.bool_]]:
        assert self.labels is not None
        known = self.pairs.join(self.labels, on=ENDS, how="inner").where("same IS NOT NULL")
        if known.count() > ASKED_AT_ONCE:
            known = known.orderBy(F.xxhash64("one", "other"), *ENDS).limit(ASKED_AT_ONCE)
            self.context.warn(f"labels: what they teach is learned from {ASKED_AT_ONCE:,} of them, chosen by hash")
        table = known.select("pattern", "same").toArrow()  # bounded above
        return as_levels(table["pattern"].combine_chunks(), self.size), np.array(table["same"].to_pylist(), bool)

    def judge(self, scorer: Scorer, *, alone: bool) -> Scored:
        patterns = scoring.scored(self.pairs, scorer, self.size, len(self.records.comparisons))
        patterns = self.context.keep(patterns, f"patterns_{self.turn}")
        rated = scoring.judged(scoring.with_scores(self.pairs, patterns), alone=alone)
        self.rated = self.context.keep(rated, f"rated_{self.turn}") if alone else rated
        self.turn += 1
        return scoring.summed(self.rated)

    def add_lead(self) -> None:
        self.without = self.pairs
        self.pairs = self.context.keep(scoring.with_lead(self.pairs, self.rated), "led")
        self.size += 1

    def drop_lead(self) -> None:
        self.pairs = self.without
        self.size -= 1

    def rows(self, scorer: Scorer, names: Sequence[str], cut: float, *, alone: bool) -> DataFrame:
        records, pairs = self.records, self.rated
        if self.decisions is not None:
            pairs = pairs.join(self.decisions.withColumn("decided", F.lit(True)), on=ENDS, how="left")
        else:
            pairs = pairs.withColumns({"same": F.lit(None).cast("boolean"), "decided": F.lit(None).cast("boolean")})
        usual = F.lit("supervised" if isinstance(scorer, supervised.Supervised) else "model")
        rule = F.when(F.col("same"), "must_link").when(~F.col("same"), "cannot_link").otherwise(usual)
        likely = F.coalesce(F.col("same"), F.col("probability") >= F.lit(cut))
        few = pairs.where((F.col("score") >= SHOWN) | (F.col("decided") & F.col("same").isNotNull()))
        few = few.withColumns({"rule": rule, "linked": likely}).drop("same", "decided")
        if alone:
            values = F.concat_ws(" ", *(f"v{j}" for j in range(len(records.comparisons))))
            few = one_partner_each(few, records.many.select("rid", words_of(values).alias("words")), self.context)
        explained = scoring.with_parts(
            few.select(*ENDS, "pattern", "score", "probability", "rule", "linked"), scorer, self.size
        )
        ids = records.many.select("rid", "id", "key")
        for side, of in (("a", "one"), ("b", "other")):
            mine = ids.select(*(F.col(c).alias(f"{c}_{side}") for c in ids.columns))
            explained = explained.join(mine, on=F.col(of) == F.col(f"rid_{side}"), how="inner")
        source = F.array(*map(F.lit, records.sources))
        swap = F.lit(False) if records.linking else F.col("id_a") > F.col("id_b")

        def end(what: str, first: str, second: str) -> dict[str, Column]:
            a, b = F.col(first), F.col(second)
            return {
                f"{what}_a": F.when(swap, b).otherwise(a),
                f"{what}_b": F.when(swap, a).otherwise(b),
            }

        digits = [F.conv(F.hex(F.substring("pattern", j + 1, 1)), 16, 10) for j in range(self.size)]
        shown = {
            **end("id", "id_a", "id_b"),
            **end("key", "key_a", "key_b"),
            "source_a": F.element_at(source, F.col("src_one") + 1),
            "source_b": F.element_at(source, F.col("src_other") + 1),
            "pattern": F.concat_ws(" ", *digits),
            "weights": F.map_from_arrays(F.array(*map(F.lit, names)), F.col("parts")),
        }
        return explained.withColumns(shown).select(*(F.col(c).cast(kind).alias(c) for c, kind in LINK.items()))
