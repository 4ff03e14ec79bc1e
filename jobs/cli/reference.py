"""Commands that say what may be written: steps, expectations, the JSON Schema of a pipeline."""

import dataclasses
import inspect
import json
from typing import Any, get_type_hints

import click

from headgate.jobs.cli.options import Command, as_json
from headgate.jobs.cli.output import json_text, show
from headgate.jobs.errors import UsageError
from headgate.words import did_you_mean


@click.command(cls=Command)
@click.argument("name", required=False)
@as_json
def steps(name: str | None, json_: bool) -> None:
    """List the steps, or show what the step NAME does and its options.

    \b
    headgate steps
    headgate steps drop_near_duplicates
    """
    from headgate.jobs.cli.steps_page import kind_of
    from headgate.transforms.steps import STEPS, options_of

    if name is None:
        rows = [{"step": n, "does": first_sentence(s.__doc__ or "")} for n, s in STEPS.items()]
        show(rows, json_, ["step", "does"])
        return
    if name not in STEPS:
        raise UsageError(f"there is no step '{name}'{did_you_mean(name, STEPS)} (headgate steps lists them)")
    step = STEPS[name]
    if json_:
        click.echo(json_text(options_of(step).json_schema()))
        return
    click.echo(f"{name}\n\n{inspect.getdoc(step)}\n\noptions:")
    kinds = get_type_hints(step)
    for field in dataclasses.fields(step):
        click.echo(f"  {field.name}: {kind_of(kinds[field.name]).replace('`', '')}{default_of(field)}")


def default_of(field: "dataclasses.Field[Any]") -> str:
    if field.default in (None, ()):
        return " (default: none)"
    if field.default is not dataclasses.MISSING:
        return f" (default: {json.dumps(field.default, default=str)})"
    if field.default_factory is not dataclasses.MISSING:
        return f" (default: {json.dumps(field.default_factory(), default=str)})"
    return " (required)"


def first_sentence(text: str) -> str:
    first = " ".join(text.split("\n\n")[0].split())
    return first.split(". ")[0].rstrip(".")


@click.command(cls=Command)
@click.argument("name", required=False)
@as_json
def expectations(name: str | None, json_: bool) -> None:
    """List the expectations that a suite may hold, or show the arguments of the expectation NAME.

    \b
    headgate expectations
    headgate expectations expect_column_values_to_be_between
    """
    from headgate.expectations.catalogue import REFUSED, known_types

    known = known_types()
    if name is None:
        rows = [
            {"expectation": n, "arguments": ", ".join(shown(e["arguments"])), "does": first_sentence(e["does"])}
            for n, e in known.items()
        ]
        show(rows, json_, ["expectation", "arguments", "does"])
        return
    if name in REFUSED:
        raise UsageError(f"'{name}' is not allowed: {REFUSED[name]}")
    if name not in known:
        raise UsageError(
            f"there is no expectation '{name}'{did_you_mean(name, known)} (headgate expectations lists them)"
        )
    expectation = known[name]
    if json_:
        click.echo(json_text(expectation))
        return
    about = "\n\n".join(filter(None, (expectation["does"], expectation["about"])))
    click.echo(f"{name}\n\n{about}\n\narguments:")
    for argument, of in expectation["arguments"].items():
        default = " (required)" if of["required"] else f" (default: {json.dumps(of['default'])})"
        click.echo(f"  {argument}: {of['kind']}{default}" + (f"\n      {of['about']}" if of["about"] else ""))


def shown(arguments: dict[str, dict[str, Any]]) -> list[str]:
    """Return the arguments that tell an expectation from others; those that may be left out in brackets."""
    common = ("row_condition", "condition_parser", "mostly")
    return [n if of["required"] else f"[{n}]" for n, of in arguments.items() if n not in common]


@click.command(cls=Command)
@click.option("--suite", is_flag=True, help="The schema of a suite instead.")
def schema(suite: bool) -> None:
    """Print the JSON Schema of a pipeline file, for editors that complete and check YAML.

    \b
    headgate schema > pipeline.schema.json
    headgate schema --suite > suite.schema.json
    """
    from headgate.jobs.config.schema import json_schema, suite_schema

    click.echo(json.dumps(suite_schema() if suite else json_schema(), indent=2, ensure_ascii=False))
