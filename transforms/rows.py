"""The bookkeeping of rows: identity, rejection, changed cells, parents, split.

Steps mark rows and never drop them, so that every row that came in can be accounted for.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T
from pyspark.sql.pandas.types import to_arrow_schema

OWN = "_hg_"  # starts every name that headgate needs beside a user's columns while it works
ROW_ID = "_row_id"
REJECTED = "_hg_rejected"
CHANGED = "_changed"
PARENTS = "_parents"
JOINED = "_joined"  # rows of other tables whose cells a join put into the row; only where a table joins
CONTENT = "_hg_content"  # a hash of what is published of the row; only while staged
MADE = "_hg_made"  # the step that made the row in this build; only while staged
FILE = "_file"
FILE_DATE = "_file_date"
SOURCE = "_source"  # of a table that starts from several: the one that a row came from
SPLIT = "split"
TRAIN = "train"

REJECTED_TYPE = "struct<step:string,reason:string,evidence:map<string,string>>"
CHANGED_TYPE = "array<struct<column:string,step:string>>"
PUBLISHED = (ROW_ID, SOURCE, CHANGED, PARENTS, JOINED, FILE, FILE_DATE)  # bookkeeping that readers of a table see
BOOKKEEPING = {
    ROW_ID: "string",
    REJECTED: REJECTED_TYPE,
    CHANGED: CHANGED_TYPE,
    PARENTS: "array<string>",
    MADE: "string",
}


def with_bookkeeping(df: DataFrame) -> DataFrame:
    """Add the bookkeeping columns that are not there yet; `_changed` starts as an empty list, the others as null."""
    columns = {name: F.lit(None).cast(t) for name, t in BOOKKEEPING.items() if name not in df.columns}
    if CHANGED in columns:
        columns[CHANGED] = F.array().cast(CHANGED_TYPE)
    return with_columns(df, columns)


def with_columns(df: DataFrame, columns: Mapping[str, Column]) -> DataFrame:
    """Add or replace columns, of which there may be none: Spark Connect takes no empty list of them."""
    return df.withColumns(dict(columns)) if columns else df


def struct_of(ddl: str) -> T.StructType:
    """Return columns that are written as DDL."""
    return cast(T.StructType, T.StructType.fromDDL(ddl))


def local_frame(spark: SparkSession, rows: Sequence[Sequence[Any]], columns: str) -> DataFrame:
    """The few rows that the driver knows as a DataFrame; `columns` as in DDL. No Python worker is asked for them."""
    schema = struct_of(columns)
    cells = zip(*rows, strict=True) if rows else [()] * len(schema)
    wanted = to_arrow_schema(schema)
    table = pa.Table.from_arrays([pa.array(c, f.type) for c, f in zip(cells, wanted, strict=True)], schema=wanted)
    return spark.createDataFrame(table, schema)


def arrow_frame(spark: SparkSession, table: pa.Table) -> DataFrame:
    """Return rows that the driver holds as a DataFrame."""
    return spark.createDataFrame(table)


def is_own(name: str) -> bool:
    """Return whether a column's name is headgate's: no user's column may have it, in any case of its letters."""
    return name.lower().startswith(OWN) or name.lower() in PUBLISHED


def canonical(value: Column, kind: T.DataType) -> Column:
    """Return a value as text that is equal exactly for equal values of its type, whatever stands beside it.

    A type's letter and a length come before each plain value, a size before an array; a null is '-'. So neither "a, b"
    and ["a", "b"], nor [null] and ["null"], nor null and a struct of nulls, nor 7 and '7' are one. -0.0 is 0.0, NaN is
    NaN, whole numbers of any width are of one type, and the order of a map's entries makes no difference.
    """
    if isinstance(kind, T.StructType):
        inside = [canonical(value.getField(f.name), f.dataType) for f in kind.fields]
        text = F.when(value.isNotNull(), F.concat(F.lit("("), *inside, F.lit(")")))
    elif isinstance(kind, T.ArrayType):
        text = listed("[", F.transform(value, lambda x: canonical(x, kind.elementType)))
    elif isinstance(kind, T.MapType):
        entry = lambda x: F.concat(canonical(x["key"], kind.keyType), canonical(x["value"], kind.valueType))  # noqa: E731
        text = listed("<", F.array_sort(F.transform(F.map_entries(value), entry)))
    else:
        plain, tag = value.cast("string"), kind.typeName()[0]
        if isinstance(kind, T.DoubleType | T.FloatType):
            plain, tag = (value + F.lit(0.0).cast(kind)).cast("string"), "f"
        elif isinstance(kind, T.IntegralType):
            tag = "i"
        elif isinstance(kind, T.BinaryType):
            plain, tag = F.hex(value), "x"
        elif isinstance(kind, T.DecimalType | T.DateType):
            tag = kind.typeName()[:2]
        text = F.concat(F.lit(tag), F.length(plain).cast("string"), F.lit(":"), plain)
    return F.coalesce(text, F.lit("-"))


def listed(opens: str, parts: Column) -> Column:
    return F.concat(F.lit(opens), F.size(parts).cast("string"), F.lit(":"), F.array_join(parts, ""))


def content_key(df: DataFrame, columns: Iterable[str], *texts: Column) -> Column:
    """Return one text that is equal exactly for equal tuples of the given texts and of columns of `df`."""
    kinds = {f.name: f.dataType for f in df.schema.fields}
    parts = [canonical(t, T.StringType()) for t in texts]
    return F.concat(*parts, *(canonical(F.col(quoted(c)), kinds[c]) for c in columns))


