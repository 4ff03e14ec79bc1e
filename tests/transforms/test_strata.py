"""Draws from strata: what may be asked of them, and that they give just that, the same in any partitioning."""

import dataclasses
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import functions as F

from headgate.jobs.pipeline.context import BuildContext
from headgate.transforms.balancing import draws, resample
from headgate.transforms.balancing.draws import HIGHEST, LOWEST, shown, values_in, window
from headgate.transforms.balancing.strata import SampleStrata
from headgate.transforms.balancing.targets import Target, Wish, spread, wanted_of
from headgate.transforms.step import StepError
from headgate.transforms.steps import options_of
from tests.conftest import plain_rows
from tests.transforms.frames import Telling, applied, columns_of, frame, kept, rejected


def people(spark, sizes, split="train"):
    return frame(spark, "s string, i int, split string", *((s, i, split) for s, n in sizes.items() for i in range(n)))


def counts(df, *columns):
    return dict(Counter(r[0] if len(r) == 1 else tuple(r) for r in kept(df).select(*(columns or ("s",))).collect()))


def checked(**options):
    """The step as a pipeline file would give it, its options checked."""
    step = options_of(SampleStrata).validate_python(options)
    step.columns_after(columns_of("s", "t", "w"), {"wanted": columns_of("s", "rows")})
    return step


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(st.text(min_size=1, max_size=3), st.tuples(st.integers(1, 1000), st.integers(0, 60)), min_size=1),
    st.integers(0, 9000),
)
def test_what_is_spread_adds_up_between_floors_and_caps(strata, total):
    caps = {name: 2 * n for name, (n, _) in strata.items()}
    floors = {name: least for name, (_, least) in strata.items()}
    weights = {name: n**0.5 for name, (n, _) in strata.items()}
    lowest = sum(min(floors[n], caps[n]) for n in caps)
    if lowest > total:
        with pytest.raises(StepError, match="more than the total"):
            spread(total, weights, caps, floors)
        return
    shares = spread(total, weights, caps, floors)
    assert sum(shares.values()) == min(total, sum(caps.values()))
    assert all(min(floors[n], caps[n]) <= shares[n] <= caps[n] for n in shares)
    free = [n for n in shares if floors[n] + 1 < shares[n] < caps[n] - 1]
    level = [shares[n] / weights[n] for n in free]
    assert all(abs(a - b) <= 1.01 * (1 / weights[n] + 1 / weights[m]) for a, n in zip(level, free, strict=True)
               for b, m in zip(level, free, strict=True))  # fmt: skip


