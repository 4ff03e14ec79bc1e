"""Predictions of several models fused: votes, means, folds, bags, stacking."""

import random

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from headgate.transforms.balancing.folds import AssignBags, AssignFolds
from headgate.transforms.fusion.predictions import CombinePredictions
from headgate.transforms.fusion.stacking import PredictStack, StackPredictions, fit_stack, predicted
from headgate.transforms.step import StepError
from tests.conftest import plain_rows
from tests.transforms.frames import applied, frame, kept, rejected

MODELS = "id int, model string, label string, p double, q double"


def test_votes_and_means_of_models(spark):
    rows = [
        (1, "a", "x", 0.9, 0.1),
        (1, "b", "y", 0.2, 0.8),
        (1, "c", "y", None, float("nan")),
        (2, "a", "y", 0.5, 0.5),
        (2, "b", "x", 0.5, 0.5),
        (3, "a", None, None, None),
        (4, "b", "z", 1.0, 0.0),
        (4, "b", "z", 1.0, 0.25),
        (5, None, "x", 1.0, 0.0),
    ]
    df = frame(spark, MODELS, *rows)
    step = CombinePredictions(
        by=("id",), model="model", label="label", scores=("p", "q"), best="best", weights={"a": 2.0, "c": 0.5}
    )
    out = applied(step, df)
    shown = ("id", "models", "label", "label_share", "label_tie", "p", "q", "best")
    found = {r[0]: r[1:] for r in plain_rows(kept(out), *shown)}
    second = found.pop(4)
    assert second[:5] == (1, "z", 1.0, False, 1.0) and second[5] in (0.0, 0.25)
    assert found == {
        1: (3, "x", pytest.approx(2 / 3.5), False, pytest.approx(2 / 3), pytest.approx(1 / 3), "p"),
        2: (2, "y", pytest.approx(2 / 3), False, 0.5, 0.5, "p"),
        3: (0, None, None, False, None, None, None),
    }
    marked = {
        (r[1], r[2]["model"] if "model" in r[2] else r[2]["id"])
        for r in plain_rows(rejected(out), "step", "reason", "evidence")
    }
    assert marked == {("repeated_prediction", "b"), ("missing_model", "5")}
    plain = applied(CombinePredictions(by=("id",), model="model", label="label"), df)
    votes = {r[0]: r[1:] for r in plain_rows(kept(plain), "id", "label", "label_share", "label_tie")}
    assert votes[1] == ("y", pytest.approx(2 / 3), False) and votes[2] == ("x", 0.5, True)


def test_weights_of_a_model_that_is_not_there(spark):
    far = float("inf")
    df = frame(spark, MODELS, (1, "a", "x", 0.9, far), (1, "bert", "y", 0.3, -far))
    step = CombinePredictions(by=("id",), model="model", label="label", weights={"berd": 9.0})
    with pytest.raises(StepError) as error:
        applied(step, df)
    assert str(error.value) == "weights: no record is of 'berd' — did you mean ‹bert›? (in 'model': ‹a›, ‹bert›)"
    both = {"a": 1.0, "bert": 2.0, "brings no rows today": 3.0}
    step = CombinePredictions(by=("id",), model="model", scores=("p", "q"), best="best", weights=both)
    assert plain_rows(kept(applied(step, df)), "p", "q", "best") == [(pytest.approx(0.5), None, "p")]


