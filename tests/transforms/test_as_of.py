"""What comes later changes nothing of earlier rows, for every step that can learn as of a time."""

import pytest
from pyspark.sql import functions as F

from headgate.jobs.pipeline.context import BuildContext
from headgate.transforms.balancing.split import fitted
from headgate.transforms.features.as_of import ABLE, UNABLE, ApplyAsOf, LearnAsOf
from headgate.transforms.imputation.series import ImputePrevious
from headgate.transforms.step import Estimator, StepError
from headgate.transforms.steps import STEPS, options_of
from tests.conftest import plain_rows
from tests.transforms.frames import applied, columns_of, frame
from tests.transforms.test_training_alone import OPTIONS

SCHEMA = "id int, split string, x double, y double, g string, h string"
MEAN = {"impute_mean": {"columns": ["x"]}}


def rows(poisoned_from=200):
    """200 rows in the order of their ids, which are their times; those from one on are wild."""
    for i in range(200):
        x, y, g, h = float((i * 37) % 50), float((i * 11) % 40), f"g{i % 4}", f"h{i % 3}"
        if i >= poisoned_from:
            x, y, g, h = (1e12 if i % 2 else -999.0), -1e12, "poison", f"p{i}"
        yield (i, "train" if i % 4 else "test", None if i % 7 == 2 else x, y, g if i % 11 else None, h)


def test_rows_know_the_training_rows_of_earlier_periods_alone(spark):
    values = [(i, "train", None if i % 10 == 9 else float(i // 10)) for i in range(40)]
    df = frame(spark, "id int, split string, x double", *values, (99, "test", None), (None, "test", None))
    step = LearnAsOf(time="id", step=MEAN, periods=4)
    out = {r[0]: r[1] for r in plain_rows(applied(step, df), "id", "x")}
    assert [out[i] for i in (9, 19, 29, 39, 99, None)] == [None, 0.0, 0.5, 1.0, 1.5, None]


def test_what_was_learned_survives_json_and_serves_new_rows(spark, tmp_path):
    df = frame(spark, SCHEMA, *rows())
    context = BuildContext(spark, str(tmp_path), rows=df)
    frozen = fitted(LearnAsOf(time="id", step=MEAN), df, context)
    again = options_of(ApplyAsOf).validate_json(options_of(ApplyAsOf).dump_json(frozen)).for_new_rows()
    new = frame(spark, SCHEMA, (500, "new", None, 0.0, "g", "h"))
    known = df.where("split = 'train'").agg(F.avg("x")).first()[0]
    assert again.learned() and [r[0] for r in plain_rows(again.run(new, context), "x")] == [pytest.approx(known)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step": {"impute_men": {}}}, "did you mean 'impute_mean'"),
        ({"step": {"encode_one_hot": {"columns": ["g"]}}}, "'encode_one_hot' cannot be in learn_as_of: its columns"),
        ({"step": MEAN | {"impute_mode": {}}}, "step: name one step and its options, not impute_mean, impute_mode"),
        ({"step": {}}, "step: name one step and its options, not none"),
        ({"step": {"impute_mean": {"column": ["x"]}}}, "step: impute_mean: column: Unexpected"),
        ({"step": {"impute_mean": {"columns": ["z"]}}}, "no column 'z'"),
        ({"step": MEAN, "periods": 1}, "not within 2 and 100"),
        ({"step": {"scale_standard": {"columns": ["id"]}}}, "must not change the column of times"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(StepError, match=message):
        LearnAsOf(**{"time": "id"} | options).columns_after(columns_of("id", "x", "g"), {})


def test_every_step_that_learns_is_able_to_do_so_as_of_a_time_or_says_why_not():
    learning = {n for n, step in STEPS.items() if issubclass(step, Estimator)}
    assert learning == {*ABLE, *UNABLE} and not {*ABLE} & {*UNABLE}, "a new step that learns stands in one of both"


def test_the_last_known_value_is_not_of_a_later_row(spark):
    before = ImputePrevious(columns=("x",), by=("h",), order="id", across_splits=True)
    found = [
        plain_rows(applied(before, frame(spark, SCHEMA, *rows(p))).where("id < 120"), "id", "x") for p in (200, 120)
    ]
    assert sorted(found[0]) == sorted(found[1])


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ABLE, "encode_target"])
def test_poison_in_later_rows_changes_nothing_of_earlier_ones(spark, tmp_path, name):
    pytest.importorskip("sklearn")
    step = {"time": "id", "step": {name: OPTIONS[name]}}
    written = OPTIONS[name] | {"time": "id"} if name == "encode_target" else step
    found = []
    for poisoned_from in (200, 120):
        df = frame(spark, SCHEMA, *rows(poisoned_from)).withColumn("_row_id", F.md5(F.col("id").cast("string")))
        learner = options_of(LearnAsOf if written is step else STEPS[name]).validate_python(written)
        context = BuildContext(spark, str(tmp_path / f"{poisoned_from}"), rows=df)
        learner.check(df, context)
        frozen = fitted(learner, df, context)
        # The rows of the period in which the poison begins know the periods before it alone.
        found.append((frozen.learned(), sorted(map(str, plain_rows(frozen.run(df, context).where("id < 120"))))))
    assert found[0] == found[1] and found[0][0]
