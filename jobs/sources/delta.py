"""A Delta table as a source."""

from dataclasses import replace
from datetime import datetime, timezone

from deltalake.exceptions import DeltaError, TableNotFoundError
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from headgate.jobs.config.models import FileSource
from headgate.jobs.errors import InputMissing, first_line
from headgate.jobs.lake.storage import open_table
from headgate.jobs.sources.landing import LandedFile, absolute
from headgate.jobs.sources.readers import LINE, PLACES
from headgate.jobs.sources.rows import numbered
from headgate.transforms.parsing import ddl_of, without_ntz
from headgate.transforms.rows import FILE, quoted, struct_of


def list_delta(landing: str, source: FileSource) -> list[LandedFile]:
    """A Delta source as one file, whose size is its version: a new version replaces the rows of the one before."""
    path = f"{absolute(landing)}/{source.path}"
    try:
        delta = open_table(path)
    except TableNotFoundError:
        return []
    except (DeltaError, OSError) as e:
        raise InputMissing(f"{source.path}: this Delta table cannot be read: {first_line(e)}") from e
    at = datetime.fromtimestamp(delta.history(1)[0]["timestamp"] / 1000, tz=timezone.utc)
    mark = f"{delta.metadata().id} version {delta.version()}"
    return [LandedFile(source.path, None, delta.version(), at, sha256=mark)]


def with_delta_facts(spark: SparkSession, landing: str, file: LandedFile) -> LandedFile:
    """A Delta source with its columns and how many rows it has, as its log tells."""
    rows = read_delta(spark, absolute(landing), file)
    columns = {f.name: ddl_of(without_ntz(f.dataType)) for f in rows.schema.fields}
    return replace(file, columns=columns, records=rows.count())


def delta_rows(
    spark: SparkSession, landing: str, source: FileSource, file: LandedFile, schema: T.StructType
) -> DataFrame:
    rows = read_delta(spark, absolute(landing), file)
    have = set(rows.columns)
    cells = [(F.col(quoted(f.name)) if f.name in have else F.lit(None)).cast(f.dataType).alias(f.name) for f in schema]
    kinds = {f.name: f.dataType for f in struct_of(PLACES) if f.name != LINE}
    places = [F.lit(source.path if n == FILE else None).cast(kind).alias(n) for n, kind in kinds.items()]
    return numbered(rows.select(*cells, *places), source.key)


def read_delta(spark: SparkSession, root: str, file: LandedFile) -> DataFrame:
    return spark.read.format("delta").option("versionAsOf", file.size).load(f"{root}/{file.path}")
