"""Options of commands that are made of steps' fields, so that a command offers what the step offers in YAML."""

import dataclasses
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any

import click

from headgate.jobs.cli.options import Command, as_json, in_lake, listed
from headgate.jobs.errors import UsageError


class StepCommand(Command):
    """A command with one option that chooses the step, and one for each other field of the steps.

    steps: choosing option (without dashes) -> name of the step; its value is the step's `columns`. The fields are read
    when they are asked for: importing the steps is no part of `headgate --help`.
    """

    steps: Mapping[str, str]
    leaves_out: Collection[str] = ()  # fields that the command has an option of its own for

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        *own, help_option = super().get_params(ctx)
        own_names = {p.name for p in own}
        made = [o for o in self.step_options() if o.name not in own_names and o.name not in self.leaves_out]
        return [*own, *made, help_option]

    def step_options(self) -> list[click.Option]:
        """Return the options, each with the choosing option that it belongs to where that is not every one."""
        fields = {choice: fields_of(step) for choice, step in self.steps.items()}
        options = []
        for name in dict.fromkeys(n for found in fields.values() for n in found):
            having = [choice for choice, found in fields.items() if name in found]
            options.append(option_of(name, {choice: fields[choice][name] for choice in having}, len(fields)))
        return options


class Field(typing.NamedTuple):
    kind: Any
    default: Any
    about: str


def fields_of(step: str) -> dict[str, Field]:
    """Return the fields of a step but `columns`, with their types, defaults and what the docstring says of them."""
    from headgate.transforms.steps import STEPS

    hints = typing.get_type_hints(STEPS[step])
    found = {}
    for field in dataclasses.fields(STEPS[step]):
        if field.name != "columns" and field.init:
            default = None if field.default is dataclasses.MISSING else field.default
            found[field.name] = Field(hints[field.name], default, about(STEPS[step].__doc__ or "", field.name))
    return found


def about(doc: str, field: str) -> str:
    """Return the first clause that a step's docstring says of a field."""
    match = re.search(rf"^ *{field}: (.*?)(?=\.(?:\s|$)|;|\n\n|\Z)", doc, re.MULTILINE | re.DOTALL)
    text = re.sub(r" \((default|[\d.,]+)\)", "", " ".join(match[1].split())) if match else field  # it is told beside
    return text.replace("`", "") if text.startswith("`") else text[0].upper() + text[1:].replace("`", "")


def option_of(name: str, by_choice: Mapping[str, Field], choices: int) -> click.Option:
    first = next(iter(by_choice.values()))
    only = f"Of --{next(iter(by_choice))}: " if len(by_choice) < choices else ""
    defaults = {choice: shown(field.default) for choice, field in by_choice.items()}
    if len(set(defaults.values())) == 1:
        default = next(iter(defaults.values()))
    else:
        default = ", ".join(f"{value} of --{choice}" for choice, value in defaults.items())
    kind, several = kind_of(first.kind)
    metavar = "WHAT,…" if several else name.upper() if kind is str else None
    return click.Option(
        [f"--{name.replace('_', '-')}"], type=kind, metavar=metavar, help=f"{only}{first.about} (default: {default})."
    )


def shown(default: Any) -> str:
    return "none" if default in (None, (), "") else ",".join(default) if isinstance(default, tuple) else str(default)


def kind_of(annotation: Any) -> tuple[Any, bool]:
    """Return click's type for a field's, and whether it takes several words; what click cannot check, the step does."""
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is tuple:
        return str, True
    if origin in (typing.Union, types.UnionType):
        return kind_of(next(a for a in inside if a is not type(None)))
    if origin is typing.Literal:
        return click.Choice([str(a) for a in inside]), False
    return annotation if annotation in (int, float) else str, False


def chosen_step(ctx: click.Context, command: StepCommand, given: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the step that the options choose, with those that were given; the step's own defaults hold for the rest.

    Raises `UsageError` where not exactly one is chosen, and for options of another one.
    """
    chosen = [choice for choice in command.steps if given.get(choice) is not None]
    if len(chosen) != 1:
        raise UsageError(f"give exactly one of {' and '.join(f'--{c}' for c in command.steps)}")
    choice = chosen[0]
    columns = listed(given[choice], f"--{choice}")
    if not columns:
        raise UsageError(f"--{choice}: name at least one column")
    return command.steps[choice], {"columns": columns, **given_options(ctx, command, choice, given)}


def given_options(ctx: click.Context, command: StepCommand, choice: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the chosen step that were given; raise `UsageError` for an option of another one."""
    options: dict[str, Any] = {}
    mine = fields_of(command.steps[choice])
    for option in command.step_options():
        name = str(option.name)
        if name in command.steps or ctx.get_parameter_source(name) != click.core.ParameterSource.COMMANDLINE:
            continue
        if name not in mine:
            other = next(c for c, s in command.steps.items() if name in fields_of(s))
            raise UsageError(f"{option.opts[0]} can only be combined with --{other}")
        options[name] = listed(given[name], option.opts[0]) if kind_of(mine[name].kind)[1] else given[name]
    return options


def one_table(command: Callable[..., None]) -> Callable[..., None]:
    """Add what all commands take that make one table of a file, a folder or a table."""
    for decorate in (
        as_json,
        click.option("--where", metavar="CONDITION", help="Take only rows for which this SQL holds (default: all)."),
        click.option("--delimiter", metavar="CHAR", help="Of csv (default: the one in the header of , ; tab |)."),
        click.option(
            "--schema", metavar="DDL", help="Types of columns of csv and jsonl: 'id INT, at DATE' (default: text)."
        ),
        click.option("--key", metavar="COL,…", help="Columns that identify a row (default: its whole content)."),
        click.option("--into", required=True, metavar="TABLE", help="Name of the table that is made."),
    ):
        command = decorate(command)
    return click.argument("source", metavar="INPUT")(in_lake(command, landing=False))
