"""Repair of dirty cells by declared dependencies, learned formats, frequent values and ranges."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.transforms.batches import by_batches, drawn
from headgate.transforms.cleaning.counts import texts_of, value_counts
from headgate.transforms.cleaning.dependencies import discover
from headgate.transforms.cleaning.formats import learn_format
from headgate.transforms.cleaning.markers import is_marker
from headgate.transforms.cleaning.sources import source_weights
from headgate.transforms.cleaning.typos import learn_typos, learn_words
from headgate.transforms.cleaning.votes import Model, Ranked, Rule, Votes, faults_of, read_table
from headgate.transforms.kinds import as_text, is_number, need_kinds
from headgate.transforms.rows import change_cells, drop_values, local_frame, quoted, with_values
from headgate.transforms.step import Columns, Context, Estimator, Step, StepError, require_columns, with_new

CANDIDATES = 5  # of each group's values, the most frequent ones
ROUNDS = 2
MOST_GROUPS = 200_000  # groups that a fitted step may hold
MOST_CLAIMS = 1_000_000  # (group, value, source) that come to the driver
FAULTS = "array<struct<column:string,was:string,proposed:string,reason:string,confidence:double,changed:boolean>>"
SAMPLE = 20_000  # rows in which dependencies are looked for
Repair = Literal["repair", "null", "flag"]
Discover = Literal["nothing", "propose", "apply"]


@dataclass(frozen=True, kw_only=True)
class Dependency:
    """Rows alike in `columns` are alike in each of `decides`."""

    columns: tuple[str, ...]
    decides: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RepairKnown(Step):
    """Repair cells by what was learned: what `repair_cells` becomes once fitted.

    columns: those that are judged together. model: formats, misspellings, votes and ranges, as plain values.
    action, confidence, faults: as in `repair_cells`.
    Cost: one pass; the votes are sent to the workers.
    """

    name: ClassVar[str] = "repair_known"
    columns: tuple[str, ...]
    model: Mapping[str, Any]
    action: Repair = "repair"
    confidence: float = 0.5
    faults: str | None = "faults"

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns(self.columns, have)
        return with_new(have, {self.faults: FAULTS} if self.faults else {})

    def check(self, df: DataFrame, context: Context) -> None:
        super().check(df, context)
        need_kinds(df, self.name, self.columns, numbers=False)

    def learned(self) -> bool:
        return any(self.model[part] for part in ("formats", "votes", "ranges"))

    def apply(self, df: DataFrame) -> DataFrame:
        kinds = dict(df.dtypes)
        df, (found,) = with_values(df, [by_batches(judging(self), FAULTS, texts_of(self.columns, kinds))])
        values, changes = {}, {}
        for column in self.columns:
            fault = change_of(found, column)
            changes[column] = F.size(fault) > 0
            proposed = F.get(fault, F.lit(0))["proposed"]
            new = proposed.try_cast(kinds[column]) if self.action == "repair" else F.lit(None).cast(kinds[column])
            values[column] = F.when(changes[column], new).otherwise(F.col(quoted(column)))
        if self.faults:
            df = df.withColumn(self.faults, found)
        return drop_values(change_cells(df, self.id, values, changes), [found])


@dataclass(frozen=True, kw_only=True)
class RepairCells(Estimator):
    """Find and repair dirty cells by declared dependencies, learned formats, frequent values and ranges.

    columns: the columns to judge, of plain types; those of dependencies and ranges are judged too.
    dependencies: each is {columns: [zip], decides: [city, state]}: rows alike in `columns` are alike in each of
        `decides`. A cell that its group outvotes gets the group's value; so does an empty one.
    discover: what is done with dependencies of one column on another that a sample of 20,000 training rows shows:
        `nothing` (default); `propose` names them in the summary; `apply` repairs by them as well.
    formats: whether to learn formats of text columns (default true): markers of missing values ("N/A") are emptied, a
        unit or sign that only some cells write is taken off ("12 oz" beside "12"), a value inside a longer text is
        taken out of it; of any other wrong format only the fault is known.
    domains: whether a rare text one or two edits away from a frequent one of the column is taken for its misspelling
        (default true); not where the group backs it.
    ranges: column -> [lowest, highest] of numbers, or of dates as 2013-01-31; what is outside is at fault.
    sources: the column that says who reported the row; votes then weigh by how often their source agrees with the
        others. Without it each row has one vote.
    action: `repair` (default) changes the cells whose repair is known; `null` empties these and those that are only
        known to be at fault; `flag` changes nothing.
    confidence: share of the weighted votes that a repair must have (0.5); below it, a cell is flagged alone.
    faults: a new column with the row's faults, each with what the cell was, what is proposed, why and how surely, and
        whether it was changed; null for none.
    A repair needs two rows that agree, or a value 20 times as frequent; ties go to the value more frequent in the whole
    column, then to the smaller text, so that neither order nor partitioning matters. An empty text counts as
    missing. Of columns with more than 20,000 distinct values the most frequent ones teach format and frequency; above
    200,000 groups (with `sources`, 1,000,000 distinct claims) the fit is refused. Changed cells are noted in
    `_changed`. Cost: to fit, one shuffle of distinct values and, for dependencies, two of (group, value); no pairs of
    rows; one pass to apply. Source: votes as in HoloClean (Rekatsinas 2017), sources as in CRH (Li 2014).
    """

    name: ClassVar[str] = "repair_cells"
    columns: tuple[str, ...] = ()
    dependencies: tuple[Dependency, ...] = ()
    discover: Discover = "nothing"
    formats: bool = True
    domains: bool = True
    ranges: Mapping[str, tuple[str | float | None, str | float | None]] | None = None
    sources: str | None = None
    action: Repair = "repair"
    confidence: float = 0.5
    faults: str | None = "faults"

    @property
    def rules(self) -> list[Rule]:
        """Return the dependencies, one a column decided, each once."""
        return list(dict.fromkeys(Rule(d.columns, c) for d in self.dependencies for c in d.decides))

    @property
    def judged(self) -> tuple[str, ...]:
        """Return all columns that are judged."""
        named = [c for d in self.dependencies for c in (*d.columns, *d.decides)]
        return tuple(dict.fromkeys([*self.columns, *named, *(self.ranges or ())]))

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        if not self.judged:
            raise StepError("name columns, dependencies or ranges to judge")
        require_columns([*self.judged, *([self.sources] if self.sources else [])], have)
        for d in self.dependencies:
            if not d.columns or not d.decides or set(d.columns) & set(d.decides):
                raise StepError("a dependency needs columns, and decides others than these")
        if not 0 <= self.confidence <= 1:
            raise StepError(f"confidence: {self.confidence} is not within 0 and 1")
        return with_new(have, {self.faults: FAULTS} if self.faults else {})

    def check(self, df: DataFrame, context: Context) -> None:
        super().check(df, context)
        need_kinds(df, self.name, [*self.judged, *([self.sources] if self.sources else [])], numbers=False)
        kinds = dict(df.dtypes)
        for column in self.ranges or ():
            if not is_number(kinds[column]) and not kinds[column].startswith(("string", "date", "timestamp")):
                raise StepError(f"ranges: '{column}' is {kinds[column]}; only numbers, dates and texts have a range")

    def learns_from(self) -> tuple[str, ...]:
        return (*self.judged, *([self.sources] if self.sources else []))

    def fit(self, df: DataFrame, context: Context) -> RepairKnown:
        kinds = dict(df.dtypes)
        columns, rules = self.judged, self.rules
        ranges = {c: tuple(None if b is None else str(b) for b in pair) for c, pair in (self.ranges or {}).items()}
        texts = [c for c in columns if kinds[c].startswith(("string", "char", "varchar"))]
        counted = value_counts(df, columns, kinds, lambda rows: context.keep(rows, "values"))
        raw = {c: counts for c, (_, counts) in counted.items()}
        formats = {}
        if self.formats:
            formats = {c: learn_format({v: n for v, n in raw[c].items() if not is_marker(v)}) for c in texts}
        model = Model(columns=columns, formats=formats, ranges=ranges)  # type: ignore[arg-type]
        counts = {c: counts_as_read(raw[c], c, model) for c in columns}
        if self.domains:
            typos = {c: learn_typos(counts[c]) for c in texts}
            words = {c: learn_words(counts[c], formats[c]) for c in formats}
            model = replace(model, typos=typos, words=words)
        rules = [*rules, *self.found(df, model, kinds, context)]
        model = replace(model, counts={c: counts[c] for c in dict.fromkeys(r.decides for r in rules)})
        for _ in range(ROUNDS if rules else 0):
            rows = cells_as_read(df, model, rules, kinds, self.sources)
            counter = votes_of_sources if self.sources else votes_of_rows
            model = replace(model, votes=(*model.votes, counter(rows, rules, model.counts)))
        return RepairKnown(
            columns=columns,
            model=model.state(),
            action=self.action,
            confidence=self.confidence,
            faults=self.faults,
        )

    def found(self, df: DataFrame, model: Model, kinds: Mapping[str, str], context: Context) -> list[Rule]:
        """Return the dependencies that are found and to be applied; warn of each."""
        if self.discover == "nothing":
            return []
        cells = drawn(df, texts_of(model.columns, kinds), SAMPLE, seed=0)
        declared, shown = set(self.rules), discover(read_table(table_of(cells, model.columns), model))
        applied = self.discover == "apply"
        done = "repaired by" if applied else "not repaired by: name it in `dependencies` if it holds"
        for rule, agreement in shown:
            if rule not in declared:
                context.warn(f"{self.name}: {rule} holds for {agreement:.1%} of a sample; {done}")
        return [rule for rule, _ in shown if applied and rule not in declared]


def change_of(faults: Column, column: str) -> Column:
    """Return the list of the one fault of a column that is changed; empty if there is none."""
    return F.filter(faults, lambda x: (x["column"] == column) & x["changed"])


def table_of(cells: pa.StructArray, columns: Sequence[str]) -> dict[str, list[str | None]]:
    return {c: cells.field(i).to_pylist() for i, c in enumerate(columns)}


def judging(step: RepairKnown) -> Callable[[pa.Array], pa.Array]:
    """Return the function of a batch of rows that lists the faults of each."""
    model, action, least, columns = Model.of(step.model), step.action, step.confidence, step.columns
    kind = pa.struct(
        [
            *((name, pa.string()) for name in ("column", "was", "proposed", "reason")),
            ("confidence", pa.float64()),
            ("changed", pa.bool_()),
        ]
    )

    def judge(cells: pa.Array) -> pa.Array:
        table = table_of(cells, columns)
        found: list[list[dict[str, Any]]] = [[] for _ in range(len(cells))]
        for i, faults in faults_of(table, model):
            for column, fault in sorted(faults.items()):
                changed = action == "null" or (action == "repair" and fault.sure and fault.confidence >= least)
                entry = {"column": column, "was": table[column][i], "proposed": fault.new, "reason": fault.reason}
                found[i].append(entry | {"confidence": round(fault.confidence, 4), "changed": changed})
        return pa.array(found, pa.list_(kind))

    return judge


def counts_as_read(counts: Mapping[str, int], column: str, model: Model) -> dict[str, int]:
    read: Counter[str] = Counter()
    for value, n in counts.items():
        text = model.read(column, value)[0]
        if text:
            read[text] += n
    return dict(sorted(read.items()))


def cells_as_read(
    df: DataFrame, model: Model, rules: Sequence[Rule], kinds: Mapping[str, str], sources: str | None
) -> DataFrame:
    """Return (rule, key, value, source) of rows and dependencies: determinants as repaired so far, the rest as read."""
    columns = model.columns
    fields = [f"{kind}{i}:string" for kind in "kr" for i in range(len(columns))]
    read = by_batches(reading(model), f"struct<{','.join(fields)}>", texts_of(columns, kinds))
    source = as_text(F.col(quoted(sources)), kinds[sources]) if sources else F.lit(None).cast("string")
    df, (cells, _) = with_values(df, [read, source])
    claims = []
    for r, rule in enumerate(rules):
        key = F.array(*(cells[f"k{columns.index(c)}"] for c in rule.columns))
        value = cells[f"r{columns.index(rule.decides)}"]
        claims.append(F.struct(F.lit(r).alias("rule"), key.alias("key"), value.alias("value")))
    each = df.select(F.explode(F.array(*claims)).alias("x"), F.col("_hg_value_1").alias("source"))
    known = F.col("x.value").isNotNull() & ~F.exists(F.col("x.key"), lambda k: k.isNull())
    return each.where(known).select("x.rule", "x.key", "x.value", "source")


def reading(model: Model) -> Callable[[pa.Array], pa.Array]:
    """Return the function of a batch of rows that gives its cells as repaired by the votes so far, and as read."""

    def read(cells: pa.Array) -> pa.Array:
        table = table_of(cells, model.columns)
        plain = read_table(table, model)
        repaired = {c: list(values) for c, values in plain.items()}
        if model.votes:
            # As the repaired table is read again: a fault without a cure is empty there.
            for i, faults in faults_of(table, model):
                for column, fault in faults.items():
                    repaired[column][i] = fault.new
        parts = [*repaired.values(), *plain.values()]
        names = [f"{kind}{i}" for kind in "kr" for i in range(len(model.columns))]
        return pa.StructArray.from_arrays([pa.array(p, pa.string()) for p in parts], names)

    return read


def votes_of_rows(rows: DataFrame, rules: Sequence[Rule], counts: Mapping[str, Mapping[str, int]]) -> tuple[Votes, ...]:
    """Count the votes of each dependency, a row one vote."""
    overall = [(r, v, n) for r, rule in enumerate(rules) for v, n in counts[rule.decides].items()]
    lookup = local_frame(rows.sparkSession, overall, "rule int, value string, overall bigint")
    pairs = rows.groupBy("rule", "key", "value").agg(F.count(F.lit(1)).alias("n"))
    ranked = pairs.join(F.broadcast(lookup), on=["rule", "value"], how="left")
    order = F.struct(-F.col("n"), -F.coalesce("overall", F.lit(0)), F.col("value"))
    groups = ranked.groupBy("rule", "key").agg(
        F.sum("n").alias("rows"), F.slice(F.sort_array(F.collect_list(order)), 1, CANDIDATES).alias("top")
    )
    found = groups.limit(MOST_GROUPS + 1).collect()
    if len(found) > MOST_GROUPS:
        raise StepError(f"dependencies: more than {MOST_GROUPS:,} groups of {'; '.join(map(str, rules))}")
    grouped: list[dict[tuple[str, ...], tuple[float, Ranked]]] = [{} for _ in rules]
    for rule, key, n, top in found:
        grouped[rule][tuple(key)] = (float(n), tuple((x[2], float(-x[0])) for x in top))
    return tuple(settled(rule, groups) for rule, groups in zip(rules, grouped, strict=True))


def settled(rule: Rule, groups: Mapping[tuple[str, ...], tuple[float, Ranked]]) -> Votes:
    """Return the votes of one dependency with their strength: how often a row agrees with the others of its group."""
    agree = judged = 0.0
    for _, (rows, ranked) in sorted(groups.items()):
        if rows > 1:
            judged += rows
            second = ranked[1][1] if len(ranked) > 1 else 0
            agree += ranked[0][1] if ranked[0][1] > 1 and ranked[0][1] - 1 >= second else 0
    return Votes(rule=rule, groups=groups, strength=(agree + 1) / (judged + 2))


def votes_of_sources(
    rows: DataFrame, rules: Sequence[Rule], counts: Mapping[str, Mapping[str, int]]
) -> tuple[Votes, ...]:
    """Count the votes of each dependency, a row as its source weighs; one without a source weighs 1."""
    counted = rows.groupBy("rule", "key", "value", "source").agg(F.count(F.lit(1)).alias("n"))
    found = counted.limit(MOST_CLAIMS + 1).collect()
    if len(found) > MOST_CLAIMS:
        raise StepError(f"sources: more than {MOST_CLAIMS:,} distinct claims of {'; '.join(map(str, rules))}")
    claims = sorted(((r, tuple(k)), v, s or "", n) for r, k, v, s, n in found)
    weights = source_weights([c for c in claims if c[2]])
    totals: dict[tuple[int, tuple[str, ...]], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for group, value, source, n in claims:
        totals[group][value] += n * weights.get(source, 1.0)
    grouped: list[dict[tuple[str, ...], tuple[float, Ranked]]] = [{} for _ in rules]
    for (rule, key), values in totals.items():
        overall = counts[rules[rule].decides]
        ranked = sorted(values.items(), key=lambda vn: (-round(vn[1], 9), -overall.get(vn[0], 0), vn[0]))
        grouped[rule][key] = (sum(values.values()), tuple(ranked[:CANDIDATES]))
    return tuple(settled(rule, groups) for rule, groups in zip(rules, grouped, strict=True))
