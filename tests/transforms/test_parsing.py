"""Texts as values: what stands for a value of a type, and what only looks like it."""

from datetime import date, datetime, timezone
from decimal import Decimal

import pytest
from pyspark.errors import PySparkException
from pyspark.sql import functions as F
from pyspark.sql import types as T

from headgate.transforms.parsing import DATE_LETTERS, MOST_LETTERS, TIME_LETTERS, Marks, check_pattern, outside, parsed
from headgate.transforms.step import StepError
from tests.conftest import same

HUGE = str(1 << 63)
CASES = {
    "int": {
        **{"\t7\r\n": 7, "\n7\t ": 7},
        **{"7": 7, " 007 ": 7, "+7": 7, "-0": 0, "2147483647": 2147483647},
        **dict.fromkeys(["", " ", "1.0", "1e2", "2147483648", "0x10", "7 8", "١", "1_000", "1,000", "NaN", "--1"]),
    },
    "bigint": {"9223372036854775807": (1 << 63) - 1, HUGE: None, "12L": None},
    "double": {
        **{"1.5": 1.5, "-.5": -0.5, "5.": 5.0, "1E5": 1e5, "NaN": float("nan"), "-Infinity": float("-inf")},
        **{"0e-400": 0.0, "-0.0": -0.0, "1e308": 1e308, "0.000": 0.0},
        **dict.fromkeys(["12d", "12f", "0x1p3", "1E400", "1e-400", "3,14", ".", "e5", "1.5.2", "infinitive", "nano"]),
    },
    "decimal(10,2)": {
        **{"3.14": Decimal("3.14"), "3.1400": Decimal("3.14"), "-0.5": Decimal("-0.50"), "1E2": Decimal("100.00")},
        **{"12345678.90": Decimal("12345678.90"), "1.5e-1": Decimal("0.15"), ".5": Decimal("0.50")},
        **{"0E-8": Decimal("0.00"), "150e-2": Decimal("1.50"), "12.30E-01": Decimal("1.23"), "5e-2": Decimal("0.05")},
        **dict.fromkeys(["3,14", "1.239", "123456789.00", "1.5e-2", "NaN", "1e-40", "1e99", "."]),
    },
    "decimal(18,8)": {
        **{"1E-8": Decimal("1e-8"), "1e-07": Decimal("1e-7"), "0E-10": Decimal(0), "100e-10": Decimal("1e-8")},
        **{"123456789012e-8": Decimal("1234.56789012"), "-1.5E-7": Decimal("-1.5e-7"), "1e-9": None, "1.5e-8": None},
    },
    "date": {
        **{"2024-02-29": date(2024, 2, 29), "0001-01-01": date(1, 1, 1), " 2024-01-15 ": date(2024, 1, 15)},
        **dict.fromkeys(["2024-01-15 banana", "2024-02-30", "202407", "2024", "2024-1-5", "0000-01-01", "10000-01-01"]),
        **dict.fromkeys(["25/12/1990", "2024-01-15T00:00:00", "-2024-01-01", "12:30", "today", "epoch"]),
    },
    "timestamp": {
        **{"2024-01-15": datetime(2024, 1, 15), "2024-01-15T10:30": datetime(2024, 1, 15, 10, 30)},
        **{"2024-01-15 12:00:00+02:00": datetime(2024, 1, 15, 10), "2024-01-15T12:00+0200": datetime(2024, 1, 15, 10)},
        **{"2024-01-15T12:00:00.123456000Z": datetime(2024, 1, 15, 12, 0, 0, 123456)},
        **{"2024-01-15 12:00 UTC": datetime(2024, 1, 15, 12), "2024-01-15T12:00:00-05": datetime(2024, 1, 15, 17)},
        **dict.fromkeys(["12:30", "2024", "2024-01-15 25:00:00", "2024-01-15T10:00:00.1234567", "now", "1705312800"]),
        **dict.fromkeys(["2024-01-15 10:00 Europe/Berlin", "2024-01-15 10:00:00 foo", "2024-13-01"]),
    },
    "boolean": {"true": True, "T": True, "Yes": True, "0": False, "no": False, "2": None, "on": None, "": None},
    "string": {" a ": " a ", "": ""},
    "varchar(2)": {"ab": "ab", "abc": None},
}


@pytest.mark.parametrize("kind", CASES)
def test_a_text_is_a_value_only_if_all_of_it_is(spark, kind):
    wanted = CASES[kind]
    rows = spark.createDataFrame([(t,) for t in wanted], "t string")
    value = parsed(F.col("t"), T._parse_datatype_string(kind))
    shown = value if kind != "timestamp" else value.cast("string")
    found = {r["t"]: r["v"] for r in rows.select("t", shown.alias("v")).collect()}
    if kind == "timestamp":
        found = {t: v and datetime.fromisoformat(v) for t, v in found.items()}
    wrong = {t: (v, wanted[t]) for t, v in found.items() if not same(v, wanted[t])}
    assert not wrong


