"""What is in a landed file, found where it is read: checksum, columns, records, and what makes it a bad file.

Bytes are looked at once, in blocks, so that a file of any size takes the same memory. How many records a file holds is
counted here, by its line ends and quotes, its footer or the heads of its blocks: not by what reads the rows later.
"""

import codecs
import hashlib
import io
import itertools
import json
import zlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs
from pyspark.sql import types as T

from jobs.dialect import (
    BLOCK,
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
from jobs.documents import Malformed, loaded, unexpected
from transforms.parsing import ddl_of

TEXT = ("csv", "jsonl")
DAMAGED = (EOFError, zlib.error, OSError, pa.ArrowException)
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
GZIP = b"\x1f\x8b"
PART_BYTES = 64 << 20  # of a text file, that one task reads
MOST_MEMBERS = 1000  # unexpected ones of a file, that are told


def inspect(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
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
    files, base = fs.FileSystem.from_uri(root) if "://" in root else (fs.LocalFileSystem(), root)
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


class Unreadable(Exception):
    """The storage failed, whatever the file is like."""


class Hashed(io.RawIOBase):
    """A stream whose bytes are counted and hashed while others read them."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.checksum, self.size = stream, hashlib.sha256(), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self.stream.read(len(buffer))
        except OSError as e:
            raise Unreadable(first_line(e)) from e
        buffer[: len(data)] = data
        self.checksum.update(data)
        self.size += len(data)
        return len(data)

    def drain(self) -> None:
        block = bytearray(BLOCK)
        while self.readinto(block):
            pass


class CsvLook:
    """What is told of a csv file while its text goes by: the header, how many records, where parts may start."""

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
        told: dict[str, Any] = {"columns": dict.fromkeys(names, ""), "records": max(self.records, 0)}
        if repeated is not None:
            told["problem"] = f"its header names the column '{repeated}' twice"
        # Where quotes are stray, only a reader that comes from the start knows what a line end is.
        return told | {"parts": self.parts if self.regular else [[0, 1]]}


class JsonLook:
    """What is told of JSON lines while they go by: how many, and which members their records have."""

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
        told = {"columns": self.members, "records": self.records, "parts": self.parts}
        if self.nested is not None:
            told |= problem(f"its records have a member '{self.nested}' that the schema lacks")
        if self.more > MOST_MEMBERS:
            told |= problem(f"its records have more than {MOST_MEMBERS:,} members that the schema lacks")
        if self.array:
            told |= problem("it is a JSON array over several lines; write one record to a line")
        told["columns"] = dict(sorted(self.members.items()))
        return told


def inspect_text(
    raw: Hashed, path: str, encoding: str, line_end: str, max_line_bytes: int, look: CsvLook | JsonLook
) -> dict[str, Any]:
    """What a look finds in a text file, unless it is damaged, of another encoding, or has lines beyond measure."""
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
            return problem(f"it is damaged or cut short after {offset:,} bytes of text ({e})")
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


def problem(told: str) -> dict[str, Any]:
    return {"problem": told}


# -- typed formats


def parquet_facts(files: fs.FileSystem, path: str) -> dict[str, Any]:
    """Columns, records and row groups, from the footer."""
    try:
        with files.open_input_file(path) as file:
            footer = pq.ParquetFile(file, coerce_int96_timestamp_unit="us")
            schema, groups = footer.schema_arrow, footer.metadata.num_row_groups
            count = footer.metadata.num_rows
            fine = [f.name for f in schema if pa.types.is_timestamp(f.type) and f.type.unit == "ns"]
            cut = (
                next(filter(None, (finer_than_micros(b) for b in footer.iter_batches(columns=fine))), None)
                if fine
                else None
            )
    except Exception as e:  # what a damaged footer brings about is of many kinds
        return problem(f"it is no readable Parquet file ({first_line(e)})")
    names = schema.names
    repeated = next((n for n in names if names.count(n) > 1), None)
    if repeated is not None:
        return problem(f"it has the column '{repeated}' twice")
    if cut is not None:
        return problem(f"its column '{cut}' holds times finer than the microseconds of a timestamp")
    columns = {field.name: spark_type(field.type) for field in schema}
    return {"columns": columns, "records": count, "parts": [[i, 1] for i in range(groups)]}


def finer_than_micros(batch: pa.RecordBatch) -> str | None:
    """The first column of times in nanoseconds that microseconds do not hold."""
    for name, times in zip(batch.schema.names, batch.columns, strict=True):
        if pa.types.is_timestamp(times.type) and (times.cast(pa.int64()).drop_null().to_numpy() % 1000).any():
            return name
    return None


def first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def spark_type(kind: pa.DataType) -> str:
    """The type that holds an Arrow type's values without loss, as DDL; a name in <> where there is none."""
    found = held_by(kind)
    return ddl_of(found) if found is not None else f"<{kind}>"


PLAIN_TYPES: dict[Any, T.DataType] = {
    pa.bool_(): T.BooleanType(),
    **dict.fromkeys([pa.int8()], T.ByteType()),
    **dict.fromkeys([pa.uint8(), pa.int16()], T.ShortType()),
    **dict.fromkeys([pa.uint16(), pa.int32()], T.IntegerType()),
    **dict.fromkeys([pa.uint32(), pa.int64()], T.LongType()),
    pa.uint64(): T.DecimalType(20, 0),
    **dict.fromkeys([pa.float16(), pa.float32()], T.FloatType()),
    pa.float64(): T.DoubleType(),
    **dict.fromkeys([pa.string(), pa.large_string(), pa.string_view()], T.StringType()),
    **dict.fromkeys([pa.binary(), pa.large_binary(), pa.binary_view()], T.BinaryType()),
    **dict.fromkeys([pa.date32(), pa.date64()], T.DateType()),
    pa.null(): T.NullType(),
}


def held_by(kind: pa.DataType) -> T.DataType | None:
    """The Spark type that holds the values of an Arrow type; None where there is none."""
    if kind in PLAIN_TYPES:
        return PLAIN_TYPES[kind]
    if isinstance(kind, pa.BaseExtensionType):
        return held_by(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return held_by(kind.value_type)
    if pa.types.is_timestamp(kind):
        return T.TimestampType()
    if pa.types.is_fixed_size_binary(kind):
        return T.BinaryType()
    if pa.types.is_decimal(kind):
        return T.DecimalType(kind.precision, kind.scale) if kind.precision <= 38 and kind.scale >= 0 else None
    if pa.types.is_map(kind):
        key, value = held_by(kind.key_type), held_by(kind.item_type)
        return None if key is None or value is None else T.MapType(key, value)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        element = held_by(kind.value_type)
        return None if element is None else T.ArrayType(element)
    if pa.types.is_struct(kind):
        fields = [(kind.field(i).name, held_by(kind.field(i).type)) for i in range(kind.num_fields)]
        if all(held is not None for _, held in fields):
            return T.StructType([T.StructField(n, held) for n, held in fields if held is not None])
    return None


def avro_facts(raw: Hashed) -> dict[str, Any]:
    """Columns and records of an Avro object container file, from its header and the heads of its blocks."""
    import fastavro

    stream = io.BufferedReader(raw, BLOCK)
    try:
        if not stream.peek(1):
            return {"columns": {}, "records": 0}
        blocks = fastavro.block_reader(SimpleNamespace(read=stream.read, tell=lambda: raw.size))
        schema = blocks.writer_schema
        if not isinstance(schema, dict) or schema.get("type") != "record":
            return problem("its Avro schema is no record")
        columns = {f["name"]: avro_type(f["type"]) for f in fastavro.schema.expand_schema(schema)["fields"]}
        return {"columns": columns, "records": sum(block.num_records for block in blocks)}
    except Exception as e:  # what damaged bytes bring about is of many kinds
        return problem(f"it is no readable Avro file ({first_line(e)})")
    finally:
        stream.detach()


AVRO_TYPES: dict[str, T.DataType] = {
    **{"int": T.IntegerType(), "long": T.LongType(), "float": T.FloatType(), "double": T.DoubleType()},
    **{"boolean": T.BooleanType(), "string": T.StringType(), "bytes": T.BinaryType(), "enum": T.StringType()},
    **{"date": T.DateType(), "uuid": T.StringType(), "fixed": T.BinaryType(), "null": T.NullType()},
    **{"timestamp-millis": T.TimestampType(), "timestamp-micros": T.TimestampType()},
    **{"local-timestamp-millis": T.TimestampType(), "local-timestamp-micros": T.TimestampType()},
}


def avro_type(kind: Any) -> str:
    """The type of a field, as DDL; a name in <> where there is none."""
    found = held_by_avro(kind)
    return ddl_of(found) if found is not None else f"<{json.dumps(kind)[:100]}>"


def held_by_avro(kind: Any) -> T.DataType | None:
    if isinstance(kind, list):
        others = [k for k in kind if k != "null"]
        return held_by_avro(others[0]) if len(others) == 1 else None
    if not isinstance(kind, dict):
        return AVRO_TYPES.get(kind)
    logical, plain = kind.get("logicalType"), kind["type"]
    if logical == "decimal":
        precision, scale = kind["precision"], kind.get("scale", 0)
        return T.DecimalType(precision, scale) if precision <= 38 else None
    if logical is not None and logical in AVRO_TYPES:
        return AVRO_TYPES[logical]
    if logical is not None:
        return None
    if plain == "array":
        element = held_by_avro(kind["items"])
        return None if element is None else T.ArrayType(element)
    if plain == "map":
        value = held_by_avro(kind["values"])
        return None if value is None else T.MapType(T.StringType(), value)
    if plain == "record":
        fields = [(f["name"], held_by_avro(f["type"])) for f in kind["fields"]]
        if all(held is not None for _, held in fields):
            return T.StructType([T.StructField(n, held) for n, held in fields if held is not None])
        return None
    return held_by_avro(plain) if isinstance(plain, dict | list) else AVRO_TYPES.get(plain)
