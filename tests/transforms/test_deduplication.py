import ast
import re
from pathlib import Path

import pytest
from pyspark.sql import functions as F

from headgate.jobs.pipeline import increments
from headgate.jobs.pipeline.context import BuildContext
from headgate.transforms import rows
from headgate.transforms.cleaning.bounds import RejectRows
from headgate.transforms.deduplication import exact
from headgate.transforms.deduplication.exact import DropDuplicates
from headgate.transforms.deduplication.images import DropNearImages
from headgate.transforms.deduplication.keep import order_of
from headgate.transforms.deduplication.lines import DropRepeatedLines
from headgate.transforms.deduplication.near import DropNearDuplicates
from headgate.transforms.step import StepError
from tests.conftest import assert_rows, plain_rows
from tests.transforms.frames import Knowing, applied, columns_of, frame, kept, largest_share, rejected
from tests.transforms.test_images_lines_urls import picture, stored

NAN = float("nan")


def test_one_copy_stays_by_the_keep_rule(spark):
    df = frame(spark, "k string, v int", ("a", 1), ("a", 3), ("a", None), ("b", 2))
    out = applied(DropDuplicates(columns=("k",), keep="v desc"), df)
    assert_rows(kept(out), ["k", "v"], [("a", 3), ("b", 2)])
    winner = next(r["_row_id"] for r in out.where("v = 3").collect())
    assert {r["evidence"]["kept_row_id"] for r in rejected(out).collect()} == {winner}


def test_the_keep_rule_names_any_column(spark):
    text, after = "one two three four five six seven", ["`signed up, at`", "`a``b`"]
    df = frame(spark, "k string, `signed up, at` int, `a``b` int", *((text, *x) for x in ((1, 1), (3, 1), (3, 2))))
    keep = "`signed up, at` desc , `a``b`"
    assert order_of(keep) == [("signed up, at", True), ("a`b", False)] and order_of("a`b") == [("a`b", False)]
    assert_rows(kept(applied(DropDuplicates(columns=("k",), keep=keep), df)), after, [(3, 1)])
    assert_rows(kept(applied(DropNearDuplicates(columns=("k",), keep=keep), df)), after, [(3, 1)])


def test_nan_comes_last_and_what_has_no_order_is_refused(spark):
    text = "one two three four five six seven"
    df = frame(spark, "k string, v double, m map<string,int>", *((text, v, {"a": 1}) for v in (NAN, 10.0, 2.0, None)))
    for step in (DropDuplicates, DropNearDuplicates):
        assert_rows(kept(applied(step(columns=("k",), keep="v desc"), df)), ["v"], [(10.0,)])
        with pytest.raises(StepError, match="keep: 'm' is map<string,int>, whose values have no order"):
            applied(step(columns=("k",), keep="m"), df)


