"""What the driver knows, as a DataFrame."""

from datetime import date, datetime, timezone
from decimal import Decimal

from headgate.transforms.rows import canonical, local_frame
from tests.conftest import assert_rows

COLUMNS = "n int, x double, name string, day date, at timestamp, price decimal(10,2)"


def test_rows_of_the_driver_keep_their_types_and_nulls(spark):
    at = datetime(2013, 1, 1, 5, 15, tzinfo=timezone.utc)
    rows = [(1, 0.5, "é", date(2013, 1, 1), at, Decimal("1.50")), (None,) * 6]
    df = local_frame(spark, rows, COLUMNS)
    assert ", ".join(f"{name} {kind}" for name, kind in df.dtypes) == COLUMNS
    plain = df.withColumn("at", df["at"].cast("string"))
    assert_rows(plain, df.columns, [(*rows[0][:4], "2013-01-01 05:15:00", rows[0][5]), rows[1]])


def test_no_rows_of_the_driver_are_an_empty_table(spark):
    df = local_frame(spark, [], COLUMNS)
    assert df.count() == 0 and len(df.columns) == 6


def test_cells_have_one_text_exactly_if_they_are_equal(spark):
    schema = "s struct<a: int, b: struct<c: string>>, l array<struct<a: int>>, m map<string, int>, n int"
    cells = [
        (None, None, None, 0),
        ((None, None), [], {}, 1),
        ((None, (None,)), [None], {"": None}, 2),
        ((None, ("",)), [(None,)], {"-": None}, 3),
        ((None, ("-",)), [None, None], {"-": 0}, 4),
        ((0, ("-",)), [(None,), None], {"-": 0, "a": 1}, 5),
        ((0, ("-))(i1:1-",)), [(0,), None], {"a": 1, "-": 1}, 6),
    ]
    df = spark.createDataFrame(cells, schema)
    for name in ("s", "l", "m"):
        texts = df.select(canonical(df[name], df.schema[name].dataType).alias("text")).distinct().count()
        assert texts == len(cells), name
