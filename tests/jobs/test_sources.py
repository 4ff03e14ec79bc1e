"""How files are written: dialects, encodings, marks of numbers and times, keys that are missing, files in parts."""

import datetime as dt
import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headgate.jobs.config.models import FileSource
from headgate.jobs.disclosure import outward
from headgate.jobs.errors import InputMissing, UsageError
from headgate.jobs.pipeline.planning import plan_table
from headgate.jobs.sources import dialect, formats, inspection
from headgate.jobs.sources.documents import DEEPEST, Malformed, as_written, loaded, written
from headgate.jobs.sources.landing import LandedFile
from headgate.jobs.sources.policy import apply_file_policy
from headgate.jobs.sources.readers import read_part
from headgate.transforms.rows import struct_of
from headgate.transforms.step import NoSuchColumn
from tests.lakes import again, lake_of, land, ledger, rows, write_pipeline

PLAIN = "id INT, v STRING"


def build(spark: Any, folder: Path, source: str, **options: Any) -> None:
    write_pipeline(folder, f"  t:\n    source: {{{source}}}\n    suite: null\n")
    again(spark, folder, **options)


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
    "line ends of its own": (
        "line_end: '|', delimiter: ';'",
        "a STRING, b STRING",
        b'a;b|x\ny;1|"p|q\n";4|',
        [("p|q\n", "4"), ("x\ny", "1")],
    ),
    "CR LF alone": (r'line_end: "\r\n"', "a STRING", b"a\r\nx\ny\r\nz\r\n", [("x\ny",), ("z",)]),
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
        [(1, dt.date(1990, 12, 25), dt.datetime(2024, 12, 31, 23, 59, tzinfo=dt.UTC))],
    ),
    "quoted nothing": ("", "id INT, n INT, v STRING", b'id,n,v\n1,"",""\n', [(1, None, "")]),
}


