import dataclasses
import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from headgate.jobs.config.columns import check_options
from headgate.jobs.config.document import Complaints, Yaml, checked, read_yaml
from headgate.jobs.config.environment import load_environment, parse_date
from headgate.jobs.config.models import Environment, FileSource, Table
from headgate.jobs.config.pipeline import load_pipeline
from headgate.jobs.config.schema import json_schema
from headgate.jobs.config.source_checks import ddl_columns
from headgate.jobs.errors import UsageError
from headgate.transforms.step import StepError
from headgate.transforms.steps import STEPS, options_of
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
        ("schema: a STRING, b STRING", "schema: a STRING, a STRING", "duplicate column 'a'"),
        ("schema: a STRING, b STRING", "schema: a", "is not 'name TYPE'"),
        (
            "a STRING, b STRING",
            "a STRNG, b STRING",
            "schema: column 'a': there is no type 'STRNG' — did you mean 'STRIN",
        ),
        ("      schema: a STRING, b STRING\n", "", "schema is required for csv"),
        ("path: a/a_{date}.csv", "path: ../a.csv", "may not leave the landing folder"),
        ("path: a/a_{date}.csv", "path: a/{dat}.csv", "unknown place {dat}; the day in a path is {date}"),
        (
            "format: csv\n      path: a/a_{date}.csv\n      schema: a STRING, b STRING",
            "format: jdbc\n      table: t\n      url: h/d",
            "a JDBC URL begins with jdbc:",
        ),
        (
            "format: csv\n      path: a/a_{date}.csv",
            "format: python\n      function: nosuch.py:f",
            "nosuch.py cannot be read: No such file or directory",
        ),
        ("path: a/a_{date}.csv", "path: ${NO_SUCH_VARIABLE}/a.csv", "NO_SUCH_VARIABLE is not set"),
        ("  a:\n    from", "  A-1:\n    from", "is not a valid table name"),
        ("from: raw_a", "from: a", "circular dependency"),
        ("    suite: null", "    suite: null\n    suite: null", "duplicate key 'suite'"),
        ("tables:", "tables: [", "not valid YAML"),
        ("    suite: one", "    suite: one\n    publish: {mode: merge}", "mode merge together"),
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
    monkeypatch.chdir(tmp_path)
    assert load_environment("local", pipeline).spark["spark.master"] == "local[*]"
    assert load_environment("cluster", pipeline).lake.startswith("s3://")
    with pytest.raises(UsageError, match=r"no environment 'clutser'.* — did you mean 'cluster'"):
        load_environment("clutser", pipeline)
    assert load_environment(None, tmp_path / "p.yaml") == load_environment(None) == Environment()
    with pytest.raises(UsageError, match="not a valid name"):
        load_environment("../cluster", pipeline)


def test_option_goes_before_variable_before_file_before_default(tmp_path, monkeypatch):
    """And the file is looked for beside the pipeline first, then where the command was started."""
    monkeypatch.chdir(tmp_path)
    for folder in ("conf/env", "own/env"):
        Path(folder).mkdir(parents=True)
    Path("conf/env/local.yaml").write_text("lake: of-conf\n")
    Path("conf/env/test.yaml").write_text("lake: of-test\n")
    Path("own/env/local.yaml").write_text("lake: of-own\n")

    def places(name=None, pipeline=None, **given):
        found = load_environment(name, pipeline, **given)
        return found.lake, found.landing

    own = Path("own/p.yaml")
    assert places() == places(None, Path("p.yaml")) == ("of-conf", "landing")
    assert places(None, own) == ("of-own", "landing")
    assert places("test", own) == ("of-test", "landing")
    monkeypatch.setenv("HEADGATE_LAKE", "of-variable")
    monkeypatch.setenv("HEADGATE_LANDING", "")
    assert places("test") == places(None, own) == ("of-variable", "landing")
    monkeypatch.setenv("HEADGATE_LANDING", "of-variable")
    assert places(None, own, lake="of-option", landing=None) == ("of-option", "of-variable")
    with pytest.raises(UsageError, match="--landing: the value is empty"):
        places(landing="")


