"""Configuration: YAML read with line numbers, checked in full before Spark starts."""

import ast
import codecs
import dataclasses
import difflib
import graphlib
import os
import re
from collections.abc import Mapping, Sequence
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml

from expectations.suites import Suite, SuiteError, load_suite
from jobs.errors import UsageError
from jobs.lake import SYSTEM_TABLES, TABLE_NAME
from transforms.rows import FILE, FILE_DATE, SPLIT, is_own
from transforms.step import Comparer, Learner, Step, StepError, nearest
from transforms.steps import STEPS, options_of

DATE_PLACE = "{date}"
UNWRITABLE = " ,;{}()\n\t="  # in names of columns that are published


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class SecretReference(Model):
    """A secret by reference: the name of an environment variable, or of a file."""

    env: str | None = None
    file: str | None = None

    def read(self, name: str) -> str:
        if (self.env is None) == (self.file is None):
            raise UsageError(f"{name}: give exactly one of env and file")
        if self.env is not None:
            if self.env not in os.environ:
                raise UsageError(f"{name}: the environment variable {self.env} is not set")
            return os.environ[self.env]
        try:
            return Path(self.file or "").read_text().strip()
        except OSError as e:
            raise UsageError(f"{name}: cannot read {self.file}: {e.strerror}") from None


