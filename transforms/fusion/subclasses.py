"""Matches of which some are pairs of one group and not of one thing: persons of one household, songs of one album.

Such pairs agree in what the group shares, and so much that one class may hold them and the matches. Within it they are
a class of their own that says nothing in columns in which the others agree: there they are as two records at random.
"""

from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

DEPTH = 3  # halves of halves that are looked at
ROUNDS = 60
SILENT = 0.05  # bits that a column tells of pairs of one group, at most
TELLING = 6.0  # bits that it tells of the others, at least: less, a venue or a state, is common to many things
DIFFER = 0.3  # of the others, the share that differ in it, at most; of all together, at least
FILLED = 0.3  # of the others, the share that have values in it, at least
FEW = 30.0  # pairs from which a share is known
SMALL = 1e-3  # pairs of a pattern that are passed over


class Counts(Protocol):
    """Patterns as places among all levels of all comparisons; see `model.Mixture`."""

    weight: Floats
    agreement: Floats
    first: npt.NDArray[np.int64]
    null: npt.NDArray[np.bool_]
    place: npt.NDArray[np.int64]

    def counted(self, weight: Floats) -> Floats: ...
    def shares(self, counts: Floats) -> Floats: ...


def of_one_thing(counts: Counts, matches: Floats) -> Floats | None:
    """Return of each pattern the share of its matches that are not of one group alone; None where there is no group.

    matches: the probability of each pattern. The matches are parted in two, and these again; a part is a group if the
    closer one of the first two, or the one beside it, agrees where it does not.
    """
    inside = counts.weight * matches
    doubtful = in_doubt(counts, inside)
    parts, closest = [np.ones(len(inside))] if doubtful else [], None
    for _ in range(DEPTH):
        several = []
        for part in parts:
            closer = halves(counts, inside * part)
            if closer is None:
                continue
            beside, rest = part * closer, part * (1 - closer)
            closest = beside if closest is None else closest
            if any(is_group(counts, doubtful, inside * near, inside * rest) for near in (closest, beside)):
                return 1 - rest
            several += [beside, rest]
        parts = several
    return None


def halves(counts: Counts, inside: Floats) -> Floats | None:
    """Part pairs into two classes, and return of each pattern the share of the closer one; None of too few pairs."""
    there = np.flatnonzero(inside > SMALL)
    order = there[np.argsort(counts.agreement[there], kind="stable")]
    upto = np.cumsum(inside[order])
    if not len(upto) or upto[-1] < 2 * FEW:
        return None
    middle = counts.agreement[order][np.searchsorted(upto, upto[-1] / 2)]
    closer = np.where(counts.agreement[there] > middle, 0.9, 0.1)
    place, n = counts.place[there], inside[there]
    for _ in range(ROUNDS):
        logs = []
        for part in (n * closer, n * (1 - closer)):
            sums = np.bincount(place.ravel(), np.repeat(part, place.shape[1]), len(counts.null))
            shares = np.log(counts.shares(np.where(counts.null, 0, sums) + 0.1))
            shares[counts.null] = 0
            logs.append(shares[place].sum(axis=1) + np.log(max(part.sum(), 1e-9)))
        closer = 1 / (1 + np.exp(np.clip(logs[1] - logs[0], -50, 50)))
    found = np.ones(len(inside))
    found[there] = closer
    return found


def in_doubt(counts: Counts, inside: Floats) -> list[int]:
    """Return the comparisons in which more matches differ than are apart by mistake."""
    held = counts.counted(inside)
    ends = zip(counts.first[:-1].tolist(), counts.first[1:].tolist(), strict=True)
    return [j for j, (low, high) in enumerate(ends) if high - low > 2 and held[low + 1] > DIFFER * held[low:high].sum()]


def is_group(counts: Counts, doubtful: list[int], closer: Floats, rest: Floats) -> bool:
    """Return whether pairs agree by chance alone in a doubtful column in which closer ones agree."""
    chance = counts.shares(counts.counted(counts.weight) + 1e-9)
    held, others, n = counts.counted(closer), counts.counted(rest), float(closer.sum())
    for j in doubtful:
        low, high = counts.first[j], counts.first[j + 1]
        levels = slice(low + 1, high)
        mine, theirs = float(held[levels].sum()), float(others[levels].sum())
        if mine < max(FEW, FILLED * n) or theirs < FEW:
            continue
        if held[low + 1] > DIFFER * mine or told(held[levels], chance[levels]) < TELLING:
            continue
        by_sample = (high - low - 2) / (2 * np.log(2) * theirs)  # bits that a sample of this size seems to tell
        if told(others[levels], chance[levels]) - by_sample <= SILENT:
            return True
    return False


def told(counts: Floats, chance: Floats) -> float:
    """Return the bits that a level tells on average (Kullback-Leibler), against chance."""
    share = counts / counts.sum()
    there = share > 0
    return float((share[there] * np.log2(share[there] / np.maximum(chance[there] / chance.sum(), 1e-12))).sum())
