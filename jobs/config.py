"""Configuration: YAML read with line numbers, checked in full before Spark starts."""

import ast
import codecs
import dataclasses
import difflib
import graphlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml

from expectations.suites import Suite, SuiteError, load_suite
from jobs.errors import UsageError
from jobs.lake import SYSTEM_TABLES, TABLE_NAME
from transforms.balancing.split import check_split, splits_after
from transforms.cleaning.expressions import checked as checked_expression
from transforms.deduplication.exact import DropDuplicates
from transforms.parsing import check_pattern
from transforms.rows import FILE, FILE_DATE, OWN, is_own
from transforms.step import Comparer, Step, StepError, Types, columns_after, nearest
from transforms.steps import STEPS, options_of

DATE_PLACE = "{date}"
TYPES = (  # the words with which a type begins in Spark's DDL
    *("BOOLEAN", "TINYINT", "BYTE", "SMALLINT", "SHORT", "INT", "INTEGER", "BIGINT", "LONG", "FLOAT", "REAL", "DOUBLE"),
    *("DECIMAL", "DEC", "NUMERIC", "STRING", "CHAR", "CHARACTER", "VARCHAR", "BINARY", "DATE", "TIME"),
    *("TIMESTAMP", "TIMESTAMP_NTZ", "TIMESTAMP_LTZ", "INTERVAL", "ARRAY", "MAP", "STRUCT", "VARIANT", "VOID"),
)
UNWRITABLE = " ,;{}()\n\t="  # in names of columns that are published
NOT_WRITABLE = (
    "cannot be published: Delta allows none of space , ; { } ( ) = and line breaks in a name. Rename it before (step "
    "rename)"
)


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
ON_MISSING_KEY = pydantic.Field(
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


class Pulled(Model):
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


class JdbcSource(Pulled):
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


class HttpSource(Pulled):
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


class PythonSource(Pulled):
    """Records from a Python function of the user's own."""

    format: Literal["python"]
    function: str = pydantic.Field(
        pattern=r"^[^:]+\.py:[A-Za-z_]\w*$",
        description="file.py:name, relative to the pipeline's file. It is called with the highest watermark so far "
        "(text, or None) and yields one dict for each record; it runs on one executor",
    )
    columns: str = pydantic.Field(alias="schema", description="Columns as Spark DDL")


CHARSETS = ("utf-8", "utf-16", "latin-1", "cp1252", "iso-8859-15", "gb18030", "big5", "shift_jis", "euc-kr", "koi8-r")
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
    from_: str | None = pydantic.Field(default=None, alias="from", description="The table whose rows it starts from")
    steps: tuple[dict[str, Any], ...] = ()
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


@dataclasses.dataclass(frozen=True)
class Yaml:
    """A YAML document and the line of each of its places."""

    file: Path
    data: Any
    lines: Mapping[tuple[Any, ...], int]

    def at(self, *place: Any) -> str:
        """`file:line: path.of[0].keys` of a place, as error messages name it."""
        known = place
        while known and known not in self.lines:
            known = known[:-1]
        line = f":{self.lines[known]}" if known in self.lines else ""
        path = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in place).lstrip(".")
        return f"{self.file}{line}: {path}" if path else f"{self.file}{line}"


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """A checked pipeline: every step built, every suite loaded, tables in building order."""

    name: str
    tables: Mapping[str, Table]
    steps: Mapping[str, Sequence[Step]]
    suites: Mapping[str, Suite | None]
    code: Mapping[str, str | None]  # of tables with a Python function as their source: the text of its file

    @cached_property
    def order(self) -> list[str]:
        """Table names, each after the tables that it reads; those of the lake alone are not among them."""
        sorter = graphlib.TopologicalSorter({t: sorted(self.inputs(t)) for t in self.tables})
        return [t for t in sorter.static_order() if t in self.tables]

    def inputs(self, table: str) -> set[str]:
        """The tables that a table is built from or judged against."""
        start = self.tables[table].from_
        joined = {name for step in self.steps[table] for name in step.tables()}
        suite = self.suites[table]
        return joined | ({start} if start else set()) | (set(suite.parents) if suite else set())

    def splits(self, table: str, steps: int | None = None) -> set[str]:
        """The columns that a split_by_hash of this pipeline made, in a table after its first `steps` steps."""
        if table not in self.tables:
            return set()
        start = self.tables[table].from_
        found = self.splits(start) if start else set()
        for step in self.steps[table][:steps]:
            found = splits_after(step, found, {name: self.splits(name) for name in step.tables()})
        return found

    def upstream(self, tables: Sequence[str]) -> list[str]:
        """The given tables and all that they are built from, in building order."""
        wanted, queue = set(), list(tables)
        while queue:
            table = queue.pop()
            if table not in wanted and table in self.tables:
                wanted.add(table)
                queue.extend(self.inputs(table))
        return [t for t in self.order if t in wanted]


