"""Which records hold which keys: at once as in Spark, and no more of them than the driver may hold."""

import numpy as np
import pyarrow as pa
import pytest

from headgate.jobs.pipeline.context import BuildContext
from headgate.transforms.fusion import holders, renewal
from headgate.transforms.fusion.holders import FewHolders, ManyHolders, Tally, doubles, held, keyed
from headgate.transforms.fusion.meetings import Limits
from headgate.transforms.fusion.renewal import Touched
from headgate.transforms.fusion.values import Comparison
from headgate.transforms.rows import arrow_frame
from headgate.transforms.step import MakeAll
from tests.jobs.test_fuse import people

NOTHING = np.zeros(0, np.int64)
LIMITS = Limits(single=6, double=20, order=(NOTHING, NOTHING))


@pytest.fixture(scope="module")
def rows():
    """Return the keys of 300 people of two sources."""
    comparisons = tuple(Comparison(column=c, kind=k, why="") for c, k in (("name", "name"), ("city", "name")))
    cells = [[name, city] for name, _, city, _ in people(1, 300)]
    rid, src = pa.array(range(300)), pa.array([i % 2 for i in range(300)], pa.int32())
    name = pa.array([f"p{i}" for i in range(300)])
    columns = [rid, src, name, name, *(pa.array(c) for c in zip(*cells, strict=True))]
    records = pa.RecordBatch.from_arrays(columns, ["rid", "src", "id", "key", "c0", "c1"])
    return pa.Table.from_batches(keyed(comparisons, 0)([records]))


@pytest.fixture(scope="module")
def asked(rows):
    """Return the keys of the first ten records, their double keys, and the keys of all that are too common."""
    few = FewHolders(rows, 2)
    mine = held(few.named("rid", pa.array(range(10))))
    tally = few.count(np.unique(mine.key), LIMITS.single**2 // 2)
    over = tally.key[holders.pairs_of(tally.n) > LIMITS.single**2 // 2]
    return np.unique(mine.key), np.unique(doubles(mine, over, LIMITS).key), over


def test_keys_are_looked_up_in_spark_as_at_once(spark, rows, asked, tmp_path, monkeypatch):
    context = BuildContext(spark, str(tmp_path))
    few, many = FewHolders(rows, 2), ManyHolders(arrow_frame(spark, rows).repartition(3), 2, context)
    single, double, over = asked
    assert len(double) > 5 and len(over) > 3
    assert sorted(few.sizes()) == sorted(many.sizes()) == [(0, 150, 150), (1, 150, 150)]

    def same(one: Tally, other: Tally) -> bool:
        return bool((one.key == other.key).all() and (one.n == other.n).all())

    limit = LIMITS.single**2 // 2
    assert same(few.count(single, limit), many.count(single, limit))
    hits = [h.doubles(double, single, over, LIMITS) for h in (few, many)]
    assert same(*(h.tally() for h in hits))
    for tables in ([h.singles(single[::2]) for h in (few, many)], [h.of(double[::2]) for h in hits]):
        found = [sorted(map(repr, table.to_pylist())) for table in tables]
        assert found[0] == found[1] and len(found[0]) > 100
    # Each has a bound of what comes to the driver.
    for bound, n, ask, told in (
        ("HITS", len(found[0]) - 1, lambda: hits[1].of(double[::2]), "keys of records are shared"),
        ("HITS", len(double) - 1, hits[1].tally, "keys of changed records are counted"),
        ("COMMON", 0, lambda: many.count(single[:1], limit), "more than 1 keys are shared by many records"),
        ("FEW", 9, lambda: many.named("rid", pa.array(range(10))), "more than 9 records have keys that changed"),
    ):
        with monkeypatch.context() as patch, pytest.raises(MakeAll, match=told):
            patch.setattr(holders, bound, n)
            ask()


def test_records_that_are_compared_are_bounded(spark, monkeypatch):
    raw = arrow_frame(spark, pa.table({"rid": pa.array(range(9)), "c0": ["x" * 10] * 9, "c1": [None] * 9}))
    rid = np.arange(5)
    assert sorted(holders.some_of(raw, rid, 2)["rid"].to_pylist()) == rid.tolist()
    monkeypatch.setattr(holders, "MUCH", 50)
    assert len(holders.some_of(raw, rid, 2)) == 5
    monkeypatch.setattr(holders, "MUCH", 49)
    with pytest.raises(MakeAll, match="more than 49 characters in all"):
        holders.some_of(raw, rid, 2)
    monkeypatch.setattr(holders, "RECORDS", 4)
    with pytest.raises(MakeAll, match="more than 4 in all"):
        holders.some_of(raw, rid, 2)


def test_pairs_that_changed_records_meet_in_are_bounded(rows, asked, monkeypatch):
    few, (single, double, over) = FewHolders(rows, 2), asked
    touched = Touched(rid=np.arange(10), single=single, double=double, hits=[few.doubles(double, single, over, LIMITS)])

    def met():
        return [sorted(zip(*renewal.meetings(touched, few, linking), strict=True)) for linking in (False, True)]

    every = met()
    assert len(every[0]) > len(every[1]) > 100
    assert all(one < 10 or other < 10 for one, other, _ in every[0])
    monkeypatch.setattr(renewal, "AT_ONCE", 50)
    assert met() == every, "in parts as at once"
    monkeypatch.setattr(renewal, "PAIRS", len(every[0]) - 1)
    with pytest.raises(MakeAll, match="meet others more than"):
        met()
