"""Mixtures of sources to a budget, counted tokens, and the order to train in."""

import json
from collections import defaultdict

import pytest

from headgate.jobs.pipeline.context import BuildContext
from headgate.transforms.balancing.mixture import MixSources
from headgate.transforms.balancing.order import OrderRows
from headgate.transforms.balancing.targets import Target
from headgate.transforms.balancing.tokens import CountTokens
from headgate.transforms.step import StepError
from tests.conftest import plain_rows
from tests.transforms.frames import applied, columns_of, frame, kept


def corpus(spark, sizes):
    """A frame of documents of 1 to 20 tokens, and what tokens each source has."""
    rows = [(s, i, 1 + (7 * i) % 20, "x" * (1 + i % 5), "train") for s, n in sizes.items() for i in range(n)]
    totals = defaultdict(int)
    for s, _, n, *_ in rows:
        totals[s] += n
    return frame(spark, "s string, i int, n int, text string, split string", *rows), totals


def amounts(df, column="n"):
    found = defaultdict(int)
    for r in kept(df).collect():
        found[r["s"]] += r[column]
    return dict(found)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"shares": {"a": 0.5, "b": 0.4}}, "add up to 0.9, not to 1"),
        ({"shares": {"a": 1.5, "b": -0.5}}, "at least 0"),
        ({}, "budget: needed"),
        ({"shares": {}}, "at least one source"),
        ({"shares": {"a": 1.0}, "unit": "tokens"}, "needed for unit tokens"),
        ({"shares": {"a": 1.0}, "column": "n"}, "leave it out for unit rows"),
        ({"shares": {"a": 1.0}, "epochs": 0}, "above 0"),
        ({"targets": (Target(values=("a",), rows=3),)}, "give shares for all"),
        ({"budget": 5, "by": ("s", "n"), "shares": {"a": 1.0}}, "give `targets`"),
        ({"budget": -5}, "at least 0"),
    ],
)
def test_mixtures_that_cannot_be_are_refused(options, complaint):
    with pytest.raises(StepError, match=complaint):
        MixSources(**{"by": ("s",), **options}).columns_after(columns_of("s", "n"), {})


def test_a_source_called_null_is_told_from_none(spark):
    rows = [(s, i, "train") for s in ("null", None, "(null)") for i in range(8)]
    df = frame(spark, "s string, i int, split string", *rows)
    step = MixSources(by=("s",), shares={"(null)": 0.5, "null": 0.25, "\\(null)": 0.25}, budget=16)
    assert [t.values[0] for t in step.asked] == [None, "null", "(null)"]
    found = kept(applied(step, df)).groupBy("s").count().collect()
    assert {r["s"]: r["count"] for r in found} == {None: 8, "null": 4, "(null)": 4}
    with pytest.raises(StepError, match=r"no share for ‹\(null\)›, ‹\\\(null\)›; add them"):
        applied(MixSources(by=("s",), shares={"null": 1.0}, budget=4), df)


@pytest.mark.slow
def test_a_mixture_is_as_asked_source_by_source_in_any_partitioning(spark, tmp_path):
    df, totals = corpus(spark, {"en": 3000, "zh": 800, "code": 400})
    shares = {"en": 0.5, "zh": 0.3, "code": 0.2}
    step = MixSources(by=("s",), shares=shares, budget=20_000, unit="tokens", column="n", number="epoch", seed=2)
    out = applied(step, df)
    found = amounts(out)
    assert totals["code"] > 4000 and all(abs(found[s] - 20_000 * w) <= 10 for s, w in shares.items()), found
    assert plain_rows(kept(out), "s", "i") == plain_rows(kept(applied(step, df.repartition(7))), "s", "i")
    # The excess of a source whose epochs are at their end is spread over the others; a warning says so.
    context = BuildContext(spark, str(tmp_path), rows=df)
    options = {"by": ("s",), "unit": "tokens", "column": "n", "number": "epoch"}
    capped = MixSources(**options, shares=shares, budget=30_000, epochs=1.25)
    out = capped.fit(df, context).run(df, context)
    found, cap = amounts(out), int(totals["code"] * 1.25)
    assert abs(found["code"] - cap) <= 10 and cap < 6000
    assert abs(found["en"] / found["zh"] - 5 / 3) < 0.01 and abs(sum(found.values()) - 30_000) <= 30
    assert any("‹code›: 6,000 tokens were asked for; 1.25 epochs give" in w for w in context.warnings)
    assert [f["facts"] for f in context.figures] == [
        {"source": s, "asked": shares[s], "tokens": found[s]} for s in ("en", "zh", "code")
    ]
    assert [f["value"] for f in context.figures] == [found[s] / sum(found.values()) for s in ("en", "zh", "code")]
    assert {r["epoch"] for r in kept(out).where("s = 'code'").collect()} == {0, 1}
    with pytest.raises(StepError, match="no share for ‹code›"):
        applied(MixSources(**options, shares={"en": 0.5, "zh": 0.5}), df)
    with pytest.raises(StepError, match="no training row is of 'fr'"):
        applied(MixSources(**options, shares={**shares, "en": 0.4, "fr": 0.1}), df)


