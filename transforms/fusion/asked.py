"""Pairs that people named: labels to learn from, and decisions that bind."""

import itertools
from collections import defaultdict
from collections.abc import Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.transforms.fusion.meetings import TooMany
from headgate.transforms.fusion.records import Records
from headgate.transforms.step import Context, StepError
from headgate.words import cell, value_or_null

NAMED = 3
Name = tuple[str | None, str | None]  # of a record: its source, its key
ASKED_AT_ONCE = 1_000_000  # pairs


def known_pairs(option: str, table: str | None, records: Records, context: Context) -> DataFrame | None:
    """Return the pairs of a table of labels or decisions: one, src_one, other, src_other, same.

    `same` is null where the table contradicts itself. No key names the records that have none.
    """
    if table is None:
        return None
    given = context.table(table)
    names = F.array(*map(F.lit, records.sources))
    ends = []
    for i, end in enumerate("ab"):
        source = F.lit(records.sources[i] if len(records.sources) == 2 else None).cast("string")
        if f"source_{end}" in given.columns:
            source = F.col(f"source_{end}").cast("string")
        number = F.array_position(names, source) - 1
        ends += [source.alias(f"named_{end}"), number.cast("int").alias(f"source_{end}")]
    wanted = given.where(F.col("same").isNotNull()).select(*ends, name_in("key_a"), name_in("key_b"), "same")
    keys = records.many.select("src", name_in("key"), "rid")
    for end in ("a", "b"):
        there = keys.select(*(F.col(c).alias(f"{c}_{end}_") for c in keys.columns))
        same_source = F.col(f"source_{end}").isNull() | (F.col(f"source_{end}") == F.col(f"src_{end}_"))
        wanted = wanted.join(there, on=(F.col(f"key_{end}") == F.col(f"key_{end}_")) & same_source, how="left")
    wanted = context.keep(wanted, option)
    known = F.col("rid_a_").isNotNull() & F.col("rid_b_").isNotNull()
    asked = [f"{part}_{end}" for end in "ab" for part in ("named", "key")]
    unknown = wanted.where(~known).orderBy("key_a", "key_b", *asked).select(*asked).limit(NAMED).collect()
    if unknown:
        n, every = wanted.where(~known).count(), wanted.count()
        tell_unknown(option, table, n, every, [(row[:2], row[2:]) for row in unknown], context)
    a, b = (F.struct(F.col(f"src_{e}_").alias("src"), F.col(f"rid_{e}_").alias("rid")) for e in ("a", "b"))
    ends_of = wanted.where(known & (F.col("rid_a_") != F.col("rid_b_"))).select(
        F.least(a, b).alias("first"), F.greatest(a, b).alias("last"), "same"
    )
    pairs = (
        ends_of.select(
            F.col("first.rid").alias("one"),
            F.col("first.src").alias("src_one"),
            F.col("last.rid").alias("other"),
            F.col("last.src").alias("src_other"),
            "same",
        )
        .groupBy("one", "src_one", "other", "src_other")
        .agg(F.when(F.min("same") == F.max("same"), F.min("same")).alias("same"))
    )
    pairs = context.keep(pairs, f"{option}_pairs")
    tell_contradictions(option, table, pairs.where("same IS NULL").count(), context)
    return pairs


def name_in(column: str) -> Column:
    """Return the keys of a column as pairs name records: blanks around them make no difference."""
    return F.trim(F.col(column).cast("string")).alias(column)


def tell_unknown(
    option: str, table: str, n: int, every: int, named: Sequence[tuple[Name, Name]], context: Context
) -> None:
    """Say which pairs name records that are not there, by source and key; raise `StepError` if all do."""
    shown = ", ".join(" and ".join(cell(shown_name(*end)) for end in pair) for pair in named)
    message = f"{option}: {n:,} of {every:,} pairs of table '{table}' name records that are not there ({shown})"
    if n == every and option == "labels":  # decisions stay when the records that they name are gone
        raise StepError(message)
    context.warn(message)


def shown_name(source: str | None, key: str | None) -> str:
    return f"{source} {value_or_null(key)}" if source else value_or_null(key)


def tell_contradictions(option: str, table: str, against: int, context: Context) -> None:
    if against:
        context.warn(f"{option}: {against:,} pairs are said to be one and not to be, in '{table}': they are left out")


def known_at_once(
    option: str, table: str | None, records: Records, context: Context
) -> dict[tuple[int, int], bool | None] | None:
    """Return what `known_pairs` does, of few records: the places of two records, and whether they are the same.

    Raises `TooMany` for more than `ASKED_AT_ONCE` pairs.
    """
    if table is None:
        return None
    assert records.table is not None
    given = context.table(table)
    columns = [c for c in ("source_a", "source_b", "key_a", "key_b", "same") if c in given.columns]
    texts = [name_in(c) if c.startswith("key") else F.col(c).cast("string") for c in columns[:-1]]
    rows = given.where(F.col("same").isNotNull()).select(*texts, "same")
    pairs = rows.limit(ASKED_AT_ONCE + 1).toArrow().to_pylist()
    if len(pairs) > ASKED_AT_ONCE:
        raise TooMany
    places = defaultdict(list)
    src = records.table["src"].to_pylist()
    for i, key in enumerate(records.table["key"].to_pylist()):
        if key is not None:
            places[key.strip(" ")].append(i)
    found: dict[tuple[int, int], bool | None] = {}
    unknown: list[tuple[Name, Name]] = []
    every = 0
    for pair in pairs:
        ends, names = [], []
        for end, usual in (("a", 0), ("b", 1)):
            source = pair.get(f"source_{end}")
            if f"source_{end}" not in columns and len(records.sources) == 2:
                source = records.sources[usual]
            number = None if source is None else records.sources.index(source) if source in records.sources else -1
            ends.append([i for i in places.get(pair[f"key_{end}"], ()) if number is None or src[i] == number])
            names.append((source, pair[f"key_{end}"]))
        rows_of = max(len(ends[0]), 1) * max(len(ends[1]), 1)
        every += rows_of
        if not ends[0] or not ends[1]:
            unknown += [(names[0], names[1])] * rows_of
        for a, b in itertools.product(*ends):
            if a != b:
                (_, a), (_, b) = sorted([(src[a], a), (src[b], b)])
                same: bool | None = pair["same"]
                found[a, b] = same if found.get((a, b), same) == same else None
    if unknown:
        unknown.sort(key=lambda pair: [(x is not None, x) for x in (pair[0][1], pair[1][1], *pair[0], *pair[1])])
        tell_unknown(option, table, len(unknown), every, unknown[:NAMED], context)
    tell_contradictions(option, table, sum(same is None for same in found.values()), context)
    return found
