"""Runs of a pipeline do not work side by side: its lease, waiting for it, and what dead owners leave."""

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from headgate.jobs.errors import LostRace
from headgate.jobs.lake import lease as leases
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.lease import Lease, Term, held
from headgate.jobs.lake.processes import began, process_space, this_process
from headgate.jobs.lake.system import now
from tests.jobs.test_cli import here  # noqa: F401  (a fixture)
from tests.lakes import land, write_pipeline

NO_TIME = timedelta(0)


@pytest.fixture
def lake(tmp_path, monkeypatch) -> Lake:
    monkeypatch.setattr(leases, "PAUSE", 0.02)
    return Lake(str(tmp_path / "lake"))


def owned(lake: Lake, process: str, seen: timedelta | None = None, since: timedelta = NO_TIME, space: str = "") -> None:
    """A term of another process: begun `since` ago, with a last sign `seen` ago."""
    folder = Path(lake.root, "_system", "leases", "p")
    folder.mkdir(parents=True)
    facts = {"process": process, "space": space or process_space(), "run_id": "other"}
    facts |= {"since": (now() - since).isoformat()}
    (folder / "0000000007.json").write_text(json.dumps(facts))
    if seen is not None:
        (folder / "0000000007.sign").write_text(json.dumps({"seen": (now() - seen).isoformat(), "over": False}))


def files(lake: Lake) -> list[str]:
    return sorted(p.name for p in Path(lake.root, "_system", "leases", "p").iterdir())


def test_a_lease_has_one_owner_and_is_free_when_that_one_is_done(lake):
    told: list[str] = []
    with held(lake, "p", "first", NO_TIME, told.append) as first:
        host, pid, _ = this_process().split(" ")
        with pytest.raises(LostRace) as e, held(lake, "p", "second", NO_TIME, told.append):
            pass
        since = f"{first.newest().since:%Y-%m-%d %H:%M:%S} UTC"
        assert str(e.value) == f"another run of 'p' is at work: run first (process {pid} on {host}, since {since})"
        assert e.value.exit_code == 5
        with held(lake, "q", "second", NO_TIME, told.append):
            pass  # another pipeline
    with held(lake, "p", "third", NO_TIME, told.append) as third:
        assert third.number == 2 and files(lake) == ["0000000002.json"]
    assert told == [] and files(lake) == ["0000000002.json", "0000000002.sign"]


def process_that_ended() -> str:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host, _, began = this_process().split(" ")
    return f"{host} {ended.pid} {began}"


@pytest.mark.parametrize(
    ("process", "seen", "since", "free"),
    [
        ("ended", 0, 0, True),
        ("elsewhere 1 5", 4, 60, False),
        ("elsewhere 1 5", 6, 60, True),
        ("elsewhere 1 5", None, 4, False),
        ("elsewhere 1 5", None, 6, True),
        ("in a container", 4, 60, False),  # whose host has the same name
        ("in a container", 6, 60, True),
    ],
)
def test_the_lease_of_a_dead_owner_is_taken_with_a_note(lake, process, seen, since, free):
    space = "pid:[1]" if process == "in a container" else ""
    process = process if process.startswith("elsewhere") else process_that_ended()
    owned(lake, process, None if seen is None else timedelta(minutes=seen), timedelta(minutes=since), space)
    told: list[str] = []
    if not free:
        with pytest.raises(LostRace, match=r"run other \(process \d+ on \S+, since"):
            held(lake, "p", "mine", NO_TIME, told.append).__enter__()
        return
    with held(lake, "p", "mine", NO_TIME, told.append):
        assert files(lake) == ["0000000008.json"]
    assert len(told) == 1 and told[0].startswith("run other (") and "is gone without an end" in told[0]


@pytest.mark.parametrize("kind", ["json", "sign"])
def test_what_a_crash_of_the_machine_cut_short_keeps_nobody_out(lake, kind):
    owned(lake, "elsewhere 1 1", seen=timedelta(hours=1), since=timedelta(hours=1))
    Path(lake.root, "_system", "leases", "p", f"0000000007.{kind}").write_text("")
    with held(lake, "p", "next", NO_TIME, [].append) as lease:
        assert lease.number == 8


