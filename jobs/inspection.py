"""What is in a landed file, found where it is read: checksum, header, columns, and what makes it a bad file.

Bytes are looked at once, in blocks, so that a file of any size takes the same memory.
"""

import bz2
import codecs
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

BLOCK = 4 << 20
HEADER_BYTES = 1 << 16
TEXT = ("csv", "jsonl")
DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile, OSError)
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def inspect(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """For `mapInArrow`: rows of JSON requests (see `inspect_file`) to rows of JSON findings."""
    for batch in batches:
        found = [json.dumps(inspect_file(**json.loads(request))) for request in batch.column(0).to_pylist()]
        yield pa.RecordBatch.from_pydict({"found": pa.array(found, pa.string())})


def inspect_file(
    root: str, path: str, format: str, encoding: str, max_line_bytes: int, quote: str = '"'
) -> dict[str, Any]:
    """Look through one file below `root`.

    Returns path, sha256 and size of the stored bytes; header (of csv) and quoted_newlines; columns (name -> type) of
    Parquet and Avro; and problem: null, or why the file cannot be trusted. `sha256` is null where it cannot be read.
    """
    files, base = fs.FileSystem.from_uri(root) if "://" in root else (fs.LocalFileSystem(), root)
    found: dict[str, Any] = {"path": path, "sha256": None, "size": 0, "header": None, "columns": None, "problem": None}
    try:
        with files.open_input_stream(f"{base}/{path}", compression=None) as stream:
            raw = Hashed(stream)
            if format in TEXT:
                found |= inspect_text(unpacked(raw, path), encoding, max_line_bytes, quote)
            elif format == "avro":
                found |= avro_columns(raw)
            raw.drain()
            found |= {"sha256": raw.checksum.hexdigest(), "size": raw.size}
        if format == "parquet" and raw.size:
            found |= parquet_columns(files, f"{base}/{path}")
    except OSError:
        return found
    return found


class Hashed(io.RawIOBase):
    """A stream whose bytes are counted and hashed while others read them."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.checksum, self.size = stream, hashlib.sha256(), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.stream.read(len(buffer))
        buffer[: len(data)] = data
        self.checksum.update(data)
        self.size += len(data)
        return len(data)

    def drain(self) -> None:
        block = bytearray(BLOCK)
        while self.readinto(block):
            pass


def unpacked(raw: Hashed, path: str) -> BinaryIO:
    """The text of a file, by the compression that its name tells; others than gzip and bzip2 are left to Spark."""
    buffered = io.BufferedReader(raw, BLOCK)
    if path.endswith(".gz"):
        return gzip.GzipFile(fileobj=buffered)  # type: ignore[return-value]
    return bz2.BZ2File(buffered) if path.endswith(".bz2") else buffered  # type: ignore[return-value]


def inspect_text(stream: BinaryIO, encoding: str, max_line_bytes: int, quote: str) -> dict[str, Any]:
    """Header, whether a quoted value holds a line break, and the first problem of a text file."""
    decoder = codecs.getincrementaldecoder(encoding)()
    head, offset, line, open_line, longest = b"", 0, 1, 0, 0
    quotes, broken = 0, False  # quotes so far; whether a line break stands between two of them
    problem = None
    mark = quote.encode()
    while problem is None:
        try:
            block = stream.read(BLOCK)
        except DAMAGED as e:
            problem = f"it is damaged or cut short after {offset:,} bytes of text ({e})"
            break
        if offset == 0 and block.startswith(UTF16) and not encoding.lower().startswith(("utf-16", "utf16")):
            problem = "it is UTF-16, by its first bytes; its source says encoding: " + encoding
            break
        head += block[: HEADER_BYTES - len(head)]
        nul = block.find(b"\0") if not encoding.lower().startswith(("utf-16", "utf-32")) else -1
        if nul >= 0:
            problem = f"line {line + block.count(10, 0, nul):,} holds a NUL byte (at byte {offset + nul:,})"
            break
        try:
            decoder.decode(block, final=not block)
        except UnicodeDecodeError as e:
            at = max(e.start, 0)
            problem = f"line {line + block[:at].count(10):,} is not {encoding} (at byte {offset + at:,}: {e.reason})"
            break
        if not block:
            break
        array = np.frombuffer(block, dtype=np.uint8)
        ends = np.flatnonzero(array == 10)
        if len(ends):
            lengths = np.diff(ends, prepend=-1 - open_line)
            longest, worst = int(lengths.max()), int(lengths.argmax())
            open_line = len(block) - int(ends[-1]) - 1
        else:
            open_line += len(block)
            longest, worst = open_line, 0
        if max(longest, open_line) > max_line_bytes:
            at = line + (worst if longest > max_line_bytes else len(ends))
            problem = f"line {at:,} is longer than {max_line_bytes:,} bytes (max_line_bytes)"
        if mark in block:
            marks = np.flatnonzero(array == mark[0])
            broken = broken or bool(((quotes + np.searchsorted(marks, ends)) % 2).any())
            quotes += len(marks)
        elif quotes % 2:
            broken = broken or len(ends) > 0
        line += len(ends)
        offset += len(block)
    first = head.split(b"\n", 1)[0].rstrip(b"\r") if not encoding.lower().startswith("utf-16") else head
    header = first.decode(
        "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding, "replace"
    )
    # An odd number of quotes in all is a stray one, and no line break stands inside a value for sure.
    return {"header": header.split("\n")[0], "quoted_newlines": broken and quotes % 2 == 0, "problem": problem}


def parquet_columns(files: fs.FileSystem, path: str) -> dict[str, Any]:
    try:
        with files.open_input_file(path) as file:
            schema = pq.read_schema(file)
    except (pa.ArrowInvalid, OSError) as e:
        return {"problem": f"it is no readable Parquet file ({str(e).splitlines()[0]})"}
    return {"columns": {field.name: spark_type(field.type) for field in schema}}


def spark_type(kind: pa.DataType) -> str:
    """The type that Spark reads, as DDL; empty where it has none of that name."""
    from pyspark.errors import PySparkException
    from pyspark.sql.pandas.types import from_arrow_type

    try:
        return from_arrow_type(kind).simpleString().replace("timestamp_ntz", "timestamp")
    except PySparkException:
        return ""


def avro_columns(raw: Hashed) -> dict[str, Any]:
    """Columns of an Avro object container file, from its header (Avro specification 1.11)."""
    stream = io.BufferedReader(raw, BLOCK)
    try:
        if stream.read(4) != b"Obj\x01":
            return {"problem": "it is no Avro object container file"}
        facts = {}
        while count := avro_long(stream):
            if count < 0:
                count, _ = -count, avro_long(stream)
            for _ in range(count):
                name = stream.read(avro_long(stream)).decode()
                facts[name] = stream.read(avro_long(stream))
        schema = json.loads(facts["avro.schema"])
        return {"columns": {f["name"]: avro_type(f["type"]) for f in schema["fields"]}}
    except (KeyError, ValueError, TypeError, EOFError) as e:
        return {"problem": f"its Avro header cannot be read ({e})"}
    finally:
        stream.detach()


AVRO_TYPES = {
    **{"int": "int", "long": "bigint", "float": "float", "double": "double", "boolean": "boolean"},
    **{"string": "string", "bytes": "binary", "date": "date", "uuid": "string"},
    **{"timestamp-millis": "timestamp", "timestamp-micros": "timestamp"},
}


def avro_type(kind: Any) -> str:
    """The type that Spark reads, as DDL, of a plain or optional field; empty for others."""
    if isinstance(kind, list):
        others = [k for k in kind if k != "null"]
        kind = others[0] if len(others) == 1 else None
    if isinstance(kind, dict):
        kind = kind.get("logicalType", kind.get("type"))
    return AVRO_TYPES.get(kind, "") if isinstance(kind, str) else ""


def avro_long(stream: BinaryIO) -> int:
    """A zigzag variable-length integer."""
    shift = result = 0
    while True:
        byte = stream.read(1)
        if not byte:
            raise EOFError("it ends inside its header")
        result |= (byte[0] & 0x7F) << shift
        shift += 7
        if not byte[0] & 0x80:
            return (result >> 1) ^ -(result & 1)
