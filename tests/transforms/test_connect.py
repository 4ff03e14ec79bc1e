"""Every step gives on a session of Spark Connect what it gives on a classic one."""

import datetime
import io
import json

import pytest

from headgate.jobs.pipeline.context import BuildContext
from headgate.transforms.balancing.split import fitted
from headgate.transforms.step import Estimator
from headgate.transforms.steps import STEPS, options_of
from tests.connect import connected
from tests.transforms.frames import frame
from tests.transforms.test_linking import PERSON, persons
from tests.transforms.test_mixture import tokenizer_file
from tests.transforms.test_training_alone import OPTIONS, rows

pytest.importorskip("grpc")

COLUMNS = (
    "id int, split string, x double, y double, g string, h string, text string, url string, at timestamp, "
    "image binary, entity_id string"
)
MORE = {
    "map_columns": {"columns": {"metres": {"of": "x", "unit": "km", "to_unit": "m"}, "kind": {"value": "a"}}},
    "cast": {"columns": {"x": "decimal(10,2)", "g": "int"}},
    "rename": {"columns": {"x": "z"}},
    "select_columns": {"columns": ["id", "x", "g"]},
    "drop_columns": {"columns": ["x"]},
    "derive": {"columns": {"z": "x * 2", "words": "size(split(text, ' '))"}},
    "normalize_text": {"columns": ["text"], "case": "upper"},
    "normalize_url": {"columns": ["url"]},
    "convert_units": {"columns": {"x": {"from_unit": "km", "to_unit": "m", "into": "metres"}}},
    "local_to_utc": {"columns": {"at": "utc"}, "time_zone": "America/New_York"},
    "check_bounds": {"columns": {"x": [0.5, 2]}, "action": "clip"},
    "reject_rows": {"where": "x > 1", "reason": "large", "show": ["x"]},
    "drop_duplicates": {"columns": ["g", "h"], "keep": "id"},
    "drop_near_duplicates": {"columns": ["text"], "shingle": 2, "cluster": "cluster"},
    "drop_near_images": {"columns": ["image"], "keep": "id"},
    "drop_repeated_lines": {"columns": ["text"], "texts": 5, "min_length": 3},
    "flag_missing": {"columns": ["x", "g"]},
    "measure_missing": {"columns": ["x", "g"], "by": "h"},
    "reject_missing": {"columns": ["x", "g"], "share": 0.5},
    "impute_constant": {"values": {"x": 0}},
    "impute_previous": {"columns": ["x"], "by": ["h"], "order": "at"},
    "impute_next": {"columns": ["x"], "by": ["h"], "order": "at"},
    "impute_interpolated": {"columns": ["x"], "by": ["h"], "order": "at"},
    "scale_unit_norm": {"columns": ["x", "y"]},
    "transform_log": {"columns": ["x"], "plus_one": True},
    "join_table": {"table": "other", "on": {"g": "k"}, "columns": {"w": "v"}, "matched": "found"},
    "join_asof": {"table": "other", "on": {"g": "k"}, "order": {"at": "since"}, "columns": {"w": "v"}, "matched": "f"},
    "link_records": {"key": ["key"]},
    "assign_entities": {"links": "links", "source": "split"},
    "golden_records": {"source": "split", "columns": {"x": "mean", "text": "longest", "g": "truth", "h": "vote"}},
    "cross_reference": {"key": ["id"], "source": "split"},
    "entity_history": {"key": ["id"], "source": "split"},
    "entity_events": {},
    "confirm_links": {"entities": "entities"},
    "combine_predictions": {"by": ["h"], "model": "g", "label": "split", "scores": ["x", "y"], "best": "best"},
    "aggregate": {"by": ["g"], "columns": {"n": {"how": "count"}, "most": {"how": "max", "of": "x"}}},
    "split_by_hash": {"key": ["id"]},
    "split_by_time": {"column": "at", "starts": {"train": None, "test": "2024-01-01T12:00:00Z"}},
    "split_by_column": {"column": "h", "values": {"h0": "train", "h1": "test", "h2": "test", "h3": "train"}},
    "split_exactly": {"by": ["g"]},
    "fold_exactly": {"folds": 3, "by": ["g"]},
    "bag_exactly": {"label": "g", "bags": 3},
    "find_leaks": {"columns": ["text"], "shingle": 2},
    "assign_folds": {"by": ["id"], "folds": 3},
    "assign_bags": {"by": ["id"], "bags": 3},
    "make_minority": {"label": "g", "columns": ["y"], "targets": {"g0": 40}},
    "thin_majority": {"label": "g", "columns": ["y"], "method": "tomek"},
    "balance_classes": {"label": "h", "columns": ["y", "g"], "method": "advise", "seeds": 2, "folds": 2},
    "count_tokens": {"columns": ["text"], "tokenizer": "tokenizer.json"},
}
EXAMPLES = OPTIONS | MORE
WITHOUT_SPLIT = {"split_by_hash", "split_by_time", "split_by_column", "split_exactly"}  # they make the column
FEW = ("normalize_text", "impute_mean", "sample_strata")  # a row, a fit, a mixture
DAY = datetime.datetime(2024, 1, 1)
WORDS = ["a", "quick", "brown", "fox", "jumps", "over", "lazy", "dogs", "and", "runs", "home"]


