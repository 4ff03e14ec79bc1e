"""Exact draws from strata: the order in which the rows of a stratum are taken, and where a draw ends in it.

Every row has a number of its own, a hash of its row id and a seed, and rows are taken in the order of these numbers. So
a draw of any size is the same in any partitioning, a larger one has all rows of a smaller one, and what is left to find
is the number of the last row (the cut). A row of weight w has the order ln(-ln(u) / w) of its uniform number u
(Efraimidis and Spirakis, 2006); with replacement a row has one for each time that it may be drawn, the arrivals of a
Poisson process of rate w: the first n arrivals of all rows are n independent draws.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pyspark.sql import Column, DataFrame
from pyspark.sql import Window as W
from pyspark.sql import functions as F
from pyspark.sql import types as T

from headgate.transforms.kinds import is_number, is_plain, present
from headgate.transforms.quantiles import spreads_of
from headgate.transforms.rows import ROW_ID, canonical, content_key, local_frame, quoted, stable_hash
from headgate.transforms.step import Context, StepError
from headgate.words import cell, did_you_mean, few_of, stratum_of_values

MOST_STRATA = 1_000_000  # whose sizes and targets come to the driver
MOST_BINS = 300_000  # of the histogram of strata and bins; beyond it, the rows are sorted
MOST_INLINE = 1_000  # strata that a fitted step holds as plain values; more are an artifact
BITS = 6  # of a hash that make its bin in a histogram
SCALE = 40  # bits behind the point of an order that is a logarithm
LOWEST, HIGHEST = -(1 << 63), (1 << 63) - 1  # orders
CUTS = (
    "stratum string, pool string, rows long, target long, copies int, cut long, row_id string, content long, equal int"
)


@dataclass(frozen=True, kw_only=True)
class Order:
    """How the rows of a stratum follow each other.

    times: with replacement, how often a row may be drawn; else 0. salt: what tells draws of another purpose.
    """

    seed: int
    salt: str = ""
    weight: str | None = None
    times: int = 0

    @property
    def is_plain(self) -> bool:
        return self.weight is None and not self.times

    def of(self, df: DataFrame, unit: Column | None = None) -> Column:
        """Return the order of each row, or with replacement an array of them; null for a row that is never drawn.

        unit: the stable text that decides it; the row id by default.
        """
        seed, unit = F.lit(self.seed).cast("long"), F.col(ROW_ID) if unit is None else unit
        if self.is_plain:
            return F.xxhash64(seed, *([F.lit(self.salt)] if self.salt else []), unit)
        weight = F.lit(1.0) if self.weight is None else F.col(quoted(self.weight)).cast("double")
        positive = (weight > 0) & ~F.isnan(weight) & (weight < float("inf"))

        def waits(number: Column) -> Column:
            uniform = (F.shiftrightunsigned(F.xxhash64(seed, number, unit), 11) + F.lit(0.5)) * 2.0**-53
            return -F.log(uniform) / weight

        def order(time: Column) -> Column:
            return F.floor(F.log(time) * F.lit(float(1 << SCALE))).cast("long")

        if not self.times:
            return F.when(positive, order(waits(F.lit(1))))
        numbers = F.sequence(F.lit(1), F.lit(self.times))
        started = F.struct(F.lit(0.0).alias("time"), F.array().cast("array<bigint>").alias("orders"))

        def arrive(so_far: Column, number: Column) -> Column:
            time = so_far["time"] + waits(number)
            return F.struct(time.alias("time"), F.array_append(so_far["orders"], order(time)).alias("orders"))

        return F.when(positive, F.aggregate(numbers, started, arrive)["orders"])

    def bin_of(self, order: Column) -> Column:
        """Return the part of a histogram that an order falls into; parts follow each other as orders do."""
        return F.shiftright(order, 64 - BITS if self.is_plain else SCALE - 3).cast("int")


def stratum_of(df: DataFrame, by: Sequence[str], edges: Mapping[str, Sequence[float]] | None = None) -> Column:
    """Return one text for the values of some columns; of those with edges, for the numbers of their bins.

    Lists of plain values are sets: neither their order nor repeated values make a difference.
    """
    kinds = {f.name: f.dataType for f in df.schema.fields}
    parts = []
    for column in by:
        kind, value = kinds[column], F.col(quoted(column))
        if edges and column in edges:
            kind, value = T.IntegerType(), bin_number(column, edges[column])
        elif isinstance(kind, T.ArrayType) and is_plain(kind.elementType.simpleString()):
            value = F.array_sort(F.array_distinct(value))
        parts.append(canonical(value, kind))
    return F.concat(*parts)


def bin_number(column: str, edges: Sequence[float]) -> Column:
    """Return the number of a value's bin: 1 below the first edge, one more from each on; of NaN 0, of null null."""
    value = F.col(quoted(column)).cast("double")
    above = F.lit(1)
    for edge in edges:
        above = above + F.when(value >= F.lit(edge), 1).otherwise(0)
    return F.when(F.isnan(value), 0).when(value.isNotNull(), above).cast("int")


