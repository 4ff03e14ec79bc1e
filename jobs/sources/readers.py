"""Landed files as Arrow batches, read where the executors are.

Text comes as text: every cell as it stands in the file, for `transforms.parsing` to make values of. Typed formats come
as the types of the table, if those hold every value. Each row brings its file, day and place in the file.
"""

import datetime as dt
import itertools
import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc_csv
import pyarrow.parquet as pq
from pyarrow import fs
from pyspark.sql import types as T
from pyspark.sql.pandas.types import to_arrow_type

from headgate.jobs.errors import SourceFailed, first_line
from headgate.jobs.lake.storage import file_system
from headgate.jobs.sources.dialect import (
    DAMAGED,
    Dialect,
    LineEnds,
    Records,
    is_blank,
    is_packed,
    is_utf8,
    records,
    unpacked,
    utf8_blocks,
)
from headgate.jobs.sources.documents import Malformed, cells, loaded
from headgate.transforms.rows import FILE, FILE_DATE, OWN
from headgate.words import cell

CORRUPT = f"{OWN}malformed"  # the text of a record that cannot be read
PROBLEM = f"{OWN}problem"  # why
LINE = f"{OWN}line"  # of text the line, else the number of the record
PLACES = f"{CORRUPT} string, {PROBLEM} string, {LINE} bigint, {FILE} string, {FILE_DATE} date"
ROWS = 8192  # of a batch of a typed format


def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """For `mapInArrow`: rows of JSON requests to the rows of files."""
    for batch in batches:
        for request in batch.column(0).to_pylist():
            yield from read_part(json.loads(request))


def read_part(request: dict[str, Any]) -> Iterator[pa.RecordBatch]:
    """The rows of a part of a file: the columns of its `schema`, then `PLACES`."""
    schema = T.StructType.fromJson(json.loads(request["schema"]))
    root, path = request["root"], request["path"]
    files, base = file_system(root)
    readers = {"csv": read_csv, "jsonl": read_json, "parquet": read_parquet, "avro": read_avro}
    day = dt.date.fromisoformat(request["date"]) if request["date"] else None
    try:
        for columns, corrupt, problems, lines in readers[request["format"]](files, f"{base}/{path}", schema, request):
            n = len(lines)
            places = [
                pa.array(corrupt, pa.string()) if corrupt is not None else pa.nulls(n, pa.string()),
                pa.array(problems, pa.string()) if problems is not None else pa.nulls(n, pa.string()),
                pa.array(lines, pa.int64()),
                pa.repeat(pa.scalar(path), n),
                pa.array([day], pa.date32()).take(pa.array(np.zeros(n, np.int64))),
            ]
            names = [*schema.names, CORRUPT, PROBLEM, LINE, FILE, FILE_DATE]
            yield pa.RecordBatch.from_arrays([*columns, *places], names)
    except SourceFailed:
        raise
    except DAMAGED as e:
        raise SourceFailed(f"{path}: it cannot be read to its end ({cell(first_line(e))})") from e


Part = tuple[list[pa.Array], Sequence[str | None] | None, Sequence[str | None] | None, Any]


def texts(files: fs.FileSystem, path: str, request: dict[str, Any]) -> Iterator[bytes]:
    """The text of a part of a file in blocks of UTF-8; an empty one is the last."""
    encoding, start, end = request["encoding"], request["start"], request["end"]
    ends = LineEnds(request["line_end"])
    if is_packed(path) or not is_utf8(encoding):
        with files.open_input_stream(path, compression=None) as stream:
            yield from lines_known(utf8_blocks(unpacked(stream, path), encoding), ends)
        return
    with files.open_input_file(path) as file:
        size = file.size()
        part = pa.BufferReader(b"") if size <= start else Slice(file, start, size if end is None else end)
        yield from lines_known(utf8_blocks(part, encoding, begins=not start), ends)


def lines_known(blocks: Iterator[tuple[bytes, bytes]], ends: LineEnds) -> Iterator[bytes]:
    for text, block in blocks:
        known = ends.known(text, not block)
        if known or not block:
            yield known


class Slice:
    """The bytes of a file between two offsets, as a stream."""

    def __init__(self, file: Any, start: int, end: int) -> None:
        self.file, self.at, self.end = file, start, end

    def read(self, size: int) -> bytes:
        data = self.file.read_at(min(size, self.end - self.at), self.at) if self.at < self.end else b""
        self.at += len(data)
        return data


# -- csv


