"""The README's tour, command by command, as a newcomer types it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


def tour() -> str:
    text = (ROOT / "README.md").read_text()
    section = text.split("\n## Tour\n")[1].split("\n## Commands\n")[0]
    return "\n".join(re.findall(r"```sh\n(.*?)```", section, re.DOTALL))


@pytest.mark.slow
def test_the_tour_runs(tmp_path):
    for name in ("conf", "expectations", "transforms", "jobs", "headgate"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    command = tmp_path / "bin" / "headgate"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m headgate "$@"\n')
    command.chmod(0o755)
    before = {p.relative_to(tmp_path): p.read_bytes() for p in files(tmp_path)}
    environment = os.environ | {"PATH": f"{command.parent}:{os.environ['PATH']}", "PYTHONPATH": str(tmp_path)}
    script = "set -eu\n" + tour()
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert "release flights-2" in done.stdout and "nothing to build" in done.stdout
    assert "the gate blocked table 'flights'" in done.stderr
    assert re.search(r"1 +Ada +A\b", done.stdout) and "malformed line" in done.stdout
    after = {p.relative_to(tmp_path): p.read_bytes() for p in files(tmp_path)}
    assert after == before, "the tour leaves the checkout as it was"


def files(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
