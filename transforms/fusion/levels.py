"""Comparison of two records as small ordered levels, one a column.

Level 0 is null on either side, 1 is disagreement, higher is closer; the top levels are equality, one per rarity of the
value, so that the adjustment for term frequency (Winkler 2000) is part of the pattern and not a correction after it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from rapidfuzz.distance import OSA, JaroWinkler, Levenshtein
from rapidfuzz.process import cpdist

from headgate.transforms.fusion.bags import Bags, Words
from headgate.transforms.fusion.values import JOINED, WORDED, Comparison, Kind, day, number, place

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Levels = npt.NDArray[np.int8]

RARITY = 3.0  # bits per level of equality
CUTS = np.array([0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])  # of the cosine of two texts
LETTERS = 200  # characters of a text that are compared one by one
METRES = (20_000, 2_000, 200)  # between two places
EARTH = 6_371_008.8  # metres, the mean radius
BELOW_EQUAL: dict[Kind, tuple[str, ...]] = {
    "name": ("differ", "Jaro-Winkler or cosine of words from .80 or .40", "from .88 or .65", "from .94 or .85"),
    "code": ("differ", "two edits", "one edit"),
    "number": ("differ", "near", "very near"),
    "date": ("differ", "within a year", "one edit, or within a month"),
    "text": ("differ", *(f"cosine of words from {c:.2f}" for c in CUTS)),
    "set": ("differ", *(f"cosine of elements from {c:.2f}" for c in CUTS)),
    "place": ("differ", *(f"within {d:,} metres" for d in METRES)),
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

    def bits(self, values: Sequence[str]) -> Floats:
        """Return how rare values are: log2 of the records for each one that holds it."""
        held = np.array([max(self.values.get(v, self.rest), 1) for v in values], float)
        filled = max(self.filled, 2)
        return np.asarray(np.clip(np.log2(filled / held), 0, math.log2(filled) - 1), np.float64)


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
        if comparison.kind in WORDED:
            whole = pc.list_element(pc.split_pattern(found, JOINED), 0) if len(found) else found
            bare = whole.dictionary_encode()
            self.same: Ints = bare.indices.to_numpy().astype(np.int64)
            self.bare: list[str] = whole.to_pylist()
        else:
            self.same, self.bare = np.arange(len(found)), self.values
        rarity = np.floor(frequencies.bits(self.bare) / RARITY).astype(np.int8)
        self.equal: Levels = (first_equal(comparison.kind) + rarity).astype(np.int8)

    def levels(self, one: Ints, other: Ints) -> Levels:
        """Compare the values at the places `one` with those at `other`."""
        a, b = self.codes[one], self.codes[other]
        out = np.ones(len(one), np.int8)
        out[(a < 0) | (b < 0)] = 0
        if not self.values:
            return out
        equal = (self.same[a] == self.same[b]) & (out > 0)
        out[equal] = self.equal[a[equal]]
        differ = np.flatnonzero(~equal & (out > 0))
        if len(differ):
            x, y = np.minimum(a[differ], b[differ]), np.maximum(a[differ], b[differ])
            out[differ] = getattr(self, f"_{self.comparison.kind}")(x, y)
        return out

    def _name(self, x: Ints, y: Ints) -> Levels:
        level = np.ones(len(x), np.int8)
        near = self.bags.may_be_similar(x, y)
        level[near] = by_distinct(self._close_names, x[near], y[near])
        m = np.flatnonzero(self.several[x] | self.several[y])
        if not len(m):
            return level
        near = m[self.ordered[1].may_be_similar(x[m], y[m])]
        level[near] = np.maximum(level[near], by_distinct(self._close_in_order, x[near], y[near]))
        share = m[(self.words.mask[x[m]] & self.words.mask[y[m]]) != 0]
        level[share] = np.maximum(level[share], by_distinct(self._close_in_words, x[share], y[share]))
        return level

    def _close_names(self, x: Ints, y: Ints) -> Levels:
        return by_cuts(similar(self.bare, x, y), (0.80, 0.88, 0.94))

    def _close_in_order(self, x: Ints, y: Ints) -> Levels:
        return by_cuts(similar(self.ordered[0], x, y), (0.80, 0.88, 0.94))

    def _close_in_words(self, x: Ints, y: Ints) -> Levels:
        return by_cuts(self.words.cosines(x, y), (0.40, 0.65, 0.85))

    def _code(self, x: Ints, y: Ints) -> Levels:
        edits = self.edits(x, y, 2)
        return np.asarray(1 + (edits <= 2) + (edits <= 1), np.int8)

    def _number(self, x: Ints, y: Ints) -> Levels:
        numbers = self.numbers
        with np.errstate(invalid="ignore"):
            far = np.abs(numbers[x] - numbers[y]) / self.comparison.scale
            level = np.asarray(1 + (far <= 0.1) + (far <= 0.02), np.int8)
        if not self.comparison.log:  # a digit too many or too few
            length = self.bags.length
            m = np.flatnonzero((level == 1) & (np.minimum(length[x], length[y]) >= 3))
            level[m] += self.edits(x[m], y[m], 1) <= 1
        return level

    def _date(self, x: Ints, y: Ints) -> Levels:
        with np.errstate(invalid="ignore"):
            far = np.abs(self.days[x] - self.days[y])
            level = np.asarray(1 + (far <= 366) + (far <= 31), np.int8)
        m = np.flatnonzero(level < 3)
        level[m[self.edits(x[m], y[m], 1) <= 1]] = 3
        return level

    def _set(self, x: Ints, y: Ints) -> Levels:
        cosines: Floats = by_distinct(self.words.cosines, x, y)
        return (1 + np.searchsorted(CUTS, cosines, side="right")).astype(np.int8)

    def _place(self, x: Ints, y: Ints) -> Levels:
        """Compare by the distance on a sphere (haversine)."""
        with np.errstate(invalid="ignore"):
            (lat_x, lon_x), (lat_y, lon_y) = self.places[x].T, self.places[y].T
            a = np.sin((lat_x - lat_y) / 2) ** 2 + np.cos(lat_x) * np.cos(lat_y) * np.sin((lon_x - lon_y) / 2) ** 2
            metres = 2 * EARTH * np.arcsin(np.sqrt(np.clip(a, 0, 1)))
            return np.asarray(1 + sum(metres <= d for d in METRES), np.int8)

    def _text(self, x: Ints, y: Ints) -> Levels:
        found: Levels = by_distinct(self._close_texts, x, y)
        return found

    def _close_texts(self, x: Ints, y: Ints) -> Levels:
        cos = self.words.cosines(x, y)
        near = np.flatnonzero((cos >= 0.2) & (cos < 0.9))  # misspelt words are not shared: look at the characters
        if len(near):
            used = np.unique(np.r_[x[near], y[near]])
            tight = {i: self.bare[i].replace(" ", "")[:LETTERS] for i in used.tolist()}
            pairs = [tight[i] for i in x[near].tolist()], [tight[i] for i in y[near].tolist()]
            scorer = Levenshtein.normalized_similarity
            alike = cpdist(*pairs, scorer=scorer, score_cutoff=0.8, dtype=np.float32)
            cos[near] = np.maximum(cos[near], np.where(alike >= 0.8, 2 * alike - 1, 0))
        return (1 + np.searchsorted(CUTS, cos, side="right")).astype(np.int8)

    def edits(self, x: Ints, y: Ints, most: int) -> Ints:
        """Return the edits between values, a swap of two neighbours being one; any number above `most` as it comes."""
        found = np.full(len(x), most + 1)
        near = self.bags.may_be_edits(x, y, most)

        def edits_of(x: Ints, y: Ints) -> Ints:
            pairs = [self.bare[i] for i in x.tolist()], [self.bare[i] for i in y.tolist()]
            edits: Ints = cpdist(*pairs, scorer=OSA.distance, score_cutoff=most, dtype=np.int32)
            return edits

        found[near] = by_distinct(edits_of, x[near], y[near])
        return found

    @cached_property
    def bags(self) -> Bags:
        return Bags(self.bare)

    @cached_property
    def ordered(self) -> tuple[list[str], Bags]:
        """The values with their words in order, and their bags."""
        found = [" ".join(sorted(v.replace(JOINED, " ").split())) for v in self.values]
        return found, Bags(found)

    @cached_property
    def several(self) -> npt.NDArray[np.bool_]:
        """Which values have more than one word."""
        return np.array([" " in v or JOINED in v for v in self.values], np.bool_)

    @cached_property
    def words(self) -> Words:
        return Words(self.values, self.frequencies.words, self.frequencies.rest, self.frequencies.filled)

    @cached_property
    def numbers(self) -> Floats:
        found = np.array([number(v) for v in self.values])
        return np.log(np.maximum(found, 1e-9)) if self.comparison.log else found

    @cached_property
    def places(self) -> Floats:
        """Latitudes and longitudes, in radians."""
        found: Floats = np.radians(np.array([place(v) for v in self.values]))
        return found

    @cached_property
    def days(self) -> Floats:
        return np.array([day(v) for v in self.values])


def by_distinct(compare: Callable[[Ints, Ints], Any], x: Ints, y: Ints) -> Any:
    """Compare each distinct pair of values once."""
    size = int(y.max(initial=0)) + 1
    key, back = np.unique(x * size + y, return_inverse=True)
    return compare(key // size, key % size)[back] if len(key) else np.zeros(0, np.int8)


def by_cuts(values: npt.NDArray[Any], cuts: Sequence[float]) -> Levels:
    return np.asarray(1 + sum(values >= c for c in cuts), np.int8)


def similar(values: Sequence[str], x: Ints, y: Ints) -> npt.NDArray[np.float32]:
    pairs = [values[i] for i in x.tolist()], [values[i] for i in y.tolist()]
    found: npt.NDArray[np.float32] = cpdist(*pairs, scorer=JaroWinkler.similarity, dtype=np.float32)
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
