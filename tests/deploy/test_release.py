"""What `make build` and `make sign` leave in dist/: reproducible, accounted for, verifiable."""

import json
import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from headgate.jobs.spark.jars import BASE, S3
from headgate.version import SPARK, VERSION
from tests.conftest import ROOT
from tests.deploy.closed import problems

SBOM = f"headgate-{VERSION}.cdx.json"


def make(*arguments: str, checkout: Path = ROOT) -> None:
    """Run make without its set-up, in the environment that is here."""
    command = ["make", "--silent", "--old-file=setup", f"VENV={ROOT / '.venv'}", *arguments]
    subprocess.run(
        command, cwd=checkout, check=True, capture_output=True, env=os.environ | {"PYTHONPATH": str(checkout)}
    )


def verified(folder: Path) -> bool:
    return subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=folder, capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release") / "dist"
    make("build", f"DIST={folder}")
    return folder


@pytest.fixture
def dist(built, tmp_path):
    """A copy that a test may change."""
    return Path(shutil.copytree(built, tmp_path / "dist"))


def test_the_checksums_name_every_file_and_notice_a_changed_one(dist):
    listed = {line.split()[1] for line in (dist / "SHA256SUMS").read_text().splitlines()}
    assert listed == {f"headgate-{VERSION}-py3-none-any.whl", "headgate.zip", SBOM}
    assert verified(dist)
    with open(dist / "headgate.zip", "ab") as file:
        file.write(b" ")
    assert not verified(dist)


def test_the_signature_is_of_these_checksums_by_this_key_alone(dist, tmp_path):
    for name in ("mine", "other"):
        quiet = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(tmp_path / name)]
        subprocess.run(quiet, check=True)
    make("sign", f"DIST={dist}", f"KEY={tmp_path / 'mine'}")

    def accepts(key: str) -> bool:
        signers = tmp_path / "signers"
        signers.write_text("release@example.org " + (tmp_path / f"{key}.pub").read_text())
        command = ["ssh-keygen", "-Y", "verify", "-n", "headgate", "-I", "release@example.org", "-f", str(signers)]
        command += ["-s", str(dist / "SHA256SUMS.sig")]
        said = (dist / "SHA256SUMS").read_bytes()
        return subprocess.run(command, input=said, capture_output=True).returncode == 0

    assert accepts("mine") and not accepts("other")
    sums = dist / "SHA256SUMS"
    sums.write_text(sums.read_text().replace("0", "1", 1))
    assert not accepts("mine")


def test_the_sbom_is_cyclonedx_and_names_what_is_locked_and_fetched(built):
    found = json.loads((built / SBOM).read_text())
    assert problems(found, "cyclonedx", "bom") == []
    assert problems(found | {"component": []}, "cyclonedx", "bom")
    assert found["metadata"]["component"]["name"] == "headgate"
    assert found["metadata"]["component"]["version"] == VERSION
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    locked = {(p["name"], p.get("version")) for p in lock["package"]}
    packages = {(c["name"], c["version"]) for c in found["components"] if "purl" in c}
    assert ("pyspark", SPARK) in packages <= locked
    names = {name for name, _ in packages}
    assert {"polars", "tokenizers"} <= names and not {"pytest", "ruff", "hatchling", "uv"} & names
    jars = {c["name"]: c["hashes"][0]["content"] for c in found["components"] if c["type"] == "file"}
    assert jars == {**BASE.sha256, **S3.sha256}


def test_another_checkout_at_another_time_builds_the_same_bytes(built, tmp_path):
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    for name in ("headgate", "jobs", "transforms", "expectations", "deploy"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, copy_function=shutil.copy)
    for name in ("Makefile", "pyproject.toml", "uv.lock", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, copy / name)
    for file in copy.rglob("*.py"):
        file.chmod(0o600)
    make("build", "DIST=dist", checkout=copy)
    assert (copy / "dist" / "SHA256SUMS").read_text() == (built / "SHA256SUMS").read_text()
