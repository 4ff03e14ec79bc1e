import json
import math
from datetime import date

import numpy as np
import pytest

from headgate.transforms.cleaning.repair import RepairCells
from headgate.transforms.imputation import chain, choice
from headgate.transforms.imputation.auto import ImputeAuto
from headgate.transforms.imputation.choice import borrowed_gaps, choose, masked_cells, settled
from headgate.transforms.imputation.missingness import NullMarkers
from headgate.transforms.imputation.models import ImputeGaussian
from headgate.transforms.imputation.simple import ImputeMean, ImputeMedian, ImputeMode
from headgate.transforms.imputation.trees import ImputeTrees
from headgate.transforms.step import StepError
from headgate.transforms.steps import FITTED, options_of
from tests.conftest import plain_rows
from tests.transforms.frames import Telling, applied, columns_of, frame

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
    assert np.abs(chain.trees_of(numbers, x).sums(x)[:, 0] - numbers.predict(x)).max() < 1e-12
    for column in "cd":
        classes = ensemble.HistGradientBoostingClassifier(max_iter=5, random_state=0).fit(x, truth[column].astype(str))
        assert (
            np.abs(chain.trees_of(classes, x, classes.classes_.tolist()).odds(x) - classes.predict_proba(x)).max()
            < 1e-12
        )


def test_trees_of_another_form_are_refused_and_not_misread(table, monkeypatch):
    truth, _ = table
    x = np.column_stack([truth["a"], truth["b"]])
    learner = ensemble.HistGradientBoostingRegressor(max_iter=3, random_state=0).fit(x, truth["a"])
    monkeypatch.setattr(learner, "predict", lambda rows: np.ones(len(rows)))
    with pytest.raises(StepError, match=r"scikit-learn .* keeps boosted trees in a form that cannot be read"):
        chain.trees_of(learner, x)
    monkeypatch.delattr(learner, "_predictors")
    with pytest.raises(StepError, match="cannot be read"):
        chain.trees_of(learner, x)


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
    with pytest.raises(StepError, match="rounds: 0 is not"):
        applied(ImputeTrees(columns=("t",), rounds=0), frame(spark, "t int", (1,)))


def test_fitted_steps_survive_json(spark):
    df = frame(spark, "x double, y double", *((float(i), float(i * i)) for i in range(40)), (5.5, None))
    frozen = ImputeTrees(columns=("y",), using=("x",), rounds=1).fit(df, None)
    again = options_of(FITTED[frozen.name]).validate_json(options_of(type(frozen)).dump_json(frozen))
    assert plain_rows(again.apply(df)) == plain_rows(frozen.apply(df))


@pytest.mark.parametrize("seed", [-1, 20240131235959])
def test_any_whole_number_is_a_seed(seed):
    x = np.random.default_rng(0).normal(size=30)
    table = {"a": np.where(x > 1, NAN, x), "b": x, "c": np.array(["u", "v", None] * 10, dtype=object)}
    chosen, _ = choose(table, ["a", "c"], masking="pattern", rounds=1, seed=seed)
    assert {*chosen} == {"a", "c"}


def test_a_model_is_chosen_only_where_it_beats_mean_and_mode(masked, monkeypatch):
    monkeypatch.setattr(choice, "CELLS", 200)
    rng = np.random.default_rng(1)
    noise = np.where(rng.random(600) < 0.2, NAN, rng.normal(size=600))
    halves = np.where(np.arange(600) % 3 == 0, NAN, np.arange(600) % 3)  # 1 and 2: the median is one of them
    table = {**masked, "noise": noise, "halves": halves}
    chosen, scores = choose(table, list(table), masking="random", rounds=1)
    assert chosen["halves"].keys().isdisjoint({"median"}) and sum(chosen["halves"].values()) <= 1
    assert (
        not {"gaussian", "trees"} & set(chosen["noise"]) and chosen["c"] == {"trees": 1} and chosen["b"]["trees"] > 0.5
    )
    told = {(s["column"], s["method"]): s for s in scores}
    assert told["a", "simple"]["error"] == 1 and told["c", "trees"]["error"] < 0.6 and told["b", "trees"]["lead"] > 2
    assert told["b", "blend"]["error"] < told["b", "gaussian"]["error"]


