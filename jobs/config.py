"""Configuration: YAML read with line numbers, checked in full before Spark starts."""

import dataclasses
import graphlib
import os
import re
from collections.abc import Mapping, Sequence
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pydantic
import yaml

from expectations.suites import Suite, SuiteError, load_suite
from jobs.errors import UsageError
from transforms.rows import FILE, FILE_DATE, SPLIT
from transforms.step import Learner, Step, StepError, nearest
from transforms.steps import STEPS, options_of

TABLE_NAME = r"^[a-z][a-z0-9_]*$"
DATE_PLACE = "{date}"


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Source(Model):
    """Files that land for a table: each is taken up exactly once."""

    format: Literal["csv", "jsonl", "parquet", "delta"]
    path: str = pydantic.Field(
        description="Pattern below the landing folder, such as 'flights/{date}.csv'; '*' matches within a name, "
        "{date} a day as 2013-01-31. For delta: the folder of the table."
    )
    columns: str | None = pydantic.Field(
        default=None, alias="schema", description="Columns as Spark DDL, in the files' order; required for csv, jsonl"
    )
    key: tuple[str, ...] = pydantic.Field(
        default=(), description="Columns that identify a record; without them its whole content does"
    )
    delimiter: str = pydantic.Field(default=",", min_length=1, max_length=1, description="Of csv")
    null_value: str = pydantic.Field(default="", description="The text of csv that means null")
    on_changed_file: Literal["refuse", "replace"] = pydantic.Field(
        default="refuse", description="When a file taken up before has other content now: stop, or replace its rows"
    )


class Publish(Model):
    """How the gated rows reach the table."""

    mode: Literal["replace", "append", "merge"] = "replace"
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
        default=365, ge=1, description="How long a table's old versions stay readable; set when the table is created"
    )
    spark: dict[str, str] = pydantic.Field(default_factory=dict, description="Spark settings")
    secrets: dict[str, "SecretReference"] = pydantic.Field(
        default_factory=dict, description="Spark setting -> where its secret value is found at start; never the value"
    )

    def spark_settings(self) -> dict[str, str]:
        return dict(self.spark) | {name: reference.read(name) for name, reference in self.secrets.items()}


class SecretReference(Model):
    """A secret by reference: the name of an environment variable, or of a file."""

    env: str | None = None
    file: str | None = None

    def read(self, name: str) -> str:
        if (self.env is None) == (self.file is None):
            raise UsageError(f"secrets.{name}: give exactly one of env and file")
        if self.env is not None:
            if self.env not in os.environ:
                raise UsageError(f"secrets.{name}: the environment variable {self.env} is not set")
            return os.environ[self.env]
        try:
            return Path(self.file or "").read_text().strip()
        except OSError as e:
            raise UsageError(f"secrets.{name}: cannot read {self.file}: {e.strerror}") from None


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

    @cached_property
    def order(self) -> list[str]:
        """Table names, each after the tables that it reads."""
        return list(graphlib.TopologicalSorter({t: sorted(self.inputs(t)) for t in self.tables}).static_order())

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
            if table not in wanted:
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
        messages = [f"{document.at(*place, *located(err['loc']))}: {explained(err, adapter)}" for err in e.errors()]
        raise UsageError("\n".join(messages)) from None


def located(loc: Sequence[Any]) -> tuple[Any, ...]:
    """A pydantic location without the parts that are not keys of the document."""
    return tuple(part for part in loc if not (isinstance(part, str) and part.startswith("function-")))


def explained(error: Mapping[str, Any], adapter: pydantic.TypeAdapter[Any]) -> str:
    kind, message = error["type"], error["msg"]
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        wrong = str(error["loc"][-1])
        allowed = allowed_names(adapter.json_schema(mode="validation"), error["loc"][:-1])
        return f"unknown option '{wrong}'{nearest(wrong, allowed)} (allowed: {', '.join(allowed)})"
    if kind in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return "this option is required"
    return f"{message[0].lower()}{message[1:]}, not {error.get('input')!r}"


def allowed_names(schema: Mapping[str, Any], place: Sequence[Any]) -> list[str]:
    """The option names that a JSON Schema allows at a place."""
    definitions = schema.get("$defs", {})

    def resolve(node: Mapping[str, Any]) -> Mapping[str, Any]:
        while "$ref" in node:
            node = definitions[node["$ref"].rsplit("/", 1)[1]]
        for choice in node.get("anyOf", ()):
            target = resolve(choice)
            if "properties" in target or "additionalProperties" in target:
                return target
        return node

    node = resolve(schema)
    for part in place:
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
    pipeline = Pipeline(name=read.pipeline, tables=read.tables, steps=steps, suites=suites)
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
    if (table.source is None) == (table.from_ is None):
        raise UsageError(f"{document.at(*here)}: give exactly one of source and from")
    if table.from_ is not None and table.from_ not in names:
        hint = nearest(table.from_, names)
        raise UsageError(f"{document.at(*here, 'from')}: there is no table '{table.from_}'{hint}")
    if (table.publish.mode == "merge") != bool(table.publish.key):
        raise UsageError(f"{document.at(*here, 'publish')}: key goes with mode merge, and merge needs it")
    if table.source is not None:
        source, place = table.source, (*here, "source")
        if source.format in ("csv", "jsonl") and not source.columns:
            raise UsageError(f"{document.at(*place)}: schema is required for {source.format}")
        if ".." in Path(source.path).parts:
            raise UsageError(f"{document.at(*place, 'path')}: a path may not leave the landing folder by '..'")
        if source.columns:
            present = [n for n, _ in ddl_columns(source.columns, document.at(*place, "schema"))]
            for key in source.key:
                if key not in present:
                    hint = nearest(key, present)
                    raise UsageError(f"{document.at(*place, 'key')}: there is no column '{key}'{hint}")
        if table.publish != Publish():
            raise UsageError(f"{document.at(*here, 'publish')}: a table with a source appends; leave publish out")


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
        if table.source.columns is None:
            return None
        have = [n for n, _ in ddl_columns(table.source.columns, document.at("tables", name, "source", "schema"))]
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
    for option, columns in (("key", table.publish.key), ("sort_by", table.publish.sort_by)):
        for column in columns:
            if column not in have:
                where = document.at("tables", name, "publish", option)
                raise UsageError(f"{where}: there is no column '{column}'{nearest(column, have)}")
    suite = pipeline.suites[name]
    for rule in suite.rules if suite else ():
        for column in rule.columns:
            if column not in have and not column.startswith("_"):
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
