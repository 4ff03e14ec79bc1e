"""One Spark session for the whole suite, a cut of a real year, and an exact comparison of rows."""

import atexit
import contextlib
import fcntl
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.lakes import ROOT, run_pipeline

Command = Callable[..., tuple[int, str, str]]  # exit code, standard output, error
SHARED_DATA = ROOT.parent / "shared" / "data"

EXIT_STATUS = pytest.StashKey[int]()
TEST_SETTINGS = {
    "spark.master": "local[2]",
    # Small data: one partition after a shuffle, and no re-planning between stages.
    "spark.sql.shuffle.partitions": "1",
    "spark.sql.adaptive.enabled": "false",
    "spark.default.parallelism": "2",
    "spark.driver.memory": "2g",
}


# Files of minutes, which a worker must not start when the others are done.
LONG = ("test_readme.py", "test_pipeline.py", "test_kills_and_races.py", "test_launch.py", "test_keeping.py")
LONG += ("test_dedup.py", "test_near_duplicates.py", "test_bad_input.py", "test_cases.py", "test_gate.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


def pytest_configure() -> None:
    # Every JVM of the suite lives for minutes: the quick compiler alone takes a third less CPU than both. With it alone
    # Java keeps room for a fifth of the compiled code, and would be busy making room.
    quick = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m -XX:+UseSerialGC"
    os.environ.setdefault("JDK_JAVA_OPTIONS", quick)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[EXIT_STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    # As in the command line: native thread pools now and then abort a process that has done all its work.
    sys.stdout.flush()
    sys.stderr.flush()
    atexit._run_exitfuncs()
    os._exit(config.stash.get(EXIT_STATUS, 1))


@pytest.fixture(autouse=True)
def plain_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps `--debug` of one test, which sets a variable for the whole process, from those after it."""
    monkeypatch.setenv("HEADGATE_DEBUG", "")


@pytest.fixture(scope="session")
def spark() -> Iterator[Any]:
    from headgate.jobs.spark.session import start

    session = start(TEST_SETTINGS)
    yield session
    session.stop()


@pytest.fixture(scope="session")
def connect(spark: Any) -> Iterator[str]:
    """The address of Spark Connect's server in the suite's Spark."""
    from tests.connect import serving

    with serving(spark) as url:
        yield url


@pytest.fixture
def remote(connect: str) -> Iterator[Any]:
    """A session of Spark Connect; no classic one may be used beside it."""
    from tests.connect import connected

    with connected(connect) as session:
        yield session


@pytest.fixture(scope="session")
def landing_of() -> Callable[..., Path]:
    """Writes days of the real year into a folder."""
    from headgate.jobs.cli.samples import write_flights

    def write(folder: Path, last: str, first: str = "2013-01-01") -> Path:
        write_flights(folder, date.fromisoformat(first), date.fromisoformat(last))
        return folder

    return write


@pytest.fixture(scope="session")
def night(request: Any, landing_of: Any, tmp_path_factory: Any) -> Path:
    """A folder with three days of the real year landed, built and released. Tests read it and do not write.

    The worker that asks first builds it for all.
    """
    base: Path = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, built = shared / "night", shared / "night.built"
    with open(shared / "night.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            landing_of(folder / "landing", "2013-01-03")
            run_pipeline(request.getfixturevalue("spark"), folder)
            built.touch()
    return folder


@pytest.fixture
def own_night(night: Path, tmp_path: Path) -> Path:
    """A copy of `night` that a test may change."""
    shutil.copytree(night, tmp_path / "night")
    return tmp_path / "night"


@pytest.fixture
def in_session(spark: Any, tmp_path: Path, monkeypatch: Any, capsys: Any) -> Callable[[str], Command]:
    """Gives, for the name of a command, what runs it in this process, in the suite's session and a folder of its own.

    It gives exit code, standard output and error; lines of finished tables are left out of the error.
    """
    from headgate.jobs.cli import main as cli
    from headgate.jobs.cli import places

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(places, "spark_of", lambda environment: contextlib.nullcontext(lambda reads: spark))

    def run(name: str, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["headgate", name, *arguments, "--lake", "lake"])
        code = cli.exit_code()
        out, error = capsys.readouterr()
        return code, out, "".join(line for line in error.splitlines(True) if not line.startswith("["))

    return lambda name: partial(run, name)


@pytest.fixture
def command(in_session: Callable[[str], Command]) -> Command:
    """Runs `headgate dedup`."""
    return in_session("dedup")


def same(a: Any, b: Any) -> bool:
    """Equality in which NaN equals NaN and nothing else, null equals null, and types count."""
    if isinstance(a, float) and isinstance(b, float):
        return (math.isnan(a) and math.isnan(b)) or a == b
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return type(a) is type(b) and a == b


def plain_rows(df: Any, *columns: str) -> list[tuple[Any, ...]]:
    """Rows as sorted tuples of plain values, for exact comparison."""
    rows = [tuple(plain(v) for v in row) for row in (df.select(*columns) if columns else df).collect()]
    return sorted(rows, key=repr)


def plain(value: Any) -> Any:
    if hasattr(value, "asDict"):
        return value.asDict(recursive=True)
    return [plain(v) for v in value] if isinstance(value, list) else value


def assert_rows(df: Any, columns: list[str], expected: list[tuple[Any, ...]]) -> None:
    """The rows are exactly these, in any order."""
    found = plain_rows(df, *columns)
    wanted = sorted(expected, key=repr)
    assert len(found) == len(wanted) and all(same(a, b) for a, b in zip(found, wanted, strict=True)), (
        f"\nfound:  {found}\nwanted: {wanted}"
    )
