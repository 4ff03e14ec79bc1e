"""Hidden missing values: placeholder words, sentinel numbers and dates, and zeros that cannot be, from value counts."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from headgate.transforms.cleaning.markers import MARKERS, WORDS

SENTINEL = re.compile(
    r"-?(9{2,}|8{2,}|7{3,}|1)(\.0+)?|-?9{2,}\.9+|1e\+?30|(-?2147483648|-?32768|65535|2147483647)(\.0)?"
)
DAY = re.compile(r"\d{4}-\d\d-\d\d")
SENTINEL_DATES = ("9999-12-31", "9999-01-01", "2999-12-31", "2099-12-31", "1900-01-01", "1899-12-30", "1899-12-31",
                  "1753-01-01", "1582-10-15", "0001-01-01", "0000-00-00")  # fmt: skip
EPOCH = "1970-01-01"
Kind = Literal["marker", "word", "sentinel", "date", "zero"]


@dataclass(frozen=True, kw_only=True)
class Hidden:
    """Describe one value of one column that is believed to stand for "missing".

    apply: whether the evidence is strong enough to empty it where that is asked for; others are proposals.
    rows: how many cells hold it. why: the numbers that speak for it, as evidence.
    """

    column: str
    value: str
    kind: Kind
    rows: int
    apply: bool
    why: Mapping[str, float] = field(default_factory=dict)


def hidden_in(column: str, counts: Mapping[str, int], *, rows: int) -> list[Hidden]:
    """Find the hidden missing values of one column from its value counts.

    counts: value as text -> rows, nulls left out; numbers as the source wrote them. For a domain beyond the driver's
        limit pass the values with the highest counts, the extremes and zero, with `rows` the full number.
    rows: non-null cells of the column.
    Rules, each with its evidence in `why`:
    - marker: the text is in `MARKERS`. Applied. A lone "-", "." or "na" in a column of one- or two-letter codes
      (half of the rows or more hold codes no longer than it) is only proposed: Namibia is NA.
    - word: the text is in `WORDS`. Proposed; applied only where the rest of the column is numeric or dates.
    - sentinel: an extreme number made of one repeated digit (-999, 9999, 99.9), or -1 below an otherwise non-negative
      column, repeated (>= 2 rows, or above 5 times its neighbours' mean), and cut off from the nearest other value by
      more than the interquartile range and 2 spreads. Applied when the gap is at least 3 ranges of the rest.
    - date: a date of `SENTINEL_DATES` held by more rows than any other date, or 10 times the mean; the epoch likewise.
    - zero: see `zero_is_hidden`. Proposed, as only the field's meaning decides.
    Errors: none; an empty column gives an empty list. NaN is missing already and is left out.
    """
    if not counts or rows <= 0:
        return []
    found = []
    texts = {v: n for v, n in counts.items() if v is not None}
    plain = {v: n for v, n in texts.items() if v.strip().lower() not in MARKERS | WORDS}
    numbers = numeric_counts(plain)
    known = sum(plain.values())
    numeric = known > 0 and sum(numbers.values()) >= 0.95 * known
    dated = known > 0 and sum(n for v, n in plain.items() if DAY.match(v)) >= 0.95 * known
    for value, n in sorted(texts.items()):
        low = value.strip().lower()
        if low in MARKERS:
            short = sum(m for v, m in plain.items() if v.isalpha() and len(v) <= max(len(low), 2))
            code = bool(low) and low.isalpha() and short >= 0.5 * max(known, 1)
            found.append(Hidden(column=column, value=value, kind="marker", rows=n, apply=not code))
        elif low in WORDS:
            found.append(Hidden(column=column, value=value, kind="word", rows=n, apply=numeric or dated))
    if numeric:
        found += [as_spelt for hidden in sentinels(column, numbers) for as_spelt in spelt(hidden, plain)]
        zero = zero_is_hidden(column, numbers)
        found += [zero] if zero else []
    if dated:
        found += sentinel_dates(column, plain)
    return found


def numeric_counts(counts: Mapping[str, int]) -> dict[float, int]:
    """Return the counts by number; texts that are no finite numbers are left out."""
    numbers: dict[float, int] = {}
    for value, n in counts.items():
        try:
            number = float(value)
        except ValueError:
            continue
        if math.isfinite(number):
            numbers[number] = numbers.get(number, 0) + n
    return numbers


def spelt(hidden: Hidden, counts: Mapping[str, int]) -> list[Hidden]:
    """Return what is believed of a number for each text that stands for it, as -999 and -999.0 in a text column."""
    texts = [v for v in sorted(counts) if float(hidden.value) in numeric_counts({v: 1})]
    return [replace(hidden, value=v, rows=counts[v]) for v in texts]


def weighted_quantile(values: Any, weights: Any, share: float) -> float:
    """Return the smallest value that at least `share` of the weight does not exceed; values must be ascending."""
    total = np.cumsum(weights)
    return float(values[np.searchsorted(total, share * total[-1])])


def sentinels(column: str, numbers: Mapping[float, int]) -> list[Hidden]:
    """Find sentinel numbers at either end of a numeric column; see `hidden_in`."""
    found: list[Hidden] = []
    rest = dict(numbers)
    while len(rest) >= 4:
        values = np.array(sorted(rest))
        weights = np.array([rest[v] for v in values])
        before = len(found)
        for end, inner in ((0, slice(1, None)), (-1, slice(0, -1))):
            value = float(values[end])
            if not SENTINEL.fullmatch(f"{value:g}") and not SENTINEL.fullmatch(f"{value:.1f}"):
                continue
            others, ow = values[inner], weights[inner]
            gap = float(abs(value - (others[0] if end == 0 else others[-1])))
            iqr = weighted_quantile(others, ow, 0.75) - weighted_quantile(others, ow, 0.25)
            spread = float(others[-1] - others[0])
            n = int(weights[end])
            neighbours = ow[:5] if end == 0 else ow[-5:]
            often = n >= 2 and n >= 5 * float(np.mean(neighbours))
            lone = value < 0 <= others[0]
            far = gap > iqr and gap >= 2 * spread and n >= 2
            if far or (often and lone) or (often and gap > spread / 2 and gap > iqr):
                strong = gap >= 3 * max(spread, iqr, 1e-300) and n >= 2
                why = {"gap": float(gap), "iqr": iqr, "spread": spread, "neighbours": float(np.mean(neighbours))}
                found.append(Hidden(column=column, value=repr(value), kind="sentinel", rows=n, apply=strong, why=why))
                del rest[value]
                break
        if len(found) == before:
            break
    return found


def zero_is_hidden(column: str, numbers: Mapping[float, int]) -> Hidden | None:
    """Propose zero as a hidden missing value of a positive column, from value counts alone.

    Zero is suspicious where no other value is negative, zero is isolated (nothing lies between it and a gap), and it is
    far more frequent than a continuation of the rest would have it. With q1 the 1 % quantile of the positive values and
    m their median: q1 lies above a tenth of m, and the lowest positive value is 4 smallest steps or more from zero;
    zero is 3 times as frequent as the lowest values, or the gap exceeds 0.3 m; 5 distinct positive values exist. Counts
    and flags begin at 1 and are left alone: a column whose lowest positive value is its smallest step is one. A column
    in which zero holds half of the rows or more is semi-continuous (amounts, hours): never proposed.
    """
    zero = numbers.get(0.0, 0)
    positive = np.array(sorted(v for v in numbers if v > 0))
    if zero < 1 or min(numbers) < 0 or len(positive) < 5:
        return None
    weights = np.array([numbers[v] for v in positive])
    total = int(weights.sum())
    if zero >= total:
        return None
    lowest, q1 = float(positive[0]), weighted_quantile(positive, weights, 0.01)
    median = weighted_quantile(positive, weights, 0.5)
    iqr = weighted_quantile(positive, weights, 0.75) - weighted_quantile(positive, weights, 0.25)
    step = float(np.min(np.diff(positive)))
    counting = lowest <= 1.5 * step  # 1, 2, 3, …: zero is the next step down, as of a count
    gap_steps = lowest / max(step, 1e-300)
    apart = q1 > 0.1 * median and (gap_steps >= 4)
    pile = zero >= 2 and zero >= 3 * float(np.mean(weights[:5]))
    if counting or not apart or not (pile or lowest > 0.3 * median):
        return None
    why = {"lowest": lowest, "q1": q1, "median": median, "iqr": iqr, "step": step}
    return Hidden(column=column, value="0", kind="zero", rows=zero, apply=False, why=why)


def sentinel_dates(column: str, counts: Mapping[str, int]) -> list[Hidden]:
    """Find sentinel dates: known ones that stand apart in count or by a gap of 20 years from the rest."""
    found = []
    texts = [v for v in sorted(counts) if DAY.match(v)]
    days: dict[str, int] = {}
    for value in texts:
        days[value[:10]] = days.get(value[:10], 0) + counts[value]
    for day in (*SENTINEL_DATES, EPOCH):
        n = days.get(day, 0)
        others = {d: m for d, m in days.items() if d != day}
        if not n or not others:
            continue
        year = int(day[:4])
        gap = min(abs(int(d[:4]) - year) for d in others)
        often = n >= 10 * sum(others.values()) / len(others)
        if gap >= 20 or (often and n >= 2):
            why = {"years_apart": gap, "mean_rows": sum(others.values()) / len(others)}
            found += [
                Hidden(column=column, value=v, kind="date", rows=counts[v], apply=gap >= 20, why=why)
                for v in texts
                if v[:10] == day
            ]
    return found
