from types import SimpleNamespace

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from pyspark.errors import AnalysisException

from headgate.jobs.errors import LostRace
from headgate.jobs.lake.conflicts import TRIES, VersionTaken, is_conflict, retrying


@pytest.mark.parametrize(
    "error",
    [
        CommitFailedError("version 3 exists"),
        OSError("Object at location x already exists"),
        VersionTaken("version 3 exists"),
    ],
)
def test_conflicts_are_recognised(error):
    assert is_conflict(error)


@pytest.mark.parametrize(
    "error",
    [
        DeltaError("Generic error: no space"),
        TableNotFoundError("x"),
        OSError("No space left on device"),
        AnalysisException("the column a already exists"),
        ValueError("already exists"),
    ],
)
def test_other_errors_are_no_conflicts(error):
    assert not is_conflict(error)


def test_a_table_that_another_writer_created_or_changed_is_a_conflict(tmp_path):
    rows = pa.table({"a": [1]})
    write_deltalake(str(tmp_path), rows)
    with pytest.raises(DeltaError) as e:
        write_deltalake(str(tmp_path), rows, mode="error")
    assert is_conflict(e.value)
    late = DeltaTable(str(tmp_path))
    DeltaTable(str(tmp_path)).delete()
    with pytest.raises(DeltaError) as e:
        late.delete("a = 1")
    assert is_conflict(e.value)


@pytest.fixture
def pauses(monkeypatch):
    """The pauses between attempts, which the test does not wait for."""
    found = []
    monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=found.append))  # other threads sleep as they do
    return found


def test_a_conflict_is_tried_again_after_growing_random_pauses(pauses):
    tries = 0
    for attempt in retrying():
        with attempt:
            tries += 1
            if tries < 12:
                raise CommitFailedError("x")
    assert tries == 12 and len(pauses) == 11 and len(set(pauses)) > 6 and all(0 <= p <= 1 for p in pauses)
    assert pauses[0] <= 0.04 and max(pauses) > 0.04


def test_the_last_conflict_is_raised_as_it_is_or_as_what_was_asked_for(pauses):
    for otherwise, kind in ((None, CommitFailedError), (LostRace("lost"), LostRace)):
        tries = 0
        with pytest.raises(kind) as e:
            for attempt in retrying(otherwise=otherwise):
                with attempt:
                    tries += 1
                    raise CommitFailedError("x")
        assert tries == TRIES
        assert e.value.__cause__ is None if otherwise is None else isinstance(e.value.__cause__, CommitFailedError)


def test_other_errors_are_raised_at_once(pauses):
    tries = 0
    with pytest.raises(ValueError, match="x"):
        for attempt in retrying():
            with attempt:
                tries += 1
                raise ValueError("x")
    assert tries == 1 and not pauses
