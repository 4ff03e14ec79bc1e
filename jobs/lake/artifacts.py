"""Artifacts that builds keep beside the tables: indexes of rows, fitted state, markers of staged work."""

import json
from collections.abc import Callable
from typing import Any

from pyarrow import fs

from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.storage import file_system, has_table, put, remove

FITTED = "/_system/fitted"
TIES = "ties-"  # the beginning of the names of indexes of all rows that a table's builds looked at


def index_of(lake: Lake, table: str) -> str:
    return f"{lake.root}/_system/index/{table}"


def indexes(lake: Lake, table: str) -> list[str]:
    """The Delta tables of a table's index."""
    files, base = file_system(index_of(lake, table))
    found = files.get_file_info(fs.FileSelector(base, allow_not_found=True))
    places = sorted(f"{index_of(lake, table)}/{f.base_name}" for f in found if f.type == fs.FileType.Directory)
    return [place for place in places if has_table(place)]


def fitted_of(lake: Lake, table: str, build_key: str) -> str:
    """Return the folder of what the steps of a build learned."""
    return f"{lake.root}{FITTED}/{table}/{build_key}"


def write_fitted(lake: Lake, table: str, build_key: str, steps: dict[str, Any]) -> None:
    """Write what the steps of a build learned; places of their artifacts are told from the lake's root on."""
    inside = f"{lake.root}{FITTED}/"

    def below(text: str) -> str:
        return text.removeprefix(lake.root) if text.startswith(inside) else text

    write_small(f"{fitted_of(lake, table, build_key)}/steps.json", with_texts(steps, below))


def read_fitted(lake: Lake, table: str, build_key: str) -> dict[str, Any] | None:
    """Return what `write_fitted` wrote, with the places of artifacts in this lake, wherever it was written."""
    area = f"{FITTED}/{table}/"

    def here(text: str) -> str:
        return f"{lake.root}{area}{text.partition(area)[2]}" if area in text else text

    saved = read_small(f"{fitted_of(lake, table, build_key)}/steps.json")
    return None if saved is None else with_texts(saved, here)


def with_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Return a JSON value with all its texts changed, but the names of entries."""
    if isinstance(value, dict):
        return {k: with_texts(v, change) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [with_texts(v, change) for v in value]
    return change(value) if isinstance(value, str) else value


def remove_ties(lake: Lake) -> None:
    """Remove what is known of the rows from which tables are made; the next build of each looks at all of them."""
    for table in lake.tables():
        for index in indexes(lake, table):
            if index.rpartition("/")[2].startswith(TIES):
                remove(index)


def write_small(path: str, value: dict[str, Any]) -> None:
    """Write a JSON value as one object, which is there whole or not at all, on any storage."""
    folder, _, name = path.rpartition("/")
    put(folder, name, json.dumps(value, default=str).encode())


def read_small(path: str) -> dict[str, Any] | None:
    """Return a JSON value that `write_small` wrote; None where there is none, or a crash cut it short."""
    files, name = file_system(path)
    try:
        with files.open_input_stream(name) as stream:
            value: dict[str, Any] = json.loads(stream.readall())
    except (FileNotFoundError, ValueError):
        return None
    return value