def test_patterns_are_those_that_spark_reads(spark):
    """Each letter as often in a row as is allowed, and once more; quotes and brackets."""

    def allowed(pattern):
        try:
            check_pattern("timestamp_format", pattern, time=True)
        except StepError:
            return False
        return True

    def read(*some):
        try:
            spark.range(1).select(*(F.try_to_timestamp(F.lit("2024"), F.lit(p)) for p in some)).collect()
        except PySparkException:
            return False
        return True

    letters = {*DATE_LETTERS, *TIME_LETTERS} - {"S"}  # of which Spark reads nine, and holds six
    runs = [letter * n for letter in letters for m in [MOST_LETTERS.get(letter, 2)] for n in {1, m, m + 1}]
    patterns = [f"y/M/d h/a/{run}" for run in [*runs, "OO", "'x''y'", "[X]", "[X", "]", "X]", "#", "{", "}", "'x"]]
    fine = [p for p in patterns if allowed(p)]
    assert len(fine) > len(letters) and read(*fine)
    assert not [p for p in patterns if p not in fine and read(p)]


def test_marks_of_numbers_and_times(spark):
    marks = Marks(decimal=",", thousands=".", date_format="dd/MM/yyyy", timestamp_format="dd.MM.yyyy HH:mm")
    texts = {
        "double": {"1.234.567,5": 1234567.5, "3,14": 3.14, "12.34": None, "1.5": None, "1234,5": 1234.5},
        "decimal(10,2)": {"1.234,50": Decimal("1234.50"), "1,239": None, "1.23": None},
        "int": {"1.000": 1000, "1.00": None, "1000": 1000},
        "date": {"25/12/1990": date(1990, 12, 25), "31/02/2024": None, "1990-12-25": None, "25/12/1990 x": None},
        "timestamp": {"25.12.1990 10:30": datetime(1990, 12, 25, 10, 30), "25.12.1990": None},
    }
    for kind, wanted in texts.items():
        rows = spark.createDataFrame([(t,) for t in wanted], "t string")
        value = parsed(F.col("t"), T._parse_datatype_string(kind), marks)
        found = {r["t"]: r["v"] for r in rows.select("t", value.alias("v")).collect()}
        if kind == "timestamp":
            found = {
                t: v and datetime.fromtimestamp(v.timestamp(), timezone.utc).replace(tzinfo=None)
                for t, v in found.items()
            }
        assert found == wanted


def test_nested_texts_are_values_only_together(spark):
    kind = "struct<a:int,b:array<struct<d:date>>,m:map<string,double>>"
    rows = [
        ("fine", {"a": "1", "b": [{"d": "2024-01-01"}, None], "m": {"x": "1.5", "y": None}}),
        ("empty", {"a": None, "b": [], "m": {}}),
        ("bad leaf", {"a": "1", "b": [{"d": "2024-01-32"}], "m": {}}),
        ("bad value", {"a": "1", "b": None, "m": {"x": "one"}}),
        ("none", None),
    ]
    texts = "struct<a:string,b:array<struct<d:string>>,m:map<string,string>>"
    df = spark.createDataFrame(rows, f"name string, t {texts}")
    found = {
        r["name"]: r["v"]
        for r in df.select("name", parsed(F.col("t"), T._parse_datatype_string(kind)).alias("v")).collect()
    }
    assert found["fine"].asDict(recursive=True) == {
        "a": 1,
        "b": [{"d": date(2024, 1, 1)}, None],
        "m": {"x": 1.5, "y": None},
    }
    assert found["empty"].asDict(recursive=True) == {"a": None, "b": [], "m": {}}
    assert found["bad leaf"] is None and found["bad value"] is None and found["none"] is None


def test_days_outside_the_years_that_readers_hold_are_found_at_any_depth(spark):
    far, near = "date'9999-12-31' + interval 1 day", "date'9999-12-31'"
    kinds = {
        "{}": (far, near, "cast(null as date)"),
        "array(null, {})": (far, near),
        "map('k', named_struct('a', {}, 'b', 1))": (far, near),
        "map({}, 1)": (far, near),
        "named_struct('a', array(timestamp'0001-01-01' - make_interval(0, 0, 0, if({} > date'9999-12-31', 1, 0))))": (
            far,
            near,
        ),
    }
    for text, values in kinds.items():
        for value in values:
            df = spark.sql(f"select {text.format(value)} as v")
            assert df.select(outside(F.col("v"), df.schema["v"].dataType)).first()[0] is (value == far), text
