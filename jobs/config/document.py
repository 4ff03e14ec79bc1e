"""YAML read with line numbers, and its values checked against a model."""

import contextlib
import dataclasses
import difflib
import functools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pydantic
import yaml

from headgate.jobs.config.models import SECRET_PLACES, SOURCE_KINDS
from headgate.jobs.errors import UsageError
from headgate.transforms.features.aggregate import Aggregate
from headgate.transforms.fusion.join import JoinTable
from headgate.transforms.step import Step
from headgate.transforms.steps import STEPS, options_of
from headgate.words import did_you_mean


@dataclasses.dataclass(frozen=True)
class Yaml:
    """A YAML document and the line of each of its places."""

    file: Path
    data: Any
    lines: Mapping[tuple[Any, ...], int]

    def at(self, *place: Any) -> str:
        """Return `file:line: path.of[0].keys` of a place, as error messages name it."""
        known = place
        while known and known not in self.lines:
            known = known[:-1]
        line = f":{self.lines[known]}" if known in self.lines else ""
        path = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in place).lstrip(".")
        return f"{self.file}{line}: {path}" if path else f"{self.file}{line}"


MANY = 20  # problems, beyond which a last line counts them


class Complaints:
    """Collect the problems of some files, so that one run reports them all.

    `with Complaints() as complaints:` raises one `UsageError` at its end, a line for each problem, by file and line;
    inside it, `with complaints.collecting():` goes on after a check that fails.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []

    def __bool__(self) -> bool:
        return bool(self.problems)

    def __enter__(self) -> "Complaints":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, UsageError):
            self.add(error)
        if self.problems and (error is None or isinstance(error, UsageError)):
            raise UsageError(self.text()) from (error and error.__cause__)

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """Note the `UsageError` of a block, and go on after it."""
        try:
            yield
        except UsageError as e:
            self.add(e)

    def add(self, error: Exception) -> None:
        self.problems.extend(str(error).splitlines())

    def text(self) -> str:
        """Return the problems, each once, by file in the order of appearance and by line."""
        once = list(dict.fromkeys(self.problems))
        places = {problem: place_of(problem) for problem in once}
        files = list(dict.fromkeys(file for file, _ in places.values()))
        once.sort(key=lambda problem: (files.index(places[problem][0]), places[problem][1]))
        return "\n".join([*once, *([f"{len(once):,} problems"] if len(once) > MANY else [])])


def place_of(problem: str) -> tuple[str, int]:
    """Return file and line of a message that starts with `file:line: `, the line 0 where it has none."""
    found = re.match(r"(.*?):(?:(\d+):)? ", problem)
    return (found[1], int(found[2] or 0)) if found else ("", 0)


class Yaml12(yaml.SafeLoader):
    """YAML with the core schema of YAML 1.2: `on` and 12:30 are texts, 010 is ten, 1e3 is a number."""

    yaml_implicit_resolvers: dict[str, Any] = {}


for tag, pattern, first in (
    ("null", r"(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"(?:[-+]?[0-9][0-9_]*|0o[0-7]+|0x[0-9a-fA-F]+)$", list("-+0123456789")),
    (
        "float",
        r"(?:[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        list("-+.0123456789"),
    ),
    ("merge", r"<<$", ["<"]),  # refused by name
):
    Yaml12.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), first)


def whole_number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = node.value.replace("_", "")
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


Yaml12.add_constructor("tag:yaml.org,2002:int", whole_number)
Yaml12.add_constructor("tag:yaml.org,2002:timestamp", lambda loader, node: node.value)


def read_yaml(file: Path) -> Yaml:
    """Read a YAML file that holds a mapping, with environment variables for `${NAME}` and `${NAME:-default}`.

    Raises `UsageError`: for the first error of syntax, or for all repeated keys and missing variables.
    """
    lines: dict[tuple[Any, ...], int] = {}
    try:
        text = file.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=Yaml12)
        with Complaints() as complaints:
            data = Reading(file, lines, complaints).plain(root, ()) if root is not None else None
    except FileNotFoundError as e:
        folder = file.parent if file.parent.is_dir() else Path()
        hint = did_you_mean(file.name, [p.name for p in folder.glob("*.y*ml")])
        raise UsageError(f"{file}: there is no such file{hint}") from e
    except OSError as e:
        raise UsageError(f"{file}: cannot be read: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise UsageError(f"{file}: not a text file in UTF-8 (byte {e.start:,})") from e
    except yaml.reader.ReaderError as e:
        number = text.count("\n", 0, e.position) + 1
        raise UsageError(f"{file}:{number}: not valid YAML: invalid character U+{e.character:04X}") from e
    except yaml.MarkedYAMLError as e:
        line = f":{e.problem_mark.line + 1}" if e.problem_mark else ""
        raise UsageError(f"{file}{line}: not valid YAML: {e.problem}") from None  # the error quotes the file
    except RecursionError as e:
        raise UsageError(f"{file}: not valid YAML: nested too deeply") from e
    except (ValueError, LookupError, OverflowError) as e:  # an escaped character that does not exist
        raise UsageError(f"{file}: not valid YAML: it holds a value that cannot be read") from e
    if not isinstance(data, dict | None):
        kind = "list" if isinstance(data, list) else "single value"
        raise UsageError(f"{file}: expected options as 'name: value', not a {kind}")
    return Yaml(file, data, lines)


MOST_NODES = 100_000  # of a document, each alias counted as what it stands for


@dataclasses.dataclass
class Reading:
    """Make plain values of a YAML document, noting the line of every place."""

    file: Path
    lines: dict[tuple[Any, ...], int]
    complaints: Complaints
    nodes: int = 0
    above: list[yaml.Node] = dataclasses.field(default_factory=list)

    def plain(self, node: yaml.Node, place: tuple[Any, ...] | None) -> Any:
        """Return the value of a node; `place`: its path in the document, None inside a key."""
        line = node.start_mark.line + 1
        self.nodes += 1
        if self.nodes > MOST_NODES:
            raise UsageError(f"{self.file}:{line}: more than {MOST_NODES:,} values, each alias (*) counted in full")
        if any(node is other for other in self.above):
            raise UsageError(f"{self.file}:{line}: circular alias: an alias (*) inside the value that it refers to")
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
                if key_node.tag == "tag:yaml.org,2002:merge":
                    raise UsageError(f"{self.file}:{at}: YAML 1.2 has no merge key '<<'; write the keys out")
                key = self.plain(key_node, None)
                if isinstance(key, dict | list):
                    raise UsageError(f"{self.file}:{line}: a key must be a plain word")
                if key in mapping:
                    self.complaints.add(UsageError(f"{self.file}:{at}: duplicate key '{key}'"))
                    continue
                if place is not None:
                    self.lines[(*place, key)] = at
                mapping[key] = self.plain(value_node, None if place is None else (*place, key))
            return mapping
        if isinstance(node, yaml.SequenceNode):
            return [self.plain(n, None if place is None else (*place, i)) for i, n in enumerate(node.value)]
        try:
            value = Yaml12("").construct_object(node, deep=True)
        except (ValueError, LookupError) as e:
            kind = node.tag.rsplit(":", 1)[-1]
            raise UsageError(f"{self.file}:{line}: not valid YAML: a value that cannot be read as {kind}") from e
        if isinstance(value, str):
            with self.complaints.collecting():
                return re.sub(r"\$\{(\w+)(?::-([^}]*))?\}", lambda m: variable(m, f"{self.file}:{line}"), value)
        return value


def variable(match: re.Match[str], where: str) -> str:
    name, default = match.groups()
    value = os.environ.get(name, default)
    if value is None:
        raise UsageError(
            f"{where}: the environment variable {name} is not set (write ${{{name}:-default}} to give it a default)"
        )
    return value


def checked(model: Any, document: Yaml, data: Any, place: tuple[Any, ...]) -> Any:
    """Return `data` as `model` (a pydantic model or a step class).

    Raises `UsageError` with a line for each problem, which names line, path and allowed names.
    """
    is_step = dataclasses.is_dataclass(model)
    adapter = options_of(model) if is_step else pydantic.TypeAdapter(model)
    complaints = Complaints()
    try:
        made = adapter.validate_python(data if data is not None else {})
    except pydantic.ValidationError as e:
        wrong: dict[tuple[Any, ...], list[str]] = {}  # place -> what is wrong; where there is a choice, of each
        for err in e.errors():
            if err["type"] == "too_short" and len(err["input"]) >= err["ctx"]["min_length"]:
                continue  # it counts the entries that are right, and each wrong one has a line of its own
            wrong.setdefault(located(err, data), []).append(explained(err, adapter))
        for at, said in wrong.items():
            complaints.add(UsageError(f"{document.at(*place, *at)}: {'; or '.join(dict.fromkeys(said))}"))
    else:
        for at, number in numbers_of_booleans(data, made):
            wanted = PLAIN["int_type" if isinstance(number, int) else "float_type"]
            given = "true" if number else "false"
            complaints.add(UsageError(f"{document.at(*place, *at)}: {wanted}, not {given}"))
        if is_step and (option := naming_none(made)):
            complaints.add(UsageError(f"{document.at(*place, option)}: name one or more"))
    if complaints:
        raise UsageError(complaints.text())  # without its cause, which quotes what was written
    return made


def numbers_of_booleans(
    data: Any, made: Any, place: tuple[Any, ...] = ()
) -> Iterator[tuple[tuple[Any, ...], int | float]]:
    """Yield the places where a boolean was written and a number was made of it, as pydantic takes true for 1."""
    if isinstance(data, bool):
        if isinstance(made, int | float) and not isinstance(made, bool):
            yield place, made
        return
    pairs: Iterator[tuple[Any, Any, Any]] = iter(())
    if isinstance(data, Mapping):
        of = made.get if isinstance(made, Mapping) else functools.partial(getattr, made)
        pairs = ((key, value, of(key, None)) for key, value in data.items() if isinstance(key, str))
    elif isinstance(data, list) and isinstance(made, list | tuple):
        pairs = ((i, *pair) for i, pair in enumerate(zip(data, made, strict=False)))
    for key, value, result in pairs:
        yield from numbers_of_booleans(value, result, (*place, key))


def naming_none(step: Step) -> str | None:
    """Return the option by which one of headgate's own steps names columns, and names none, so that it does nothing."""
    if type(step) not in STEPS.values() or isinstance(step, JoinTable | Aggregate):  # these do something still
        return None
    required = [f.name for f in dataclasses.fields(step) if f.default is dataclasses.MISSING]
    return next((o for o in ("columns", "values") if o in required and not getattr(step, o)), None)


