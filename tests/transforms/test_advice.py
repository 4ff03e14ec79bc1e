"""Advice on balancing: measured on held-out rows, and it may be to leave them."""

from collections import Counter

import numpy as np
import pytest

from headgate.jobs.pipeline.context import BuildContext
from headgate.transforms.balancing import advice
from headgate.transforms.balancing.advice import (
    Table,
    advise,
    balanced,
    best_cut,
    cuts_of,
    half_width,
    held_from,
    learned,
    run_of,
    table_from,
)
from headgate.transforms.balancing.auto import BalanceClasses
from headgate.transforms.step import StepError
from tests.transforms.frames import applied, columns_of, frame, kept

pytest.importorskip("sklearn")


def noisy(n=240):
    random = np.random.default_rng(0)
    labels = (np.arange(n) % 6 == 0).astype(int)
    return Table(random.normal(size=(n, 2)) + labels[:, None], random.integers(0, 3, size=(n, 1)), labels)


def test_the_best_cut_is_that_of_an_exhaustive_search():
    random = np.random.default_rng(1)
    chance, truth = np.round(random.random(200), 1), random.random(200) < 0.3
    f1, cut = best_cut(truth, chance)
    found = {c: 2 * (truth & (chance >= c)).sum() / ((chance >= c).sum() + truth.sum()) for c in np.unique(chance)}
    assert f1 == max(found.values()) == found[cut]


def test_training_rows_are_balanced_exactly():
    table, fit = noisy(), np.arange(0, 200)
    sizes = np.bincount(table.labels[fit])
    for method, wanted in (("oversample", sizes.max()), ("undersample", sizes.min()), ("smote", sizes.max())):
        x, y, weight = balanced(table, fit, method, 0)
        assert (np.bincount(y) == wanted).all() and len(x) == len(y) and weight is None
    _, y, weight = balanced(table, fit, "weights", 0)
    assert np.isclose(weight[y == 0].sum(), weight[y == 1].sum()) and np.isclose(weight.mean(), 1)


def test_a_method_is_taken_only_where_it_is_surely_better(monkeypatch):
    gains = {"nothing": 0.0, "weights": 0.1, "oversample": 0.3, "undersample": 0.0, "smote": 0.2}
    harms = {"oversample": 0.1}

    def measured(table, method, seed, folds):
        noise = 0.01 * seed
        return 0.5 + gains[method] + noise, 0.5, 0.1 + harms.get(method, 0) + noise / 10, 0.3

    monkeypatch.setattr(advice, "run_of", measured)
    found = advise(noisy())
    assert found.method == "smote" and "rises by 0.200 ± 0.000" in found.why
    gains |= {"smote": 0.0, "weights": 0.0}
    assert "oversample would raise the average precision, but worsen" in advise(noisy()).why
    gains["oversample"] = 0.0
    assert advise(noisy()).method == "nothing" and "leave it" in advise(noisy()).why
    assert advise(noisy()).lines()[0].startswith("balancing classes: nothing: no method is surely better")
    assert np.isclose(half_width([1.0, 2.0]), 12.706 * np.std([1, 2], ddof=1) / np.sqrt(2))


def test_measures_are_the_same_in_every_run():
    assert run_of(noisy(), "smote", 1, 2) == run_of(noisy(), "smote", 1, 2)
    table, names = table_from([[1.0, float("inf")]], [["u", "v"]], ["b", "a"])
    assert names == ["a", "b"] and table.labels.tolist() == [1, 0] and np.isnan(table.numbers[1, 0])


