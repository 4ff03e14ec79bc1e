"""The gate's verdict is the stock engine's, for every expectation that a suite may hold."""

import time
from dataclasses import replace
from datetime import date, datetime

import pytest

from headgate.expectations.catalogue import known_types
from headgate.expectations.gate import BITS, Gate
from headgate.expectations.suites import SuiteError, load_suite
from headgate.expectations.verdict import what_raised
from tests.expectations.pairs import FLOOR, NAN, compared, suite_of, verdicts
from tests.expectations.test_balance import OWN_USES

PRESENT = ("expect_column_to_exist", {"column": "i"})


def assert_same_verdicts(stock, ours):
    """The same results, messages of what raises, blocking reasons and statistics, word for word."""
    assert compared(stock, ours) == []
    assert [r.raised for r in stock.results] == [r.raised for r in ours.results]
    assert stock.blocking == replace(ours, results=tuple(replace(r, examples=()) for r in ours.results)).blocking
    assert stock.document["statistics"] == ours.document["statistics"]


# A table with nulls, NaN, empties, duplicates; `s` holds text of every awkward kind.
SCHEMA = "i int, j int, x double, s string, t string, d date, ts timestamp, js string, b boolean, dt string"
ROWS = [
    (1, 1, 1.0, "a", "a", date(2013, 1, 1), datetime(2013, 1, 1, 5), '{"a": 1}', True, "2013-01-01"),
    (2, 3, NAN, "", "b", date(2013, 1, 2), None, "not json", False, "2013-02-30"),
    (2, 3, None, None, "b", None, datetime(2013, 2, 1), None, None, None),
    (None, 5, -0.0, "déjà vu", None, date(1999, 12, 31), datetime(2014, 1, 1), "[]", True, "yesterday"),
    (5, None, float("inf"), "a b", "a b", date(2013, 1, 1), datetime(2013, 1, 1, 5), "{}", True, "1999-12-31"),
    (5, None, 1e9, "汉字", "汉字", date(2013, 1, 3), datetime(2013, 1, 1), '"x"', False, "2013-01-01"),
]

