"""Exact quantiles at any size: Spark's own hold all distinct values in memory, as doubles, which end at 2^53."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import Window as W
from pyspark.sql import functions as F

from headgate.transforms.rows import local_frame
from headgate.transforms.step import StepError

ACCURACY = 10_000  # of a sketch: the ranks that it tells are off by at most this part of the rows
FEW = 1_000_000  # values that one aggregate may hold
AT_ONCE = 32  # values in one pass of groups: more take long to plan
MARGIN = 2 / ACCURACY  # on either side of a share: what the sketch tells there encloses the quantile
DRAWN = 4_000_000  # values that come to the driver at once, of all quantiles together
LEAST_DRAWN = 1_000  # of each quantile
DEVIATIONS = 6.0  # of a rank in a sample: a quantile is within as many of where the sample has it
PASSES = 20  # at most: each narrows a bracket some fiftyfold


class Spread(NamedTuple):
    """How the values of a group are spread: their number, the least and the greatest, and some quantiles."""

    n: int
    low: float
    high: float
    quantiles: list[float]


def spreads_of(
    df: DataFrame,
    values: Sequence[tuple[Column, Sequence[float]]],
    keys: Sequence[Column] = (),
    overall: bool = False,
    most: tuple[int, str] = (1, ""),
) -> dict[tuple[Any, ...], list[Spread | None]]:
    """Return how each of some values is spread in each group of equal keys; None where a group has no value.

    values: numbers, read as doubles, each with the shares whose quantiles are wanted: exact, and interpolated as by
        Spark's `percentile`. Nulls are left out; there must be no NaN.
    keys: texts; nulls are one key. overall: whether all rows together are told too, under the empty key.
    most: how many groups there may be and what they are, for the message of the `StepError` that says so.
    Cost: a count of the rows, and one aggregate that holds the values where there are few. Else, without keys, see
    `searched`; with keys, two passes for every 32 values: the first sketches where the quantiles are (Greenwald and
    Khanna 2001, as Spark does), the second looks at the values there alone, some ten-thousandths, and counts those
    below. No answer depends on the sketch: where it was wrong, both are made again with a wider margin.
    """
    x, key = [f"_hg_x{i}" for i in range(len(values))], [f"_hg_k{i}" for i in range(len(keys))]
    rows = df.select(*named(keys, key), *(v.cast("double").alias(n) for (v, _), n in zip(values, x, strict=True)))
    size = rows.count() if any(wanted for _, wanted in values) else 0
    few = size * len(values) <= FEW
    if keys and overall:
        each = F.struct(F.lit(False).alias("all"), *key)
        whole = F.struct(F.lit(True).alias("all"), *(F.lit(None).cast("string").alias(k) for k in key))
        rows = rows.select(F.explode(F.array(each, whole)).alias("key"), *x).select("key.*", *x)
        key = ["all", *key]
    if not few and not key:
        return {(): searched(rows, [wanted for _, wanted in values], size)}
    shares = dict(zip(x, (tuple(wanted) for _, wanted in values), strict=True))
    found: dict[tuple[Any, ...], list[Spread | None]] = {}
    for names in [x] if few else (x[i : i + AT_ONCE] for i in range(0, len(x), AT_ONCE)):
        part = {name: shares[name] for name in names}
        told = held(rows, key, part, most[0] + 2) if few else sketched(rows, key, part, most[0] + 2, MARGIN)
        if len(told) > most[0] + (key[:1] == ["all"]):
            raise StepError(f"by: more than {most[0]:,} {most[1]}")
        for row, spreads in told.items():
            found.setdefault(row, []).extend(spreads)
    return {(() if r[0] else r[1:]) if key[:1] == ["all"] else r: spreads for r, spreads in found.items()}


class Bracket(NamedTuple):
    """Two values of a column between which a quantile is looked for, and the part of the values between to draw."""

    column: int
    low: float
    high: float
    part: float


class Counts(NamedTuple):
    """What is known about a bracket: of all values, of those up to its ends, and of those between."""

    n: int
    least: float
    greatest: float
    below: int
    upto: int
    inside: int
    last: int
    drawn: Any


def searched(rows: DataFrame, wanted: Sequence[Sequence[float]], size: int) -> list[Spread | None]:
    """Return the spread of each column of doubles by narrowing a bracket about each quantile; size: of the rows.

    A pass counts what is below, at and between the ends of each bracket, and brings the values between: a sample where
    they are many, which gives the next bracket, and all of them where they are few. So no answer depends on a sample:
    counts show where a bracket missed. Raises `StepError` where rows are others in each pass.
    Cost: two passes in Arrow batches up to some ten million rows, one more for every further fiftyfold; `DRAWN` values
    at once on the driver, whatever the number of rows.
    """
    most = max(DRAWN // sum(map(len, wanted)), LEAST_DRAWN)
    whole = [Bracket(j, -math.inf, math.inf, most / size) for j in range(len(wanted))]
    first = looked_at(rows, whole)
    found: dict[tuple[int, float], float] = {}
    looks = {(j, p): (whole[j], first[j]) for j, shares in enumerate(wanted) for p in shares if first[j].n}
    for _ in range(PASSES):
        brackets = {}
        for (j, p), (bracket, counts) in looks.items():
            place = (counts.n - 1) * p
            ranks = math.floor(place), math.ceil(place)
            below, above = (value_at(rank, bracket, counts) for rank in ranks)
            if below is None or above is None:
                brackets[j, p] = next_bracket(bracket, counts, ranks, most)
            else:
                found[j, p] = between(below, above, place)
        if not brackets:
            return [
                Spread(c.n, c.least, c.greatest, [found[j, p] for p in shares]) if c.n else None
                for j, (shares, c) in enumerate(zip(wanted, first, strict=True))
            ]
        counted = looked_at(rows, list(brackets.values()))
        looks = {key: (b, c) for (key, b), c in zip(brackets.items(), counted, strict=True)}
    raise StepError(f"quantiles: not found in {PASSES} passes: the rows are others each time they are read")


def value_at(rank: int, bracket: Bracket, counts: Counts) -> float | None:
    """Return the value of a rank; None where it is beside the bracket, or the values within are not all there."""
    if not counts.below <= rank < counts.last:
        return None
    if rank < counts.upto:
        return bracket.low
    if rank >= counts.upto + counts.inside:
        return bracket.high
    return float(counts.drawn[rank - counts.upto]) if len(counts.drawn) == counts.inside else None


def next_bracket(bracket: Bracket, counts: Counts, ranks: tuple[int, int], most: int) -> Bracket:
    """Return a bracket that should enclose the values of two ranks, and of whose values about so many are drawn."""
    column, low, high, _ = bracket
    if ranks[0] < counts.below:
        return Bracket(column, -math.inf, low, most / counts.below)
    if ranks[1] >= counts.last:
        return Bracket(column, high, math.inf, most / (counts.n - counts.last))
    drawn, ends = len(counts.drawn), []
    for rank, side in zip(ranks, (-1, 1), strict=True):
        q = min(max((rank - counts.upto) / counts.inside, 0.0), 1.0)
        ends.append(round(q * drawn + side * DEVIATIONS * (math.sqrt(drawn * q * (1 - q)) + 1)))
    first, last = min(max(ends[0], -1), drawn - 1), max(min(ends[1], drawn), 0)
    low, high = (float(counts.drawn[i]) if 0 <= i < drawn else end for i, end in ((first, low), (last, high)))
    return Bracket(column, low, high, most * (drawn + 1) / (counts.inside * max(last - first, 1)))


def looked_at(rows: DataFrame, brackets: Sequence[Bracket]) -> list[Counts]:
    """Return what one pass finds about some brackets; what is drawn is sorted."""
    schema = "place int, n bigint, least double, greatest double, below bigint, upto bigint, inside bigint, last bigint"
    found = rows.mapInArrow(looking(brackets), f"{schema}, drawn binary").toArrow()
    counts = []
    for i in range(len(brackets)):
        part = found.filter(pc.equal(found["place"], i))
        n, below, upto, inside, last = (pc.sum(part[c]).as_py() or 0 for c in ("n", "below", "upto", "inside", "last"))
        drawn = np.sort(np.frombuffer(b"".join(part["drawn"].to_pylist())))
        ends = pc.min(part["least"]).as_py(), pc.max(part["greatest"]).as_py()
        counts.append(Counts(n, *ends, below, upto, inside, last, drawn))
    return counts


def looking(brackets: Sequence[Bracket]) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    """Return the function of the batches of a partition that counts about brackets: a row for each."""

    def counted(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        random = np.random.default_rng()  # no answer depends on it
        counts = np.zeros((5, len(brackets)), dtype=np.int64)
        ends: Any = np.array([[math.inf], [-math.inf]]).repeat(len(brackets), axis=1)
        drawn: list[list[bytes]] = [[] for _ in brackets]
        for batch in batches:
            for i, (column, low, high, part) in enumerate(brackets):
                cells = batch.column(column)
                x = cells.drop_null().to_numpy()
                if not len(x):
                    continue
                above, upto = x > low, x <= high
                inside = x[above & (x < high)]
                counts[:, i] += len(x), (x < low).sum(), len(x) - above.sum(), len(inside), upto.sum()
                ends[:, i] = min(ends[0, i], x.min()), max(ends[1, i], x.max())
                drawn[i].append((inside if part >= 1 else inside[random.random(len(inside)) < part]).tobytes())
        n, below, upto, inside, last = counts
        arrays = [np.arange(len(brackets), dtype=np.int32), n, *ends, below, upto, inside, last]
        values = pa.array([b"".join(parts) for parts in drawn], pa.binary())
        yield pa.RecordBatch.from_arrays([*map(pa.array, arrays), values], names=["place", *Counts._fields])

    return counted


def held(
    rows: DataFrame, key: Sequence[str], shares: Mapping[str, Sequence[float]], most: int
) -> dict[tuple[Any, ...], list[Spread | None]]:
    """Return the spreads of groups, at most so many, by one aggregate that holds the values."""
    counted = []
    for name, wanted in shares.items():
        inner = F.percentile(name, F.array(*map(F.lit, wanted))) if wanted else F.array().cast("array<double>")
        counted.append(F.struct(F.count(name), F.min(name), F.max(name), inner).alias(name))
    found = rows.groupBy(*key).agg(*counted).limit(most).collect()
    return {tuple(r[: len(key)]): [Spread(*r[n]) if r[n][0] else None for n in shares] for r in found}


def sketched(
    rows: DataFrame, key: Sequence[str], shares: Mapping[str, Sequence[float]], most: int, margin: float
) -> dict[tuple[Any, ...], list[Spread | None]]:
    """Return the spreads of groups, at most so many, by a sketch and a look at what is within a margin about it."""
    sketches = []
    for name, wanted in shares.items():
        ends = F.array(*(F.lit(min(max(p + m, 0.0), 1.0)) for p in wanted for m in (-margin, margin)))
        told = {"n": F.count(name), "low": F.min(name), "high": F.max(name)}
        told["ends"] = F.percentile_approx(name, ends, ACCURACY)
        sketches.append(F.struct(*named(told.values(), told)).alias(name))
    first = rows.groupBy(*key).agg(*sketches).limit(most).collect()
    placed = placed_values(rows, key, shares, first)
    found: dict[tuple[Any, ...], list[Spread | None]] = {}
    for row in first:
        spreads: list[Spread | None] = []
        for name, wanted in shares.items():
            n, low, high, _ = row[name]
            quantiles = []
            for (below, above), p in zip(placed[tuple(row[: len(key)])][name], wanted, strict=n > 0):
                if below is None or above is None:
                    return sketched(rows, key, shares, most, margin * 10)
                quantiles.append(between(below, above, (n - 1) * p))
            spreads.append(Spread(n, low, high, quantiles) if n else None)
        found[tuple(row[: len(key)])] = spreads
    return found


def placed_values(
    rows: DataFrame, key: Sequence[str], shares: Mapping[str, Sequence[float]], first: Sequence[Any]
) -> dict[tuple[Any, ...], dict[str, list[list[float | None]]]]:
    """Return, by group, column and share, the two values between which a quantile is; None where the ends mislead.

    first: rows of keys and, for each column, of what was sketched.
    """
    sketches = {tuple(row[: len(key)]): row for row in first}
    kinds = [f"there_{k} {'boolean' if k == 'all' else 'string'}" for k in key]
    columns = [f"ends{name} array<double>" for name in shares]
    known = [(*group, *(row[name]["ends"] for name in shares)) for group, row in sketches.items()]
    lookup = local_frame(rows.sparkSession, known, ", ".join(kinds + columns))
    match = F.lit(True)
    for k in key:
        match = match & F.col(k).eqNullSafe(F.col(f"there_{k}"))
    rows = rows.join(F.broadcast(lookup), on=match, how="inner")
    counts, told = [], []
    for name, wanted in shares.items():
        value, listed = F.col(name), F.col(f"ends{name}")
        for i, share in enumerate(wanted):
            at, low, high = f"{name}_{i}", F.get(listed, F.lit(2 * i)), F.get(listed, F.lit(2 * i + 1))
            counted = {
                "below": F.count_if(value < low),
                "upto": F.count_if(value <= low),
                "last": F.count_if(value <= high),
                "inside": F.sort_array(F.collect_list(F.when((value > low) & (value < high), value))),
                "n": F.count(value),
                # A group may be so small that the quantile is beside its ends.
                "before": F.max(F.when(value < low, value)),
                "after": F.min(F.when(value > high, value)),
            }
            counts.append(F.struct(*named(counted.values(), counted)).alias(at))
            c = F.col(at)
            place = (c["n"] - 1) * F.lit(share)
            two = [F.get(c["inside"], (rank - c["upto"]).cast("int")) for rank in (F.floor(place), F.ceil(place))]
            told.append(c.withField("inside", F.array(*two)).withField("size", F.size(c["inside"])).alias(at))
    found: dict[tuple[Any, ...], dict[str, list[list[float | None]]]] = {}
    for row in rows.groupBy(*key).agg(*counts).select(*key, *told).collect():
        group = tuple(row[: len(key)])
        found[group] = {}
        for name, wanted in shares.items():
            n, _, _, ends = sketches[group][name]
            found[group][name] = [
                values_at((n - 1) * p, row[f"{name}_{i}"].asDict(), *ends[2 * i : 2 * i + 2])
                for i, p in enumerate(wanted if n else ())
            ]
    return found


def values_at(place: float, c: Mapping[str, Any], low: float, high: float) -> list[float | None]:
    """Return the values of the ranks below and above a place by what was counted about two ends; None beside them."""
    found: list[float | None] = []
    for rank, inside in zip((math.floor(place), math.ceil(place)), c["inside"], strict=True):
        if rank < c["below"]:
            found.append(c["before"] if rank == c["below"] - 1 else None)
        elif rank < c["upto"]:
            found.append(low)
        elif rank < c["upto"] + c["size"]:
            found.append(inside)
        elif rank < c["last"]:
            found.append(high)
        else:
            found.append(c["after"] if rank == c["last"] else None)
    return found


def between(low: float, high: float, place: float) -> float:
    """Return what is at a place between the values of two ranks, as Spark's `percentile`; never -0.0."""
    if low == high:
        return low + 0.0
    return (math.ceil(place) - place) * low + (place - math.floor(place)) * high


