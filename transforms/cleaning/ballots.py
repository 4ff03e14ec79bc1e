"""The votes of dependencies, counted in Spark: values of a model, or where they are many, an artifact to be joined."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.transforms.batches import by_batches
from headgate.transforms.cleaning.counts import texts_of
from headgate.transforms.cleaning.sources import source_weights
from headgate.transforms.cleaning.votes import Model, Ranked, Rule, Votes, faults_of, read_table
from headgate.transforms.kinds import as_text
from headgate.transforms.rows import local_frame, quoted
from headgate.transforms.step import Context

CANDIDATES = 5  # of each group's values, the most frequent ones
MOST_GROUPS = 200_000  # groups that a model may hold: more are an artifact
MOST_CLAIMS = 1_000_000  # (group, value, source) that come to the driver, and show how sources weigh
UNITS = 1_000_000  # of a vote: whole numbers, whose sums know no order
GROUP = "turn:int,rule:int,key:array<string>,rows:double,ranked:array<struct<value:string,rows:double>>"
Groups = dict[tuple[str, ...], tuple[float, Ranked]]
Stored = tuple[str | None, ...]  # for each round of votes, the artifact that holds its groups


def table_of(cells: pa.StructArray, columns: Sequence[str]) -> dict[str, list[str | None]]:
    """Return a struct of texts, as `with_ballots` makes it, as columns of texts."""
    return {c: cells.field(i).to_pylist() for i, c in enumerate(columns)}


def with_ballots(
    df: DataFrame, model: Model, stored: Stored, kinds: Mapping[str, str], context: Context
) -> tuple[DataFrame, Column]:
    """Return rows, and their cells as a struct of texts with the groups of stored votes that each row is in.

    The rows may have further columns of headgate's own. Cost: a join for each dependency of a stored round, by the
    columns that decide it as repaired by the rounds before.
    """
    cells = texts_of(model.columns, kinds)
    if not any(stored):
        return df, cells
    df = df.withColumn("_hg_ballots", F.array().cast(f"array<struct<{GROUP}>>"))
    cells = cells.withField("ballots", F.col("_hg_ballots"))
    for turn, place in enumerate(stored):
        if place is None:
            continue
        groups = context.stored(place)
        earlier = replace(model, votes=model.votes[:turn])
        df = df.withColumn("_hg_read", repaired(earlier, cells))
        for r, votes in enumerate(model.votes[turn]):
            mine = groups.where(F.col("rule") == r).select(
                F.col("key").alias("_hg_key"),
                F.struct(F.lit(turn).alias("turn"), "rule", "key", "rows", "ranked").alias("_hg_ballot"),
            )
            key = key_of(votes.rule, model.columns, F.col("_hg_read"))
            df = df.join(mine, on=key == F.col("_hg_key"), how="left").drop("_hg_key")
            more = F.array_append("_hg_ballots", F.col("_hg_ballot"))
            df = df.withColumn(
                "_hg_ballots", F.when(F.col("_hg_ballot").isNotNull(), more).otherwise(F.col("_hg_ballots"))
            )
            df = df.drop("_hg_ballot")
    return df, cells


def model_of(model: Model, cells: pa.StructArray) -> Model:
    """Return the model with the groups of stored votes that a batch of rows is in."""
    if cells.type.num_fields == len(model.columns):
        return model
    found: dict[tuple[int, int], Groups] = defaultdict(dict)
    for group in cells.field(len(model.columns)).flatten().to_pylist():
        ranked = tuple((x["value"], x["rows"]) for x in group["ranked"])
        found[group["turn"], group["rule"]][tuple(group["key"])] = (group["rows"], ranked)
    # A round is stored or in the model, never both: those in the model are shared by all batches.
    votes = tuple(
        tuple(replace(v, groups=found[t, r]) if (t, r) in found else v for r, v in enumerate(turn))
        for t, turn in enumerate(model.votes)
    )
    return replace(model, votes=votes)


def key_of(rule: Rule, columns: Sequence[str], cells: Column) -> Column:
    """Return what decides a dependency, of cells as `repaired` gives them."""
    return F.array(*(cells[f"k{columns.index(c)}"] for c in rule.columns))


def repaired(model: Model, cells: Column) -> Column:
    """Return cells as repaired by the votes so far (k0, k1, …), and as read (r0, r1, …)."""
    fields = [f"{kind}{i}:string" for kind in "kr" for i in range(len(model.columns))]
    return by_batches(reading(model), f"struct<{','.join(fields)}>", cells)


def reading(model: Model) -> Callable[[pa.Array], pa.Array]:
    """Return the function of a batch of rows that gives its cells as repaired by the votes so far, and as read."""

    def read(cells: pa.Array) -> pa.Array:
        table = table_of(cells, model.columns)
        plain = read_table(table, model)
        now = {c: list(values) for c, values in plain.items()}
        if model.votes:
            # As the repaired table is read again: a fault without a cure is empty there.
            for i, faults in faults_of(table, model_of(model, cells)):
                for column, fault in faults.items():
                    now[column][i] = fault.new
        parts = [*now.values(), *plain.values()]
        names = [f"{kind}{i}" for kind in "kr" for i in range(len(model.columns))]
        return pa.StructArray.from_arrays([pa.array(p, pa.string()) for p in parts], names)

    return read


def counted_votes(
    df: DataFrame, model: Model, stored: Stored, rules: Sequence[Rule], sources: str | None, context: Context
) -> tuple[tuple[Votes, ...], str | None]:
    """Return the votes of a further round, and the artifact that holds their groups if the model does not."""
    rows = cells_as_read(df, model, stored, rules, sources, context)
    rows = weighed(rows, context, f"claims-{len(stored)}") if sources else rows.withColumn("units", F.lit(UNITS))
    return votes_of(rows, rules, model.counts, context, f"votes-{len(stored)}")


def cells_as_read(
    df: DataFrame, model: Model, stored: Stored, rules: Sequence[Rule], sources: str | None, context: Context
) -> DataFrame:
    """Return (rule, key, value, source) of rows and dependencies: determinants as repaired so far, the rest as read."""
    kinds = dict(df.dtypes)
    source = as_text(F.col(quoted(sources)), kinds[sources]) if sources else F.lit(None).cast("string")
    df, cells = with_ballots(df, model, stored, kinds, context)
    read, claims = F.col("_hg_read"), []
    for r, rule in enumerate(rules):
        key = key_of(rule, model.columns, read)
        value = read[f"r{model.columns.index(rule.decides)}"]
        claims.append(F.struct(F.lit(r).alias("rule"), key.alias("key"), value.alias("value")))
    each = df.select(repaired(model, cells).alias("_hg_read"), source.alias("source"))
    each = each.select(F.explode(F.array(*claims)).alias("x"), "source")
    known = F.col("x.value").isNotNull() & ~F.exists(F.col("x.key"), lambda k: k.isNull())
    return each.where(known).select("x.rule", "x.key", "x.value", "source")


def weighed(rows: DataFrame, context: Context, name: str) -> DataFrame:
    """Return (rule, key, value, units) of claims (rule, key, value, source), as their sources weigh.

    A claim without a source weighs 1, as does one of a source that the claims looked at do not have. Of more than
    `MOST_CLAIMS`, these are the claims of the groups of the smallest hashes.
    """
    counted = rows.groupBy("rule", "key", "value", "source").agg(F.count(F.lit(1)).alias("n"))
    claims = context.keep(counted, name)
    named = claims.where("source <> ''")
    order = F.xxhash64("rule", "key")
    total = named.count()
    if total > MOST_CLAIMS:
        share = 2.0 * MOST_CLAIMS / total  # of the hashes; what is too many is cut off in their order
        named = named.where(order <= F.lit(min(int(share * 2**64) - 2**63, 2**63 - 1)))
        named = named.orderBy(order, "rule", "key", "value", "source").limit(MOST_CLAIMS)
    found = sorted(((r, tuple(k)), v, s, n) for r, k, v, s, n in named.collect())
    weights = [(source, round(weight * UNITS)) for source, weight in sorted(source_weights(found).items())]
    lookup = local_frame(rows.sparkSession, weights, "source string, weight bigint")
    joined = claims.join(F.broadcast(lookup), on="source", how="left")
    return joined.select("rule", "key", "value", (F.col("n") * F.coalesce("weight", F.lit(UNITS))).alias("units"))


def votes_of(
    rows: DataFrame, rules: Sequence[Rule], counts: Mapping[str, Mapping[str, int]], context: Context, name: str
) -> tuple[tuple[Votes, ...], str | None]:
    """Count the votes of each dependency in units; of more than `MOST_GROUPS` groups, into an artifact."""
    overall = [(r, v, n) for r, rule in enumerate(rules) for v, n in counts[rule.decides].items()]
    lookup = local_frame(rows.sparkSession, overall, "rule int, value string, overall bigint")
    pairs = rows.groupBy("rule", "key", "value").agg(F.sum("units").alias("n"))
    ranked = pairs.join(F.broadcast(lookup), on=["rule", "value"], how="left")
    order = F.struct(-F.col("n"), -F.coalesce("overall", F.lit(0)), F.col("value"))
    top = F.slice(F.sort_array(F.collect_list(order)), 1, CANDIDATES)
    named = F.transform(top, lambda x: F.struct(x["value"].alias("value"), (-x["col1"] / UNITS).alias("rows")))
    groups = ranked.groupBy("rule", "key").agg((F.sum("n") / UNITS).alias("rows"), named.alias("ranked"))
    found = groups.limit(MOST_GROUPS + 1).collect()
    if len(found) > MOST_GROUPS:
        place = context.store(groups, name)
        first, second = (F.coalesce(F.get("ranked", F.lit(i))["rows"], F.lit(0.0)) for i in (0, 1))
        agree = F.when((first > 1) & (first - 1 >= second), first).otherwise(0.0)
        several = context.stored(place).where("rows > 1").groupBy("rule")
        sums = {r[0]: r[1:] for r in several.agg(F.sum(agree), F.sum("rows")).collect()}
        return tuple(
            Votes(rule=x, groups={}, strength=strength(*sums.get(r, (0, 0)))) for r, x in enumerate(rules)
        ), place
    grouped: list[Groups] = [{} for _ in rules]
    for rule, key, n, listed in found:
        grouped[rule][tuple(key)] = (n, tuple((x["value"], x["rows"]) for x in listed))
    return tuple(settled(rule, own) for rule, own in zip(rules, grouped, strict=True)), None


def settled(rule: Rule, groups: Groups) -> Votes:
    """Return the votes of one dependency with their strength: how often a row agrees with the others of its group."""
    agree = judged = 0.0
    for _, (rows, ranked) in sorted(groups.items()):
        if rows > 1:
            judged += rows
            second = ranked[1][1] if len(ranked) > 1 else 0
            agree += ranked[0][1] if ranked[0][1] > 1 and ranked[0][1] - 1 >= second else 0
    return Votes(rule=rule, groups=groups, strength=strength(agree, judged))


def strength(agree: float, judged: float) -> float:
    return (agree + 1) / (judged + 2)
