import math
from datetime import date
from decimal import Decimal

import numpy as np
import pytest

from headgate.transforms.cleaning.forest import Forest, fit_forest, score_forest
from headgate.transforms.cleaning.outliers import CheckOutliers
from headgate.transforms.cleaning.scores import ScoreOutliers
from headgate.transforms.rows import training_rows
from headgate.transforms.step import StepError
from headgate.transforms.steps import FITTED, options_of
from tests.conftest import plain_rows
from tests.transforms.frames import applied, columns_of, frame, rejected

NAN = math.nan
NUMBERS = [float(x) for x in range(1, 20)]


def numbers(spark, *more):
    return frame(spark, "id int, x double", *enumerate([*NUMBERS, *more]))


@pytest.mark.parametrize(
    ("method", "factor", "low", "high"),
    [
        ("iqr", None, 5.5 - 1.5 * 9, 14.5 + 1.5 * 9),
        ("mad", None, 10 - 3.5 * 1.4826022185056018 * 5, 10 + 3.5 * 1.4826022185056018 * 5),
        ("zscore", 2, 10 - 2 * np.std(NUMBERS, ddof=1), 10 + 2 * np.std(NUMBERS, ddof=1)),
        ("percentiles", 0.1, 2.8, 17.2),
    ],
)
def test_fences_of_each_method(spark, method, factor, low, high):
    frozen = CheckOutliers(columns=("x",), method=method, factor=factor).fit(numbers(spark, None, NAN, math.inf), None)
    assert [float(b) for b in frozen.columns["x"]] == pytest.approx([low, high], rel=1e-11)


def test_actions_are_those_of_bounds(spark):
    df = numbers(spark, 1000.0)
    out = applied(CheckOutliers(columns=("x",)), df)
    assert [(r[0], r[2]) for r in plain_rows(rejected(out, "x"))] == [(1000.0, "out_of_bounds")]
    clipped = applied(CheckOutliers(columns=("x",), action="clip"), df)
    assert max(r[0] for r in plain_rows(clipped, "x")) == 15.25 + 1.5 * 9.5
    assert plain_rows(applied(CheckOutliers(columns=("x",), action="null"), df).where("x is null"), "id") == [(19,)]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["iqr", "mad", "zscore", "percentiles"])
def test_fences_do_not_depend_on_the_order_of_rows(spark, method):
    rows = [(i, "ab"[i % 2], 1e6 + 0.1 * ((i * 7919) % 997)) for i in range(997)]
    df = frame(spark, "id int, g string, x double", *rows)
    step = CheckOutliers(columns=("x",), method=method, by=("g",))
    assert len({repr(step.fit(part, None)) for part in (df.repartition(5), df.orderBy("x"))}) == 1


def test_groups_have_their_own_fences_and_small_ones_those_of_all(spark):
    rows = [
        *(("a", x) for x in NUMBERS),
        *(("b", 1000 + x) for x in NUMBERS),
        ("a", 1010.0),
        ("c", 5000.0),
        (None, 5.0),
    ]
    df = frame(spark, "g string, x double", *rows)
    step = CheckOutliers(columns=("x",), by=("g",), least=10)
    assert [r[:2] for r in plain_rows(rejected(applied(step, df), "g", "x"))] == [("a", 1010.0), ("c", 5000.0)]
    clipped = applied(CheckOutliers(columns=("x",), by=("g",), least=10, action="clip"), df)
    high = [x for g, x in plain_rows(clipped, "g", "x") if g == "a"]
    assert max(high) < 40 and plain_rows(clipped, "_changed")


def test_flags_and_nulls_of_groups(spark):
    df = frame(spark, "g int, x double", *((1, x) for x in NUMBERS), (1, 99.0), (1, NAN), (1, None))
    step = CheckOutliers(columns=("x",), by=("g",), least=2, action="flag")
    flagged = applied(step, df)
    assert {r[0]: r[1] for r in plain_rows(flagged, "x", "x_out_of_bounds") if r[0] in (99.0, 1.0, None)} == {
        99.0: True, 1.0: False, None: False,
    }  # fmt: skip
    emptied = applied(CheckOutliers(columns=("x",), by=("g",), least=2, action="null"), df)
    assert emptied.where("x is null").count() == 3


