"""Linkage of few records at once: what of it needs no Spark."""

import random

import numpy as np
import pyarrow as pa
import pytest

from headgate.transforms.fusion import meetings
from headgate.transforms.fusion import records as records_module
from headgate.transforms.fusion.bags import Bags
from headgate.transforms.fusion.few import Few, distinct_rows
from headgate.transforms.fusion.keys import keys_of
from headgate.transforms.fusion.learned import parts_of
from headgate.transforms.fusion.levels import by_cuts, similar
from headgate.transforms.fusion.links import LinkRecords
from headgate.transforms.fusion.records import Records, at_once, chosen, frequencies_of, sample_of
from headgate.transforms.fusion.repeats import repeats_itself
from headgate.transforms.fusion.values import Comparison
from tests.jobs.test_fuse import misspelt, people


class Said(list):
    warn = list.append


def records_of(sources, columns):
    """Return rows of cells by source as records that are ready; their keys are source/number."""
    rows = [(s, f"{s}/{i}", *row) for s in sorted(sources) for i, row in enumerate(sources[s])]
    cells = dict(zip(["source", "key", *(f"c{j}" for j in range(len(columns)))], zip(*rows, strict=True), strict=True))
    raw = pa.table({c: pa.array(v, pa.string()) for c, v in cells.items()})
    place = pa.array(np.arange(len(rows)))
    raw = raw.append_column("id", raw["key"]).append_column("rid", place).append_column("place", place)
    sizes = {s: len(sources[s]) for s in sorted(sources)}
    sample = sample_of(None, None, raw, sizes, len(columns))
    comparisons, left_out = chosen(sample, list(sizes), columns, {})
    ready = Records(
        raw=None,
        cells=tuple(f"c{columns.index(c.column)}" for c in comparisons),
        sources=tuple(sizes),
        sizes=tuple(sizes.values()),
        comparisons=comparisons,
        left_out=left_out,
        sample=sample.select(["rid", "source"]),
        repeated=0,
        table=raw,
    )
    return Records(**{**vars(ready), "table": at_once(ready, raw)})


def linked(records, **options):
    """Return the pairs linked with no configuration, and all rows."""
    step, said = LinkRecords(key=("id",)), Said()
    pairs = Few.blocked(
        records, None, None, **{"cap": None, "per_record": 60, "minhash": 0, "neighbours": 0, "seed": 7} | options
    )
    alone = step.one_partner(records, pairs, said)
    found, first, second, _ = step.learn(records, pairs, alone, said)
    scorer, names = second or first, parts_of(records.comparisons, lead=second is not None)
    rows = pairs.shown(scorer, names, found.cut, alone=alone).to_pylist()
    return {(r["key_a"], r["key_b"]) for r in rows if r["linked"]}, rows, pairs


@pytest.fixture(autouse=True)
def few_pairs_at_random(monkeypatch):
    monkeypatch.setattr(records_module, "DRAWN", 20_000)


def two_sources(n=60, shared=40, more=0):
    r, every = random.Random(2), list(people(5, n))
    extra = [[None if j % 7 == 0 else f"{r.randrange(2)}" for j in range(more)] for _ in range(2 * n)]
    a = [[*p, *extra[i]] for i, p in enumerate(every)]
    b = [[misspelt(r, p[0]), *p[1:], *extra[n + i]] for i, p in enumerate(every[:shared])]
    return {"a": a, "b": b}, {(f"a/{i}", f"b/{i}") for i in range(shared)}


PERSON = ["name", "street", "city", "phone"]


def test_two_sources():
    sources, true = two_sources()
    found, rows, _ = linked(records_of(sources, PERSON))
    assert len(found & true) >= 39 and len(found - true) <= 1
    for row in rows:
        assert sum(dict(row["weights"]).values()) == pytest.approx(row["score"], abs=1e-6)


def test_records_repeat_another_one_where_that_is_no_chance():
    """Whole records that come twice are copies; names alone may be of two persons, but if they are all there is."""
    sources, _ = two_sources()
    for copies, columns, told in (
        (sources["b"][:4], PERSON, "b"),
        ([[row[0], *[None] * 3] for row in sources["b"][:4] * 2], PERSON, None),
        (sources["b"][:4], PERSON[:1], "b"),
        ([[None] * 4] * 40, PERSON[:1], "a"),  # some names of a are there twice; records without a value repeat nothing
    ):
        rows = {"a": sources["a"], "b": sources["b"] + copies}
        rows = {s: [row[: len(columns)] for row in every] for s, every in rows.items()}
        records = records_of(rows, columns)
        found = repeats_itself(records, frequencies_of(records))
        assert (found and found[0]) == told


def test_a_thousand_columns():
    """Those that tell most are compared; the others are told."""
    sources, true = two_sources(more=996)
    records = records_of(sources, [*PERSON, *(f"x{j}" for j in range(996))])
    assert len(records.comparisons) == 32 and {c.column for c in records.comparisons} >= set(PERSON)
    assert sum(why == "32 others tell more" for why in records.left_out.values()) > 800
    found, *_ = linked(records)
    assert len(found & true) >= 36


def test_columns_without_values_are_left_out():
    sources, true = two_sources()
    sources = {s: [[*row, None, "" if s == "a" else "x", "same"] for row in rows] for s, rows in sources.items()}
    records = records_of(sources, [*PERSON, "none", "one_sided", "same"])
    assert records.left_out == {
        "none": "no value in one of the sources",
        "one_sided": "no value in one of the sources",
        "same": "one value only",
    }
    assert len(linked(records)[0] & true) >= 39


