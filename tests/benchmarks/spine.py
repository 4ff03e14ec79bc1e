"""The main job on the full real year: a run, a run with nothing new, one more day, and the gate's share."""

import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.measure import Cost, measure
from tests.conftest import ROOT

HEADGATE = [sys.executable, "-m", "headgate"]


def headgate(folder: Path, *arguments: str) -> Cost:
    cost = measure([*HEADGATE, *arguments], folder, PYTHONPATH=str(ROOT), HEADGATE_LOG="json")
    if cost.code:
        sys.exit(f"{' '.join(arguments)} failed with {cost.code}:\n{cost.stderr[-2000:]}")
    return cost


def phases(cost: Cost) -> dict[str, float]:
    """Seconds of each phase, over all tables; fits are part of the steps."""
    total: dict[str, float] = {}
    for line in cost.stderr.splitlines():
        if '"phase"' in line:
            event = json.loads(line)
            if not event["phase"].startswith("fit "):
                total[event["phase"]] = round(total.get(event["phase"], 0) + event["seconds"], 1)
    return total


def copied(folder: Path) -> Path:
    """The pipeline with its suites, in a folder of its own: that is where its lake and landing folder are."""
    shutil.copytree(ROOT / "conf", folder / "conf")
    shutil.copytree(ROOT / "expectations" / "suites", folder / "expectations" / "suites")
    return folder / "conf" / "flights.yaml"


def without_suites(pipeline: Path) -> Path:
    """The same pipeline without a gate."""
    file = pipeline.with_name("ungated.yaml")
    shutil.copy(pipeline, file)
    file.write_text(re.sub(r"^    suite: .*$", "    suite: null", file.read_text(), flags=re.MULTILINE))
    return file


def run() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pipeline = str(copied(folder))
        headgate(folder, "sample", "flights", "--into", "landing", "--to", "2013-12-30")
        full = headgate(folder, "run", pipeline)
        print(f"full year (364 days)   {full}\n  seconds by phase: {phases(full)}")
        nothing = headgate(folder, "run", pipeline)
        print(f"nothing new            {nothing}  ({nothing.cpu / full.cpu:.3f} of the full year's CPU)")
        headgate(folder, "sample", "flights", "--into", "landing", "--to", "2013-12-31")
        day = headgate(folder, "run", pipeline)
        print(f"one more day           {day}  ({day.cpu / full.cpu:.3f} of the full year's CPU)\n  {phases(day)}")
        headgate(folder, "sample", "flights", "--into", "landing")
        again = headgate(folder, "run", pipeline, "--lake", "gated")
        bare = headgate(folder, "run", str(without_suites(Path(pipeline))), "--lake", "ungated")
        print(f"gated, once more       {again}")
        print(f"without suites         {bare}")
        print(f"gated / ungated: {again.wall / bare.wall:.3f} wall, {again.cpu / bare.cpu:.3f} CPU")