def row_id(df: DataFrame, source: str, columns: Iterable[str]) -> Column:
    """Return the identity of a record: the MD5 (128 bits, hexadecimal) of the source's name and the given columns.

    The same record delivered twice has the same identity; nothing of the physical layout enters it.
    """
    return F.md5(content_key(df, columns, F.lit(source)))


def quoted(column: str) -> str:
    """A column name as Spark reads it literally, dots and backquotes included."""
    return "`" + column.replace("`", "``") + "`"


def is_kept() -> Column:
    return F.col(REJECTED).isNull()


@dataclass(frozen=True)
class Rejection:
    """A rule that marks rows: when, why, and what shows it. A null condition marks nothing."""

    when: Column
    reason: str
    evidence: Mapping[str, Column]

    def mark(self, step: str) -> Column:
        pairs = [x for name, value in self.evidence.items() for x in (F.lit(name), value.cast("string"))]
        evidence = F.create_map(*pairs) if pairs else F.lit(None).cast("map<string,string>")
        fields = (F.lit(step).alias("step"), F.lit(self.reason).alias("reason"), evidence.alias("evidence"))
        return F.when(self.when, F.struct(*fields).cast(REJECTED_TYPE))


def reject(df: DataFrame, step: str, *rejections: Rejection) -> DataFrame:
    """Mark the unmarked rows to which a rejection applies; the first that does gives the reason."""
    # One expression for all of them: a chain of columns, each reading the last, takes seconds to plan.
    return df.withColumn(REJECTED, F.coalesce(F.col(REJECTED), *(r.mark(step) for r in rejections)))


def with_values(df: DataFrame, values: Sequence[Column]) -> tuple[DataFrame, list[Column]]:
    """Add values as columns of headgate's own, so that each is made once, however often read; see `drop_values`."""
    names = [f"{OWN}value_{i}" for i in range(len(values))]
    return with_columns(df, dict(zip(names, values, strict=True))), [F.col(n) for n in names]


def drop_values(df: DataFrame, values: Sequence[Column]) -> DataFrame:
    """Return the rows without the columns that `with_values` added."""
    return df.drop(*(f"{OWN}value_{i}" for i in range(len(values))))


def change_cells(df: DataFrame, step: str, values: Mapping[str, Column], changes: Mapping[str, Column]) -> DataFrame:
    """Replace columns by `values`, noting in `_changed` the cells where the condition of `changes` is true."""
    nothing = F.array().cast(CHANGED_TYPE)
    entries = [
        F.when(when, F.array(F.struct(F.lit(column).alias("column"), F.lit(step).alias("step")))).otherwise(nothing)
        for column, when in changes.items()
    ]
    return df.withColumns({CHANGED: F.concat(F.col(CHANGED), *entries), **values})


JOINED_TYPE = "array<struct<table:string,row_id:string,columns:array<string>>>"


def content_hash(df: DataFrame, columns: Iterable[str]) -> Column:
    """A 64-bit hash (xxHash64) of a row's cells with their columns' names; the order of columns changes none.

    xxHash64 passes over nulls, so each column's null is told apart, and nested values are hashed as `canonical` text;
    not so the lists of headgate's own, in which there are no nulls: with their size they are hashed as they are.
    """
    fields = {f.name: f for f in df.schema.fields}
    parts: list[Column] = []
    for name in sorted(columns):
        value, kind = F.col(quoted(name)), fields[name].dataType
        nested = isinstance(kind, T.StructType | T.ArrayType | T.MapType)
        parts += [F.lit(name), value.isNull()]  # also where it cannot be null: the table read again does not tell
        if nested and name in PUBLISHED:
            parts += [F.size(value), value]
        else:
            parts.append(canonical(value, kind) if nested else value)
    return F.xxhash64(*parts)


def hash_sum(hashes: Column) -> Column:
    """The sum of hashes as a struct of two sums that cannot overflow; `total_of` puts them together."""
    low = F.lit(0xFFFFFFFF).cast("bigint")
    return F.struct(
        F.coalesce(F.sum(F.shiftright(hashes, 32)), F.lit(0)).alias("high"),
        F.coalesce(F.sum(hashes.bitwiseAND(low)), F.lit(0)).alias("low"),
    )


def total_of(high: int, low: int) -> int:
    """The sum of hashes modulo 2^64: it does not depend on the order of rows, and rows can be added and taken away."""
    return ((high << 32) + low) % (1 << 64)


def training_rows(df: DataFrame) -> DataFrame:
    """The rows that steps may learn from: unmarked, and of the training split where there is one."""
    return df.where(is_training(df))


def is_training(df: DataFrame) -> Column:
    """Return whether a row is unmarked and, where there is a split, of the training split."""
    return is_kept() & (F.col(SPLIT) == TRAIN) if SPLIT in df.columns else is_kept()


def stable_hash(df: DataFrame, seed: int, columns: Iterable[str]) -> Column:
    """Return a uniform 64-bit hash of a stable key and a seed, the same in any partitioning."""
    return F.xxhash64(F.lit(seed).cast("long"), content_key(df, columns))


def content_of(rows: DataFrame) -> tuple[int, str]:
    """Return how many rows there are, and the sum of their hashes: one pass."""
    found = rows.agg(F.count("*").alias("n"), hash_sum(content_hash(rows, rows.columns)).alias("s")).collect()[0]
    return found["n"], f"{total_of(*found['s']):016x}"
