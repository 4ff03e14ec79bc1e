"""Texts as sets of shingles, and the sketches that find similar sets: whole Arrow arrays at a time.

A text becomes tokens, tokens become overlapping runs of a few (shingles), each shingle a 48-bit hash; where one
follows upon itself, each time counts as a shingle of its own. Two texts are compared by the exact Jaccard similarity of
their sets of hashes; of two sets of a thousand, a false common hash has a probability of four in a billion. MinHash
(Broder 1997) gives each set a signature, whose bands (Indyk and Motwani 1998) bring similar sets into one bucket, and
two bits of each of its values (Li and König 2010) a quick estimate.
"""

import functools
import math
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
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
SEPARATOR, WORD, ALONE, EXTEND = 0, 1, 2, 3
JOINERS = (0x200C, 0x200D)
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
    """Return of each text its shingles, their hash, the buckets of its bands, two bits of each signature value."""

    sizes: npt.NDArray[np.int32]  # 0: nothing to compare
    shingles: U64  # of all texts, one after another, each text's sorted and distinct
    parts: U64  # likewise: what short texts within them would be compared by, and is no shingle of theirs
    part_sizes: npt.NDArray[np.int32]
    sets: U64  # (texts, 2): equal for equal sets
    buckets: npt.NDArray[np.int64]  # (texts, bands)
    bits: npt.NDArray[np.uint8]  # (texts, bytes)

    def cut(self, n: int) -> "Sketches":
        """The sketches of the first texts, none of which has anything to compare."""
        return replace(self, **{f: getattr(self, f)[:n] for f in ("sizes", "part_sizes", "sets", "buckets", "bits")})

    def columns(self) -> dict[str, pa.Array]:
        """As Arrow columns: size, set, buckets, bits, shingles (with the parts behind a text's own)."""
        n, shingles = len(self.sizes), self.shingles
        if len(self.parts):
            owners = np.concatenate([np.repeat(np.arange(n), sizes) for sizes in (self.sizes, self.part_sizes)])
            shingles = np.concatenate([shingles, self.parts])[np.argsort(owners, kind="stable")]
        ends = np.concatenate([[0], np.cumsum(self.sizes + self.part_sizes, dtype=np.int64)]) * PACKED.itemsize
        hashes = np.empty(len(shingles), PACKED)
        hashes["low"], hashes["high"] = shingles & np.uint64(0xFFFFFFFF), shingles >> np.uint64(32)
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


def sketch(texts: pa.Array, size: int, unit: Unit, bands: Bands, parts: bool = False) -> Sketches:
    """Sketch texts; shingles are runs of `size` tokens. Null, empty and blank texts are not compared.

    unit: what a token is. `words`: a run of letters, digits and _, in lower case; `characters`: each of these alone;
    `auto`: words, and each character alone in scripts that put no spaces between words. Marks belong to what they
    stand on (Unicode Annex 29). Texts of fewer tokens are compared by all their characters: every other one that
    shows is a token too, and the shingles are pairs of these, or the one. parts: sketch these of longer texts too.
    """
    made = [sketch_block(block, size, unit, bands, parts) for block in blocks(texts)]
    made = made or [sketch_block([""], size, unit, bands, parts).cut(0)]
    return Sketches(*(np.concatenate([getattr(p, f.name) for p in made]) for f in fields(Sketches)))


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


def sketch_block(texts: list[str], size: int, unit: Unit, bands: Bands, parts: bool) -> Sketches:
    keys, part_keys = shingle_keys(texts, size, unit, parts)
    n = len(texts)
    (shingles, sizes), (others, part_sizes) = (by_text(k, n) for k in (keys, part_keys))
    compared = np.flatnonzero(sizes)
    starts = np.cumsum(sizes[compared], dtype=np.int64) - sizes[compared]
    sets = np.zeros((n, 2), np.uint64)
    signature = np.full((bands.values, n), 0xFFFFFFFF, np.uint32)
    if len(compared):
        for i, salt in enumerate(constants("set", 2)):
            sets[compared, i] = np.add.reduceat(mixed(shingles ^ salt), starts)
        signature[:, compared] = minima(shingles, starts, bands.values)
    return Sketches(sizes, shingles, others, part_sizes, sets, buckets_of(signature, bands), bits_of(signature))


def token_hashes(texts: list[str], unit: Unit, symbols: bool = False) -> tuple[U64, npt.NDArray[np.int32]]:
    """The 64-bit hash of every token, and the number of its text; a text longer than a block goes piece by piece."""
    hashes, owners = [], []
    for number, piece in pieces(texts, unit, symbols):
        found, at = tokens_of(piece, unit, symbols)
        hashes.append(found)
        if isinstance(number, int):
            owners.append(np.full(len(found), number, np.int32))
        else:
            owners.append((np.searchsorted(number, at, side="right") - 1).astype(np.int32))
    if not hashes:
        return np.zeros(0, np.uint64), np.zeros(0, np.int32)
    return np.concatenate(hashes), np.concatenate(owners)


