"""Numbers of which sources say unlike things: plain and weighted means and medians, without Spark."""

import numpy as np
import pyarrow as pa
import pytest

from headgate.transforms.fusion.choices import Plan, golden
from headgate.transforms.fusion.learning import Learned
from headgate.transforms.fusion.numbers import Deviation, middle_of
from headgate.transforms.fusion.truth import Claims, learn
from tests.conftest import SHARED_DATA

OFF = np.array([0.1, 0.2, 1.0, 3.0, 3.0])


def claimed(objects=400, seed=2):
    """Return claims of five sources, each off by so much, of whom one in five says nothing, and the truth."""
    r = np.random.default_rng(seed)
    truth = r.normal(50, 20, objects)
    obj, src = np.divmod(np.arange(objects * 5), 5)
    number = truth[obj] + r.normal(0, 1, len(obj)) * OFF[src]
    there = r.random(len(obj)) > 0.2
    return obj[there], src[there], number[there], truth


def claims_of(obj, src, number):
    return Claims(obj, src, np.unique(number, return_inverse=True)[1], number)


def error(found, truth):
    there = ~np.isnan(found)
    return np.sqrt(np.mean((found - truth)[there] ** 2))


@pytest.mark.parametrize("middle", ["mean", "median"])
def test_sources_weigh_by_how_far_they_are_off(middle):
    obj, src, number, truth = claimed()
    method = Deviation(sources=5, middle=middle)
    claims = claims_of(obj, src, number)
    weights = learn(method, lambda s: method.sums(claims, s))
    assert weights[0] > weights[2] > weights[3] and weights[1] > weights[2] > weights[4]
    plain = error(middle_of(obj, number, np.ones(len(obj)), 400, middle), truth)
    assert error(middle_of(obj, number, weights[src], 400, middle), truth) < 0.8 * plain
    # In any number of parts, in any order, to the bit.
    order = np.random.default_rng(1).permutation(len(obj))
    obj, src, number = obj[order], src[order], number[order]

    def in_parts(state):
        parts = [np.flatnonzero(obj % 3 == i) for i in range(3)]
        each = ((np.unique(obj[p], return_inverse=True)[1], src[p], number[p]) for p in parts)
        return sum(method.sums(claims_of(*part), state) for part in each)

    assert (learn(method, in_parts) == weights).all()


def test_the_middle_of_numbers_is_numpys():
    r = np.random.default_rng(4)
    entity, number = r.integers(0, 50, 300), np.round(r.normal(0, 9, 300), 1)
    weight = r.integers(1, 4, 300)
    repeated = np.repeat(np.arange(300), weight)
    for middle in ("mean", "median"):
        found = middle_of(entity, number, weight.astype(float), 52, middle)
        for e in range(50):
            wanted = getattr(np, middle)(number[repeated][entity[repeated] == e])
            assert found[e] == pytest.approx(wanted, abs=1e-9), (middle, e)
        assert np.isnan(found[50:]).all()
    one = middle_of(np.array([0, 0, 0]), np.array([1.0, 5.0, 9.0]), np.array([1.0, 1e-6, 1e-6]), 1, "median")
    assert one[0] == 1.0
    large, weights = np.array([1.5e308, 1.7e308]), np.ones(2)
    for middle in ("mean", "median"):
        assert middle_of(np.zeros(2, int), large, weights, 1, middle)[0] == pytest.approx(1.6e308)
        assert middle_of(np.zeros(2, int), np.array([1.0, np.inf]), weights, 1, middle)[0] == np.inf


def test_one_source_and_claims_that_agree_teach_nothing():
    same = claims_of(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.array([3.0, 3.0, 4.0, 4.0]))
    alone = claims_of(np.array([0, 1]), np.array([0, 0]), np.array([3.0, np.inf]))
    for claims, sources in ((same, 2), (alone, 1)):
        method = Deviation(sources=sources, middle="mean")
        assert (learn(method, lambda s, m=method, c=claims: m.sums(c, s)) == 1.0).all()


def test_scores_of_emotions_by_many_people():
    folder = SHARED_DATA / "cr_emotion"
    if not folder.is_dir():
        pytest.skip(f"the data set {folder} is not there")
    obj, src, number, truth = emotions(folder)
    plain = np.abs(middle_of(obj, number, np.ones(len(obj)), len(truth), "mean") - truth).mean()
    assert plain == pytest.approx(12.02, abs=0.01)
    method = Deviation(sources=int(src.max()) + 1, middle="mean")
    claims = claims_of(obj, src, number)
    weights = learn(method, lambda s: method.sums(claims, s))
    weighted = np.abs(middle_of(obj, number, weights[src], len(truth), "mean") - truth).mean()
    assert weighted < plain


def emotions(folder):
    """Return objects, sources, numbers and the truth of each object."""
    with open(folder / "answers.csv") as answers, open(folder / "truth.csv") as truths:
        rows = [line.strip().split(",") for line in answers][1:]
        known = {o: float(v) for o, v in (line.strip().split(",") for line in list(truths)[1:])}
    names = sorted(known)
    at, of = {o: i for i, o in enumerate(names)}, {s: i for i, s in enumerate(sorted({r[1] for r in rows}))}
    rows = [r for r in rows if r[0] in at]
    number = np.array([float(r[2]) for r in rows])
    return (
        np.array([at[r[0]] for r in rows]),
        np.array([of[r[1]] for r in rows]),
        number,
        np.array([known[o] for o in names]),
    )


def test_a_golden_number_weighs_its_sources():
    said = [("x", "good", 1.0), ("x", "poor", 4.0), ("x", "also", 1.0), ("y", "poor", 7.0), ("z", "good", None)]
    texts = [None if v is None else str(v) for _, _, v in said]
    rows = pa.table(
        {
            "e": [e for e, _, _ in said],
            "id": [f"r{i}" for i in range(5)],
            "source": [s for _, s, _ in said],
            "rank": [0] * 5,
            "last": pa.nulls(5, pa.string()),
            "parents": [[f"r{i}"] for i in range(5)],
            "t0": texts,
            "f0": [int(t is not None) for t in texts],
            "c0": [v for _, _, v in said],
        }
    )
    method = Deviation(sources=3, middle="mean")
    sources = {"also": 0, "good": 1, "poor": 2}
    learned = Learned(method=method, state=np.array([1.0, 1.0, 0.5]), sources=sources)
    plan = Plan(units=(("v",),), rules=("weighted_mean",), weights={}, learned={0: learned})
    made = golden(rows, plan).to_pylist()
    assert [r["o3"] for r in made] == [pytest.approx((1 + 1 + 2) / 2.5), 7.0, None]
    evidence = dict(made[0]["evidence"])["v"]
    assert evidence["rule"] == "weighted_mean" and evidence["majority"] == "1.0" and evidence["conflict"]
