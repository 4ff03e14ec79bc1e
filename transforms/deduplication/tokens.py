"""Texts as tokens, each a 64-bit hash: words, characters, or either by the script; whole blocks of texts at a time."""

import functools
import unicodedata
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from headgate.transforms.deduplication.hashing import U64, constants, mixed, power_tables

Unit = Literal["auto", "words", "characters"]

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
