"""The rows that an erasure is asked for: by a condition or by keys, over all versions of a table."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from headgate.jobs.errors import InputMissing, UsageError, first_line
from headgate.jobs.keep.erasure.files import schemas_by_file, whole_files
from headgate.jobs.lake.datafiles import readers
from headgate.jobs.lake.duck import connect
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.storage import file_system, parquet_format, quoted
from headgate.transforms.rows import OWN, ROW_ID
from headgate.words import did_you_mean


def matching(lake: Lake, table: str, where: str | None, keys: Path | None) -> set[str]:
    """Ids of the rows of any version of a table that satisfy the condition or carry one of the keys.

    Of a version that lacks a column which the condition names, there are none. Of another type than the newest
    version's, a value counts as what it converts to, or else as null.
    """
    delta = lake.need_table(table)
    schema = pa.schema(delta.schema().to_arrow())
    if ROW_ID not in schema.names:
        raise UsageError(f"table '{table}' has no {ROW_ID}, so its rows cannot be followed")
    connection = connect()
    parts = parts_of(lake.path(table), schema)
    views, names = views_of(connection, parts)
    if keys is not None:
        listed = read_keys(keys, schema, table)
        connection.register("_hg_keys", listed)
        on = " and ".join(f"_hg_t.{quoted(c)} = _hg_k.{quoted(c)}" for c in listed.column_names)
        query = f'select distinct _hg_t.{ROW_ID} as _hg_i from "{table}" _hg_t join _hg_keys _hg_k on {on}'
    else:
        query = f'select distinct {ROW_ID} as _hg_i from "{table}" where ({where})'
    connection.execute("SET enable_external_access = false")
    found: set[str] = set()
    unknown: list[duckdb.Error] = []
    try:
        statements = connection.extract_statements(query)
        if len(statements) != 1:
            raise UsageError("--where: give one condition, not statements")
        for view in views:
            connection.execute(f'create or replace temp view "{table}" as {view}')
            try:
                found |= {r[0] for r in connection.execute(query).fetchall() if r[0] is not None}
            except duckdb.BinderException as e:
                unknown.append(e)
        if len(unknown) == len(views):
            raise unknown[0]
    except duckdb.Error as e:
        option = "--where" if keys is None else "--keys"
        shown = ", ".join(c for c in names if c != ROW_ID)
        raise UsageError(f"{option}: {first_line(e)} (columns of table '{table}': {shown})") from e
    return found


@dataclass(frozen=True)
class Part:
    """Data files with the same columns, of versions that have the same. columns: of these versions."""

    rows: ds.Dataset | pa.Table
    columns: frozenset[str]


def parts_of(path: str, schema: pa.Schema) -> list[Part]:
    """Return the rows of all data files of a table; first come the columns of the newest version, without rows."""
    files, base = file_system(path)
    form = parquet_format()
    named = {p: frozenset(known.names) for p, known in schemas_by_file(path).items()}
    paths = whole_files(path)
    fragments = [form.make_fragment(f"{base}/{p}", files) for p in paths]
    with ThreadPoolExecutor(readers(files)) as pool:
        schemas = list(pool.map(lambda fragment: fragment.physical_schema, fragments))
    alike: dict[tuple[tuple[tuple[str, pa.DataType], ...], frozenset[str]], list[ds.Fragment]] = {}
    for p, fragment, found in zip(paths, fragments, schemas, strict=True):
        fields = tuple((f.name, f.type) for f in found if not f.name.startswith(OWN))
        alike.setdefault((fields, named.get(p, frozenset(dict(fields)))), []).append(fragment)
    parts = [Part(schema.empty_table(), frozenset(schema.names))]
    for (fields, columns), mine in alike.items():
        parts.append(Part(ds.FileSystemDataset(mine, pa.schema(fields), form, files), columns))
    return parts


def views_of(connection: duckdb.DuckDBPyConnection, parts: Sequence[Part]) -> tuple[list[str], list[str]]:
    """Register parts of a table; return a query of each, and the names of all columns.

    A column has the type of the first part that has it. One that its files lack is null, if their versions have it.
    """
    kinds: list[dict[str, str]] = []  # of each part
    named: dict[str, tuple[str, str]] = {}  # column in small letters -> its name and its type
    for i, part in enumerate(parts):
        relation = connection.register(f"_hg_part{i}", part.rows).table(f"_hg_part{i}")
        kinds.append(dict(zip(relation.columns, map(str, relation.types), strict=True)))
        for name, kind in kinds[-1].items():
            named.setdefault(name.lower(), (name, kind))
    views = []
    for i, part in enumerate(parts):
        own, there = {n.lower(): n for n in kinds[i]}, {n.lower() for n in part.columns}
        cells = [
            f"{cell_of(connection, own.get(low), kinds[i], kind)} as {quoted(name)}"
            for low, (name, kind) in named.items()
            if low in there
        ]
        views.append(f"select {', '.join(cells)} from _hg_part{i}")
    return views, [name for name, _ in named.values()]


def cell_of(connection: duckdb.DuckDBPyConnection, name: str | None, there: Mapping[str, str], kind: str) -> str:
    """Return SQL for the cells of a column as values of a type: null where there is none or they do not convert."""
    if name is None:
        return f"null::{kind}"
    if there[name] == kind:
        return quoted(name)
    try:
        connection.execute(f"select try_cast(null::{there[name]} as {kind})")
    except duckdb.Error:  # such as of structs without a common member
        return f"null::{kind}"
    return f"try_cast({quoted(name)} as {kind})"


def read_keys(file: Path, schema: pa.Schema, table: str) -> pa.Table:
    """A file of keys, in the types of the table's columns."""
    from pyarrow import csv

    if not file.exists():
        raise InputMissing(f"--keys: there is no file {file}")
    try:
        if file.suffix == ".parquet":
            keys = pq.read_table(file)
        else:
            names = csv.open_csv(file).schema.names
            keys = csv.read_csv(
                file, convert_options=csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
            )
        names = keys.column_names
        missing = next((c for c in names if c not in schema.names), None)
        if missing is not None:
            known = f"{did_you_mean(missing, schema.names)} (columns: {', '.join(schema.names)})"
            raise UsageError(f"--keys: {file}: table '{table}' has no column '{missing}'{known}")
        twice = next((c for i, c in enumerate(names) if c in names[:i]), None)
        if twice is not None:
            raise UsageError(f"--keys: {file}: duplicate column '{twice}'")
        empty = next((c for c in names if keys[c].null_count), None)
        if empty is not None:
            raise UsageError(f"--keys: {file}: '{empty}' is null in some row; name rows without a value by --where")
        return keys.cast(pa.schema([schema.field(c) for c in names]))
    except (OSError, pa.ArrowException) as e:
        raise UsageError(f"--keys: {file} cannot be read: {first_line(e)}") from e
