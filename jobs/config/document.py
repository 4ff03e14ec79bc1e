"""YAML read with line numbers, and its values checked against a model."""

import dataclasses
import difflib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic
import yaml

from headgate.jobs.config.models import SECRET_PLACES, SOURCE_KINDS
from headgate.jobs.errors import UsageError
from headgate.transforms.steps import options_of
from headgate.words import did_you_mean


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
        hint = did_you_mean(file.name, [p.name for p in folder.glob("*.y*ml")])
        raise UsageError(f"{file}: there is no such file{hint}") from e
    except OSError as e:
        raise UsageError(f"{file}: cannot be read: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise UsageError(f"{file}: not a text file in UTF-8 (byte {e.start:,})") from e
    except yaml.reader.ReaderError as e:
        number = text.count("\n", 0, e.position) + 1
        raise UsageError(f"{file}:{number}: not valid YAML: it holds the character U+{e.character:04X}") from e
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
    is_step = dataclasses.is_dataclass(model)
    adapter = options_of(model) if is_step else pydantic.TypeAdapter(model)
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
        return f"unknown option '{wrong}'{did_you_mean(wrong, allowed)} (allowed: {', '.join(allowed)})"
    if kind in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return "this option is required" if isinstance(error["loc"][-1], str) else "an entry is missing here"
    if kind == "union_tag_not_found":
        written = difflib.get_close_matches("format", [str(k) for k in error["input"]], n=1)
        hint = f"; '{written[0]}' is no option — did you mean 'format'?" if written else ""
        return f"the option 'format' is required (one of {', '.join(SOURCE_KINDS)}){hint}"
    if kind == "union_tag_invalid":
        tag = str(error["ctx"]["tag"])
        return f"format '{tag}' is none of {', '.join(SOURCE_KINDS)}{did_you_mean(tag, SOURCE_KINDS)}"
    told, given = expected(error), error.get("input")
    if SECRET_PLACES & set(map(str, error["loc"])):  # a value written here by mistake may be a secret
        return told
    if given is None and "'null'" in message:
        return f'{told}; YAML reads a bare null as no value: write "null" in quotes'
    hint = did_you_mean(str(given), re.findall(r"'(\w+)'", message)) if kind == "literal_error" else ""
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
    kind, message, ctx = str(error["type"]), str(error["msg"]), error.get("ctx") or {}
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
