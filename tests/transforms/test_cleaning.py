from datetime import datetime
from decimal import Decimal

import pytest
from pyspark.sql import functions as F

from headgate.transforms.balancing.split import SplitByHash
from headgate.transforms.cleaning.bounds import CheckBounds, CheckOutliersIqr, RejectRows
from headgate.transforms.cleaning.columns import Cast, Derive, DropColumns, Rename, SelectColumns, type_of
from headgate.transforms.cleaning.mapping import MapColumns, MappedColumn
from headgate.transforms.cleaning.text import NormalizeText
from headgate.transforms.cleaning.times import LocalToUtc
from headgate.transforms.cleaning.units import ConvertUnits, UnitChange, factor_and_offset
from headgate.transforms.cleaning.urls import NormalizeUrl
from headgate.transforms.step import StepError, follow
from headgate.transforms.steps import options_of
from tests.conftest import assert_rows, plain_rows
from tests.transforms.frames import applied, columns_of, frame, kept, rejected

NAN = float("nan")


def changed(df, *columns):
    return {row[:-1]: [(c["column"], c["step"]) for c in row[-1]] for row in plain_rows(df, *columns, "_changed")}


def test_cast_converts_and_marks_what_cannot_be_converted(spark):
    df = frame(spark, "id int, n string", (1, "7"), (2, "seven"), (3, None))
    out = applied(Cast(columns={"n": "int"}), df)
    assert_rows(kept(out), ["id", "n"], [(1, 7), (3, None)])
    evidence = {"column": "n", "value": "seven", "type": "int"}
    assert_rows(rejected(out, "id"), ["id", "step", "reason", "evidence"], [(2, "cast", "wrong_type", evidence)])


def test_cast_may_empty_the_cell_instead(spark):
    df = frame(spark, "id int, n string", (1, "7"), (2, "seven"))
    out = applied(Cast(columns={"n": "int"}, invalid="null"), df)
    assert_rows(kept(out), ["id", "n"], [(1, 7), (2, None)])
    assert changed(out, "id") == {(1,): [], (2,): [("n", "cast")]}


LONG = 2**63 - 1
EXACT = {  # type -> other type -> SQL value -> what it is of the other type, as text
    "double": {
        "bigint": {"9223372036854775807e0": None, "-9223372036854775808e0": str(-(2**63)), "1.7e0": None, "-0e0": "0"},
        "varchar(3)": {"1e0": "1.0", "10e0": None},
    },
    "bigint": {"double": {f"{LONG}L": None, "4L": "4.0"}, "float": {"16777217L": None, "16777216L": "1.6777216E7"}},
    "binary": {"string": {"X'61'": "a", "X'FF'": None}},
    "array<string>": {"array<int>": {"array('1', null)": "[1, null]", "array('1', 'x')": None}},
    "array<double>": {"array<int>": {"array(1e0)": "[1]", "array(1e0, 1.7e0)": None}},
    "map<string,string>": {
        "map<string,date>": {"map('a', '2024-02-29')": "{a -> 2024-02-29}", "map('a', '2024')": None}
    },
    "struct<a:string,b:array<string>>": {
        "struct<a:int,b:array<int>>": {"struct('1', array('2'))": "{1, [2]}", "struct('1', array('x'))": None},
        "string": {"struct('1', null)": "{1, null}"},
    },
}


def test_a_value_of_another_type_is_converted_exactly_or_not_at_all(spark):
    for have, others in EXACT.items():
        for kind, wanted in others.items():
            values = ", ".join(f"(cast({value} as {have}), '{value.replace(chr(39), '')}')" for value in wanted)
            df = spark.sql(f"select * from values {values} as t(v, name)")
            step = Cast(columns={"v": kind})
            found = step.converted(F.col("v"), df.schema["v"].dataType, type_of(kind), "v").cast("string")
            given = {value.replace("'", ""): text for value, text in wanted.items()}
            assert dict(df.select("name", found).collect()) == given, (have, kind)


