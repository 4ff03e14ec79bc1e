"""The system tables: their schemas, and what all small tables share."""

import contextlib
from datetime import datetime, timezone
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable

from headgate.jobs.lake.conflicts import is_conflict

TEXT, TEXTS, WHOLE, DAY = pa.string(), pa.list_(pa.string()), pa.int64(), pa.date32()
TIMESTAMP = pa.timestamp("us", tz="UTC")
PINNED = pa.list_(pa.struct([("table_name", TEXT), ("version", WHOLE)]))

DESCRIPTIONS = {
    "runs": "The starts and the ends of runs",
    "releases": "The versions of all tables of a pipeline that belong together",
    "metrics": "What the gate found: a row for each expectation, dimension and validation of a build",
    "lineage": "What builds were made of: a row for each input of a build",
    "files": "The files and pulls that raw tables took up",
    "confirmations": "Rows that were found good without being published again",
    "erasures": "The starts and the ends of erasures; an end is its certificate",
    "ledger": "The rows that were rejected, each with its reason and evidence",
}


def columns(*described: tuple[str, pa.DataType, str]) -> pa.Schema:
    """Return a schema whose columns carry comments, as Delta keeps them."""
    return pa.schema([pa.field(name, kind, metadata={"comment": comment}) for name, kind, comment in described])


SCHEMAS = {
    "runs": columns(
        ("run_id", TEXT, "The run"),
        ("pipeline", TEXT, "The pipeline's name"),
        ("event", TEXT, "started or finished"),
        ("status", TEXT, "running, succeeded, interrupted, terminated, abandoned, or the class of the error"),
        ("recorded_at", TIMESTAMP, "When it started or finished"),
        ("run_by", TEXT, "The user of the operating system"),
        ("as_of", DAY, "The day that the run was told to build as of"),
        ("release", TEXT, "The release that stands after the run"),
        ("seconds", pa.float64(), "How long the run took"),
        ("message", TEXT, "Of a run that failed: the error"),
        ("process", TEXT, "Of a start: host, process and when that began, by which a dead run is known"),
        ("tables", TEXT, "JSON: for each table rows in, made, published and rejected, and seconds of each phase"),
    ),
    "releases": columns(
        ("number", WHOLE, "Rises with every release of the lake"),
        ("release", TEXT, "The release's name"),
        ("pipeline", TEXT, "The pipeline's name"),
        ("run_id", TEXT, "The run that published it"),
        ("recorded_at", TIMESTAMP, "When it was published"),
        ("as_of", DAY, "The day that the run was told to build as of"),
        ("note", TEXT, "What made it, where that was no run"),
        ("tables", PINNED, "The version of each table"),
    ),
    "metrics": columns(
        ("run_id", TEXT, "The run"),
        ("table_name", TEXT, "The table that was judged"),
        ("build", TEXT, "The build that was judged"),
        ("recorded_at", TIMESTAMP, "When it was judged"),
        ("kind", TEXT, "expectation, dimension, validation, coverage, figure, fallback or arrival"),
        ("name", TEXT, "The type of the expectation, the dimension, the suite, or the figure"),
        ("columns", TEXTS, "The columns of the expectation"),
        ("dimension", TEXT, "The dimension of quality"),
        ("severity", TEXT, "critical, warning or info"),
        ("success", pa.bool_(), "Whether it held"),
        ("element_count", WHOLE, "How many rows or cells were looked at"),
        ("unexpected_count", WHOLE, "How many of them failed"),
        ("value", pa.float64(), "The observed value, or the share of a dimension's rules or cells that hold"),
        ("result", TEXT, "JSON: Great Expectations' own result, or what a figure is to be seen beside"),
    ),
    "lineage": columns(
        ("run_id", TEXT, "The run"),
        ("table_name", TEXT, "The table that was built"),
        ("build", TEXT, "The build"),
        ("input", TEXT, "A table or a source that it was made of"),
        ("input_version", WHOLE, "The pinned version of that table; null for a source"),
        ("as_of", DAY, "Rows of files of later days were left out"),
        ("steps", TEXT, "JSON: the steps with their options"),
        ("state", TEXT, "The key of the earlier build whose fitted state was applied; null where its steps learned"),
        ("columns", TEXT, "JSON: column -> the columns of the inputs whose values are in it"),
        ("joined", TEXT, "JSON: of those, the ones that a join brought"),
        ("brought", TEXT, "JSON: column -> table.column of the joins that brought them, as `_joined` names them"),
    ),
    "files": columns(
        ("table_name", TEXT, "The table that took it up"),
        ("path", TEXT, "The file below the landing folder, or the source"),
        ("date", DAY, "The day in its name"),
        ("size", WHOLE, "Its bytes"),
        ("modified", TIMESTAMP, "When it was last changed"),
        ("sha256", TEXT, "The SHA-256 of its content"),
        ("columns", TEXT, "JSON: the file's columns -> types"),
        ("watermark", TEXT, "Of a source that is asked for its rows: the highest so far"),
        ("records", WHOLE, "How many records it has"),
        ("problem", TEXT, "Why it was set aside"),
        ("recorded_at", TIMESTAMP, "When it was taken up"),
        ("base", WHOLE, "The table's version before the build that took it up"),
        ("build", TEXT, "The build that took it up"),
        ("run_id", TEXT, "The run"),
    ),
    "confirmations": columns(
        ("table_name", TEXT, "The table"),
        ("build", TEXT, "The build that published the rows"),
        ("run_id", TEXT, "The run"),
        ("recorded_at", TIMESTAMP, "When the rows were found good"),
        ("judge_key", TEXT, "A key of the suite, and of the tables that it reads, by which the rows are good"),
        ("build_key", TEXT, "The key of a later build that gave the same rows; null where none was made"),
        ("later_build", TEXT, "That build, of which the ledger has what it rejected"),
        ("inputs", TEXT, "JSON: of that build, table -> version and as_of"),
    ),
    "erasures": columns(
        ("erasure", TEXT, "The erasure"),
        ("event", TEXT, "started or finished"),
        ("recorded_at", TIMESTAMP, "When it started or finished"),
        ("run_by", TEXT, "The user of the operating system"),
        ("signed_by", TEXT, "Who answers for it"),
        ("reason", TEXT, "Why"),
        ("table_name", TEXT, "The table in which the rows were looked for"),
        ("asked_sha256", TEXT, "The SHA-256 of the condition or the keys, which may be personal"),
        ("row_ids", TEXTS, "The rows that were erased"),
        ("tables", TEXT, "JSON: table -> rows, cells and files; per version rows and content afterwards"),
        ("entries", TEXT, "JSON: build -> ledger entries that went"),
        ("landing", TEXTS, "The files that brought the rows, and may still hold them"),
        ("searched", WHOLE, "How many files were searched at the end for rows left over; none was found"),
        ("certificate", TEXT, "The SHA-256 of all of the above but the time"),
    ),
    "ledger": columns(
        ("run_id", TEXT, "The run"),
        ("build", TEXT, "The build that rejected the row"),
        ("table_name", TEXT, "The table that was built"),
        ("row_id", TEXT, "The _row_id of the row"),
        ("step", TEXT, "The step that rejected it, or gate"),
        ("reason", TEXT, "Why"),
        ("evidence", pa.map_(TEXT, TEXT), "What proves it: scores, thresholds, the row kept instead, failed rules"),
    ),
}

