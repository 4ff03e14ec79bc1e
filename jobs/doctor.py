"""What headgate needs, what it found, and what is missing."""

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jobs.errors import HeadgateError
from jobs.jars import COORDINATES, SHA256, jars_folder, missing_jars
from jobs.java import candidates, java_home, version_of

PYTHONS = ((3, 10), (3, 13))
# What both PyPI and Maven Central hold; a bump must find both halves.
PINNED = {"pyspark": "4.1.1", "delta-spark": "4.4.0", "great-expectations": "1.24.1"}


class Finding(NamedTuple):
    what: str
    ok: bool
    found: str


def examine(lake: str, landing: str) -> Iterator[Finding]:
    python = sys.version_info[:2]
    yield Finding("python", PYTHONS[0] <= python <= PYTHONS[1], f"{platform.python_version()} (needs 3.10 to 3.13)")
    for package, wanted in PINNED.items():
        found = installed(package)
        yield Finding(package, found == wanted, f"{found or 'not installed'} (needs {wanted})")
    pandas = installed("pandas")
    yield Finding("pandas", bool(pandas) and pandas.split(".")[0] == "2", f"{pandas} (needs 2; 3 breaks PySpark 4.1)")
    versions = [c.rsplit(":", 1)[1] for c in COORDINATES.split(",")]
    fit = versions[:2] == [installed("delta-spark"), installed("pyspark")]
    yield Finding("jars fit", fit, COORDINATES.replace(",", ", "))
    try:
        home = java_home()
        others = [f"{c} is Java {version_of(c)}" for c in candidates() if c != home]
        yield Finding("java", True, f"{home}" + (f" (passed over: {'; '.join(others)})" if others else ""))
    except HeadgateError as e:
        yield Finding("java", False, str(e))
    folder = jars_folder()
    lacking = missing_jars(folder)
    told = f"{len(SHA256) - len(lacking)} of {len(SHA256)} in {folder}"
    fixed = bool(os.environ.get("HEADGATE_JARS"))
    yield Finding("jars", not (lacking and fixed), told + ("; fetched on first use" if lacking and not fixed else ""))
    yield Finding("landing", "://" in landing or Path(landing).is_dir(), f"{landing}")
    if "://" in lake:
        yield Finding("lake", True, f"{lake} (not examined)")
    else:
        place = Path(lake).absolute()
        while not place.exists():
            place = place.parent
        free = shutil.disk_usage(place).free / 1e9
        yield Finding("lake", os.access(place, os.W_OK), f"{lake} ({free:.0f} GB free)")


def installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
