"""Hundreds of damaged and malicious files of each format: what is taken up is accounted for, the rest is refused.

Files are mutated from valid ones, by a fixed seed. Each is looked through and read as an executor does it; those that
can be read then go through one build together.
"""

import io
import json
import random
import re
from pathlib import Path

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headgate.jobs.errors import SourceFailed
from headgate.jobs.explore import queries
from headgate.jobs.sources.inspection import inspect_file
from headgate.jobs.sources.readers import read_part
from tests.lakes import again, lake_of

FILES = 500
SCHEMA = "id BIGINT, name STRING, day DATE, price DECIMAL(8,2)"
TEXTS = {
    "type": "struct",
    "fields": [{"name": n, "type": "string", "nullable": True, "metadata": {}} for n in ("id", "name", "day", "price")],
}
LONGEST = 4000
ROWS = [{"id": i, "name": f"n{i}" * (i % 4), "day": f"2024-01-{i % 28 + 1:02}", "price": f"{i}.50"} for i in range(12)]
CSV = ["id,name,day,price", *("{id},{name},{day},{price}".format(**r) for r in ROWS), '77,"a ""b""\nc",2024-02-29,1']
TOKENS = [
    *(b'"', b'""', b"'", b",", b";", b"\n", b"\r", b"\r\n", b"\n\n", b"\\", b'\\"', b"\0", b"\xef\xbb\xbf"),
    *(b"\xff\xfe", b"\xff", b"\x1f\x8b", b"\xed\xa0\x80", b"\xe2\x80\xa8", b"1e999", b"NaN", b"-", b"0x1F"),
    *(b"9" * 20, b"{", b"}", b"[", b"]", b"[" * 3000, b'{"a":' * 1200, b"null", b"true", b'"\\ud800"', b'"id":1,'),
    *(b'{"id":{"x":1}}', "é😀".encode(), "١٢".encode(), b"x" * 5000, b"2024-02-30", b"1,239", b"_row_id", b"ID,"),
]


def mutated(valid: bytes, chance: random.Random) -> bytes:
    """A valid file with some of its bytes flipped, cut, doubled, swapped or filled with what readers stumble over."""
    data = bytearray(valid)
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        at = chance.randrange(len(data) + 1)
        end = min(len(data), at + chance.choice((1, 1, 4, 40)))
        match chance.randrange(7):
            case 0 if data:
                data[at % len(data)] ^= 1 << chance.randrange(8)
            case 1:
                del data[at:end]
            case 2:
                data[at:at] = data[at:end] * chance.choice((1, 2, 30))
            case 3:
                del data[at:]
            case 4 if data:
                data[at:end] = bytes(chance.randrange(256) for _ in range(end - at))
            case _:
                data[at:at] = chance.choice(TOKENS)
    return bytes(data)


def valid_files(kind: str, chance: random.Random) -> bytes:
    if kind == "csv":
        return chance.choice(("\n", "\r\n")).join(CSV).encode() + b"\n"
    if kind == "jsonl":
        return "".join(json.dumps(r) + "\n" for r in ROWS).encode()
    out = io.BytesIO()
    if kind == "parquet":
        table = pa.table({n: pa.array([str(r[n]) for r in ROWS]) for n in ("name", "day")})
        table = table.append_column("id", pa.array(range(12), pa.int64()))
        pq.write_table(table, out, compression=chance.choice(("snappy", "zstd", "none")), row_group_size=5)
    else:
        fields = [{"name": "id", "type": "long"}, {"name": "name", "type": ["null", "string"]}]
        schema = {"type": "record", "name": "r", "fields": fields}
        codec = chance.choice(("null", "deflate", "snappy"))
        fastavro.writer(out, schema, ROWS, codec=codec, sync_interval=60)
    return out.getvalue()


def attempt(folder: Path, name: str, kind: str) -> int | None:
    """How many rows a file gives, read as an executor does it; None where it is refused."""
    schema = {"schema": json.dumps(TEXTS)} if kind == "jsonl" else {}
    found = inspect_file(str(folder), name, kind, max_line_bytes=LONGEST, **schema)
    assert found["sha256"], "an existing file can be hashed"
    if found["problem"]:
        assert "\n" not in found["problem"]
        return None
    columns = found["columns"]
    fields = TEXTS["fields"]
    if (kind == "csv" and list(columns) != [f["name"] for f in fields]) or (kind == "jsonl" and len(columns) > 4):
        return None
    if kind in ("parquet", "avro"):
        wanted = {"id": ("bigint", "long"), "name": ("string", "string"), "day": ("string", "string")}
        if any(wanted.get(n, [None])[0] != k for n, k in columns.items()):
            return None
        fields = [{"name": n, "type": wanted[n][1], "nullable": True, "metadata": {}} for n in columns]
    common = {"root": str(folder), "path": name, "format": kind, "date": None, "encoding": "utf-8", "line_end": "auto"}
    common |= {"max_line_bytes": LONGEST, "dialect": {}, "columns": list(columns)}
    common |= {"schema": json.dumps({"type": "struct", "fields": fields})}
    rows = 0
    try:
        for (start, line), after in zip(found["parts"], [*found["parts"][1:], [None]], strict=True):
            for batch in read_part({**common, "start": start, "end": after[0], "line": line}):
                batch.validate(full=True)
                rows += batch.num_rows
    except SourceFailed as e:
        assert re.match(r"source failed: \S+: ", str(e)) and "\n" not in str(e)
        return None
    assert rows == found["records"], "counted apart"
    return rows


@pytest.mark.parametrize("kind", ["csv", pytest.param("jsonl", marks=pytest.mark.slow), "parquet", "avro"])
def test_what_is_taken_up_is_accounted_for(spark, tmp_path, kind):
    chance = random.Random(f"hostile {kind}")
    folder = tmp_path / "landing" / "t"
    folder.mkdir(parents=True)
    given: dict[str, int | None] = {}
    for i in range(FILES):
        name = f"{i:03}.{kind}"
        (folder / name).write_bytes(mutated(valid_files(kind, chance), chance))
        given[name] = attempt(folder, name, kind)
        if given[name] is None and kind in ("parquet", "avro"):
            (folder / name).unlink()  # damage that only reading finds ends a run
    good = {n: rows for n, rows in given.items() if rows is not None}
    assert 3 < len(good) < FILES - 20, "the mutations are neither too wild nor too tame"
    schema = f"schema: '{SCHEMA}', " if kind in ("csv", "jsonl") else ""
    (tmp_path / "p.yaml").write_text(
        f"pipeline: p\ntables:\n  t:\n    suite: null\n    source: {{format: {kind}, path: 't/*.{kind}', {schema}"
        f"max_line_bytes: {LONGEST}, on_bad_file: quarantine, on_other_columns: "
        f"{'quarantine' if schema else 'evolve'}}}\n"
    )
    (told,) = again(spark, tmp_path).tables
    assert told.rows_in == told.published + sum(told.rejected.values())
    lake = lake_of(tmp_path)
    query = "select _file as file, count(*) as n from t group by all"
    if lake.open("ledger"):
        query += " union all select evidence['file'], count(*) from ledger group by all"
    counts: dict[str, int] = {}
    for row in queries.sql(lake, query, None, None).to_pylist():
        counts[row["file"]] = counts.get(row["file"], 0) + row["n"]
    landed = {p.name for p in folder.iterdir()}
    wanted = {f"t/{n}": 1 if given[n] is None else given[n] for n in landed}
    assert counts == {n: rows for n, rows in wanted.items() if rows}
