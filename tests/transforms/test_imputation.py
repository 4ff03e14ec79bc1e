import re
import time
from datetime import date
from decimal import Decimal
from fractions import Fraction
from statistics import median

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headgate.transforms.imputation.simple import FillMissing, ImputeConstant, ImputeMean, ImputeMedian, ImputeMode
from headgate.transforms.rows import training_rows
from headgate.transforms.step import StepError
from headgate.transforms.steps import FITTED, STEPS, options_of
from tests.conftest import assert_rows, plain_rows
from tests.transforms.frames import applied, frame

NAN = float("nan")


@pytest.mark.parametrize(
    ("step", "fill"),
    [
        (ImputeMean(columns=("x",)), 4.0),
        (ImputeMedian(columns=("x",)), 2.5),
        (ImputeMode(columns=("x",)), 2.0),
        (ImputeConstant(values={"x": 7}), 7.0),
    ],
)
def test_null_and_nan_are_filled_and_noted(spark, step, fill):
    rows = [(1, 1.0), (2, 2.0), (3, 2.0), (4, 3.0), (5, 3.0), (6, 13.0), (7, None), (8, NAN)]
    df = frame(spark, "id int, x double", *rows)
    out = applied(step, df)
    assert_rows(out, ["id", "x"], [*rows[:6], (7, fill), (8, fill)])
    noted = {r[0]: r[1] for r in plain_rows(out, "id", "_changed")}
    assert noted[7] == [{"column": "x", "step": step.name}] and noted[1] == []


def test_groups_have_their_own_value_and_others_the_overall_one(spark):
    rows = [("a", 1.0), ("a", 3.0), ("a", None), ("b", 10.0), ("b", None), ("c", None), (None, None)]
    df = frame(spark, "g string, x double", *rows)
    out = applied(ImputeMean(columns=("x",), by=("g",)), df)
    overall = (1.0 + 3.0 + 10.0) / 3
    wanted = [("a", 1.0), ("a", 3.0), ("a", 2.0), ("b", 10.0), ("b", 10.0), ("c", overall), (None, overall)]
    assert_rows(out, ["g", "x"], wanted)


def test_only_training_rows_are_learned_from(spark):
    df = frame(spark, "x double, split string", (1.0, "train"), (99.0, "test"), (None, "test"))
    assert_rows(applied(ImputeMean(columns=("x",)), df), ["x"], [(1.0,), (99.0,), (1.0,)])


@pytest.mark.parametrize(
    "values",
    [
        [6.62607015e-34] * 3, [1e-50, 3e-50], [5e-324, 5e-324], [1e300, 1.5e308, 1.7e308], [1.0, -1.0, 3e-30], [0.0],
    ],
)  # fmt: skip
def test_means_have_all_digits_whatever_the_magnitude(spark, values):
    rows = [*(("a", v, 1.0) for v in values), ("a", None, None), ("b", None, None)]
    out = applied(ImputeMean(columns=("x", "y"), by=("g",)), frame(spark, "g string, x double, y double", *rows))
    mean = float(sum(map(Fraction, values)) / len(values))
    assert_rows(out.where("size(_changed) > 0"), ["g", "x", "y"], [("a", mean, 1.0), ("b", mean, 1.0)])


@pytest.mark.parametrize(
    "step", ["impute_mean", "impute_median", "impute_mode", "check_outliers", "check_outliers_iqr"]
)
def test_steps_name_a_column_at_least(step):
    with pytest.raises(StepError, match="columns: name one or more"):
        options_of(STEPS[step]).validate_python({"columns": []}).columns_after({"x": "double"}, {})


def test_an_infinity_has_no_mean(spark):
    df = frame(spark, "x double", (1.0,), (float("inf"),), (None,))
    with pytest.raises(StepError, match="'x' holds an infinity"):
        applied(ImputeMean(columns=("x",)), df)


