"""The Python interface."""

import json
import logging
import os
import re
import subprocess
import sys

import pyarrow as pa
import pytest
from deltalake import write_deltalake

import headgate
from headgate.jobs.lake.lake import Lake as LakeFolder
from tests.conftest import ROOT

HEAVY = ["pyspark", "pyarrow", "deltalake", "great_expectations", "pandas", "pydantic", "duckdb", "numpy"]


@pytest.fixture
def lake(tmp_path):
    """A lake with a table of two versions; a release pins each."""
    folder = LakeFolder(str(tmp_path / "lake"))
    for n in (1, 2):
        write_deltalake(folder.path("t"), pa.table({"a": list(range(n)), "s": ["x"] * n}), mode="overwrite")
        folder.publish_release("p", f"r{n}", {"t": n - 1}, None, None if n == 1 else 1, None)
    write_deltalake(folder.path("t"), pa.table({"a": [0, 1, 2], "s": ["x", "y", None]}), mode="overwrite")
    return headgate.Lake(tmp_path / "lake")


def test_importing_headgate_is_cheap():
    script = f"import sys, headgate; print(headgate.__version__, [m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split(" ", 1) == [headgate.__version__, "[]\n"]


def test_every_public_name_is_there_and_no_other():
    assert [n for n in headgate.__all__ if getattr(headgate, n) is None] == []
    assert set(headgate.__all__) == {*headgate.PLACES, "__version__"}
    assert set(headgate.__all__) <= set(dir(headgate)) and (ROOT / "headgate" / "py.typed").exists()
    assert (
        headgate.__version__
        in subprocess.run(
            [sys.executable, "-m", "headgate", "--version"], cwd=ROOT, capture_output=True, text=True
        ).stdout
    )
    with pytest.raises(AttributeError, match="no attribute 'ruin'"):
        headgate.ruin  # noqa: B018
    from headgate import words  # a module is still imported as one

    assert words.did_you_mean("flihgts", ["flights"])


def test_reading_the_heavy_parts_of_a_lake_needs_no_spark(lake):
    script = (
        f"import sys, headgate; lake = headgate.Lake({lake.folder.root!r}); lake.read('t').to_table(); "
        "lake.sql('select 1'); print([m for m in ('pyspark', 'great_expectations') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("at", "rows"),
    [({}, 3), ({"version": 0}, 1), ({"release": "latest"}, 2), ({"release": "p-1"}, 1), ({"release": "2"}, 2)],
)
def test_a_table_is_read_in_every_form(lake, spark, at, rows):
    assert lake.read("t", **at).count_rows() == rows
    assert lake.read("t", **at, as_="duckdb").aggregate("count(*)").fetchall() == [(rows,)]
    assert len(lake.read("t", **at, as_="pandas")) == rows
    assert lake.read("t", **at, as_="spark", spark=spark).count() == rows


def test_a_table_is_read_by_polars(lake):
    polars = pytest.importorskip("polars")
    found = lake.read("t", as_="polars").filter(polars.col("a") > 0).select("s").collect()
    assert found["s"].to_list() == ["y", None]


def test_polars_may_be_missing(lake, monkeypatch):
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(headgate.UsageError, match="pip install polars"):
        lake.read("t", as_="polars")


