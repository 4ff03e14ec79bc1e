"""What the commands print: tables, one value a line, CSV, JSON; what `check`, `init` and `expectations` say."""

import dataclasses
import json
import os
import resource
import subprocess
import sys
from datetime import datetime, timezone

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from headgate.expectations.catalogue import known_types
from headgate.jobs.cli import output, places, starter
from headgate.jobs.config.environment import load_environment
from headgate.jobs.lake.lake import Lake
from headgate.jobs.pipeline.outcome import Outcome, TableOutcome
from headgate.jobs.progress import Progress
from tests.conftest import ROOT
from tests.jobs.test_cli import headgate, here  # noqa: F401  (a fixture)

TEXTS = pa.map_(pa.string(), pa.string())
ROWS = pa.table(
    {
        "_row_id": ["a", "b"],
        "id": [1, 2],
        "text": ["short", "x" * 100],
        "facts": pa.array([[("k", 1.5)], None], pa.map_(pa.string(), pa.float64())),
        "nested": pa.array(
            [[{"m": [("a", "1")]}], []], pa.list_(pa.struct([("m", pa.map_(pa.string(), pa.string()))]))
        ),
        "at": pa.array([datetime(2024, 1, 1, tzinfo=timezone.utc), None], pa.timestamp("us", "UTC")),
    }
)


@pytest.fixture
def answers(tmp_path, here):  # noqa: F811
    """Runs `headgate sql` over a table `t`; gives what it prints."""
    write_deltalake(Lake(str(tmp_path / "lake")).path("t"), ROWS)

    def ask(query, *options):
        code, out, error = here("sql", query, *options)
        assert (code, error) == (0, "")
        return out

    return ask


def test_maps_are_json_objects_and_bookkeeping_is_shown_on_request(answers):
    rows = json.loads(answers("select * from t order by id", "--json"))
    assert list(rows[0]) == ["id", "text", "facts", "nested", "at"]
    assert rows[0]["facts"] == {"k": 1.5} and rows[0]["nested"] == [{"m": {"a": "1"}}] and rows[1]["facts"] is None
    assert rows[0]["at"] == "2024-01-01T00:00:00+00:00"
    everything = json.loads(answers("select * from t order by id", "--json", "--all-columns"))
    assert [{"_row_id": i, **row} for i, row in zip("ab", rows, strict=True)] == everything
    assert json.loads(answers("select _ROW_ID, id from t order by id", "--json"))[0] == {"_row_id": "a", "id": 1}
    assert json.loads(answers("select count(*) as n, map {1000: 2000} as m from t", "--json")) == [
        {"n": 2, "m": {"1000": 2000}}
    ]
    assert '{"k": 1.5}' in answers("select facts from t order by id")


def test_csv_is_read_back_as_it_was(answers):
    text = answers('select id, text, facts, "at", id > 1 as big from t order by id', "--csv")
    assert text.splitlines() == [
        "id,text,facts,at,big",
        '1,short,"{""k"": 1.5}",2024-01-01T00:00:00+00:00,false',
        f"2,{'x' * 100},,,true",
    ]


def test_csv_tells_an_empty_text_from_a_null(answers):
    assert answers("select '' as a, null as b, 'x,\"y' as c, ' ' as d", "--csv") == 'a,b,c,d\n"",,"x,""y", \n'
    assert answers("select null as a", "--csv") == 'a\n""\n'


def test_json_is_that_of_any_reader(answers):
    text = answers("select 'nan'::double as a, [1e0, '-inf'::double] as b, {'c': 'inf'::float} as c", "--json")
    assert json.loads(text, parse_constant=pytest.fail) == [
        {"a": "NaN", "b": [1.0, "-Infinity"], "c": {"c": "Infinity"}}
    ]


def test_days_that_python_does_not_hold_are_told(here, answers):  # noqa: F811
    code, _, error = here("sql", "select date '10000-01-01' as d")
    assert code == 2 and "outside the years 1 to 9999; cast it to VARCHAR" in error


def test_wide_rows_are_shown_one_value_a_line_and_cells_of_a_table_are_cut(answers, monkeypatch):
    narrow = answers("select id, text from t order by id")
    assert "x" * 59 + "…" in narrow and "x" * 60 not in narrow and len(narrow.splitlines()) == 3
    monkeypatch.setattr(output, "PIPED", 40)
    wide = answers("select id, text from t order by id")
    lines = [line.rstrip() for line in wide.splitlines()]
    assert lines[:3] == ["-- row 1", "id    1", "text  short"] and lines[3] == "-- row 2"
    assert "".join(line[6:] for line in lines[5:]) == "x" * 100  # nothing is lost
    assert len(answers("select id from t order by id").splitlines()) == 3


