"""Periods of time of about equally many rows, so that the rows of one learn from those of earlier ones alone."""

import math
from collections.abc import Mapping, Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.transforms.kinds import TIMES, is_number, known_kinds
from headgate.transforms.quantiles import spreads_of
from headgate.transforms.rows import quoted
from headgate.transforms.step import Columns, StepError


def need_time(have: Columns, column: str) -> None:
    """Raise `StepError` for a column of a known type by which no periods can be told."""
    for _, kind in known_kinds(have, [column]):
        if not is_number(kind) and kind not in ("date", *TIMES):
            raise StepError(f"time: '{column}' is {kind}, not a time, a date or a number")


def place_in_time(column: str, kinds: Mapping[str, str]) -> Column:
    """Return a time as a number: microseconds of times, days of dates."""
    value, kind = F.col(quoted(column)), kinds[column]
    if kind in TIMES:
        return F.unix_micros(value.cast("timestamp")).cast("double")
    return (F.unix_date(value) if kind == "date" else value).cast("double")


def period_of(at: Column, borders: Sequence[float]) -> Column:
    """Return how many borders are at or before a time; null where it is null or NaN."""
    passed = F.lit(0)
    for border in borders:
        passed = passed + F.when(at >= F.lit(border), 1).otherwise(0)
    return F.when(at.isNotNull() & ~F.isnan(at), passed)


def cut_times(df: DataFrame, at: Column, periods: int) -> tuple[float, ...]:
    """Return where periods end: at quantiles of the rows' times, and behind the last of them; none without a time."""
    known = F.when(~F.isnan(at) & (F.abs(at) < F.lit(math.inf)), at)
    ((spread,),) = spreads_of(df, [(known, [i / periods for i in range(1, periods)])]).values()
    if spread is None:
        return ()
    behind = math.nextafter(spread.high, math.inf)
    return tuple(sorted({*(c for c in spread.quantiles if c <= spread.high), behind}))