def pieces(texts: list[str], unit: Unit, symbols: bool) -> Iterator[tuple[Any, str]]:
    """A block's text as one, with where each text starts; or of one long text its pieces, with its number 0.

    A long text is cut before the last character of each piece that parts tokens; a piece without one grows.
    """
    if len(texts) != 1 or len(texts[0]) <= BLOCK:
        lengths = np.fromiter(map(len, texts), np.int64, len(texts)) + 1
        yield np.cumsum(lengths) - lengths, "\n".join(texts)
        return
    text, at, end = texts[0], 0, BLOCK
    while end < len(text):
        kind = kinds_of(text[at + 1 : end + 1], unit, symbols)[1]
        cuts = np.flatnonzero((kind == SEPARATOR) | (kind == ALONE))
        if len(cuts):
            cut = at + 1 + int(cuts[-1])
            yield 0, text[at:cut]
            at, end = cut, cut + BLOCK
        else:
            end = at + 2 * (end - at)
    yield 0, text[at:]


def kinds_of(text: str, unit: Unit, symbols: bool) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.uint8]]:
    """The code points of a text, and the kind of each."""
    kinds, _ = tables(unit, symbols)
    if text.isascii():
        ascii_text = text.encode()
        points = np.frombuffer(ascii_text, np.uint8).astype(np.intp)
        return points, np.frombuffer(ascii_text.translate(kinds[:256].tobytes()), np.uint8)
    points = np.frombuffer(text.encode("utf-32-le", "replace"), np.uint32).astype(np.intp)
    return points, kinds.take(points, mode="clip")  # the last entry is that of all code points above


def tokens_of(text: str, unit: Unit, symbols: bool = False) -> tuple[U64, npt.NDArray[np.int64]]:
    """The tokens of a text as 64-bit hashes, and where each starts."""
    points, kind = kinds_of(text, unit, symbols)
    starts_one = kind == ALONE
    extend = kind == EXTEND
    if extend.any():
        # A mark is of the kind of what it stands on; on nothing, it shows by itself.
        kind = kind[np.maximum.accumulate(np.where(extend, 0, np.arange(len(kind))))]
        kind[extend & ((kind == SEPARATOR) | (kind == EXTEND))] = WORD if symbols else SEPARATOR
    before = np.empty_like(kind)
    before[:1], before[1:] = SEPARATOR, kind[:-1]
    edges = np.flatnonzero((kind != before) | starts_one)
    if not len(edges):
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    ends = np.append(edges[1:], len(points))
    tokens = kind[edges] != SEPARATOR
    starts, ends = edges[tokens], ends[tokens]
    _, values = tables(unit, symbols)
    value = values.take(points, mode="clip")
    if symbols and (high := points >= KNOWN_CODE_POINTS).any():
        value[high] = mixed(points[high].astype(np.uint64) * constants("high", 1)[0])
    # Each run's hash is a polynomial in its characters, from one cumulative sum over all of them.
    usual = BLOCK + BLOCK_TEXTS + 1
    powers, inverse = power_tables(usual if len(points) < usual else 1 << len(points).bit_length())
    sums = np.empty(len(points) + 1, np.uint64)
    sums[0] = 0
    np.cumsum(value * powers[: len(points)], out=sums[1:])
    return mixed((sums[ends] - sums[starts]) * inverse[starts]), starts


def shingle_keys(texts: list[str], size: int, unit: Unit, parts: bool) -> tuple[U64, U64]:
    """The shingles of all texts, and what short texts within them would have, each under the number of its text."""
    n, few = len(texts), min(2, size)
    tokens, text_of = token_hashes(texts, unit)
    long = np.bincount(text_of, minlength=n) >= size
    own = [following(runs(tokens, text_of, size, long), size)]
    within: list[U64] = []
    again = np.arange(n) if parts else np.flatnonzero(~long)
    if any(texts[i] for i in again):
        tokens, place = token_hashes([texts[i] for i in again], unit, symbols=True)
        owner = again[place]
        counts = np.bincount(owner, minlength=n)
        for length, these in ((few, ~long & (counts >= few)), *([(1, ~long & (counts == 1))] if few > 1 else [])):
            own.append(numbered(runs(tokens, owner, length, these)))
            if parts:
                within.append(runs(tokens, owner, length, ~these))
    keys = np.concatenate(own)
    keys.sort()
    keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])] if len(keys) else keys
    if not within:
        return keys, np.zeros(0, np.uint64)
    return keys, np.setdiff1d(numbered(np.concatenate(within)), keys, assume_unique=True)


def runs(tokens: U64, text_of: npt.NDArray[Any], length: int, wanted: npt.NDArray[np.bool_]) -> U64:
    """The runs of so many tokens within each of the wanted texts, as hashes under the numbers of these."""
    last = len(tokens) - length + 1
    if last < 1 or not wanted.any():
        return np.zeros(0, np.uint64)
    whole = (text_of[:last] == text_of[length - 1 :]) & wanted[text_of[:last]]
    value = np.full(last, length, np.uint64)
    for i, salt in enumerate(constants("shingle", length)):
        value += tokens[i : i + last] * salt
    return keyed(mixed(value)[whole], text_of[:last][whole])


