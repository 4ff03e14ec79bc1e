"""Which of several copies stays: an ORDER BY list, read once for all steps that choose."""

from collections.abc import Sequence

from pyspark.sql import Column
from pyspark.sql import functions as F

from headgate.transforms.rows import quoted
from headgate.transforms.step import StepError
from headgate.words import did_you_mean

DIRECTIONS = ("ASC", "DESC")
Order = Sequence[tuple[str, bool]]  # column, whether descending


def order_of(keep: str) -> list[tuple[str, bool]]:
    """(column, descending) of each entry of an ORDER BY list; raises `StepError` on what is none."""
    entries = []
    for entry in keep.split(","):
        words = entry.split()
        if not words or len(words) > 2 or (len(words) == 2 and words[1].upper() not in DIRECTIONS):
            hint = did_you_mean(words[-1].upper(), DIRECTIONS) if words else ""
            raise StepError(f"keep: '{entry.strip()}' is not an entry of ORDER BY (column [asc|desc]){hint}")
        entries.append((words[0], len(words) == 2 and words[1].upper() == "DESC"))
    return entries


def ordering(order: Order) -> list[Column]:
    """The list as Spark sorts by it: nulls come last."""
    return [
        F.col(quoted(c)).desc_nulls_last() if descending else F.col(quoted(c)).asc_nulls_last()
        for c, descending in order
    ]


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
