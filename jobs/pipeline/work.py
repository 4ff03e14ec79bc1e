"""The identity of a build: its work, decided before any row is read, and what it staged, as the marker has it."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any

from headgate.jobs.config.models import Environment, Publish, Source
from headgate.jobs.config.pipeline import Pipeline
from headgate.jobs.lake.datafiles import DataFile
from headgate.jobs.lake.frames import frame
from headgate.jobs.lake.lake import Lake
from headgate.jobs.progress import Progress
from headgate.jobs.sources.landing import LandedFile
from headgate.transforms.step import Step
from headgate.transforms.steps import options_of

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

    from headgate.jobs.pipeline.origins import Origins

KEY_LENGTH = 32  # of the key of staged work, with which the names of its folders begin
STAYS = "stays-"  # begins the name of the folder of rows that a build wrote anew, as they were
SCRATCH = "-work"  # beside a build's staged rows: what its steps wrote for themselves


@dataclass(frozen=True)
class Pin:
    """An input at a fixed version; `as_of` where rows of later files are left out."""

    version: int
    as_of: date | None = None

    def as_recorded(self) -> list[Any]:
        return [self.version, str(self.as_of or "")]


@dataclass(frozen=True)
class Arrival:
    """All that a table's source has that is new, and how it reaches the table."""

    files: list[LandedFile]  # of a pull-based source, one entry per run
    rows: "Callable[[], DataFrame]"
    count: int  # of the rows, counted apart from their reader
    how: Publish
    replaces: tuple[str, ...] = ()  # files whose earlier rows these replace
    scratch: str | None = None  # a folder to be removed once this is published


@dataclass(frozen=True)
class Run:
    """The facts that all builds of a run share.

    changed: the ids of the rows in which two versions of a table differ, of those that builds asked for.
    """

    spark: "SparkSession"
    pipeline: Pipeline
    environment: Environment
    lake: Lake
    progress: Progress
    run_id: str
    as_of: date | None
    erasing: int  # `Lake.erasing` when it began
    changed: "dict[tuple[str, int, int], pa.Table | None]" = field(default_factory=dict)

    def read(self, table: str, version: int) -> "DataFrame":
        """Return the rows of a version of a table, from the files that hold them now."""
        return frame(self.spark, self.lake, table, self.lake.rearranged(table, version))


@dataclass(frozen=True)
class Work:
    """One build: what is built, from what, and how it is published.

    key: a hash of all that decides what is staged and how it is published; only what a dead run staged under the same
    key is taken up, and the names of builds begin with it. made_by: of configuration and inputs alone. part: by table,
    the data files that it gained since the last build, where these alone are built; None: all. moved: by input, the
    versions between which it changed, where only what that affects is made again; None: all. state: the key of the
    build whose fitted state is applied; None: the steps learn anew. builds: of which the present rows come.
    """

    table: str
    key: str
    made_by: str
    mode: Publish
    inputs: Mapping[str, Pin]
    base: int
    arrival: Arrival | None = None
    part: Mapping[str, list[str]] | None = None
    moved: Mapping[str, tuple[int, int]] | None = None
    state: str | None = None
    fitted_on: str | None = None  # the day on which that was learned
    builds: tuple[str, ...] = ()
    parents: Mapping[str, int] = field(default_factory=dict)  # versions of the tables that the suite alone reads
    judge_key: str = ""
    previous_rows: int = -1
    note: str = ""  # what the run's summary must say of the build

    @property
    def build(self) -> str:
        """The build's name: in commits, the ledger and metrics."""
        return f"{self.key[:16]}-{self.base + 1}"

    @property
    def replaces_all(self) -> bool:
        """Return whether nothing stays of the version that the build starts from."""
        return self.mode.mode == "replace" and not (self.arrival and self.arrival.replaces)

    @property
    def files(self) -> list[LandedFile]:
        return self.arrival.files if self.arrival else []


@dataclass(frozen=True)
class Prepared:
    """The rows of a build after its steps, not yet evaluated, with what was learned on the way."""

    rows: "DataFrame"
    rows_in: int
    recorded: Mapping[str, list[str]] = field(default_factory=dict)
    lineage: "Origins | None" = None
    warnings: Sequence[str] = ()
    figures: Sequence[Mapping[str, Any]] = ()  # of what steps did (`Context.measure`)
    foretold: Sequence[str] = ()  # the steps that tell the ids of the rows that they make, or of those they replace
    replaced: str | None = None  # where the ids are of the published rows that these replace, by a step that renews


@dataclass(frozen=True)
class Staged:
    """The content of the marker of staged rows."""

    folder: str  # of the data files, below the table
    files: dict[str, list[DataFile]]  # by the fate of their rows
    schema: dict[str, Any]  # of the files, as Spark's JSON
    rows_in: int
    made: int
    made_rejected: int
    unforeseen: int  # of the rows that were made, those whose ids no step foretells (`Step.copies`)
    content: int  # sum of the hashes of the kept rows
    recorded: dict[str, list[str]]  # what steps let later builds know: name -> where in the scratch, and the columns
    lineage: dict[str, Any] | None
    affected: str | None  # where the ids are of the rows that were made again; None: all are
    masks: str  # the key of the rules whose bits are beside the rows
    warnings: list[str]
    figures: list[dict[str, Any]]


def work_key(made_by: str, base: int, mode: Publish, *more: Any) -> str:
    """Return a hash of all that decides what a build stages and how it is published."""
    return digest([made_by, base, mode.model_dump(mode="json"), more])


def build_key(pipeline: Pipeline, table: str, inputs: Mapping[str, Any], state: str | None = None) -> str:
    """Return a hash of all that decides a table's rows: inputs, source, steps with their revisions, publishing.

    state: the key of the build whose fitted state is applied; None where what is learned follows from the inputs.

    Options at their defaults are left out, so that an option that is new to a step changes no key. Of the suite only
    the rules that quarantine rows enter: the others judge rows and change none.
    """
    configured, suite = pipeline.tables[table], pipeline.suites[table]
    quarantine = [rule.configuration() for rule in suite.rules if rule.quarantine] if suite else []
    facts = {
        "table": table,
        "inputs": inputs,
        "source": described_source(configured.source),
        "code": pipeline.code[table],
        "from": configured.starts,
        "steps": [described(step) for step in pipeline.steps[table]],
        "quarantine": [{k: v for k, v in rule.items() if k != "meta"} for rule in quarantine],
        "publish": configured.publish.model_dump(mode="json", exclude_defaults=True),
    }
    return digest(facts if state is None else facts | {"state": state})


def described_source(source: Source | None) -> dict[str, Any] | None:
    """Return the options of a source that decide which rows it gives."""
    return source.model_dump(mode="json", exclude_defaults=True, exclude={"expected"}) if source else None


def config_key(pipeline: Pipeline, table: str) -> str:
    """Return a hash of all that decides a table's rows but its inputs, and what its steps learned from these."""
    return build_key(pipeline, table, {})


def described(step: Step) -> list[Any]:
    """Return what decides what a step does: its name, revision, and the options that differ from their defaults.

    The order of an option's entries may matter, as that of shares does, so they are told in their order.
    """
    written = options_of(type(step)).dump_python(step, mode="json")
    differing = set(options_of(type(step)).dump_python(step, mode="json", exclude_defaults=True))
    for option in dataclasses.fields(step):
        made = option.default_factory
        if made is not dataclasses.MISSING and list(written[option.name]) != list(made()):
            differing.add(option.name)
    return [step.name, step.revision, {name: json.dumps(written[name]) for name in sorted(differing)}]


def digest(facts: Any) -> str:
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]