RETENTION = "interval 36500 days"
LASTING = {  # of tables with versions to come back to: `headgate vacuum` alone removes files, and nothing the log
    "delta.logRetentionDuration": RETENTION,
    "delta.deletedFileRetentionDuration": RETENTION,
    "delta.enableExpiredLogCleanup": "false",
    "delta.dataSkippingNumIndexedCols": "0",  # see `datafiles`: other writers keep no statistics of columns either
}
OPTIONS: dict[str, dict[str, Any]] = {  # of tables that are made otherwise than the others
    "ledger": {"partition_by": ["table_name"], "configuration": LASTING},
}

TABLE_NAME = r"^[a-z][a-z0-9_]*$"

SAME_CONTENT = "same content"  # the build of a file that was only touched

REARRANGING = ("OPTIMIZE", "VACUUM START", "VACUUM END")  # commits that change no row

SYSTEM_TABLES = tuple(SCHEMAS)

COMPACT_EVERY = 50  # commits to a system table
CHECKPOINT_EVERY = 10  # commits to any table, each of which a reader would ask for


def compact_now_and_then(delta: DeltaTable | None) -> None:
    if delta is None:
        return
    if delta.version() % COMPACT_EVERY == 0:
        compact(delta)
    elif delta.version() % CHECKPOINT_EVERY == 0:
        with contextlib.suppress(Exception):  # readers need none, they are only faster with it
            delta.create_checkpoint()


def compact(delta: DeltaTable) -> None:
    """Put the small files of a system table together, and its log behind a checkpoint."""
    try:
        delta.optimize.compact()
        delta.create_checkpoint()
    except Exception as e:  # a run that writes meanwhile wins; the next time will do
        if not is_conflict(e):
            raise


def now() -> datetime:
    return datetime.now(timezone.utc)
