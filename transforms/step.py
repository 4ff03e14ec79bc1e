"""The contract of a step: a frozen description of a change, applied to a DataFrame.

A step's dataclass fields are its options, as written in YAML. `columns_after` follows the columns and their types
through the step without Spark, so that a misspelt column is refused before anything starts; `apply` changes the rows.
A step that needs more than the rows (other tables, scratch, what earlier builds recorded) writes `run` instead, and
one that learns is an `Estimator`, whose `fit` returns another frozen step that holds plain values.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Literal, Protocol, Self

from pyspark.sql import Column, DataFrame

from headgate.transforms.rows import FILE, FILE_DATE, SOURCE, is_own
from headgate.words import cell, did_you_mean

Action = Literal["reject", "clip", "null", "flag"]

# Name -> type, in the order of the table; a type as Spark writes it (`bigint`, `array<string>`), None if not known.
Columns = Mapping[str, str | None]


class StepError(ValueError):
    """A step cannot do what its options ask for; the message says what, which, and what is allowed."""


class NoSuchColumn(StepError):
    """A step names a column that is not there: `column`, of which it says so at `place` of its options.

    of_data: the names of the columns that are there came with the rows, so that they may be values of data.
    """

    def __init__(self, column: str, there: Sequence[str], place: str = "", of_data: bool = False) -> None:
        hint = did_you_mean(column, there, cell) if of_data else did_you_mean(column, there)
        known = f"{hint} (columns: {', '.join(map(cell, there) if of_data else there)})"
        super().__init__(f"{place}there is no column '{column}' here{known}")
        self.column, self.there, self.place = column, there, place

    def at(self, place: str) -> "NoSuchColumn":
        return NoSuchColumn(self.column, self.there, f"{place}: {self.place}")


class LearnAnew(StepError):
    """What a step learned before is not of such rows as these: it must learn anew; the message says why."""


class MakeAll(StepError):
    """A change reaches too much for the rows that it reaches to be made alone; the message says why."""


@dataclass(frozen=True)
class Changes:
    """What changed since the table's previous version, for a step that `renews`.

    ids: of the rows before the step that changed, came or went: one column, the row id. before: those of them that were
    there, as they were. other: gives the rows of another table that changed, as they were and as they are; None where
    it did not change.
    """

    ids: DataFrame
    before: DataFrame
    other: Callable[[str], DataFrame | None]


def require_columns(wanted: Iterable[str], have: Iterable[str]) -> None:
    """Raise `NoSuchColumn` for the first wanted column that is not there."""
    there = dict.fromkeys(have)
    for column in wanted:
        if column not in there:
            raise NoSuchColumn(column, [*there])


def with_new(have: Columns, new: Columns) -> Columns:
    """Return the columns with new ones; raise `StepError` for one that is there already."""
    taken = next((c for c in new if c in have), None)
    if taken is not None:
        raise StepError(f"there is a column '{taken}' already; choose another name")
    return {**have, **new}


def follow(step: "Step", have: Columns, tables: Mapping[str, Columns]) -> Columns | None:
    """Follow the columns through a step; raise `StepError` for a name that it may not give to a column.

    No two columns may have one name, in any case of its letters, no new one may have a name of headgate's own, and no
    option names a column twice, and a seed has 64 bits at most. None where only a fit can tell.
    """
    for option in ("columns", "using", "by"):
        names = getattr(step, option, ())
        twice = next((c for i, c in enumerate(names) if c in names[:i]), None) if isinstance(names, tuple) else None
        if twice is not None:
            raise StepError(f"{option}: '{twice}' is named twice")
    seed = getattr(step, "seed", 0)
    if isinstance(seed, int) and not -(2**63) <= seed < 2**63:
        raise StepError(f"seed: {seed} is beyond the whole numbers of 64 bits")
    after = step.columns_after(have, tables)
    seen: dict[str, str] = {}
    for name in after or ():
        if name not in have and is_own(name):
            raise StepError(f"'{name}' is a name of headgate's own bookkeeping; choose another name")
        other = seen.setdefault(name.lower(), name)
        if other != name:
            raise StepError(f"two columns would be named '{other}' and '{name}', which differ only in case")
    return after


def user_columns(df: DataFrame) -> dict[str, str]:
    """Return the columns that steps know by name, with their types: the user's, and where a row came from."""
    return {c: kind for c, kind in df.dtypes if not is_own(c) or c in (FILE, FILE_DATE, SOURCE)}


