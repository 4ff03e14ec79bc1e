"""As-of joins beside pandas' merge_asof, and what decides where that leaves it open."""

import datetime
import random

import pandas as pd
import pytest
from pyspark.sql import functions as F

from headgate.transforms.fusion.asof import JoinAsof
from headgate.transforms.rows import row_id, with_bookkeeping
from headgate.transforms.step import StepError
from tests.transforms.frames import applied, frame

KINDS = {"k": "string", "at": "timestamp"}
OTHER = {"key": "string", "time": "timestamp", "price": "int", "seq": "int"}


def options(**changes):
    return {
        **{"table": "quotes", "on": {"k": "key"}, "order": {"at": "time"}, "columns": {"bid": "price"}},
        **{"matched": "found", "gap": "gap"},
        **changes,
    }


@pytest.mark.parametrize(
    ("direction", "exact", "tolerance"),
    [
        ("nearest", True, 3.0),
        pytest.param("backward", True, None, marks=pytest.mark.slow),
        pytest.param("backward", False, 5.0, marks=pytest.mark.slow),
        pytest.param("forward", True, 2.0, marks=pytest.mark.slow),
        pytest.param("nearest", False, None, marks=pytest.mark.slow),
    ],
)
def test_the_nearest_row_is_that_of_pandas(spark, direction, exact, tolerance):
    r = random.Random(5)
    trades = [(i, r.choice("abc"), r.randrange(60)) for i in range(120)]
    quotes = [(k, t, 100 * t + ord(k)) for k in "abd" for t in r.sample(range(60), 12)]
    left = frame(spark, "id int, k string, at int", *trades, (998, None, 5), (999, "a", None)).repartition(3)
    right = frame(spark, "key string, time int, price int", *quotes, (None, 5, 1), ("a", None, 2)).repartition(2)
    out = applied(JoinAsof(**options(direction=direction, exact=exact, tolerance=tolerance)), left, quotes=right)
    found = {x["id"]: (x["bid"], x["found"], x["gap"], [j["table"] for j in x["_joined"]]) for x in out.collect()}
    wanted = pd.merge_asof(
        pd.DataFrame(trades, columns=["id", "k", "at"]).sort_values("at"),
        pd.DataFrame(quotes, columns=["k", "time", "price"]).assign(at=lambda q: q["time"]).sort_values("at"),
        on="at",
        by="k",
        direction=direction,
        allow_exact_matches=exact,
        tolerance=None if tolerance is None else int(tolerance),
    )
    expected = {
        int(w.id): (None, False, None, [])
        if pd.isna(w.price)
        else (int(w.price), True, float(w.time - w.at), ["quotes"])
        for w in wanted.itertuples()
    }
    assert found == expected | {998: (None, False, None, []), 999: (None, False, None, [])}
    assert 20 < sum(v[1] for v in expected.values()) < 120


def test_rows_of_one_place_are_told_apart_by_arrival_and_row_id(spark):
    at = [datetime.datetime(2024, 1, 1, 12, 0, s, tzinfo=datetime.timezone.utc) for s in range(3)]
    rows = [("a", at[0], 1, 5), ("a", at[0], 2, 7), ("a", at[0], 3, None), ("b", at[0], 4, 1), ("b", at[0], 5, 1)]
    rows += [("c", at[0], None, 1)]  # a null is a value
    quotes = spark.createDataFrame(rows, "key string, time timestamp, price int, seq int")
    quotes = with_bookkeeping(quotes.withColumn("_row_id", row_id(quotes, "q", quotes.columns)))
    smallest = quotes.where("key = 'b'").orderBy("_row_id").first()["price"]
    trades = frame(spark, "k string, at timestamp", ("a", at[1]), ("b", at[2]), ("c", at[1]))
    out = applied(JoinAsof(**options(last_by=("seq",), tolerance=1.5)), trades, quotes=quotes).collect()
    found = {x["k"]: (x["bid"], x["found"], x["gap"]) for x in out}
    assert found == {"a": (2, True, -1.0), "b": (None, False, None), "c": (None, True, -1.0)}
    out = applied(JoinAsof(**options(direction="forward")), trades.withColumn("at", F.lit(at[0])), quotes=quotes)
    assert {x["k"]: x["bid"] for x in out.collect()}["b"] == smallest


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"on": {}}, "on: name the key columns"),
        ({"order": {"at": "time", "k": "key"}}, "order: name one column here and one there"),
        ({"order": {"att": "time"}}, "there is no column 'att' here — did you mean 'at'"),
        ({"order": {"at": "tim"}}, "table 'quotes': there is no column 'tim' here — did you mean 'time'"),
        ({"order": {"at": "price"}}, "order: 'at' is timestamp and 'price' of table 'quotes' is int"),
        ({"order": {"k": "key"}}, "order: 'k' is string, not a date, a time or a number"),
        ({"tolerance": -1.0}, "tolerance: -1.0 is not 0 or above"),
        ({"last_by": ("sec",)}, "there is no column 'sec'"),
        ({"gap": "k"}, "there is a column 'k' already"),
        ({"table": "quots"}, "there is no table 'quots' to join — did you mean 'quotes'"),
    ],
)
def test_as_of_joins_that_cannot_be(changes, told):
    with pytest.raises(StepError) as error:
        JoinAsof(**options(**changes)).columns_after(KINDS, {"quotes": OTHER})
    assert told in str(error.value)
    after = JoinAsof(**options()).columns_after(KINDS, {"quotes": OTHER})
    assert after == {**KINDS, "bid": "int", "found": "boolean", "gap": "double"}


def test_rows_at_an_infinity_are_at_one_place(spark):
    far = float("inf")
    left = frame(spark, "k string, at double", ("a", far), ("a", -far), ("b", 1.0))
    right = spark.createDataFrame([("a", far, 1), ("a", -far, 2), ("b", -far, 3)], "key string, time double, price int")
    for tolerance, of_b in ((None, (3, True, -far)), (5.0, (None, False, None))):
        out = applied(JoinAsof(**options(tolerance=tolerance)), left, quotes=right).collect()
        found = {(x["k"], x["at"]): (x["bid"], x["found"], x["gap"]) for x in out}
        assert found == {("a", far): (1, True, 0.0), ("a", -far): (2, True, 0.0), ("b", 1.0): of_b}
    left = spark.sql(f"select 'a' k, cast('9{'0' * 37}' as decimal(38,0)) at")
    right = spark.sql(f"select 'a' key, cast('-9{'0' * 37}' as decimal(38,0)) time, 7 price")
    (row,) = applied(JoinAsof(**options()), with_bookkeeping(left), quotes=right).collect()
    assert (row["bid"], row["found"], row["gap"]) == (7, True, -1.8e38), "beyond 38 digits"
