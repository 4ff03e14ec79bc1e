from datetime import date
from decimal import Decimal

import pytest

from tests.conftest import assert_rows, plain_rows
from tests.transforms.frames import applied, frame
from transforms.imputation.simple import ImputeConstant, ImputeMean, ImputeMedian, ImputeMode
from transforms.rows import training_rows
from transforms.steps import STEPS, options_of

NAN = float("nan")


@pytest.mark.parametrize(
    ("step", "fill"),
    [
        (ImputeMean(columns=("x",)), 4.0),
        (ImputeMedian(columns=("x",)), 2.5),
        (ImputeMode(columns=("x",)), 2.0),
        (ImputeConstant(values={"x": 7}), 7.0),
    ],
)
def test_null_and_nan_are_filled_and_noted(spark, step, fill):
    rows = [(1, 1.0), (2, 2.0), (3, 2.0), (4, 3.0), (5, 3.0), (6, 13.0), (7, None), (8, NAN)]
    df = frame(spark, "id int, x double", *rows)
    out = applied(step, df)
    assert_rows(out, ["id", "x"], [*rows[:6], (7, fill), (8, fill)])
    noted = {r[0]: r[1] for r in plain_rows(out, "id", "_changed")}
    assert noted[7] == [{"column": "x", "step": step.name}] and noted[1] == []


def test_groups_have_their_own_value_and_others_the_overall_one(spark):
    rows = [("a", 1.0), ("a", 3.0), ("a", None), ("b", 10.0), ("b", None), ("c", None), (None, None)]
    df = frame(spark, "g string, x double", *rows)
    out = applied(ImputeMean(columns=("x",), by=("g",)), df)
    overall = (1.0 + 3.0 + 10.0) / 3
    wanted = [("a", 1.0), ("a", 3.0), ("a", 2.0), ("b", 10.0), ("b", 10.0), ("c", overall), (None, overall)]
    assert_rows(out, ["g", "x"], wanted)


def test_only_training_rows_are_learned_from(spark):
    df = frame(spark, "x double, split string", (1.0, "train"), (99.0, "test"), (None, "test"))
    assert_rows(applied(ImputeMean(columns=("x",)), df), ["x"], [(1.0,), (99.0,), (1.0,)])


def test_a_column_without_values_stays_empty(spark):
    df = frame(spark, "x double, t string", (None, None))
    for step in (ImputeMean(columns=("x",)), ImputeMedian(columns=("x",)), ImputeMode(columns=("t",))):
        assert_rows(applied(step, df), ["x", "t"], [(None, None)])


def test_mode_takes_the_smallest_of_equals_and_any_plain_type(spark):
    df = frame(
        spark, "t string, d date, n decimal(6,2)", ("b", date(2020, 1, 2), Decimal("1.50")), ("a", None, None),
        (None, None, None),
    )  # fmt: skip
    frozen = ImputeMode(columns=("t", "d", "n")).fit(df)
    assert frozen.values == {"t": "a", "d": "2020-01-02", "n": "1.50"}
    last = (("a", date(2020, 1, 2), Decimal("1.50")),) * 2
    assert_rows(frozen.apply(df, {}), ["t", "d", "n"], [("b", date(2020, 1, 2), Decimal("1.50")), *last])


def test_mean_does_not_depend_on_the_order_of_rows(spark):
    values = [(i, 0.1 * i if i % 2 else 1e9 / (i + 1)) for i in range(2000)]
    df = frame(spark, "id int, x double", *values)
    means = {
        ImputeMean(columns=("x",)).fit(part).values["x"]
        for part in (df.repartition(1), df.repartition(7), df.orderBy("x"), df.orderBy("id", ascending=False))
    }
    assert len(means) == 1


def test_a_sum_beyond_the_exact_range_is_refused(spark):
    df = frame(spark, "x double", (1e30,))
    with pytest.raises(Exception, match="beyond 1e26"):
        ImputeMean(columns=("x",)).fit(df)


def test_fitted_state_survives_json(spark):
    df = frame(spark, "g string, x double", ("a", 1.0), ("a", None), ("b", 4.0))
    frozen = ImputeMedian(columns=("x",), by=("g",)).fit(training_rows(df))
    options = options_of(type(frozen)).dump_python(frozen, mode="json")
    again = options_of(STEPS[frozen.name]).validate_python(options)
    assert plain_rows(again.apply(df, {}), "g", "x") == plain_rows(frozen.apply(df, {}), "g", "x")


def test_groups_fill_columns_of_every_plain_type(spark):
    kinds = "g string, t string, d date, n decimal(5,2), i int, b boolean"
    known = ("a", "x", date(2020, 1, 2), Decimal("1.50"), 3, True)
    df = frame(spark, kinds, known, ("a", *(None,) * 5))
    assert_rows(applied_by_groups(ImputeMode, ("t", "d", "n", "i", "b"), df), list("gtdnib"), [known, known])


def test_a_whole_number_takes_the_mean_of_its_group_rounded_toward_zero(spark):
    df = frame(spark, "g string, i int", ("a", 3), ("a", 4), ("a", None))
    assert_rows(applied_by_groups(ImputeMean, ("i",), df), ["i"], [(3,), (4,), (3,)])


def applied_by_groups(learner, columns, df):
    return learner(columns=columns, by=("g",)).fit(training_rows(df)).apply(df, {})
