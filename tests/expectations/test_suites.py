import copy
import json

import pytest

from headgate.expectations.catalogue import FILE, REFUSED, known_types, read_from_great_expectations
from headgate.expectations.moments import micros_of
from headgate.expectations.suites import SuiteError, check_values, load_suite
from tests.conftest import ROOT

GOOD = {
    "name": "good",
    "expectations": [
        {
            "type": "expect_table_row_count_to_be_between",
            "kwargs": {"min_value": 1},
            "meta": {"dimension": "completeness"},
        },
        {"type": "expect_column_to_exist", "kwargs": {"column": "a"}, "meta": {"dimension": "consistency"}},
        {
            "type": "expect_column_values_to_be_between",
            "kwargs": {"column": "a", "min_value": 0},
            "severity": "warning",
            "meta": {"dimension": "validity"},
        },
    ],
}


def at(*place):
    return "suite.yaml: " + ".".join(map(str, place))


def changed(**fields):
    data = copy.deepcopy(GOOD)
    data["expectations"][2] |= fields
    return data


def test_a_good_suite_loads_in_full():
    suite = load_suite(GOOD, at)
    assert [r.severity for r in suite.rules] == ["critical", "critical", "warning"]
    assert suite.rules[2].columns == ("a",)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (changed(type="expect_column_values_to_be_betwen"), "did you mean 'expect_column_values_to_be_between'?"),
        (
            changed(severity="critcal"),
            "'critcal' — did you mean 'critical'?; expected one of critical, warning, info",
        ),
        (
            changed(severity="CRITICAL"),
            "unknown severity 'CRITICAL' — did you mean 'critical'?; expected one of critical, warning, info",
        ),
        (changed(kwargs={"column": "a", "min_vlue": 0}), "kwargs.min_vlue: unknown — did you mean 'min_value'?"),
        (changed(kwargs={"min_value": 0}), "kwargs.column: field required"),
        (changed(kwargs={"column": "a", "min_value": 0, "mostly": 2}), "mostly"),
        (
            changed(kwargs={"column": "a", "min_value": 0, "severity": "info"}),
            "kwargs.severity: expect_column_values_to_be_between: not an option",
        ),
        (
            changed(kwargs={"column": "a", "min_value": 0, "meta": {}}),
            "kwargs.meta: expect_column_values_to_be_between: not an option",
        ),
        (
            changed(kwargs={"column": "a", "min_value": float("nan")}),
            "kwargs.min_value: expect_column_values_to_be_between: NaN cannot be compared with",
        ),
        (
            changed(kwargs={"column": "a", "min_value": 0, "mostly": True}),
            "kwargs.mostly: expect_column_values_to_be_between: expected a number from 0 to 1, not true",
        ),
        (
            changed(type="expect_mixture_to_be_near", kwargs={"column": "a", "shares": {"x": True}}),
            "kwargs.shares: expect_mixture_to_be_near: expected a number, not true",
        ),
        (
            changed(kwargs={"column": "a", "min_value": False}),
            "kwargs.min_value: expect_column_values_to_be_between: expected a number, not false",
        ),
        (
            changed(type="expect_rows_to_satisfy_sql", kwargs={"column_list": ["a", "b"], "ignore_row_if": "some"}),
            "kwargs.ignore_row_if: unexpected value; permitted: 'all_values_are_missing'",
        ),
        (
            changed(kwargs={"column": "a", "min_value": 2, "max_value": 1}),
            "expect_column_values_to_be_between: min_value 2 is above max_value 1",
        ),
        (
            changed(kwargs={"column": "a", "min_value": {"$PARAMETER": "asof"}}),
            "kwargs.min_value: expect_column_values_to_be_between: unknown parameter 'asof' — did you mean 'as_of'?",
        ),
        (
            changed(kwargs={"column": "a", "min_value": 0, "row_condition": "b > 1"}),
            "row_condition needs a condition_parser: one of spark, great_expectations",
        ),
        (
            changed(kwargs={"column": "a", "min_value": 0, "row_condition": "b > 1", "condition_parser": "pandas"}),
            "unknown condition_parser 'pandas'; expected one of spark, great_expectations",
        ),
        (
            changed(
                kwargs={
                    "column": "a",
                    "min_value": 0,
                    "row_condition": "b > 1",
                    "condition_parser": "great_expectations",
                },
            ),
            "expect_column_values_to_be_between: unable to parse condition: b > 1",
        ),
        (
            changed(
                type="expect_column_mean_to_be_between",
                meta={"dimension": "validity", "on_row_fail": "quarantine"},
            ),
            "expect_column_mean_to_be_between is no row rule, so it cannot quarantine rows",
        ),
        (
            changed(kwargs={"column": "a", "min_value": 0, "row_condition": 5, "condition_parser": "spark"}),
            "kwargs.row_condition: expect_column_values_to_be_between: expected a text, not 5",
        ),
        (changed(meta={}), "meta.dimension is required: one of"),
        (changed(meta={"dimension": "validty"}), "did you mean 'validity'?"),
        (changed(meta={"dimension": "validity", "on_row_fail": "quarantaine"}), "did you mean 'quarantine'?"),
        (changed(sevrity="info"), "unknown key 'sevrity' — did you mean 'severity'?"),
        ({"name": "x", "expectations": []}, "at least one expectation"),
        ({"name": "x", "expectations": GOOD["expectations"][1:]}, "needs a floor"),
        (
            {"name": "x", "expectations": [GOOD["expectations"][0], GOOD["expectations"][2]]},
            "a suite must require columns",
        ),
        ([], "a mapping with name and expectations"),
    ],
)
def test_what_is_not_understood_is_refused(data, told):
    with pytest.raises(SuiteError) as e:
        load_suite(data, at)
    assert told in str(e.value) and "suite.yaml" in str(e.value)


