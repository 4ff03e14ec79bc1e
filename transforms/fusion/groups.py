"""Arrow rows in order of a key, taken a few whole groups at a time."""

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc


def whole_groups(batches: Iterable[pa.RecordBatch], key: str) -> Iterator[pa.Table]:
    """Yield the rows of batches, which come in order of a column, in tables that hold all rows of each of its values.

    The largest group and one batch are held at a time.
    """
    carried: list[pa.RecordBatch] = []
    for batch in batches:
        if not batch.num_rows:
            continue
        values = batch.column(key)
        if carried and values[0] != carried[0].column(key)[0]:
            yield pa.Table.from_batches(carried)
            carried = []
        last = pc.index(values, values[-1]).as_py()
        if last:
            yield pa.Table.from_batches([*carried, batch.slice(0, last)])
            carried = []
        carried.append(batch.slice(last))
    if carried:
        yield pa.Table.from_batches(carried)


def one_array(column: pa.ChunkedArray) -> pa.Array:
    """Return one array of all chunks."""
    found = column.combine_chunks()
    return pa.concat_arrays(found.chunks) if isinstance(found, pa.ChunkedArray) else found