@pytest.mark.parametrize(
    ("step", "kind", "told"),
    [
        (
            ConvertUnits(columns={"v": UnitChange(from_unit="mile", to_unit="km")}),
            "string",
            "'v' is string, not a number",
        ),
        (NormalizeText(columns=("v",)), "int", "'v' is int, not a text"),
        (NormalizeUrl(columns=("v",)), "binary", "'v' is binary, not a text"),
        (LocalToUtc(columns={"v": "u"}, time_zone="UTC"), "int", "'v' is int, not a text, a date or a timestamp"),
        (
            MapColumns(columns={"n": MappedColumn(of="v", unit="mile", to_unit="km")}),
            "date",
            "n: 'v' is date, not a num",
        ),
        (MapColumns(columns={"n": MappedColumn(of="v", time_zone="UTC")}), "int", "n: local_to_utc: 'v' is int"),
        (
            MapColumns(columns={"n": MappedColumn(of="v", type="date")}),
            "int",
            "n: 'v' is int, which cannot be converted",
        ),
    ],
)
def test_columns_of_other_types_than_a_step_works_on_are_refused(step, kind, told):
    with pytest.raises(StepError) as e:
        follow(step, {"v": kind}, {})
    assert told in str(e.value)
    assert follow(step, {"v": None}, {})


@pytest.mark.parametrize(
    ("have", "kind", "told"),
    [
        ("bigint", "date", "'v' is bigint, which cannot be converted to date; such a value becomes one of: number, b"),
        ("date", "int", "one of: date, timestamp, string"),
        ("string", "array<int>", "'v' is string, which cannot be converted to array<int>"),
        ("array<int>", "int", "one of: array, string"),
        ("boolean", "timestamp", "one of: boolean, number, string"),
    ],
)
def test_types_that_have_nothing_to_do_with_each_other_are_refused(have, kind, told):
    with pytest.raises(StepError) as e:
        follow(Cast(columns={"v": kind}), {"v": have}, {})
    assert told in str(e.value)


def test_members_of_structs_and_keys_of_maps_are_not_converted(spark):
    df = frame(spark, "v struct<a:int,b:int>, m map<string,int>", ((1, 2), {"1": 1}))
    for column, kind in {"v": "struct<b:int,a:int>", "m": "map<int,int>"}.items():
        with pytest.raises(StepError, match="its members or keys are others"):
            applied(Cast(columns={column: kind}), df)


def test_a_derived_time_that_not_every_reader_can_hold_is_marked(spark):
    df = frame(spark, "id int, ms bigint", (1, 1705312800), (2, 1705312800000), (3, None))
    out = applied(Derive(columns={"at": "timestamp_seconds(ms)", "days": "array(date_add(date'2024-01-01', id))"}), df)
    assert plain_rows(kept(out).selectExpr("id", "cast(at as string)")) == [(1, "2024-01-15 10:00:00"), (3, None)]
    evidence = {"column": "at", "text": "+56009-03-18 16:00:00"}
    assert_rows(rejected(out, "id"), ["id", "reason", "evidence"], [(2, "unsupported_date", evidence)])
    assert_rows(out.selectExpr("id", "size(days) as n"), ["id", "n"], [(1, 1), (2, 1), (3, 1)])


def test_first_failing_column_gives_the_reason(spark):
    df = frame(spark, "a string, b string", ("x", "y"))
    out = applied(Cast(columns={"a": "int", "b": "int"}), df)
    assert_rows(rejected(out), ["reason"], [("wrong_type",)])