@pytest.mark.parametrize("sources", [1, 2])
def test_a_value_of_a_third_of_all_rows_makes_no_square_of_pairs(sources):
    n = 3000
    rows = [["same" if i % 3 == 0 else f"n{i // 2}", f"m{i // 4}", "the one street"] for i in range(n)]
    parts = {"": rows} if sources == 1 else {"a": rows[::2], "b": rows[1::2]}
    records = records_of(parts, ["name", "other", "street"])
    pairs = Few.blocked(records, None, None, cap=20, per_record=60, minhash=0, neighbours=0, seed=7)
    assert n / 4 < pairs.blocks.found < 12 * n and pairs.blocks.refined >= 1
    assert pairs.blocks.skew == ((1, 999 if sources == 1 else 500),)


def test_pairs_under_keys_are_bounded(monkeypatch):
    monkeypatch.setattr(meetings, "ENTRIES", 10)
    with pytest.raises(meetings.TooMany):
        linked(records_of(two_sources()[0], PERSON))


def test_bounds_let_no_near_pair_go():
    r = random.Random(1)
    texts = sorted({"".join(r.choice("aabcdef ") for _ in range(r.randrange(0, 12))) for _ in range(300)} | {"é" * 70})
    x, y = (np.array(side) for side in zip(*[(i, j) for i in range(len(texts)) for j in range(i)], strict=True))
    near = np.flatnonzero(by_cuts(similar(texts, x, y), (0.8,)) > 1)
    bags = Bags(texts)
    maybe = bags.may_be_similar(x, y)
    assert set(near) <= set(maybe) and len(maybe) < len(x) / 2
    from rapidfuzz.distance import OSA

    edits = np.array([OSA.distance(texts[i], texts[j]) for i, j in zip(x, y, strict=True)])
    assert set(np.flatnonzero(edits <= 2)) <= set(bags.may_be_edits(x, y, 2))


def test_keys_of_records():
    comparisons = [Comparison(column=c, kind=k, why="") for c, k in (("a", "name"), ("b", "text"), ("c", "code"))]
    cells = [["ann lee", None, "bo"], ["lee of rome", "x", None], ["12345", "12345", None]]
    found = keys_of(comparisons, [pa.array(c, pa.string()) for c in cells])
    by_record = [sorted(found.family[found.record == i].tolist()) for i in range(3)]
    # Its value and prefix, 'ann', 'of', 'rome', a code, and 'lee' of two columns.
    assert by_record == [[1, 1, 1, 2, 2, 3, 4], [2, 4], [1, 1, 1]]
    codes = found.key[found.family == 4]
    assert codes[0] == codes[1] and len(set(found.key.tolist())) == len(found.key) - 1
    assert not found.fine[found.record == 2].all(), "a beginning that is the whole value does not block alone"


def test_distinct_rows_of_many_columns():
    rows = np.random.default_rng(0).integers(0, 2, (500, 70)).astype(np.int8)
    rows = np.vstack([rows, rows[:100]])
    distinct, back = distinct_rows(rows)
    assert len(distinct) == 500 and (distinct[back] == rows).all()


def test_texts_of_frequent_words_meet_by_minhash():
    r = random.Random(3)
    words = [f"w{i}" for i in range(40)]
    texts = [" ".join(r.sample(words, 8)) for _ in range(200)]
    texts += [" ".join(r.sample(t.split(), 8)) for t in texts[:50]]
    comparisons = [Comparison(column="t", kind="text", why="")]

    def met(minhash):
        keys = keys_of(comparisons, [pa.array(texts)], minhash)
        options = {"limits": None, "cap": 4, "caps": (4,), "budget": 10**6, "refined": 12, "skewed": 3}
        found = meetings.meet(keys, np.zeros(250, np.int64), 1, 250 * 249 // 2, **options)
        return set(zip(found.one.tolist(), found.other.tolist(), strict=True))

    true = {(i, 200 + i) for i in range(50)}
    assert len(met(0) & true) < 5 and len(met(12) & true) == 50 and len(met(12)) < 2000


def test_near_places_share_a_cell():
    cells = ["52.5200,13.4050", "52.5204,13.4055", "48.1,11.5", "nowhere"]
    found = keys_of([Comparison(column="p", kind="place", why="")], [pa.array(cells)])
    of = [set(found.key[found.record == i].tolist()) for i in range(4)]
    assert of[0] & of[1] and not of[0] & of[2] and len(of[0]) == 3


def test_the_best_pairs_of_each_record():
    r = np.random.default_rng(2)
    n, each = 30, 3
    pairs = np.array(sorted({(int(a), int(b)) for a, b in r.integers(0, n, (300, 2)) if a < b}))
    bits = r.integers(0, 5, len(pairs))
    wanted = set()
    for i in range(n):
        mine = [
            (-b, y if x == i else x, k) for k, ((x, y), b) in enumerate(zip(pairs, bits, strict=True)) if i in (x, y)
        ]
        for left in (True, False):  # as the first record of a pair, and as the second
            wanted |= {k for *_, k in sorted(m for m in mine if (pairs[m[2]][0] == i) == left)[:each]}
    assert set(np.flatnonzero(meetings.best(pairs[:, 0], pairs[:, 1], bits, each, n)).tolist()) == wanted
