"""Near duplicates: the sketches against plain Python, the choice against a greedy loop over all pairs."""

import random
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import functions as F

from headgate.jobs.pipeline.context import BuildContext
from headgate.transforms.deduplication import near, pairs, shingles, similar
from headgate.transforms.deduplication import tokens as tokenizing
from headgate.transforms.deduplication.containment import Contained
from headgate.transforms.deduplication.minhash import Bands, bits_of, buckets_of, different, minima
from headgate.transforms.deduplication.near import DropNearDuplicates
from headgate.transforms.deduplication.pairs import greedy_removals
from headgate.transforms.deduplication.shingles import sketch
from headgate.transforms.deduplication.similar import SKETCHES
from headgate.transforms.rows import Rejection, reject
from headgate.transforms.step import StepError
from tests.conftest import SHARED_DATA
from tests.transforms.frames import Knowing, applied, columns_of, frame, kept, rejected

SURE = 0.9999999  # a pair at the threshold is missed once in ten million
WORDS = [
    "the",
    "gate",
    "opens",
    "at",
    "dawn",
    "and",
    "closes",
    "when",
    "rain",
    "falls",
    "on",
    "both",
    "sides",
    "of",
    "it",
]


# -- plain Python


def tokens(text, unit="words"):
    """Without scripts that have no spaces: those are tested by example."""
    found = re.findall(r"\w+", "".join(c.lower()[0] for c in text))
    return [c for word in found for c in word] if unit == "characters" else found


def shingle_set(text, size=5, unit="words"):
    """Each shingle, with how often it followed upon itself; of a short text, pairs of all that shows."""
    found = tokens(text, unit)
    if len(found) < size:
        found = shown(text, unit)
        return counted(found, min(2, size, len(found)))
    runs, seen, times = [tuple(found[i : i + size]) for i in range(len(found) - size + 1)], {}, Counter()
    shingles = set()
    for i, run in enumerate(runs):
        times[run] += run in seen and i - seen[run] <= size
        shingles.add(hash((run, times[run] if run in seen and i - seen[run] <= size else 0)))
        seen[run] = i
    return shingles


def shown(text, unit="words"):
    """Tokens, and each other character that is no white space."""
    one = r"\w" if unit == "characters" else r"\w+"
    return re.findall(rf"{one}|[^\w\s]", "".join(c.lower()[0] for c in text))


def counted(found, size):
    seen = Counter()
    shingles = [tuple(found[i : i + size]) for i in range(len(found) - size + 1)] if size else []
    return {hash((s, "time", seen.update([s]) or seen[s])) for s in shingles}  # numbers are quick to compare


def jaccard(a, b):
    return len(a & b) / len(a | b)


def contained(a, b):
    """How much of the shingles of `a` lies in the shingles and parts of `b`."""
    return len(a & b) / len(a)


def with_parts(text, **how):
    """Its shingles, and all that shorter texts within it are compared by."""
    return shingle_set(text, **how) | counted(shown(text), 2) | counted(shown(text), 1)


MEASURES = {"jaccard": jaccard, "containment": contained}


def greedy(texts, order, threshold, measure="jaccard", **how):
    """For each text that goes, its similarity with the most similar one that stays before it in `order`."""
    sets = [shingle_set(t, **how) if t else set() for t in texts]
    others = [with_parts(t, **how) if t else set() for t in texts] if measure == "containment" else sets
    stays, gone = [], {}
    for i in order:
        best = max((MEASURES[measure](sets[i], others[k]) for k in stays), default=0) if sets[i] else 0
        if best >= threshold:
            gone[i] = best
        elif sets[i]:
            stays.append(i)
    return gone


def longest_first(texts, ids):
    return sorted(range(len(texts)), key=lambda i: (-len(texts[i] or ""), ids[i]))


def perturbed(seed, families=25, copies=6, words=150):
    """Texts in families: copies of a text with some words changed, so that similarities lie on all sides of 0.8."""
    rng = random.Random(seed)
    texts = []
    for _ in range(families):
        text = [rng.choice(WORDS) + str(rng.randint(0, 30)) for _ in range(words)]
        for _ in range(rng.randint(1, copies)):
            copy = list(text)
            for _ in range(rng.randint(0, 4)):
                copy[rng.randrange(len(copy))] = rng.choice(WORDS)
            texts.append(" ".join(copy[: len(copy) - rng.randint(0, 3)]))
    rng.shuffle(texts)
    return texts


