"""Misspellings of frequent values, found by shared deletions: linear in the distinct values."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping

from headgate.transforms.cleaning.formats import Format, shape

FREQUENT = 20  # times that a value must be more frequent than a rare one to be taken for what was meant


def deletions(value: str, distance: int) -> set[str]:
    """Return all texts that come of a value by at most `distance` deletions: two near texts share one."""
    layer, found = {value}, {value}
    for _ in range(distance):
        layer = {v[:i] + v[i + 1 :] for v in layer for i in range(len(v))}
        found |= layer
    return found


def near(a: str, b: str, most: int) -> bool:
    """Return whether two texts are at most `most` insertions, deletions or changes apart (banded, early exit)."""
    if abs(len(a) - len(b)) > most:
        return False
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
        if min(row) > most:
            return False
    return row[-1] <= most


def learn_typos(counts: Mapping[str, int], *, limit: int = 20_000) -> dict[str, str]:
    """Return rare value -> frequent value that it is a misspelling of, from a column's value counts.

    Frequent is what has `FREQUENT` times the rows of the rare value; near is one edit for texts of 4 letters or more,
    two from 9 on, and the digits must be the same ones (57 % is no misspelling of 97 %). Candidates meet by shared
    deletions, so the cost is linear in the distinct values times their length; texts above 40 letters are left to the
    votes. A rare value near two frequent ones that are as near is left alone, as is every value of a column beyond
    `limit` distinct values. Columns whose frequent values cover less than half of the cells have no domain.
    """
    total = sum(counts.values())
    usual = {v: n for v, n in counts.items() if n >= FREQUENT and 4 <= len(v) <= 40}
    if len(counts) > limit or sum(n for n in counts.values() if n >= FREQUENT) < 0.5 * total:
        return {}
    index: dict[str, set[str]] = defaultdict(set)
    for value in usual:
        for key in deletions(value.lower(), 1 if len(value) < 9 else 2):
            index[key].add(value)
    found = {}
    for value, n in counts.items():
        if not 4 <= len(value) <= 42 or n * FREQUENT > max(usual.values(), default=0):
            continue
        most = 1 if len(value) < 9 else 2
        met = {u for key in deletions(value.lower(), most) for u in index.get(key, ())}
        digits = re.sub(r"\D", "", value)
        met = {
            u
            for u in met
            if u != value and usual[u] >= FREQUENT * n and re.sub(r"\D", "", u) == digits and near(value, u, most)
        }
        closest = [u for u in met if near(value, u, 1)] or list(met)
        if len(closest) == 1:
            found[value] = closest[0]
    return found


def learn_words(counts: Mapping[str, int], form: Format) -> dict[str, str]:
    """Return rare word -> frequent word inside the texts of a column of regular format, as "21 pxtients"."""
    if not form.shapes:
        return {}
    words: Counter[str] = Counter()
    for value, n in counts.items():
        if shape(value) in form.shapes:
            for word in re.findall(r"[^\W\d_]+", value):
                words[word] += n
    return learn_typos(words)


def respell(value: str, words: Mapping[str, str]) -> str:
    """Return a text with its misspelt words replaced."""
    return re.sub(r"[^\W\d_]+", lambda m: words.get(m[0], m[0]), value) if words else value
