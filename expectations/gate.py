"""The gate: judges a staged table by a suite, in one pass however many rules.

Before the staging write, Great Expectations' own `<map_metric>.condition` columns are compiled, without a Spark job,
into bit masks that are written beside the rows. After it, one aggregate over the staged table, and where rows fail one
over these, turn the plain aggregates and the bits into metrics. A genuine `ValidationDefinition` then runs on an engine
that takes those metrics as known; only distinct, quantile, window and foreign-key rules still run queries of their own.
The interfaces used are private to Great Expectations, so its version is pinned and tests compare every verdict with the
stock engine's.
"""

import functools
import json
import logging
import operator
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import great_expectations as gx
from great_expectations.data_context.data_context.context_factory import set_context
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.exceptions import MetricResolutionError
from great_expectations.execution_engine import SparkDFExecutionEngine
from great_expectations.expectations.registry import get_expectation_impl, get_metric_provider
from great_expectations.expectations.row_conditions import (
    Condition,
    PassThroughCondition,
    deserialize_row_condition,
)
from great_expectations.util import convert_to_json_serializable
from great_expectations.validator.v1_validator import Validator
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from headgate.expectations import balance, drift, own  # noqa: F401  (register headgate's own expectations)
from headgate.expectations.moments import why_unsound
from headgate.expectations.suites import DIMENSIONS, Rule, Suite, SuiteError, build

# Counts without examples: the ledger holds the examples.
RESULT_FORMAT = {"result_format": "BASIC", "partial_unexpected_count": 0}
SCHEMA_METRICS = ("table.columns", "table.column_types")
LAZY = (".condition", ".aggregate_fn", ".map")
# Conditions that look at other rows: uniqueness is counted per key, without the stock engine's window over whole rows;
# order stays with the stock engine.
UNIQUE = ("column_values.unique.", "compound_columns.unique.")
WINDOWED = (*UNIQUE, "column_values.increasing.", "column_values.decreasing.")
STOCK = threading.Lock()  # Great Expectations keeps the context that it works with in one place of the process
BITS = 63  # of a BIGINT, without the sign
MASK = "_hg_failed"
ROW_ID = "_row_id"
SPARSEST = 16  # whole numbers per key, up to which their bits are cheaper than the keys

logging.getLogger("great_expectations").setLevel(logging.CRITICAL)


class GateEngine(SparkDFExecutionEngine):
    """Spark's engine, which takes the metrics in `known` (by GX's own metric ids) as they are."""

    known: dict[Any, Any]
    parents: Mapping[str, DataFrame]

    def resolve_metrics(
        self, metrics_to_resolve: Any, metrics: Any = None, runtime_configuration: Any = None
    ) -> dict[Any, Any]:
        wanted = list(metrics_to_resolve)
        answered = {m.id: self.known[m.id] for m in wanted if m.id in self.known}
        if answered:
            return answered  # the others come back in the next round
        # One by one, and the bundled aggregates together: the stock engine loses all that a round has computed
        # when one metric of it raises, and computes it again. A bundle that raises is taken apart, so that only the
        # rule at fault is told.
        resolved: dict[Any, Any] = {}
        first_error = None
        groups = [[m] for m in wanted if get_metric_provider(m.metric_name, self)[1] is not None]
        groups.append([m for m in wanted if get_metric_provider(m.metric_name, self)[1] is None])
        for group in groups:
            if group:
                try:
                    resolved |= super().resolve_metrics(group, metrics, runtime_configuration)
                except MetricResolutionError as e:
                    if len(group) > 1:
                        groups.extend([m] for m in group)
                    else:
                        first_error = first_error or e
        if first_error is not None:
            self.known |= resolved
            raise first_error
        return resolved


@dataclass
class Bit:
    """A row rule: where it fails, and which rows it looks at."""

    rule_metric: Any  # id of the metric that counts its failures
    condition: Column
    domain: Column | None
    guard: Column | None  # the domain without `ignore_row_if`
    empty_is_null: bool  # over no rows, GX's sum gives null and its count 0

    @property
    def fails(self) -> Column:
        """True, false or null; not a conditional expression, in which Spark forgives a literal that cannot be cast.

        Rows with nulls are told last, as in Spark's own filters: what cannot be evaluated raises there too.
        """
        fails = self.condition if self.guard is None else self.guard & self.condition
        return fails if self.domain is None else fails & self.domain


