"""Every step, command and option says what it is, and the pages name what there is."""

import dataclasses
import os
import re
import shlex
import unicodedata
from pathlib import Path

import click
import pydantic
import pytest
import yaml

from headgate.expectations.suites import load_suite
from headgate.jobs.cli.main import headgate
from headgate.jobs.cli.steps_page import steps_page
from headgate.jobs.config.document import read_yaml
from headgate.jobs.config.models import Environment, PipelineFile, Publish, Source, Table
from headgate.jobs.config.pipeline import load_pipeline
from headgate.jobs.config.secrets import Model
from headgate.jobs.lake.system import SCHEMAS, SYSTEM_TABLES
from headgate.jobs.notify.metrics import METRICS
from headgate.jobs.pipeline.layout import COMMENTS
from headgate.transforms.steps import STEPS, options_of
from headgate.words import REASONS
from tests.conftest import ROOT

DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [*sorted(ROOT.glob("*.md")), ROOT / "deploy" / "README.md", *DOCS]


def text_of(page: Path | str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


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


def test_the_page_of_steps_is_up_to_date():
    told = text_of("docs/steps.md")
    assert told == steps_page(), "python -m headgate.jobs.cli.steps_page > docs/steps.md"
    for name, step in STEPS.items():
        _, _, section = told.partition(f"\n### {name}\n")
        section = re.split(r"\n##+ ", section)[0]
        for field in dataclasses.fields(step):
            assert f"| `{field.name}` |" in section, f"{name}: {field.name}"
        words = re.sub(r"\W+", "", section)
        for word in re.findall(r"\w+", step.__doc__ or ""):
            assert word in words, f"{name}: the page lost '{word}'"


@pytest.mark.parametrize("name", STEPS)
def test_the_page_of_steps_tells_which_options_are_required(name):
    page = text_of("docs/steps.md").split(f"\n### {name}\n")[1].split("\n### ")[0]
    told = set(re.findall(r"^\| `(\w+)` \|.*\| required \|$", page, re.MULTILINE))
    assert told == set(options_of(STEPS[name]).json_schema().get("required", ()))


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
    "backfill": {"first", "last"},
    "dedup": {"exact", "text", "into"},
    "fuse": {"into"},
    "impute": {"into"},
    "apply": {"into"},
    "rebalance": {"by", "into"},
    "restore": {"version", "release"},
    "trace": {"keys", "table"},
    "release drop": {"keep", "older_than"},
    "optimize": {"sort", "zorder"},
    "backup": {"root"},
    "recover": {"root"},
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


@pytest.mark.parametrize("name", headgate.commands)
def test_every_command_is_in_the_readme_or_the_pages(name):
    assert any(re.search(rf"headgate {name}\b", text_of(page)) for page in (ROOT / "README.md", *DOCS))


def test_the_page_of_the_lake_has_every_system_table_and_column():
    page = text_of("docs/lake.md")
    for table, schema in SCHEMAS.items():
        _, found, rest = page.partition(f"\n**`{table}`**")
        assert found, table
        section = re.split(r"\n(?:\*\*`|## )", rest)[0]
        cells = " ".join(line.split("|")[1] for line in section.splitlines() if line.startswith("|"))
        assert set(re.findall(r"`(\w+)`", cells)) == set(schema.names), table
    assert [table for table in SYSTEM_TABLES if f"**`{table}`**" not in page] == []
    assert [column for column in COMMENTS if f"| `{column}` |" not in page] == []


def test_the_page_of_the_lake_has_every_reason_of_the_ledger():
    page = (ROOT / "docs" / "lake.md").read_text(encoding="utf-8")
    assert all(f"\n| `{code}` |" in page for code in REASONS)


def test_the_page_of_operations_has_every_environment_variable():
    code = [p for folder in ("jobs", "expectations", "transforms", "deploy") for p in (ROOT / folder).rglob("*.py")]
    read = {name for p in code for name in re.findall(r"\bHEADGATE_[A-Z]+\b", p.read_text(encoding="utf-8"))}
    assert {"HEADGATE_LAKE", "HEADGATE_JARS"} <= read
    page = text_of("docs/operations.md") + text_of("deploy/README.md")
    assert [name for name in sorted(read) if f"`{name}`" not in page] == []


def test_the_page_of_nightly_runs_has_every_metric():
    page = text_of("docs/nightly.md")
    assert [name for name in METRICS if f"`{name}`" not in page] == []


def test_the_readme_names_every_folder():
    readme = text_of("README.md")
    for folder in ("conf/", "expectations/", "transforms/", "jobs/", "headgate/", "deploy/", "docs/", "tests/"):
        assert f"| `{folder}`" in readme or f", `{folder}`" in readme, folder
    assert len(readme.splitlines()) < 150, "a page of a screen or two"


def test_the_drawing_of_the_folders_names_every_one_of_jobs():
    drawing = (ROOT / "docs" / "contributing.md").read_text().split("```")[1]
    for folder in (ROOT / "jobs").iterdir():
        if (folder / "__init__.py").exists():
            assert f"\n  {folder.name}/" in drawing, folder


def test_the_readme_leads_to_every_page():
    readme = text_of("README.md")
    assert [page.name for page in DOCS if f"(docs/{page.name})" not in readme] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_resolve(page):
    prose = re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        there = Path(os.path.normpath(page.parent / file)) if file else page
        assert there.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(there), f"{page.name}: {target}"


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    kept = ("L", "N", "M")  # letters, digits and marks
    plain = ("".join(c for c in h.lower() if unicodedata.category(c)[0] in kept or c in "-_ ") for h in headings)
    return {h.replace(" ", "-") for h in plain}


def yaml_blocks(page: str) -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", text_of(page), re.DOTALL)


def test_the_pipeline_of_your_own_data_is_valid(tmp_path):
    pipeline, *suites = yaml_blocks("docs/your-own-data.md")
    for text in suites:
        file = tmp_path / "expectations" / "suites" / f"{yaml.safe_load(text)['name']}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    file = tmp_path / "conf" / "shop.yaml"
    file.parent.mkdir()
    file.write_text(pipeline)
    read = load_pipeline(file)
    assert set(read.order) == {"raw_orders", "raw_customers", "orders", "customers", "training"}
    assert {name for name, suite in read.suites.items() if suite} == {"orders", "customers", "training"}


def test_the_examples_of_sources_suites_and_environments_are_valid(tmp_path):
    sources = [yaml.safe_load(text)["source"] for text in yaml_blocks("docs/sources.md")]
    assert [pydantic.TypeAdapter(Source).validate_python(s).format for s in sources] == [
        "csv",
        "jdbc",
        "http",
        "python",
    ]
    (suite,) = yaml_blocks("docs/suites.md")
    assert len(load_suite(yaml.safe_load(suite), lambda *place: str(place)).rules) == 4
    (environment,) = yaml_blocks("docs/operations.md")
    assert Environment.model_validate(yaml.safe_load(environment)).secrets
    for text in yaml_blocks("docs/nightly.md"):
        (tmp_path / "night.yaml").write_text(text)
        written = read_yaml(tmp_path / "night.yaml").data
        if "source" in written:
            assert pydantic.TypeAdapter(Source).validate_python(written["source"]).expected
        else:
            assert Environment.model_validate(written) != Environment()
    (environment,) = yaml_blocks("docs/stores.md")
    assert Environment.model_validate(yaml.safe_load(environment)).store.store().region


def typed_commands() -> list[str]:
    """Return the commands that the pages' shell blocks type, of headgate alone."""
    blocks = [b for page in PAGES for b in re.findall(r"```(?:sh|cron)\n(.*?)```", text_of(page), re.DOTALL)]
    lines = [found[1] for block in blocks for found in re.finditer(r"(?:^|  )(headgate [^#|\n]+)", block, re.MULTILINE)]
    return sorted({line.strip() for line in lines})


@pytest.mark.parametrize("line", typed_commands())
def test_typed_commands_have_such_options(line):
    words = shlex.split(line)[1:]
    command: click.Command = headgate
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    known = {name for p in command.get_params(click.Context(command)) for name in (*p.opts, *p.secondary_opts)}
    assert [word for word in words if word.startswith("--") and word not in known] == []