def test_folds_and_bags_by_entity(spark):
    df = frame(spark, "id int, entity int", *((i, i // 3) for i in range(3000)))
    out = AssignBags(by=("entity",), bags=3).apply(AssignFolds(by=("entity",)).apply(df))
    rows = out.select("entity", "fold", "bags").collect()
    of = {}
    for r in rows:
        assert of.setdefault(r["entity"], (r["fold"], tuple(r["bags"]))) == (r["fold"], tuple(r["bags"]))
    sizes = np.bincount([f for f, _ in of.values()])
    assert len(sizes) == 5 and sizes.min() > 140 and sizes.max() < 260
    bags = np.array([b for _, b in of.values()])
    assert abs(bags.mean() - 1) < 0.06 and abs((bags > 0).mean() - 0.632) < 0.03  # Breiman's 63.2 %
    assert abs(np.corrcoef(bags[:, 0], bags[:, 1])[0, 1]) < 0.1 and bags.max() <= 7


def stacked(n=600, seed=3):
    """Return predictions of three models of unlike worth, the truth, and folds."""
    r = np.random.default_rng(seed)
    y = r.integers(0, 3, n)
    x = np.stack([(y == 1) + r.normal(0, 0.5, n), (y == 2) + r.normal(0, 0.5, n), r.normal(0, 1, n)], axis=1)
    return x, y, r.integers(0, 4, n)


def test_a_stack_tells_each_row_by_the_model_that_did_not_see_its_fold():
    x, y, fold = stacked()
    step = StackPredictions(columns=("a", "b", "c"), target="y", by=("e",), into="s", folds=4)
    classes, weights, told = fit_stack(x, [str(v) for v in y], fold, step)
    assert classes == ("0", "1", "2") and len(weights) == 5
    p = predicted(weights, "logistic", fold, x)
    for k in range(4):
        seen = x[fold != k]
        scale = seen.std(axis=0)
        other = LogisticRegression(max_iter=1000).fit((seen - seen.mean(axis=0)) / scale, y[fold != k])
        wanted = other.predict_proba((x[fold == k] - seen.mean(axis=0)) / scale)
        assert np.allclose(p[fold == k], wanted, atol=1e-9)
    right = (p.argmax(axis=1) == y).mean()
    assert right > 0.72 and f"{right:.1%} are right" in told
    one_by_one = np.concatenate([predicted(weights, "logistic", fold[i : i + 1], x[i : i + 1]) for i in range(50)])
    assert (one_by_one == p[:50]).all(), "no row's result depends on those beside it"
    number = StackPredictions(columns=("a", "b", "c"), target="y", by=("e",), into="s", folds=4, how="ridge")
    classes, weights, told = fit_stack(x, y.astype(float), fold, number)
    assert not classes and told.startswith("its error (RMSE) is 0.")
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    assert np.allclose(predicted(weights, "ridge", np.full(600, 4), x)[:, 0], Ridge(alpha=1.0).fit(z, y).predict(z))


def test_a_class_that_one_fold_alone_has():
    x = np.arange(12, dtype=float)[:, None]
    target, fold = ["a"] * 6 + ["b"] * 5 + ["c"], np.array([0, 1] * 6)
    step = StackPredictions(columns=("a",), target="y", by=("e",), into="s", folds=3)
    classes, weights, _ = fit_stack(x, target, fold, step)
    p = predicted(weights, "logistic", fold, x)
    assert (
        classes == ("a", "b", "c") and p[11, 2] < 1e-200 and np.isfinite(p).all() and (p[:4].argmax(axis=1) == 0).all()
    )
    assert weights[2] == weights[3], "a fold without rows has the model of all"
    with pytest.raises(ValueError, match="one value"):
        fit_stack(x, ["a"] * 12, fold, step)
    with pytest.raises(ValueError, match="101 classes"):
        fit_stack(np.zeros((101, 1)), [str(i) for i in range(101)], np.zeros(101, np.int64), step)


def test_stacking_in_spark(spark):
    r = random.Random(1)
    rows = []
    for i in range(120):
        y = i % 2
        a, b = y + r.gauss(0, 0.4), r.random()
        target = None if i >= 110 else "yn"[y]
        rows.append((i, i // 4, {5: None, 6: float("-inf")}.get(i, a), b, target))
    df = frame(spark, "id int, e int, a double, b double, y string", *rows)
    step = StackPredictions(columns=("a", "b"), target="y", by=("e",), into="s")
    out = applied(step, df.repartition(3))
    found = {x["id"]: x for x in AssignFolds(by=("e",)).apply(out).collect()}
    assert all(found[i]["s_fold"] == (found[i]["fold"] if i < 110 else None) for i in range(120))
    assert all(found[i]["s"] is None and found[i]["s_probabilities"] is None for i in (5, 6))
    assert sum(found[i]["s"] == "yn"[i % 2] for i in range(120)) > 95
    assert sum(found[7]["s_probabilities"].values()) == pytest.approx(1)
    like = {"columns": ("a", "b"), "target": "y", "by": ("e",), "into": "s", "folds": 1, "seed": 0, "how": "ridge"}
    stack = PredictStack(**like, classes=(), weights=(((5.0, 0.0, 0.0),), ((7.0, 0.0, 0.0),)))
    told = {x["id"]: x["s"] for x in stack.apply(df).collect()}
    new = {x["id"]: (x["s"], x["s_fold"]) for x in stack.for_new_rows().apply(df).collect()}
    assert (told[1], told[111], new[1]) == (5.0, 7.0, (7.0, None))


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (CombinePredictions(by=(), label="y"), "by: name the columns"),
        (CombinePredictions(by=("id",), model="m"), "name a label to vote on"),
        (CombinePredictions(by=("id",), model="m", scores=("y",)), "scores: 'y' is string, not a number"),
        (CombinePredictions(by=("id",), model="m", scores=("a",), best="b"), "best: needs two scores"),
        (CombinePredictions(by=("id",), model="m", label="y", weights={"x": -1.0}), "weights: -1.0 of 'x'"),
        (CombinePredictions(by=("id",), model="id", label="y"), "'id' is named twice"),
        (StackPredictions(columns=("a", "y"), target="y", by=("id",), into="s"), "and not the target"),
        (StackPredictions(columns=("m",), target="y", by=("id",), into="s"), "'m' is string, not a number"),
        (StackPredictions(columns=("a",), target="y", by=("id",), into="s", how="ridge"), "'y' is string"),
        (StackPredictions(columns=("a",), target="y", by=("id",), into="a"), "there is a column 'a' already"),
        (AssignFolds(by=()), "by: name the columns"),
        (AssignFolds(by=("id",), folds=1), "folds: 1 is not 2 to 1,000"),
        (AssignBags(by=("id",), bags=0), "bags: 0 is not 1 to 1,000"),
    ],
)
def test_predictions_that_cannot_be_fused(step, told):
    with pytest.raises(StepError) as error:
        step.columns_after({"id": "int", "m": "string", "y": "string", "a": "double"}, {})
    assert told in str(error.value)
