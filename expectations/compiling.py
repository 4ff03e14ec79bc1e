"""A suite compiled by Great Expectations' own metric graph: row rules as conditions, plain aggregates as columns.

What cannot be compiled is left to the stock engine, with the reason. The interfaces used are private to Great
Expectations, so its version is pinned and tests compare every verdict with the stock engine's.
"""

import functools
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from great_expectations.exceptions import MetricResolutionError
from great_expectations.execution_engine import SparkDFExecutionEngine
from great_expectations.expectations.registry import get_expectation_impl, get_metric_provider
from great_expectations.expectations.row_conditions import (
    Condition,
    PassThroughCondition,
    deserialize_row_condition,
)
from great_expectations.validator.v1_validator import Validator
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from headgate.expectations import suites

# Counts without examples: the ledger holds the examples.
RESULT_FORMAT = {"result_format": "BASIC", "partial_unexpected_count": 0}
SCHEMA_METRICS = ("table.columns", "table.column_types")
LAZY = (".condition", ".aggregate_fn", ".map")
# Conditions that look at other rows: uniqueness is counted per key, without the stock engine's window over whole rows;
# order stays with the stock engine.
UNIQUE = tuple(f"{metric}." for metric in suites.UNIQUE)
WINDOWED = (*UNIQUE, *(f"{metric}." for metric in suites.ORDERED))


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


def compile_suite(
    batch: Any, suite: Any, parameters: dict[str, Any], df: DataFrame
) -> tuple[Compiled, dict[int, Any], dict[Any, set[int]]]:
    """Walk Great Expectations' own metric graph of the suite, resolving only what needs no data.

    batch, suite: Great Expectations' own, with values for the `$PARAMETER`s of the suite; df: rows as they are staged.
    Returns what was compiled, for each row rule the id of the metric that counts its failures, and for each metric the
    rules that need it.
    """
    validator = Validator(
        batch_definition=batch, result_format=RESULT_FORMAT, batch_parameters={"dataframe": df}
    )._wrapped_validator
    engine = cast(SparkDFExecutionEngine, validator._execution_engine)
    runtime = {"result_format": RESULT_FORMAT}
    configurations = validator.process_expectations_for_validation(suite.expectation_configurations, parameters)
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


def install_engine(source: Any, spark: SparkSession) -> None:
    """Make this one data source hand out a `GateEngine`."""
    kwargs = source.dict(exclude=source._get_exec_engine_excludes(), config_provider=source._config_provider)
    engine = GateEngine(spark=spark, **kwargs)
    source._spark, source._execution_engine, source._cached_execution_engine_kwargs = spark, engine, kwargs
