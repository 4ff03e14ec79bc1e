"""Rows of any source: typed values, identity, and the place of what cannot be read."""

import functools
import operator
from collections.abc import Mapping, Sequence
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import Window as W
from pyspark.sql import functions as F
from pyspark.sql import types as T

from headgate.jobs.config.models import FileSource
from headgate.jobs.sources.readers import CORRUPT, LINE, PROBLEM
from headgate.transforms.parsing import Marks, holds_days, outside, parsed, text_type, trimmed, without_ntz
from headgate.transforms.rows import (
    FILE,
    REJECTED,
    REJECTED_TYPE,
    ROW_ID,
    content_key,
    drop_values,
    quoted,
    row_id,
    struct_of,
    with_values,
)


def schema_of(source: Any) -> T.StructType:
    """The columns of a source's schema; all times are moments."""
    found = without_ntz(struct_of(source.columns))
    assert isinstance(found, T.StructType)
    return found


def text_schema(schema: T.StructType) -> T.StructType:
    """Return the columns that readers of text give: texts in place of plain values."""
    found = text_type(schema)
    assert isinstance(found, T.StructType)
    return found


def lacks(columns: Sequence[str]) -> Column:
    """Return whether a record lacks a value of its key; without a key, none does."""
    return functools.reduce(operator.or_, (F.col(quoted(c)).isNull() for c in columns), F.lit(False))


def numbered(rows: DataFrame, key: Sequence[str]) -> DataFrame:
    """Number the rows without a place in a file among those of their content, where nothing else tells them apart.

    These are malformed records and those that lack a value of their key; they are shuffled by a hash of their content.
    """
    apart = lacks(key) | F.col(CORRUPT).isNotNull()
    content = content_key(rows, [c for c in rows.columns if c not in (REJECTED, FILE)])
    nth = F.row_number().over(W.partitionBy(F.md5(content)).orderBy(F.lit(1))).cast("bigint")
    others = rows.where(~apart).withColumn(LINE, F.lit(None).cast("bigint"))
    return others.unionByName(rows.where(apart).withColumn(LINE, nth))


def typed(rows: DataFrame, schema: T.StructType, source: Any) -> DataFrame:
    """Rows of text with values of the schema's types; one with a text that is none has `REJECTED`.

    An empty cell of csv is null where the type is no text.
    """
    csv = getattr(source, "format", "") == "csv"
    marks = Marks(
        decimal=getattr(source, "decimal", "."),
        thousands=getattr(source, "thousands", ""),
        date_format=getattr(source, "date_format", None),
        timestamp_format=getattr(source, "timestamp_format", None),
    )
    texts = {f.name: F.col(quoted(f.name)) for f in schema}
    others = [f for f in schema if not isinstance(f.dataType, T.StringType)]
    for f in others if csv else ():
        texts[f.name] = F.when(trimmed(texts[f.name]) != "", texts[f.name])
    rows, made = with_values(rows, [parsed(texts[f.name], f.dataType, marks) for f in others])
    marked = []
    for f, value in zip(others, made, strict=True):
        given = texts[f.name].cast("string")
        evidence = {"column": F.lit(f.name), "value": given, "type": F.lit(f.dataType.simpleString())}
        fails = texts[f.name].isNotNull() & value.isNull()
        marked.append(F.when(fails, mark("wrong_type", evidence)))
    values = {f.name: value for f, value in zip(others, made, strict=True)}
    rejected = F.coalesce(*marked) if marked else F.lit(None).cast(REJECTED_TYPE)
    rows = rows.withColumns({REJECTED: rejected, **values})
    return drop_values(rows, made)


def with_identity(rows: DataFrame, table: str, schema: T.StructType, source: Any) -> DataFrame:
    """Rows of a source with `_row_id` and, for what cannot be read or held, `_hg_rejected`.

    A record that lacks a value of its key has the id of its content and its place, so that it is equal to no other.
    """
    malformed = F.col(CORRUPT).isNotNull()
    marks = [
        F.when(malformed, mark("malformed_record", {"text": F.col(CORRUPT), "problem": F.col(PROBLEM)})),
        F.col(REJECTED) if REJECTED in rows.columns else F.lit(None).cast(REJECTED_TYPE),
    ]
    days = [f for f in schema if holds_days(f.dataType)]
    for f in days:
        value = F.col(quoted(f.name))
        evidence = {"column": F.lit(f.name), "text": value.cast("string")}
        marks.append(F.when(outside(value, f.dataType), mark("unsupported_date", evidence)))
    declared = schema_of(source) if getattr(source, "columns", None) else ()
    for f in declared:
        if not f.nullable:
            marks.append(F.when(F.col(quoted(f.name)).isNull(), mark("null_value", {"column": F.lit(f.name)})))
    key, incomplete = list(source.key), lacks(source.key)
    if key and source.on_missing_key == "quarantine":
        marks.append(F.when(incomplete, mark("missing_key", {"key": F.lit(", ".join(key))})))
    # With the content of two records also their places must be the same: there is nothing else to tell them apart by.
    place = [FILE, LINE] if isinstance(source, FileSource) else [LINE]  # a page of an answer is no place that lasts
    placed = row_id(rows, f"{table} by place", [*schema.names, CORRUPT, *place])
    rejected = F.coalesce(*marks)
    identity = F.when(rejected.isNotNull() | incomplete, placed).otherwise(row_id(rows, table, key or schema.names))
    rows = rows.withColumns({ROW_ID: identity, REJECTED: rejected})
    # What no reader can hold stands in the ledger, as text.
    held = {f.name: F.when(F.col(REJECTED).isNull(), F.col(quoted(f.name))) for f in days}
    return rows.withColumns(held) if held else rows


def mark(reason: str, evidence: Mapping[str, Column]) -> Column:
    """A rejection by the ingestion, with the place of the record."""
    place = {"file": F.col(FILE), "line": F.col(LINE).cast("string")}
    pairs = [part for name, value in {**place, **evidence}.items() for part in (F.lit(name), value)]
    present = F.map_filter(F.create_map(*pairs), lambda _, value: value.isNotNull())
    fields = (F.lit("ingest").alias("step"), F.lit(reason).alias("reason"), present.alias("evidence"))
    return F.struct(*fields).cast(REJECTED_TYPE)
