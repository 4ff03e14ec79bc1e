"""Comparison of two records as small ordered levels, one a column.

Level 0 is null on either side, 1 is disagreement, higher is closer; the top levels are equality, one per rarity of the
value, so that the adjustment for term frequency (Winkler 2000) is part of the pattern and not a correction after it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from rapidfuzz.distance import OSA, JaroWinkler, Levenshtein
from rapidfuzz.process import cpdist

from headgate.transforms.fusion.values import JOINED, Comparison, Kind, day, number

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Levels = npt.NDArray[np.int8]

RARITY = 3.0  # bits per level of equality
CUTS = np.array([0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])  # of the cosine of two texts
LETTERS = 200  # characters of a text that are compared one by one
AT_ONCE = 200_000  # pairs whose words are laid out at a time
UNIT = 1 << 16  # of a word's weight: whole numbers add up to the same sum in any order
BELOW_EQUAL: dict[Kind, tuple[str, ...]] = {
    "name": ("differ", "Jaro-Winkler or cosine of words from .80 or .40", "from .88 or .65", "from .94 or .85"),
    "code": ("differ", "two edits", "one edit"),
    "number": ("differ", "near", "very near"),
    "date": ("differ", "within a year", "one edit, or within a month"),
    "text": ("differ", *(f"cosine of words from {c:.2f}" for c in CUTS)),
}


def first_equal(kind: Kind) -> int:
    """Return the first level of a kind that is equality."""
    return len(BELOW_EQUAL[kind]) + 1


@dataclass(frozen=True, kw_only=True)
class Frequencies:
    """How many records hold a value, and a word, of one column.

    filled: records that hold any. values, words: those that several records hold; others count as `rest`.
    """

    filled: int
    values: Mapping[str, int] = field(default_factory=dict)
    words: Mapping[str, int] = field(default_factory=dict)
    rest: float = 1.0


class Column:
    """A column's distinct values with what the comparison of their kind needs.

    values: normal forms, null where there is none.
    """

    def __init__(self, comparison: Comparison, frequencies: Frequencies, values: pa.Array) -> None:
        found = pc.drop_null(pc.unique(values))
        found = found.take(pc.sort_indices(found))
        self.comparison, self.frequencies = comparison, frequencies
        self.codes: Ints = pc.fill_null(pc.index_in(values, found), -1).to_numpy().astype(np.int64)
        self.values: list[str] = found.to_pylist()
        self._words: tuple[Ints, Ints, Ints] | None = None

    def levels(self, one: Ints, other: Ints) -> Levels:
        """Compare the values at the places `one` with those at `other`."""
        a, b = self.codes[one], self.codes[other]
        out = np.zeros(len(one), np.int8)
        both = np.flatnonzero((a >= 0) & (b >= 0))
        low, high = np.minimum(a[both], b[both]), np.maximum(a[both], b[both])
        key, back = np.unique(low * max(len(self.values), 1) + high, return_inverse=True)
        if len(key):
            out[both] = self._distinct(key // len(self.values), key % len(self.values))[back]
        return out

    def _distinct(self, x: Ints, y: Ints) -> Levels:
        """Compare distinct values by their numbers, x <= y."""
        equal = x == y
        if self.comparison.kind in ("name", "text"):
            bare = [v.split(JOINED)[0] for v in self.values]
            close = np.flatnonzero(~equal)
            equal[close] = [bare[i] == bare[j] for i, j in zip(x[close], y[close], strict=True)]
        else:
            bare = self.values
        out = np.ones(len(x), np.int8)
        at = np.flatnonzero(equal)
        out[at] = first_equal(self.comparison.kind) + self._rarity(bare, x[at])
        ne = np.flatnonzero(~equal)
        if len(ne):
            out[ne] = getattr(self, f"_{self.comparison.kind}")(bare, x[ne], y[ne])
        return out

    def _rarity(self, bare: Sequence[str], at: Ints) -> Levels:
        """Return the rarity of values in steps of `RARITY` bits, at most that of one that two records hold."""
        held = [max(self.frequencies.values.get(bare[i], self.frequencies.rest), 1) for i in at]
        filled = max(self.frequencies.filled, 2)
        bits = np.minimum(np.log2(filled / np.array(held, float)), math.log2(filled) - 1)
        return np.floor(np.maximum(bits, 0) / RARITY).astype(np.int8)

    def _name(self, bare: Sequence[str], x: Ints, y: Ints) -> Levels:
        near = similar(bare, x, y)
        level = 1 + (near >= 0.80) + (near >= 0.88) + (near >= 0.94)
        several = np.array([" " in v for v in self.values]) | np.array([JOINED in v for v in self.values])
        m = np.flatnonzero(several[x] | several[y])
        if len(m):
            ordered = [" ".join(sorted(v.replace(JOINED, " ").split())) for v in self.values]
            near = similar(ordered, x[m], y[m])
            cos = self.cosines(x[m], y[m])
            again = 1 + (near >= 0.80) + (near >= 0.88) + (near >= 0.94)
            level[m] = np.maximum.reduce([level[m], again, 1 + (cos >= 0.4) + (cos >= 0.65) + (cos >= 0.85)])
        return np.asarray(level, np.int8)

    def _code(self, bare: Sequence[str], x: Ints, y: Ints) -> Levels:
        edits = edits_of(bare, x, y)
        return np.asarray(1 + (edits <= 2) + (edits <= 1), np.int8)

    def _number(self, bare: Sequence[str], x: Ints, y: Ints) -> Levels:
        numbers = np.array([number(v) for v in bare])
        if self.comparison.log:
            numbers = np.log(np.maximum(numbers, 1e-9))
        with np.errstate(invalid="ignore"):
            far = np.abs(numbers[x] - numbers[y]) / self.comparison.scale
            level = 1 + (far <= 0.1) + (far <= 0.02)
        if not self.comparison.log:  # a digit too many or too few
            length = np.array([len(v) for v in bare])
            slip = (np.minimum(length[x], length[y]) >= 3) & (edits_of(bare, x, y) <= 1)
            level = np.maximum(level, np.where(slip, 2, 1))
        return np.asarray(level, np.int8)

    def _date(self, bare: Sequence[str], x: Ints, y: Ints) -> Levels:
        days, edits = np.array([day(v) for v in bare]), edits_of(bare, x, y)
        with np.errstate(invalid="ignore"):
            far = np.abs(days[x] - days[y])
            level = 1 + (far <= 366) + (far <= 31)
        level[edits <= 1] = 3
        return np.asarray(level, np.int8)

    def _text(self, bare: Sequence[str], x: Ints, y: Ints) -> Levels:
        cos = self.cosines(x, y)
        near = np.flatnonzero((cos >= 0.2) & (cos < 0.9))  # misspelt words are not shared: look at the characters
        if len(near):
            used = np.unique(np.r_[x[near], y[near]])
            tight = {i: bare[i].replace(" ", "")[:LETTERS] for i in used.tolist()}
            pairs = [tight[i] for i in x[near].tolist()], [tight[i] for i in y[near].tolist()]
            scorer = Levenshtein.normalized_similarity
            alike = cpdist(*pairs, scorer=scorer, score_cutoff=0.8, dtype=np.float32)
            cos[near] = np.maximum(cos[near], np.where(alike >= 0.8, 2 * alike - 1, 0))
        return (1 + np.searchsorted(CUTS, cos, side="right")).astype(np.int8)

    def cosines(self, x: Ints, y: Ints) -> Floats:
        """Return the cosine of the words of values, each weighed by its rarity."""
        starts, places, weights = self._words = self._words or self._number_words()
        total = np.r_[0, np.cumsum(weights[places])]
        of = total[starts[1:]] - total[starts[:-1]]
        shared = np.zeros(len(x))
        for low in range(0, len(x), AT_ONCE):
            part = slice(low, low + AT_ONCE)
            one, other = (laid_out(starts, places, len(weights), v[part]) for v in (x, y))
            both = np.intersect1d(one, other, assume_unique=True)
            shared[part] = np.bincount(both // len(weights), weights[both % len(weights)], len(x[part]))
        found: Floats = shared / np.sqrt(np.maximum(of[x].astype(float) * of[y], 1.0))
        return found

    def _number_words(self) -> tuple[Ints, Ints, Ints]:
        """Number the words: where each value's start, the distinct words of all values, and each word's weight."""
        split = [v.replace(JOINED, " ").split() for v in self.values]
        numbers: dict[str, int] = {}
        flat = np.array([numbers.setdefault(w, len(numbers)) for words in split for w in words], np.int64)
        size = max(len(numbers), 1)
        key = np.unique(np.repeat(np.arange(len(split)), [len(s) for s in split]) * size + flat)
        starts = np.searchsorted(key // size, np.arange(len(split) + 1))
        held = np.array([max(self.frequencies.words.get(w, self.frequencies.rest), 1) for w in numbers] or [1], float)
        weights = np.rint(UNIT * np.log2(1 + self.frequencies.filled / held) ** 2).astype(np.int64)
        return starts, key % size, weights


def laid_out(starts: Ints, places: Ints, size: int, values: Ints) -> Ints:
    """Return all words of values, each as its number beyond the place of the value."""
    lengths = starts[values + 1] - starts[values]
    at = (
        np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths) + np.repeat(starts[values], lengths)
    )
    found: Ints = np.repeat(np.arange(len(values)), lengths) * size + places[at]
    return found


def similar(values: Sequence[str], x: Ints, y: Ints) -> npt.NDArray[np.float32]:
    pairs = [values[i] for i in x.tolist()], [values[i] for i in y.tolist()]
    found: npt.NDArray[np.float32] = cpdist(*pairs, scorer=JaroWinkler.similarity, dtype=np.float32)
    return found


def edits_of(values: Sequence[str], x: Ints, y: Ints) -> npt.NDArray[np.int32]:
    """Return the edits between values, a swap of two neighbours being one; 3 stands for more than two."""
    pairs = [values[i] for i in x.tolist()], [values[i] for i in y.tolist()]
    found: npt.NDArray[np.int32] = cpdist(*pairs, scorer=OSA.distance, score_cutoff=2, dtype=np.int32)
    return found


def patterns(
    comparisons: Sequence[Comparison],
    frequencies: Sequence[Frequencies],
    columns: Sequence[pa.Array],
    one: Ints,
    other: Ints,
) -> Levels:
    """Return the levels of pairs of places, a row a pair and a column a comparison."""
    made = zip(comparisons, frequencies, columns, strict=True)
    return np.column_stack([Column(c, f, values).levels(one, other) for c, f, values in made])