KEY = pydantic.Field(default=(), description="Columns that identify a record; without them its whole content does")


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
    key: tuple[str, ...] = KEY
    delimiter: str = pydantic.Field(default=",", min_length=1, max_length=1, description="Of csv")
    null_value: str = pydantic.Field(default="", description="The text of csv that means null")
    encoding: str = pydantic.Field(default="utf-8", description="Of csv and jsonl: the character set, by its name")
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
    watermark: str | None = pydantic.Field(
        default=None,
        description="Column that grows with every change (a time or a number): only rows beyond its highest value so "
        "far are asked for. Without it, every night takes the whole and replaces the table where it differs",
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


SOURCE_KINDS = ("csv", "jsonl", "parquet", "avro", "delta", "jdbc", "http", "python")
SECRET_PLACES = {"user", "password", "headers", "params", "secrets", "url"}
PULLED = (JdbcSource, HttpSource, PythonSource)
Source = Annotated[FileSource | JdbcSource | HttpSource | PythonSource, pydantic.Field(discriminator="format")]


class Publish(Model):
    """How the gated rows reach the table."""

    mode: Literal["replace", "increment", "append", "merge"] = pydantic.Field(
        default="replace",
        description="increment: where the table that it starts from only gained rows, these alone are built and added",
    )
    key: tuple[str, ...] = pydantic.Field(default=(), description="Of merge: columns that are unique in the table")
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
    """Read a YAML file, putting environment variables for `${NAME}` and `${NAME:-default}`."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        folder = file.parent if file.parent.is_dir() else Path()
        hint = nearest(file.name, [p.name for p in folder.glob("*.y*ml")])
        raise UsageError(f"{file}: there is no such file{hint}") from None
    except (OSError, UnicodeDecodeError) as e:
        raise UsageError(f"{file}: cannot be read: {e}") from None
    lines: dict[tuple[Any, ...], int] = {}
    try:
        root = yaml.compose(text, Loader=Yaml12)
        data = plain(root, (), lines, file) if root is not None else None
    except yaml.MarkedYAMLError as e:
        line = f":{e.problem_mark.line + 1}" if e.problem_mark else ""
        raise UsageError(f"{file}{line}: not valid YAML: {e.problem}") from None
    return Yaml(file, data, lines)


def plain(node: yaml.Node, place: tuple[Any, ...], lines: dict[tuple[Any, ...], int], file: Path) -> Any:
    """The value of a YAML node, noting the line of every place below it."""
    line = node.start_mark.line + 1
    lines.setdefault(place, line)
    if isinstance(node, yaml.MappingNode):
        mapping: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = plain(key_node, (*place, "?"), {}, file)
            if isinstance(key, dict | list):
                raise UsageError(f"{file}:{line}: a key must be a plain word")
            if key in mapping:
                raise UsageError(f"{file}:{key_node.start_mark.line + 1}: the key '{key}' stands twice")
            lines[(*place, key)] = key_node.start_mark.line + 1
            mapping[key] = plain(value_node, (*place, key), lines, file)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [plain(item, (*place, i), lines, file) for i, item in enumerate(node.value)]
    value = Yaml12("").construct_object(node, deep=True)
    if isinstance(value, str):
        return re.sub(r"\$\{(\w+)(?::-([^}]*))?\}", lambda m: variable(m, f"{file}:{line}"), value)
    return value


def variable(match: re.Match[str], where: str) -> str:
    name, default = match.groups()
    value = os.environ.get(name, default)
    if value is None:
        raise UsageError(
            f"{where}: the environment variable {name} is not set (write ${{{name}:-default}} for a default)"
        )
    return value


def checked(model: Any, document: Yaml, data: Any, place: tuple[Any, ...]) -> Any:
    """`data` as `model` (a pydantic model or a step class); raises `UsageError` naming line, path and allowed names."""
    adapter = options_of(model) if dataclasses.is_dataclass(model) else pydantic.TypeAdapter(model)
    try:
        return adapter.validate_python(data if data is not None else {})
    except pydantic.ValidationError as e:
        messages = [f"{document.at(*place, *located(err))}: {explained(err, adapter)}" for err in e.errors()]
        raise UsageError("\n".join(messages)) from None


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
        return "this option is required"
    if kind == "union_tag_not_found":
        written = difflib.get_close_matches("format", [str(k) for k in error["input"]], n=1)
        hint = f"; '{written[0]}' is no option — did you mean 'format'?" if written else ""
        return f"the option 'format' is required (one of {', '.join(SOURCE_KINDS)}){hint}"
    if kind == "union_tag_invalid":
        tag = str(error["ctx"]["tag"])
        return f"format '{tag}' is none of {', '.join(SOURCE_KINDS)}{nearest(tag, SOURCE_KINDS)}"
    if SECRET_PLACES & set(map(str, error["loc"])):  # a value written here by mistake may be a secret
        return message[0].lower() + message[1:]
    return f"{message[0].lower()}{message[1:]}, not {error.get('input')!r}"


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


def load_environment(pipeline: Path, name: str | None) -> Environment:
    """`env/<name>.yaml` beside the pipeline; `local` may be absent and has defaults."""
    file = pipeline.parent / "env" / f"{name or 'local'}.yaml"
    if name is None and not file.is_file():
        return Environment()
    document = read_yaml(file)
    return checked(Environment, document, document.data, ())


def load_pipeline(file: Path) -> Pipeline:
    """Read and check a pipeline in full; raises `UsageError` for the first thing that is wrong."""
    document = read_yaml(file)
    read: PipelineFile = checked(PipelineFile, document, document.data, ())
    names = list(read.tables)
    for name, table in read.tables.items():
        check_table(document, name, table, names)
    steps = {name: build_steps(document, name, table) for name, table in read.tables.items()}
    folder = (file.parent / read.suites).resolve()
    suites = {name: suite_of(document, name, table, folder) for name, table in read.tables.items()}
    code = {name: code_of(document, name, table) for name, table in read.tables.items()}
    pipeline = Pipeline(name=read.pipeline, tables=read.tables, steps=steps, suites=suites, code=code)
    for name in names:
        for joined in pipeline.inputs(name):
            if joined not in names:
                raise UsageError(f"{document.at('tables', name)}: there is no table '{joined}'{nearest(joined, names)}")
    try:
        order = pipeline.order
    except graphlib.CycleError as e:
        raise UsageError(
            f"{document.at('tables')}: tables read each other in a circle: {' -> '.join(e.args[1])}"
        ) from None
    known: dict[str, list[str] | None] = {}
    for name in order:
        known[name] = follow_columns(document, name, pipeline, known)
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
    present = [n for n, _ in ddl_columns(columns, document.at(*place, "schema"))] if columns else None
    named = [("key", column) for column in source.key]
    if isinstance(source, FileSource):
        if source.format in ("csv", "jsonl") and not columns:
            raise wrong("schema", f"schema is required for {source.format}")
        if ".." in Path(source.path).parts or source.path.startswith("/"):
            raise wrong("path", "a path may not leave the landing folder: no '..' in it, no '/' before it")
        try:
            codecs.lookup(source.encoding)
        except LookupError:
            raise wrong("encoding", f"there is no encoding '{source.encoding}'") from None
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
        raise UsageError(f"{where}: {file} cannot be read: {e}") from None
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
        steps.append(checked(STEPS[step], document, options, (*here, step)))
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
        raise UsageError(f"{e} (suite of table '{name}', {document.at('tables', name, 'suite')})") from None


def follow_columns(
    document: Yaml, name: str, pipeline: Pipeline, known: Mapping[str, list[str] | None]
) -> list[str] | None:
    """The published columns of a table as far as they can be known without Spark (None: only Spark can tell)."""
    table = pipeline.tables[name]
    if table.source is not None:
        columns = getattr(table.source, "columns", None)
        if columns is None:
            return None
        have = [n for n, _ in ddl_columns(columns, document.at("tables", name, "source", "schema"))]
        have += [FILE, FILE_DATE]
    else:
        start = known[str(table.from_)]
        if start is None or any(known[t] is None for t in pipeline.inputs(name)):
            return None
        have = list(start)
    others = {t: columns for t, columns in known.items() if columns is not None}
    for i, (step, entry) in enumerate(zip(pipeline.steps[name], table.steps, strict=True)):
        try:
            have = step.names_after(have, others)
        except StepError as e:
            raise UsageError(f"{document.at('tables', name, 'steps', i, next(iter(entry)))}: {e}") from None
        if isinstance(step, Learner) and SPLIT not in have and type(step).__name__ == "SampleStrata":
            where = document.at("tables", name, "steps", i)
            raise UsageError(f"{where}: resampling touches training rows only; put split_by_hash before it")
    if table.source is None:
        have = [c for c in have if c not in (FILE, FILE_DATE)]
    unwritable = next((c for c in have if set(c) & set(UNWRITABLE)), None)
    if unwritable is not None:
        raise UsageError(
            f"{document.at('tables', name)}: the column '{unwritable}' cannot be published: Delta allows none of "
            "space , ; { } ( ) = and line breaks in a name. Put a rename step for it"
        )
    for option, columns in (("key", table.publish.key), ("sort_by", table.publish.sort_by)):
        for column in columns:
            if column not in have:
                where = document.at("tables", name, "publish", option)
                raise UsageError(f"{where}: there is no column '{column}'{nearest(column, have)}")
    suite = pipeline.suites[name]
    for rule in suite.rules if suite else ():
        for column in rule.columns:
            if column not in have and not is_own(column):
                hint = nearest(column, have)
                raise UsageError(f"{rule.where}: table '{name}' has no column '{column}'{hint}")
    return have


def ddl_columns(ddl: str, where: str) -> list[tuple[str, str]]:
    """(name, type) of each column of a Spark DDL text such as 'id BIGINT, tags ARRAY<STRING>'."""
    parts, depth, start, inside_name = [], 0, 0, False
    for i, char in enumerate(ddl):
        inside_name ^= char == "`"
        if inside_name:
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
        columns.append((name[1:-1].replace("``", "`") if name.startswith("`") else name, match[2]))
    names = [n.lower() for n, _ in columns]
    repeated = [n for n in names if names.count(n) > 1]
    if repeated:
        raise UsageError(f"{where}: the column '{repeated[0]}' stands twice")
    return columns


def parse_date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--as-of: '{text}' is not a day like 2013-01-31") from None


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
