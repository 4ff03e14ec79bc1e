"""Pull-based sources: databases by JDBC, HTTP APIs, Python functions of the user's own.

What a run gets is written once, to the staging area; all that follows reads those bytes, so that a source that
answers differently when asked again cannot make a run disagree with itself. The highest watermark is that of the rows
that arrived, never a clock's.
"""

import re

from py4j.protocol import Py4JError
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from headgate.jobs.config.models import HttpSource, JdbcSource, PythonSource
from headgate.jobs.errors import InputMissing, UsageError, causes, first_line, source_failure, storage_failure, texts_of
from headgate.jobs.lake.sessions import need_classic
from headgate.jobs.sources.base import PullResult, source_name
from headgate.jobs.sources.http import pages_reader, request_of
from headgate.jobs.sources.jdbc import ask_jdbc
from headgate.jobs.sources.python import function_reader
from headgate.jobs.sources.readers import CORRUPT, PROBLEM
from headgate.jobs.sources.records import records_as
from headgate.jobs.sources.rows import numbered, schema_of, text_schema, typed
from headgate.transforms.parsing import within
from headgate.transforms.rows import FILE, content_key, is_own, quoted
from headgate.words import cell, did_you_mean

# Java's errors of drivers and networks, and of a driver that is not there.
OF_A_SOURCE = r"(?:java\.net\.[\w$.]+|[\w$.]*(?:SQL|jdbc)[\w$.]*Exception|java\.lang\.ClassNotFoundException)"
MARKS = (T.NumericType, T.DateType, T.TimestampType)  # types of a watermark


def pull(
    spark: SparkSession, source: JdbcSource | HttpSource | PythonSource, code: str | None, after: str | None, to: str
) -> PullResult:
    """Ask a source for what is new and write it to the folder `to`; raises `InputMissing` where it cannot be read.

    after: the highest watermark of the runs before. Cost: what the source sends; one pass over it for its hash, and a
    shuffle of the records that lack a value of their key.
    """
    need_classic(spark, f"the source {source_name(source)}")  # its secrets would be in what the server logs
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
                    hint = did_you_mean(column, schema.names)
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
    except (PySparkException, Py4JError) as e:
        why = reason_of(e)
        if why is None or storage_failure(e, "") is not None:
            raise
        raise InputMissing(f"{name}: {why}") from e
    stored = spark.read.schema(asked.schema).parquet(to)
    rows = numbered(stored, source.key)
    texts = T.StructType([f for f in schema if asked.schema[f.name].dataType != f.dataType])
    rows = typed(rows, texts, source) if texts.fields else rows
    content = content_key(stored, [c for c in stored.columns if c != FILE])
    mark = mark_of(schema, source.watermark) if source.watermark else F.lit(None)
    total = F.sum(F.xxhash64(content).cast("decimal(38,0)"))
    ((count, total_hash),) = stored.agg(F.count("*"), total).collect()
    ((highest,),) = rows.agg(F.max(mark).cast("string")).collect()
    return PullResult(rows, schema, f"{count} rows {total_hash}", highest)


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
        return f"{spark.range(1).select(value).collect()[0][0].normalize():f}"
    amount, unit = source.look_back.split()
    value = F.lit(watermark).cast("timestamp") - F.make_interval(**{f"{unit.rstrip('s')}s": F.lit(int(amount))})
    return str(spark.range(1).select(value.cast("string")).collect()[0][0])


def reason_of(error: Exception) -> str | None:
    """Return what a source, a driver or a network says of what cannot be read; None where it is another error."""
    marked = source_failure(error)
    if marked is not None:
        return str(marked)
    texts = "\n".join(text for e in causes(error) for text in texts_of(e))
    said = re.findall(rf"^(?:Caused by: )?{OF_A_SOURCE}(?:: (.*))?$", texts, re.MULTILINE)
    if not said and not isinstance(error, AnalysisException):  # of columns and types that Spark does not take
        return None
    return cell(next(filter(None, said), first_line(error)))


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
