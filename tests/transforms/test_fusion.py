import pytest

from tests.conftest import assert_rows
from tests.transforms.frames import applied, frame
from transforms.fusion.join import JoinTable
from transforms.step import StepError

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
    with pytest.raises(StepError, match="2 rows with key=a"):
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
        step.names_after(["k"], {"right": ["key", "value"]})
    assert told in str(e.value)
