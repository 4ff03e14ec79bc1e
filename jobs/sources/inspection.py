"""Inspection of a landed file, done where it is read: checksum, columns, records, and what makes it a bad file.

Bytes are looked at once, in blocks, so that a file of any size takes the same memory. How many records a file holds is
counted here, by its line ends and quotes, its footer or the heads of its blocks: not by what reads the rows later.
"""

import codecs
import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import types as T

from headgate.jobs.errors import first_line
from headgate.jobs.lake.storage import file_system
from headgate.jobs.sources.dialect import (
    DAMAGED,
    LINE,
    Dialect,
    LineEnds,
    is_blank,
    is_packed,
    is_utf8,
    one_by_one,
    records,
    unpacked,
    utf8_blocks,
)
from headgate.jobs.sources.documents import Malformed, loaded, unexpected
from headgate.jobs.sources.formats import Hashed, Unreadable, avro_facts, parquet_facts, problem
from headgate.words import cell

TEXT = ("csv", "jsonl")

UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

GZIP = b"\x1f\x8b"

PART_BYTES = 64 << 20  # of a text file, that one task reads

MOST_MEMBERS = 1000  # unexpected ones of a file, that are told


def inspect(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """For `mapInArrow`: rows of JSON requests (see `inspect_file`) to rows of JSON findings."""
    for batch in batches:
        found = [json.dumps(inspect_file(**json.loads(request))) for request in batch.column(0).to_pylist()]
        yield pa.RecordBatch.from_pydict({"found": pa.array(found, pa.string())})


def inspect_file(
    root: str,
    path: str,
    format: str,
    encoding: str = "utf-8",
    line_end: str = "auto",
    max_line_bytes: int = 16 << 20,
    dialect: dict[str, str] | None = None,
    schema: str | None = None,
) -> dict[str, Any]:
    """Look through one file below `root`.

    schema: of jsonl, its columns as Spark's JSON. Returns path, sha256 and size of the stored bytes; columns (name ->
    type, '' where the format has none); records; parts (where tasks may start to read: offset and line number); and
    problem: null, or why the file cannot be trusted. `sha256` is null where it cannot be read.
    """
    files, base = file_system(root)
    found: dict[str, Any] = {"path": path, "sha256": None, "size": 0, "columns": None, "records": 0}
    found |= {"parts": [[0, 1]], "problem": None}
    try:
        with files.open_input_stream(f"{base}/{path}", compression=None) as stream:
            raw = Hashed(stream)
            if format in TEXT:
                look = CsvLook(Dialect(**dialect or {}), max_line_bytes) if format == "csv" else JsonLook(str(schema))
                found |= inspect_text(raw, path, encoding, line_end, max_line_bytes, look)
            elif format == "avro":
                found |= avro_facts(raw)
            raw.drain()
            found |= {"sha256": raw.checksum.hexdigest(), "size": raw.size}
        if format == "parquet":
            found |= parquet_facts(files, f"{base}/{path}")
    except (OSError, Unreadable) as e:
        return found | {"sha256": None, "why": first_line(e)}
    return found


class CsvLook:
    """The outline of a csv file, gathered while its text goes by: header, number of records, starts of parts."""

    def __init__(self, dialect: Dialect, longest: int) -> None:
        self.dialect, self.longest = dialect, longest
        self.rest, self.offset, self.line = b"", 0, 1
        self.columns: list[str] | None = None
        self.records, self.parts, self.regular = 0, [[0, 1]], True

    def take(self, text: bytes) -> None:
        buffer, final = self.rest + text, not text
        found = records(buffer, self.dialect, final, self.longest)
        ends = found.ends
        if self.columns is None and len(ends):
            first = buffer[: ends[0]]
            cells = one_by_one(first, self.dialect, True, self.longest).cells or [None]
            self.columns = [c.decode("utf-8", "replace") for c, _ in cells[0] or [(first, False)]]
            self.records -= 1
        self.regular &= found.cells is None
        if len(ends):
            blank = is_blank(buffer, ends) if len(self.columns or ()) > 1 else np.zeros(len(ends), np.bool_)
            self.records += len(ends) - int(blank.sum())
            self.line += buffer.count(b"\n", 0, found.used)
            self.offset += found.used
            if self.offset - self.parts[-1][0] >= PART_BYTES:
                self.parts.append([self.offset, self.line])
        self.rest = buffer[found.used :]

    def facts(self) -> dict[str, Any]:
        names = self.columns or []
        repeated = next((n for n in names if names.count(n) > 1), None)
        outline: dict[str, Any] = {"columns": dict.fromkeys(names, ""), "records": max(self.records, 0)}
        if repeated is not None:
            outline["problem"] = f"its header names the column {cell(repeated)} twice"
        # Where quotes are stray, only a reader that comes from the start knows what a line end is.
        return outline | {"parts": self.parts if self.regular else [[0, 1]]}


class JsonLook:
    """The outline of JSON lines, gathered while they go by: how many, and which members their records have."""

    def __init__(self, schema: str) -> None:
        self.schema = T.StructType.fromJson(json.loads(schema))
        self.known = set(self.schema.names)
        self.members: dict[str, str] = {}
        self.array = False  # whether the first line opens an array over several
        self.more = 0  # members that the schema has not
        self.nested: str | None = None  # a member within another that the schema has not
        self.rest, self.offset, self.line = b"", 0, 1
        self.records, self.parts = 0, [[0, 1]]

    def take(self, text: bytes) -> None:
        buffer = self.rest + text
        used = len(buffer) if not text else buffer.rfind(b"\n") + 1
        for line in buffer[:used].split(b"\n"):
            if not line.strip():
                continue
            self.records += 1
            self.array |= self.records == 1 and line.strip() == b"["
            try:
                record = loaded(line.decode("utf-8", "replace"))
            except Malformed:
                continue
            for name in record.keys() - self.members.keys():
                if name in self.known or self.more < MOST_MEMBERS:
                    self.members[name] = ""
                self.more += name not in self.known
            if self.nested is None:
                known = {f.name: f.dataType for f in self.schema}
                inside = (unexpected(v, known[n], f"{n}.") for n, v in record.items() if n in known)
                self.nested = next(itertools.chain.from_iterable(inside), None)
        self.line += buffer.count(b"\n", 0, used)
        self.offset += used
        if self.offset - self.parts[-1][0] >= PART_BYTES:
            self.parts.append([self.offset, self.line])
        self.rest = buffer[used:]

    def facts(self) -> dict[str, Any]:
        outline = {"columns": self.members, "records": self.records, "parts": self.parts}
        if self.nested is not None:
            outline |= problem(f"its records have a member {cell(self.nested)} that the schema lacks")
        if self.more > MOST_MEMBERS:
            outline |= problem(f"its records have more than {MOST_MEMBERS:,} members that the schema lacks")
        if self.array:
            outline |= problem("it is a JSON array over several lines; write one record to a line")
        outline["columns"] = dict(sorted(self.members.items()))
        return outline


def inspect_text(
    raw: Hashed, path: str, encoding: str, line_end: str, max_line_bytes: int, look: CsvLook | JsonLook
) -> dict[str, Any]:
    """Inspect a text file; one that is corrupt, of another encoding, or has lines beyond measure is a problem."""
    offset, line, open_line = 0, 1, 0
    decoder = codecs.getincrementaldecoder("utf-8")()
    plain = is_utf8(encoding)
    begun, mark, ends_of = False, 0, LineEnds(line_end)
    blocks = utf8_blocks(unpacked(raw, path), encoding)
    while True:
        try:
            text, block = next(blocks)
            if not begun:
                begun, mark = True, len(codecs.BOM_UTF8) if plain and block.startswith(codecs.BOM_UTF8) else 0
                if plain and block.startswith(UTF16):
                    return problem(f"it is UTF-16, by its first bytes; its source says encoding: {encoding}")
                if block.startswith(GZIP):
                    return problem("it is gzip, by its first bytes, but its name does not end in .gz")
            if plain:
                decoder.decode(text, final=not block)
        except UnicodeDecodeError as e:
            start = e.start if not plain else max(e.start - (len(e.object) - len(text)), 0)
            before = (
                e.object[: e.start].decode(encoding, "replace").count("\n")
                if not plain
                else text.count(b"\n", 0, start)
            )
            return problem(f"line {line + before:,} is not {encoding} (at byte {offset + start:,}: {e.reason})")
        except UnicodeError as e:
            return problem(f"it is not {encoding} ({first_line(e)})")
        except DAMAGED as e:
            return problem(f"it is corrupt or truncated after {offset:,} bytes of text ({first_line(e)})")
        nul = text.find(b"\0")
        if nul >= 0:
            return problem(f"line {line + text.count(LINE, 0, nul):,} holds a NUL byte (at byte {offset + nul:,})")
        text = ends_of.known(text, not block)
        array = np.frombuffer(text, np.uint8)
        ends = np.flatnonzero(array == LINE)
        lengths = np.diff(ends, prepend=-1 - open_line)
        longest, worst = (int(lengths.max()), int(lengths.argmax())) if len(ends) else (0, 0)
        open_line = len(text) - int(ends[-1]) - 1 if len(ends) else open_line + len(text)
        if max(longest, open_line) > max_line_bytes:
            at = line + (worst if longest > max_line_bytes else len(ends))
            return problem(f"line {at:,} is longer than {max_line_bytes:,} bytes (max_line_bytes)")
        if text or not block:  # an empty text is the last
            look.take(text)
        if not block:
            break
        line, offset = line + len(ends), offset + len(block)
    found = look.facts()
    if not plain or is_packed(path) or line_end not in ("auto", "\n"):
        found["parts"] = found["parts"][:1]  # offsets are those of the text, not of the stored bytes
    found["parts"] = [found["parts"][0], *([at + mark, number] for at, number in found["parts"][1:])]
    return found
