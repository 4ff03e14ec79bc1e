"""The weights of sources that report on the same things."""

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

TURNS = 50


def source_weights(claims: Sequence[tuple[Hashable, str, str, int]]) -> dict[str, float]:
    """Return source -> weight of its votes, from how often it agrees with the weighted vote, in turns.

    claims: (group, value, source, rows), in an order of their own, so that sums have the same bits each time. One
    accuracy a source over all groups. Start: all 1. A turn: a = (weighted share of its values among all votes + 1) /
    (claims + 2); weight = -ln(1 - a), scaled to a mean of 1 over the claims. Stops when no group changes its value.
    Sources that copy each other can still outvote the truth. Source: Li et al., SIGMOD 2014 (CRH).
    """
    weights = {source: 1.0 for _, _, source, _ in claims}
    settled: dict[Hashable, str] = {}
    for _ in range(TURNS):
        scores: dict[Hashable, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        for key, value, source, n in claims:
            scores[key][value] += weights[source] * n
        now = {k: min(vs, key=lambda v: (-round(vs[v], 9), v)) for k, vs in scores.items()}
        if now == settled:
            break
        settled = now
        agree: dict[str, float] = defaultdict(float)
        total: Counter[str] = Counter()
        for key, value, source, n in claims:
            if len(scores[key]) > 1:  # groups of one mind do not show who errs
                total[source] += n
                agree[source] += n * scores[key][value] / sum(scores[key].values())
        for source in weights:
            accuracy = (agree[source] + 1) / (total[source] + 2)
            weights[source] = -math.log(1 - accuracy)
        mean = sum(weights[source] * n for _, _, source, n in claims) / sum(n for *_, n in claims)
        weights = {source: w / mean for source, w in weights.items()}
    return weights
