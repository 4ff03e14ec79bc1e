"""Models of the files of a pipeline and of an environment."""

from typing import Annotated, Any, Literal

import pydantic

from headgate.jobs.config.nightly import Alerts, Expected, Metrics, OpenLineage, Tracing
from headgate.jobs.config.secrets import Model, SecretReference
from headgate.jobs.errors import UsageError
from headgate.jobs.lake.stores import SECRET_SETTINGS, Keys, Store, spark_settings

DATE_PLACE = "{date}"

KEY = pydantic.Field(default=(), description="Columns that identify a record; without them its whole content does")

OnMissingKey = Literal["keep", "quarantine"]

ON_MISSING_KEY: Any = pydantic.Field(
    default="keep",
    description="A record with a null in its key: keep it as a record that equals no other, or quarantine it",
)


class FileSource(Model):
    """Files that land for a table; each is ingested exactly once."""

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
        default="",
        max_length=1,
        description="Of csv: the character before a quote in a value; '' where it is doubled",
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
        default="refuse", description="When an ingested file has changed: stop, or replace its rows"
    )
    on_bad_file: Literal["refuse", "quarantine"] = pydantic.Field(
        default="refuse",
        description="When a file is corrupt, not text of its encoding, or has other columns or types: stop, or "
        "quarantine the whole file in the ledger and go on",
    )
    on_other_columns: Literal["refuse", "quarantine", "evolve"] = pydantic.Field(
        default="refuse",
        description="When a file has missing or unexpected columns: stop, quarantine it, or ingest it with nulls for "
        "the missing and new columns for the unexpected ones (text, in csv and jsonl)",
    )
    expected: Expected | None = pydantic.Field(
        default=None, description="Files of every day that must be there: missing ones are told of, or end the run"
    )


class PullSource(Model):
    """Options of all pull-based sources."""

    key: tuple[str, ...] = KEY
    on_missing_key: OnMissingKey = ON_MISSING_KEY
    watermark: str | None = pydantic.Field(
        default=None,
        description="Monotonically increasing column (a time or a number), the high-water mark: a run reads only rows "
        "at or above its highest value so far. Without it, every run reads all and replaces the table if it differs",
    )
    look_back: str = pydantic.Field(
        default="0",
        description="Overlap for late rows: how far below the watermark to read again, as '2 days'",
    )


class JdbcSource(PullSource):
    """A table or query of a database, read through JDBC."""

    format: Literal["jdbc"]
    url: str = pydantic.Field(description="JDBC URL without user and password: jdbc:postgresql://host:5432/shop")
    table: str | None = pydantic.Field(default=None, description="The table, as schema.name in its true case")
    query: str | None = pydantic.Field(default=None, description="A SELECT, instead of a table")
    user: SecretReference | None = pydantic.Field(default=None, description="Where the user's name is found")
    password: SecretReference | None = pydantic.Field(default=None, description="Where the password is found")
    driver: str | None = pydantic.Field(
        default=None, description="Class of the driver, where the URL does not imply it"
    )
    partition_by: str | None = pydantic.Field(
        default=None, description="Numeric, date or time column by whose range `partitions` parts are read in parallel"
    )
    partitions: int = pydantic.Field(default=8, ge=1, description="Number of parts read in parallel")
    fetch_size: int = pydantic.Field(default=10_000, ge=1, description="Rows that the driver fetches at a time")


class Paging(Model):
    """Pagination of an HTTP API."""

    by: Literal["link", "cursor", "offset"]
    next: str | None = pydantic.Field(
        default=None,
        description="Path in a page of the next URL (link) or cursor, such as meta.next; for link, the Link header "
        "(RFC 8288) is the default",
    )
    param: str | None = pydantic.Field(default=None, description="The query parameter that takes cursor or offset")
    size_param: str | None = pydantic.Field(default=None, description="The query parameter that takes `size`")
    size: int = pydantic.Field(default=100, ge=1, description="Records of a page; by offset, a shorter one is the last")