@dataclass
class Compiled:
    bits: list[Bit] = field(default_factory=list)
    aggregates: dict[Any, Column] = field(default_factory=dict)
    constants: dict[Any, Any] = field(default_factory=dict)
    keys: dict[Any, tuple[list[str], Column | None]] = field(default_factory=dict)  # of uniqueness: key, rows
    # What each of these evaluates: a condition on each of some rows.
    conditions: dict[Any, tuple[Column | None, Column]] = field(default_factory=dict)
    not_compiled: dict[Any, str] = field(default_factory=dict)  # metric -> why it is left to the stock engine


@dataclass(frozen=True)
class RuleResult:
    rule: Rule
    success: bool
    raised: str | None
    element_count: int | None
    unexpected_count: int | None
    result: dict[str, Any]
    examples: tuple[str, ...] = ()  # of rows on which a rule that blocks fails: cells and id

    @property
    def observed(self) -> float | None:
        value = self.result.get("observed_value")
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return float(value)

    def sentence(self) -> str:
        """Return one line about the outcome: what the rule allows, how many rows fail, examples."""
        if self.raised:
            return f"{self.rule.name} could not be evaluated: {self.raised}"
        failing, rows = self.unexpected_count, self.element_count
        if failing is not None and rows:
            counts = f"{failing:,} of {rows:,} rows fail, {100 * failing / rows:.3g} %"
        else:
            counts = f"observed {as_written(self.result.get('observed_value'))}"
        named = ("column", "column_A", "column_B", "column_list", "columns", "condition_parser")
        allowed = ", ".join(f"{k}: {as_written(v)}" for k, v in self.rule.kwargs.items() if k not in named)
        sentence = f"{self.rule.name}: {counts}" + (f"; allowed is {allowed}" if allowed else "")
        return sentence + (f"; for example {'; '.join(self.examples)}" if self.examples else "")


@dataclass(frozen=True)
class Verdict:
    """A suite's verdict on a staged table."""

    results: tuple[RuleResult, ...]
    quarantined: int
    rows: int
    ceiling: float
    masked: bool  # whether rows could be quarantined
    document: dict[str, Any]  # the ValidationDefinition's own result
    fallbacks: tuple[str, ...] = ()  # which rules the stock engine evaluated instead of the one pass, and why

    @property
    def blocking(self) -> list[str]:
        """Return why the table must not be published; empty if it may."""
        reasons = [r.sentence() for r in self.results if r.raised]
        reasons += [r.sentence() for r in self.results if self.blocks(r) and not r.raised]
        if not self.results:
            reasons.append("no rule was evaluated")
        if self.quarantined and self.quarantined > self.ceiling * self.rows:
            reasons.append(
                f"{self.quarantined:,} of {self.rows:,} rows would be quarantined, more than the ceiling of "
                f"{self.ceiling:.1%}"
            )
        return reasons

    def blocks(self, result: RuleResult) -> bool:
        """Return whether a rule by itself keeps the table from being published."""
        failed = not result.success and result.rule.severity == "critical" and not self.handled(result)
        return failed or result.raised is not None

    @property
    def warnings(self) -> list[str]:
        return [r.sentence() for r in self.results if not r.success and not r.raised and r.rule.severity == "warning"]

    @property
    def passed(self) -> int:
        return sum(r.success or self.handled(r) for r in self.results)

    def without_quarantine(self) -> "Verdict":
        """Return the same of rows that are published already, and so cannot be set aside."""
        return replace(self, masked=False)

    def handled(self, result: RuleResult) -> bool:
        """A failing row rule whose rows go to quarantine does not block by itself."""
        return self.masked and result.rule.quarantine and not result.success and result.raised is None

    def dimensions(self) -> dict[str, float | None]:
        """Per quality dimension, the mean share of rows (or of table rules) that hold; None: not measured."""
        shares: dict[str, list[float]] = {d: [] for d in DIMENSIONS}
        for r in self.results:
            if r.element_count and r.unexpected_count is not None:
                shares[r.rule.dimension].append(1 - r.unexpected_count / r.element_count)
            else:
                shares[r.rule.dimension].append(float(r.success))
        return {d: sum(s) / len(s) if s else None for d, s in shares.items()}