def test_columns_are_renamed_selected_dropped_and_derived(spark):
    df = frame(spark, "a int, b int", (1, 2))
    assert Rename(columns={"a": "c"}).columns_after({"a": "int", "b": None}, {}) == {"c": "int", "b": None}
    assert_rows(applied(Derive(columns={"c": "a + b"}), df), ["a", "b", "c"], [(1, 2, 3)])
    assert "b" not in applied(DropColumns(columns=("b",)), df).columns
    selected = applied(SelectColumns(columns=("b",)), df).columns
    assert selected[0] == "b" and "a" not in selected and "_row_id" in selected


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (Cast(columns={"aa": "int"}), "there is no column 'aa' here — did you mean 'a'?"),
        (Rename(columns={"a": "b"}), "two columns would be named 'b'"),
        (Derive(columns={"_hg_x": "1"}), "bookkeeping"),
        (Derive(columns={"x": "rand()"}), "which is random"),
        (Derive(columns={"x": "sum(a) over (partition by b)"}), "other rows"),
        (CheckBounds(columns={"a": (2, 1)}), "wrong way round"),
        (RejectRows(where="concat('a', 'b')", reason="x"), "where: 'concat('a', 'b')' is string, not a predicate"),
        (MapColumns(columns={"d": MappedColumn(value=1, type="date")}), "d: 'value' is date, which does not hold 1"),
        (LocalToUtc(columns={"a": "u"}, time_zone="America/New_Yrok"), "did you mean 'America/New_York'?"),
        (LocalToUtc(columns={"a": "u"}), "exactly one of"),
        (LocalToUtc(columns={"a": "u"}, time_zone="UTC", timestamp_format="dd/MM/yyyy HH:mm[ XXX]"), "optional zone"),
        (Cast(columns={"a": "date"}, date_format="dd/MM"), "no whole day"),
        (ConvertUnits(columns={"a": UnitChange(from_unit="metre", to_unit="kg")}), "cannot convert"),
        (ConvertUnits(columns={"a": UnitChange(from_unit="metrre", to_unit="km")}), "cannot convert"),
        (SplitByHash(key=("a",), seed=2**63), "seed: 9223372036854775808 is beyond the whole numbers of 64 bits"),
    ],
)
def test_wrong_options_are_refused_before_spark(step, told):
    with pytest.raises(StepError, match=r".*") as e:
        follow(step, columns_of("a", "b"), {})
    assert told in str(e.value)


def test_text_is_normalised_and_changes_are_noted(spark):
    df = frame(spark, "id int, t string", (1, "  a \t b "), (2, "ab"), (3, "   "), (4, None), (5, "\u00a0x"))
    out = applied(NormalizeText(columns=("t",), case="upper"), df)
    assert_rows(out, ["id", "t"], [(1, "A B"), (2, "AB"), (3, None), (4, None), (5, "X")])
    assert changed(out, "id")[(4,)] == []
    assert changed(out, "id")[(1,)] == [("t", "normalize_text")]


def test_text_takes_a_unicode_form(spark):
    df = frame(spark, "t string", ("e\u0301",), (None,), ("\uff21",))
    assert_rows(applied(NormalizeText(columns=("t",), unicode="NFC"), df), ["t"], [("é",), (None,), ("\uff21",)])
    assert_rows(applied(NormalizeText(columns=("t",), unicode="NFKC"), df), ["t"], [("é",), (None,), ("A",)])


@pytest.mark.parametrize(
    ("from_unit", "to_unit", "value", "expected"),
    [
        ("degF", "degC", 212.0, 100.0),
        ("degF", "degC", -40.0, -40.0),
        ("mile/hour", "m/s", 10.0, 4.4704),
        ("inch", "mm", 2.0, 50.8),
        ("mbar", "hPa", 1013.0, 1013.0),
    ],
)
def test_units(from_unit, to_unit, value, expected):
    factor, offset = factor_and_offset(UnitChange(from_unit=from_unit, to_unit=to_unit))
    assert value * factor + offset == pytest.approx(expected, abs=1e-9)


def test_units_keep_null_and_nan(spark):
    df = frame(spark, "d double", (1.0,), (None,), (NAN,))
    out = applied(ConvertUnits(columns={"d": UnitChange(from_unit="mile", to_unit="km", into="km")}), df)
    assert_rows(out, ["km"], [(1.609344,), (None,), (NAN,)])


def test_local_times_become_utc(spark):
    rows = [
        ("2013-01-01 05:15:00", "America/New_York"),
        ("2013-07-01 05:15:00", "America/New_York"),
        ("2013-03-10 02:30:00", "America/New_York"),  # skipped by the zone: moved forward
        (None, "America/New_York"),
        ("nonsense", "America/New_York"),
        ("2013-01-01 05:15:00", None),
    ]
    df = frame(spark, "t string, z string", *rows)
    out = applied(LocalToUtc(columns={"t": "u"}, time_zone_column="z"), df)
    found = [r["u"] for r in out.orderBy("u").collect() if r["u"]]
    texts = sorted(r[0] for r in out.selectExpr("cast(u as string)").collect() if r[0])
    assert len(found) == 3
    assert texts == ["2013-01-01 10:15:00", "2013-03-10 07:30:00", "2013-07-01 09:15:00"]
    assert all(isinstance(u, datetime) for u in found)


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("clip", [(1, 0.0), (2, 5.0), (3, 10.0), (4, None), (5, None)]),
        ("null", [(1, None), (2, 5.0), (3, None), (4, None), (5, None)]),
    ],
)
def test_bounds_change_cells(spark, action, expected):
    df = frame(spark, "id int, x double", (1, -1.0), (2, 5.0), (3, 11.0), (4, None), (5, NAN))
    out = applied(CheckBounds(columns={"x": (0, 10)}, action=action), df)
    assert_rows(out, ["id", "x"], expected)
    noted = {key[0] for key, entries in changed(out, "id").items() if entries}
    assert noted == {1, 3, 5}


