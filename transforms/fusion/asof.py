"""As-of joins: the nearest row of another table by key and an order, such as the last price before each trade."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from pyspark.sql import Column, DataFrame
from pyspark.sql import Window as W
from pyspark.sql import functions as F

from headgate.transforms.fusion.join import JoinTable, comparable, joined_to
from headgate.transforms.kinds import FLOATS, TIMES, WHOLE, is_number, is_plain, present
from headgate.transforms.rows import JOINED, ROW_ID, quoted
from headgate.transforms.step import Columns, Context, Step, StepError, require_columns, with_new

SPREAD = 1024  # partitions among which rows that match nothing are spread


@dataclass(frozen=True, kw_only=True)
class JoinAsof(JoinTable):
    """Look up columns of another table in the nearest row of the same key, by a time or a number (no row is lost).

    table: the other table of the pipeline.
    on: column here -> key column there, as in `join_table`; at least one.
    order: one column here -> one column there, by which rows are near: dates, times or numbers on both sides.
    columns: new column here -> column there.
    matched: name of an added boolean column that says whether a row was found; a suite gates the match rate by it.
    direction: `backward` (default): the last row there that is not after the row here; `forward`: the first that is not
        before it; `nearest`: the closer of both, the earlier if they are as close. `backward` alone gives what was
        known by then, as features of a forecast must.
    exact: whether a row there at just the same place counts (default true).
    tolerance: how far away it may be, in units of `order`: days of dates, seconds of times (default: no bound).
    last_by: columns there that order rows of one key and place, such as the time of arrival: the greatest wins, nulls
        losing; then the smallest row id.
    gap: name of an added column with how far away the row there is, in these units as a double, negative for an earlier
        one; null where none was found. Without it none is added.
    A null or NaN in a key or in `order` matches nothing, here and there. The joined row's id is added to `_joined`.
    Cost: one shuffle of the rows here, and of keys, order and columns there, by key; a sort of each, two for `nearest`.
    All rows of one key are sorted by one task. Source: as `merge_asof` of pandas.
    """

    name: ClassVar[str] = "join_asof"
    revision: ClassVar[int] = 2
    order: Mapping[str, str]
    direction: Literal["backward", "forward", "nearest"] = "backward"
    exact: bool = True
    tolerance: float | None = None
    last_by: tuple[str, ...] = ()
    gap: str | None = None

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        if not self.on:
            raise StepError("on: name the key columns whose rows are each in an order of their own")
        if len(self.order) != 1:
            raise StepError("order: name one column here and one there")
        if self.tolerance is not None and not 0 <= self.tolerance < math.inf:
            raise StepError(f"tolerance: {self.tolerance} is not 0 or above")
        after = super().columns_after(have, tables)
        ((here, there),) = self.order.items()
        require_columns([here], have)
        other = {ROW_ID: "string", **tables[self.table]}
        try:
            require_columns([there, *self.last_by], other)
        except StepError as e:
            raise StepError(f"table '{self.table}': {e}") from e
        mine, theirs = have[here], other[there]
        for name, kind in ((here, mine), (there, theirs)):
            if kind is not None and not (is_number(kind) or kind == "date" or kind in TIMES):
                raise StepError(f"order: '{name}' is {kind}, not a date, a time or a number")
        if mine is not None and theirs is not None and not comparable(mine, theirs):
            raise StepError(
                f"order: '{here}' is {mine} and '{there}' of table '{self.table}' is {theirs}; put a cast before"
            )
        for name in self.last_by:
            if other[name] is not None and not is_plain(other[name] or ""):
                raise StepError(f"last_by: '{name}' is {other[name]}, not a plain value")
        return after if self.gap is None else with_new(after, {self.gap: "double"})

    def check(self, df: DataFrame, context: Context) -> None:
        Step.check(self, df, context)  # keys there may repeat

    def run(self, df: DataFrame, context: Context) -> DataFrame:
        other = context.table(self.table)
        ((here, there),) = self.order.items()
        side = F.lit(0 if self.exact else 2)  # at one place, before or after the rows here, which are 1
        placing = [*(f"_hg_k{i}" for i in range(len(self.on))), "_hg_spread", "_hg_at", "_hg_side", "_hg_tie"]
        mine = df.withColumns(placed(df, list(self.on), here, F.lit(1)))
        values = {f"_hg_v{i}": F.col(quoted(c)) for i, c in enumerate(self.columns.values())}
        ties = {f"_hg_t{i}": present(c, dict(other.dtypes)[c]) for i, c in enumerate(self.last_by)}
        values["_hg_id"] = F.col(ROW_ID) if ROW_ID in other.columns else F.lit(None).cast("string")
        theirs = other.withColumns(placed(other, list(self.on.values()), there, side) | values | ties)
        theirs = theirs.where("_hg_spread = 0").select(*placing, *values, *ties)
        both = mine.unionByName(theirs, allowMissingColumns=True)
        values["_hg_place"] = F.col("_hg_at")
        both = both.withColumn("_hg_place", F.col("_hg_at"))
        last = [*(F.col(t).asc_nulls_first() for t in ties), F.col("_hg_tie").desc()]
        ways = {"backward": F.col("_hg_at").asc(), "forward": F.col("_hg_at").desc()}
        wanted = ways if self.direction == "nearest" else {self.direction: ways[self.direction]}
        seen: dict[str, Column] = {}
        for way, at in wanted.items():
            window = W.partitionBy("_hg_spread", *placing[: len(self.on)]).orderBy(at, "_hg_side", *last)
            window = window.rowsBetween(W.unboundedPreceding, W.currentRow)
            for name in values:  # each by itself, in a struct: a null is a value, and its lineage is its own
                cell = F.when(F.col("_hg_side") != 1, F.struct(F.col(name).alias("is")))
                seen[f"{name}_{way}"] = F.last(cell, ignorenulls=True).over(window)
        rows = both.withColumns(seen).where("_hg_side = 1")
        kind = dict(mine.dtypes)["_hg_at"]
        gaps = [self.near(way, kind) for way in wanted]
        rows = rows.withColumns({f"_hg_gap_{way}": gap for way, gap in zip(wanted, gaps, strict=True)})
        first, *others = [F.col(f"_hg_gap_{way}") for way in wanted]
        later = F.lit(False)
        for gap in others:
            later = gap.isNotNull() & (first.isNull() | (F.abs(gap) < F.abs(first)))

        def chosen(name: str) -> Column:
            cells = [F.when(F.col(f"_hg_gap_{way}").isNotNull(), F.col(f"{name}_{way}")["is"]) for way in wanted]
            return F.when(later, cells[-1]).otherwise(cells[0])

        gap = F.when(later, others[0]).otherwise(first) if others else first
        return rows.select(
            *(quoted(c) for c in df.columns if c != JOINED),
            *(chosen(f"_hg_v{i}").alias(new) for i, new in enumerate(self.columns)),
            gap.isNotNull().alias(self.matched),
            *([gap.alias(self.gap)] if self.gap else []),
            joined_to(df, JOINED, self.table, chosen("_hg_id"), self.columns).alias(JOINED),
        )

    def near(self, way: str, kind: str) -> Column:
        """Return how far away the row is that was found one way; null for none, and for one that is too far away."""
        gap = distance(F.col(f"_hg_place_{way}")["is"], F.col("_hg_at"), kind)
        near = F.col("_hg_spread") == 0
        return F.when(near if self.tolerance is None else near & (F.abs(gap) <= F.lit(float(self.tolerance))), gap)


def placed(df: DataFrame, keys: Sequence[str], at: str, side: Column) -> dict[str, Column]:
    """Return what rows are joined by: keys, place, side; `_hg_spread` is 0 unless a key or the place is missing."""
    kinds = dict(df.dtypes)
    place = present(at, kinds[at])
    made = {f"_hg_k{i}": present(c, kinds[c]) for i, c in enumerate(keys)}
    missing = place.isNull()
    for key in made.values():
        missing = missing | key.isNull()
    row = F.col(ROW_ID) if ROW_ID in df.columns else F.lit(None).cast("string")
    spread = F.pmod(F.xxhash64(row), F.lit(SPREAD)) + 1  # else rows that match nothing would be one partition, of null
    return made | {
        "_hg_at": place.cast("timestamp") if kinds[at] in TIMES else place,
        "_hg_spread": F.when(missing, spread).otherwise(0).cast("int"),
        "_hg_side": side,
        "_hg_tie": row,
    }


def distance(there: Column, here: Column, kind: str) -> Column:
    """Return how far one place is from another as a double: days of dates, seconds of times."""
    if kind == "date":
        return F.date_diff(there, here).cast("double")
    if kind in TIMES:
        return (F.unix_micros(there) - F.unix_micros(here)) / F.lit(1e6)
    apart = there.cast("double") - here.cast("double")
    if kind in FLOATS:
        return F.when(there == here, F.lit(0.0)).otherwise(apart)  # infinities too
    wide = "decimal(20,0)" if kind in WHOLE else kind
    return F.coalesce(F.try_subtract(there.cast(wide), here.cast(wide)).cast("double"), apart)  # beyond 38 digits