def test_between_infinities_is_no_median(spark):
    inf = float("inf")
    df = frame(spark, "x double, y double", (inf, inf), (-inf, inf), (None, None))
    with pytest.raises(StepError, match=r"'x' has its median between -inf and inf.*put a check_bounds before"):
        applied(ImputeMedian(columns=("x",)), df)
    assert_rows(applied(ImputeMedian(columns=("y",)), df), ["y"], [(inf,)] * 3)


def test_a_column_without_values_stays_empty(spark):
    df = frame(spark, "x double, t string", (None, None))
    for step in (ImputeMean(columns=("x",)), ImputeMedian(columns=("x",)), ImputeMode(columns=("t",))):
        assert_rows(applied(step, df), ["x", "t"], [(None, None)])


def test_mode_takes_the_smallest_of_equals_and_any_plain_type(spark):
    df = frame(
        spark, "t string, d date, n decimal(6,2)", ("b", date(2020, 1, 2), Decimal("1.50")), ("a", None, None),
        (None, None, None),
    )  # fmt: skip
    frozen = ImputeMode(columns=("t", "d", "n")).fit(df, None)
    assert frozen.values == {"t": "a", "d": "2020-01-02", "n": "1.50"}
    last = (("a", date(2020, 1, 2), Decimal("1.50")),) * 2
    assert_rows(frozen.apply(df), ["t", "d", "n"], [("b", date(2020, 1, 2), Decimal("1.50")), *last])


def test_mean_does_not_depend_on_the_order_of_rows(spark):
    values = [(i, 0.1 * i if i % 2 else 1e9 / (i + 1)) for i in range(2000)]
    df = frame(spark, "id int, x double", *values)
    means = {
        ImputeMean(columns=("x",)).fit(part, None).values["x"]
        for part in (df.repartition(1), df.repartition(7), df.orderBy("x"), df.orderBy("id", ascending=False))
    }
    assert len(means) == 1


def test_a_sum_beyond_the_exact_range_is_refused(spark):
    df = frame(spark, "x decimal(38,0)", *((Decimal(10**38 - 1),) for _ in range(2)))
    with pytest.raises(StepError, match="'x' holds values or a sum beyond 38 digits"):
        ImputeMean(columns=("x",)).fit(df, None)


def test_a_median_of_a_sample_is_near_and_the_same_in_any_partitioning(spark):
    df = frame(spark, "id int, g string, x double", *((i, f"g{i % 2}", float(i * 7919 % 10_007)) for i in range(4000)))
    exact, whole = (ImputeMedian(columns=("x",), sample=n).fit(df, None).values["x"] for n in (None, 4000))
    step = ImputeMedian(columns=("x",), by=("g",), sample=1000)
    found = [step.fit(part, None) for part in (df, df.repartition(7), df.orderBy("x"))]
    assert whole == exact and found[0] == found[1] == found[2] and found[0].values["x"] != exact
    for value in (found[0].values["x"], *(g["values"]["x"] for g in found[0].groups)):
        assert abs(value - exact) < 0.07 * 10_007  # three deviations of the rank in 500 rows
    with pytest.raises(StepError, match="sample: 0 is not within 1 and 1,000,000"):
        ImputeMedian(columns=("x",), sample=0).columns_after({"x": None}, {})


def test_fitted_state_survives_json(spark):
    df = frame(spark, "g string, x double", ("a", 1.0), ("a", None), ("b", 4.0))
    frozen = ImputeMedian(columns=("x",), by=("g",)).fit(training_rows(df), None)
    options = options_of(type(frozen)).dump_python(frozen, mode="json")
    again = options_of(FITTED[frozen.name]).validate_python(options)
    assert plain_rows(again.apply(df), "g", "x") == plain_rows(frozen.apply(df), "g", "x")


def test_groups_fill_columns_of_every_plain_type(spark):
    kinds = "g string, t string, d date, n decimal(5,2), i int, b boolean"
    known = ("a", "x", date(2020, 1, 2), Decimal("1.50"), 3, True)
    df = frame(spark, kinds, known, ("a", *(None,) * 5))
    assert_rows(applied_by_groups(ImputeMode, ("t", "d", "n", "i", "b"), df), list("gtdnib"), [known, known])


