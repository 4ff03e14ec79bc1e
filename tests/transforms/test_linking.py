"""The steps of fusion in Spark: links, entities, golden records."""

import hashlib
import random
import tempfile
from collections import defaultdict
from datetime import datetime, timezone
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import functions as F

from headgate.jobs.pipeline.context import BuildContext
from headgate.transforms.balancing.split import fitted
from headgate.transforms.fusion import (
    blocking,
    components,
    few_entities,
    learning,
    many,
    meetings,
    model,
    partners,
    records,
    tiles,
    truth,
)
from headgate.transforms.fusion.blocking import block
from headgate.transforms.fusion.components import label_components
from headgate.transforms.fusion.crossreference import ConfirmLinks, CrossReference
from headgate.transforms.fusion.entities import AssignEntities
from headgate.transforms.fusion.golden import GoldenRecords
from headgate.transforms.fusion.history import EntityEvents, EntityHistory
from headgate.transforms.fusion.links import LinkRecords
from headgate.transforms.fusion.neighbourhood import met_at_once, met_in_spark
from headgate.transforms.fusion.partners import one_partner_each
from headgate.transforms.fusion.values import Comparison
from headgate.transforms.rows import REJECTED, SOURCE, row_id, with_bookkeeping
from headgate.transforms.step import Estimator, StepError
from tests.conftest import plain_rows
from tests.jobs.test_fuse import misspelt, people
from tests.transforms.frames import columns_of, frame

PERSON = "key string, name string, street string, city string, phone string"


def run(step, df, warnings=None, previous=None, at=None, **tables):
    """The rows after a step as plain dicts; what it says of them is added to `warnings`."""
    with tempfile.TemporaryDirectory() as folder:
        spark = df.sparkSession
        context = BuildContext(
            spark,
            folder,
            fitted=f"{folder}/fitted",
            frames=tables,
            rows=df,
            before=lambda: previous,
            published=lambda: at or datetime.fromtimestamp(0, tz=timezone.utc),
            reads_previous=step.reads_previous,
        )
        step.check(df, context)
        made = fitted(step, df, context) if isinstance(step, Estimator) else step
        rows = [r.asDict(recursive=True) for r in made.run(df, context).collect()]
        if warnings is not None:
            warnings.extend(context.warnings)
        return rows


def persons(n=60, copies=25):
    """Return rows of people, of whom so many come twice, the second time misspelt."""
    r, every = random.Random(4), list(people(9, n))
    rows = [(f"p{i}", *p) for i, p in enumerate(every)]
    return rows + [(f"q{i}", misspelt(r, every[i][0]), *every[i][1:]) for i in range(copies)]


def test_links_of_one_source(spark, monkeypatch):
    said = []
    df = frame(spark, PERSON, *persons())
    found = run(LinkRecords(key=("key",)), df, said)
    linked = {frozenset((r["key_a"], r["key_b"])) for r in found if r["linked"]}
    true = {frozenset((f"p{i}", f"q{i}")) for i in range(25)}
    assert len(linked & true) >= 24 and len(linked - true) <= 1
    for row in found:
        assert sum(row["weights"].values()) == pytest.approx(row["score"], abs=1e-6)
        assert row["id_a"] < row["id_b"] and row["_parents"] == [row["id_a"], row["id_b"]]
        assert row["rule"] == "model" and (row["probability"] >= 0.5 or not row["linked"])
    assert any(s.startswith("compared: name as name (2 words a value)") for s in said)
    assert any("matches by estimate" in s for s in said)
    monkeypatch.setattr(records, "FEW", 0)
    again = run(LinkRecords(key=("key",)), df.repartition(5, "phone"))
    assert sorted(map(repr, again)) == sorted(map(repr, found)), "in Spark as at once, in any partitioning"


def test_links_of_families_are_doubted(spark):
    """Nobody is there twice: what agrees most are brothers, and the summary says in what these differ."""
    r, said = random.Random(5), []
    names = ["Ada", "Bela", "Cyr", "Dora", "Egon", "Fay", "Gus", "Hal"]
    words = [f"{letter}olm" for letter in "abcdefghijklmnop"]
    homes = [(f"{r.randrange(90)} {r.choice(words)} {r.choice(words)}", r.choice(words)) for _ in range(120)]
    rows = [
        (f"{i}-{first}", first, *home, f"{r.randrange(10**9):09d}")
        for i, home in enumerate(homes)
        for first in r.sample(names, 2)
    ]
    found = run(LinkRecords(key=("key",)), frame(spark, PERSON, *rows), said)
    assert any(row["linked"] for row in found), "else there is nothing to doubt"
    assert any("differ, where both have values, for the most part in ‹name› (" in s for s in said), said