def test_the_best_cut_is_found_on_the_validation_rows_where_these_have_the_class():
    table, random = noisy(), np.random.default_rng(9)
    held = held_from(table.categories.astype(str).T.tolist(), ["often", "rare"], random.normal(size=(2, 80)) + 0.5,
                     [[*"0129"] * 20], ["rare", "often", "new", "often"] * 20)  # fmt: skip
    assert held.labels.tolist() == [1, 0, -1, 0] * 20 and held.categories[:4, 0].tolist() == [0, 1, 2, -1]
    (cut,) = cuts_of(table, ["often", "rare"], held, "weights", seeds=2)
    chance = learned(table, np.arange(240), held.matrix, "weights", 0)[:, 1]
    truth = held.labels == 1
    by_hand = {c: 2 * (truth & (chance >= c)).sum() / (20 + (chance >= c).sum()) for c in chance}
    assert cut.f1[0] == max(by_hand.values()) == by_hand[cut.cuts[0]] and cut.held and cut.name == "rare"
    assert (cut.rows, cut.members) == (80, 20) and len(cut.cuts) == 2 and min(cut.cuts) <= cut.value <= max(cut.cuts)
    assert cut.half[0] == 2 * (truth & (chance >= 0.5)).sum() / (20 + (chance >= 0.5).sum())
    alone = Table(held.numbers[1:2], held.categories[1:2], held.labels[1:2])
    (cross,) = cuts_of(table, ["often", "rare"], alone, "weights", seeds=2, folds=2)
    assert not cross.held and (cross.rows, cross.members) == (240, 40)
    assert cross.f1 == [run_of(table, "weights", seed, 2)[1] for seed in (0, 1)]
    three = Table(table.numbers, table.categories, np.arange(240) % 3)
    cuts = cuts_of(three, ["a", "b", "c"], held, "nothing", seeds=2, folds=2)
    assert [(c.name, c.held) for c in cuts] == [("a", True), ("b", True), ("c", False)]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"validation": "train"}, "another split"),
        ({"seeds": 1}, "seeds"),
        ({"sample": 3}, "sample"),
        ({"into": "a"}, "already"),
    ],
)
def test_options_that_cannot_be_are_refused(options, complaint):
    with pytest.raises(StepError, match=complaint):
        BalanceClasses(label="y", columns=("a",), **options).columns_after(columns_of("y", "a"), {})


@pytest.mark.slow
def test_classes_are_balanced_as_advised_or_as_asked(spark, tmp_path):
    random = np.random.default_rng(0)
    rows = [("rare" if i % 6 == 0 else "often", float(random.normal()), "uv"[i % 2], "train") for i in range(120)]
    rows += [(None, 1.0, "u", "train"), ("rare", 2.0, "u", "test")]
    df = frame(spark, "y string, x double, c string, split string", *rows)
    wanted = {"weights": (100, 20), "oversample": (100, 100), "undersample": (20, 20), "smote": (100, 100)}
    for method, (often, rare) in wanted.items():
        out = kept(applied(BalanceClasses(label="y", columns=("x", "c"), method=method), df))
        trained = Counter(r["y"] for r in out.collect() if r["split"] == "train")
        assert trained == {"often": often, "rare": rare, None: 1}
        found = {r["class_weight"] for r in out.collect() if r["y"] and r["split"] == "train"}
        assert found == ({0.6, 3.0} if method == "weights" else {1.0})
        assert {r["class_weight"] for r in out.collect() if r["split"] == "test"} == {None}
    step = BalanceClasses(label="y", columns=("x", "c"), method="auto", seeds=2, folds=2)
    places, trained = [], set()
    for shift in (None, 0.0, 1e9):  # whatever the validation rows are, training rows are what they are
        other = [("rare" if i % 3 else "often", i * 0.01 + (shift or 0), "w", "valid") for i in range(30)]
        valid = frame(spark, "y string, x double, c string, split string", *other)
        more = df if shift is None else df.unionByName(valid)
        context = BuildContext(spark, str(tmp_path), rows=more)
        out = step.run(more, context).where("split = 'train'").drop("_hg_rejected")
        trained.add(tuple(sorted(map(str, out.collect()))))
        assert context.warnings[0].startswith("balancing classes: ") and len(context.warnings) == 7
        (figure,) = context.figures
        assert figure["name"] == "best cut of the probability" and 0 < figure["value"] < 1
        places.append([figure["facts"][f] for f in ("found_on", "class", "rows", "of_class")])
        assert f"best cut of class ‹rare› on {places[-1][0]}: {figure['value']:.2f}" in context.warnings[-1]
    assert places[0] == ["cross-validated training rows, as split valid lacks rows", "rare", 120, 20]
    assert places[1] == places[2] == ["split valid", "rare", 30, 20] and len(trained) == 1