# At least one passing and one failing use of every allowed expectation.
USES = [
    *[("expect_column_values_to_be_between", {"column": c, "min_value": lo, "max_value": hi, **more})
      for c, lo, hi, more in (("i", 1, 4, {}), ("i", 1, 4, {"mostly": 0.5}), ("x", 0, 10, {}), ("j", 1, 9, {}),
                              ("i", 2, 3, {"strict_min": True}),
                              ("i", 3, 9, {"row_condition": "j = 3", "condition_parser": "spark"}))],
    *[(f"expect_column_values_to_{name}", {"column": c, **more})
      for name in ("not_be_null", "be_null", "be_unique", "be_increasing", "be_decreasing")
      for c, more in (("i", {}), ("s", {}), ("x", {}), ("j", {"mostly": 0.3}))
      if not (name in ("be_increasing", "be_decreasing") and c == "s")],
    *[(f"expect_column_values_to_{name}", {"column": "s", "value_set": ["a", "", "zz"], **more})
      for name in ("be_in_set", "not_be_in_set") for more in ({}, {"mostly": 0.2})],
    *[(f"expect_column_values_to_{name}", {"column": "s", "regex": regex})
      for name in ("match_regex", "not_match_regex") for regex in ("^a", ".*", "^$")],
    ("expect_column_values_to_match_regex_list", {"column": "s", "regex_list": ["^a", "汉"], "match_on": "any"}),
    ("expect_column_values_to_match_regex_list", {"column": "s", "regex_list": ["a", "b"], "match_on": "all"}),
    ("expect_column_values_to_not_match_regex_list", {"column": "s", "regex_list": ["^z", "^a$"]}),
    ("expect_column_value_lengths_to_be_between", {"column": "s", "min_value": 1, "max_value": 3}),
    ("expect_column_value_lengths_to_equal", {"column": "t", "value": 1}),
    ("expect_column_values_to_match_strftime_format", {"column": "dt", "strftime_format": "%Y-%m-%d"}),
    ("expect_column_values_to_be_json_parseable", {"column": "js"}),
    ("expect_column_values_to_be_of_type", {"column": "i", "type_": "IntegerType"}),
    ("expect_column_values_to_be_of_type", {"column": "i", "type_": "StringType"}),
    ("expect_column_values_to_be_in_type_list", {"column": "x", "type_list": ["DoubleType", "FloatType"]}),
    ("expect_column_type_to_be", {"column": "s", "type_": "StringType"}),
    ("expect_column_value_z_scores_to_be_less_than", {"column": "j", "threshold": 1, "double_sided": True}),
    ("expect_column_values_to_not_be_outliers", {"column": "j", "method": "iqr"}),
    *[("expect_column_pair_values_to_be_equal", {"column_A": "s", "column_B": "t", "ignore_row_if": ignore})
      for ignore in ("both_values_are_missing", "either_value_is_missing", "neither")],
    ("expect_column_pair_values_a_to_be_greater_than_b", {"column_A": "j", "column_B": "i", "or_equal": True}),
    ("expect_column_pair_values_a_to_be_greater_than_b", {"column_A": "i", "column_B": "j"}),
    ("expect_column_pair_values_to_be_in_set", {"column_A": "i", "column_B": "j", "value_pairs_set": [[1, 1], [2, 3]]}),
    ("expect_multicolumn_sum_to_equal", {"column_list": ["i", "j"], "sum_total": 5}),
    ("expect_multicolumn_values_to_be_equal", {"column_list": ["s", "t"]}),
    ("expect_select_column_values_to_be_unique_within_record", {"column_list": ["s", "t"]}),
    ("expect_compound_columns_to_be_unique", {"column_list": ["i", "j"]}),
    ("expect_compound_columns_to_be_unique", {"column_list": ["i", "j", "x"], "ignore_row_if": "never"}),
    *[(f"expect_column_{name}_to_be_between", {"column": c, "min_value": -5, "max_value": 5})
      for name in ("min", "max", "mean", "sum", "stdev", "median", "unique_value_count") for c in ("i", "j", "x")],
    ("expect_column_min_to_be_between", {"column": "i", "min_value": 2, "row_condition": "j = 3",
                                         "condition_parser": "spark"}),
    *[(f"expect_column_proportion_of_{name}_values_to_be_between", {"column": "i", "min_value": low})
      for name in ("unique", "non_null") for low in (0.1, 0.99)],
    ("expect_column_most_common_value_to_be_in_set", {"column": "t", "value_set": ["b"]}),
    *[(f"expect_column_distinct_values_to_{name}", {"column": "i", "value_set": values})
      for name in ("be_in_set", "contain_set", "equal_set") for values in ([1, 2, 5], [1, 9])],
    ("expect_column_to_exist", {"column": "x"}),
    ("expect_table_columns_to_match_set", {"column_set": ["i", "j"], "exact_match": False}),
    ("expect_table_columns_to_match_set", {"column_set": ["i", "j"], "exact_match": True}),
    ("expect_table_columns_to_match_ordered_list", {"column_list": ["i", "j"]}),
    ("expect_table_column_count_to_equal", {"value": 10}),
    ("expect_table_column_count_to_be_between", {"min_value": 11}),
    ("expect_table_row_count_to_equal", {"value": 6}),
    ("expect_table_row_count_to_be_between", {"min_value": 7}),
    ("expect_rows_to_satisfy_sql", {"column_list": ["i", "j"], "predicate": "i <= j"}),
    ("expect_rows_to_satisfy_sql", {"column_list": ["i", "j"], "predicate": "i < j", "mostly": 0.5}),
    ("expect_foreign_key_to_exist", {"columns": ["i"], "parent_table": "p", "parent_columns": ["id"]}),
    ("expect_foreign_key_to_exist", {"columns": ["j"], "parent_table": "p", "parent_columns": ["id"], "mostly": 0.5}),
    ("expect_newest_timestamp_to_be_at_least", {"column": "ts", "not_before": "2013-06-01"}),
    ("expect_newest_timestamp_to_be_at_least", {"column": "ts", "not_before": {"$PARAMETER": "as_of"}}),
    ("expect_row_count_to_stay_near_previous", {"previous_rows": {"$PARAMETER": "previous_rows"}}),
    ("expect_row_count_to_stay_near_previous", {"previous_rows": 100}),
]  # fmt: skip


def test_every_allowed_expectation_is_used_here():
    assert set(known_types()) - {t for t, _ in USES} - {t for t, _, _ in OWN_USES} == set()


