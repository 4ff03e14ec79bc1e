"""Mixtures, splits and distributions judged: by what must come out, as Great Expectations has nothing of the kind."""

import pytest

from headgate.expectations import drift
from headgate.expectations.drift import PREVIOUS
from headgate.expectations.gate import Gate
from headgate.expectations.suites import SuiteError, load_rule
from tests.expectations.pairs import gate_of, staged, suite_of

SCHEMA = "lang string, tokens int, split string, person string, x double"
ROWS = [
    ("en", 50, "train", "p1", 1.0), ("en", 10, "train", "p2", 2.0), ("zh", 30, "train", "p3", 3.0),
    ("code", 10, "train", None, 4.0), ("en", 900, "test", "p4", 1.0), ("zh", 9, "test", "p1", 2.0),
    ("zh", 9, "test", None, 30.0), ("zh", 9, "test", "p5", 40.0),
]  # fmt: skip
SHARES = {"en": 0.6, "zh": 0.3, "code": 0.1}
PEOPLE = dict.fromkeys(("p1", "p2", "p3", "(null)"), 0.25)
OWN_USES = [  # expectation, its arguments, whether it holds
    ("expect_mixture_to_be_near", {"column": "lang", "shares": SHARES, "amount": "tokens"}, True),
    ("expect_mixture_to_be_near", {"column": "lang", "shares": SHARES}, False),
    ("expect_mixture_to_be_near", {"column": "lang", "shares": SHARES, "tolerance": 1.6}, True),
    ("expect_mixture_to_be_near", {"column": "lang", "shares": {"en": 0.7, "zh": 0.3}, "amount": "tokens"}, False),
    ("expect_mixture_to_be_near", {"column": "person", "shares": PEOPLE}, True),
    ("expect_groups_to_stay_in_one_split", {"columns": ["person"]}, False),
    ("expect_groups_to_stay_in_one_split", {"columns": ["person", "lang"]}, True),
    ("expect_distribution_to_stay_near", {"column": "x", "splits": ["train", "test"], "method": "ks"}, False),
    ("expect_distribution_to_stay_near", {"column": "x", "splits": ["train", "test"], "method": "ks", "max_value": 0.5},
     True),
    ("expect_distribution_to_stay_near", {"column": "lang", "splits": ["train", "train"], "method": "js"}, True),
    ("expect_distribution_to_stay_near", {"column": "lang", "splits": ["train", "test"]}, False),
    ("expect_distribution_to_stay_near", {"column": "lang", "splits": ["train", "none"]}, False),
    ("expect_distribution_to_stay_near", {"column": "lang", "previous": True}, True),
    ("expect_distribution_to_stay_near", {"column": "x", "splits": ["train", "train"], "by": ["lang"]}, True),
    ("expect_distribution_to_stay_near", {"column": "x", "splits": ["train", "test"], "by": ["lang"], "method": "js",
                                          "max_value": 1.0}, False),
]  # fmt: skip


def test_verdicts_are_what_the_rows_say(spark):
    suite = suite_of(*((kind, kwargs) for kind, kwargs, _ in OWN_USES), present="lang")
    gate = gate_of(spark, suite)
    verdict = gate.judge(staged(gate, spark.createDataFrame(ROWS, SCHEMA)), len(ROWS))
    results = verdict.results[2:]  # after those that every suite has
    assert [r.raised for r in results] == [None] * len(OWN_USES)
    found = [(r.rule.type, dict(r.rule.kwargs), r.success) for r in results]
    assert found == OWN_USES
    mixed = [r.result["details"]["farthest"] for r in results[:4]]
    assert mixed == ["code: 0.1 for 0.1", *2 * ["code: 0.25 for 0.1"], "code: 0.1 for 0"]
    assert [f["value"] for f in verdict.figures[:4]] == [r.observed for r in results[:4]]
    leak = next(r for r in results if r.rule.kwargs.get("columns") == ["person"])
    assert leak.result["observed_value"] == 1 and leak.unexpected_count == 2 and leak.rule.severity == "critical"
    assert any("expect_groups_to_stay_in_one_split (person)" in reason for reason in verdict.blocking)


def test_a_stratum_without_a_value_names_its_column(spark):
    rows = spark.createDataFrame(
        [(s, n, 1.0) for s in (None, "null", "(null)") for n in (None, 2)], "s string, n int, x double"
    )
    found = drift.distances(rows, rows, "x", "ks", ["s", "n"])
    named = {drift.words_of(stratum) for stratum in found}
    assert named == {f"s={s}, n={n}" for s in ("(null)", "null", "\\(null)") for n in ("(null)", 2)}


def test_a_version_is_compared_with_the_one_before_stratum_by_stratum(spark):
    rows = [(lang, 1, "train", "p", float(i)) for lang in ("en", "zh") for i in range(40)]
    before = spark.createDataFrame(rows, SCHEMA)
    moved = spark.createDataFrame([(*r[:4], r[4] + 30 * (r[0] == "zh")) for r in rows], SCHEMA)
    kwargs = {"column": "x", "previous": True, "method": "ks", "by": ["lang"]}
    suite = suite_of(("expect_distribution_to_stay_near", kwargs), present="lang")
    assert suite.reads_previous and suite.rules[-1].columns == ("x", "lang")
    for now, expected in ((before, True), (moved, False)):
        gate = Gate(spark, suite, parents={PREVIOUS: before})
        result = gate.judge(staged(gate, now), 80).results[-1]
        assert result.success == expected
        assert result.result["observed_value"] == pytest.approx(0.0 if expected else 0.75)
        assert result.result["details"]["far"] == ([] if expected else ['{"lang":"zh"}'])
        worst, value = ("lang=en", 0.0) if expected else ("lang=zh", 0.75)
        assert f"observed {value} (farthest: ‹{worst}›); allowed" in result.sentence()
        facts = {"farthest": worst}
        assert result.figure() == {"step": "gate", "name": result.rule.name, "value": value, "facts": facts}
    gate = Gate(spark, suite, parents={PREVIOUS: before.where("lang = 'en'")})
    assert "(farthest: ‹lang=zh, of one side alone›)" in gate.judge(staged(gate, moved), 80).results[-1].sentence()


def test_more_strata_than_may_be_are_refused_and_not_collected(spark, monkeypatch):
    monkeypatch.setattr(drift, "MOST_STRATA", 3)
    monkeypatch.setattr(drift, "HASHED", 4)
    df = spark.range(500).selectExpr("string(id) as s", "string(id % 7) as v")
    collect, found = type(df).collect, []
    monkeypatch.setattr(type(df), "collect", lambda rows: found.append(collect(rows)) or found[-1])
    with pytest.raises(ValueError, match="more than 3 strata of s"):
        drift.distances(df, df, "v", "psi", ["s"])
    assert max(map(len, found)) == 3 * 5 + 1


@pytest.mark.parametrize(
    ("kind", "kwargs", "complaint"),
    [
        ("expect_mixture_to_be_near", {"column": "a", "shares": {"x": 0.5}}, "add up to 1, not 0.5"),
        ("expect_distribution_to_stay_near", {"column": "a"}, "give one of parent_table, previous and two splits"),
        (
            "expect_distribution_to_stay_near",
            {"column": "a", "splits": ["x"]},
            "give one of parent_table, previous and two splits",
        ),
    ],
)
def test_rules_that_cannot_be_are_refused(kind, kwargs, complaint):
    entry = {"type": kind, "kwargs": kwargs, "meta": {"dimension": "consistency"}}
    with pytest.raises(SuiteError, match=complaint):
        load_rule(0, entry, lambda *place: "suite.yaml", thorough=True)
