"""What holds of every step that draws, makes or leaves out rows to balance: parents, segments, the training split."""

from collections import Counter

import numpy as np
import pytest

from headgate.transforms.balancing.split import RESAMPLING
from headgate.transforms.steps import STEPS, options_of
from tests.transforms.frames import applied, frame

pytest.importorskip("sklearn")

SYNTHETIC = {"label": "y", "columns": ["x", "z", "c"], "within": ["s"]}
COMPARED = {"label": "y", "columns": ["x", "z"]}
REPLACED = {"by": ["y", "s"], "rows": 30, "max_copies": 9, "replacement": True, "weight": "z"}
SHARES = {"a": 0.5, "b": 0.25, "c": 0.25}
USES = [  # step, options, training rows of the classes a, b and c after it, where they are known
    ("sample_strata", {"by": ["y"], "rows": 70, "max_copies": 5}, (70, 70, 70)),
    ("sample_strata", REPLACED, (60, 60, 60)),
    ("mix_sources", {"by": ["y"], "shares": SHARES, "budget": 120, "epochs": 2}, (60, 30, 30)),
    ("make_minority", SYNTHETIC, (90, 90, 90)),
    ("make_minority", SYNTHETIC | {"method": "borderline"}, (90, 90, 90)),
    ("make_minority", SYNTHETIC | {"method": "adasyn", "targets": {"c": 50}}, (90, 39, 50)),
    ("balance_classes", SYNTHETIC | {"method": "smote"}, (90, 90, 90)),
    ("balance_classes", SYNTHETIC | {"method": "oversample"}, (90, 90, 90)),
    ("balance_classes", SYNTHETIC | {"method": "undersample"}, (21, 21, 21)),
    ("thin_majority", COMPARED, None),
    ("thin_majority", COMPARED | {"method": "enn"}, None),
    ("thin_majority", COMPARED | {"method": "nearmiss", "rows": 25}, (25, 25, 21)),
]


def test_every_step_that_resamples_is_tried():
    assert {name for name, _, _ in USES} == {*RESAMPLING, "thin_majority"}


def people(spark):
    random = np.random.default_rng(7)
    rows = []
    for i in range(200):
        y = "a" if i < 120 else "b" if i < 172 else "c"
        near = {"a": 0.0, "b": 0.8, "c": -0.8}[y]
        x, z = random.normal(size=2)
        split = ("train", "train", "train", "test")[i % 4]
        rows.append((i, y, float(x + near), float(abs(z)), "pq"[i % 2], "uv"[i % 3 == 0], split))
    return frame(spark, "i int, y string, x double, z double, c string, s string, split string", *rows)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options", "sizes"), USES)
def test_rows_that_are_made_have_parents_of_their_class_and_segment_in_the_training_split(spark, name, options, sizes):
    df = people(spark)
    before = {r["_row_id"]: r.asDict() for r in df.collect()}
    out = [r.asDict() for r in applied(options_of(STEPS[name]).validate_python(options).at("t/1-x"), df).collect()]
    old = {r["_row_id"]: r for r in out if r["_hg_made"] is None}
    made = [r for r in out if r["_hg_made"] is not None]
    assert len({r["_row_id"] for r in out}) == len(out) and old.keys() == before.keys()
    kept = [r for r in out if r["_hg_rejected"] is None]
    if sizes is not None:
        assert Counter(r["y"] for r in kept if r["split"] == "train") == dict(zip("abc", sizes, strict=True))
    for row_id, r in old.items():
        assert all(r[c] == value for c, value in before[row_id].items() if c != "_hg_rejected")
        assert r["split"] == "train" or r["_hg_rejected"] is None
    for r in made:
        parents = [before[p] for p in r["_parents"]]
        assert r["split"] == "train" and {p["split"] for p in parents} == {"train"} and r["_hg_made"] == "t/1-x"
        assert {p["y"] for p in parents} == {r["y"]} and {p["s"] for p in parents} == {r["s"]}
        assert len(parents) == (2 if name == "make_minority" or options.get("method") == "smote" else 1)
        for column in ("x", "z"):
            assert min(p[column] for p in parents) <= r[column] <= max(p[column] for p in parents)