def test_verdicts_equal_the_stock_engine(spark, referee):
    df = spark.createDataFrame(ROWS, SCHEMA).coalesce(1)
    stock, ours, gate = verdicts(spark, suite_of(*USES), df, len(ROWS), referee)
    assert_same_verdicts(stock, ours)
    assert len(gate.compiled.bits) > 30
    assert stock.fallbacks == ours.fallbacks == ()
    outcomes = [r.success for r in ours.results]
    assert any(outcomes) and not all(outcomes)


@pytest.mark.slow
def test_verdicts_equal_on_a_table_of_nulls_and_on_an_empty_one(spark, referee):
    # Half of the uses on each: together they are all there.
    skipped = ("z_scores", "outliers")  # they raise, and in the stock engine take others with them
    uses = [u for u in USES if not any(s in u[0] for s in skipped)]
    for rows, chosen in (([], uses[::2]), ([(None,) * 10] * 3, uses[1::2])):
        df = spark.createDataFrame(rows, SCHEMA).coalesce(1)
        stock, ours, _ = verdicts(spark, suite_of(*chosen), df, len(rows), referee)
        assert_same_verdicts(stock, ours)


def test_verdicts_equal_on_the_real_year(spark, night):
    df = spark.read.format("delta").load(str(night / "lake" / "flights"))
    uses = [
        ("expect_column_values_to_be_between", {"column": "arr_delay", "min_value": -60, "max_value": 60}),
        ("expect_column_values_to_not_be_null", {"column": "tailnum"}),
        ("expect_column_values_to_match_regex", {"column": "tailnum", "regex": "^N[0-9]+"}),
        ("expect_compound_columns_to_be_unique", {"column_list": ["tailnum", "flight_date"]}),
        (
            "expect_rows_to_satisfy_sql",
            {"column_list": ["dep_delay", "arr_delay"], "predicate": "arr_delay < dep_delay"},
        ),
        ("expect_column_pair_values_a_to_be_greater_than_b", {"column_A": "distance_km", "column_B": "air_time"}),
        ("expect_column_mean_to_be_between", {"column": "distance_km", "min_value": 1000, "max_value": 2000}),
    ]
    suite = suite_of(*uses, present="carrier")
    stock, ours, _ = verdicts(spark, suite, df, df.count())
    assert_same_verdicts(stock, ours)


@pytest.mark.slow
def test_more_rules_than_one_mask_holds(spark, referee):
    df = spark.createDataFrame([(i,) for i in range(100)], "i int").coalesce(1)
    uses = [("expect_column_values_to_be_between", {"column": "i", "max_value": n}) for n in range(BITS + 10)]
    stock, ours, gate = verdicts(spark, suite_of(*uses), df, 100, referee)
    assert list(gate.masks(df)) == ["_hg_failed", "_hg_failed_1"]
    assert_same_verdicts(stock, ours)
    assert [r.unexpected_count for r in ours.results[2:]] == [99 - n for n in range(BITS + 10)]


def quarantine(spark, ceiling, severity="critical"):
    df = spark.createDataFrame([(i, None if i == 3 else i) for i in range(10)], "i int, j int").coalesce(1)
    entries = [
        {"type": t, "kwargs": k, "severity": severity, "meta": {"dimension": "validity", **meta}}
        for t, k, meta in (
            (*FLOOR, {}),
            (*PRESENT, {}),
            ("expect_column_values_to_not_be_null", {"column": "j"}, {"on_row_fail": "quarantine"}),
            ("expect_column_values_to_be_between", {"column": "i", "max_value": 8}, {"on_row_fail": "quarantine"}),
        )
    ]
    suite = load_suite({"name": "q", "expectations": entries}, lambda *place: "test")
    gate = Gate(spark, suite, ceiling=ceiling)
    staged = df.withColumns(gate.masks(df))
    aside = staged.where(gate.is_quarantined())
    found = {r["i"]: r["why"] for r in aside.select("i", gate.quarantine_reason().alias("why")).collect()}
    return found, gate.judge(staged, 10, len(found))


def test_rows_that_fail_a_quarantine_rule_are_set_aside(spark):
    found, verdict = quarantine(spark, ceiling=0.2)
    assert found == {
        3: "expect_column_values_to_not_be_null (j)",
        9: "expect_column_values_to_be_between (i)",
    }
    assert verdict.blocking == [] and verdict.passed == 4
    assert [r.success for r in verdict.results] == [True, True, False, False]