def edges_of(df: DataFrame, bins: Mapping[str, int | Sequence[float]]) -> dict[str, list[float]]:
    """Return the edges of the bins of each column: those given, or the quantiles of its values, without equal ones.

    Nulls and NaN are left out. Cost: a count and two passes, or one where there are few rows.
    """
    kinds = dict(df.dtypes)
    for column in bins:
        if not is_number(kinds[column]):
            raise StepError(f"bins: '{column}' is {kinds[column]}, not a number; put a cast before")
    edges = {c: list(map(float, given)) for c, given in bins.items() if not isinstance(given, int)}
    open_ = {c: n for c, n in bins.items() if isinstance(n, int)}
    if open_:
        wanted = [(present(c, kinds[c]), [i / number for i in range(1, number)]) for c, number in open_.items()]
        found = spreads_of(df, wanted)[()]
        edges |= {c: sorted(set(s.quantiles)) if s else [] for c, s in zip(open_, found, strict=True)}
    return edges


def keys_of(df: DataFrame, stratum: Column, order: Order, amount: Column | None = None) -> DataFrame:
    """Return what a draw is decided by: stratum, row id, order (exploded where there are several) and amount.

    Where orders are not spread evenly, or amounts differ, also the bin of a histogram.
    """
    orders = order.of(df)
    amounts = [] if amount is None else [amount.cast("long").alias("amount")]
    orders = F.explode_outer(orders) if order.times else orders
    keys = df.select(stratum.alias("stratum"), F.col(ROW_ID).alias("row_id"), orders.alias("order"), *amounts)
    return keys if order.is_plain and amount is None else keys.withColumn("bin", order.bin_of(F.col("order")))


def size_of(keys: DataFrame) -> list[Column]:
    """Return the aggregates of some keys: their amount, by default 1 each, and how many there are, undrawn ones too."""
    amount = F.count("order")
    if "amount" in keys.columns:
        amount = F.sum(F.when(F.col("order").isNotNull(), F.col("amount")))
    return [F.coalesce(amount, F.lit(0)).cast("long").alias("size"), F.count(F.lit(1)).alias("rows")]


@dataclass(frozen=True)
class Sizes:
    """The size of each stratum, and of each of its bins where there are any, and they are few."""

    sizes: Mapping[str, int]
    rows: Mapping[str, int]
    bins: Mapping[str, Mapping[int, int]] | None