def evidence(df):
    """Number of the marked row -> (number of the kept row, score)."""
    number = {r["_row_id"]: r["n"] for r in df.select("_row_id", "n").collect()}
    marks = rejected(df, "n").collect()
    return {r["n"]: (number[r["evidence"]["kept_row_id"]], float(r["evidence"]["score"])) for r in marks}


def numbered(spark, texts):
    return frame(spark, "n int, text string", *enumerate(texts))


def assert_as_greedy(df, texts, step, **how):
    ids = [r["_row_id"] for r in df.orderBy("n").select("_row_id").collect()]
    wanted = greedy(texts, longest_first(texts, ids), step.similarity, step.measure, **how)
    found = evidence(applied(step, df))
    assert found.keys() == wanted.keys()
    for gone, (stays, score) in found.items():
        assert stays not in wanted
        assert score == pytest.approx(wanted[gone], abs=1e-6)
        other = (with_parts if step.measure == "containment" else shingle_set)(texts[stays], **how)
        assert score == pytest.approx(MEASURES[step.measure](shingle_set(texts[gone], **how), other), abs=1e-6)
    return found


# -- sketches


def test_sets_come_back_as_they_were_stored():
    texts = ["a b c d e f g", None, "", "h i j k l m n o p", "x"]
    made = sketch(pa.array(texts), 5, "words", Bands.of(0.8, 0.999))
    column = made.columns()["shingles"]
    hashes, starts = shingles.sets_of(column)
    assert hashes.tolist() == made.shingles.tolist() and np.diff(starts).tolist() == made.sizes.tolist()
    assert made.shingles.max() > 2**32, "both parts of a stored hash are in use"
    some, starts = shingles.sets_of(column.slice(1, 3))
    assert some.tolist() == made.shingles[made.sizes[0] : made.sizes[:4].sum()].tolist()
    assert starts.tolist() == [0, 0, 0, made.sizes[3]]
    for nothing in (column.slice(0, 0), pa.array([], pa.binary())):
        assert [a.tolist() for a in shingles.sets_of(nothing)] == [[], [0]]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.text(alphabet="abCDéßИ _-.\n1中😀", max_size=60)), max_size=8), st.integers(1, 6)
)
def test_texts_have_as_many_shingles_as_in_plain_python(texts, size):
    found = sketch(pa.array(texts, pa.string()), size, "words", Bands.of(0.8, 0.99)).sizes
    assert found.tolist() == [len(shingle_set(t, size)) if t else 0 for t in texts]


def test_a_sketch_is_the_same_in_any_company_and_any_pieces(monkeypatch):
    texts = [*perturbed(1), "", None, "!?", "one", "two words", "中文 文本", " ".join(WORDS * 40), "x" * 500]
    bands = Bands.of(0.8, 0.99)
    together = sketch(pa.array(texts), 5, "auto", bands).columns()
    alone = [sketch(pa.array([t], pa.string()), 5, "auto", bands).columns() for t in texts]
    assert {k: v.to_pylist() for k, v in together.items()} == {
        k: [one[k][0].as_py() for one in alone] for k in together
    }
    for module in (shingles, tokenizing):
        monkeypatch.setattr(module, "BLOCK", 64)
    longer = [t for t in texts if t and len(t) > 64 and " " in t]
    assert len(longer) > 10
    pieces = sketch(pa.array(longer), 5, "auto", bands).columns()["shingles"].to_pylist()
    assert pieces == [s for s, t in zip(together["shingles"].to_pylist(), texts, strict=True) if t in longer]


def score(one, other, unit="auto", size=5, ignore=()):
    """The similarity of two texts, as the step takes them."""
    step = DropNearDuplicates(columns=("text",), unit=unit, shingle=size, ignore=ignore)
    found = step.sketch()(pa.array([one, other]))
    hashes, starts = shingles.sets_of(found["shingles"])
    a, b = (set(hashes[starts[i] : starts[i + 1]].tolist()) for i in (0, 1))
    return jaccard(a, b) if a or b else 0.0


