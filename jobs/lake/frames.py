"""The rows of a lake's tables as DataFrames: the data files that the log names, read by Spark's own Parquet reader.

Spark's Delta reader would run jobs of its own to put the log together, for each table and version anew.
"""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from deltalake import DeltaTable

from headgate.jobs.errors import HeadgateError
from headgate.jobs.lake.dataset import need_readable
from headgate.jobs.lake.folder import Folder
from headgate.jobs.lake.transaction import paths

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def frame(spark: "SparkSession", lake: Folder, table: str, version: int) -> "DataFrame":
    """Return the rows of a version of a table; raise `InputMissing` where there is none."""
    return frame_at(spark, lake.open(table, version) or lake.need_table(table), lake.path(table))


def frame_at(spark: "SparkSession", delta: DeltaTable, path: str) -> "DataFrame":
    """Return the rows of an open version of the Delta table at a path."""
    try:
        need_readable(delta)
        plain = not delta.metadata().partition_columns
    except HeadgateError:
        plain = False
    if not plain:  # another writer's: its files alone do not tell its rows
        return spark.read.format("delta").option("versionAsOf", delta.version()).load(path)
    return parquet(spark, json.loads(delta.schema().to_json()), [f"{path}/{unquote(p)}" for p in paths(delta)])


def parquet(spark: "SparkSession", schema: dict[str, Any], files: Iterable[str]) -> "DataFrame":
    """Return the rows of Parquet files under a schema, given as Spark's JSON; names are taken as they are.

    A column that a file lacks is null, and one that the schema lacks is passed over.
    """
    from pyspark.sql import types as T

    kind, named = T.StructType.fromJson(schema), list(files)
    if not named:
        return spark.createDataFrame([], kind)
    # Neither patterns in the names of folders, nor partitions told by them.
    reader = spark.read.schema(kind).option("recursiveFileLookup", "true").option("__globPaths__", "false")
    return reader.parquet(*named)
