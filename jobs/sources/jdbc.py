"""Databases, read through JDBC."""

from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from headgate.jobs.config.models import JdbcSource
from headgate.jobs.errors import InputMissing, UsageError
from headgate.jobs.sources.base import source_name
from headgate.transforms.parsing import without_ntz
from headgate.transforms.rows import quoted
from headgate.words import did_you_mean

UNBOUNDED = T.DecimalType(38, 18)  # what Spark takes a number without precision and scale for

DRIVERS = {"jdbc:postgresql:": "org.postgresql.Driver"}  # that headgate brings; others come by `spark.jars`


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
        jvm: Any = spark.sparkContext._jvm
        dialects = jvm.org.apache.spark.sql.jdbc.JdbcDialects
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
            hint = did_you_mean(source.partition_by, rows.columns)
            raise UsageError(f"{source_name(source)}: there is no column '{source.partition_by}'{hint}")
        by = quoted(source.partition_by)
        ends = rows.agg(F.min(by).cast("string").alias("low"), F.max(by).cast("string").alias("high")).collect()[0]
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
