"""Texts as sets of shingles, and the sketches that find similar sets: whole Arrow arrays at a time.

A text becomes tokens, tokens become overlapping runs of a few (shingles), each shingle a 48-bit hash. Two texts are
compared by the exact Jaccard similarity of their sets of hashes; of two sets of a thousand, a false common hash has a
probability of four in a billion. MinHash (Broder 1997) gives each set a signature, whose bands (Indyk and Motwani
1998) bring similar sets into one bucket, and two bits of each of its values (Li and König 2010) a quick estimate.
"""

import functools
import math
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Unit = Literal["auto", "words", "characters"]
U64 = npt.NDArray[np.uint64]

KNOWN_CODE_POINTS = 0x32400  # those above are variation selectors, tags and private use: no letters
# Scripts that put no spaces between words, as ranges of code points.
UNSPACED = (
    (0x0E01, 0x0EDF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),
    (0x3021, 0x30FF),  # Hiragana, Katakana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),
    (0x1B000, 0x1B16F),
    (0x20000, KNOWN_CODE_POINTS - 1),
)
SEPARATOR, WORD, ALONE = 0, 1, 2
BLOCK = 1 << 18  # characters worked on at a time: their arrays fit the cache
BLOCK_TEXTS = 1 << 15
HASH_BITS = 48  # of a shingle; the 16 above them number the text within a block
PACKED = np.dtype([("low", "<u4"), ("high", "<u2")])  # a shingle as it is stored
VALUES = 160  # of a signature, at most


@dataclass(frozen=True)
class Bands:
    """How many bands of how many rows find a pair at the threshold with the wanted probability."""

    bands: int
    rows: int

    @classmethod
    def of(cls, threshold: float, recall: float) -> "Bands":
        """The longest bands, which bring the fewest dissimilar pairs together, within `VALUES` values."""
        best = cls(cls.needed(threshold, 1, recall), 1)
        for rows in range(2, VALUES + 1):
            bands = cls.needed(threshold, rows, recall)
            if bands * rows <= VALUES:
                best = cls(bands, rows)
        return best

    @staticmethod
    def needed(threshold: float, rows: int, recall: float) -> int:
        together = threshold**rows
        return 1 if together >= recall else math.ceil(math.log1p(-recall) / math.log1p(-together))

    @property
    def values(self) -> int:
        return self.bands * self.rows

    def recall(self, similarity: float) -> float:
        """The probability that a pair of this similarity shares a bucket."""
        return float(1 - (1 - similarity**self.rows) ** self.bands)


@dataclass(frozen=True)
class Sketches:
    """Of each text: its shingles, the hash of their set, the buckets of its bands, two bits of each signature value."""

    sizes: npt.NDArray[np.int32]  # 0: nothing to compare
    shingles: U64  # of all texts, one after another, each text's sorted and distinct
    sets: U64  # (texts, 2): equal for equal sets
    buckets: npt.NDArray[np.int64]  # (texts, bands)
    bits: npt.NDArray[np.uint8]  # (texts, bytes)

    def columns(self) -> dict[str, pa.Array]:
        """As Arrow columns: size, set, buckets, bits, shingles."""
        n = len(self.sizes)
        ends = np.concatenate([[0], np.cumsum(self.sizes, dtype=np.int64)]) * PACKED.itemsize
        hashes = np.empty(len(self.shingles), PACKED)
        hashes["low"], hashes["high"] = self.shingles & np.uint64(0xFFFFFFFF), self.shingles >> np.uint64(32)
        return {
            "size": pa.array(self.sizes),
            "set": binary(self.sets, n),
            "buckets": pa.ListArray.from_arrays(
                pa.array(np.arange(n + 1, dtype=np.int32) * self.buckets.shape[1]), pa.array(self.buckets.ravel())
            ),
            "bits": binary(self.bits, n),
            "shingles": pa.Array.from_buffers(
                pa.large_binary(), n, [None, pa.py_buffer(ends.tobytes()), pa.py_buffer(hashes.tobytes())]
            ).cast(pa.binary()),
        }


