"""An order for training: stages of a curriculum, each mixed evenly."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.transforms.cleaning.columns import Derive
from headgate.transforms.kinds import FLOATS, as_text, need_kinds
from headgate.transforms.quantiles import spreads_of
from headgate.transforms.rows import ROW_ID, is_training, local_frame, quoted
from headgate.transforms.step import Columns, Context, Estimator, Step, StepError, require_columns, with_new

MOST_GROUPS = 10_000


@dataclass(frozen=True, kw_only=True)
class AssignOrder(Step):
    """Give each training row its place in an order of fixed stages: what `order_rows` becomes once fitted.

    edges: each is {"group", "edges"}: the values of `by` as text, and where each stage begins.
    The other options as in `order_rows`. Rows of unseen groups are of the first stage. Cost: one pass.
    """

    name: ClassVar[str] = "assign_order"
    by_split: ClassVar[bool] = True
    into: str
    column: str | None = None
    by: tuple[str, ...] = ()
    descending: bool = False
    edges: tuple[Mapping[str, object], ...] = ()
    stages: int = 1
    seed: int = 0

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns([*self.by, *([self.column] if self.column else [])], have)
        return with_new(have, {self.into: "double"})

    def for_new_rows(self) -> Step:
        return Derive(columns={self.into: "CAST(NULL AS DOUBLE)"}).at(self.id)

    def apply(self, df: DataFrame) -> DataFrame:
        before = df.columns
        seed = F.lit(self.seed).cast("long")
        place = (F.shiftrightunsigned(F.xxhash64(seed, F.lit("order"), F.col(ROW_ID)), 11) + F.lit(0.5)) * 2.0**-53
        if self.column is not None and self.edges:
            rows = [(e["group"], e["edges"]) for e in self.edges]
            lookup = local_frame(df.sparkSession, rows, "_hg_group string, _hg_edges array<double>")
            df = df.join(F.broadcast(lookup), on=group_of(df, self.by) == F.col("_hg_group"), how="left")
            value = difficulty(df, self.column, self.descending)
            stage = F.size(F.filter(F.col("_hg_edges"), lambda edge: edge <= value))
            # A missing value has no place in a curriculum: it comes last.
            stage = F.when(value.isNull(), self.stages - 1).when(F.col("_hg_edges").isNotNull(), stage).otherwise(0)
            place = (stage + place) / self.stages
        return df.select(*(quoted(c) for c in before), F.when(is_training(df), place).alias(self.into))


@dataclass(frozen=True, kw_only=True)
class OrderRows(Estimator):
    """Add a column by which sorting the training rows gives an order to train in.

    into: the new column (double, from 0 to below 1); null outside the training split.
    column: a number by which rows come from small to large (a curriculum); without it, the order is a shuffle.
    descending: whether from large to small.
    by: columns whose groups (the sources of a mixture) each have stages of their own, so that the mixture is the same
        in every stage.
    stages: into how many stages of equally many rows the curriculum is cut (10); inside one, rows are shuffled. Rows
        that are equal in `column` are in one stage; null and NaN are in the last one.
    seed: another seed shuffles otherwise.
    The place is decided by a hash of the row id: the same in any partitioning, and copies of a row lie apart.
    Cost: with a column, a count and two passes to fit (one where there are few rows), and at most 10,000 groups; one
    pass to apply. Source: curriculum learning, Bengio et al. 2009.
    """

    name: ClassVar[str] = "order_rows"
    into: str = "train_order"
    column: str | None = None
    by: tuple[str, ...] = ()
    descending: bool = False
    stages: int = 10
    seed: int = 0

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns([*self.by, *([self.column] if self.column else [])], have)
        if self.column is None and self.by:
            raise StepError("by: groups have stages of a `column`; without it leave by out")
        if not 1 <= self.stages <= 1000:
            raise StepError("stages must be 1 to 1,000")
        need_kinds(have, self.name, [self.column] if self.column else [], numbers=True)
        need_kinds(have, self.name, self.by, numbers=False)
        return with_new(have, {self.into: "double"})

    def learns_from(self) -> tuple[str, ...]:
        return (*self.by, *([self.column] if self.column else []))

    def fit(self, df: DataFrame, context: Context) -> AssignOrder:
        edges = []
        if self.column is not None and self.stages > 1:
            value = difficulty(df, self.column, self.descending)
            cuts = [i / self.stages for i in range(1, self.stages)]
            most = (MOST_GROUPS, f"groups of {', '.join(self.by)}")
            found = spreads_of(df.where(value.isNotNull()), [(value, cuts)], [group_of(df, self.by)], most=most)
            edges = sorted((group, s.quantiles) for (group,), (s,) in found.items() if s)
        return AssignOrder(
            into=self.into,
            column=self.column,
            by=self.by,
            descending=self.descending,
            edges=tuple({"group": group, "edges": cuts} for group, cuts in edges),
            stages=self.stages if self.column is not None else 1,
            seed=self.seed,
        )


def difficulty(df: DataFrame, column: str, descending: bool) -> Column:
    value = F.col(quoted(column)).cast("double")
    value = F.when(~F.isnan(value), value) if dict(df.dtypes)[column] in FLOATS else value
    return -value if descending else value


def group_of(df: DataFrame, by: Sequence[str]) -> Column:
    kinds = dict(df.dtypes)
    texts = [as_text(F.col(quoted(c)), kinds[c]) for c in by]
    parts = [F.coalesce(F.concat(F.length(t).cast("string"), F.lit(":"), t), F.lit("-")) for t in texts]
    return F.concat(*parts) if parts else F.lit("")
