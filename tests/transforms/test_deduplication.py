import pytest

from tests.conftest import assert_rows, plain_rows
from tests.transforms.frames import applied, frame, kept, rejected
from transforms.cleaning.bounds import RejectRows
from transforms.deduplication.exact import DropDuplicates
from transforms.step import StepError

NAN = float("nan")


def test_one_copy_stays_by_the_keep_rule(spark):
    df = frame(spark, "k string, v int", ("a", 1), ("a", 3), ("a", None), ("b", 2))
    out = applied(DropDuplicates(columns=("k",), keep="v desc"), df)
    assert_rows(kept(out), ["k", "v"], [("a", 3), ("b", 2)])
    winner = next(r["_row_id"] for r in out.where("v = 3").collect())
    assert {r["evidence"]["kept_row_id"] for r in rejected(out).collect()} == {winner}


def test_nulls_and_nan_are_equal_unless_distinct(spark):
    df = frame(spark, "k double, v int", (None, 1), (None, 2), (NAN, 3), (NAN, 4))
    assert kept(applied(DropDuplicates(columns=("k",)), df)).count() == 2
    out = kept(applied(DropDuplicates(columns=("k",), nulls="distinct"), df))
    assert_rows(out, ["v"], [(1,), (2,), (3,)] if out.where("v = 3").count() else [(1,), (2,), (4,)])


def test_identical_rows_leave_exactly_one(spark):
    df = frame(spark, "k string", ("a",), ("a",), ("a",))
    out = applied(DropDuplicates(columns=("k",)), df)
    assert kept(out).count() == 1 and rejected(out).count() == 2


def test_rows_marked_before_do_not_compete(spark):
    df = frame(spark, "k string, v int", ("a", 9), ("a", 1))
    marked = applied(RejectRows(where="v = 9", reason="impossible"), df)
    assert_rows(kept(applied(DropDuplicates(columns=("k",), keep="v desc"), marked)), ["v"], [(1,)])


def test_partitioning_does_not_matter(spark):
    rows = [(f"k{i % 7}", i % 3, i) for i in range(60)]
    df = frame(spark, "k string, g int, v int", *rows)
    answers = {
        repr(plain_rows(kept(applied(DropDuplicates(columns=("k",), keep="g"), df.repartition(n))), "k", "v"))
        for n in (1, 3, 16)
    }
    assert len(answers) == 1


@pytest.mark.parametrize("keep", ["v descending", "v desc nulls", "", "v,,k"])
def test_a_wrong_keep_rule_is_refused(keep):
    with pytest.raises(StepError, match="ORDER BY"):
        DropDuplicates(columns=("k",), keep=keep).names_after(["k", "v"], {})
