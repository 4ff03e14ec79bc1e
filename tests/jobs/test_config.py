import json

import jsonschema
import pytest
import yaml

from jobs.config import Environment, ddl_columns, json_schema, load_environment, load_pipeline, parse_date
from jobs.errors import UsageError
from tests.conftest import ROOT

SUITE = """
name: one
expectations:
  - type: expect_table_row_count_to_be_between
    kwargs: {min_value: 1}
    meta: {dimension: completeness}
  - type: expect_column_to_exist
    kwargs: {column: a}
    meta: {dimension: consistency}
"""
GOOD = """
pipeline: small
suites: .
tables:
  raw_a:
    source:
      format: csv
      path: a/a_{date}.csv
      schema: a STRING, b STRING
    suite: null
  a:
    from: raw_a
    steps:
      - cast: {columns: {a: int}}
      - drop_duplicates: {columns: [a]}
    suite: one
"""


@pytest.fixture
def write(tmp_path):
    (tmp_path / "one.yaml").write_text(SUITE)

    def write(text):
        file = tmp_path / "pipeline.yaml"
        file.write_text(text)
        return file

    return write


def test_a_good_pipeline_loads_in_building_order(write):
    pipeline = load_pipeline(write(GOOD))
    assert pipeline.order == ["raw_a", "a"] and pipeline.inputs("a") == {"raw_a"}
    assert [s.name for s in pipeline.steps["a"]] == ["cast", "drop_duplicates"]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("pipeline: small", "pipelin: small", "unknown option 'pipelin' — did you mean 'pipeline'?"),
        ("    suite: one", "    suit: one", "pipeline.yaml:16: tables.a.suit: unknown option 'suit'"),
        ("format: csv", "format: cvs", "tables.raw_a.source.format"),
        ("format: csv", "fromat: csv", "did you mean 'format'?"),
        ("from: raw_a", "from: raw_b", "there is no table 'raw_b' — did you mean 'raw_a'?"),
        ("- cast: {", "- csat: {", "pipeline.yaml:14: tables.a.steps[0].csat: there is no step 'csat'"),
        ("columns: {a: int}", "colums: {a: int}", "unknown option 'colums' — did you mean 'columns'?"),
        ("columns: {a: int}", "columns: {a: int}, invalid: drop", "steps[0].cast.invalid"),
        ("columns: {a: int}", "columns: {aa: int}", "there is no column 'aa' here — did you mean 'a'?"),
        ("columns: [a]", "columns: a", "tables.a.steps[1].drop_duplicates.columns"),
        ("suite: one", "suite: two", "there is no such suite"),
        ("schema: a STRING, b STRING", "schema: a STRING, a STRING", "the column 'a' stands twice"),
        ("schema: a STRING, b STRING", "schema: a", "is not 'name TYPE'"),
        ("      schema: a STRING, b STRING\n", "", "schema is required for csv"),
        ("path: a/a_{date}.csv", "path: ../a.csv", "may not leave the landing folder"),
        ("path: a/a_{date}.csv", "path: ${NO_SUCH_VARIABLE}/a.csv", "NO_SUCH_VARIABLE is not set"),
        ("  a:\n    from", "  A-1:\n    from", "a table is named by"),
        ("from: raw_a", "from: a", "in a circle"),
        ("    suite: null", "    suite: null\n    suite: null", "the key 'suite' stands twice"),
        ("tables:", "tables: [", "not valid YAML"),
        ("    suite: one", "    suite: one\n    publish: {mode: merge}", "merge needs it"),
        ("    suite: one", "    suite: one\n    publish: {mode: merge, key: [z]}", "there is no column 'z'"),
        ("    suite: one", "    suite: one\n    quarantine_ceiling: 2", "quarantine_ceiling"),
        (
            "- drop_duplicates: {columns: [a]}",
            "- drop_columns: {columns: [a]}",
            "table 'a' has no column 'a'",
        ),
        (
            "- drop_duplicates: {columns: [a]}",
            "- sample_strata: {by: [a], rows: 1}",
            "put split_by_hash before it",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_place(write, old, new, told):
    assert old in GOOD
    with pytest.raises(UsageError) as e:
        load_pipeline(write(GOOD.replace(old, new, 1)))
    assert told in str(e.value), str(e.value)


def test_a_missing_file_is_named_with_its_neighbour(write):
    write(GOOD)
    with pytest.raises(UsageError, match=r"did you mean 'pipeline\.yaml'"):
        load_pipeline(write(GOOD).with_name("pipelin.yaml"))


def test_variables_are_put_in_with_defaults(write, monkeypatch):
    monkeypatch.setenv("WHERE", "x")
    text = GOOD.replace("path: a/", "path: ${WHERE}/${AND:-y}/")
    assert load_pipeline(write(text)).tables["raw_a"].source.path == "x/y/a_{date}.csv"


def test_the_schema_accepts_the_projects_pipeline_and_refuses_a_misspelt_one():
    schema = json_schema()
    document = yaml.load((ROOT / "conf" / "flights.yaml").read_text(), Loader=yaml.BaseLoader)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert "$defs" in json.loads(json.dumps(schema))
    document["tables"]["flights"]["stepss"] = []
    with pytest.raises(jsonschema.ValidationError, match="stepss"):
        jsonschema.validate(document, schema)


def test_environments_load_and_are_checked(tmp_path, monkeypatch):
    pipeline = ROOT / "conf" / "flights.yaml"
    assert load_environment(pipeline, "local").spark["spark.master"] == "local[*]"
    assert load_environment(pipeline, "cluster").lake.startswith("s3a://")
    with pytest.raises(UsageError, match=r"did you mean 'cluster\.yaml'"):
        load_environment(pipeline, "clutser")
    assert load_environment(tmp_path / "p.yaml", None) == Environment()


def test_secrets_come_by_reference(monkeypatch, tmp_path):
    (tmp_path / "token").write_text("from-file\n")
    monkeypatch.setenv("TOKEN", "from-env")
    secrets = {"spark.a": {"env": "TOKEN"}, "spark.b": {"file": str(tmp_path / "token")}}
    environment = Environment(secrets=secrets)
    assert environment.spark_settings() == {"spark.a": "from-env", "spark.b": "from-file"}
    assert "from-env" not in repr(environment) and "from-file" not in repr(environment)
    with pytest.raises(UsageError, match="NOT_THERE is not set"):
        Environment(secrets={"spark.a": {"env": "NOT_THERE"}}).spark_settings()
    with pytest.raises(UsageError, match="exactly one"):
        Environment(secrets={"spark.a": {}}).spark_settings()


def test_ddl_is_read_without_spark():
    ddl = "a INT, `b ,c` STRING, d DECIMAL(10,2), e ARRAY<STRUCT<x: INT, y: STRING>>"
    names = [n for n, _ in ddl_columns(ddl, "here")]
    assert names == ["a", "b ,c", "d", "e"]


def test_a_wrong_day_is_refused():
    with pytest.raises(UsageError, match="is not a day"):
        parse_date("2013-02-30")


CAST = "- cast: {columns: {a: int}}"


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (
            "check_bounds: {columns: {a: [0, 1]}, action: null}",
            'YAML reads a bare null as no value: write "null" in quotes',
        ),
        ("check_bounds: {columns: {a: [0, 1]}, action: clipp}", "not \"clipp\" — did you mean 'clip'?"),
        ("check_bounds: {columns: {a: [0]}}", "columns.a[1]: an entry is missing here"),
        ("check_bounds: {columns: {a: [0, .inf]}}", "a finite number (null for an open end)"),
        ("check_bounds: {columns: [a]}", 'expected a mapping (name: value), not ["a"]'),
        ("select_columns: {columns: a}", 'expected a list, not "a"'),
        ("select_columns: {columns: [1]}", "columns[0]: expected a text, not 1"),
        ("sample_strata: {by: [a], rows: 1.5}", "rows: expected a whole number, not 1.5"),
        ("derive: {columns: {c: aa + 1}}", "c: there is no column 'aa' here — did you mean 'a'?"),
        ("derive: {columns: {c: now()}}", "the value would differ from run to run"),
        ("derive: {columns: {_file: a}}", "bookkeeping"),
        ("reject_rows: {where: 'rand() > 1', reason: x}", "which is random"),
        ("rename: {columns: {a: B}}", "which differ only in case"),
    ],
)
def test_mistakes_of_a_step_are_told_before_spark_and_in_plain_words(write, step, told):
    with pytest.raises(UsageError) as e:
        load_pipeline(write(GOOD.replace(CAST, f"- {step}", 1)))
    assert told in str(e.value) and "steps[0]" in str(e.value), str(e.value)
    assert not any(word in str(e.value) for word in ("tuple", "dict", "None", "instance", "str "))


