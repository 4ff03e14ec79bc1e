import dataclasses

import pyarrow as pa
import pytest
from pyspark.sql import functions as F

from headgate.jobs.pipeline.context import BuildContext
from headgate.transforms.cleaning import ballots
from headgate.transforms.cleaning.ballots import model_of
from headgate.transforms.cleaning.dependencies import discover
from headgate.transforms.cleaning.formats import learn_format, read_cell
from headgate.transforms.cleaning.ranges import range_of
from headgate.transforms.cleaning.repair import Dependency, RepairCells, RepairKnown
from headgate.transforms.cleaning.sources import source_weights
from headgate.transforms.cleaning.typos import learn_typos
from headgate.transforms.cleaning.votes import Model, Rule, Votes, judge_row, outside, parse_rules
from headgate.transforms.quantiles import Spread
from headgate.transforms.rows import training_rows
from headgate.transforms.step import StepError
from headgate.transforms.steps import FITTED, options_of
from tests.conftest import plain_rows
from tests.transforms.frames import Telling, applied, columns_of, frame

ZIP = Dependency(columns=("zip",), decides=("city",))
CITIES = [
    *[(i, 10001, "New York") for i in range(5)],
    (5, 10001, "Newark"),
    (6, 10001, None),
    *[(i, 60601, "Chicago") for i in range(7, 11)],
    (11, 60601, "Chicagx"),
    (12, 99999, "Nome"),
    (13, None, "Chicago"),
]


def cities(spark, rows=CITIES):
    return frame(spark, "id int, zip int, city string", *rows)


def values_of(df, *columns):
    return {r[0]: r[1:] for r in plain_rows(df, "id", *columns)}


def test_a_cell_that_its_group_outvotes_is_repaired_and_what_it_was_stays_visible(spark):
    out = values_of(applied(RepairCells(dependencies=(ZIP,)), cities(spark)), "zip", "city", "faults", "_changed")
    assert [out[i][1] for i in (0, 5, 6, 11, 12, 13)] == ["New York"] * 3 + ["Chicago", "Nome", "Chicago"]
    (fault,) = out[5][2]
    assert fault["column"] == "city" and fault["was"] == "Newark" and fault["proposed"] == "New York"
    assert fault["reason"] == "dependency" and fault["changed"] and 0.5 < fault["confidence"] < 1
    assert out[6][2][0]["reason"] == "missing_in_group" and out[6][2][0]["was"] is None
    assert out[5][3] == [{"column": "city", "step": "repair_cells"}]
    assert out[0][2:] == ([], []) and out[12][2:] == ([], [])


@pytest.mark.parametrize(
    ("action", "city", "changed"), [("repair", "New York", True), ("null", None, True), ("flag", "Newark", False)]
)
def test_actions(spark, action, city, changed):
    out = values_of(applied(RepairCells(dependencies=(ZIP,), action=action), cities(spark)), "city", "faults")
    assert out[5][0] == city and out[5][1][0]["changed"] is changed


def test_a_repair_below_the_confidence_is_flagged_alone(spark):
    step = RepairCells(dependencies=(ZIP,), confidence=0.99)
    out = values_of(applied(step, cities(spark)), "city", "faults")
    assert out[5][0] == "Newark" and out[5][1][0]["proposed"] == "New York" and not out[5][1][0]["changed"]


@pytest.mark.slow
def test_partitioning_and_order_change_nothing(spark):
    df = cities(spark)
    step = RepairCells(dependencies=(ZIP,))
    parts = [df.repartition(5), df.orderBy("city")]
    assert len({repr(plain_rows(applied(step, part))) for part in parts}) == 1


def test_only_training_rows_vote(spark):
    kinds = "id int, zip int, city string, split string"
    train = [(i, 1, "A", "train") for i in range(3)]
    test = [(i, 1, "B", "test") for i in range(3, 9)]
    out = values_of(applied(RepairCells(dependencies=(ZIP,)), frame(spark, kinds, *train, *test)), "city")
    assert {v[0] for v in out.values()} == {"A"}


def test_columns_of_other_types_keep_them(spark):
    rows = [*[(i, "a", 7, True) for i in range(4)], (4, "a", 8, None)]
    df = frame(spark, "id int, k string, n bigint, b boolean", *rows)
    step = RepairCells(dependencies=(Dependency(columns=("k",), decides=("n", "b")),), faults=None)
    out = applied(step, df)
    assert dict(out.dtypes)["n"] == "bigint" and values_of(out, "n", "b")[4] == (7, True)
    assert "faults" not in out.columns