def test_exact_types_keep_their_type(spark):
    rows = [(i, Decimal(f"{i}.25")) for i in range(1, 20)]
    df = frame(spark, "n int, d decimal(8,2)", *rows, (1000, Decimal("1000.00")))
    for by in ((), ("k",)):
        keyed = df.selectExpr("*", "'a' as k")
        out = applied(CheckOutliers(columns=("n", "d"), by=by, action="clip", least=2), keyed)
        assert dict(out.dtypes)["n"] == "int" and dict(out.dtypes)["d"] == "decimal(8,2)"
        assert max(plain_rows(out, "n"))[0] < 1000 and max(plain_rows(out, "d"))[0] < 1000


def test_no_spread_and_no_values_give_no_fence(spark):
    df = frame(spark, "x double, y double", (1.0, None), (1.0, None), (1.0, None), (2.0, None))
    for method in ("iqr", "zscore", "mad", "percentiles"):
        frozen = CheckOutliers(columns=("y",), method=method).fit(df, None)
        assert frozen.columns["y"] == (None, None) and not frozen.learned()
    assert CheckOutliers(columns=("x",), method="iqr", factor=1).fit(df.where("x = 1"), None).columns["x"] == (
        None,
        None,
    )


def test_fitted_fences_survive_json(spark):
    df = frame(spark, "g date, x double", *((date(2020, 1, 1), x) for x in NUMBERS), (date(2020, 1, 1), 99.0))
    frozen = CheckOutliers(columns=("x",), by=("g",), least=2).fit(training_rows(df), None)
    again = options_of(FITTED[frozen.name]).validate_json(options_of(type(frozen)).dump_json(frozen))
    assert plain_rows(rejected(again.apply(df), "x")) == plain_rows(rejected(frozen.apply(df), "x")) != []


@pytest.mark.parametrize("options", [{"factor": -1}, {"method": "percentiles", "factor": 0.5}, {"least": 1}])
def test_wrong_options_are_refused(options):
    with pytest.raises(StepError):
        CheckOutliers(columns=("x",), **options).columns_after(columns_of("x"), {})


@pytest.fixture(scope="module")
def cloud():
    values = np.random.default_rng(0).normal(size=(2000, 3))
    values[:20] += 6
    return values


@pytest.mark.parametrize("seed", [-1, 20240131235959])
def test_any_whole_number_is_a_seed(cloud, seed):
    pytest.importorskip("sklearn")
    assert len(score_forest(cloud, fit_forest(cloud[:99], ("a", "b", "c"), trees=2, seed=seed))) == len(cloud)


def test_scores_are_those_of_scikit_learn(cloud):
    ensemble = pytest.importorskip("sklearn.ensemble")
    forest = fit_forest(cloud, ("a", "b", "c"), seed=3)
    theirs = ensemble.IsolationForest(n_estimators=100, max_samples=256, random_state=3).fit(cloud.astype(np.float32))
    scores = score_forest(cloud, forest)
    assert np.abs(scores + theirs.score_samples(cloud.astype(np.float32))).max() < 1e-12
    again = Forest.of(
        options_of(FITTED["score_by_forest"])
        .validate_python({"columns": ["a"], "forest": forest.state(), "cut": 1})
        .forest
    )
    assert (score_forest(cloud, again) == scores).all()


@pytest.mark.slow
def test_outlying_rows_are_rejected_in_any_partitioning(spark, cloud):
    pytest.importorskip("sklearn")
    df = frame(spark, "a double, b double, c double", *map(tuple, cloud.tolist()), (None, NAN, math.inf))
    step = ScoreOutliers(columns=("a", "b", "c"), action="reject", share=0.01)
    out = applied(step, df)
    gone = plain_rows(rejected(out, "a"))
    assert 10 <= len(gone) <= 20 and all(r[0] > 2 and r[2] == "outlying_row" for r in gone)
    assert repr(plain_rows(out)) == repr(plain_rows(applied(step, df.repartition(7))))
    assert plain_rows(out.where("a is null and c is not null").selectExpr("outlier_score < .6")) == [(True,)]


def test_without_rows_there_is_no_score(spark):
    pytest.importorskip("sklearn")
    df = frame(spark, "a double")
    assert ScoreOutliers(columns=("a",)).fit(df, None).learned() is False
    assert plain_rows(applied(ScoreOutliers(columns=("a",), action="flag"), df)) == []


@pytest.mark.parametrize("options", [{"share": 0}, {"above": 2}, {"trees": 0}, {"columns": ()}])
def test_wrong_options_of_scores_are_refused(options):
    with pytest.raises(StepError):
        ScoreOutliers(**{"columns": ("x",), **options}).columns_after(columns_of("x"), {})
