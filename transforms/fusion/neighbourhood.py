"""Sorted neighbourhood: records whose values lie beside each other in order meet, though they share no key."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headgate.transforms.fusion.meetings import Bools, Ints, evidence
from headgate.transforms.fusion.values import JOINED, Comparison, Kind, number
from headgate.transforms.rows import arrow_frame
from headgate.transforms.step import Context

ORDERED: tuple[Kind, ...] = ("name", "text", "code", "number", "date")
PAIRS = "one long, src_one int, other long, src_other int, family long"
ENTRIES = "family long, value string, rid long, src int"


def sortable(kind: Kind, values: pa.Array) -> pa.Array:
    """Return texts whose order by bytes is that of values: of numbers by size, else by letters; null where none is."""
    if kind != "number":
        return pc.list_element(pc.split_pattern(values, JOINED), 0) if len(values) else values
    coded = values.dictionary_encode()
    numbers = np.array([number(v) for v in coded.dictionary.to_pylist()]) + 0.0  # no negative zero
    bits = numbers.view(np.int64)
    place = np.where(bits < 0, ~bits, bits ^ np.int64(-(1 << 63))).view(np.uint64)  # in the order of the numbers
    texts = pa.array([None if np.isnan(v) else f"{p:016x}" for v, p in zip(numbers, place.tolist(), strict=True)])
    return texts.cast(pa.string()).take(coded.indices)


def entries(comparisons: Sequence[Comparison], rid: pa.Array, src: pa.Array, values: Sequence[pa.Array]) -> pa.Table:
    """Return each record under each of its values, as in `ENTRIES`."""
    parts = []
    for j, (comparison, cells) in enumerate(zip(comparisons, values, strict=True)):
        if comparison.kind in ORDERED:
            family = pa.array(np.full(len(cells), 1 << j))
            table = pa.table({"family": family, "value": sortable(comparison.kind, cells), "rid": rid, "src": src})
            parts.append(table.filter(pc.is_valid(table["value"])))
    nothing = pa.table({"family": family_of([]), "value": pa.array([], pa.string()), "rid": rid[:0], "src": src[:0]})
    return pa.concat_tables([nothing, *parts]).combine_chunks()


def family_of(families: Sequence[int]) -> pa.Array:
    return pa.array(families, pa.int64())


def beside(family: Ints, src: Ints, window: int, linking: bool, new: Bools | None = None) -> tuple[Ints, Ints]:
    """Return the pairs of rows in order that are at most `window` places apart, in one column.

    linking: only those of two sources. new: only pairs whose second row is.
    """
    ends = []
    for apart in range(1, min(window, max(len(family) - 1, 0)) + 1):
        meets = family[apart:] == family[:-apart]
        if linking:
            meets &= src[apart:] != src[:-apart]
        if new is not None:
            meets &= new[apart:]
        first = np.flatnonzero(meets)
        ends.append((first, first + apart))
    nothing = np.zeros(0, np.int64)
    one, other = (np.concatenate([nothing, *(e[i] for e in ends)]) for i in range(2))
    return one, other


def pairs_of(rows: pa.Table, one: Ints, other: Ints) -> pa.RecordBatch:
    """Return pairs of rows as in `PAIRS`, the one of the earlier source or the smaller id first."""
    rid, src, family = (rows[c].to_numpy() for c in ("rid", "src", "family"))
    swap = (src[one] > src[other]) | ((src[one] == src[other]) & (rid[one] > rid[other]))
    a, b = np.where(swap, other, one), np.where(swap, one, other)
    columns = [rid[a], src[a], rid[b], src[b], family[a]]
    return pa.RecordBatch.from_arrays([pa.array(c) for c in columns], [part.split()[0] for part in PAIRS.split(", ")])


def met_at_once(
    comparisons: Sequence[Comparison], values: Sequence[pa.Array], src: Ints, window: int, linking: bool
) -> tuple[Ints, Ints, Ints]:
    """Return the pairs of few records, by their places, that lie beside each other, and the column of each as a bit."""
    places = pa.array(np.arange(len(src)))
    rows = entries(comparisons, places, pa.array(src), values)
    rows = rows.sort_by([("family", "ascending"), ("value", "ascending"), ("rid", "ascending")]).combine_chunks()
    one, other = beside(rows["family"].to_numpy(), rows["src"].to_numpy(), window, linking)
    found = pairs_of(rows, one, other)
    a, b, family = (found[c].to_numpy() for c in ("one", "other", "family"))
    return a, b, family


def met_in_spark(
    records: DataFrame, comparisons: Sequence[Comparison], window: int, sources: int, worth: int, context: Context
) -> DataFrame:
    """Return what `met_at_once` does, of many: as blocks do, with the evidence `worth` for each pair.

    The rows are parted by ranges of their order. Pairs within a part are found there, those across from the rows at
    the borders, twice `window` for each part.
    """
    order, linking = ["family", "value", "rid"], sources > 1
    cells = records.select("rid", "src", *(f"v{j}" for j in range(len(comparisons))))
    rows = cells.mapInArrow(entered(comparisons), ENTRIES).repartitionByRange(*order).sortWithinPartitions(*order)
    rows = rows.withColumn("part", F.spark_partition_id())
    met = context.keep(rows.mapInArrow(within(window, linking), f"{PAIRS}, part int, place long, size long"), "beside")
    ends = met.where("other IS NULL").toArrow().sort_by([("part", "ascending"), ("place", "ascending")])
    across = arrow_frame(records.sparkSession, pa.Table.from_batches([at_borders(ends, window, linking)]))
    pairs = met.where("other IS NOT NULL").select(*across.columns).unionByName(across)
    return pairs.withColumns({"bits": F.lit(worth).cast("long"), "two": F.lit(0).cast("long")})


def entered(comparisons: Sequence[Comparison]) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    """Return the body of a map from records (rid, src, v0 …) to their entries."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        for batch in batches:
            yield from entries(comparisons, batch.column(0), batch.column(1), batch.columns[2:]).to_batches()

    return run


