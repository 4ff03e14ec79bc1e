"""Repair of dirty cells by declared dependencies, learned formats, frequent values and ranges."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa
import pydantic
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.transforms.batches import by_batches, drawn
from headgate.transforms.cleaning.ballots import Stored, counted_votes, model_of, table_of, with_ballots
from headgate.transforms.cleaning.counts import texts_of, value_counts
from headgate.transforms.cleaning.dependencies import discover
from headgate.transforms.cleaning.formats import learn_format
from headgate.transforms.cleaning.markers import is_marker
from headgate.transforms.cleaning.ranges import Range, is_range, learned_ranges, require_range
from headgate.transforms.cleaning.typos import learn_typos, learn_words
from headgate.transforms.cleaning.votes import Model, Rule, faults_of, read_table
from headgate.transforms.kinds import TIMES, is_number, is_text, known_kinds, need_kinds
from headgate.transforms.rows import change_cells, quoted, with_values
from headgate.transforms.step import Columns, Context, Estimator, Step, StepError, require_columns, with_new

ROUNDS = 2
FAULTS = "array<struct<column:string,was:string,proposed:string,reason:string,confidence:double,changed:boolean>>"
SAMPLE = 20_000  # rows in which dependencies are looked for
Repair = Literal["repair", "null", "flag"]
Discover = Literal["nothing", "propose", "apply"]
Ends = tuple[str | float | None, str | float | None]
Given = Annotated[Ends | Literal["learned"], pydantic.BeforeValidator(is_range)]


@dataclass(frozen=True, kw_only=True)
class Dependency:
    """Rows alike in `columns` are alike in each of `decides`."""

    columns: tuple[str, ...]
    decides: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RepairKnown(Step):
    """Repair cells by what was learned: what `repair_cells` becomes once fitted.

    columns: those that are judged together. model: formats, misspellings, votes and ranges, as plain values.
    stored: for each round of votes, the artifact that holds them where they are many; null: they are in the model.
    action, confidence, faults: as in `repair_cells`.
    Cost: one pass; the votes are sent to the workers, or where they are many, joined: a shuffle for each dependency and
    round.
    """

    name: ClassVar[str] = "repair_known"
    columns: tuple[str, ...]
    model: Mapping[str, Any]
    stored: tuple[str | None, ...] = ()
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

    def run(self, df: DataFrame, context: Context) -> DataFrame:
        kinds, before = dict(df.dtypes), df.columns
        df, cells = with_ballots(df, Model.of(self.model), self.stored, kinds, context)
        df, (found,) = with_values(df, [by_batches(judging(self), FAULTS, cells)])
        values, changes = {}, {}
        for column in self.columns:
            fault = change_of(found, column)
            changes[column] = F.size(fault) > 0
            proposed = F.get(fault, F.lit(0))["proposed"]
            new = proposed.try_cast(kinds[column]) if self.action == "repair" else F.lit(None).cast(kinds[column])
            values[column] = F.when(changes[column], new).otherwise(F.col(quoted(column)))
        if self.faults:
            df = df.withColumn(self.faults, found)
        after = [*before, *([self.faults] if self.faults else [])]
        return change_cells(df, self.id, values, changes).select(*map(quoted, after))


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
    ranges: column -> [lowest, highest] of numbers, or of dates as 2013-01-31; what is outside is at fault. Or column ->
        `learned`: five times as far from the median of the training rows, on either side, as a twentieth of the values
        there; also of texts that are numbers.
    sources: the column that says who reported the row; votes then weigh by how often their source agrees with the
        others. Without it each row has one vote.
    action: `repair` (default) changes the cells whose repair is known; `null` empties these and those that are only
        known to be at fault; `flag` changes nothing.
    confidence: share of the weighted votes that a repair must have (0.5); below it, a cell is flagged alone.
    faults: a new column with the row's faults, each with what the cell was, what is proposed, why and how surely, and
        whether it was changed; null for none.
    A repair needs two rows that agree, or a value 20 times as frequent; ties go to the value more frequent in the whole
    column, then to the smaller text, so that neither order nor partitioning matters. An empty text counts as missing.
    Of columns with more than 20,000 distinct values the most frequent ones teach format and frequency. The votes of
    more than 200,000 groups are kept as a file of their own and joined. How `sources` weigh is learned from 1,000,000
    distinct claims at most, those of the groups of the smallest hashes; a source that has none weighs 1. Changed cells
    are noted in `_changed`. Cost: to fit, one shuffle of distinct values, for dependencies two of (group, value), for
    learned ranges exact quantiles; no pairs of rows; one pass to apply, for votes in a file a shuffle for each
    dependency, twice. Source: votes as in HoloClean (Rekatsinas 2017), sources as in CRH (Li 2014).
    """

    name: ClassVar[str] = "repair_cells"
    columns: tuple[str, ...] = ()
    dependencies: tuple[Dependency, ...] = ()
    discover: Discover = "nothing"
    formats: bool = True
    domains: bool = True
    ranges: Mapping[str, Given] | None = None
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

    @property
    def given_ranges(self) -> dict[str, Range]:
        """Return the ranges that are not learned, as texts."""
        ends = {c: given for c, given in (self.ranges or {}).items() if given != "learned"}
        return {c: (text_or_none(low), text_or_none(high)) for c, (low, high) in ends.items()}

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        if not self.judged:
            raise StepError("name columns, dependencies or ranges to judge")
        require_columns([*self.judged, *([self.sources] if self.sources else [])], have)
        for d in self.dependencies:
            if not d.columns or not d.decides or set(d.columns) & set(d.decides):
                raise StepError("a dependency needs columns, and decides others than these")
        if not 0 <= self.confidence <= 1:
            raise StepError(f"confidence: {self.confidence} is not within 0 and 1")
        need_kinds(have, self.name, [*self.judged, *([self.sources] if self.sources else [])], numbers=False)
        for column, kind in known_kinds(have, self.ranges or ()):
            if not is_number(kind) and not is_text(kind) and kind not in ("date", *TIMES):
                raise StepError(f"ranges: '{column}' is {kind}; only numbers, dates and texts have a range")
        for column, ends in self.given_ranges.items():
            require_range(column, have[column], *ends)
        return with_new(have, {self.faults: FAULTS} if self.faults else {})

    def learns_from(self) -> tuple[str, ...]:
        return (*self.judged, *([self.sources] if self.sources else []))

    def fit(self, df: DataFrame, context: Context) -> RepairKnown:
        kinds = dict(df.dtypes)
        columns, rules = self.judged, self.rules
        ranges = learned_ranges(df, [c for c, r in (self.ranges or {}).items() if r == "learned"], kinds)
        ranges |= self.given_ranges
        texts = [c for c in columns if is_text(kinds[c])]
        counted = value_counts(df, columns, kinds, lambda rows: context.keep(rows, "values"))
        raw = {c: counts for c, (_, counts) in counted.items()}
        formats = {}
        if self.formats:
            formats = {c: learn_format({v: n for v, n in raw[c].items() if not is_marker(v)}) for c in texts}
        model = Model(columns=columns, formats=formats, ranges=ranges)
        counts = {c: counts_as_read(raw[c], c, model) for c in columns}
        if self.domains:
            typos = {c: learn_typos(counts[c]) for c in texts}
            words = {c: learn_words(counts[c], formats[c]) for c in formats}
            model = replace(model, typos=typos, words=words)
        rules = [*rules, *self.found(df, model, kinds, context)]
        model = replace(model, counts={c: counts[c] for c in dict.fromkeys(r.decides for r in rules)})
        stored: Stored = ()
        for _ in range(ROUNDS if rules else 0):
            votes, place = counted_votes(df, model, stored, rules, self.sources, context)
            model, stored = replace(model, votes=(*model.votes, votes)), (*stored, place)
        return RepairKnown(
            columns=columns,
            model=model.state(),
            stored=stored if any(stored) else (),
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


def text_or_none(value: str | float | None) -> str | None:
    return None if value is None else str(value)


def change_of(faults: Column, column: str) -> Column:
    """Return the list of the one fault of a column that is changed; empty if there is none."""
    return F.filter(faults, lambda x: (x["column"] == column) & x["changed"])


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
        for i, faults in faults_of(table, model_of(model, cells)):
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
