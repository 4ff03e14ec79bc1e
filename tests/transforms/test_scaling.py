"""Scaling and encoding: scikit-learn's numbers, fitted on training rows alone, and undone."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.transforms.balancing.split import fitted
from headgate.transforms.cleaning.scores import sampled_numbers
from headgate.transforms.rows import REJECTED, quoted, training_rows
from headgate.transforms.scaling.codes import EncodeOrdinal
from headgate.transforms.scaling.exact import Moments, moments_of
from headgate.transforms.scaling.indicators import EncodeOneHot, new_name
from headgate.transforms.scaling.linear import ScaleMaxAbs, ScaleMinMax, ScaleRobust, ScaleStandard
from headgate.transforms.scaling.logs import TransformLog
from headgate.transforms.scaling.norms import ScaleUnitNorm
from headgate.transforms.scaling.power import TransformPower, fit_power
from headgate.transforms.scaling.ranks import TransformQuantile, fit_quantiles, from_shape, to_shape
from headgate.transforms.scaling.target import EncodeTarget, fold_of
from headgate.transforms.scaling.undo import UndoStep
from headgate.transforms.step import StepError, user_columns
from headgate.transforms.steps import FITTED, options_of
from tests.conftest import plain_rows
from tests.transforms.frames import applied, frame, rejected

NAN, INF = float("nan"), float("inf")
preprocessing = pytest.importorskip("sklearn.preprocessing")
SCALERS = {  # step without columns -> scikit-learn's
    "minmax": (ScaleMinMax, {"range": (-1.0, 3.0)}, lambda: preprocessing.MinMaxScaler((-1, 3))),
    "clipped": (ScaleMinMax, {"clip": True}, lambda: preprocessing.MinMaxScaler(clip=True)),
    "standard": (ScaleStandard, {}, lambda: preprocessing.StandardScaler()),
    "uncentred": (ScaleStandard, {"center": False}, lambda: preprocessing.StandardScaler(with_mean=False)),
    "robust": (ScaleRobust, {}, lambda: preprocessing.RobustScaler()),
    "tenths": (ScaleRobust, {"quantiles": (0.1, 0.9)}, lambda: preprocessing.RobustScaler(quantile_range=(10, 90))),
    "maxabs": (ScaleMaxAbs, {}, lambda: preprocessing.MaxAbsScaler()),
    "yeo": (TransformPower, {}, lambda: preprocessing.PowerTransformer()),
    "cox": (TransformPower, {"method": "box_cox"}, lambda: preprocessing.PowerTransformer("box-cox")),
    "even": (TransformQuantile, {"quantiles": 50}, lambda: preprocessing.QuantileTransformer(n_quantiles=50)),
    "normal": (
        TransformQuantile,
        {"shape": "normal", "quantiles": 50},
        lambda: preprocessing.QuantileTransformer(n_quantiles=50, output_distribution="normal"),
    ),
}


def skewed(seed: int, rows: int) -> np.ndarray:
    """Positive numbers with a long tail, ties and missing ones."""
    rng = np.random.default_rng(seed)
    values = np.round(rng.lognormal(1, 1, rows), 2) + 0.01
    return np.where(rng.random(rows) < 0.1, np.nan, values)


FEW = ("standard", "normal")


@pytest.mark.parametrize("names", [FEW, pytest.param(tuple(SCALERS), marks=pytest.mark.slow)], ids=["few", "all"])
def test_numbers_are_those_of_scikit_learn_and_come_back(spark, names):
    """Each scaler on a column of its own, learned from the training rows; others go beyond what it learned."""
    scalers = {name: SCALERS[name] for name in names}
    train, other = skewed(1, 300), skewed(2, 60) * 3
    values = np.concatenate([train, other])
    kinds = ", ".join(f"{name} double" for name in scalers)
    rows = [(i, "train" if i < 300 else "test", *[float(v)] * len(scalers)) for i, v in enumerate(values)]
    df = frame(spark, f"id int, split string, {kinds}", *rows)
    before, steps = df, []
    for name, (kind, options, _) in scalers.items():
        steps.append(fitted(kind(columns=(name,), **options).at(f"t/{name}"), df, None))
        saved = options_of(type(steps[-1])).dump_json(steps[-1])
        steps[-1] = options_of(FITTED[steps[-1].name]).validate_json(saved)
        df = steps[-1].apply(df)
    found = {r["id"]: r for r in df.collect()}
    for name, (_, _, theirs) in scalers.items():
        # In the order of the sample, on which the last digits of a power depend.
        sample = sampled_numbers(training_rows(before), [name], 1000, 0)
        expected = theirs().fit(sample).transform(values[:, None])[:, 0]
        ours = np.array([found[i][name] for i in range(len(values))], float)
        np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-9, err_msg=name)
    for step in reversed(steps):
        df = step.undo(df)
    assert df.dtypes == before.dtypes
    again = {r["id"]: r for r in df.collect()}
    for name in scalers:
        bounded = name in ("clipped", "even", "normal")
        wanted = np.clip(values, np.nanmin(train), np.nanmax(train)) if bounded else values
        ours = np.array([again[i][name] for i in range(len(values))], float)
        np.testing.assert_allclose(ours, wanted, rtol=1e-7 if name == "normal" else 1e-9, err_msg=name)


def test_kernels_are_those_of_scikit_learn():
    values = skewed(3, 500)
    for method in ("yeo_johnson", "box_cox"):
        theirs = preprocessing.PowerTransformer(method.replace("_", "-")).fit(values[:, None])
        ours = fit_power(values, method, True)
        assert ours["exponent"] == pytest.approx(theirs.lambdas_[0], abs=1e-12)
        assert ours["deviation"] == pytest.approx(theirs._scaler.scale_[0], rel=1e-12)
    new = np.concatenate([values, [-1.0, 1e9, 0.123, NAN]])
    for shape in ("uniform", "normal"):
        theirs = preprocessing.QuantileTransformer(n_quantiles=100, output_distribution=shape).fit(values[:, None])
        expected = theirs.transform(new[:, None])
        quantiles = fit_quantiles(values, 100)
        np.testing.assert_allclose(to_shape(new, quantiles, shape), expected[:, 0], rtol=0, atol=1e-12)
        back = from_shape(expected[:, 0], quantiles, shape)
        np.testing.assert_allclose(back, theirs.inverse_transform(expected)[:, 0], rtol=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(width=64), max_size=30), st.integers(0, 30))
def test_moments_are_those_of_exact_arithmetic(values, cut):
    found = moments_of(np.array(values, float))
    known = [Fraction(v) for v in values if math.isfinite(v)]
    assert found == moments_of(np.array(values[:cut], float)) + moments_of(np.array(values[cut:], float))
    assert (found.n, Fraction(found.total, 1 << 1074)) == (len(known), sum(known))
    assert Fraction(found.squares, 1 << 2148) == sum(v * v for v in known)
    if known:
        assert found.mean == float(sum(known) / len(known))


def test_many_equal_numbers_far_from_zero_have_no_deviation():
    found = moments_of(np.full(100_000, 1e15 + 0.1))
    assert (found.mean, found.variance) == (1e15 + 0.1, 0.0)
    assert moments_of(np.array([1e308, -1e308])).variance == INF
    assert Moments().n == 0


@pytest.mark.slow
def test_what_is_missing_infinite_constant_or_empty_is_defined(spark):
    """One column for each case: what the training rows hold, what a row with 7, null, NaN, inf becomes."""
    rows = [(i, "train", 5.0, None, x) for i, x in enumerate([1.0, 3.0, NAN, None, INF, -INF])]
    rows += [(10 + i, "test", x, x, x) for i, x in enumerate([7.0, None, NAN, INF])]
    df = frame(spark, "id int, split string, constant double, empty double, x double", *rows)
    expected = {
        ScaleMinMax: ([2.0, INF], [3.0, INF]),
        ScaleStandard: ([2.0, INF], [5.0, INF]),
        ScaleRobust: ([2.0, INF], [5.0, INF]),
        ScaleMaxAbs: ([7 / 5, INF], [7 / 3, INF]),
        TransformQuantile: ([1.0, 1.0], [1.0, 1.0]),
    }
    steps = {kind: fitted(kind(columns=("constant", "empty", "x")), df, None) for kind in expected}
    for kind, (constant, x) in expected.items():
        found = {r["id"]: r for r in steps[kind].apply(df).where("split = 'test'").collect()}
        for column, (seven, infinite) in (("constant", constant), ("x", x)):
            assert [found[10][column], found[13][column]] == [seven, infinite], (kind, column)
            assert found[11][column] is None and math.isnan(found[12][column]), (kind, column)
        assert [found[i]["empty"] for i in (10, 11, 12, 13)] == [None] * 4, kind


@pytest.mark.slow
def test_numbers_that_no_double_holds_are_scaled_as_others_and_come_back(spark):
    near = [0, 1, 2, 3, 7, 8, 9, 17]
    big = [(n, n + 2**60, Decimal(n + 10**20) + Decimal("0.25"), "ab"[n % 2]) for n in near]
    df = frame(spark, "n bigint, whole bigint, digits decimal(30,2), g string", *big)
    for step in (ScaleMinMax, ScaleStandard, ScaleRobust):
        for by in ((), ("g",)):
            frozen = step(columns=("n", "whole", "digits"), by=by).fit(df, None)
            out = frozen.apply(df)
            for small, *others in plain_rows(out, "n", "whole", "digits"):
                assert others == pytest.approx([small] * 2, rel=1e-12, abs=1e-12), step
            assert set(frozen.origins) == {"whole", "digits"}
            again = options_of(FITTED[frozen.name]).validate_json(options_of(type(frozen)).dump_json(frozen))
            assert plain_rows(again.undo(out), *df.columns[:3]) == plain_rows(df, *df.columns[:3]), step


def test_what_a_columns_type_does_not_hold_is_rejected_when_it_is_brought_back(spark):
    numbers = "n bigint, d decimal(4,1), p int, q int, x double, none int, g string"
    rows = [(i, Decimal(i), i * i, i, float(i), None, "ab"[i % 2]) for i in range(1, 9)]
    df = frame(spark, numbers, *rows)
    columns = ("n", "d", "p", "q", "x", "none")
    steps = [ScaleStandard(columns=(c,)) for c in ("n", "d", "x", "none")]
    steps += [TransformPower(columns=("p",)), TransformQuantile(columns=("q",)), EncodeOrdinal(columns=("g",))]
    scaled = "n double, d double, p double, q double, x double, none double, g int, place int"
    wide = {at: [1e300 if c == at else 0.5 for c in columns] for at in columns}
    bad = [(*wide[at], 1) for at in ("n", "d", "p", "x", "none")]
    bad += [(INF, *[0.5] * 5, 0), (*[0.5] * 6, 7), (*[0.5] * 6, -1), (*[None] * 6, None), (*[NAN] * 6, 0)]
    bad = [(*cells, i) for i, cells in enumerate(bad)]
    out = frame(spark, scaled, *bad)
    for step in steps:
        frozen = step.fit(df, None)
        written = options_of(type(frozen)).dump_python(frozen, mode="json")
        out = UndoStep(step=frozen.name, options=written).at("back/0-undo_step").apply(out)
    assert out.columns == frame(spark, scaled, *bad).columns
    found = [r[REJECTED] and (r[REJECTED]["reason"], r[REJECTED]["evidence"]) for r in out.orderBy("place").collect()]
    wrong = lambda c, value, kind: ("wrong_type", {"column": c, "value": value, "type": kind})  # noqa: E731
    assert found[:3] == [wrong("n", "1.0E300", "bigint"), wrong("d", "1.0E300", "decimal(4,1)"), found[2]]
    assert found[2][1]["column"] == "p" and found[3:5] == [None, None]
    assert found[5:7] == [
        wrong("n", "Infinity", "bigint"),
        ("unknown_code", {"column": "g", "value": "7", "type": "string"}),
    ]
    assert found[7:] == [None] * 3


@pytest.mark.slow
def test_groups_have_their_own_line_and_others_that_of_all(spark):
    rows = [("a", 1, "train"), ("a", 3, "train"), ("b", 10, "train"), ("b", 30, "train"), (None, 100, "train")]
    rows += [("a", 5, "test"), ("b", 20, "test"), ("c", 100, "test"), (None, 1, "test")]
    df = frame(spark, "g string, x int, split string", *rows)
    for step, expected in (
        (ScaleMinMax(columns=("x",), by=("g",)), {("a", 5): 2.0, ("b", 20): 0.5, ("c", 100): 1.0, (None, 1): 0.0}),
        (ScaleMaxAbs(columns=("x",), by=("g",)), {("a", 5): 5 / 3, ("b", 20): 2 / 3, ("c", 100): 1.0, (None, 1): 0.01}),
        (ScaleStandard(columns=("x",), by=("g",)), {("a", 5): 3.0, ("b", 20): 0.0}),
    ):
        frozen = fitted(step, df, None)
        scaled = frozen.apply(df)
        pairs = scaled.selectExpr("g", "x as y", "_row_id").join(df.select("_row_id", "x", "split"), "_row_id")
        found = {(r["g"], r["x"]): r["y"] for r in pairs.where("split = 'test'").collect()}
        assert {k: found[k] for k in expected} == pytest.approx(expected)
        assert plain_rows(frozen.undo(scaled), "g", "x") == plain_rows(df, "g", "x")
        assert frozen.undo(scaled.select("split")).columns == ["split"]  # of other columns nothing is asked
        with pytest.raises(StepError, match="'x' was scaled by g; it cannot be brought back without the column 'g'"):
            frozen.undo(scaled.select("x"))
    overall = np.array([1, 3, 10, 30, 100])
    assert found["c", 100] == pytest.approx((100 - overall.mean()) / overall.std(), rel=1e-12)


@pytest.mark.slow
def test_rows_have_norm_one(spark):
    values = [(3.0, 4), (0.0, 0), (-1.0, 1), (1e-200, 0), (1e300, 0)]
    df = frame(spark, "a double, b int", *values, (1.0, None), (NAN, 1))
    for norm in ("l1", "l2", "max"):
        out = applied(ScaleUnitNorm(columns=("a", "b"), norm=norm), df)
        expected = preprocessing.Normalizer(norm).fit_transform(np.array(values))
        by_id = {r["_row_id"]: (r["a"], r["b"]) for r in out.collect()}
        ids = {(r["a"], r["b"]): r["_row_id"] for r in df.collect()}
        ours = np.array([by_id[ids[v]] for v in values])
        np.testing.assert_allclose(ours[:3], expected[:3], rtol=1e-12)
        assert ours[3:].tolist() == [[1.0, 0.0]] * 2  # where scikit-learn's squares vanish or overflow
        others = sorted(set(by_id.values()) - set(map(tuple, ours.tolist())), key=repr)
        assert others[0] == (None, None) and math.isnan(others[1][0]) and others[1][1] is None


def test_logarithms_and_what_has_none(spark):
    df = frame(spark, "id int, x double", (1, 0.0), (2, 99.0), (3, -9.0), (4, None), (5, NAN))
    signed = TransformLog(columns=("x",), signed=True, base=10.0)
    out = applied(signed, df)
    found = {r["id"]: r["x"] for r in out.collect()}
    assert [found[i] for i in (1, 2, 3, 4)] == pytest.approx([0.0, 2.0, -1.0, None]) and math.isnan(found[5])
    back = {r["id"]: r["x"] for r in signed.undo(out).collect()}
    assert [back[i] for i in (1, 2, 3)] == pytest.approx([0.0, 99.0, -9.0])
    gone = plain_rows(rejected(applied(TransformLog(columns=("x",)), df), "id"), "id", "reason")
    assert gone == [(1, "out_of_bounds"), (3, "out_of_bounds")]
    out = applied(TransformLog(columns=("x",), plus_one=True, invalid="null"), df)
    assert plain_rows(out.where("size(_changed) > 0"), "id", "x") == [(3, None)]
    with pytest.raises(StepError, match="'x' has values at or below 0, of which box_cox knows no power"):
        applied(TransformPower(columns=("x",), method="box_cox"), df)


COLOURS = ["red", "blue", "red", "green", "blue", "red", None, "grey"]
CITIES = [1.5, 10.0, 2.0, 1.5, NAN, 2.0, 2.0, 10.0]


def colours(spark):
    rows = [(i, "train", c, x) for i, (c, x) in enumerate(zip(COLOURS, CITIES, strict=True))]
    return frame(spark, "id int, split string, c string, x double", *rows, (9, "test", "pink", 3.0))


def by_id(df, *columns):
    return {r["id"]: tuple(r[c] for c in columns) for r in df.collect()}


def test_one_hot_columns_are_those_of_scikit_learn(spark):
    df = colours(spark)
    frozen = fitted(EncodeOneHot(columns=("c", "x"), least=2, unseen="rare", nulls=True), df, None)
    out = frozen.apply(df)
    made = ["c_blue", "c_red", "c_null", "c_rare", "x_1_5", "x_2_0", "x_10_0", "x_null"]
    assert [c for c in out.columns if c.startswith(("c_", "x_"))] == made
    theirs = preprocessing.OneHotEncoder(sparse_output=False, min_frequency=2, handle_unknown="infrequent_if_exist")
    text = np.array([str(c) for c in COLOURS], object)[:, None]
    text[text == "None"] = "red"  # a null of its own is frequent or not in scikit-learn; here it has its own column
    expected = theirs.fit(text).transform(text)
    found = by_id(out, *made)
    for i, colour in enumerate(COLOURS):
        if colour is not None:
            assert [*found[i][:2], found[i][3]] == expected[i].tolist(), i
    assert found[6][:4] == (0, 0, 1, 0) and found[9] == (0, 0, 0, 1, 0, 0, 0, 0)
    assert found[4][4:] == (0, 0, 0, 1)
    back = by_id(frozen.undo(out), "c", "x")
    assert back[0] == ("red", 1.5) and back[3] == (None, 1.5) and back[4] == ("blue", None)
    with pytest.raises(StepError, match="'x' cannot be brought back without the column ‹x_10_0›"):
        frozen.undo(out.drop("x_10_0"))
    one = fitted(EncodeOneHot(columns=("c",), most=2, unseen="reject", drop_first=True), df, None)
    assert one.made("c") == ["c_rare"] and one.rare["c"]["values"] == ["blue", "green", "grey"]
    gone = plain_rows(rejected(one.apply(df), "id"), "id", "reason", "evidence")
    assert gone == [(9, "unseen_category", {"column": "c", "value": "pink"})]
    taken = df.withColumn("C_Red", df["id"])
    with pytest.raises(StepError, match="'c' would make a column ‹c_red›, which is there already"):
        frozen.apply(taken)


def test_names_of_categories_are_unlike_in_any_case():
    taken: set[str] = set()
    names = [new_name("_row", v, taken) for v in ("id", "a b", "A,B", "", "日本")]
    assert names == ["_row_id_2", "_row_a_b", "_row_A_B_2", "_row_empty", "_row_日本"]


@pytest.mark.slow
def test_codes_are_those_of_scikit_learn_and_come_back(spark):
    df = colours(spark)
    step = EncodeOrdinal(columns=("c", "x"), order={"c": ("red", "blue", "green", "grey")})
    frozen = fitted(step, df, None)
    out = frozen.apply(df)
    found, known = by_id(out, "c", "x"), [i for i, x in enumerate(CITIES) if not math.isnan(x)]
    theirs = preprocessing.OrdinalEncoder().fit_transform(np.array(CITIES)[known][:, None])[:, 0]
    assert [found[i][1] for i in known] == theirs.tolist()
    assert [found[i] for i in (0, 4, 6, 9)] == [(0, 0), (1, None), (None, 1), (None, None)]
    back = by_id(frozen.undo(out), "c", "x")
    assert back[0] == ("red", 1.5) and back[9] == (None, None)
    assert by_id(fitted(EncodeOrdinal(columns=("c",), unseen="minus_one"), df, None).apply(df), "c")[9] == (-1,)
    gone = applied(EncodeOrdinal(columns=("c",), unseen="reject"), df)
    assert plain_rows(rejected(gone, "id"), "id", "reason") == [(9, "unseen_category")]


def sales(spark, rows=240):
    rng = np.random.default_rng(5)
    shops, targets = rng.integers(0, 7, rows), rng.normal(size=rows)
    made = [
        (i, "train" if i % 4 else "test", f"s{s}" if s else None, float(y + s), float(i // 3))
        for i, (s, y) in enumerate(zip(shops, targets, strict=True))
    ]
    return frame(spark, "id int, split string, shop string, y double, at double", *made)


@pytest.mark.parametrize("smooth", [None, pytest.param(3.0, marks=pytest.mark.slow)])
def test_target_means_are_those_of_scikit_learn_out_of_fold(spark, smooth):
    df = sales(spark)
    step = EncodeTarget(columns=("shop",), target="y", folds=3, key=("id",), smooth=smooth)
    frozen = fitted(step, df, None)
    found = by_id(frozen.apply(df), "shop")
    folds = by_id(df.withColumn("fold", fold_of(df, ("id",), 3, 0)), "fold")
    rows = {r["id"]: r for r in df.collect()}
    text = {i: [str(r["shop"])] for i, r in rows.items()}

    def theirs(learned, asked):
        encoder = preprocessing.TargetEncoder(smooth="auto" if smooth is None else smooth, target_type="continuous")
        encoder.fit([text[i] for i in learned], [rows[i]["y"] for i in learned])
        return dict(zip(asked, encoder.transform([text[i] for i in asked])[:, 0], strict=True))

    train = [i for i, r in rows.items() if r["split"] == "train"]
    expected = theirs(train, [i for i in rows if i not in set(train)])
    for fold in range(3):
        expected |= theirs([i for i in train if folds[i] != (fold,)], [i for i in train if folds[i] == (fold,)])
    assert {i: v for i, (v,) in found.items()} == pytest.approx(expected, rel=1e-9, abs=1e-9)
    anew = by_id(frozen.for_new_rows().apply(df), "shop")
    assert {i: anew[i][0] for i in train} == pytest.approx(theirs(train, train), rel=1e-9)
    if smooth is None:
        same = fitted(step, df.repartition(5, "y"), None)
        assert (same.columns, same.overall) == (frozen.columns, frozen.overall)


@pytest.mark.slow
def test_target_means_as_of_a_time_know_earlier_rows_alone(spark):
    df = sales(spark)
    step = EncodeTarget(columns=("shop",), target="y", folds=4, smooth=0.0, time="at")
    frozen = fitted(step, df, None)
    found, rows = by_id(frozen.apply(df), "shop"), {r["id"]: r for r in df.collect()}
    begins = [-INF, *frozen.borders]
    for i, row in rows.items():
        begin = max(b for b in begins if b <= row["at"])
        known = [r for r in rows.values() if r["split"] == "train" and r["at"] < begin]
        mine = [r["y"] for r in known if r["shop"] == row["shop"]] or [r["y"] for r in known]
        assert found[i] == (pytest.approx(np.mean(mine), rel=1e-12) if mine else None,), i
    # What came later changes nothing of what was known before.
    later = df.withColumn("y", df["y"] + (df["at"] >= frozen.borders[1]).cast("int") * 100)
    again = by_id(fitted(step, later, None).apply(later), "shop")
    assert all(again[i] == found[i] for i, r in rows.items() if r["at"] < frozen.borders[1])


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (ScaleMinMax(columns=("x",), range=(1.0, 1.0)), "range: [1.0, 1.0] is not a least and a greater number"),
        (ScaleRobust(columns=("x",), quantiles=(0.9, 0.1)), "quantiles: [0.9, 0.1] are not a share and a greater one"),
        (ScaleStandard(columns=("x",), by=("x",)), "'x' cannot be scaled and be in `by` as well"),
        (ScaleStandard(columns=("y",)), "there is no column 'y' here"),
        (TransformLog(columns=("x",), base=1.0), "base: 1.0 is not a number above 0 other than 1"),
        (TransformQuantile(columns=("x",), quantiles=1), "quantiles must be 2 to 10,000"),
        (EncodeOneHot(columns=("split",)), "'split' tells which rows are learned from"),
        (EncodeOneHot(columns=("x",), most=1), "most at least 2"),
        (EncodeOrdinal(columns=("x",), order={"x": ("1", "1")}), "order: names '1' twice for 'x'"),
        (EncodeOrdinal(columns=("s",), order={"x": ("1",)}), "order: 'x' is not one of `columns` (s)"),
        (EncodeTarget(columns=("x",), target="x"), "'x' cannot be encoded and be target"),
        (EncodeTarget(columns=("s",), target="x", time="x", key=("x",)), "key cannot be combined with it"),
    ],
)
def test_options_that_mean_nothing_are_refused(step, told):
    with pytest.raises(StepError) as error:
        step.columns_after({"x": "double", "s": "string", "split": "string"}, {})
    assert told in str(error.value)


@pytest.mark.parametrize("values", [[2.0**53 + 2 * i for i in range(9)], [1e15 + i / 9 for i in range(9)]])
def test_numbers_that_no_power_tells_apart_are_refused(spark, values):
    df = frame(spark, "x double", *((v,) for v in values))
    with pytest.raises(StepError, match="no power of 'x' can be found"):
        applied(TransformPower(columns=("x",)), df)


@pytest.mark.slow
def test_columns_of_any_name_are_scaled(spark):
    names = ["a.b", "with space", "back`tick", "c0", "k0", "place", "x0", "texts", "n"]
    kinds = ", ".join(f"{quoted(n)} double" for n in names)
    df = frame(spark, f"key string, {kinds}", *(("ab"[i % 2], *[float(i * i + 1)] * len(names)) for i in range(8)))
    for step in (
        ScaleStandard(columns=tuple(names), by=("key",)),
        ScaleMinMax(columns=tuple(names)),
        TransformQuantile(columns=tuple(names), quantiles=8),
        EncodeTarget(columns=("a.b", "back`tick"), target="n", key=("with space",)),
        EncodeOrdinal(columns=("a.b", "with space")),
        ScaleUnitNorm(columns=tuple(names)),
    ):
        df = applied(step, df)
        assert list(user_columns(df)) == ["key", *names], step.name
    assert sorted(r["key"] for r in df.collect()) == ["a"] * 4 + ["b"] * 4