def test_more_than_the_ceiling_blocks(spark):
    _, verdict = quarantine(spark, ceiling=0.1)
    assert verdict.blocking == ["2 of 10 rows would be quarantined, more than the ceiling of 10.0%"]


@pytest.mark.parametrize(("severity", "blocks", "warns"), [("critical", 1, 0), ("warning", 0, 1), ("info", 0, 0)])
def test_severity_decides(spark, referee, severity, blocks, warns):
    df = spark.createDataFrame([(1,)], "i int")
    suite = suite_of(("expect_column_values_to_be_between", {"column": "i", "min_value": 5}), severity=severity)
    _, verdict, _ = verdicts(spark, suite, df, 1, referee)
    assert (len(verdict.blocking), len(verdict.warnings)) == (blocks, warns)


def test_a_rule_that_raises_blocks_whatever_its_severity(spark, referee):
    df = spark.createDataFrame([("a",)], "i string")
    suite = suite_of(("expect_column_mean_to_be_between", {"column": "nope", "min_value": 5}), severity="info")
    _, verdict, _ = verdicts(spark, suite, df, 1, referee)
    assert len(verdict.blocking) == 1 and "could not be evaluated" in verdict.blocking[0]


def test_a_pattern_that_java_cannot_read_is_refused(spark):
    df = spark.createDataFrame([("a",)], "i string")
    suite = suite_of(("expect_column_values_to_match_regex", {"column": "i", "regex": "("}))
    with pytest.raises(SuiteError, match="not a regular expression"):
        Gate(spark, suite).masks(df)


def test_only_row_rules_can_quarantine():
    entry = {"dimension": "uniqueness", "on_row_fail": "quarantine"}
    suite = suite_of(("expect_column_values_to_be_unique", {"column": "i"}))
    data = [r.configuration() | {"meta": {"dimension": "validity"}} for r in suite.rules]
    data[2]["meta"] = entry
    with pytest.raises(SuiteError, match="unique is no row rule, so it cannot quarantine rows"):
        load_suite({"name": "q", "expectations": data}, lambda *place: "test")


def test_dimensions_are_measured_or_said_not_to_be(spark, referee):
    df = spark.createDataFrame([(1,), (2,), (None,), (9,)], "i int").coalesce(1)
    suite = suite_of(("expect_column_values_to_be_between", {"column": "i", "max_value": 5}))
    _, verdict, _ = verdicts(spark, suite, df, 4, referee)
    assert verdict.dimensions()["validity"] == pytest.approx((1 + 1 + 0.75) / 3)
    assert verdict.dimensions()["accuracy"] is None


def test_a_rule_that_raises_on_a_row_blocks_and_breaks_no_staging(spark, referee):
    df = spark.createDataFrame([(1, "a"), (2, "2")], "i int, s string").coalesce(1)
    uses = [("expect_rows_to_satisfy_sql", {"column_list": ["i", "s"], "predicate": "i = CAST(s AS int)"})]
    stock, ours, gate = verdicts(spark, suite_of(*uses), df, 2, referee)
    assert compared(stock, ours) == []
    assert len(ours.blocking) == 1 and "CAST_INVALID_INPUT" in ours.blocking[0]
    assert not gate.masked
    assert ours.fallbacks == (
        "all rules: evaluated by Great Expectations' own engine: a row rule raised while the rows were staged; no row "
        "can be quarantined",
    )


def test_the_reason_why_the_masks_were_left_out_is_reported(spark):
    df = spark.createDataFrame([(1,)], "i int")
    gate = Gate(spark, suite_of())
    gate.masks(df)
    assert gate.judge(df, 1).fallbacks == ()
    gate.without_masks("[CAST_INVALID_INPUT] 'a' is no number\nat line 7")
    (told,) = gate.judge(df, 1).fallbacks
    assert told.endswith("engine: [CAST_INVALID_INPUT] 'a' is no number; no row can be quarantined")


def test_a_row_condition_of_great_expectations_is_compiled(spark):
    df = spark.createDataFrame([(1, "a"), (9, "b")], "i int, s string").coalesce(1)
    uses = [("expect_column_values_to_be_between", {"column": "i", "max_value": n}) for n in (5, 7)]
    limit = {"row_condition": 'col("s") == "a"', "condition_parser": "great_expectations"}
    uses[0][1].update(limit)
    stock, ours, _ = verdicts(spark, suite_of(*uses), df, 2)
    assert_same_verdicts(stock, ours)
    assert ours.fallbacks == ()


