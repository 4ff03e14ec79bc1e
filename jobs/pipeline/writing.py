"""What all writes by Spark share: fewer files, appends that may be repeated, and what a lost race looks like."""

import math
from collections.abc import Sequence

from delta.exceptions import base as delta_errors
from deltalake.exceptions import CommitFailedError
from py4j.protocol import Py4JJavaError
from pyspark.sql import DataFrame, DataFrameWriter

CONFLICTS = (
    delta_errors.DeltaConcurrentModificationException,
    delta_errors.ConcurrentWriteException,
    delta_errors.MetadataChangedException,
    delta_errors.ProtocolChangedException,
    delta_errors.ConcurrentAppendException,
    delta_errors.ConcurrentDeleteReadException,
    delta_errors.ConcurrentDeleteDeleteException,
    delta_errors.ConcurrentTransactionException,
)

MISSING = ("does not exist", "not found", "not_exist", "no such file", "path_not_found", "not a delta table")

TRIES = 5  # of an append that other runs may disturb and that is safe to repeat
FILE_BYTES = 64 << 20
SMALL_FILE_BYTES = 4 << 20


def append(writer: DataFrameWriter, path: str) -> None:
    """Append to a Delta table by a writer that carries a transaction, again where another run was in its way."""
    for last in (*[False] * (TRIES - 1), True):
        try:
            writer.save(path)
            return
        except Exception as e:
            if last or not is_conflict(e):
                raise


def is_conflict(error: BaseException) -> bool:
    """Whether Delta refused a commit because of another writer; some reach Python bare, as an error of py4j."""
    if isinstance(error, Py4JJavaError):
        return "io.delta.exceptions." in str(error.java_exception)
    return isinstance(error, CONFLICTS)


def comes_from_another_run(error: BaseException | None, folders: Sequence[str]) -> bool:
    """Whether an error, or what caused it, is a conflict, or a file that another run removed from these folders."""
    while error is not None:
        text = f"{error} {getattr(error, 'java_exception', '')}"
        gone = any(word in text.lower() for word in MISSING) and any(f in text for f in folders)
        if gone or is_conflict(error) or isinstance(error, CommitFailedError):
            return True
        error = error.__cause__
    return False


def few_files(rows: DataFrame, size: int) -> DataFrame:
    """Fewer, larger files without a shuffle; small tables are still written by all cores."""
    cores = rows.sparkSession.sparkContext.defaultParallelism
    return rows.coalesce(max(1, math.ceil(size / FILE_BYTES), min(cores, math.ceil(size / SMALL_FILE_BYTES))))
