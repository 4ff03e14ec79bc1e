"""Who may import whom, and what each package keeps away from."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "transforms": {"transforms"},
    "expectations": {"expectations"},
    "jobs": {"jobs", "transforms", "expectations"},
    "deploy": {"jobs"},
}
OURS = {"transforms", "expectations", "jobs", "deploy", "tests", "conf"}


def modules(package):
    return sorted((ROOT / package).rglob("*.py"))


def imports(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield node.module


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_one_way(package):
    for file in modules(package):
        for name in imports(file):
            top = name.split(".")[0]
            assert top not in OURS or top in ALLOWED[package], f"{file.relative_to(ROOT)} imports {name}"


def test_only_expectations_imports_great_expectations():
    for package in ("transforms", "jobs", "deploy"):
        for file in modules(package):
            assert not any(n.split(".")[0] == "great_expectations" for n in imports(file)), file


def test_only_the_command_line_starts_or_stops_spark():
    for package in ("transforms", "expectations", "jobs"):
        for file in modules(package):
            text = file.read_text()
            relative = str(file.relative_to(ROOT))
            if relative not in ("jobs/cli.py", "jobs/session.py"):
                assert "SparkSession.builder" not in text and ".stop()" not in text, relative
            if relative != "jobs/cli.py":
                assert "session.start(" not in text and "import session" not in text, relative


def test_transforms_and_expectations_stay_with_dataframes():
    for package in ("transforms", "expectations"):
        for file in modules(package):
            text = file.read_text()
            for word in ("_jvm", "_jdf", "sparkContext", ".rdd", "toPandas(", ".read.", ".write", "monotonically_"):
                found = word in text and not (word == "monotonically_" and file.name == "expressions.py")
                assert not found, f"{file.relative_to(ROOT)} uses {word}"


def test_package_roots_are_empty():
    for package in ("transforms", "expectations", "jobs"):
        for file in (ROOT / package).rglob("__init__.py"):
            assert file.read_text() == "", file