@pytest.mark.parametrize(("sources", "parts", "batch"), [(1, 1, 7), (2, 30, 1000)])
def test_neighbours_in_order_meet_wherever_rows_lie(spark, sources, parts, batch):
    """Numbers by size and names by letters, ties by id, over the borders of parts and of batches."""
    r, window, n = random.Random(3), 3, 60
    comparisons = [Comparison(column=c, kind=k, why="") for c, k in (("name", "name"), ("year", "number"))]
    rows = [
        (r.randrange(-(1 << 60), 1 << 60), r.randrange(sources), r.choice("abcd") * r.randrange(1, 3), year)
        for year in [None, *(str(r.randrange(-20, 2000)) for _ in range(n))]
    ]
    expected = set()
    for j, order in ((0, lambda row: row[2]), (1, lambda row: float(row[3]))):
        ranked = sorted((row for row in rows if row[2 + j] is not None), key=lambda row: (order(row), row[0]))
        for i, a in enumerate(ranked):
            for b in ranked[i + 1 : i + 1 + window]:
                if sources == 1 or a[1] != b[1]:
                    (src_a, rid_a), (src_b, rid_b) = sorted([(a[1], a[0]), (b[1], b[0])])
                    expected.add((rid_a, src_a, rid_b, src_b, 1 << j))
    settings = {
        "spark.sql.shuffle.partitions": str(parts),
        "spark.sql.adaptive.coalescePartitions.enabled": "false",
        "spark.sql.execution.arrow.maxRecordsPerBatch": str(batch),
    }
    before = {name: spark.conf.get(name) for name in settings}
    with tempfile.TemporaryDirectory() as folder:
        context = BuildContext(spark, folder)
        df = spark.createDataFrame(rows, "rid long, src int, v0 string, v1 string").repartition(4)
        try:
            for name, value in settings.items():
                spark.conf.set(name, value)
            met = met_in_spark(df, comparisons, window, sources, 7, context).collect()
        finally:
            for name, value in before.items():
                spark.conf.set(name, value)
    assert {row[:5] for row in met} == expected and len(met) == len(expected)
    ids, src, *values = zip(*sorted(rows), strict=True)
    arrays = [pa.array(v, pa.string()) for v in values]
    at_once = met_at_once(comparisons, arrays, np.array(src), window, sources > 1)
    found = {
        (ids[a], src[a], ids[b], src[b], family) for a, b, family in zip(*map(np.ndarray.tolist, at_once), strict=True)
    }
    assert found == expected


@pytest.mark.slow
def test_records_of_other_splits_are_linked_by_what_the_training_ones_tell(spark):
    split = F.when(F.col("key").rlike("[135]$"), "test").otherwise("train")
    df = frame(spark, PERSON, *persons()).withColumn("split", split)
    columns = {"name": "name", "street": "text", "phone": "code"}
    found = run(LinkRecords(key=("key",), columns=columns), df)
    linked = {frozenset((r["key_a"], r["key_b"])) for r in found if r["linked"]}
    true = {frozenset((f"p{i}", f"q{i}")) for i in range(25)}
    assert len(linked & true) >= 23 and len(linked - true) <= 2


@pytest.mark.slow
def test_few_records_are_linked_as_many_are(spark, monkeypatch):
    """Nulls, a record that came twice, two sources that repeat nothing, labels, decisions, a lead over rivals."""
    rows = [(k, n, s, c if i % 3 else None, p) for i, (k, n, s, c, p) in enumerate(persons(50, 30))]
    rows = [("b" if i >= 50 else "a", *row, [row[3] or "", f"t{row[0][1:]}"]) for i, row in enumerate(rows)]
    df = spark.createDataFrame(rows, f"{SOURCE} string, {PERSON}, tags array<string>")
    df = with_bookkeeping(df.withColumn("_row_id", row_id(df, "test", ["key"])))
    df = df.unionByName(df.limit(2).withColumn("name", F.lit("zz")))
    pairs = "key_a string, key_b string, same boolean"
    decided = spark.createDataFrame([("p1", "q1", False), ("p30", "q2", True), ("p1", "no", True)], pairs)
    known = [(f"p{i}", f"q{i}", True) for i in range(6)] + [(f"p{i}", f"q{i + 1}", False) for i in range(20)]
    known += [("p7", "q7", True), ("p7", "q7", False)]
    tables = {"decided": decided, "known": spark.createDataFrame(known, pairs)}
    monkeypatch.setattr(model, "UNSURE", 2.0)
    monkeypatch.setattr(model, "GAIN", -2.0)  # the lead counts, whatever it tells
    options = [
        {"decisions": "decided", "minhash": 3, "columns": {"street": "text"}, "one_to_one": True},
        {"labels": "known", "one_to_one": False, "neighbours": 2},
        {},
    ]

    def every():
        said: list[str] = []
        found = [run(LinkRecords(key=("key",), **o), df, said, **tables) for o in options]
        return [sorted(map(repr, rows)) for rows in found], said

    at_once = every()
    assert any("(lead)" in row for row in at_once[0][0])
    assert any("many to many" not in s for s in at_once[1])
    monkeypatch.setattr(records, "FEW", 0)
    assert every() == at_once
    monkeypatch.setattr(meetings, "ENTRIES", 1)
    monkeypatch.setattr(records, "FEW", 1000)
    monkeypatch.setattr(tiles, "SMALL", 20)
    monkeypatch.setattr(tiles, "MANY", 2)
    assert every() == at_once, "when pairs under keys are too many, and each record has pairs with few groups of others"


