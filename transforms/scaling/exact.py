"""Exact sums of doubles and of their squares: the same for any order of rows and any partitioning.

A double is a whole number of 53 bits times a power of two. Batches add up the halves of these whole numbers, and those
of their squares, by exponent; all further sums are of whole numbers.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.transforms.step import StepError

BITS = 27  # of the lower half
MASK = (1 << BITS) - 1
UNIT = 1074  # a total is in units of 2^-1074, one of squares in units of 2^-2148: every double is a multiple
LARGEST = 1_000_000  # groups by exponents that come to the driver
SUMS = tuple(f"s{i}" for i in range(8))
Batches = Iterable[pa.RecordBatch]


@dataclass(frozen=True)
class Moments:
    """Count, sum and sum of squares of doubles, exact; mean and variance are those of exact arithmetic, rounded once.

    total: in units of 2^-1074. squares: in units of 2^-2148.
    """

    n: int = 0
    total: int = 0
    squares: int = 0

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.n + other.n, self.total + other.total, self.squares + other.squares)

    def __sub__(self, other: "Moments") -> "Moments":
        return Moments(self.n - other.n, self.total - other.total, self.squares - other.squares)

    @property
    def mean(self) -> float:
        return self.total / (self.n << UNIT)

    @property
    def squared_deviations(self) -> float:
        """Return the sum of squared deviations from the mean; infinite where no double holds it."""
        return quotient(self.n * self.squares - self.total * self.total, self.n << (2 * UNIT))

    @property
    def variance(self) -> float:
        """Return the population variance; infinite where no double holds it."""
        return quotient(self.n * self.squares - self.total * self.total, self.n * self.n << (2 * UNIT))

    @classmethod
    def of(cls, exponent: int, n: int, sums: Sequence[int]) -> "Moments":
        """Return the moments of numbers of one binary exponent from the sums of `limbs`."""
        total = (sums[0] << BITS) + sums[1]
        high, mixed, low = ((sums[i] << BITS) + sums[i + 1] for i in (2, 4, 6))
        squares = (high << (2 * BITS)) + (mixed << (BITS + 1)) + low
        return cls(n, shifted(total, UNIT + exponent - 53), shifted(squares, 2 * (UNIT + exponent - 53)))


def quotient(a: int, b: int) -> float:
    try:
        return a / b
    except OverflowError:
        return float("inf")


def shifted(number: int, bits: int) -> int:
    """Return number * 2^bits, which is whole: lowest bits of subnormal numbers are zero."""
    return number << bits if bits >= 0 else number >> -bits


def limbs(values: Any, codes: Any) -> tuple[Any, Any, Any, list[Any]]:
    """Return code, exponent, count and eight sums of each group of finite doubles of one code and binary exponent.

    The sums are of the high and the low 27 bits of the significands, then of those of the squares of the high halves,
    of the products of the halves, and of the squares of the low halves. At most 2^26 values: so each sum is exact.
    """
    significand, exponent = np.frexp(values)
    whole = np.ldexp(significand, 53).astype(np.int64)
    high, low = whole >> BITS, whole & MASK
    bins = codes.astype(np.int64) * 4096 + (exponent + 2048)
    least = bins.min(initial=0)
    if bins.max(initial=0) - least <= 8 * len(bins):  # counted in place, where that takes little room
        place, found = bins - least, None
    else:
        found, place = np.unique(bins, return_inverse=True)
    counts = np.bincount(place)
    parts = [high, low]
    for product in (high * high, high * low, low * low):
        parts += [product >> BITS, product & MASK]
    filled = np.flatnonzero(counts)
    sums = [np.bincount(place, weights=part)[filled].astype(np.int64) for part in parts]
    groups = filled + least if found is None else found
    return groups // 4096, groups % 4096 - 2048, counts[filled], sums


def moments_of(values: Any) -> Moments:
    """Return the moments of the finite ones of some doubles."""
    known = values[np.isfinite(values)]
    _, exponents, counts, sums = limbs(known, np.zeros(len(known), np.int64))
    groups = zip(exponents.tolist(), counts.tolist(), *(s.tolist() for s in sums), strict=True)
    return sum((Moments.of(e, n, s) for e, n, *s in groups), Moments())


def moments(
    df: DataFrame, values: Sequence[Column], keys: Sequence[Column] = (), what: str = "groups"
) -> dict[tuple[Any, ...], list[Moments]]:
    """Return the exact moments of doubles in each group of equal keys; without keys, those of all rows under `()`.

    keys: texts; a null is a key like others. Nulls, NaN and infinities among the values are left out.
    Raises `StepError` for more than a million groups by exponents; `what` names them.
    Cost: one pass in Arrow batches; what is shuffled, and what comes to the driver, grows with groups, columns and
    binary exponents, not with rows.
    """
    key_names = [f"k{i}" for i in range(len(keys))]
    names = [f"x{i}" for i in range(len(values))]
    cells = [*(k.alias(n) for k, n in zip(keys, key_names, strict=True))]
    cells += [v.cast("double").alias(n) for v, n in zip(values, names, strict=True)]
    ddl = [*(f"{n} string" for n in key_names), "place int", "exponent int", "n bigint", *(f"{s} bigint" for s in SUMS)]
    found = df.select(*cells).mapInArrow(summing(key_names, names), ", ".join(ddl))
    totals = found.groupBy(*key_names, "place", "exponent").agg(*(F.sum(s).alias(s) for s in ("n", *SUMS)))
    table = totals.limit(LARGEST + 1).toArrow()
    if table.num_rows > LARGEST:
        raise StepError(f"there are too many {what} for exact sums (more than {LARGEST:,} by exponents)")
    result: dict[tuple[Any, ...], list[Moments]] = {} if keys else {(): [Moments()] * len(names)}
    columns = [table[name].to_pylist() for name in (*key_names, "place", "exponent", "n", *SUMS)]
    for row in zip(*columns, strict=True):
        key, (place, exponent, n, *sums) = row[: len(keys)], row[len(keys) :]
        listed = result.setdefault(key, [Moments()] * len(names))
        listed[place] = listed[place] + Moments.of(exponent, n, sums)
    return result


def summing(
    keys: Sequence[str], names: Sequence[str]
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return the function of batches that adds up each: one row for each group, column and exponent in it."""

    def sums(batches: Batches) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield from sums_of(batch, keys, names)

    return sums