LONG = "one two three four five six seven eight nine ten "


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cafe\u0301 au lait", "caf\u00e9 au lait"),
        ("so\u00adft hy\u00adphens in a text that is long", "soft hyphens in a text that is long"),
        ("\ufeffzero\u200b\u2060width in\u200e it", "zerowidth in it"),
        ("a\u200cb", "ab"),
        ("हिन्दी\u200b लिखना", "हिन्दी लिखना"),
        ("\u0958लम", "\u0915\u093cलम"),
        ("\u1112\u1161\u11ab글", "한글"),
        ("\u2764\ufe0f yes", "\u2764 yes"),
        ("hidden\U000e0041\U000e0042", "hidden"),
        ("tab\tand  space", "tab and space"),
        ("Same CASE", "same case"),
    ],
)
def test_what_looks_the_same_is_the_same(one, other):
    assert score(one, other) == score(LONG + one, LONG + other) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("मेरा नाम कमल है", "मेरा नाम कमला है"),
        ("आप कैसे हैं और घर पर सब कैसा है", "आप कैसे हैं और घर पर सब कैसी है"),
        ("আমার নাম রবি", "আমার নাম রাবা"),
        ("தமிழ் மொழி அழகு", "தமிழ் மெழி அழகு"),
        ("ที่นี่มีน้ำ", "ที่นี้มีน้ำ"),
        ("မြန်မာစာ", "မြန်မာစီ"),
        ("\u0645\u06cc\u200c\u062e\u0648\u0631\u062f", "\u0645\u06cc\u062e\u0648\u0631\u062f"),
        ("שָׁלוֹם לך", "שְׁלוֹם לך"),
        ("哈哈", "哈哈哈"),
        ("ha ha ha ha ha ha", "ha ha ha ha ha ha ha"),
        ("no yes no yes no yes", "no yes no yes no yes no yes"),
        ("哈哈哈哈哈哈哈哈", "哈哈哈哈哈哈"),
    ],
)
def test_marks_and_repeats_make_a_difference(one, other):
    assert score(one, other) < 1 and score(LONG + one, LONG + other) < 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("I love it \U0001f600", "I love it \U0001f621"),
        ("learn C++ today", "learn C# today"),
        ("Temperature is -5 degrees", "Temperature is 5 degrees"),
        ("!?", "?!"),
        ("\U0001f44d\U0001f44d", "\U0001f44d"),
        ("\U0001f44d\U0001f3fb", "\U0001f44d\U0001f3ff"),
        ("\U0001f468\u200d\U0001f469", "\U0001f468\U0001f469"),
        ("\U0001f3f4\U000e0067\U000e0062\U000e007f", "\U0001f3f4\U000e0067\U000e0063\U000e007f"),
        ("\ue000", "\ue001"),
        ("\U000f0000", "\U000f0001"),
        ("100 €", "100 $"),
        ("=\u0338", "="),
        ("ok", "ok ok"),
        ("no no yes", "no no no yes"),
    ],
)
def test_short_texts_are_compared_by_all_their_characters(one, other):
    assert score(one, other) < 0.8 and score(one, one) == 1


@pytest.mark.parametrize("nothing", ["", "   ", "\t\n", "\u00a0\u3000", "\u200b", "\ufeff", "\x00"])
def test_blank_texts_have_nothing_to_compare(nothing):
    assert score(nothing, nothing) == 0


@pytest.mark.parametrize(
    ("ignore", "one", "other"),
    [
        (("accents",), "Crème brûlée", "creme brulee"),
        (("case",), "Straße", "STRASSE"),
        (("unicode",), "ﬁve ½ Ⅳ ①", "five 1⁄2 IV 1"),
        (("punctuation",), "C'est la vie!", "Cest la vie"),
    ],
)
def test_what_is_ignored_makes_texts_equal(ignore, one, other):
    assert score(one, other) < 1 == score(one, other, ignore=ignore)
    assert score("कमल", "कमला", ignore=ignore) == 0