def test_bounds_reject_or_flag(spark):
    df = frame(spark, "id int, x double", (1, -1.0), (2, 0.0), (3, 10.0), (4, None), (5, NAN))
    out = applied(CheckBounds(columns={"x": (0, 10)}), df)
    assert_rows(rejected(out, "id"), ["id", "reason"], [(1, "out_of_bounds"), (5, "out_of_bounds")])
    flagged = applied(CheckBounds(columns={"x": (0, None)}, action="flag"), df)
    assert_rows(flagged, ["id", "x_out_of_bounds"], [(1, True), (2, False), (3, False), (4, False), (5, True)])


def test_integer_columns_stay_integer_when_clipped(spark):
    df = frame(spark, "x int", (-5,), (5,))
    assert_rows(applied(CheckBounds(columns={"x": (0, 3)}, action="clip"), df), ["x"], [(0,), (3,)])


def test_iqr_fences_are_learned_from_training_rows(spark):
    rows = [(i, float(i), "train") for i in range(1, 10)] + [(10, 1000.0, "test"), (11, NAN, "train")]
    df = frame(spark, "id int, x double, split string", *rows)
    frozen = CheckOutliersIqr(columns=("x",)).fit(df.where("split = 'train'"), None)
    assert frozen.columns == {"x": (-3.0, 13.0)}  # quartiles 3 and 7
    out = applied(CheckOutliersIqr(columns=("x",)), df)
    found = rejected(out, "id")
    assert_rows(found, ["id", "step"], [(10, "check_outliers_iqr"), (11, "check_outliers_iqr")])


def test_iqr_of_an_empty_column_fences_nothing(spark):
    df = frame(spark, "x double", (None,), (None,))
    assert CheckOutliersIqr(columns=("x",)).fit(df, None).columns == {"x": (None, None)}


def test_rows_are_rejected_by_a_predicate(spark):
    df = frame(spark, "a int, b int", (1, 1), (1, 2), (None, 1))
    out = applied(RejectRows(where="a = b", reason="loop", show=("a",)), df)
    assert_rows(rejected(out), ["reason", "evidence"], [("loop", {"where": "a = b", "a": "1"})])


def test_a_marked_row_keeps_its_first_mark(spark):
    df = frame(spark, "a int", (1,))
    twice = applied(RejectRows(where="a = 1", reason="second"), applied(RejectRows(where="a = 1", reason="first"), df))
    assert_rows(rejected(twice), ["reason"], [("first",)])


def test_bounds_of_whole_numbers_and_decimals_are_exact(spark):
    big = 9007199254740993
    rows = [(1, 4, big, Decimal("1.10"), 0.1), (2, 16, big - 1, Decimal("1.20"), 0.5), (3, 10, big + 1, None, None)]
    df = frame(spark, "id int, n int, b bigint, d decimal(5,2), f float", *rows)
    bounds = {"n": (4.5, 15.5), "b": (big, big), "d": (Decimal("1.101"), Decimal("1.199")), "f": (0.2, 0.4)}
    clipped = applied(CheckBounds(columns=bounds, action="clip"), df)
    found = {r["id"]: r for r in clipped.collect()}
    assert [found[i]["n"] for i in (1, 2, 3)] == [5, 15, 10]
    assert [found[i]["b"] for i in (1, 2, 3)] == [big] * 3
    assert [found[i]["d"] for i in (1, 2, 3)] == [Decimal("1.11"), Decimal("1.19"), None]
    assert 0.2 <= found[1]["f"] < 0.2000001 and 0.3999999 < found[2]["f"] <= 0.4
    out = applied(CheckBounds(columns={"b": (None, big)}), df)
    evidence = {"column": "b", "value": str(big + 1), "lowest": None, "highest": str(big)}
    assert_rows(rejected(out, "id"), ["id", "evidence"], [(3, evidence)])
    far = applied(
        CheckBounds(columns={"n": (-1e300, 1e300), "b": (10**30, None), "d": (None, -1e9)}, action="flag"), df
    )
    flags = [f"{c}_out_of_bounds" for c in "nbd"]
    assert_rows(far, ["id", *flags], [(1, False, True, True), (2, False, True, True), (3, False, True, False)])
    for impossible in ({"n": (4.2, 4.8)}, {"n": (2**31, None)}, {"d": (None, -5000)}):
        with pytest.raises(StepError, match="no value of that type lies within"):
            applied(CheckBounds(columns=impossible, action="clip"), df)