def test_a_lake_tells_what_it_has(lake):
    assert [(t["table"], t["version"], t["rows"], t["release"]) for t in lake.tables()] == [("t", 2, 3, None)]
    assert [t["version"] for t in lake.tables("p-1")] == [0]
    assert [r["release"] for r in lake.releases()] == ["p-2", "p-1"]
    assert [(v["version"], v["releases"]) for v in lake.versions("t")] == [(2, []), (1, ["p-2"]), (0, ["p-1"])]
    assert lake.sql("select sum(a) as n from t").to_pylist() == [{"n": 3}]
    assert lake.sql("select max(a) as n from t", release="latest").to_pylist() == [{"n": 1}]
    assert lake.read("releases").count_rows() == 2 and "lake" in repr(lake)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"table": "tt"}, headgate.InputMissing, "has no table 'tt'"),
        ({"table": "tt", "release": "p-1"}, headgate.InputMissing, "has no table 'tt'"),
        ({"table": "runs", "release": "p-1"}, headgate.InputMissing, "has no table 'runs'"),
        ({"table": "T"}, headgate.UsageError, "'T'"),
        ({"table": "t", "version": 9}, headgate.InputMissing, "no version 9"),
        ({"table": "t", "release": "p-9"}, headgate.InputMissing, "did you mean 'p-"),
        ({"table": "t", "release": "p-1", "version": 0}, headgate.UsageError, "cannot be combined"),
        ({"table": "t", "as_": "csv"}, headgate.UsageError, "'csv'; expected one of arrow, duckdb"),
        ({"table": "t", "spark": object()}, headgate.UsageError, "cannot be combined with as_='arrow'"),
    ],
)
def test_mistakes_are_told_as_on_the_command_line(lake, arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        lake.read(**arguments)


def test_a_lake_that_is_not_there_is_missing(tmp_path):
    with pytest.raises(headgate.InputMissing, match="there is no lake at"):
        headgate.Lake(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(headgate.InputMissing, match="is a file, not a folder"):
        headgate.Lake(tmp_path / "file")


PEOPLE = """
pipeline: people
tables:
  people:
    source: {format: csv, path: people*.csv, schema: "id INT, name STRING"}
    suite: null
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "landing").mkdir()
    (tmp_path / "landing" / "people.csv").write_text("id,name\n1, ada \n2,bob\n")
    (tmp_path / "people.yaml").write_text(PEOPLE)
    return tmp_path


def places(folder):
    return {"lake": folder / "lake", "landing": folder / "landing"}


def test_a_pipeline_runs_in_a_given_session(folder, spark, capfd, caplog):
    zone = spark.conf.get("spark.sql.session.timeZone")
    spark.conf.set("spark.sql.session.timeZone", "Asia/Tokyo")
    try:
        with caplog.at_level(logging.INFO, "headgate"):
            outcome = headgate.run(folder / "people.yaml", spark, **places(folder))
        assert spark.conf.get("spark.sql.session.timeZone") == "Asia/Tokyo" and spark.range(3).count() == 3
    finally:
        spark.conf.set("spark.sql.session.timeZone", zone)
    (people,) = outcome.tables
    assert (people.table, people.status, people.rows_in, people.rows, people.version) == ("people", "built", 2, 2, 0)
    assert outcome.release == "people-1" and outcome.built == 1
    assert "people: 2 rows" in caplog.text and capfd.readouterr().err == ""
    again = headgate.run(str(folder / "people.yaml"), spark, **places(folder))
    assert again.asdict()["tables"] == [{"table": "people", "status": "up to date", "version": 0, "rows": 2}]
    assert list(outcome.asdict()["tables"][0]) == [
        *("table", "status", "why", "version", "rows", "seconds", "phases", "rows_in", "made", "published"),
        *("rejected", "expectations", "passed", "warnings", "figures"),
    ]
    runs = headgate.Lake(folder / "lake").sql("select tables from runs where event = 'finished'").to_pylist()
    assert json.loads(runs[0]["tables"]) == outcome.asdict()["tables"]


def test_a_run_tells_mistakes_by_its_errors(folder, spark, monkeypatch):
    with pytest.raises(headgate.UsageError, match="running already: pass it as spark="):
        headgate.run(folder / "people.yaml", **places(folder))
    with pytest.raises(headgate.UsageError, match="there is no such file"):
        headgate.run(folder / "none.yaml", spark, **places(folder))
    with pytest.raises(headgate.UsageError, match="invalid name 'a b'"):
        headgate.run(folder / "people.yaml", spark, release="a b", **places(folder))
    with pytest.raises(headgate.UsageError, match="as_of: 'x' is not a day"):
        headgate.run(folder / "people.yaml", spark, as_of="x", **places(folder))
    monkeypatch.setattr(type(spark.conf), "get", lambda self, name, default=None: default)
    with pytest.raises(headgate.UsageError, match=r"lacks Delta: start it with spark\.sql\.extensions="):
        headgate.run(folder / "people.yaml", spark, **places(folder))
    assert not (folder / "lake").exists()


@pytest.mark.slow
def test_a_run_of_its_own_starts_and_stops_spark(folder):
    script = (
        "import sys, headgate\n"
        "outcome = headgate.run('people.yaml')\n"
        "from pyspark.sql import SparkSession\n"
        "assert SparkSession.getActiveSession() is None\n"
        "print(outcome.built, headgate.Lake('lake').read('people').count_rows())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 2\n", "")


def test_the_page_of_docs_runs_as_it_stands(night, tmp_path):
    for name, place in {"conf": ROOT, "landing": night, "lake": night}.items():
        (tmp_path / name).symlink_to(place / name)
    page = (ROOT / "docs" / "python.md").read_text()
    ((code, told),) = re.findall(r"```python\n(.*?)```.*?```text\n(.*?)```", page, re.S)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, told.replace("LAKE", str(tmp_path / "lake")), "")