def picture(i):
    """A picture that is one of three."""
    image = pytest.importorskip("PIL.Image")
    data = io.BytesIO()
    image.linear_gradient("L").rotate(90 * (i % 3)).resize((32, 32)).save(data, "PNG")
    return data.getvalue()


def example(spark):
    """Rows with every kind of column that a step looks at."""
    made = []
    for i, (number, split, x, y, g, h) in enumerate(rows(poisoned=False)):
        text = " ".join(WORDS[(i // 2 * k) % 11] for k in (1, 2, 3, 5, 7)) + "\nread more\nread more"
        url = f"HTTP://Example.org:80/a/../{i % 9}?utm_source=x&b=1#top"
        more = (text, url, DAY + datetime.timedelta(minutes=7 * i), picture(i), f"e{i // 4}")
        made.append((number, split, x, y, g, h, *more))
    return frame(spark, COLUMNS, *made)


def tables(spark, df):
    """The other tables that steps look at, by name."""
    other = [(f"g{i % 3}", DAY + datetime.timedelta(hours=i), i) for i in range(3)]
    a, b = (
        df.where(f"id < 40 and id % 2 = {k}").selectExpr("_row_id", "id", "cast(id / 2 as int) as n") for k in (0, 1)
    )
    pairs = a.alias("a").join(b.alias("b"), on="n", how="inner")
    links = pairs.selectExpr(
        "a._row_id as id_a", "b._row_id as id_b", "4.5d as score", "'model' as rule", "n % 2 = 0 as linked"
    )
    return {"other": spark.createDataFrame(other, "k string, since timestamp, v int"), "links": links, "entities": df}


def start_of(name, spark, df, others):
    """The rows that a step starts from."""
    if name == "link_records":
        return frame(spark, PERSON, *persons())
    if name == "entity_events":
        later = DAY + datetime.timedelta(days=1)
        told = [("a", str(i), f"e{i % 5}", DAY, later) for i in range(30)]
        told += [("a", str(i), f"f{i % 7}", later, None) for i in range(30)]
        return frame(
            spark, "source string, key string, entity_id string, valid_from timestamp, valid_to timestamp", *told
        )
    if name == "confirm_links":
        shown = "'a' as source_a, id_a as key_a, 'b' as source_b, id_b as key_b, score, 0.9d as probability, id_a, id_b"
        return frame_of(spark, others["links"].selectExpr(*shown.split(", ")))
    return df.drop("split") if name in WITHOUT_SPLIT else df.drop("entity_id") if name == "assign_entities" else df


def frame_of(spark, df):
    return frame(spark, df.schema.simpleString().removeprefix("struct<").removesuffix(">"), *df.collect())


def outcome(name, spark, folder):
    """What a step makes of the example, what it learned and what it said of it."""
    df = example(spark)
    others = tables(spark, df)
    start = start_of(name, spark, df, others)
    step = options_of(STEPS[name]).validate_python(EXAMPLES[name])
    context = BuildContext(
        spark,
        str(folder),
        fitted=f"{folder}/fitted",
        frames=others,
        rows=start,
        before=lambda: None,
        published=lambda: DAY.replace(tzinfo=datetime.timezone.utc),
        reads_previous=step.reads_previous,
    )
    step.check(start, context)
    made = fitted(step, start, context) if isinstance(step, Estimator) else step
    after = made.run(start, context)
    told = sorted(json.dumps(r.asDict(True), default=str, sort_keys=True) for r in after.collect())
    learned = options_of(type(made)).dump_json(made).decode().replace(str(folder), "")
    return [(f.name, f.dataType.simpleString()) for f in after.schema], told, learned, context.warnings


def test_every_step_has_an_example():
    assert set(STEPS) == set(EXAMPLES), "give a new step its options here"


@pytest.mark.parametrize("name", [n if n in FEW else pytest.param(n, marks=pytest.mark.slow) for n in EXAMPLES])
def test_a_step_gives_what_it_gives_on_a_classic_session(spark, connect, tmp_path, monkeypatch, name):
    if name in ("score_outliers", "impute_trees", "impute_auto", "stack_predictions", "balance_classes"):
        pytest.importorskip("sklearn")
    if name == "count_tokens":
        tokenizer_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    classic = outcome(name, spark, tmp_path / "classic")
    with connected(connect) as remote:
        assert outcome(name, remote, tmp_path / "connect") == classic
    assert len(classic[1]) > 3, "the example shows nothing"
