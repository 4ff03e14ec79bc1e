import json
import math

import numpy as np
import pytest

from headgate.transforms.imputation import chain
from headgate.transforms.imputation.auto import ImputeAuto, choose, masked_cells
from headgate.transforms.imputation.trees import ImputeTrees
from headgate.transforms.step import StepError
from headgate.transforms.steps import FITTED, options_of
from tests.conftest import plain_rows
from tests.transforms.frames import applied, frame

ensemble = pytest.importorskip("sklearn.ensemble")
NAN = math.nan


@pytest.fixture(scope="module")
def table():
    """Columns of which none is linear in another, and where cells are masked."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=600)
    b = np.sin(2 * a) + 0.2 * rng.normal(size=600)
    c = np.array(["x", "y", "z"], dtype=object)[np.digitize(a * b, [0, 0.5])]
    truth = {"a": a, "b": b, "c": c, "d": np.where(a > 0, "true", "false").astype(object)}
    return truth, {k: rng.random(600) < 0.2 for k in truth}


@pytest.fixture(scope="module")
def masked(table):
    truth, gone = table
    return {k: np.where(gone[k], None if v.dtype == object else NAN, v) for k, v in truth.items()}


@pytest.fixture(scope="module")
def fitted(masked):
    return chain.fit_chain(masked, list(masked), rounds=1)


def test_trees_as_arrays_predict_as_scikit_learn_does(table):
    truth, _ = table
    x = np.column_stack([truth["a"], truth["b"]])
    numbers = ensemble.HistGradientBoostingRegressor(max_iter=10, random_state=0).fit(x, truth["a"] * truth["b"])
    assert np.abs(chain.trees_of(numbers).sums(x)[:, 0] - numbers.predict(x)).max() < 1e-12
    for column in "cd":
        classes = ensemble.HistGradientBoostingClassifier(max_iter=5, random_state=0).fit(x, truth[column].astype(str))
        assert np.abs(chain.trees_of(classes, classes.classes_).odds(x) - classes.predict_proba(x)).max() < 1e-12


def test_fills_are_nearer_than_mean_and_mode(table, masked, fitted):
    truth, gone = table
    out = chain.fill_chain(masked, fitted, list(masked))
    for column in "ab":
        error = (out[column] - truth[column])[gone[column]]
        assert (error**2).mean() < 0.7 * truth[column][gone[column]].var()
    assert (out["c"] == truth["c"])[gone["c"]].mean() > 0.7 and (out["d"] == truth["d"])[gone["d"]].mean() > 0.8
    assert all((out[k] == truth[k])[~gone[k]].all() for k in truth)


def test_state_survives_json_and_no_fill_depends_on_the_other_rows(masked, fitted):
    again = chain.Chain.of(json.loads(json.dumps(fitted.state(), allow_nan=False)))
    whole = chain.fill_chain(masked, fitted, list(masked))
    for start, rows in ((0, 1), (7, 30)):
        part = {k: v[start : start + rows] for k, v in masked.items()}
        out = chain.fill_chain(part, again, list(masked))
        assert all((out[k] == whole[k][start : start + rows]).all() for k in masked)


def test_the_step_fills_and_notes_in_any_partitioning(spark, masked):
    cells = [
        (i, *(None if x is None or x != x else x for x in row), None)
        for i, row in enumerate(zip(*(v[:200].tolist() for v in masked.values()), strict=True))
    ]
    df = frame(spark, "id int, a double, b float, c string, d string, none int", *cells).selectExpr(
        "* except (d)", "cast(d as boolean) d"
    )
    step = ImputeTrees(columns=("a", "c", "d", "none"), using=("b",), rounds=1)
    out = applied(step, df)
    assert dict(out.dtypes) == dict(df.dtypes)
    assert plain_rows(out) == plain_rows(applied(step, df.repartition(3)))
    for row in plain_rows(out, "id", "a", "c", "d", "none", "_changed", "b"):
        noted = {x["column"] for x in row[5]}
        before = cells[row[0]]
        assert None not in row[1:4] and row[4] is None
        assert noted == {name for name, i in (("a", 1), ("c", 3), ("d", 4)) if before[i] is None}
        assert (row[6] is None) == (before[2] is None)


def test_without_rows_nothing_is_learned_and_unseen_categories_pass(spark):
    df = frame(spark, "x double, t string", *((float(i), "ab"[i % 2]) for i in range(40)), (NAN, "new"), (None, None))
    step = ImputeTrees(columns=("x", "t"), rounds=1)
    assert not step.fit(df.where("t = '?'"), None).learned()
    out = plain_rows(applied(step, df).where("t not in ('a', 'b') or x is null or isnan(x)"), "x", "t")
    assert len(out) == 1 and out[0][1] == "new" and 0 <= out[0][0] <= 39


def test_what_cannot_be_filled_is_refused(spark):
    with pytest.raises(StepError, match="'t' is array<int>"):
        applied(ImputeTrees(columns=("t",)), frame(spark, "t array<int>", ([1],)))
    with pytest.raises(StepError, match="rounds must be"):
        applied(ImputeTrees(columns=("t",), rounds=0), frame(spark, "t int", (1,)))


def test_fitted_steps_survive_json(spark):
    df = frame(spark, "x double, y double", *((float(i), float(i * i)) for i in range(40)), (5.5, None))
    frozen = ImputeTrees(columns=("y",), using=("x",), rounds=1).fit(df, None)
    again = options_of(FITTED[frozen.name]).validate_json(options_of(type(frozen)).dump_json(frozen))
    assert plain_rows(again.apply(df)) == plain_rows(frozen.apply(df))


def test_a_model_is_chosen_only_where_it_beats_mean_and_mode(masked):
    rng = np.random.default_rng(1)
    noise = np.where(rng.random(600) < 0.2, NAN, rng.normal(size=600))
    methods, scores = choose({**masked, "noise": noise}, [*masked, "noise"], masking="random", rounds=1)
    assert methods["noise"] in ("simple", "median") and methods["b"] == methods["c"] == "trees"
    told = {(s["column"], s["method"]): s for s in scores}
    assert told["a", "simple"]["error"] == 1 and told["c", "trees"]["error"] < 0.6 and told["b", "trees"]["lead"] > 2


def test_masks_follow_what_is_missing_together():
    gone = {"a": np.arange(1000) % 4 == 0, "b": np.arange(1000) % 4 == 0, "c": np.zeros(1000, dtype=bool)}
    masks = masked_cells(gone, list(gone), "pattern", 0.1, np.random.default_rng(0))
    assert (masks["a"] == masks["b"]).all() and 0.15 < masks["a"].mean() < 0.25
    assert 0.05 < masks["c"].mean() < 0.15 and not (masks["a"] & gone["a"]).any()


def test_each_column_is_filled_as_was_chosen(spark):
    rng = np.random.default_rng(0)
    x = rng.normal(size=400).tolist()
    rows = [(i, v, None if i % 5 == 0 else 3 * v, None if i % 7 == 0 else i * 7919 % 13, None) for i, v in enumerate(x)]
    df = frame(spark, "id int, x double, y double, n int, none string", *rows)
    step = ImputeAuto(columns=("y", "n", "none"), using=("x",), rounds=1)
    frozen = step.fit(df, None)
    assert (*frozen.trees, *frozen.gaussian) == ("y",) and set(frozen.values) == {"n", "none"} and frozen.scores
    again = options_of(FITTED[frozen.name]).validate_json(options_of(type(frozen)).dump_json(frozen))
    out = again.apply(df)
    assert plain_rows(out) == plain_rows(frozen.apply(df.repartition(3))) and dict(out.dtypes) == dict(df.dtypes)
    assert all(abs(r[1] - 3 * r[0]) < 0.5 and r[2] is not None for r in plain_rows(out, "x", "y", "n"))
