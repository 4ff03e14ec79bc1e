"""Random pairs of a table and a suite, and what the gate and the stock engine say of each.

A pair is made from its seed alone, so a difference is told, and made again, by a number.
"""

import hashlib
import json
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T
from pyspark.sql.pandas.types import to_arrow_schema

from headgate.expectations.catalogue import known_types
from headgate.expectations.gate import Gate
from headgate.expectations.moments import why_unsound
from headgate.expectations.suites import DIMENSIONS, SEVERITIES, Suite, SuiteError, build, load_suite
from headgate.expectations.verdict import RuleResult, Verdict
from headgate.version import GREAT_EXPECTATIONS
from tests.conftest import same

FLOOR = ("expect_table_row_count_to_be_between", {"min_value": 1})
PARAMETERS = {"as_of": "2015-01-01", "previous_rows": 5, "low": 1}
NAN, INF = float("nan"), float("inf")
# Local rows would be evaluated while a query is planned; rows of files are not.
LIKE_FILES = {
    "spark.sql.optimizer.excludedRules": "org.apache.spark.sql.catalyst.optimizer.ConvertToLocalRelation,"
    "org.apache.spark.sql.catalyst.optimizer.PropagateEmptyRelation"
}

# Own expectations of mixtures, splits and drift are never compiled: both engines compute them in one way.
ALIKE = ("expect_mixture_to_be_near", "expect_groups_to_stay_in_one_split", "expect_distribution_to_stay_near")
COMPARED = [t for t in known_types() if t not in ALIKE]

RECORDED = Path(__file__).parent / f"stock-{GREAT_EXPECTATIONS}.json"
RECORD = "if that is meant, record anew: HEADGATE_RECORD=1 python -m pytest -m '' -k live tests/expectations"


# -- judging by both engines


def suite_of(*uses: tuple[str, dict[str, Any]], present: str = "i", **fields: Any) -> Suite:
    """A suite of (type, kwargs), after the two rules that every suite has; `fields` go into each entry."""
    first = (FLOOR, ("expect_column_to_exist", {"column": present}))
    entries = [{"type": t, "kwargs": k, "meta": {"dimension": "validity"}, **fields} for t, k in (*first, *uses)]
    return load_suite({"name": "parity", "expectations": entries}, lambda *place: "test")


def gate_of(spark: SparkSession, suite: Suite, **options: Any) -> Gate:
    """A gate of a suite that may name the parent table `p` and the parameters of a run."""
    parents = {p: spark.range(1, 4, numPartitions=1).selectExpr("CAST(id AS int) AS id") for p in suite.parents}
    return Gate(spark, suite, parents=parents, parameters=PARAMETERS, **options)


class Referee:
    """What the stock engine says: as recorded for its version, or by asking it and comparing with the record.

    A record is found by the suite, the columns and the rows, so none is taken for another input.
    """

    def __init__(self, ask: bool) -> None:
        self.ask = ask
        self.recorded = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}

    def __call__(self, suite: Suite, df: DataFrame, rows: int, stock: Callable[[], Verdict]) -> Verdict:
        judged = [df.schema.jsonValue(), repr(df.toArrow().to_pylist()), suite.configurations()]
        key = hashlib.sha256(json.dumps(judged, default=str).encode()).hexdigest()[:16]
        if self.ask:
            said = as_recorded(stock())
            if os.environ.get("HEADGATE_RECORD"):
                self.recorded[key] = said
                lines = (f'"{known}": {json.dumps(self.recorded[known])}' for known in sorted(self.recorded))
                RECORDED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
            assert same(said, self.recorded.get(key)), f"the stock engine's verdict is not the recorded one; {RECORD}"
        assert key in self.recorded, f"no verdict of the stock engine is recorded for these rows and rules; {RECORD}"
        said = self.recorded[key]
        results = tuple(RuleResult(rule, **result) for rule, result in zip(suite.rules, said["results"], strict=True))
        return Verdict(results, 0, rows, said["ceiling"], said["masked"], {"statistics": said["statistics"]})


def as_recorded(verdict: Verdict) -> dict[str, Any]:
    """All of a stock verdict that tests look at, as JSON gives it back."""
    names = ("success", "raised", "element_count", "unexpected_count", "result")
    results = [{n: getattr(r, n) for n in names} for r in verdict.results]
    told = {"results": results, "ceiling": verdict.ceiling, "masked": verdict.masked}
    return json.loads(json.dumps(told | {"statistics": verdict.document["statistics"]}))


