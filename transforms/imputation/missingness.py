"""Missing cells before they are filled: hidden ones found, flags as columns, rows and columns of many left out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.transforms.cleaning.columns import DropColumns
from headgate.transforms.cleaning.counts import value_counts
from headgate.transforms.imputation.hidden import Hidden, hidden_in
from headgate.transforms.kinds import FLOATS, constant, held, known_kinds, missing, need_kinds
from headgate.transforms.rows import Rejection, change_cells, quoted, reject
from headgate.transforms.step import Columns, Context, Estimator, Step, StepError, require_columns, with_new
from headgate.words import cell

Learn = Literal["nothing", "propose", "apply"]


@dataclass(frozen=True, kw_only=True)
class EmptyMarkers(Step):
    """Empty cells that hold given values: what `null_markers` becomes.

    markers: column -> values, each of which the column's type must hold exactly. Emptied cells are noted in `_changed`.
    Cost: one pass.
    """

    name: ClassVar[str] = "empty_markers"
    markers: Mapping[str, tuple[Any, ...]]

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns(self.markers, have)
        need_kinds(have, self.name, self.markers, numbers=False)
        for column, kind in known_kinds(have, self.markers):
            for value in self.markers[column]:
                held(value, kind, column)
        return have

    def apply(self, df: DataFrame) -> DataFrame:
        kinds = dict(df.dtypes)
        marked = {}
        for column, values in self.markers.items():
            given = [constant(v, kinds[column], column) for v in values]
            marked[column] = F.coalesce(F.col(quoted(column)).isin(*given), F.lit(False)) if given else F.lit(False)
        return change_cells(df, self.id, {c: F.when(~m, F.col(quoted(c))) for c, m in marked.items()}, marked)


@dataclass(frozen=True, kw_only=True)
class NullMarkers(Estimator):
    """Empty cells whose value stands for a missing one, such as -999, 9999-12-31 or "N/A".

    markers: column -> the values that stand for missing, which the column's type must hold exactly.
    columns: columns in which such values are looked for.
    learn: what is done with what is found: `propose` (default) warns in the summary; `apply` also empties what there is
        strong evidence for; `nothing` looks for none.
    Found are, in `columns` of the training rows: markers as other programs write them ("?", "N/A", "NULL"; in a column
    of short codes only proposed: NA is Namibia), words such as "unknown" (applied only among numbers and dates),
    numbers of one digit repeated (-999, 9999) or -1 that stand apart from all others, dates such as 9999-12-31, and
    zeros of a column that is otherwise far from zero (only ever proposed). Of columns with more than 20,000 distinct
    values the most frequent ones and both ends are looked at. Cost: to fit, a shuffle of the distinct values of all
    columns; one pass to apply.
    """

    name: ClassVar[str] = "null_markers"
    markers: Mapping[str, tuple[Any, ...]] | None = None
    columns: tuple[str, ...] = ()
    learn: Learn = "propose"

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns([*(self.markers or ()), *self.columns], have)
        if not self.markers and not (self.columns and self.learn != "nothing"):
            raise StepError("name markers, or columns in which they are looked for")
        need_kinds(have, self.name, self.columns, numbers=False)
        return EmptyMarkers(markers=self.markers or {}).columns_after(have, tables)

    def learns_from(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*self.columns, *(self.markers or ())]))

    def fit(self, df: DataFrame, context: Context) -> EmptyMarkers:
        kinds = dict(df.dtypes)
        markers: dict[str, list[Any]] = {c: list(values) for c, values in (self.markers or {}).items()}
        looked_at = [c for c in self.columns if kinds[c] != "boolean" and not kinds[c].startswith("timestamp")]
        looked_at = looked_at if self.learn != "nothing" else []
        for column, (rows, counts) in value_counts(df, looked_at, kinds).items():
            for hidden in hidden_in(column, counts, rows=rows):
                value = in_kind(hidden, kinds[column])
                if value in markers.get(column, ()):
                    continue
                applied = self.learn == "apply" and hidden.apply
                done = "emptied" if applied else "not emptied: name it in `markers` if so"
                told = f"{value:.15g}" if isinstance(value, float) else value
                found = f"{cell(told)} ({hidden.rows:,} rows, {hidden.kind})"
                context.warn(f"{self.name}: '{column}': {found} may stand for missing; {done}")
                if applied:
                    markers.setdefault(column, []).append(value)
        return EmptyMarkers(markers={c: tuple(values) for c, values in markers.items()})


def in_kind(hidden: Hidden, kind: str) -> Any:
    """Return a found value as `constant` reads it for a column's type."""
    return float(hidden.value) if kind in FLOATS else hidden.value


