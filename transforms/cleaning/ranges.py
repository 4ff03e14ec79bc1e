"""Ranges of numbers, dates and times learned from the training rows: what lies far beyond most of them is at fault."""

import math
import re
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from numbers import Real
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.transforms.cleaning.formats import NUMBER
from headgate.transforms.kinds import TIMES, is_number, is_text
from headgate.transforms.quantiles import Spread, spreads_of
from headgate.transforms.rows import quoted
from headgate.transforms.step import StepError
from headgate.words import did_you_mean

Range = tuple[str | None, str | None]  # lowest and highest, as texts; None for an open end
SHARES = (0.05, 0.5, 0.95)
REACH = 5.0  # times as far from the median as 5 % of the values on that side
LEAST = 20  # values that tell a range


def is_range(given: Any) -> Any:
    """Return what is given for a range if it has its form; raise `ValueError` for what has not."""
    ends = given if isinstance(given, list | tuple) and len(given) == 2 else [True]
    if given != "learned" and any(isinstance(end, bool) or not isinstance(end, str | Real | None) for end in ends):
        hint = did_you_mean(given, ["learned"]) if isinstance(given, str) else ""
        raise ValueError(f"expected [lowest, highest] or learned{hint}")
    return given


def require_range(column: str, kind: str | None, low: str | None, high: str | None) -> None:
    """Raise `StepError` for ends that are no numbers or days, not of the column's type, or the wrong way round."""
    ends = [end for end in (low, high) if end is not None]
    numbers = [bool(NUMBER.fullmatch(end)) for end in ends]
    for end, number in zip(ends, numbers, strict=True):
        if not number and not re.match(r"\d{4}-\d\d", end):
            raise StepError(f"ranges: '{column}': '{end}' is neither a number nor a day as 2013-01-31")
        if number != numbers[0]:
            raise StepError(f"ranges: '{column}': '{ends[0]}' and '{end}' are not both numbers, or both days")
        if kind is not None and not is_text(kind) and number != is_number(kind):
            raise StepError(f"ranges: '{column}' is {kind}, and '{end}' is {'a number' if number else 'a day'}")
    if len(ends) == 2:
        a, b = ends
        if float(a) > float(b) if numbers[0] else a[: len(b)] > b[: len(a)]:
            raise StepError(f"ranges: those of '{column}' are the wrong way round: [{low}, {high}]")


def learned_ranges(df: DataFrame, columns: Sequence[str], kinds: Mapping[str, str]) -> dict[str, Range]:
    """Return column -> the range of its values, in which are nearly all of any unimodal distribution, however skewed.

    Each side reaches `REACH` times as far from the median as the twentieth of the values on that side does: up to that
    share of wrong ones moves it little. A side without spread, and a column of fewer than `LEAST` values, is open. Of
    dates and times the range is in whole days; texts are read as numbers, and those that are none left out.
    Cost: as `spreads_of`.
    """
    if not columns:
        return {}
    (found,) = spreads_of(df, [(measured(c, kinds[c]), SHARES) for c in columns]).values()
    return {c: range_of(spread, kinds[c]) for c, spread in zip(columns, found, strict=True)}


def measured(column: str, kind: str) -> Column:
    """Return a cell as a finite double: days of dates and times, numbers of texts; null for others."""
    value = F.col(quoted(column))
    if kind == "date" or kind in TIMES:
        return F.unix_date(value.cast("date")).cast("double")
    number = value.try_cast("double")
    return F.when(F.abs(number) < F.lit(math.inf), number)


def range_of(spread: Spread | None, kind: str) -> Range:
    if spread is None or spread.n < LEAST:
        return None, None
    low, middle, high = spread.quantiles
    ends = [middle + REACH * (end - middle) if end != middle else math.nan for end in (low, high)]
    if kind != "date" and kind not in TIMES:
        below, above = (repr(end) if math.isfinite(end) else None for end in ends)
        return below, above
    below, above = (day_of(end, up) for end, up in zip(ends, (False, True), strict=True))
    return below, above


def day_of(days: float, up: bool) -> str | None:
    try:
        return (date(1970, 1, 1) + timedelta(days=math.ceil(days) if up else math.floor(days))).isoformat()
    except (OverflowError, ValueError):  # beyond the years 1 to 9999, or no bound
        return None
