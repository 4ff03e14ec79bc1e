"""Columns computed in Python, batch by batch in Arrow."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
from pyspark.sql import Column
from pyspark.sql.pandas import functions


def by_batches(function: Callable[..., pa.Array], returns: str, *cells: Column) -> Column:
    """Return a column that a function of Arrow arrays computes; it must treat each row alone.

    function: annotated with `pa.Array` for what it takes and gives. returns: the type of the column, as in DDL.
    """
    udf: Any = functions
    column: Column = udf.arrow_udf(function, returns)(*cells)
    return column