def test_fitted_state_survives_json_and_repairs_new_rows(spark):
    df = cities(spark)
    step = RepairCells(dependencies=(ZIP,), columns=("city",))
    frozen = None

    class Fitting(RepairCells):
        def fit(self, rows, context):
            nonlocal frozen
            frozen = super().fit(rows, context)
            return frozen

    applied(Fitting(**{f.name: getattr(step, f.name) for f in dataclasses.fields(step)}), training_rows(df))
    written = options_of(type(frozen)).dump_json(frozen)
    again = options_of(FITTED[frozen.name]).validate_json(written)
    new = frame(spark, "id int, zip int, city string", (1, 60601, "Chikago"), (2, 1, "Nowhere"))
    assert values_of(again.run(new, None), "city") == {1: ("Chicago",), 2: ("Nowhere",)}


@pytest.mark.slow
def test_votes_of_many_groups_are_a_file_and_say_the_same(spark, tmp_path, monkeypatch):
    states = {"New York": "NY", "Chicago": "IL", "Nome": "AK"}
    rows = [(*row, states.get(row[2], "NY") if row[0] % 5 else "XX") for row in CITIES]
    df = frame(spark, "id int, zip int, city string, state string", *rows)
    step = RepairCells(dependencies=(ZIP, Dependency(columns=("city",), decides=("state",))))
    found = []
    for most in (100, 1):
        monkeypatch.setattr(ballots, "MOST_GROUPS", most)
        context = BuildContext(spark, str(tmp_path / f"{most}"), fitted=str(tmp_path / f"fitted{most}"))
        frozen = step.fit(training_rows(df), context)
        saved = options_of(RepairKnown).dump_json(frozen)
        again = options_of(RepairKnown).validate_json(saved)
        found.append(sorted(plain_rows(again.run(df.repartition(3), context), "id", *df.columns, "faults")))
        assert (b"Chicago" in saved.partition(b'"votes"')[2]) is (most == 100) and bool(frozen.stored) is (most == 1)
    assert found[0] == found[1] and str(found[0]).count("'dependency'") == 6


def test_sources_that_err_weigh_less(spark):
    # Of a and b, alone against three copies of what c says, c is found out by the groups in which it stands alone.
    rows = [(i, f"f{i}", f"t{i}", s) for i in range(8) for s in ("a", "b", "d")]
    rows += [(i, f"f{i}", f"wrong{i}", "c") for i in range(8)]
    rows += [(i, "f9", "right", s) for i, s in enumerate(("a", "b"))] + [(i, "f9", "late", "c") for i in range(3)]
    df = frame(spark, "id int, flight string, time string, src string", *rows)
    rule = Dependency(columns=("flight",), decides=("time",))
    plain = applied(RepairCells(dependencies=(rule,)), df).where("flight = 'f9'")
    weighed = applied(RepairCells(dependencies=(rule,), sources="src"), df).where("flight = 'f9'")
    assert {r[0] for r in plain_rows(plain, "time")} == {"late"}
    assert {r[0] for r in plain_rows(weighed, "time")} == {"right"}


@pytest.mark.slow
def test_of_many_claims_the_weights_of_sources_are_learned_from_some_groups(spark, tmp_path, monkeypatch):
    rows = [(i, f"f{i}", f"t{i}", s) for i in range(30) for s in ("a", "b", "d")]
    rows += [(i, f"f{i}", f"wrong{i}", "c") for i in range(30)]
    rows += [(40, "f40", "right", "a"), (41, "f40", "late", "c"), (42, "f40", "", "a"), (43, "f40", "none", None)]
    rows += [(44, "f40", "other", "")]
    df = frame(spark, "id int, flight string, time string, src string", *rows)
    step = RepairCells(dependencies=(Dependency(columns=("flight",), decides=("time",)),), sources="src", faults=None)
    found, weights = [], []
    monkeypatch.setattr(ballots, "source_weights", lambda claims: weights.append(source_weights(claims)) or weights[-1])
    for most, groups, parts in ((1000, 1000, 2), (60, 1000, 3), (60, 1, 5), (0, 1000, 1)):
        monkeypatch.setattr(ballots, "MOST_CLAIMS", most)
        monkeypatch.setattr(ballots, "MOST_GROUPS", groups)
        context = BuildContext(spark, str(tmp_path / f"{parts}"), fitted=str(tmp_path / f"fitted{parts}"))
        frozen = step.fit(training_rows(df.repartition(parts)), context)
        found.append(values_of(frozen.run(df, context), "time"))
    assert found[0][40] == ("right",) and found[0] == found[1] == found[2]
    assert all(v == (f"t{i}",) for i, v in found[3].items() if i < 30)  # each source weighs 1
    assert weights[2] == weights[4] != weights[0] and weights[-1] == {}  # two rounds each
    assert all(w["c"] < min(w["a"], w["b"]) for w in weights[:6])