def test_bounds_are_read_as_they_are_written():
    check = options_of(CheckBounds)
    step = check.validate_python({"columns": {"x": [9007199254740993, 0.1]}})
    assert step.columns["x"] == (9007199254740993, Decimal("0.1"))
    assert check.validate_python(check.dump_python(step, mode="json")) == step


def test_fences_of_large_whole_numbers_and_decimals_are_exact(spark):
    big = 9007199254740993
    df = frame(spark, "b bigint, d decimal(30,2)", *[(big, Decimal(big))] * 3, (big + 8, Decimal(big) + 8))
    frozen = CheckOutliersIqr(columns=("b", "d")).fit(df, None)
    # Quartiles are big and big + 2: the third lies a quarter of the way to the last value.
    assert frozen.columns == {"b": (big - 3, big + 5), "d": (big - 3, big + 5)}
    out = frozen.apply(df)
    assert [r["b"] for r in rejected(out, "b").collect()] == [big + 8]


def test_bounds_of_what_is_no_number_are_refused(spark):
    df = frame(spark, "s string, t timestamp", ("1", None))
    for step in (CheckBounds(columns={"s": (0, 1)}), CheckOutliersIqr(columns=("t",))):
        with pytest.raises(StepError, match=r"'[st]' is (string|timestamp), not a number"):
            applied(step, df)


def test_names_that_change_places_keep_their_cells(spark):
    df = frame(spark, "a int, b int, `c.d` int", (1, 2, 3))
    out = applied(Rename(columns={"a": "b", "b": "c.d", "c.d": "a"}), df)
    assert_rows(out, ["a", "b", "`c.d`"], [(3, 1, 2)])
    assert "c.d" not in applied(DropColumns(columns=("c.d",)), df).columns


def test_mistakes_of_an_expression_are_told_with_the_column(spark):
    for step in (Derive(columns={"x": "aa + 1"}), RejectRows(where="aa > 1", reason="r")):
        with pytest.raises(StepError, match="no column 'aa'"):
            follow(step, columns_of("a"), {})
    with pytest.raises(StepError, match="x: 'a < 'today'' uses 'today', which Spark may read"):
        applied(Derive(columns={"x": "a < 'today'"}), frame(spark, "a date"))
    # Only the types tell that this text becomes the day of the run.
    with pytest.raises(StepError, match="uses 'today', which Spark may read"):
        applied(RejectRows(where="a = 'today'", reason="r"), frame(spark, "a date"))
    assert applied(RejectRows(where="a = 'today'", reason="r"), frame(spark, "a string", ("today",))).count() == 1


def test_a_time_with_an_offset_in_its_form_is_not_shifted_and_old_names_of_zones_are_refused(spark):
    df = frame(spark, "t string, z string", ("15/01/2024 10:00 +02:00", "America/New_York"))
    step = LocalToUtc(columns={"t": "u"}, time_zone_column="z", timestamp_format="dd/MM/yyyy HH:mm XXX")
    assert [r["u"] for r in applied(step, df).selectExpr("cast(u as string) as u").collect()] == ["2024-01-15 08:00:00"]
    zones = ("BST", "PST", "CET", "+05:30", "UTC")
    df = frame(spark, "t string, z string", *((f"2024-07-01 12:00:0{i}", z) for i, z in enumerate(zones)))
    out = applied(LocalToUtc(columns={"t": "u"}, time_zone_column="z"), df)
    assert {r["z"] for r in rejected(out, "z").collect()} == {"BST", "PST"}
