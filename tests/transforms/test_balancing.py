from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import assert_rows, plain_rows
from tests.transforms.frames import applied, frame, kept, rejected
from transforms.balancing.split import SplitByHash
from transforms.balancing.strata import SampleStrata, spread
from transforms.balancing.weights import ClassWeights
from transforms.step import StepError


def people(spark, sizes, split="train"):
    rows = [(s, i, split) for s, n in sizes.items() for i in range(n)]
    return frame(spark, "s string, i int, split string", *rows)


def counts(df):
    return dict(Counter(r["s"] for r in kept(df).select("s").collect()))


def test_split_is_stable_per_key_and_near_its_shares(spark):
    df = frame(spark, "k int, v int", *[(i % 2000, i) for i in range(4000)])
    step = SplitByHash(key=("k",), shares={"train": 0.7, "valid": 0.2, "test": 0.1}, seed=3)
    out = applied(step, df)
    assert (
        out.groupBy("k").agg({"split": "approx_count_distinct"}).where("`approx_count_distinct(split)` > 1").count()
        == 0
    )
    shares = Counter(r["split"] for r in out.select("k", "split").distinct().collect())
    assert abs(shares["train"] / 2000 - 0.7) < 0.04 and abs(shares["test"] / 2000 - 0.1) < 0.03
    again = applied(step, df.repartition(5))
    assert plain_rows(out, "v", "split") == plain_rows(again, "v", "split")
    other = applied(SplitByHash(key=("k",), shares=step.shares, seed=4), df)
    assert plain_rows(out, "v", "split") != plain_rows(other, "v", "split")


@pytest.mark.parametrize("shares", [{"train": 0.5}, {"fit": 1.0}, {"train": 1.5, "test": -0.5}])
def test_wrong_shares_are_refused(shares):
    with pytest.raises(StepError, match="shares"):
        SplitByHash(key=("k",), shares=shares).names_after(["k"], {})


def test_class_weights_balance_and_average_one(spark):
    rows = [("a", "train")] * 6 + [("b", "train")] * 2 + [(None, "train"), ("a", "test")]
    df = frame(spark, "y string, split string", *rows)
    out = applied(ClassWeights(label="y", into="w"), df)
    weights = {(r["y"], r["split"]): r["w"] for r in out.collect()}
    assert weights == {("a", "train"): 8 / 12, ("b", "train"): 2.0, (None, "train"): None, ("a", "test"): None}


@pytest.mark.parametrize("rows", [0, 3, 10])
def test_each_stratum_gets_exactly_its_rows(spark, rows):
    out = applied(SampleStrata(by=("s",), rows=rows), people(spark, {"a": 50, "b": 10, "c": 4}))
    expected = {s: min(rows, n) for s, n in {"a": 50, "b": 10, "c": 4}.items() if rows}
    assert counts(out) == expected
    assert rejected(out).count() == 64 - sum(expected.values())


def test_copies_name_their_parents_and_are_exact(spark):
    out = applied(SampleStrata(by=("s",), rows=10, max_copies=3), people(spark, {"a": 4, "b": 20}))
    assert counts(out) == {"a": 10, "b": 10}
    originals = {r["_row_id"] for r in out.where("_hg_made is null").collect()}
    made = out.where("_hg_made is not null").collect()
    assert len(made) == 6 and all(len(r["_parents"]) == 1 and r["_parents"][0] in originals for r in made)
    ids = [r["_row_id"] for r in kept(out).collect()]
    assert len(ids) == len(set(ids))


def test_samples_nest_and_do_not_depend_on_partitioning(spark):
    df = people(spark, {"a": 200, "b": 100})
    small = applied(SampleStrata(by=("s",), total=60), df)
    large = applied(SampleStrata(by=("s",), total=120), df.repartition(9))
    assert set(plain_rows(kept(small), "s", "i")) < set(plain_rows(kept(large), "s", "i"))
    assert counts(small) == {"a": 40, "b": 20}
    again = applied(SampleStrata(by=("s",), total=60), df.orderBy("i").repartition(5))
    assert plain_rows(kept(small), "s", "i") == plain_rows(kept(again), "s", "i")


def test_other_splits_are_never_touched(spark):
    df = people(spark, {"a": 30}).unionByName(people(spark, {"a": 30}, split="test"))
    out = applied(SampleStrata(by=("s",), rows=5), df)
    assert Counter(r["split"] for r in kept(out).collect()) == {"train": 5, "test": 30}


def test_null_strata_count_as_one(spark):
    df = frame(spark, "s string, i int", *[(None, i) for i in range(8)], *[("a", i) for i in range(8)])
    assert counts(applied(SampleStrata(by=("s",), rows=3), df)) == {None: 3, "a": 3}


def test_evidence_tells_hash_and_threshold(spark):
    out = applied(SampleStrata(by=("s",), rows=1), people(spark, {"a": 3}))
    for row in rejected(out).collect():
        assert int(row["evidence"]["hash"]) > int(row["evidence"]["threshold"])
        assert row["evidence"]["rows_of_stratum"] == "3" and row["evidence"]["target"] == "1"
    assert_rows(rejected(out), ["step"], [("sample_strata",)] * 2)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.text(min_size=1, max_size=3), st.integers(1, 1000), min_size=1, max_size=12),
    st.integers(0, 9000),
)
def test_spread_is_exact_and_never_above_its_caps(sizes, total):
    caps = {name: 2 * n for name, n in sizes.items()}
    shares = spread(total, {name: n**0.5 for name, n in sizes.items()}, caps)
    assert sum(shares.values()) == min(total, sum(caps.values()))
    assert all(0 <= shares[name] <= caps[name] for name in sizes)
