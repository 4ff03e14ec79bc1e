"""A run submitted to a standalone cluster of two workers on this machine, beside the same two cores in one JVM.

Seconds from the command to the first rows in data files, to the first table that readers can open, and to the end; CPU
seconds of all processes, the cluster's included. `DAYS=31` chooses how many days of flights. A run with nothing new
comes last.
"""

import os
import sys
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path

from headgate.jobs.cli.samples import write_flights
from tests.benchmarks.measure import spent
from tests.chaos import content
from tests.deploy.test_cluster import Cluster, submit
from tests.deploy.test_launch import built


def run() -> None:
    days = int(os.environ.get("DAYS", "31"))
    first = date(2013, 1, 1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        archive = built(folder)
        write_flights(folder / "landing", first, first + timedelta(days=days - 1))
        found = {}
        cluster = Cluster(folder / "machines")
        try:
            for name, master in (("one JVM, local[2]", "local[2]"), ("cluster, 2 workers", cluster.master)):
                place = folder / name.partition(",")[0]
                place.mkdir()
                (place / "landing").symlink_to(folder / "landing")
                for what in (f"{days} days", "nothing new"):
                    tell(f"{name}: {what}", archive, place, master)
                found[name] = content(place)
        finally:
            cluster.stop()
        one, other = found.values()
        print(f"  both published {'the same' if one == other else 'other'} rows")


def tell(what: str, archive: Path, folder: Path, master: str) -> None:
    """Submit a run and print when it came to what."""
    cpu, started = spent(), time.monotonic()
    process = submit(archive, folder, master)
    seen: dict[str, float] = {}
    told = []
    for line in process.stdout:
        told.append(line)
        for phase in ("ingest", "stage", "publish"):
            if f'"phase": "{phase}"' in line:
                seen.setdefault(phase, time.monotonic() - started)
    if process.wait():
        sys.exit("".join(told)[-3000:])
    firsts = "".join(f"  {seen[p]:6.1f} s first {w}" for p, w in (("stage", "rows"), ("publish", "table")) if p in seen)
    print(f"{what:<32} {time.monotonic() - started:7.1f} s wall  {spent() - cpu:7.1f} s CPU{firsts}", flush=True)
