"""The columns of a table in the lake, with their types as Spark writes them."""

import json
from typing import Any

from headgate.jobs.lake.lake import Lake

PLAIN = {"integer": "int", "long": "bigint", "short": "smallint", "byte": "tinyint", "timestamp_ntz": "timestamp"}


def columns_in(lake: Lake, table: str) -> dict[str, str] | None:
    """Return the columns of a table's newest version, headgate's own among them; None where there is no such table."""
    delta = lake.open(table)
    if delta is None:
        return None
    return {f["name"]: type_of(f["type"]) for f in json.loads(delta.schema().to_json())["fields"]}


def type_of(kind: Any) -> str:
    """Return a type of Delta's schema as Spark writes it: `array<bigint>`."""
    if isinstance(kind, str):
        return PLAIN.get(kind, kind)
    if kind["type"] == "array":
        return f"array<{type_of(kind['elementType'])}>"
    if kind["type"] == "map":
        return f"map<{type_of(kind['keyType'])},{type_of(kind['valueType'])}>"
    members = ",".join(f"{f['name']}:{type_of(f['type'])}" for f in kind["fields"])
    return f"struct<{members}>"
