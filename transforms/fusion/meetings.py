"""The pairs of records that meet under shared keys, in numpy: of a block, and of all blocks where records are few."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headgate.transforms.fusion.keys import Keys, hashed_two

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

BITS = 16  # parts of a bit in which evidence is added up: whole numbers have one sum in any order
UNKNOWN = np.iinfo(np.int64).max  # the place in the order of a common key that was not when it was learned
ENTRIES = 10_000_000  # pairs under all keys together that are held at once


class TooMany(Exception):
    """The pairs under all keys are too many to be held at once."""


def paired(src: Ints, ends: Ints, linking: bool) -> tuple[Ints, Ints, Ints]:
    """Return the pairs of rows of each block, and of each pair its block.

    src: sources of rows in order of block, source and id; ends: of blocks. linking: a row meets those of later sources.
    """
    block = np.repeat(np.arange(len(ends)), np.diff(np.r_[0, ends]))
    at = np.arange(len(src))
    start = at + 1
    if linking:
        last = np.r_[(block[1:] != block[:-1]) | (src[1:] != src[:-1]), True][: len(at)]
        turns = np.flatnonzero(last)
        start = turns[np.searchsorted(turns, at)] + 1
    count = ends[block] - start
    one = np.repeat(at, count)
    other = np.arange(len(one)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(start, count)
    return one, other, block[one]


def evidence(pairs: npt.NDArray[np.float64], space: int) -> Ints:
    """Return the evidence that sharing a key of so many pairs is, in parts of a bit."""
    found: Ints = np.rint(np.log2(float(space) / pairs) * BITS).astype(np.int64)
    return found


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How many pairs a key may make: at most half the square of `single`, and of `double` if it is of two common ones.

    order: the common keys, sorted, with the place of each among those of a record, the least first. Where limits were
    learned before, they hold for other records too, so that whether a key blocks depends on nothing but its records.
    """

    single: int
    double: int
    order: tuple[Ints, Ints]


def places(order: tuple[Ints, Ints], key: Ints) -> Ints:
    """Return the places of keys in an order; of others `UNKNOWN`."""
    keys, found = order
    if not len(keys):
        return np.full(len(key), UNKNOWN)
    at = np.minimum(np.searchsorted(keys, key), len(keys) - 1)
    return np.where(keys[at] == key, found[at], UNKNOWN)


@dataclass(frozen=True, kw_only=True)
class Met:
    """Pairs of records by their places, each once: the columns through which they met, and the evidence for it.

    refined, dropped, lost, skew: as in `Blocks`.
    """

    one: Ints
    other: Ints
    mask: Ints
    bits: Ints
    limits: Limits
    refined: int
    dropped: int
    lost: int
    skew: tuple[tuple[int, int], ...]


def affordable(made: Mapping[int, float], budget: int) -> int:
    """Return the largest cap with which keys make no more pairs than the budget, or the smallest. made: cap -> pairs"""
    return max((c for c, pairs in made.items() if pairs <= budget), default=min(made))


def lower(cap: int, caps: Sequence[int]) -> list[int]:
    """Return the caps up to one, with it."""
    return [*(c for c in caps if c < cap), cap]


