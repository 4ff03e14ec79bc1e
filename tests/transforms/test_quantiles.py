"""Quantiles at any size against those of numpy, which holds all values."""

import math

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import functions as F

from headgate.transforms import quantiles
from headgate.transforms.quantiles import Spread, spreads_of
from headgate.transforms.step import StepError

SHARES = (0.0, 0.25, 0.5, 0.9)
GROUPS = ("a", "b", "c", None)


def columns(rows):
    rng = np.random.default_rng(3)
    return {
        "plain": rng.normal(size=rows),
        "tied": np.where(rng.random(rows) < 0.4, 0.0, rng.integers(-3, 4, rows)),
        "constant": np.full(rows, 7.5),
        "skewed": np.exp(rng.normal(size=rows) * 9),
        "open": np.where(rng.random(rows) < 0.01, math.inf, rng.normal(size=rows)),
    }


def expected(values):
    return np.percentile(values, np.array(SHARES) * 100).tolist()


def same(found, values):
    """Whether a spread is that of values: order and size of sums differ in the last bit."""
    return found.n == len(values) and found.quantiles == pytest.approx(expected(values), rel=1e-12)


@pytest.mark.parametrize(("rows", "few"), [(1, 0), (6, 0), (6, 1000), (30_000, 0)])
def test_quantiles_are_those_of_all_values(spark, monkeypatch, rows, few):
    monkeypatch.setattr(quantiles, "FEW", few)
    monkeypatch.setattr(quantiles, "AT_ONCE", 3)
    data = columns(rows)
    group = np.array([GROUPS[i % 4] if rows > 4 else "a" for i in range(rows)], dtype=object)
    table = pa.table({"k": pa.array(group, pa.string()), **data})
    df = spark.createDataFrame(table).repartition(3)
    found = spreads_of(df, [(F.col(c), SHARES) for c in data], [F.col("k")], overall=True, most=(4, "groups"))
    assert set(found) == {(), *((g,) for g in set(group))}
    for key, spreads in found.items():
        mine = group == key[0] if key else np.full(rows, True)
        for name, spread in zip(data, spreads, strict=True):
            if np.isfinite(data[name][mine]).all():
                assert same(spread, data[name][mine]), (key, name)
            else:
                assert spread.quantiles[2] == np.median(data[name][mine])
    assert spreads_of(df, [(F.col(c), SHARES) for c in data]) == {(): found[()]}


@pytest.mark.slow
def test_a_sketch_that_misleads_changes_no_answer(spark, monkeypatch):
    data = columns(20_000)["plain"]
    df = spark.createDataFrame(pa.table({"x": data})).withColumn("k", F.lit("a"))
    for name, value in (("FEW", 0), ("ACCURACY", 10), ("MARGIN", 1e-6)):
        monkeypatch.setattr(quantiles, name, value)
    ((found,),) = spreads_of(df, [(F.col("x"), SHARES)], [F.col("k")]).values()
    assert same(found, data)


@pytest.mark.parametrize("deviations", [1.0, 6.0])
def test_samples_narrow_the_search_and_change_no_answer(spark, monkeypatch, deviations):
    """Brackets of one deviation miss often; those that hold too many values are narrowed again."""
    data = columns(50_000)
    gone = np.random.default_rng(4).random(50_000) < 0.9
    cells = {name: pa.array(v, mask=gone if name == "skewed" else None) for name, v in data.items()}
    df = spark.createDataFrame(pa.table(cells)).repartition(3)
    for name, value in (("FEW", 0), ("DRAWN", 0), ("LEAST_DRAWN", 300), ("DEVIATIONS", deviations)):
        monkeypatch.setattr(quantiles, name, value)
    looks = []
    looked_at = quantiles.looked_at
    monkeypatch.setattr(quantiles, "looked_at", lambda *given: looks.append(looked_at(*given)) or looks[-1])
    (found,) = spreads_of(df, [(F.col(c), SHARES) for c in data]).values()
    for name, spread in zip(data, found, strict=True):
        values = data[name][~gone] if name == "skewed" else data[name]
        if name == "open":
            assert spread.quantiles[:3] == pytest.approx(expected(values)[:3], rel=1e-12)
        else:
            assert same(spread, values), name
    assert len(looks) > 2
    assert max(len(counts.drawn) for look in looks for counts in look) < 1_000


def test_rows_that_change_between_passes_end_in_an_error(spark, monkeypatch):
    monkeypatch.setattr(quantiles, "FEW", 0)
    monkeypatch.setattr(quantiles, "PASSES", 1)
    monkeypatch.setattr(quantiles, "DRAWN", 5_000)
    df = spark.range(20_000).withColumn("x", F.rand())
    with pytest.raises(StepError, match="the rows are others each time they are read"):
        spreads_of(df, [(F.col("x"), (0.5,))])


def test_nothing_known_and_too_many_groups(spark):
    df = spark.createDataFrame([("a", None), ("b", 1.0)], "k string, x double")
    assert spreads_of(df, [(F.col("x"), (0.5,))], [F.col("k")], most=(2, "groups")) == {
        ("a",): [None],
        ("b",): [Spread(1, 1.0, 1.0, [1.0])],
    }
    assert spreads_of(df.where("false"), [(F.col("x"), (0.5,))]) == {(): [None]}
    assert spreads_of(df.where("false"), [(F.col("x"), (0.5,))], [F.col("k")], overall=True) == {}
    with pytest.raises(StepError, match="more than 1 groups of k"):
        spreads_of(df, [(F.col("x"), (0.5,))], [F.col("k")], overall=True, most=(1, "groups of k"))
