"""How each verb grows: measured at sizes from 1 to 40, fitted, and checked at a size that the fit has not seen.

`python -m tests.benchmarks scale` runs each size in a fresh process (`scale_run`) on made data (`scale_data`), and
prints the tables of docs/scale.md. Figures and data are kept in `HEADGATE_SCALE` (default: `headgate-scale` in the
folder for temporary files): what is measured already is not measured again. `KINDS=orders,texts` and `SIZES=1,10s`
(`s`: skewed) choose; `SIZES=` measures nothing and prints the tables. `MINUTES=7` begins nothing after so long; with
`DATA_ONLY=1` data are made, no more.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.scale_files import THOUSAND, VERB
from tests.benchmarks.scale_run import UNTIL, VERBS
from tests.conftest import ROOT

FOLDER = Path(os.environ.get("HEADGATE_SCALE", f"{tempfile.gettempdir()}/headgate-scale"))
KINDS = ("orders", "texts", "records", "files")
FITTED, HELD_OUT = (1, 3, 10, 40), 20
SKEWED = 10
SIZES = ("1", "3", "10", f"{SKEWED}s", "20", "40")
COSTS = {
    "cpu": "CPU s",
    "driver_cpu": "driver CPU s",
    "shuffle_mb": "shuffle MB",
    "task_mb": "peak task MB",
    "result_mb": "MB to the driver",
    "driver_mb": "driver MB",
}
TARGET_MB = 10e6  # 10 TB
CORES = 1_280
DATA_JUICER = {"tb": 5, "minutes": 168, "cores": CORES}


# -- the model


@dataclass(frozen=True)
class Line:
    """A cost that is `fixed` and grows with n by `each`."""

    fixed: float
    each: float

    def at(self, n: float) -> float:
        return self.fixed + self.each * n


def fit(points: Sequence[tuple[float, float]]) -> Line:
    """Return the line through (n, cost) that errs least in relation to the costs, with no part below 0.

    Costs of 0 are left out of a relative error, and give a line of 0 if all are.
    """
    given = [(n, y) for n, y in points if y > 0]
    if not given:
        return Line(0.0, 0.0)
    n, y = np.array(given).T
    parts = np.stack([1 / y, n / y], axis=1)
    tried = []
    for chosen in ([0, 1], [0], [1]):
        found = np.zeros(2)
        found[chosen] = np.linalg.lstsq(parts[:, chosen], np.ones(len(y)), rcond=None)[0]
        if (found >= 0).all():
            tried.append((float(((parts @ found - 1) ** 2).sum()), found))
    _, (fixed, each) = min(tried, key=lambda t: t[0])
    return Line(float(fixed), float(each))


@dataclass(frozen=True)
class Verb:
    """What is known of a verb: the lines of its costs by row, and the figures of each size."""

    name: str
    lines: Mapping[str, Line]
    mb_of_a_row: float
    measured: Mapping[str, Mapping[str, Any]]  # size ("10", "10s") -> figures

    def of(self, size: int) -> Mapping[str, Any] | None:
        return self.measured.get(str(size))


def verbs(figures: Sequence[Mapping[str, Any]]) -> list[Verb]:
    found = []
    for name in dict.fromkeys(f["verb"] for f in figures):
        mine = {f"{f['size']}{'s' * f['skewed']}": f for f in figures if f["verb"] == name}
        points = [mine[str(s)] for s in FITTED if str(s) in mine]
        if len(points) > 1:
            lines = {c: fit([(p["rows"], p[c]) for p in points]) for c in COSTS if c in points[0]}
            found.append(Verb(name, lines, points[-1].get("mb", 0) / points[-1]["rows"], mine))
    return found


# -- measuring


def run() -> None:
    FOLDER.mkdir(exist_ok=True, parents=True)
    os.environ[UNTIL] = str(time.time() + 60 * float(os.environ.get("MINUTES", "inf")))
    kinds = os.environ.get("KINDS", ",".join(KINDS)).split(",")
    sizes = [s for s in os.environ.get("SIZES", ",".join(SIZES)).split(",") if s]
    for size in sizes:
        for kind in kinds:
            if kind == "files" and not size.endswith("s"):
                measure_files(int(size))
            elif kind != "files":
                measure_one(kind, int(size.removesuffix("s")), size.endswith("s"))
    for lines in (measured, coefficients, held_out, skew, at_target, files):
        print("\n".join(lines(verbs(figures()))), end="\n\n")


def figures() -> list[dict[str, Any]]:
    return [f for file in sorted(FOLDER.glob("*.json")) for f in json.loads(file.read_text())]


def measure_one(kind: str, size: int, skewed: bool) -> None:
    from tests.benchmarks import scale_data

    name = f"{kind}-{size:02}{'s' * skewed}"
    out, data = FOLDER / f"{name}.json", FOLDER / name
    if out.exists() and {f["verb"] for f in json.loads(out.read_text())} == VERBS[kind].keys():
        return
    if not data.exists():
        shutil.rmtree(making := FOLDER / f"{name}.making", ignore_errors=True)
        scale_data.make(kind, making, size, skewed)
        making.rename(data)
    if os.environ.get("DATA_ONLY") or time.time() > float(os.environ[UNTIL]):
        return
    arguments = [kind, str(size), "skewed" if skewed else "plain", str(data), str(out)]
    command = [sys.executable, "-m", "tests.benchmarks.scale_run", *arguments]
    print(name, flush=True)
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})


def measure_files(size: int) -> None:
    out = FOLDER / f"files-{size:02}.json"
    if not out.exists():
        command = [sys.executable, "-m", "tests.benchmarks.scale_files", str(size * THOUSAND), str(out)]
        subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})


# -- tables


def table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (head, ["---", *["---:"] * (len(head) - 1)], *rows)]


def short(value: float) -> str:
    """Write a number with three digits that count."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 0.001 else "0"


