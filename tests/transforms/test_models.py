import math
from datetime import date

import numpy as np
import pytest

from headgate.transforms.imputation.gaussian import fill, fit_rows
from headgate.transforms.imputation.models import ImputeGaussian
from headgate.transforms.step import StepError
from headgate.transforms.steps import FITTED, options_of
from tests.conftest import plain_rows
from tests.transforms.frames import applied, columns_of, frame

NAN = math.nan


@pytest.fixture(scope="module")
def table():
    """A table of normal columns, and where cells are masked."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(3000, 5)) @ rng.normal(size=(5, 5))
    return truth, rng.random(truth.shape) < 0.2


def test_a_model_is_nearer_than_the_mean_and_knows_what_it_cannot(table):
    truth, gone = table
    values = np.where(gone, NAN, truth)
    model = fit_rows(values, tuple("abcde"))
    error = (fill(values, model) - truth)[gone]
    assert (error**2).mean() < 0.6 * ((truth - model.mean)[gone] ** 2).mean()
    assert (fill(values, model)[~gone] == values[~gone]).all()
    draws = fill(values, model, ids=np.arange(len(values), dtype=np.uint64), seed=1)
    spread = (draws - truth)[gone]
    assert 1.7 < (spread**2).mean() / (error**2).mean() < 2.3  # a draw errs by its own spread as well


def test_collinear_constant_and_empty_columns_do_no_harm(table):
    truth, gone = table
    values = np.where(gone, NAN, truth)
    values[:, 1], values[:, 2], values[:, 3] = 7.0, NAN, values[:, 0]
    values[5, 4] = math.inf
    filled = fill(values, fit_rows(values, tuple("abcde")))
    assert np.isnan(filled[:, 2]).all() and np.isfinite(np.delete(filled, 2, axis=1)[6:]).all()


def test_no_fill_depends_on_the_other_rows(table):
    truth, gone = table
    values = np.where(gone, NAN, truth)
    model = fit_rows(values, tuple("abcde"))
    whole = fill(values, model)
    assert all((fill(values[a : a + n], model) == whole[a : a + n]).all() for a, n in ((0, 1), (7, 5), (100, 900)))


@pytest.mark.parametrize("draw", [None, 3])
def test_cells_are_filled_alike_in_any_partitioning(spark, table, draw):
    truth, gone = table
    cells = [[None if g else float(x) for x, g in zip(r, m, strict=True)] for r, m in zip(truth, gone, strict=True)][
        :300
    ]
    df = frame(
        spark, "id int, a double, b double, c double, d double, e double", *((i, *r) for i, r in enumerate(cells))
    )
    step = ImputeGaussian(columns=("a", "b"), using=("c", "d", "e"), draw=draw)
    out = plain_rows(applied(step, df))
    assert out == plain_rows(applied(step, df.repartition(5)))
    found = {r[0]: r for r in plain_rows(applied(step, df), "id", "a", "c", "_changed")}
    assert all(r[1] is not None for r in found.values())
    assert any(r[2] is None for r in found.values())
    assert all([c["column"] for c in r[3]].count("a") == (cells[i][0] is None) for i, r in found.items())


def test_columns_keep_their_type_and_range(spark):
    rows = [(i, i % 7, date(2020, 1, 1 + i % 28), i % 2 == 0, float(i % 7)) for i in range(100)]
    rows += [(100, None, None, None, 3.0), (101, None, None, None, NAN), (102, 2, None, True, math.inf)]
    df = frame(spark, "id int, n smallint, d date, b boolean, x float", *rows)
    out = applied(ImputeGaussian(columns=("n", "d", "b", "x")), df)
    assert dict(out.dtypes) == dict(df.dtypes)
    found = {r[0]: r[1:] for r in plain_rows(out, "id", "n", "d", "b", "x") if r[0] >= 100}
    assert found[100][0] == 3 and isinstance(found[100][1], date) and isinstance(found[100][2], bool)
    assert found[102][3] == math.inf and found[101][3] is not None


def test_the_test_split_teaches_nothing(spark):
    rows = [(float(i), 2.0 * i, "train") for i in range(50)] + [(10.0, None, "test")]
    clean = frame(spark, "x double, y double, split string", *rows)
    dirty = frame(spark, "x double, y double, split string", *rows, *((1e9, -1e9, "test") for _ in range(20)))
    step = ImputeGaussian(columns=("y",), using=("x",))
    a, b = (plain_rows(applied(step, df).where("x = 10"), "x", "y", "split") for df in (clean, dirty))
    assert a == b and abs(dict((r[2], r[1]) for r in a)["test"] - 20) < 0.1


def test_fitted_state_survives_json(spark):
    df = frame(
        spark, "x double, y double, z double", *((float(i), 2.0 * i, None) for i in range(20)), (5.0, None, None)
    )
    frozen = ImputeGaussian(columns=("y", "z"), using=("x",)).fit(df, None)
    again = options_of(FITTED[frozen.name]).validate_json(options_of(type(frozen)).dump_json(frozen))
    assert plain_rows(again.apply(df)) == plain_rows(frozen.apply(df))
    assert not ImputeGaussian(columns=("z",)).fit(df.where("x < 0"), None).learned()
    assert not ImputeGaussian(columns=("z",)).fit(df, None).learned()


def test_what_cannot_be_modelled_is_refused(spark):
    with pytest.raises(StepError, match="'t' is string"):
        applied(ImputeGaussian(columns=("t",)), frame(spark, "t string", ("a",)))
    with pytest.raises(StepError, match="sample: 1 is not"):
        ImputeGaussian(columns=("t",), sample=1).columns_after(columns_of("t"), {})
