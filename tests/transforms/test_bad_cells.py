"""What teaches nothing or little does no harm, for every step that learns from cells."""

import pytest
from pyspark.sql import functions as F

from headgate.jobs.pipeline.context import BuildContext
from headgate.transforms.balancing.split import fitted
from headgate.transforms.kinds import MOST_COLUMNS
from headgate.transforms.step import StepError
from headgate.transforms.steps import STEPS, options_of
from tests.conftest import plain_rows
from tests.transforms.frames import frame
from tests.transforms.test_training_alone import OPTIONS

INF = float("inf")
CELLS = [n for n in OPTIONS if STEPS[n].__module__.split(".")[2] in ("cleaning", "imputation", "scaling", "features")]
TABLES = {  # x, y, g, h of the training rows
    "no row": [],
    "one row": [(1.0, 2.0, "a", "b")],
    "nulls": [(None, None, None, None)] * 30,
    "constants": [(5.0, 5.0, "a", "a")] * 30,
    "infinities": [(INF if i % 3 else -INF, INF if i % 2 else float(i), "a", "b") for i in range(30)],
    "collinear": [(float(i) if i % 4 else None, 2.0 * i, f"g{i % 2}", "b") for i in range(30)],
    "a group without a known value": [(None if i % 2 else float(i), float(i), f"g{i % 2}", "b") for i in range(30)],
}
MEAN = "impute_mean: 'x' holds an infinity"
REFUSED = {("impute_mean", "infinities"): MEAN, ("learn_as_of", "infinities"): MEAN}


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_what_teaches_nothing_does_no_harm_and_unseen_values_pass(spark, tmp_path, name):
    pytest.importorskip("sklearn")
    for case, training in TABLES.items():
        rows = [(i, "train", *cells) for i, cells in enumerate(training)]
        rows += [(900, "test", 1.5, 2.5, "never seen", "b"), (901, "test", None, None, None, None)]
        df = frame(spark, "id int, split string, x double, y double, g string, h string", *rows)
        step = options_of(STEPS[name]).validate_python(OPTIONS[name])
        context = BuildContext(spark, str(tmp_path / case), rows=df)
        step.check(df, context)
        refusal = REFUSED.get((name, case))
        if refusal:
            with pytest.raises(StepError, match=refusal):
                fitted(step, df, context)
            continue
        try:
            frozen = fitted(step, df, context)
        except StepError as e:
            assert case == "no row" and "no row is in the split 'train'" in str(e), (case, e)
            continue
        out = frozen.run(df, context)
        assert plain_rows(out, "id", "split") == plain_rows(df, "id", "split"), case
        if name.startswith("impute_"):
            known = {r[0]: r[1] for r in plain_rows(out.where("x is not null"), "id", "x")}
            assert {r[0]: r[1] for r in plain_rows(df.where("x is not null"), "id", "x")}.items() <= known.items(), case
        for row in plain_rows(out.where(F.col("_hg_rejected").isNull() & (F.col("id") == 900))):
            assert all(cell == cell for cell in row), case  # no cell became NaN


@pytest.mark.parametrize("name", [n for n in CELLS if n.startswith(("scale_", "impute_m", "transform_", "check_"))])
def test_ten_thousand_columns_are_refused_before_anything_starts(name):
    columns = [f"c{i}" for i in range(10_000)]
    step = options_of(STEPS[name]).validate_python({"columns": columns})
    with pytest.raises(StepError, match=f"10,000 are more than {MOST_COLUMNS:,}; put them into several steps"):
        step.columns_after(dict.fromkeys(columns, "double"), {})
