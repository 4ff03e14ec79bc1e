"""`headgate missing`: counts with a known truth, on a table that no JVM wrote."""

from datetime import date, datetime

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from headgate.jobs.cli.main import headgate
from headgate.jobs.errors import UsageError
from headgate.jobs.explore.missing import missing
from headgate.jobs.lake.lake import Lake

NAN = float("nan")


@pytest.fixture
def lake(tmp_path):
    """A hundred rows: a and b are missing together in ten, a alone in ten more; c hides -999; t has words."""
    lake = Lake(str(tmp_path / "lake"))
    rows = range(100)
    columns = {
        "id": list(rows),
        "a": [None if i < 10 else NAN if i < 20 else float(i) for i in rows],
        "b'": [None if i < 10 else i for i in rows],
        "c": [-999 if i % 20 == 0 else i for i in rows],
        "t": ["N/A" if i == 5 else "abcdefg"[i % 7] * 4 for i in rows],
        "g": ["x" if i < 50 else None for i in rows],
        "at": [datetime(2024, 1, 1 + i % 2, 5) for i in rows],
        "day": [date(2000 + i, 1, 1) for i in rows],
        "list": [[i] for i in rows],
        "_row_id": [str(i) for i in rows],
    }
    write_deltalake(lake.path("t"), pa.table(columns))
    return lake


def test_what_is_missing_and_with_what(lake):
    found = missing(lake, "t", by="g", over="at")
    columns = {r["column"]: r for r in found["columns"]}
    assert found["rows"] == 100 and "_row_id" not in columns and {"g", "at"}.isdisjoint(columns)
    assert (columns["a"]["missing"], columns["b'"]["share"], columns["list"]["missing"]) == (20, 0.1, 0)
    assert [(h["value"], h["rows"], h["kind"], h["sure"]) for h in columns["c"]["hidden"]] == [
        ("-999", 5, "sentinel", True)
    ]
    assert [h["value"] for h in columns["t"]["hidden"]] == ["N/A"]
    assert [(p["missing"], p["rows"]) for p in found["patterns"]] == [([], 80), (["a"], 10), (["a", "b'"], 10)]
    assert found["pairs"] == [{"columns": ["a", "b'"], "rows": 10, "share": 0.1, "lift": 5.0}]
    assert {r["g"]: (r["rows"], r["missing"]) for r in found["groups"]} == {
        "x": (50, {"a": 0.4, "b'": 0.2}),
        None: (50, {}),
    }
    assert [(p["at"], p["rows"], p["missing"]["a"]) for p in found["periods"]] == [
        ("2024-01-01", 50, 0.2),
        ("2024-01-02", 50, 0.2),
    ]
    assert len(missing(lake, "t", columns=["a"], over="day")["periods"]) == 100


def test_a_table_without_rows_or_gaps(lake):
    write_deltalake(lake.path("empty"), pa.table({"x": pa.array([], pa.float64())}))
    assert missing(lake, "empty")["columns"][0]["share"] == 0 and missing(lake, "empty", over=None)["patterns"] == []
    assert missing(lake, "t", columns=["id"])["pairs"] == []


def test_the_command_shows_all_parts(lake, capsys):
    headgate.main(["missing", "t", "--by", "g", "--over", "at", "--lake", lake.root], standalone_mode=False)
    out = capsys.readouterr().out
    assert "'-999' 5 (sentinel)" in out and "a, b'" in out and "missing together:" in out and "a 40.0%" in out
    headgate.main(["missing", "t", "--columns", "id", "--lake", lake.root], standalone_mode=False)
    assert capsys.readouterr().out == "nothing is missing in the 100 rows\n"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"columns": ["aa"]}, "table 't' has no column 'aa'"),
        ({"by": "gg"}, "table 't' has no column 'gg'"),
        ({"over": "c"}, "--over: 'c' is int64, neither a date nor a time"),
    ],
)
def test_what_cannot_be_looked_at_is_refused(lake, options, told):
    with pytest.raises(UsageError, match=told):
        missing(lake, "t", **options)
