"""From links to entities with ids that last."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Literal

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import Window as W
from pyspark.sql import functions as F

from headgate.transforms.fusion import few_entities
from headgate.transforms.fusion.clusters import grouped
from headgate.transforms.fusion.components import label_components
from headgate.transforms.fusion.few_entities import Fates
from headgate.transforms.fusion.groups import whole_groups
from headgate.transforms.rows import ROW_ID, SOURCE, arrow_frame, is_kept, quoted
from headgate.transforms.step import Columns, Context, Step, StepError, require_columns, with_new
from headgate.words import cell, did_you_mean

NEW = {"entity_id": "string", "entity_size": "int", "weakest_link": "double", "weakest_pair": "array<string>"}
NEEDED = ("id_a", "id_b", "score", "rule", "linked")
ENDS = ("source_a", "key_a", "source_b", "key_b")  # as readers know records; links of another make need not have them
GROUPED = "id string, grp string, weakest double, pair array<string>, component string"
NAMED = 3


@dataclass(frozen=True, kw_only=True)
class AssignEntities(Step):
    """Give each record the id of its entity, from a table of links; ids last from one build to the next.

    links: the table of links, as `link_records` makes it.
    one_to_one: whether no entity may have two records of one source.
    source: the column that names a record's source.
    giant: how many records an entity may have before the run's summary names it.
    Records that hang together by links are taken apart where they do not hold together: two groups become one only
    while the mean score over all pairs across them is for it, a pair that is no row of the links counting -4 bits. So
    no chain takes strangers together. What people decided (`must_link`, `cannot_link`) holds whatever the scores.
    Adds `entity_id`, `entity_size` (its records), `weakest_link` (of the links that hold the entity together at best,
    the score of the weakest; null for one record) and `weakest_pair` (the two row ids that it links). An id is minted
    from the smallest row id of the entity whose id is not in use. From one build to the next it stays with the group
    that has most of its records; of several ids a group keeps the one of which it has most. Ties fall to the part with
    the smallest row id. So an entity that gains and loses no record keeps its id, and one that was given up is never
    another's: it comes back only with the record from which it was minted. `entity_history` and `entity_events` tell
    what became of ids. The run's summary counts entities minted, merged, split and gone, and names giant ones with
    their weakest link, and decisions that cannot hold. Rows with one row id are of one entity. Rows marked before get
    nulls. Links to rows that are not there are passed over.
    Cost: shuffles of the links by component, of row ids and entities, and a join of all rows with their entities. Where
    a few links changed, as those of `link_records` do under `refit`, only entities that a change reaches are made
    again, for shuffles of the ids in links and entities. Components of more than 4,000,000 links take rounds that halve
    them. A component is held by one task. Up to 500,000 records, links, and records of before, the driver does all that
    at once. Source: average-link agglomeration.
    """

    name: ClassVar[str] = "assign_entities"
    scope: ClassVar[Literal["row", "table"]] = "table"
    reads_previous: ClassVar[bool] = True
    links: str
    one_to_one: bool = False
    source: str = SOURCE
    giant: int = 100

    def tables(self) -> tuple[str, ...]:
        return (self.links,)

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        if self.links not in tables:
            raise StepError(f"links: there is no table '{self.links}'{did_you_mean(self.links, tables)}")
        try:
            require_columns(NEEDED, tables[self.links])
        except StepError as e:
            raise StepError(f"links: table '{self.links}': {e}; link_records makes such a table") from e
        if self.one_to_one:
            require_columns([self.source], have)
        if self.giant < 1:
            raise StepError(f"giant: {self.giant} is less than 1")
        return with_new(have, NEW)

    def reached(self, table: str, changed: DataFrame) -> DataFrame:
        ends = [changed.select(F.col(c).alias(ROW_ID)) for c in ("id_a", "id_b")]
        return ends[0].unionByName(ends[1]).where(F.col(ROW_ID).isNotNull())

    def tied_rows(self, df: DataFrame, context: Context) -> DataFrame:
        sure = context.table(self.links).where("linked").select(F.col("id_a").alias("a"), F.col("id_b").alias("b"))
        of = label_components(sure, context)
        tied = of.select(F.col("id").alias(ROW_ID), F.concat(F.lit("c"), "component").alias("tie"))
        before = context.previous()
        if before is None or "entity_id" not in before.columns:
            return tied
        several = before.where("entity_id IS NOT NULL AND entity_size > 1")
        held = several.select(ROW_ID, F.concat(F.lit("e"), "entity_id").alias("tie"))
        return tied.unionByName(held)

    def run(self, df: DataFrame, context: Context) -> DataFrame:
        source = F.col(quoted(self.source)).cast("string") if self.one_to_one else F.lit(None).cast("string")
        there = df.where(is_kept()).select(F.col(ROW_ID).alias("id"), source.alias("source"))
        there = there.groupBy("id").agg(F.count(F.lit(1)).alias("rows"), F.min("source").alias("source"))
        links, before = context.table(self.links).select(*NEEDED), context.previous()
        if before is not None:
            before = before.select(F.col(ROW_ID).alias("id"), "entity_id") if "entity_id" in before.columns else None
        many = (context.rows_in or 0) > few_entities.AT_ONCE
        few = None if many else few_entities.held([there, links, *([] if before is None else [before])])
        ids = self.at_once(few, df, context) if few is not None else self.in_spark(there, links, before, context)
        chosen = ids.select(
            F.col("id").alias("_hg_id"), *(F.col(c).cast(kind).alias(f"_hg_{c}") for c, kind in NEW.items())
        )
        out = df.join(chosen, on=F.when(is_kept(), F.col(ROW_ID)) == F.col("_hg_id"), how="left")
        return out.select(*map(quoted, df.columns), *(F.col(f"_hg_{c}").alias(c) for c in NEW))

    def at_once(self, few: list[pa.Table], df: DataFrame, context: Context) -> DataFrame:
        """Return every record with its entity, of few."""
        there, links, *rest = few
        before = rest[0] if rest else None
        links = few_entities.links_there(links, there)
        groups = few_entities.groups_of(links, self.one_to_one)
        self.tell_broken(few_entities.broken(links, groups), context)
        ids, fates = few_entities.named(groups, there, before, context.moment(), self.giant, NAMED)
        self.tell(fates, context)
        return arrow_frame(df.sparkSession, ids)

    def in_spark(self, there: DataFrame, links: DataFrame, before: DataFrame | None, context: Context) -> DataFrame:
        """Return every record with its entity, of any number."""
        there = context.keep(there, "there")
        ends = [there.select(F.col("id").alias(f"id_{e}"), F.col("source").alias(f"source_{e}")) for e in ("a", "b")]
        links = context.keep(links.join(ends[0], on="id_a", how="inner").join(ends[1], on="id_b", how="inner"), "links")
        groups = context.keep(self.grouped(links, context), "groups")
        self.tell_broken(broken_pairs(links, groups), context)
        ids = context.keep(self.named(groups, there, before, context.moment()), "ids")
        self.tell(self.fates(ids, before, context), context)
        return ids

    def grouped(self, links: DataFrame, context: Context) -> DataFrame:
        """Return the groups of records that hold together, of those with links: id, grp, weakest, pair."""
        sure = links.where("linked").select(F.col("id_a").alias("a"), F.col("id_b").alias("b"))
        of = context.keep(label_components(sure, context), "components")
        ends = [of.select(F.col("id").alias(f"id_{e}"), F.col("component").alias(f"component_{e}")) for e in ("a", "b")]
        inside = links.join(ends[0], on="id_a", how="inner").join(ends[1], on="id_b", how="inner")
        inside = (
            inside.where("component_a = component_b").withColumnRenamed("component_a", "component").drop("component_b")
        )
        order = ["component", "id_a", "id_b"]
        rows = inside.select(*order, "score", "rule", "source_a", "source_b").repartition("component")
        return rows.sortWithinPartitions(*order).mapInArrow(by_component(self.one_to_one), GROUPED)

    def named(self, groups: DataFrame, there: DataFrame, before: DataFrame | None, moment: datetime) -> DataFrame:
        """Return every record with its entity: id, old (its id before), and the columns of `NEW`."""
        rows = there.join(groups, on="id", how="left").withColumn("grp", F.coalesce("grp", "id"))
        nothing, known = F.lit(None).cast("string"), None
        if before is None:
            rows = rows.withColumn("old", nothing)
        else:
            mine = before.join(there.select("id"), on="id", how="left_semi")
            known = mine.groupBy("id").agg(F.min("entity_id").alias("old"))
            rows = rows.join(known, on="id", how="left")
        # An id stays with the group that has most of its records; a group keeps the one of which it has most.
        counted = ((-F.count(F.lit(1))).alias("less"), F.min("id").alias("first"))
        overlap = rows.where("old IS NOT NULL").groupBy("old", "grp").agg(*counted)
        goes = overlap.groupBy("old").agg(F.min(F.struct("less", "first", "grp")).alias("to"))
        stays = goes.select("old", "to.*").groupBy("grp").agg(F.min(F.struct("less", "first", "old")).alias("best"))
        rows = rows.join(stays.select("grp", F.col("best.old").alias("kept")), on="grp", how="left")
        # A new one is minted from the smallest record whose id no entity of before has; if all are, from the time too.
        fresh = rows.where("kept IS NULL").select("grp", "id", F.md5(F.concat(F.lit("entity:"), "id")).alias("minted"))
        if known is not None and before is not None:
            held = before.select(F.col("entity_id").alias("minted"))
            used = held.join(fresh.select("minted"), on="minted", how="left_semi").distinct()
            used = used.withColumn("used", F.lit(True))
            fresh = fresh.join(used, on="minted", how="left")
        else:
            fresh = fresh.withColumn("used", nothing)
        smallest = F.min(F.when(F.col("used").isNull(), F.struct("id", "minted")))["minted"]
        then = F.md5(F.concat(F.lit("entity:"), F.min("id"), F.lit(f":{moment.isoformat()}")))
        minted = fresh.groupBy("grp").agg(F.coalesce(smallest, then).alias("minted"))
        rows = rows.join(minted, on="grp", how="left")
        return rows.select(
            "id",
            "old",
            F.coalesce("kept", "minted").alias("entity_id"),
            F.sum("rows").over(W.partitionBy("grp")).alias("entity_size"),
            F.col("weakest").alias("weakest_link"),
            F.col("pair").alias("weakest_pair"),
        )

    def fates(self, ids: DataFrame, before: DataFrame | None, context: Context) -> Fates:
        """Return how many entities there are, what became of those of before, and the giants."""
        entities = ids.groupBy("entity_id").agg(
            F.max("entity_size").alias("size"),
            F.min("weakest_link").alias("weakest"),
            F.min("weakest_pair").alias("pair"),
            F.max(F.col("old").eqNullSafe(F.col("entity_id"))).alias("known"),
        )
        several = F.count(F.when(F.col("size") > 1, 1)).alias("several")
        minted = F.count(F.when(~F.col("known"), 1)).alias("minted")
        now = entities.agg(F.count(F.lit(1)).alias("n"), several, minted, F.max("size").alias("largest")).first()
        assert now is not None  # an aggregate of all rows
        became: dict[str, int] = {}
        if before is not None and not context.partial:
            held = before.where("entity_id IS NOT NULL").select(F.col("entity_id").alias("old")).distinct()
            moved = (
                ids.where("old IS NOT NULL")
                .groupBy("old")
                .agg(
                    F.count_distinct("entity_id").alias("into"),
                    F.max(F.col("old") == F.col("entity_id")).alias("lives"),
                )
            )
            fate = (
                held.join(moved, on="old", how="left")
                .agg(
                    F.count(F.when(F.col("into").isNull(), 1)).alias("gone"),
                    F.count(F.when(F.col("into") > 1, 1)).alias("split"),
                    F.count(F.when(~F.col("lives"), 1)).alias("merged"),
                )
                .first()
            )
            assert fate is not None  # an aggregate of all rows
            became = fate.asDict()
        giants = entities.where(F.col("size") > self.giant).orderBy(F.desc("size"), "entity_id").limit(NAMED).collect()
        return Fates(
            entities=now["n"],
            several=now["several"],
            largest=now["largest"] or 0,
            minted=now["minted"],
            giants=[(g["entity_id"], g["size"], g["weakest"], g["pair"]) for g in giants],
            **became,
        )

    def tell(self, fates: Fates, context: Context) -> None:
        """Say how many entities there are and what became of those of before, and name giant ones."""
        line = f"{fates.entities:,} entities, {fates.several:,} of several records, the largest of {fates.largest:,}"
        if context.partial:
            line = f"of what changed: {line}; {fates.minted:,} minted"
        elif fates.gone is not None:
            line += f"; {fates.minted:,} minted, {fates.merged:,} merged, {fates.split:,} split, {fates.gone:,} gone"
        context.warn(line)
        shown = self.shown([record for *_, pair in fates.giants for record in pair or ()], context)
        for entity, size, weakest, pair in fates.giants:
            one, other = (shown[record] for record in pair) if pair else ("", "")
            bits = f"its weakest link has {weakest or 0:.1f} bits: {one} and {other}"
            context.warn(f"entity {entity} has {size:,} records; {bits if one else 'they have one row id'}")

    def tell_broken(self, pairs: Sequence[tuple[str, str]], context: Context) -> None:
        """Say which pairs that people decided to be one are not, as another decision keeps them apart."""
        if pairs:
            shown = self.shown([record for pair in pairs[:NAMED] for record in pair], context)
            listed = "; ".join(f"{shown[a]} and {shown[b]}" for a, b in pairs[:NAMED])
            more = ", and others" if len(pairs) > NAMED else ""
            context.warn(f"decided to be one, but kept apart by pairs decided to be two: {listed}{more}")

    def shown(self, records: Sequence[str], context: Context) -> dict[str, str]:
        """Return how messages name linked records: by source and key, as the links have them; else by row id."""
        found, links = {record: cell(record) for record in records}, context.table(self.links)
        if not records or not {*ENDS} <= {*links.columns}:
            return found
        for end in ("a", "b"):
            named = links.select(F.col(f"id_{end}").alias("id"), f"source_{end}", f"key_{end}")
            for id_, source, key in named.where(F.col("id").isin(*found)).distinct().collect():
                if key is not None:
                    found[id_] = cell(f"{source} {key}" if source else key)
        return found


def broken_pairs(links: DataFrame, groups: DataFrame) -> list[tuple[str, str]]:
    """Return some pairs that people decided to be one and that are not, in order."""
    ends = [groups.select(F.col("id").alias(f"id_{e}"), F.col("grp").alias(f"grp_{e}")) for e in ("a", "b")]
    must = links.where("rule = 'must_link'").select("id_a", "id_b")
    apart = must.join(ends[0], on="id_a", how="inner").join(ends[1], on="id_b", how="inner").where("grp_a <> grp_b")
    return [(r["id_a"], r["id_b"]) for r in apart.orderBy("id_a", "id_b").limit(NAMED + 1).collect()]


def by_component(apart: bool) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    """Return the body of a map from links in order of component to groups: id, grp, weakest, pair, component."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        for links in whole_groups(batches, "component"):
            yield grouped(links, apart)

    return run
