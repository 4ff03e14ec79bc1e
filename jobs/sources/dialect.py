"""Text files as records: lines, quotes and escapes, in any encoding, exactly as they stand.

A quote opens a value only at its start, and closes it only before a delimiter, a line end or the end of the file; any
other quote is a letter. A line whose opening quote closes nowhere is malformed by itself, and the next line is read as
if nothing had happened, so that a stray quote swallows nothing.
"""

import bz2
import codecs
import functools
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

DAMAGED = (EOFError, UnicodeError, zlib.error, OSError, pa.ArrowException)  # what damaged bytes bring about

BLOCK = 4 << 20
LINE, RETURN = 10, 13
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Dialect:
    """The dialect of a csv file. quote and escape may be '' for none; escape '' means that quotes are doubled."""

    delimiter: str = ","
    quote: str = '"'
    escape: str = ""
    null_value: str = ""


@dataclass(frozen=True)
class Records:
    """The complete records at the start of a buffer.

    ends: where each ends, its line end included. cells: of each its cells, None for a malformed one; None as a whole
    where the records are regular, so that a common reader of csv takes them as meant here.
    """

    ends: Ints
    cells: list[list[tuple[bytes, bool]] | None] | None = None

    @property
    def used(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0


def records(buffer: bytes, dialect: Dialect, final: bool, longest: int) -> Records:
    """Return the complete records at the start of a buffer; with `final`, all of it.

    longest: bytes after which a quote that is still open is a stray one.
    """
    array = np.frombuffer(buffer, np.uint8)
    ends = np.flatnonzero(array == LINE) + 1
    quoted = dialect.quote and dialect.quote.encode() in buffer
    if quoted:
        quotes = np.flatnonzero(array == ord(dialect.quote))
        ends = ends[np.searchsorted(quotes, ends) % 2 == 0]
        if final and len(quotes) % 2 == 0 and (not len(ends) or ends[-1] < len(buffer)):
            ends = np.append(ends, len(buffer))
        used = int(ends[-1]) if len(ends) else 0
        if (final and used < len(buffer)) or (not used and len(buffer) > longest):
            return one_by_one(buffer, dialect, final, longest)
        if not closed(array, quotes[quotes < used], used, dialect):
            return one_by_one(buffer, dialect, final, longest)
    elif final and len(buffer) and (not len(ends) or ends[-1] < len(buffer)):
        ends = np.append(ends, len(buffer))
    escaped = dialect.escape and quoted and dialect.escape.encode() in buffer
    used = int(ends[-1]) if len(ends) else 0
    lone = buffer.count(b"\r", 0, used) != buffer.count(b"\r\n", 0, used)
    if escaped or lone:  # a lone carriage return is a letter here, and a line end to others
        return one_by_one(buffer, dialect, final, longest)
    return Records(ends)


def closed(array: npt.NDArray[np.uint8], quotes: Ints, used: int, dialect: Dialect) -> bool:
    """Return whether every quote opens or closes a value, or is doubled within one."""
    opens, closes = quotes[0::2], quotes[1::2]
    delimiter = ord(dialect.delimiter)
    before = array[np.maximum(opens - 1, 0)]
    starts = (opens == 0) | (before == delimiter) | (before == LINE)
    starts[1:] |= opens[1:] - 1 == closes[:-1]
    after = array[np.minimum(closes + 1, used - 1)]
    behind = array[np.minimum(closes + 2, used - 1)]
    stops = (closes + 1 == used) | (after == delimiter) | (after == LINE) | ((after == RETURN) & (behind == LINE))
    stops[:-1] |= opens[1:] - 1 == closes[:-1]
    return bool(starts.all() and stops.all())


@functools.lru_cache
def patterns(dialect: Dialect) -> tuple[re.Pattern[bytes], ...]:
    """A quoted value with what must follow it, its content so far, and a bare value."""
    q, d = re.escape(dialect.quote.encode()), re.escape(dialect.delimiter.encode())
    bare = re.compile(rb"[^" + d + rb"\n]*")
    if not q:
        return bare, bare, bare
    inner = rb"[^" + q + rb"]*(?:" + q + q + rb"[^" + q + rb"]*)*"  # unrolled: a repeated choice costs memory
    if dialect.escape and dialect.escape != dialect.quote:
        e = re.escape(dialect.escape.encode())
        plain = rb"[^" + q + e + rb"]*"
        inner = plain + rb"(?:(?:" + e + rb".|" + q + q + rb")" + plain + rb")*"
    whole = re.compile(q + rb"(" + inner + rb")" + q + rb"(?=" + d + rb"|\r?\n|\r?\Z)", re.DOTALL)
    return whole, re.compile(q + inner, re.DOTALL), bare


def one_by_one(buffer: bytes, dialect: Dialect, final: bool, longest: int) -> Records:
    """Return the complete records with their cells, as (bytes, whether quoted)."""
    ends: list[int] = []
    cells: list[list[tuple[bytes, bool]] | None] = []
    at = 0
    while at < len(buffer):
        found, end = record(buffer, at, dialect, final, longest)
        if end is None:
            break
        ends.append(end)
        cells.append(found)
        at = end
    return Records(np.array(ends, np.int64), cells)


def record(
    buffer: bytes, at: int, dialect: Dialect, final: bool, longest: int
) -> tuple[list[tuple[bytes, bool]] | None, int | None]:
    """One record from a place: its cells (None: malformed) and where it ends; no end where more must be read."""
    whole, content, bare = patterns(dialect)
    start, cells = at, []
    delimiter, quote = dialect.delimiter.encode(), dialect.quote.encode()
    while True:
        if quote and buffer.startswith(quote, at):
            match = whole.match(buffer, at)
            if match is None or (not final and match.end() >= len(buffer) - 2):
                reached = content.match(buffer, at)
                open_ = reached is None or reached.end() >= len(buffer) - 2
                if open_ and not final and len(buffer) - start <= longest:
                    return None, None
                if match is None:
                    end = buffer.find(b"\n", start) + 1
                    return None, end or (len(buffer) if final else None)
            cells.append((unescaped(match[1], dialect), True))
        else:
            match = bare.match(buffer, at)
            assert match is not None  # it may be empty
            value = match[0]
            stop = match.end()
            if value.endswith(b"\r") and (stop == len(buffer) or buffer.startswith(b"\n", stop)):
                value = value[:-1]
            cells.append((value, False))
        at = match.end()
        if buffer.startswith(delimiter, at):
            at += 1
            continue
        if buffer.startswith(b"\r\n", at):
            at += 1
        if buffer.startswith(b"\n", at):
            return cells, at + 1
        return (cells, len(buffer)) if final else (None, None)


def unescaped(value: bytes, dialect: Dialect) -> bytes:
    quote, escape = dialect.quote.encode(), dialect.escape.encode()
    if escape and escape != quote and escape in value:
        q, e = re.escape(quote), re.escape(escape)
        return re.sub(e + rb"([" + q + e + rb"])|" + q + q, lambda m: m[1] or quote, value)
    return value.replace(quote + quote, quote)


def is_blank(buffer: bytes, ends: Ints) -> npt.NDArray[np.bool_]:
    """Return for each record whether it is an empty line."""
    lengths = np.diff(ends, prepend=0)
    array = np.frombuffer(buffer, np.uint8)
    line = array[ends - 1] == LINE
    before = array[np.maximum(ends - 2, 0)] == RETURN
    blank: npt.NDArray[np.bool_] = line & ((lengths == 1) | ((lengths == 2) & before))
    return blank


# -- bytes of a file as UTF-8


def is_utf8(encoding: str) -> bool:
    return codecs.lookup(encoding).name in ("utf-8", "utf-8-sig", "ascii")


class Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


def unpacked(raw: Any, path: str) -> Stream:
    """The bytes of a file, by the compression that its name tells."""
    buffered = io.BufferedReader(raw, BLOCK)
    if path.endswith(".gz"):
        return gzip.GzipFile(fileobj=buffered)
    if path.endswith(".bz2"):
        return Bz2Streams(buffered)
    if path.endswith(".zst"):
        stream: Stream = pa.CompressedInputStream(pa.PythonFile(buffered, mode="r"), "zstd")
        return stream
    return buffered


class Bz2Streams:
    """The text of bzip2 streams, one after the other; `bz2.BZ2File` takes a damaged one for the end of the file."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.one, self.packed = stream, bz2.BZ2Decompressor(), b""
        self.begun = False  # whether a stream has begun and not ended

    def read(self, size: int, /) -> bytes:
        while True:
            if self.one.eof:
                self.packed, self.one, self.begun = self.one.unused_data, bz2.BZ2Decompressor(), False
            if not self.packed and self.one.needs_input:
                self.packed = self.stream.read(BLOCK)
                if not self.packed and self.begun:
                    raise EOFError("the file ends within a stream of bzip2")
                if not self.packed:
                    return b""
            self.begun = True
            text, self.packed = self.one.decompress(self.packed, size), b""
            if text:
                return text


def is_packed(path: str) -> bool:
    return path.endswith((".gz", ".bz2", ".zst"))


class LineEnds:
    """Line ends of a file's own, on the way to those that the readers know, and back in what was read.

    A line feed that ends no line goes as a NUL, which no text holds.
    """

    def __init__(self, line_end: str) -> None:
        self.end = b"" if line_end in ("auto", "\n") else line_end.encode()
        self.rest = b""

    def known(self, text: bytes, final: bool) -> bytes:
        """The text with line feeds where lines end; what may be half of a line end waits for the next block."""
        if not self.end:
            return text
        text, self.rest = self.rest + text, b""
        for size in range(len(self.end) - 1, 0, -1):
            if not final and text.endswith(self.end[:size]):
                text, self.rest = text[:-size], text[-size:]
                break
        return b"\n".join(line.replace(b"\n", b"\0") for line in text.split(self.end))

    def own(self, text: bytes) -> bytes:
        return text.replace(b"\n", self.end).replace(b"\0", b"\n") if self.end else text

    def own_of(self, values: pa.Array) -> pa.Array:
        if not self.end:
            return values
        return pc.replace_substring(pc.replace_substring(values, "\n", self.end.decode()), "\0", "\n")


def utf8_blocks(stream: Stream, encoding: str, begins: bool = True) -> Iterator[tuple[bytes, bytes]]:
    """The text of a stream in blocks of UTF-8, beside the bytes read for it.

    Where a file begins, its byte order mark is left out. Raises `UnicodeDecodeError` where the bytes are not of the
    encoding; of UTF-8 the caller sees to that. Ends with an empty block.
    """
    plain = is_utf8(encoding)
    decoder = codecs.getincrementaldecoder(encoding)()
    first = begins
    while True:
        block = stream.read(BLOCK)
        text = block if plain else decoder.decode(block, final=not block).encode("utf-8", "surrogatepass")
        if first and text:
            text, first = text.removeprefix(codecs.BOM_UTF8), False
        if text or not block:
            yield text, block
        if not block:
            return
