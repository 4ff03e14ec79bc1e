"""Comparison of candidate pairs in tiles: each holds some records once, however many pairs they are part of.

Records fall into groups by their id, and a pair into the tile of its two groups. So records are sent to as many tiles
as there are groups, and not once for each of their pairs; within a tile equal values are compared once.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headgate.transforms.fusion.groups import one_array
from headgate.transforms.fusion.levels import Frequencies, Levels, patterns
from headgate.transforms.fusion.values import Comparison

SMALL, LARGE = 4_000, 50_000  # records of a group: of a small table, so that several tasks have work; of a large one
FEW = 4  # groups of a table that is neither
COMPARED = "one long, src_one int, other long, src_other int, mask long, pattern binary"


def groups_of(records: int) -> int:
    return max(1, min(math.ceil(records / SMALL), max(FEW, math.ceil(records / LARGE))))


def compared(
    records: DataFrame,
    pairs: DataFrame,
    comparisons: Sequence[Comparison],
    frequencies: Sequence[Frequencies],
    sizes: Sequence[int],
) -> DataFrame:
    """Return the pairs with the levels of their comparisons, one byte each, as `pattern`."""
    groups, last = groups_of(sum(sizes)), len(sizes) - 1
    group = F.pmod("rid", F.lit(groups)).cast("int")
    others = F.sequence(F.lit(0), F.lit(groups - 1))
    as_one, as_other = (
        F.transform(others, lambda h: group * groups + h),
        F.transform(others, lambda h: h * groups + group),
    )
    nowhere = F.array().cast("array<int>")
    if last:  # pairs go from an earlier source to a later one
        as_one = F.when(F.col("src") < last, as_one).otherwise(nowhere)
        as_other = F.when(F.col("src") > 0, as_other).otherwise(nowhere)
    values = [f"v{j}" for j in range(len(comparisons))]
    laid = records.select(F.explode(F.array_union(as_one, as_other)).alias("tile"), "rid", *values)
    tile = (F.pmod("one", F.lit(groups)) * groups + F.pmod("other", F.lit(groups))).cast("int")
    cut = pairs.select(tile.alias("tile"), "one", "src_one", "other", "src_other", "mask")
    body = tile_body(tuple(comparisons), tuple(frequencies))
    return laid.groupBy("tile").cogroup(cut.groupBy("tile")).applyInArrow(body, COMPARED)


def tile_body(
    comparisons: tuple[Comparison, ...], frequencies: tuple[Frequencies, ...]
) -> Callable[[pa.Table, pa.Table], pa.Table]:
    def compare(records: pa.Table, pairs: pa.Table) -> pa.Table:
        names = ["one", "src_one", "other", "src_other", "mask"]
        ids = one_array(records["rid"])
        one, other = (pc.index_in(one_array(pairs[c]), ids).to_numpy().astype(np.int64) for c in ("one", "other"))
        columns = [one_array(records[f"v{j}"]) for j in range(len(comparisons))]
        if not len(one):
            levels = np.zeros((0, len(comparisons)), np.int8)
        else:
            levels = patterns(comparisons, frequencies, columns, one, other)
        return pairs.select(names).append_column("pattern", [as_bytes(levels)])

    return compare


def as_bytes(levels: Levels) -> pa.Array:
    """Return each row of levels as bytes."""
    size = levels.shape[1]
    offsets = np.arange(len(levels) + 1, dtype=np.int32) * size
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(levels).tobytes())]
    return pa.Array.from_buffers(pa.binary(), len(levels), buffers)


def as_levels(patterns: pa.Array, size: int) -> Levels:
    """Return bytes as rows of levels."""
    return np.frombuffer(b"".join(patterns.to_pylist()), np.int8).reshape(-1, size)
