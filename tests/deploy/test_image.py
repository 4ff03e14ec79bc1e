"""The image of deploy/image, as far as it can be judged without building it."""

import fnmatch
import re

import pytest

from headgate.version import PYTHONS
from tests.conftest import ROOT

FOLDER = ROOT / "deploy" / "image"
MADE = ("dist/headgate-*.whl", "dist/headgate.zip")  # by `make build`


@pytest.fixture
def steps():
    text = re.sub(r"(?m)^ *#.*\n", "", (FOLDER / "Dockerfile").read_text()).replace("\\\n", "")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def test_what_is_copied_is_there_and_is_sent_to_the_builder(steps):
    ignored = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    sent = [line[1:] for line in ignored if line.startswith("!")]
    assert "*" in ignored
    copied = [w for step, rest in steps if step == "COPY" and "--from" not in rest for w in rest.split()[:-1]]
    assert sorted(set(copied)) == sorted(sent)
    assert [w for w in copied if w not in MADE and not (ROOT / w).is_file()] == []
    assert all(
        any(fnmatch.fnmatch(f"dist/{name}", m) for m in MADE)
        for name in ("headgate-1-py3-none-any.whl", "headgate.zip")
    )


def test_it_is_pinned_and_runs_as_the_user_of_the_manifests(steps):
    bases = [rest.split()[0] for step, rest in steps if step == "FROM"]
    assert re.fullmatch(r"debian:bookworm-\d{8}-slim@sha256:[0-9a-f]{64}", bases[0])
    (user,) = (rest for step, rest in steps if step == "USER")
    assert steps.index(("USER", user)) > max(i for i, (step, _) in enumerate(steps) if step in ("RUN", "COPY"))
    manifests = "".join(f.read_text() for f in (ROOT / "deploy" / "kubernetes").rglob("*.yaml"))
    assert set(re.findall(r"(?:runAsUser|runAsGroup|fsGroup): (\d+)", manifests)) == {user}
    home = next(rest for step, rest in steps if step == "ENV" and "SPARK_HOME" in rest)
    first, last = PYTHONS
    found = tuple(map(int, re.search(r"SPARK_HOME=/opt/venv/lib/python(\d+)\.(\d+)/", home).groups()))
    assert first <= found <= last
