"""Exact quantiles at any size: Spark's own hold all distinct values in memory, as doubles, which end at 2^53."""

import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from pyspark.sql import Column, DataFrame
from pyspark.sql import Window as W
from pyspark.sql import functions as F

from headgate.transforms.rows import local_frame
from headgate.transforms.step import StepError

ACCURACY = 10_000  # of a sketch: the ranks that it tells are off by at most this part of the rows
FEW = 1_000_000  # values that one aggregate may hold
AT_ONCE = 32  # values in one pass: more take long to plan
MARGIN = 2 / ACCURACY  # on either side of a share: what the sketch tells there encloses the quantile


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
    Cost: a count of the rows, and one aggregate that holds the values where there are few; else two passes for every
    32 values. The first sketches where the quantiles are (Greenwald and Khanna 2001, as Spark does); the second looks
    at the values there alone, some ten-thousandths, and counts those below. No answer depends on the sketch: where it
    was wrong, both are made again with a wider margin.
    """
    x, key = [f"_hg_x{i}" for i in range(len(values))], [f"_hg_k{i}" for i in range(len(keys))]
    rows = df.select(*named(keys, key), *(v.cast("double").alias(n) for (v, _), n in zip(values, x, strict=True)))
    few = not any(wanted for _, wanted in values) or rows.count() * len(values) <= FEW
    if keys and overall:
        each = F.struct(F.lit(False).alias("all"), *key)
        whole = F.struct(F.lit(True).alias("all"), *(F.lit(None).cast("string").alias(k) for k in key))
        rows = rows.select(F.explode(F.array(each, whole)).alias("key"), *x).select("key.*", *x)
        key = ["all", *key]
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
    if key:
        kinds = [f"there_{k} {'boolean' if k == 'all' else 'string'}" for k in key]
        ends = [f"ends{name} array<double>" for name in shares]
        known = [(*group, *(row[name]["ends"] for name in shares)) for group, row in sketches.items()]
        lookup = local_frame(rows.sparkSession, known, ", ".join(kinds + ends))
        match = F.lit(True)
        for k in key:
            match = match & F.col(k).eqNullSafe(F.col(f"there_{k}"))
        rows = rows.join(F.broadcast(lookup), on=match, how="inner")
    counts, told = [], []
    for name, wanted in shares.items():
        value, listed = F.col(name), F.col(f"ends{name}") if key else F.array(*map(F.lit, first[0][name]["ends"] or ()))
        for i, share in enumerate(wanted):
            at, low, high = f"{name}_{i}", F.get(listed, F.lit(2 * i)), F.get(listed, F.lit(2 * i + 1))
            counted = {
                "below": F.count_if(value < low),
                "upto": F.count_if(value <= low),
                "last": F.count_if(value <= high),
                "inside": F.sort_array(F.collect_list(F.when((value > low) & (value < high), value))),
            }
            if key:  # a group may be so small that the quantile is beside its ends
                counted |= {
                    "n": F.count(value),
                    "before": F.max(F.when(value < low, value)),
                    "after": F.min(F.when(value > high, value)),
                }
            counts.append(F.struct(*named(counted.values(), counted)).alias(at))
            c = F.col(at)
            place = ((c["n"] if key else F.lit(first[0][name]["n"])) - 1) * F.lit(share)
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
            found.append(c.get("before") if rank == c["below"] - 1 else None)
        elif rank < c["upto"]:
            found.append(low)
        elif rank < c["upto"] + c["size"]:
            found.append(inside)
        elif rank < c["last"]:
            found.append(high)
        else:
            found.append(c.get("after") if rank == c["last"] else None)
    return found


def between(low: float, high: float, place: float) -> float:
    """Return what is at a place between the values of the ranks below and above it, as Spark's `percentile` does."""
    return low if low == high else (math.ceil(place) - place) * low + (place - math.floor(place)) * high


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