@pytest.mark.slow
def test_people_decide_and_labels_teach(spark):
    df = frame(spark, PERSON, *persons())
    pairs = "key_a string, key_b string, same boolean"
    decisions = spark.createDataFrame([("p1", "q1", False), ("p30", "p31", True), ("p1", "nobody", True)], pairs)
    labels = [(f"p{i}", f"q{i}", True) for i in range(6)] + [(f"p{i}", f"p{i + 1}", False) for i in range(20)]
    said = []
    step = LinkRecords(key=("key",), decisions="decided", labels="known")
    found = run(step, df, said, decided=decisions, known=spark.createDataFrame(labels, pairs))
    by_pair = {frozenset((r["key_a"], r["key_b"])): r for r in found}
    assert by_pair[frozenset(("p1", "q1"))]["rule"] == "cannot_link" and not by_pair[frozenset(("p1", "q1"))]["linked"]
    assert by_pair[frozenset(("p30", "p31"))]["rule"] == "must_link" and by_pair[frozenset(("p30", "p31"))]["linked"]
    assert by_pair[frozenset(("p2", "q2"))]["rule"] == "supervised" and by_pair[frozenset(("p2", "q2"))]["linked"]
    assert "decisions: 1 of 3 pairs of table 'decided' name records that are not there (‹p1› and ‹nobody›)" in said
    unknown = spark.createDataFrame([("x", "y", True)], pairs)
    with pytest.raises(StepError, match="labels: 1 of 1 pairs of table 'known' name records that are not there"):
        run(LinkRecords(key=("key",), labels="known"), df, known=unknown)


@pytest.mark.slow
def test_all_partners_that_people_gave_a_record_are_linked(spark, monkeypatch):
    df = frame(spark, f"{SOURCE} string, {PERSON}", *(("b" if p[0][0] == "q" else "a", *p) for p in persons(20, 10)))
    pairs = "key_a string, key_b string, same boolean, source_a string, source_b string"
    both = [(f"p{i}", "q0", True, "a", "b") for i in (0, 15)]
    step = LinkRecords(key=("key",), decisions="decided", one_to_one=True)
    for few in (records.FEW, 0):
        monkeypatch.setattr(records, "FEW", few)
        found = run(step, df, decided=spark.createDataFrame(both, pairs))
        linked = {r["key_a"] for r in found if r["key_b"] == "q0" and r["linked"]}
        assert linked == {"p0", "p15"}


@pytest.mark.parametrize("few", [records.FEW, pytest.param(0, marks=pytest.mark.slow)])
def test_keys_of_decisions_with_blanks_and_without(spark, monkeypatch, few):
    people = [(None if i in (3, 4) else f" p{i} ", *p) for i, (_, *p) in enumerate(persons(20, 10))]
    df = frame(spark, f"{SOURCE} string, {PERSON}", *(("ab"[i % 2], *p) for i, p in enumerate(people)))
    pairs = "key_a string, key_b string, same boolean"
    decided = [("p0", "p7", True), (" p2 ", "p9", True), (None, "p1", True), ("p6", None, True)]
    step = LinkRecords(key=("key",), decisions="decided", one_to_one=True)
    monkeypatch.setattr(records, "FEW", few)
    said = []
    found = run(step, df, said, decided=spark.createDataFrame(decided, pairs))
    must = {(r["key_a"], r["key_b"]) for r in found if r["rule"] == "must_link"}
    assert must == {(" p0 ", " p7 "), (" p2 ", " p9 ")}
    told = "name records that are not there (‹a (null)› and ‹b p1›, ‹a p6› and ‹b (null)›)"
    assert f"decisions: 2 of 4 pairs of table 'decided' {told}" in said, said


def test_inputs_that_cannot_be_linked(spark):
    nothing = frame(spark, "a string, b int", *[(None, None)] * 3)
    with pytest.raises(StepError, match=r"no column can be compared: 'a' \(no value\), 'b' \(no value\)"):
        run(LinkRecords(), with_bookkeeping(nothing.drop("_row_id").withColumn("_row_id", F.expr("uuid()"))))
    said = []
    rows = frame(spark, f"{PERSON}, {SOURCE} string", *((*p, "a") for p in persons(5, 0)))
    assert run(LinkRecords(), rows, said) == []
    assert said == ["only source ‹a› has records: there is nothing to link them with"]
    # A record that came twice, and a text of a megabyte.
    long = "word " * 200_000
    twice = [(f"k{i // 2}", f"{long}{i}" if i == 1 else f"t{i} and more words to it", "x") for i in range(8)]
    df = spark.createDataFrame(twice, "key string, text string, city string")
    df = with_bookkeeping(df.withColumn("_row_id", row_id(df, "test", ["key"])))
    said = []
    run(LinkRecords(key=("key",)), df, said)
    assert said[0] == "4 rows repeat the row id of another one (a source's key, or content): one record"
    for options, told in (
        ({"columns": {"nam": "name"}}, "there is no column 'nam'"),
        ({"threshold": 2.0}, "threshold: 2.0 is not a probability"),
        ({"cap": 0}, "cap: 0 is less than 1"),
        ({"labels": "known"}, "labels: there is no table 'known'"),
    ):
        with pytest.raises(StepError, match=told):
            LinkRecords(**options).columns_after(columns_of("name"), {})