def sets_of(column: pa.Array) -> tuple[U64, npt.NDArray[np.int64]]:
    """The shingles of a column that `Sketches.columns` made, one set after another, and where each set starts.

    Past the last set comes its end. A null is an empty set.
    """
    if not len(column):
        return np.zeros(0, np.uint64), np.zeros(1, np.int64)
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1].astype(np.int64)
    hashes = np.frombuffer(data or b"", PACKED, (ends[-1] - ends[0]) // PACKED.itemsize, ends[0])
    wide = hashes["high"].astype(np.uint64) << np.uint64(32) | hashes["low"]
    return wide, (ends - ends[0]) // PACKED.itemsize


def binary(rows: npt.NDArray[Any], n: int) -> pa.Array:
    """Rows of equal bytes as an Arrow binary column."""
    width = rows.nbytes // n if n else 0
    ends = np.arange(n + 1, dtype=np.int32) * width
    return pa.Array.from_buffers(
        pa.binary(), n, [None, pa.py_buffer(ends.tobytes()), pa.py_buffer(np.ascontiguousarray(rows).tobytes())]
    )


def sketch(texts: pa.Array, size: int, unit: Unit, bands: Bands) -> Sketches:
    """Sketch texts; shingles are runs of `size` tokens, of shorter texts pairs of tokens, or the one token.

    unit: what a token is. `words`: a run of letters, digits and _, in lower case; `characters`: each of these alone;
    `auto`: words, and each character alone in scripts that put no spaces between words. A text without any token is
    compared as it stands, letter by letter; null and empty texts are not compared.
    """
    parts = [sketch_block(block, size, unit, bands) for block in blocks(texts)]
    if not parts:
        width = -(-bands.values // 4)
        return Sketches(
            np.zeros(0, np.int32),
            np.zeros(0, np.uint64),
            np.zeros((0, 2), np.uint64),
            np.zeros((0, bands.bands), np.int64),
            np.zeros((0, width), np.uint8),
        )
    return Sketches(
        *(
            np.concatenate([getattr(p, f) for p in parts])  # type: ignore[arg-type]
            for f in ("sizes", "shingles", "sets", "buckets", "bits")
        )
    )


def blocks(texts: pa.Array) -> Iterator[list[str]]:
    """Texts by blocks of about `BLOCK` characters, and never more than `BLOCK_TEXTS`."""
    block: list[str] = []
    length = 0
    for text in texts.to_pylist():
        text = text or ""
        if block and (length + len(text) > BLOCK or len(block) == BLOCK_TEXTS):
            yield block
            block, length = [], 0
        block.append(text)
        length += len(text)
    if block:
        yield block


def sketch_block(texts: list[str], size: int, unit: Unit, bands: Bands) -> Sketches:
    tokens, text_of = token_hashes(texts, unit)
    shingles, sizes = shingle_sets(tokens, text_of, texts, size)
    compared = np.flatnonzero(sizes)
    starts = np.cumsum(sizes[compared], dtype=np.int64) - sizes[compared]
    n = len(texts)
    sets = np.zeros((n, 2), np.uint64)
    signature = np.full((bands.values, n), 0xFFFFFFFF, np.uint32)
    if len(compared):
        for i, salt in enumerate(constants("set", 2)):
            sets[compared, i] = np.add.reduceat(mixed(shingles ^ salt), starts)
        signature[:, compared] = minima(shingles, starts, bands.values)
    return Sketches(sizes, shingles, sets, buckets_of(signature, bands), bits_of(signature))


def token_hashes(texts: list[str], unit: Unit) -> tuple[U64, npt.NDArray[np.int32]]:
    """The 64-bit hash of every token, and the number of its text; a text longer than a block goes piece by piece."""
    hashes, owners = [], []
    for number, piece in pieces(texts):
        found, at = tokens_of(piece, unit)
        hashes.append(found)
        if isinstance(number, int):
            owners.append(np.full(len(found), number, np.int32))
        else:
            owners.append((np.searchsorted(number, at, side="right") - 1).astype(np.int32))
    if not hashes:
        return np.zeros(0, np.uint64), np.zeros(0, np.int32)
    return np.concatenate(hashes), np.concatenate(owners)


def pieces(texts: list[str]) -> Iterator[tuple[Any, str]]:
    """A block's text as one, with where each text starts; or of one long text its pieces, with its number 0.

    A long text is cut behind the last space of each piece: by its own characters, wherever it stands.
    """
    if len(texts) > 1 or len(texts[0]) <= BLOCK:
        lengths = np.fromiter(map(len, texts), np.int64, len(texts)) + 1
        yield np.cumsum(lengths) - lengths, "\n".join(texts)
        return
    text, at = texts[0], 0
    while at < len(text):
        end = at + BLOCK
        if end < len(text):
            end = max(text.rfind(" ", at, end), text.rfind("\n", at, end)) + 1 or end
            end = end if end > at else at + BLOCK
        yield 0, text[at:end]
        at = end


def tokens_of(text: str, unit: Unit) -> tuple[U64, npt.NDArray[np.int64]]:
    """The tokens of a text as 64-bit hashes, and where each starts."""
    kinds, values = tables(unit)
    if text.isascii():
        plain = text.encode()
        points = np.frombuffer(plain, np.uint8).astype(np.intp)
        kind = np.frombuffer(plain.translate(kinds[:256].tobytes()), np.uint8)
    else:
        points = np.frombuffer(text.encode("utf-32-le", "replace"), np.uint32).astype(np.intp)
        kind = kinds.take(points, mode="clip")  # the last entry is that of all code points above
    before = np.empty_like(kind)
    before[:1], before[1:] = SEPARATOR, kind[:-1]
    changes = (kind != before) | (kind == ALONE)
    edges = np.flatnonzero(changes)
    if not len(edges):
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    ends = np.append(edges[1:], len(points))
    tokens = kind[edges] != SEPARATOR
    starts, ends = edges[tokens], ends[tokens]
    # Each run's hash is a polynomial in its characters, from one cumulative sum over all of them.
    powers, inverse = power_tables()
    sums = np.empty(len(points) + 1, np.uint64)
    sums[0] = 0
    np.cumsum(values.take(points, mode="clip") * powers[: len(points)], out=sums[1:])
    return mixed((sums[ends] - sums[starts]) * inverse[starts]), starts


def shingle_sets(
    tokens: U64, text_of: npt.NDArray[np.int32], texts: list[str], size: int
) -> tuple[U64, npt.NDArray[np.int32]]:
    """The distinct shingles of each text, sorted, and how many each has."""
    n = len(texts)
    counts = np.bincount(text_of, minlength=n)
    found = []
    for length, wanted in ((size, counts >= size), (2, (counts >= 2) & (counts < size)), (1, counts == 1)):
        if length <= size and (length == size or wanted.any()) and len(tokens) >= length:
            last = len(tokens) - length + 1
            whole = (text_of[:last] == text_of[length - 1 :]) & wanted[text_of[:last]]
            value = np.full(last, length, np.uint64)
            for i, salt in enumerate(constants("shingle", length)):
                value += tokens[i : i + last] * salt
            found.append(keyed(mixed(value)[whole], text_of[:last][whole]))
    for number in np.flatnonzero(counts == 0):
        if texts[number]:
            found.append(keyed(np.array([text_hash(texts[number])], np.uint64), np.array([number])))
    keys = np.concatenate(found) if found else np.zeros(0, np.uint64)
    keys.sort()
    keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])] if len(keys) else keys
    sizes = np.bincount((keys >> np.uint64(HASH_BITS)).astype(np.int64), minlength=n).astype(np.int32)
    return keys & np.uint64((1 << HASH_BITS) - 1), sizes


