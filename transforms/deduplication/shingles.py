"""Texts as sets of shingles, and the sketches that find similar sets: whole Arrow arrays at a time.

A text becomes tokens, tokens become overlapping runs of a few (shingles), each shingle a 48-bit hash; where one
follows upon itself, each time counts as a shingle of its own. Two texts are compared by the exact Jaccard similarity of
their sets of hashes; of two sets of a thousand, a false common hash has a probability of four in a billion. MinHash
(Broder 1997) gives each set a signature, whose bands (Indyk and Motwani 1998) bring similar sets into one bucket, and
two bits of each of its values (Li and König 2010) a quick estimate.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headgate.transforms.deduplication.hashing import U64, constants, mixed
from headgate.transforms.deduplication.minhash import HASH_BITS, Bands, bits_of, buckets_of, minima
from headgate.transforms.deduplication.tokens import BLOCK, BLOCK_TEXTS, Unit, token_hashes

PACKED = np.dtype([("low", "<u4"), ("high", "<u2")])  # a shingle as it is stored


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
