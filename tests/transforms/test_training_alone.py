"""What is in the other splits changes nothing of the training split, for every step that learns."""

import json

import numpy as np
import pytest
from pyspark.sql import functions as F

from headgate.jobs.pipeline.context import BuildContext
from headgate.transforms.balancing.split import fitted
from headgate.transforms.step import Estimator
from headgate.transforms.steps import STEPS, options_of
from tests.transforms.frames import frame

NUMBERS = {"columns": ["x", "y"]}
OPTIONS = {
    "check_outliers_iqr": NUMBERS,
    "check_outliers": NUMBERS | {"method": "mad", "by": ["g"], "least": 3},
    "score_outliers": NUMBERS | {"trees": 5},
    "repair_cells": {"dependencies": [{"columns": ["g"], "decides": ["h"]}], "ranges": {"x": [0, 9], "y": "learned"}},
    "null_markers": {"markers": {"g": ["g0"]}, "columns": ["x", "h"], "learn": "apply"},
    "drop_sparse": NUMBERS | {"share": 0.4},
    "impute_mean": NUMBERS | {"by": ["g"]},
    "impute_median": NUMBERS,
    "impute_mode": {"columns": ["g", "x"]},
    "impute_gaussian": NUMBERS,
    "impute_trees": {"columns": ["x", "g"], "using": ["y"], "rounds": 1},
    "impute_auto": {"columns": ["x", "g"], "using": ["y"], "rounds": 1},
    "learn_as_of": {"time": "id", "step": {"impute_mean": NUMBERS | {"by": ["g"]}}},
    "scale_min_max": NUMBERS,
    "scale_standard": NUMBERS | {"by": ["g"]},
    "scale_robust": NUMBERS,
    "scale_max_abs": NUMBERS,
    "transform_power": NUMBERS,
    "transform_quantile": NUMBERS | {"shape": "normal"},
    "encode_one_hot": {"columns": ["g", "h"], "least": 3, "nulls": True},
    "encode_ordinal": {"columns": ["g", "h"]},
    "encode_target": {"columns": ["g", "h"], "target": "y"},
    "stack_predictions": {"columns": ["x", "y"], "target": "h", "by": ["id"], "into": "stacked"},
    "class_weights": {"label": "g"},
    "sample_strata": {"by": ["g"], "rows": 5, "max_copies": 3},
    "mix_sources": {"by": ["g"], "temperature": 2, "budget": 50},
    "order_rows": {"column": "y"},
}


def test_every_step_that_learns_is_tried():
    learning = {n for n, step in STEPS.items() if issubclass(step, Estimator) and step.grain == "rows"}
    assert learning == set(OPTIONS), "give a new step its options here"


def rows(poisoned):
    rng = np.random.default_rng(3)
    for i in range(120):
        x, y = float(rng.lognormal()), float(rng.normal())
        known = (None if i % 7 == 2 else x, y + x, f"g{i % 4}" if i % 11 else None, f"h{i % 4 if i % 13 else 9}")
        split = "train" if i % 3 else "test"
        if poisoned and split == "test":
            known = (-999.0 if i % 2 else 1e12, float("inf") if i % 2 else None, "poison" if i % 2 else "g1", f"p{i}")
        yield (i, split, *known)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_poison_in_the_test_split_changes_nothing_of_the_training_split(spark, tmp_path, name):
    pytest.importorskip("sklearn")
    found = []
    for poisoned in (False, True):
        made = list(rows(poisoned))
        df = frame(spark, "id int, split string, x double, y double, g string, h string", *made)
        df = df.withColumn("_row_id", F.md5(F.col("id").cast("string")))
        step = options_of(STEPS[name]).validate_python(OPTIONS[name])
        context = BuildContext(spark, str(tmp_path / str(poisoned)), rows=df)
        step.check(df, context)
        frozen = fitted(step, df, context)
        assert frozen.name != name  # by that an erasure knows what was learned
        learned = options_of(type(frozen)).dump_json(frozen)
        after = frozen.run(df, context).where("split = 'train'")
        kept = sorted(json.dumps(r.asDict(True), default=str, sort_keys=True) for r in after.collect())
        found.append((learned, kept))
    assert found[0] == found[1]
    assert len(found[0][1]) >= 40 and frozen.learned()
