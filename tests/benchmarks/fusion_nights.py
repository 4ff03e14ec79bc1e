"""What `headgate fuse` costs where a hundredth of the records changed, beside a full run, in one warm session.

Persons made of FEBRL's values lie in a hundred files. Each night one of them is delivered anew: half of its records
have another value, a quarter are gone, as many came. The first full run and the first night are for Java, which
compiles. CPU seconds are of the whole process tree. `HEADGATE_NIGHTS=500000` chooses how many records,
`HEADGATE_MEMORY=8g` the memory of Spark.
"""

import contextlib
import csv
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headgate.jobs.cli.fusing import Fusion, pipeline_of
from headgate.jobs.config.models import Environment
from headgate.jobs.lake.lake import Lake
from headgate.jobs.pipeline.run import run as run_pipeline
from headgate.jobs.progress import Progress
from headgate.jobs.spark.session import start
from tests.benchmarks.measure import spent
from tests.benchmarks.persons import COLUMNS, persons

FILES = 100
NIGHTS = 3


class Spent(Progress):
    """The progress of a run that notes the CPU seconds of each table."""

    def __init__(self) -> None:
        super().__init__(watched=False)
        self.cpu: Counter[str] = Counter()
        self.inner = [0.0]

    @contextlib.contextmanager
    def phase(self, table: str, phase: str) -> Iterator[None]:
        before = spent()
        self.inner.append(0.0)
        with super().phase(table, phase):
            yield
        used = spent() - before
        self.cpu[table] += used - self.inner.pop()
        self.inner[-1] += used

    def write(self, line: str) -> None:
        pass


class Town:
    """Persons in files of a folder, who come, change and go."""

    def __init__(self, folder: Path, n: int) -> None:
        self.folder, self.size, self.r = folder / "people", n // FILES, random.Random(3)
        self.folder.mkdir()
        more = NIGHTS * self.size // 4
        self.every = [[f"p{i}", *(c or "" for c in cells)] for i, (_, cells) in enumerate(persons(n + more))]
        self.files = [self.every[f * self.size : (f + 1) * self.size] for f in range(FILES)]
        self.fresh = iter(self.every[n:])
        for f in range(FILES):
            self.write(f)

    def write(self, f: int) -> None:
        with (self.folder / f"{f:02}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["key", *COLUMNS], *self.files[f]])

    def night(self, f: int) -> None:
        rows = self.files[f]
        for row in self.r.sample(rows, self.size // 2):
            j = 1 + self.r.randrange(len(COLUMNS))
            row[j] = self.r.choice(self.every)[j]
        for _ in range(self.size // 4):
            rows.pop(self.r.randrange(len(rows)))
            rows.append(next(self.fresh))
        self.write(f)


def run() -> None:
    n = int(os.environ.get("HEADGATE_NIGHTS", "50000"))
    spark = start({"spark.master": "local[2]", "spark.driver.memory": os.environ.get("HEADGATE_MEMORY", "4g")})
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        town = Town(Path(folder), n)
        once(spark, "full, cold")
        full = once(spark, f"full of {n:,}", force=True)
        for night in range(NIGHTS):
            town.night(night)
            cost = once(spark, f"night {night + 1}")
            print(f"  {cost / full:.1%} of the full run", flush=True)
    spark.stop()


def once(spark: Any, what: str, *, force: bool = False) -> float:
    """Run `headgate fuse` on what has landed; print and return the CPU seconds."""
    lake, progress, began, before = Lake("lake"), Spent(), time.monotonic(), spent()
    pipeline, landing = pipeline_of(Fusion(inputs=["people=people"], into="persons", key=["key"]), lake)
    environment = Environment(lake="lake", landing=landing, tables_at_once=1)
    run_pipeline(pipeline, environment, lake, lambda reads: spark, progress, force=force)
    cpu = spent() - before
    tables = ", ".join(f"{t.removeprefix('persons_')} {c:.1f}" for t, c in progress.cpu.most_common() if c >= 0.05)
    print(f"{what}: {cpu:.1f} s CPU, {time.monotonic() - began:.1f} s wall: {tables}", flush=True)
    return cpu