NINE = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}' if i else 'x'] * 9)}]" for i in range(9)]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0", "not a text file in UTF-8 (byte 0)"),
        ("pipeline: caf\xe9\n".encode("latin-1"), "not a text file in UTF-8 (byte 13)"),
        ("pipeline: p\n".encode("utf-16"), "not a text file in UTF-8"),
        (b"pipeline: p\na: \0\n", ":2: not valid YAML: invalid character U+0000"),
        (b"a: \x1b[0m\n", ":1: not valid YAML: invalid character U+001B"),
        (b"", "the file is empty"),
        (b"# nothing\n", "the file is empty"),
        (b"- a\n- b\n", "expected options as 'name: value', not a list"),
        (b"word\n", "not a single value"),
        (b"a: &a [*a]\n", ":1: circular alias: an alias (*) inside the value that it refers to"),
        (b"a: &a {b: [*a]}\n", "circular alias"),
        ("\n".join(NINE).encode(), ": more than 100,000 values, each alias (*) counted in full"),
        (b"a: " + b"[" * 5000 + b"]" * 5000, "nested too deeply"),
        (b"a: !!bool x\n", ":1: not valid YAML: a value that cannot be read as bool"),
        (b"a: " + b"9" * 5000, ":1: not valid YAML: a value that cannot be read as int"),
        (b'a: "\\UFFFFFFFF"\n', "a value that cannot be read"),
        (b"a: &a {b: 1}\nc: {<<: *a}\n", ":2: YAML 1.2 has no merge key '<<'; write the keys out"),
        (b"a: !!python/object:os.system x\n", "could not determine a constructor"),
        (b"a: *nowhere\n", "undefined alias"),
        (b"{a: 1}: 2\n", "a key must be a plain word"),
        (b"a: 1\n---\nb: 2\n", "but found another document"),
    ],
)
def test_a_file_that_is_no_pipeline_is_told_in_one_line(tmp_path, content, told):
    file = tmp_path / "p.yaml"
    file.write_bytes(content)
    with pytest.raises(UsageError) as e:
        load_pipeline(file)
    assert told in str(e.value) and "\n" not in str(e.value), str(e.value)


def test_values_are_those_of_yaml_1_2(tmp_path):
    values = {
        "12:30": "12:30", "190:20:30.15": "190:20:30.15", "010": 10, "0o17": 15, "0x1F": 31, "1_000": 1000, "+5": 5,
        "1e3": 1000.0, "1.5E-3": 0.0015, ".5": 0.5, "1.": 1.0, "-.inf": float("-inf"), "yes": "yes", "on": "on",
        "True": True, "~": None, "": None, "Null": None, "2013-01-31": "2013-01-31", "1.2.3": "1.2.3", "=": "=",
        "0b11": "0b11", "1e": "1e", "-": "-", "'1'": "1", "!!str 1": "1", "!!int '7'": 7,
    }  # fmt: skip
    for text, value in values.items():
        (tmp_path / "v.yaml").write_text(f"a: {text}\n" if text != "-" else 'a: "-"\n')
        found = read_yaml(tmp_path / "v.yaml").data["a"]
        assert found == value and type(found) is type(value), text