def verdicts(
    spark: SparkSession, suite: Suite, df: DataFrame, rows: int, referee: Referee | None = None
) -> tuple[Verdict, Verdict, Gate]:
    """What the stock engine says, what the gate says, and the gate."""

    def ask() -> Verdict:
        return gate_of(spark, suite, stock=True).judge(df, rows)

    gate = gate_of(spark, suite)
    ours = gate.judge(staged(gate, df), rows)
    return referee(suite, df, rows, ask) if referee else ask(), ours, gate


def staged(gate: Gate, df: DataFrame) -> DataFrame:
    """The table with its masks, computed once and kept, as a build stages it; without them if a rule raises."""
    masked = df.withColumns(gate.masks(df))
    try:
        return df.sparkSession.createDataFrame(masked.toArrow(), masked.schema).coalesce(1)
    except PySparkException:
        gate.without_masks()
        return df


def compared(stock: Verdict, ours: Verdict) -> list[str]:
    """How the gate's verdict differs from the stock engine's; empty if it does not."""
    found = []
    for theirs, mine in zip(stock.results, ours.results, strict=True):
        if differ(theirs, mine):
            said, ours_said = (
                f"success {r.success}, raised {r.raised!r}" if theirs.raised or mine.raised else str(r.result)
                for r in (theirs, mine)
            )
            found.append(f"{mine.rule.type} {dict(mine.rule.kwargs)}: {said}; the gate: {ours_said}")
    if bool(stock.blocking) != bool(ours.blocking):
        found.append(f"blocking: {stock.blocking}; the gate: {ours.blocking}")
    return found


def differ(theirs: RuleResult, mine: RuleResult) -> bool:
    if (theirs.success, theirs.raised is None) != (mine.success, mine.raised is None):
        return True
    return not same(json.loads(json.dumps(theirs.result)), json.loads(json.dumps(mine.result)))


def differences(spark: SparkSession, table: "Table", suite: Suite, referee: Referee | None = None) -> list[str]:
    """Judge a table by both engines, in a session with the settings `LIKE_FILES`; how the gate's verdict differs.

    The stock engine computes rules in bundles: one that raises takes its bundle with it, and one that counts distinct
    values changes the order in which the others add up fractions. So a rule on which the two differ is judged once
    more by the stock engine, alone.
    """
    df, rows = table.frame(spark), len(table.rows)
    gate = gate_of(spark, suite)
    ours = gate.judge(staged(gate, df), rows)

    def ask() -> Verdict:
        stock = gate_of(spark, suite, stock=True).judge(df, rows)
        results = []
        for theirs, mine in zip(stock.results, ours.results, strict=True):
            if differ(theirs, mine):
                one = replace(suite, rules=(replace(mine.rule, index=0),))
                (theirs,) = gate_of(spark, one, stock=True).judge(df, rows).results
            results.append(replace(theirs, rule=mine.rule))
        return replace(stock, results=tuple(results))

    return compared(referee(suite, df, rows, ask) if referee else ask(), ours)


# -- random tables

