"""Matches by a single text: what two records say together that chance does not.

Of one comparison alone no mixture can be learned: any two classes explain the counts of its levels. But texts that have
words in common by chance are the rarer the more these are, so that what lies beyond that decay are matches.
"""

import numpy as np
import numpy.typing as npt

from headgate.transforms.fusion.levels import CUTS

Floats = npt.NDArray[np.float64]

CHANCE = 5  # levels above the lowest, up to a cosine of .4, where hardly any pair is a match
EASES = 0.5  # of the pace at which pairs by chance become rarer, what it keeps at least: alike things share phrases


def beyond_chance(pairs: Floats) -> Floats | None:
    """Return of each level of a text the share of its pairs that are matches; None where chance shows no decay.

    pairs: of each level of the comparison, nulls first.
    """
    first = len(CUTS) + 2  # the first level of equal texts
    if len(pairs) < first:
        return None
    edges = np.r_[CUTS, 1.0]
    middle = np.r_[(edges[1:] + edges[:-1]) / 2, 1.0]
    width = np.r_[np.diff(edges), 1.0]
    width[-1] = width[-2]  # equal texts, whatever their rarity, are as chance goes on
    counts = np.r_[pairs[2:first], pairs[first:].sum()]
    density = np.maximum(counts, 0.5) / width
    pace = np.log(density[0] / density[CHANCE - 1]) / (middle[CHANCE - 1] - middle[0])
    if pace <= 0:
        return None
    chance = density.copy()
    for i in range(CHANCE, len(chance)):
        chance[i] = min(density[i], chance[i - 1] * np.exp(-EASES * pace * (middle[i] - middle[i - 1])))
    share = np.maximum.accumulate(1 - chance / density)
    found = np.zeros(len(pairs))
    found[2:first] = share[:-1]
    found[first:] = share[-1]
    return found