@pytest.mark.parametrize(
    "step", ["impute_mode: {columns: [a]}", "class_weights: {label: a}", "assign_weights: {label: a, weights: {x: 1}}"]
)
def test_a_split_of_the_sources_own_is_not_taken_for_headgates(write, step):
    text = GOOD.replace("b STRING", "b STRING, split STRING", 1)
    with pytest.raises(UsageError, match=r"steps\[0\].*the column 'split' here was not made by split_by_hash"):
        load_pipeline(write(text.replace(CAST, f"- {step}", 1)))
    renamed = "- rename: {columns: {split: given}}\n      - split_by_hash: {key: [a]}\n      - " + step
    below = "  c:\n    from: a\n    steps: [{impute_mode: {columns: [b]}}]\n    suite: null\n"
    pipeline = load_pipeline(write(text.replace(CAST, renamed, 1) + below))
    assert pipeline.splits("a") == pipeline.splits("c") == {"split"}


def test_steps_that_make_rows_know_which_they_are(write):
    sample = "- sample_strata: {by: [a], rows: 1}"
    pipeline = load_pipeline(
        write(GOOD.replace(CAST, f"- split_by_hash: {{key: [a]}}\n      {sample}\n      {sample}", 1))
    )
    assert [s.made_in for s in pipeline.steps["a"][1:3]] == ["a.1", "a.2"]


def test_the_sql_of_a_suite_is_checked_before_spark(write, tmp_path):
    rule = """
  - type: expect_rows_to_satisfy_sql
    kwargs: {column_list: [a, b], predicate: "aa > uper(b)"}
    meta: {dimension: validity}
  - type: expect_column_values_to_not_be_null
    kwargs: {column: nope, row_condition: "b < now()", condition_parser: spark}
    meta: {dimension: validity}
"""
    file = write(GOOD)
    (tmp_path / "one.yaml").write_text(SUITE.rstrip() + rule)
    with pytest.raises(UsageError) as e:
        load_pipeline(file)
    told = str(e.value).splitlines()
    assert len(told) == 3 and "'uper', which is no function allowed here — did you mean 'upper'?" in told[0]
    assert "has no column 'nope'" in told[1] and "kwargs.row_condition: 'b < now()'" in told[2]