def test_long_texts_are_the_same_wherever_they_are_cut():
    word = "".join(random.Random(1).choices("abcdefgh", k=600_000))
    for unit in ("words", "auto"):
        assert score(word, word + "x", unit) == 0
        assert score("start " + word + " the end", word + " the end", unit, size=2) == pytest.approx(2 / 3)
    letters = score(word, "x" * 7 + word, "characters")
    assert 1 - 20 / 8**5 < letters < 1
    marked = "e\u0323\u0302" * 100_000
    assert score(marked, "a" + marked, "characters") > 0.999


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("我喜欢喝茶", 5),
        ("カタカナとひらがな", 9),
        ("ผมชอบชา", 7),
        ("tea 茶 time", 3),
        ("한국어 문장", 2),
        ("茶。茶！", 2),
    ],
)
def test_scripts_without_spaces_are_taken_by_characters(text, count):
    found, _ = tokenizing.tokens_of(text, "auto")
    assert len(found) == count


def test_bands_keep_their_promise():
    for threshold in (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0):
        for recall in (0.9, 0.99, 0.999):
            bands = Bands.of(threshold, recall)
            assert bands.recall(threshold) >= recall
    assert Bands.of(0.8, 0.999) == Bands(23, 6)


@pytest.mark.parametrize(("common", "own", "recall"), [(8, 1, 0.99), (80, 10, 0.999), (4, 3, 0.99), (30, 70, 0.95)])
def test_pairs_at_the_threshold_are_found_as_promised(common, own, recall):
    """Sets of random hashes, exactly at the threshold, through bands and estimate."""
    n, rng = 60_000, np.random.default_rng(7)
    step = DropNearDuplicates(columns=("text",), similarity=common / (common + 2 * own), recall=recall)
    hashes = rng.integers(0, 1 << 48, (n, common + 2 * own), dtype=np.uint64)
    signs = []
    for part in (hashes[:, : common + own], np.delete(hashes, np.s_[common : common + own], axis=1)):
        starts = np.arange(n) * (common + own)
        signs.append(minima(np.ascontiguousarray(part).ravel(), starts, step.bands.values))
    together = np.logical_or.reduce(
        [a == b for a, b in zip(*(buckets_of(s, step.bands).T for s in signs), strict=True)]
    )
    bits = [b.tobytes() for s in signs for b in bits_of(s)]
    rows = pa.table({"old": np.zeros(2 * n, np.bool_), "size": np.full(2 * n, common + own), "bits": pa.array(bits)})
    likely, _ = step.limits.likely(rows, np.arange(n), np.arange(n, 2 * n))
    found = np.zeros(n, np.bool_)
    found[likely] = True
    lost = 1 - (found & together).mean()
    assert lost < (1 - recall) + 3 * ((1 - recall) / n) ** 0.5
    assert lost > (1 - recall) / 10, "the promise is not bought by comparing everything"


def test_similar_sets_share_buckets_as_often_as_told():
    rng, bands = random.Random(3), Bands.of(0.8, 0.9)
    one, other, exact = [], [], []
    for _ in range(400):
        base = [f"w{rng.randint(0, 10**6)}" for _ in range(200)]
        copy = list(base)
        copy[rng.randrange(5, 100)] = "changed"
        for i in range(3):
            copy[120 + 20 * i] = f"changed{i}"
        one.append(" ".join(base))
        other.append(" ".join(copy))
        exact.append(jaccard(shingle_set(one[-1]), shingle_set(other[-1])))
    a, b = (sketch(pa.array(x), 5, "words", bands) for x in (one, other))
    together = (a.buckets == b.buckets).any(axis=1).mean()
    assert together == pytest.approx(bands.recall(float(np.mean(exact))), abs=0.05)
    differ = different(a.bits, b.bits)
    assert (differ / bands.values).mean() == pytest.approx((1 - np.mean(exact)) * 3 / 4, abs=0.01)


# -- who stays


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 30), st.integers(0, 10**6))
def test_the_choice_of_all_rows_at_once_is_the_greedy_one(n, seed):
    rng = random.Random(seed)
    edges = sorted({tuple(sorted((rng.randrange(n), rng.randrange(n)))) for _ in range(rng.randint(0, 60))})
    edges = [(a, b) for a, b in edges if a != b]
    wanted = set()
    for b in range(n):
        if any(x == b and a not in wanted for a, x in edges):
            wanted.add(b)
    kept_side, gone_side = (np.array([e[i] for e in edges], np.int64) for i in (0, 1))
    assert set(greedy_removals(kept_side, gone_side, n).tolist()) == wanted