def test_repeated_keys_and_missing_variables_are_all_reported(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text("a: ${NOT_1}\nb: {c: 1, c: 2}\na: x\nd: [x, '${NOT_2}', '${NOT_3:-y}']\n")
    with pytest.raises(UsageError) as e:
        read_yaml(file)
    assert [line.split(": ")[0] for line in str(e.value).splitlines()] == [f"{file}:{n}" for n in (1, 2, 3, 4)]
    for part in ("NOT_1 is not set", "duplicate key 'c'", "duplicate key 'a'", "NOT_2 is not set"):
        assert part in str(e.value)


def test_problems_are_sorted_by_file_and_line_each_once_and_counted_where_they_are_many():
    with pytest.raises(UsageError) as e, Complaints() as complaints:
        for problem in ("p.yaml:12: a: x", "s.yaml:3: b: y", "p.yaml:2: c: z", "s.yaml:3: b: y", "p.yaml: d"):
            with complaints.collecting():
                raise UsageError(problem)
        raise UsageError("p.yaml:7: the last")
    assert str(e.value).splitlines() == [
        "p.yaml: d", "p.yaml:2: c: z", "p.yaml:7: the last", "p.yaml:12: a: x", "s.yaml:3: b: y"
    ]  # fmt: skip
    with pytest.raises(UsageError) as e, Complaints() as complaints:
        complaints.add(UsageError("\n".join(f"p.yaml:{n}: x" for n in range(21, 0, -1))))
    lines = str(e.value).splitlines()
    assert len(lines) == 22 and lines[0] == "p.yaml:1: x" and lines[-1] == "21 problems"
    with Complaints():
        pass
    with pytest.raises(KeyError), Complaints() as complaints:
        complaints.add(UsageError("p.yaml: lost where the program fails"))
        raise KeyError


def test_all_problems_of_an_environment_are_reported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("conf/env").mkdir(parents=True)
    Path("conf/env/local.yaml").write_text("lak: x\nretention_days: -1\nspark:\n  a: [1]\nlanding: 3\n")
    with pytest.raises(UsageError) as e:
        load_environment(None)
    lines = str(e.value).splitlines()
    assert [line.split(":")[1] for line in lines] == ["1", "2", "4", "5"] and "did you mean 'lake'" in lines[0]


def test_an_empty_place_is_not_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEADGATE_LAKE", raising=False)
    (tmp_path / "conf" / "env").mkdir(parents=True)
    (tmp_path / "conf" / "env" / "local.yaml").write_text("lake: ${NO_SUCH_LAKE:-}\n")
    with pytest.raises(UsageError, match=r'local\.yaml:1: lake: it should have at least 1 character, not ""'):
        load_environment(None)


def test_what_is_not_a_file_is_no_pipeline(tmp_path):
    for path in (tmp_path, tmp_path / "no" / "p.yaml"):
        with pytest.raises(UsageError, match=r"cannot be read: Is a directory|there is no such file"):
            load_pipeline(path)


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


@pytest.mark.parametrize(
    ("ddl", "columns"),
    [
        ("a: INT, b: STRING", [("a", "INT"), ("b", "STRING")]),
        ("a VOID, c INTERVAL DAY TO SECOND, t TIME", [("a", "VOID"), ("c", "INTERVAL DAY TO SECOND"), ("t", "TIME")]),
        ("select INT, `a``b` INT", [("select", "INT"), ("a`b", "INT")]),
        ("a INT COMMENT 'x, y' NOT NULL, b INT", [("a", "INT"), ("b", "INT")]),
        (r"a INT COMMENT 'it\'s, x)', b INT", [("a", "INT"), ("b", "INT")]),
        ("a INT NOT NULL COMMENT 'it''s, x', b INT", [("a", "INT"), ("b", "INT")]),
        ('a INT COMMENT "x, (y", b INT', [("a", "INT"), ("b", "INT")]),
        ("a STRUCT<`b, c`: INT COMMENT 'x>', d: INT>", [("a", "STRUCT<`b, c`: INT COMMENT 'x>', d: INT>")]),
    ],
)
def test_columns_of_ddl_with_comments_and_quotes(ddl, columns):
    assert ddl_columns(ddl, "here") == columns


@pytest.mark.parametrize(
    ("ddl", "told"),
    [
        ("a ARRAY<INT", "here: unbalanced brackets in 'a ARRAY<INT'"),
        ("a INT) ; (b INT", "here: unbalanced ) in"),
        ("`a INT", "here: unbalanced ` in"),
        ("a INT COMMENT 'x", "here: unbalanced ' in"),
        ("a INT,", "here: '' is not 'name TYPE'"),
        ("a.b INT", "'a.b INT' is not 'name TYPE'"),
        ('"a" INT', "is not 'name TYPE'"),
        ("a INT, A INT, b INT, B INT", "here: duplicate column 'a', 'b'"),
    ],
)
def test_what_is_no_ddl_is_refused(ddl, told):
    with pytest.raises(UsageError) as e:
        ddl_columns(ddl, "here")
    assert told in str(e.value)


def test_a_wrong_day_is_refused():
    with pytest.raises(UsageError, match="is not a day"):
        parse_date("2013-02-30")


CAST = "- cast: {columns: {a: int}}"


def test_infinite_constants_are_refused(write):
    for written in (".inf", "1e400", ".nan"):
        steps = f"- cast: {{columns: {{a: double}}}}\n      - impute_constant: {{values: {{a: {written}}}}}"
        with pytest.raises(UsageError, match=r"values: 'a' is double; expected a finite number, not (inf|nan)"):
            load_pipeline(write(GOOD.replace(CAST, steps, 1)))


def test_steps_that_name_no_column_are_refused():
    options = [
        (step, o)
        for step in STEPS.values()
        for o in ("columns", "values")
        if any(f.name == o and f.default is dataclasses.MISSING for f in dataclasses.fields(step))
    ]
    may = {"join_table", "join_asof", "aggregate"}  # they look up, or count groups
    assert len(options) > 45 and may <= {step.name for step, _ in options}
    for step, option in options:
        if step.name in may:
            continue
        given = {"time": "t", "label": "l", "target": "x", "by": ["g"], "order": "o", "tokenizer": "f", "into": "n"}
        required = {f.name for f in dataclasses.fields(step) if f.default is f.default_factory is dataclasses.MISSING}
        given = {k: v for k, v in given.items() if k in required}
        for empty in ({}, []):
            with pytest.raises(UsageError) as e:
                checked(step, Yaml(Path("f"), {}, {}), {**given, option: empty}, ("s",))
            if "expected a " not in str(e.value):
                break
        assert f"f: s.{option}: name one or more" in str(e.value), (step.name, str(e.value))


def test_booleans_and_infinities_are_no_numbers_anywhere():
    for model, options, said in (
        (Environment, {"tables_at_once": True}, "tables_at_once: expected a whole number, not true"),
        (FileSource, {"format": "csv", "path": "a", "max_line_bytes": True}, "max_line_bytes: expected a whole number"),
        (Table, {"suite": None, "quarantine_ceiling": True}, "quarantine_ceiling: expected a number, not true"),
        (
            Table,
            {"suite": None, "quarantine_ceiling": float("nan")},
            "quarantine_ceiling: expected a finite number, not NaN",
        ),
    ):
        with pytest.raises(UsageError) as e:
            checked(model, Yaml(Path("f"), {}, {}), options, ())
        assert said in str(e.value)


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
        ("check_bounds: {columns: {}}", "check_bounds.columns: name one or more"),
        ("impute_constant: {values: {}}", "impute_constant.values: name one or more"),
        ("impute_median: {columns: [a], sample: true}", "sample: expected a whole number, not true"),
        ("check_outliers: {columns: [a], factor: false}", "factor: expected a number, not false"),
        ("check_outliers: {columns: [a], factor: .inf}", "factor: expected a finite number, not Infinity"),
        ("scale_min_max: {columns: [a], range: [true, 5]}", "range[0]: expected a number, not true"),
        ("map_columns: {columns: {c: {value: .inf}}}", "expected a finite number, not Infinity"),
        ("learn_as_of: {step: {impute_mean: {colums: [a]}}}", "did you mean 'columns'?"),
        ("learn_as_of: {step: {impute_mean: {columns: []}}, time: b}", "impute_mean.columns: name one or more"),
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


@pytest.mark.parametrize("step", ["impute_mode: {columns: [a]}", "class_weights: {label: a}"])
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
    assert [s.id for s in pipeline.steps["a"][1:3]] == ["a/1-sample_strata", "a/2-sample_strata"]


def test_the_sql_of_a_suite_is_checked_before_spark(write, tmp_path):
    rule = """
  - type: expect_rows_to_satisfy_sql
    kwargs: {column_list: [a, b], predicate: "aa > uper(b)"}
    meta: {dimension: validity}
  - type: expect_column_values_to_not_be_null
    kwargs: {column: nope, row_condition: "b < now()", condition_parser: spark}
    meta: {dimension: validity}
  - type: expect_column_values_to_not_be_null
    kwargs: {column: a, row_condition: 'col("bb") == 1', condition_parser: great_expectations}
    meta: {dimension: validity}
"""
    file = write(GOOD)
    (tmp_path / "one.yaml").write_text(SUITE.rstrip() + rule)
    with pytest.raises(UsageError) as e:
        load_pipeline(file)
    told = str(e.value).splitlines()
    assert len(told) == 4 and "'uper', which is no function allowed here — did you mean 'upper'?" in told[0]
    assert "has no column 'nope'" in told[1] and "kwargs.row_condition: 'b < now()'" in told[2]
    assert "has no column 'bb'" in told[3]


def test_all_problems_of_a_pipeline_are_reported_in_one_run(write, tmp_path):
    text = """
pipeline: Small
suites: .
tables:
  raw_a:
    source:
      format: csv
      path: ../a.csv
      schema: a STRNG, b STRING
      key: [c]
      thousands: '.'
    suite: null
  raw_b:
    source: {format: csv, path: b.csv, schema: 'a STRING, b STRING', delimiter: '"', encoding: utf9}
    suit: one
    suite: two
    steps:
      - csat: {columns: {a: int}}
      - cast: {colums: {a: int}}
  c:
    from: raw_d
    suite: null
  d:
    from: c
    steps:
      - derive: {columns: {x: uper(a)}}
    suite: one
  e:
    from: raw_b
    suite: null
"""
    (tmp_path / "one.yaml").write_text(SUITE.replace("{column: a}", "{colum: a}"))
    with pytest.raises(UsageError) as e:
        load_pipeline(write(text))
    lines = str(e.value).splitlines()
    expected = [
        (2, "pipeline"), (8, "a path may not leave"), (9, "there is no type 'STRNG'"), (10, "there is no column 'c'"),
        (11, "thousands and decimal"), (14, "unknown encoding"), (14, "quote and delimiter"),
        (15, "unknown option 'suit'"), (16, "there is no such suite"), (18, "there is no step 'csat'"),
        (19, "unknown option 'colums'"), (19, "this option is required"), (21, "there is no table 'raw_d'"),
        (26, "uses 'uper'"),
    ]  # fmt: skip
    found = [(line.split(":")[1], line) for line in lines if "pipeline.yaml:" in line]
    assert len(found) == len(expected), str(e.value)
    assert [int(at) for at, _ in found] == [number for number, _ in expected]
    for number, part in expected:
        assert sum(at == str(number) and part in line for at, line in found) == 1, (number, part)
    assert [line for line in lines if "one.yaml:" in line and "did you mean 'column'" in line]
    assert "there is no table 'raw_b'" not in str(e.value)


def test_problems_of_columns_are_reported_for_each_table(write):
    text = GOOD.replace("columns: [a]", "columns: [aa]") + "  b:\n    from: raw_a\n    suite: null\n    steps:\n"
    text += "      - drop_columns: {columns: [c]}\n  d:\n    from: a\n    suite: null\n"
    with pytest.raises(UsageError) as e:
        load_pipeline(write(text))
    assert len(str(e.value).splitlines()) == 2 and "'aa'" in str(e.value) and "'c'" in str(e.value)


def test_all_columns_that_are_not_there_are_reported(write):
    steps = "      - impute_mean: {columns: [x, a, y]}\n      - derive: {columns: {c: z + 1}}\n      - cast"
    text = GOOD.replace("      - cast", steps).replace("columns: [a]}", "columns: [c, x]}")
    text += "    publish: {mode: merge, key: [w]}\n"
    with pytest.raises(UsageError) as e:
        load_pipeline(write(text))
    told = [line.split(": ", 1)[1].split(" (columns")[0] for line in str(e.value).splitlines()]
    steps = [
        (0, "impute_mean: ", "x"),
        (0, "impute_mean: ", "y"),
        (1, "derive: c: ", "z"),
        (3, "drop_duplicates: ", "x"),
    ]
    lines = [f"tables.a.steps[{n}].{step}there is no column '{c}' here" for n, step, c in steps]
    lines[2:2] = ["tables.a.steps[0].impute_mean: impute_mean: 'a' is string, not a number; put a cast before"]
    assert told == [*lines, "tables.a.publish.key: there is no column 'w'"]


WRONG_VALUES = """
pipeline: wrong
tables:
  raw: {source: {format: csv, path: 'a.csv', schema: 'id INT, x DOUBLE, g STRING'}, suite: null}
  blind: {source: {format: parquet, path: 'a.parquet'}, suite: null}
  a:
    from: raw
    steps:
      - transform_log: {columns: [x], base: 1}
      - cast: {columns: {x: foo}}
      - encode_target: {columns: [g], target: gone, folds: 1, smooth: -3}
      - impute_mean: {columns: [g]}
      - impute_gaussian: {columns: [x, x]}
    suite: null
  b: {from: a, steps: [transform_log: {columns: [y], base: 2}, scale_robust: {columns: [y], quantiles: [1, 0]}], suite: null}
  c: {from: blind, steps: [transform_log: {columns: [x], base: -1}, find_leaks: {columns: [x], into: lost}], suite: null}
  d:
    from: raw
    bogus: 1
    steps:
      - transform_log: {columns: x}
      - transform_log: {columns: [x], base: 0}
    suite: null
"""  # noqa: E501


def test_what_meets_none_of_several_forms_is_told_once_with_all_of_them(write):
    text = """
pipeline: p
tables:
  raw: {source: {format: csv, path: 'a.csv', schema: 'id INT'}, suite: null}
  a: {from: raw, refit: weeky, steps: [impute_mean: {columns: [id]}], suite: null}
"""
    with pytest.raises(UsageError) as error:
        load_pipeline(write(text))
    (line,) = str(error.value).splitlines()
    told = line.partition(": tables.a.refit: ")[2]
    assert "expected one of 'always', 'weekly' or 'on_drift'" in told and "did you mean 'weekly'" in told, line
    assert "expected a mapping" in told and "Frozen" not in line and "literal[" not in line


def test_columns_of_tables_that_nobody_knows_are_not_those_of_the_rows(write):
    load_pipeline(
        write("""
pipeline: joined
tables:
  raw: {source: {format: parquet, path: 'a.parquet'}, suite: null}
  agg: {from: raw, grain: new, steps: [aggregate: {by: [g], columns: {n: {how: count}}}], suite: null}
  looked: {from: raw, steps: [join_table: {table: agg, on: {g: g}, columns: {n: n, v: v}, matched: m}], suite: null}
""")
    )


def test_wrong_values_of_options_are_all_told_whatever_columns_there_are(write):
    """Behind a step that is wrong, of a table of which another option is, and of one whose columns files tell alone."""
    with pytest.raises(UsageError) as error:
        load_pipeline(write(WRONG_VALUES))
    told = [line.partition(": tables.")[2] for line in str(error.value).splitlines()]
    assert told == [
        "a.steps[0].transform_log: base: 1.0 is not a number above 0 other than 1",
        "a.steps[1].cast: there is no type 'foo'",
        "a.steps[2].encode_target: folds must be 2 to 1,000",
        "a.steps[2].encode_target: smooth: -3.0 is not a number of at least 0",
        "a.steps[4].impute_gaussian: columns: 'x' is named twice",
        "b.steps[1].scale_robust: quantiles: [1.0, 0.0] are not a share and a greater one, within 0 and 1",
        "c.steps[0].transform_log: base: -1.0 is not a number above 0 other than 1",
        "d.bogus: " + told[7].partition(": ")[2],
        'd.steps[0].transform_log.columns: expected a list, not "x"',
        "d.steps[1].transform_log: base: 0.0 is not a number above 0 other than 1",
    ]


def test_no_step_complains_of_columns_that_are_not_known():
    """Where a table's columns are told by files alone, a pipeline that is right must load."""
    pytest.importorskip("grpc")
    from tests.transforms.test_connect import EXAMPLES

    with Complaints() as complaints:
        for name, options in EXAMPLES.items():
            if name != "count_tokens":  # its example is a file
                check_options(options_of(STEPS[name]).validate_python(options), {}, name, complaints)


TYPED = """
pipeline: p
tables:
  t:
    source: {format: csv, path: t.csv, schema: 'id INT, name STRING, amt DOUBLE, d DATE, b BINARY'}
    suite: null
    steps:
      - measure_missing: {columns: [amt], over: name}
      - learn_as_of: {time: b, step: {impute_mean: {columns: [amt]}}}
      - impute_constant: {values: {id: 7.5}}
      - cast: {columns: {amt: int}}
      - impute_constant: {values: {amt: 7.5}}
      - scale_standard: {columns: [d]}
      - repair_cells: {ranges: {id: [500, 1]}}
      - learn_as_of: {time: d, step: {impute_mean: {columns: [amt]}, impute_mode: {columns: [name]}}}
      - impute_auto: {columns: [amt], share: 2}
"""


def test_wrong_types_of_columns_and_what_is_behind_them_are_told_of_all_steps(write):
    told = {
        8: "over: 'name' is string, neither a date nor a time", 9: "time: 'b' is binary, not a time",
        10: "'id' is int, which does not hold 7.5", 12: "'amt' is int, which does not hold 7.5",
        13: "'d' is date, not a number", 14: "the wrong way round: [500.0, 1.0]",
        15: "name one step and its options", 16: "share: 2.0 is not above 0",
    }  # fmt: skip
    with pytest.raises(UsageError) as e:
        load_pipeline(write(TYPED))
    found = {int(line.split(":")[1]): line for line in str(e.value).splitlines() if "pipeline.yaml:" in line}
    assert [*found] == [*told] and all(told[n] in line for n, line in found.items()), str(e.value)
    with pytest.raises(UsageError, match=r"expected \[lowest, highest\] or learned — did you mean 'learned'"):
        load_pipeline(write(TYPED.replace("[500, 1]", "learnt")))


@pytest.mark.parametrize(
    ("inner", "told"),
    [
        (
            "impute_mean: {column: [b]}",
            [".columns: this option is required", ": unknown option 'column' — did you mean"],
        ),
        ("impute_mean: {columns: [b], share: 1}", [": unknown option 'share' (allowed: "]),
        ("impute_mean: {columns: b}", ['.columns: expected a list, not "b"']),
    ],
)
def test_wrong_options_of_a_step_in_learn_as_of_are_told_as_of_any_step(write, inner, told):
    text = GOOD.replace("cast: {columns: {a: int}}", f"learn_as_of: {{time: a, step: {{{inner}}}}}")
    with pytest.raises(UsageError) as e:
        load_pipeline(write(text))
    lines = str(e.value).splitlines()
    assert len(lines) == len(told), lines
    for line, why in zip(lines, told, strict=True):
        assert why in line and "tables.a.steps[0].learn_as_of.step.impute_mean" in line, line


TYPES = {  # a step -> what is told of it where `at` is a time, `s` a struct and `d` a double
    "make_minority: {label: g, columns: [d, at]}": "make_minority: 'at' is timestamp, not a number, a text",
    "make_minority: {label: s, columns: [d]}": "make_minority: 's' is struct<a:int>, not a plain value",
    "make_minority: {label: g, columns: [d], within: [s]}": "make_minority: 's' is struct<a:int>, not a plain value",
    "thin_majority: {label: g, columns: [at]}": "thin_majority: 'at' is timestamp, not a number",
    "thin_majority: {label: s, columns: [d]}": "thin_majority: 's' is struct<a:int>, not a plain value",
    "balance_classes: {label: g, columns: [at]}": "balance_classes: 'at' is timestamp, not a number, a text",
    "balance_classes: {label: s, columns: [d]}": "balance_classes: 's' is struct<a:int>, not a plain value",
    "class_weights: {label: s}": "class_weights: 's' is struct<a:int>, not a plain value",
    "sample_strata: {by: [g], rows: 1, weight: at}": "sample_strata: 'at' is timestamp, not a number",
    "sample_strata: {by: [at], rows: 1, bins: {at: 3}}": "sample_strata: 'at' is timestamp, not a number",
    "mix_sources: {by: [g], budget: 9, unit: tokens, column: d}": "column: 'd' is double, not a whole number",
    "mix_sources: {by: [at], budget: 9, bins: {at: 3}}": "mix_sources: 'at' is timestamp, not a number",
    "order_rows: {column: g}": "order_rows: 'g' is string, not a number",
    "bag_exactly: {label: s}": "bag_exactly: 's' is struct<a:int>, not a plain value",
    "split_by_time: {column: g, starts: {train: null, test: 2024-01-01}}": "'g' is string, neither a date nor a time",
    "split_by_time: {column: at, starts: {train: null, test: soon}}": "timestamp, which does not hold 'soon'",
    "split_by_column: {column: s}": "split_by_column: 's' is struct<a:int>, not a plain value",
    "drop_repeated_lines: {columns: [g, d]}": "drop_repeated_lines: 'd' is double, not a text; put a cast before",
    "normalize_url: {columns: [d]}": "normalize_url: 'd' is double, not a text; put a cast before",
    "drop_near_images: {columns: [g]}": "drop_near_images: 'g' is string, not binary, as the bytes of images are",
    "aggregate: {by: [s], columns: {n: {how: count}}}": "aggregate: 's' is struct<a:int>, not a plain value",
}


@pytest.mark.parametrize("earlier", [False, True])
def test_types_that_a_step_cannot_do_with_are_told_before_spark_starts(write, earlier):
    """By a schema, or by a step before."""
    pytest.importorskip("sklearn")
    schema = f"g STRING, d DOUBLE, s STRUCT<a: INT>, at {'STRING' if earlier else 'TIMESTAMP'}"
    text = "pipeline: p\ntables:\n"
    for i, step in enumerate(TYPES):
        split = "" if step.startswith(("split", "aggregate")) else "split_by_hash: {key: [g]}, "
        steps = f"[{'cast: {columns: {at: timestamp}}, ' if earlier else ''}{split}{step}]"
        grain = ", grain: new" if step.startswith("aggregate") else ""
        source = f"{{format: parquet, path: t.parquet, schema: '{schema}'}}"
        text += (
            f"  r{i}: {{source: {source}, suite: null}}\n  t{i}: {{from: r{i}, suite: null{grain}, steps: {steps}}}\n"
        )
    with pytest.raises(UsageError) as e:
        load_pipeline(write(text))
    lines = [line for line in str(e.value).splitlines() if "pipeline.yaml:" in line]
    assert len(lines) == len(TYPES), str(e.value)
    for line, (step, told) in zip(lines, TYPES.items(), strict=True):
        assert f".{step.partition(':')[0]}: {told}" in line or told in line, line


def test_texts_of_some_length_have_ranges_as_others_have(write):
    typed = "a STRING, b VARCHAR(9)"
    step = "repair_cells: {ranges: {b: [1, 9]}}"
    load_pipeline(write(GOOD.replace("a STRING, b STRING", typed).replace("cast: {columns: {a: int}}", step)))


NEXT = "impute_next: {columns: [x], by: [k], order: at"
LINE = "impute_interpolated: {columns: [x], by: [k], order: at"
BY_TIME = "split_by_time: {column: at, starts: {train: null, test: 2024-01-01}}"
FILL = NEXT + "}"
JOIN_W = "join_table: {table: w, 'on': {k: k}, columns: {theirs: x}, matched: found}"
AS_OF = "learn_as_of: {time: at, step: {impute_mean: {columns: [x]}}}"
TARGETS = "encode_target: {columns: [k], target: x, time: at}"
BY_HASH = "split_by_hash: {key: [k]}"


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ([NEXT + "}"], [AS_OF], [("t", 0, "time matters here")]),
        ([BY_TIME, NEXT + "}"], [], [("t", 1, "by 't/0-split_by_time' time matters here")]),
        ([LINE + "}"], [TARGETS], [("t", 0, "say look_ahead: true")]),
        ([LINE + ", look_ahead: true}"], [TARGETS], []),
        ([BY_TIME, NEXT + ", look_ahead: true}"], [], []),
        ([NEXT + "}", "impute_mean: {columns: [x]}"], ["encode_target: {columns: [k], target: x}"], []),
        ([NEXT + "}", BY_HASH], [], [("t", 0, "before 't/1-split_by_hash' splits them")]),
        (["impute_previous: {columns: [x], by: [k], order: at}"], [BY_HASH], [("t", 0, "'u/0-split_by_hash'")]),
        ([NEXT + ", across_splits: true}", BY_HASH], [], []),
        ([BY_HASH, NEXT + "}"], [], []),
        ([BY_HASH], [NEXT + "}"], []),
    ],
)  # fmt: skip
def test_what_fills_from_later_rows_or_across_splits_must_say_so(write, first, second, told):
    listed = [{"steps": [yaml.safe_load(s) for s in steps], "suite": None} for steps in (first, second)]
    source = {"format": "csv", "path": "t.csv", "schema": "k STRING, x DOUBLE, at DATE"}
    tables = {"t": {"source": source} | listed[0], "u": {"from": "t"} | listed[1]}
    text = yaml.safe_dump({"pipeline": "p", "tables": tables}, sort_keys=False)
    if not told:
        load_pipeline(write(text))
        return
    with pytest.raises(UsageError) as e:
        load_pipeline(write(text))
    lines = str(e.value).splitlines()
    assert len(lines) == len(told)
    assert all(f"tables.{t}.steps[{i}]." in line and why in line for (t, i, why), line in zip(told, lines, strict=True))