def sums_of(batch: pa.RecordBatch, keys: Sequence[str], names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    codes, first = codes_of([batch.column(k) for k in keys], batch.num_rows)
    for place, name in enumerate(names):
        values = batch.column(name).to_numpy(zero_copy_only=False).astype(float)
        known = np.isfinite(values)
        if not known.any():
            continue
        groups, exponents, counts, parts = limbs(values[known], codes[known])
        where = pa.array(first[groups])
        columns: dict[str, Any] = {k: batch.column(k).take(where) for k in keys}
        columns |= {
            "place": pa.array(np.full(len(groups), place, np.int32)),
            "exponent": pa.array(exponents, pa.int32()),
        }
        columns |= {"n": pa.array(counts, pa.int64()), **{s: pa.array(p) for s, p in zip(SUMS, parts, strict=True)}}
        yield pa.RecordBatch.from_pydict(columns)


def codes_of(keys: Sequence[pa.Array], rows: int) -> tuple[Any, Any]:
    """Return a number for each tuple of keys, and for each number a row that has it."""
    codes = np.zeros(rows, np.int64)
    for key in keys:
        encoded = key.dictionary_encode("encode")
        numbers = encoded.indices.to_numpy(zero_copy_only=False)
        _, codes = np.unique(codes * (len(encoded.dictionary) + 1) + numbers, return_inverse=True)
    _, first = np.unique(codes, return_index=True)
    return codes, first


def merged(groups: Mapping[tuple[Any, ...], Sequence[Moments]]) -> list[Moments]:
    """Return the moments of all groups together."""
    return [sum(column, Moments()) for column in zip(*groups.values(), strict=True)]