def test_models_are_blended_and_what_is_unsure_is_drawn_to_the_mean():
    rng = np.random.default_rng(0)
    truth, noise = rng.normal(size=(2, 4000))
    found = {"simple": np.zeros(4000), "gaussian": truth + noise, "trees": truth + rng.normal(size=4000)}
    weights, scores = settled(truth, found, None)
    # Of two guesses with errors as large as the spread, a third of each is best; one alone is worth a half.
    assert weights == pytest.approx({"gaussian": 1 / 3, "trees": 1 / 3}, abs=0.03)
    assert scores[-1]["method"] == "blend" and scores[-1]["error"] == pytest.approx(math.sqrt(1 / 3), abs=0.02)
    assert abs(scores[1]["error"] - 1) < 0.05  # either alone is no better than the mean
    alone, _ = settled(truth, {k: v for k, v in found.items() if k != "trees"}, None)
    assert alone == pytest.approx({"gaussian": 1 / 2}, abs=0.03)
    assert settled(truth, found | {"gaussian": noise, "trees": -noise}, None)[0] == {"simple": 1.0}
    assert settled(truth, found, "trees")[0] == {"trees": 1.0}
    # One cell far off, where the models miss by as much as the mean, decides nothing.
    far = np.append(truth, 1e6)
    assert settled(far, {k: np.append(v, 0.0) for k, v in found.items()}, None)[0] == pytest.approx(weights, abs=0.01)


@pytest.mark.parametrize("cells", [0, 1, 2, 3])
def test_few_masked_cells_choose_the_simple_fill(cells):
    truth = np.arange(cells, dtype=float)
    found = {"simple": np.ones(cells), "gaussian": truth + 1.0, "trees": truth + 2.0}
    assert set(settled(truth, found, None)[0]) <= {"simple", "gaussian", "trees"}
    texts = np.array(["a"] * cells, dtype=object)
    assert settled(texts, {"simple": texts, "trees": texts}, None)[0] == {"simple": 1.0}


def test_columns_that_teach_little_do_no_harm(monkeypatch):
    """All null, constant, collinear, infinite, of one known cell; and tables of one row and of none."""
    monkeypatch.setattr(choice, "CELLS", 20)
    rng = np.random.default_rng(0)
    x = rng.normal(size=120)
    hole = lambda v: np.where(np.arange(120) % 7 == 0, NAN, v)  # noqa: E731
    table = {
        "x": hole(x), "twice": hole(2 * x), "none": np.full(120, NAN), "one": hole(np.full(120, 5.0)),
        "lone": np.where(np.arange(120) == 3, 1.0, NAN), "far": hole(np.where(np.arange(120) == 4, math.inf, x)),
        "huge": hole(1e308 * (-1.0) ** np.arange(120)), "mixed": hole(np.where(np.arange(120) == 5, 1e300, x)),
        "text": np.array([None] * 119 + ["a"], dtype=object), "blank": np.array([None] * 120, dtype=object),
    }  # fmt: skip
    with np.errstate(all="raise", under="ignore"):
        chosen, scores = choose(table, list(table), masking="random", rounds=1)
    assert {"none", "lone", "huge", "text", "blank"}.isdisjoint(chosen) and chosen["one"] == {"simple": 1.0}
    assert sum(chosen["twice"].values()) > 0.9 and all(math.isfinite(s["error"]) for s in scores)
    fitted = chain.fit_chain(table, list(table), rounds=1)
    out = chain.fill_chain(table, fitted, list(table))
    assert np.isnan(out["none"]).all() and (out["lone"] == 1).all() and (out["text"] == "a").all()
    for name in ("far", "mixed"):  # an infinity, and what is nearly one, counts as unknown here
        assert np.abs(out[name]).max() < 9
    assert (out["one"] == 5).all()
    for rows in (0, 1):
        assert choose({k: v[:rows] for k, v in table.items()}, list(table)) == ({}, [])
    unseen = {k: v[:2].copy() for k, v in table.items()} | {"text": np.array(["never seen", None], dtype=object)}
    assert list(chain.fill_chain(unseen, fitted, ["text"])["text"]) == ["never seen", "a"]