def test_a_value_of_a_third_of_all_rows_stays_linear(spark, monkeypatch):
    n = 3000
    every = spark.range(n).select(
        F.xxhash64("id").alias("rid"),
        F.lit(0).alias("src"),
        F.when(F.col("id") % 3 == 0, "same").otherwise(F.concat(F.lit("n"), (F.col("id") / 2).cast("int"))).alias("v0"),
        F.concat(F.lit("m"), (F.col("id") / 3).cast("int")).alias("v1"),
    )
    comparisons = [Comparison(column=c, kind="name", why="") for c in "ab"]
    drawn = "one long, src_one int, other long, src_other int, family long"
    with tempfile.TemporaryDirectory() as folder:
        context = BuildContext(spark, folder)
        no_pairs = spark.createDataFrame([], drawn)
        pairs, found = block(every, comparisons, [n], no_pairs, context, cap=20, per_record=60)
        assert pairs.count() == found.found
        assert n / 2 < found.found < 12 * n and found.refined >= 1
        # Of very many common keys the driver holds the most frequent; with what was learned so, the pairs are the same.
        monkeypatch.setattr(blocking, "COMMON", 1)
        options = {"cap": 2, "per_record": 60}
        few, cut = block(every, comparisons, [n], no_pairs, context, **options)
        few = plain_rows(few.select("one", "other", "mask"))
        assert " the 1 most frequent are refined" in context.warnings[-1]
        assert len(cut.limits.order[0]) == 1 and len(few) == cut.found < found.found
        again, _ = block(every, comparisons, [n], no_pairs, context, limits=cut.limits, **options)
        assert plain_rows(again.select("one", "other", "mask")) == few


def test_what_grows_with_labels_and_sources_is_bounded(spark, monkeypatch):
    ends = "one long, src_one int, other long, src_other int"
    known = spark.createDataFrame([(i, 0, i + 100, 0, i % 2 == 0) for i in range(40)], f"{ends}, same boolean")
    compared = known.select(*many.ENDS, F.unhex(F.lit("0102")).alias("pattern"))
    pairs = SimpleNamespace(
        pairs=compared, labels=known, size=2, context=SimpleNamespace(warn=lambda m: said.append(m))
    )
    said = []
    levels, same = many.Many.labelled(pairs)
    assert levels.shape == (40, 2) and same.sum() == 20 and not said
    monkeypatch.setattr(many, "ASKED_AT_ONCE", 10)
    levels, same = many.Many.labelled(pairs)
    assert levels.shape == (10, 2) and len(same) == 10
    assert said == ["labels: what they teach is learned from 10 of them, chosen by hash"]
    raw = known.select(
        F.col("one").alias("rid"), (F.col("one") % 3).cast("string").alias("source"), F.lit("x").alias("c0")
    )
    monkeypatch.setattr(records, "SOURCES", 3)
    assert len(records.counts_of_sources(raw, 1)) == 3
    monkeypatch.setattr(records, "SOURCES", 2)
    with pytest.raises(StepError, match="more than 2 sources are not linked"):
        records.counts_of_sources(raw, 1)


@pytest.mark.slow
def test_rounds_give_what_one_task_gives(spark, monkeypatch):
    r = random.Random(7)
    names = [f"{r.random():.12f}" for _ in range(200)]
    edges = spark.createDataFrame([(r.choice(names), r.choice(names)) for _ in range(150)], "a string, b string")
    pairs = [(r.randrange(40), 0, 100 + r.randrange(40), 1, float(r.randrange(6))) for _ in range(150)]
    pairs = {(p[0], p[2]): (*p, "must_link" if p[4] == 5 else "model", True) for p in pairs}.values()
    schema = "one long, src_one int, other long, src_other int, score double, rule string, linked boolean"
    scored = spark.createDataFrame(list(pairs), schema)
    words = spark.createDataFrame([(i, [f"w{i % 7}", "x"]) for i in range(140)], "rid long, words array<string>")

    def both():
        with tempfile.TemporaryDirectory() as folder:
            context = BuildContext(spark, folder)
            labels = plain_rows(label_components(edges, context), "id", "component")
            return labels, plain_rows(one_partner_each(scored, words, context), "one", "other", "linked")

    at_once = both()
    decided = {(p[0], p[2]) for p in pairs if p[5] == "must_link"}
    assert decided <= {(one, other) for one, other, linked in at_once[1] if linked}
    monkeypatch.setattr(components, "FEW", 0)
    assert both() == at_once
    monkeypatch.setattr(components, "EDGES_AT_ONCE", 60)
    monkeypatch.setattr(partners, "PAIRS_AT_ONCE", 60)
    assert both() == at_once


LINKS = "id_a string, id_b string, score double, rule string, linked boolean"


def entities_of(spark, members, links, previous=None, said=None, **options):
    """Return the rows of entities of records with given ids, from links (id, id, score)."""
    rows = spark.createDataFrame([(m,) for m in members], "_row_id string")
    table = spark.createDataFrame([(a, b, float(s), "model", s > 0) for a, b, s in links], LINKS)
    return run(AssignEntities(links="links", **options), with_bookkeeping(rows), said, previous, links=table)


def as_previous(spark, rows):
    return spark.createDataFrame([(r["_row_id"], r["entity_id"]) for r in rows], "_row_id string, entity_id string")


def ids(rows):
    return {r["_row_id"]: r["entity_id"] for r in rows}


