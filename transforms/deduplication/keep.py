"""Which of several copies stays: an ORDER BY list, read once for all steps that choose."""

import re
from collections.abc import Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.transforms.kinds import FLOATS, known_kinds
from headgate.transforms.rows import quoted
from headgate.transforms.step import Columns, StepError
from headgate.words import did_you_mean

DIRECTIONS = ("ASC", "DESC")
ENTRY = re.compile(r"\s*(?:`(?P<quoted>(?:[^`]|``)+)`|(?P<plain>[^\s,`][^\s,]*))(?:\s+(?P<way>\w+))?\s*(?P<more>,|$)")
Order = Sequence[tuple[str, bool]]  # column, whether descending


def order_of(keep: str) -> list[tuple[str, bool]]:
    """Return (column, descending) of each entry of an ORDER BY list; raise `StepError` on what is none.

    A name stands in backquotes where it has spaces or commas or begins with one of these, which are doubled inside.
    """
    entries = []
    at = 0
    while True:
        found = ENTRY.match(keep, at)
        way = (found["way"] or "ASC").upper() if found else ""
        if found is None or way not in DIRECTIONS:
            entry = keep[at:].split(",")[0].strip()
            hint = did_you_mean(entry.split()[-1].upper(), DIRECTIONS) if entry else ""
            allowed = "column [asc|desc]; a name with spaces in `backquotes`"
            raise StepError(f"keep: '{entry}' is not an entry of ORDER BY ({allowed}){hint}")
        entries.append((found["plain"] or found["quoted"].replace("``", "`"), way == "DESC"))
        if found.end() == len(keep) and not found["more"]:
            return entries
        at = found.end()


def need_order(order: Order, have: Columns) -> None:
    """Raise `StepError` for the first column whose values have no order; one of no known type passes."""
    for column, kind in known_kinds(have, [c for c, _ in order if c in have]):
        if not has_order(kind):
            raise StepError(f"keep: '{column}' is {kind}, whose values have no order")


def has_order(kind: str) -> bool:
    return not re.search(r"\b(map<|variant\b)", kind)


def ordered_by(column: str, kind: str) -> Column:
    """Return what rows are ordered by: a cell, null for NaN."""
    value = F.col(quoted(column))
    return F.when(~F.isnan(value), value) if kind in FLOATS else value


def ordering(order: Order, df: DataFrame) -> list[Column]:
    """The list as Spark sorts the rows of `df` by it: nulls and NaN come last."""
    kinds = dict(df.dtypes)
    values = [(ordered_by(c, kinds[c]), descending) for c, descending in order]
    return [value.desc_nulls_last() if descending else value.asc_nulls_last() for value, descending in values]


def precedes(order: Order, one: str, other: str) -> Column:
    """Return whether the row with columns `one.…` comes before the row `other.…`; of equal rows neither does."""
    before = F.lit(False)
    for column, descending in reversed(order):
        a, b = F.col(f"{one}.{quoted(column)}"), F.col(f"{other}.{quoted(column)}")
        before = (
            F.when(a.eqNullSafe(b), before)
            .when(a.isNull(), F.lit(False))
            .when(b.isNull(), F.lit(True))
            .otherwise(a > b if descending else a < b)
        )
    return before
