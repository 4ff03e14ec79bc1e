"""Record linkage without labels: a mixture over the counts of distinct level patterns.

A pattern is one small integer level per comparison: 0 is null on either side (missing at random: it carries no
evidence), 1 is disagreement, higher is closer. Only the distinct patterns and their counts reach the driver, so that
the state is tens to thousands of rows whatever the number of pairs.

Sources: Fellegi and Sunter (1969) for the ratio of likelihoods; Winkler (1988) for learning it by expectation-
maximisation; Larsen and Rubin (2001) and Winkler (2002) for more than one class of non-matches, which takes up the
dependence between comparisons (two restaurants of one street agree in street, city and zip at once); Enamorado,
Fifield and Imai (2019) for missing levels and counts of patterns.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Levels = npt.NDArray[np.int8]

BACKGROUNDS = 6  # classes of non-matches, at most: as many as the distinct patterns can tell apart
STEPS = 150
MOVES = 1e-4  # relative change of the expected matches at which learning ends
EVIDENCE = 15.0  # bits that one agreement may give at the start
PRIOR = 0.5  # weight of the prior shape of a match, as a share of the matches themselves
SMALL = 0.5  # pseudo-pairs per comparison and class
LARGEST = 400.0  # bits, either way


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
    backgrounds: int = BACKGROUNDS,
) -> Model:
    """Learn a model from counts of distinct patterns.

    patterns: (patterns, comparisons); blocked: candidate pairs of each; background: pairs of each among those that
    blocking did not propose, estimated from a random sample scaled to their number (a sample that contains blocked
    pairs counts these twice and doubles the estimate). equal: the first level of each comparison that is equality.
    most: an upper bound of matches (the smaller source, where sources are clean). start: a probability per pattern to
    begin with. floors: pairs to add to the non-matches, per comparison a vector over levels.
    The order of patterns does not matter. Pairs outside the blocked ones are taken as non-matches.
    Raises ValueError where no pattern has been blocked.
    """
    if blocked.sum() <= 0:
        raise ValueError("no candidate pairs: nothing to learn from")
    order = np.lexsort(patterns.T[::-1])
    patterns, blocked, background = patterns[order], blocked[order].astype(float), background[order].astype(float)
    start = None if start is None else start[order]
    weight, space = blocked + background, blocked.sum() + background.sum()
    sizes = patterns.max(axis=0).astype(int) + 1
    if floors:
        sizes = np.array([max(s, len(floors.get(j, ()))) for j, s in enumerate(sizes)])
    first = np.r_[0, np.cumsum(sizes)]
    backgrounds = int(np.clip(len(patterns) // max(int((sizes - 2).clip(0).sum()) + 1, 1) - 1, 1, backgrounds))
    column, null = np.repeat(np.arange(len(sizes)), sizes), np.zeros(first[-1], bool)
    null[first[:-1]] = True
    place = patterns + first[:-1]
    flat = place.ravel()
    extra = np.zeros(first[-1])
    for j, floor in (floors or {}).items():
        extra[first[j] : first[j] + len(floor)] = floor

    even = 1.0 / np.maximum(sizes - 1, 1)[column]  # so that no level is impossible

    def counted(w: Floats) -> Floats:
        c: Floats = np.bincount(flat, np.repeat(w, len(sizes)), first[-1]).astype(float)
        c[null] = 0
        return c

    def shares(c: Floats) -> Floats:
        return c / np.maximum(np.bincount(column, weights=c, minlength=len(sizes)), 1e-300)[column]

    overall = shares(counted(weight) + 1e-9)
    shape, surprise = _shape(overall, first, equal), _surprise(overall, first)
    agreement = surprise[place].sum(axis=1)
    if start is None:
        start = probability(np.clip(agreement - np.log2(space), -30, 30))
    start = np.where(blocked > 0, start, 0.0)
    member = _slices(agreement, space, start, backgrounds)
    logs: list[Floats] = []
    matches, size = 0.0, member.sum(axis=0)
    for step in range(STEPS):
        size = (weight[:, None] * member).sum(axis=0)
        rest = shares(counted(weight * member[:, 1:].sum(axis=1)) + extra + 1e-6)
        logs, joint = [], np.empty_like(member)
        for c in range(backgrounds + 1):
            d = counted(weight * member[:, c])
            if c == 0:
                held = np.bincount(column, weights=d, minlength=len(sizes))[column]
                p = shares(d + (PRIOR * held + SMALL) * shape)
            else:
                p = shares(d + SMALL * (rest + even) / 2 + extra * size[c] / max(size[1:].sum(), 1e-300))
            p = np.log(np.maximum(p, 1e-300))
            p[null] = 0
            logs.append(p / np.log(2))
            joint[:, c] = p[place].sum(axis=1) + np.log(max(size[c], 1e-9) / space)
        if most and size[0] > most:
            joint[:, 0] += np.log(most / size[0])
        joint -= joint.max(axis=1, keepdims=True)
        member = np.exp(joint)
        member[blocked == 0, 0] = 0
        member /= np.maximum(member.sum(axis=1, keepdims=True), 1e-300)
        now = float(weight @ member[:, 0])
        if step > 20 and abs(now - matches) < MOVES * now:
            break
        matches = now
    if now < 1 and backgrounds > 1:  # the matches drowned in one of the backgrounds: begin again with fewer of them
        return fit(
            patterns, blocked, background, equal, most=most, start=None, floors=floors, backgrounds=backgrounds // 2
        )

    def cut(p: Floats) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(p[first[j] : first[j + 1]].tolist()) for j in range(len(sizes)))

    bound = min(size[0], most) if most else size[0]
    prior = np.log2(np.maximum(np.r_[bound, size[1:]], 1e-9) / space)
    return Model(
        match=cut(logs[0]),
        background=tuple(cut(p) for p in logs[1:]),
        prior=tuple(prior.tolist()),
        matches=now,
        steps=step + 1,
        settled=step + 1 < STEPS,
    )


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


UNSURE = 0.7  # expected F1 below which a pair is also judged by its lead over its rivals
FLOOR = 0.25  # records without a partner whose best candidate leads, per level
GAPS = np.array([-8.0, -3.0, -0.5, 0.5, 3.0, 8.0])  # bits


def gap_floor(sizes: tuple[int, int]) -> Floats:
    """Return the non-matches to expect per level of a lead: records without a partner have a best candidate too."""
    found: Floats = np.r_[np.zeros(4), np.full(4, FLOOR * min(sizes))]
    return found