@pytest.fixture(params=["at once", "in Spark"])
def either(request, monkeypatch):
    """Make entities on the driver, or as if the records were too many for it."""
    if request.param == "in Spark":
        monkeypatch.setattr(few_entities, "AT_ONCE", 0)


@pytest.mark.slow
def test_ids_of_entities_last(spark, either):
    said = []
    links = [("a", "b", 9), ("b", "c", 9), ("a", "c", 8), ("d", "e", 9), ("g", "h", 9)]
    first = entities_of(spark, "abcdefgh", links, said=said, giant=2)
    one = ids(first)
    assert one["a"] == one["b"] == one["c"] != one["d"]
    assert said[1:] == [f"entity {one['a']} has 3 records; its weakest link has 9.0 bits: ‹b› and ‹c›"]
    # a leaves b and c, which keep the id; d, e and f become one; g and h are gone; i is new.
    said = []
    links = [("b", "c", 9), ("d", "e", 9), ("e", "f", 9), ("d", "f", 9)]
    second = entities_of(spark, "abcdefi", links, as_previous(spark, first), said)
    two = ids(second)
    assert two["b"] == two["c"] == one["b"] and two["a"] not in one.values()
    assert two["d"] == two["e"] == two["f"] == one["d"]
    assert said == ["4 entities, 2 of several records, the largest of 3; 2 minted, 1 merged, 1 split, 1 gone"]
    sizes = {r["_row_id"]: (r["entity_size"], r["weakest_link"], r["weakest_pair"]) for r in second}
    assert sizes["a"] == (1, None, None) and sizes["d"] == (3, 9.0, ["d", "f"])


@pytest.mark.slow
def test_entities_of_few_are_those_of_many(spark, monkeypatch):
    r = random.Random(17)
    members = [f"{r.getrandbits(40):010x}" for _ in range(40)]
    cells = [(m, r.choice("xy"), i % 13 == 12) for i, m in enumerate([*members, *members[:4]])]
    rows = with_bookkeeping(spark.createDataFrame(cells, "_row_id string, side string, gone boolean"))
    mark = F.struct(F.lit("x").alias("step"), F.lit("x").alias("reason"), F.lit(None).alias("evidence"))
    mark = mark.cast(rows.schema[REJECTED].dataType)
    rows = rows.withColumn(REJECTED, F.when(F.col("gone"), mark)).drop("gone")
    decided = {(0, 1): "must_link", (1, 2): "must_link", (0, 2): "cannot_link"}
    pairs = {tuple(sorted(r.sample(range(40), 2))): "model" for _ in range(45)} | decided
    links = [
        (*sorted((members[a], members[b])), 0.0 if rule != "model" else r.choice([9.0, 7.5, -1.0]), rule)
        for (a, b), rule in sorted(pairs.items())
    ]
    links = [(*link, link[3] == "must_link" or link[2] > 0) for link in [*links, ("nobody", members[0], 9.0, "model")]]
    links = spark.createDataFrame(links, LINKS)
    # Ids of before: some of one record in two rows, some taken from records that are minted from else, a null.
    before = [(m, minted(r.choice(members))) for m in members[:30]] + [(members[0], minted("z")), (members[1], None)]
    before = spark.createDataFrame(before, "_row_id string, entity_id string")

    def made(**options):
        found = []
        for previous in (None, before):
            said = []
            step = AssignEntities(links="links", giant=2, **options)
            found += [sorted(map(repr, run(step, rows, said, previous, links=links))), said]
        return found

    every = [made(), made(one_to_one=True, source="side")]
    assert every[0] != every[1] and "gone" in every[0][3][1] and "kept apart" in every[0][3][0]
    monkeypatch.setattr(few_entities, "AT_ONCE", 39)  # not all links are, nor all of before
    assert [made(), made(one_to_one=True, source="side")] == every


@pytest.mark.slow
def test_decisions_that_cannot_hold_are_said(spark, either):
    rows = with_bookkeeping(spark.createDataFrame([(m,) for m in "abc"], "_row_id string"))
    decided = [("a", "b", 0.0, "must_link", True), ("b", "c", 0.0, "must_link", True)]
    decided += [("a", "c", 30.0, "cannot_link", False)]
    links = spark.createDataFrame(decided, LINKS)
    said = []
    found = ids(run(AssignEntities(links="links"), rows, said, links=links))
    assert found["a"] == found["b"] != found["c"]
    assert said[0] == "decided to be one, but kept apart by pairs decided to be two: ‹b› and ‹c›"


def test_records_are_named_as_their_readers_know_them(spark):
    rows = with_bookkeeping(spark.createDataFrame([(m,) for m in "abc"], "_row_id string"))
    decided = [("a", "b", 0.0, "must_link", True), ("b", "c", 0.0, "must_link", True)]
    decided += [("a", "c", 30.0, "cannot_link", False)]
    ends = {"a": ("crm", "1"), "b": ("web", "1"), "c": ("web", None)}
    shown = [(*link, *ends[link[0]], *ends[link[1]]) for link in decided]
    columns = ", source_a string, key_a string, source_b string, key_b string"
    said = []
    links = spark.createDataFrame(shown, LINKS + columns)
    run(AssignEntities(links="links", giant=1), rows, said, links=links)
    assert said[0].endswith("to be two: ‹web 1› and ‹c›"), "without a key by its row id"
    assert said[2].endswith("its weakest link has 0.0 bits: ‹crm 1› and ‹web 1›")