@pytest.mark.slow
def test_text_is_read_as_it_was_written(spark, tmp_path):
    (tmp_path / "landing").mkdir()
    tables = ""
    for i, (options, schema, content, _) in enumerate(WRITTEN.values()):
        (tmp_path / "landing" / f"{i}.csv").write_bytes(content)
        source = ", ".join(filter(None, ["format: csv", f"path: '{i}.csv'", f"schema: '{schema}'", options]))
        tables += f"  t{i}:\n    source: {{{source}}}\n    suite: null\n"
    write_pipeline(tmp_path, tables)
    again(spark, tmp_path)
    for i, (name, (*_, wanted)) in enumerate(WRITTEN.items()):
        assert rows(tmp_path, table=f"t{i}") == wanted, name
    assert lake_of(tmp_path).open("ledger") is None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("encoding: utf8x", "unknown encoding 'utf8x' — did you mean 'utf-8'"),
        ("encoding: base64", "unknown encoding 'base64'"),
        ("quote: ','", "quote and delimiter are the same"),
        ("thousands: '.'", "thousands and decimal are the same"),
        ("delimiter: 'é'", "not one ASCII character"),
        ("decimal: '1'", "cannot be distinguished from a number"),
        ("date_format: dd/mm/yyyy", "unknown letter 'm'; expected one of y M L d D"),
        ("date_format: dd/MM", "tells no whole day"),
        ("date_format: dd/MM/YYYY", "unknown letter 'Y'"),
        ("timestamp_format: 'dd/MM/yyyy hh:mm'", "needs 'a'"),
        ("date_format: ddd/MM/yyyy", "has 3 'd' in a row; allowed: one to 2"),
        ("date_format: 'dd/MM/yyyy #'", "has '#', which has no meaning"),
        ("timestamp_format: 'yyyy-MM-ddTHH:mm'", "unknown letter 'T'"),
        ("timestamp_format: yyyy-MM-dd'T", "has a quote that does not close"),
        ("path: ./a.csv", "'./a.csv' has a part that is empty or '.', which no name of a file has; write 'a.csv'"),
        ("path: ''", "'' has a part that is empty"),
        ("timestamp_format: 'yyyy-MM-dd HH:mm:ss.SSSSSSSSS'", "six S"),
        ("schema: '_row_id INT'", "column '_row_id': this name is reserved"),
        ("schema: '_HG_x INT'", "column '_HG_x': this name is reserved"),
        ("schema: 'a TIME'", "column 'a': no table can hold time"),
        ("format: jsonl, schema: 'a STRUCT<time: STRING, b: ARRAY<VARIANT>>'", "column 'a': no table can hold variant"),
        ("schema: 'a ARRAY<INT>'", "column 'a': a value of csv is no ARRAY<INT>"),
        ("format: jsonl, schema: 'a MAP<INT, STRING>'", "column 'a': the names of members are texts"),
        ("schema: 'a DECIMAL(50, 2)'", r"there is no type 'DECIMAL\(50, 2\)': a decimal has 1 to 38 digits"),
        ("schema: 'a DECIMAL(5, 9)'", "no more of them behind the point"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(tmp_path, options, told):
    from headgate.jobs.config.pipeline import load_pipeline

    schema = "" if "schema" in options else f"schema: '{PLAIN}', "
    others = {"path": "a.csv", "format": "csv"}
    more = "".join(f"{name}: {value}, " for name, value in others.items() if f" {name}:" not in f" {options}")
    text = f"pipeline: p\ntables:\n  t:\n    source: {{{more}{schema}{options}}}\n    suite: null\n"
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(UsageError, match=told):
        load_pipeline(tmp_path / "p.yaml")


def test_a_record_that_lacks_its_key_is_equal_to_no_other(spark, tmp_path):
    (tmp_path / "landing").mkdir()
    (tmp_path / "landing" / "a.csv").write_text("id,v\n,x\n,x\n1,y\n1,y\n")
    source = f"format: csv, path: '*.csv', schema: '{PLAIN}', key: [id]"
    build(spark, tmp_path, source)
    ids = [r[0] for r in rows(tmp_path, "_row_id")]
    assert len(ids) == 4 and len(set(ids)) == 3, "two without a key, and one delivered twice"


def test_records_without_a_key_can_be_set_aside(spark, tmp_path):
    (tmp_path / "landing").mkdir()
    (tmp_path / "landing" / "a.csv").write_text("id,v\n,x\n1,y\n")
    build(spark, tmp_path, f"format: csv, path: '*.csv', schema: '{PLAIN}', key: [id], on_missing_key: quarantine")
    assert rows(tmp_path) == [(1, "y")]
    (entry,) = ledger(tmp_path)
    assert entry["reason"] == "missing_key" and entry["evidence"]["line"] == "2"


def test_a_column_that_is_not_null_holds_no_null(spark, tmp_path):
    (tmp_path / "landing").mkdir()
    (tmp_path / "landing" / "a.csv").write_text("id,v\n1,x\n,y\n")
    schema = "id INT NOT NULL COMMENT 'a, b', v STRING"
    build(spark, tmp_path, f'format: csv, path: "*.csv", schema: "{schema}"')
    assert rows(tmp_path) == [(1, "x")]
    (entry,) = ledger(tmp_path)
    assert entry["reason"] == "null_value"


def test_large_files_are_read_in_parts_as_in_one(spark, tmp_path, monkeypatch):
    monkeypatch.setattr(inspection, "PART_BYTES", 50)
    monkeypatch.setattr(formats, "BLOCK", 16)
    landing = tmp_path / "landing"
    landing.mkdir()
    (landing / "a.csv").write_text("id,v\n" + "".join(f'{i},"two\nlines {i}"\n' for i in range(40)) + "x,bad\n")
    found = inspection.inspect_file(str(landing), "a.csv", "csv")
    assert found["records"] == 41
    table = pa.table({"id": pa.array(range(9), pa.int32()), "v": pa.array([str(i) for i in range(9)])})
    pq.write_table(table, landing / "b.parquet", row_group_size=2)
    build(spark, tmp_path, f"format: parquet, path: '*.parquet', schema: '{PLAIN}', key: [id]")
    assert rows(tmp_path) == [(i, str(i)) for i in range(9)]


def test_what_nearly_matches_a_pattern_is_told(tmp_path):
    from headgate.jobs.config.models import Environment
    from headgate.jobs.config.pipeline import load_pipeline

    landing = tmp_path / "landing"
    landing.mkdir()
    for name in ("x_2024-01-01.csv", "X_2024-01-02.CSV", "x_latest.csv", "y.txt"):
        (landing / name).write_text("id,v\n1,x\n")
    (landing / "x_2024-01-03.csv").mkdir()
    text = f"pipeline: p\ntables:\n  t:\n    source: {{format: csv, path: 'x_{{date}}.csv', schema: '{PLAIN}'}}\n"
    (tmp_path / "p.yaml").write_text(text + "    suite: null\n")
    pipeline, environment = load_pipeline(tmp_path / "p.yaml"), Environment(landing=str(landing))
    plan = plan_table(pipeline, environment, lake_of(tmp_path), "t", None)
    assert [f.path for f in plan.fresh] == ["x_2024-01-01.csv"]
    assert [n.split()[0] for n in plan.notes] == ["X_2024-01-02.CSV", "x_2024-01-03.csv/", "x_latest.csv"]
    assert "it is a folder; 'x_{date}.csv/*' names the files in it" in plan.notes[1]
    (landing / "x_2024-01-01.csv").unlink()
    with pytest.raises(InputMissing, match=r"no file matches .* in .*nowhere: there is no such folder"):
        plan_table(pipeline, Environment(landing=str(tmp_path / "nowhere")), lake_of(tmp_path), "t", None)
    with pytest.raises(InputMissing, match=r"no file matches .*x_latest\.csv is not taken up"):
        plan_table(pipeline, environment, lake_of(tmp_path), "t", None)


def test_a_name_that_is_not_utf_8_is_told(tmp_path):
    from headgate.jobs.sources.files import list_files, nearest

    (tmp_path / "a.csv").write_text("id\n1\n")
    with open(os.fsencode(tmp_path) + b"/caf\xe9.csv", "w") as file:
        file.write("id\n2\n")
    source = FileSource(format="csv", path="*.csv", schema="id INT")
    for list_them in (lambda: list_files(str(tmp_path), source, None), lambda: nearest(str(tmp_path), "b.csv")):
        with pytest.raises(InputMissing, match=r"a name in it is not UTF-8: ‹.*caf\\xe9\.csv›; rename it"):
            list_them()


def parts_of(folder: Path, name: str, kind: str, fields: dict[str, str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What is told of a file, and its rows, read part by part as executors do."""
    schema = {
        "type": "struct",
        "fields": [{"name": n, "type": t, "nullable": True, "metadata": {}} for n, t in fields.items()],
    }
    more = {"schema": json.dumps(schema)} if kind == "jsonl" else {}
    found = inspection.inspect_file(str(folder), name, kind, **more)
    common = {"root": str(folder), "path": name, "format": kind, "date": None, "encoding": "utf-8", "line_end": "auto"}
    common |= {
        "max_line_bytes": 1 << 24,
        "dialect": {},
        "columns": list(found["columns"]),
        "schema": json.dumps(schema),
    }
    ends = [at for at, _ in found["parts"][1:]] + [None]
    rows: list[dict[str, Any]] = []
    for (start, line), end in zip(found["parts"], ends, strict=True):
        for batch in read_part({**common, "start": start, "end": end, "line": line}):
            rows += batch.to_pylist()
    return found, rows


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_parts_of_a_text_file_join_without_a_seam(tmp_path, monkeypatch, kind, mark):
    monkeypatch.setattr(inspection, "PART_BYTES", 60)
    monkeypatch.setattr(dialect, "BLOCK", 32)
    lines = [f'{i},"\ufeff{i * 7919}"' if kind == "csv" else json.dumps({"id": i, "v": f"v{i}"}) for i in range(60)]
    text = "\n".join([*(["id,v"] if kind == "csv" else []), *lines]) + "\n"
    (tmp_path / f"a.{kind}").write_bytes(mark + text.encode())
    found, rows = parts_of(tmp_path, f"a.{kind}", kind, {"id": "string", "v": "string"})
    assert len(found["parts"]) > 5 and found["records"] == 60
    assert [r["id"] for r in rows] == [str(i) for i in range(60)]
    assert [r["_hg_line"] for r in rows] == [i + (2 if kind == "csv" else 1) for i in range(60)]


def test_a_parquet_file_without_row_groups_has_no_rows(tmp_path):
    pq.ParquetWriter(tmp_path / "a.parquet", pa.schema([("id", pa.int32())])).close()
    found = inspection.inspect_file(str(tmp_path), "a.parquet", "parquet")
    assert (found["problem"], found["records"], found["columns"]) == (None, 0, {"id": "int"})


def test_names_of_members_are_written_as_spark_reads_them(tmp_path):
    table = pa.table({"s": pa.array([{"first-name": "x", "a b": 1}])})
    pq.write_table(table, tmp_path / "a.parquet")
    found = inspection.inspect_file(str(tmp_path), "a.parquet", "parquet")
    assert found["columns"] == {"s": "struct<`first-name`:string,`a b`:bigint>"}


def test_logical_types_of_avro_that_nobody_knows_are_the_plain_ones():
    assert formats.avro_type({"type": "string", "logicalType": "mine"}) == "string"
    assert formats.avro_type(["null", {"type": "array", "items": "int", "logicalType": "mine"}]) == "array<int>"
    assert formats.avro_type({"type": "long", "logicalType": "time-micros"}).startswith("<")


def test_what_a_text_file_can_be_instead(tmp_path):
    (tmp_path / "a.csv").write_bytes("id\n1\n".encode("utf-16-le"))
    told = inspection.inspect_file(str(tmp_path), "a.csv", "csv", encoding="utf-16")
    assert told["problem"] == "it is not utf-16 (UTF-16 stream does not start with BOM)"
    (tmp_path / "b.jsonl").write_text('[\n{"id": 1},\n{"id": 2}\n]\n')
    told = inspection.inspect_file(str(tmp_path), "b.jsonl", "jsonl", schema='{"type":"struct","fields":[]}')
    assert "array over several lines" in told["problem"]
    members = {f"m{i}": i for i in range(inspection.MOST_MEMBERS + 1)}
    (tmp_path / "a.jsonl").write_text(json.dumps({"id": 1}) + "\n" + json.dumps(members) + "\n")
    found = inspection.inspect_file(str(tmp_path), "a.jsonl", "jsonl", schema='{"type":"struct","fields":[]}')
    assert "more than 1,000 members" in found["problem"]


@pytest.mark.parametrize(
    ("columns", "file", "content", "told"),
    [
        ("id INT, v STRING", "a.csv", b"Ada,1\nBob,2\n", "missing 'id', missing 'v', unexpected ‹Ada›, unexpected ‹1›"),
        ("id INT", "a.csv", b"Ada,id,Ada\n", "the column ‹Ada› twice"),
        ("id INT, v STRING", "a.csv", b"ID,v\n", "‹ID› differs from 'id' only"),
        ("v STRING, id INT", "a.csv", b"id,v\n", "'id' stands where 'v' should"),
        ("id INT", "a.jsonl", b'{"id": 1, "Ada": 2}\n', "unexpected ‹Ada›"),
        ("s STRUCT<id: INT>", "a.jsonl", b'{"s": {"Ada": 2}}\n', "a member ‹s.Ada›"),
        (None, "a.parquet", {"id": [1], "Ada": [2]}, "missing ‹Bob›, unexpected ‹Ada›"),
        (None, "a.parquet", {"id": [1], "Bob": ["x"]}, "its column ‹Bob› is string, where bigint"),
        (None, "a.parquet", {"id": [1], "Bob": [{"Ada": 2}]}, "its column ‹Bob› is ‹struct<Ada:bigint>›, where bigint"),
        (None, "a.parquet", b"PAR1 Ada", "no readable Parquet file (‹"),
    ],
)
def test_names_that_only_files_tell_are_marked_as_values(spark, tmp_path, columns, file, content, told):
    """The first line of a csv without a header, members of JSON, pivoted columns may be values: alerts strip them."""
    if isinstance(content, dict):
        pq.write_table(pa.table(content), tmp_path / file)
    else:
        (tmp_path / file).write_bytes(content)
    kind = file.partition(".")[2]
    source = FileSource.model_validate({"format": kind, "path": file, "schema": columns})
    schema = struct_of(columns).json() if columns else None
    found = inspection.inspect_file(str(tmp_path), file, kind, schema=schema)
    landed = LandedFile(file, None, 1, dt.datetime.now(dt.UTC), columns=found["columns"], problem=found["problem"])
    with pytest.raises(InputMissing) as refused:
        apply_file_policy(source, landed, {"id": "bigint", "Bob": "bigint"})
    assert told in str(refused.value) and "Ada" not in outward(str(refused.value))


def test_columns_that_came_with_rows_are_marked_where_a_step_names_another():
    assert str(NoSuchColumn("id", ["Ada", "idd"], of_data=True)) == (
        "there is no column 'id' here — did you mean ‹idd›? (columns: ‹Ada›, ‹idd›)"
    )


def test_numbers_and_repeated_members_of_an_answer_stay_as_they_are_written():
    text = '{"a": 9007199254740993.5, "s": 1.50, "big": 12345678901234567890.12, "d": 1, "d": [2, {"x": 1, "x": 2}]}'
    assert written(as_written(text.encode())) == text


@pytest.mark.parametrize("opens", ['{"a":', "["])
def test_records_too_deep_to_be_read_are_malformed(opens):
    closes = {"[": "]"}.get(opens, "}")
    for levels in (150, 300, 700, 5000):
        text = '{"v": ' + opens * levels + "1" + closes * levels + "}"
        if levels < DEEPEST:
            assert loaded(text)
        else:
            with pytest.raises(Malformed):
                loaded(text)


def test_new_files_may_come_with_a_changed_one(spark, tmp_path):
    landing = tmp_path / "landing"
    landing.mkdir()
    (landing / "a.csv").write_text("id,v\n1,x\n2,y\n")
    source = f"format: csv, path: '*.csv', schema: '{PLAIN}', key: [id], on_changed_file: replace"
    build(spark, tmp_path, source)
    (landing / "a.csv").write_text("id,v\n1,xx\n")
    (landing / "b.csv").write_text("id,v\n3,z\n")
    build(spark, tmp_path, source)
    assert rows(tmp_path) == [(1, "xx"), (3, "z")]


def parquet_file(folder: Path, name: str, **columns: Any) -> None:
    (folder / "landing").mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), folder / "landing" / name)


def test_columns_that_files_add_keep_the_type_and_the_name_that_they_came_with(spark, tmp_path):
    long, whole = pa.int64(), pa.int32()
    source = "format: parquet, path: '*.parquet', on_other_columns: evolve"
    parquet_file(tmp_path, "1.parquet", a=pa.array([1], long), n=pa.nulls(1))
    parquet_file(tmp_path, "2.parquet", a=pa.array([2], whole), c=["007"])
    build(spark, tmp_path, source)
    parquet_file(tmp_path, "3.parquet", a=pa.array([1 << 40], long), c=pa.nulls(1))
    build(spark, tmp_path, source)
    assert rows(tmp_path, "a, n, c") == [(1, None, None), (2, None, "007"), (1 << 40, None, None)]
    refused = {
        "c": "‹c› is int, where string",
        "n": "‹n› is int, where string",
        "C": "‹C› differs from ‹c› only in the",
    }
    for name, told in refused.items():
        parquet_file(tmp_path, "4.parquet", a=pa.array([4], long), **{name: pa.array([7], whole)})
        with pytest.raises(InputMissing, match=f"4.parquet: its column {told}"):
            build(spark, tmp_path, source)


@pytest.mark.parametrize(
    ("format", "files", "told"),
    [
        (
            "csv",
            {"1.csv": "id,v,w\n", "2.csv": "id,v,W\n"},
            r"2\.csv: its column ‹W› differs from ‹w› only in the case",
        ),
        ("jsonl", {"1.jsonl": '{"w": 1}\n', "2.jsonl": '{"W": 1}\n'}, r"2\.jsonl: its column ‹W› differs from ‹w›"),
        ("parquet", {"1.parquet": {"w": [7]}, "2.parquet": {"w": ["007"]}}, r"2\.parquet: its column ‹w› is string, w"),
    ],
)
def test_columns_that_files_of_one_run_add_are_the_same_ones(spark, tmp_path, format, files, told):
    for name, content in files.items():
        if isinstance(content, str):
            land(tmp_path, name, content)
        else:
            parquet_file(tmp_path, name, id=pa.array([1], pa.int32()), **content)
    with pytest.raises(InputMissing, match=told):
        build(spark, tmp_path, f"format: {format}, path: '*.{format}', schema: '{PLAIN}', on_other_columns: evolve")


def test_days_in_arrays_that_no_reader_can_hold_go_to_the_ledger(spark, tmp_path):
    days = pa.array([[1], [1, 4_000_000], None], pa.list_(pa.int32())).cast(pa.list_(pa.date32()))
    parquet_file(tmp_path, "a.parquet", id=[1, 2, 3], days=days)
    build(spark, tmp_path, "format: parquet, path: a.parquet")
    assert rows(tmp_path, "id, days") == [(1, [dt.date(1970, 1, 2)]), (3, None)]
    (entry,) = ledger(tmp_path)
    assert entry["reason"] == "unsupported_date" and entry["evidence"]["text"] == "[1970-01-02, +12921-08-18]"


def test_members_of_a_struct_that_differ_only_in_case_are_refused(spark, tmp_path):
    kind = pa.struct([("a", pa.int32()), ("A", pa.int32())])
    parquet_file(tmp_path, "a.parquet", s=pa.array([[{"a": 1, "A": 2}]], pa.list_(kind)))
    with pytest.raises(InputMissing, match=r"a\.parquet: its column ‹s› has members ‹a› and ‹A›"):
        build(spark, tmp_path, "format: parquet, path: a.parquet")


def test_an_expression_that_fails_on_a_row_is_named(spark, tmp_path):
    land(tmp_path, "a.csv", "id,v\n1,12d\n")
    steps = "    steps: [{derive: {columns: {n: cast(v as int)}}}]\n"
    source = f"    source: {{format: csv, path: a.csv, schema: '{PLAIN}'}}\n"
    write_pipeline(tmp_path, f"  t:\n{source}{steps}    suite: null\n")
    with pytest.raises(UsageError) as refused:
        again(spark, tmp_path)
    said = str(refused.value)
    assert said.startswith("table 't': the expression 'cast(v as int)' fails on one of its rows: ‹[CAST_INVALID_INPUT]")
    assert "12d" in said and "12d" not in outward(said)