def test_a_whole_number_takes_the_mean_of_its_group_rounded_toward_zero(spark):
    df = frame(spark, "g string, i int", ("a", 3), ("a", 4), ("a", None))
    assert_rows(applied_by_groups(ImputeMean, ("i",), df), ["i"], [(3,), (4,), (3,)])


def applied_by_groups(learner, columns, df):
    return learner(columns=columns, by=("g",)).fit(training_rows(df), None).apply(df)


BIG = 9007199254740993  # 2^53 + 1, which no double holds


def test_statistics_of_whole_numbers_and_decimals_are_exact(spark):
    kinds = "g string, i int, big bigint, d decimal(38,2), p decimal(10,2), x double, none bigint"
    huge, less = (Decimal(f"{sign}12345678901234567890123456789012345.67") for sign in ("", "-"))
    rows = [
        ("a", 1, BIG, huge, Decimal("1.10"), 1e-20, None),
        ("a", 2, BIG, huge, Decimal("2.25"), 3e-20, None),
        ("a", 4, BIG, huge, Decimal("9.99"), 2e-20, None),
        ("b", -7, BIG + 2, less, Decimal("-0.01"), 0.5, None),
        ("b", -2, BIG + 5, less, Decimal("-0.02"), 0.25, None),
        ("c", None, None, None, None, None, None),
    ]
    df = frame(spark, kinds, *rows)
    columns = ("i", "big", "d", "p", "x", "none")
    means = ImputeMean(columns=columns, by=("g",)).fit(df, None)
    by = {g["key"][0]: g["values"] for g in means.groups}
    assert by["a"] == {"i": 2, "big": BIG, "d": str(huge), "p": "4.45", "x": pytest.approx(2e-20), "none": None}
    assert by["b"] == {"i": -4, "big": BIG + 3, "d": str(less), "p": "-0.02", "x": 0.375, "none": None}
    assert means.values["big"] == BIG + 1 and means.values["i"] == 0 and means.values["p"] == "2.66"
    medians = ImputeMedian(columns=columns, by=("g",)).fit(df, None)
    by = {g["key"][0]: g["values"] for g in medians.groups}
    assert by["a"] == {"i": 2, "big": BIG, "d": str(huge), "p": "2.25", "x": 2e-20, "none": None}
    assert by["b"] == {"i": -4, "big": BIG + 3, "d": str(less), "p": "-0.02", "x": 0.375, "none": None}
    assert medians.values == {"i": 1, "big": BIG, "d": str(huge), "p": "1.10", "x": 3e-20, "none": None}
    filled = {r["g"]: r for r in medians.apply(df).select("g", *columns).collect()}
    assert tuple(filled["c"]) == ("c", 1, BIG, huge, Decimal("1.10"), 3e-20, None)


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=9))
def test_medians_of_any_whole_numbers_are_those_of_exact_arithmetic(spark, rows):
    frozen = ImputeMedian(columns=("i",), by=("g",)).fit(spark.createDataFrame(rows, "g string, i bigint"), None)
    found = {g["key"][0]: g["values"]["i"] for g in frozen.groups} | {None: frozen.values["i"]}
    for group, value in found.items():
        middle = median(Fraction(i) for g, i in rows if group in (None, g))
        assert value == int(middle)  # toward zero


