"""`headgate drift`: versions and splits compared, without a JVM."""

import json
import sys

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from headgate.expectations.distances import jensen_shannon, kolmogorov_smirnov, stability
from headgate.expectations.drift import distances
from headgate.jobs.cli import main as cli
from headgate.jobs.cli.output import figure_line
from headgate.jobs.errors import GateBlocked
from headgate.jobs.explore import drift as drifts
from headgate.jobs.lake.lake import Lake
from tests import lakes


@pytest.fixture
def drift(tmp_path, monkeypatch, capsys):
    """Runs `headgate drift` over a lake with a table of two versions and two splits."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for version, shift in enumerate((0.0, 1.0)):
        n = 2000
        x = random.normal(size=n)
        x[::10] += shift
        x[:5] = np.nan
        rows = {
            "_row_id": [f"{version}-{i}" for i in range(n)],
            "x": x,
            "y": random.normal(size=n) + 2 * shift,
            "s": ["ab"[i % 2] if i % 7 else None for i in range(n)],
            "split": ["train" if i % 4 else "test" for i in range(n)],
        }
        write_deltalake("lake/t", pa.table(rows), mode="overwrite")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["headgate", "drift", *arguments, "--lake", "lake"])
        code = cli.exit_code()
        out, error = capsys.readouterr()
        return code, out, error

    return run


def test_distances_are_those_of_their_definitions():
    assert stability({"a": 50, "b": 50}, {"a": 50, "b": 50}) == 0
    assert abs(stability({"a": 50, "b": 50}, {"a": 90, "b": 10}) - (0.4 * np.log(1.8) + 0.4 * np.log(5))) < 1e-12
    assert jensen_shannon({"a": 1}, {"b": 7}) == 1 and jensen_shannon({"a": 1}, {"a": 9}) == 0
    assert kolmogorov_smirnov({"0": 5, "1": 5}, {"0": 1, "1": 4, "2": 5}) == 0.5
    assert stability({}, {"a": 1}) == jensen_shannon({"a": 1}, {}) == 0
    scipy = pytest.importorskip("scipy.spatial.distance")
    assert abs(jensen_shannon({"a": 1, "b": 3}, {"a": 3, "b": 2}) - scipy.jensenshannon([1, 3], [3, 2], base=2)) < 1e-12


def test_versions_are_compared_by_column(drift):
    stats = pytest.importorskip("scipy.stats")
    code, out, error = drift("t", "--json")
    assert code == 1, error
    answer = json.loads(out)
    rows = {r["column"]: r for r in answer["columns"]}
    assert list(rows) == ["y", "x", "s"] and rows["y"]["psi"] > 1 and rows["s"]["psi"] == 0 and rows["x"]["psi"] < 0.1
    assert rows["x"]["missing_one"] == rows["x"]["missing_other"] == 5 / 2000
    assert abs(rows["s"]["missing_one"] - 286 / 2000) < 1e-12 and rows["s"]["ks"] is None
    assert answer["auc"] is None
    from deltalake import DeltaTable

    one, other = (DeltaTable("lake/t", version=v).to_pyarrow_table()["y"].to_numpy() for v in (0, 1))
    assert abs(rows["y"]["ks"] - stats.ks_2samp(one, other).statistic) < 1e-12


@pytest.mark.slow
def test_the_command_and_the_expectation_measure_the_same(spark, tmp_path):
    random = np.random.default_rng(5)
    for version, n in ((0, 971), (1, 640)):
        days = np.datetime64("2013-01-01") + random.integers(0, 90 + 20 * version, n)
        x = random.normal(size=n) + version
        x[::9] = np.nan
        tied = pa.array(np.floor(random.normal(size=n) * 2), mask=random.random(n) < 0.1)
        names = [f"{version}-{i}" for i in range(n)]
        made = {"_row_id": names, "x": x, "tied": tied, "day": days, "at": days.astype("datetime64[us]")}
        made |= {"s": np.where(random.random(n) < 0.3, "a", "b")}
        write_deltalake(str(tmp_path / "lake/t"), pa.table(made), mode="overwrite")
    sides = drifts.sides_of(Lake(str(tmp_path / "lake")), "t", (0, 1), None)
    frames = [spark.read.format("delta").option("versionAsOf", v).load(str(tmp_path / "lake/t")) for v in (0, 1)]
    for method in ("psi", "js"):
        for by in ([], ["s"]):
            found = drifts.drift(sides, ["x", "tied", "day", "at"], by)
            for column in ("x", "tied", "day", "at"):
                mine = sorted(r[method] for r in found if r["column"] == column)
                theirs = sorted(distances(*frames, column, method, by).values())
                assert mine == pytest.approx(theirs, abs=1e-12) and min(mine) > 0.01, (method, column)
    ks = distances(*frames, "at", "ks", None)[""]
    assert ks == pytest.approx(next(r["ks"] for r in found if r["column"] == "at"), abs=0.2) and ks > 0.1


def test_splits_and_strata_are_compared(drift):
    code, out, error = drift("t", "--splits", "train:test", "--by", "s", "--columns", "x,y", "--at-most", "2", "--json")
    assert code == 0, error
    answer = json.loads(out)
    assert {(r["stratum"], r["column"]) for r in answer["columns"]} == {
        (s, c) for s in ("a", "b", "(null)") for c in ("x", "y")
    }
    assert sum(r["rows_one"] for r in answer["columns"]) == 2 * 1500


@pytest.mark.slow
def test_a_classifier_tells_apart_what_differs_alone(drift):
    assert json.loads(drift("t", "--json", "--auc")[1])["auc"] > 0.9
    splits = ("--splits", "train:test", "--columns", "x,y")  # every test row has one value of s
    assert 0.4 < json.loads(drift("t", *splits, "--json", "--auc")[1])["auc"] < 0.6


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("t", "--splits", "train"), 2, "is not two splits such as train:test"),
        (("t", "--versions", "1"), 2, "is not two versions"),
        (("t", "--versions", "0:1", "--splits", "a:b"), 2, "cannot be combined"),
        (("t", "--versions", "0:9"), 4, "has no version 9"),
        (("t", "--splits", "train:dev"), 4, "no row is in dev"),
        (("t", "--columns", "z"), 2, "--columns: there is no column 'z' on both sides"),
        (("u",), 4, "u"),
    ],
)
def test_what_cannot_be_compared_is_told(drift, arguments, code, complaint):
    found, _, error = drift(*arguments)
    assert found == code and complaint in error


@pytest.mark.slow
def test_a_version_that_is_far_from_the_one_before_is_blocked_and_told(spark, tmp_path):
    table = """
  t:
    source: {format: csv, path: a.csv, schema: 'id INT, s STRING, x DOUBLE', key: [id], on_changed_file: replace}
    suite: any
