"""Columns computed in Python, batch by batch in Arrow, and samples of rows drawn by hash."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas import functions

from headgate.transforms.rows import ROW_ID, stable_hash


def by_batches(function: Callable[..., pa.Array], returns: str, *cells: Column) -> Column:
    """Return a column that a function of Arrow arrays computes; it must treat each row alone.

    function: annotated with `pa.Array` for what it takes and gives. returns: the type of the column, as in DDL.
    """
    udf: Any = functions
    column: Column = udf.arrow_udf(function, returns)(*cells)
    return column


def drawn(df: DataFrame, cells: Column, most: int, seed: int) -> pa.StructArray:
    """Return the struct `cells` of the rows of the smallest hashes of their row id, in the order of these.

    Rows of one row id are ordered by their cells, so that it does not matter which of them come first. Cost: one pass;
    `most` rows come to the driver.
    """
    hashed = df.select(stable_hash(df, seed, [ROW_ID]).alias("_hg_hash"), F.col(ROW_ID), cells.alias("_hg_cells"))
    table = hashed.orderBy("_hg_hash", ROW_ID, "_hg_cells").limit(most).toArrow()
    return table["_hg_cells"].combine_chunks()


def matrix_of(cells: pa.StructArray) -> Any:
    """Return a struct of doubles as (n, k), NaN for null."""
    parts = [cells.field(i).to_numpy(zero_copy_only=False) for i in range(cells.type.num_fields)]
    return np.column_stack(parts).astype(float) if parts else np.empty((len(cells), 0))
