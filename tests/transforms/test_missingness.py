from datetime import date

import pytest

from headgate.jobs.cli.output import figure_line
from headgate.jobs.pipeline.context import BuildContext
from headgate.transforms.imputation.hidden import hidden_in
from headgate.transforms.imputation.measuring import MeasureMissing
from headgate.transforms.imputation.missingness import DropSparse, FlagMissing, NullMarkers, RejectMissing
from headgate.transforms.step import StepError
from headgate.transforms.steps import FITTED, options_of
from tests.conftest import assert_rows, plain_rows
from tests.transforms.frames import Telling, applied, columns_of, frame, rejected

NAN = float("nan")
AGES = {str(a): 3 for a in range(18, 70)}


@pytest.mark.parametrize(
    ("counts", "value", "kind", "applied_"),
    [
        (AGES | {"-999": 5}, "-999", "sentinel", True),
        (AGES | {"?": 2}, "?", "marker", True),
        (AGES | {"unknown": 2}, "unknown", "word", True),
        ({"red": 9, "green": 8, "unknown": 2}, "unknown", "word", False),
        ({"DE": 9, "FR": 8, "NA": 2}, "NA", "marker", False),
        ({f"2020-01-{d:02}": 2 for d in range(1, 29)} | {"9999-12-31": 4}, "9999-12-31", "date", True),
        ({str(v): 2 for v in range(60, 140, 5)} | {"0": 30}, "0", "zero", False),
    ],
)
def test_hidden_missing_values_are_found(counts, value, kind, applied_):
    found = hidden_in("c", counts, rows=sum(counts.values()))
    assert [(h.value, h.kind, h.apply) for h in found] == [(value, kind, applied_)]


@pytest.mark.parametrize(
    "counts", [{}, AGES, {"0": 5, "1": 9, "2": 4, "3": 2, "4": 1, "5": 1}, {"99": 1, "98": 2, "97": 2}]
)
def test_plain_values_are_left_alone(counts):
    assert hidden_in("c", counts, rows=sum(counts.values())) == []


DAYS = {f"2020-01-{d:02}": 2 for d in range(1, 29)}


@pytest.mark.parametrize(
    ("counts", "values"),
    [
        (AGES | {"-2147483648": 2}, ["-2147483648"]),
        (AGES | {"2147483647": 2}, ["2147483647"]),
        (AGES | {"-999": 3, "-999.0": 2, "twenty": 1}, ["-999", "-999.0"]),
        (DAYS | {"9999-12-31": 4, "soon": 1}, ["9999-12-31"]),
        ({f"{d} 10:00:00": n for d, n in DAYS.items()} | {"9999-12-31 00:00:00": 4}, ["9999-12-31 00:00:00"]),
    ],
)
def test_hidden_values_are_named_as_their_cells_spell_them(counts, values):
    found = hidden_in("c", counts, rows=sum(counts.values()))
    assert [(h.value, h.rows, h.apply) for h in found] == [(v, counts[v], True) for v in values]


def test_declared_markers_are_emptied_and_noted(spark):
    df = frame(spark, "n int, t string, d date, x double", (-9, "?", date(9999, 12, 31), -1.0), (1, "a", None, NAN))
    step = NullMarkers(markers={"n": (-9,), "t": ("?", ""), "d": ("9999-12-31",), "x": (-1.0,)})
    out = applied(step, df)
    assert_rows(out.where("t is null"), ["n", "t", "d", "x"], [(None,) * 4])
    assert_rows(out.where("t = 'a'"), ["n", "x"], [(1, NAN)])
    assert sorted(len(r[0]) for r in plain_rows(out, "_changed")) == [0, 4]


@pytest.mark.parametrize(("learn", "left"), [("propose", 5), ("apply", 0), ("nothing", 5)])
def test_what_is_found_is_proposed_and_applied_where_asked(spark, learn, left):
    df = frame(spark, "n int, m int", *((a, a) for a in range(18, 70)), *((-999, None) for _ in range(5)))
    context = Telling()
    frozen = NullMarkers(columns=("n",), learn=learn, markers={"m": (18,)}).fit(df, context)
    assert frozen.apply(df).where("n = -999").count() == left
    assert ["-999" in w and "5 rows" in w for w in context.warnings] == [True] * (learn != "nothing")
    again = options_of(FITTED[frozen.name]).validate_json(options_of(type(frozen)).dump_json(frozen))
    assert plain_rows(again.apply(df)) == plain_rows(frozen.apply(df))