def located(error: Mapping[str, Any], data: Any) -> tuple[Any, ...]:
    """Return where in the document a pydantic error is: its location without the names of pydantic's own choices."""
    parts: list[Any] = []
    *inner, last = error["loc"] or ("",)
    for part in inner:
        if (isinstance(data, Mapping) and part in data) or (isinstance(data, list | tuple) and isinstance(part, int)):
            parts.append(part)
            data = data[part]
    if isinstance(last, int) or (isinstance(data, Mapping) and (last in data or error["type"].startswith("missing"))):
        parts.append(last)
    return tuple(parts) + (("format",) if error["type"] == "union_tag_invalid" else ())


def explained(error: Mapping[str, Any], adapter: pydantic.TypeAdapter[Any]) -> str:
    """Return a pydantic error in the words of a configuration: what is wrong, what is allowed, the nearest name."""
    kind, message = error["type"], error["msg"]
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        wrong = str(error["loc"][-1])
        allowed = allowed_names(adapter.json_schema(mode="validation"), error["loc"][:-1])
        return f"unknown option '{wrong}'{did_you_mean(wrong, allowed)} (allowed: {', '.join(allowed)})"
    if kind in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return "this option is required" if isinstance(error["loc"][-1], str) else "an entry is missing here"
    if kind == "union_tag_not_found":
        written = difflib.get_close_matches("format", [str(k) for k in error["input"]], n=1)
        hint = f"; unknown option '{written[0]}' — did you mean 'format'?" if written else ""
        return f"the option 'format' is required (one of {', '.join(SOURCE_KINDS)}){hint}"
    if kind == "union_tag_invalid":
        tag = str(error["ctx"]["tag"])
        return f"unknown format '{tag}'{did_you_mean(tag, SOURCE_KINDS)}; expected one of {', '.join(SOURCE_KINDS)}"
    wanted, given = expected(error), error.get("input")
    if SECRET_PLACES & set(map(str, error["loc"])):  # a value written here by mistake may be a secret
        return wanted
    if given is None and "'null'" in message:
        return f'{wanted}; YAML reads a bare null as no value: write "null" in quotes'
    if (
        kind == "finite_number"
        and error["loc"][0] in ("columns", "ranges")
        and any(isinstance(p, int) for p in error["loc"])
    ):
        wanted += " (null for an open end)"
    hint = did_you_mean(str(given), re.findall(r"'(\w+)'", message)) if kind == "literal_error" else ""
    return f"{wanted}, not {json.dumps(given, ensure_ascii=False, default=str)}{hint}"


