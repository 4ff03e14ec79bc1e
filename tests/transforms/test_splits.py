"""Splits by time, by a column and in exact numbers; folds."""

import math
from collections import Counter, defaultdict
from datetime import date, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.transforms.balancing.division import FoldExactly, SplitExactly, parts_of
from headgate.transforms.balancing.split import SplitByColumn, SplitByTime
from headgate.transforms.step import StepError
from tests.conftest import plain_rows
from tests.transforms.frames import applied, columns_of, frame, kept, rejected


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(st.text(min_size=1, max_size=3), st.integers(0, 500), min_size=1),
    st.lists(st.integers(1, 20), min_size=2, max_size=6),
)
def test_parts_of_strata_are_exact_to_a_row(sizes, weights):
    shares = [w / sum(weights) for w in weights]
    parts = parts_of(sizes, shares)
    for stratum, n in sizes.items():
        assert sum(parts[stratum]) == n
        assert all(abs(p - n * s) < 1 + 1e-6 for p, s in zip(parts[stratum], shares, strict=True))
    total = sum(sizes.values())
    for i, share in enumerate(shares):  # what is left over of many strata does not all go to the first part
        assert abs(sum(p[i] for p in parts.values()) - total * share) < len(shares)


@pytest.mark.parametrize(
    ("step", "complaint"),
    [
        (SplitExactly(shares={"train": 0.5}), "add up to 1"),
        (SplitExactly(by=("z",)), "no column 'z'"),
        (FoldExactly(folds=1), "folds must be"),
        (FoldExactly(into="t"), "already"),
        (SplitByTime(column="t", starts={"train": None}), "two splits or more"),
        (SplitByTime(column="t", starts={"train": None, "test": None}), "just one"),
        (SplitByTime(column="t", starts={"train": None, "test": "2020-01-01"}, gap_days=-1), "gap_days"),
        (SplitByColumn(column="t", values={"a": "test"}), "stand for 'train'"),
    ],
)
def test_splits_that_cannot_be_are_refused(step, complaint):
    with pytest.raises(StepError, match=complaint):
        step.columns_after(columns_of("s", "t"), {})


def test_exact_splits_and_folds_in_any_partitioning(spark):
    sizes = {"a": 101, "b": 10, "c": 3, None: 7}
    rows = [(s, i, f"k{i % 29}") for s, n in sizes.items() for i in range(n)]
    df = frame(spark, "s string, i int, k string", *rows)
    shares = {"train": 0.7, "valid": 0.1, "test": 0.2}
    step = SplitExactly(by=("s",), shares=shares, seed=3)
    out = applied(step, df)
    found = Counter((r["s"], r["split"]) for r in out.collect())
    for s, n in sizes.items():
        assert all(abs(found[s, name] - n * share) < 1 for name, share in shares.items()), found
    assert plain_rows(out, "s", "i", "split") == plain_rows(applied(step, df.repartition(7)), "s", "i", "split")
    folded = applied(FoldExactly(folds=4, by=("s",), seed=1), out)
    by_fold = Counter((r["s"], r["fold"]) for r in folded.collect() if r["fold"] is not None)
    trained = Counter(r["s"] for r in out.collect() if r["split"] == "train")
    assert all(r["fold"] is None for r in folded.collect() if r["split"] != "train")
    assert all(math.floor(n / 4) <= by_fold[s, f] <= math.ceil(n / 4) for s, n in trained.items() for f in range(4))


@pytest.mark.slow
def test_no_key_is_in_two_parts(spark):
    rows = [("ab"[i % 3 == 0], i, f"k{i % 40}") for i in range(200)]
    df = frame(spark, "s string, i int, k string", *rows)
    out = applied(SplitExactly(by=("s",), key=("k",), shares={"train": 0.5, "test": 0.5}), df)
    splits = defaultdict(set)
    for r in out.collect():
        splits[r["k"]].add(r["split"])
    assert all(len(s) == 1 for s in splits.values())
    assert abs(sum(s == {"train"} for s in splits.values()) - 20) <= 1
    again = applied(SplitExactly(by=("s",), key=("k",), shares={"train": 0.5, "test": 0.5}), df.repartition(5))
    assert plain_rows(out, "i", "split") == plain_rows(again, "i", "split")


@pytest.mark.slow
def test_splits_by_time_leave_a_gap_and_mark_what_has_no_time(spark):
    days = [date(2020, 1, d) for d in range(1, 21)]
    df = frame(spark, "d date", *[(d,) for d in days], (None,))
    starts = {"train": None, "valid": "2020-01-11", "test": "2020-01-16"}
    out = applied(SplitByTime(column="d", starts=starts, gap_days=2), df)
    found = {r["d"].day: r["split"] for r in kept(out).collect()}
    assert found == {**dict.fromkeys(range(1, 9), "train"), **dict.fromkeys(range(11, 14), "valid"),
                     **dict.fromkeys(range(16, 21), "test")}  # fmt: skip
    assert Counter(r["reason"] for r in rejected(out).collect()) == {"no_split": 5}
    times = frame(spark, "t timestamp", (datetime(2020, 1, 1, 11, 59),), (datetime(2020, 1, 1, 12),))
    out = applied(SplitByTime(column="t", starts={"train": None, "test": "2020-01-01T12:00:00Z"}), times)
    assert [r["split"] for r in out.orderBy("t").collect()] == ["train", "test"]
    with pytest.raises(StepError, match="start at one moment"):
        applied(SplitByTime(column="d", starts={"train": None, "a": "2020-01-02", "b": "2020-01-02"}), df)
    with pytest.raises(StepError, match="write a day as"):
        applied(SplitByTime(column="d", starts={"train": None, "a": "2020-13-02"}), df)


@pytest.mark.slow
def test_a_column_is_taken_for_the_split(spark):
    df = frame(spark, "split string, i int", ("train", 1), ("test", 2), (None, 3))
    out = applied(SplitByColumn(column="split"), df)
    assert plain_rows(kept(out), "split", "i") == [("test", 2), ("train", 1)]
    assert rejected(out).count() == 1
    named = frame(spark, "part int, i int", (0, 1), (1, 2), (2, 3))
    out = applied(SplitByColumn(column="part", values={"0": "train", "1": "test"}), named)
    assert plain_rows(kept(out), "split", "i") == [("test", 2), ("train", 1)]
    assert [r["evidence"]["value"] for r in rejected(out).collect()] == ["2"]
