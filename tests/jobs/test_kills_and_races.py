"""Runs that are killed, and runs that meet: nothing lost, nothing twice, nothing half published."""

import random
import shutil
from pathlib import Path

import pytest
from deltalake import DeltaTable, write_deltalake

from headgate.jobs.errors import LostRace
from headgate.jobs.keep import retention as keeping
from headgate.jobs.keep.restore import restore
from tests import chaos
from tests.lakes import Faults, again, answer, at_once, lake_of

pytestmark = pytest.mark.slow  # runs that die or meet within one process are in test_pipeline and test_affected


@pytest.fixture(scope="module")
def nights(spark, tmp_path_factory):
    """Built in the suite's session, which has other settings than the runs that are killed: the tables do not tell."""
    return chaos.prepare(tmp_path_factory.mktemp("chaos"), lambda folder: again(spark, folder))


def test_kills_at_phase_ends_one_after_the_other(nights, tmp_path):
    """Every run is killed a little later than the one before it; each takes up what the one before had staged."""
    night, calm = nights
    told = chaos.survive(night, tmp_path / "run", calm, [("phases", n) for n in (4, 9)])
    assert len(told) == 2


@pytest.mark.long
def test_kills_at_random_moments(nights, tmp_path):
    night, calm = nights
    choose = random.Random(20)
    told = chaos.survive(night, tmp_path / "run", calm, [("seconds", choose.uniform(6, 14)) for _ in range(2)])
    assert told


# -- races


@pytest.fixture
def place(nights, tmp_path) -> Path:
    shutil.copytree(nights[0], tmp_path / "race")
    return tmp_path / "race"


@pytest.mark.parametrize("runs", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_of_runs_at_once_the_losers_say_so(spark, nights, place, runs):
    ended = at_once(spark, runs, lambda session: again(session, place))
    lost = [e for e in ended if e is not None]
    for e in lost:
        assert isinstance(e, LostRace) and e.exit_code == 5 and "\n" not in str(e), e
    again(spark, place)  # whatever the winners left to do
    assert [r["number"] for r in lake_of(place).releases] == [1, 2]
    assert chaos.content(place) == nights[1]


def test_a_run_against_a_restore(spark, place):
    lake = lake_of(place)
    again(spark, place)
    chaos.write_night(place, 2)
    other = Faults(after={("raw_people", "stage"): lambda: restore(lake, [("raw_people", 0)], "r")})
    with pytest.raises(LostRace, match="table 'raw_people' was changed by another writer"):
        again(spark, place, progress=other)
    again(spark, place)  # the files of the nights that were undone come again
    assert answer(place, "select count(*) from raw_people") == [(180,)]


def test_a_run_against_a_vacuum(spark, nights, place):
    lake = lake_of(place)
    again(
        spark, place, progress=Faults(after={("raw_people", "stage"): lambda: keeping.vacuum(lake, 0, grace_hours=1)})
    )
    assert chaos.content(place) == nights[1]


def test_a_run_against_a_foreign_writer(spark, place):
    lake = lake_of(place)
    rows = DeltaTable(lake.path("people")).to_pyarrow_table().slice(0, 1)

    def append():
        write_deltalake(lake.path("people"), rows, mode="append")

    def disturbed():
        return Faults(before={("people", "publish"): append})

    with pytest.raises(LostRace, match="table 'people' was changed by another writer"):
        again(spark, place, progress=disturbed())
    assert len(lake.releases) == 1
    again(spark, place, progress=disturbed(), retries=1)  # again, but this time the run may try once more
    assert len(lake.releases) == 2


@pytest.mark.slow
def test_two_processes_at_once(nights, place):
    """On the command line: one wins, the other exits 5 with one clear line, or finds everything done."""
    processes = [chaos.start(place) for _ in range(2)]
    ended = [(p.communicate(timeout=300)[1], p.returncode) for p in processes]
    codes = sorted(code for _, code in ended)
    assert codes[0] == 0 and codes[1] in (0, 5), ended
    for told, code in ended:
        if code == 5:
            assert "Traceback" not in told and told.strip().splitlines()[-1].startswith("headgate: ")
    assert chaos.run_and_kill(place) is None
    assert chaos.content(place) == nights[1]
