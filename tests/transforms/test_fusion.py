import re

import pytest

from headgate.jobs.pipeline.context import BuildContext
from headgate.transforms.fusion.join import JoinTable
from headgate.transforms.rows import with_bookkeeping
from headgate.transforms.step import StepError
from tests.conftest import assert_rows
from tests.transforms.frames import applied, columns_of, frame

STEP = JoinTable(table="right", on={"k": "key"}, columns={"w": "value"}, matched="found")


def test_every_row_stays_once_and_says_whether_it_matched(spark):
    left = frame(spark, "k string, v int", ("a", 1), ("b", 2), (None, 3), ("a", 4))
    right = spark.createDataFrame([("a", 10), ("c", 30), (None, 99)], "key string, value int")
    out = applied(STEP, left, right=right)
    wanted = [("a", 1, 10, True), ("b", 2, None, False), (None, 3, None, False), ("a", 4, 10, True)]
    assert_rows(out, ["k", "v", "w", "found"], wanted)


def test_a_repeated_key_is_refused_by_name(spark):
    left = frame(spark, "k string", ("a",))
    right = spark.createDataFrame([("a", 1), ("a", 2)], "key string, value int")
    with pytest.raises(StepError, match="2 rows with key=‹a›"):
        applied(STEP, left, right=right)


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (JoinTable(table="rigt", on={"k": "key"}, columns={}, matched="m"), "did you mean 'right'?"),
        (JoinTable(table="right", on={"k": "kye"}, columns={}, matched="m"), "did you mean 'key'?"),
        (JoinTable(table="right", on={"k": "key"}, columns={"k": "value"}, matched="m"), "there already"),
    ],
)
def test_wrong_options_are_refused(step, told):
    with pytest.raises(StepError) as e:
        step.columns_after(columns_of("k"), {"right": columns_of("key", "value")})
    assert told in str(e.value)


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ("int", "string"), ("string", "bigint"), ("double", "bigint"), ("float", "double"), ("decimal(10,2)", "int"),
        ("date", "timestamp"), ("timestamp", "string"), ("boolean", "string"),
    ],
)  # fmt: skip
def test_keys_of_different_types_are_refused_by_name_and_type(spark, mine, theirs):
    left, right = frame(spark, f"k {mine}"), spark.createDataFrame([], f"key {theirs}, value int")
    with pytest.raises(StepError, match=re.escape(f"'k' is {mine} and 'key' of table 'right' is {theirs}")):
        applied(STEP, left, right=right)


@pytest.mark.parametrize(
    ("mine", "theirs"), [("int", "bigint"), ("bigint", "tinyint"), ("decimal(5,2)", "decimal(9,1)")]
)
def test_keys_of_different_widths_are_compared(spark, mine, theirs):
    left = spark.sql(f"select cast(7 as {mine}) k")
    right = spark.sql(f"select cast(7 as {theirs}) key, 1 value")
    left = with_bookkeeping(left)
    assert [r["found"] for r in applied(STEP, left, right=right).collect()] == [True]


def test_a_repeated_key_named_count_is_told(spark):
    right = spark.createDataFrame([(1, 2), (1, 3), (None, 3), (None, 4)], "count int, value int")
    step = JoinTable(table="right", on={"count": "count"}, columns={"w": "value"}, matched="found")
    with pytest.raises(StepError, match="2 rows with count=‹1›"):
        applied(step, frame(spark, "count int", (1,)), right=right)


def test_a_join_by_row_id_names_what_it_brought(spark):
    scores = frame(spark, "key int, score double", (1, 0.5), (2, 0.9))
    ids = {r["key"]: r["_row_id"] for r in scores.collect()}
    df = frame(spark, "k int, of string", (1, ids[1]), (2, "nothing"))
    step = JoinTable(table="scores", on={"of": "_row_id"}, columns={"s": "score", "its": "_row_id"}, matched="m")
    out = applied(step, df, scores=scores)
    assert_rows(out, ["k", "s", "its", "m"], [(1, 0.5, ids[1], True), (2, None, None, False)])
    joined = {r["k"]: [j.asDict() for j in r["_joined"]] for r in out.collect()}
    assert joined == {1: [{"table": "scores", "row_id": ids[1], "columns": ["s", "its"]}], 2: []}
    own = JoinTable(table="scores", on={"_row_id": "_row_id"}, columns={"s": "score"}, matched="m")
    assert_rows(applied(own, scores.drop("score"), scores=scores), ["key", "s"], [(1, 0.5), (2, 0.9)])


def test_a_key_that_a_passed_suite_proves_unique_is_not_counted_again():
    known = BuildContext(None, "", unique={"there": [frozenset(["a"]), frozenset(["b", "c"])]})
    found = {columns: known.is_unique("there", columns) for columns in (("a",), ("a", "b"), ("b",), ("c", "b"))}
    assert found == {("a",): True, ("a", "b"): True, ("b",): False, ("c", "b"): True}
    assert not known.is_unique("other", ("a",))
