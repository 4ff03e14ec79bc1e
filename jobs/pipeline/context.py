"""The context of a step in a build: other tables, scratch, records of earlier builds, large fitted state."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from headgate.jobs.lake.frames import frame_at
from headgate.jobs.lake.storage import open_table
from headgate.jobs.pipeline.work import described, digest
from headgate.transforms.rows import OWN, ROW_ID, training_rows
from headgate.transforms.step import Changes, Step, StepError

BUILD = f"{OWN}build"  # in an index: the build that published the row


@dataclass(frozen=True)
class BuildContext:
    """The context of a step, and of all steps of a build before `at` names one of them.

    folder: of scratch in Parquet. index: of a table that grows by increments, a folder of Delta tables, one for each
    name that a step records, whose rows name the build that published them. fitted: of what steps learned. frames: the
    tables that steps read. unique: the keys of these that their suites prove to be unique. before: gives the table's
    own previous version. published: gives the time at which the newest input was published. lasting: whether the table
    grows by increments. rows_in: how many rows the build starts from. builds: those of which its present rows come;
    none where all is built anew.
    """

    spark: SparkSession
    folder: str
    index: str = ""
    fitted: str = ""
    frames: Mapping[str, DataFrame] = field(default_factory=dict)
    unique: Mapping[str, Sequence[frozenset[str]]] = field(default_factory=dict)
    before: Callable[[], DataFrame | None] = lambda: None
    published: Callable[[], datetime] = lambda: datetime.fromtimestamp(0, tz=timezone.utc)
    lasting: bool = False
    rows_in: int | None = None
    partial: bool = False  # whether only rows that a change reaches are made
    changed: Changes | None = None  # of the rows before the step, where it renews
    replaced: list[str] = field(default_factory=list)  # the folder of the ids that `replace` was given
    builds: tuple[str, ...] = ()
    all_recorded: dict[str, list[str]] = field(default_factory=dict)  # name -> where in the scratch, and the columns
    warnings: list[str] = field(default_factory=list)
    figures: list[dict[str, Any]] = field(default_factory=list)  # step, name, value, facts
    kept: list[tuple[DataFrame, DataFrame]] = field(default_factory=list)  # rows that were kept, and as read again
    id: str = ""
    state: str = ""  # the name of what the step records, by `state_name`
    reads_previous: bool = False
    rows: DataFrame | None = None  # that the step has before it

    def at(self, steps: Sequence[Step], i: int, df: DataFrame, changed: Changes | None = None) -> "BuildContext":
        """Return the context of one of the steps, which has the rows `df` before it."""
        step = steps[i]
        state = state_name(steps, i, df)
        return dataclasses.replace(
            self,
            id=step.id,
            state=state,
            reads_previous=step.reads_previous,
            rows=df,
            changed=changed if step.renews else None,
        )

    def table(self, name: str) -> DataFrame:
        if name not in self.frames:
            raise StepError(f"the step reads table '{name}', which its `tables` does not name")
        return self.frames[name]

    def is_unique(self, table: str, columns: Sequence[str]) -> bool:
        return any(key <= set(columns) for key in self.unique.get(table, ()))

    def previous(self) -> DataFrame | None:
        if not self.reads_previous and self.changed is None:
            raise StepError("the step reads the table's previous version, and its class does not say reads_previous")
        return self.before()

    def changes(self) -> Changes | None:
        return self.changed

    def replace(self, ids: DataFrame) -> None:
        self.keep(ids.select(ROW_ID).distinct(), "replaced")
        self.replaced.append(f"{self.folder}/{self.state}/replaced")

    def moment(self) -> datetime:
        return self.published()

    def whole(self) -> DataFrame:
        assert self.rows is not None  # `at` sets them
        return training_rows(self.rows)

    def keep(self, df: DataFrame, name: str) -> DataFrame:
        path = f"{self.folder}/{self.state}/{name}"
        # Hashes do not compress (nor do they in the index), and no dictionary of them is of use.
        plain = df.write.mode("overwrite").option("compression", "none").option("parquet.enable.dictionary", "false")
        plain.parquet(path)
        read = self.spark.read.schema(df.schema).parquet(path)
        if ROW_ID in df.columns:
            self.kept.append((df, read))
        return read

    def recorded(self, name: str) -> DataFrame | None:
        if not self.builds:
            return None
        path = f"{self.index}/{self.state}-{name}"
        rows = frame_at(self.spark, open_table(path), path)
        return rows.where(F.col(BUILD).isin(*self.builds)).drop(BUILD)

    def record(self, name: str, kept: str, columns: Sequence[str]) -> None:
        self.all_recorded[f"{self.state}-{name}"] = [f"{self.folder}/{self.state}/{kept}", *columns]

    def artifact(self, name: str) -> str:
        return f"{self.fitted}/{self.state}/{name}"

    def store(self, df: DataFrame, name: str) -> str:
        df.write.mode("overwrite").parquet(self.artifact(name))
        return self.artifact(name)

    def stored(self, place: str) -> DataFrame:
        return self.spark.read.parquet(place)

    def warn(self, message: str) -> None:
        if message not in self.warnings:
            self.warnings.append(message)

    def measure(self, name: str, value: float, facts: Mapping[str, float | str | None]) -> None:
        self.figures.append({"step": self.id.rpartition("/")[2], "name": name, "value": value, "facts": dict(facts)})


def state_name(steps: Sequence[Step], i: int, df: DataFrame) -> str:
    """Name a step within a table by all that decides what it records of the rows `df`.

    That is the steps up to it with their options and revisions, and the columns that reach it with their types. So what
    another configuration recorded is never taken for its own.
    """
    facts = [[described(s) for s in steps[: i + 1]], df.dtypes]
    return f"{i}-{steps[i].name}-{digest(facts)[:16]}"