def test_wishes_are_met_exactly():
    sizes = {"a": 10, "b": 100, "c": 1000}
    assert wanted_of(Wish(equal=True), sizes, 1) == {"a": 10, "b": 10, "c": 10}
    assert wanted_of(Wish(equal=True), sizes, 5) == {"a": 50, "b": 50, "c": 50}
    assert wanted_of(Wish(equal=True), {"a": 900, "b": 1000}, 5) == {"a": 1000, "b": 1000}
    assert wanted_of(Wish(equal=True, total=90), sizes, 1) == {"a": 10, "b": 40, "c": 40}
    assert wanted_of(Wish(rows=50, most=30), sizes, 2) == {"a": 20, "b": 30, "c": 30}
    assert wanted_of(Wish(total=111, least=9), sizes, 1) == {"a": 9, "b": 9, "c": 93}
    half = {n: Target(values=(n,), share=s) for n, s in (("a", 0.5), ("b", 0.25), ("c", 0.25))}
    assert wanted_of(Wish(targets=half), sizes, 1) == {"a": 10, "b": 5, "c": 5}
    assert wanted_of(Wish(targets=half, total=200), sizes, 4) == {"a": 40, "b": 80, "c": 80}
    assert wanted_of(Wish(of_all=0.29), {"a": 100}, 1) == {"a": 29}
    assert wanted_of(Wish(rows=3), {"a": 0}, 2) == {"a": 0}
    assert wanted_of(Wish(total=5), {}, 1) == {}
    large = {"a": 10**6, "b": 999_000, "c": 0}
    assert wanted_of(Wish(total=9, temperature=0.001), large, 1) == {"a": 7, "b": 2, "c": 0}
    assert wanted_of(Wish(total=9, temperature=1e-320), large, 1) == {"a": 9, "b": 0, "c": 0}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({}, "exactly one of rows, equal"),
        ({"rows": 1, "total": 2}, "exactly one of rows, equal.*not rows, total"),
        ({"rows": -1}, "at least 0"),
        ({"share": -0.1}, "at least 0"),
        ({"rows": 1, "temperature": 0}, "above 0"),
        ({"rows": 1, "least": 5, "most": 2}, "least is 5, more than most"),
        ({"rows": 1, "replacement": True}, "give max_copies"),
        ({"rows": 1, "bins": {"t": 1}}, "'t' needs a number of at least 2"),
        ({"rows": 1, "bins": {"t": (3, 2)}}, "edges that grow"),
        ({"rows": 1, "bins": {"w": 3}}, "no column 'w'"),
        ({"rows": 1, "weight": "v"}, "no column 'v'"),
        ({"rows": 1, "number": "w"}, "already"),
        ({"targets": [{"values": ["a"], "rows": 1}]}, r"\[a\] names 1 values, and `by` has 2"),
        ({"targets": [{"values": ["a", "b"], "rows": 1}, {"values": ["a", "b"], "rows": 2}]}, "is there twice"),
        ({"targets": [{"values": ["a", None]}]}, r"\[a, \(null\)\]: give exactly one of rows and share"),
        ({"targets": [{"values": ["a", "b"], "share": 0.5}, {"values": ["c", "b"], "share": 0.4}]}, "add up to 0.9"),
        ({"targets": [{"values": ["a", "b"], "share": 0.5}, {"values": ["c", "b"], "rows": 4}]}, "for all of them"),
        ({"targets": [{"values": ["a", "b"], "rows": 5}], "total": 4}, "add up to the total"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_spark(options, complaint):
    with pytest.raises(StepError, match=complaint):
        checked(by=("s", "t"), **options)


def test_strata_are_told_by_the_texts_of_their_values():
    assert values_in("s2:eni1:7-f3:NaN") == ["en", "7", None, "NaN"]
    assert values_in("s3:a:b") == ["a:b"] and values_in("") == []
    assert shown("s2:en-") == "en/(null)" and shown("[1:s1:a") == "[1:s1:a"


def test_targets_of_single_strata(spark):
    df = people(spark, {"a": 30, "b": 20, "c": 10})
    given = (Target(values=("a",), rows=5), Target(values=("c",), rows=15))
    with pytest.raises(StepError, match=r"no target for ‹b›; .*others: drop"):
        applied(SampleStrata(by=("s",), targets=given), df)
    with pytest.raises(StepError, match=r"no training row is of 'bb' — did you mean ‹b›\?"):
        applied(SampleStrata(by=("s",), targets=(Target(values=("bb",), rows=5),)), df)
    out = applied(SampleStrata(by=("s",), targets=given, others="drop", max_copies=2, number="copy"), df)
    assert counts(out, "s", "copy") == {("a", 0): 5, ("c", 0): 10, ("c", 1): 5}
    assert counts(applied(SampleStrata(by=("s",), targets=given, others="keep"), df)) == {"a": 5, "b": 20, "c": 10}


@pytest.mark.slow
def test_shares_and_tables_of_targets(spark):
    df = people(spark, {"a": 30, "b": 20, "c": 10})
    shares = (Target(values=("a",), share=0.6), Target(values=("b",), share=0.4))
    out = applied(SampleStrata(by=("s",), targets=shares, others="drop"), df)
    assert counts(out) == {"a": 30, "b": 20}
    wanted = spark.createDataFrame([("a", 3), ("b", 4), ("zz", 9)], "s string, rows long")
    out = applied(SampleStrata(by=("s",), target_table="wanted", others="drop"), df, wanted=wanted)
    assert counts(out) == {"a": 3, "b": 4}
    twice = wanted.union(wanted)
    with pytest.raises(StepError, match="is there twice"):
        applied(SampleStrata(by=("s",), target_table="wanted", others="drop"), df, wanted=twice)
    with pytest.raises(StepError, match="'s' is int in 'wanted' and string here"):
        applied(SampleStrata(by=("s",), target_table="wanted"), df, wanted=wanted.selectExpr("1 AS s", "rows"))
    number = (Target(values=("x",), rows=5),)
    with pytest.raises(StepError, match="'i' is int, which does not hold 'x'"):
        applied(SampleStrata(by=("i",), targets=number), df)


@pytest.mark.slow
def test_numbers_are_strata_by_their_bins(spark):
    rows = [(float(i), i, "train") for i in range(100)] + [(float("nan"), 1, "train"), (None, 2, "train")] * 3
    df = frame(spark, "x double, i int, split string", *rows)
    out = applied(SampleStrata(by=("x",), bins={"x": 4}, rows=2), df)
    found = sorted(r["x"] for r in kept(out).where("x is not null and not isnan(x)").collect())
    assert len(found) == 8 and [int(x // 25) for x in found] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert kept(out).where("x is null").count() == kept(out).where("isnan(x)").count() == 2
    edges = options_of(SampleStrata).validate_python({"by": ["x"], "bins": {"x": [10, 90]}, "rows": 7})
    found = Counter(
        1 + (r["x"] >= 10) + (r["x"] >= 90) for r in kept(applied(edges, df)).where("x >= 0 and not isnan(x)").collect()
    )
    assert found == {1: 7, 2: 7, 3: 7, }  # fmt: skip
    with pytest.raises(StepError, match="'s' is string, not a number"):
        applied(SampleStrata(by=("s",), bins={"s": 3}, rows=1), people(spark, {"a": 2}))


def test_a_total_that_is_not_reached_is_told(spark):
    told = Telling()
    frozen = SampleStrata(by=("s",), total=100, max_copies=2).fit(people(spark, {"a": 3, "b": 2}), told)
    assert [(s["target"], s["copies"]) for s in frozen.strata] == [(6, 2), (4, 2)]
    assert told.warnings == ["total: 100 rows were asked for; the strata give 10 (max_copies: 2)"]


@pytest.mark.slow
def test_small_strata_are_kept_dropped_merged_or_refused(spark):
    df = people(spark, {"a": 30, "b": 3, "c": 4, "d": 5})
    step = {"by": ("s",), "rows": 4, "min_rows": 5}
    assert counts(applied(SampleStrata(**step), df)) == {"a": 4, "b": 3, "c": 4, "d": 4}
    assert counts(applied(SampleStrata(**step, small="drop"), df)) == {"a": 4, "d": 4}
    merged = counts(applied(SampleStrata(**step, small="merge"), df))
    assert merged["a"] == merged["d"] == 4 and merged.get("b", 0) + merged.get("c", 0) == 4
    with pytest.raises(StepError, match=r"fewer than 5 training rows \(min_rows\): ‹b›, ‹c›"):
        applied(SampleStrata(**step, small="refuse"), df)


@pytest.mark.slow
def test_rows_are_drawn_by_their_weights(spark, tmp_path):
    rows = [("a", i, float(1 + 9 * (i % 2)), "train") for i in range(4000)]
    rows += [("b", i, w, "train") for i, w in enumerate([None, 0.0, -1.0, float("nan"), float("inf"), 2.0])]
    df = frame(spark, "s string, i int, w double, split string", *rows)
    step = SampleStrata(by=("s",), rows=400, weight="w", max_copies=2)
    out = applied(step, df)
    assert counts(out) == {"a": 400, "b": 2}
    for replacement in (False, True):
        context = BuildContext(spark, str(tmp_path), rows=df)
        whole = dataclasses.replace(step, min_rows=6, small="refuse", replacement=replacement)
        assert whole.fit(df, context).learned()
        assert context.warnings[0] == "5 training rows have no 'w' above 0, and are never taken"
    heavy = kept(out).where("s = 'a' and w = 10").count()
    assert 340 <= heavy <= 385  # of 400 nearly 10 of 11
    more = applied(SampleStrata(by=("s",), rows=800, weight="w"), df.repartition(7))
    assert set(plain_rows(kept(out).where("s = 'a'"), "i")) < set(plain_rows(kept(more), "i"))
    with pytest.raises(StepError, match="'s' is string, not a number"):
        applied(SampleStrata(by=("s",), rows=1, weight="s"), df)


@pytest.mark.slow
def test_draws_with_replacement_are_exact_independent_and_name_their_copies(spark):
    df = people(spark, {"a": 500, "b": 50})
    step = SampleStrata(by=("s",), rows=500, replacement=True, max_copies=20, number="copy")
    out = applied(step, df)
    assert counts(out) == {"a": 500, "b": 500}
    assert len({r["_row_id"] for r in kept(out).collect()}) == 1000
    often = Counter(r["i"] for r in kept(out).where("s = 'a'").collect())
    assert 0.58 < len(often) / 500 < 0.68  # 1 - 1/e of the rows are drawn at all
    copies = kept(out).groupBy("s", "i").agg(F.count("*").alias("n"), F.max("copy").alias("last")).collect()
    assert all(r["n"] == r["last"] + 1 for r in copies)
    again = applied(step, df.repartition(5))
    assert plain_rows(kept(out), "s", "i", "copy") == plain_rows(kept(again), "s", "i", "copy")
    fewer = applied(SampleStrata(by=("s",), rows=100, replacement=True, max_copies=20), df)
    assert not Counter(plain_rows(kept(fewer), "s", "i")) - Counter(plain_rows(kept(out), "s", "i"))
    evidence = {r["reason"] for r in rejected(out).collect()}
    assert evidence == {"not_sampled"}


@pytest.mark.slow
def test_the_strata_of_a_list_are_its_sets_in_any_order(spark):
    lists = [["x", "y"], ["y", "x"], ["x", "y", "x"], ["x"], ["x"], ["x", None], [None, "x"], [], None, None]
    df = frame(spark, "i int, l array<string>, split string", *((i, v, "train") for i, v in enumerate(lists * 4)))
    out = applied(SampleStrata(by=("l",), rows=3), df)
    sets = Counter(None if r["l"] is None else frozenset(r["l"]) for r in kept(out).collect())
    assert set(sets.values()) == {3} and len(sets) == 5
    wanted = spark.createDataFrame([(["y", "x"], 2), (["x"], 5)], "l array<string>, rows bigint")
    out = applied(SampleStrata(by=("l",), target_table="w", others="drop"), df, w=wanted)
    assert Counter(frozenset(r["l"]) for r in kept(out).collect()) == {frozenset("xy"): 2, frozenset("x"): 5}
    with pytest.raises(StepError, match="targets: 'l' is array<string>, of which no single values are named"):
        applied(SampleStrata(by=("l",), targets=(Target(values=("x",), rows=1),)), df)


@given(st.integers(1, 10**6), st.integers(1, 10**9))
def test_a_cut_is_looked_for_about_where_even_hashes_have_it(ahead, size):
    low, high = window(min(ahead, size), size)
    place = (min(ahead, size) << 64) // size - (1 << 63)
    assert LOWEST <= low <= min(place, HIGHEST) <= high <= HIGHEST
    assert high - low <= (8 * ahead**0.5 + 17) / size * 2.0**64 + 1


@pytest.mark.slow
@pytest.mark.parametrize("weight", [None, "w"])
def test_many_strata_are_an_artifact_and_drawn_as_few_are(spark, tmp_path, monkeypatch, weight):
    df = people(spark, {f"s{i}": 3 + i for i in range(12)}).withColumn("w", F.col("i") % 5 + 1)
    step = SampleStrata(by=("s",), rows=4, max_copies=2, weight=weight)
    context = BuildContext(spark, str(tmp_path / "scratch"), fitted=str(tmp_path / "fitted"), rows=df)
    plain = step.fit(df, context)
    assert len(plain.strata) == 12 and not plain.stored
    monkeypatch.setattr(draws, "MOST_BINS", 10)
    monkeypatch.setattr(resample, "MOST_INLINE", 3)
    monkeypatch.setattr(draws, "window", lambda ahead, size: (LOWEST, LOWEST))  # as if no cut were where it should be
    frozen = step.fit(df, context)
    assert frozen.stored and not frozen.strata
    out = frozen.run(df, context)
    assert counts(out) == {f"s{i}": 4 for i in range(12)}
    assert plain_rows(kept(plain.run(df, context)), "s", "i") == plain_rows(kept(out), "s", "i")


@pytest.mark.slow
def test_what_copies_do_not_reach_is_told(spark, tmp_path):
    df = people(spark, {"a": 3, "b": 30})
    for rows, told in ((6, []), (7, ["fewer rows than asked for, as copies do not reach: ‹a›"])):
        context = BuildContext(spark, str(tmp_path), rows=df)
        frozen = SampleStrata(by=("s",), rows=rows, max_copies=2).fit(df, context)
        assert [s["target"] for s in frozen.strata] == [6, rows] and context.warnings == told
