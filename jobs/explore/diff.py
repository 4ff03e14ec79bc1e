"""Differences between two versions of a table, or between two releases. Needs no JVM.

Files that both versions share hold the same rows, so only the others are read: the cost is that of what changed.
"""

import posixpath
from collections.abc import Collection, Sequence
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import DeltaTable

from headgate.jobs.errors import InputMissing, UsageError
from headgate.jobs.lake.dataset import dataset
from headgate.jobs.lake.duck import connect
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.log import missing_files, paths_of
from headgate.jobs.lake.storage import file_system, quoted
from headgate.transforms.rows import ROW_ID, is_own
from headgate.words import did_you_mean

EXAMPLES = 5
WHOLE_DIGITS = 19  # of a bigint
MOST_DIGITS = 38  # of a decimal


def diff(lake: Lake, a: str, b: str, key: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Compare TABLE@VERSION with TABLE@VERSION, or two releases table by table; a row for each table."""
    if "@" in a or "@" in b:
        (one, before), (other, after) = (version_of(lake, text) for text in (a, b))
        if one != other:
            raise UsageError(f"diff compares two versions of one table, not of '{one}' and '{other}'")
        return [diff_table(lake, one, before, after, key)]
    pins = [lake.pins(name) for name in (a, b)]
    return [diff_table(lake, t, pins[0].get(t), pins[1].get(t), key) for t in sorted({*pins[0], *pins[1]})]


def version_of(lake: Lake, text: str) -> tuple[str, int]:
    """Table and version of TABLE@VERSION, where the version may be the name of a release or `latest`."""
    table, _, version = text.partition("@")
    delta = lake.need_table(table)
    if not version:
        raise UsageError(f"'{text}': give a version, as in {table}@{delta.version()}")
    if version.isdecimal():
        lake.open(table, int(version))
        return table, int(version)
    if version == "latest":
        return table, delta.version()
    return table, lake.pinned_version(table, version)


def diff_table(
    lake: Lake, table: str, before: int | None, after: int | None, key: Sequence[str] = ()
) -> dict[str, Any]:
    """Schema changes, rows added, removed and changed by `key` (default: `_row_id`), changes of each column, examples.

    An example has `kind`, `key` (column to value) and `cells`: 'column: before -> after' of what changed, or the cells
    of a row that one version alone has.

    Rows with the same key are paired in the order of their content. None as a version: the table is not there. NaN
    equals NaN, and null equals null. Of a column whose type changed, numbers are compared by value and all else as
    text. Versions without a common column have no common row. Raises `InputMissing` where files of a version are gone.
    """
    difference: dict[str, Any] = {"table": table, "from": before, "to": after, "added": 0, "removed": 0, "changed": 0}
    difference |= {"schema": [], "columns": {}, "examples": []}
    if before == after:
        return difference
    for version in (before, after):
        gone = missing_files(lake, table, version) if version is not None else []
        if gone:
            raise InputMissing(f"table '{table}': version {version} cannot be read: {gone[0]} is gone")
    sides = {n: lake.open(table, v) if v is not None else None for n, v in (("a", before), ("b", after))}
    schemas = {n: pa.schema(d.schema().to_arrow()) if d else pa.schema([]) for n, d in sides.items()}
    difference["schema"] = (
        schema_changes(schemas["a"], schemas["b"]) if before is not None and after is not None else []
    )
    paths = {n: set(paths_of(d)) if d else set() for n, d in sides.items()}
    shared = paths["a"] & paths["b"]
    connection = connect()
    for name, delta in sides.items():
        rows = rows_of(delta, shared) if delta else schemas["b" if name == "a" else "a"].empty_table()
        connection.register(f"_hg_rows_{name}", rows)
    common = [n for n in schemas["a"].names if n in schemas["b"].names]
    if all(sides.values()) and not common:
        counts = [connection.execute(f"select count(*) from _hg_rows_{n}").fetchall()[0][0] for n in sides]
        return difference | {"removed": counts[0], "added": counts[1]}
    compared = common or schemas["b"].names or schemas["a"].names
    keys = [*dict.fromkeys(key)] or ([ROW_ID] if ROW_ID in compared else compared)
    for column in keys:
        if column not in compared:
            known = f"{did_you_mean(column, compared)} (columns: {', '.join(compared)})"
            raise UsageError(f"--key: table '{table}' has no column '{column}' in both versions{known}")
    one, other = schemas["a"], schemas["b"]
    as_text = [c for c in common if not comparable(one.field(c).type, other.field(c).type)]
    casts = ", ".join(f"cast({quoted(c)} as varchar) as {quoted(c)}" for c in as_text)
    for name in sides:
        columns = f"* replace ({casts})" if casts else "*"
        connection.execute(f"create temp view _hg_{name} as select {columns} from _hg_rows_{name}")
    return difference | counted(connection, keys, [c for c in compared if c not in keys])


def rows_of(delta: DeltaTable, but: Collection[str]) -> ds.FileSystemDataset:
    """Return the rows of an open version but those of some files, by their paths below the table."""
    whole = dataset(delta)
    base = posixpath.normpath(file_system(delta.table_uri)[1])
    passed = {f"{base}/{p}" for p in but}
    fragments = [f for f in whole.get_fragments() if posixpath.normpath(f.path) not in passed]
    return ds.FileSystemDataset(fragments, whole.schema, whole.format, whole.filesystem)


def comparable(a: pa.DataType, b: pa.DataType) -> bool:
    """Return whether DuckDB compares values of two types by value, whatever they are."""
    if a == b:
        return True
    numbers = [pa.types.is_integer(t) or pa.types.is_floating(t) or pa.types.is_decimal(t) for t in (a, b)]
    exact = [t for t in (a, b) if pa.types.is_decimal(t)]
    if not all(numbers):
        return False
    scale = max((t.scale for t in exact), default=0)
    whole = max((t.precision - t.scale for t in exact), default=0)
    return not exact or max(whole, WHOLE_DIGITS if len(exact) < len(numbers) else 0) + scale <= MOST_DIGITS


def counted(connection: duckdb.DuckDBPyConnection, keys: Sequence[str], values: Sequence[str]) -> dict[str, Any]:
    """The comparison itself, on the relations `_hg_a` and `_hg_b`."""
    named = ", ".join(map(quoted, (*keys, *values)))
    order = ", ".join(f"hash({quoted(v)})" for v in values) or "1"
    numbered = (
        f"select {named}, row_number() over (partition by {', '.join(map(quoted, keys))} order by {order}) as _hg_nth"
    )
    same_key = " and ".join(f"_hg_a.{quoted(k)} is not distinct from _hg_b.{quoted(k)}" for k in (*keys, "_hg_nth"))
    differs = {v: f"_hg_a.{quoted(v)} is distinct from _hg_b.{quoted(v)}" for v in values}
    both = "_hg_a._hg_nth is not null and _hg_b._hg_nth is not null"
    any_differs = f"({' or '.join(differs.values()) or 'false'})"
    counts = [
        "count(*) filter (_hg_a._hg_nth is null) as added",
        "count(*) filter (_hg_b._hg_nth is null) as removed",
        f"count(*) filter ({both} and {any_differs}) as changed",
        *(f"count(*) filter ({both} and {d}) as c{i}" for i, d in enumerate(differs.values())),
    ]
    joined = f"from ({numbered} from _hg_a) _hg_a full outer join ({numbered} from _hg_b) _hg_b on {same_key}"
    found = connection.execute(f"select {', '.join(counts)}, count(*) as pairs {joined}").fetchall()[0]
    pairs = found[-1]
    columns = {v: {"cells": n, "rate": n / pairs} for v, n in zip(values, found[3:-1], strict=True) if n}
    key_of = [f"coalesce(_hg_a.{quoted(k)}, _hg_b.{quoted(k)})" for k in keys]
    named_keys = ", ".join(f"{k} as _hg_key{i}" for i, k in enumerate(key_of))
    kind = "case when _hg_a._hg_nth is null then 'added' when _hg_b._hg_nth is null then 'removed' else 'changed' end"
    cells = (
        f"case {kind} when 'added' then {whole_row('_hg_b', values)} when 'removed' then {whole_row('_hg_a', values)}"
    )
    changes = ", ".join(f"case when {both} and {d} then {change_of(v)} end" for v, d in differs.items())
    cells += f" else list_filter([{changes}]::varchar[], lambda x: x is not null) end"
    examples = connection.sql(
        f"select * from (select {kind} as _hg_kind, {named_keys}, {cells} as _hg_cells, "
        f"row_number() over (partition by {kind} order by {', '.join(key_of)}, _hg_a._hg_nth, _hg_b._hg_nth) as _hg_i "
        f"{joined} where _hg_a._hg_nth is null or _hg_b._hg_nth is null or {any_differs}) where _hg_i <= {EXAMPLES} "
        "order by _hg_kind, _hg_i"
    ).to_arrow_table()
    rows = [
        {
            "kind": r["_hg_kind"],
            "key": {k: r[f"_hg_key{i}"] for i, k in enumerate(keys)},
            "cells": r["_hg_cells"],
        }
        for r in examples.to_pylist()
    ]
    return {"added": found[0], "removed": found[1], "changed": found[2], "columns": columns, "examples": rows}


def change_of(column: str) -> str:
    """Return SQL for a changed cell as 'column: before -> after'."""
    return f"{label_of(column)} || {text_of('_hg_a', column)} || ' -> ' || {text_of('_hg_b', column)}"


def whole_row(side: str, columns: Sequence[str]) -> str:
    """Return SQL for the user's cells of a row, each as 'column: value'."""
    cells = [f"{label_of(c)} || {text_of(side, c)}" for c in columns if not is_own(c)]
    return f"[{', '.join(cells)}]::varchar[]"


def label_of(column: str) -> str:
    return "'" + column.replace("'", "''") + ": '"


def text_of(side: str, column: str) -> str:
    return f"coalesce(cast({side}.{quoted(column)} as varchar), 'null')"


def schema_changes(a: pa.Schema, b: pa.Schema) -> list[str]:
    types = [{f.name: str(f.type) for f in schema} for schema in (a, b)]
    difference = [f"+ {n} {t}" for n, t in types[1].items() if n not in types[0]]
    difference += [f"- {n} {t}" for n, t in types[0].items() if n not in types[1]]
    return difference + [f"{n} {t} -> {types[1][n]}" for n, t in types[0].items() if n in types[1] and types[1][n] != t]


def is_different(difference: dict[str, Any]) -> bool:
    return bool(difference["added"] or difference["removed"] or difference["changed"] or difference["schema"]) or (
        (difference["from"] is None) != (difference["to"] is None)
    )
