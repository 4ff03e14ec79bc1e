"""What the driver knows, as a DataFrame."""

from datetime import date, datetime, timezone
from decimal import Decimal

from headgate.transforms.rows import local_frame
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