@dataclass(frozen=True, kw_only=True)
class FlagMissing(Step):
    """Add a boolean column `<column>_missing` for each column: whether the cell is null or NaN.

    columns: the columns to flag; put the step before those that fill them.
    Cost: one pass, no shuffle.
    """

    name: ClassVar[str] = "flag_missing"
    columns: tuple[str, ...]

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns(self.columns, have)
        return with_new(have, {f"{c}_missing": "boolean" for c in self.columns})

    def apply(self, df: DataFrame) -> DataFrame:
        kinds = dict(df.dtypes)
        return df.withColumns({f"{c}_missing": missing(c, kinds[c]) for c in self.columns})


@dataclass(frozen=True, kw_only=True)
class RejectMissing(Step):
    """Mark the rows that lack more than a share of some columns.

    columns: those that are counted; null and NaN are missing.
    share: the largest share of them that a row may lack (.5).
    The evidence names the columns that are missing. Cost: one pass, no shuffle.
    """

    name: ClassVar[str] = "reject_missing"
    columns: tuple[str, ...]
    share: float = 0.5

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns(self.columns, have)
        require_share(self.columns, self.share)
        return have

    def apply(self, df: DataFrame) -> DataFrame:
        lacking = names_of_missing(self.columns, dict(df.dtypes))
        most = F.lit(self.share * len(self.columns) + 1e-9)
        evidence = {"columns": F.array_join(lacking, ", "), "missing": F.size(lacking), "share": F.lit(self.share)}
        return reject(df, self.id, Rejection(F.size(lacking) > most, "too_many_missing", evidence))


def names_of_missing(columns: Sequence[str], kinds: Mapping[str, str]) -> Column:
    return F.array_compact(F.array(*(F.when(missing(c, kinds[c]), F.lit(c)) for c in columns)))


@dataclass(frozen=True, kw_only=True)
class DropSparse(Estimator):
    """Drop the columns that are missing in more than a share of the training rows.

    columns: those that may be dropped; null and NaN are missing.
    share: the largest share of rows in which a column that stays may be missing (.5).
    A warning in the summary names each dropped column with its share. Of no rows nothing is dropped. Later steps that
    name a dropped column are refused when they run. Cost: one pass to fit.
    """

    name: ClassVar[str] = "drop_sparse"
    columns: tuple[str, ...]
    share: float = 0.5

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> None:
        require_columns(self.columns, have)
        require_share(self.columns, self.share)

    def learns_from(self) -> tuple[str, ...]:
        return self.columns

    def fit(self, df: DataFrame, context: Context) -> DropColumns:
        kinds = dict(df.dtypes)
        counts = [F.count_if(missing(c, kinds[c])) for c in self.columns]
        rows, *found = df.agg(F.count(F.lit(1)), *counts).first() or (0,)
        sparse = {c: n for c, n in zip(self.columns, found, strict=False) if rows and n > self.share * rows + 1e-9}
        for column, n in sparse.items():
            context.warn(f"{self.name}: '{column}' is missing in {n / rows:.1%} of {rows:,} rows and was dropped")
        return DropColumns(columns=tuple(sparse))


def require_share(columns: Sequence[str], share: float) -> None:
    if not columns:
        raise StepError("columns: name one or more")
    if not 0 <= share < 1:
        raise StepError(f"share: {share} is not at least 0 and below 1")
