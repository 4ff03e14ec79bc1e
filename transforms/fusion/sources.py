"""Names of sources that options speak of: a misspelt one would say nothing, without a word."""

from collections.abc import Collection, Mapping, Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headgate.transforms.rows import is_kept, quoted
from headgate.transforms.step import StepError
from headgate.words import cell, did_you_mean, few_of

SOURCES = 1_000  # that are looked through


def require_sources(df: DataFrame, column: str, named: Mapping[str, Sequence[str]]) -> None:
    """Raise `StepError` for a name that no row has, where rows are of a source that is not named; see `unknown`.

    named: option -> the names that it speaks of. None: nothing is asked.
    """
    if not named:
        return
    source = F.col(quoted(column)).cast("string").alias("source")
    rows = df.where(is_kept()).select(source).where("source IS NOT NULL").distinct().limit(SOURCES + 1).collect()
    there = sorted(r["source"] for r in rows)
    if len(there) > SOURCES:
        return
    for option, names in named.items():
        name = unknown(names, there)
        if name is not None:
            hint = did_you_mean(name, there, cell)
            raise StepError(f"{option}: no record is of '{name}'{hint} (in '{column}': {few_of(there)})")


def unknown(names: Sequence[str], there: Collection[str]) -> str | None:
    """Return the first name of none of the sources that are there, where one of these is not named; else None.

    A source that brings no rows today may be named: where all that are there are named too, nothing is misspelt.
    """
    return next((name for name in names if name not in there), None) if set(there) - {*names} else None
