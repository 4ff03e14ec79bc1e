"""The page of steps from their docstrings: `python -m headgate.jobs.cli.steps_page > docs/steps.md`."""

import dataclasses
import inspect
import json
import re
import types
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from headgate.transforms.step import Estimator, Step
from headgate.transforms.steps import STEPS

INTRODUCTION = """\
# Steps

A step changes rows or cells of a table. In a pipeline it is one entry of `steps`: its name and its options.
`headgate steps` lists the steps, `headgate steps NAME` shows one. A step marks rows and never drops them: a row that it
removes is in the ledger, a cell that it changes is noted in `_changed`.

[Steps of your own](own-steps.md) stand beside these. This page is generated from the docstrings:
`python -m headgate.jobs.cli.steps_page > docs/steps.md`."""
TITLES = {
    "cleaning": "Cleaning",
    "deduplication": "Duplicates",
    "imputation": "Missing values",
    "scaling": "Scaling and encoding",
    "fusion": "Joining and linking",
    "features": "Aggregating",
    "balancing": "Splitting and balancing",
}
PLAIN = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "any value"}


def steps_page() -> str:
    """Return the page as Markdown: the steps by their folders, in the order of `STEPS`."""
    folders: dict[str, list[type[Step]]] = {}
    for step in STEPS.values():
        folders.setdefault(step.__module__.split(".")[2], []).append(step)
    parts = [INTRODUCTION]
    for folder, steps in folders.items():
        parts += [f"## {TITLES[folder]}", *(section(step) for step in steps)]
    return "\n\n".join(parts) + "\n"


def section(step: type[Step]) -> str:
    """Return the part of the page on one step: what its docstring says, what it looks at, its options."""
    return "\n\n".join([f"### {step.name}", *paragraphs(step), traits(step), options(step)])


def paragraphs(step: type[Step]) -> Iterator[str]:
    """Yield the docstring's paragraphs; lines that begin with the name of an option become a list."""
    names = "|".join(f.name for f in dataclasses.fields(step))
    first = rf"(?:{names})(?:, (?:{names}))*: "
    text = re.sub(rf"; ({names}): ", r".\n\1: ", inspect.getdoc(step) or "")
    text = re.sub(r"(?<=\.) Cost: none\.$", "\nCost: none.", text)
    rest, items = "", []
    for line in text.splitlines():
        named = re.match(first, line)
        if named:
            options_named = ", ".join(f"`{name}`" for name in named[0][:-2].split(", "))
            items.append(f"- {options_named}: {line[named.end() :]}")
        elif items and (line.startswith(" ") or (not rest and not items[-1].endswith("."))):
            items[-1] += " " + line.strip()
        else:
            rest += f" {line}" if line.strip() else "\n\n"
        if not items and rest.endswith("\n\n"):
            yield rest.strip()
            rest = ""
    if items:
        yield "\n".join(items)
    body, cost, price = rest.strip().partition("Cost: ")
    yield from filter(None, (body.strip(), cost + price))


def traits(step: type[Step]) -> str:
    """Return what the step looks at, and what follows for the table."""
    what = "learns from the training rows" if issubclass(step, Estimator) else "looks at each row alone"
    if step.scope == "table" and not issubclass(step, Estimator):
        what = "compares rows with each other"
    facts = [what]
    if step.scope == "table":
        facts.append("works in increments" if step.state else "needs the whole table, so not with `mode: increment`")
    if step.grain == "new":
        facts.append("needs `grain: new`")
    return f"*{'; '.join(facts).capitalize()}.*"


def options(step: type[Step]) -> str:
    """Return the table of the step's options."""
    hints = get_type_hints(step)
    lines = ["| option | value | default |", "|---|---|---|"]
    lines += [f"| `{f.name}` | {kind_of(hints[f.name])} | {default_of(f)} |" for f in dataclasses.fields(step)]
    return "\n".join(lines)


def kind_of(kind: Any) -> str:
    """Return a type in words."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inside)
    if origin in (types.UnionType, Union):  # with a Literal it is the latter
        return " or ".join(dict.fromkeys(kind_of(k) for k in inside if k is not types.NoneType))
    if origin is tuple:
        return f"list: {kind_of(inside[0])}" if inside[-1] is ... else f"[{', '.join(kind_of(k) for k in inside)}]"
    if origin is Mapping:
        return f"mapping to {kind_of(inside[1])}"
    if dataclasses.is_dataclass(kind):
        return "{" + ", ".join(f.name for f in dataclasses.fields(kind)) + "}"
    return PLAIN.get(kind, "number")


def default_of(field: "dataclasses.Field[Any]") -> str:
    """Return an option's default as YAML takes it; nothing where it is required."""
    if field.default_factory is not dataclasses.MISSING:
        made = field.default_factory()
        return f"`{json.dumps(made)}`" if made else ""
    if field.default is dataclasses.MISSING:
        return "required"
    return "" if field.default in (None, ()) else f"`{json.dumps(field.default)}`"


if __name__ == "__main__":
    print(steps_page(), end="")