class HttpSource(PullSource):
    """Records of an HTTP API that answers in pages of JSON."""

    format: Literal["http"]
    url: str = pydantic.Field(pattern=r"^https?://", description="URL of the first page")
    columns: str = pydantic.Field(alias="schema", description="Columns as Spark DDL; other members are ignored")
    records: str = pydantic.Field(default="", description="Path of a page's records, as data.items; '' for the page")
    params: dict[str, str | SecretReference] = pydantic.Field(
        default_factory=dict, description="Query parameters; '{watermark}' is replaced by the watermark of the last run"
    )
    headers: dict[str, str | SecretReference] = pydantic.Field(
        default_factory=dict, description="Headers; secrets by reference"
    )
    paging: Paging | None = pydantic.Field(default=None, description="Without it, there is one page")
    retries: int = pydantic.Field(
        default=5, ge=0, description="Retries, with exponential backoff, after 429, 5xx and lost connections"
    )
    timeout: float = pydantic.Field(default=30.0, gt=0, description="Seconds to wait for an answer")
    max_pages: int = pydantic.Field(default=100_000, ge=1, description="More pages than this are an error")


class PythonSource(PullSource):
    """Records from a Python function of the user's own."""

    format: Literal["python"]
    function: str = pydantic.Field(
        pattern=r"^[^:]+\.py:[A-Za-z_]\w*$",
        description="file.py:name, relative to the pipeline's file. It is called with the watermark of the last run "
        "(text, or None) and yields one dict per record; it runs on one executor",
    )
    columns: str = pydantic.Field(alias="schema", description="Columns as Spark DDL")


SOURCE_KINDS = ("csv", "jsonl", "parquet", "avro", "delta", "jdbc", "http", "python")

SECRET_PLACES = {"user", "password", "headers", "params", "secrets", "url", "store", "alerts", "pushgateway"}

Source = Annotated[FileSource | JdbcSource | HttpSource | PythonSource, pydantic.Field(discriminator="format")]


class Publish(Model):
    """The mode in which rows that passed the gate enter the table."""

    mode: Literal["auto", "replace", "increment", "append", "merge"] = pydantic.Field(
        default="auto",
        json_schema_extra={"enum": ["auto", "replace", "increment", "merge"]},  # sources alone append
        description="auto: only the rows that a change of the inputs affects are made again, wherever that gives what "
        "building all of them gives. replace: all are made again. increment: where its input only gained rows, only "
        "these are built and appended, in the order of their arrival",
    )
    key: tuple[str, ...] = pydantic.Field(
        default=(),
        description="Of merge: columns that are unique in the table. A null in them is a value like others, so "
        "drop_duplicates over just these columns treats nulls as equal unless it says otherwise",
    )
    sort_by: tuple[str, ...] = pydantic.Field(default=(), description="Columns by which files are clustered")


class Frozen(Model):
    """A release whose fitted state is applied to all later rows."""

    release: str = pydantic.Field(description="The release that holds the version of the table")


class Table(Model):
    """A table: its source or input, its steps, its suite, and how it is published."""

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
    mapping: dict[str, dict[str, Any]] = pydantic.Field(
        default_factory=dict,
        description="Of a table that it starts from: how its columns become those of this one, as in step map_columns. "
        "What is mapped is a table of its own, <name>_<source>, and `_source` is the source",
    )
    steps: tuple[dict[str, Any], ...] = ()
    grain: Literal["rows", "new"] = pydantic.Field(
        default="rows",
        description="new: its rows are others than those that came, because a step sums up or merges them",
    )
    refit: Literal["always", "weekly", "on_drift"] | Frozen = pydantic.Field(
        default="always",
        description="When its steps that learn do so anew. always: at every build, so every build makes all rows. "
        "weekly: when what they learned is seven days old. on_drift: when the training rows are distributed otherwise "
        "than those that they learned from. {release: name}: never; what that release's version learned is applied",
    )
    suite: str | None = pydantic.Field(
        description="Name of its suite (a file in `suites`), or null for a table without a gate"
    )
    quarantine_ceiling: float = pydantic.Field(
        default=0.05, ge=0, le=1, description="Largest share of rows that may be quarantined; beyond it the gate blocks"
    )
    rejected_ceiling: float = pydantic.Field(
        default=1,
        ge=0,
        le=1,
        description="Largest share of the rows that ingestion and steps may reject; beyond it nothing is published",
    )
    publish: Publish = Publish()


class PipelineFile(Model):
    """A pipeline: its tables."""

    pipeline: str = pydantic.Field(pattern=r"^[a-z][a-z0-9_-]*$")
    description: str = ""
    suites: str = pydantic.Field(
        default="../expectations/suites", description="Folder of suites, relative to this file"
    )
    steps_from: tuple[str, ...] = pydantic.Field(
        default=(), description="Python files with steps of your own, relative to this file"
    )
    tables: dict[str, Table] = pydantic.Field(min_length=1)