# Per type: values that often meet each other, then those at the edges.
POOLS: list[tuple[T.DataType, list[Any], list[Any]]] = [
    (T.ByteType(), [0, 1, 2, 3], [-128, -1, 127]),
    (T.ShortType(), [0, 1, 2, 3, 300], [-(2**15), 2**15 - 1]),
    (T.IntegerType(), [-5, 0, 1, 2, 3, 5, 10], [-(2**31), 2**31 - 1]),
    (T.LongType(), [-1, 0, 1, 2, 3, 10**12], [-(2**63), 2**53 + 1, 2**63 - 1]),
    (T.FloatType(), [-0.0, 0.0, 0.1, 1.0, 1.5, -2.5], [NAN, INF, -INF, 3e38, 1e-45, 16777216.0]),
    (T.DoubleType(), [-0.0, 0.0, 0.1, 1.0, 1.5, -2.5], [NAN, INF, -INF, 1e308, 5e-324, 2.0**53]),
    (T.DecimalType(10, 2), [Decimal(t) for t in ("0.00", "0.10", "1.50", "2.00")], [Decimal("-99999999.99")]),
    (T.DecimalType(5, 0), [Decimal(0), Decimal(1), Decimal(2)], [Decimal(99999)]),
    (T.DecimalType(38, 18), [Decimal(1), Decimal("0.1"), Decimal(2)], [Decimal("9" * 20 + "." + "9" * 18)]),
    (T.StringType(), ["a", "b", "a b", "zz", "N123AA", "", "A"], [
        " ", "\ta\n", "汉字", "déjà vu", "de\u0301ja", "😀", "1", "2.5", "NaN", "null", "true", "2013-01-01",
        "2013-02-30", "31/12/2013", '{"a": 1}', "[]", "a'b", 'a"b', "\\d", "a.b", "x" * 200,
    ]),
    (T.BooleanType(), [True, False], [True]),
    (T.DateType(), [date(2013, 1, 1), date(2013, 1, 2), date(2014, 7, 1)],
     [date(1, 1, 1), date(1969, 12, 31), date(2024, 2, 29), date(9999, 12, 31)]),
    (T.TimestampType(), [datetime(2013, 1, 1), datetime(2013, 1, 1, 5), datetime(2014, 7, 1)],
     [datetime(1900, 1, 1), datetime(1969, 12, 31, 23, 59, 59, 999999), datetime(2200, 1, 1)]),
    (T.TimestampNTZType(), [datetime(2013, 1, 1), datetime(2013, 1, 1, 5)], [datetime(1900, 1, 1)]),
    (T.BinaryType(), [b"a", b"b", b""], [b"\x00\xff"]),
    (T.ArrayType(T.IntegerType()), [[1, 2], [1], []], [[None]]),
    (T.StructType([T.StructField("a", T.IntegerType()), T.StructField("b", T.StringType())]),
     [{"a": 1, "b": "x"}, {"a": 2, "b": None}], [{"a": None, "b": None}]),
    (T.MapType(T.StringType(), T.IntegerType()), [[("k", 1)], [("k", 1), ("l", 2)]], [[]]),
]  # fmt: skip
NESTED = (T.ArrayType, T.StructType, T.MapType)
TIMES = (T.DateType, T.TimestampType, T.TimestampNTZType)
NAMES = ["a", "b", "c", "d", "x", "Y", "n", "order"]
AWKWARD_NAMES = ["count", "weight kg", "a.b", "städte", "汉字", "m0", "k0", "sum(a)"]


@dataclass(frozen=True)
class Table:
    """A few rows of plain values; dates and times are of UTC."""

    schema: T.StructType
    rows: list[tuple[Any, ...]]

    def frame(self, spark: SparkSession) -> DataFrame:
        """The table as a local relation of one partition: no Python worker, no file."""
        fields = to_arrow_schema(self.schema)
        columns = zip(*self.rows, strict=True) if self.rows else [()] * len(fields)
        arrays = [pa.array(list(c), f.type) for c, f in zip(columns, fields, strict=True)]
        return spark.createDataFrame(pa.Table.from_arrays(arrays, schema=fields), self.schema).coalesce(1)


def random_table(rng: random.Random) -> Table:
    """0 to 40 rows of 2 to 8 columns, with nulls and many equal values."""
    names = rng.sample(NAMES if rng.random() < 0.6 else NAMES + AWKWARD_NAMES, rng.randint(2, 8))
    flat = [pool for pool in POOLS if not isinstance(pool[0], NESTED)]
    size = rng.choice([0, 1, 2, 3, 5, 8, 13, 25, 40])
    fields, columns = [], []
    for name in names:
        kind, common, edge = rng.choice(POOLS if rng.random() < 0.25 else flat)
        pool = common + edge if rng.random() < 0.3 else common
        pool = rng.sample(pool, rng.randint(1, len(pool)))
        nulls = rng.choice([0, 0, 0.1, 0.1, 0.5, 1])
        columns.append([None if rng.random() < nulls else rng.choice(pool) for _ in range(size)])
        fields.append(T.StructField(name, kind))
    return Table(T.StructType(fields), list(zip(*columns, strict=True)))


# -- random suites

