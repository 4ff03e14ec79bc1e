"""The ledger: every row that was rejected, with its step, its reason and its evidence."""

import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.jobs.errors import HeadgateError
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.system import SCHEMAS
from headgate.jobs.pipeline.writing import append_once, few_files
from headgate.transforms.rows import REJECTED, ROW_ID

PARTITION = "table_name"


def write_ledger(lake: Lake, entries: DataFrame, *, run_id: str, build: str, table: str, expected: int) -> None:
    """Append the rejected rows of a build to the ledger, once however often it is tried.

    entries: row_id, step, reason, evidence. Raises `HeadgateError` if other than `expected` rows were written.
    """
    lake.open_or_create("ledger")
    constants = {"run_id": run_id, "build": build}
    rows = entries.withColumns({name: F.lit(value) for name, value in constants.items()}).select(
        *(
            F.col(n).cast("map<string,string>" if n == "evidence" else "string")
            for n in SCHEMAS["ledger"].names
            if n != PARTITION
        )
    )
    written = append_once(
        few_files(rows, expected * 200),
        lake.path("ledger"),
        f"headgate:{table}:{build}",
        {"run_id": run_id, "build": build},
        expected=expected,
        partition={PARTITION: table},
    )
    if not written:  # by a run that died, or one at the same time
        there = (pc.field(PARTITION) == table) & (pc.field("build") == build)
        found = lake.dataset("ledger").count_rows(filter=there)
        if found != expected:
            raise HeadgateError(f"table '{table}': {expected:,} rows were rejected, the ledger holds {found:,} of them")


def ledger_entries(staged: DataFrame, reason: Column) -> DataFrame:
    """row_id, step, reason, evidence of the rows that a step rejected or the gate quarantines."""
    mark = F.col(REJECTED)
    return staged.select(
        F.col(ROW_ID).alias("row_id"),
        F.coalesce(mark["step"], F.lit("gate")).alias("step"),
        F.coalesce(mark["reason"], F.lit("failed_expectation")).alias("reason"),
        F.coalesce(mark["evidence"], F.create_map(F.lit("rules"), reason)).alias("evidence"),
    )
