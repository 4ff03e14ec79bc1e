"""Categories as whole numbers: ordinal encoding."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headgate.transforms.batches import by_batches
from headgate.transforms.kinds import named_values
from headgate.transforms.rows import Rejection, drop_values, quoted, reject, with_values
from headgate.transforms.scaling.categories import (
    code_of,
    count_categories,
    in_order,
    need_categories,
    require_categories,
    texts_of,
)
from headgate.transforms.step import Columns, Context, Estimator, Step, StepError, require_columns

Unseen = Literal["null", "minus_one", "reject"]


@dataclass(frozen=True, kw_only=True)
class AssignCodes(Step):
    """Replace categories by their places in fixed lists: what `encode_ordinal` becomes.

    columns: column -> its categories, as texts, in their order.
    kinds: column -> the type that it had, to which `headgate apply --inverse` brings it back.
    unseen: as in `encode_ordinal`. Cost: one pass in Arrow batches.
    """

    name: ClassVar[str] = "assign_codes"
    columns: Mapping[str, tuple[str, ...]]
    kinds: Mapping[str, str]
    unseen: Unseen = "null"

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns(self.columns, have)
        need_categories(have, self.name, self.columns)
        return {**have, **dict.fromkeys(self.columns, "int")}

    def learned(self) -> bool:
        return any(self.columns.values())

    def apply(self, df: DataFrame) -> DataFrame:
        before, kinds = df.columns, dict(df.dtypes)
        returns = f"struct<{','.join(f'c{i}:int' for i in range(len(self.columns)))}>"
        df, (found,) = with_values(df, [by_batches(coding(self.columns), returns, texts_of(self.columns, kinds))])
        unseen = {c: found[f"c{i}"] == -1 for i, c in enumerate(self.columns)}
        if self.unseen == "reject":
            evidence = {c: {"column": F.lit(c), "value": F.col(quoted(c))} for c in self.columns}
            df = reject(df, self.id, *(Rejection(unseen[c], "unseen_category", evidence[c]) for c in self.columns))
        codes = {c: found[f"c{i}"] for i, c in enumerate(self.columns)}
        if self.unseen != "minus_one":
            codes = {c: F.when(~unseen[c], code) for c, code in codes.items()}
        return drop_values(df.withColumns(codes), [found]).select(*map(quoted, before))

    def undone(self) -> Sequence[str]:
        return tuple(self.columns)

    def undo(self, df: DataFrame) -> DataFrame:
        here = [c for c in self.columns if c in df.columns]
        if not here:
            return df
        returns = f"struct<{','.join(f'c{i}:string' for i in range(len(here)))}>"
        codes = F.struct(*(F.col(quoted(c)).try_cast("int").alias(f"c{i}") for i, c in enumerate(here)))
        lists = [self.columns[c] for c in here]
        df, (found,) = with_values(df, [by_batches(naming(lists), returns, codes)])
        values = {c: found[f"c{i}"].cast(self.kinds[c]) for i, c in enumerate(here)}
        return drop_values(df.withColumns(values), [found])


def coding(columns: Mapping[str, Sequence[str]]) -> Callable[[pa.Array], pa.Array]:
    """Return the function of a batch of texts that gives the places of each, -1 for unseen ones, null for nulls."""
    functions = [code_of(texts) for texts in columns.values()]

    def coded(cells: pa.Array) -> pa.Array:
        arrays = []
        for i, codes in enumerate(functions):
            nulls = cells.field(i).is_null().to_numpy(zero_copy_only=False)
            arrays.append(pa.array(codes(cells.field(i)), pa.int32(), mask=nulls))
        return pa.StructArray.from_arrays(arrays, [f"c{i}" for i in range(len(arrays))])

    return coded


def naming(lists: Sequence[Sequence[str]]) -> Callable[[pa.Array], pa.Array]:
    """Return the function of a batch of places that gives the categories there; null beyond the list."""
    known = [pa.array(texts, pa.string()) for texts in lists]

    def named(cells: pa.Array) -> pa.Array:
        arrays = []
        for i, texts in enumerate(known):
            places = [p if p is not None and 0 <= p < len(texts) else None for p in cells.field(i).to_pylist()]
            arrays.append(texts.take(pa.array(places, pa.int32())))
        return pa.StructArray.from_arrays(arrays, [f"c{i}" for i in range(len(arrays))])

    return named


@dataclass(frozen=True, kw_only=True)
class EncodeOrdinal(Estimator):
    """Replace the categories of columns by whole numbers from 0 on.

    columns: columns of any plain type, which become whole numbers.
    order: column -> its categories, as texts, in the order that they mean (`size: [small, medium, large]`); of other
        columns those of the training rows, numbers by size and others as texts.
    unseen: what becomes of a value that no training row has (of `order`: that is not listed): `null` (default),
        `minus_one`, or `reject`, which marks the row with the value as evidence.
    Null and NaN become null. Not noted in `_changed`, as all cells are changed. Can be undone (`headgate apply
    --inverse`). More than 100,000 categories are refused. Same numbers as scikit-learn's `OrdinalEncoder`.
    Cost: one aggregate over all columns to fit, one pass in Arrow batches to apply.
    """

    name: ClassVar[str] = "encode_ordinal"
    columns: tuple[str, ...]
    order: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unseen: Unseen = "null"

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_categories(self.columns, have)
        other = next((c for c in self.order if c not in self.columns), None)
        if other is not None:
            raise StepError(f"order: '{other}' is not one of `columns` ({', '.join(self.columns)})")
        for column, texts in self.order.items():
            twice = next((t for i, t in enumerate(texts) if t in texts[:i]), None)
            if twice is not None or not texts:
                what = f"'{twice}' twice" if texts else "no category"
                raise StepError(f"order: names {what} for '{column}'")
        need_categories(have, self.name, self.columns)
        return {**have, **dict.fromkeys(self.columns, "int")}

    def learns_from(self) -> tuple[str, ...]:
        return self.columns

    def fit(self, df: DataFrame, context: Context) -> AssignCodes:
        kinds = dict(df.dtypes)
        learned = [c for c in dict.fromkeys(self.columns) if c not in self.order]
        counted = count_categories(df, learned, self.name) if learned else {}
        found = {c: tuple(in_order((t for t in counts if t is not None), kinds[c])) for c, counts in counted.items()}
        given = self.given(df) if self.order else {}
        lists = {c: found[c] if c in found else given[c] for c in dict.fromkeys(self.columns)}
        return AssignCodes(columns=lists, kinds={c: kinds[c] for c in lists}, unseen=self.unseen)

    def given(self, df: DataFrame) -> dict[str, tuple[str, ...]]:
        """Return the listed categories as their columns' type writes them: of a double, 1 is 1.0."""
        kinds = dict(df.dtypes)
        return {c: tuple(named_values(df.sparkSession, texts, kinds[c], c, "order")) for c, texts in self.order.items()}