def test_an_aggregate_that_raises_leaves_all_rules_to_the_stock_engine(spark, monkeypatch):
    df = spark.createDataFrame([(1,), (9,)], "i int").coalesce(1)
    gate = Gate(spark, suite_of(("expect_column_values_to_be_between", {"column": "i", "max_value": 5})))
    table = df.withColumns(gate.masks(df))

    def raises(*_):
        raise ArithmeticError("an overflow\nin some row")

    monkeypatch.setattr(gate, "measured", raises)
    verdict = gate.judge(table, 2)
    assert verdict.fallbacks == ("all rules: evaluated by Great Expectations' own engine: ‹an overflow›",)
    assert [r.unexpected_count for r in verdict.results] == [None, None, 1]


def test_a_rule_that_asks_for_quarantine_blocks_where_no_row_can_be_set_aside(spark):
    df = spark.createDataFrame([(1, "a"), (2, "2")], "i int, s string").coalesce(1)
    data = [r.configuration() | {"meta": {"dimension": "validity"}} for r in suite_of().rules]
    limit = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "i", "max_value": 1}}
    data.append(limit | {"meta": {"dimension": "validity", "on_row_fail": "quarantine"}})
    gate = Gate(spark, load_suite({"name": "q", "expectations": data}, lambda *place: "test"))
    gate.masks(df)
    gate.without_masks()
    assert df.where(gate.is_quarantined()).count() == 0
    assert gate.judge(df, 2).blocking == [
        "expect_column_values_to_be_between (i): 1 of 2 rows fail, 50 %; allowed is max_value: 1"
    ]


def test_a_rule_that_does_not_fit_the_table_leaves_the_others_their_masks(spark, referee):
    df = spark.createDataFrame([(1, "a"), (2, "2")], "i int, s string").coalesce(1)
    uses = [
        ("expect_rows_to_satisfy_sql", {"column_list": ["i", "s"], "predicate": "nope > 1"}),
        ("expect_column_values_to_be_between", {"column": "i", "max_value": 1}),
    ]
    _, verdict, gate = verdicts(spark, suite_of(*uses), df, 2, referee)
    assert [bool(r.raised) for r in verdict.results] == [False, False, True, False]
    assert verdict.fallbacks == (
        "expect_rows_to_satisfy_sql (i, s): evaluated by Great Expectations' own engine: Spark cannot analyse it on "
        "this table",
    )
    assert gate.masked and gate.metric_of_rule[3] in {bit.rule_metric for bit in gate.compiled.bits}


def test_a_window_sees_only_the_rows_that_its_rule_looks_at(spark, referee):
    df = spark.createDataFrame([(1, 1), (1, 0), (2, 1)], "i int, j int").coalesce(1)
    use = {"column_list": ["i", "j"], "predicate": "count(*) OVER (PARTITION BY i) = 1"}
    where = {"row_condition": "j = 1", "condition_parser": "spark"}
    stock, ours, gate = verdicts(spark, suite_of(("expect_rows_to_satisfy_sql", use | where)), df, 3, referee)
    assert compared(stock, ours) == [] and ours.blocking == []
    assert gate.compiled.bits == []


def test_a_key_may_be_named_count(spark, referee):
    df = spark.createDataFrame([(1, 1), (1, 2)], "i int, count int").coalesce(1)
    uses = [("expect_column_values_to_be_unique", {"column": "count"})]
    stock, ours, gate = verdicts(spark, suite_of(*uses), df, 2, referee)
    assert compared(stock, ours) == [] and ours.blocking == []
    assert len(gate.compiled.keys) == 1


@pytest.mark.parametrize(("parameter", "told"), [("as_of", "not a valid integer"), ("(", "Parse Failure")])
def test_a_parameter_that_does_not_fit_is_refused_before_a_row_is_read(spark, parameter, told):
    suite = suite_of(("expect_table_row_count_to_be_between", {"max_value": {"$PARAMETER": parameter}}))
    with pytest.raises(SuiteError, match=told):
        Gate(spark, suite, parameters={"as_of": "2015-01-01"})