def test_a_lone_text_that_tells_nothing_gets_its_mode():
    """It gives no feature, nor has it any other column to read: a model of no column at all."""
    table = {"t": np.array(["a" if i % 3 else "b" for i in range(19)] + [None], dtype=object)}
    fitted = chain.fit_chain(table, ["t"], rounds=1)
    assert chain.fill_chain(table, chain.Chain.of(fitted.state()), ["t"])["t"][-1] == "a"
    chosen, _ = choose(table, ["t"], rounds=1)
    assert chosen == {"t": {"simple": 1.0}}


@pytest.mark.parametrize(
    ("step", "most"),
    [(ImputeMean, 1_000), (ImputeMode, 1_000), (ImputeGaussian, 500), (ImputeTrees, 200), (ImputeAuto, 200)],
)
def test_ten_thousand_columns_are_refused_before_anything_starts(step, most):
    columns = tuple(f"c{i}" for i in range(10_000))
    with pytest.raises(StepError, match=f"columns: .*{most:,}"):
        step(columns=columns).columns_after(columns_of(*columns), {})
    step(columns=columns[:most]).columns_after(columns_of(*columns), {})


def test_groups_are_tried_where_there_are_any():
    rng = np.random.default_rng(0)
    group = rng.integers(5, size=500)
    table = {"x": np.where(rng.random(500) < 0.1, NAN, 10.0 * group), "t": np.array(list("abcde"), dtype=object)[group]}
    chosen, _ = choose(table, ["x", "t"], groups=group.astype(str).astype(object), method="group", masking="random")
    assert chosen == {"x": {"group": 1.0}, "t": {"group": 1.0}}
    assert "group" in choose(table, ["x"], groups=group.astype(str).astype(object), masking="random", rounds=1)[0]["x"]


def test_masks_follow_what_is_missing():
    some = np.where(np.arange(1000) % 4 == 0, NAN, np.arange(1000.0))
    table = {"a": some, "b": some, "c": np.arange(1000.0)}
    masks = masked_cells(table, list(table), "pattern", 0.1, seed=0)
    assert (masks["a"] == masks["b"]).all() and 0.15 < masks["a"].mean() < 0.25
    assert 0.05 < masks["c"].mean() < 0.15 and not masks["a"][::4].any()
    turns = [masked_cells(table, ["c"], "random", 0.1, seed=0, turn=turn)["c"] for turn in range(10)]
    assert (np.sum(turns, axis=0) == 1).all()  # ten turns of a tenth mask each cell once
    high = masked_cells(table, ["c"], "threshold", 0.1, seed=0)["c"]
    assert high.sum() == 100 and not high[:500].any()
    groups = np.where(np.arange(1000) < 500, "x", None)
    gaps = {"a": np.where((np.arange(1000) < 500) & (np.arange(1000) % 5 == 0), NAN, 1.0)}
    mine = masked_cells(gaps, ["a"], "group", 0.1, seed=0, groups=groups)["a"]
    assert 70 < mine[:500].sum() < 95 and not mine[500:].any()


def test_columns_with_gaps_are_masked_half_as_much_as_others_at_least():
    """Where few rows lack all that another does, hardly any gaps are borrowed: some cells are drawn."""
    rng = np.random.default_rng(0)
    table = {f"c{j}": np.where(rng.random(2000) < 0.1, NAN, 1.0) for j in range(25)}
    borrowed = borrowed_gaps(np.isnan(np.column_stack([*table.values()])), np.random.default_rng([0, 0]))
    assert borrowed.mean() < 0.04  # else this proves nothing
    masks = masked_cells(table, list(table), "pattern", 0.1, seed=0)
    assert all(0.04 < mask.mean() < 0.06 for mask in masks.values())


def test_a_masked_row_lacks_what_another_row_lacks_and_no_more():
    rng = np.random.default_rng(0)
    lacking = rng.random((400, 12)) < 0.15
    new = borrowed_gaps(lacking, np.random.default_rng([0, 1]))
    masked = new.any(axis=1)
    patterns = {row.tobytes() for row in lacking}
    assert masked.sum() > 100 and not (new & lacking).any()
    assert all(row.tobytes() in patterns for row in (lacking | new)[masked])
    wide = borrowed_gaps(rng.random((400, 100)) < 0.1, np.random.default_rng([0, 1]))
    assert 0.08 < wide.mean() < 0.1  # no row lacks all that another does


