"""What became of entities: which record was of which one from when to when, and the events that follow from that."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import Window as W
from pyspark.sql import functions as F

from headgate.transforms.fusion.crossreference import made_of, shown_records, with_made
from headgate.transforms.kinds import is_plain
from headgate.transforms.rows import PARENTS, ROW_ID, SOURCE, arrow_frame, content_key, is_kept, quoted
from headgate.transforms.step import Columns, Context, MakeAll, Step, StepError, require_columns

TIMES = {"valid_from": "timestamp", "valid_to": "timestamp"}
REACHED = 1_000_000  # entities whose events the driver may look through, some 100 bytes each
EVENTS = {
    "at": "timestamp",
    "event": "string",
    "entity_id": "string",
    "into_id": "string",
    "records": "bigint",
    "now_id": "string",
}


@dataclass(frozen=True, kw_only=True)
class EntityHistory(Step):
    """Keep of each record which entity it was of from when to when, from the first build on.

    key: the columns that a reader knows a record by; several are one JSON array. Without it, the row id.
    source: the column that names a record's source; where it is not there, `named` says it.
    named: the source of all records where no column says it.
    by: the column that names the entity.
    The table's `grain` is new: columns `source`, `key`, `entity_id`, `valid_from`, `valid_to`. A row holds from
    `valid_from` until before `valid_to`, which is null while it holds. Times are when the version that told it was
    published, not when it became true; they grow from build to build. What is there stays: a record that moves to
    another entity, or is gone, closes its row. Rows with one row id give one row, rows without an entity none. Rows
    that an erasure emptied are left out. Rows marked before stay marked. `_parents` is the record, there or gone.
    Where records changed, their rows alone are made again. Cost: a join by row id of the records, or of those that
    changed, and of all rows of before that hold.
    """

    name: ClassVar[str] = "entity_history"
    scope: ClassVar[Literal["row", "table"]] = "table"
    grain: ClassVar[Literal["rows", "new"]] = "new"
    light: ClassVar[int] = 8
    reads_previous: ClassVar[bool] = True
    key: tuple[str, ...] = ()
    source: str = SOURCE
    named: str = ""
    by: str = "entity_id"

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns([*self.key, self.by], have)
        for column in (*self.key, self.by):
            kind = have[column]
            if kind is not None and not is_plain(kind):
                raise StepError(f"'{column}' is {kind}, not a plain value; put a cast before")
        return {"source": "string", "key": "string", "entity_id": "string", **TIMES}

    @property
    def renews(self) -> bool:
        return True

    def run(self, df: DataFrame, context: Context) -> DataFrame:
        entity = F.col(quoted(self.by)).cast("string")
        changes = context.changes()
        if changes is not None:
            ids = changes.ids.select(F.col(ROW_ID).alias("_hg_id"))
            if context.previous() is None:
                raise MakeAll("there is no previous version")
            df = df.join(ids, on=F.col(ROW_ID) == F.col("_hg_id"), how="left_semi")
        records = shown_records(df, self.key, self.source, self.named).where(entity.isNotNull())
        record = F.struct(F.col("_hg_source").alias("source"), F.col("_hg_key").alias("key"), entity.alias("entity_id"))
        now = records.groupBy("_hg_parent").agg(F.min(record).alias("now"))
        moment = round(context.moment().timestamp() * 1_000_000)
        before = context.previous()
        shown = ["source", "key", "entity_id"]
        if before is None or not {*shown, *TIMES, PARENTS} <= set(before.columns):
            at = F.timestamp_micros(F.lit(moment))
            rows = now.select(*(F.col(f"now.{c}") for c in shown), at.alias("valid_from"), nothing(), "_hg_parent")
            return made_of(rows, df, self.id, by=("entity_id", "valid_from"))
        before = before.where("entity_id IS NOT NULL AND valid_from IS NOT NULL AND size(_parents) = 1")
        before = before.select(*shown, *TIMES, F.col(PARENTS)[0].alias("_hg_parent"), ROW_ID)
        last = before.agg(F.max(F.unix_micros(F.greatest("valid_from", "valid_to"))).alias("last")).first()
        if last is not None and last["last"] is not None:
            moment = max(moment, last["last"] + 1)  # clocks of two machines may differ
        at = F.timestamp_micros(F.lit(moment))
        closed, held = (before.where(f"valid_to IS {what} NULL") for what in ("NOT", ""))
        if changes is not None:
            held = held.join(ids, on=F.col("_hg_parent") == F.col("_hg_id"), how="left_semi")
            context.replace(held.select(ROW_ID))
            closed = closed.limit(0)
        was = F.struct(*shown, "valid_from").alias("was")
        both = held.select("_hg_parent", was).join(now, on="_hg_parent", how="full")
        stays = F.coalesce(F.col("was.entity_id") == F.col("now.entity_id"), F.lit(False))
        both = context.keep(both.withColumn("stays", stays), "both")
        ended = both.where("was IS NOT NULL AND NOT stays").select(
            *(F.col(f"was.{c}") for c in (*shown, "valid_from")), at.alias("valid_to"), "_hg_parent"
        )
        began = F.when(F.col("stays"), F.col("was.valid_from")).otherwise(at)
        holds = both.where("now IS NOT NULL").select(
            *(F.col(f"now.{c}") for c in shown), began.alias("valid_from"), nothing(), "_hg_parent"
        )
        rows = closed.drop(ROW_ID).unionByName(ended).unionByName(holds)
        return made_of(rows, df, self.id, by=("entity_id", "valid_from"))


def nothing() -> Column:
    return F.lit(None).cast("timestamp").alias("valid_to")


@dataclass(frozen=True, kw_only=True)
class EntityEvents(Step):
    """List what happened to entities, from the history that `entity_history` keeps.

    The table's `grain` is new: `at`, `event`, `entity_id`, `into_id`, `records`, `now_id`. `minted`: an entity began,
    with so many records. `merged`: its last records went to others, most of them to `into_id` (ties: the part with the
    smallest row id). `split`: so many of its records went to `into_id`, another one, while most went elsewhere or
    stayed. `gone`: no record of it is left. `now_id` is the entity that goes on for `entity_id` today, along all that
    was merged; null where none does. An entity that comes back is minted again. Rows marked before stay marked.
    `_parents` are the rows of the history that tell the event.
    Where rows of the history changed, the events of their entities alone are made again, and of those that merged into
    these. Cost: shuffles of the history's ids and times by entity and by record, or of those; a round of joins of the
    merged entities for each doubling of the longest chain of merges.
    """

    name: ClassVar[str] = "entity_events"
    scope: ClassVar[Literal["row", "table"]] = "table"
    grain: ClassVar[Literal["rows", "new"]] = "new"
    light: ClassVar[int] = 2

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns(["entity_id", *TIMES], have)
        return dict(EVENTS)

    @property
    def renews(self) -> bool:
        return True

    def run(self, df: DataFrame, context: Context) -> DataFrame:
        every, changes, others = said_by(df), context.changes(), None
        rows = every
        if changes is not None:
            some, others = reached(every, said_by(changes.before), changes.ids, context)
            rows = every.join(F.broadcast(some), on="e", how="left_semi")
            df = df.join(changes.ids, on=ROW_ID, how="left_semi")
        rows = context.keep(rows, "rows")
        # Of each entity and time: how many records it has from then on, and had until then.
        begun = rows.select("e", F.col("begins").alias("at"), F.lit(1).alias("more"), "row")
        ended = rows.where("ends IS NOT NULL").select("e", F.col("ends").alias("at"), F.lit(-1).alias("more"), "row")
        summed = (F.sum("more").alias("more"), F.array_sort(F.collect_list("row")).alias("of"))
        turns = begun.unionByName(ended).groupBy("e", "at").agg(*summed)
        in_time = W.partitionBy("e").orderBy("at").rowsBetween(W.unboundedPreceding, W.currentRow)
        turns = context.keep(turns.withColumn("then", F.sum("more").over(in_time)), "turns")
        minted = turns.where("then > 0 AND then = more").select(
            "at", F.lit("minted").alias("event"), "e", no_entity(), F.col("then").alias("records"), "of"
        )
        left = rows.where("ends IS NOT NULL").select("e", F.col("ends").alias("at"), "record", "row")
        went = every.select(F.col("e").alias("into_id"), F.col("begins").alias("at"), "record")
        counted = (F.count(F.lit(1)).alias("records"), F.min("record").alias("first"))
        moved = left.join(went, on=["at", "record"], how="inner").groupBy("at", "e", "into_id")
        moves = moved.agg(*counted, F.array_sort(F.collect_list("row")).alias("of"))
        most = W.partitionBy("at", "e").orderBy(F.desc("records"), "first")
        moves = moves.withColumn("rank", F.row_number().over(most))
        ends = turns.where("then = 0").select("at", "e", F.col("of").alias("all"), F.lit(True).alias("over"))
        judged = moves.join(ends.drop("all"), on=["at", "e"], how="left")
        event = F.when(F.col("over") & (F.col("rank") == 1), "merged").otherwise("split").alias("event")
        told = judged.select("at", event, "e", "into_id", "records", "of")
        gone = ends.join(moves.select("at", "e"), on=["at", "e"], how="left_anti")
        gone = gone.select("at", F.lit("gone").alias("event"), "e", no_entity(), F.size("all"), F.col("all"))
        events = minted.union(told).union(gone)
        events = context.keep(events.withColumn("records", F.col("records").cast("bigint")), "events")
        ids = self.living(events, turns, others, context)
        shown = events.join(ids, on="e", how="left").withColumnRenamed("e", "entity_id")
        row = F.md5(content_key(shown, ("at", "event", "entity_id", "into_id"), F.lit(self.id)))
        return with_made(shown.select(*EVENTS, F.col("of").alias(PARENTS), row.alias(ROW_ID)), df, self.id)

    def living(self, events: DataFrame, turns: DataFrame, others: DataFrame | None, context: Context) -> DataFrame:
        """Return for each entity the one that goes on for it: e, now_id (null: none). others: of others, to, now_id."""
        last = turns.groupBy("e").agg(F.max(F.struct("at", "then")).alias("last"))
        merged = events.where("event = 'merged'").select("e", "at", "into_id")
        over = last.where("last.then = 0").select("e", F.col("last.at").alias("at"))
        to = context.keep(over.join(merged, on=["e", "at"], how="left").select("e", F.col("into_id").alias("to")), "to")
        if others is not None:
            known = others.join(F.broadcast(to), on="to", how="left_semi").distinct().withColumn("known", F.lit(True))
            now = F.when(F.col("known"), F.col("now_id")).otherwise(F.col("to"))
            to = context.keep(to.join(known, on="to", how="left").select("e", now.alias("to")), "to_others")
        for turn in itertools.count():
            further = to.select(F.col("e").alias("to"), F.lit(True).alias("dead"), F.col("to").alias("next"))
            both = to.join(further, on="to", how="left")
            if both.where("dead").isEmpty():
                break
            to = both.select("e", F.when(F.col("dead"), F.col("next")).otherwise(F.col("to")).alias("to"))
            to = context.keep(to, f"to_{turn}")
        lives = last.where("last.then > 0").select("e", F.col("e").alias("now_id"))
        return lives.unionByName(to.select("e", F.col("to").alias("now_id")))


def said_by(history: DataFrame) -> DataFrame:
    """Return what the rows of a history say: e, begins, ends, record, row."""
    rows = history.where(is_kept() & F.col("entity_id").isNotNull() & F.col("valid_from").isNotNull())
    return rows.select(
        F.col("entity_id").alias("e"),
        F.col("valid_from").alias("begins"),
        F.col("valid_to").alias("ends"),
        F.coalesce(F.col(PARENTS)[0], F.col(ROW_ID)).alias("record"),
        F.col(ROW_ID).alias("row"),
    )


def reached(every: DataFrame, before: DataFrame, changed: DataFrame, context: Context) -> tuple[DataFrame, DataFrame]:
    """Return the entities whose events a change reaches (e), and which ones go on for all others (to, now_id).

    every: what the history says; before: what its changed rows said; changed: the ids of these. An event is made of the
    rows of its entity, and of the records that left it: so it is reached where any row of such a record changed, or
    what became of an entity that its own merged into. Says that what is made replaces their events of before.
    """
    events = context.previous()
    if events is None:
        raise MakeAll("there is no previous version")
    now = every.join(changed, on=F.col("row") == F.col(ROW_ID), how="left_semi")
    records = context.keep(now.select("record").union(before.select("record")).distinct(), "records")
    mine = every.join(records, on="record", how="left_semi").select("e").union(before.select("e"))
    merged = events.where("event = 'merged'").select("entity_id", "into_id")
    some, edges = (rows.distinct().limit(REACHED + 1).toArrow() for rows in (mine, merged))
    if max(len(some), len(edges)) > REACHED:
        raise MakeAll(f"more than {REACHED:,} entities changed, or merged until now")
    found, known = some["e"], -1
    while len(found) > known:
        known = len(found)
        into = edges.filter(pc.is_in(edges["into_id"], found))["entity_id"]
        found = pa.chunked_array([pc.unique(pa.chunked_array([*found.chunks, *into.chunks], pa.string()))])
    entities = arrow_frame(every.sparkSession, pa.table({"e": found}))
    same = F.col("entity_id") == F.col("e")
    context.replace(events.join(F.broadcast(entities), on=same, how="left_semi").select(ROW_ID))
    others = events.join(F.broadcast(entities), on=same, how="left_anti")
    return entities, others.select(F.col("entity_id").alias("to"), "now_id")


def no_entity() -> Column:
    return F.lit(None).cast("string").alias("into_id")
