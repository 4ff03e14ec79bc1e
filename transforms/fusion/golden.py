"""One golden record for each entity, each of its values with where it comes from and how sure it is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from headgate.transforms.fusion.choices import MADE as MADE_RULES
from headgate.transforms.fusion.choices import How, Plan, by_entity
from headgate.transforms.fusion.entities import NEW
from headgate.transforms.fusion.learning import LEARNED, learned_from
from headgate.transforms.fusion.sources import require_sources
from headgate.transforms.kinds import as_text, is_number, is_plain, is_text, present
from headgate.transforms.rows import (
    BOOKKEEPING,
    CHANGED,
    CHANGED_TYPE,
    FILE,
    FILE_DATE,
    MADE,
    PARENTS,
    REJECTED,
    ROW_ID,
    SOURCE,
    canonical,
    content_key,
    is_kept,
    quoted,
    struct_of,
)
from headgate.transforms.step import (
    Changes,
    Columns,
    Context,
    MakeAll,
    NoSuchColumn,
    Step,
    StepError,
    require_columns,
    user_columns,
)

SHOWS = r"[^\p{Z}\p{Cc}\p{Cf}]"  # a text that is not blank
EVIDENCE = (
    "map<string,struct<source:string,rule:string,confidence:double,runner_up:string,conflict:boolean,tie:boolean,"
    "majority:string>>"
)


@dataclass(frozen=True, kw_only=True)
class GoldenRecords(Step):
    """Make one record of all records of an entity, each value chosen by a rule, with the evidence.

    by: the column that names the entity. Rows where it is null make no record.
    rule: how the values of columns are chosen for which `columns` says nothing.
    columns: column -> rule. `vote`: the value of most records. `weighted_vote`: of most weight (`weights`). `truth`: a
        vote in which sources count by an accuracy that is learned from all entities; `crh`: by their distance from the
        truth; `dawid_skene`: by what they confuse, for columns of at most 50 values. `priority`: of the first of
        `sources`. `recent`: of the record that is last by `recent`. `longest`: the text of most characters, the array
        or map of most elements that are not null, the binary of most bytes; of other types it is refused here, and as
        the `rule` of all columns a vote. `complete`: of the record with most values. `mean`, `median`: of numbers, as a
        double. `weighted_mean`, `weighted_median`: those in which sources weigh by how far they are off, as all
        entities tell; infinities have no say in them. A mean of infinities of both signs is null.
    together: lists of columns that are taken whole from one record, such as street, city and zip: of those with most of
        them filled, the one that the rule of the first column chooses.
    source: the column that names a record's source, if it is there; it is not in the golden record.
    sources: names of sources, the most trusted first; others come after these.
    weights: source -> weight for `weighted_vote`, not negative; others weigh 1. A name that no record has is refused,
        here and in `sources`, where records are of a source that is not named.
    recent: the column that orders records for `recent`, the greatest last; a null comes before all.
    The table's `grain` is new: its rows have the id of the entity, `records` (of how many rows it is made), all
    columns, and `evidence`: column -> source, rule, confidence, runner_up (the next best value), conflict (whether the
    records contradict each other), tie (whether the rule alone did not decide) and majority (what a vote would say);
    arrays, structs and maps are JSON there, bytes hexadecimal.
    The columns that `assign_entities` adds are left out. Nulls, NaN and blank texts have no say; where all are, the
    value is null. Ties fall to the value of more records, then to the source that comes first, then to the smaller row
    id. Confidence is the value's share of what decides: of votes, of weight, its probability; for other rules the share
    of the records that agree with it. Rows marked before stay marked.
    Where rows changed, the records of their entities alone are made again, unless a rule learns from all entities.
    Cost: one shuffle of all rows by entity; a pass over the claims for each round of learning (60 at most), on the
    driver for up to 1,000,000 claims. Source: Dong, Berti-Equille, Srivastava 2009; Li et al. 2014; Dawid, Skene 1979.
    """

    name: ClassVar[str] = "golden_records"
    revision: ClassVar[int] = 4
    scope: ClassVar[Literal["row", "table"]] = "table"
    grain: ClassVar[Literal["rows", "new"]] = "new"
    by: str = "entity_id"
    rule: How = "vote"
    columns: Mapping[str, How] | None = None
    together: tuple[tuple[str, ...], ...] = ()
    source: str = SOURCE
    sources: tuple[str, ...] = ()
    weights: Mapping[str, float] | None = None
    recent: str | None = None

    @property
    def whole_rows(self) -> bool:
        return True

    @property
    def renews(self) -> bool:
        return not {self.rule, *(self.columns or {}).values()} & set(LEARNED)

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        grouped = [c for group in self.together for c in group]
        require_columns([self.by, *(self.columns or ()), *grouped, *([self.recent] if self.recent else [])], have)
        twice = next((c for c in grouped if grouped.count(c) > 1), None)
        if twice is not None:
            raise StepError(f"together: '{twice}' is in two lists")
        if self.by in (*grouped, *(self.columns or ())):
            raise StepError(f"'{self.by}' names the entity: it cannot have a rule")
        for name, weight in (self.weights or {}).items():
            if not 0 <= weight < math.inf:
                raise StepError(f"weights: {weight} of '{name}' is not 0 or above")
        if self.recent is not None and not is_plain(have[self.recent] or "string"):
            raise StepError(f"recent: '{self.recent}' is {have[self.recent]}, not a plain value; put a cast before")
        named = next((o for o in self.named_sources if self.source not in have), None)
        if named is not None:
            raise NoSuchColumn(self.source, [*have], f"source, of which {named} speaks: ")
        after: dict[str, str | None] = {self.by: have[self.by], "records": "bigint"}
        for columns in self.units(have):
            rule, first = self.rule_of(columns[0], have), columns[0]
            if rule == "longest" and not has_length(have[first]):
                raise StepError(f"'{first}' is {have[first]}, which has no longest: texts, arrays, maps and bytes do")
            if rule in MADE_RULES:
                if len(columns) > 1:
                    raise StepError(f"together: '{first}' has the rule {rule}, which makes a value of no record")
                if not is_number(have[first] or "double"):
                    raise StepError(f"'{first}' is {have[first]}, not a number: it has no {rule}")
            if rule == "recent" and self.recent is None:
                raise StepError(f"'{first}' has the rule recent: name the column that orders records, recent: …")
            if rule == "priority" and not self.sources:
                raise StepError(f"'{first}' has the rule priority: name the sources, the most trusted first")
            if rule == "weighted_vote" and not self.weights:
                raise StepError(f"'{first}' has the rule weighted_vote: give weights, source -> weight")
            for column in columns:
                after[column] = "double" if rule in MADE_RULES else have[column]
        taken = next((c for c in ("records", "evidence") if c in have), None)
        if taken is not None:
            raise StepError(f"there is a column '{taken}' already; rename it before")
        return {**after, "evidence": EVIDENCE}

    @property
    def source_column(self) -> str:
        return self.source

    @property
    def named_sources(self) -> dict[str, tuple[str, ...]]:
        """Return the names of sources that options say something of, by option."""
        named = {"sources": self.sources, "weights": tuple(self.weights or ())}
        return {option: names for option, names in named.items() if names}

    def rule_of(self, column: str, have: Columns) -> How:
        """Return the rule of a column; that of all columns is a vote where it can say nothing of a type."""
        usual = "vote" if self.rule == "longest" and not has_length(have[column]) else self.rule
        return (self.columns or {}).get(column, usual)

    def units(self, have: Columns) -> list[tuple[str, ...]]:
        """Return the columns in order, those that are taken together as one."""
        entity = NEW if self.by in NEW else {}
        left_out = (self.by, self.source, SOURCE, FILE, FILE_DATE, *entity)
        group = {c: g for g in self.together for c in g}
        units = [group.get(c, (c,)) for c in have if c not in left_out]
        return list(dict.fromkeys(units))

    def run(self, df: DataFrame, context: Context) -> DataFrame:
        changes = context.changes()
        marked = df.where(~is_kept())
        if changes is not None:
            marked = marked.join(changes.ids, on=ROW_ID, how="left_semi")
            df = self.of_changed(df, changes, context)
        else:
            require_sources(df, self.source, self.named_sources)
        have = user_columns(df)
        units = self.units(have)
        rows = self.claims(df, have, units)
        learned = {}
        rules = tuple(self.rule_of(u[0], have) for u in units)
        wanted = {i: rule for i, rule in enumerate(rules) if rule in LEARNED}
        if wanted:
            rows = context.keep(rows, "claims")
            for i, rule in wanted.items():
                learned[i] = learned_from(rows, f"t{i}", rule, units[i][0], context)
        after = self.columns_after(have, {})
        kinds = {f.name: f.dataType for f in df.schema.fields}
        schema = (
            T.StructType()
            .add("e", kinds[self.by])
            .add("records", T.LongType())
            .add("parents", T.ArrayType(T.StringType()))
        )
        for column in (c for u in units for c in u):
            schema.add(f"o{len(schema)}", T.DoubleType() if after[column] == "double" else kinds[column])
        schema = T.StructType([*schema.fields, *struct_of(f"evidence {EVIDENCE}").fields])
        plan = Plan(
            units=tuple(units),
            rules=rules,
            weights=dict(self.weights or {}),
            learned=learned,
        )
        sent = rows.repartition("e").sortWithinPartitions("e", "rank", "id")
        made = sent.mapInArrow(by_entity(plan), schema)
        names = [c for u in units for c in u]
        shown = made.select(
            F.col("e").alias(self.by),
            "records",
            *(F.col(f"o{i + 3}").alias(c) for i, c in enumerate(names)),
            "evidence",
            F.col("parents").alias(PARENTS),
        )
        book = {
            ROW_ID: F.md5(content_key(shown, (self.by,), F.lit(self.id))),
            CHANGED: F.array().cast(CHANGED_TYPE),
            REJECTED: F.lit(None).cast(BOOKKEEPING[REJECTED]),
            MADE: F.lit(self.id),
        }
        shown = shown.withColumns(book)
        marked = marked.select(*(quoted(c) for c in (self.by, *BOOKKEEPING)))
        return shown.unionByName(marked, allowMissingColumns=True)

    def of_changed(self, df: DataFrame, changes: Changes, context: Context) -> DataFrame:
        """Return the rows of entities that have a changed row, or had one, whose records are made again."""
        entity = F.col(quoted(self.by)).alias("_hg_entity")
        changed = [df.join(changes.ids, on=ROW_ID, how="left_semi"), changes.before]
        some = [rows.where(is_kept()).select(entity).where("_hg_entity IS NOT NULL") for rows in changed]
        entities = context.keep(some[0].union(some[1]).distinct(), "entities")
        same = F.col(quoted(self.by)) == F.col("_hg_entity")
        before = context.previous()
        if before is None:
            raise MakeAll("there is no previous version")
        context.replace(before.join(entities, on=same, how="left_semi").select(ROW_ID))
        return df.join(entities, on=same, how="left_semi")

    def claims(self, df: DataFrame, have: Mapping[str, str], units: Sequence[tuple[str, ...]]) -> DataFrame:
        """Return the unmarked rows of entities: e, id, source, rank (of the source), last (in time), parents, then of
        each unit its text t0 …, how much of it is filled, f0 …, where the rule asks how long it is, l0 …, and the
        cells c0 … of all columns."""
        types = {f.name: f.dataType for f in df.schema.fields}
        source = F.col(quoted(self.source)).cast("string") if self.source in df.columns else F.lit(None).cast("string")
        rank = F.lit(len(self.sources))
        for i, name in reversed(list(enumerate(self.sources))):
            rank = F.when(source == F.lit(name), i).otherwise(rank)
        recent = self.recent
        last = F.lit(None).cast("string") if recent is None else F.col(quoted(recent))

        def cell(column: str) -> Column:
            value = present(column, have[column])
            return F.when(value.rlike(SHOWS), value) if is_text(have[column] or "") else value

        def text(column: str) -> Column:
            if is_plain(have[column]):
                return as_text(cell(column), have[column])
            return F.when(F.col(quoted(column)).isNotNull(), canonical(F.col(quoted(column)), types[column]))

        def shown(column: str) -> Column:
            value, kind = cell(column), have[column] or ""
            if kind.startswith(("array", "struct", "map", "variant")):
                return F.to_json(value, {"ignoreNullFields": "false"})
            return F.hex(value) if kind == "binary" else value.cast("string")

        made, names = [], [c for u in units for c in u]
        for i, unit in enumerate(units):
            filled = sum((text(c).isNotNull().cast("int") for c in unit), F.lit(0))
            whole = text(unit[0]) if len(unit) == 1 else F.to_json(F.array(*map(text, unit)))
            made += [F.when(filled > 0, whole).alias(f"t{i}"), filled.alias(f"f{i}")]
            if self.rule_of(unit[0], have) == "longest":
                lengths = [length(cell(c), have[c]) for c in unit if has_length(have[c])]
                made.append(sum(lengths, F.lit(0)).alias(f"l{i}"))
            if not all(is_plain(have[c]) for c in unit):
                told = [shown(c) for c in unit]
                made.append((told[0] if len(unit) == 1 else F.to_json(F.array(*told))).alias(f"s{i}"))
        parents = F.when(F.col(MADE).isNull(), F.array(ROW_ID)).otherwise(F.col(PARENTS))
        return df.where(is_kept() & F.col(quoted(self.by)).isNotNull()).select(
            F.col(quoted(self.by)).alias("e"),
            F.col(ROW_ID).alias("id"),
            source.alias("source"),
            rank.alias("rank"),
            last.alias("last"),
            parents.alias("parents"),
            *made,
            *(cell(c).alias(f"c{i}") for i, c in enumerate(names)),
        )


def has_length(kind: str | None) -> bool:
    """Return whether values of a type, or of one that is not known, can be long or short."""
    return kind is None or is_text(kind) or kind == "binary" or kind.startswith(("array<", "map<"))


def length(value: Column, kind: str | None) -> Column:
    """Return the characters of a text, the bytes of a binary, the elements of an array or a map that are not null."""
    of = kind or ""
    if of.startswith("map<"):
        value = F.map_values(value)
    long = F.size(F.filter(value, lambda x: x.isNotNull())) if of.startswith(("array<", "map<")) else F.length(value)
    return F.coalesce(long, F.lit(0))
