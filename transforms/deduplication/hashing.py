"""Hashes of whole arrays of 64-bit numbers, the same in every process and release: they are kept for years."""

import functools

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]


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
