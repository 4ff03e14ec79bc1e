"""Every step, command and option says what it is."""

import dataclasses
import re

import click
import pytest

from headgate.jobs.cli.main import headgate
from headgate.jobs.config.models import Environment, Model, PipelineFile, Publish, Source, Table
from headgate.jobs.lake.system import SCHEMAS
from headgate.transforms.steps import STEPS
from tests.conftest import ROOT


@pytest.mark.parametrize("name", STEPS)
def test_steps_are_documented_with_every_option_and_their_cost(name):
    step = STEPS[name]
    assert step.name == name
    text = step.__doc__ or ""
    assert "Cost:" in text, name
    fields = [f.name for f in dataclasses.fields(step)]
    for field in fields:
        listed = f"{field}:" in text or f"{field}," in text or f"`{field}`" in text
        alone = len(fields) == 1 and "listed columns" in text
        assert listed or alone, f"{name}: option {field} is not in its docstring"


def commands():
    grouped = [(f"release {name}", command) for name, command in headgate.commands["release"].commands.items()]
    return [*headgate.commands.items(), *grouped]


@pytest.mark.parametrize(("name", "command"), commands())
def test_commands_and_options_have_help_examples_and_defaults(name, command):
    assert command.help and command.help[0].isupper()
    examples = re.findall(rf"^ *headgate {name}\b.*", command.help, re.MULTILINE)
    assert examples, f"{name} --help shows no example"
    context = click.Context(command, info_name=name)
    options = [p for p in command.get_params(context) if isinstance(p, click.Option)]
    for option in options:
        assert option.help and option.get_help_record(context), f"{name} {option.opts}"
    known = {text for option in options for text in option.opts}
    named = {text for example in examples for text in re.findall(r" (--[a-z-]+)", example)}
    assert isinstance(command, click.Group) or named <= known, named - known


DEFAULTLESS = {  # options that choose what is done: without them nothing of the kind is
    "dedup": {"exact", "text", "into"},
    "restore": {"version", "release"},
    "trace": {"keys", "table"},
    "release drop": {"keep", "older_than"},
    "verify": {"rebuild"},
    "erase": {"table", "where", "keys", "reason"},
    "sample": {"into"},
}


@pytest.mark.parametrize(("name", "command"), commands())
def test_the_help_of_an_option_with_a_value_states_its_default(name, command):
    context = click.Context(command, info_name=name)
    options = [p for p in command.get_params(context) if isinstance(p, click.Option)]
    silent = {p.name for p in options if not p.is_flag and "default:" not in " ".join(p.get_help_record(context) or ())}
    assert silent - {"help"} == DEFAULTLESS.get(name, set())


@pytest.mark.parametrize("model", [PipelineFile, Table, Source, Publish, Environment])
def test_configuration_is_documented(model: type[Model]):
    assert model.__doc__


def test_readme_names_every_command_system_table_and_folder():
    readme = (ROOT / "README.md").read_text()
    for name in (*headgate.commands, *SCHEMAS):
        assert f"`{name}`" in readme or f"headgate {name}" in readme, name
    for column in {f.name for schema in SCHEMAS.values() for f in schema}:
        assert f"`{column}`" in readme, column
    for folder in ("conf/", "expectations/", "transforms/", "jobs/", "deploy/", "tests/"):
        assert folder in readme


def test_the_drawing_of_the_folders_names_every_one_of_jobs():
    drawing = (ROOT / "docs" / "contributing.md").read_text().split("```")[1]
    for folder in (ROOT / "jobs").iterdir():
        if (folder / "__init__.py").exists():
            assert f"\n  {folder.name}/" in drawing, folder
