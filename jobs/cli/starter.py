"""The small project that `headgate init` writes."""

import contextlib
import os
from pathlib import Path

from headgate.jobs.errors import HeadgateError, UsageError

PIPELINE = """\
# Check it with `headgate check conf/orders.yaml`, build it with `headgate run conf/orders.yaml`.
pipeline: orders
tables:
  # What landed, as it is: each file is taken up once.
  raw_orders:
    source:
      format: csv
      path: orders/orders_{date}.csv
      schema: order_id STRING, customer STRING, amount STRING, ordered_on STRING
    suite: raw_orders
  # What readers use. `headgate steps` lists the steps; a row that a step removes is in the table `ledger`.
  orders:
    from: raw_orders
    steps:
      - normalize_text: {columns: [customer], case: lower}
      - cast: {columns: {order_id: bigint, amount: "decimal(10,2)", ordered_on: date}}
      - drop_duplicates: {columns: [order_id], keep: _file desc}
    suite: orders
"""
RAW_SUITE = """\
# What must hold of the files. `headgate expectations` lists what may stand here.
name: raw_orders
expectations:
  - type: expect_table_row_count_to_be_between
    kwargs: {min_value: 1}
    meta: {dimension: completeness}
  - type: expect_table_columns_to_match_set
    kwargs: {column_set: [order_id, customer, amount, ordered_on], exact_match: false}
    meta: {dimension: consistency}
"""
SUITE = """\
# What must hold before readers see a new version; a rule that is not `warning` or `info` blocks.
name: orders
expectations:
  - type: expect_table_row_count_to_be_between
    kwargs: {min_value: 1}
    meta: {dimension: completeness}
  - type: expect_table_columns_to_match_set
    kwargs: {column_set: [order_id, customer, amount, ordered_on], exact_match: false}
    meta: {dimension: consistency}
  - type: expect_column_values_to_be_unique
    kwargs: {column: order_id}
    meta: {dimension: uniqueness}
  - type: expect_column_values_to_not_be_null
    kwargs: {column: customer, mostly: 0.9}
    severity: warning
    meta: {dimension: completeness}
  - type: expect_column_values_to_be_between
    kwargs: {column: amount, min_value: 0}
    meta: {dimension: validity}
"""
ENVIRONMENT = """\
# Where the data are; relative places start at the folder that holds conf/. Another file beside this one is another
# environment: `--env NAME`. HEADGATE_LAKE and HEADGATE_LANDING go before.
lake: lake
landing: landing
retention_days: 365
spark:
  spark.master: local[*]
"""
WORKFLOW = """\
name: headgate
on: [push, pull_request]
jobs:
  check:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with: {python-version: "3.12"}
      - uses: actions/setup-java@v4
        with: {distribution: temurin, java-version: "17"}
      - run: pip install headgate
      - run: headgate check conf/orders.yaml
      - run: headgate run conf/orders.yaml
"""
PROJECT = {
    "conf/orders.yaml": PIPELINE,
    "conf/env/local.yaml": ENVIRONMENT,
    "expectations/suites/raw_orders.yaml": RAW_SUITE,
    "expectations/suites/orders.yaml": SUITE,
    "landing/orders/orders_2024-01-01.csv": "order_id,customer,amount,ordered_on\n"
    "1,Ada,12.50,2024-01-01\n"
    "2,Grace,8.00,2024-01-01\n"
    "3,Edsger,not known,2024-01-01\n",
    "landing/orders/orders_2024-01-02.csv": "order_id,customer,amount,ordered_on\n"
    "2,Grace,9.00,2024-01-01\n"
    "4,Barbara,31.20,2024-01-02\n",
    ".github/workflows/headgate.yml": WORKFLOW,
    ".gitignore": "lake/\n",
}


def write_project(folder: Path) -> list[str]:
    """Write the project into a folder, which may exist; raise `UsageError` where one of its files is there already."""
    there = [name for name in PROJECT if os.path.lexists(folder / name)]
    if there:
        raise UsageError(f"{folder}: {', '.join(there)} exist already; nothing was written")
    try:
        for name, text in PROJECT.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as e:
        for name in PROJECT:  # none of them was there before
            with contextlib.suppress(OSError):
                (folder / name).unlink()
        raise HeadgateError(f"{e.filename or folder} cannot be written: {e.strerror}") from e
    return list(PROJECT)
