"""What linkage learned of records, and records made ready by it: so that later ones are linked as those were."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame

from headgate.transforms.fusion.levels import Frequencies
from headgate.transforms.fusion.meetings import Limits
from headgate.transforms.fusion.model import Model
from headgate.transforms.fusion.records import Records, are_few, at_once, counts_of_sources, in_spark, raw_rows
from headgate.transforms.fusion.scoring import Pairs
from headgate.transforms.fusion.supervised import Supervised
from headgate.transforms.fusion.values import Comparison
from headgate.transforms.rows import arrow_frame
from headgate.transforms.step import Context, LearnAnew
from headgate.words import cell

LEAD, PRIOR, DEPENDENCE = "(lead)", "(prior)", "(dependence)"
GROWN = 1.5  # how many times as many records, or as few, are linked by what was learned of some
COUNTS = pa.schema(
    [("j", pa.int32()), ("word", pa.bool_()), ("text", pa.string()), ("key", pa.int64()), ("n", pa.int64())]
)


def named_part(column: str) -> str:
    """Return the name of a column's part of a score: its own, unless a part that is no column's has that."""
    return f"`{column}`" if column in (LEAD, PRIOR, DEPENDENCE) else column


def parts_of(comparisons: Sequence[Comparison], *, lead: bool) -> list[str]:
    """Return the names of the parts of a score."""
    return [PRIOR, *(named_part(c.column) for c in comparisons), *([LEAD] if lead else []), DEPENDENCE]


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """What linkage learned: all that decides, with the records, which pairs there are and how they score.

    sources, sizes: those that it was learned from. alone: a record has at most one partner in each other source.
    trimmed: records kept their best pairs alone. single, double: caps of keys. filled, rest, counts: frequencies of
    values and words, and the order of common keys, of which `counts` is the place. first: what scores pairs; second:
    what does so with the lead over rivals too. cut: the probability from which on pairs are linked. labels: a hash of
    those that were learned from.
    """

    sources: tuple[str, ...]
    sizes: tuple[int, ...]
    comparisons: tuple[Comparison, ...]
    alone: bool
    trimmed: bool
    single: int
    double: int
    filled: tuple[int, ...]
    rest: float
    counts: str
    first: Model | Supervised
    second: Model | None = None
    cut: float
    labels: str = ""

    @property
    def scorer(self) -> Model | Supervised:
        return self.first if self.second is None else self.second

    @property
    def parts(self) -> list[str]:
        """Return the names of the parts of a score."""
        return parts_of(self.comparisons, lead=self.second is not None)

    @staticmethod
    def stored(pairs: Pairs, context: Context) -> str:
        """Store the frequencies and the order of common keys that pairs were found by; return the place."""
        columns: dict[str, list[Any]] = {c: [] for c in COUNTS.names}
        for j, found in enumerate(pairs.frequencies):
            for word, held in ((False, found.values), (True, found.words)):
                columns["j"] += [j] * len(held)
                columns["word"] += [word] * len(held)
                columns["text"] += held
                columns["n"] += held.values()
        keys, places = pairs.blocks.limits.order
        texts, nothing = len(columns["n"]), [None] * len(keys)
        columns["key"] = [None] * texts + keys.tolist()
        columns["n"] += places.tolist()
        columns |= {c: columns[c] + nothing for c in ("j", "word", "text")}
        return context.store(arrow_frame(pairs.spark, pa.table(columns, schema=COUNTS)), "counts")

    def loaded(self, context: Context) -> tuple[Limits, tuple[Frequencies, ...]]:
        """Return the limits of keys and the frequencies."""
        table = context.stored(self.counts).toArrow()  # as many as were learned: see `FREQUENT`
        texts, keys = (table.filter(pc.is_null(table[c])) for c in ("key", "text"))
        keys = keys.sort_by("key")
        order = (keys["key"].to_numpy().astype(np.int64), keys["n"].to_numpy().astype(np.int64))
        found: list[tuple[dict[str, int], dict[str, int]]] = [({}, {}) for _ in self.comparisons]
        for j, word, text, n in zip(*(texts[c].to_pylist() for c in ("j", "word", "text", "n")), strict=True):
            found[j][word][text] = n
        frequencies = tuple(
            Frequencies(filled=f, values=values, words=words, rest=self.rest)
            for f, (values, words) in zip(self.filled, found, strict=True)
        )
        return Limits(single=self.single, double=self.double, order=order), frequencies

    def judge(self, pairs: Pairs) -> None:
        """Score pairs, by all that was learned."""
        pairs.judge(self.first, alone=self.alone)
        if self.second is not None:
            pairs.add_lead()
            pairs.judge(self.second, alone=True)

    def raw(self, df: DataFrame, key: Sequence[str], source: str | None) -> DataFrame:
        """Return the unmarked rows with the cells that are compared; raise `LearnAnew` where one is not there."""
        columns = [c.column for c in self.comparisons]
        gone = next((c for c in columns if c not in df.columns), None)
        if gone is not None:
            raise LearnAnew(f"the column '{gone}', which was compared, is gone")
        return raw_rows(df, columns, key, source)

    def sizes_now(self, sizes: Mapping[str, int], *, fresh: bool = False) -> tuple[int, ...]:
        """Return how many records each source has now; raise `LearnAnew` where what was learned is not of such.

        fresh: it was learned in this build, of a part of them.
        """
        new = next((s for s in sizes if s not in self.sources), None)
        if new is not None:
            raise LearnAnew(f"the source {cell(new)} is new")
        now, before = sum(sizes.values()), sum(self.sizes)
        if not fresh and (now > GROWN * before or before > GROWN * now):
            raise LearnAnew(f"there are {now:,} records, and it was learned from {before:,}")
        return tuple(sizes.get(s, 0) for s in self.sources)

    def records(
        self, df: DataFrame, key: Sequence[str], source: str | None, context: Context, *, fresh: bool
    ) -> Records:
        """Return records made ready as those were that it was learned from."""
        raw = self.raw(df, key, source)
        of_sources = counts_of_sources(raw, len(self.comparisons))
        sizes = self.sizes_now({row["source"]: row["ids"] for row in of_sources}, fresh=fresh)
        few, characters = are_few(of_sources, len(self.comparisons))
        ready = self.ready(raw, raw.toArrow() if few else None, sizes, sum(r["n"] - r["ids"] for r in of_sources))
        ready = replace(ready, characters=characters)
        return ready if few else in_spark(ready, context)

    def ready(self, raw: DataFrame, table: pa.Table | None, sizes: tuple[int, ...], repeated: int = 0) -> Records:
        """Return records of raw ones, of which those of a table are made ready at once."""
        records = Records(
            raw=raw,
            cells=tuple(f"c{j}" for j in range(len(self.comparisons))),
            sources=self.sources,
            sizes=sizes,
            comparisons=self.comparisons,
            left_out={},
            repeated=repeated,
        )
        return records if table is None else replace(records, table=at_once(records, table.sort_by("rid")))