class Yaml12(yaml.SafeLoader):
    """YAML whose only booleans are true and false (YAML 1.2): a key named `on` stays a word."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool" or first in "tTfF"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


Yaml12.add_constructor("tag:yaml.org,2002:timestamp", lambda loader, node: node.value)


def read_yaml(file: Path) -> Yaml:
    """Read a YAML file that holds a mapping, putting environment variables for `${NAME}` and `${NAME:-default}`."""
    lines: dict[tuple[Any, ...], int] = {}
    try:
        text = file.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=Yaml12)
        data = Reading(file, lines).plain(root, ()) if root is not None else None
    except FileNotFoundError as e:
        folder = file.parent if file.parent.is_dir() else Path()
        hint = nearest(file.name, [p.name for p in folder.glob("*.y*ml")])
        raise UsageError(f"{file}: there is no such file{hint}") from e
    except OSError as e:
        raise UsageError(f"{file}: cannot be read: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise UsageError(f"{file}: not a text file in UTF-8 (byte {e.start:,})") from e
    except yaml.reader.ReaderError as e:
        line = text.count("\n", 0, e.position) + 1
        raise UsageError(f"{file}:{line}: not valid YAML: it holds the character U+{e.character:04X}") from e
    except yaml.MarkedYAMLError as e:
        line = f":{e.problem_mark.line + 1}" if e.problem_mark else ""
        raise UsageError(f"{file}{line}: not valid YAML: {e.problem}") from None  # the error quotes the file
    except (RecursionError, ValueError, LookupError) as e:
        raise UsageError(f"{file}: not valid YAML: nested too deeply, or a value that cannot be read") from e
    if not isinstance(data, dict | None):
        kind = "list" if isinstance(data, list) else "single value"
        raise UsageError(f"{file}: must hold options as 'name: value', not a {kind}")
    return Yaml(file, data, lines)


MOST_NODES = 100_000  # of a document, each alias counted as what it stands for


@dataclasses.dataclass
class Reading:
    """One pass over a YAML document, noting the line of every place."""

    file: Path
    lines: dict[tuple[Any, ...], int]
    nodes: int = 0
    above: list[yaml.Node] = dataclasses.field(default_factory=list)

    def plain(self, node: yaml.Node, place: tuple[Any, ...] | None) -> Any:
        """The value of a node; `place`: where it stands, None inside a key."""
        line = node.start_mark.line + 1
        self.nodes += 1
        if self.nodes > MOST_NODES:
            raise UsageError(f"{self.file}:{line}: more than {MOST_NODES:,} values: aliases stand for too much")
        if any(node is other for other in self.above):
            raise UsageError(f"{self.file}:{line}: an alias (*) stands inside what it stands for")
        if place is not None:
            self.lines.setdefault(place, line)
        self.above.append(node)
        value = self.value(node, place, line)
        self.above.pop()
        return value

    def value(self, node: yaml.Node, place: tuple[Any, ...] | None, line: int) -> Any:
        if isinstance(node, yaml.MappingNode):
            mapping: dict[Any, Any] = {}
            for key_node, value_node in node.value:
                at = key_node.start_mark.line + 1
                key = self.plain(key_node, None)
                if isinstance(key, dict | list):
                    raise UsageError(f"{self.file}:{line}: a key must be a plain word")
                if key in mapping:
                    raise UsageError(f"{self.file}:{at}: duplicate key '{key}'")
                if place is not None:
                    self.lines[(*place, key)] = at
                mapping[key] = self.plain(value_node, None if place is None else (*place, key))
            return mapping
        if isinstance(node, yaml.SequenceNode):
            return [self.plain(n, None if place is None else (*place, i)) for i, n in enumerate(node.value)]
        value = Yaml12("").construct_object(node, deep=True)
        if isinstance(value, str):
            return re.sub(r"\$\{(\w+)(?::-([^}]*))?\}", lambda m: variable(m, f"{self.file}:{line}"), value)
        return value


def variable(match: re.Match[str], where: str) -> str:
    name, default = match.groups()
    value = os.environ.get(name, default)
    if value is None:
        raise UsageError(
            f"{where}: the environment variable {name} is not set (write ${{{name}:-default}} for a default)"
        )
    return value


MOST_MESSAGES = 3  # of what is wrong in a document, in one line


def checked(model: Any, document: Yaml, data: Any, place: tuple[Any, ...]) -> Any:
    """`data` as `model` (a pydantic model or a step class); raises `UsageError` naming line, path and allowed names."""
    adapter = options_of(model) if dataclasses.is_dataclass(model) else pydantic.TypeAdapter(model)
    try:
        return adapter.validate_python(data if data is not None else {})
    except pydantic.ValidationError as e:
        messages = [f"{document.at(*place, *located(err))}: {explained(err, adapter)}" for err in e.errors()]
        more = [f"and {len(messages) - MOST_MESSAGES} more"] if len(messages) > MOST_MESSAGES else []
        # Of a step the error's text would quote what was written.
        raise UsageError("; ".join([*messages[:MOST_MESSAGES], *more])) from None


def located(error: Mapping[str, Any]) -> tuple[Any, ...]:
    """The location of a pydantic error without the parts that are not keys of the document."""
    parts = [part for part in error["loc"] if not (isinstance(part, str) and part.startswith("function-"))]
    if "source" in parts:  # pydantic names the choice, the document does not
        tag = parts.index("source") + 1
        parts[tag : tag + 1] = [p for p in parts[tag : tag + 1] if p not in SOURCE_KINDS]
    return tuple(parts) + (("format",) if error["type"] == "union_tag_invalid" else ())


def explained(error: Mapping[str, Any], adapter: pydantic.TypeAdapter[Any]) -> str:
    kind, message = error["type"], error["msg"]
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        wrong = str(error["loc"][-1])
        allowed = allowed_names(adapter.json_schema(mode="validation"), error["loc"][:-1])
        return f"unknown option '{wrong}'{nearest(wrong, allowed)} (allowed: {', '.join(allowed)})"
    if kind in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return "this option is required" if isinstance(error["loc"][-1], str) else "an entry is missing here"
    if kind == "union_tag_not_found":
        written = difflib.get_close_matches("format", [str(k) for k in error["input"]], n=1)
        hint = f"; '{written[0]}' is no option — did you mean 'format'?" if written else ""
        return f"the option 'format' is required (one of {', '.join(SOURCE_KINDS)}){hint}"
    if kind == "union_tag_invalid":
        tag = str(error["ctx"]["tag"])
        return f"format '{tag}' is none of {', '.join(SOURCE_KINDS)}{nearest(tag, SOURCE_KINDS)}"
    told, given = expected(error), error.get("input")
    if SECRET_PLACES & set(map(str, error["loc"])):  # a value written here by mistake may be a secret
        return told
    if given is None and "'null'" in message:
        return f'{told}; YAML reads a bare null as no value: write "null" in quotes'
    hint = nearest(str(given), re.findall(r"'(\w+)'", message)) if kind == "literal_error" else ""
    return f"{told}, not {json.dumps(given, ensure_ascii=False, default=str)}{hint}"


# What pydantic says in Python's words, by the beginning of an error's type.
PLAIN = {
    **dict.fromkeys(("string_type", "string_sub"), "expected a text"),
    **dict.fromkeys(("tuple_type", "list_type", "set_type", "frozen_set_type", "iterable_type"), "expected a list"),
    **dict.fromkeys(("dict_type", "mapping_type", "model_", "dataclass_"), "expected a mapping (name: value)"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from"), "expected a whole number"),
    **dict.fromkeys(("float_type", "float_parsing", "decimal_type", "decimal_parsing"), "expected a number"),
    "finite_number": "expected a finite number (null for an open end)",
    **dict.fromkeys(("bool_type", "bool_parsing"), "expected true or false"),
    "none_required": "expected null",
}


def expected(error: Mapping[str, Any]) -> str:
    """What a pydantic error expects, in the words of a configuration."""
    kind, message, ctx = error["type"], error["msg"], error.get("ctx") or {}
    for begins, told in PLAIN.items():
        if kind.startswith(begins):
            return told
    if kind == "literal_error":
        return f"expected one of {ctx['expected']}"
    if kind in ("too_short", "too_long"):
        bound = f"at least {ctx['min_length']}" if kind == "too_short" else f"at most {ctx['max_length']}"
        return f"expected {bound} entries"
    message = message.replace("Input should", "it should").replace("String should", "it should")
    return message[0].lower() + message[1:]


def allowed_names(schema: Mapping[str, Any], place: Sequence[Any]) -> list[str]:
    """The option names that a JSON Schema allows at a place."""
    definitions = schema.get("$defs", {})

    def resolve(node: Mapping[str, Any]) -> Mapping[str, Any]:
        while "$ref" in node:
            node = definitions[node["$ref"].rsplit("/", 1)[1]]
        for choice in node.get("anyOf", ()):
            target = resolve(choice)
            if "properties" in target or "additionalProperties" in target or "discriminator" in target:
                return resolve(target)
        return node

    node = resolve(schema)
    for part in place:
        if "discriminator" in node:
            node = resolve({"$ref": node["discriminator"]["mapping"][part]})
            continue
        extra = node.get("additionalProperties")
        node = node.get("properties", {}).get(part) or (extra if isinstance(extra, dict) else node.get("items")) or {}
        node = resolve(node)
    return list(node.get("properties", {}))


def load_environment(name: str | None, pipeline: Path | None = None, **given: str | None) -> Environment:
    """Return the environment: `given` (options) before environment variables, the file, and the defaults.

    `HEADGATE_LAKE` and `HEADGATE_LANDING` are the variables. The file is `env/<name>.yaml` beside the pipeline, or
    else `conf/env/<name>.yaml`; without a name it is `local.yaml`, which may be absent.
    """
    if name is not None and not re.fullmatch(r"[\w-][\w.-]*", name):
        raise UsageError(f"--env: '{name}' is not a valid name; it stands for conf/env/NAME.yaml")
    folders = list(dict.fromkeys([*([pipeline.parent / "env"] if pipeline else []), Path("conf/env")]))
    files = [folder / f"{name or 'local'}.yaml" for folder in folders]
    file = next((f for f in files if f.is_file()), None)
    if file is None and name is not None:
        known = sorted({p.stem for folder in folders for p in folder.glob("*.yaml")})
        there = f" (environments: {', '.join(known)})" if known else ""
        places = " or ".join(map(str, files))
        raise UsageError(f"--env: there is no environment '{name}', no {places}{nearest(name, known)}{there}")
    environment = Environment()
    if file is not None:
        document = read_yaml(file)
        environment = checked(Environment, document, document.data, ())
    empty = next((option for option, value in given.items() if value == ""), None)
    if empty:
        raise UsageError(f"--{empty}: the value is empty")
    places_of = {n: given.get(n) or os.environ.get(f"HEADGATE_{n.upper()}") for n in ("lake", "landing")}
    return environment.model_copy(update={n: value for n, value in places_of.items() if value})


def load_pipeline(file: Path) -> Pipeline:
    """Read and check a pipeline in full; raises `UsageError` for the first thing that is wrong."""
    document = read_yaml(file)
    if document.data is None:
        raise UsageError(f"{file}: the file is empty")
    return check_pipeline(document)


def check_pipeline(document: Yaml, there: Mapping[str, list[str]] | None = None) -> Pipeline:
    """Check a pipeline in full; raises `UsageError` for the first thing that is wrong.

    there: columns that the document does not tell, by table: of tables that are in the lake, which may be read besides,
    and of the document's own whose files tell them.
    """
    there = there or {}
    read: PipelineFile = checked(PipelineFile, document, document.data, ())
    names = list(read.tables)
    readable = list(dict.fromkeys([*names, *there]))
    for name, table in read.tables.items():
        check_table(document, name, table, readable)
    steps = {name: build_steps(document, name, table) for name, table in read.tables.items()}
    folder = (document.file.parent / read.suites).resolve()
    suites = {name: suite_of(document, name, table, folder) for name, table in read.tables.items()}
    code = {name: code_of(document, name, table) for name, table in read.tables.items()}
    pipeline = Pipeline(name=read.pipeline, tables=read.tables, steps=steps, suites=suites, code=code)
    for name in names:
        for joined in pipeline.inputs(name):
            if joined not in readable:
                hint = nearest(joined, readable)
                raise UsageError(f"{document.at('tables', name)}: there is no table '{joined}'{hint}")
    try:
        order = pipeline.order
    except graphlib.CycleError as e:
        raise UsageError(f"{document.at('tables')}: circular dependency: {' -> '.join(e.args[1])}") from e
    known: dict[str, list[str] | None] = {name: list(columns) for name, columns in there.items()}
    types: dict[str, Types] = {}
    for name in order:
        known[name] = follow_columns(document, name, pipeline, known, types) or known.get(name)
    return pipeline


def check_table(document: Yaml, name: str, table: Table, names: Sequence[str]) -> None:
    here = ("tables", name)
    if not re.match(TABLE_NAME, name):
        raise UsageError(f"{document.at(*here)}: a table is named by lower-case letters, digits and _, not '{name}'")
    if name in SYSTEM_TABLES:
        raise UsageError(f"{document.at(*here)}: '{name}' is a system table; choose another name")
    if (table.source is None) == (table.from_ is None):
        raise UsageError(f"{document.at(*here)}: give exactly one of source and from")
    if table.from_ is not None and table.from_ not in names:
        hint = nearest(table.from_, names)
        raise UsageError(f"{document.at(*here, 'from')}: there is no table '{table.from_}'{hint}")
    if (table.publish.mode == "merge") != bool(table.publish.key):
        raise UsageError(f"{document.at(*here, 'publish')}: key goes with mode merge, and merge needs it")
    if table.from_ is not None and table.publish.mode == "append":
        raise UsageError(
            f"{document.at(*here, 'publish', 'mode')}: append would add the whole result again at every build; use "
            "increment, which adds what the new rows of its input give, or merge with a key"
        )
    for i, entry in enumerate(table.steps):
        step = STEPS.get(str(next(iter(entry), "")))
        at = document.at(*here, "steps", i)
        if step is not None and step.apply is Comparer.apply and table.source is not None:
            raise UsageError(
                f"{at}: '{step.name}' compares all rows; put it into a table of its own, with from: {name}"
            )
        if step is not None and step.needs_all and table.publish.mode == "increment":
            raise UsageError(
                f"{at}: '{step.name}' looks at all rows, so the table cannot grow by publish.mode increment"
            )
    if table.source is not None:
        check_source(document, (*here, "source"), table.source)
        if table.publish != Publish():
            raise UsageError(f"{document.at(*here, 'publish')}: a table with a source appends; leave publish out")


def check_source(document: Yaml, place: tuple[Any, ...], source: Source) -> None:
    """Refuse what the options of a source say together but not each alone."""

    def wrong(option: str, why: str) -> UsageError:
        return UsageError(f"{document.at(*place, option)}: {why}")

    columns = getattr(source, "columns", None)
    typed = ddl_columns(columns, document.at(*place, "schema")) if columns else []
    present = [n for n, _ in typed] if columns else None
    own = next(filter(is_own, present or ()), None)
    if own is not None:
        raise wrong("schema", f"the name '{own}' is headgate's own; names that start with '{OWN}' are, too")
    for column, kind in typed:
        word = re.split(r"[^A-Za-z_]", kind.upper())[0]
        if word not in TYPES:
            raise wrong("schema", f"column '{column}': there is no type '{kind}'{nearest(word, TYPES)}")
    named = [("key", column) for column in source.key]
    if isinstance(source, FileSource):
        if source.format in ("csv", "jsonl") and not columns:
            raise wrong("schema", f"schema is required for {source.format}")
        if ".." in Path(source.path).parts or source.path.startswith("/"):
            raise wrong("path", "a path may not leave the landing folder: no '..' in it, no '/' before it")
        try:
            if not codecs.lookup(source.encoding)._is_text_encoding:
                raise LookupError
        except LookupError as e:
            hint = nearest(source.encoding, CHARSETS)
            raise wrong("encoding", f"there is no encoding '{source.encoding}'{hint}") from e
        check_marks(source, wrong)
    else:
        if source.watermark:
            named.append(("watermark", source.watermark))
        elif source.look_back != "0":
            raise wrong("look_back", "look_back goes with a watermark")
        if not re.fullmatch(r"\d+(\.\d+)?|\d+ (second|minute|hour|day|week)s?", source.look_back):
            raise wrong("look_back", f"'{source.look_back}' is neither a number nor a time such as '2 days'")
    if isinstance(source, JdbcSource):
        if (source.table is None) == (source.query is None):
            raise wrong("table", "give exactly one of table and query")
        if re.search(r"(?i)password=|//[^/@]*:[^/@]*@", source.url):
            raise wrong("url", "a URL may not hold a password; name where it is found by password")
    for option, column in named:
        if present is not None and column not in present:
            raise wrong(option, f"there is no column '{column}'{nearest(column, present)}")


def check_marks(source: FileSource, wrong: Callable[[str, str], UsageError]) -> None:
    """Refuse characters of a text format that cannot be told from each other."""
    marks = {"delimiter": source.delimiter, "quote": source.quote, "escape": source.escape}
    for option, mark in marks.items():
        if mark and (not mark.isascii() or mark in "\r\n\0"):
            raise wrong(option, f"{mark!r} is not one ASCII character other than a line end")
    for option, pattern, time in (
        ("date_format", source.date_format, False),
        ("timestamp_format", source.timestamp_format, True),
    ):
        try:
            check_pattern(option, pattern, time)
        except StepError as e:
            raise wrong(option, str(e)) from e
    if source.quote == source.delimiter:
        raise wrong("quote", "quote and delimiter are the same character")
    if source.escape and source.escape == source.delimiter:
        raise wrong("escape", "escape and delimiter are the same character")
    if source.thousands and source.thousands == source.decimal:
        raise wrong("thousands", "thousands and decimal are the same mark")
    for option, mark in (("decimal", source.decimal), ("thousands", source.thousands)):
        if mark and (mark.isalnum() or mark in "+-"):
            raise wrong(option, f"{mark!r} cannot be told from a number")


def code_of(document: Yaml, name: str, table: Table) -> str | None:
    """The text of the file of a source's Python function."""
    if not isinstance(table.source, PythonSource):
        return None
    where = document.at("tables", name, "source", "function")
    path, _, function = table.source.function.partition(":")
    file = document.file.parent / path
    try:
        text = file.read_text(encoding="utf-8")
        functions = [node.name for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    except (OSError, UnicodeDecodeError, SyntaxError) as e:
        raise UsageError(f"{where}: {file} cannot be read: {e}") from e
    if function not in functions:
        raise UsageError(f"{where}: {file} has no function '{function}'{nearest(function, functions)}")
    return text


def build_steps(document: Yaml, name: str, table: Table) -> tuple[Step, ...]:
    steps = []
    for i, entry in enumerate(table.steps):
        here = ("tables", name, "steps", i)
        if len(entry) != 1:
            raise UsageError(f"{document.at(*here)}: a step is written as one name and its options")
        (step, options), *_ = entry.items()
        if step not in STEPS:
            raise UsageError(f"{document.at(*here, step)}: there is no step '{step}'{nearest(str(step), STEPS)}")
        made = checked(STEPS[step], document, options, (*here, step))
        if isinstance(made, DropDuplicates) and "nulls" not in options and set(made.columns) == set(table.publish.key):
            made = dataclasses.replace(made, nulls="equal")  # a merge takes the null of its key for one value
        steps.append(made)
    makers = [i for i, step in enumerate(steps) if hasattr(step, "made_in")]
    for number, i in enumerate(makers, 1):
        steps[i] = dataclasses.replace(steps[i], made_in=f"{name}.{number}")
    return tuple(steps)


def suite_of(document: Yaml, name: str, table: Table, folder: Path) -> Suite | None:
    if table.suite is None:
        return None
    try:
        file = folder / f"{table.suite}.yaml"
        if not file.is_file():
            hint = nearest(table.suite, [p.stem for p in folder.glob("*.yaml")])
            raise SuiteError(f"{folder.name}/{table.suite}.yaml: there is no such suite{hint}")
        suite_document = read_yaml(file)
        return load_suite(suite_document.data, lambda *place: suite_document.at(*place))
    except SuiteError as e:
        raise UsageError(f"{e} (suite of table '{name}', {document.at('tables', name, 'suite')})") from e


def follow_columns(
    document: Yaml, name: str, pipeline: Pipeline, known: Mapping[str, list[str] | None], types: dict[str, Types]
) -> list[str] | None:
    """The published columns of a table as far as they can be known without Spark (None: only Spark can tell).

    types: of each table before it, and then of this one, the types that are known.
    """
    table = pipeline.tables[name]
    mine: Types = types.get(str(table.from_), {})
    if table.source is not None:
        columns = getattr(table.source, "columns", None)
        if columns is None:
            check_rules(name, pipeline.suites[name], None)
            return None
        mine = dict(ddl_columns(columns, document.at("tables", name, "source", "schema")))
        have = [*mine, FILE, FILE_DATE]
    else:
        start = known[str(table.from_)]
        if start is None or any(known[t] is None for t in pipeline.inputs(name)):
            check_rules(name, pipeline.suites[name], None)
            return None
        have = list(start)
    others = {t: columns for t, columns in known.items() if columns is not None}
    for i, (step, entry) in enumerate(zip(pipeline.steps[name], table.steps, strict=True)):
        try:
            check_split(step, have, pipeline.splits(name, i))
            have = columns_after(step, have, others)
            step.check_types(mine, types)
            mine = step.types_after(mine, types)
        except StepError as e:
            raise UsageError(f"{document.at('tables', name, 'steps', i, next(iter(entry)))}: {e}") from e
    if table.source is None:
        have = [c for c in have if c not in (FILE, FILE_DATE)]
    types[name] = mine
    unwritable = next((c for c in have if set(c) & set(UNWRITABLE)), None)
    if unwritable is not None:
        raise UsageError(f"{document.at('tables', name)}: the column {unwritable!r} {NOT_WRITABLE}")
    for option, columns in (("key", table.publish.key), ("sort_by", table.publish.sort_by)):
        for column in columns:
            if column not in have:
                where = document.at("tables", name, "publish", option)
                raise UsageError(f"{where}: there is no column '{column}'{nearest(column, have)}")
    check_rules(name, pipeline.suites[name], have)
    return have


def check_rules(table: str, suite: Suite | None, have: Sequence[str] | None) -> None:
    """Refuse rules that name a column which is not there, or whose SQL is not that of a row; all of them at once.

    have: the columns, where they are known without Spark.
    """
    wrong = []
    for rule in suite.rules if suite else ():
        for column in rule.columns:
            if have is not None and column not in have and not is_own(column):
                wrong.append(f"{rule.where}: table '{table}' has no column '{column}'{nearest(column, have)}")
        for option, sql in rule.expressions.items():
            try:
                checked_expression(sql, have)
            except StepError as e:
                wrong.append(f"{rule.where}: kwargs.{option}: {e}")
    if wrong:
        raise UsageError("\n".join(wrong))


def ddl_columns(ddl: str, where: str) -> list[tuple[str, str]]:
    """(name, type) of each column of a Spark DDL text such as 'id BIGINT, tags ARRAY<STRING>'."""
    parts, depth, start, inside = [], 0, 0, ""  # inside: the quote of a name or a comment that is open
    for i, char in enumerate(ddl):
        if char in "`'" and inside in ("", char):
            inside = "" if inside else char
        if inside:
            continue
        depth += (char in "<(") - (char in ">)")
        if char == "," and depth == 0:
            parts.append(ddl[start:i])
            start = i + 1
    columns = []
    for part in (*parts, ddl[start:]):
        match = re.match(r"\s*(`(?:[^`]|``)+`|\w+)\s*:?\s+(\S.*?)\s*$", part, re.DOTALL)
        if not match:
            raise UsageError(f"{where}: '{part.strip()}' is not 'name TYPE'")
        name = match[1]
        kind = re.sub(r"(?is)(\s+NOT\s+NULL|\s+COMMENT\s+'(?:[^'\\]|\\.)*')+$", "", match[2])
        columns.append((name[1:-1].replace("``", "`") if name.startswith("`") else name, kind))
    names = [n.lower() for n, _ in columns]
    repeated = [n for n in names if names.count(n) > 1]
    if repeated:
        raise UsageError(f"{where}: the column '{repeated[0]}' stands twice")
    return columns


def parse_date(text: str, option: str = "--as-of") -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as e:
        raise UsageError(f"{option}: '{text}' is not a day like 2013-01-31") from e


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a pipeline file, with the options of every step."""
    schema = PipelineFile.model_json_schema(by_alias=True)
    definitions = schema.setdefault("$defs", {})
    choices = []
    for name, step in STEPS.items():
        options = options_of(step).json_schema(ref_template="#/$defs/{model}")
        definitions |= options.pop("$defs", {})
        definitions[f"step_{name}"] = options
        choices.append(
            {
                "type": "object",
                "properties": {name: {"$ref": f"#/$defs/step_{name}"}},
                "required": [name],
                "additionalProperties": False,
            }
        )
    definitions["Table"]["properties"]["steps"]["items"] = {"oneOf": choices}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
