"""Sources that are asked for their rows: databases by JDBC, HTTP APIs, Python functions of the user's own.

What a night gets is written once, to the staging area; all that follows reads those bytes, so that a source that
answers differently when asked again cannot make a run disagree with itself. The highest watermark is that of the rows
that arrived, never a clock's.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from jobs.config import HttpSource, JdbcSource, PythonSource
from jobs.errors import HeadgateError, InputMissing, UsageError, source_failure
from jobs.readers import CORRUPT, PROBLEM, json_part
from jobs.records import function_reader, pages_reader, request_of
from jobs.sources import numbered, schema_of, text_schema, typed
from transforms.parsing import within, without_ntz
from transforms.rows import FILE, content_key, is_own, quoted
from transforms.step import nearest

MARKS = (T.NumericType, T.DateType, T.TimestampType)  # types of a watermark
UNBOUNDED = T.DecimalType(38, 18)  # what Spark takes a number without precision and scale for
DRIVERS = {"jdbc:postgresql:": "org.postgresql.Driver"}  # that headgate brings; others come by `spark.jars`


def source_name(source: JdbcSource | HttpSource | PythonSource) -> str:
    """How the source is called in the table of files, in `_file` and in messages; it holds no secret."""
    if isinstance(source, JdbcSource):
        return f"jdbc:{source.table or 'query'}"
    return source.url if isinstance(source, HttpSource) else f"python:{source.function}"


@dataclass(frozen=True)
class Pull:
    """What a source gave: its columns, `PLACES`, `_hg_rejected`; and where the next run begins."""

    rows: DataFrame
    schema: T.StructType
    sha256: str
    watermark: str | None


def pull(
    spark: SparkSession, source: JdbcSource | HttpSource | PythonSource, code: str | None, after: str | None, to: str
) -> Pull:
    """Ask a source for what is new and write it to the folder `to`; raises `InputMissing` where it cannot be read.

    after: the highest watermark of the runs before. Cost: what the source sends; one pass over it for its hash, and a
    shuffle of the records that lack a value of their key.
    """
    if after is not None:
        after = lowered(spark, source, after)
    name = source_name(source)
    try:
        if isinstance(source, JdbcSource):
            asked, schema = ask_jdbc(spark, source, after)
        else:
            asked, schema = ask(spark, source, code, after), schema_of(source)
        for option, columns in (("watermark", [source.watermark] if source.watermark else []), ("key", source.key)):
            for column in columns:
                if column not in schema.names:
                    hint = nearest(column, schema.names)
                    raise UsageError(f"{name}: {option}: there is no column '{column}'{hint}")
        if source.watermark and not isinstance(kind_of(schema, source.watermark), MARKS):
            kind = kind_of(schema, source.watermark).simpleString()
            raise UsageError(
                f"{name}: watermark: '{source.watermark}' is {kind}; a watermark is a number, a date or a time"
            )
        own = next(filter(is_own, schema.names), None)
        if own is not None:
            raise InputMissing(f"{name}: its column '{own}' has a name that is headgate's own")
        places = {n: F.lit(None).cast("string") for n in (CORRUPT, PROBLEM) if n not in asked.columns}
        asked = asked.withColumns({**places, **({} if FILE in asked.columns else {FILE: F.lit(name)})})
        asked.write.mode("overwrite").parquet(to)
    except PySparkException as e:
        raise InputMissing(f"{name}: {told(e)}") from e
    except Exception as e:
        if isinstance(e, HeadgateError):
            raise
        raise InputMissing(f"{name}: {told(e)}") from e
    stored = spark.read.schema(asked.schema).parquet(to)
    rows = numbered(stored, source.key)
    texts = T.StructType([f for f in schema if asked.schema[f.name].dataType != f.dataType])
    rows = typed(rows, texts, source) if texts.fields else rows
    content = content_key(stored, [c for c in stored.columns if c != FILE])
    mark = mark_of(schema, source.watermark) if source.watermark else F.lit(None)
    sums = stored.agg(F.count("*").alias("n"), F.sum(F.xxhash64(content).cast("decimal(38,0)")).alias("h")).first()
    seen = rows.agg(F.max(mark).cast("string").alias("w")).first()
    return Pull(rows, schema, f"{sums['n']} rows {sums['h']}", seen["w"])


def kind_of(schema: T.StructType, column: str) -> T.DataType:
    return schema[column].dataType


def mark_of(schema: T.StructType, column: str) -> Column:
    """A watermark, null where it is none that others could be higher than: NaN, an infinity, a day beyond 9999."""
    value, kind = F.col(quoted(column)), kind_of(schema, column)
    if isinstance(kind, T.DoubleType | T.FloatType):
        return F.when(~F.isnan(value) & (F.abs(value) < F.lit(float("inf"))), value)
    return within(value, kind.simpleString()) if isinstance(kind, T.DateType | T.TimestampType) else value


def lowered(spark: SparkSession, source: JdbcSource | HttpSource | PythonSource, watermark: str) -> str:
    """A watermark less the source's look-back."""
    if source.look_back == "0":
        return watermark
    if re.fullmatch(r"[\d.]+", source.look_back):
        value = F.lit(watermark).cast("decimal(38,6)") - F.lit(source.look_back).cast("decimal(38,6)")
        return str(spark.range(1).select(value.alias("v")).first()["v"].normalize().__format__("f"))
    amount, unit = source.look_back.split()
    value = F.lit(watermark).cast("timestamp") - F.make_interval(**{f"{unit.rstrip('s')}s": F.lit(int(amount))})
    return spark.range(1).select(value.cast("string").alias("v")).first()["v"]


