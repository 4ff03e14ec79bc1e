"""Comparison of candidate pairs in tiles: each holds some records once, however many pairs they are part of.

Records fall into groups by their id, and a pair into the tile of its two groups. So records are sent to as many tiles
as there are groups, and not once for each of their pairs; within a tile equal values are compared once. Where groups
are many, records are sent to the tiles alone in which they have pairs.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.transforms.fusion.groups import one_array
from headgate.transforms.fusion.levels import Frequencies, Levels, patterns
from headgate.transforms.fusion.records import Records
from headgate.transforms.fusion.values import Comparison

SMALL = 4_000  # records of a group of a small table, so that several tasks have work
LARGE = 40_000_000  # characters of a group of a large one: a task holds two groups, some 5 bytes a character
FEW = 4  # groups of a table that is neither
MANY = 8  # groups from which on a record has pairs in some tiles only
COMPARED = "one long, src_one int, other long, src_other int, mask long, pattern binary"


def groups_of(records: int, characters: int) -> int:
    return max(1, min(math.ceil(records / SMALL), max(FEW, math.ceil(characters / LARGE))))


def compared(records: Records, pairs: DataFrame, frequencies: Sequence[Frequencies]) -> DataFrame:
    """Return the pairs with the levels of their comparisons, one byte each, as `pattern`."""
    groups = groups_of(sum(records.sizes), records.characters)
    tile = (F.pmod("one", F.lit(groups)) * groups + F.pmod("other", F.lit(groups))).cast("int")
    cut = pairs.select(tile.alias("tile"), "one", "src_one", "other", "src_other", "mask")
    rows = records.many.select("rid", "src", *(f"v{j}" for j in range(len(records.comparisons))))
    if groups < MANY:
        laid = rows.withColumn("tile", F.explode(tiles_of(groups, len(records.sizes) - 1)))
    else:
        ends = cut.select(F.col("tile").alias("of"), F.explode(F.array("one", "other")).alias("rid")).distinct()
        laid = rows.join(ends, on="rid", how="inner").withColumnRenamed("of", "tile")
    body = tile_body(records.comparisons, tuple(frequencies))
    return laid.groupBy("tile").cogroup(cut.groupBy("tile")).applyInArrow(body, COMPARED)


def tiles_of(groups: int, last: int) -> Column:
    """Return the tiles in which a record may have pairs. last: the number of the last source."""
    group = F.pmod("rid", F.lit(groups)).cast("int")
    others = F.sequence(F.lit(0), F.lit(groups - 1))
    as_one, as_other = (
        F.transform(others, lambda h: group * groups + h),
        F.transform(others, lambda h: h * groups + group),
    )
    if last:  # pairs go from an earlier source to a later one
        nowhere = F.array().cast("array<int>")
        as_one = F.when(F.col("src") < last, as_one).otherwise(nowhere)
        as_other = F.when(F.col("src") > 0, as_other).otherwise(nowhere)
    return F.array_union(as_one, as_other)


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
