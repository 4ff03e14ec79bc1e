"""Artifacts that builds keep beside the tables: indexes of rows, fitted state, markers of staged work."""

import json
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from pyarrow import fs

from headgate.jobs.lake.conflicts import is_conflict
from headgate.jobs.lake.dataset import dataset
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.storage import file_system


def index_of(lake: Lake, table: str) -> str:
    return f"{lake.root}/_system/index/{table}"


def indexes(lake: Lake, table: str) -> list[str]:
    """The Delta tables of a table's index."""
    files, base = file_system(index_of(lake, table))
    found = files.get_file_info(fs.FileSelector(base, allow_not_found=True))
    return sorted(f"{index_of(lake, table)}/{f.base_name}" for f in found if f.type == fs.FileType.Directory)


def fitted_of(lake: Lake, table: str, build_key: str) -> str:
    """Return the folder of what the steps of a build learned."""
    return f"{lake.root}/_system/fitted/{table}/{build_key}"


def write_small(path: str, value: dict[str, Any]) -> None:
    """Write a JSON value as a Delta table of one row, so that it is there whole or not at all, on any storage.

    The path is made of a key of the value, so where another run writes it at the same moment, its value will do.
    """
    try:
        write_deltalake(path, pa.table({"value": [json.dumps(value, default=str)]}), mode="overwrite")
    except Exception as e:
        if not is_conflict(e):
            raise


def read_small(path: str) -> dict[str, Any]:
    """Return a JSON value that `write_small` wrote."""
    value: dict[str, Any] = json.loads(dataset(DeltaTable(path)).to_table()["value"][0].as_py())
    return value
