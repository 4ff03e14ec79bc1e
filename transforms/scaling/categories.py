"""The categories of columns: learned from the training rows, and found again in others."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.transforms.kinds import as_text, is_number, need_kinds, present
from headgate.transforms.rows import SPLIT
from headgate.transforms.step import Columns, StepError, require_columns

MOST = 100_000  # categories that a fitted step may hold: they are saved as JSON


def require_categories(columns: Sequence[str], have: Iterable[str]) -> None:
    """Raise `StepError` for columns that are not there, and for the split, by which training rows are known."""
    require_columns(columns, have)
    if not columns:
        raise StepError("columns: name one or more")
    if SPLIT in columns:
        raise StepError(f"columns: '{SPLIT}' tells which rows are learned from, and is not encoded")


def text_of(column: str, kind: str) -> Column:
    """Return a cell as the text of its category; null where it is null or NaN."""
    return as_text(present(column, kind), kind)


def texts_of(columns: Iterable[str], kinds: Mapping[str, str]) -> Column:
    """Return cells as a struct of texts of their categories."""
    return F.struct(*(text_of(c, kinds[c]).alias(f"c{i}") for i, c in enumerate(columns)))


def count_categories(df: DataFrame, columns: Sequence[str], step: str) -> dict[str, dict[str | None, int]]:
    """Return how many rows each category of each column has; nulls under None.

    Raises `StepError` for more than 100,000 categories in all. Cost: one aggregate.
    """
    kinds = dict(df.dtypes)
    cells = [F.struct(F.lit(i).alias("place"), text_of(c, kinds[c]).alias("text")) for i, c in enumerate(columns)]
    counted = df.select(F.explode(F.array(*cells)).alias("c")).groupBy("c.place", "c.text").count()
    rows = counted.limit(MOST + 1).collect()
    if len(rows) > MOST:
        raise StepError(f"{step}: {', '.join(columns)} have more than {MOST:,} categories")
    found: dict[str, dict[str | None, int]] = {c: {} for c in columns}
    for place, text, n in rows:
        found[columns[place]][text] = n
    return found


def in_order(texts: Iterable[str], kind: str) -> list[str]:
    """Return categories in the order of their values: numbers by size, others as texts."""
    if not is_number(kind):
        return sorted(texts)
    return sorted(texts, key=lambda t: (Decimal(t), t))


def code_of(texts: Sequence[str]) -> Callable[[pa.Array], Any]:
    """Return the function of an array of texts that gives the place of each in `texts`, -1 where it has none."""
    known = pa.array(texts, pa.string())

    def codes(cells: pa.Array) -> Any:
        found = pc.index_in(cells, value_set=known, skip_nulls=True)
        return pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)

    return codes


def need_categories(have: DataFrame | Columns, step: str, columns: Iterable[str]) -> None:
    need_kinds(have, step, columns, numbers=False)