class Context(Protocol):
    """The means that a step has beside its rows."""

    @property
    def id(self) -> str:
        """The step's own: "table/position-name"."""
        ...

    @property
    def lasting(self) -> bool:
        """Return whether later builds will ask for what is recorded."""
        ...

    @property
    def rows_in(self) -> int | None:
        """Return how many rows the build starts from; None where that is not known."""
        ...

    def table(self, name: str) -> DataFrame:
        """Return another table that the step reads (`Step.tables`), at its pinned version."""
        ...

    def is_unique(self, table: str, columns: Sequence[str]) -> bool:
        """Return whether a passed suite proves that no two rows of another table have one key without nulls."""
        ...

    def previous(self) -> DataFrame | None:
        """Return the table's own version before this build, for a step that `reads_previous` or is told what changed.

        None for the first build.
        """
        ...

    @property
    def partial(self) -> bool:
        """Return whether the rows are those alone that a change reaches."""
        ...

    def changes(self) -> "Changes | None":
        """Return what changed, where a step that `renews` is to make those rows alone that it reaches; None: all."""
        ...

    def replace(self, ids: DataFrame) -> None:
        """Say which rows of the previous version (one column, the row id) those that a step `renews` stand for."""
        ...

    def moment(self) -> datetime:
        """Return when the newest version that the build reads was published: the same for a build tried again."""
        ...

    def keep(self, df: DataFrame, name: str) -> DataFrame:
        """Write rows once, for as long as the build lasts, and return them as written."""
        ...

    def whole(self) -> DataFrame:
        """Return the rows to learn from with all their columns: `fit` may be given those alone that options name."""
        ...

    def recorded(self, name: str) -> DataFrame | None:
        """Return what earlier builds recorded under a name, of the rows that are published; None if nothing."""
        ...

    def record(self, name: str, kept: str, columns: Sequence[str]) -> None:
        """Let later builds know, by the name, these columns of what was kept, for the rows that are published."""
        ...

    def artifact(self, name: str) -> str:
        """Return the folder, of this build alone, where a fitted step keeps what is too large for plain values."""
        ...

    def store(self, df: DataFrame, name: str) -> str:
        """Write rows as an artifact of this build, and return the place by which `stored` reads them."""
        ...

    def stored(self, place: str) -> DataFrame:
        """Return the rows that `store` wrote, in this build or an earlier one."""
        ...

    def warn(self, message: str) -> None:
        """Say what the run's summary must show of the rows, though it stops nothing."""
        ...

    def measure(self, name: str, value: float, facts: Mapping[str, float | str | None]) -> None:
        """Record a figure of what the step did, with what it is to be seen beside: in the metrics of the build.

        Values of cells may be in `facts` alone: an erasure takes these out.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Step:
    """A change of rows or cells, without reading, writing or a session of its own."""

    name: ClassVar[str]
    revision: ClassVar[int] = 1  # of its meaning: with another one, what it made before is out of date
    scope: ClassVar[Literal["row", "table"]] = "row"  # whether what it does to a row depends on other rows
    reads_previous: ClassVar[bool] = False  # whether it reads the table's own version before
    by_split: ClassVar[bool] = False  # whether it looks at training rows alone, where there is a split
    grain: ClassVar[Literal["rows", "new"]] = "rows"  # "new": the rows that it gives are not those that came
    state: ClassVar[str] = ""  # what it records, if it can go on from what earlier builds recorded

    @property
    def whole_rows(self) -> bool:
        """Return whether what it does to a row depends on columns that its options do not name."""
        return False

    @property
    def id(self) -> str:
        """The step's place in its table: in `_changed`, the ledger and the ids of rows that it makes."""
        return getattr(self, "_id", self.name)

    def at(self, place: str) -> Self:
        """Return the step as it stands at a place: `table/position-name`."""
        placed = copy.copy(self)
        object.__setattr__(placed, "_id", place)
        return placed

    def tables(self) -> tuple[str, ...]:
        """Return the names of the other tables that the step reads."""
        return ()

    def tie(self, df: DataFrame) -> Column:
        """Return what two rows must share for one to have a say in the other's fate; null for a row alone.

        Of a step of scope table that marks rows, changes no cell and makes no row: so a table of such steps can be
        built from what changed and what is tied to it. Others leave this as it is.
        """
        raise NotImplementedError(f"{type(self).__name__} ties all rows")

    light: ClassVar[int] = 1  # how many times as many rows it makes all anew before finding which changed costs less

    @property
    def renews(self) -> bool:
        """Return whether, told what changed (`Context.changes`), it makes again only the rows that this reaches.

        Of the last step of a table, whose rows may be of another grain. It has all rows before it, and says which rows
        of the previous version those that it makes replace (`Context.replace`): none comes twice, and all others are as
        it would make them. Raises `MakeAll` where that cannot be, or is not worth it.
        """
        return False

    @property
    def follows(self) -> bool:
        """Return whether it tells which rows a change of the tables that it reads reaches (`reached`, `tied_rows`)."""
        return type(self).tied_rows is not Step.tied_rows

    def reached(self, table: str, changed: DataFrame) -> DataFrame:
        """Return the ids (one column, the row id) of the rows that changed rows of another table are about."""
        raise NotImplementedError(f"{type(self).__name__} does not tell which rows a change reaches")

    def tied_rows(self, df: DataFrame, context: "Context") -> DataFrame:
        """Return what rows share that have a say in each other's fate: the row id, and `tie`, a text.

        Of a step that gives a row, made again with all that is tied to it, what it gives it among all rows, whose ids
        it leaves. It may read the table's previous version. Others leave this as it is.
        """
        raise NotImplementedError(f"{type(self).__name__} ties all rows")

    def keys_of(self, table: str) -> Mapping[str, str]:
        """Return the key by which another table is looked up, column here -> column there; empty if it is all read."""
        return {}

    @property
    def foretells(self) -> bool:
        """Return whether it tells the ids of all rows that it makes (`copies`)."""
        return type(self).copies is not Step.copies

    def copies(self, ids: DataFrame) -> DataFrame:
        """Return the ids of the rows that the step may make of the rows with given ids (one column, the row id).

        Of a step whose new rows each come of one row alone: so they are made again with it. Others leave this as it is.
        """
        raise NotImplementedError(f"{type(self).__name__} does not tell the ids of rows that it makes")

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns | None:
        """Return the columns after this step, given those before it and those of the tables that it reads.

        None where only a fit can tell. Raises `StepError` for an unknown column, and where known types show that the
        step cannot do what it is asked for.
        """
        return have

    def check(self, df: DataFrame, context: Context) -> None:
        """Prove, by the schema and by bounded queries, what the step relies on; raise `StepError`.

        The columns are followed once more: before Spark they are not known of every source.
        """
        follow(self, user_columns(df), {name: user_columns(context.table(name)) for name in self.tables()})

    def for_new_rows(self) -> "Step | None":
        """Return the step as rows have it that are of no split and that nothing was learned from; None: left out.

        Raises `StepError` for a step that cannot do to such rows what it did to the others, as it looks at all rows.
        """
        if self.scope == "table" or self.grain == "new":
            raise StepError(f"'{self.id}' compares rows or sums them up, so it cannot be applied to new ones")
        return self

    def undone(self) -> Sequence[str]:
        """Return the columns, as named after the step, that `undo` brings back to what they were; none by default."""
        return ()

    def undo(self, df: DataFrame) -> DataFrame:
        """Return rows with those columns of `undone` that are there as they were before the step."""
        raise StepError(f"'{self.id}' cannot be undone")

    def learned(self) -> bool:
        """Return whether a frozen step learned anything; it did not from no rows, or from empty columns."""
        return True

    def apply(self, df: DataFrame) -> DataFrame:
        """Return the rows changed: all that a simple step writes."""
        raise NotImplementedError(f"{type(self).__name__} has neither `apply` nor `run`")

    def run(self, df: DataFrame, context: Context) -> DataFrame:
        """Return the rows changed, by a step that needs more than the rows."""
        return self.apply(df)


@dataclass(frozen=True, kw_only=True)
class Estimator(Step):
    """A step that learns from the unmarked training rows before it can be applied."""

    scope: ClassVar[Literal["row", "table"]] = "table"
    by_split: ClassVar[bool] = True

    def learns_from(self) -> tuple[str, ...]:
        """Return the columns of which the distribution decides what is learned, for `refit: on_drift`."""
        raise NotImplementedError(f"{type(self).__name__} does not say which columns it learns from")

    @property
    def fits(self) -> int:
        """Return how many times it learns at most, each by queries of its own."""
        return 1

    def watched(self, have: Columns) -> Sequence[str]:
        """Return those columns where they follow from the ones that are there."""
        return self.learns_from()

    def fit(self, training: DataFrame, context: Context) -> Step:
        """Learn from the unmarked training rows and return the frozen step.

        Of the columns, those may be there alone that the options of a step name (see `Context.whole`).
        """
        raise NotImplementedError

    def apply(self, df: DataFrame) -> DataFrame:
        raise StepError(f"'{self.name}' must be fitted before it is applied")
