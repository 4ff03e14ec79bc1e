"""What a pipeline and an environment may say: the models of their files."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from headgate.jobs.errors import UsageError

DATE_PLACE = "{date}"


SECRETS_READ: set[str] = set()  # what this process has read by reference, so that no output repeats it


class Model(pydantic.BaseModel):
    # An input may be a secret that was written where its reference belongs.
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, populate_by_name=True, hide_input_in_errors=True)


class SecretReference(Model):
    """A secret by reference: the name of an environment variable, or of a file."""

    env: str | None = None
    file: str | None = None

    def read(self, name: str) -> str:
        value = self.value(name)
        SECRETS_READ.add(value)
        return value

    def value(self, name: str) -> str:
        if (self.env is None) == (self.file is None):
            raise UsageError(f"{name}: give exactly one of env and file")
        if self.env is not None:
            if self.env not in os.environ:
                raise UsageError(f"{name}: the environment variable {self.env} is not set")
            return os.environ[self.env]
        try:
            return Path(self.file or "").read_text(encoding="utf-8").strip()
        except OSError as e:
            raise UsageError(f"{name}: cannot read {self.file}: {e.strerror}") from e
        except UnicodeDecodeError:
            raise UsageError(f"{name}: {self.file} is not UTF-8 text") from None  # the error quotes the secret


KEY = pydantic.Field(default=(), description="Columns that identify a record; without them its whole content does")

OnMissingKey = Literal["keep", "quarantine"]

ON_MISSING_KEY: Any = pydantic.Field(
    default="keep",
    description="A record that lacks a value of its key: keep it as one that is equal to no other, or set it aside",
)


class FileSource(Model):
    """Files that land for a table: each is taken up exactly once."""

    format: Literal["csv", "jsonl", "parquet", "avro", "delta"]
    path: str = pydantic.Field(
        description="Pattern below the landing folder, such as 'flights/{date}.csv'; '*' matches within a name, "
        "{date} a day as 2013-01-31. For delta: the folder of the table."
    )
    columns: str | None = pydantic.Field(
        default=None, alias="schema", description="Columns as Spark DDL, in the files' order; required for csv, jsonl"
    )
    any_case: bool = pydantic.Field(default=False, description="Whether the pattern matches in any case of its letters")
    key: tuple[str, ...] = KEY
    on_missing_key: OnMissingKey = ON_MISSING_KEY
    delimiter: str = pydantic.Field(default=",", min_length=1, max_length=1, description="Of csv")
    quote: str = pydantic.Field(default='"', max_length=1, description="Of csv; '' where no character quotes")
    escape: str = pydantic.Field(
        default="", max_length=1, description="Of csv: what stands before a quote in a value; '' where it is doubled"
    )
    line_end: str = pydantic.Field(
        default="auto", min_length=1, description="Of csv and jsonl: auto is LF or CR LF, mixed as well; else a text"
    )
    null_value: str = pydantic.Field(default="", description="The text of csv that, without quotes, means null")
    decimal: str = pydantic.Field(default=".", min_length=1, max_length=1, description="The decimal mark of numbers")
    thousands: str = pydantic.Field(default="", max_length=1, description="The mark between thousands; '' for none")
    date_format: str | None = pydantic.Field(
        default=None, description="Of csv and jsonl: how dates are written, as Spark's dd/MM/yyyy; ISO 8601 without it"
    )
    timestamp_format: str | None = pydantic.Field(
        default=None, description="Of csv and jsonl: how times are written, as dd/MM/yyyy HH:mm; ISO 8601 without it"
    )
    encoding: str = pydantic.Field(
        default="utf-8", description="Of csv and jsonl: the character set, by any name that Python knows"
    )
    max_line_bytes: int = pydantic.Field(
        default=16 << 20, ge=1, description="Of csv and jsonl: a file with a longer line is a bad file"
    )
    on_changed_file: Literal["refuse", "replace"] = pydantic.Field(
        default="refuse", description="When a file taken up before has other content now: stop, or replace its rows"
    )
    on_bad_file: Literal["refuse", "quarantine"] = pydantic.Field(
        default="refuse",
        description="When a file is damaged, not text of its encoding, or has other columns or types: stop, or set "
        "the whole file aside in the ledger and go on",
    )
    on_other_columns: Literal["refuse", "quarantine", "evolve"] = pydantic.Field(
        default="refuse",
        description="When a file lacks columns or has more: stop, set it aside, or take it up with nulls for what it "
        "lacks and new columns for what it adds (text, in csv and jsonl)",
    )


class PullSource(Model):
    """What all sources that are asked for their rows share."""

    key: tuple[str, ...] = KEY
    on_missing_key: OnMissingKey = ON_MISSING_KEY
    watermark: str | None = pydantic.Field(
        default=None,
        description="Column that grows with every change (a time or a number): only rows at or beyond its highest "
        "value so far are asked for. Without it, every night takes the whole and replaces the table where it differs",
    )
    look_back: str = pydantic.Field(
        default="0", description="How far below the highest watermark to ask again, for rows that came late: '2 days'"
    )


class JdbcSource(PullSource):
    """A table or query of a database, read through JDBC."""

    format: Literal["jdbc"]
    url: str = pydantic.Field(description="JDBC URL without user and password: jdbc:postgresql://host:5432/shop")
    table: str | None = pydantic.Field(default=None, description="The table, as schema.name in its true case")
    query: str | None = pydantic.Field(default=None, description="A SELECT, instead of a table")
    user: SecretReference | None = pydantic.Field(default=None, description="Where the user's name is found")
    password: SecretReference | None = pydantic.Field(default=None, description="Where the password is found")
    driver: str | None = pydantic.Field(default=None, description="Class of the driver, where the URL does not tell")
    partition_by: str | None = pydantic.Field(
        default=None, description="Numeric, date or time column whose range is read in `partitions` parts at once"
    )
    partitions: int = pydantic.Field(default=8, ge=1, description="How many parts are read at once")
    fetch_size: int = pydantic.Field(default=10_000, ge=1, description="Rows that the database sends at a time")


class Paging(Model):
    """How a page of an HTTP API names the next one."""

    by: Literal["link", "cursor", "offset"]
    next: str | None = pydantic.Field(
        default=None,
        description="Where in a page the next URL (link) or cursor stands, such as meta.next; for link, the Link "
        "header (RFC 8288) is used without it",
    )
    param: str | None = pydantic.Field(default=None, description="The query parameter that takes cursor or offset")
    size_param: str | None = pydantic.Field(default=None, description="The query parameter that takes `size`")
    size: int = pydantic.Field(default=100, ge=1, description="Records of a page; by offset, a shorter one is the last")


class HttpSource(PullSource):
    """Records of an HTTP API that answers in pages of JSON."""

    format: Literal["http"]
    url: str = pydantic.Field(pattern=r"^https?://", description="URL of the first page")
    columns: str = pydantic.Field(alias="schema", description="Columns as Spark DDL; other members are left out")
    records: str = pydantic.Field(default="", description="Where in a page its records stand: data.items; '' for all")
    params: dict[str, str | SecretReference] = pydantic.Field(
        default_factory=dict, description="Query parameters; '{watermark}' stands for where the last night ended"
    )
    headers: dict[str, str | SecretReference] = pydantic.Field(
        default_factory=dict, description="Headers; secrets by reference"
    )
    paging: Paging | None = pydantic.Field(default=None, description="Without it, there is one page")
    retries: int = pydantic.Field(
        default=5, ge=0, description="Tries again, with growing pauses, after 429, 5xx and lost connections"
    )
    timeout: float = pydantic.Field(default=30.0, gt=0, description="Seconds to wait for an answer")
    max_pages: int = pydantic.Field(default=100_000, ge=1, description="More pages than this are an error")


class PythonSource(PullSource):
    """Records from a Python function of the user's own."""

    format: Literal["python"]
    function: str = pydantic.Field(
        pattern=r"^[^:]+\.py:[A-Za-z_]\w*$",
        description="file.py:name, relative to the pipeline's file. It is called with the highest watermark so far "
        "(text, or None) and yields one dict for each record; it runs on one executor",
    )
    columns: str = pydantic.Field(alias="schema", description="Columns as Spark DDL")


