"""What every step is: a frozen description of a change, applied to a DataFrame.

A step's dataclass fields are its options, as written in YAML. `names_after` follows the column names through the
step without Spark, so that a misspelt column is refused before anything starts; `apply` changes the rows.
A step that learns is a `Estimator`: its `fit` returns another frozen step that holds plain values.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from pyspark.sql import DataFrame

from headgate.transforms.rows import FILE, FILE_DATE, is_own
from headgate.words import did_you_mean

Action = Literal["reject", "clip", "null", "flag"]


Types = Mapping[str, str]  # column -> type as in DDL, of those whose types are known


class StepError(ValueError):
    """A step cannot do what its options ask for; the message says what, which, and what is allowed."""


def require_columns(wanted: Iterable[str], have: Sequence[str]) -> None:
    """Raise `StepError` for the first wanted column that is not there."""
    for column in wanted:
        if column not in have:
            raise StepError(
                f"there is no column '{column}' here{did_you_mean(column, have)} (columns: {', '.join(have)})"
            )


def columns_after(step: "Step", have: Sequence[str], tables: Mapping[str, Sequence[str]]) -> list[str]:
    """Follow the column names through a step; raise `StepError` for a name that it may not give to a column.

    No two columns may have one name, in any case of its letters, and no new one may have a name of headgate's own.
    """
    after = step.names_after(have, tables)
    seen: dict[str, str] = {}
    for name in after:
        if name not in have and is_own(name):
            raise StepError(f"'{name}' is a name of headgate's own bookkeeping; choose another name")
        other = seen.setdefault(name.lower(), name)
        if other == name and after.count(name) > 1:
            raise StepError(f"two columns would be named '{name}'")
        if other != name:
            raise StepError(f"two columns would be named '{other}' and '{name}', which differ only in case")
    return after


def user_columns(df: DataFrame) -> list[str]:
    """Return the columns that steps know by name: the user's, and the file that a row came from."""
    return [c for c in df.columns if not is_own(c) or c in (FILE, FILE_DATE)]


@dataclass(frozen=True, kw_only=True)
class Step:
    """A change of rows or cells, without reading, writing or a session of its own."""

    name: ClassVar[str]
    needs_all: ClassVar[bool] = False  # whether what it does to a row depends on other rows of the table
    by_split: ClassVar[bool] = False  # whether it looks at training rows alone, where there is a split
    keeps_types: ClassVar[bool] = False  # whether columns that were there have the types that they had

    def tables(self) -> tuple[str, ...]:
        """Names of the other tables that the step reads."""
        return ()

    def names_after(self, have: Sequence[str], tables: Mapping[str, Sequence[str]]) -> list[str]:
        """The column names after this step, given those before it; raises `StepError` on an unknown one."""
        return list(have)

    def types_after(self, types: Types, tables: Mapping[str, Types]) -> Types:
        """The types of columns after this step, of those whose types are known before Spark starts."""
        return types if self.keeps_types else {}

    def check_types(self, types: Types, tables: Mapping[str, Types]) -> None:
        """Raise `StepError` where known types show that the step cannot do what it is asked for."""

    def check(self, df: DataFrame, tables: Mapping[str, DataFrame]) -> None:
        """Prove, by the schema and by bounded queries, what `apply` relies on; raises `StepError`.

        The names are followed once more: before Spark they are not known of every source.
        """
        columns_after(self, user_columns(df), {name: table.columns for name, table in tables.items()})

    def learned(self) -> bool:
        """Whether a frozen step learned anything; it did not from no rows, or from empty columns."""
        return True

    def apply(self, df: DataFrame, tables: Mapping[str, DataFrame]) -> DataFrame:
        raise NotImplementedError


class Workspace(Protocol):
    """Where a step that compares rows with each other puts what it needs more than once."""

    lasting: bool  # whether later builds will ask for what is recorded

    def keep(self, df: DataFrame, name: str) -> DataFrame:
        """Write rows once, for as long as the build lasts; gives them back as written."""

    def known(self, name: str) -> DataFrame | None:
        """What earlier builds of the table recorded under the name, of the rows that are published; None if nothing."""

    def record(self, name: str, kept: str, columns: Sequence[str]) -> None:
        """Let later builds know, by the name, these columns of what was kept, for the rows that are published."""

    def warn(self, message: str) -> None:
        """Say what the run's summary must show of the rows, though it stops nothing."""


@dataclass(frozen=True, kw_only=True)
class Comparer(Step):
    """A step that compares rows with each other, in several passes over a few of their columns.

    It can compare new rows with those of earlier builds, by what those recorded under `state`.
    """

    state: ClassVar[str]

    def compare(self, df: DataFrame, space: Workspace) -> DataFrame:
        """The rows, marked; earlier builds' rows are compared with too, where the workspace knows them."""
        raise NotImplementedError

    def apply(self, df: DataFrame, tables: Mapping[str, DataFrame]) -> DataFrame:
        raise StepError(f"'{self.name}' needs a workspace")


@dataclass(frozen=True, kw_only=True)
class Estimator(Step):
    """A step that learns from the unmarked training rows before it can be applied."""

    needs_all: ClassVar[bool] = True
    by_split: ClassVar[bool] = True

    def fit(self, df: DataFrame) -> Step:
        """Learn from `df` (only unmarked training rows) and return the frozen step."""
        raise NotImplementedError

    def apply(self, df: DataFrame, tables: Mapping[str, DataFrame]) -> DataFrame:
        raise StepError(f"'{self.name}' must be fitted before it is applied")