def test_evidence_is_the_most_similar_row_that_stays_and_of_several_the_smallest_id():
    edges = [("c", "z", 0.9), ("b", "z", 0.9), ("d", "z", 0.85), ("x", "z", 1.0), ("d", "x", 0.8)]
    for order in (edges, edges[::-1]):
        columns = [list(c) for c in zip(*order, strict=True)]
        batch = pa.RecordBatch.from_arrays([pa.array(c) for c in columns], ["kept", "gone", "score"])
        found = [r for b in pairs.select_survivors(iter([batch[:2], batch[2:]])) for r in b.to_pylist()]
        assert sorted(found, key=lambda r: r["gone"]) == [
            {"gone": "x", "kept": "d", "score": 0.8},
            {"gone": "z", "kept": "b", "score": 0.9},
        ]
    assert not list(pairs.select_survivors(iter([batch[:0]])))


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_texts_go_as_in_a_greedy_loop_over_all_pairs(spark, seed):
    texts = [*perturbed(seed), None, "", "short", "short", "!?", "?!", "!?"]
    step = DropNearDuplicates(columns=("text",), recall=SURE)
    found = assert_as_greedy(numbered(spark, texts), texts, step)
    assert 20 < len(found) < 90


@pytest.mark.slow
def test_the_answer_depends_on_no_layout(spark):
    texts = perturbed(2)
    step = DropNearDuplicates(columns=("text",))
    df = numbered(spark, texts)
    answers = {
        str(sorted(evidence(applied(step, some)).items()))
        for some in (df.coalesce(1), df.repartition(7), df.orderBy("text"), df.repartition(64, "text"))
    }
    assert len(answers) == 1


@pytest.mark.slow
def test_plans_that_adapt_give_the_same_answer(spark):
    """As on any cluster: the suite's session has re-planning off, and one partition after a shuffle."""
    texts, step = perturbed(2), DropNearDuplicates(columns=("text",))
    plain = evidence(applied(step, numbered(spark, texts)))
    assert plain
    usual = {n: spark.conf.get(n) for n in ("spark.sql.adaptive.enabled", "spark.sql.shuffle.partitions")}
    try:
        for name, value in zip(usual, ("true", "5"), strict=True):
            spark.conf.set(name, value)
        assert evidence(applied(step, numbered(spark, texts))) == plain
    finally:
        for name, value in usual.items():
            spark.conf.set(name, value)


@pytest.mark.slow
def test_rounds_over_the_cluster_choose_as_one_task_does(spark, monkeypatch):
    texts = [t for seed in (4, 5) for t in perturbed(seed, families=12, copies=12)]
    step = DropNearDuplicates(columns=("text",), similarity=0.6, recall=SURE)
    at_once = evidence(applied(step, numbered(spark, texts)))
    monkeypatch.setattr(similar, "EDGES_AT_ONCE", 0)
    assert evidence(applied(step, numbered(spark, texts))) == at_once


@pytest.mark.slow
def test_a_crowded_bucket_leaves_nothing_behind(spark):
    base = [f"word{i}" for i in range(300)]
    texts = [" ".join([*base[:i], f"other{i}", *base[i + 1 :]]) for i in range(300)]
    found = evidence(applied(DropNearDuplicates(columns=("text",)), numbered(spark, texts)))
    assert len(found) == 299 and len({stays for stays, _ in found.values()}) == 1


def framed(seed, families=60, copies=5):
    """Texts of 100 words that share 88, in families of which each differs from the next in a word or two."""
    rng = random.Random(seed)
    frame_words = [f"menu{i}" for i in range(88)]
    texts = []
    for f in range(families):
        own = [f"own{f}x{i}" for i in range(12)]
        for _ in range(copies):
            text = [*frame_words[:50], *own, *frame_words[50:]]
            for _ in range(rng.randint(0, 2)):
                text[rng.randrange(100)] = f"new{rng.randint(0, 10**6)}"
            texts.append(" ".join(text))
    rng.shuffle(texts)
    return texts