@pytest.mark.parametrize(
    ("tables", "refused"),
    [
        ({"other": (["source"], [FILL]), "t": (["source"], [AS_OF])}, []),
        ({"t": (["source"], []), "behind": (["t"], [FILL]), "timed": (["t"], [AS_OF])}, ["behind"]),
        ({"t": (["source"], [AS_OF]), "behind": (["t"], []), "last": (["behind"], [FILL])}, ["last"]),
        ({"w": (["source"], [FILL]), "t": (["source"], [JOIN_W, AS_OF])}, ["w"]),
        ({"w": (["source"], []), "t": (["source"], [JOIN_W, AS_OF]), "beside": (["source"], [JOIN_W, FILL])}, []),
        ({"w": (["source"], []), "t": (["source"], [AS_OF]), "both": (["t", "w"], [FILL])}, ["both"]),
    ],
)
def test_looking_ahead_is_refused_where_rows_have_to_do_with_the_time(write, tables, refused):
    made = {}
    for name, (starts, steps) in tables.items():
        source = {"format": "csv", "path": f"{name}.csv", "schema": "k STRING, x DOUBLE, at DATE"}
        made[name] = {"suite": None, "steps": [yaml.safe_load(s) for s in steps]}
        made[name] |= {"source": source} if starts == ["source"] else {"from": starts}
    file = write(yaml.safe_dump({"pipeline": "p", "tables": made}, sort_keys=False))
    if not refused:
        load_pipeline(file)
        return
    with pytest.raises(UsageError) as e:
        load_pipeline(file)
    lines = str(e.value).splitlines()
    assert [line.split("tables.")[1].split(".")[0] for line in lines] == refused and "time matters" in lines[0]