def expected(before, groups):
    """Return record -> id by the rules as they are written: `before`: record -> id; groups of records."""
    parts = defaultdict(list)
    for n, group in enumerate(groups):
        for record in group:
            if record in before:
                parts[before[record], n].append(record)
    goes = {}
    for (old, n), shared in parts.items():
        goes[old] = min(goes.get(old, (1, "", 0)), (-len(shared), min(shared), n))
    now = {}
    for n, group in enumerate(groups):
        kept = [(less, first, old) for old, (less, first, to) in goes.items() if to == n]
        free = [minted(r) for r in sorted(group) if minted(r) not in before.values()]
        now |= dict.fromkeys(group, min(kept)[2] if kept else free[0])
    return now


def minted(record):
    return hashlib.md5(f"entity:{record}".encode()).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize("nights", [4, 30])
def test_ids_over_nights_of_changes(spark, monkeypatch, nights):
    """Ids follow the rules, those of untouched entities never change, and the history tells the same events."""
    if nights == 4:
        monkeypatch.setattr(few_entities, "AT_ONCE", 0)
    r = random.Random(11)
    living, number = {}, 0
    entities = history = None
    before, told = {}, []
    for night in range(nights):
        for _ in range(12):
            number += 1
            living[f"{r.getrandbits(40):010x}"] = r.randrange(9)
        for gone in r.sample(sorted(living), 7 if night % 5 else min(9, len(living))):
            del living[gone]
        for moved in r.sample(sorted(living), 2):
            living[moved] = r.randrange(9)
        if night % 4 == 3:  # two become one
            one, other = r.randrange(9), r.randrange(9)
            living = {k: one if v == other else v for k, v in living.items()}
        groups = defaultdict(list)
        for record, of in living.items():
            groups[of].append(record)
        links = [(a, b, 9) for m in groups.values() for a in m for b in m if a < b]
        rows = entities_of(spark, sorted(living), links, entities)
        now = ids(rows)
        assert now == expected(before, list(groups.values())), night
        for entity in set(before.values()) & set(now.values()):
            members = {m for m, e in before.items() if e == entity}
            if members in [set(g) for g in groups.values()]:
                assert {now[m] for m in members} == {entity}
        entities = as_previous(spark, rows)
        history, kept = history_of(spark, now, history, 100 + night)
        held = {k["_parents"][0]: k["entity_id"] for k in kept if k["valid_to"] is None}
        assert held == now
        told += [
            *(("minted", e, None, sum(x == e for x in now.values())) for e in set(now.values()) - set(before.values())),
            *fates(before, now),
        ]
        before = now
    events = run(EntityEvents(), history)
    found = [(e["event"], e["entity_id"], e["into_id"], e["records"]) for e in events]
    assert sorted(map(str, found)) == sorted(map(str, told))
    assert {e["event"] for e in events} >= {"minted", "merged", "split", "gone"} or nights < 30
    for e in events:  # what goes on for an id is alive
        assert e["now_id"] is None or e["now_id"] in now.values()
        assert (e["now_id"] == e["entity_id"]) == (e["entity_id"] in now.values())


def fates(before, now):
    """Yield the events of entities of before, from what became of their records."""
    for entity in set(before.values()):
        members = [m for m, e in before.items() if e == entity]
        went = defaultdict(list)
        for m in members:
            if now.get(m, entity) != entity:
                went[now[m]].append(m)
        over = entity not in now.values()
        order = sorted(went, key=lambda e: (-len(went[e]), min(went[e])))
        for i, into in enumerate(order):
            yield "merged" if over and i == 0 else "split", entity, into, len(went[into])
        if over and not went:
            yield "gone", entity, None, len(members)


def history_of(spark, now, previous, second):
    """Return the history after a build that was published at a second, as a frame and as rows."""
    df = with_bookkeeping(spark.createDataFrame(list(now.items()), "_row_id string, entity_id string"))
    at = datetime.fromtimestamp(second, tz=timezone.utc)
    rows = run(EntityHistory(named="all"), df, previous=previous, at=at)
    shown = "source string, key string, entity_id string, valid_from timestamp, valid_to timestamp"
    names = ["source", "key", "entity_id", "valid_from", "valid_to", "_row_id", "_parents"]
    frame = spark.createDataFrame(
        [tuple(r[n] for n in names) for r in rows], f"{shown}, _row_id string, _parents array<string>"
    )
    return with_bookkeeping(frame), rows


