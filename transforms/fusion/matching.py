"""The pairs of records that are the same thing, by what linkage learned: of all records, or of those that changed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headgate.transforms.fusion.asked import known_at_once, known_pairs
from headgate.transforms.fusion.few import Few
from headgate.transforms.fusion.learned import Knowledge
from headgate.transforms.fusion.many import Many
from headgate.transforms.fusion.meetings import TooMany
from headgate.transforms.fusion.records import Records, in_spark
from headgate.transforms.fusion.renewal import renewed
from headgate.transforms.fusion.scoring import LINK, Pairs
from headgate.transforms.rows import (
    BOOKKEEPING,
    CHANGED,
    CHANGED_TYPE,
    MADE,
    PARENTS,
    REJECTED,
    ROW_ID,
    content_key,
    content_of,
    is_kept,
)
from headgate.transforms.step import Columns, Context, LearnAnew, Step, user_columns

ANY = 1 << 40  # candidate pairs of a record, where keys alone decide


@dataclass(frozen=True)
class Found:
    """What the build that learned found: the pairs of all records; None where it learned of some of them."""

    pairs: Pairs | None


@dataclass(frozen=True, kw_only=True)
class MatchRecords(Step):
    """Find the pairs that are the same thing as `link_records` learned to; see there.

    learned_from: what was learned; None where there were no two records to compare. found: in the build that learned
    alone, and never saved.
    """

    name: ClassVar[str] = "match_records"
    scope: ClassVar[Literal["row", "table"]] = "table"
    grain: ClassVar[Literal["rows", "new"]] = "new"
    light: ClassVar[int] = 2
    key: tuple[str, ...] = ()
    source: str | None = None
    labels: str | None = None
    decisions: str | None = None
    pairs_per_record: int = 20
    minhash: int = 0
    neighbours: int = 0
    learned_from: Knowledge | None = None
    found: Annotated[Any, Field(exclude=True)] = None  # `Found`, no option

    @property
    def renews(self) -> bool:
        known = self.learned_from
        return known is not None and not known.trimmed and known.second is None and not self.neighbours

    def tables(self) -> tuple[str, ...]:
        return tuple(t for t in (self.labels, self.decisions) if t is not None)

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        return dict(LINK)

    def learned(self) -> bool:
        return self.learned_from is not None

    def labels_now(self, context: Context) -> str:
        """Return a hash of the labels."""
        if self.labels is None:
            return ""
        table = context.table(self.labels)
        n, content = content_of(table.select(*user_columns(table)))
        return f"{n} {content}"

    def run(self, df: DataFrame, context: Context) -> DataFrame:
        known, found = self.learned_from, self.found
        pairs = found.pairs if found is not None else None
        marked = df.where(~is_kept()).select(*BOOKKEEPING)
        if known is None:
            if found is None:
                raise LearnAnew("there were no two records to learn from")
            return self.nothing(df).unionByName(marked, allowMissingColumns=True)
        changes = context.changes()
        if pairs is None and known.labels != self.labels_now(context):
            raise LearnAnew(f"the labels in '{self.labels}' changed")
        if changes is not None:
            marked = marked.join(changes.ids, on=ROW_ID, how="left_semi")
            shown = renewed(self, known, df, changes, context)
        else:
            shown = self.shown(known, pairs or self.pairs(known, df, context))
        return with_own_rows(shown, self.id).unionByName(marked.select(*BOOKKEEPING), allowMissingColumns=True)

    def nothing(self, df: DataFrame) -> DataFrame:
        columns = ", ".join(f"{c} {kind}" for c, kind in (LINK | BOOKKEEPING).items())
        return df.sparkSession.createDataFrame([], columns)

    def pairs(self, known: Knowledge, df: DataFrame, context: Context) -> Pairs:
        """Block and compare all records, by what was learned."""
        records = known.records(df, self.key, self.source, context, fresh=self.found is not None)
        limits, frequencies = known.loaded(context)
        per_record = self.pairs_per_record if known.trimmed else ANY
        options: dict[str, Any] = {"cap": None, "per_record": per_record, "seed": 0}
        found = blocked(records, self, context, limits=limits, frequencies=frequencies, **options)
        known.judge(found)
        n, before = sum(records.sizes), sum(known.sizes)
        context.warn(
            f"{n:,} records: {found.blocks.found:,} candidate pairs, by what was learned from {before:,} records"
        )
        return found

    def shown(self, known: Knowledge, pairs: Pairs) -> DataFrame:
        return pairs.rows(known.scorer, known.parts, known.cut, alone=known.alone)


def blocked(records: Records, step: MatchRecords, context: Context, **options: Any) -> Pairs:
    """Return the candidate pairs of records, compared: at once where records and their pairs are few."""
    options |= {"minhash": step.minhash, "neighbours": step.neighbours}
    if records.table is not None:
        try:
            labels = known_at_once("labels", step.labels, records, context)
            decisions = known_at_once("decisions", step.decisions, records, context)
            return Few.blocked(records, labels, decisions, **options)
        except TooMany:
            records = in_spark(records, context)
    labels_of = known_pairs("labels", step.labels, records, context)
    return Many(records, labels_of, known_pairs("decisions", step.decisions, records, context), context, **options)


def with_own_rows(shown: DataFrame, step: str) -> DataFrame:
    """Add the bookkeeping of new rows to pairs."""
    ends = F.array("id_a", "id_b")
    book = {
        ROW_ID: F.md5(content_key(shown, (), F.lit(step), F.array_min(ends), F.array_max(ends))),
        CHANGED: F.array().cast(CHANGED_TYPE),
        PARENTS: F.array_sort(F.array_distinct(ends)),
        REJECTED: F.lit(None).cast(BOOKKEEPING[REJECTED]),
        MADE: F.lit(step),
    }
    return shown.withColumns(book)