def keyed(hashes: U64, owners: npt.NDArray[Any]) -> U64:
    return (owners.astype(np.uint64) << np.uint64(HASH_BITS)) | (hashes >> np.uint64(64 - HASH_BITS))


def text_hash(text: str) -> int:
    """Of a text without tokens: a hash of all its characters."""
    value = 0
    for number in text.encode("utf-32-le", "replace"):
        value = (value * 0x100000001B3 + number + 1) % (1 << 64)
    return int(mixed(np.array([value], np.uint64))[0])


def minima(shingles: U64, starts: npt.NDArray[np.int64], values: int) -> npt.NDArray[np.uint32]:
    """MinHash: for each of `values` hash functions, the least hash of each set."""
    hashes = (shingles >> np.uint64(HASH_BITS - 32)).astype(np.uint32)
    factors = (constants("factor", values) >> np.uint64(32)).astype(np.uint32) | np.uint32(1)
    terms = (constants("term", values) >> np.uint64(32)).astype(np.uint32)
    least = np.empty((values, len(starts)), np.uint32)
    row = np.empty_like(hashes)
    for i in range(values):
        np.multiply(hashes, factors[i], out=row)
        np.add(row, terms[i], out=row)
        np.minimum.reduceat(row, starts, out=least[i])
    return least


