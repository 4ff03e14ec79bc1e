"""Lineage of tables and columns, read from what builds recorded."""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow.compute as pc

from headgate.jobs.errors import UsageError
from headgate.jobs.lake.lake import Lake
from headgate.transforms.rows import is_own
from headgate.words import did_you_mean

# -- what builds recorded


def lineage(lake: Lake, place: str) -> dict[str, Any]:
    """The tree of what a table, or a column (`table.column`), was made of, by the newest build of each table.

    Each node has `name`, `detail` and `inputs`. Raises `InputMissing` or `UsageError` for a name that is not there.
    """
    table, _, column = place.partition(".")
    delta = lake.need_table(table)
    columns = [f.name for f in delta.schema().fields]
    if column and column not in columns:
        known = f"{did_you_mean(column, columns)} (columns: {', '.join(c for c in columns if not is_own(c))})"
        raise UsageError(f"table '{table}' has no column '{column}'{known}")
    recorded: dict[str, list[dict[str, Any]]] = {}
    for name in lake.tables():
        build = (lake.last_build(name) or {}).get("build")
        recorded[name] = []
        if build is not None:
            entries = lake.dataset("lineage").to_table(filter=pc.field("build") == build).to_pylist()
            recorded[name] = sorted(entries, key=lambda e: e["input"])
    return column_tree(recorded, table, column) if column else table_tree(recorded, table)


def table_tree(recorded: Mapping[str, list[dict[str, Any]]], table: str) -> dict[str, Any]:
    entries = recorded.get(table, [])
    steps = [next(iter(s)) for s in json.loads(entries[0]["steps"])] if entries else []
    inputs = []
    for entry in entries:
        name = entry["input"]
        below = table_tree(recorded, name) if name in recorded else {"name": name, "detail": "", "inputs": []}
        version = f"version {entry['input_version']}" if entry["input_version"] is not None else ""
        inputs.append({**below, "detail": "; ".join(filter(None, [version, below["detail"]]))})
    return {"name": table, "detail": f"steps: {', '.join(steps)}" if steps else "", "inputs": inputs}


def column_tree(recorded: Mapping[str, list[dict[str, Any]]], table: str, column: str) -> dict[str, Any]:
    entries = recorded.get(table, [])
    known: dict[str, list[str]] = next((json.loads(e["columns"]) for e in entries if e["columns"]), {})
    inputs = []
    for origin in known.get(column, []):
        name, _, below = origin.partition(".")
        inputs.append(column_tree(recorded, name, below))
    for entry in entries:
        if entry["input_version"] is None:  # a source: its columns have their own names
            inputs.append({"name": entry["input"], "detail": column, "inputs": []})
    steps = [next(iter(s)) for s in json.loads(entries[0]["steps"]) if mentions(s, column)] if entries else []
    return {"name": f"{table}.{column}", "detail": f"steps: {', '.join(steps)}" if steps else "", "inputs": inputs}


def mentions(value: Any, column: str) -> bool:
    """Return whether the options of a step name a column."""
    if isinstance(value, dict):
        return any(k == column or mentions(v, column) for k, v in value.items())
    return any(mentions(v, column) for v in value) if isinstance(value, list) else value == column