@pytest.mark.slow
def test_the_history_of_entities_and_its_events(spark):
    """Three builds: x goes into y, y into z, w loses a record to z and is gone."""
    history, _ = history_of(spark, {"a": "x", "b": "y", "c": "y", "d": "z", "e": "w", "f": "w"}, None, 10)
    history, _ = history_of(spark, {"a": "y", "b": "y", "c": "y", "d": "z", "e": "w", "f": "z"}, history, 20)
    history, rows = history_of(spark, {"a": "z", "b": "z", "d": "z", "f": "z"}, history, 15)  # an earlier clock
    seconds = {r["valid_from"].timestamp() for r in rows} | {r["valid_to"].timestamp() for r in rows if r["valid_to"]}
    assert seconds == {10.0, 20.0, 20.000001}
    open_rows = {r["key"]: (r["entity_id"], r["valid_from"].timestamp()) for r in rows if r["valid_to"] is None}
    assert open_rows == {"a": ("z", 20.000001), "b": ("z", 20.000001), "d": ("z", 10.0), "f": ("z", 20.0)}
    events = run(EntityEvents(), history)
    found = {(e["at"].timestamp(), e["event"], e["entity_id"], e["into_id"], e["records"]) for e in events}
    assert found == {
        *((10.0, "minted", e, None, n) for e, n in (("x", 1), ("y", 2), ("z", 1), ("w", 2))),
        (20.0, "merged", "x", "y", 1),
        (20.0, "split", "w", "z", 1),
        (20.000001, "merged", "y", "z", 2),
        (20.000001, "gone", "w", None, 1),
    }
    assert {e["entity_id"]: e["now_id"] for e in events} == {"x": "z", "y": "z", "z": "z", "w": None}


GOLDEN = "e string, source string, name string, n int, at date, street string, zip string"
CLAIMS = [
    ("x", "crm", "Ada", 1, "2024-01-01", "Oak 1", None),
    ("x", "web", "Ada L", 3, "2024-03-01", "Elm 2", "8001"),
    ("x", "app", "Ada L", 8, "2024-02-01", None, "9000"),
    ("y", "web", None, None, None, None, None),
    (None, "web", "nobody", 5, None, None, None),
]


def golden(spark, said=None, **options):
    import datetime

    rows = [(*r[:4], datetime.date.fromisoformat(r[4]) if r[4] else None, *r[5:]) for r in CLAIMS]
    df = frame(spark, GOLDEN, *rows)
    return {r["e"]: r for r in run(GoldenRecords(by="e", source="source", **options), df, said)}


def test_golden_records(spark):
    rules = {"name": "vote", "n": "median", "at": "recent"}
    found = golden(spark, columns=rules, recent="at", together=(("street", "zip"),), sources=("crm", "web"))
    x = found["x"]
    assert (x["name"], x["n"], str(x["at"]), x["street"], x["zip"]) == ("Ada L", 3.0, "2024-03-01", "Elm 2", "8001")
    assert x["records"] == 3 and len(x["_parents"]) == 3 and set(found) == {"x", "y"}
    assert x["evidence"]["name"] == {
        "source": "web",
        "rule": "vote",
        "confidence": pytest.approx(2 / 3, abs=1e-5),
        "runner_up": "Ada",
        "conflict": True,
        "tie": False,
        "majority": "Ada L",
    }
    assert x["evidence"]["n"]["source"] is None and x["evidence"]["zip"]["source"] == "web"
    assert found["y"]["name"] is None and found["y"]["evidence"]["name"]["confidence"] is None
    others = {"name": "priority", "n": "mean", "street": "longest", "zip": "complete", "at": "weighted_vote"}
    x = golden(spark, columns=others, sources=("crm",), weights={"crm": 5.0})["x"]
    assert (x["name"], x["n"], x["street"], x["zip"], str(x["at"])) == ("Ada", 4.0, "Oak 1", "8001", "2024-01-01")
    assert x["evidence"]["street"]["tie"] and x["evidence"]["name"]["majority"] == "Ada L"


def test_evidence_of_values_that_are_not_plain(spark):
    schema = "e string, source string, tags array<string>, at struct<a:int,b:string>, raw binary, n bigint"
    rows = [("x", "a", ["p", "q"], (1, None), b"\x00\xff", 2**53 + 1), ("x", "b", ["r"], None, b"", None)]
    step = GoldenRecords(by="e", source="source", rule="priority", sources=("b",), columns={"n": "median"})
    (made,) = run(step, frame(spark, schema, *rows))
    why = {c: (e["majority"], e["runner_up"]) for c, e in made["evidence"].items()}
    assert why["tags"] == ('["r"]', '["p","q"]') and why["raw"] == ("", "00FF")
    assert why["at"] == ('{"a":1,"b":null}', None) and made["tags"] == ["r"]
    assert made["n"] == 2.0**53 and why["n"][0] == str(2**53 + 1), "the nearest double"


def test_blank_texts_have_no_say(spark):
    """As quoted cells of csv files have them, and a file that was filled up with them."""
    rows = [
        ("x", "a", "", "", "x"),
        ("x", "b", " \u200b\n", "", "y"),
        ("x", "c", "Ada", " ", ""),
        ("x", "d", "", "", ""),
    ]
    df = frame(spark, "e string, source string, v string, w string, z string", *rows)
    (made,) = run(GoldenRecords(by="e", source="source"), df)
    assert (made["v"], made["w"], made["evidence"]["v"]["conflict"]) == ("Ada", None, False)


def test_a_vote_is_what_a_vote_says(spark):
    """Where values have as many records, the source that comes first decides."""
    df = frame(spark, "e string, source string, v string", ("x", "b", "m"), ("x", "a", "n"))
    for rule in ("vote", "longest"):
        (made,) = run(GoldenRecords(by="e", source="source", rule=rule, sources=("a",)), df)
        why = made["evidence"]["v"]
        assert (made["v"], why["majority"], why["runner_up"], why["tie"]) == ("n", "n", "m", True)