FIT: dict[str, tuple[type[T.DataType], ...]] = {  # by a word of an expectation's type: the columns that suit it
    "mean": (T.IntegerType, T.LongType, T.FractionalType),
    "z_score": (T.IntegerType, T.LongType, T.FractionalType),
    **dict.fromkeys(("sum", "stdev", "median", "outliers", "foreign_key"), (T.NumericType,)),
    **dict.fromkeys(("regex", "lengths", "strftime", "json"), (T.StringType,)),
    "newest": TIMES,
    **dict.fromkeys(("between", "increasing", "decreasing", "greater"), (T.NumericType, *TIMES, T.StringType)),
}
COUNTS = ("lengths", "count", "unique_value")  # whose bounds are small whole numbers
REGEXES = [
    "^a",
    ".*",
    "^$",
    "[A-Z]{2,}",
    "汉",
    r"^\s*$",
    r"^N[0-9]+",
    "(?i)^A$",
    "a|b",
    r"\d{4}-\d{2}",
    "^.{3,}$",
    "(?!a)b",
]
FORMATS = ["%Y-%m-%d", "%d/%m/%Y", "%Y-%m-%d %H:%M:%S", "%D"]
TYPES = ["IntegerType", "StringType", "DoubleType", "LongType", "DateType", "TimestampType", "DecimalType", "Nope"]
FILTERS = [
    "{c} IS NOT NULL", "{c} IS NULL", "{c} = {v}", "{c} > {v}", "{c} != {v}", "{c} IN ({v}, {v})", "1 = 1", "false",
    "{c} = {v} OR {d} IS NULL", "NOT ({c} <=> {d})", "{c} >= {v} AND {d} IS NOT NULL", "CAST(NULL AS boolean)",
]  # fmt: skip
PREDICATES = [
    *FILTERS, "{c} <= {d}", "{c} IS NULL OR {c} <= {d}", "coalesce({c}, {d}) = {d}", "{c} IN (SELECT {c})",
    "count(*) OVER (PARTITION BY {c}) = 1",
]  # fmt: skip
FRAGILE = [  # raise on some types or values
    "nope = 1", "{c} =", "CAST({c} AS int) > 0", "{c} + {d} > 1", "{c} / {d} > 1", "length({c}) > 1", "{c} LIKE 'a%'",
    "try_cast({c} AS double) > 0", "row_number() OVER (ORDER BY {c}) = 1", "max({c}) = {v}", "{c}",
    "explode(array(true))",
]  # fmt: skip