def test_maps_are_compared_by_their_entries(spark):
    maps = [{"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1}, {}, {}, None, None]
    df = frame(spark, "n int, m map<string,int>, l array<map<string,int>>", *((i, m, [m]) for i, m in enumerate(maps)))
    assert_rows(kept(applied(DropDuplicates(columns=("m",), keep="n"), df)), ["n"], [(n,) for n in (0, 2, 3, 5, 6)])
    assert_rows(kept(applied(DropDuplicates(columns=("l",), keep="n"), df)), ["n"], [(n,) for n in (0, 2, 3, 5)])


@pytest.mark.parametrize("keep", ["", "a,", ", a", "`a", "`a`b", "a b", "a desc c", "``", "a desc asc"])
def test_what_is_no_order_is_refused(keep):
    with pytest.raises(StepError, match="is not an entry of ORDER BY"):
        order_of(keep)


def test_nulls_are_compared_only_if_asked_and_nan_always(spark):
    df = frame(spark, "k double, v int", (None, 1), (None, 2), (NAN, 3), (NAN, 4))
    out = applied(DropDuplicates(columns=("k",), keep="v"), df)
    assert_rows(kept(out), ["v"], [(1,), (2,), (3,)])
    out = applied(DropDuplicates(columns=("k",), nulls="equal", keep="v"), df)
    assert_rows(kept(out), ["v"], [(1,), (3,)])


def test_texts_of_nothing_are_no_duplicates_unless_asked(spark):
    nothing = [None, None, "", "", "  ", "  ", "\u00a0", "\u00a0", "\u200b", "\u200b", "--", "--"]
    df = frame(spark, "n int, k string, b binary", *((i, k, b"") for i, k in enumerate([*nothing, "A", "a"])))
    step = DropDuplicates(columns=("k",), keep="n", ignore=("case", "punctuation"))
    assert_rows(rejected(applied(step, df), "n"), ["n"], [(13,)])
    asked = DropDuplicates(columns=("k",), keep="n", nulls="equal")
    assert_rows(rejected(applied(asked, df), "n"), ["n"], [(1,), (3,), (5,), (7,), (9,), (11,)])
    assert rejected(applied(DropDuplicates(columns=("b",)), df)).count() == 0


def test_what_is_ignored_makes_no_difference(spark):
    texts = [
        (0, "Jos\u00e9  M\u00fcller"),
        (1, "jose\u0301 mu\u0308\u00adller"),
        (2, "Jose Muller!"),
        (3, "\u0915\u092e\u0932"),
        (4, "\u0915\u092e\u0932\u093e"),
    ]
    df = frame(spark, "n int, k string", *texts)
    for ignore, gone in (
        (("case", "spaces", "unicode"), {1}),
        (("case", "spaces", "accents", "punctuation", "unicode"), {1, 2}),
    ):
        out = applied(DropDuplicates(columns=("k",), keep="n", ignore=ignore), df)
        assert {r["n"] for r in rejected(out, "n").collect()} == gone, ignore


def test_identical_rows_leave_exactly_one(spark):
    df = frame(spark, "k string", ("a",), ("a",), ("a",))
    out = applied(DropDuplicates(columns=("k",)), df)
    assert kept(out).count() == 1 and rejected(out).count() == 2


def test_rows_marked_before_do_not_compete(spark):
    df = frame(spark, "k string, v int", ("a", 9), ("a", 1))
    marked = applied(RejectRows(where="v = 9", reason="impossible"), df)
    assert_rows(kept(applied(DropDuplicates(columns=("k",), keep="v desc"), marked)), ["v"], [(1,)])


def test_partitioning_does_not_matter(spark):
    rows = [(f"k{i % 7}", i % 3, i) for i in range(60)]
    df = frame(spark, "k string, g int, v int", *rows)
    answers = {
        repr(plain_rows(kept(applied(DropDuplicates(columns=("k",), keep="g"), df.repartition(n))), "k", "v"))
        for n in (1, 3, 16)
    }
    assert len(answers) == 1


CROWDED = (
    DropDuplicates(columns=("k",), keep="v desc, _file", ignore=("case",)),
    DropDuplicates(columns=("d",), keep="v", nulls="equal"),
    DropDuplicates(columns=("s", "l"), keep="_file desc, v desc", nulls="equal"),
)


@pytest.fixture(scope="module")
def crowded(spark):
    """Rows of few keys, with nulls, NaN, two zeros and nested values in them; with ties, repeated ids, marked rows."""
    keys = ["a", "A", "b", None, "", "a", "a", "b", "c"]
    doubles = [NAN, 0.0, -0.0, None, 1.5, NAN, 0.0]
    cells = []
    for i in range(90):
        k, d = keys[i % 9], doubles[i % 7]
        cells.append((k, d, (d, keys[i % 2]), [None, keys[i % 2]], [3, None, 1, 3][i % 4], f"f{i % 2}", i))
    schema = "k string, d double, s struct<a: double, b: string>, l array<string>, v int, _file string, i int"
    df = frame(spark, schema, *cells).withColumn("_row_id", F.md5(F.expr("string(if(i % 10 = 0, 5, i))")))
    return applied(DropDuplicates(columns=("i",)), applied(RejectRows(where="i % 11 = 0", reason="impossible"), df))


@pytest.mark.parametrize("step", CROWDED)
@pytest.mark.parametrize("later", [False, True])
def test_rows_of_crowded_keys_are_spread_and_marked_as_others(spark, tmp_path, monkeypatch, crowded, step, later):
    df, known = crowded, None
    if later:
        first = step.marked(crowded.where("i % 5 = 0"), None)
        df, known = crowded.where("i % 5 > 0"), first.where(rows.is_kept() & step.compared(first))
        known = known.select("_row_id", "_file", step.key(first).alias("_hg_key"))
    monkeypatch.setattr(exact, "CROWD", 4)
    monkeypatch.setattr(exact, "DRAWN", 1)
    crowds = step.crowds(df, BuildContext(spark, str(tmp_path), rows_in=exact.MANY))
    assert crowds.count() >= 2
    assert step.crowds(df, BuildContext(spark, str(tmp_path), rows_in=90)) is None
    told = [plain_rows(step.marked(df.repartition(3), known, crowds=c), *df.columns) for c in (None, crowds)]
    assert repr(told[0]) == repr(told[1]) and len(told[0]) == df.count()


def test_a_null_is_not_a_struct_of_nulls_in_this_build_nor_in_a_later_one(spark):
    schema, step = "s struct<a: int, b: string>, v int", DropDuplicates(columns=("s",), keep="v", nulls="equal")
    first = step.marked(frame(spark, schema, (None, 1), ((None, None), 2), (None, 3)), None)
    assert_rows(kept(first), ["v"], [(1,), (2,)])
    known = kept(first).select("_row_id", step.key(first).alias("_hg_key"))
    later = step.marked(frame(spark, schema, (None, 4), ((None, None), 5), ((7, None), 6)), known)
    assert_rows(kept(later), ["v"], [(6,)])
    assert rejected(later).count() == 2


def test_a_key_of_very_many_rows_is_not_left_to_one_task(spark, tmp_path, monkeypatch):
    monkeypatch.setattr(exact, "MANY", 3_000)
    monkeypatch.setattr(exact, "CROWD", 500)
    df = rows.with_bookkeeping(spark.range(3_000).selectExpr("string(id) AS _row_id", "if(id % 3 = 0, -1, id) AS k"))
    out = DropDuplicates(columns=("k",)).run(df, BuildContext(spark, str(tmp_path), rows_in=3_000))
    assert largest_share(out, "k = -1") < 0.6
    assert kept(out).count() == 2_001


@pytest.mark.parametrize("keep", ["v descending", "v desc nulls", "", "v,,k"])
def test_a_wrong_keep_rule_is_refused(keep):
    with pytest.raises(StepError, match="ORDER BY"):
        DropDuplicates(columns=("k",), keep=keep).columns_after(columns_of("k", "v"), {})


# -- columns of any name


NO_SENTENCE = r"[a-z_]\w*|[a-z_]\w*( [a-z<>]+, \w+)+ [a-z<>]+|[a-z_]\w* [=><].*"


def names_in_the_code():
    """Every word of every text in the code of this package, as a column's name may be."""
    folder = Path(exact.__file__).parent
    words = set()
    for file in [*folder.glob("*.py"), Path(rows.__file__), Path(increments.__file__)]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                words |= set(re.findall(r"[a-z_]\w*", node.value)) if re.fullmatch(NO_SENTENCE, node.value) else set()
    names = {w.lower() for w in words} | {"key", "kept", "gone", "hash", "n", "count", "value", "build", "o0", "id"}
    return sorted(n for n in names if not rows.is_own(n))


@pytest.mark.slow
def test_no_column_of_any_name_gets_in_the_way(spark, tmp_path):
    names = [n for n in names_in_the_code() if n not in ("text", "image", "cluster", "cluster_similarity", "i")]
    assert len(names) > 100 and {"key", "length", "leader", "bits", "shingles", "rank", "band", "old"} <= set(names)
    body = " ".join(f"word{i}" for i in range(40))
    image = stored(picture(1))
    texts = [body, body + " more", "a text of its own, quite another", body, None]
    schema = ", ".join(["text string, image binary", *(f"`{n}` string" for n in names)])

    cells = lambda i: [None if (i + j) % 5 == 0 else f"{j}-{i}" for j in range(len(names))]  # noqa: E731
    df = frame(
        spark, f"{schema}, i int", *((t, None if i in (2, 4) else image, *cells(i), i) for i, t in enumerate(texts))
    )
    df.write.parquet(str(tmp_path / "rows"))
    df = spark.read.parquet(str(tmp_path / "rows"))
    first, later = df.where("i IN (0, 2)"), df.where("i NOT IN (0, 2)")
    before = {r["_row_id"]: r for r in df.collect()}
    ids = {r["i"]: key for key, r in before.items()}
    near = {"columns": ("text",), "keep": "i, length desc, o0"}
    for name, step, gone in (
        ("exact", DropDuplicates(columns=("text",), keep="i, length, key desc"), (3,)),
        ("cluster", DropNearDuplicates(**near, cluster="cluster"), ()),
        ("near", DropNearDuplicates(**near), (1, 3)),
        ("within", DropNearDuplicates(**near, measure="containment"), (1, 3)),
        ("images", DropNearImages(columns=("image",), keep="i, bits"), (1, 3)),
        ("lines", DropRepeatedLines(columns=("text",), texts=4), ()),
    ):
        space = BuildContext(spark, str(tmp_path / name), "", lasting=True)
        rows_now = df
        if name in ("exact", "cluster"):
            step.run(first, space)
            recorded = {n: spark.read.parquet(path).select(*c) for n, (path, *c) in space.all_recorded.items()}
            space = Knowing(spark, str(tmp_path / f"{name}_later"), "", lasting=True, frames=recorded)
            rows_now = later
        found = {r["_row_id"]: r for r in step.run(rows_now, space).collect()}
        assert len(found) == (3 if rows_now is later else 5), name
        for key, row in found.items():
            assert all(row[c] == before[key][c] for c in (*names, "text", "image", "i")), name
            reason = row["_hg_rejected"]
            assert (reason is not None) == (key in [ids[i] for i in gone]), name
            assert reason is None or reason["evidence"]["kept_row_id"] == ids[0], name
        if name == "cluster":
            assert [found[ids[i]]["cluster"] for i in (1, 3)] == [ids[0]] * 2


def test_a_column_named_length_comes_before_the_length_of_the_text(spark):
    body = " ".join(f"word{i}" for i in range(40))
    df = frame(spark, "n int, text string, length int", (0, body, 2), (1, body + " more", 1))
    out = applied(DropNearDuplicates(columns=("text",), keep="length desc"), df)
    assert_rows(kept(out), ["n"], [(0,)])
