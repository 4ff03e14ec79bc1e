"""The gate: judges a staged table by a suite, in one pass however many rules.

Before the staging write, Great Expectations' own `<map_metric>.condition` columns are compiled, without a Spark job,
into bit masks that are written beside the rows. After it, one aggregate over the staged table, and where rows fail one
over these, turn the plain aggregates and the bits into metrics. A genuine `ValidationDefinition` then runs on an engine
that takes those metrics as known; only distinct, quantile, window and foreign-key rules still run queries of their own.
"""

import functools
import logging
import operator
import re
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import great_expectations as gx
from great_expectations.data_context.data_context.context_factory import set_context
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.util import convert_to_json_serializable
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from headgate.expectations import balance, drift, own  # noqa: F401  (register headgate's own expectations)
from headgate.expectations.compiling import RESULT_FORMAT, Compiled, compile_suite, count_of, install_engine, within
from headgate.expectations.moments import why_unsound
from headgate.expectations.suites import Rule, Suite, SuiteError, build
from headgate.expectations.verdict import RuleResult, Verdict, fallback, first_line, what_raised
from headgate.words import cell

STOCK = threading.Lock()  # Great Expectations keeps the context that it works with in one place of the process
BITS = 63  # of a BIGINT, without the sign
MASK = "_hg_failed"
ROW_ID = "_row_id"
SPARSEST = 16  # whole numbers per key, up to which their bits are cheaper than the keys

logging.getLogger("great_expectations").setLevel(logging.CRITICAL)


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
        self.compiled, self.metric_of_rule, rules_of = compile_suite(
            self.batch, self.definition.suite, self.parameters, df
        )
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
            fallbacks.append(fallback("all rules", cell(first_line(str(e)))))
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
            text = ", ".join(f"{name}={'null' if cell is None else ' '.join(cell.split())}" for name, cell in cells)
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


def as_text(value: Column) -> Column:
    """A value as an example shows it, of at most 80 characters."""
    return F.substring(value.cast("string"), 1, 80)


def mask_name(word: int) -> str:
    return MASK if word == 0 else f"{MASK}_{word}"


def bit_is_set(position: int) -> Column:
    word, bit = divmod(position, BITS)
    return F.col(mask_name(word)).bitwiseAND(F.lit(1 << bit).cast("bigint")) != 0
