"""Tables that stand for several: with a source and steps, or with a mapping of their sources."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from headgate.jobs.config.document import Complaints, Yaml
from headgate.jobs.config.models import Publish, Table
from headgate.jobs.errors import UsageError
from headgate.words import did_you_mean

RAW = "_raw"  # ends the name of what landed, of a table with a source and steps
MAPPING, STEP = "mapping", "map_columns"


def expanded(document: Yaml, tables: Mapping[str, Table]) -> tuple[dict[str, Table], dict[str, str]]:
    """Return the tables with each that has a source and steps as two, and which raw table stands for which.

    Such a table is shorthand for a raw table, of what landed, and one that starts from it.
    """
    whole, raw_of = {}, {}
    for name, table in tables.items():
        if table.source is None or not table.steps:
            whole[name] = table
            continue
        raw = name + RAW
        if raw in tables:
            raise UsageError(
                f"{document.at('tables', raw)}: the name '{raw}' stands for what lands for table '{name}', which has a "
                "source and steps; choose another name"
            )
        about = f"What landed for {name}."
        whole[raw] = table.model_copy(
            update={"description": about, "steps": (), "suite": None, "publish": Publish(), "grain": "rows"}
        )
        whole[name] = table.model_copy(update={"source": None, "starts": (raw,)})
        raw_of[raw] = name
    return whole, raw_of


def with_mappings(document: Yaml, complaints: Complaints) -> tuple[Yaml, dict[str, str]]:
    """Return the document with each table that has a `mapping` as several, and which of these stands for which source.

    `people` from `[crm, web]` with a mapping of `crm` starts from `people_crm`, a table from `crm` with the step
    `map_columns`, and from `web`. What is wrong is noted in `complaints`; what is no mapping at all is left to the
    model.
    """
    written = document.data.get("tables") if isinstance(document.data, dict) else None
    if not isinstance(written, dict):
        return document, {}
    tables: dict[Any, Any] = {}
    lines = dict(document.lines)
    mapped: dict[str, str] = {}
    for name, table in written.items():
        mapping = table.get(MAPPING) if isinstance(table, dict) else None
        starts = table.get("from") if isinstance(table, dict) else None
        if not isinstance(mapping, dict) or not isinstance(starts, str | list):
            tables[name] = table
            continue
        starts = [starts] if isinstance(starts, str) else list(starts)
        for source, options in mapping.items():
            place = ("tables", name, MAPPING, source)
            if source not in starts:
                hint = did_you_mean(str(source), [str(s) for s in starts])
                complaints.add(UsageError(f"{document.at(*place)}: '{source}' is not in from{hint}"))
                continue
            new = f"{name}_{source}"
            if new in written:
                complaints.add(
                    UsageError(f"{document.at(*place)}: the name '{new}' stands for what is mapped; rename that table")
                )
                continue
            tables[new] = {
                "description": f"{source}, its columns mapped for {name}.",
                "from": source,
                "steps": [{STEP: options}],
                "suite": None,
                "quarantine_ceiling": table.get("quarantine_ceiling", 0.05),
            }
            moved = moved_lines(document.lines, place, ("tables", new))
            lines |= moved
            starts[starts.index(source)] = new
            mapped[new] = str(source)
        tables[name] = {k: v for k, v in table.items() if k != MAPPING} | {"from": starts}
    return dataclasses.replace(document, data=document.data | {"tables": tables}, lines=lines), mapped


def moved_lines(
    lines: Mapping[tuple[Any, ...], int], place: tuple[Any, ...], new: tuple[Any, ...]
) -> dict[tuple[Any, ...], int]:
    """Return the lines of what stands at a place as those of the step that it becomes."""
    found = {(*new, "steps", 0, STEP, *p[len(place) :]): n for p, n in lines.items() if p[: len(place)] == place}
    return found | ({new: lines[place]} if place in lines else {})