def read_csv(files: fs.FileSystem, path: str, schema: T.StructType, request: dict[str, Any]) -> Iterator[Part]:
    dialect, names, ends = Dialect(**request["dialect"]), request["columns"], LineEnds(request["line_end"])
    wanted = [names.index(c) if c in names else None for c in schema.names]
    rest, line, header = b"", request["line"], request["start"] == 0
    for text in texts(files, path, request):
        buffer, final = rest + text, not text
        found = records(buffer, dialect, final, request["max_line_bytes"])
        if header and len(found.ends):
            header = False
            line += buffer.count(b"\n", 0, int(found.ends[0]))
            buffer = buffer[int(found.ends[0]) :]
            found = Records(found.ends[1:] - found.ends[0], None if found.cells is None else found.cells[1:])
        if len(found.ends):
            columns, corrupt, problems, lines = csv_part(buffer, found, dialect, len(names), wanted, line)
            corrupt = corrupt and [None if t is None else ends.own(t.encode()).decode() for t in corrupt]
            yield [ends.own_of(c) for c in columns], corrupt, problems, lines
            line += buffer.count(b"\n", 0, found.used)
        rest = buffer[found.used :]


def csv_part(buffer: bytes, found: Records, dialect: Dialect, width: int, wanted: list[int | None], line: int) -> Part:
    """The records of a buffer whose first one stands on a line."""
    starts = np.concatenate([[0], found.ends[:-1]])
    array = np.frombuffer(buffer, np.uint8)[: found.used]
    numbers = line + np.searchsorted(np.flatnonzero(array == 10), starts)
    there = ~is_blank(buffer, found.ends) if width > 1 else np.ones(len(starts), np.bool_)
    numbers = numbers[there]
    bad: list[tuple[int, str]] = []
    if found.cells is None:
        table = regular(buffer[: found.used], dialect, width, bad)
        columns = [table.column(i).combine_chunks() if i is not None else None for i in wanted]
        columns = [c.chunk(0) if isinstance(c, pa.ChunkedArray) else c for c in columns]
        rows = table.num_rows
    else:
        chosen = [c for c, t in zip(found.cells, there, strict=True) if t]
        good = [c for c in chosen if c is not None and len(c) == width]
        null = dialect.null_value.encode()
        columns = [
            None
            if i is None
            else pa.array(
                [None if not quoted and v == null else v for v, quoted in (c[i] for c in good)], pa.binary()
            ).cast(pa.string())
            for i in wanted
        ]
        rows = len(good)
        spans = zip(starts[there], found.ends[there], strict=True)
        for number, (cell, (start, end)) in enumerate(zip(chosen, spans, strict=True)):
            if cell is None or len(cell) != width:
                bad.append((number, buffer[start:end].decode("utf-8", "replace")))
    if rows + len(bad) != len(numbers):
        raise ValueError(f"{len(numbers)} records from line {line}, but {rows} were read and {len(bad)} are malformed")
    malformed = np.array([n for n, _ in bad], np.int64)
    places = np.concatenate([np.delete(numbers, malformed), numbers[malformed]])
    malformed_texts = [None] * rows + [text.rstrip("\r\n") for _, text in bad]
    why = [None] * rows + [f"not {width} values, or a quote that does not close"] * len(bad)
    filled = [
        pa.concat_arrays([c, pa.nulls(len(bad), pa.string())]) if c is not None else pa.nulls(len(places), pa.string())
        for c in columns
    ]
    return filled, malformed_texts if bad else None, why if bad else None, places


def regular(buffer: bytes, dialect: Dialect, width: int, bad: list[tuple[int, str]]) -> pa.Table:
    """The cells of regular records; those of another number of cells come into `bad`, by number and text."""
    names = [str(i) for i in range(width)]

    def skip(row: Any) -> str:
        bad.append((row.number - 1, row.text))
        return "skip"

    if not buffer.endswith(b"\n"):  # an empty last value would be taken for a quoted one
        buffer += b"\n"
    if not buffer.strip(b"\r\n") and width > 1:
        return pa.table([pa.array([], pa.string())] * width, names)
    return pc_csv.read_csv(
        pa.BufferReader(buffer),
        read_options=pc_csv.ReadOptions(column_names=names, use_threads=False, block_size=len(buffer) + 1),
        parse_options=pc_csv.ParseOptions(
            delimiter=dialect.delimiter,
            quote_char=dialect.quote or False,
            newlines_in_values=bool(dialect.quote) and dialect.quote.encode() in buffer,
            ignore_empty_lines=width > 1,
            invalid_row_handler=skip,
        ),
        convert_options=pc_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            strings_can_be_null=True,
            null_values=[dialect.null_value],
            quoted_strings_can_be_null=False,
        ),
    )


# -- JSON lines


