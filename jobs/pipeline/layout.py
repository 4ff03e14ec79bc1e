"""The columns of a published table: the user's columns first, then headgate's bookkeeping, each with a comment."""

import re
from collections.abc import Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from headgate.expectations.gate import MASK
from headgate.transforms.rows import (
    CHANGED,
    CONTENT,
    FILE,
    FILE_DATE,
    JOINED,
    MADE,
    OWN,
    PARENTS,
    PUBLISHED,
    REJECTED,
    ROW_ID,
    SOURCE,
    quoted,
)

COMMENTS = {
    ROW_ID: "identity of the row: a hash of its source and its key or, without a key, its content",
    SOURCE: "the table that the row came from, of those that this table starts from",
    CHANGED: "the cells that steps changed: column and step",
    PARENTS: "ids of the rows that this row was made from; null for a row that arrived",
    JOINED: "rows of other tables whose cells a join put into this row",
    FILE: "the file or source that the row arrived with",
    FILE_DATE: "the day in that file's name, or of the run that asked for the row",
}


def published_columns(staged: DataFrame, raw: bool) -> list[str]:
    """Return what readers get of a staged table: its data, then the bookkeeping of identity, changes and parents."""
    left_out = {REJECTED, MADE, CONTENT} | (set() if raw else {FILE, FILE_DATE})
    there = [c for c in staged.columns if c not in left_out and not re.fullmatch(rf"{MASK}(_\d+)?", c)]
    return [*(c for c in there if c not in PUBLISHED), *(c for c in PUBLISHED if c in there)]


def shown(staged: T.StructType) -> T.StructType:
    """Return the columns of staged files that their table shows."""
    return T.StructType([f for f in staged.fields if not f.name.startswith(OWN)])


def laid_out(columns: Sequence[str]) -> list[Column]:
    """Return the columns to publish; Delta keeps the comments of the bookkeeping."""
    return [
        F.col(quoted(c)).alias(c, metadata={"comment": COMMENTS[c]}) if c in COMMENTS else F.col(quoted(c))
        for c in columns
    ]
