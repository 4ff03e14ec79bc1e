"""The README's example and the tour, command by command, as a newcomer types them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


def blocks(page: str, section: str, language: str = "sh") -> list[str]:
    """Return the code blocks of a section, which must have some."""
    text = (ROOT / page).read_text(encoding="utf-8")
    inside = re.split(r"\n## ", text.split(f"\n## {section}\n")[1])[0]
    found = re.findall(rf"```{language}\n(.*?)```", inside, re.DOTALL)
    assert found, f"{page}: {section}"
    return found


@pytest.fixture
def checkout(tmp_path):
    """A copy of what a checkout holds, and a command `headgate` of its own."""
    checkout = tmp_path / "checkout"
    for name in ("conf", "expectations", "transforms", "jobs", "headgate"):
        shutil.copytree(ROOT / name, checkout / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    command = tmp_path / "bin" / "headgate"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m headgate "$@"\n')
    command.chmod(0o755)
    return checkout


def test_the_readme_runs(checkout, tmp_path):
    shown = run(tmp_path, checkout, blocks("README.md", "Your own data")).stdout
    (summary,) = blocks("README.md", "Your own data", "text")
    assert timeless(summary) in timeless(shown), "the README shows what the first run prints"


@pytest.mark.slow
def test_the_shop_of_the_tour_runs_after_the_readme(checkout, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shop = run(elsewhere, checkout, [*blocks("README.md", "Your own data"), *blocks("docs/tour.md", "Shop")])
    assert "release orders-1" in shop.stdout and "release orders-2" in shop.stdout
    assert re.search(r"1001 +Ada Lovelace +12\.50", shop.stdout) and "unknown" in shop.stdout
    assert re.search(r"1002 +9\.00 +G\b", shop.stdout) and re.search(r"1002 +8\.00 *\n", shop.stdout)
    assert "the gate blocked table 'orders'" in shop.stderr
    assert "nothing to build" in shop.stdout.splitlines()[-1]


@pytest.mark.slow
def test_the_flights_of_the_tour_run(checkout):
    before = {p.relative_to(checkout): p.read_bytes() for p in files(checkout)}
    flights = run(checkout, checkout, blocks("docs/tour.md", "Flights"))
    assert "release flights-1" in flights.stdout and "sample_strata" in flights.stdout
    after = {p.relative_to(checkout): p.read_bytes() for p in files(checkout)}
    assert after == before, "the tour leaves the checkout as it was"


@pytest.mark.slow
def test_the_example_of_scaling_and_new_rows_runs(checkout, tmp_path):
    shown = run(tmp_path, checkout, blocks("docs/scaling.md", "An example")).stdout
    for answer in blocks("docs/scaling.md", "An example", "text"):
        assert " ".join(answer.split()) in " ".join(shown.split())


def run(folder: Path, checkout: Path, scripts: list[str]) -> "subprocess.CompletedProcess[str]":
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HEADGATE_")}
    environment |= {"PATH": f"{checkout.parent / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(checkout)}
    script = "set -eu\n" + "\n".join(scripts)
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done


def timeless(text: str) -> str:
    """Return a summary without its seconds and the widths that follow from them."""
    return re.sub(r" +", " ", re.sub(r"\d+\.\d( s\b|$)", "T", text.strip(), flags=re.MULTILINE))


def files(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
