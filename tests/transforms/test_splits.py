"""Splits by time, by a column and in exact numbers; folds."""

import math
from collections import Counter, defaultdict
from datetime import date, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import functions as F

from headgate.transforms.balancing.division import BagExactly, Dealt, FoldExactly, SplitExactly, parts_of
from headgate.transforms.balancing.multilabel import coding
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


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(st.text("ab", max_size=2), st.integers(1, 60), min_size=1), st.integers(1, 20), st.integers(1, 90)
)
def test_bags_have_as_many_rows_of_each_class_and_use_all_alike(sizes, bags, rows):
    for wanted in (rows, None):
        dealt = Dealt(bags, wanted)
        parts = dealt.parts(sizes)
        for name, size in sizes.items():
            mine = [b for b, n in zip(dealt.bags[name], parts[name], strict=True) for _ in range(n)]
            taken = min(size, wanted or min(sizes.values()))
            assert len(mine) == size and [sum(b) for b in zip(*mine, strict=True)] == [taken] * bags
            often = [sum(b) for b in mine]
            assert max(often) - min(often) <= (1 if taken * bags % size else 0) + (size % bags > 0)


@pytest.mark.parametrize(
    ("step", "complaint"),
    [
        (SplitExactly(shares={"train": 0.5}), "add up to 1"),
        (SplitExactly(by=("z",)), "no column 'z'"),
        (FoldExactly(folds=1), "folds must be"),
        (FoldExactly(into="t"), "already"),
        (BagExactly(label="s", bags=0), "bags must be"),
        (BagExactly(label="s", rows=0), "rows at least 1"),
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


def labels_of_rows(rows=3000, labels=14):
    """Lists of labels: the frequent ones come a thousand times, the rarest some ten times, often together."""
    random = np.random.default_rng(5)
    chances = 0.4 / (1 + np.arange(labels)) ** 1.6
    drawn = random.random((rows, labels)) < chances
    drawn[:, 3] |= drawn[:, 2] & (random.random(rows) < 0.7)
    return [[f"l{j}" for j in random.permutation(np.flatnonzero(row))] for row in drawn]


def worst_label(rows, parts, shares):
    """By how many rows the worst label is off its share of a part."""
    found, totals = Counter(), Counter()
    for labels, part in zip(rows, parts, strict=True):
        for label in set(labels or ()):
            found[label, part] += 1
            totals[label] += 1
    return max(abs(found[label, p] - n * share) for label, n in totals.items() for p, share in shares.items())


def test_labels_are_even_over_parts_as_like_sets_are_divided_one_after_another():
    rows, shares = labels_of_rows(), {0: 0.8, 1: 0.1, 2: 0.1}
    counts = Counter(label for labels in rows for label in labels)
    ranks = {label: i for i, label in enumerate(sorted(counts, key=lambda c: (counts[c], c)))}
    codes = coding(ranks, 3)(pa.array(rows, pa.list_(pa.string()))).to_pylist()
    assert len({*map(len, codes)}) == 1
    parts = parts_of(Counter(codes), [*shares.values()])
    given = {code: iter([p for p, n in enumerate(ns) for _ in range(n)]) for code, ns in parts.items()}
    assert worst_label(rows, [next(given[c]) for c in codes], shares) <= 4
    assert min(counts.values()) < 40 < 800 < max(counts.values())


@pytest.mark.slow
def test_lists_of_labels_are_strata(spark):
    lists = [*labels_of_rows(1500), [], [], [], None, None, ["l0", "l0"]]
    rows = [(i, labels) for i, labels in enumerate(lists)]
    df = frame(spark, "i int, l array<string>", *rows)
    shares = {"train": 0.8, "test": 0.2}
    step = SplitExactly(by=("l",), shares=shares)
    out = applied(step, df)
    found = {r["i"]: r["split"] for r in out.collect()}
    assert worst_label(lists, [found[i] for i in range(len(lists))], shares) <= 4
    sizes, parts = Counter(), Counter()
    for i, labels in rows:
        key = None if labels is None else frozenset(labels)
        if key is None or len(key) < 3:
            sizes[key] += 1
            parts[key, found[i]] += 1
    assert all(abs(parts[key, s] - n * share) < 1.000001 for key, n in sizes.items() for s, share in shares.items())
    mixed = df.withColumn("l", F.shuffle("l")).repartition(5)
    assert plain_rows(applied(step, mixed), "i", "split") == plain_rows(out, "i", "split")
    folds = {r["i"]: r["fold"] for r in applied(FoldExactly(folds=4, by=("l",)), df).collect()}
    assert worst_label(lists, [folds[i] for i in range(len(lists))], dict.fromkeys(range(4), 0.25)) <= 4


@pytest.mark.slow
def test_bags_are_balanced_by_the_smallest_class(spark):
    rows = [(i, "rare" if i % 20 == 0 else "odd" if i % 20 < 4 else "often", f"k{i % 70}") for i in range(400)]
    df = frame(spark, "i int, y string, k string", *rows, (-1, None, "k1"))
    out = applied(BagExactly(label="y", bags=8), df)
    found = {r["i"]: r for r in out.collect()}
    assert len(found) == 401 and found[-1]["bags"] is None
    for bag in range(8):
        mine = Counter(r["y"] for r in found.values() if r["bags"] and r["bags"][bag])
        assert mine == dict.fromkeys(("rare", "odd", "often"), 20)
    assert {sum(r["bags"]) for r in found.values() if r["y"] == "often"} == {0, 1}  # 160 of 320: none twice
    again = applied(BagExactly(label="y", bags=8), df.repartition(5))
    assert plain_rows(again, "i", "bags") == plain_rows(out, "i", "bags")
    of_keys = defaultdict(set)
    for r in applied(BagExactly(label="y", key=("k",), bags=3), df.where("y is not null")).collect():
        of_keys[r["k"]].add(tuple(r["bags"]))
    assert len(of_keys) == 70 and all(len(bags) == 1 for bags in of_keys.values())


def test_a_class_of_one_row_a_single_bag_and_a_single_split_have_all_that_is_asked(spark):
    rows = [*((i, "often") for i in range(4)), (9, "once"), (10, None)]
    df = frame(spark, "i int, y string", *rows)
    found = dict(plain_rows(applied(BagExactly(label="y", bags=3), df), "i", "bags"))
    assert found[9] == [1, 1, 1] and found[10] is None
    assert [sum(found[i][bag] for i in range(4)) for bag in range(3)] == [1, 1, 1]
    found = dict(plain_rows(applied(BagExactly(label="y", bags=1, rows=9), df), "i", "bags"))
    assert found == {**{i: [1] for i in (0, 1, 2, 3, 9)}, 10: None}
    out = applied(SplitExactly(by=("y",), shares={"train": 1.0}), df)
    assert plain_rows(out, "i", "split") == [(i, "train") for i in (0, 1, 10, 2, 3, 9)]


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


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("double", {"0": "train", "1": "test"}),
        ("decimal(5,2)", {"0.0": "train", "1": "test"}),
        ("boolean", {"false": "train", "true": "test"}),
        ("bigint", {"00": "train", "1": "test"}),
    ],
)
def test_a_column_of_any_type_is_taken_for_the_split(spark, kind, values):
    df = frame(spark, "i int", (0,), (1,)).withColumn("part", F.col("i").cast(kind))
    out = applied(SplitByColumn(column="part", values=values), df)
    assert plain_rows(kept(out), "i", "split") == [(0, "train"), (1, "test")]


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