def named(columns: Iterable[Column], names: Iterable[str]) -> list[Column]:
    return [c.alias(n) for c, n in zip(columns, names, strict=True)]


def exact_quantiles(
    df: DataFrame, value: Column, keys: Sequence[Column], quarters: Sequence[int]
) -> dict[tuple[Any, ...], list[Fraction]]:
    """Return the given quartiles of `value` in each group of equal keys, interpolated as Spark's `percentile` does.

    value: whole numbers or decimals; nulls are left out, and so is a group without any value. quarters: 1, 2 or 3.
    Cost: a shuffle of the distinct values and a sort of them in each group; two rows a quartile come to the driver.
    """
    names = [f"_hg_k{i}" for i in range(len(keys))]
    groups = [F.col(n) for n in names] or [F.lit(0)]
    values = df.select(value.alias("_hg_value"), *(k.alias(n) for k, n in zip(keys, names, strict=True)))
    counted = values.where("_hg_value is not null").groupBy(*names, "_hg_value").agg(F.count(F.lit(1)).alias("_hg_n"))
    whole = W.partitionBy(*groups).rowsBetween(W.unboundedPreceding, W.unboundedFollowing)
    upto = W.partitionBy(*groups).orderBy("_hg_value").rowsBetween(W.unboundedPreceding, W.currentRow)
    placed = counted.withColumns({"_hg_upto": F.sum("_hg_n").over(upto), "_hg_all": F.sum("_hg_n").over(whole)})
    first = F.col("_hg_upto") - F.col("_hg_n")
    hit = F.lit(False)
    for q in quarters:
        fourfold = (F.col("_hg_all") - 1) * q
        for place in (F.shiftright(fourfold, 2), F.shiftright(fourfold + 3, 2)):
            hit = hit | ((first <= place) & (place < F.col("_hg_upto")))
    found: dict[tuple[Any, ...], list[Any]] = {}
    for row in placed.where(hit).select(*names, "_hg_value", first.alias("_hg_first"), "_hg_upto", "_hg_all").collect():
        found.setdefault(tuple(row[n] for n in names), []).append(row)
    return {key: [quantile(rows, q) for q in quarters] for key, rows in found.items()}


def quantile(rows: Sequence[Any], quarter: int) -> Fraction:
    place = Fraction((rows[0]["_hg_all"] - 1) * quarter, 4)
    low, high = (
        next(Fraction(r["_hg_value"]) for r in rows if r["_hg_first"] <= at < r["_hg_upto"])
        for at in (math.floor(place), math.ceil(place))
    )
    return low + (high - low) * (place - math.floor(place))
