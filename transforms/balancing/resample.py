"""Rows repeated and left out by fixed cuts: what steps that draw from strata become once fitted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pyspark.sql import Column, DataFrame
from pyspark.sql import Window as W
from pyspark.sql import functions as F

from headgate.transforms.balancing.draws import (
    CUTS,
    MOST_INLINE,
    Cut,
    Order,
    Sizes,
    cuts_of,
    row_content,
    shown,
    stratum_of,
    ties_of,
)
from headgate.transforms.cleaning.columns import Derive
from headgate.transforms.rows import (
    MADE,
    PARENTS,
    ROW_ID,
    Rejection,
    content_key,
    is_training,
    local_frame,
    quoted,
    reject,
)
from headgate.transforms.step import Columns, Context, Step, require_columns, with_new
from headgate.words import cell

SPLIT = "pool string, row_id string, rank long"  # of cuts that fall between rows of one id
FIELDS = tuple(column.split()[0] for column in CUTS.split(", "))


@dataclass(frozen=True, kw_only=True)
class ResampleStrata(Step):
    """Repeat or leave out training rows by fixed cuts: what `sample_strata` and `mix_sources` become once fitted.

    by, seed, weight, number: as in `sample_strata`. edges: of the bins of numeric columns.
    strata: each entry is {"stratum", "pool", "rows", "target", "copies", "cut", "row_id", "content", "equal"}: every
        row of the stratum is taken `copies` times, and once more for each of its orders that is at most (cut, row id).
        Where rows share the row id of the cut, "content" (a hash of the whole row) cuts between them, and of rows that
        are equal in that too, "equal" says how many.
    stored: the artifact that holds these entries, where they are more than a thousand.
    times: with replacement, how often a row may be drawn; else 0. most: how often a row is taken at most.
    ties: whether a cut falls between rows of one id (`content`), and between equal ones (`equal`).
    Rows of other splits and of unseen strata stay as they are. Rows taken zero times are marked; further copies are
    new rows that name their parent. Cost: one pass; the strata are broadcast. Where a cut falls between rows that are
    equal in everything, one shuffle.
    """

    name: ClassVar[str] = "resample_strata"
    by_split: ClassVar[bool] = True
    revision: ClassVar[int] = 3
    by: tuple[str, ...]
    strata: tuple[Mapping[str, Any], ...] = ()
    stored: str | None = None
    edges: Mapping[str, tuple[float, ...]] | None = None
    weight: str | None = None
    times: int = 0
    most: int = 1
    ties: Literal["none", "content", "equal"] = "none"
    number: str | None = None
    seed: int = 0

    @property
    def scope(self) -> Literal["row", "table"]:  # type: ignore[override]
        """Return whether a cut falls between rows that are equal in everything, which are counted."""
        return "table" if self.ties == "equal" else "row"

    @property
    def whole_rows(self) -> bool:
        return self.ties != "none"

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns([*self.by, *([self.weight] if self.weight else [])], have)
        return with_new(have, {self.number: "int"}) if self.number else have

    def learned(self) -> bool:
        return bool(self.strata) or self.stored is not None

    def for_new_rows(self) -> Step | None:
        return Derive(columns={self.number: "0"}).at(self.id) if self.number else None

    def copies(self, ids: DataFrame) -> DataFrame:
        numbered = ids.withColumn("_hg_copy", F.explode(F.sequence(F.lit(0), F.lit(max(self.most, 1) - 1))))
        return numbered.where("_hg_copy > 0").select(self.copy_id(numbered).alias(ROW_ID))

    def copy_id(self, df: DataFrame) -> Column:
        return F.md5(content_key(df, [ROW_ID, "_hg_copy"], F.lit(self.id)))

    def run(self, df: DataFrame, context: Context) -> DataFrame:
        if not self.learned():
            return df.withColumn(self.number, F.lit(0)) if self.number else df
        if self.stored is not None:
            cuts = context.stored(self.stored)
        else:
            cuts = local_frame(df.sparkSession, [tuple(s.get(f) for f in FIELDS) for s in self.strata], CUTS)
        return self.resampled(df, cuts.select(*(F.col(f).alias(f"_hg_{f}") for f in FIELDS)))

    def resampled(self, df: DataFrame, cuts: DataFrame) -> DataFrame:
        before = df.columns
        order = Order(seed=self.seed, weight=self.weight, times=self.times)
        stratum, content = stratum_of(df, self.by, self.edges), row_content(df, self.seed)
        df = df.withColumn("_hg_order", order.of(df))
        df = df.join(F.broadcast(cuts), on=stratum == F.col("_hg_stratum"), how="left")
        drawn = is_training(df) & F.col("_hg_copies").isNotNull()
        same_id = F.col(ROW_ID) == F.col("_hg_row_id")
        # The content is asked for on the few rows at a cut alone: a conditional evaluates no more than it takes. Where
        # no cut needs it, it is left out: Spark does not compile stages with it as a whole.
        by_content = F.when(F.col("_hg_content").isNull(), True).otherwise(content <= F.col("_hg_content"))
        inside = F.lit(True) if self.ties == "none" else by_content
        at_cut = same_id & self.any_order(lambda x: x == F.col("_hg_cut"))
        if self.ties == "equal":
            tied = drawn & at_cut & F.col("_hg_equal").isNotNull()
            df = df.withColumn("_hg_tied", F.coalesce(F.when(tied, content == F.col("_hg_content")), F.lit(False)))
            alike = F.when(F.col("_hg_tied"), F.col("_hg_pool")).otherwise(F.col(ROW_ID))
            place = W.partitionBy("_hg_tied", alike).orderBy(ROW_ID).rowsBetween(W.unboundedPreceding, W.currentRow)
            df = df.withColumn("_hg_place", F.row_number().over(place))
            inside = F.when(F.col("_hg_tied"), F.col("_hg_place") <= F.col("_hg_equal")).otherwise(inside)
        earlier = F.col(ROW_ID) < F.col("_hg_row_id")
        below = self.count_orders(lambda x: (x < F.col("_hg_cut")) | ((x == F.col("_hg_cut")) & earlier)) + F.when(
            at_cut, F.when(inside, 1).otherwise(0)
        ).otherwise(0)
        whole = F.when(F.col("_hg_order").isNotNull(), F.col("_hg_copies")).otherwise(0)
        df = df.withColumn("_hg_taken", F.when(drawn, whole + F.coalesce(below, F.lit(0))).otherwise(1))
        evidence = {
            "stratum": F.concat_ws(", ", *(F.concat(F.lit(f"{c}="), F.col(quoted(c)).cast("string")) for c in self.by)),
            "hash": F.col("_hg_order") if not self.times else F.array_min("_hg_order"),
            "threshold": F.col("_hg_cut"),
            "rows_of_stratum": F.col("_hg_rows"),
            "target": F.col("_hg_target"),
        }
        df = reject(df, self.id, Rejection(F.col("_hg_taken") == 0, "not_sampled", evidence))
        df = df.withColumn("_hg_copy", F.lit(0))
        if self.most > 1:
            numbers = F.sequence(F.lit(0), F.greatest(F.col("_hg_taken"), F.lit(1)) - 1)
            df = df.withColumn("_hg_copy", F.explode(numbers))
            copy = F.col("_hg_copy") > 0
            df = df.withColumns(
                {
                    ROW_ID: F.when(copy, self.copy_id(df)).otherwise(F.col(ROW_ID)),
                    PARENTS: F.when(copy, F.array(F.col(ROW_ID))).otherwise(F.col(PARENTS)),
                    MADE: F.when(copy, F.lit(self.id)).otherwise(F.col(MADE)),
                }
            )
        numbered = [F.col("_hg_copy").cast("int").alias(self.number)] if self.number else []
        return df.select(*(quoted(c) for c in before), *numbered)

    def count_orders(self, holds: Any) -> Column:
        order = F.col("_hg_order")
        return F.size(F.filter(order, holds)) if self.times else F.when(holds(order), 1).otherwise(0)

    def any_order(self, holds: Any) -> Column:
        order = F.col("_hg_order")
        return F.exists(order, holds) if self.times else holds(order)


@dataclass(frozen=True, kw_only=True)
class Draw:
    """What is drawn from strata that were measured.

    pools: stratum -> what it is drawn with; targets: of each pool. asked: pool -> the share of all that was asked for,
    if shares were, to be told beside what is drawn. near: the share of a target by which amounts, in
    `unit`s, may miss it without a warning.
    """

    by: tuple[str, ...]
    edges: Mapping[str, Sequence[float]]
    order: Order
    keys: DataFrame
    found: Sizes
    pools: Mapping[str, str]
    targets: Mapping[str, int]
    asked: Mapping[str, float] | None = None
    number: str | None = None
    near: float = 0.0
    unit: str = "rows"


def fitted_draw(draw: Draw, context: Context) -> ResampleStrata:
    """Return the frozen step of a draw: every pool gets exactly its target.

    Cost: as `cuts_of`; strata and cuts come to the driver, and more than a thousand are written as an artifact.
    """
    sizes, rows = in_pools(draw.found.sizes, draw.pools), in_pools(draw.found.rows, draw.pools)
    times = draw.order.times
    copies = {p: 0 if times or not sizes[p] else t // sizes[p] for p, t in draw.targets.items()}
    ahead = {p: t - copies[p] * sizes[p] for p, t in draw.targets.items()}
    ahead = {p: n for p, n in ahead.items() if n}
    cuts = cuts_of(draw.keys, draw.found, [*draw.pools.items()], ahead)
    split = [(p, c.row_id, c.taken) for p, c in sorted(cuts.items()) if c.taken < c.rows]
    ties = tied(draw, context, split) if split else {}
    entries = []
    for stratum, pool in sorted(draw.pools.items()):
        end = (cuts[pool].order, cuts[pool].row_id) if pool in cuts else (None, None)
        entry = (stratum, pool, rows[pool], draw.targets[pool], copies[pool])
        entries.append((*entry, *end, *ties.get(pool, (None, None))))
    few = len(entries) <= MOST_INLINE
    if few and "amount" in draw.keys.columns:
        tell_amounts(draw, context, ahead, cuts)
    return ResampleStrata(
        by=draw.by,
        edges={c: tuple(e) for c, e in draw.edges.items()} or None,
        weight=draw.order.weight,
        times=times,
        most=max(1, times or max((copies[p] + (p in ahead) for p in copies), default=1)),
        number=draw.number,
        seed=draw.order.seed,
        ties="none" if not ties else "content" if all(equal is None for _, equal in ties.values()) else "equal",
        strata=tuple(dict(zip(FIELDS, entry, strict=True)) for entry in entries) if few else (),
        stored=None if few else context.store(local_frame(draw.keys.sparkSession, entries, CUTS), "strata"),
    )


def tell_amounts(draw: Draw, context: Context, ahead: Mapping[str, int], cuts: Mapping[str, Cut]) -> None:
    """Record what was reached of each pool's amount, and warn where whole rows miss it."""
    drawn = {}
    for pool, target in sorted(draw.targets.items()):
        off = cuts[pool].off if pool in cuts else -ahead.get(pool, 0)
        drawn[pool] = target + off
        if abs(off) > draw.near * target:
            context.warn(
                f"{cell(shown(pool))}: {target:,} {draw.unit} were asked for; whole rows give {target + off:,}"
            )
    total = sum(drawn.values())
    for pool, share in (draw.asked or {}).items():
        facts: dict[str, float | str] = {"source": shown(pool), "asked": share, draw.unit: drawn[pool]}
        context.measure("share of a source", drawn[pool] / total if total else 0.0, facts)


def tied(draw: Draw, context: Context, split: Sequence[tuple[str, str, int]]) -> dict[str, tuple[int, int | None]]:
    """Return the content up to which rows are taken where a cut falls between those of one id: see `ties_of`."""
    lookup = local_frame(draw.keys.sparkSession, split, SPLIT)
    found = ties_of(context, lookup, draw.pools, lambda df: stratum_of(df, draw.by, draw.edges), draw.order.seed)
    return {pool: (content, equal) for pool, content, equal in found.collect()}


def in_pools(sizes: Mapping[str, int], pools: Mapping[str, str]) -> dict[str, int]:
    """Return the sizes of pools of strata, in the order of their names."""
    found: dict[str, int] = {}
    for stratum, pool in sorted(pools.items()):
        found[pool] = found.get(pool, 0) + sizes[stratum]
    return found