def read_json(files: fs.FileSystem, path: str, schema: T.StructType, request: dict[str, Any]) -> Iterator[Part]:
    rest, line, ends = b"", request["line"], LineEnds(request["line_end"])
    for text in texts(files, path, request):
        buffer = rest + text
        used = len(buffer) if not text else buffer.rfind(b"\n") + 1
        lines = buffer[:used].split(b"\n")
        numbered = [(line + i, t) for i, t in enumerate(lines) if t.strip()]
        if numbered:
            yield json_part(
                [ends.own(t).decode("utf-8", "replace").rstrip("\r") for _, t in numbered],
                schema,
                [n for n, _ in numbered],
            )
        line += len(lines) - 1
        rest = buffer[used:]


def json_part(lines: Sequence[str], schema: T.StructType, numbers: Sequence[int], strict: bool = False) -> Part:
    """Records of JSON as columns of text; one that cannot be read has nulls and says why.

    strict: a record with a member that is no column cannot be read.
    """
    known = set(schema.names)
    rows: list[list[Any]] = []
    corrupt: list[str | None] = []
    problems: list[str | None] = []
    for text in lines:
        try:
            record = loaded(text)
            more = next((n for n in record if n not in known), None) if strict else None
            if more is not None:
                raise Malformed(f"its member '{more}' is no column of the schema")
            rows.append(cells(record, schema))
            corrupt.append(None)
            problems.append(None)
        except Malformed as e:
            rows.append([None] * len(schema))
            corrupt.append(text)
            problems.append(str(e))
    columns = zip(*rows, strict=True)
    arrays = [pa.array(list(values), to_arrow_type(f.dataType)) for values, f in zip(columns, schema, strict=True)]
    return arrays, corrupt, problems, numbers


# -- typed formats


def read_parquet(files: fs.FileSystem, path: str, schema: T.StructType, request: dict[str, Any]) -> Iterator[Part]:
    with files.open_input_file(path) as file:
        footer = pq.ParquetFile(file, coerce_int96_timestamp_unit="us")
        group, last = request["start"], request["end"]
        groups = list(range(group, footer.metadata.num_row_groups if last is None else last))
        at = sum(footer.metadata.row_group(i).num_rows for i in range(group))
        names = footer.schema_arrow.names
        wanted = [c for c in schema.names if c in names]
        for batch in footer.iter_batches(ROWS, row_groups=groups, columns=wanted, use_threads=False):
            columns = [
                held(batch.column(wanted.index(f.name)), f, request["path"])
                if f.name in wanted
                else pa.nulls(batch.num_rows, to_arrow_type(f.dataType, timestamp_utc=True))
                for f in schema
            ]
            yield columns, None, None, np.arange(at + 1, at + 1 + batch.num_rows)
            at += batch.num_rows


def held(values: pa.Array, field: T.StructField, path: str) -> pa.Array:
    """Values in the type of a column; raises `SourceFailed` where it would change one."""
    wanted = to_arrow_type(field.dataType, timestamp_utc=True)
    while isinstance(values.type, pa.BaseExtensionType):
        values = values.storage
    if pa.types.is_null(values.type):
        return pa.nulls(len(values), wanted)
    if values.type == pa.float16():
        values = values.cast(pa.float32())
    try:
        values.validate(full=True)  # that texts are UTF-8, which nothing else sees to
        return values.cast(wanted)
    except pa.ArrowException as e:
        kind = field.dataType.simpleString()
        raise SourceFailed(
            f"{path}: its column {cell(field.name)} holds what {kind} cannot: {cell(first_line(e))}"
        ) from e


def read_avro(files: fs.FileSystem, path: str, schema: T.StructType, request: dict[str, Any]) -> Iterator[Part]:
    kinds = [to_arrow_type(f.dataType, timestamp_utc=True) for f in schema]
    at = 0
    with files.open_input_file(path) as stream:
        found = avro_records(stream, request["path"])
        while rows := list(itertools.islice(found, ROWS)):
            columns = [
                pa.array([plain(r.get(f.name)) for r in rows], kind) for f, kind in zip(schema, kinds, strict=True)
            ]
            yield columns, None, None, np.arange(at + 1, at + 1 + len(rows))
            at += len(rows)


def avro_records(stream: Any, path: str) -> Iterator[dict[str, Any]]:
    """Yield the records of an Avro file; raises `SourceFailed` where its bytes are damaged, on which it trips."""
    import fastavro

    try:
        yield from cast(Iterator[dict[str, Any]], fastavro.reader(stream))
    except Exception as e:
        raise SourceFailed(f"{path}: it cannot be read to its end ({cell(first_line(e))})") from e


def plain(value: Any) -> Any:
    """A value of Avro as Arrow takes it: times without a zone are UTC, a UUID is its text."""
    if isinstance(value, dt.datetime) and value.tzinfo is None:
        return value.replace(tzinfo=dt.timezone.utc)
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, list):
        return [plain(v) for v in value]
    return {k: plain(v) for k, v in value.items()} if isinstance(value, dict) else value