def sizes_of(key: Ints, src: Ints, sources: int) -> tuple[Ints, Ints]:
    """Return for each row the records that it meets under its key, and the pairs of the key."""
    _, group, n = np.unique(key, return_inverse=True, return_counts=True)
    if sources == 1:
        return n[group] - 1, (n * (n - 1) // 2)[group]
    each = np.bincount(group * sources + src, minlength=len(n) * sources).reshape(-1, sources)
    return n[group] - each[group, src], ((n * n - (each * each).sum(axis=1)) // 2)[group]


def meet(
    keys: Keys,
    src: Ints,
    sources: int,
    space: int,
    *,
    limits: Limits | None,
    cap: int | None,
    caps: Sequence[int],
    budget: int,
    refined: int,
    skewed: int,
    also: tuple[Ints, Ints, Ints, int] | None = None,
) -> Met:
    """Find the pairs of records that share a rare key or two common ones.

    also: pairs that meet in another way: both records, the column as a bit, and the evidence that it is for each.

    limits: those that were learned before; None: they are chosen, that of keys alone unless `cap` gives it.
    Records are known by their places, in order of their ids. Raises `TooMany` for more than `ENTRIES`.
    """
    partners, pairs = sizes_of(keys.key, src[keys.record], sources)
    some = np.flatnonzero((pairs >= 1) if limits is None else (pairs >= 1) | ~keys.fine)
    record, family, key = (c[some] for c in (keys.record, keys.family, keys.key))
    fine = keys.fine[some]
    partners, pairs = partners[some], pairs[some]
    if limits is not None:
        cap = limits.single
    elif cap is None:
        cap = affordable({c: int(partners[fine & (pairs <= c * c // 2)].sum()) / 2 for c in caps}, budget)
    limit = cap * cap // 2
    alone = fine & (pairs <= limit)
    common = np.flatnonzero(~alone)
    first = pairs[common] if limits is None else places(limits.order, key[common])
    two = combined(record[common], family[common], key[common], first, refined)
    double_partners, double_pairs = sizes_of(two[2], src[two[0]], sources)
    if limits is None:
        made = {c: int(double_partners[double_pairs <= c * c // 2].sum()) / 2 for c in lower(cap, caps)}
        order, at = np.unique(key[common], return_index=True)
        limits = Limits(single=cap, double=affordable(made, budget), order=(order, pairs[common][at]))
    double_limit = limits.double**2 // 2
    few = (double_pairs >= 1) & (double_pairs <= double_limit)
    others = 0 if also is None else len(also[0])
    if int(partners[alone].sum()) + int(double_partners[few].sum()) + 2 * others > 2 * ENTRIES:
        raise TooMany
    n = len(src)
    found = []
    for (r, f, k), p, is_double in (
        ((record[alone], family[alone], key[alone]), pairs[alone], False),
        ((two[0][few], two[1][few], two[2][few]), double_pairs[few], True),
    ):
        order = np.lexsort((r, src[r], k))
        r, f, k, p = r[order], f[order], k[order], p[order]
        ends = np.flatnonzero(np.r_[k[1:] != k[:-1], True][: len(k)]) + 1
        one, other, block = paired(src[r], ends, sources > 1)
        bits = evidence(p[ends - 1].astype(float), space)[block]
        nothing = np.zeros(len(bits), np.int64)
        found.append((r[one] * n + r[other], f[one] | f[other], nothing if is_double else bits, bits * is_double))
    if also is not None:
        one, other, columns, worth = also
        found.append((one * n + other, columns, np.full(len(one), worth), np.zeros(len(one), np.int64)))
    pair, mask, bits, double = (np.concatenate(c) for c in zip(*found, strict=True))
    order = np.argsort(pair)
    pair, mask, bits, double = pair[order], mask[order], bits[order], double[order]
    turn = np.flatnonzero(np.r_[True, pair[1:] != pair[:-1]][: len(pair)])
    if len(turn):
        mask, bits = np.bitwise_or.reduceat(mask, turn), np.add.reduceat(bits, turn)
        bits, pair = np.maximum(bits, np.maximum.reduceat(double, turn)), pair[turn]
    over, again = fine & (pairs > limit), double_pairs > double_limit
    return Met(
        one=pair // n,
        other=pair % n,
        mask=mask,
        bits=bits,
        limits=limits,
        refined=distinct(key[over]),
        dropped=distinct(two[2][again]),
        lost=int(double_partners[again].sum() / 2),
        skew=most_frequent(key[over], family[over], partners[over], skewed),
    )


def most_frequent(key: Ints, family: Ints, partners: Ints, few: int) -> tuple[tuple[int, int], ...]:
    """Return the most partners that a key of each set of columns has: the `few` largest."""
    keys, of = np.unique(key, return_inverse=True)
    families = np.zeros(len(keys), np.int64)
    np.bitwise_or.at(families, of, family)
    columns, of_key = np.unique(families, return_inverse=True)
    most = np.zeros(len(columns), np.int64)
    np.maximum.at(most, of_key[of], partners)
    order = np.lexsort((columns, -most))[:few]
    return tuple(zip(columns[order].tolist(), most[order].tolist(), strict=True))


def combined(record: Ints, family: Ints, key: Ints, place: Ints, refined: int) -> tuple[Ints, Ints, Ints]:
    """Return the double keys of records: of each, the `refined` first common keys two by two, of other columns.

    place: of each key in their order, as that of how many pairs it makes. Returns record, family and key.
    """
    order = np.lexsort((family, key, place, record))
    record, family, key = record[order], family[order], key[order]
    first = np.flatnonzero(np.r_[True, record[1:] != record[:-1]][: len(record)])
    group = np.repeat(np.arange(len(first)), np.diff(np.r_[first, len(record)]))
    turn = np.arange(len(record)) - first[group]
    near = turn < refined
    keys, families = (np.zeros((len(first), refined), np.int64) for _ in range(2))
    keys[group[near], turn[near]], families[group[near], turn[near]] = key[near], family[near]
    there = np.zeros((len(first), refined), np.bool_)
    there[group[near], turn[near]] = True
    made: list[tuple[Ints, Ints, Ints]] = [(np.zeros(0, np.int64),) * 3]
    for p, q in itertools.combinations(range(refined), 2):
        a, b = np.minimum(keys[:, p], keys[:, q]), np.maximum(keys[:, p], keys[:, q])
        ok = np.flatnonzero(there[:, q] & ((families[:, p] & families[:, q]) == 0) & (a != b))
        made.append((record[first[ok]], families[ok, p] | families[ok, q], hashed_two(a[ok], b[ok])))
    return tuple(np.concatenate(c) for c in zip(*made, strict=True))  # type: ignore[return-value]


def best(one: Ints, other: Ints, bits: Ints, each: int, n: int) -> Bools:
    """Return which pairs are among the `each` best of either record: by bits, then by the other record's place."""
    kept = np.zeros(len(one), np.bool_)
    worth = int(bits.max(initial=0)) - bits
    size = int(worth.max(initial=0)) + 1
    for mine, theirs in ((one, other), (other, one)):
        place = (mine * size + worth) * n + theirs
        order = np.sort(place)
        first = np.searchsorted(order, np.arange(n + 1) * (size * n))
        last = order[np.clip(np.minimum(first[:-1] + each, first[1:]) - 1, 0, None)]
        kept |= place <= last[mine]
    return kept


def distinct(values: Ints) -> int:
    """Count the distinct values."""
    ordered = np.sort(values)
    return int((ordered[1:] != ordered[:-1]).sum()) + (len(ordered) > 0)
