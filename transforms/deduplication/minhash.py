"""Signatures of sets by MinHash (Broder 1997), their bands (Indyk and Motwani 1998) and bits (Li and König 2010)."""

import functools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headgate.transforms.deduplication.hashing import U64, constants, mixed

HASH_BITS = 48  # of a shingle; the 16 above them number the text within a block
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