def buckets_of(signature: npt.NDArray[np.uint32], bands: Bands) -> npt.NDArray[np.int64]:
    """(texts, bands): a 64-bit hash of each band's number and values."""
    wide = signature.reshape(bands.bands, bands.rows, -1).astype(np.uint64)
    salts = constants("row", bands.rows)[None, :, None]
    return mixed((wide * salts).sum(axis=1) + constants("band", bands.bands)[:, None]).T.astype(np.int64)


def bits_of(signature: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint8]:
    """Two bits of every value, which agree between two sets with probability Jaccard + (1 - Jaccard) / 4."""
    pair = ((signature * np.uint32(0x9E3779B1)) >> np.uint32(30)).astype(np.uint8)
    pair = np.concatenate([pair, np.zeros((-len(pair) % 4, pair.shape[1]), np.uint8)]).reshape(-1, 4, pair.shape[1])
    return (pair[:, 0] | pair[:, 1] << 2 | pair[:, 2] << 4 | pair[:, 3] << 6).T


def estimated(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8], values: int) -> npt.NDArray[np.float64]:
    """The Jaccard similarity of pairs of sets, estimated from their bits."""
    differ = one ^ other
    different = np.bitwise_count((differ | differ >> 1) & 0x55).sum(axis=1)
    return 1 - different / values * (4 / 3)


def deviation(similarity: float, values: int) -> float:
    """The standard deviation of the estimate at a similarity."""
    agree = similarity + (1 - similarity) / 4
    return math.sqrt(agree * (1 - agree) / values) * 4 / 3


def mixed(values: U64) -> U64:
    """The finaliser of SplitMix64: every bit of the input changes half of the output's."""
    values = values ^ (values >> np.uint64(30))
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


@functools.cache
def constants(purpose: str, count: int) -> U64:
    """Fixed odd numbers, the same in every process and release: signatures are kept and compared for years."""
    seed = np.uint64(sum(ord(c) << (8 * (i % 8)) for i, c in enumerate(purpose)) % (1 << 64))
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return mixed(steps + mixed(np.full(count, seed, np.uint64))) | np.uint64(1)


@functools.cache
def power_tables() -> tuple[U64, U64]:
    """The powers of an odd base modulo 2^64, and of its inverse, for every place of a block."""
    base = int(constants("base", 1)[0])
    places = BLOCK + BLOCK_TEXTS + 1
    tables = []
    for factor in (base, pow(base, -1, 1 << 64)):
        row = np.full(places, factor, np.uint64)
        row[0] = 1
        tables.append(np.cumprod(row, dtype=np.uint64))
    return tables[0], tables[1]


@functools.cache
def tables(unit: Unit) -> tuple[npt.NDArray[np.uint8], U64]:
    """For every code point: whether it is a separator, part of a word or a token alone; and its value in lower case."""
    letters = [chr(i) for i in range(KNOWN_CODE_POINTS)]
    word = np.fromiter((c.isalnum() or c == "_" for c in letters), np.bool_, KNOWN_CODE_POINTS)
    kinds = np.append(np.where(word, WORD, SEPARATOR).astype(np.uint8), np.uint8(SEPARATOR))
    if unit == "characters":
        kinds[kinds == WORD] = ALONE
    elif unit == "auto":
        for first, last in UNSPACED:
            # Marks too: to Unicode the vowel signs and tones of Thai are no letters.
            written = (unicodedata.category(c)[0] in "LMN" for c in letters[first : last + 1])
            kinds[first : last + 1][np.fromiter(written, np.bool_)] = ALONE
    lower = np.fromiter((ord(c.lower()[0]) for c in letters), np.int64, KNOWN_CODE_POINTS)
    values = constants("character", KNOWN_CODE_POINTS + 1)
    return kinds, np.append(values[lower], values[-1])