SOURCE_KINDS = ("csv", "jsonl", "parquet", "avro", "delta", "jdbc", "http", "python")

SECRET_PLACES = {"user", "password", "headers", "params", "secrets", "url"}

Source = Annotated[FileSource | JdbcSource | HttpSource | PythonSource, pydantic.Field(discriminator="format")]


class Publish(Model):
    """How the gated rows reach the table."""

    mode: Literal["replace", "increment", "append", "merge"] = pydantic.Field(
        default="replace",
        json_schema_extra={"enum": ["replace", "increment", "merge"]},  # sources alone append
        description="increment: where the table that it starts from only gained rows, these alone are built and added",
    )
    key: tuple[str, ...] = pydantic.Field(
        default=(),
        description="Of merge: columns that are unique in the table; null is one value of them, so drop_duplicates "
        "over just these columns takes nulls as equal unless it says otherwise",
    )
    sort_by: tuple[str, ...] = pydantic.Field(default=(), description="Rows that are close in these lie close in files")


class Table(Model):
    """A table: where its rows come from, what happens to them, what must hold, how they are published."""

    description: str = ""
    source: Source | None = None
    starts: Annotated[tuple[str, ...], pydantic.BeforeValidator(lambda v: (v,) if isinstance(v, str) else v)] = (
        pydantic.Field(
            default=(),
            alias="from",
            description="The table whose rows it starts from; or several, whose rows then carry the table in `_source`",
            json_schema_extra={"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
        )
    )
    steps: tuple[dict[str, Any], ...] = ()
    grain: Literal["rows", "new"] = pydantic.Field(
        default="rows",
        description="new: its rows are others than those that came, because a step sums up or merges them",
    )
    suite: str | None = pydantic.Field(
        description="Name of the suite that judges it (a file in `suites`), or null for a table without a gate"
    )
    quarantine_ceiling: float = pydantic.Field(
        default=0.05, ge=0, le=1, description="Largest share of rows that row rules may quarantine before they block"
    )
    publish: Publish = Publish()


class PipelineFile(Model):
    """A pipeline: the list of its tables."""

    pipeline: str = pydantic.Field(pattern=r"^[a-z][a-z0-9_-]*$")
    description: str = ""
    suites: str = pydantic.Field(
        default="../expectations/suites", description="Folder of suites, relative to this file"
    )
    steps_from: tuple[str, ...] = pydantic.Field(
        default=(), description="Python files with steps of your own, relative to this file"
    )
    tables: dict[str, Table] = pydantic.Field(min_length=1)


class Environment(Model):
    """Where a pipeline runs."""

    lake: str = "lake"
    landing: str = "landing"
    retention_days: int = pydantic.Field(
        default=365, ge=0, description="Days for which `headgate vacuum` keeps versions that no release holds"
    )
    spark: dict[str, str] = pydantic.Field(default_factory=dict, description="Spark settings")
    secrets: dict[str, SecretReference] = pydantic.Field(
        default_factory=dict, description="Spark setting -> where its secret value is found at start; never the value"
    )

    def spark_settings(self) -> dict[str, str]:
        return dict(self.spark) | {name: reference.read(f"secrets.{name}") for name, reference in self.secrets.items()}
