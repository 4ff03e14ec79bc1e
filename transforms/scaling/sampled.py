"""Columns of numbers mapped one by one, as learned from a hash sample: the base of power and quantile transforms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import Column, DataFrame

from headgate.transforms.cleaning.scores import sampled_numbers
from headgate.transforms.imputation.models import as_kind
from headgate.transforms.kinds import FLOATS, need_kinds, require_few
from headgate.transforms.step import Columns, Estimator, Step, StepError, require_columns


@dataclass(frozen=True, kw_only=True)
class ApplySampled(Step):
    """The base of what is learned: by column, null where nothing was, so that such a column becomes null."""

    columns: Mapping[str, Any]
    kinds: Mapping[str, str]

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns(self.columns, have)
        need_kinds(have, self.name, self.columns, numbers=True)
        return {**have, **dict.fromkeys(self.columns, "double")}

    def learned(self) -> bool:
        return any(self.columns.values())

    def undone(self) -> Sequence[str]:
        return tuple(self.columns)

    def typed(self, column: str, number: Column) -> Column:
        """Return a number as the column's type had it."""
        kind = self.kinds[column]
        return number.cast(kind) if kind in FLOATS else as_kind(number, kind)


@dataclass(frozen=True, kw_only=True)
class TransformSampled(Estimator):
    """The base of steps that learn how to map each column from a hash sample of its numbers."""

    columns: tuple[str, ...]
    sample: int = 100_000

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns(self.columns, have)
        require_few(self.columns)
        if not 2 <= self.sample <= 10_000_000 or self.sample * len(self.columns) > 100_000_000:
            raise StepError("sample must be at least 2 and at most 10,000,000, and 100,000,000 cells of all columns")
        need_kinds(have, self.name, self.columns, numbers=True)
        return {**have, **dict.fromkeys(self.columns, "double")}

    def learns_from(self) -> tuple[str, ...]:
        return self.columns

    def numbers(self, df: DataFrame) -> Mapping[str, Any]:
        """Return the sampled numbers of each column, NaN for null."""
        return dict(zip(self.columns, sampled_numbers(df, self.columns, self.sample, 0).T, strict=True))