@pytest.mark.slow
def test_texts_in_one_frame_go_as_in_a_greedy_loop_over_all_pairs(spark, tmp_path, monkeypatch):
    for module in (near, similar):
        monkeypatch.setattr(module, "WINDOW", 12)
    texts = framed(3)
    df, step = numbered(spark, texts), DropNearDuplicates(columns=("text",), similarity=0.85, recall=SURE)
    assert 100 < len(assert_as_greedy(df, texts, step)) < 290
    space = BuildContext(spark, str(tmp_path), "")
    step.run(df, space)
    candidates = spark.read.parquet(f"{tmp_path}//candidates").count()
    assert not space.warnings and candidates < 4 * len(texts)


@pytest.mark.slow
def test_rows_of_crowds_that_rare_shingles_do_not_part_are_told(spark, tmp_path, monkeypatch):
    for module in (near, similar):
        monkeypatch.setattr(module, "WINDOW", 12)
    base = [f"word{i}" for i in range(100)]
    texts = [" ".join([*base[:i], f"other{i}", *base[i + 1 :]]) for i in range(100)]
    space = BuildContext(spark, str(tmp_path), "")
    DropNearDuplicates(columns=("text",)).run(numbered(spark, texts), space)
    assert len(space.warnings) == 1
    assert "drop_near_duplicates: 100 rows are in crowds of more than 13 that look alike" in space.warnings[0]


def excerpts(seed, texts=30, words=600):
    """Long texts, and parts of them of any length, some with words changed or with words of their own before them."""
    rng = random.Random(seed)
    long = [[rng.choice(WORDS) + str(rng.randint(0, 200)) for _ in range(words)] for _ in range(texts)]
    parts = []
    for text in long:
        for _ in range(3):
            size, own = rng.choice([3, 8, 20, 60, 200]), rng.choice([0, 0, 2, 10, 60])
            start = rng.randrange(words - size)
            part = [f"own{rng.randint(0, 999)}" for _ in range(own)] + text[start : start + size]
            if rng.random() < 0.3:
                part[rng.randrange(len(part))] = "changed"
            parts.append(part)
    return [" ".join(t) for t in [*long, *parts, *parts[:5]]]


@pytest.mark.parametrize(("seed", "threshold"), [(0, 0.8), (1, 0.5), (2, 1.0)])
@pytest.mark.slow
def test_parts_of_other_texts_go_as_in_a_greedy_loop_over_all_pairs(spark, seed, threshold):
    texts = [*excerpts(seed), None, "", "!?", "!?"]
    step = DropNearDuplicates(columns=("text",), measure="containment", similarity=threshold, recall=SURE)
    found = assert_as_greedy(numbered(spark, texts), texts, step)
    assert 20 < len(found) < 110


@pytest.mark.slow
def test_short_texts_are_found_within_long_ones(spark):
    long = " ".join(f"word{i}" for i in range(30)) + " learn C++ today 哈哈哈"
    parts = ["word7", "word8 word9", "word10 word11 word12", "learn C++ today", "哈哈"]
    others = ["word99", "learn C# today", "word9 word8", "哈哈 哈哈"]
    df = numbered(spark, [long, *parts, *others])
    step = DropNearDuplicates(columns=("text",), measure="containment", similarity=1.0, keep="n")
    assert sorted(r["n"] for r in rejected(applied(step, df), "n").collect()) == [1, 2, 3, 4, 5]


@pytest.mark.slow
def test_a_text_goes_only_with_one_that_comes_before_it_in_the_order(spark):
    rows = [(0, "a part of it that comes first"), (1, "the whole and a part of it that comes first and more")]
    df = frame(spark, "n int, text string", *rows)
    step = DropNearDuplicates(columns=("text",), measure="containment", keep="n")
    assert rejected(applied(step, df), "n").count() == 0
    (gone,) = rejected(applied(replace(step, keep="n desc"), df), "n").collect()
    assert (gone["n"], gone["reason"]) == (0, "contained_duplicate")


def test_fewer_answers_are_rarer_than_what_may_be_lost():
    rng = np.random.default_rng(5)
    for threshold in (0.2, 0.5, 0.8, 0.95):
        limits = Contained(threshold, 0.999, 64)
        answers = rng.binomial(limits.asked, threshold, 200_000)
        assert (answers < limits.least_answers).mean() < 0.0013
        assert (answers < limits.least_answers + 1).mean() > 0.0007