def within(window: int, linking: bool) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    """Return the body of a map from rows of one part in order to their pairs, and the rows at its borders.

    A row at a border stands as `one` of a pair without `other`, with its place in the part and the part's size.
    """

    def run(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        head = tail = None
        size = 0
        for batch in batches:
            rows = pa.Table.from_batches([batch])
            head = rows.slice(0, window) if head is None else pa.concat_tables([head, rows]).slice(0, window)
            before = 0 if tail is None else len(tail)
            both = rows if tail is None else pa.concat_tables([tail, rows]).combine_chunks()
            new = np.arange(len(both)) >= before
            found = pairs_of(both, *beside(both["family"].to_numpy(), both["src"].to_numpy(), window, linking, new))
            nothing = pa.nulls(len(found), pa.int64())
            columns = [*found.columns, nothing.cast(pa.int32()), nothing, nothing]
            yield pa.RecordBatch.from_arrays(columns, [*found.schema.names, "part", "place", "size"])
            size += len(rows)
            tail = both.slice(max(len(both) - window, 0))
        if head is None or tail is None:
            return
        tail = tail.slice(len(tail) - min(len(tail), size - len(head)))  # what the head has not
        rows = pa.concat_tables([head, tail]).combine_chunks()
        place = np.r_[np.arange(len(head)), np.arange(size - len(tail), size)]
        sizes, nothing = np.full(len(rows), size), pa.nulls(len(rows), pa.int64())
        ends = [rows["rid"], rows["src"], nothing, nothing.cast(pa.int32()), rows["family"], rows["part"], place, sizes]
        names = [*(part.split()[0] for part in PAIRS.split(", ")), "part", "place", "size"]
        yield from pa.table(dict(zip(names, ends, strict=True))).to_batches()

    return run


def at_borders(ends: pa.Table, window: int, linking: bool) -> pa.RecordBatch:
    """Return the pairs across parts, from the rows at borders in order."""
    part, place, size = (ends[c].to_numpy() for c in ("part", "place", "size"))
    first = np.flatnonzero(np.r_[True, part[1:] != part[:-1]][: len(part)])
    start = np.cumsum(size[first]) - size[first]
    at = np.repeat(start, np.diff(np.r_[first, len(part)])) + place
    one, other = beside(ends["family"].to_numpy(), ends["src_one"].to_numpy(), window, linking)
    across = (part[one] != part[other]) & (at[other] - at[one] <= window)
    rows = pa.table({"rid": ends["one"], "src": ends["src_one"], "family": ends["family"]})
    return pairs_of(rows, one[across], other[across])


def worth_of(n: int, window: int, space: int) -> int:
    """Return the evidence that lying beside each other is, in the parts of a bit of `evidence`."""
    return int(evidence(np.array([float(min(n * window, space))]), space)[0])