def test_what_is_filled_beside_a_split_that_its_rows_never_meet_is_fine(write):
    """The suite of a table that is split looks keys up there; none of its rows is made from them."""
    parent = "columns: [a], parent_table: u, parent_columns: [k]"
    rule = f"- type: expect_foreign_key_to_exist\n    kwargs: {{{parent}}}\n    meta: {{dimension: consistency}}\n"
    source = "{format: csv, path: u.csv, schema: 'k STRING, x DOUBLE, at DATE'}"
    filled = f"  u: {{source: {source}, suite: null, steps: [{NEXT}}}]}}\n"
    split = GOOD.replace("      - cast", "      - split_by_hash: {key: [a]}\n      - cast") + filled
    file = write(split)
    file.with_name("one.yaml").write_text(SUITE + "  " + rule)
    assert load_pipeline(file).inputs("a") == {"raw_a", "u"}
    joined = "      - join_table: {table: u, on: {a: k}, columns: {x: x}, matched: m}\n      - split_by"
    with pytest.raises(UsageError, match="before 'a/1-split_by_hash' splits them"):
        load_pipeline(write(split.replace("      - split_by", joined)))


OWN = '''
from dataclasses import dataclass
from typing import ClassVar
from headgate.transforms.step import Step, StepError

@dataclass(frozen=True, kw_only=True)
class TakeNumbers(Step):
    """Take numbers."""
    name: ClassVar[str] = "take_numbers"
    column: str
    def columns_after(self, have, tables):
        if have[self.column].startswith("string"):
            raise StepError(f"'{self.column}' is a text")
        return have
    def apply(self, df):
        return df
'''


