"""Whether a source repeats its own records, so that a record may have several partners there."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import functions as F

from headgate.transforms.fusion.levels import Frequencies
from headgate.transforms.fusion.records import Records
from headgate.transforms.fusion.values import JOINED

NOTHING = {"src": pa.array([], pa.int32()), "n": pa.array([], pa.int64())}
TELLING = 5.0  # bits beyond those that single out one record, from which on having the same values is no chance
CLEAN = 0.02  # of a source's records, the share that may repeat another one of it in all that is compared


def repeats_itself(records: Records, frequencies: Sequence[Frequencies]) -> tuple[str, float] | None:
    """Return the source of which most records repeat another one in all that is compared, and their share.

    None where no source has more than `CLEAN` of them. Records whose values are so frequent, or so few, that others
    have the same by chance do not count, unless one column is all there is to compare.
    """
    columns = [f"v{j}" for j in range(len(records.comparisons))]
    body = again(frequencies, records.sizes)
    if records.table is None:
        groups = records.many.groupBy("src", *columns).agg(F.count(F.lit(1)).alias("n")).where("n > 1")
        found = groups.mapInArrow(body, "src int, n long").groupBy("src").agg(F.sum("n").alias("n")).collect()
        repeated = [(row["n"], row["src"]) for row in found]
    else:
        groups = records.table.group_by(["src", *columns]).aggregate([([], "count_all")])
        several = groups.filter(pc.greater(groups["count_all"], 1)).combine_chunks()
        table = pa.Table.from_batches(list(body(several.to_batches())) or [pa.RecordBatch.from_pydict(NOTHING)])
        sums = table.group_by("src").aggregate([("n", "sum")])
        repeated = list(zip(sums["n_sum"].to_pylist(), sums["src"].to_pylist(), strict=True))
    shares = [(n / records.sizes[src], records.sources[src]) for n, src in repeated]
    share, source = max(shares, default=(0.0, ""))
    return (source, share) if share > CLEAN else None


def again(
    frequencies: Sequence[Frequencies], sizes: Sequence[int]
) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    """Return the body of a map from contents (src, v0 …, and how many records hold each) to repeats that tell."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        for batch in batches:
            bits, filled = np.zeros(len(batch)), np.zeros(len(batch), dtype=bool)
            for frequent, cells in zip(frequencies, batch.columns[1:-1], strict=True):
                there = np.flatnonzero(pc.is_valid(cells).to_numpy(zero_copy_only=False))
                filled[there] = True
                bits[there] += frequent.bits([v.split(JOINED)[0] for v in cells.take(pa.array(there)).to_pylist()])
            src = batch.column(0).to_numpy()
            telling = (bits >= np.log2(np.array(sizes))[src] + TELLING) | (filled & (len(frequencies) == 1))
            kept = pa.array(np.flatnonzero(telling))
            n = pc.subtract(batch.columns[-1], 1).cast(pa.int64())
            yield pa.RecordBatch.from_arrays([batch.column(0).take(kept), n.take(kept)], ["src", "n"])

    return run