@pytest.mark.parametrize(
    "values", [[1, 2, 3], [-40_000, -1, 0, 40_000], [1, 1, 2], [7, None, 7], [None, 1], [1, 2**62]]
)
def test_whole_numbers_repeat_as_the_stock_engine_says(spark, referee, values):
    df = spark.createDataFrame([(v,) for v in values], "i long").coalesce(1)
    uses = [("expect_column_values_to_be_unique", {"column": "i"})]
    stock, ours, gate = verdicts(spark, suite_of(*uses), df, len(values), referee)
    assert compared(stock, ours) == []
    assert len(gate.compiled.keys) == 1


@pytest.mark.parametrize(
    ("message", "told"), [("first\nsecond", "first"), ("", "it raised without a message"), (None, "None")]
)
def test_what_a_rule_raised_is_told_in_one_line(message, told):
    entry = {"raised_exception": True, "exception_message": message}
    assert what_raised(entry) == what_raised({"metric": entry}) == told
    assert what_raised(None) is what_raised({"raised_exception": False}) is None


def judged(spark, df, *uses, **fields):
    suite = suite_of(*uses, present=df.columns[0], **fields)
    gate = Gate(spark, suite)
    staged = df.withColumns(gate.masks(df))
    return gate.judge(staged, df.count())


def test_moments_are_compared_as_moments(spark):
    texts = ["2024-07-01T10:30:00.9Z", "2024-07-01 10:15:00", "2024-07-01T08:00:00Z"]
    df = spark.createDataFrame([(t,) for t in texts], "s string").coalesce(1)
    df = df.selectExpr("cast(s as timestamp) t", "cast(cast(s as timestamp) as timestamp_ntz) n", "s", "date(s) d")
    newest = {
        "2024-07-01T12:00:00+02:00": True, "2024-07-01T09:00:00-05:00": False, "2024-07-01T10:30:00.5": True,
        "2024-07-01 10:30:00.9Z": True, "2024-07-01T10:30:00.900001": False, "2024-07-01T12:00:00": False,
        "2024-07-01": True, "2024-07-02": False, "2024-07-01 10:30": True, "2024-07-01T16:00:00.9+0530": True,
    }  # fmt: skip
    uses = [
        ("expect_newest_timestamp_to_be_at_least", {"column": c, "not_before": t})
        for t in newest
        for c in ("t", "n", "s")
    ]
    days = [("expect_newest_timestamp_to_be_at_least", {"column": "d", "not_before": t}) for t in newest]
    between = "expect_column_values_to_be_between"
    others = [
        (between, {"column": "t", "min_value": "2024-07-01T12:00:00+02:00"}),
        (between, {"column": "t", "min_value": "2024-07-01T08:00:00Z", "max_value": "2024-07-01T10:30:00.9"}),
        ("expect_column_max_to_be_between", {"column": "t", "min_value": "2024-07-01T12:30:00.9+02:00"}),
        ("expect_column_min_to_be_between", {"column": "t", "max_value": "2024-07-01 10:00:00+02:00"}),
        ("expect_column_values_to_be_in_set", {"column": "t", "value_set": ["2024-07-01T12:15:00+02:00"]}),
    ]
    verdict = judged(spark, df, *uses, *days, *others, severity="info")
    results = verdict.results[2:]
    assert [r.success for r in results[: len(uses)]] == [fine for fine in newest.values() for _ in "tns"]
    assert [r.success for r in results[len(uses) :][: len(days)]] == [t == "2024-07-01" for t in newest]
    assert [r.result["observed_value"] for r in results[:3]] == ["2024-07-01T10:30:00.900000"] * 3
    assert [(r.success, r.unexpected_count) for r in results[-5:]] == [
        (False, 1), (True, 0), (True, None), (True, None), (False, 2),
    ]  # fmt: skip
    assert not any(r.raised for r in results)


def test_text_that_is_no_moment_is_never_the_newest(spark):
    df = spark.createDataFrame([("2024-07-01",), ("12:30",)], "s string").coalesce(1)
    verdict = judged(spark, df, ("expect_newest_timestamp_to_be_at_least", {"column": "s", "not_before": "2024-01-01"}))
    assert "'s' holds '12:30', which is no moment" in verdict.blocking[0]