def test_of_many_at_once_one_takes_the_lease_each_time(lake):
    owned(lake, process_that_ended(), NO_TIME)
    for turn in range(5):
        barrier = threading.Barrier(12)

        def take(i: int, turn: int = turn, barrier: threading.Barrier = barrier) -> Lease | None:
            lease = Lease(lake, "p", f"{turn}-{i}")
            barrier.wait()
            return lease if lease.take() is None else None

        with ThreadPoolExecutor(12) as pool:
            (winner,) = filter(None, pool.map(take, range(12)))
        assert winner.newest().run_id == winner.run_id and files(lake) == [f"{8 + turn:010}.json"]
        winner.end()


def test_an_owner_that_was_taken_for_dead_notices_and_leaves_the_lease_alone(lake, monkeypatch):
    monkeypatch.setattr(leases, "EVERY", 0.02)
    with held(lake, "p", "slow", NO_TIME, print) as slow:
        slow.need()
        monkeypatch.setattr(Term, "is_gone", True)
        assert Lease(lake, "p", "quick").take() is None
        deadline = time.monotonic() + 10
        while not slow.lost and time.monotonic() < deadline:
            time.sleep(0.01)
        with pytest.raises(LostRace, match="took this one for dead"):
            slow.need()
    assert files(lake)[-1] == "0000000002.json"  # without a sign that it is over


def test_a_run_that_could_not_say_that_it_ended_keeps_no_other_of_its_process_out(lake, monkeypatch):
    """As where its keys for the store have expired."""
    told: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr(Lease, "sign", lambda *_, **__: 1 / 0)
        with held(lake, "p", "first", NO_TIME, print):
            assert Lease(lake, "p", "second").take().run_id == "first"
    with held(lake, "p", "third", NO_TIME, told.append) as third:
        assert third.number == 2
    assert len(told) == 1 and told[0].startswith("run first (")


def test_an_owner_gives_signs(lake, monkeypatch):
    monkeypatch.setattr(leases, "EVERY", 0.02)
    with held(lake, "p", "r", NO_TIME, print) as lease:
        first = lease.newest().seen
        deadline = time.monotonic() + 10
        while lease.newest().seen == first and time.monotonic() < deadline:
            time.sleep(0.01)
        assert lease.newest().seen > first


def test_a_run_waits_for_another_as_long_as_it_is_told_to(lake):
    first, told = held(lake, "p", "first", NO_TIME, print), []
    first.__enter__()
    with pytest.raises(LostRace):
        held(lake, "p", "second", timedelta(seconds=0.05), told.append).__enter__()
    threading.Timer(0.1, lambda: first.__exit__(None, None, None)).start()
    with held(lake, "p", "third", timedelta(seconds=20), told.append) as third:
        assert third.number == 2
    assert len(told) == 2 and all(line.startswith("waiting for run first (") for line in told)


def test_a_run_beside_another_ends_with_exit_5_and_one_line(tmp_path, lake, here):  # noqa: F811
    """It starts no Spark, and records nothing; --retries tries again, --wait waits."""
    write_pipeline(tmp_path, "  t: {source: {format: csv, path: '*.csv', schema: 'i INT'}, suite: any}\n")
    land(tmp_path, "a.csv", "i\n1\n")
    owned(lake, f"{this_process().split(' ')[0]} {os.getppid()} {began(os.getppid())}")
    for options, lines in (([], 1), (["--retries", "1"], 2), (["--wait", "1s"], 2)):
        code, out, error = here("run", str(tmp_path / "p.yaml"), "--lake", lake.root, *options)
        assert (code, out, len(error.splitlines())) == (5, "", lines), error
        assert error.splitlines()[-1].startswith("headgate: another run of 'p' is at work: run other (process ")
        assert lines == 1 or error.startswith(("retry: another run", "warning: waiting for run other")), error
    assert not (tmp_path / "lake" / "_system" / "runs").exists()
    code, _, error = here("run", str(tmp_path / "p.yaml"), "--wait", "soon")
    assert code == 2 and "'soon' is not a time like 90s, 30m or 2h" in error
