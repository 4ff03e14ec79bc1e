"""Writes by Spark: fewer files, appends that may be repeated, and what a lost race looks like."""

import math
from collections.abc import Sequence

from pyspark.sql import DataFrame, DataFrameWriter

from headgate.jobs.lake.conflicts import is_conflict, retrying

MISSING = ("does not exist", "not found", "not_exist", "no such file", "path_not_found", "not a delta table")

FILE_BYTES = 64 << 20
SMALL_FILE_BYTES = 4 << 20


def append(writer: DataFrameWriter, path: str) -> None:
    """Append to a Delta table by a writer that carries a transaction, again where another run was in its way."""
    for attempt in retrying():
        with attempt:
            writer.save(path)


def comes_from_another_run(error: BaseException | None, folders: Sequence[str]) -> bool:
    """Return whether an error or a cause of it is a conflict, or a file of these folders that another run removed."""
    while error is not None:
        text = f"{error} {getattr(error, 'java_exception', '')}"
        gone = any(word in text.lower() for word in MISSING) and any(f in text for f in folders)
        if gone or is_conflict(error):
            return True
        error = error.__cause__
    return False


def few_files(rows: DataFrame, size: int) -> DataFrame:
    """Fewer, larger files without a shuffle; small tables are still written by all cores."""
    cores = rows.sparkSession.sparkContext.defaultParallelism
    return rows.coalesce(max(1, math.ceil(size / FILE_BYTES), min(cores, math.ceil(size / SMALL_FILE_BYTES))))
