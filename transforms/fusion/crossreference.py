"""What readers join by: which record is of which entity, and the links that hold within entities."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headgate.transforms.fusion.scoring import LINK
from headgate.transforms.kinds import as_text, is_plain
from headgate.transforms.rows import (
    BOOKKEEPING,
    CHANGED,
    CHANGED_TYPE,
    MADE,
    PARENTS,
    REJECTED,
    ROW_ID,
    SOURCE,
    content_key,
    is_kept,
    quoted,
)
from headgate.transforms.step import Columns, Context, MakeAll, Step, StepError, require_columns
from headgate.words import did_you_mean

CONFIRMED = ("source_a", "key_a", "source_b", "key_b", "score", "probability")


def shown_records(df: DataFrame, key: Sequence[str], source: str, named: str) -> DataFrame:
    """Return the unmarked rows with `source`, `key` (several columns as one JSON array) and `_hg_parent`, the row."""
    kinds = dict(df.dtypes)
    keys = [as_text(F.col(quoted(c)), kinds[c]) for c in key]
    text = keys[0] if len(keys) == 1 else F.to_json(F.array(*keys)) if keys else F.col(ROW_ID)
    origin = F.col(quoted(source)).cast("string") if source in df.columns else F.lit(named)
    return df.where(is_kept()).select(
        origin.alias("_hg_source"), text.alias("_hg_key"), F.col(ROW_ID).alias("_hg_parent"), *map(quoted, df.columns)
    )


def made_of(shown: DataFrame, df: DataFrame, step: str, by: Sequence[str] = ()) -> DataFrame:
    """Return rows with the column `_hg_parent`, the row each was made of, with their bookkeeping; and the marked ones.

    by: columns that tell apart the rows that one row makes.
    """
    row = F.md5(content_key(shown, by, F.lit(step), F.col("_hg_parent")))
    parents = F.array("_hg_parent").alias(PARENTS)
    return with_made(shown.select("*", parents, row.alias(ROW_ID)).drop("_hg_parent"), df, step)


def with_made(shown: DataFrame, df: DataFrame, step: str) -> DataFrame:
    """Return rows with their id and `_parents` with the rest of their bookkeeping, and the marked ones of `df`."""
    book = {
        CHANGED: F.array().cast(CHANGED_TYPE),
        REJECTED: F.lit(None).cast(BOOKKEEPING[REJECTED]),
        MADE: F.lit(step),
    }
    marked = df.where(~is_kept()).select(*BOOKKEEPING)
    return shown.withColumns(book).unionByName(marked, allowMissingColumns=True)


def of_changed(df: DataFrame, ids: DataFrame, context: Context) -> DataFrame:
    """Return the rows with some ids, and say that what is made of them replaces what was made of these ids before."""
    before = context.previous()
    if before is None:
        raise MakeAll("there is no previous version")
    ids = context.keep(ids.select(F.col(ROW_ID).alias("_hg_id")).distinct(), "changed")
    made = before.join(ids, on=F.col(PARENTS)[0] == F.col("_hg_id"), how="left_semi")
    context.replace(made.select(ROW_ID))
    return df.join(ids, on=F.col(ROW_ID) == F.col("_hg_id"), how="left_semi")


@dataclass(frozen=True, kw_only=True)
class CrossReference(Step):
    """Show of each record only its source, its key and its entity: what other tables join by.

    key: the columns that a reader knows a record by; several are one JSON array. Without it, the row id.
    source: the column that names a record's source; where it is not there, `named` says it.
    named: the source of all records where no column says it.
    by: the column that names the entity.
    history: the table that `entity_history` keeps; it adds `valid_from`, since when the record is of this entity.
    The table's `grain` is new: columns `source`, `key`, `entity_id`; `_parents` is the record. Rows with one row id
    give one row. Rows marked before stay marked. Where records or their history changed, their rows alone are made
    again. Cost: one pass, and a shuffle of what is shown; with `history` a join by row id.
    """

    name: ClassVar[str] = "cross_reference"
    scope: ClassVar[Literal["row", "table"]] = "table"
    grain: ClassVar[Literal["rows", "new"]] = "new"
    light: ClassVar[int] = 8
    key: tuple[str, ...] = ()
    source: str = SOURCE
    named: str = ""
    by: str = "entity_id"
    history: str | None = None

    def tables(self) -> tuple[str, ...]:
        return () if self.history is None else (self.history,)

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns([*self.key, self.by], have)
        for column in self.key:
            kind = have[column]
            if kind is not None and not is_plain(kind):
                raise StepError(f"'{column}' is {kind}, not a plain value; put a cast before")
        shown = {"source": "string", "key": "string", "entity_id": have[self.by]}
        if self.history is None:
            return shown
        if self.history not in tables:
            raise StepError(f"history: there is no table '{self.history}'{did_you_mean(self.history, tables)}")
        try:
            require_columns(["entity_id", "valid_from", "valid_to"], tables[self.history])
        except StepError as e:
            raise StepError(f"history: table '{self.history}': {e}; entity_history makes such a table") from e
        return {**shown, "valid_from": "timestamp"}

    @property
    def renews(self) -> bool:
        return True

    def run(self, df: DataFrame, context: Context) -> DataFrame:
        changes = context.changes()
        if changes is not None:
            told = changes.other(self.history) if self.history is not None else None
            parents = told and told.select(F.explode(PARENTS).alias(ROW_ID))
            df = of_changed(df, changes.ids if parents is None else changes.ids.union(parents), context)
        records = shown_records(df, self.key, self.source, self.named)
        shown = records.select(
            F.col("_hg_source").alias("source"),
            F.col("_hg_key").alias("key"),
            F.col(quoted(self.by)).alias("entity_id"),
            "_hg_parent",
        ).distinct()
        if self.history is not None:
            since = context.table(self.history).where("valid_to IS NULL AND entity_id IS NOT NULL")
            record = (F.col(PARENTS)[0].alias("_hg_parent"), F.col("entity_id").alias("_hg_entity"))
            since = since.groupBy(*record).agg(F.max("valid_from").alias("valid_from"))
            same = (F.col("entity_id").cast("string") == F.col("_hg_entity")) & (F.col("p") == F.col("_hg_parent"))
            shown = shown.withColumnRenamed("_hg_parent", "p").join(since, on=same, how="left")
            shown = shown.select("source", "key", "entity_id", "valid_from", F.col("p").alias("_hg_parent"))
        return made_of(shown, df, self.id)


@dataclass(frozen=True, kw_only=True)
class ConfirmLinks(Step):
    """Show of a table of pairs those whose records are of one entity: the links that hold.

    entities: the table that names the entity of each record, as `assign_entities` makes it.
    by: its column that does.
    The table's `grain` is new: columns `source_a`, `key_a`, `source_b`, `key_b`, `score`, `probability`; `_parents` is
    the pair. Pairs that are no rows are not shown, though they may be of one entity. Rows marked before stay marked.
    Where pairs changed, or the entities of their records, their rows alone are made again.
    Cost: two joins of the pairs, or of those, with the entities, by row id.
    """

    name: ClassVar[str] = "confirm_links"
    scope: ClassVar[Literal["row", "table"]] = "table"
    grain: ClassVar[Literal["rows", "new"]] = "new"
    light: ClassVar[int] = 8
    entities: str
    by: str = "entity_id"

    def tables(self) -> tuple[str, ...]:
        return (self.entities,)

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns([*CONFIRMED, "id_a", "id_b"], have)
        if self.entities not in tables:
            hint = did_you_mean(self.entities, tables)
            raise StepError(f"entities: there is no table '{self.entities}'{hint}")
        try:
            require_columns([self.by], tables[self.entities])
        except StepError as e:
            raise StepError(f"entities: table '{self.entities}': {e}") from e
        return {c: LINK[c] for c in CONFIRMED}

    @property
    def renews(self) -> bool:
        return True

    def run(self, df: DataFrame, context: Context) -> DataFrame:
        changes = context.changes()
        if changes is not None:
            ids, moved = changes.ids, changes.other(self.entities)
            if moved is not None:
                records = context.keep(moved.select(F.col(ROW_ID).alias("_hg_record")).distinct(), "records")
                for end in ("id_a", "id_b"):
                    mine = df.join(records, on=F.col(end) == F.col("_hg_record"), how="left_semi")
                    ids = ids.union(mine.select(ROW_ID))
            df = of_changed(df, ids, context)
        of = context.table(self.entities).groupBy(ROW_ID).agg(F.min(quoted(self.by)).alias("e"))
        ends = [of.select(F.col(ROW_ID).alias(f"id_{end}"), F.col("e").alias(f"_hg_{end}")) for end in ("a", "b")]
        rows = df.where(is_kept()).select("id_a", "id_b", *CONFIRMED, F.col(ROW_ID).alias("_hg_parent"))
        rows = rows.join(ends[0], on="id_a", how="inner").join(ends[1], on="id_b", how="inner")
        return made_of(rows.where("_hg_a = _hg_b").select(*CONFIRMED, "_hg_parent"), df, self.id)