@pytest.mark.parametrize("kind", sorted(REFUSED))
def test_rules_that_cannot_be_trusted_are_refused_with_the_reason(kind):
    with pytest.raises(SuiteError, match="is not allowed"):
        load_suite(changed(type=kind), at)


def test_own_expectations_are_known():
    assert {
        "expect_foreign_key_to_exist",
        "expect_newest_timestamp_to_be_at_least",
        "expect_rows_to_satisfy_sql",
        "expect_row_count_to_stay_near_previous",
    } <= set(known_types())


def test_the_catalogue_is_what_the_installed_version_says():
    written = json.loads((ROOT / "expectations" / FILE).read_text())
    found = read_from_great_expectations()
    assert json.loads(json.dumps(found)) == written, "python -m headgate.expectations.catalogue prints it anew"
    for name, expectation in found["expectations"].items():
        assert expectation["does"], name
        assert all(argument["kind"] for argument in expectation["arguments"].values()), name


def test_what_is_left_for_later_is_the_values_of_arguments_alone():
    wrong = changed(kwargs={"column": "a", "min_value": 0, "mostly": 2})
    suite = load_suite(wrong, at, thorough=False)
    with pytest.raises(SuiteError, match=r"expectations.2: .*kwargs.mostly"):
        check_values(suite)
    check_values(load_suite(GOOD, at, thorough=False))
    for kwargs in ({"column": "a", "min_vlue": 0}, {"min_value": 0}, {"column": None, "min_value": 0}):
        with pytest.raises(SuiteError) as told:
            load_suite(changed(kwargs=kwargs), at)
        with pytest.raises(SuiteError) as at_once:
            load_suite(changed(kwargs=kwargs), at, thorough=False)
        assert str(at_once.value) == str(told.value)


def test_every_suite_of_the_project_loads():
    from headgate.jobs.config.pipeline import load_pipeline

    pipeline = load_pipeline(ROOT / "conf" / "flights.yaml")
    used = {t.suite for t in pipeline.tables.values()}
    assert used == {p.stem for p in (ROOT / "expectations" / "suites").glob("*.yaml")}


def test_all_problems_of_a_suite_are_told_together():
    wrong = changed(type="expect_column_values_to_be_betwen", severity="bad", meta={"dimension": "validty"})
    wrong["expectations"][1] = {"type": "expect_column_values_to_be_unique", "kwargs": {"column": 3, "mostly": "x"}}
    with pytest.raises(SuiteError) as e:
        load_suite(wrong, at)
    told = str(e.value).splitlines()
    assert len(told) == 7
    for part in ("did you mean 'expect_column_values_to_be_between'", "unknown severity 'bad'",
                 "did you mean 'validity'?", "a suite must require columns", "kwargs.mostly",
                 "kwargs.column"):  # fmt: skip
        assert sum(part in line for line in told) == 1, part


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("1970-01-01", 0), ("1970-01-01T00:00:01Z", 10**6), ("1970-01-01 01:00+01:00", 0),
        ("1969-12-31T19:00:00.5-0500", 500_000), ("1970-01-01T00:00:00.0000001", 1), ("1970-01-01T00:00:00.000001", 1),
    ],
)  # fmt: skip
def test_moments_are_read_in_utc(text, micros):
    assert micros_of(text) == micros


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "12:30",
        "2024-13-01",
        "2024-02-30",
        "2024",
        "20240101",
        "2024-01-01T25:00",
        "2024-01-01Z",
        "x 2024-01-01",
    ],
)
def test_what_is_no_moment_is_refused_when_the_suite_is_loaded(text):
    rule = {"type": "expect_newest_timestamp_to_be_at_least", "kwargs": {"column": "a", "not_before": text}}
    with pytest.raises(SuiteError, match="neither a day such as"):
        load_suite(changed(**rule), at)


def test_problems_of_the_suite_itself_are_told_with_those_of_its_rules():
    data = changed(severity="bad", kwargs={"min_vlue": 0, "mostly": 2}) | {"naem": "x"}
    del data["name"]
    with pytest.raises(SuiteError) as e:
        load_suite(data, at)
    lines = str(e.value).splitlines()
    for part in ("unknown key 'naem'", "a suite needs a name", "unknown severity 'bad'",
                 "kwargs.column: field required", "kwargs.min_vlue: unknown", "kwargs.mostly: ",
                 "cannot both be"):  # fmt: skip
        assert sum(part in line for line in lines) == 1, part
    assert len(lines) == 7 and all(line.startswith("suite.yaml: ") for line in lines)


@pytest.mark.parametrize(
    ("kind", "kwargs", "more", "proves"),
    [
        ("expect_column_values_to_be_unique", {"column": "a"}, {}, {"a"}),
        ("expect_column_values_to_be_unique", {"column": "a", "mostly": 1}, {}, {"a"}),
        ("expect_column_values_to_be_unique", {"column": "a", "mostly": 0.9}, {}, None),
        ("expect_column_values_to_be_unique", {"column": "a"}, {"severity": "warning"}, None),
        ("expect_compound_columns_to_be_unique", {"column_list": ["a", "b"]}, {}, {"a", "b"}),
        ("expect_compound_columns_to_be_unique", {"column_list": ["a", "b"], "ignore_row_if": "never"}, {}, None),
        ("expect_column_values_to_not_be_null", {"column": "a"}, {}, None),
    ],
)
def test_rules_that_block_prove_keys_to_be_unique(kind, kwargs, more, proves):
    rule = {"type": kind, "kwargs": kwargs, "meta": {"dimension": "uniqueness"}, **more}
    suite = load_suite({**GOOD, "expectations": [*GOOD["expectations"], rule]}, at)
    assert suite.rules[-1].proves_unique == proves
