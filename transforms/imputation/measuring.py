"""What is missing and with what, as figures of a run."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.transforms.kinds import TIMES, as_text, known_kinds, missing, need_kinds, require_few
from headgate.transforms.rows import is_kept, quoted
from headgate.transforms.step import Columns, Context, Step, StepError, require_columns

WIDE = 50  # columns of which pairs are counted: those that are missing most
Period = Literal["day", "month", "year"]


@dataclass(frozen=True, kw_only=True)
class MeasureMissing(Step):
    """Measure what is missing and with what, and leave the rows as they are.

    columns: those that are looked at, of any type; null and NaN are missing.
    by: a column whose groups are told apart.
    over: a date or time, whose periods are; every: the length of a period, `day`, `month` (default) or `year`.
    most: how many patterns, pairs of columns, groups and periods are told (10): those with most rows, the last periods.
    The figures stand in the run's summary, as `--json` too, and in the system table `metrics`: the share of rows in
    which each column is missing; the share of each pattern of missing columns; of each pair that is missing together,
    how many times as often as by chance; shares by group and by period. Only unmarked rows count. `headgate missing`
    tells the same of a published table. Cost: one shuffle of the distinct patterns by group and period.
    """

    name: ClassVar[str] = "measure_missing"
    scope: ClassVar[Literal["row", "table"]] = "table"
    columns: tuple[str, ...]
    by: str | None = None
    over: str | None = None
    every: Period = "month"
    most: int = 10

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns([*self.columns, *filter(None, (self.by, self.over))], have)
        require_few(self.columns)
        if self.most < 1:
            raise StepError(f"most: {self.most} is not at least 1")
        need_kinds(have, self.name, [self.by] if self.by else [], numbers=False)
        for _, kind in known_kinds(have, [self.over] if self.over else []):
            if kind not in ("date", *TIMES):
                raise StepError(f"over: '{self.over}' is {kind}, neither a date nor a time")
        return have

    def for_new_rows(self) -> None:
        return None

    def run(self, df: DataFrame, context: Context) -> DataFrame:
        kinds = dict(df.dtypes)
        gone = F.concat(*(F.when(missing(c, kinds[c]), "1").otherwise("0") for c in self.columns))
        group = as_text(F.col(quoted(self.by)), kinds[self.by]) if self.by else F.lit(None)
        period = F.date_trunc(self.every, F.col(quoted(self.over))).cast("date") if self.over else F.lit(None)
        told = [gone.alias("gone"), group.cast("string").alias("group"), period.cast("string").alias("period")]
        counted = df.where(is_kept()).select(*told).groupBy("gone", "group", "period").agg(F.count("*").alias("n"))
        self.tell(context.keep(counted, "patterns"), context)
        return df

    def tell(self, counted: DataFrame, context: Context) -> None:
        """Record the figures from counts of (gone, group, period), where `gone` has a 1 for each missing column."""
        lacks = {c: F.substring("gone", i + 1, 1) == "1" for i, c in enumerate(self.columns)}
        total, *found = counted.agg(F.sum("n"), *map(rows_with, lacks.values())).first() or (None,)
        if not total:
            return
        rows = dict(zip(self.columns, found, strict=True))
        lacking = sorted((c for c in self.columns if rows[c]), key=lambda c: -rows[c])
        for c in lacking:
            context.measure("missing", rows[c] / total, {"column": c, "rows": rows[c]})
        patterns = counted.groupBy("gone").agg(F.sum("n").alias("n")).orderBy(F.col("n").desc(), "gone")
        for gone, n in patterns.limit(self.most).collect():
            names = [c for c, bit in zip(self.columns, gone, strict=True) if bit == "1"]
            context.measure("missing alone or together", n / total, {"columns": ", ".join(names) or "none", "rows": n})
        pairs = list(itertools.combinations(lacking[:WIDE], 2))
        both = counted.agg(*(rows_with(lacks[a] & lacks[b]) for a, b in pairs)).first() if pairs else None
        ranked = sorted(zip(pairs, both or (), strict=True), key=lambda x: -x[1])
        for (a, b), n in ranked[: self.most]:
            if n:
                lift = n * total / (rows[a] * rows[b])
                context.measure("missing together, times chance", lift, {"columns": f"{a}, {b}", "rows": n})
        for place, name in (("group", self.by), ("period", self.over)):
            if name is not None:
                order = F.col("n").desc() if place == "group" else F.col(place).desc_nulls_last()
                parts = counted.groupBy(place).agg(F.sum("n").alias("n"), *(rows_with(lacks[c]) for c in lacking))
                self.tell_parts(parts.orderBy(order, place).limit(self.most).collect(), name, lacking, context)

    def tell_parts(self, parts: Sequence[Any], name: str, lacking: Sequence[str], context: Context) -> None:
        for part, n, *each in parts:
            for c, m in zip(lacking, each, strict=True):
                where = {"value": part, "rows": m}
                context.measure(f"missing by {name}", m / n, {"column": c, **where})


def rows_with(condition: Column) -> Column:
    return F.sum(F.when(condition, F.col("n")).otherwise(0))