def test_the_longest_of_each_type(spark):
    schema = "e string, source string, t string, tags array<string>, m map<string,int>, raw binary, n double, at date"
    rows = [
        ("x", "a", "abcd", ["a long element", None], {"k": None, "l": None}, b"1234", 1e10, None),
        ("x", "b", "äöü", ["p", "q"], {"k": 1}, b"12345", 5.0, None),
        ("x", "c", "äöü", ["p", "q"], {"k": 1}, b"12345", 5.0, None),
    ]
    df = frame(spark, schema, *rows)
    (made,) = run(GoldenRecords(by="e", source="source", rule="longest"), df)
    assert (made["t"], made["tags"], made["m"], made["raw"]) == ("abcd", ["p", "q"], {"k": 1}, b"12345")
    assert made["n"] == 5.0 and made["evidence"]["n"]["rule"] == "vote", "what has no length is voted on"
    (made,) = run(GoldenRecords(by="e", columns={"tags": "longest"}, together=(("tags", "n", "t"),)), df)
    assert (made["tags"], made["n"], made["t"]) == (["p", "q"], 5.0, "äöü") or made["t"] == "abcd"


@pytest.mark.parametrize("option", [{"sources": ("crm", "wbe")}, {"weights": {"wbe": 2.0}}])
def test_a_source_that_is_misspelt_is_refused(spark, option):
    with pytest.raises(StepError) as error:
        golden(spark, rule="weighted_vote", **({"weights": {"crm": 1.0}} | option))
    (name,) = option
    told = f"{name}: no record is of 'wbe' — did you mean ‹web›? (in 'source': ‹app›, ‹crm›, ‹web›)"
    assert str(error.value) == told
    assert golden(spark, sources=("web", "app", "crm", "brings no rows today"))["x"]["n"] == 3


def test_what_is_learned_of_sources_is_the_same_in_spark(spark, monkeypatch):
    r = random.Random(3)
    rows = [
        (f"e{e}", f"s{s}", f"v{e % 4 if r.random() < a else r.randrange(4)}")
        for e in range(60)
        for s, a in enumerate([0.95, 0.9, 0.4, 0.4, 0.4])
    ]
    df = frame(spark, "e string, source string, v string", *rows)

    def chosen(rule, df):
        found = run(GoldenRecords(by="e", source="source", rule=rule), df)
        return sorted((f["e"], f["v"], f["evidence"]["v"]["confidence"]) for f in found)

    monkeypatch.setattr(truth, "ROUNDS", 3)
    at_once = chosen("dawid_skene", df)
    assert sum(v == f"v{int(e[1:]) % 4}" for e, v, _ in at_once) >= 54
    monkeypatch.setattr(learning, "CLAIMS_AT_ONCE", 10)
    assert chosen("dawid_skene", df.repartition(3)) == at_once


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"columns": {"nam": "vote"}}, "there is no column 'nam'"),
        ({"columns": {"name": "mean"}}, "'name' is string, not a number: it has no mean"),
        ({"rule": "recent"}, "'name' has the rule recent"),
        ({"rule": "priority"}, "'name' has the rule priority: name the sources"),
        ({"rule": "weighted_vote"}, "'name' has the rule weighted_vote: give weights"),
        ({"rule": "weighted_vote", "weights": {"crm": -1.0}}, "weights: -1.0 of 'crm' is not 0 or above"),
        ({"rule": "weighted_vote", "weights": {"crm": float("nan")}}, "weights: nan of 'crm' is not 0 or above"),
        ({"together": (("name", "n"), ("n",))}, "together: 'n' is in two lists"),
        ({"columns": {"n": "longest"}}, "'n' is int, which has no longest: texts, arrays, maps and bytes do"),
        ({"rule": "recent", "recent": "tags"}, "recent: 'tags' is array<string>, not a plain value"),
        ({"sources": ("a",)}, "source, of which sources speaks: there is no column '_source' here"),
        ({"columns": {"e": "vote"}}, "'e' names the entity"),
    ],
)
def test_golden_records_that_cannot_be(options, told):
    with pytest.raises(StepError, match=told):
        columns = {"e": "string", "name": "string", "n": "int", "tags": "array<string>"}
        GoldenRecords(by="e", **options).columns_after(columns, {})


def test_what_readers_join_by(spark):
    of = frame(spark, "id int, source string, entity_id string", (1, "a", "x"), (2, "b", "x"), (3, "b", "y"))
    rows = run(CrossReference(key=("id",), source="source"), of)
    assert sorted((r["source"], r["key"], r["entity_id"]) for r in rows) == [
        ("a", "1", "x"),
        ("b", "2", "x"),
        ("b", "3", "y"),
    ]
    row = {r["id"]: r["_row_id"] for r in of.collect()}
    shown = "source_a string, key_a string, source_b string, key_b string, score double, probability double"
    pairs = [("a", "1", "b", str(k), 5.0, 0.9, row[1], row[k]) for k in (2, 3)]
    found = run(ConfirmLinks(entities="e"), frame(spark, f"{shown}, id_a string, id_b string", *pairs), e=of)
    assert [r["key_b"] for r in found] == ["2"]
