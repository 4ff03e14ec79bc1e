"""Pairs that people named: labels to learn from, and decisions that bind."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headgate.transforms.fusion.records import Records
from headgate.transforms.step import Context, StepError

NAMED = 3


def known_pairs(option: str, table: str | None, records: Records, context: Context) -> DataFrame | None:
    """Return the pairs of a table of labels or decisions: one, src_one, other, src_other, same.

    `same` is null where the table contradicts itself.
    """
    if table is None:
        return None
    given = context.table(table)
    names = F.array(*map(F.lit, records.sources))
    ends = []
    for end in ("a", "b"):
        number = F.lit(None).cast("int")
        if f"source_{end}" in given.columns:
            number = (F.array_position(names, F.col(f"source_{end}")) - 1).cast("int")
        elif len(records.sources) == 2:
            number = F.lit(0 if end == "a" else 1)
        ends.append(number.alias(f"source_{end}"))
    wanted = given.where(F.col("same").isNotNull()).select(
        *ends, F.col("key_a").cast("string"), F.col("key_b").cast("string"), "same"
    )
    keys = records.rows.select("src", "key", "rid")
    for end in ("a", "b"):
        there = keys.select(*(F.col(c).alias(f"{c}_{end}_") for c in keys.columns))
        same_source = F.col(f"source_{end}").isNull() | (F.col(f"source_{end}") == F.col(f"src_{end}_"))
        wanted = wanted.join(there, on=(F.col(f"key_{end}") == F.col(f"key_{end}_")) & same_source, how="left")
    wanted = context.keep(wanted, option)
    known = F.col("rid_a_").isNotNull() & F.col("rid_b_").isNotNull()
    unknown = wanted.where(~known).select("key_a", "key_b").limit(NAMED).collect()
    if unknown:
        n, every = wanted.where(~known).count(), wanted.count()
        shown = ", ".join(f"{row['key_a']} and {row['key_b']}" for row in unknown)
        message = f"{option}: {n:,} of {every:,} pairs of table '{table}' name records that are not there ({shown})"
        if n == every and option == "labels":  # decisions stay when the records that they name are gone
            raise StepError(message)
        context.warn(message)
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
    against = pairs.where("same IS NULL").count()
    if against:
        context.warn(f"{option}: {against:,} pairs are said to be one and not to be, in '{table}': they are left out")
    return pairs
