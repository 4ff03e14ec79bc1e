"""Missing values of numbers and categories filled by a chain of boosted trees, fitted on a hash sample."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.transforms.batches import by_batches, drawn
from headgate.transforms.cleaning.scores import need_scikit
from headgate.transforms.imputation.chain import Chain, fill_chain, fit_chain
from headgate.transforms.imputation.models import ImputeByModel, as_kind, measure_of
from headgate.transforms.kinds import TIMES, is_category, is_number, known_kinds, missing
from headgate.transforms.rows import change_cells, content_key, drop_values, quoted, with_values
from headgate.transforms.step import Columns, Context, Step, StepError, require_columns


@dataclass(frozen=True, kw_only=True)
class FillTrees(Step):
    """Fill missing cells by a fitted chain of trees: what `impute_trees` becomes.

    columns: those that are filled. using: all columns of the chain. chain: its trees as plain values; null if there was
        no row to fit. blends: number -> {gaussian, trees, centre}: the weights of its mean under the chain's normal
        model and of the trees' value, and what has the rest of the weight.
    Cost: one pass in Arrow batches; the trees are sent to the workers.
    """

    name: ClassVar[str] = "fill_trees"
    columns: tuple[str, ...]
    using: tuple[str, ...]
    chain: Mapping[str, Any] | None
    blends: Mapping[str, Mapping[str, float]] | None = None

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns(self.using, have)
        return have

    def check(self, df: DataFrame, context: Context) -> None:
        super().check(df, context)
        need_cells(df, self.name, self.using)

    def learned(self) -> bool:
        return self.chain is not None

    def apply(self, df: DataFrame) -> DataFrame:
        if self.chain is None:
            return df
        kinds = dict(df.dtypes)
        fields = [f"f{i}:{'string' if is_category(kinds[c]) else 'double'}" for i, c in enumerate(self.columns)]
        fill = filling(self.chain, self.using, self.columns, self.blends)
        returns = f"struct<{','.join(fields)}>"
        df, (filled,) = with_values(df, [by_batches(fill, returns, cells_of(self.using, kinds))])
        values, changes = {}, {}
        for i, column in enumerate(self.columns):
            kind, found = kinds[column], filled[f"f{i}"]
            new = found.cast(kind) if is_category(kind) else as_kind(found, kind)
            changes[column] = missing(column, kind) & new.isNotNull()
            values[column] = F.when(changes[column], new).otherwise(F.col(quoted(column)))
        return drop_values(change_cells(df, self.id, values, changes), [filled])


@dataclass(frozen=True, kw_only=True)
class ImputeByTrees(ImputeByModel):
    """The base of imputation by a chain of trees."""

    rounds: int = 2
    seed: int = 0

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        if not 1 <= self.rounds <= 10:
            raise StepError(f"rounds: {self.rounds} is not within 1 and 10")
        need_scikit()
        after = super().columns_after(have, tables)
        need_cells(have, self.name, self.modelled)
        return after


@dataclass(frozen=True, kw_only=True)
class ImputeTrees(ImputeByTrees):
    """Fill missing cells by boosted trees that learn each column from the others, in turns.

    columns: columns to fill: numbers, dates, times, booleans and texts of few values.
    using: further columns of these types that help to tell.
    rounds: how often each column is learned anew from what was filled before (2).
    sample: training rows to fit on (20,000), those of the smallest hashes of their row id.
    seed: of the trees.
    Numbers, dates and times start from a normal model of all columns, and trees learn what it misses; fills stay within
    the known range, to the digits of a double; whole numbers and dates are rounded. A text or boolean gets the
    likeliest of its known values that at least 10 rows of the sample have; with 50 values or more the most frequent
    one. Null and NaN are missing; infinities, and numbers beyond 1e150, unknown but not filled; a column without any
    value stays as it is. Filled cells are noted in `_changed`. The same row gets the same value in any partitioning.
    The trees are saved as plain values; only the fit needs the extra `models`. Cost: one pass to draw the sample, which
    comes to the driver, and some minutes of fitting for twenty columns; one pass to apply. Source: van Buuren 2018
    (chained equations), scikit-learn's histogram gradient boosting.
    """

    name: ClassVar[str] = "impute_trees"
    revision: ClassVar[int] = 2
    sample: int = 20_000

    def fit(self, df: DataFrame, context: Context) -> FillTrees:
        table, _ = sampled_table(df, self.modelled, self.sample, self.seed)
        rows = len(table[self.modelled[0]])
        chain = fit_chain(table, self.columns, rounds=self.rounds, seed=self.seed).state() if rows else None
        return FillTrees(columns=self.columns, using=self.modelled, chain=chain)


def need_cells(have: DataFrame | Columns, step: str, columns: Sequence[str]) -> None:
    """Raise `StepError` for the first column that is neither a number, a date, a time, a boolean nor a text."""
    for column, kind in known_kinds(have, columns):
        if not is_number(kind) and not is_category(kind) and kind not in ("date", *TIMES):
            allowed = "a number, a date, a time, a boolean or a text"
            raise StepError(f"{step}: '{column}' is {kind}, not {allowed}; put a cast before")


def cells_of(columns: Sequence[str], kinds: Mapping[str, str]) -> Column:
    """Return cells as a struct of doubles and, for categories, texts."""
    cells = [F.col(quoted(c)).cast("string") if is_category(kinds[c]) else measure_of(c, kinds[c]) for c in columns]
    return F.struct(*(cell.alias(f"c{i}") for i, cell in enumerate(cells)))


def table_of(cells: pa.StructArray, columns: Sequence[str]) -> dict[str, Any]:
    """Return a struct of cells as columns of doubles, NaN for null, and of texts."""
    found = {c: cells.field(i).to_numpy(zero_copy_only=False) for i, c in enumerate(columns)}
    return {c: v if v.dtype == object else v.astype(float) for c, v in found.items()}


def sampled_table(
    df: DataFrame, columns: Sequence[str], most: int, seed: int, by: Sequence[str] = ()
) -> tuple[dict[str, Any], Any]:
    """Return the cells of the rows of the smallest hashes, in the order of their hashes, and the group of each row.

    by: the columns of a group; without any, all groups are None, as is one with a null among them.
    """
    kinds = dict(df.dtypes)
    known, group = F.lit(bool(by)), F.lit("")
    for c in by:
        known, group = known & ~missing(c, kinds[c]), content_key(df, by)
    cells = F.struct(cells_of(columns, kinds).alias("cells"), F.when(known, group).alias("group"))
    found = drawn(df, cells, most, seed)
    return table_of(found.field(0), columns), found.field(1).to_numpy(zero_copy_only=False)


def filling(
    state: Mapping[str, Any],
    using: Sequence[str],
    columns: Sequence[str],
    blends: Mapping[str, Mapping[str, float]] | None,
) -> Callable[[pa.Array], pa.Array]:
    """Return the function of a batch of rows that gives some of its columns filled."""
    chain = Chain.of(state)

    def filled(cells: pa.Array) -> pa.Array:
        table = table_of(cells, using)
        out = fill_chain(table, chain, columns, blends)
        kinds = [pa.string() if table[c].dtype == object else pa.float64() for c in columns]
        arrays = [pa.array(out[c], kind) for c, kind in zip(columns, kinds, strict=True)]
        return pa.StructArray.from_arrays(arrays, [f"f{i}" for i in range(len(columns))])

    return filled