"""
    kwargs = "{column: x, previous: true, by: [s], method: ks, max_value: 0.5}"
    rule = f"{{type: expect_distribution_to_stay_near, kwargs: {kwargs}, meta: {{dimension: consistency}}}}"
    file = lakes.write_pipeline(tmp_path, table, rule)
    value = "SELECT value, success FROM metrics WHERE name = 'expect_distribution_to_stay_near' ORDER BY recorded_at"
    for shift, blocked in ((0, False), (4, False), (60, True)):  # the first version has none before it
        rows = [f"{i},{'ab'[i % 2]},{i + shift * (i % 2)}" for i in range(80)]
        lakes.land(tmp_path, "a.csv", "\n".join(["id,s,x", *rows]) + "\n")
        if blocked:
            worst = r"expect_distribution_to_stay_near \(x, s\): observed 0\.\d+ \(farthest: ‹s=b›\); allowed is "
            with pytest.raises(GateBlocked, match=worst):
                lakes.run_pipeline(spark, tmp_path, file)
        else:
            outcome = lakes.run_pipeline(spark, tmp_path, file)
            shown = [figure_line(f) for t in outcome.tables for f in t.figures]
            assert len(shown) == (shift > 0) and all(
                "gate: expect_distribution_to_stay_near (x, s): " in f for f in shown
            )
    found = lakes.answer(tmp_path, value)
    assert [(v is None, held) for v, held in found] == [(True, True), (False, True), (False, False)]
    assert found[1][0] <= 0.1 and 0.6 < found[2][0] < 0.8
    # A stricter suite judges what is published, which is compared with the version before it, and not with itself.
    lakes.land(
        tmp_path, "a.csv", "\n".join(["id,s,x", *(f"{i},{'ab'[i % 2]},{i + 4 * (i % 2)}" for i in range(80))]) + "\n"
    )
    lakes.write_pipeline(tmp_path, table, rule.replace("0.5", "0.01"))
    with pytest.raises(GateBlocked, match=r"expect_distribution_to_stay_near \(x, s\)"):
        lakes.run_pipeline(spark, tmp_path, file)
    assert lakes.answer(tmp_path, value)[-1] == (found[1][0], False)