def following(keys: U64, length: int) -> U64:
    """Keys in the order of their texts, made keys of their own where one follows upon itself, by how often it did.

    Else a text of one word again and again would be equal to any other of it. A repeat farther on is no new shingle.
    """
    again = np.zeros(len(keys), np.bool_)
    for distance in range(1, min(length, len(keys) - 1) + 1):
        again[distance:] |= keys[distance:] == keys[:-distance]
    return np.concatenate([keys[~again], numbered(keys[again], 1)]) if again.any() else keys


def numbered(keys: U64, before: int = 0) -> U64:
    """Sort keys, and make of each repeated one a key of its own, by how often its text had it before.

    before: how often it had each at least, besides these.
    """
    keys.sort()
    places = np.arange(len(keys))
    first = np.concatenate([[True], keys[1:] != keys[:-1]])[: len(keys)]
    times = places - np.maximum.accumulate(np.where(first, places, 0)) + before
    again = times > 0
    hashes = mixed(keys[again] & np.uint64((1 << HASH_BITS) - 1) ^ mixed(times[again].astype(np.uint64)))
    keys[again] = keyed(hashes, keys[again] >> np.uint64(HASH_BITS))
    keys.sort()
    return keys


def by_text(keys: U64, n: int) -> tuple[U64, npt.NDArray[np.int32]]:
    """The hashes of sorted keys, and how many each of `n` texts has."""
    sizes = np.bincount((keys >> np.uint64(HASH_BITS)).astype(np.int64), minlength=n).astype(np.int32)
    return keys & np.uint64((1 << HASH_BITS) - 1), sizes


def keyed(hashes: U64, owners: npt.NDArray[Any]) -> U64:
    return (owners.astype(np.uint64) << np.uint64(HASH_BITS)) | (hashes >> np.uint64(64 - HASH_BITS))


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
    one, two, three, four = (pair[:, i] << np.uint8(2 * i) for i in range(4))
    packed: npt.NDArray[np.uint8] = one | two | three | four
    return packed.T


def different(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """In how many values of their signatures pairs of sets differ, as far as two bits tell."""
    differ = one ^ other
    number: npt.NDArray[np.int64] = np.bitwise_count((differ | differ >> 1) & 0x55).sum(axis=1, dtype=np.int64)
    return number


@functools.cache
def most_different(similarity: float, values: int, loss: float) -> int:
    """The least number of values that a pair of this similarity differs in more of with a probability below `loss`."""
    differ = (1 - similarity) * 3 / 4
    within, number = 0.0, -1
    while within < 1 - loss and number < values:
        number += 1
        within += math.comb(values, number) * differ**number * (1 - differ) ** (values - number)
    return number


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


@functools.lru_cache(maxsize=2)
def power_tables(places: int) -> tuple[U64, U64]:
    """The powers of an odd base modulo 2^64, and of its inverse, for so many places."""
    base = int(constants("base", 1)[0])
    tables = []
    for factor in (base, pow(base, -1, 1 << 64)):
        row = np.full(places, factor, np.uint64)
        row[0] = 1
        tables.append(np.cumprod(row, dtype=np.uint64))
    return tables[0], tables[1]


@functools.cache
def tables(unit: Unit, symbols: bool) -> tuple[npt.NDArray[np.uint8], U64]:
    """For every code point: its kind (a separator, part of a word, a token alone, a mark), and its value in lower case.

    symbols: whether all that shows and is no part of a word is a token alone.
    """
    letters = [chr(i) for i in range(KNOWN_CODE_POINTS)]
    category = [unicodedata.category(c) for c in letters]
    word = np.fromiter((c.isalnum() or c == "_" for c in letters), np.bool_, KNOWN_CODE_POINTS)
    kinds = np.append(np.where(word, WORD, SEPARATOR).astype(np.uint8), np.uint8(SEPARATOR))
    if unit == "characters":
        kinds[kinds == WORD] = ALONE
    elif unit == "auto":
        for first, last in UNSPACED:
            written = (c[0] in "LN" for c in category[first : last + 1])
            kinds[first : last + 1][np.fromiter(written, np.bool_)] = ALONE
    if symbols:
        blank = (c[0] == "Z" or c in ("Cc", "Cs") for c in category)
        shows = np.append(~np.fromiter(blank, np.bool_, KNOWN_CODE_POINTS), True)
        kinds[shows & (kinds == SEPARATOR)] = ALONE
    kinds[:-1][np.fromiter((c[0] == "M" for c in category), np.bool_, KNOWN_CODE_POINTS)] = EXTEND
    kinds[list(JOINERS)] = EXTEND
    lower = np.fromiter((ord(c.lower()[0]) for c in letters), np.int64, KNOWN_CODE_POINTS)
    values = constants("character", KNOWN_CODE_POINTS + 1)
    return kinds, np.append(values[lower], values[-1])