def test_options_of_sql_that_cannot_be_combined(answers, here):  # noqa: F811
    code, _, error = here("sql", "select 1", "--csv", "--json")
    assert code == 2 and "--csv cannot be combined with --json" in error


def test_an_empty_folder_is_no_lake(tmp_path, here):  # noqa: F811
    (tmp_path / "lake").mkdir()
    for command in (["tables"], ["releases"], ["sql", "select 1"], ["vacuum"]):
        code, out, error = here(*command)
        assert (code, out) == (4, "") and "headgate: there is no lake at " in error, error


def test_expectations_are_listed_and_shown(here):  # noqa: F811
    listed = json.loads(here("expectations", "--json")[1])
    assert {e["expectation"] for e in listed} == set(known_types())
    code, shown, _ = here("expectations", "expect_column_values_to_be_between")
    assert code == 0 and "Expect the column entries to be between" in shown
    assert "column: text (required)" in shown and "mostly: number from 0 to 1" in shown and "(default: 1)" in shown
    assert (
        "parent_table, parent_columns: where it must be found" in here("expectations", "expect_foreign_key_to_exist")[1]
    )
    for name, told in (("expect_column_values_to_be_betwen", "did you mean"), ("unexpected_rows_expectation", "write")):
        code, _, error = here("expectations", name)
        assert code == 2 and told in error and len(error.splitlines()) == 1


def test_a_project_is_written_once_and_checked_without_landing_files(tmp_path, here):  # noqa: F811
    code, out, error = here("init", "mine")
    assert (code, error) == (0, "") and all(f"wrote mine/{name}" in out for name in starter.PROJECT)
    before = {p: p.read_bytes() for p in (tmp_path / "mine").rglob("*") if p.is_file()}
    code, out, error = here("init", "mine")
    assert (code, out) == (2, "") and "exist already; nothing was written" in error
    assert {p: p.read_bytes() for p in (tmp_path / "mine").rglob("*") if p.is_file()} == before
    for file in (tmp_path / "mine" / "landing" / "orders").iterdir():
        file.unlink()
    code, out, error = here("check", "mine/conf/orders.yaml", "--json")
    assert (code, error) == (0, "")
    assert json.loads(out) == [
        {"table": "raw_orders", "starts_from": "csv source", "steps": 0, "suite": "raw_orders", "rules": 2},
        {"table": "orders", "starts_from": "raw_orders", "steps": 3, "suite": "orders", "rules": 5},
    ]
    assert not (tmp_path / "mine" / "lake").exists()


def test_check_exits_with_all_complaints(tmp_path, here):  # noqa: F811
    here("init", "mine")
    suite = tmp_path / "mine" / "expectations" / "suites" / "orders.yaml"
    suite.write_text(
        suite.read_text().replace("min_value: 0", "min_value: zero").replace("severity: warning", "severity: x")
    )
    (tmp_path / "mine" / "conf" / "env" / "local.yaml").write_text("lkae: lake\n")
    code, out, error = here("check", "mine/conf/orders.yaml")
    assert (code, out) == (2, "")
    for told in ("'zero' is neither a number", "'x'", "did you mean 'lake'?"):
        assert told in error, error


@pytest.mark.slow
def test_the_project_runs_as_it_is(spark, tmp_path, here, monkeypatch):  # noqa: F811
    import contextlib

    monkeypatch.setattr(places, "spark_of", lambda environment: contextlib.nullcontext(lambda reads: spark))
    here("init", ".")
    code, out, error = here("run", "conf/orders.yaml")
    assert code == 0 and "release orders-1" in out, error
    lines = error.splitlines()
    assert [line.split(",")[0] for line in lines] == ["[1 of 2] raw_orders: 5 rows", "[2 of 2] orders: 3 rows"], error
    rows = json.loads(here("sql", "select order_id, amount from orders order by 1", "--json")[1])
    assert rows == [
        {"order_id": 1, "amount": "12.50"}, {"order_id": 2, "amount": "9.00"}, {"order_id": 4, "amount": "31.20"},
    ]  # fmt: skip
    reasons = json.loads(here("sql", "select step from ledger order by 1", "--json")[1])
    assert [r["step"] for r in reasons] == ["orders/1-cast", "orders/2-drop_duplicates"]
    for key in ("order_id=3", "customer=Edsger"):  # a row that a step rejected
        code, story, _ = here("trace", "--table", "orders", "--key", key)
        assert code == 0 and "rejected" in story and "not known" in story, story
    monkeypatch.chdir(tmp_path / "landing")  # the lake is found from any folder of the project
    code, out, error = here("run", "../conf/orders.yaml")
    assert code == 0 and "nothing to build" in out and error == ""
    assert json.loads(here("tables", "--json")[1])[0]["path"] == str(tmp_path / "lake" / "orders")
    folder = tmp_path / "landing"
    # Machines differ, so the measure is what importing the libraries takes that a run with nothing new needs.
    plain = min(cpu_seconds(folder, "-c", f"import {LIBRARIES}") for _ in range(2))
    for arguments, most in ((["--help"], 0.6), (["run", "../conf/orders.yaml"], 5)):
        taken = cpu_seconds(folder, "-m", "headgate", *arguments)
        assert taken <= most * plain, (arguments, taken, plain)


