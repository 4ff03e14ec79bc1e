"""Every step, command and option says what it is."""

import dataclasses

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
    return [(name, command) for name, command in headgate.commands.items()]


@pytest.mark.parametrize(("name", "command"), commands())
def test_commands_and_options_have_help(name, command):
    assert command.help and command.help[0].isupper()
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts}"


@pytest.mark.parametrize("model", [PipelineFile, Table, Source, Publish, Environment])
def test_configuration_is_documented(model: type[Model]):
    assert model.__doc__


def test_readme_names_every_command_system_table_and_folder():
    readme = (ROOT / "README.md").read_text()
    for name in (*headgate.commands, *SCHEMAS, "ledger"):
        assert f"`{name}`" in readme or f"headgate {name}" in readme, name
    for column in {f.name for schema in SCHEMAS.values() for f in schema}:
        assert f"`{column}`" in readme, column
    for folder in ("conf/", "expectations/", "transforms/", "jobs/", "deploy/", "tests/"):
        assert folder in readme