def test_each_column_is_filled_as_was_chosen(spark):
    rng = np.random.default_rng(0)
    x = rng.normal(size=400).tolist()
    rows = [(i, v, None if i % 5 == 0 else 3 * v, None if i % 7 == 0 else i * 7919 % 13, None) for i, v in enumerate(x)]
    df = frame(spark, "id int, x double, y double, n int, none string", *rows)
    step = ImputeAuto(columns=("y", "n", "none"), using=("x",), rounds=1)
    frozen = step.fit(df, Telling())
    assert frozen.modelled == ("y",) and frozen.scores and frozen.missing["y"] == 80
    assert {c for part in frozen.constants for c in part["values"]} == {"n", "none"}
    again = options_of(FITTED[frozen.name]).validate_json(options_of(type(frozen)).dump_json(frozen))
    out = again.apply(df)
    assert plain_rows(out) == plain_rows(frozen.apply(df.repartition(3))) and dict(out.dtypes) == dict(df.dtypes)
    assert all(abs(r[1] - 3 * r[0]) < 0.5 and r[2] is not None for r in plain_rows(out, "x", "y", "n"))


def test_dates_groups_and_free_text_in_one_table(spark):
    days = [date(2024, 1, 1 + i % 20) for i in range(80)]
    rows = [
        (
            i,
            "ab"[i % 2],
            None if i % 8 == 0 else 10.0 * (i % 2),
            None if i % 10 == 0 else d,
            f"n {i}" if i % 9 else None,
        )
        for i, d in enumerate(days)
    ]
    df = frame(spark, "id int, g string, x float, d date, free string", *rows, (80, "a", math.inf, None, None))
    told = Telling()
    frozen = ImputeAuto(columns=("x", "d", "free"), by=("g",), method="group", rounds=1).fit(df, told)
    assert frozen.chosen["x"] == {"group": 1.0} and ["'free' holds free text" in w for w in told.warnings] == [True]
    out = {r[0]: r[1:] for r in plain_rows(frozen.apply(df), "id", "x", "d", "free", "_changed")}
    assert (out[0][0], out[80][0], out[0][2]) == (0.0, math.inf, None)
    assert date(2024, 1, 9) <= out[0][1] <= date(2024, 1, 12) and {e["column"] for e in out[0][3]} == {"x", "d"}


@pytest.mark.slow
@pytest.mark.parametrize("step", ["auto", "trees", "gaussian", "mean", "median", "mode", "markers", "repair"])
def test_poison_in_the_test_split_changes_nothing_in_the_training_split(spark, step):
    rng = np.random.default_rng(2)
    rows = [
        (i, float(x), None if i % 6 == 0 else float(2 * x), None if i % 9 == 0 else "ab"[int(x > 0)], "train")
        for i, x in enumerate(rng.normal(size=150))
    ]
    test = [(1000 + i, 1.0, None, None, "test") for i in range(20)]
    poison = [(1000 + i, 1e9 * (-1) ** i, -999.0, "poison", "test") for i in range(20)]
    numbers, both = {"columns": ("y",)}, {"columns": ("y", "t"), "using": ("x",)}
    made = {
        "auto": ImputeAuto(**both, rounds=1),
        "trees": ImputeTrees(**both, rounds=1),
        "gaussian": ImputeGaussian(**numbers, using=("x",)),
        "mean": ImputeMean(**numbers),
        "median": ImputeMedian(**numbers, by=("t",)),
        "mode": ImputeMode(columns=("t",)),
        "markers": NullMarkers(columns=("x", "y", "t"), learn="apply"),
        "repair": RepairCells(columns=("x", "t"), discover="apply", faults=None),
    }[step]
    schema = "id int, x double, y double, t string, split string"
    clean, dirty = (frame(spark, schema, *rows, *others) for others in (test, poison))
    a, b = (plain_rows(applied(made, df).where("split = 'train'")) for df in (clean, dirty))
    assert a == b and len(a) == 150
