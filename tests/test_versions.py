"""What is pinned stands once, in headgate/version.py; the files that must repeat it say the same."""

import re
import tomllib

import pytest

from headgate.jobs.spark import jars
from headgate.version import DELTA, GREAT_EXPECTATIONS, PYTHONS, SPARK
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = tomllib.loads((ROOT / "uv.lock").read_text())
(FIRST, LAST) = (".".join(map(str, version)) for version in PYTHONS)
PINS = {"pyspark": SPARK, "delta-spark": DELTA, "great-expectations": GREAT_EXPECTATIONS}


@pytest.mark.parametrize("package", PINS)
def test_pyproject_and_the_lock_pin_what_version_py_names(package):
    assert f"{package}=={PINS[package]}" in PROJECT["project"]["dependencies"]
    assert [p["version"] for p in LOCK["package"] if p["name"] == package] == [PINS[package]]


def test_the_pom_fetches_the_jars_of_these_versions():
    pom = (ROOT / "deploy" / "jars" / "pom.xml").read_text().split("<build>")[0]
    found = re.findall(r"<groupId>(.+?)</groupId><artifactId>(.+?)</artifactId><version>(.+?)</version>", pom)
    versions = {f"{group}:{artifact}": version for group, artifact, version in found}
    assert len(versions) == len(jars.SHA256) + len(jars.S3_SHA256)
    for coordinate in f"{jars.COORDINATES},{jars.S3_COORDINATES}".split(","):
        name, _, version = coordinate.rpartition(":")
        assert versions[name] == version
    assert {v for name, v in versions.items() if name.startswith("io.delta:")} == {DELTA}


def test_every_place_names_the_same_pythons():
    (_, minor), (_, last) = PYTHONS
    assert PROJECT["project"]["requires-python"] == f">={FIRST},<3.{last + 1}"
    listed = [c.rpartition(" ")[2] for c in PROJECT["project"]["classifiers"] if ":: Python :: 3." in c]
    assert listed == [f"3.{n}" for n in range(minor, last + 1)]
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py3{minor}"
    assert PROJECT["tool"]["mypy"]["python_version"] == FIRST
    for name in ("README.md", "Makefile", "CONTRIBUTING.md"):
        assert f"Python {FIRST} to {LAST}" in (ROOT / name).read_text(), name
    assert f"not {PYTHONS[0]} <= sys.version_info[:2] <= {PYTHONS[1]}" in (ROOT / "Makefile").read_text()


def test_the_lock_names_no_other_registry_than_pypi():
    """A mirror is what a machine's own settings name, never the lock."""
    sources = {p["source"].get("registry") for p in LOCK["package"] if "registry" in p["source"]}
    files = [f["url"] for p in LOCK["package"] for f in (*p.get("wheels", ()), *filter(None, [p.get("sdist")]))]
    assert sources == {"https://pypi.org/simple"}
    assert {url.split("/")[2] for url in files} == {"files.pythonhosted.org"}


def test_the_uv_that_sets_up_is_the_locked_one():
    (locked,) = (p for p in LOCK["package"] if p["name"] == "uv")
    text = (ROOT / "requirements" / "uv.txt").read_text()
    assert text.startswith(f"uv=={locked['version']} ")
    assert set(re.findall(r"sha256:[0-9a-f]{64}", text)) == {f["hash"] for f in (*locked["wheels"], locked["sdist"])}