# What pydantic says in Python's words, by the beginning of an error's type.
PLAIN = {
    **dict.fromkeys(("string_type", "string_sub"), "expected a text"),
    **dict.fromkeys(("tuple_type", "list_type", "set_type", "frozen_set_type", "iterable_type"), "expected a list"),
    **dict.fromkeys(("dict_type", "mapping_type", "model_", "dataclass_"), "expected a mapping (name: value)"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from"), "expected a whole number"),
    **dict.fromkeys(("float_type", "float_parsing", "decimal_type", "decimal_parsing"), "expected a number"),
    "finite_number": "expected a finite number",
    **dict.fromkeys(("bool_type", "bool_parsing"), "expected true or false"),
    "none_required": "expected null",
}


def expected(error: Mapping[str, Any]) -> str:
    """Return what a pydantic error expects, in the words of a configuration."""
    kind, message, ctx = str(error["type"]), str(error["msg"]), error.get("ctx") or {}
    for begins, plain in PLAIN.items():
        if kind.startswith(begins):
            return plain
    if kind == "literal_error":
        return f"expected one of {ctx['expected']}"
    if kind in ("too_short", "too_long"):
        bound, number = ("least", ctx["min_length"]) if kind == "too_short" else ("most", ctx["max_length"])
        return f"expected at {bound} {number} {'entry' if number == 1 else 'entries'}"
    message = (
        message.removeprefix("Value error, ").replace("Input should", "it should").replace("String should", "it should")
    )
    return message[0].lower() + message[1:]


def allowed_names(schema: Mapping[str, Any], place: Sequence[Any]) -> list[str]:
    """Return the option names that a JSON Schema allows at a place."""
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