def test_groups_that_the_model_has_are_not_copied_for_each_batch():
    rule = Rule(("k",), "v")
    known, stored = (Votes(rule=rule, groups=g, strength=0.9) for g in ({("1",): (2.0, (("a", 2.0),))}, {}))
    model = Model(columns=("k", "v"), votes=((known,), (stored,)))
    group = {"turn": 1, "rule": 0, "key": ["2"], "rows": 3.0, "ranked": [{"value": "b", "rows": 3.0}]}
    ballot = pa.array([[group], []], pa.list_(pa.struct([
        ("turn", pa.int32()), ("rule", pa.int32()), ("key", pa.list_(pa.string())), ("rows", pa.float64()),
        ("ranked", pa.list_(pa.struct([("value", pa.string()), ("rows", pa.float64())])))])))  # fmt: skip
    cells = pa.StructArray.from_arrays([pa.array(["2", "1"])] * 2 + [ballot], ["k0", "k1", "ballots"])
    ((same,), (new,)) = model_of(model, cells).votes
    assert same is known and new.groups == {("2",): (3.0, (("b", 3.0),))} and new.leaders == {("2",): "b"}
    assert same.leaders is known.leaders


def test_no_rows_and_empty_columns_change_nothing(spark):
    for rows in ([], [(1, None, None)]):
        out = applied(RepairCells(columns=("city",), dependencies=(ZIP,)), cities(spark, rows))
        assert values_of(out, "city", "faults") == {r[0]: (None, []) for r in rows}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "name columns, dependencies or ranges"),
        ({"columns": ("citi",)}, "did you mean 'city'"),
        ({"dependencies": (Dependency(columns=("zip",), decides=("zip",)),)}, "decides others"),
        ({"columns": ("city",), "confidence": 2}, "not within 0 and 1"),
        ({"columns": ("city",), "faults": "zip"}, "a column 'zip' already"),
        ({"ranges": {"zip": (500, 1)}}, "the wrong way round"),
        ({"ranges": {"zip": ("2024-02", "2024-01-31")}}, "the wrong way round"),
        ({"ranges": {"zip": ("ten", None)}}, "'ten' is neither a number nor a day"),
        ({"ranges": {"zip": (1, "2024-01-31")}}, "'1' and '2024-01-31' are not both numbers, or both days"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(StepError, match=message):
        RepairCells(**options).columns_after(columns_of("id", "zip", "city"), {})


def test_rules_of_holoclean_and_arrows_are_read():
    text = "t1&t2&EQ(t1.zip,t2.zip)&IQ(t1.city,t2.city)\nzip, a_b -> state\nt1&t2&EQ(t1.zip,t2.zip)&GT(t1.a_b,t2.a_b)"
    rules, skipped = parse_rules(text, ["zip", "city", "state", "a b"])
    assert rules == [Rule(("zip",), "city"), Rule(("zip", "a b"), "state")]
    assert len(skipped) == 1
    with pytest.raises(StepError, match="no column 'town'"):
        parse_rules("zip -> town", ["zip"])


@pytest.mark.parametrize(
    ("counts", "cell", "read", "fault"),
    [
        ({"12": 60, "12 oz": 30, "12.0 OZ.": 10}, "12.0 oz", "12", "unit"),
        ({"95%": 100}, "95%", "95%", ""),
        ({"1": 99, "x": 1}, "x", "x", "wrong_format"),
        ({"9:15 am": 80, "10:05 pm": 30, "Dec 1 9:15 am": 4}, "Dec 2 7:05 am", "7:05 am", "embedded"),
        ({"a": 5}, "N/A", None, "marker_of_missing"),
        ({"a b": 50, "Smith-Jones": 1}, "Smith-Jones", "Smith-Jones", ""),
    ],
)
def test_formats(counts, cell, read, fault):
    assert read_cell(cell, learn_format(counts)) == (read, fault)


def test_misspellings_have_the_same_digits_and_one_neighbour():
    counts = {"Boston": 100, "Bostom": 1, "Austin": 100, "Austen": 90, "Austan": 1, "97 %": 100, "57 %": 1}
    assert learn_typos(counts) == {"Bostom": "Boston"}


@pytest.mark.parametrize(
    ("value", "bounds", "out"),
    [
        ("5", ("0", "4"), True),
        ("4", ("0", "4.0"), False),
        ("-1", (None, "4"), False),
        ("2013-02-01", ("2013-01-01", "2013-01-31"), True),
        ("2013-01-31T23:00:00", ("2013-01-01", "2013-01-31"), False),
        ("word", ("0", "4"), False),
        ("Infinity", ("0", "4"), True),
        ("Infinity", ("0", None), False),
        ("-Infinity", ("0", None), True),
        (None, ("0", "4"), False),
    ],
)
def test_ranges(value, bounds, out):
    assert outside(value, bounds) is out


def test_a_value_that_is_out_of_range_is_known_to_be_at_fault_alone():
    model = Model(columns=("n",), ranges={"n": ("0", "10")})
    fault = judge_row({"n": "11"}, {"n": "11"}, model)["n"]
    assert fault.new is None and not fault.sure and fault.reason == "out_of_range"


def test_ranges_are_learned_where_most_values_are_and_wrong_ones_move_them_little(spark):
    days = [f"2013-{1 + i % 12:02}-{1 + i % 28:02}" for i in range(200)]
    rows = [(i, float(i % 50), str(1.5 * (i % 40)), days[i], 7) for i in range(200)]
    rows[3], rows[5], rows[7] = (
        (3, 4000.0, "12", days[3], 7),
        (5, -9e9, "x", days[5], 7),
        (7, 8.0, "1e9", "9999-12-31", 8),
    )
    df = frame(spark, "id int, n double, t string, d string, c int", *rows).withColumn("d", F.col("d").cast("date"))
    step = RepairCells(ranges=dict.fromkeys("ntdc", "learned"), formats=False, domains=False, action="null")
    out = {
        i: [f["column"] for f in faults] for i, (faults,) in values_of(applied(step, df), "faults").items() if faults
    }
    assert out == {3: ["n"], 5: ["n"], 7: ["d", "t"]}
    assert range_of(Spread(19, 0, 9, [0, 1, 2]), "int") == range_of(None, "date") == (None, None)
    assert range_of(Spread(20, 0, 9, [1, 1, 2]), "int") == (None, "6.0")
    assert range_of(Spread(20, 0, 9, [-1e6, 0, 2.5]), "timestamp") == (None, "1970-01-14")


def test_ties_keep_the_cell():
    votes = Votes(rule=Rule(("k",), "v"), groups={("1",): (4.0, (("a", 2.0), ("b", 2.0)))}, strength=0.5)
    model = Model(columns=("k", "v"), votes=((votes,),), counts={"v": {"a": 2, "b": 2}})
    assert judge_row({"k": "1", "v": "b"}, {"k": "1", "v": "b"}, model) == {}


def test_dependencies_are_found_and_keys_and_constants_prove_nothing():
    n = range(300)
    table = {
        "id": [str(i) for i in n],
        "zip": [str(i % 20) for i in n],
        "city": [f"city {i % 10}" if i % 25 else "typo" for i in n],
        "one": ["x"] * 300,
        "noise": [str(i * 7919 % 13) for i in n],
        "empty": [None] * 300,
        "pair": [str(i // 2) for i in n],
    }
    found = dict(discover(table))
    assert list(found) == [Rule(("zip",), "city")] and 0.95 < found[Rule(("zip",), "city")] < 0.97
    assert discover({}) == [] and discover({"a": [], "b": []}) == []


def test_what_is_found_is_proposed_or_applied(spark):
    rows = [(i, i % 10, f"city {i % 5}") for i in range(100)] + [(100, 3, "city 4"), (101, 3, None)]
    df = cities(spark, rows)
    told = Telling()
    told.keep = lambda rows, name: rows
    proposed = RepairCells(columns=("zip", "city"), discover="propose").fit(df, told)
    assert [("zip → city holds for 99" in w, "not repaired by" in w) for w in told.warnings] == [(True, True)]
    assert values_of(proposed.run(df, None), "city")[100] == ("city 4",)
    out = values_of(applied(RepairCells(columns=("zip", "city"), discover="apply"), df), "city")
    assert out[100] == out[101] == ("city 3",)
