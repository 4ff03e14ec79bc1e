"""No name of a user's column changes what a step does: headgate's own working columns are reserved names."""

import pytest

from headgate.jobs.pipeline.context import BuildContext
from headgate.transforms.balancing.split import SplitByHash
from headgate.transforms.balancing.strata import SampleStrata
from headgate.transforms.balancing.weights import ClassWeights
from headgate.transforms.cleaning.bounds import CheckBounds, CheckOutliersIqr, RejectRows
from headgate.transforms.cleaning.columns import Derive, DropColumns, Rename, SelectColumns
from headgate.transforms.cleaning.text import NormalizeText
from headgate.transforms.cleaning.units import ConvertUnits, UnitChange
from headgate.transforms.cleaning.urls import NormalizeUrl
from headgate.transforms.fusion.join import JoinTable
from headgate.transforms.imputation.simple import ImputeConstant, ImputeMean, ImputeMedian, ImputeMode
from headgate.transforms.rows import quoted
from headgate.transforms.step import StepError, follow, user_columns
from tests.transforms.frames import applied, columns_of, frame

# Plain names in the code of the steps, of the gate and of Spark's own aggregates, and some that break quoting.
WORDS = """
key kept gone hash bin n count value build score stratum rank row_id place copies label here there matched element k0 m0
p0 failing masks bits rows target equal content taken upto a.b where column step reason evidence lowest highest
threshold table name id col k v low high pair median found drawn sum(x) count(1) 汉字 order back`tick
"""
NAMES = [*WORDS.split(), "with space"]
VALUES = [(1, 2.0, "x"), (2, None, "y"), (3, 4.0, None), (4, 8.0, "x"), (5, 100.0, "x")]
COUNT, MISSING, TEXT = "count", "key", "label"  # columns that the steps work on have such names too

STEPS = [
    CheckBounds(columns={MISSING: (0, 50)}),
    CheckBounds(columns={MISSING: (0, 50), "value": (0, 3)}, action="clip"),
    CheckBounds(columns={MISSING: (0, 50)}, action="flag"),
    CheckOutliersIqr(columns=(MISSING, "value")),
    RejectRows(where="`count` > 2", reason="r", show=("where", COUNT)),
    Derive(columns={"new": "`count` + `value`", "n2": "`a.b`"}),
    Rename(columns={COUNT: "value", "value": COUNT}),
    SelectColumns(columns=(COUNT, "a.b", "back`tick", TEXT, "drawn")),
    DropColumns(columns=("a.b", "back`tick", COUNT)),
    ConvertUnits(columns={"value": UnitChange(from_unit="km", to_unit="m", into="metres")}),
    NormalizeText(columns=(TEXT, "name"), case="upper"),
    NormalizeUrl(columns=(TEXT,)),
    ImputeConstant(values={MISSING: 7.0, "with space": 1}),
    ImputeMean(columns=(MISSING, COUNT), by=(TEXT,)),
    ImputeMedian(columns=(MISSING, "value"), by=("hash",)),
    ImputeMode(columns=(MISSING, TEXT), by=("bin", "stratum")),
    JoinTable(table="other", on={COUNT: "count", "key": "key"}, columns={"w": "n"}, matched="was_found"),
    SplitByHash(key=("hash", COUNT), shares={"train": 1.0}),
    ClassWeights(label=TEXT, into="weight_of"),
    SampleStrata(by=("stratum", TEXT), rows=1),
    SampleStrata(by=("bin",), rows=4, max_copies=3),
]


def row_of(value, names):
    """The cells of one row: the same for every column but those that steps work on."""
    number, missing, text = value
    cells = {name: number for name in names} | {MISSING: missing, TEXT: text, "name": text}
    return tuple(cells[name] for name in names)


@pytest.mark.parametrize("step", STEPS, ids=lambda s: s.name)
def test_a_step_leaves_columns_of_any_name_alone(spark, step):
    kinds = {MISSING: "double", TEXT: "string", "name": "string"}
    schema = ", ".join(f"{quoted(n)} {kinds.get(n, 'int')}" for n in NAMES)
    df = frame(spark, schema, *(row_of(v, NAMES) for v in VALUES))
    if step.name == "sample_strata":
        df = applied(SplitByHash(key=("hash",), shares={"train": 1.0}), df)
    other = spark.createDataFrame([(1, 2.0, 5), (4, 8.0, 6)], "`count` int, key double, n int")
    out = applied(step, df, other=other)
    followed = follow(step, user_columns(df), {"other": dict(other.dtypes)})
    assert list(user_columns(out)) == list(followed)
    assert all(kind in (None, user_columns(out)[c]) for c, kind in followed.items())
    rows = [r.asDict() for r in out.collect()]
    assert len(rows) >= len(VALUES)
    touched = {e["column"] for r in rows for e in r["_changed"]} | (
        {"value"} if step.name == "convert_units" else set()
    )
    places = {COUNT: "value", "value": COUNT} if step.name == "rename" else {}
    cells = {v[0]: dict(zip(NAMES, row_of(v, NAMES), strict=True)) for v in VALUES}
    for row in rows:
        before = cells[row["drawn"]]
        wrong = {n for n, c in before.items() if places.get(n, n) in row and row[places.get(n, n)] != c}
        assert wrong <= touched, row


@pytest.mark.parametrize(
    "step",
    [
        Rename(columns={"a": "_Row_id"}),
        Rename(columns={"a": "B"}),
        Derive(columns={"_hg_x": "1"}),
        Derive(columns={"_file": "1"}),
        Derive(columns={"A": "1"}),
        Derive(columns={"x": "1", "X": "2"}),
        JoinTable(table="o", on={"a": "k"}, columns={"_parents": "v"}, matched="m"),
        JoinTable(table="o", on={"a": "k"}, columns={"B": "v"}, matched="m"),
        JoinTable(table="o", on={"a": "k"}, columns={"w": "v"}, matched="W"),
        ClassWeights(label="a", into="b"),
        ClassWeights(label="a", into="_hg_w"),
        ConvertUnits(columns={"a": UnitChange(from_unit="m", to_unit="km", into="b")}),
        ConvertUnits(columns={"a": UnitChange(from_unit="m", to_unit="km", into="_changed")}),
        CheckBounds(columns={"c": (0, 1)}, action="flag"),
        SelectColumns(columns=("a", "a")),
    ],
    ids=str,
)
def test_a_name_that_is_taken_or_reserved_is_refused(step):
    have = columns_of("a", "b", "c", "C_out_of_bounds", "_file")
    with pytest.raises(StepError, match=r"already|would be named|named twice|bookkeeping"):
        follow(step, have, {"o": columns_of("k", "v")})


def test_names_are_followed_again_where_only_spark_knows_them(spark):
    df = frame(spark, "a int, B int", (1, 2))
    with pytest.raises(StepError, match="no column 'c'"):
        Rename(columns={"c": "d"}).check(df, BuildContext(spark, ""))
    with pytest.raises(StepError, match="differ only in case"):
        Derive(columns={"b": "a"}).check(df, BuildContext(spark, ""))