@pytest.mark.slow
def test_temperature_floors_and_other_units(spark):
    df, _ = corpus(spark, {"a": 1000, "b": 100, "c": 10})
    flat = amounts(
        applied(MixSources(by=("s",), temperature=1e9, budget=30, unit="rows"), df.selectExpr("*", "1 AS u")), "u"
    )
    assert flat == {"a": 10, "b": 10, "c": 10}
    floor = applied(MixSources(by=("s",), budget=100, least=8), df.selectExpr("*", "1 AS u"))
    assert amounts(floor, "u") == {"a": 84, "b": 8, "c": 8}
    for unit, sql in (("characters", "length(text)"), ("bytes", "octet_length(text)")):
        step = MixSources(by=("s",), shares={"a": 0.5, "b": 0.5}, budget=400, unit=unit, column="text", others="drop")
        found = amounts(applied(step, df.selectExpr("*", f"{sql} AS u")), "u")
        assert set(found) == {"a", "b"} and all(abs(n - 200) <= 3 for n in found.values())
    bad = df.selectExpr(
        "s", "split", "_row_id", "_hg_rejected", "_changed", "_parents", "_hg_made", "nullif(n, 3) AS n"
    )
    with pytest.raises(StepError, match=r"'n' is null or negative in \d+ training rows"):
        applied(MixSources(by=("s",), budget=9, unit="tokens", column="n"), bad)
    with pytest.raises(StepError, match="'text' is string, not a whole number"):
        applied(MixSources(by=("s",), budget=9, unit="tokens", column="text"), df)


def tokenizer_file(folder):
    """Write a small tokenizer.json of whole words and of what is left."""
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.enable_truncation(2)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def test_tokens_are_counted_in_whole(spark, tmp_path):
    file = tokenizer_file(tmp_path)
    df = frame(spark, "i int, t string, u string", (1, "a b, c a", None), (2, None, None), (3, "", "b"))
    out = applied(CountTokens(columns=("t", "u"), tokenizer=str(file)), df)
    assert plain_rows(out, "i", "tokens") == [(1, 5), (2, 0), (3, 1)]


def test_tokenizers_that_are_none_are_refused(tmp_path):
    pytest.importorskip("tokenizers")
    have = columns_of("t")
    with pytest.raises(StepError, match="cannot be read"):
        CountTokens(columns=("t",), tokenizer=str(tmp_path / "none.json")).columns_after(have, {})
    (tmp_path / "x.json").write_text(json.dumps({"a": 1}))
    with pytest.raises(StepError, match=r"neither a tokenizer\.json nor a sentencepiece model"):
        CountTokens(columns=("t",), tokenizer=str(tmp_path / "x.json")).columns_after(have, {})
    with pytest.raises(StepError, match="is not the file with the sha256 abc"):
        CountTokens(columns=("t",), tokenizer=str(tmp_path / "x.json"), sha256="abc").columns_after(have, {})


@pytest.mark.slow
def test_a_curriculum_goes_from_small_to_large_with_one_mixture_in_every_stage(spark):
    rows = [("ab"[i % 4 == 0], float(i % 100) if i % 50 else None, i, "train") for i in range(1000)] + [
        ("a", 1.0, -1, "test")
    ]
    df = frame(spark, "s string, hard double, i int, split string", *rows)
    out = applied(OrderRows(into="o", column="hard", by=("s",), stages=4), df)
    found = [r for r in out.orderBy("o").collect() if r["o"] is not None]
    assert len(found) == 1000 and all(0 <= r["o"] < 1 for r in found)
    stages = [[r for r in found if int(r["o"] * 4) == k] for k in range(4)]
    assert all(abs(len(s) - 250) <= 25 for s in stages)
    assert all(0.2 < sum(r["s"] == "b" for r in s) / len(s) < 0.3 for s in stages)
    for s in "ab":
        highest = [max(r["hard"] for r in st if r["s"] == s and r["hard"] is not None) for st in stages]
        lowest = [min(r["hard"] for r in st if r["s"] == s and r["hard"] is not None) for st in stages]
        assert all(high <= low for high, low in zip(highest, lowest[1:], strict=False))
    assert all(r["hard"] is not None or r["o"] >= 0.75 for r in found)
    again = applied(OrderRows(into="o", column="hard", by=("s",), stages=4), df.repartition(6))
    assert plain_rows(out, "i", "o") == plain_rows(again, "i", "o")
    assert applied(OrderRows(), df).where("train_order is null").count() == 1