def measured(keys: DataFrame, by: Sequence[str], df: DataFrame | None = None) -> Sizes:
    """Return the sizes of the strata; raise `StepError` for more than a million of them.

    df: the rows that the keys are of, where nothing but `by` is needed to count them. Cost: one pass; where strata and
    bins are many, another one.
    """
    found = None
    if "bin" in keys.columns:
        found = keys.groupBy("stratum", "bin").agg(*size_of(keys)).limit(MOST_BINS + 1).toArrow()
    if found is None or found.num_rows > MOST_BINS:
        counted = keys.groupBy("stratum").agg(*size_of(keys)) if df is None else counted_by(df, by)
        found = counted.limit(MOST_STRATA + 1).toArrow()
        if found.num_rows > MOST_STRATA:
            wide = ", ".join(by)
            raise StepError(f"by: more than {MOST_STRATA:,} strata of {wide}; give numbers `bins`, or fewer columns")
        names = found["stratum"].to_pylist()
        sizes, rows = (dict(zip(names, found[c].to_pylist(), strict=True)) for c in ("size", "rows"))
        return Sizes(sizes, rows, None)
    bins: dict[str, dict[int, int]] = {}
    rows = {}
    for name, number, size, n in zip(*(found[c].to_pylist() for c in ("stratum", "bin", "size", "rows")), strict=True):
        inside = bins.setdefault(name, {})
        rows[name] = rows.get(name, 0) + n
        if number is not None:
            inside[number] = size
    return Sizes({s: sum(inside.values()) for s, inside in bins.items()}, rows, bins)


def counted_by(df: DataFrame, by: Sequence[str]) -> DataFrame:
    """Return the strata that columns of plain values make, with their sizes: the text of each is made once."""
    found = df.groupBy(*(F.col(quoted(c)) for c in by)).agg(F.count(F.lit(1)).alias("_hg_rows"))
    rows = F.col("_hg_rows")
    return found.select(stratum_of(found, by).alias("stratum"), rows.alias("size"), rows.alias("rows"))


class Cut(NamedTuple):
    """The last key of a draw, and how many of its rows are taken. off: by how much the draw misses its amount."""

    order: int
    row_id: str
    taken: int
    rows: int
    off: int = 0


def cuts_of(
    keys: DataFrame, found: Sizes, pools: Sequence[tuple[str, str]], ahead: Mapping[str, int]
) -> dict[str, Cut]:
    """Return the cut of each pool that takes something.

    pools: each stratum with what it is drawn with; ahead: pool -> how much it takes, above 0. With amounts, the draw
    ends where it is nearest to that, and all rows of one id are taken together. Cost: one pass, and a sort of the keys
    near the cuts; of all keys where strata are many and orders are not spread evenly.
    """
    if not ahead:
        return {}
    if "bin" not in keys.columns:
        return cuts_in_windows(keys, found, pools, ahead)
    spark, amounts = keys.sparkSession, "amount" in keys.columns
    if found.bins is None:
        whole = [(s, p, ahead[p]) for s, p in sorted(pools) if p in ahead]
        lookup, on = local_frame(spark, whole, "stratum string, pool string, rank long"), ["stratum"]
    else:
        summed: dict[str, dict[int, int]] = {}
        for stratum, pool in pools:
            total = summed.setdefault(pool, {})
            for number, n in found.bins[stratum].items():
                total[number] = total.get(number, 0) + n
        wanted = {p: bin_at(summed[p], ahead[p], amounts) for p in ahead}
        rows = [(s, p, *at) for s, p in sorted(pools) if p in ahead for at in wanted[p]]
        lookup, on = local_frame(spark, rows, "stratum string, pool string, bin int, rank long"), ["stratum", "bin"]
        keys = keys.where(F.col("bin").isin(*{row[2] for row in rows}))  # before any stratum is made
    near_cut = keys.where(F.col("order").isNotNull()).join(F.broadcast(lookup), on=on, how="inner")
    size = F.sum("amount") if amounts else F.count(F.lit(1))
    per_key = near_cut.groupBy("pool", "order", "row_id").agg(size.alias("rows"), F.max("rank").alias("rank"))
    if not amounts:
        return collected(at_rank(per_key, "pool", "order", "row_id"))
    upto = W.partitionBy("pool").orderBy("order", "row_id").rowsBetween(W.unboundedPreceding, W.currentRow)
    placed = per_key.withColumn("upto", F.sum("rows").over(upto))
    near = placed.where(2 * F.col("upto") - F.col("rows") <= 2 * F.col("rank"))
    off = (F.col("upto") - F.col("rank")).alias("off")
    ends = near.groupBy("pool").agg(F.max(F.struct("order", "row_id", "rows", off)).alias("last"))
    return collected(ends.select("pool", "last.*", F.col("last.rows").alias("taken")), "off")


