"""Records of text files: a slow reference by the written rules, against the quick reader, in blocks of any size."""

import bz2
import gzip
import io

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.jobs.sources import dialect
from headgate.jobs.sources.dialect import Dialect, is_blank, records
from headgate.jobs.sources.readers import csv_part

LONGEST = 1 << 20
ALPHABET = st.sampled_from([*'a,"\n\r;\\ é', '"a"', '""', '","', '"\n', "\r\n", '\n"'])


def by_the_rules(text: str, dialect: Dialect) -> list[tuple[str, list[str | None] | None]]:
    """Each record's text and cells (None: malformed), one character after another."""
    found, at = [], 0
    while at < len(text):
        cells, place, bad = [], at, False
        while True:
            if dialect.quote and text[place : place + 1] == dialect.quote:
                value, i, closed = "", place + 1, False
                while i < len(text):
                    c = text[i]
                    if dialect.escape and c == dialect.escape and i + 1 < len(text):
                        known = text[i + 1] in (dialect.quote, dialect.escape)
                        value += text[i + 1] if known else text[i : i + 2]
                        i += 2
                    elif c == dialect.quote and text[i + 1 : i + 2] == dialect.quote:
                        value, i = value + c, i + 2
                    elif c == dialect.quote:
                        closed, i = True, i + 1
                        break
                    else:
                        value, i = value + c, i + 1
                rest = text[i:]
                fits = not rest or rest[0] in (dialect.delimiter, "\n") or rest.startswith("\r\n") or rest == "\r"
                if not closed or not fits:
                    bad = True
                    break
                cells.append(value)
                place = i
            else:
                ends = [e for e in (text.find(dialect.delimiter, place), text.find("\n", place)) if e >= 0]
                stop = min(ends, default=len(text))
                value = text[place:stop]
                if value.endswith("\r") and (stop == len(text) or text[stop] == "\n"):
                    value = value[:-1]
                cells.append(None if value == dialect.null_value else value)
                place = stop
            if text[place : place + 1] == dialect.delimiter:
                place += 1
                continue
            break
        if bad:
            end = text.find("\n", at) + 1 or len(text)
            found.append((text[at:end], None))
        else:
            place += 1 if text.startswith("\r", place) else 0
            end = place + 1 if text[place : place + 1] == "\n" else len(text)
            found.append((text[at:end], cells))
        at = end
    return found


def read_in_blocks(text: str, how: Dialect, size: int, width: int) -> list[tuple[int, str | None, list | None]]:
    """What the reader gives: line, malformed text, cells."""
    data, rest, line, rows = text.encode(), b"", 1, []
    blocks = [data[i : i + size] for i in range(0, len(data), size)]
    for block in [*blocks, b""]:
        buffer = rest + block
        found = records(buffer, how, not block, LONGEST)
        if len(found.ends):
            columns, corrupt, _, lines = csv_part(buffer, found, how, width, list(range(width)), line)
            cells = [c.to_pylist() for c in columns]
            for i, number in enumerate(np.asarray(lines).tolist()):
                bad = corrupt[i] if corrupt is not None else None
                rows.append((number, bad, None if bad is not None else [c[i] for c in cells]))
            line += buffer.count(b"\n", 0, found.used)
        rest = buffer[found.used :]
    assert rest == b""
    return sorted(rows, key=lambda r: r[0])


DIALECTS = [Dialect(), Dialect(escape="\\"), Dialect(quote=""), Dialect(delimiter=";", null_value="a")]


@settings(max_examples=300, deadline=None)
@given(st.lists(ALPHABET, max_size=40).map("".join), st.sampled_from(DIALECTS), st.integers(1, 60), st.integers(1, 3))
def test_records_are_those_of_the_rules_in_blocks_of_any_size(text, how, size, width):
    wanted, line = [], 1
    for record, cells in by_the_rules(text, how):
        blank = record in ("\n", "\r\n")
        if not (blank and width > 1):
            good = cells is not None and len(cells) == width
            wanted.append((line, None if good else record.rstrip("\r\n"), cells if good else None))
        line += record.count("\n")
    assert read_in_blocks(text, how, size, width) == wanted


def test_every_byte_belongs_to_a_record():
    text = b'a,"b\r\nc",d\r\n\r\n"x",y\nz'
    found = records(text, Dialect(), True, LONGEST)
    assert found.used == len(text) and found.cells is None
    assert is_blank(text, found.ends).tolist() == [False, True, False, False]


def test_a_quote_that_closes_nowhere_is_given_up_after_the_longest_line():
    text = b'1,"open\n' + b"2,x\n" * 5000
    found = records(text, Dialect(), False, 1000)
    assert found.cells is not None and found.cells[0] is None and len(found.cells) > 4000


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz", "x.csv.bz2", "x.csv.zst"])
def test_packed_files_are_opened_by_their_name(tmp_path, name):
    pack = {"gz": gzip.compress, "bz2": bz2.compress, "csv": bytes}
    pack["zst"] = lambda data: pa.compress(data, "zstd", asbytes=True)
    (tmp_path / name).write_bytes(pack[name.rsplit(".", 1)[1]](b"id\n1\n"))
    assert dialect.unpacked(io.FileIO(tmp_path / name), name).read(100) == b"id\n1\n"


@pytest.mark.parametrize("pack", [bz2.compress, gzip.compress, lambda data: pa.compress(data, "zstd", asbytes=True)])
def test_what_follows_a_packed_stream_is_another_one_or_damage(pack):
    name = {bz2.compress: "x.bz2", gzip.compress: "x.gz"}.get(pack, "x.zst")

    def text(packed):
        stream, found = dialect.unpacked(io.BytesIO(packed), name), b""
        while block := stream.read(3):
            found += block
        return found

    first, second = pack(b"id\n1\n"), pack(b"2\n")
    assert text(first + second) == b"id\n1\n2\n" and text(b"") == b""
    damaged = bytes([second[0] ^ 1]) + second[1:]
    for rest in (b"garbage", damaged, second[:1], second[:-1]):
        with pytest.raises(dialect.DAMAGED):
            text(first + rest)