def told(error: Exception) -> str:
    """The line of an error that a person can act on."""
    text = str(error)
    marked = source_failure(error)
    if marked is not None:
        return str(marked)
    cause = re.search(r"Caused by: [\w.$]+: (.*)|(?:PSQLException|SQLException): (.*)", text)
    return (cause[1] or cause[2]) if cause else text.splitlines()[0]


def ask_jdbc(spark: SparkSession, source: JdbcSource, after: str | None) -> tuple[DataFrame, T.StructType]:
    """Rows of a database whose watermark is `after` or higher, in parts where the source says by what to part them.

    Numbers without a scale of their own come as text, since Spark would round them; the schema says what they are.
    """
    options = {"url": source.url, "fetchsize": str(source.fetch_size)}
    driver = source.driver or next((d for prefix, d in DRIVERS.items() if source.url.startswith(prefix)), None)
    if driver:
        options["driver"] = driver
    for name in ("user", "password"):
        reference = getattr(source, name)
        if reference is not None:
            options[name] = reference.read(f"source.{name}")
    if source.query is not None:
        relation = f"({source.query}) AS asked"
    else:
        dialects = spark.sparkContext._jvm.org.apache.spark.sql.jdbc.JdbcDialects
        quote = dialects.get(source.url).quoteIdentifier
        relation = ".".join(quote(part) for part in str(source.table).split("."))
    rows = spark.read.format("jdbc").options(**options).option("dbtable", relation).load()
    schema = T.StructType([T.StructField(f.name, without_ntz(f.dataType)) for f in rows.schema])
    clock = next((f.name for f in rows.schema if f.metadata.get("logical_time_type")), None)
    if clock is not None:
        raise InputMissing(
            f"{source_name(source)}: its column '{clock}' is a time of day, which no table can hold; make it a text by "
            "source.query"
        )
    apart = (source.watermark, source.partition_by)
    exact = [f.name for f in schema if f.dataType == UNBOUNDED and f.name not in apart]
    if exact:
        options["customSchema"] = ", ".join(f"{quoted(c)} STRING" for c in exact)
        rows = spark.read.format("jdbc").options(**options).option("dbtable", relation).load()
    rows = newer(rows, source, after)
    if source.partition_by:
        if source.partition_by not in rows.columns:
            hint = nearest(source.partition_by, rows.columns)
            raise UsageError(f"{source_name(source)}: there is no column '{source.partition_by}'{hint}")
        by = quoted(source.partition_by)
        ends = rows.agg(F.min(by).cast("string").alias("low"), F.max(by).cast("string").alias("high")).first()
        if ends["low"] is not None:
            parts = {
                "partitionColumn": source.partition_by,
                "lowerBound": ends["low"],
                "upperBound": ends["high"],
                "numPartitions": str(source.partitions),
            }
            reader = spark.read.format("jdbc").options(**options, **parts).option("dbtable", relation)
            rows = newer(reader.load(), source, after)
    kinds = {f.name: T.StringType() if f.name in exact else f.dataType for f in schema}
    return rows.select(*(F.col(quoted(n)).cast(kind).alias(n) for n, kind in kinds.items())), schema


def newer(rows: DataFrame, source: JdbcSource, after: str | None) -> DataFrame:
    if after is None or source.watermark not in rows.columns:
        return rows
    kind = rows.schema[source.watermark].dataType
    return rows.where(F.col(quoted(source.watermark)) >= F.lit(after).cast(kind))


def ask(spark: SparkSession, source: HttpSource | PythonSource, code: str | None, after: str | None) -> DataFrame:
    """Records of an HTTP API or a Python function, each a text of JSON, read as the source's columns."""
    if isinstance(source, HttpSource):
        reader = pages_reader(request_of(source, after))
    else:
        path, _, function = source.function.partition(":")
        reader = function_reader(str(code), path, function, after)
    spark.dataSource.register(reader)
    texts = spark.read.format(reader.name()).load()
    schema = text_schema(schema_of(source))
    places = [T.StructField(n, T.StringType()) for n in (CORRUPT, PROBLEM, FILE)]
    strict = isinstance(source, PythonSource)  # what an API adds is said to be left out; one's own code is misspelt
    return texts.mapInArrow(records_as(schema, source_name(source), strict), T.StructType([*schema.fields, *places]))


def records_as(
    schema: T.StructType, name: str, strict: bool
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """For `mapInArrow`: JSON texts and their places to the columns of a schema, as text."""

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.num_rows:
                values, places = (column.to_pylist() for column in batch.columns)
                columns, corrupt, problems, _ = json_part(values, schema, [], strict)
                tail = [corrupt, problems, [f"{name}{place}" for place in places]]
                arrays = [*columns, *(pa.array(t, pa.string()) for t in tail)]
                yield pa.RecordBatch.from_arrays(arrays, [*schema.names, CORRUPT, PROBLEM, FILE])

    return read
