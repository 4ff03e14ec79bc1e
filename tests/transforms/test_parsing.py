"""Texts as values: what stands for a value of a type, and what only looks like it."""

from datetime import date, datetime, timezone
from decimal import Decimal

import pytest
from pyspark.sql import functions as F
from pyspark.sql import types as T

from headgate.transforms.parsing import Marks, parsed
from tests.conftest import same

HUGE = str(1 << 63)
CASES = {
    "int": {
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
        **dict.fromkeys(["3,14", "1.239", "123456789.00", "1.5e-2", "NaN", "1e-40", "1e99", "."]),
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