@pytest.mark.slow
def test_times_are_filled_alike_in_every_zone_of_the_machine(spark, monkeypatch):
    at, day = "2024-07-01 12:00:00.000001", "2024-02-29"
    rows = [
        ("a", at, day, True),
        ("a", at, day, True),
        ("a", None, None, None),
        ("b", "2024-01-01", "2023-01-01", False),
    ]
    texts = frame(spark, "g string, t string, d string, b boolean", *rows)
    df = texts.withColumns({"t": texts["t"].cast("timestamp"), "d": texts["d"].cast("date")})
    df = df.withColumn("n", df["t"].cast("timestamp_ntz"))
    found = []
    for zone in ("UTC", "America/New_York", "Asia/Kolkata"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        for by in ((), ("g",), ("t",)):
            frozen = ImputeMode(columns=("t", "d", "b", "n"), by=by).fit(df, None)
            out = frozen.apply(df).where("g = 'a'").selectExpr("cast(t as string)", "cast(d as string)", "b",
                                                                   "cast(n as string) as n")  # fmt: skip
            found.append({tuple(r) for r in out.collect()})
    monkeypatch.undo()
    time.tzset()
    assert found == [{(at, day, True, at)}] * 9


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("i", 7.5, "'i' is int, which does not hold 7.5"),
        ("i", 3_000_000_000, "does not hold 3000000000"),
        ("i", "seven", "does not hold 'seven'"),
        ("i", True, "does not hold True"),
        ("p", 1.239, "does not hold 1.239"),
        ("p", 123456789, "does not hold 123456789"),
        ("x", BIG, f"does not hold {BIG}"),
        ("x", "1", "does not hold '1'"),
        ("s", 501, "write a text in quotes"),
        ("d", "2024-02-30", "write a day as 2013-01-31"),
        ("d", "2024", "write a day"),
        ("t", "12:30", "write a time as 2013-01-31T12:00:00Z"),
        ("t", "today", "write a time"),
        ("b", "yes", "'b' is boolean"),
    ],
)
def test_a_constant_that_the_type_does_not_hold_is_refused(spark, column, value, told):
    df = frame(spark, "i int, p decimal(10,2), x double, s string, d date, t timestamp, b boolean")
    for step in (ImputeConstant(values={column: value}), FillMissing(values={column: value})):
        with pytest.raises(StepError) as e:
            step.check(df, {})
        assert told in str(e.value)


def test_constants_of_every_type_fill_as_they_are_written(spark):
    kinds = "i int, big bigint, p decimal(10,2), x double, f float, s string, d date, t timestamp, b boolean"
    values = {"i": 7.0, "big": BIG, "p": 1.5, "x": 2, "f": 0.1, "s": "007", "d": "2024-02-29",
              "t": "2024-07-01T14:00:00+02:00", "b": False}  # fmt: skip
    out = applied(ImputeConstant(values=values), frame(spark, kinds, (None,) * 9))
    found = out.selectExpr(*(f"cast({c} as string) as {c}" for c in values)).first()
    assert tuple(found) == ("7", str(BIG), "1.50", "2.0", "0.1", "007", "2024-02-29", "2024-07-01 12:00:00", "false")


def test_statistics_of_what_is_no_number_or_no_plain_value_are_refused(spark):
    df = frame(spark, "s string, a array<int>, x double", ("1", [1], 1.0))
    for step, told in (
        (ImputeMean(columns=("s",)), "impute_mean: 's' is string, not a number"),
        (ImputeMedian(columns=("s",)), "impute_median: 's' is string, not a number"),
        (ImputeMode(columns=("a",)), "impute_mode: 'a' is array<int>, not a plain value"),
        (ImputeMean(columns=("x",), by=("a",)), "impute_mean: 'a' is array<int>, not a plain value"),
    ):
        with pytest.raises(StepError, match=re.escape(told)):
            applied(step, df)


def test_groups_of_numbers_meet_whatever_they_are_written_as(spark):
    df = frame(spark, "k double, x int", (1.0, None), (-0.0, None), (0.0, None), (2.0, None))
    groups = ({"key": [1], "values": {"x": 10}}, {"key": ["0"], "values": {"x": 20}})
    out = applied(FillMissing(values={"x": 0}, by=("k",), groups=groups), df)
    assert sorted(r["x"] for r in out.collect()) == [0, 10, 20, 20]
