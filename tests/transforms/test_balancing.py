from collections import Counter

import pytest
from pyspark.sql import functions as F

from headgate.jobs.pipeline.context import BuildContext
from headgate.transforms.balancing.split import SplitByHash, check_split, splits_after
from headgate.transforms.balancing.strata import SampleStrata
from headgate.transforms.balancing.targets import wanted_of
from headgate.transforms.balancing.weights import AssignWeights, ClassWeights, weights_of
from headgate.transforms.cleaning.bounds import CheckOutliersIqr, RejectRows
from headgate.transforms.cleaning.columns import Derive, DropColumns, Rename, SelectColumns
from headgate.transforms.fusion.join import JoinTable
from headgate.transforms.imputation.simple import ImputeMean
from headgate.transforms.rows import with_bookkeeping
from headgate.transforms.step import StepError
from headgate.transforms.steps import STEPS, options_of
from tests.conftest import assert_rows, plain_rows
from tests.transforms.frames import applied, columns_of, frame, kept, rejected

ONE_VALUE = {
    "sample_strata": {"by": ["y"], "targets": [{"values": ["1"], "rows": 1}, {"values": ["1.0"], "rows": 2}]},
    "mix_sources": {"by": ["y"], "shares": {"1": 0.5, "1.0": 0.5}},
    "class_weights": {"label": "y", "weights": {"1": 1.0, "1.0": 2.0}},
    "make_minority": {"label": "y", "columns": ["x"], "targets": {"1": 5, "1.0": 9}},
    "split_by_column": {"column": "y", "values": {"1": "train", "1.0": "test"}},
    "encode_ordinal": {"columns": ["y"], "order": {"y": ["1", "1.0"]}},
    "map_columns": {"columns": {"z": {"of": "y", "codes": {"1": "a", "1.0": "b"}}}},
}


@pytest.mark.parametrize("name", ONE_VALUE)
def test_two_texts_for_one_value_are_refused(spark, name):
    if name == "make_minority":
        pytest.importorskip("sklearn")
    df = frame(spark, "y double, x double", *[(float(i % 2), float(i)) for i in range(6)])
    with pytest.raises(StepError, match=r"'1' and '1\.0' are one (stratum|value of 'y', which is double)"):
        applied(options_of(STEPS[name]).validate_python(ONE_VALUE[name]), df)


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
        SplitByHash(key=("k",), shares=shares).columns_after(columns_of("k"), {})


def test_class_weights_balance_and_average_one(spark):
    rows = [("a", "train")] * 6 + [("b", "train")] * 2 + [(None, "train"), ("a", "test")]
    df = frame(spark, "y string, split string", *rows)
    out = applied(ClassWeights(label="y", into="w"), df)
    weights = {(r["y"], r["split"]): r["w"] for r in out.collect()}
    assert weights == {("a", "train"): 8 / 12, ("b", "train"): 2.0, (None, "train"): None, ("a", "test"): None}


def test_weights_by_effective_numbers_and_of_ones_own(spark):
    weights = weights_of({"a": 900, "b": 100}, "effective", 0.99)
    ratio = (1 - 0.99**900) / (1 - 0.99**100)
    assert abs(weights["b"] / weights["a"] - ratio) < 1e-9
    assert abs((900 * weights["a"] + 100 * weights["b"]) / 1000 - 1) < 1e-12
    assert weights_of({"a": 9, "b": 1}, "effective", 0) == {"a": 1.0, "b": 1.0}
    df = frame(spark, "y double, split string", (1.0, "train"), (2.0, "train"), (3.0, "test"))
    out = applied(ClassWeights(label="y", into="w", weights={"1": 0.5, "2.0": 4}), df)
    assert plain_rows(out, "y", "w") == [(1.0, 0.5), (2.0, 4.0), (3.0, None)]
    with pytest.raises(StepError, match=r"weights: none for class ‹2\.0›"):
        applied(ClassWeights(label="y", weights={"1": 0.5}), df)
    with pytest.raises(StepError, match="beta"):
        ClassWeights(label="y", beta=1.0).columns_after(columns_of("y"), {})


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


