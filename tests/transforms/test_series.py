from datetime import date, datetime
from decimal import Decimal

import pytest
from pyspark.sql import functions as F

from headgate.transforms.imputation.series import ImputeInterpolated, ImputeNext, ImputePrevious
from headgate.transforms.imputation.simple import ImputeMean, ImputeMode
from headgate.transforms.rows import Rejection, reject, with_bookkeeping
from headgate.transforms.step import StepError
from headgate.transforms.steps import FITTED, options_of
from tests.conftest import assert_rows, plain_rows
from tests.transforms.frames import applied, columns_of, frame, largest_share

NAN = float("nan")
WEATHER = [
    ("a", 1, None), ("a", 2, 10.0), ("a", 3, NAN), ("a", 6, 20.0), ("a", 7, None),
    ("b", 1, 5.0), ("b", 2, None), (None, 3, None), ("a", None, None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("step", "a", "b"),
    [
        (ImputePrevious, [None, 10.0, 10.0, 20.0, 20.0], [5.0, 5.0]),
        (ImputeNext, [10.0, 10.0, 20.0, 20.0, None], [5.0, None]),
        (ImputeInterpolated, [None, 10.0, 12.5, 20.0, None], [5.0, None]),
    ],
)
def test_cells_are_filled_from_their_group_in_order(spark, step, a, b):
    df = frame(spark, "k string, t int, x double", *WEATHER)
    out = applied(step(columns=("x",), by=("k",), order="t"), df.repartition(3))
    found = {(k, t): x for k, t, x in plain_rows(out, "k", "t", "x")}
    assert [found["a", t] for t in (1, 2, 3, 6, 7)] == a and [found["b", t] for t in (1, 2)] == b
    assert found[None, 3] is None and found["a", None] is None
    noted = {(r[0], r[1]) for r in plain_rows(out, "k", "t", "_changed") if r[2]}
    before = {(k, t) for k, t, x in WEATHER if x is not None and x == x}
    assert noted == {key for key, x in found.items() if x is not None and key not in before}


def test_rows_without_a_place_are_not_left_to_one_task(spark):
    df = with_bookkeeping(spark.range(2_000).selectExpr("string(id) AS _row_id", "id AS t", "null AS x", "'' AS k"))
    df = df.withColumns({"x": F.col("x").cast("int"), "k": F.when(F.col("t") > 999, "a")})
    assert largest_share(ImputePrevious(columns=("x",), by=("k",), order="t").apply(df), "k IS NULL") < 0.6


def test_the_longest_gap_is_in_days_and_seconds(spark):
    rows = [("a", date(2020, 1, d), datetime(2020, 1, d), v) for d, v in ((1, 1), (3, None), (9, None), (10, 10))]
    df = frame(spark, "k string, d date, t timestamp, x int", *rows)
    day = applied(ImputePrevious(columns=("x",), by=("k",), order="d", longest=2), df)
    assert by_day(day) == {1: 1, 3: 1, 9: None, 10: 10}
    seconds = applied(ImputeNext(columns=("x",), by=("k",), order="t", longest=86_400), df)
    assert by_day(seconds) == {1: 1, 3: None, 9: 10, 10: 10}
    line = ImputeInterpolated(columns=("x",), by=("k",), order="d")
    assert by_day(applied(line, df)) == {1: 1, 3: 3, 9: 9, 10: 10}


def by_day(df):
    return {r[0].day: r[1] for r in plain_rows(df, "d", "x")}


def test_types_keep_their_digits(spark):
    big = 2**60 + 1
    rows = [("a", 0, big, Decimal("1.10"), "p"), ("a", 1, None, None, None), ("a", 2, big + 3, Decimal("1.13"), "q")]
    df = frame(spark, "k string, t int, n bigint, d decimal(6,2), s string", *rows)
    out = applied(ImputeInterpolated(columns=("n", "d"), by=("k",), order="t"), df)
    assert_rows(out.where("t = 1"), ["n", "d"], [(big, Decimal("1.12"))])
    assert_rows(applied(ImputeNext(columns=("s",), by=("k",), order="t"), df).where("t = 1"), ["s"], [("q",)])


@pytest.mark.parametrize("kind", ["timestamp", "timestamp_ntz"])
@pytest.mark.parametrize("year", [1500, 2024, 9999])
def test_microseconds_are_told_apart(spark, kind, year):
    rows = [("a", datetime(year, 1, 1, 0, 0, 0, us), x) for us, x in ((1, 0.0), (2, None), (4, 3.0))]
    df = frame(spark, f"k string, t {kind}, x double", *rows)
    for longest, x in ((None, 1.0), (3e-6, 1.0), (2e-6, None)):
        step = ImputeInterpolated(columns=("x",), by=("k",), order="t", longest=longest)
        found = {t.microsecond: x for t, x in plain_rows(applied(step, df), "t", "x")}
        assert found == {1: 0.0, 2: x, 4: 3.0}


@pytest.mark.parametrize(
    ("kind", "at", "middle"),
    [
        ("bigint", [2**62, 2**62 + 1, 2**62 + 4], 1.0),
        ("bigint", [-(2**63), -1, 2**63 - 1], 2.0),
        ("decimal(38,10)", [Decimal(f"-1234567890123456789012345678.000000000{d}") for d in (5, 4, 1)], 1.0),
        ("decimal(38,0)", [Decimal(10**37 + d) for d in (0, 1, 4)], 1.0),
    ],
)
def test_places_that_no_double_tells_apart_are_in_order(spark, kind, at, middle):
    df = frame(spark, f"k string, t {kind}, x double", *zip("aaa", at, (0.0, None, 4.0), strict=True))
    out = applied(ImputeInterpolated(columns=("x",), by=("k",), order="t"), df)
    assert {t: x for t, x in plain_rows(out, "t", "x")} == dict(zip(at, (0.0, middle, 4.0), strict=True))


def test_no_later_row_is_looked_at_where_nanoseconds_order_the_rows(spark):
    rows = [("a", 1_700_000_000_000_000_000 + i, None if i % 2 else i) for i in range(40)]
    df = frame(spark, "k string, t bigint, x int", *rows)
    out = plain_rows(applied(ImputePrevious(columns=("x",), by=("k",), order="t"), df), "t", "x")
    assert {t - rows[0][1]: x for t, x in out} == {i: i - i % 2 for i in range(40)}


def test_lines_end_in_no_infinity_and_lose_no_digit(spark):
    inf, big, quarter = float("inf"), Decimal(10**37), Decimal("0.25")
    rows = [
        (0, 1.7e308, 3.4e38, 1.0, Decimal("0.0000000001"), big, quarter),
        (1, None, None, None, None, None, None),
        (2, -1.7e308, -3.4e38, inf, Decimal("0.0000000003"), big + 2, 3 * quarter),
    ]
    df = frame(spark, "t int, x double, f float, i double, d decimal(38,10), e decimal(38,0), h decimal(38,38)", *rows)
    step = ImputeInterpolated(columns=("x", "f", "i", "d", "e", "h"), by=("k",), order="t")
    out = applied(step, df.withColumn("k", F.lit("a"))).where("t = 1")
    # e has more digits than a sum of decimals leaves room for.
    assert_rows(out, ["x", "f", "i", "d", "e", "h"], [(0.0, 0.0, None, Decimal("0.0000000002"), None, 2 * quarter)])


def test_no_value_crosses_the_border_of_a_split_or_comes_of_a_marked_row(spark):
    rows = [("a", 1, 1.0, "train"), ("a", 2, None, "train"), ("a", 3, 3.0, "test"), ("a", 4, 9.0, "train")]
    df = frame(spark, "k string, t int, x double, split string", *rows)
    step = ImputeNext(columns=("x",), by=("k",), order="t")
    assert_rows(applied(step, df).where("t = 2"), ["x"], [(9.0,)])
    across = ImputeNext(columns=("x",), by=("k",), order="t", across_splits=True)
    assert_rows(applied(across, df).where("t = 2"), ["x"], [(3.0,)])
    marked = reject(df, "s", Rejection(F.col("t") == 4, "r", {}))
    assert_rows(applied(step, marked).where("t = 2"), ["x"], [(None,)])


def test_a_split_in_time_is_not_bridged_and_the_past_does_not_see_what_comes(spark):
    """Training ends on day 3: its last gap has no value after it, and the test's first none before."""
    rows = [("a", d, None if d in (3, 4, 6) else float(d), "train" if d <= 3 else "test") for d in range(1, 8)]
    df = frame(spark, "k string, t int, x double, split string", *rows)
    found = {}
    for step in (ImputePrevious, ImputeNext, ImputeInterpolated):
        out = applied(step(columns=("x",), by=("k",), order="t"), df)
        found[step.name] = [x for _, x in sorted(plain_rows(out, "t", "x"))]
    assert found["impute_previous"] == [1, 2, 2, None, 5, 5, 7]
    assert found["impute_next"] == [1, 2, None, 5, 5, 7, 7]
    assert found["impute_interpolated"] == [1, 2, None, None, 5, 6, 7]
    # What is filled from the past stays when the future is another.
    later = frame(
        spark, "k string, t int, x double, split string", *(r if r[1] < 7 else (*r[:2], 99.0, r[3]) for r in rows)
    )
    step = ImputePrevious(columns=("x",), by=("k",), order="t", across_splits=True)
    a, b = (plain_rows(applied(step, each).where("t < 7"), "t", "x") for each in (df, later))
    assert a == b and (4, 2.0) in a


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": ()}, "by: name"),
        ({"order": "x"}, "cannot be filled"),
        ({"longest": 0}, "above 0"),
        ({"by": ("z",)}, "no column"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(StepError, match=message):
        ImputePrevious(**{"columns": ("x",), "by": ("k",), "order": "t", **options}).columns_after(
            columns_of(*"kxt"), {}
        )


def test_an_order_that_is_a_text_is_refused(spark):
    with pytest.raises(StepError, match="not a number, a date or a time"):
        applied(
            ImputePrevious(columns=("x",), by=("k",), order="t"), frame(spark, "k int, t string, x int", (1, "a", 1))
        )


def test_larger_groups_serve_where_smaller_ones_have_no_value(spark):
    rows = [
        ("s1", "c1", 1.0),
        ("s1", "c1", None),
        ("s2", "c1", 3.0),
        ("s3", "c1", None),
        ("s4", "c2", None),
        ("s5", "c3", 11.0),
    ]
    df = frame(spark, "shop string, city string, x double", *rows)
    step = ImputeMean(columns=("x",), by=("shop", "city"), levels=(("city",),))
    out = {r[0]: r[1] for r in plain_rows(applied(step, df).where("x is not null"), "shop", "x")}
    assert (out["s1"], out["s3"], out["s4"]) == (1.0, 2.0, 5.0)
    frozen = ImputeMode(columns=("x",), by=("shop", "city"), levels=(("city",),)).fit(df, None)
    again = options_of(FITTED[frozen.name]).validate_json(options_of(type(frozen)).dump_json(frozen))
    assert plain_rows(again.apply(df), "shop", "x") == plain_rows(frozen.apply(df), "shop", "x")
    with pytest.raises(StepError, match="levels"):
        ImputeMean(columns=("x",), levels=(("city",),)).columns_after(columns_of("x", "city"), {})
