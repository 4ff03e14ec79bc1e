"""Findings on the machine: what headgate needs, what it found, and what is missing."""

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pyarrow import fs

from headgate.jobs.errors import HeadgateError, first_line, storage_failure
from headgate.jobs.lake.probe import why_not_usable
from headgate.jobs.lake.storage import file_system, is_remote, located
from headgate.jobs.lake.stores import is_s3
from headgate.jobs.spark.jars import BASE, COORDINATES, S3, Jars, jars_folder, missing_jars
from headgate.jobs.spark.java import candidates, java_home, version_of
from headgate.version import DELTA, GREAT_EXPECTATIONS, PYTHONS, SPARK

PINNED = {"pyspark": SPARK, "delta-spark": DELTA, "great-expectations": GREAT_EXPECTATIONS}
CENTRAL = "https://repo1.maven.org/maven2/"


class Finding(NamedTuple):
    what: str
    ok: bool
    found: str
    needed: bool = True


def examine(lake: str, landing: str) -> Iterator[Finding]:
    python = sys.version_info[:2]
    first, last = (".".join(map(str, version)) for version in PYTHONS)
    supported = PYTHONS[0] <= python <= PYTHONS[1]
    yield Finding("python", supported, f"{platform.python_version()} (needs {first} to {last})")
    for package, wanted in PINNED.items():
        found = installed(package)
        yield Finding(package, found == wanted, f"{found or 'not installed'} (needs {wanted})")
    pandas = installed("pandas")
    yield Finding("pandas", (pandas or "").split(".")[0] == "2", f"{pandas} (needs 2; 3 breaks PySpark 4.1)")
    versions = [c.rsplit(":", 1)[1] for c in COORDINATES.split(",")]
    fit = versions[:2] == [installed("delta-spark"), installed("pyspark")]
    yield Finding("jars fit", fit, COORDINATES.replace(",", ", "))
    try:
        home = java_home()
        others = [f"{c} is Java {version_of(c)}" for c in candidates() if c != home]
        yield Finding("java", True, f"{home}" + (f" (passed over: {'; '.join(others)})" if others else ""))
    except HeadgateError as e:
        yield Finding("java", False, str(e))
    yield found_jars("jars", BASE)
    if is_s3(lake) or is_s3(landing):
        yield found_jars("jars of S3", S3)
    try:
        files, base = file_system(located(landing))
        there = files.get_file_info(base).type == fs.FileType.Directory
        yield Finding("landing", there, landing if there else f"{landing} is no folder (where files land)", False)
    except Exception as e:
        yield Finding("landing", False, first_line(storage_failure(e, "", located(landing)) or e))
    if is_remote(located(lake)):
        hindrance = why_not_usable(lake)
        done = "wrote a probe, was refused to write over it, listed and deleted it"
        yield Finding("lake", hindrance is None, hindrance or f"{lake} ({done})")
    else:
        hindrance = why_not_writable(Path(lake))
        yield Finding("lake", hindrance is None, f"{lake} ({hindrance or free_space(Path(lake))})")


def found_jars(what: str, wanted: Jars) -> Finding:
    folder = jars_folder(wanted)
    lacking = missing_jars(folder, wanted)
    detail = f"{len(wanted.sha256) - len(lacking)} of {len(wanted.sha256)} in {folder}"
    hindrance = why_not_fetched(folder) if lacking else None
    detail += "" if not lacking else f"; {hindrance}" if hindrance else "; fetched on first use"
    return Finding(what, hindrance is None, detail)


def why_not_fetched(folder: Path) -> str | None:
    """Return why the jars cannot be fetched into a folder; None if one request to Maven Central works."""
    if os.environ.get("HEADGATE_JARS"):
        return "HEADGATE_JARS names this folder, so they are not fetched"
    hindrance = why_not_writable(folder)
    if hindrance:
        return f"they cannot be fetched: {hindrance}"
    try:
        with urllib.request.urlopen(urllib.request.Request(CENTRAL, method="HEAD"), timeout=10):
            return None
    except OSError as e:
        return f"they cannot be fetched: {CENTRAL} does not answer ({getattr(e, 'reason', e)})"


def existing(place: Path) -> Path:
    """The place, or the nearest folder above it that exists."""
    place = place.absolute()
    return place if os.path.lexists(place) else existing(place.parent)


def why_not_writable(place: Path) -> str | None:
    """Return why no file can be made in a folder, which may not exist yet; None if one can. Tries it with one."""
    there = existing(place)
    try:
        with tempfile.TemporaryFile(dir=there):
            return None
    except OSError as e:
        return f"{there} cannot be written: {e.strerror}"


def free_space(place: Path) -> str:
    return f"{shutil.disk_usage(existing(place)).free / 1e9:.0f} GB free"


def installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