def plain(found: Sequence[Verb]) -> list[Verb]:
    return [v for v in found if v.name != VERB]


def measured(found: Sequence[Verb]) -> list[str]:
    """CPU seconds at each size."""
    sizes = sorted({*FITTED, HELD_OUT})
    rows = ([v.name, *(short(f["cpu"]) if (f := v.of(s)) else "" for s in sizes)] for v in plain(found))
    return table(["CPU s at size", *map(str, sizes)], rows)


def coefficients(found: Sequence[Verb]) -> list[str]:
    head = ["verb", "bytes of a row", "fixed CPU s", "CPU s a million rows", "CPU s a GB", "of it the driver"]
    head += ["shuffle GB a GB", "peak task MB at 40", "MB to the driver a million rows", "driver MB at 40"]

    def row(v: Verb) -> list[str]:
        cpu, gb = v.lines["cpu"], 1e3 / v.mb_of_a_row  # rows
        largest = v.of(max(FITTED)) or {}
        values = [v.mb_of_a_row * 1e6, cpu.fixed, cpu.each * 1e6, cpu.each * gb, v.lines["driver_cpu"].each * gb]
        values += [v.lines["shuffle_mb"].each * gb / 1e3, largest.get("task_mb", 0)]
        values += [v.lines["result_mb"].each * 1e6, largest.get("driver_mb", 0)]
        return [v.name, *map(short, values)]

    return table(head, map(row, plain(found)))


def held_out(found: Sequence[Verb]) -> list[str]:
    """Each cost as predicted and as measured at the size that was held out."""

    def cell(v: Verb, cost: str, real: Mapping[str, Any]) -> str:
        told, seen = v.lines[cost].at(real["rows"]), real[cost]
        return f"{short(told)} / {short(seen)} ({told / seen - 1:+.0%})" if seen > 0 else "0 / 0"

    rows = ([v.name, *(cell(v, c, real) for c in COSTS)] for v in plain(found) if (real := v.of(HELD_OUT)))
    return table(["verb", *COSTS.values()], rows)


def skew(found: Sequence[Verb]) -> list[str]:
    """A tenth of the rows in one bucket, beside the same size without."""
    told: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "CPU s": lambda f: short(f["cpu"]),
        "seconds": lambda f: short(f["seconds"]),
        "longest task, s": lambda f: short(f["task_seconds"]),
        "largest share of a shuffle in one task": lambda f: f"{f['task_share']:.0%}" if f["task_share"] else "",
        "peak task MB": lambda f: short(f["task_mb"]),
        "spilled MB": lambda f: short(f["spill_mb"]),
    }
    pairs = [(v, v.of(SKEWED), v.measured.get(f"{SKEWED}s")) for v in found]
    rows = ([v.name, *(f"{tell(a)} → {tell(b)}" for tell in told.values())] for v, a, b in pairs if a and b)
    return table(["verb", *told], rows)


def at_target(found: Sequence[Verb]) -> list[str]:
    head = ["verb", "rows, 10⁹", "CPU hours", f"hours on {CORES:,} cores", "MB/s a core", "shuffled TB"]

    def row(v: Verb) -> list[str]:
        n = TARGET_MB / v.mb_of_a_row
        cpu = v.lines["cpu"].at(n)
        values = [n / 1e9, cpu / 3600, cpu / 3600 / CORES, TARGET_MB / cpu, v.lines["shuffle_mb"].at(n) / 1e6]
        return [v.name, *map(short, values)]

    told = table(head, map(row, plain(found)))
    tb, minutes, cores = DATA_JUICER["tb"], DATA_JUICER["minutes"], DATA_JUICER["cores"]
    return [*told, f"Data-Juicer: {tb * 1e6 / (minutes * 60 * cores):.2f} MB/s a core"]


def files(found: Sequence[Verb]) -> list[str]:
    """What the files of a commit cost the driver."""
    found = [v for v in found if v.name == VERB]
    told = {"CPU s": "cpu", "MB of memory": "driver_mb", "MB of log": "log_mb", "seconds": "seconds"}
    sizes = [(v, s) for v in found for s in sorted({*FITTED, HELD_OUT}) if v.of(s)]
    rows = ([f"{s * THOUSAND:,}", *(short((v.of(s) or {})[c]) for c in told.values())] for v, s in sizes)
    return table(["files", *told], rows)
