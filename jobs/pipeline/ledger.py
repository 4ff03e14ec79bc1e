"""The ledger: every row that was rejected, with its step, its reason and its evidence."""

import json

import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.jobs.errors import HeadgateError
from headgate.jobs.lake.dataset import dataset
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.system import SCHEMAS
from headgate.jobs.pipeline.writing import append, few_files
from headgate.transforms.rows import REJECTED, ROW_ID


def write_ledger(lake: Lake, entries: DataFrame, *, run_id: str, build: str, table: str, expected: int) -> None:
    """Append the rejected rows of a build to the ledger, once however often it is tried.

    entries: row_id, step, reason, evidence. Raises `HeadgateError` if other than `expected` rows were written.
    """
    delta = lake.open_or_create("ledger")
    constants = {"run_id": run_id, "build": build, "table_name": table}
    rows = entries.withColumns({name: F.lit(value) for name, value in constants.items()}).select(
        *(F.col(n).cast("map<string,string>" if n == "evidence" else "string") for n in SCHEMAS["ledger"].names)
    )
    writer = (
        few_files(rows, expected * 200)
        .write.format("delta")
        .mode("append")
        .partitionBy("table_name")
        .option("txnAppId", f"headgate:{table}:{build}")
        .option("txnVersion", 1)
        .option("userMetadata", json.dumps({"run_id": run_id, "build": build}))
    )
    append(writer, lake.path("ledger"))
    delta.update_incremental()
    written = dataset(delta).count_rows(filter=(pc.field("table_name") == table) & (pc.field("build") == build))
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
        F.coalesce(mark["reason"], F.lit("failed_expectation")).alias("reason"),
        F.coalesce(mark["evidence"], F.create_map(F.lit("rules"), reason)).alias("evidence"),
    )