LIBRARIES = "pyarrow.dataset, deltalake, duckdb, pydantic, yaml, click, rich.console, sqlglot, obstore"


def cpu_seconds(folder, *arguments):
    """CPU seconds of Python in a process of its own, with all modules compiled."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_the_help_imports_nothing_heavy():
    heavy = ("great_expectations", "pyspark", "pandas", "pyarrow", "duckdb", "pydantic", "rich")
    code = f"import headgate.jobs.cli.main, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.slow
def test_great_expectations_is_not_imported_for_what_is_up_to_date():
    code = (
        "from pathlib import Path; import sys; from headgate.jobs.config.pipeline import load_pipeline\n"
        "import headgate.jobs.pipeline.run; load_pipeline(Path('conf/flights.yaml'), thorough=False)\n"
        "print([m for m in ('great_expectations', 'duckdb') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "[]\n"


def test_a_summary_tells_warnings_apart_from_rejected_rows(capsys):
    one = TableOutcome("t", "built", version=0, rows=2, warnings=["mind the gap"])
    output.summary(Outcome("r", None, [one], 1.0, 1))
    told = capsys.readouterr().out.splitlines()
    assert told[2:] == ["warnings:", "  t: mind the gap", "1 table built in 1.0 s; release none"]
    two = dataclasses.replace(one, rejected={"t/0-drop_duplicates: exact_duplicate (x)": 1})
    output.summary(Outcome("r", None, [two], 1.0, 1))
    assert capsys.readouterr().out.splitlines()[2:6] == [
        "rejected rows, each with its evidence in the ledger:",
        "  t: 1 by t/0-drop_duplicates: repeats another row in x",
        "warnings:",
        "  t: mind the gap",
    ]


def test_the_environment_is_found_from_any_folder(tmp_path, monkeypatch):
    for name in ("HEADGATE_LAKE", "HEADGATE_LANDING"):
        monkeypatch.delenv(name, raising=False)
    deep = tmp_path / "a" / "b"
    (tmp_path / "conf" / "env").mkdir(parents=True)
    deep.mkdir(parents=True)
    (tmp_path / "conf" / "env" / "local.yaml").write_text("lake: lake\nlanding: s3a://bucket/x\n")
    monkeypatch.chdir(tmp_path)
    assert load_environment(None).lake == "lake"
    monkeypatch.chdir(deep)
    above = load_environment(None)
    assert (above.lake, above.landing) == (str(tmp_path / "lake"), "s3://bucket/x")
    assert (
        load_environment(None, tmp_path / "conf" / "p.yaml")
        == load_environment(None, deep / "../../conf/p.yaml")
        == above
    )
    assert load_environment(None, lake="mine").lake == "mine"
    (deep / "conf" / "env").mkdir(parents=True)
    assert load_environment(None).lake == "lake"  # the nearest conf/env counts, and it has no local.yaml


def test_a_log_is_one_json_line_a_phase_and_an_unknown_form_is_refused(monkeypatch, capsys, here):  # noqa: F811
    built = {"table": "t", "status": "built", "rows": 1234, "seconds": 1.26}

    def told():
        progress = Progress(watched=False)
        progress.expect(2)
        with progress.phase("t", "stage"):
            pass
        progress.finished(built)
        progress.finished({"table": "u", "status": "up to date"})
        progress.tell("warning", table="t", message="mind the gap")
        return capsys.readouterr().err.splitlines()

    assert told() == ["[1 of 2] t: 1,234 rows, 1.3 s", "warning: mind the gap"]
    monkeypatch.setenv("HEADGATE_LOG", "json")
    events = [json.loads(line) for line in told()]
    assert [e["event"] for e in events] == ["phase", "table", "warning"]
    assert events[0]["phase"] == "stage" and (events[1]["number"], events[1]["of"], events[1]["rows"]) == (1, 2, 1234)
    monkeypatch.setenv("HEADGATE_LOG", "jsno")
    code, _, error = here("steps")
    assert code == 2 and "HEADGATE_LOG: unknown form 'jsno'" in error
