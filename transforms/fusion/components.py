"""Components of linked records, found in Spark: labels are passed on and linked records contracted, round by round."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headgate.transforms.fusion.clusters import components
from headgate.transforms.rows import arrow_frame
from headgate.transforms.step import Context

EDGES_AT_ONCE = 4_000_000  # that one task may hold, some 60 bytes each
FEW = 500_000  # that the driver may hold


def label_components(edges: DataFrame, context: Context) -> DataFrame:
    """Return for each record of the edges (a, b: texts) the smallest one that it hangs together with: id, component.

    Each round gives a record the smallest of its neighbours and itself, and joins the edges anew over these. Ids are
    hashes, so a chain of them falls in no order, and each round leaves a fraction of the edges. Up to `FEW` edges, the
    driver has them.
    """
    edges = edges.select("a", "b").where("a <> b").distinct()
    few = edges.limit(FEW + 1).toArrow()
    if len(few) <= FEW:
        labels = pa.Table.from_batches(list(label_all(few.to_batches())), LABELS)
        return arrow_frame(edges.sparkSession, labels)
    left = context.keep(edges, "edges")
    found: DataFrame | None = None
    turn = 0
    while left.count() > EDGES_AT_ONCE:
        both = left.unionByName(left.select(F.col("b").alias("a"), F.col("a").alias("b")))
        lower = both.groupBy("a").agg(F.least(F.first("a"), F.min("b")).alias("to")).withColumnRenamed("a", "id")
        lower = context.keep(lower, f"labels_{turn}")
        found = (
            lower
            if found is None
            else context.keep(relabelled(found.withColumnRenamed("component", "to"), lower), f"found_{turn}")
        )
        found = found.withColumnRenamed("to", "component")
        ends = [lower.select(F.col("id").alias(end), F.col("to").alias(f"to_{end}")) for end in ("a", "b")]
        moved = left.join(ends[0], on="a", how="inner").join(ends[1], on="b", how="inner")
        pair = moved.select(F.least("to_a", "to_b").alias("a"), F.greatest("to_a", "to_b").alias("b"))
        left = context.keep(pair.where("a <> b").distinct(), f"edges_{turn}")
        turn += 1
    last = left.coalesce(1).mapInArrow(label_all, "id string, component string")
    if found is None:
        return last
    return relabelled(
        found.withColumnRenamed("component", "to"), last.withColumnRenamed("component", "to")
    ).withColumnRenamed("to", "component")


LABELS = pa.schema([("id", pa.string()), ("component", pa.string())])


def relabelled(found: DataFrame, lower: DataFrame) -> DataFrame:
    """Return found (id, to) with each label replaced by its own, where it has one."""
    again = lower.select(F.col("id").alias("to"), F.col("to").alias("next"))
    return found.join(again, on="to", how="left").select("id", F.coalesce("next", "to").alias("to"))


def label_all(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
    """Give each record the smallest of its component, from all edges at once."""
    tables = [pa.Table.from_batches([b]) for b in batches]
    if not tables:
        return
    edges = pa.concat_tables(tables)
    names = pc.unique(pa.chunked_array([*edges["a"].chunks, *edges["b"].chunks]))
    names = names.take(pc.sort_indices(names))
    one, other = (pc.index_in(edges[c], names).to_numpy().astype(np.int64) for c in ("a", "b"))
    label = components(len(names), one, other)
    yield pa.RecordBatch.from_arrays([names, names.take(pa.array(label))], ["id", "component"])
