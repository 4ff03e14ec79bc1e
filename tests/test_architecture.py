"""Who may import whom, proved on the syntax tree, and what each part keeps away from."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = ("transforms", "expectations", "jobs")
FLOORS = (  # of jobs, from the top down: a floor may import those below it, no sibling, and what is listed beside it
    ("cli", ()),
    ("notify", ()),
    ("pipeline", ()),
    ("explore", ()),
    ("keep", ()),
    ("spark", ()),
    ("sources", ()),
    ("config", ()),
    ("lake", ()),
)
SIBLINGS = {"pipeline", "explore", "keep", "spark"}
EXCEPTIONS = {"jobs/keep/verify.py": {"pipeline"}}  # it makes the rows of a build again
BELOW_ALL = {"disclosure", "errors", "progress"}
LONGEST = 400  # lines of a module


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(file: Path) -> Iterator[str]:
    """Every module that a file imports, inside functions too; `from a import b` gives a.b as well."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{file}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(file: Path) -> Iterator[list[str]]:
    for name in imports(file):
        parts = name.split(".")
        assert parts[0] not in {"transforms", "expectations", "jobs", "tests", "conf", "deploy"}, f"{file}: {name}"
        if parts[0] == "headgate" and len(parts) > 1:
            yield parts[1:]


@pytest.mark.parametrize("package", ["transforms", "expectations"])
def test_transforms_and_expectations_import_words_alone_beside_themselves(package):
    for file in modules(package):
        for parts in ours(file):
            assert parts[0] in (package, "words"), f"{file.relative_to(ROOT)} imports {'.'.join(parts)}"


def test_the_floors_of_jobs_import_downwards():
    order = [name for name, _ in FLOORS]
    for file in modules("jobs"):
        relative = file.relative_to(ROOT)
        floor = relative.parts[1] if len(relative.parts) > 2 else ""
        assert floor in order or file.name in {"__init__.py", *(f"{n}.py" for n in BELOW_ALL)}, relative
        for parts in ours(file):
            if parts[0] != "jobs":
                assert parts[0] in ("transforms", "expectations", "words", "version"), f"{relative}: {parts}"
            elif len(parts) > 1 and parts[1] != floor:
                to = parts[1]
                allowed = set(order[order.index(floor) + 1 :] if floor in order else ())
                allowed -= SIBLINGS if floor in SIBLINGS else set()
                allowed |= BELOW_ALL | EXCEPTIONS.get(relative.as_posix(), set())
                assert to in allowed, f"{relative} imports jobs.{'.'.join(parts[1:])}"


def test_no_two_modules_import_each_other():
    """Imports at the top of modules; inside a function one may look up."""
    import graphlib

    graph = {}
    for package in PACKAGES:
        for file in modules(package):
            name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
            tops = [n for n in ast.parse(file.read_text()).body if isinstance(n, ast.ImportFrom)]
            found = {f"{n.module}.{a.name}" for n in tops for a in n.names} | {n.module for n in tops}
            graph[name] = {str(m).removeprefix("headgate.") for m in found if m}
    list(graphlib.TopologicalSorter(graph).static_order())


def test_only_expectations_imports_great_expectations():
    for package in ("transforms", "jobs", "deploy"):
        for file in modules(package):
            assert not any(n.split(".")[0] == "great_expectations" for n in imports(file)), file


def test_only_jobs_spark_starts_or_stops_spark():
    for package in PACKAGES:
        for file in modules(package):
            relative = file.relative_to(ROOT)
            for node in ast.walk(ast.parse(file.read_text())):
                named = node.attr if isinstance(node, ast.Attribute) else ""
                if named in ("builder", "getOrCreate") or (named == "stop" and "spark" in ast.unparse(node)):
                    assert relative.parts[:2] == ("jobs", "spark"), f"{relative}: {ast.unparse(node)}"


def test_transforms_and_expectations_stay_with_dataframes():
    for package in ("transforms", "expectations"):
        for file in modules(package):
            text = file.read_text()
            for word in ("_jvm", "_jdf", "sparkContext", ".rdd", "toPandas(", ".read.", ".write", "monotonically_"):
                found = word in text and not (word == "monotonically_" and file.name == "expressions.py")
                assert not found, f"{file.relative_to(ROOT)} uses {word}"


def test_package_roots_are_empty():
    for package in PACKAGES:
        for file in (ROOT / package).rglob("__init__.py"):
            assert file.read_text() == "", file


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_are_short(package):
    for file in modules(package):
        lines = len(file.read_text().splitlines())
        assert lines <= LONGEST, f"{file.relative_to(ROOT)} has {lines} lines"