class RuleDraw:
    """Draws the options of one rule; an option is drawn by the method of its name."""

    def __init__(self, rng: random.Random, table: Table, kind: str) -> None:
        self.rng, self.table, self.type = rng, table, kind
        suited = next((types for word, types in FIT.items() if word in kind), (T.DataType,))
        flat = [f for f in table.schema if not isinstance(f.dataType, NESTED)]
        self.suited = [f for f in flat if isinstance(f.dataType, suited)] or flat
        self.field = self.any_field()

    def seldom(self, share: float = 0.03) -> bool:
        return self.rng.random() < share

    def entry(self) -> dict[str, Any]:
        rng = self.rng
        kwargs = {}
        for option in known_types()[self.type]["arguments"]:
            if option != "condition_parser" and (option in self.required() or rng.random() < self.chance(option)):
                kwargs[option] = getattr(self, option)()
        if isinstance(kwargs.get("row_condition"), str):
            parser = "great_expectations" if kwargs["row_condition"].startswith("col(") else "spark"
            kwargs["condition_parser"] = "pandas" if self.seldom(0.02) else parser
        elif "row_condition" in kwargs and rng.random() < 0.5:
            kwargs["condition_parser"] = rng.choice(["spark", "great_expectations"])
        meta = {"dimension": rng.choice(DIMENSIONS)} | ({"on_row_fail": "quarantine"} if rng.random() < 0.1 else {})
        return {"type": self.type, "kwargs": kwargs, "severity": rng.choice(SEVERITIES), "meta": meta}

    def required(self) -> set[str]:
        from great_expectations.expectations.registry import get_expectation_impl

        return {name for name, f in get_expectation_impl(self.type).__fields__.items() if f.required}

    def chance(self, option: str) -> float:
        if option in ("min_value", "max_value", "type_list", "column_list", "column_set"):
            return 0.8
        return 0.25 if option in ("row_condition", "column_index") else 0.4

    # -- columns

    def any_field(self) -> T.StructField:
        return self.rng.choice(self.suited if self.suited and not self.seldom(0.06) else list(self.table.schema))

    def alike(self) -> T.StructField:
        """Another column of the same type, if there is one."""
        kind = self.field.dataType
        others = [f for f in self.table.schema if f.dataType == kind and f is not self.field]
        near = [
            f for f in self.table.schema if isinstance(kind, T.NumericType) == isinstance(f.dataType, T.NumericType)
        ]
        return self.any_field() if self.seldom(0.06) else self.rng.choice(others or near)

    def named(self, field: T.StructField) -> str:
        name, rng = field.name, self.rng
        if self.seldom(0.015):
            return rng.choice(["nope", name.upper(), f"{name}.a", sql(name)])
        return sql(name) if "." in name and rng.random() < 0.8 else name

    def column(self) -> str:
        return self.named(self.field)

    column_A = column

    def column_B(self) -> str:
        return self.named(self.alike())

    def column_list(self) -> list[str]:
        fields = [self.field, *(self.alike() for _ in range(self.rng.randint(1, 2)))]
        names = [self.named(f) for f in fields]
        return names if self.seldom(0.1) else list(dict.fromkeys(names))

    def columns(self) -> list[str]:
        return [self.column()]

    def column_set(self) -> list[str]:
        names = [f.name for f in self.table.schema]
        return names if self.rng.random() < 0.4 else self.rng.sample([*names, "nope"], self.rng.randint(1, len(names)))

    # -- values

    def literal(self, field: T.StructField | None = None) -> Any:
        """A value of a column's type (seldom of another), as YAML would give it."""
        kind = (field or self.field).dataType
        pools = POOLS if self.seldom() else [p for p in POOLS if p[0] == kind]
        _, common, edge = self.rng.choice(pools)
        value = self.rng.choice(common + edge if self.rng.random() < 0.15 else common)
        if isinstance(value, Decimal):
            return float(value)
        if isinstance(value, date):
            return value.isoformat()
        return value.decode("latin1") if isinstance(value, bytes) else value

    def bound(self) -> Any:
        rng = self.rng
        if self.seldom() and isinstance(self.field.dataType, T.NumericType):
            return {"$PARAMETER": "low"}
        if any(word in self.type for word in COUNTS):
            return rng.randint(0, 9)
        if "proportion" in self.type:
            return rng.choice([0, 0.1, 0.5, 0.9, 1])
        return self.literal()

    min_value = max_value = bound

    def value(self) -> Any:
        return self.rng.randint(0, 9)

    def value_set(self) -> list[Any]:
        values = [self.literal() for _ in range(self.rng.randint(0, 4))]
        return values + [None] * (self.rng.random() < 0.15)

    def value_pairs_set(self) -> list[list[Any]]:
        other = self.alike()
        return [[self.literal(), self.literal(other)] for _ in range(self.rng.randint(not self.seldom(), 3))]

    def sum_total(self) -> float:
        return self.rng.choice([0, 1, 2, 3, 1.5, 0.1])

    def threshold(self) -> float:
        return self.rng.choice([-1, 0, 0.5, 1, 3])

    def multiplier(self) -> float:
        return self.rng.choice([0.5, 1, 1.5, 3])

    def mostly(self) -> float:
        return self.rng.choice([0, 0.1, 0.3, 0.5, 0.9, 0.99, 1])

    def column_index(self) -> int:
        return self.rng.randint(0, 3)

    def previous_rows(self) -> Any:
        return self.rng.choice([{"$PARAMETER": "previous_rows"}, -1, 0, 3, 100])

    def not_before(self) -> Any:
        return self.rng.choice([{"$PARAMETER": "as_of"}, "2013-01-01", "2013-01-01 05:00:00", "2013-01-01T05:00:01"])

    def min_ratio(self) -> float:
        return self.rng.choice([0, 0.5, 1])

    def max_ratio(self) -> float:
        return self.rng.choice([1, 2, 10])

    # -- choices

    def flag(self) -> bool:
        return self.rng.random() < 0.5

    strict_min = strict_max = or_equal = ties_okay = strictly = double_sided = exact_match = flag

    def method(self) -> str:
        return self.rng.choice(["iqr", "std"])

    def match_on(self) -> str:
        return self.rng.choice(["any", "all"])

    def ignore_row_if(self) -> str:
        if "pair" in self.type:
            return self.rng.choice(["both_values_are_missing", "either_value_is_missing", "neither"])
        return self.rng.choice(["all_values_are_missing", "any_value_is_missing", "never"])

    def regex(self) -> str:
        return self.rng.choice(REGEXES)

    def regex_list(self) -> list[str]:
        return self.rng.sample(REGEXES, self.rng.randint(1, 3))

    def strftime_format(self) -> str:
        return self.rng.choice(FORMATS)

    def type_(self) -> str:
        return type(self.field.dataType).__name__ if self.rng.random() < 0.5 else self.rng.choice(TYPES)

    def type_list(self) -> list[str]:
        return [self.type_() for _ in range(self.rng.randint(1, 3))]

    def parent_table(self) -> str:
        return "p"

    def parent_columns(self) -> list[str]:
        return ["id"]

    # -- conditions

    def predicate(self) -> str:
        return self.filled(self.rng.choice(FRAGILE if self.seldom(0.1) else PREDICATES))

    def filled(self, template: str) -> str:
        self.field, kept = self.any_field(), self.field
        field, other, self.field = self.field, self.alike(), kept
        values = (sql_literal(self.literal(field)) for _ in range(template.count("{v}")))
        for value in values:
            template = template.replace("{v}", value, 1)
        return template.replace("{c}", sql(field.name)).replace("{d}", sql(other.name))

    def row_condition(self) -> Any:
        form = self.rng.random()
        if form < 0.5:
            return self.filled(self.rng.choice(FRAGILE if self.seldom(0.08) else FILTERS))
        if form < 0.6:
            name = self.any_field().name
            return self.rng.choice([f'col("{name}").notNull()', f'col("{name}") > 1', f'col("{name}") == "a"'])
        if form < 0.8:
            return self.condition()
        parts = [self.condition() for _ in range(self.rng.randint(1, 3))]
        return {"type": self.rng.choice(["and", "or"]), "conditions": parts}

    def condition(self) -> dict[str, Any]:
        field, rng = self.any_field(), self.rng
        column = {"name": field.name}
        if rng.random() < 0.3:
            return {"type": "nullity", "column": column, "is_null": rng.random() < 0.5}
        operator = rng.choice(["==", "!=", "<", "<=", ">", ">=", "IN", "NOT_IN"])
        value = [self.literal(field)] * rng.randint(1, 2) if "IN" in operator else self.literal(field)
        return {"type": "comparison", "column": column, "operator": operator, "parameter": value}