def cuts_in_windows(
    keys: DataFrame, found: Sizes, pools: Sequence[tuple[str, str]], ahead: Mapping[str, int]
) -> dict[str, Cut]:
    """Return the cuts of orders that are hashes: each is looked for where it is if hashes are spread evenly.

    Keys below such a window are counted alone. A cut that is not in its window, as row ids are equal or by chance, is
    looked for among all keys.
    """
    sizes: dict[str, int] = {}
    for stratum, pool in pools:
        sizes[pool] = sizes.get(pool, 0) + found.sizes[stratum]
    cuts: dict[str, Cut] = {}
    for exact in (False, True):
        rows = [
            (s, p, *((LOWEST, HIGHEST) if exact else window(ahead[p], sizes[p])), ahead[p])
            for s, p in sorted(pools)
            if p in ahead and p not in cuts
        ]
        if not rows:
            break
        lookup = local_frame(keys.sparkSession, rows, "stratum string, pool string, low long, high long, rank long")
        some = keys.where(F.col("order") <= max(row[3] for row in rows))  # before any stratum is made
        some = some.join(F.broadcast(lookup), on="stratum", how="inner").where("order <= high")
        inside = F.col("order") >= F.col("low")
        key = [F.when(inside, F.col(c)).alias(c) for c in ("order", "row_id")]
        counted = some.groupBy("pool", *key).agg(F.count(F.lit(1)).alias("rows"), F.max("rank").alias("rank"))
        cuts |= collected(at_rank(counted, "pool", "order", "row_id").where("order is not null"))
    return cuts


