"""The pairs of records that meet under shared keys, in numpy: of a block, and of all blocks where records are few."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headgate.transforms.deduplication.shingles import mixed
from headgate.transforms.fusion.keys import Keys

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

BITS = 16  # parts of a bit in which evidence is added up: whole numbers have one sum in any order
FACTOR = np.uint64(0x9E3779B97F4A7C15)
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
class Met:
    """Pairs of records by their places, each once: the columns through which they met, and the evidence for it.

    refined, dropped, lost, skew: as in `Blocks`.
    """

    one: Ints
    other: Ints
    mask: Ints
    bits: Ints
    cap: int
    refined: int
    dropped: int
    lost: int
    skew: tuple[tuple[int, int], ...]


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
    cap: int | None,
    caps: Sequence[int],
    budget: int,
    refined: int,
    skewed: int,
) -> Met:
    """Find the pairs of records that share a rare key or two common ones.

    Records are known by their places, in order of their ids. Raises `TooMany` for more than `ENTRIES`.
    """
    partners, pairs = sizes_of(keys.key, src[keys.record], sources)
    some = np.flatnonzero(pairs >= 1)
    record, family, key = (c[some] for c in (keys.record, keys.family, keys.key))
    fine = keys.fine[some]
    partners, pairs = partners[some], pairs[some]
    if cap is None:
        made = {c: int(partners[fine & (pairs <= c * c // 2)].sum()) / 2 for c in caps}
        cap = max([caps[0], *(c for c in caps if made[c] <= budget)])
    limit = cap * cap // 2
    alone = fine & (pairs <= limit)
    common = np.flatnonzero(~alone)
    two = combined(record[common], family[common], key[common], pairs[common], refined)
    double_partners, double_pairs = sizes_of(two[2], src[two[0]], sources)
    few = (double_pairs >= 1) & (double_pairs <= limit)
    if int(partners[alone].sum()) + int(double_partners[few].sum()) > 2 * ENTRIES:
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
    pair, mask, bits, double = (np.concatenate(c) for c in zip(*found, strict=True))
    order = np.argsort(pair)
    pair, mask, bits, double = pair[order], mask[order], bits[order], double[order]
    turn = np.flatnonzero(np.r_[True, pair[1:] != pair[:-1]][: len(pair)])
    if len(turn):
        mask, bits = np.bitwise_or.reduceat(mask, turn), np.add.reduceat(bits, turn)
        bits, pair = np.maximum(bits, np.maximum.reduceat(double, turn)), pair[turn]
    over, again = fine & (pairs > limit), double_pairs > limit
    return Met(
        one=pair // n,
        other=pair % n,
        mask=mask,
        bits=bits,
        cap=cap,
        refined=distinct(key[over]),
        dropped=distinct(two[2][again]),
        lost=int(double_partners[again].sum() / 2),
        skew=most_frequent(family[over], partners[over], skewed),
    )


def most_frequent(family: Ints, partners: Ints, few: int) -> tuple[tuple[int, int], ...]:
    """Return the most partners that a key of each set of columns has: the `few` largest."""
    columns, of = np.unique(family, return_inverse=True)
    most = np.zeros(len(columns), np.int64)
    np.maximum.at(most, of, partners)
    order = np.lexsort((columns, -most))[:few]
    return tuple(zip(columns[order].tolist(), most[order].tolist(), strict=True))


def combined(record: Ints, family: Ints, key: Ints, pairs: Ints, refined: int) -> tuple[Ints, Ints, Ints]:
    """Return the double keys of records: of each, the `refined` rarest common keys two by two, of other columns."""
    order = np.lexsort((family, key, pairs, record))
    record, family, key = record[order], family[order], key[order]
    first = np.flatnonzero(np.r_[True, record[1:] != record[:-1]][: len(record)])
    group = np.repeat(np.arange(len(first)), np.diff(np.r_[first, len(record)]))
    place = np.arange(len(record)) - first[group]
    near = place < refined
    keys, families = (np.zeros((len(first), refined), np.int64) for _ in range(2))
    keys[group[near], place[near]], families[group[near], place[near]] = key[near], family[near]
    there = np.zeros((len(first), refined), np.bool_)
    there[group[near], place[near]] = True
    made: list[tuple[Ints, Ints, Ints]] = [(np.zeros(0, np.int64),) * 3]
    for p, q in itertools.combinations(range(refined), 2):
        a, b = np.minimum(keys[:, p], keys[:, q]), np.maximum(keys[:, p], keys[:, q])
        ok = np.flatnonzero(there[:, q] & ((families[:, p] & families[:, q]) == 0) & (a != b))
        both = mixed(a[ok].view(np.uint64) * FACTOR + b[ok].view(np.uint64)).view(np.int64)
        made.append((record[first[ok]], families[ok, p] | families[ok, q], both))
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
