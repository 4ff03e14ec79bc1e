"""The command line as a careless user meets it. None of these starts Spark."""

import json
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

PIPELINE = str(ROOT / "conf" / "flights.yaml")


def headgate(*arguments, cwd=None, **environment):
    import os

    command = [sys.executable, "-m", "jobs.cli", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "160"} | environment
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["rnu"], 2, "there is no command 'rnu' — did you mean 'run'?"),
        (["run"], 2, "Missing argument 'PIPELINE'"),
        (["run", PIPELINE, "--as-off", "2013-01-01"], 2, "--as-of"),
        (["run", PIPELINE, "--as-of", "2013-13-01"], 2, "is not a day like"),
        (["run", "nowhere.yaml"], 2, "nowhere.yaml: there is no such file"),
        (["run", PIPELINE, "--env", "clutser"], 2, "did you mean 'cluster.yaml'?"),
        (["run", PIPELINE, "--table", "flihgts"], 2, "did you mean 'flights'?"),
        (["run", PIPELINE, "--table", "flights", "--release", "x"], 2, "does not go with --table"),
        (["run", PIPELINE, "--landing", "nowhere"], 4, "no file matches 'flights/flights_{date}.csv' in nowhere"),
        (["run", PIPELINE, "--landing", "nowhere", "--dry-run"], 4, "no file matches"),
        (["steps", "drop_duplicate"], 2, "did you mean 'drop_duplicates'?"),
        (["versions", "flights", "--lake", "nowhere"], 4, "has no table 'flights'"),
        (["tables", "--lake", "nowhere", "--release", "x"], 4, "has no release yet"),
        (["restore", "flights"], 2, "give TABLE with --version, or --release"),
        (["sql", "select 1 frm x", "--lake", "nowhere"], 2, "sql:"),
        (["sample", "fligths", "--into", "x"], 2, "flights"),
    ],
)
def test_mistakes_get_one_clear_line_and_their_exit_code(tmp_path, arguments, code, told):
    done = headgate(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert told in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_teaches():
    done = headgate("--help")
    assert done.returncode == 0 and "Exit codes" in done.stdout and "headgate sample flights" in done.stdout
    assert "--as-of" in headgate("run", "--help").stdout


def test_steps_are_listed_and_shown():
    listed = json.loads(headgate("steps", "--json").stdout)
    assert {"drop_duplicates", "impute_median", "join_table", "sample_strata"} <= {s["step"] for s in listed}
    shown = headgate("steps", "impute_median").stdout
    assert "exact median" in shown and re.search(r"columns: .*\(required\)", shown)


def test_the_schema_is_json():
    assert json.loads(headgate("schema").stdout)["title"] == "PipelineFile"


def test_a_dry_run_says_what_and_why(night, tmp_path):
    folders = ["--landing", str(night / "landing"), "--lake", str(tmp_path / "lake")]
    rows = json.loads(headgate("run", PIPELINE, "--dry-run", "--json", "--table", "raw_flights", *folders).stdout)
    assert rows == [{"table": "raw_flights", "build": True, "why": "3 new files"}]
    assert not (tmp_path / "lake").exists()


def test_what_is_there_is_told_as_table_and_as_json(night):
    lake = ["--lake", str(night / "lake")]
    rows = json.loads(headgate("tables", "--json", *lake).stdout)
    training = next(r for r in rows if r["table"] == "flights_training")
    assert set(training) == {"table", "path", "version", "rows", "release"} and training["version"] == 0
    assert "flights_training" in headgate("tables", *lake).stdout
    assert "flights-1" in headgate("releases", *lake).stdout
    assert json.loads(headgate("versions", "flights", "--json", *lake).stdout)[0]["version"] == 0
    query = "select count(*) as n from raw_flights"
    assert json.loads(headgate("sql", query, "--json", "--release", "flights-1", *lake).stdout) == [{"n": 2699}]
    up_to_date = headgate("run", PIPELINE, "--landing", str(night / "landing"), *lake)
    assert up_to_date.returncode == 0 and "nothing to build" in up_to_date.stdout


def test_doctor_says_what_it_found(tmp_path):
    done = headgate("doctor", "--json", cwd=tmp_path)
    assert done.returncode == 0 and {f["what"] for f in json.loads(done.stdout)} >= {"java", "jars", "pyspark", "lake"}