@pytest.mark.parametrize(("size", "threshold"), [(100, 0.8), (60, 0.5), (1000, 0.9), (40, 0.95)])
def test_texts_just_within_others_are_found_as_promised(size, threshold):
    """At least one of those that a text looks for is there: of its own at the threshold, drawn without replacement."""
    limits, n = Contained(threshold, 0.999, 64), 400_000
    there = round(threshold * size)
    answers = np.random.default_rng(3).hypergeometric(there, size - there, min(limits.asked, size), n)
    lost = (answers < limits.least_answers).mean() if size > limits.asked else 0
    assert lost <= 0.001 + 3 * (0.001 / n) ** 0.5


def test_no_chain_takes_a_text_away(spark):
    # Each is similar to the next (0.82), none to the one after it (0.67).
    words = [f"w{i}" for i in range(140)]
    texts = [" ".join(words[10 * i : 10 * i + 104]) for i in range(4)]
    df = frame(spark, "n int, text string", *enumerate(texts))
    out = applied(DropNearDuplicates(columns=("text",), keep="n", recall=SURE), df)
    assert {r["n"] for r in kept(out).collect()} == {0, 2}


@pytest.mark.slow
def test_keep_orders_the_choice(spark):
    text = " ".join(WORDS)
    rows = [(0, text, 2, None), (1, text, 1, "b"), (2, text, 1, "a"), (3, text, None, "z")]
    df = frame(spark, "n int, text string, source int, day string", *rows)
    for keep, stays in (("source, day", 2), ("source, day desc", 1), ("source desc", 0), ("day desc", 3)):
        out = applied(DropNearDuplicates(columns=("text",), keep=keep), df)
        assert [r["n"] for r in kept(out).collect()] == [stays], keep


def test_the_same_record_twice_is_compared_once(spark):
    text = " ".join(WORDS)
    df = frame(spark, "n int, text string", (1, text), (1, text), (2, text + " more"))
    out = applied(DropNearDuplicates(columns=("text",), similarity=0.9), df)
    assert [r["n"] for r in kept(out).collect()] == [2]
    assert sorted(r["reason"] for r in rejected(out, "n").collect()) == [
        "duplicate_row_id",
        "near_duplicate",
    ]


@pytest.mark.slow
def test_what_earlier_builds_know_twice_multiplies_no_row(spark, tmp_path):
    text = " ".join(WORDS)
    step = DropNearDuplicates(columns=("text",), similarity=0.7)
    texts = ["a text of its own", text, text + " more", "nothing like it"]
    known = step.sketched(frame(spark, "n int, text string", (7, text), (8, text))).drop("rank")
    space = Knowing(spark, str(tmp_path), "", frames={f"-{SKETCHES}": known})
    out = step.run(numbered(spark, texts), space)
    assert sorted(r["n"] for r in out.collect()) == [0, 1, 2, 3]
    gone = {r["n"]: r["evidence"]["kept_row_id"] for r in rejected(out, "n").collect()}
    first = min(r["_row_id"] for r in known.collect())
    assert gone == {1: first, 2: first}


def test_clusters_are_told_and_nothing_is_marked(spark):
    text = " ".join(WORDS)
    df = frame(spark, "n int, text string", (0, text + " more"), (1, text), (2, "another text of its own"), (3, None))
    out = applied(DropNearDuplicates(columns=("text",), cluster="cluster", recall=SURE), df)
    rows = {r["n"]: r for r in out.collect()}
    assert all(r["_hg_rejected"] is None for r in rows.values())
    assert rows[0]["cluster"] == rows[1]["cluster"] == rows[0]["_row_id"]
    assert rows[1]["cluster_similarity"] == pytest.approx(11 / 12) and rows[0]["cluster_similarity"] == 1
    assert rows[2]["cluster"] == rows[2]["_row_id"] and rows[3]["cluster"] == rows[3]["_row_id"]


def test_rows_without_any_text_are_never_compared(spark):
    rows = [
        (0, None, None),
        (1, None, None),
        (2, "", " "),
        (3, "", " "),
        (4, "\u200b", None),
        (5, "a", None),
        (6, "a", ""),
    ]
    df = frame(spark, "n int, name string, street string", *rows)
    out = applied(DropNearDuplicates(columns=("name", "street"), keep="n"), df)
    assert [r["n"] for r in rejected(out, "n").collect()] == [6]