class Gate:
    """Judges one table by one suite.

    parents: the tables that foreign keys point to; parameters: values for `$PARAMETER`s of the suite;
    ceiling: largest share of rows that may be quarantined. With `stock`, nothing is compiled and Great Expectations'
    own engine computes everything: the referee.
    """

    def __init__(
        self,
        spark: SparkSession,
        suite: Suite,
        *,
        parents: Mapping[str, DataFrame] | None = None,
        parameters: Mapping[str, Any] | None = None,
        ceiling: float = 0.0,
        stock: bool = False,
    ) -> None:
        self.suite = suite
        self.parameters = dict(parameters or {})
        for rule in suite.rules:
            build(rule, self.parameters)  # a parameter that does not fit would end the run after the staging write
        self.ceiling = ceiling
        self.compiled, self.masked = Compiled(), True
        self.bits: dict[str, Column] = {}  # as `masks` compiled them
        self.fallbacks: list[str] = []
        self.metric_of_rule: dict[int, Any] = {}  # rule -> id of the metric that counts its failures
        with STOCK:
            self.set_up(spark, parents or {}, stock)

    def set_up(self, spark: SparkSession, parents: Mapping[str, DataFrame], stock: bool) -> None:
        """Hand the suite to Great Expectations, in a context of the gate's own."""
        suite = self.suite
        self.context = context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = ProgressBarsConfig(globally=False)
        source = context.data_sources.add_spark("headgate", persist=False)
        if not stock:
            install_engine(source, spark)
        self.engine = cast(Any, source.get_execution_engine())  # the stock one is given the same attributes
        self.engine.known = {}
        self.engine.parents = dict(parents)
        self.batch = source.add_dataframe_asset("staged").add_batch_definition_whole_dataframe("whole")
        built = gx.ExpectationSuite(name=suite.name, expectations=suite.configurations())
        if len(built.expectations) != len(suite.rules):
            raise SuiteError(
                f"suite '{suite.name}': {len(suite.rules)} rules written, {len(built.expectations)} loaded"
            )
        self.definition = context.validation_definitions.add(
            gx.ValidationDefinition(name=suite.name, data=self.batch, suite=context.suites.add(built))
        )

    def masks(self, df: DataFrame) -> dict[str, Column]:
        """Compile the row rules on a table about to be staged; return the bit mask columns to write beside it."""
        check_regexes(df.sparkSession, self.suite)
        kinds = dict(df.dtypes)
        for rule in self.suite.rules:
            fault = why_unsound(rule.type, rule.kwargs, kinds)
            if fault:
                raise SuiteError(f"{rule.where}: {rule.type}: {fault}")
        self.compiled, self.metric_of_rule, rules_of = compile_suite(self, df)
        whys: dict[int, str] = {}  # the first of each rule's metrics is the one that its others need
        for metric, why in self.compiled.not_compiled.items():
            for index in rules_of[metric]:
                whys.setdefault(index, why)
        self.fallbacks = [fallback(self.suite.rules[index].name, why) for index, why in sorted(whys.items())]
        masks = {}
        for word in range(0, max(len(self.compiled.bits), 1), BITS):
            bits = [
                F.shiftleft(bit.fails.eqNullSafe(F.lit(True)).cast("bigint"), i)
                for i, bit in enumerate(self.compiled.bits[word : word + BITS])
            ]
            mask = functools.reduce(lambda a, b: a.bitwiseOR(b), bits, F.lit(0).cast("bigint"))
            masks[mask_name(word // BITS)] = mask
        self.bits = masks
        return masks

    def without_masks(self, why: str = "a row rule raised while the rows were staged") -> None:
        """Go on without the masks, as a row condition raises on some row and so breaks the staging write.

        The stock engine then evaluates every rule. No row can be quarantined, so a failing rule that asks for it
        blocks. `why`: the error, for `Verdict.fallbacks`.
        """
        self.compiled, self.masked, self.bits = Compiled(), False, {}
        self.fallbacks = [fallback("all rules", f"{first_line(why)}; no row can be quarantined")]

    def is_quarantined(self) -> Column:
        """Return whether a staged row fails a rule that asks for quarantine."""
        return functools.reduce(
            operator.or_, (bit_is_set(position) for _, position in self.quarantine_bits()), F.lit(False)
        )

    def quarantine_reason(self) -> Column:
        """The rules that ask for a staged row's quarantine, as text."""
        rules = [
            F.when(bit_is_set(position), F.lit(f"{rule.type} ({', '.join(rule.columns)})"))
            for rule, position in self.quarantine_bits()
        ]
        return F.concat_ws("; ", *rules) if rules else F.lit(None).cast("string")

    def quarantine_bits(self) -> list[tuple[Rule, int]]:
        positions = {bit.rule_metric: i for i, bit in enumerate(self.compiled.bits)}
        found = []
        for rule in self.suite.rules if self.masked else ():
            if rule.quarantine:
                metric = self.metric_of_rule.get(rule.index)
                if metric not in positions:
                    raise SuiteError(f"{rule.where}: {rule.type} is no row rule, so it cannot quarantine rows")
                found.append((rule, positions[metric]))
        return found

    def judge(self, staged: DataFrame, rows: int, quarantined: int = 0) -> Verdict:
        """Judge the table that readers will see, with the masks beside its rows.

        rows: how many of them are new, of which `quarantined` are to be set aside; the ceiling is a share of these.
        """
        masks = [c for c in staged.columns if c == MASK or re.fullmatch(MASK + r"_\d+", c)]
        fallbacks = list(self.fallbacks)
        try:
            self.engine.known = self.measured(staged, masks) if masks else {}
        except Exception as e:  # a rule raises on some row: the stock engine says which, and computes the others
            self.engine.known = {}
            fallbacks.append(fallback("all rules", str(e)))
        with STOCK:
            set_context(self.context)
            outcome = self.definition.run(
                batch_parameters={"dataframe": staged.drop(*masks)},
                result_format=RESULT_FORMAT,
                expectation_parameters=self.parameters,
            )
        results = []
        for result in outcome.results:
            meta = result.expectation_config.meta if result.expectation_config else None
            rule = self.suite.rules[(meta or {})["rule"]]
            detail = convert_to_json_serializable(dict(result.result or {}))
            results.append(
                RuleResult(
                    rule=rule,
                    success=bool(result.success),
                    raised=what_raised(result.exception_info),
                    element_count=detail.get("element_count"),
                    unexpected_count=detail.get("unexpected_count"),
                    result=detail,
                )
            )
        if len(results) != len(self.suite.rules):
            raise SuiteError(
                f"suite '{self.suite.name}': {len(results)} of {len(self.suite.rules)} rules were evaluated"
            )
        results.sort(key=lambda r: r.rule.index)
        verdict = Verdict(
            results=tuple(results),
            quarantined=quarantined,
            rows=rows,
            ceiling=self.ceiling,
            masked=self.masked,
            document=outcome.to_json_dict(),
            fallbacks=tuple(fallbacks),
        )
        return replace(verdict, results=self.with_examples(verdict, staged)) if masks else verdict

    def with_examples(self, verdict: Verdict, staged: DataFrame) -> tuple[RuleResult, ...]:
        """Add to the row rules that block some of the rows that fail: their ids and the cells that the rule reads.

        Cost: where a rule blocks, one aggregate over the staged rows.
        """
        positions = {bit.rule_metric: i for i, bit in enumerate(self.compiled.bits)}
        wanted = {}
        for r in verdict.results:
            position = positions.get(self.metric_of_rule.get(r.rule.index))
            if position is not None and r.unexpected_count and verdict.blocks(r) and not r.raised:
                wanted[r.rule.index] = bit_is_set(position), r.rule.columns
        for ordered in (True, False):  # not every value has an order
            try:
                return examples_of(verdict.results, wanted, staged, ordered) if wanted else verdict.results
            except Exception:  # examples are no part of the verdict
                continue
        return verdict.results

    def measured(self, staged: DataFrame, masks: list[str]) -> dict[Any, Any]:
        """The one pass: every compiled metric from one aggregate over the staged rows, and one over those that fail."""
        wanted = dict(self.compiled.aggregates)
        for bit in self.compiled.bits:
            if bit.empty_is_null:
                wanted[bit.rule_metric] = count_of(bit.domain)
        for metric, (columns, rows) in self.compiled.keys.items():
            if is_whole_number(staged, columns):
                number = within(rows, F.col(columns[0]))
                wanted[metric] = F.array(F.min(number), F.max(number), F.count(number))
        failing = functools.reduce(operator.or_, (F.col(m) != 0 for m in masks))
        (row,) = staged.agg(
            F.count_if(failing).alias("failing"), *(column.alias(f"m{i}") for i, column in enumerate(wanted.values()))
        ).collect()
        known = self.compiled.constants | {
            metric: convert_to_json_serializable(row[f"m{i}"]) for i, metric in enumerate(wanted)
        }
        # Cheaper than a sum of ones and zeros; a mask is 0 where its rule looks at no row.
        counts = [F.count(F.when(bit_is_set(i), True)) for i in range(len(self.compiled.bits))]
        failures = staged.where(failing).agg(*counts).collect()[0] if row["failing"] else [0] * len(counts)
        for bit, count in zip(self.compiled.bits, failures, strict=True):
            known[bit.rule_metric] = None if bit.empty_is_null and not known[bit.rule_metric] else count
        for metric, (columns, rows) in self.compiled.keys.items():
            looked_at = staged if rows is None else staged.where(rows)
            keys = looked_at.select(*(F.col(c).alias(f"k{i}") for i, c in enumerate(columns)))
            known[metric] = 0 if are_distinct(keys, known.get(metric)) else repeated(keys)
        return known


def examples_of(
    results: tuple[RuleResult, ...],
    wanted: Mapping[int, tuple[Column, tuple[str, ...]]],
    staged: DataFrame,
    ordered: bool,
) -> tuple[RuleResult, ...]:
    """Return the results with examples, for the rules (by index) whose failing rows and columns are `wanted`.

    These are the rows with the least and the greatest values, if these have an order, and the one with the least id:
    up to three, the same however the rows are distributed.
    """
    key = F.col(ROW_ID) if ROW_ID in staged.columns else F.lit(None).cast("string")
    found = []
    for index, (fails, columns) in wanted.items():
        cells = [F.col(f"`{c}`") for c in columns]
        shown = F.struct(key.alias("key"), F.array(*map(as_text, cells)).alias("cells"))
        by_value = F.when(fails, F.struct(*(c.alias(f"c{i}") for i, c in enumerate(cells)), shown.alias("shown")))
        chosen = [F.min(by_value)["shown"], F.max(by_value)["shown"]] if ordered else []
        found.append(F.array(*chosen, F.min(F.when(fails, shown))).alias(f"m{index}"))
    (row,) = staged.agg(*found).collect()

    def examples_of(result: RuleResult) -> tuple[str, ...]:
        examples = []
        for example in row[f"m{result.rule.index}"]:
            cells = zip(result.rule.columns, example["cells"], strict=True)
            text = ", ".join(f"{name}={'null' if cell is None else cell}" for name, cell in cells)
            examples.append(text + (f" (row {example['key']})" if example["key"] is not None else ""))
        return tuple(dict.fromkeys(examples))

    return tuple(replace(r, examples=examples_of(r)) if r.rule.index in wanted else r for r in results)


def is_whole_number(df: DataFrame, columns: list[str]) -> bool:
    return len(columns) == 1 and df.select(F.col(columns[0])).dtypes[0][1] in ("tinyint", "smallint", "int", "bigint")


def are_distinct(keys: DataFrame, span: list[int] | None) -> bool:
    """Return whether whole numbers of known least, greatest and count lie close and none repeats.

    Each row sets its bit in a word of 64, and distinct numbers set as many bits as there are rows. Where the numbers
    lie close, few words are shuffled instead of all keys. False may also mean that they lie too far apart.
    """
    if span is None or not span[2] or span[1] - span[0] > SPARSEST * span[2]:
        return False
    number = F.col("k0").cast("bigint")
    bit = F.call_function("shiftleft", F.lit(1).cast("bigint"), number.bitwiseAND(F.lit(63)).cast("int"))
    words = keys.groupBy(F.shiftright(number, 6)).agg(F.bit_or(bit).alias("bits"))
    return bool(words.agg(F.sum(F.bit_count("bits")) == span[2]).collect()[0][0])


def repeated(keys: DataFrame) -> int:
    """Return how many rows have a key that another row has too: one shuffle of the keys."""
    often = keys.groupBy(*keys.columns).count().where("count > 1")
    return int(often.agg(F.coalesce(F.sum("count"), F.lit(0))).collect()[0][0])


def compile_suite(gate: Gate, df: DataFrame) -> tuple[Compiled, dict[int, Any], dict[Any, set[int]]]:
    """Walk Great Expectations' own metric graph of the suite, resolving only what needs no data.

    Returns what was compiled, for each row rule the id of the metric that counts its failures, and for each metric the
    rules that need it.
    """
    validator = Validator(
        batch_definition=gate.batch, result_format=RESULT_FORMAT, batch_parameters={"dataframe": df}
    )._wrapped_validator
    engine = cast(SparkDFExecutionEngine, validator._execution_engine)
    runtime = {"result_format": RESULT_FORMAT}
    configurations = validator.process_expectations_for_validation(
        gate.definition.suite.expectation_configurations, gate.parameters
    )
    graphs, _, _ = validator._generate_metric_dependency_subgraphs_for_each_expectation_configuration(
        expectation_configurations=configurations,
        processed_configurations=[],
        catch_exceptions=True,
        runtime_configuration=runtime,
    )
    waiting: dict[Any, Any] = {}
    metric_of_rule: dict[int, Any] = {}
    rules_of: dict[Any, set[int]] = {}
    for graph in graphs:
        map_metric = getattr(get_expectation_impl(graph.configuration.type), "map_metric", None)
        index = graph.configuration.meta["rule"]
        for edge in graph.graph.edges:
            for metric in (edge.left, edge.right):
                if metric is None:
                    continue
                rules_of.setdefault(metric.id, set()).add(index)
                if metric.id not in waiting or not waiting[metric.id].metric_dependencies:
                    waiting[metric.id] = metric
                if metric.metric_name == f"{map_metric}.unexpected_count":
                    metric_of_rule[index] = metric.id
    compiled = Compiled()
    lazy: dict[Any, Any] = {}  # resolved without data
    needs_data: set[Any] = set()
    order: list[Any] = []
    while waiting:
        ready = [
            m
            for m in waiting.values()
            if all(d.id in lazy or d.id in needs_data for d in m.metric_dependencies.values())
        ]
        if not ready:
            raise RuntimeError("Great Expectations' metrics have a circular dependency")
        for metric in ready:
            order.append(waiting.pop(metric.id))
            if not all(d.id in lazy for d in metric.metric_dependencies.values()):
                needs_data.add(metric.id)
                continue
            try:
                if metric.metric_name in SCHEMA_METRICS or metric.metric_name.endswith(LAZY):
                    lazy |= SparkDFExecutionEngine.resolve_metrics(engine, [metric], lazy, runtime)
                else:
                    needs_data.add(metric.id)
                    compile_metric(compiled, engine, metric, lazy)
            except Exception as e:  # if it is an error, the stock engine raises it too, and the verdict blocks
                needs_data.add(metric.id)
                compiled.not_compiled[metric.id] = str(e)
    keep_what_spark_takes(compiled, df)
    # What only known metrics are made from, nobody asks for.
    known = {*compiled.aggregates, *compiled.constants, *compiled.keys, *(bit.rule_metric for bit in compiled.bits)}
    asked: set[Any] = set()
    for metric in reversed(order):
        if metric.id not in known and (metric.id in needs_data or metric.id in asked):
            asked |= {d.id for d in metric.metric_dependencies.values()}
        elif metric.metric_name.endswith(LAZY):
            compiled.constants[metric.id] = None
    return compiled, metric_of_rule, rules_of


def keep_what_spark_takes(compiled: Compiled, df: DataFrame) -> None:
    """Leave to the stock engine what Spark cannot analyse on this table, so that it reports the error."""

    def conditions(metrics: Iterable[Any]) -> DataFrame:
        # A window of a rule's own would see rows that the rule does not look at: Spark allows none in a filter.
        filters: list[Column] = [F.lit(True)]
        windows: list[Column] = []
        for metric in metrics:
            rows, condition = compiled.conditions[metric]
            (windows if metric in compiled.keys else filters).append(condition)
            filters += [] if rows is None else [rows]
        return df.where(F.coalesce(*filters)).select(*windows)

    def aggregates(metrics: Iterable[Any]) -> DataFrame:
        return df.agg(*(compiled.aggregates[m] for m in metrics))

    good = analysed(conditions, compiled.conditions)
    compiled.bits = [bit for bit in compiled.bits if bit.rule_metric in good]
    compiled.keys = {m: key for m, key in compiled.keys.items() if m in good}
    good |= analysed(aggregates, [m for m in compiled.aggregates if m in good or m not in compiled.conditions])
    # Windows are no fallback: the stock engine evaluates them by design.
    candidates = {m for m in (*compiled.conditions, *compiled.aggregates) if not m[0].startswith(WINDOWED)}
    compiled.not_compiled |= {m: "Spark cannot analyse it on this table" for m in candidates if m not in good}
    compiled.aggregates = {m: column for m, column in compiled.aggregates.items() if m in good}


def analysed(query: Callable[[Iterable[Any]], DataFrame], metrics: Iterable[Any]) -> set[Any]:
    """The metrics whose query Spark can analyse; all at once, and one by one if one of them cannot be."""

    def works(some: Iterable[Any]) -> bool:
        try:
            query(some).schema  # noqa: B018  (on Spark Connect, asking for it is what analyses the query)
        except Exception:
            return False
        return True

    wanted = list(metrics)
    return set(wanted) if not wanted or works(wanted) else {m for m in wanted if works([m])}


def compile_metric(compiled: Compiled, engine: SparkDFExecutionEngine, metric: Any, lazy: dict[Any, Any]) -> None:
    """Compile one metric whose dependencies are resolved, or leave it to the stock engine."""
    name, dependencies = metric.metric_name, metric.metric_dependencies
    _, provider = get_metric_provider(name, engine)
    if name.endswith(".unexpected_values"):
        compiled.constants[metric.id] = []
    elif provider is None:  # an aggregate that the stock engine would bundle
        column, domain, _ = lazy[dependencies["metric_partial_fn"].id]
        rows = rows_of(engine, dict(domain))
        if name == "table.row_count":
            compiled.conditions[metric.id] = rows, F.lit(True)
            compiled.aggregates[metric.id] = count_of(rows)
            lazy[metric.id] = None  # every condition names it as a dependency, and none reads it
        elif name.endswith(".unexpected_count"):
            condition = condition_of(metric, lazy)
            compiled.conditions[metric.id] = rows, condition
            if not name.startswith(WINDOWED):
                compiled.bits.append(Bit(metric.id, condition, rows, rows, empty_is_null=True))
        elif "distinct" not in name and rows is None:  # a distinct count would add a shuffle to the one pass
            compiled.aggregates[metric.id] = column
    elif "unexpected_condition" in dependencies:
        condition, compute, accessor = lazy[dependencies["unexpected_condition"].id]
        domain = {**compute, **accessor}
        rows = rows_of(engine, domain)
        compiled.conditions[metric.id] = rows, condition
        if name.endswith(".filtered_row_count"):
            compiled.aggregates[metric.id] = count_of(rows)
        elif name.endswith(".unexpected_count") and name.startswith(UNIQUE):
            key = list(domain.get("column_list") or [domain["column"]])
            present = F.lit(True) if "column_list" in domain else F.col(key[0]).isNotNull()
            compiled.keys[metric.id] = (key, present if rows is None else rows & present)
        elif name.endswith(".unexpected_count") and not name.startswith(WINDOWED):
            guard = rows_of(engine, {**domain, "ignore_row_if": None})
            compiled.bits.append(Bit(metric.id, condition, rows, guard, empty_is_null=False))


def condition_of(metric: Any, lazy: Mapping[Any, Any]) -> Column:
    """The row condition behind a `.unexpected_count`: the same domain and values, under the name `.condition`."""
    wanted = metric.metric_name.removesuffix("unexpected_count") + "condition"
    condition: Column = next(found[0] for key, found in lazy.items() if key[0] == wanted and key[1:] == metric.id[1:])
    return condition


def rows_of(engine: SparkDFExecutionEngine, domain: dict[str, Any]) -> Column | None:
    """The rows that a rule looks at, as a condition: what the stock engine's `get_domain_records` filters by."""
    if domain.get("table"):
        raise ValueError("rules over another table are not compiled")
    filters: list[Column] = []
    condition = domain.get("row_condition")
    if condition:
        if isinstance(condition, dict):
            condition = deserialize_row_condition(condition)
        if isinstance(condition, PassThroughCondition):
            filters.append(F.expr(condition.pass_through_filter))
        elif isinstance(condition, Condition):
            filters.append(F.expr(engine.condition_to_filter_clause(condition)))
        elif isinstance(condition, str) and domain.get("condition_parser") == "spark":
            filters.append(F.expr(condition))
        else:
            raise ValueError(f"row_condition {condition!r} is not compiled")
    filters += [F.expr(c.condition) for c in domain.get("filter_conditions") or []]
    if "column" not in domain and domain.get("ignore_row_if"):
        pair = [domain[k] for k in ("column_A", "column_B") if k in domain]
        nulls = [F.col(c).isNull() for c in domain.get("column_list", pair)]
        if domain["ignore_row_if"] in ("both_values_are_missing", "all_values_are_missing"):
            filters.append(~functools.reduce(operator.and_, nulls))
        elif domain["ignore_row_if"] in ("either_value_is_missing", "any_value_is_missing"):
            filters.append(~functools.reduce(operator.or_, nulls))
    return functools.reduce(operator.and_, filters) if filters else None


def within(rows: Column | None, value: Column) -> Column:
    """`value` on the rows that a rule looks at, null elsewhere."""
    return value if rows is None else F.when(rows, value)


def count_of(rows: Column | None) -> Column:
    """Return how many rows a rule looks at; not as a `within`, for the reason given in `Bit.fails`."""
    return F.count(F.lit(1)) if rows is None else F.count_if(rows)


def check_regexes(spark: SparkSession, suite: Suite) -> None:
    """Refuse a pattern that Java cannot read: inside a mask it would break the staging write."""
    for rule in suite.rules:
        patterns = filter(None, [rule.kwargs.get("regex"), *(rule.kwargs.get("regex_list") or [])])
        tried = [F.regexp(F.lit(""), F.lit(pattern)).alias(f"p{i}") for i, pattern in enumerate(patterns)]
        if tried:
            try:
                spark.sql("SELECT 1").select(*tried).collect()  # folded while it is planned: no job
            except Exception as e:
                fault = str(e).strip().splitlines()[0]
                raise SuiteError(f"{rule.where}: not a regular expression of Java: {fault}") from e


def fallback(rules: str, why: str) -> str:
    """Return the line about rules that the stock engine evaluates instead of the one pass."""
    return f"{rules}: evaluated by Great Expectations' own engine: {first_line(why)}"


def first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "an error without a message")


def as_text(value: Column) -> Column:
    """A value as an example shows it, of at most 80 characters."""
    return F.substring(value.cast("string"), 1, 80)


def as_written(value: Any) -> str:
    """A value as a suite writes it, of at most 200 characters."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 200 else text[:200] + "…"


def mask_name(word: int) -> str:
    return MASK if word == 0 else f"{MASK}_{word}"


def bit_is_set(position: int) -> Column:
    word, bit = divmod(position, BITS)
    return F.col(mask_name(word)).bitwiseAND(F.lit(1 << bit).cast("bigint")) != 0


def install_engine(source: Any, spark: SparkSession) -> None:
    """Make this one data source hand out a `GateEngine`."""
    kwargs = source.dict(exclude=source._get_exec_engine_excludes(), config_provider=source._config_provider)
    engine = GateEngine(spark=spark, **kwargs)
    source._spark, source._execution_engine, source._cached_execution_engine_kwargs = spark, engine, kwargs


def what_raised(info: Mapping[str, Any] | None) -> str | None:
    """The message of an exception in a result, in either of the two shapes that Great Expectations gives it."""
    for entry in (info, *(info or {}).values()):
        if isinstance(entry, Mapping) and entry.get("raised_exception"):
            return (str(entry.get("exception_message")).strip().splitlines() or ["it raised without a message"])[0]
    return None
