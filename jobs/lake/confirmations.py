"""Findings on published rows without a new version: a build gave the same, or a changed suite passed."""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow.compute as pc

from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.system import now


def confirm(
    lake: Lake,
    table: str,
    build: str,
    run_id: str,
    judge_key: str,
    later: Any = None,
    inputs: Mapping[str, Any] | None = None,
) -> None:
    """Record that the rows which a build published are good by a suite; `later`: the work that gave the same rows."""
    row = {"table_name": table, "build": build, "run_id": run_id, "recorded_at": now(), "judge_key": judge_key}
    row |= {"inputs": None if inputs is None else json.dumps(inputs)}
    row |= {"build_key": later.made_by, "later_build": later.build} if later is not None else {}
    lake.record("confirmations", [row])


def confirmations(lake: Lake, table: str, build: str) -> list[dict[str, Any]]:
    """Return what is confirmed of the rows that a build published, in the order in which it was found."""
    delta = lake.open("confirmations")
    if delta is None:
        return []
    rows = lake.system("confirmations")
    mine = rows.filter((pc.field("table_name") == table) & (pc.field("build") == build)).to_pylist()
    ordered = sorted(mine, key=lambda r: r["recorded_at"])
    return [r | {"inputs": json.loads(r["inputs"]) if r["inputs"] else None} for r in ordered]


def later_builds(lake: Lake, table: str, build: str) -> list[str]:
    """Return the builds that gave the rows which another one had published, in their order."""
    return [c["later_build"] for c in confirmations(lake, table, build) if c["later_build"]]