def test_length_counts_what_is_seen(spark):
    texts = ["so\u00ad\u00ad\u00ad\u00adft words of a text that is long", "soft words of a text that is long!"]
    df = numbered(spark, [*texts, "e\u0301e\u0301 a b c d e f g", "\u00e9\u00e9 a b c d e f g."])
    out = applied(DropNearDuplicates(columns=("text",)), df)
    assert sorted(r["n"] for r in rejected(out, "n").collect()) == [0, 2]


def test_records_are_compared_over_several_columns(spark):
    rows = [(0, "Ana Maria", "Calle Mayor 12"), (1, "Ana  María", "Calle Mayor 12"), (2, "Ana Maria", "Gran Via 3")]
    df = frame(spark, "n int, name string, street string", *rows)
    step = DropNearDuplicates(columns=("name", "street"), unit="characters", shingle=2, similarity=0.6, keep="n")
    assert {r["n"] for r in kept(applied(step, df)).collect()} == {0, 2}


def test_rows_that_were_marked_before_do_not_compete(spark):
    text = " ".join(WORDS)
    df = frame(spark, "n int, text string", (0, text + " more"), (1, text))
    marked = reject(df, "before", Rejection(F.col("n") == 0, "not wanted", {}))
    assert rejected(applied(DropNearDuplicates(columns=("text",)), marked), "n").count() == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"columns": ("txt",)}, "did you mean 'text'"),
        ({"columns": ()}, "columns: name the column"),
        ({"columns": ("text",), "similarity": 0.0}, "similarity: 0.0 is not above 0"),
        ({"columns": ("text",), "similarity": 80.0}, "similarity: 80.0"),
        ({"columns": ("text",), "recall": 1.0}, "recall: 1.0"),
        ({"columns": ("text",), "keep": "len desc"}, "there is no column 'len'"),
        ({"columns": ("text",), "cluster": "n"}, "there is a column 'n' already"),
        ({"columns": ("text",), "shingle": 0}, "shingle: 0"),
    ],
)
def test_wrong_options_are_refused(options, told):
    with pytest.raises(StepError, match=told):
        DropNearDuplicates(**options).columns_after(columns_of("n", "text"), {})


def test_real_documents_go_as_in_a_greedy_loop(spark):
    """The part of real documents that are alike at all, cut to size, and as many others."""
    folder = SHARED_DATA / "nd_system_docs"
    if not folder.exists():
        pytest.skip("shared data is not here")
    pair = pq.read_table(folder / "truth_pairs.parquet").to_pylist()
    alike = sorted({p[k] for p in pair if 0.75 < p["j"] < 0.85 for k in ("a", "b")})[:250]
    text = pq.read_table(folder / "corpus.parquet")["text"]
    texts = [text[i].as_py()[:2500] for i in [*alike, *range(0, 18_000, 72)]]
    step = DropNearDuplicates(columns=("text",), unit="words", recall=SURE)
    assert len(assert_as_greedy(numbered(spark, texts), texts, step)) > 40


def test_candidates_are_found_across_arrow_batches():
    limits = pairs.Similar(0.5, 12, 2, 0.0003)
    row = pa.array([f"r{i}" for i in range(40)])
    table = pa.table(
        {
            "bucket": np.repeat(np.arange(8, dtype=np.int64), 5),
            "second": np.tile(np.array([0, 0, 0, 0, 1], np.int64), 8),
            "old": np.zeros(40, np.bool_),
            "size": np.full(40, 10, np.int32),
            "bits": pa.array([b"\0\0\0"] * 40),
            "row": row,
        }
    )

    def found(rows):
        batches = pairs.candidates(limits)(iter(table.to_batches(max_chunksize=rows)))
        return sorted({(a, b) for x in batches for a, b in zip(*(c.to_pylist() for c in x.columns), strict=True)})

    assert found(1) == found(3) == found(7) == found(40)
    # Within a bucket: each with the two before it, and with the first two of its run.
    expected = {(b * 5 + i, b * 5 + j) for b in range(8) for j in range(5) for i in range(j) if j - i <= 2}
    expected |= {(b * 5 + i, b * 5 + 3) for b in range(8) for i in range(2)}
    assert found(40) == sorted((f"r{a}", f"r{b}") for a, b in expected)