def test_a_step_of_ones_own_is_not_asked_for_columns_without_types(write):
    own = GOOD.replace("cast: {columns: {a: int}}", "take_numbers: {column: a}")
    file = write(own.replace("suites: .", "suites: .\nsteps_from: [own.py]"))
    file.with_name("own.py").write_text(OWN)
    with pytest.raises(UsageError, match=r"steps\[0\]\.take_numbers: 'a' is a text$"):
        load_pipeline(file)


@pytest.mark.parametrize("tables", ["[]", "x", "{}", "{a: 1}", "{1: {suite: null}}", "{a: {steps: [1]}}"])
def test_a_file_whose_tables_are_no_tables_is_refused(write, tables):
    with pytest.raises(UsageError, match="tables"):
        load_pipeline(write(f"pipeline: p\ntables: {tables}\n"))


SOURCES = """pipeline: p
tables:
  abt: {source: {format: csv, path: a.csv, schema: "id STRING, name STRING, score DOUBLE"}, suite: null}
  buy: {source: {format: csv, path: b.csv, schema: "number STRING, name STRING, score DOUBLE"}, suite: null}
  both: {from: [abt, buy], mapping: {buy: {columns: {id: number}}}, suite: null}
  later: {from: both, suite: null, steps: [derive: {columns: {e: id}}]}
  golden: {from: later, grain: new, suite: null, steps: [golden_records: {by: e, OPTIONS}]}
  fused:
    from: both
    grain: new
    suite: null
    steps: [combine_predictions: {by: [id], scores: [score], weights: {WEIGHT: 2}}]
"""


def test_misspelt_sources_are_told_before_spark_starts(write):
    load_pipeline(write(SOURCES.replace("OPTIONS", "sources: [buy, abt], weights: {abt: 2}").replace("WEIGHT", "abt")))
    with pytest.raises(UsageError) as error:
        load_pipeline(write(SOURCES.replace("OPTIONS", "sources: [bye], weights: {crm: 2}").replace("WEIGHT", "abbt")))
    told = [line.partition(": tables.")[2] for line in str(error.value).splitlines()]
    known = "(sources: abt, buy)"
    assert told == [
        f"golden.steps[0].golden_records.sources: there is no source 'bye' — did you mean 'buy'? {known}",
        f"golden.steps[0].golden_records.weights: there is no source 'crm' {known}",
        f"fused.steps[0].combine_predictions.weights: there is no source 'abbt' — did you mean 'abt'? {known}",
    ]


def test_an_aggregate_makes_some_column():
    with pytest.raises(StepError, match="by, columns: name a column to group by, or one to make"):
        STEPS["aggregate"](by=(), columns={}).columns_after({"a": "int"}, {})
    assert STEPS["aggregate"](by=("a",), columns={}).columns_after({"a": "int"}, {}) == {"a": "int"}
