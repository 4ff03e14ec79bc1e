"""The system tables: their schemas, and what all small tables share."""

from datetime import datetime, timezone

import pyarrow as pa
from deltalake import DeltaTable

from headgate.jobs.lake.conflicts import is_conflict

TIMESTAMP = pa.timestamp("us", tz="UTC")

PINNED = pa.list_(pa.struct([("table", pa.string()), ("version", pa.int64())]))


SCHEMAS = {
    "runs": pa.schema(
        [
            ("run_id", pa.string()),
            ("pipeline", pa.string()),
            ("event", pa.string()),  # started | finished
            ("status", pa.string()),  # running | succeeded | interrupted | terminated | abandoned | class of the error
            ("at", TIMESTAMP),
            ("user", pa.string()),
            ("as_of", pa.date32()),
            ("release", pa.string()),
            ("seconds", pa.float64()),
            ("message", pa.string()),
            ("process", pa.string()),  # of a start: host, process and when that began, by which a dead run is known
            ("tables", pa.string()),  # JSON: per table rows in, made, published, rejected, seconds of each phase
        ]
    ),
    "releases": pa.schema(
        [
            ("number", pa.int64()),
            ("release", pa.string()),
            ("pipeline", pa.string()),
            ("run_id", pa.string()),
            ("at", TIMESTAMP),
            ("as_of", pa.date32()),
            ("note", pa.string()),
            ("tables", PINNED),
        ]
    ),
    "metrics": pa.schema(
        [
            ("run_id", pa.string()),
            ("table", pa.string()),
            ("build", pa.string()),
            ("at", TIMESTAMP),
            ("kind", pa.string()),  # expectation | dimension
            ("name", pa.string()),
            ("columns", pa.list_(pa.string())),
            ("dimension", pa.string()),
            ("severity", pa.string()),
            ("success", pa.bool_()),
            ("element_count", pa.int64()),
            ("unexpected_count", pa.int64()),
            ("value", pa.float64()),  # observed value, or the share of a dimension's rules or cells that hold
            ("result", pa.string()),  # JSON: Great Expectations' own result
        ]
    ),
    "lineage": pa.schema(
        [
            ("run_id", pa.string()),
            ("table", pa.string()),
            ("build", pa.string()),
            ("input", pa.string()),
            ("input_version", pa.int64()),
            ("as_of", pa.date32()),
            ("steps", pa.string()),  # JSON: the steps with their options
            ("columns", pa.string()),  # JSON: column -> the columns of the inputs whose values are in it
            ("joined", pa.string()),  # JSON: of those, the ones that a join brought
        ]
    ),
    "files": pa.schema(
        [
            ("table", pa.string()),
            ("path", pa.string()),
            ("date", pa.date32()),
            ("size", pa.int64()),
            ("modified", TIMESTAMP),
            ("sha256", pa.string()),
            ("columns", pa.string()),  # JSON: the file's columns -> types
            ("watermark", pa.string()),  # of a source that is asked for its rows: the highest so far
            ("records", pa.int64()),  # how many
            ("problem", pa.string()),  # why the file was set aside
            ("at", TIMESTAMP),
            ("base", pa.int64()),  # the table's version before the build that took the file up
            ("build", pa.string()),
            ("run_id", pa.string()),
        ]
    ),
}

SCHEMAS["confirmations"] = pa.schema(
    [
        ("table", pa.string()),
        ("build", pa.string()),  # that published the rows
        ("run_id", pa.string()),
        ("at", TIMESTAMP),
        ("judge_key", pa.string()),  # of the suite, and the tables that it reads, by which the rows are good
        ("build_key", pa.string()),  # of a later build that gave the same rows; null where none was made
        ("inputs", pa.string()),  # JSON: of that build, table -> version and as_of
    ]
)
TABLE_NAME = r"^[a-z][a-z0-9_]*$"

SCHEMAS["erasures"] = pa.schema(
    [
        ("erasure", pa.string()),
        ("event", pa.string()),  # started | finished
        ("at", TIMESTAMP),
        ("user", pa.string()),
        ("signed_by", pa.string()),
        ("reason", pa.string()),
        ("table", pa.string()),
        ("asked_sha256", pa.string()),  # of what was asked for: the condition or the keys, which may be personal
        ("row_ids", pa.list_(pa.string())),
        ("tables", pa.string()),  # JSON: table -> rows, cells and files; per version rows and content afterwards
        ("entries", pa.string()),  # JSON: build -> ledger entries that went
        ("landing", pa.list_(pa.string())),  # files that brought the rows, and may still hold them
        ("searched", pa.int64()),  # files that were searched at the end for rows left over; none was found
        ("certificate", pa.string()),  # SHA-256 of all of the above
    ]
)

SAME_CONTENT = "same content"  # the build of a file that was only touched

REARRANGING = ("OPTIMIZE", "VACUUM START", "VACUUM END")  # commits that change no row

SYSTEM_TABLES = (*SCHEMAS, "ledger")

COMPACT_EVERY = 50  # commits to a system table


def compact_now_and_then(delta: DeltaTable | None) -> None:
    if delta is not None and delta.version() % COMPACT_EVERY == 0:
        compact(delta)


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