class StoreOptions(Model):
    """The S3 store of the lake and the landing folder. What is left out is found as AWS's own tools find it."""

    endpoint: str | None = pydantic.Field(
        default=None, pattern=r"^https?://[^/@]+/?$", description="URL of a store that is not AWS's own"
    )
    region: str | None = None
    path_style: bool | None = pydantic.Field(
        default=None, description="Whether a bucket is named in the path of a URL; by default it is at an endpoint"
    )
    allow_http: bool = pydantic.Field(default=False, description="Allow an endpoint without encryption, of http://")
    access_key: SecretReference | None = None
    secret_key: SecretReference | None = None
    session_token: SecretReference | None = None
    credentials_file: str | None = pydantic.Field(
        default=None, description="File of AWS's form with keys or a credential_process, instead of the keys above"
    )
    profile: str | None = pydantic.Field(default=None, description="The profile of that file (default: default)")

    def store(self) -> Store:
        """Return the store; raise `UsageError` for options that do not go together."""
        if (self.access_key is None) != (self.secret_key is None) or (self.session_token and not self.access_key):
            raise UsageError("store: access_key and secret_key are given together, session_token beside them")
        if self.access_key and (self.credentials_file or self.profile):
            raise UsageError("store: access_key cannot be combined with credentials_file and profile")
        if (self.endpoint or "").startswith("http://") and not self.allow_http:
            raise UsageError(f"store.endpoint: {self.endpoint} is not encrypted; allow_http: true allows that")
        given = self.model_dump(exclude={"access_key", "secret_key", "session_token"})
        return Store(**given, keys=self.keys)

    def keys(self) -> Keys | None:
        """Return the keys as their references give them now."""
        if self.access_key is None or self.secret_key is None:
            return None
        token = self.session_token.read("store.session_token") if self.session_token else None
        return Keys(self.access_key.read("store.access_key"), self.secret_key.read("store.secret_key"), token)


class CatalogOptions(Model):
    """The catalogue in which `headgate register` enters the tables of the lake."""

    kind: Literal["hive", "glue", "unity"] | None = None
    database: str | None = pydantic.Field(default=None, description="Database or, of Unity Catalog, schema")
    uri: str | None = pydantic.Field(
        default=None, pattern=r"^https?://[^/@]+/?$", description="URL of Unity Catalog's server, or of Glue"
    )
    name: str | None = pydantic.Field(default=None, description="Of Unity Catalog, the catalog that has the schema")
    token: SecretReference | None = pydantic.Field(default=None, description="Token for Unity Catalog")


class Environment(Model):
    """An environment: the places, their store, and the Spark settings of a run."""

    lake: str = pydantic.Field(default="lake", min_length=1)  # an empty one would be the working folder
    landing: str = pydantic.Field(default="landing", min_length=1)
    retention_days: int = pydantic.Field(
        default=365, ge=0, description="Days for which `headgate vacuum` keeps versions that are in no release"
    )
    table_retention_days: dict[str, Annotated[int, pydantic.Field(ge=0)]] = pydantic.Field(
        default_factory=dict, description="Table -> days, where they differ from retention_days"
    )
    tables_at_once: int | None = pydantic.Field(
        default=None,
        ge=1,
        description="How many tables that do not need one another are built at a time; without it, one for every two "
        "cores of the machine that Spark's driver runs on, and four at most",
    )
    store: StoreOptions = StoreOptions()
    alerts: Alerts | None = None
    metrics: Metrics | None = None
    openlineage: OpenLineage | None = None
    tracing: Tracing | None = None
    catalog: CatalogOptions = CatalogOptions()
    spark: dict[str, str] = pydantic.Field(default_factory=dict, description="Spark settings")
    secrets: dict[str, SecretReference] = pydantic.Field(
        default_factory=dict,
        description="Spark setting -> reference to its secret value, read at start",
    )

    def spark_settings(self) -> dict[str, str]:
        """Return the Spark settings with the secrets that they refer to; raises `UsageError` for a missing one.

        Those of the store come first: what is set under `spark` and `secrets` goes before them.
        """
        secrets = {name: reference.read(f"secrets.{name}") for name, reference in self.secrets.items()}
        return spark_settings(self.lake, self.landing) | self.spark | secrets

    def secret_settings(self) -> tuple[str, ...]:
        """Return the names of the Spark settings that no output may show."""
        return (*SECRET_SETTINGS, *self.secrets)
