"""`headgate dedup`: what it takes, what it refuses, and that a table which grew is the one that a rebuild gives."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from deltalake import DeltaTable

from jobs import build, dedup, erasure, lake, trace
from jobs.cli import headgate
from jobs.config import Environment
from jobs.errors import HeadgateError, InputMissing, UsageError
from jobs.increments import indexes
from jobs.keeping import vacuum
from jobs.lake import Lake
from jobs.progress import Progress
from jobs.run import run
from tests.transforms.test_near_duplicates import excerpts, greedy, perturbed

NEAR = {"columns": ["text"], "recall": 0.9999999}


class Deduped:
    """A lake and a folder of JSON lines that are deduplicated into the table `clean`."""

    def __init__(self, spark, folder, steps=(("drop_near_duplicates", NEAR),)):
        self.spark, self.landing, self.lake, self.steps = spark, folder / "in", Lake(str(folder / "lake")), steps
        self.landing.mkdir()
        self.texts = []
        self.batches = []

    def land(self, texts):
        rows = [{"id": len(self.texts) + i, "text": t} for i, t in enumerate(texts)]
        file = self.landing / f"{len(self.batches):03}.jsonl"
        file.write_text("".join(json.dumps(r) + "\n" for r in rows))
        self.batches.append(range(len(self.texts), len(self.texts) + len(texts)))
        self.texts += texts

    def run(self, **options):
        pipeline, landing = dedup.pipeline_of(str(self.landing), "clean", self.lake, ["id"], self.steps)
        environment = Environment(lake=self.lake.root, landing=landing)
        outcome = run(pipeline, environment, self.lake, lambda reads: self.spark, Progress(watched=False), **options)
        return {r["table"]: r for r in outcome.tables}

    def ids(self):
        delta = self.lake.open("clean")
        return sorted(delta.to_pyarrow_table(columns=["id"])["id"].to_pylist())

    def gone_in_order_of_arrival(self):
        name = {r["id"]: r["_row_id"] for r in self.lake.open("clean_input").to_pyarrow_table().to_pylist()}
        order = [i for batch in self.batches for i in sorted(batch, key=lambda i: (-len(self.texts[i] or ""), name[i]))]
        return greedy(self.texts, order, 0.8, self.steps[0][1].get("measure", "jaccard"))

    def ledger(self):
        return self.lake.open("ledger").to_pyarrow_table().to_pylist()


def test_a_table_that_grew_is_the_one_in_order_of_arrival(spark, tmp_path):
    table = Deduped(spark, tmp_path)
    texts = perturbed(7, families=20, copies=8)
    for part, n in ((texts[:40], 40), (texts[40:60], 20), ([], 0), (texts[60:], len(texts) - 60)):
        table.land(part)
        told = table.run()["clean"]
        assert told["rows_in"] == n
    gone = table.gone_in_order_of_arrival()
    assert 15 < len(gone) < len(texts) - 15
    assert table.ids() == [i for i in range(len(texts)) if i not in gone]
    # Evidence in the ledger: the score with the most similar row that stays.
    number = {r["_row_id"]: r["id"] for r in table.lake.open("clean_input").to_pyarrow_table().to_pylist()}
    found = {number[e["row_id"]]: dict(e["evidence"]) for e in table.ledger() if e["table"] == "clean"}
    assert {i: pytest.approx(float(e["score"]), abs=1e-6) for i, e in found.items()} == gone
    assert all(number[e["kept_row_id"]] not in gone and e["threshold"] == "0.8" for e in found.values())
    # The story of one that went in the first night shows both texts.
    first = min(gone)
    (row,) = [r for r, n in number.items() if n == first]
    told = {e["event"]: e for e in trace.trace(table.lake, str(table.landing), row)}
    assert told["rejected"]["evidence"] == found[first]
    assert told["compared"]["row"]["text"] == table.texts[first]
    assert told["compared"]["kept"]["text"] == table.texts[number[found[first]["kept_row_id"]]]
    # A rebuild in the same order gives the same.
    table.steps = (("drop_near_duplicates", {**NEAR, "keep": "_file, length desc"}),)
    before = table.ids()
    assert table.run()["clean"]["rows_in"] == len(texts)
    assert table.ids() == before


def test_a_record_that_comes_again_is_not_published_twice(spark, tmp_path):
    table = Deduped(spark, tmp_path)
    table.land(["a text of its own", "and another one here"])
    table.run()
    (table.landing / "again.jsonl").write_text('{"id": 0, "text": "now it says something else"}\n')
    table.land(["the third text is new"])
    assert table.run()["clean"]["rejected"] == {"drop_duplicates: repeats another row in _row_id": 1}
    assert table.ids() == [0, 1, 2]
    (entry,) = (e for e in table.ledger() if e["table"] == "clean")
    assert dict(entry["evidence"])["kept_row_id"] == entry["row_id"]


def test_parts_of_what_is_published_go_as_in_order_of_arrival(spark, tmp_path):
    table = Deduped(spark, tmp_path, steps=(("drop_near_duplicates", {**NEAR, "measure": "containment"}),))
    texts = excerpts(7, texts=12)
    for part in (texts[6:30], texts[30:], texts[:6]):
        table.land(part)
        assert table.run()["clean"]["rows_in"] == len(part)
    gone = table.gone_in_order_of_arrival()
    assert 10 < len(gone) < len(texts) - 10
    assert table.ids() == [i for i in range(len(texts)) if i not in gone]


def test_a_build_that_dies_before_it_publishes_is_taken_up(spark, tmp_path, monkeypatch):
    table = Deduped(spark, tmp_path)
    texts = perturbed(8, families=6)
    for n, part in enumerate((texts[:15], texts[15:])):
        table.land(part)
        with monkeypatch.context() as m:
            m.setattr(build, "publish", dying_once(build.publish, "clean"))
            with pytest.raises(HeadgateError, match="killed"):
                table.run()
        assert table.run()["clean"]["version"] == n
    assert table.ids() == [i for i in range(len(texts)) if i not in table.gone_in_order_of_arrival()]


def dying_once(publish, table):
    def die(spark, lake, name, *rest, **options):
        if name == table:
            raise HeadgateError("killed")
        return publish(spark, lake, name, *rest, **options)

    return die


def test_what_repeated_an_erased_row_comes_back(spark, tmp_path):
    table = Deduped(spark, tmp_path)
    long = " ".join(f"word{i}" for i in range(60))
    table.land([long + " and more", long, "something else"])
    table.run()
    table.land([long + " again"])
    table.run()
    assert table.ids() == [0, 2]
    found = erasure.reach(table.lake, "clean_input", "id = 0", None)
    erasure.erase(spark, table.lake, found, "id = 0", "asked for", "a test", "tester", Progress(watched=False))
    table.run()
    assert table.ids() == [2, 3]
    table.land([long])
    table.run()
    assert table.ids() == [2, 3]


def test_exact_duplicates_over_nights_whatever_their_form(spark, tmp_path, monkeypatch):
    monkeypatch.setattr(lake, "COMPACT_EVERY", 1)
    options = {"columns": ["text"], "ignore": ["case", "spaces", "unicode", "punctuation"], "keep": "id"}
    table = Deduped(spark, tmp_path, (("drop_duplicates", options),))
    table.land(["Café au lait", "other"])
    table.run()
    table.land([" cafe\u0301  AU lait! ", "new", "NEW."])
    assert table.run()["clean"]["rejected"] == {"drop_duplicates: repeats another row in text": 2}
    assert table.ids() == [0, 1, 3]
    number = {r["_row_id"]: r["id"] for r in table.lake.open("clean_input").to_pyarrow_table().to_pylist()}
    entries = [e for e in table.ledger() if e["table"] == "clean"]
    kept = {number[e["row_id"]]: number[dict(e["evidence"])["kept_row_id"]] for e in entries}
    assert kept == {2: 0, 4: 3}
    # The index was compacted; what it no longer needs goes with the next vacuum.
    (index,) = indexes(table.lake, "clean")
    assert len(DeltaTable(index).file_uris()) == 1
    stored = len(list(Path(index).glob("*.parquet")))
    told = {r["table"]: r for r in vacuum(table.lake, 365, 0.0)}
    assert told["clean"]["files_removed"] == stored - 1 > 0
    table.land(["other", "newer"])
    assert table.run()["clean"]["rejected"] == {"drop_duplicates: repeats another row in text": 1}


def test_files_of_several_kinds_are_understood(tmp_path):
    lake = Lake(str(tmp_path / "lake"))
    (tmp_path / "a.csv").write_text("id,text,at\n1,hello,2024-01-01\n")
    (tmp_path / "b.jsonl").write_text('{"id": 1, "text": "x", "tags": ["a"]}\n')
    pq.write_table(pa.table({"id": [1], "text": ["x"]}), tmp_path / "c.parquet")
    kinds = {"a.csv": "`id` BIGINT, `text` STRING, `at` DATE", "b.jsonl": "`id` BIGINT, `text` STRING, `tags` STRING"}
    for name in ("a.csv", "b.jsonl", "c.parquet"):
        pipeline, landing = dedup.pipeline_of(str(tmp_path / name), "t", lake, ["id"], [("drop_near_duplicates", NEAR)])
        source = pipeline.tables["t_input"].source
        assert (landing, source.path, source.columns) == (str(tmp_path), name, kinds.get(name))


@pytest.mark.parametrize(
    ("given", "options", "told"),
    [
        ("a.csv", {"key": ["ide"]}, "--key: there is no column 'ide' — did you mean 'id'"),
        ("a.csv", {"columns": ["txt"]}, "there is no column 'txt' here — did you mean 'text'"),
        ("a.csv", {"into": "No Name"}, "--into: 'No Name' is no name of a table"),
        ("a.csv", {"similarity": "high"}, "--similarity"),
        ("b.txt", {}, "ends in none of"),
        ("mixed", {}, "several kinds (.csv, .parquet)"),
        ("empty", {}, "no file in it ends in one of"),
        ("nothing.jsonl", {}, "the file is empty"),
        ("nowhere.csv", {}, "neither a file or folder nor a table"),
        ("broken.parquet", {}, "no readable Parquet file"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path, given, options, told):
    (tmp_path / "a.csv").write_text("id,text\n1,hello\n")
    (tmp_path / "b.txt").write_text("hello")
    (tmp_path / "empty").mkdir()
    (tmp_path / "nothing.jsonl").touch()
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "a.csv").write_text("id,text\n1,hello\n")
    (tmp_path / "mixed" / "b.parquet").write_bytes(b"PAR1")
    (tmp_path / "broken.parquet").write_bytes(b"no parquet at all")
    near = {**NEAR, **{k: v for k, v in options.items() if k in ("columns", "similarity")}}
    into, key = options.get("into", "t"), options.get("key", [])
    with pytest.raises((UsageError, InputMissing)) as error:
        dedup.pipeline_of(
            str(tmp_path / given), into, Lake(str(tmp_path / "lake")), key, [("drop_near_duplicates", near)]
        )
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["x.csv", "--into", "t"], "give exactly one of --exact and --text"),
        (["x.csv", "--into", "t", "--text", "a", "--exact", "a"], "give exactly one of --exact and --text"),
        (["x.csv", "--into", "t", "--text", "a", "--ignore", "case"], "--ignore goes with --exact"),
        (["x.csv", "--into", "t", "--exact", "a", "--cluster", "c"], "--cluster goes with --text"),
        (["x.csv", "--into", "t", "--text", "a", "--similarty", "0.5"], "--similarity"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments, told):
    result = CliRunner().invoke(headgate, ["dedup", *arguments])
    assert result.exit_code != 0 and told in f"{result.output}{result.exception}"


def test_the_biggest_clusters_are_told(spark, tmp_path, monkeypatch):
    table = Deduped(spark, tmp_path)
    table.land(["only one"])
    table.run()
    assert dedup.clusters(table.lake, "clean", table.lake.published("clean").facts["build"]) == []
    long = " ".join(f"word{i}" for i in range(60))
    table.land([long + " a b c d e", *(f"{long} {i}" for i in range(5)), "else"])
    table.run()
    build_of = table.lake.published("clean").facts["build"]
    (found,) = dedup.clusters(table.lake, "clean", build_of)
    assert found["others"] == 5 and 0.8 <= found["weakest"] < 1 and not found["giant"]
    monkeypatch.setattr(dedup, "GIANT", 4)
    assert dedup.clusters(table.lake, "clean", build_of)[0]["giant"]
    table.steps = (("drop_near_duplicates", {**NEAR, "cluster": "like"}),)
    table.run()
    assert table.ids() == list(range(8))
    (again,) = dedup.clusters(table.lake, "clean", "", "like")
    assert again == {**found, "giant": True, "weakest": pytest.approx(found["weakest"], abs=1e-6)}


def test_two_texts_stand_side_by_side():
    one, other = ({"id": i, "text": f"same line\n{w}\nmore\nof the\nsame"} for i, w in ((1, "here"), (2, "there")))
    assert trace.side_by_side(one, other, 40) == [
        ("id", "1", "2"),
        ("text", "same line", "same line"),
        ("text", "here", "there"),
        ("text", "… 3 lines alike …", "… 3 lines alike …"),
    ]
