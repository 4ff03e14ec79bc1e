"""Texts that are in the training split and, or nearly, in another one."""

import pytest
from pyspark.sql import functions as F

from headgate.transforms.deduplication.leaks import FindLeaks
from headgate.transforms.rows import REJECTED, REJECTED_TYPE, with_bookkeeping
from headgate.transforms.step import StepError
from tests.conftest import plain_rows
from tests.transforms.frames import applied, columns_of


def words(topic, changed=()):
    """A text of sixty words of its own, some of them changed: one of them lowers the similarity to 51 / 61."""
    return " ".join(f"{'new' if i in changed else ''}{topic}{i}" for i in range(60))


def test_leaks_need_a_split():
    with pytest.raises(StepError, match="no column 'split': put split_by_hash"):
        FindLeaks(columns=("t",)).columns_after(columns_of("t"), {})
    with pytest.raises(StepError, match="no column 'x'"):
        FindLeaks(columns=("x",)).columns_after(columns_of("t", "split"), {})


@pytest.mark.slow
def test_each_row_of_another_split_names_the_training_row_that_is_most_like_it(spark):
    rows = [(f"t{i:02}", words(f"a{i}x"), "train") for i in range(30)]
    rows += [("t98", words("a3x"), "train"), ("t99", words("a4x", (7,)), "train")]  # like others of training
    rows += [("gone", words("b9x"), "train")]
    rows += [("exact", words("a3x").upper(), "test"), ("near", words("a4x", (50,)), "valid")]
    rows += [("nearer", words("a4x", (7, 8)), "test"), ("far", words("a5x", (3, 20, 40, 55)), "test")]
    rows += [("one", words("c1x"), "test"), ("other", words("c1x", (9,)), "valid"), ("again", words("c1x"), "test")]
    rows += [("of gone", words("b9x"), "test"), ("none", None, "test"), ("blank", "  ", "test")]
    df = with_bookkeeping(spark.createDataFrame(rows, "_row_id string, t string, split string"))
    mark = "named_struct('step', 's', 'reason', 'r', 'evidence', map('a', 'b'))"
    df = df.withColumn(REJECTED, F.expr(f"if(_row_id = 'gone', CAST({mark} AS {REJECTED_TYPE}), null)"))
    for frame in (df, df.repartition(5)):
        out = applied(FindLeaks(columns=("t",)), frame)
        found = {r[0]: r[1:] for r in plain_rows(out, "_row_id", "leak_of", "leak_of_similarity")}
        assert len(found) == len(rows) == out.count()
        leaks = {name: leak for name, leak in found.items() if leak != (None, None)}
        assert leaks == {"exact": ("t03", 1.0), "near": ("t04", 51 / 61), "nearer": ("t99", 51 / 61)}
    nothing = applied(FindLeaks(columns=("t",), into="x"), df.where("split <> 'train'"))
    assert nothing.where("x is not null").count() == 0 and "x_similarity" in nothing.columns


@pytest.mark.slow
def test_crowds_of_like_texts_hide_no_leak(spark):
    rows = [(f"t{i:03}", words("a1x", (i % 60, (7 * i) % 60)), "train") for i in range(150)]
    rows += [(f"v{i:03}", words("a1x", (i % 60, (7 * i) % 60)) + " end", "valid") for i in range(0, 150, 10)]
    df = with_bookkeeping(spark.createDataFrame(rows, "_row_id string, t string, split string"))
    out = applied(FindLeaks(columns=("t",)), df)
    assert out.where("split = 'valid' and leak_of is not null and leak_of_similarity > 0.9").count() == 15
