"""Record linkage without labels: a mixture over the counts of distinct level patterns.

A pattern is one small integer level per comparison: 0 is null on either side (missing at random: it carries no
evidence), 1 is disagreement, higher is closer. Only the distinct patterns and their counts reach the driver, so that
the state is tens to thousands of rows whatever the number of pairs.

Sources: Fellegi and Sunter (1969) for the ratio of likelihoods; Winkler (1988) for learning it by expectation-
maximisation; Larsen and Rubin (2001) and Winkler (2002) for more than one class of non-matches, which takes up the
dependence between comparisons (two restaurants of one street agree in street, city and zip at once); Enamorado,
Fifield and Imai (2019) for missing levels and counts of patterns.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headgate.transforms.fusion.levels import CUTS
from headgate.transforms.fusion.one_text import beyond_chance
from headgate.transforms.fusion.subclasses import of_one_thing

Floats = npt.NDArray[np.float64]
Levels = npt.NDArray[np.int8]

BACKGROUNDS = (6, 24)  # classes of non-matches: few, and two for each comparison, but no more than so many
STEPS = 150
MOVES = 1e-4  # relative change of the expected matches at which learning ends
EVIDENCE = 15.0  # bits that one agreement may give at the start
PRIOR = 0.5  # weight of the prior shape of a match, as a share of the matches themselves
SMALL = 0.5  # pseudo-pairs per comparison and class
SURE = 0.99  # expected F1 from which on a model with more classes is not looked for
LARGEST = 400.0  # bits, either way
GROUPS = 3  # times that pairs of one group are parted from the matches, at most
KEPT = 0.1  # of the others, the share that must stay matches


@dataclass(frozen=True, kw_only=True)
class Model:
    """A fitted mixture.

    match: log2 of P(level | match), per comparison a vector over levels; background: the same per class of
    non-matches; prior: log2 of the share of matches, then of each background class, among all comparable pairs.
    matches: expected number of matches; steps: passes of the expectation-maximisation.
    """

    match: tuple[tuple[float, ...], ...]
    background: tuple[tuple[tuple[float, ...], ...], ...]
    prior: tuple[float, ...]
    matches: float
    steps: int
    settled: bool

    def score(self, patterns: Levels) -> Floats:
        """Return the log2 odds that a pair of each pattern is a match.

        A level above those seen takes the highest seen; a null level carries no evidence.
        """
        match: Floats = self.prior[0] + _sum(self.match, patterns)
        rest = np.column_stack([p + _sum(t, patterns) for p, t in zip(self.prior[1:], self.background, strict=True)])
        top = rest.max(axis=1)
        odds = match - top - np.log2(np.exp2(rest - top[:, None]).sum(axis=1))
        return np.asarray(np.clip(odds, -LARGEST, LARGEST), np.float64)

    def weights(self, patterns: Levels) -> Floats:
        """Return the parts of each score: the prior, one weight a comparison, and the correction for dependence.

        Shape (patterns, comparisons + 2); each row adds up to the score before the limit of `LARGEST`.
        """
        share = np.exp2(np.array(self.prior[1:]))
        parts = [np.full(len(patterns), self.prior[0] - np.log2(share.sum()))]
        for j, m in enumerate(self.match):
            u = np.log2(np.average(np.exp2([b[j] for b in self.background]), axis=0, weights=share))
            level = np.minimum(patterns[:, j], len(m) - 1)
            parts.append(np.where(level == 0, 0.0, np.array(m)[level] - u[level]))
        parts.append(self.score(patterns) - np.sum(parts, axis=0))
        return np.column_stack(parts)


def probability(score: Floats) -> Floats:
    """Return the probability of log2 odds."""
    return 1.0 / (1.0 + np.exp2(-score))


def _sum(tables: tuple[tuple[float, ...], ...], patterns: Levels) -> Floats:
    total = np.zeros(len(patterns))
    for j, table in enumerate(tables):
        level = np.minimum(patterns[:, j], len(table) - 1)
        total += np.where(level == 0, 0.0, np.array(table)[level])
    return total


def fit(
    patterns: Levels,
    blocked: Floats,
    background: Floats,
    equal: list[int],
    *,
    most: float | None = None,
    start: Floats | None = None,
    floors: dict[int, Floats] | None = None,
    rate: Callable[[Model], float] | None = None,
) -> Model:
    """Learn a model from counts of distinct patterns.

    patterns: (patterns, comparisons); blocked: candidate pairs of each; background: pairs of each among those that
    blocking did not propose, estimated from a random sample scaled to their number (a sample that contains blocked
    pairs counts these twice and doubles the estimate). equal: the first level of each comparison that is equality.
    most: an upper bound of matches (the smaller source, where sources are clean). start: a probability per pattern to
    begin with. floors: pairs to add to the non-matches, per comparison a vector over levels.
    The order of patterns does not matter. Pairs outside the blocked ones are taken as non-matches. Of models with few
    and with many classes of non-matches, with the prior shape of a match and without it, the one is taken that tells
    matches best from others: by the expected F1 of the best cut.
    Raises ValueError where no pattern has been blocked.
    """
    if blocked.sum() <= 0:
        raise ValueError("no candidate pairs: nothing to learn from")
    order = np.lexsort(patterns.T[::-1])
    patterns, blocked, background = patterns[order], blocked[order].astype(float), background[order].astype(float)
    start = None if start is None else start[order]
    mixture = Mixture(patterns, blocked, background, equal, most=most, start=start, floors=floors)
    if start is None and patterns.shape[1] == 1 and equal[0] == len(CUTS) + 2:
        known = mixture.of_one_text()
        if known is not None:
            return known
    few, many = BACKGROUNDS
    by = (lambda m: expected_f1(m.score(patterns), blocked)) if rate is None else rate
    found: list[tuple[float, Model]] = []
    for classes in sorted({mixture.told_apart(c) for c in (few, int(np.clip(2 * patterns.shape[1], few, many)))}):
        if max((f1 for f1, _ in found), default=0.0) < SURE:
            found += [(round(by(m), 6), m) for m in mixture.learned(classes)]
    best = max(found, key=lambda f: f[0])[1]
    for _ in range(GROUPS):
        member = mixture.group_apart(best)
        if member is None:
            break
        parted = mixture.parted(member)
        if not parted:
            break
        whole = [m for m in parted if mixture.group_apart(m) is None]
        apart = [*whole, *parted][0]
        if rate is not None and rate(apart) < rate(best):
            break
        best = apart
        if whole:
            break
    return best


def expected_f1(score: Floats, pairs: Floats) -> float:
    """Return the expected F1 of the best cut, of scores with so many pairs each."""
    order = np.argsort(-score, kind="stable")
    right = np.cumsum((pairs * probability(score))[order])
    return float((2 * right / np.maximum(np.cumsum(pairs[order]) + right[-1], 1e-300)).max())


class Mixture:
    """What a model is learned from; see `fit`. All levels of all comparisons lie one after the other."""

    def __init__(
        self,
        patterns: Levels,
        blocked: Floats,
        background: Floats,
        equal: list[int],
        *,
        most: float | None,
        start: Floats | None,
        floors: dict[int, Floats] | None,
    ) -> None:
        self.patterns, self.blocked, self.weight, self.most = patterns, blocked, blocked + background, most
        self.space = float(self.weight.sum())
        sizes = patterns.max(axis=0).astype(int) + 1
        self.sizes = np.array([max(s, len((floors or {}).get(j, ()))) for j, s in enumerate(sizes)])
        self.first = first = np.r_[0, np.cumsum(self.sizes)]
        self.column, self.null = np.repeat(np.arange(len(sizes)), self.sizes), np.zeros(first[-1], bool)
        self.null[first[:-1]] = True
        self.place = patterns + first[:-1]
        self.extra = np.zeros(first[-1])
        for j, floor in (floors or {}).items():
            self.extra[first[j] : first[j] + len(floor)] = floor
        self.even = 1.0 / np.maximum(self.sizes - 1, 1)[self.column]  # so that no level is impossible
        overall = self.shares(self.counted(self.weight) + 1e-9)
        self.shape = _shape(overall, first, equal)
        self.agreement: Floats = _surprise(overall, first)[self.place].sum(axis=1)
        if start is None:
            start = probability(np.clip(self.agreement - np.log2(self.space), -30, 30))
        self.start = np.where(blocked > 0, start, 0.0)

    def counted(self, weight: Floats) -> Floats:
        """Add up a weight of each pattern for each level; a null has none."""
        sums = np.bincount(self.place.ravel(), np.repeat(weight, len(self.sizes)), self.first[-1]).astype(float)
        sums[self.null] = 0
        return sums

    def shares(self, counts: Floats) -> Floats:
        """Return the shares of levels within their comparison."""
        of_column = np.bincount(self.column, weights=counts, minlength=len(self.sizes))
        found: Floats = counts / np.maximum(of_column, 1e-300)[self.column]
        return found

    def told_apart(self, classes: int) -> int:
        """Return how many classes of non-matches so many patterns can tell apart: `classes` at most."""
        of_class = max(int((self.sizes - 2).clip(0).sum()) + 1, 1)
        return int(np.clip(len(self.place) // of_class - 1, 1, classes))

    def learned(self, classes: int) -> list[Model]:
        """Return the models with so many classes of non-matches: with the prior shape of a match, and then without it.

        Where the matches drown in one of the classes, there are fewer of them.
        """
        while True:
            member = _slices(self.agreement, self.space, self.start, classes)
            member, guided = self.settled(member, PRIOR)
            if guided.matches >= 1 or classes == 1:
                return [guided, self.settled(member, 0.0)[1]]
            classes //= 2

    def of_one_text(self) -> Model | None:
        """Return the model of a single text; None where it tells no chance from matches."""
        share = beyond_chance(self.counted(self.weight))
        if share is None:
            return None
        matches = np.where(self.blocked > 0, share[self.place[:, 0]], 0.0)
        return self.settled(np.column_stack([matches, 1 - matches]), 0.0)[1]

    def group_apart(self, model: Model) -> Floats | None:
        """Return the membership by a model, with a class more of its matches that are pairs of one group alone.

        None where there are no such ones.
        """
        odds = np.column_stack(
            [p + _sum(t, self.patterns) for p, t in zip(model.prior, (model.match, *model.background), strict=True)]
        )
        member = np.exp2(odds - odds.max(axis=1, keepdims=True))
        member[self.blocked == 0, 0] = 0
        member /= np.maximum(member.sum(axis=1, keepdims=True), 1e-300)
        closer = of_one_thing(self, member[:, 0])
        if closer is None:
            return None
        group = member[:, 0] * (1 - closer)
        return np.column_stack([member[:, 0] * closer, member[:, 1:], group])

    def parted(self, member: Floats) -> list[Model]:
        """Return the models that come of a membership and keep its matches: with the prior shape, and without."""
        least = KEPT * float(self.weight @ member[:, 0])
        found = (self.settled(member, prior)[1] for prior in (PRIOR, 0.0))
        return [m for m in found if m.matches >= least]

    def settled(self, member: Floats, prior: float) -> tuple[Floats, Model]:
        """Learn from the membership of patterns in classes (the matches first) until the expected matches settle.

        prior: weight of the prior shape of a match. Returns the membership then, and the model.
        """
        matches = now = 0.0
        for step in range(STEPS):
            size = (self.weight[:, None] * member).sum(axis=0)
            rest = self.shares(self.counted(self.weight * member[:, 1:].sum(axis=1)) + self.extra + 1e-6)
            logs: list[Floats] = []
            joint = np.empty_like(member)
            for c in range(member.shape[1]):
                d = self.counted(self.weight * member[:, c])
                if c == 0:
                    held = np.bincount(self.column, weights=d, minlength=len(self.sizes))[self.column]
                    p = self.shares(d + (prior * held + SMALL) * self.shape)
                else:
                    floor = self.extra * size[c] / max(size[1:].sum(), 1e-300)
                    p = self.shares(d + SMALL * (rest + self.even) / 2 + floor)
                p = np.log(np.maximum(p, 1e-300))
                p[self.null] = 0
                logs.append(p / np.log(2))
                joint[:, c] = p[self.place].sum(axis=1) + np.log(max(size[c], 1e-9) / self.space)
            if self.most and size[0] > self.most:
                joint[:, 0] += np.log(self.most / size[0])
            joint -= joint.max(axis=1, keepdims=True)
            member = np.exp(joint)
            member[self.blocked == 0, 0] = 0
            member /= np.maximum(member.sum(axis=1, keepdims=True), 1e-300)
            now = float(self.weight @ member[:, 0])
            if step > 20 and abs(now - matches) < MOVES * now:
                break
            matches = now

        def cut(p: Floats) -> tuple[tuple[float, ...], ...]:
            first = self.first
            return tuple(tuple(p[first[j] : first[j + 1]].tolist()) for j in range(len(self.sizes)))

        bound = min(size[0], self.most) if self.most else size[0]
        share = np.log2(np.maximum(np.r_[bound, size[1:]], 1e-9) / self.space)
        model = Model(
            match=cut(logs[0]),
            background=tuple(cut(p) for p in logs[1:]),
            prior=tuple(share.tolist()),
            matches=now,
            steps=step + 1,
            settled=step + 1 < STEPS,
        )
        return member, model


def _surprise(overall: Floats, first: npt.NDArray[np.int64]) -> Floats:
    """Bits of evidence of a level by itself: how seldom chance comes this close; disagreement counts against."""
    bits = np.zeros(len(overall))
    for j in range(len(first) - 1):
        tail = np.cumsum(overall[first[j] : first[j + 1]][::-1])[::-1]
        bits[first[j] : first[j + 1]] = np.minimum(-np.log2(np.maximum(tail, 1e-12)), EVIDENCE)
        bits[first[j] : first[j] + 2] = (0.0, -3.0)[: first[j + 1] - first[j]]
    return bits


def _shape(overall: Floats, first: npt.NDArray[np.int64], equal: list[int]) -> Floats:
    """The prior of a match: 70 % equal, 20 % near, 10 % different; rarities of equal values as their mass."""
    shape = np.zeros(len(overall))
    for j in range(len(first) - 1):
        levels = np.arange(first[j] + 1, first[j + 1])
        if not len(levels):
            continue
        at = min(equal[j], first[j + 1] - first[j] - 1)
        same, near = levels[at - 1 :], levels[1 : at - 1]
        shape[levels[0]] += 0.1
        if len(near):
            shape[near] += 0.2 / len(near)
        mass = np.maximum(overall[same] * np.exp2(3.0 * np.arange(len(same))), 1e-12)
        shape[same] += 0.7 * mass / mass.sum()
    return shape


def _slices(agreement: Floats, space: float, start: Floats, classes: int) -> Floats:
    """Begin with the background classes as slices by agreement, equally wide up to what singles out one pair."""
    member = np.zeros((len(agreement), classes + 1))
    member[:, 0] = start
    step = np.log2(max(space, 4.0)) / classes
    slice_of = np.clip(np.floor(agreement / step), 0, classes - 1).astype(int)
    for c in range(classes):
        member[:, 1 + c] = (1 - start) * (0.8 * (slice_of == c) + 0.2 / classes)
    return member


UNSURE = 0.9  # expected F1 below which pairs are also judged by their lead over their rivals
GAIN = 0.05  # expected F1 that the lead has to add, as pairs then are made as a whole at every build
FLOOR = 0.25  # records without a partner whose best candidate leads, per level
GAPS = np.array([-8.0, -3.0, -0.5, 0.5, 3.0, 8.0])  # bits


def gap_floor(sizes: tuple[int, int]) -> Floats:
    """Return the non-matches to expect per level of a lead: records without a partner have a best candidate too."""
    found: Floats = np.r_[np.zeros(4), np.full(4, FLOOR * min(sizes))]
    return found
