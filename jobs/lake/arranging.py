"""The rows of data files written again, in few files of a size, in the order that they have or in another.

Memory holds one row group; rows that are ordered anew are sorted by DuckDB, beyond its memory in scratch on the disk.
"""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from deltalake import DeltaTable

from headgate.jobs.errors import UsageError
from headgate.jobs.lake.dataset import dataset
from headgate.jobs.lake.duck import connect
from headgate.jobs.lake.storage import file_system, is_remote, quoted
from headgate.transforms.rows import OWN
from headgate.words import did_you_mean

GROUP_BYTES = 64 << 20  # of a row group, as Arrow holds it
GROUP_ROWS = 1 << 20
BATCH_ROWS = 1 << 14
BITS = 6  # of a column's place in a Z-order: 64 parts with as many rows each
SAMPLED = 100_000  # rows by which the bounds of these parts are found
MOST_COLUMNS = 8  # of a Z-order


@dataclass(frozen=True)
class Order:
    """The order of rows: by columns one after the other or, with `zorder`, by all of them alike."""

    columns: tuple[str, ...] = ()
    zorder: bool = False

    def recorded(self) -> dict[str, list[str]]:
        return {"zorder" if self.zorder else "sort": list(self.columns)} if self.columns else {}


def need_sortable(table: str, delta: DeltaTable, order: Order) -> None:
    """Raise `UsageError` unless a table has the columns of an order, with types that have one."""
    option = "--zorder" if order.zorder else "--sort"
    kinds = {f.name: f.type for f in pa.schema(delta.schema().to_arrow())}
    if order.zorder and len(order.columns) > MOST_COLUMNS:
        raise UsageError(f"{option}: at most {MOST_COLUMNS} columns, not {len(order.columns)}")
    for column in order.columns:
        if column not in kinds:
            known = f"{did_you_mean(column, kinds)} (columns: {', '.join(kinds)})"
            raise UsageError(f"{option}: table '{table}' has no column '{column}'{known}")
        if pa.types.is_nested(kinds[column]):
            raise UsageError(f"{option}: column '{column}' is {kinds[column]}, which has no order")


def write_again(table: str, delta: DeltaTable, paths: Sequence[str], order: Order, folder: str, size: int) -> None:
    """Write the rows of some data files of an open table into a folder below it, in files of about `size` bytes.

    Cost: one pass over these files; ordered, one sort; for a Z-order one pass over its columns before.
    """
    whole = dataset(delta)
    files, base = file_system(table)
    fragments = [whole.format.make_fragment(f"{base}/{path}", files) for path in paths]
    rows = ds.FileSystemDataset(fragments, whole.schema, whole.format, files)
    with batches_of(rows, order) as batches:
        write_files(batches, rows.schema, f"{table}/{folder}", size)


@contextmanager
def batches_of(rows: ds.Dataset, order: Order) -> Iterator[Iterable[pa.RecordBatch]]:
    """Give the rows of a dataset in an order; without columns, in that of its files."""
    if not order.columns:
        yield rows.to_batches(batch_size=BATCH_ROWS, batch_readahead=2, fragment_readahead=1)
        return
    with tempfile.TemporaryDirectory() as scratch, connect() as connection:
        connection.execute("SET temp_directory = $1", [scratch])
        connection.register("stored", rows)
        names = ", ".join(map(quoted, order.columns))
        query = along_z(connection, order.columns) if order.zorder else f"SELECT * FROM stored ORDER BY {names}"
        found = connection.sql(query).to_arrow_reader(BATCH_ROWS)
        yield (batch.cast(rows.schema) for batch in found)


def along_z(connection: duckdb.DuckDBPyConnection, columns: Sequence[str]) -> str:
    """Return a query for the rows of `stored` along a Z-shaped curve through some columns.

    A column has its say by which of 64 parts with as many rows each its value is in; nulls are in the first.
    """
    at = [i / (1 << BITS) for i in range(1, 1 << BITS)]
    names, parts = ", ".join(map(quoted, columns)), [f"{OWN}z{n}" for n in range(len(columns))]
    cuts = ", ".join(f"quantile_disc({quoted(c)}, {at}) AS {p}" for c, p in zip(columns, parts, strict=True))
    sample = f"SELECT {names} FROM stored USING SAMPLE reservoir({SAMPLED} ROWS) REPEATABLE (1)"
    connection.execute(f"CREATE TEMP TABLE bounds AS SELECT {cuts} FROM ({sample})")
    counted = ", ".join(
        f"coalesce(len(list_filter((SELECT {p} FROM bounds), lambda cut: cut <= {quoted(c)})), 0) AS {p}"
        for c, p in zip(columns, parts, strict=True)
    )
    bits = (f"((({p} >> {b}) & 1) << {b * len(parts) + n})" for n, p in enumerate(parts) for b in range(BITS))
    rows = f"SELECT *, {counted} FROM stored"
    return f"SELECT * EXCLUDE ({', '.join(parts)}) FROM ({rows}) ORDER BY {' + '.join(bits)}"


def write_files(batches: Iterable[pa.RecordBatch], schema: pa.Schema, folder: str, size: int) -> None:
    """Write rows as Parquet files of about `size` bytes; of an object store, a file appears when it is whole."""
    files, base = file_system(folder)
    if not is_remote(folder):
        files.create_dir(base)
    name = base.rpartition("/")[2]  # no two data files of a table have one name
    grouped = row_groups(batches, min(GROUP_BYTES, size))
    group = next(grouped, None)
    number = 0
    while group is not None:
        with (
            files.open_output_stream(f"{base}/{name}-{number:05}.parquet") as out,
            pq.ParquetWriter(out, schema, compression="zstd", coerce_timestamps="us") as writer,
        ):
            while group is not None and out.tell() < size:
                writer.write_table(group, row_group_size=len(group))
                group = next(grouped, None)
        number += 1


def row_groups(batches: Iterable[pa.RecordBatch], size: int) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(b.num_rows for b in held) >= GROUP_ROWS or sum(b.nbytes for b in held) >= size:
            yield pa.Table.from_batches(held)
            held = []
    if any(b.num_rows for b in held):
        yield pa.Table.from_batches(held)