def sql(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def sql_literal(value: Any) -> str:
    if isinstance(value, float) and value - value != 0:
        return f"double('{value}')"
    return str(value) if isinstance(value, int | float) else "'" + str(value).replace("'", "\\'") + "'"


@dataclass(frozen=True)
class Pair:
    seed: int
    table: Table
    suite: Suite

    def __str__(self) -> str:
        entries = "\n".join(f"  {c}" for c in self.suite.configurations())
        rows = "\n".join(f"  {row}" for row in self.table.rows)
        return f"seed {self.seed}: {self.table.schema.simpleString()}\n{rows}\n{entries}"


def random_pair(seed: int, kinds: Sequence[str] | None = None) -> Pair:
    """The pair of a seed: its table, and 4 to 10 rules (of the given types) that the loader takes."""
    rng = random.Random(seed)
    table = random_table(rng)
    first = (
        ("expect_table_row_count_to_be_between", {"min_value": 1}),
        (
            "expect_column_to_exist",
            {"column": table.schema.names[0]},
        ),
    )
    meta = {"dimension": "completeness"}
    entries = [{"type": t, "kwargs": k, "severity": rng.choice(SEVERITIES), "meta": meta} for t, k in first]
    for _ in range(rng.randint(4, 10)):
        entries.append(random_entry(rng, table, rng.choice(kinds or COMPARED), entries))
    return Pair(seed, table, loaded(entries))


def random_entry(rng: random.Random, table: Table, kind: str, before: list[dict[str, Any]]) -> dict[str, Any]:
    """One entry of a type that the loader takes after those before it; of another type if no column suits it."""
    for _ in range(100):
        entry = RuleDraw(rng, table, kind).entry()
        try:
            loaded([*before, entry])
            if sound(entry, table):
                return entry
        except SuiteError:
            continue
    return random_entry(rng, table, rng.choice(COMPARED), before)


def sound(entry: dict[str, Any], table: Table) -> bool:
    """Whether the gate takes what the rule compares with the table's days and times."""
    return (
        why_unsound(entry["type"], entry["kwargs"], {f.name: f.dataType.simpleString() for f in table.schema}) is None
    )


def loaded(entries: list[dict[str, Any]]) -> Suite:
    suite = load_suite({"name": "random", "expectations": entries}, lambda *place: "random")
    build(suite.rules[-1], PARAMETERS)
    return suite