def test_a_marker_that_the_type_does_not_hold_is_refused(spark):
    with pytest.raises(StepError, match="does not hold"):
        applied(NullMarkers(markers={"n": ("?",)}), frame(spark, "n int", (1,)))
    with pytest.raises(StepError, match="name markers"):
        NullMarkers().columns_after(columns_of("n"), {})


def test_flags_say_what_was_missing(spark):
    df = frame(spark, "x double, t string", (1.0, None), (NAN, ""), (None, "a"))
    out = plain_rows(applied(FlagMissing(columns=("x", "t")), df), "x_missing", "t_missing")
    assert out == [(False, True), (True, False), (True, False)]


def test_rows_that_lack_too_much_are_marked(spark):
    df = frame(spark, "id int, x double, t string", (1, 1.0, None), (2, NAN, None), (3, None, "a"))
    (gone,) = plain_rows(rejected(applied(RejectMissing(columns=("x", "t"), share=0.5), df), "id"))
    assert gone[0] == 2 and gone[2] == "too_many_missing" and gone[3]["columns"] == "x, t"


def test_sparse_columns_are_dropped_by_the_training_rows(spark):
    rows = [(1, None, "train"), (2, None, "train"), (3, 3, "train"), *((i, i, "test") for i in range(9))]
    df = frame(spark, "a int, b int, split string", *rows)
    out = applied(DropSparse(columns=("a", "b"), share=0.5), df)
    assert "b" not in out.columns and "a" in out.columns
    kept = applied(DropSparse(columns=("a", "b"), share=0.7), df)
    assert "b" in kept.columns
    with pytest.raises(StepError, match="below 1"):
        DropSparse(columns=("a",), share=1).columns_after(columns_of("a"), {})


def test_what_is_missing_is_measured_and_no_row_changes(spark, tmp_path):
    rows = [
        (None if i < 20 else NAN if i < 30 else 1.0, None if i < 20 else i, "ab"[i % 2], date(2024, 1 + i % 3, 5))
        for i in range(90)
    ]
    df = frame(spark, "x double, y int, g string, d date", *rows)
    context = BuildContext(spark, str(tmp_path))
    step = MeasureMissing(columns=("x", "y", "d"), by="g", over="d", most=2)
    step.check(df, context)
    assert str(plain_rows(step.run(df, context))) == str(plain_rows(df))  # NaN is unequal to itself
    told = [(f["name"], round(f["value"], 4), f["facts"]) for f in context.figures]
    assert told[:5] == [
        ("missing", 0.3333, {"column": "x", "rows": 30}),
        ("missing", 0.2222, {"column": "y", "rows": 20}),
        ("missing alone or together", 0.6667, {"columns": "none", "rows": 60}),
        ("missing alone or together", 0.2222, {"columns": "x, y", "rows": 20}),
        ("missing together, times chance", 3.0, {"columns": "x, y", "rows": 20}),
    ]
    assert ("missing by g", 0.3333, {"column": "x", "value": "a", "rows": 15}) in told
    assert [f[2]["value"] for f in told if f[0] == "missing by d"] == ["2024-03-01"] * 2 + ["2024-02-01"] * 2
    null = BuildContext(spark, str(tmp_path / "null"))
    groups = frame(spark, "x int, g string", (None, "null"), (1, "null"), (None, None))
    MeasureMissing(columns=("x",), by="g").run(groups, null)
    assert [(f["value"], f["facts"]["value"]) for f in null.figures if f["name"] == "missing by g"] == [
        (0.5, "null"),
        (1.0, None),
    ]
    assert figure_line(null.figures[-1]).endswith("(column x, value (null), rows 1)")
    nothing = BuildContext(spark, str(tmp_path / "none"))
    step.run(df.where("false"), nothing)
    assert nothing.figures == []
