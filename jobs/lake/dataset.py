"""The rows of a Delta table as an Arrow dataset, read through pyarrow's own file systems.

deltalake's dataset reads through a file system in Python, which pyarrow's threads still call while the interpreter
ends: every few processes abort.
"""

import posixpath
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import DeltaTable

from headgate.jobs.errors import UsageError
from headgate.jobs.lake.storage import file_system, parquet_format

# Features of reader version 3 that leave the data files as they are.
READABLE = {"timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"}


def dataset(delta: DeltaTable) -> ds.FileSystemDataset:
    """Return the rows of a table's open version: the files that its log names, with the table's schema.

    Partition values come from the log and prune files; a column that a file lacks is null. Raises `UsageError` for
    a table whose files alone do not tell its rows (deletion vectors, column mapping).
    """
    need_readable(delta)
    schema = pa.schema(delta.schema().to_arrow())
    files, base = file_system(delta.table_uri)
    form = parquet_format()
    added = pa.table(delta.get_add_actions(flatten=True))
    partitions = {name: added[f"partition.{name}"].to_pylist() for name in delta.metadata().partition_columns}
    fragments = [
        form.make_fragment(
            posixpath.join(base, unquote(path)),
            files,
            partition_expression=held_by({name: values[i] for name, values in partitions.items()}, schema),
        )
        for i, path in enumerate(added["path"].to_pylist())
    ]
    return ds.FileSystemDataset(fragments, schema, form, files)


def held_by(values: dict[str, Any], schema: pa.Schema) -> pc.Expression | None:
    """Return what holds for all rows of a file with these partition values; None without any."""
    found = None
    for name, value in values.items():
        field = pc.field(name)
        one = field.is_null() if value is None else field == pa.scalar(value, schema.field(name).type)
        found = one if found is None else found & one
    return found


def need_readable(delta: DeltaTable) -> None:
    """Raise `UsageError` for a table that uses what its data files do not show."""
    used = set(delta.protocol().reader_features or ()) - READABLE
    if delta.metadata().configuration.get("delta.columnMapping.mode", "none") != "none":
        used.add("columnMapping")
    if used:
        raise UsageError(f"the table {delta.table_uri} can only be read by Spark: it uses {', '.join(sorted(used))}")