@pytest.mark.slow
def test_equal_rows_and_equal_ids_are_drawn_exactly_and_in_any_partitioning(spark, tmp_path):
    rows = [("cat", 1)] * 6 + [("dog", i) for i in range(6)] + [("eel", i // 2) for i in range(7)]
    df = with_bookkeeping(spark.createDataFrame([(*r, "train") for r in rows], "s string, i int, split string"))
    # Rows of cats are equal; all dogs have one row id, and differ; eels are equal in pairs, with one id for all.
    df = df.withColumn("_row_id", F.concat(F.lit("id of "), "s")).cache()
    for step, wanted in (
        (SampleStrata(by=("s",), rows=2), {"cat": 2, "dog": 2, "eel": 2}),
        (SampleStrata(by=("s",), rows=5, seed=3), {"cat": 5, "dog": 5, "eel": 5}),
        (SampleStrata(by=("s",), total=6), {"cat": 2, "dog": 2, "eel": 2}),
        (SampleStrata(by=("s",), rows=8, max_copies=2), {"cat": 8, "dog": 8, "eel": 8}),
    ):
        out = applied(step, df)
        assert counts(out) == wanted
        context = BuildContext(spark, str(tmp_path), rows=df.repartition(5))
        frozen = step.fit(df.repartition(5), context)
        assert plain_rows(kept(out), "s", "i") == plain_rows(kept(frozen.run(df.repartition(3), context)), "s", "i")
        options = options_of(type(frozen)).dump_python(frozen, mode="json")
        again = options_of(type(frozen)).validate_python(options)
        assert plain_rows(kept(again.run(df, context)), "s", "i") == plain_rows(kept(out), "s", "i")
    df.unpersist()


def test_zeros_of_both_signs_are_one_stratum_and_one_class(spark):
    rows = [(i, x, "train") for i, x in enumerate((0.0, -0.0, 0.0, float("nan"), float("nan"), None, 1.0))]
    df = frame(spark, "i int, x double, split string", *rows)
    assert kept(applied(SampleStrata(by=("x",), rows=1), df)).count() == 4
    weights = applied(ClassWeights(label="x", into="w"), df)
    assert {r["i"]: r["w"] for r in weights.collect()} == {
        **{i: 6 / 9 for i in (0, 1, 2)}, **{i: 6 / 6 for i in (3, 4)}, 5: None, 6: 2.0,
    }  # fmt: skip
    by_hand = applied(AssignWeights(label="x", weights={"1": 3.0, "0": 2.0}, into="w"), df)
    assert {r["i"]: r["w"] for r in by_hand.collect()} == {0: 2.0, 1: 2.0, 2: 2.0, 3: None, 4: None, 5: None, 6: 3.0}
    with pytest.raises(StepError, match="'i' is int, which does not hold 'x'"):
        applied(AssignWeights(label="i", weights={"x": 3.0}), df)


def test_copies_of_several_steps_have_row_ids_of_their_own(spark):
    first = SampleStrata(by=("s",), rows=4, max_copies=2).at("t.1")
    df = applied(first, people(spark, {"a": 2}))
    # The copies go, and the same step again makes others; then all are copied once more.
    df = applied(RejectRows(where="_parents is not null", reason="copies"), df)
    df = applied(SampleStrata(by=("s",), rows=4, max_copies=2).at("t.2"), df)
    out = applied(SampleStrata(by=("s",), rows=8, max_copies=2).at("t.3"), df)
    rows = out.select("_row_id", "_parents", "_hg_made").collect()
    ids = [r["_row_id"] for r in rows]
    assert len(ids) == len(set(ids)) == 2 + 2 + 2 + 4
    assert all((r["_parents"] is not None) == (r["_hg_made"] is not None) for r in rows)
    assert all(p in ids for r in rows for p in r["_parents"] or ())


def test_a_share_is_what_is_written(spark):
    assert wanted_of(SampleStrata(by=("s",), share=0.29).wish(None), {"a": 100}, 1) == {"a": 29}
    with pytest.raises(StepError, match="at least 0"):
        SampleStrata(by=("s",), share=float("nan")).columns_after(columns_of("s"), {})


def test_no_training_row_is_told_with_the_splits_there_are(spark):
    df = people(spark, {"a": 3}, split="training")
    for step in (
        SampleStrata(by=("s",), rows=1), ClassWeights(label="s"), ImputeMean(columns=("i",)),
        CheckOutliersIqr(columns=("i",)),
    ):  # fmt: skip
        with pytest.raises(StepError, match=r"no row is in the split 'train'.*training: 3 rows"):
            applied(step, df)
    assert applied(ImputeMean(columns=("i",)), df.limit(0)).count() == 0  # there is nothing to learn, and nothing lost


@pytest.mark.parametrize(
    ("steps", "splits"),
    [
        ([], set()),
        ([SplitByHash(key=("k",))], {"split"}),
        ([SplitByHash(key=("k",)), Rename(columns={"split": "fold"})], {"fold"}),
        ([SplitByHash(key=("k",)), Derive(columns={"split": "1"})], set()),
        ([SplitByHash(key=("k",)), SelectColumns(columns=("k",))], set()),
        ([SplitByHash(key=("k",)), DropColumns(columns=("k",))], {"split"}),
        ([JoinTable(table="o", on={"k": "k"}, columns={"split": "fold"}, matched="m")], {"split"}),
        ([JoinTable(table="o", on={"k": "k"}, columns={"split": "other"}, matched="m")], set()),
    ],
)
def test_the_split_is_followed_by_its_origin(steps, splits):
    found = set()
    for step in steps:
        found = splits_after(step, found, {"o": {"fold"}})
    assert found == splits
    learner = ClassWeights(label="k")
    if "split" in splits:
        check_split(learner, ["k", "split"], found)
    else:
        with pytest.raises(StepError, match="not made by split_by_hash"):
            check_split(learner, ["k", "split"], found)
    check_split(Derive(columns={"x": "1"}), ["k", "split"], set())
