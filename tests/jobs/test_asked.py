"""The rows that an erasure is asked for, over versions whose columns have other names and types."""

import time
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from headgate.jobs.errors import UsageError
from headgate.jobs.keep.erasure.asked import matching
from headgate.jobs.keep.erasure.rewrite import rewrite
from headgate.jobs.lake.lake import Lake


def write(lake: Lake, **columns: Any) -> None:
    write_deltalake(lake.path("t"), pa.table(columns), mode="overwrite", schema_mode="overwrite")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A table of which an older version has a row more, a column under another name, and texts for numbers and days."""
    lake = Lake(str(tmp_path / "lake"))
    write(
        lake,
        _row_id=["a", "b", "c"],
        n=["1", "2", "three"],
        name=["x", "y", "z"],
        Day=["2024-01-01", "2024-01-02", "x"],
        s=[{"a": 1}, {"a": 2}, {"a": 3}],
    )
    days = [date(2024, 1, 1), date(2024, 1, 2)]
    write(lake, _row_id=["a", "b"], n=[1, 2], called=["x", "y"], day=days, s=[{"b": 5}, {"b": 6}])
    return lake


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        ("n = 1", "a"),
        ("day = '2024-01-02'", "b"),
        ("called = 'y'", "b"),
        ("called is null", ""),
        ("name in ('y', 'z')", "bc"),
        ("s.b = 6", "b"),
        ("true", "abc"),
    ],
)
def test_rows_are_found_in_versions_whose_columns_have_other_types_and_names(lake, where, ids):
    assert matching(lake, "t", where, None) == set(ids)


def test_a_column_that_came_later_is_null_in_the_rows_that_stayed(tmp_path):
    lake = Lake(str(tmp_path / "lake"))
    write(lake, _row_id=["a", "b"], n=[1, 2])
    write(lake, _row_id=["b"], n=[2])
    later = pa.table({"_row_id": ["c"], "n": [3], "seen": ["x"]})
    write_deltalake(lake.path("t"), later, mode="append", schema_mode="merge")
    assert matching(lake, "t", "seen is null", None) == {"b"}


def test_keys_find_rows_in_versions_whose_columns_have_other_types(lake, tmp_path):
    keys = tmp_path / "keys.csv"
    keys.write_text("n,day\n2,2024-01-02\n")
    assert matching(lake, "t", None, keys) == {"b"}
    for text, told in (
        ("n,n\n1,1\n", "duplicate column 'n'"),
        ("m\n1\n", "no column 'm'.*columns: _row_id, n, called"),
    ):
        keys.write_text(text)
        with pytest.raises(UsageError, match=told):
            matching(lake, "t", None, keys)


def test_a_wrong_name_is_told_with_those_of_all_versions(lake):
    with pytest.raises(UsageError, match=r"columns of table 't': n, called, day, s, name"):
        matching(lake, "t", "nosuch = 1", None)


def test_times_of_a_condition_are_in_utc_wherever_it_is_asked(tmp_path, monkeypatch):
    lake = Lake(str(tmp_path / "lake"))
    write(lake, _row_id=["a", "b"], seen=[datetime(2024, 1, 1, hour, tzinfo=timezone.utc) for hour in (3, 7)])
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert matching(lake, "t", "seen < '2024-01-01 04:00:00'", None) == {"a"}
    finally:
        monkeypatch.undo()
        time.tzset()


def test_files_that_are_written_again_keep_the_types_of_their_versions(lake):
    """A version of before a cast has the texts that it had, also those that the newest version's type does not hold."""
    table = lake.path("t")
    wanted = pa.array(["b"])

    def change(rows: pa.Table) -> pa.Table | None:
        gone = pc.is_in(rows["_row_id"], wanted)
        return rows.filter(pc.invert(gone)) if pc.any(gone).as_py() else None

    assert rewrite(table, "e1", change, ["_row_id"]) == 2
    before, now = (lake.dataset("t", version).to_table().sort_by("_row_id") for version in (0, 1))
    assert before.select(["_row_id", "n", "Day"]).to_pylist() == [
        {"_row_id": "a", "n": "1", "Day": "2024-01-01"},
        {"_row_id": "c", "n": "three", "Day": "x"},
    ]
    assert now["n"].to_pylist() == [1] and now["day"].to_pylist() == [date(2024, 1, 1)]
    kinds = {pq.read_schema(file).field("n").type for file in Path(table).glob("*-erased-e1.parquet")}
    assert kinds == {pa.string(), pa.int64()}
