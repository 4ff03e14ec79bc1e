"""Kills runs and compares what is left with an undisturbed run: `make chaos`, or `python -m tests.chaos --kills N`.

A run is a process of its own. It is killed with SIGKILL, its JVM with it, at the end of a phase or at a random moment;
then the same command is started again, and killed again, until one run lives to its end. What is then published must
be what one undisturbed run publishes; and what the release before holds must read the same after every kill.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deltalake import DeltaTable

from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.log import history
from tests.lakes import ROOT, lake_of, write_suite
from tests.lakes import content as rows_of

PIPELINE = """
pipeline: chaos
suites: .
tables:
  raw_people:
    source: {format: csv, path: 'people/*.csv', schema: 'id INT, name STRING, city STRING, age INT', key: [id]}
    suite: any
    quarantine_ceiling: 0.5
  raw_cities:
    source:
      format: csv
      path: cities/*.csv
      schema: city STRING, mayor STRING
      key: [city]
      on_changed_file: replace
    suite: any
  people:
    from: raw_people
    steps:
      - drop_duplicates: {columns: [name], keep: id}
      - split_by_hash: {key: [id], shares: {train: 0.8, test: 0.2}}
      - impute_mean: {columns: [age]}
    suite: people
    quarantine_ceiling: 0.5
  placed:
    from: people
    steps:
      - join_table: {table: raw_cities, on: {city: city}, columns: {mayor: mayor}, matched: found}
    suite: any
    publish: {mode: merge, key: [id]}
  names:
    from: raw_people
    steps:
      - drop_duplicates: {columns: [name, city], keep: id}
    suite: any
    publish: {mode: increment}
    quarantine_ceiling: 0.5
"""
ADULT = (
    "{type: expect_column_values_to_be_between, kwargs: {column: age, min_value: 3}, "
    "meta: {dimension: validity, on_row_fail: quarantine}}"
)


def write_night(folder: Path, night: int) -> None:
    """The pipeline, and what has landed until a night: new people, a malformed line, and a city that changes."""
    (folder / "p.yaml").write_text(PIPELINE)
    write_suite(folder, "any")
    write_suite(folder, "people", ADULT)
    for part in ("people", "cities"):
        (folder / "landing" / part).mkdir(parents=True, exist_ok=True)
    for n in range(night + 1):
        rows = [f"{i},n{i % 37},c{i % 3},{'' if i % 11 == 0 else i % 90}" for i in range(n * 50, n * 50 + 60)]
        text = "\n".join(["id,name,city,age", *rows, "bad,line"]) + "\n"
        file = folder / "landing" / "people" / f"{n}.csv"
        if not file.exists():
            file.write_text(text)
    cities = folder / "landing" / "cities" / "all.csv"
    cities.write_text("city,mayor\n" + "".join(f"c{i},m{i}-{night}\n" for i in range(3)))


def start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "headgate", "run", "p.yaml"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HEADGATE_LAKE": "lake", "HEADGATE_LANDING": "landing"}
    environment["HEADGATE_LOG"] = "json"  # a line for each phase
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def kill(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def run_and_kill(folder: Path, phases: int | None = None, seconds: float | None = None) -> list[str] | None:
    """Start a run and kill it after so many phases or seconds; returns the phases it went through, or None if it ended.

    Raises `AssertionError` if it ended with an error.
    """
    process = start(folder)
    assert process.stderr is not None
    if seconds is not None:
        try:
            _, told = process.communicate(timeout=seconds)
            assert process.returncode == 0, told[-2000:]
            return None
        except subprocess.TimeoutExpired:
            kill(process)
            return []
    seen: list[str] = []
    rest: list[str] = []
    for line in process.stderr:
        rest.append(line)
        if '"phase"' in line:
            event = json.loads(line)
            seen.append(f"{event['table']} {event['phase']}")
            if len(seen) == phases:
                kill(process)
                return seen
    process.wait()
    assert process.returncode == 0, "".join(rest)[-2000:]
    return None


def content(folder: Path) -> dict[str, list[str]]:
    """What is published: the rows of every table, of the newest release, and of the ledger for the present builds."""
    lake = lake_of(folder)
    newest = lake.releases[-1]
    pins = {t["table_name"]: t["version"] for t in newest["tables"]}
    found = {"release": [newest["release"], *sorted(pins)]}
    builds = set()
    for table, version in pins.items():
        assert DeltaTable(lake.path(table)).version() == version, (
            f"{table}: the release does not hold the newest version"
        )
        found[table] = rows_of(folder, table, version)
        builds |= {c.get("build") for c in commits_of(lake, table)}
    ledger = DeltaTable(lake.path("ledger")).to_pyarrow_table().to_pylist()
    names = ("table_name", "row_id", "step", "reason", "evidence")
    found["ledger"] = sorted(str([r[n] for n in names]) for r in ledger if r["build"] in builds)
    files = lake.system("files").to_pylist()
    found["files"] = sorted(f"{f['table_name']} {f['path']} {f['sha256']}" for f in files if f["build"] in builds)
    return found


def commits_of(lake: Lake, table: str) -> list[dict[str, str]]:
    return [json.loads(c.get("userMetadata") or "{}") for c in DeltaTable(lake.path(table)).history()]


def first_release(folder: Path) -> dict[str, list[str]]:
    """Every row of the first night's release; a release that names what cannot be read fails here."""
    lake = lake_of(folder)
    for release in lake.releases:
        for pin in release["tables"]:
            assert pin["version"] in history(lake.path(pin["table_name"])).at
            rows_of(folder, pin["table_name"], pin["version"])
    return {t["table_name"]: rows_of(folder, t["table_name"], t["version"]) for t in lake.releases[0]["tables"]}


def undisturbed(folder: Path) -> None:
    assert run_and_kill(folder) is None


def prepare(folder: Path, run: Callable[[Path], Any] = undisturbed) -> tuple[Path, dict[str, list[str]]]:
    """A lake after the first night with the second one landed, and what an undisturbed second night publishes."""
    night = folder / "night"
    night.mkdir()
    write_night(night, 0)
    run(night)
    write_night(night, 1)
    calm = folder / "calm"
    shutil.copytree(night, calm)
    run(calm)
    return night, content(calm)


def survive(night: Path, folder: Path, calm: dict[str, list[str]], kills: list[tuple[str, float]]) -> list[str]:
    """Kill runs of the second night one after the other, let one live, and compare; returns what was killed."""
    shutil.copytree(night, folder)
    before = first_release(folder)
    told = []
    for kind, value in kills:
        seen = run_and_kill(folder, phases=int(value)) if kind == "phases" else run_and_kill(folder, seconds=value)
        if seen is None:
            break  # it lived to its end
        told.append(f"after {seen[-1]}" if seen else f"after {value:.1f} s")
        assert first_release(folder) == before, f"{told}: the first release reads differently"
    assert run_and_kill(folder) is None
    found = content(folder)
    for name in calm:
        assert found[name] == calm[name], f"{told}: {name} differs"
    staged = [p for p in (folder / "lake" / "_staging").glob("*/*.json") if "-" not in p.name]
    assert len(staged) <= len(told), f"{told}: {staged} were left"
    shutil.rmtree(folder)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    choose = random.Random(options.seed)
    started, done = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as scratch:
        night, calm = prepare(Path(scratch))
        while done < options.kills:
            kills = [
                ("phases", choose.randint(1, 30)) if choose.random() < 0.5 else ("seconds", choose.uniform(4, 30))
                for _ in range(choose.randint(1, 4))
            ]
            told = survive(night, Path(scratch) / f"run{done}", calm, kills)
            done += len(told)
            print(
                f"{done:4} kills, {time.monotonic() - started:6.0f} s: {', '.join(told) or 'none in time'}", flush=True
            )
    print(f"{done} kills survived with seed {options.seed}")


if __name__ == "__main__":
    main()
