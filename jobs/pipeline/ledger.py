"""The ledger: every row that was rejected, with its step, its reason and its evidence."""

import json

import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.jobs.errors import HeadgateError
from headgate.jobs.lake.lake import Lake
from headgate.jobs.pipeline.writing import append, few_files
from headgate.transforms.rows import REJECTED, ROW_ID

LEDGER_COLUMNS = {
    "run_id": "string",
    "build": "string",
    "table": "string",
    "row_id": "string",
    "step": "string",
    "reason": "string",
    "evidence": "map<string,string>",
}


def write_ledger(lake: Lake, entries: DataFrame, *, run_id: str, build: str, table: str, expected: int) -> None:
    """Append the rejected rows of a build to the ledger, once however often it is tried.

    entries: row_id, step, reason, evidence. Raises `HeadgateError` if other than `expected` rows were written.
    """
    path = lake.path("ledger")
    constants = {"run_id": run_id, "build": build, "table": table}
    rows = entries.withColumns({name: F.lit(value) for name, value in constants.items()}).select(
        *(F.col(name).cast(kind) for name, kind in LEDGER_COLUMNS.items())
    )
    writer = (
        few_files(rows, expected * 200)
        .write.format("delta")
        .mode("append")
        .partitionBy("table")
        .option("txnAppId", f"headgate:{table}:{build}")
        .option("txnVersion", 1)
        .option("userMetadata", json.dumps({"run_id": run_id, "build": build}))
    )
    append(writer, path)
    delta = lake.open("ledger")
    written = (
        delta.to_pyarrow_dataset().count_rows(filter=(pc.field("table") == table) & (pc.field("build") == build))
        if delta
        else 0
    )
    if written != expected:
        raise HeadgateError(
            f"table '{table}': {expected:,} rows were rejected but the ledger holds {written:,} of them"
        )


def ledger_entries(staged: DataFrame, quarantined: Column, reason: Column) -> DataFrame:
    """row_id, step, reason, evidence of the rows that a step rejected or the gate quarantines."""
    mark = F.col(REJECTED)
    return staged.where(mark.isNotNull() | quarantined).select(
        F.col(ROW_ID).alias("row_id"),
        F.coalesce(mark["step"], F.lit("gate")).alias("step"),
        F.coalesce(mark["reason"], F.lit("fails a row rule")).alias("reason"),
        F.coalesce(mark["evidence"], F.create_map(F.lit("rules"), reason)).alias("evidence"),
    )
