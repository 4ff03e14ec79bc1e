"""What can be said of two values without comparing them: bounds by their characters, and the cosine of their words."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headgate.transforms.fusion.values import JOINED

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Masks = npt.NDArray[np.uint64]

SIMILAR = 0.80  # of Jaro and Winkler's measure, from which on a pair is looked at
UNIT = 1 << 16  # of a word's weight: whole numbers add up to the same sum in any order
CELLS = 1 << 20  # of a table of values and words


class Bags:
    """The characters of values as sets of 64 bits, from which the most that two have in common follows.

    Each occurrence of a character is a bit. Two occurrences of one value may fall on one bit: these are its `excess`,
    and two values have at most their common bits and the smaller excess in common.
    """

    def __init__(self, values: Sequence[str]) -> None:
        points = np.frombuffer("".join(values).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64)
        self.length: Ints = np.array([len(v) for v in values] or [0], np.int64)[: len(values)]
        starts = np.cumsum(self.length) - self.length
        owner = np.repeat(np.arange(len(values)), self.length)
        key = np.sort((owner << 21) | points)
        turn = np.arange(len(key)) - np.searchsorted(key, key)  # of a character in its value
        bit = np.uint64(1) << ((((key & 0x1FFFFF) + 31 * turn) * 11400714819323) % 61).astype(np.uint64)
        self.mask: Masks = np.zeros(len(values), np.uint64)
        some = np.flatnonzero(self.length)
        if len(some):
            self.mask[some] = np.bitwise_or.reduceat(bit, starts[some])
        self.excess: Ints = self.length - np.bitwise_count(self.mask)
        self.start: Masks = np.zeros(len(values), np.uint64)  # four characters, of each the last 16 bits
        for i in range(4):
            has = np.flatnonzero(self.length > i)
            self.start[has] |= (points[starts[has] + i] & 0xFFFF).astype(np.uint64) << np.uint64(48 - 16 * i)

    def common(self, x: Ints, y: Ints) -> Ints:
        """Return the most characters that values can have in common."""
        bits = np.bitwise_count(self.mask[x] & self.mask[y]).astype(np.int64)
        most = bits + np.minimum(self.excess[x], self.excess[y])
        found: Ints = np.minimum(most, np.minimum(self.length[x], self.length[y]))
        return found

    def may_be_similar(self, x: Ints, y: Ints) -> Ints:
        """Return the pairs whose similarity by Jaro and Winkler may reach `SIMILAR`."""
        common = self.common(x, y)
        jaro = (common / np.maximum(self.length[x], 1) + common / np.maximum(self.length[y], 1) + 1) / 3
        start = self.start[x] ^ self.start[y]
        shared = sum((start < np.uint64(1 << (48 - 16 * i))).astype(np.int8) for i in range(3)) + (start == 0)
        return np.flatnonzero((common > 0) & (jaro + 0.1 * shared * (1 - jaro) >= SIMILAR - 1e-6))

    def may_be_edits(self, x: Ints, y: Ints, most: int) -> Ints:
        """Return the pairs that may be so few edits apart."""
        return np.flatnonzero(np.maximum(self.length[x], self.length[y]) - self.common(x, y) <= most)


class Words:
    """The words of values, each weighed by the square of its rarity, and one with a digit twice.

    Digits number things of one name: a model, a house, a volume.

    mask: of each value, a set of 64 bits of its words.
    """

    def __init__(self, values: Sequence[str], held: Mapping[str, int], rest: float, filled: int) -> None:
        split = pc.split_pattern(pa.array([v.replace(JOINED, " ") for v in values], pa.string()), " ")
        coded = split.flatten().dictionary_encode()
        vocabulary = coded.dictionary.to_pylist()
        size = max(len(vocabulary), 1)
        owner = np.repeat(np.arange(len(values)), split.value_lengths().to_numpy())
        key = np.unique(owner * size + coded.indices.to_numpy())
        owner, word = key // size, key % size
        counts = np.array([max(held.get(w, rest), 1) for w in vocabulary] or [1], float)
        numbered = pc.match_substring_regex(coded.dictionary, "[0-9]").to_numpy(zero_copy_only=False).astype(float)
        weights = UNIT * np.log2(1 + filled / counts) ** 2
        weights[: len(numbered)] *= 1 + numbered
        weights = np.rint(weights).astype(np.int64)
        self.total: Ints = np.zeros(len(values), np.int64)
        np.add.at(self.total, owner, weights[word])
        self.mask: Masks = np.zeros(len(values), np.uint64)
        np.bitwise_or.at(self.mask, owner, np.uint64(1) << (word % 64).astype(np.uint64))
        shared = np.bincount(word, minlength=size) > 1  # a word of one value is common to no two
        word, owner = word[shared[word]], owner[shared[word]]
        kept, self.word = np.unique(word, return_inverse=True)
        self.weight: Ints = weights[kept]
        self.starts: Ints = np.searchsorted(owner, np.arange(len(values) + 1))

    def cosines(self, x: Ints, y: Ints) -> Floats:
        """Return the cosine of the words of pairs of values.

        The words of some values are laid out in a table, in which those of their partners are looked up.
        """
        shared = np.zeros(len(x), np.int64)
        order = np.argsort(x, kind="stable")
        laid, turns = np.unique(x[order], return_index=True)
        ends = np.r_[turns, len(order)]
        rows = max(1, CELLS // max(len(self.weight), 1))
        table = np.zeros((min(rows, len(laid)), max(len(self.weight), 1)), np.int64)
        for low in range(0, len(laid), rows):
            some = laid[low : low + rows]
            row, word = self._words_of(some)
            table[row, word] = self.weight[word]
            pairs = order[ends[low] : ends[low + len(some)]]
            at, theirs = self._words_of(y[pairs])
            found = table[np.searchsorted(some, x[pairs])[at], theirs]
            shared[pairs] = np.bincount(at, found, len(pairs))
            table[row, word] = 0
        return shared / np.sqrt(np.maximum(self.total[x].astype(float) * self.total[y], 1.0))

    def _words_of(self, values: Ints) -> tuple[Ints, Ints]:
        """Return all words of values: the place of the value, and the word."""
        first, lengths = self.starts[values], self.starts[values + 1] - self.starts[values]
        place = np.repeat(np.arange(len(values)), lengths)
        return place, self.word[np.arange(len(place)) + np.repeat(first - np.cumsum(lengths) + lengths, lengths)]