@pytest.mark.parametrize(
    ("kind", "kwargs", "told"),
    [
        (
            "values_to_be_between",
            {"column": "t", "min_value": "12:30"},
            "'12:30' is neither a number nor a day or moment",
        ),
        ("values_to_be_between", {"column": "t", "max_value": "2024-7-1"}, "kwargs.max_value"),
        ("values_to_be_between", {"column": "d", "min_value": "2024-07-01T12:00:00"}, "'d' is date"),
        ("values_to_be_in_set", {"column": "d", "value_set": ["2024-07-01", "2024-07-01T12:00"]}, "not a day"),
        ("values_to_be_between", {"column": "n", "min_value": "2024-07-01T12:00:00Z"}, "'n' is timestamp_ntz"),
        ("max_to_be_between", {"column": "t", "max_value": "2024-07-01"}, "not a moment"),
        ("most_common_value_to_be_in_set", {"column": "t", "value_set": ["2024-07-01T12:00:00Z"]}, "not a moment"),
        ("values_to_be_in_set", {"column": "t", "value_set": ["2024-07-01T12:00:00.1234567"]}, "not a moment"),
    ],
)
def test_values_that_would_be_misread_as_times_are_refused(spark, kind, kwargs, told):
    df = spark.createDataFrame([], "t timestamp, d date, n timestamp_ntz")
    with pytest.raises(SuiteError) as e:
        Gate(spark, suite_of((f"expect_column_{kind}", kwargs), present="t")).masks(df)
    assert told in str(e.value)


def test_a_parameter_that_is_no_moment_is_refused_before_a_row_is_read(spark):
    suite = suite_of(
        ("expect_newest_timestamp_to_be_at_least", {"column": "i", "not_before": {"$PARAMETER": "newest_file_date"}})
    )
    with pytest.raises(SuiteError, match="'' is neither a day"):
        Gate(spark, suite, parameters={"newest_file_date": ""})


def test_python_takes_times_in_utc(spark):
    assert time.tzname[0] == "UTC"
    assert spark.sql("select timestamp'2024-07-01 10:00:00Z'").first()[0] == datetime(2024, 7, 1, 10)


def test_foreign_keys_of_different_types_are_refused(spark, referee):
    df = spark.createDataFrame([("1",)], "i string")
    use = ("expect_foreign_key_to_exist", {"columns": ["i"], "parent_table": "p", "parent_columns": ["id"]})
    stock, ours, _ = verdicts(spark, suite_of(use), df, 1, referee)
    told = "'i' is string and 'id' of table 'p' is int: keys of different types would match by chance"
    assert told in ours.blocking[0] and told in stock.blocking[0]


def test_a_rule_that_blocks_tells_what_is_allowed_and_examples(spark):
    rows = [(i, None if i % 3 else f"t{i}", 4) for i in range(10)]
    df = spark.createDataFrame(rows, "i int, failing string, m0 int").coalesce(1)
    between = "expect_column_values_to_be_between"
    uses = [
        (between, {"column": "i", "min_value": 2, "max_value": 8, "mostly": 0.9}),
        ("expect_column_values_to_not_be_null", {"column": "failing"}),
        ("expect_column_pair_values_to_be_equal", {"column_A": "i", "column_B": "m0"}),
        ("expect_column_mean_to_be_between", {"column": "i", "max_value": 3}),
        (between, {"column": "i", "min_value": 0}),
    ]
    floor = "allowed is min_value: 2, max_value: 8, mostly: 0.9; for example"
    verdict = judged(spark, df, *uses)
    assert verdict.blocking == [
        f"{between} (i): 3 of 10 rows fail, 30 %; {floor} ‹i=0›; ‹i=9›",
        "expect_column_values_to_not_be_null (failing): 6 of 10 rows fail, 60 %; for example ‹failing=null›",
        "expect_column_pair_values_to_be_equal (i, m0): 9 of 10 rows fail, 90 %; for example ‹i=0, m0=4›; ‹i=9, m0=4›",
        "expect_column_mean_to_be_between (i): observed 4.5; allowed is max_value: 3",
    ]
    keyed = judged(spark, df.selectExpr("*", "string(i * 7 % 10) AS _row_id"), *uses)
    assert keyed.blocking[:2] == [
        f"{between} (i): 3 of 10 rows fail, 30 %; {floor} ‹i=0 (row 0)›; ‹i=9 (row 3)›",
        "expect_column_values_to_not_be_null (failing): 6 of 10 rows fail, 60 %; for example ‹failing=null (row 4)›; "
        "‹failing=null (row 9)›",
    ]
    warned = judged(spark, df, *uses, severity="warning")
    assert warned.blocking == [] and not any(r.examples for r in warned.results)
