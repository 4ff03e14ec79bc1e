"""How files are written: dialects, encodings, marks of numbers and times, keys that are missing, files in parts."""

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import inspection, queries
from jobs.errors import InputMissing, UsageError
from jobs.lake import Lake
from jobs.planning import plan_table
from tests.conftest import run_pipeline

PLAIN = "id INT, v STRING"


def built(spark: Any, folder: Path, source: str, **options: Any) -> Lake:
    (folder / "p.yaml").write_text(f"pipeline: p\ntables:\n  t:\n    source: {{{source}}}\n    suite: null\n")
    run_pipeline(spark, folder, folder / "p.yaml", **options)
    return Lake(str(folder / "lake"))


def rows(lake: Lake, columns: str = "* exclude (_row_id, _file, _file_date, _changed, _parents)") -> list[tuple]:
    return [
        tuple(r.values()) for r in queries.sql(lake, f"select {columns} from t order by all", None, None).to_pylist()
    ]


WRITTEN = {
    "UTF-16 with a mark": ("encoding: utf-16", PLAIN, "id,v\r\n1,Zoë\r\n".encode("utf-16"), [(1, "Zoë")]),
    "UTF-16 big end first": ("encoding: utf-16-be", PLAIN, "id,v\n1,Zoë\n".encode("utf-16-be"), [(1, "Zoë")]),
    "latin-1 by Python's name": ("encoding: latin-1", PLAIN, "id,v\n1,Zoë\n".encode("latin-1"), [(1, "Zoë")]),
    "UTF-8 with a mark": ("encoding: utf-8-sig", PLAIN, b"\xef\xbb\xbfid,v\n1,x\n", [(1, "x")]),
    "Shift JIS": ("encoding: shift_jis", PLAIN, "id,v\n1,表示\n".encode("shift_jis"), [(1, "表示")]),
    "backslash escapes": (r"escape: '\'", PLAIN, b'id,v\n1,"say \\"hi\\", \\\\ ok"\n', [(1, 'say "hi", \\ ok')]),
    "no quotes": ("quote: ''", PLAIN, b'id,v\n1,"x\n2,y"\n', [(1, '"x'), (2, 'y"')]),
    "other quotes": ('quote: "\'"', PLAIN, b"id,v\n1,'a,''b'''\n", [(1, "a,'b'")]),
    "old Mac line ends": (r'line_end: "\r"', PLAIN, b"id,v\r1,x\r2,y\r", [(1, "x"), (2, "y")]),
    "null of MySQL": (r"null_value: '\N'", PLAIN, b"id,v\n1,\\N\n2,\n", [(1, None), (2, "")]),
    "no line end at the end": ("delimiter: '|'", PLAIN, b"id|v\n1|x", [(1, "x")]),
    "marks of numbers": (
        "delimiter: ';', decimal: ',', thousands: '.'",
        "id INT, a DOUBLE, b DECIMAL(10,2)",
        b"id;a;b\n1.000;1.234,5;-2,50\n2;;7\n",
        [(2, None, Decimal("7.00")), (1000, 1234.5, Decimal("-2.50"))],
    ),
    "forms of dates and times": (
        "date_format: dd/MM/yyyy, timestamp_format: dd.MM.yyyy HH:mm",
        "id INT, d DATE, t TIMESTAMP",
        b"id,d,t\n1,25/12/1990,31.12.2024 23:59\n",
        [(1, dt.date(1990, 12, 25), dt.datetime(2024, 12, 31, 23, 59, tzinfo=dt.timezone.utc))],
    ),
    "quoted nothing": ("", "id INT, n INT, v STRING", b'id,n,v\n1,"",""\n', [(1, None, "")]),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_text_is_read_as_it_was_written(spark, tmp_path, name):
    options, schema, content, wanted = WRITTEN[name]
    (tmp_path / "landing").mkdir()
    (tmp_path / "landing" / "a.csv").write_bytes(content)
    source = ", ".join(filter(None, ["format: csv", "path: '*.csv'", f"schema: '{schema}'", options]))
    lake = built(spark, tmp_path, source)
    assert rows(lake) == wanted
    assert lake.open("ledger") is None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("encoding: utf8x", "there is no encoding 'utf8x' — did you mean 'utf-8'"),
        ("encoding: base64", "no encoding 'base64'"),
        ("quote: ','", "quote and delimiter are the same"),
        ("thousands: '.'", "thousands and decimal are the same"),
        ("delimiter: 'é'", "not one ASCII character"),
        ("decimal: '1'", "cannot be told from a number"),
        ("schema: '_row_id INT'", "'_row_id' is headgate's own"),
        ("schema: '_HG_x INT'", "'_HG_x' is headgate's own"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(tmp_path, options, told):
    from jobs.config import load_pipeline

    schema = "" if "schema" in options else f"schema: '{PLAIN}', "
    text = f"pipeline: p\ntables:\n  t:\n    source: {{format: csv, path: a.csv, {schema}{options}}}\n    suite: null\n"
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(UsageError, match=told):
        load_pipeline(tmp_path / "p.yaml")


def test_a_record_that_lacks_its_key_is_equal_to_no_other(spark, tmp_path):
    (tmp_path / "landing").mkdir()
    (tmp_path / "landing" / "a.csv").write_text("id,v\n,x\n,x\n1,y\n1,y\n")
    source = f"format: csv, path: '*.csv', schema: '{PLAIN}', key: [id]"
    lake = built(spark, tmp_path, source)
    ids = [r[0] for r in rows(lake, "_row_id")]
    assert len(ids) == 4 and len(set(ids)) == 3, "two without a key, and one delivered twice"
    lake = built(spark, tmp_path / "landing" / "..", f"{source}, on_missing_key: quarantine", force=True)


def test_records_without_a_key_can_be_set_aside(spark, tmp_path):
    (tmp_path / "landing").mkdir()
    (tmp_path / "landing" / "a.csv").write_text("id,v\n,x\n1,y\n")
    lake = built(
        spark, tmp_path, f"format: csv, path: '*.csv', schema: '{PLAIN}', key: [id], on_missing_key: quarantine"
    )
    assert rows(lake) == [(1, "y")]
    (entry,) = queries.sql(lake, "select reason, evidence from ledger", None, None).to_pylist()
    assert entry["reason"] == "no key" and dict(entry["evidence"])["line"] == "2"


def test_large_files_are_read_in_parts_as_in_one(spark, tmp_path, monkeypatch):
    monkeypatch.setattr(inspection, "PART_BYTES", 50)
    monkeypatch.setattr(inspection, "BLOCK", 16)
    landing = tmp_path / "landing"
    landing.mkdir()
    (landing / "a.csv").write_text("id,v\n" + "".join(f'{i},"two\nlines {i}"\n' for i in range(40)) + "x,bad\n")
    found = inspection.inspect_file(str(landing), "a.csv", "csv")
    assert found["records"] == 41
    table = pa.table({"id": pa.array(range(9), pa.int32()), "v": pa.array([str(i) for i in range(9)])})
    pq.write_table(table, landing / "b.parquet", row_group_size=2)
    lake = built(spark, tmp_path, f"format: parquet, path: '*.parquet', schema: '{PLAIN}', key: [id]")
    assert rows(lake) == [(i, str(i)) for i in range(9)]


def test_what_nearly_matches_a_pattern_is_told(tmp_path):
    from jobs.config import Environment, load_pipeline

    landing = tmp_path / "landing"
    landing.mkdir()
    for name in ("x_2024-01-01.csv", "X_2024-01-02.CSV", "x_latest.csv", "y.txt"):
        (landing / name).write_text("id,v\n1,x\n")
    text = f"pipeline: p\ntables:\n  t:\n    source: {{format: csv, path: 'x_{{date}}.csv', schema: '{PLAIN}'}}\n"
    (tmp_path / "p.yaml").write_text(text + "    suite: null\n")
    pipeline, environment = load_pipeline(tmp_path / "p.yaml"), Environment(landing=str(landing))
    plan = plan_table(pipeline, environment, Lake(str(tmp_path / "lake")), "t", None)
    assert [f.path for f in plan.fresh] == ["x_2024-01-01.csv"]
    assert [n.split()[0] for n in plan.notes] == ["X_2024-01-02.CSV", "x_latest.csv"]
    (landing / "x_2024-01-01.csv").unlink()
    with pytest.raises(InputMissing, match=r"no file matches .*x_latest\.csv is not taken up"):
        plan_table(pipeline, environment, Lake(str(tmp_path / "lake")), "t", None)
