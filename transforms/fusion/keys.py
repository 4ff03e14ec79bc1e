"""The keys of records under which they may meet: whole values, words, the beginnings of values."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from headgate.transforms.deduplication.hashing import mixed
from headgate.transforms.deduplication.minhash import HASH_BITS, Bands, buckets_of, minima
from headgate.transforms.fusion.groups import one_array
from headgate.transforms.fusion.values import JOINED, WORDED, Comparison, place

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

PREFIX = 4  # characters
PRIMES = tuple(  # of XXH64
    np.uint64(p)
    for p in (
        0x9E3779B185EBCA87,
        0xC2B2AE3D27D4EB4F,
        0x165667B19E3779F9,
        0x85EBCA77C2B2AE63,
        0x27D4EB2F165667C5,
    )
)
CELL = 0.02  # degrees, of a grid of places


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Keys of records: the record's place, the columns that it is of as bits, a hash, whether it may block alone."""

    record: Ints
    family: Ints
    key: Ints
    fine: Bools


def hashed(texts: pa.Array, what: str) -> Ints:
    """Hash texts to 64 bits (SipHash by pandas); the same text is another key as another thing."""
    cells = texts.to_numpy(zero_copy_only=False)
    found = pd.util.hash_array(cells, hash_key=f"{what:>16}"[:16], categorize=False)
    return np.asarray(found).view(np.int64)


def hashed_two(one: Ints, other: Ints) -> Ints:
    """Hash two numbers to one, as Spark's `xxhash64` of both columns does (XXH64 of 8 bytes each, seed 42)."""
    seed = np.full(len(one), 42, np.uint64)
    for number in (one, other):
        hashed = seed + PRIMES[4] + np.uint64(8)
        hashed ^= rotated(number.view(np.uint64) * PRIMES[1], 31) * PRIMES[0]
        hashed = rotated(hashed, 27) * PRIMES[0] + PRIMES[3]
        hashed ^= hashed >> np.uint64(33)
        hashed *= PRIMES[1]
        hashed ^= hashed >> np.uint64(29)
        hashed *= PRIMES[2]
        seed = hashed ^ (hashed >> np.uint64(32))
    return seed.view(np.int64)


def rotated(values: npt.NDArray[np.uint64], bits: int) -> npt.NDArray[np.uint64]:
    return (values << np.uint64(bits)) | (values >> np.uint64(64 - bits))


def member(values: Ints, of: Ints) -> Bools:
    """Return which values are among others, which are in order."""
    if not len(of):
        return np.zeros(len(values), np.bool_)
    return np.asarray(of[np.minimum(np.searchsorted(of, values), len(of) - 1)] == values)


def cells_of(places: pa.Array, j: int) -> list[Ints]:
    """Return two keys of places: the cells, some 2 km wide, of two grids that lie half a cell apart."""
    at = np.array([place(text) for text in places.to_pylist()]).reshape(-1, 2)
    found = []
    for shift in (0.0, 0.5):
        cell = np.floor(np.nan_to_num(at, nan=999.0) / CELL + shift).astype(np.int64)
        salt = np.uint64(4 * j + int(2 * shift) + 1) << np.uint64(50)
        number = (cell[:, 0] * 1_000_003 + cell[:, 1]).view(np.uint64) ^ salt
        found.append(mixed(number).view(np.int64))
    return found


def sketched(words: pa.Array, bands: int, j: int) -> list[Ints]:
    """Return keys that texts share the more probably the more words they share: bands of two least hashes (MinHash)."""
    coded = words.flatten().dictionary_encode()
    hashes = hashed(coded.dictionary, "w:").view(np.uint64) >> np.uint64(64 - HASH_BITS)
    found = minima(hashes[coded.indices.to_numpy()], words.offsets.to_numpy()[:-1], 2 * bands)
    buckets = buckets_of(found, Bands(bands, 2)).view(np.uint64)
    return [mixed(buckets[:, b] ^ np.uint64(j + 1)).view(np.int64) for b in range(bands)]


def keys_of(comparisons: Sequence[Comparison], values: Sequence[pa.Array], minhash: int = 0) -> Keys:
    """Return the keys of records, from the normal forms of each column.

    A word is one key in whichever columns it stands, and carries them all. minhash: bands of a text's words that are
    keys too.
    """
    parts: list[tuple[Ints, Ints, Ints, Bools]] = []
    said: list[tuple[Ints, Ints, pa.Array]] = []
    for j, (comparison, cells) in enumerate(zip(comparisons, values, strict=True)):
        coded = cells.dictionary_encode()
        distinct, codes = coded.dictionary, coded.indices
        if not len(distinct):
            continue
        record = np.flatnonzero(pc.is_valid(codes).to_numpy(zero_copy_only=False))
        code = pc.drop_null(codes).to_numpy().astype(np.int64)
        family = np.full(len(record), 1 << j, np.int64)
        bare = pc.list_element(pc.split_pattern(distinct, JOINED), 0)
        always = np.ones(len(distinct), np.bool_)
        made = [] if comparison.kind in ("text", "set") else [(hashed(bare, f"{j}="), always)]
        if comparison.kind == "place":
            made += [(key, always) for key in cells_of(bare, j)]
        if comparison.kind in ("name", "date"):
            long = pc.greater(pc.utf8_length(bare), PREFIX).to_numpy(zero_copy_only=False)
            made.append((hashed(pc.utf8_slice_codeunits(bare, 0, PREFIX), f"{j}^"), long & (comparison.kind == "name")))
        parts += [(record, family, key[code], fine[code]) for key, fine in made]
        if comparison.kind in WORDED:
            split = pc.split_pattern(pc.replace_substring(distinct, JOINED, " "), " ")
            lengths, starts = split.value_lengths().to_numpy().astype(np.int64), split.offsets.to_numpy()[:-1]
            of = np.repeat(np.arange(len(record)), lengths[code])
            first = np.cumsum(lengths[code]) - lengths[code]
            at = np.arange(len(of)) - first[of] + starts[code][of]
            if minhash and comparison.kind != "name":
                sketches = sketched(split, minhash, j)
                parts += [(record, family, band[code], always[code]) for band in sketches]
            said.append((record[of], family[of], split.values.take(pa.array(at))))
    if said:
        words = pa.chunked_array([w for *_, w in said]).dictionary_encode().combine_chunks()
        words = words if isinstance(words, pa.DictionaryArray) else one_array(pa.chunked_array([words]))
        size = max(len(words.dictionary), 1)
        place = np.concatenate([r for r, *_ in said]) * size + words.indices.to_numpy()
        order = np.argsort(place, kind="stable")
        place, family = place[order], np.concatenate([f for _, f, _ in said])[order]
        turn = np.flatnonzero(np.r_[True, place[1:] != place[:-1]][: len(place)])
        of_word = hashed(words.dictionary, "w:")
        if len(turn):
            own = place[turn]
            parts.append(
                (own // size, np.bitwise_or.reduceat(family, turn), of_word[own % size], np.ones(len(turn), np.bool_))
            )
    if not parts:
        nothing = np.zeros(0, np.int64)
        return Keys(record=nothing, family=nothing, key=nothing, fine=np.zeros(0, np.bool_))
    record, family, key, fine = (np.concatenate([p[i] for p in parts]) for i in range(4))
    return Keys(record=record, family=family, key=key, fine=fine.astype(np.bool_))