def window(ahead: int, size: int) -> tuple[int, int]:
    """Return the least and the greatest order between which the `ahead`-th of so many hashes nearly always is."""
    apart = 4 * math.isqrt(ahead) + 8
    low, high = (((ahead + off) << 64) // size + LOWEST for off in (-apart, apart))
    return max(low, LOWEST), min(high, HIGHEST)


def collected(cuts: DataFrame, *more: str) -> dict[str, Cut]:
    found = cuts.select("pool", "order", "row_id", "taken", "rows", *more).toArrow()
    names, *columns = (column.to_pylist() for column in found.columns)
    return dict(zip(names, map(Cut, *columns), strict=True))


def bin_at(sizes: Mapping[int, int], ahead: int, amounts: bool) -> list[tuple[int, int]]:
    """Return the bin that the `ahead`-th of a pool falls into, and how much of it is taken.

    With amounts also the bin before, as the nearest end may be its last key.
    """
    before: tuple[int, int] | None = None
    for number in sorted(sizes):
        if ahead <= sizes[number]:
            if amounts and before is not None:
                return [(before[0], before[1] + ahead), (number, before[1] + ahead)]
            return [(number, ahead)]
        ahead -= sizes[number]
        before = number, sizes[number]
    raise ValueError("more is taken than there is")


def at_rank(counted: DataFrame, pool: str, *order: str) -> DataFrame:
    """Return the row of each pool that the `rank`-th of its `rows` falls into, and how many of these it takes."""
    upto = W.partitionBy(pool).orderBy(*order).rowsBetween(W.unboundedPreceding, W.currentRow)
    placed = counted.withColumn("upto", F.sum("rows").over(upto))
    taken = F.col("rank") - (F.col("upto") - F.col("rows"))
    return placed.withColumn("taken", taken).where((F.col("taken") > 0) & (F.col("taken") <= F.col("rows")))


def ties_of(context: Context, split: DataFrame, pools: Mapping[str, str], stratum: Any, seed: int) -> DataFrame:
    """Return where cuts fall between rows of one id: the content up to which they are taken, as (pool, content, equal).

    split: (pool, row_id, rank) of such cuts. equal: how many of the rows of just that content; null for all of them.
    Cost: one pass over the rows that share an id with a cut.
    """
    df = context.whole()
    of_pool = local_frame(df.sparkSession, sorted(pools.items()), "stratum string, pool string")
    rows = (
        df.select(stratum(df).alias("stratum"), F.col(ROW_ID).alias("row_id"), row_content(df, seed).alias("content"))
        .join(F.broadcast(of_pool), on="stratum", how="inner")
        .join(F.broadcast(split), on=["pool", "row_id"], how="inner")
    )
    counted = rows.groupBy("pool", "content").agg(F.count(F.lit(1)).alias("rows"), F.max("rank").alias("rank"))
    equal = F.when(F.col("taken") < F.col("rows"), F.col("taken")).cast("int")
    return at_rank(counted, "pool", "content").select("pool", "content", equal.alias("equal"))


def row_content(df: DataFrame, seed: int) -> Column:
    """Return a 64-bit hash of all that a row holds: rows with the same are one as good as the other."""
    return stable_hash(df, seed, df.columns)


def values_in(key: str) -> list[str | None]:
    """Return the texts of the plain values that make a stratum; of nested ones the key itself."""
    values: list[str | None] = []
    at = 0
    while at < len(key):
        if key[at] == "-":
            values.append(None)
            at += 1
            continue
        colon = key.find(":", at)
        digits = key[at:colon].lstrip("abcdefghijklmnopqrstuvwxyz")
        if colon < 0 or not digits.isdigit():
            return [key]
        at = colon + 1 + int(digits)
        values.append(key[colon + 1 : at])
    return values


def shown(key: str) -> str:
    """Return a stratum as messages name it."""
    return stratum_of_values(values_in(key))


def keys_of_values(
    df: DataFrame, by: Sequence[str], edges: Mapping[str, Sequence[float]], values: Sequence[Sequence[str | None]]
) -> list[str]:
    """Return the strata that some values, as texts, stand for: in a column of doubles 1 and 1.0 are one.

    Raises `StepError` for a text that the column's type does not hold, and where two name one stratum.
    """
    kinds = {c: "int" if c in edges else k for c, k in dict(df.dtypes).items()}
    nested = next((c for c in by if not is_plain(kinds[c])), None)
    if nested is not None:
        raise StepError(f"targets: '{nested}' is {kinds[nested]}, of which no single values are named")
    names = [f"v{i}" for i in range(len(by))]
    texts = local_frame(df.sparkSession, values, ", ".join(f"{n} string" for n in names))
    typed = texts.select(*(F.col(n).try_cast(kinds[c]).alias(n) for n, c in zip(names, by, strict=True)))
    found = typed.select(content_key(typed, names).alias("key"), *names).collect()
    for row, texts_given in zip(found, values, strict=True):
        for n, column, text in zip(names, by, texts_given, strict=True):
            if text is not None and row[n] is None:
                raise StepError(f"targets: '{column}' is {kinds[column]}, which does not hold '{text}'")
    named: dict[str, str] = {}
    for (key, *_), given in zip(found, map(stratum_of_values, values), strict=True):
        if key in named:
            raise StepError(f"targets: '{named[key]}' and '{given}' are one stratum")
        named[key] = given
    return [*named]


def need_known(named: Sequence[str], there: Mapping[str, int], what: str) -> None:
    """Raise `StepError` for a stratum that is named, and of which there is no row."""
    unknown = next((n for n in named if n not in there), None)
    if unknown is not None:
        texts = sorted(map(shown, there))
        hint = did_you_mean(shown(unknown), texts, cell)
        raise StepError(f"{what}: no training row is of '{shown(unknown)}'{hint} (there are: {few_of(texts)})")
