"""`headgate dedup`: what it takes, what it refuses, and that a table which grew is the one that a rebuild gives."""

import gzip
import json
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from headgate.jobs.cli import deduping, given_files, one_table
from headgate.jobs.cli.text_types import text_orders
from headgate.jobs.config.models import Environment
from headgate.jobs.errors import InputMissing, UsageError
from headgate.jobs.explore import trace
from headgate.jobs.keep.erasure import certificate as erasure
from headgate.jobs.keep.erasure.reach import reach
from headgate.jobs.keep.retention import vacuum
from headgate.jobs.lake import system
from headgate.jobs.lake.artifacts import indexes
from headgate.jobs.lake.lake import Lake
from headgate.jobs.pipeline.run import dry_run, run
from headgate.jobs.progress import Progress
from headgate.transforms.deduplication.exact import DropDuplicates
from tests.lakes import Killed, dies
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

    def plan(self):
        request = one_table.Request("dedup", str(self.landing), "clean", ["id"], "id BIGINT")
        pipeline, start = deduping.pipeline_of(request, self.steps, self.lake)
        return pipeline, Environment(lake=self.lake.root, landing=start.landing)

    def run(self, progress=None, **options):
        pipeline, environment = self.plan()
        progress = progress or Progress(watched=False)
        outcome = run(pipeline, environment, self.lake, lambda reads: self.spark, progress, **options)
        return {r.table: r.asdict() for r in outcome.tables}

    def ids(self):
        delta = self.lake.open("clean")
        return sorted(delta.to_pyarrow_table(columns=["id"])["id"].to_pylist())

    def gone_in_order_of_arrival(self):
        name = {r["id"]: r["_row_id"] for r in self.lake.open("clean_input").to_pyarrow_table().to_pylist()}
        order = [i for batch in self.batches for i in sorted(batch, key=lambda i: (-len(self.texts[i] or ""), name[i]))]
        return greedy(self.texts, order, 0.8, self.steps[0][1].get("measure", "jaccard"))

    def ledger(self):
        return self.lake.open("ledger").to_pyarrow_table().to_pylist()


@pytest.mark.slow
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
    found = {number[e["row_id"]]: dict(e["evidence"]) for e in table.ledger() if e["table_name"] == "clean"}
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


@pytest.mark.slow
def test_a_record_that_comes_again_is_not_published_twice(spark, tmp_path):
    table = Deduped(spark, tmp_path)
    table.land(["a text of its own", "and another one here"])
    table.run()
    (table.landing / "again.jsonl").write_text('{"id": 0, "text": "now it says something else"}\n')
    table.land(["the third text is new"])
    assert table.run()["clean"]["rejected"] == {"clean/0-drop_near_duplicates: duplicate_row_id": 1}
    assert table.ids() == [0, 1, 2]
    (entry,) = (e for e in table.ledger() if e["table_name"] == "clean")
    assert dict(entry["evidence"])["kept_row_id"] == entry["row_id"]


@pytest.mark.slow
def test_parts_of_what_is_published_go_as_in_order_of_arrival(spark, tmp_path):
    table = Deduped(spark, tmp_path, steps=(("drop_near_duplicates", {**NEAR, "measure": "containment"}),))
    texts = excerpts(7, texts=12)
    for part in (texts[6:30], texts[30:], texts[:6]):
        table.land(part)
        assert table.run()["clean"]["rows_in"] == len(part)
    gone = table.gone_in_order_of_arrival()
    assert 10 < len(gone) < len(texts) - 10
    assert table.ids() == [i for i in range(len(texts)) if i not in gone]


@pytest.mark.slow
def test_a_build_that_dies_before_it_publishes_is_taken_up(spark, tmp_path):
    table = Deduped(spark, tmp_path)
    texts = perturbed(8, families=6)
    for n, part in enumerate((texts[:15], texts[15:])):
        table.land(part)
        with pytest.raises(Killed):
            table.run(progress=dies("clean", "publish"))
        assert table.run()["clean"]["version"] == n
    assert table.ids() == [i for i in range(len(texts)) if i not in table.gone_in_order_of_arrival()]


@pytest.mark.slow
def test_what_repeated_an_erased_row_comes_back(spark, tmp_path):
    table = Deduped(spark, tmp_path)
    long = " ".join(f"word{i}" for i in range(60))
    table.land([long + " and more", long, "something else"])
    table.run()
    table.land([long + " again"])
    table.run()
    assert table.ids() == [0, 2]
    found = reach(table.lake, "clean_input", "id = 0", None)
    erasure.erase(spark, table.lake, found, "id = 0", "asked for", "a test", "tester", Progress(watched=False))
    why = {p["table"]: p["why"] for p in dry_run(*table.plan(), table.lake, (), None, False)}
    assert why == {"clean_input": "up to date", "clean": "rows were erased from it"}
    table.run()
    assert table.ids() == [2, 3]
    table.land([long])
    table.run()
    assert table.ids() == [2, 3]


@pytest.mark.slow
def test_exact_duplicates_over_nights_whatever_their_form(spark, tmp_path, monkeypatch):
    monkeypatch.setattr(system, "COMPACT_EVERY", 1)
    options = {"columns": ["text"], "ignore": ["case", "spaces", "unicode", "punctuation"], "keep": "id"}
    table = Deduped(spark, tmp_path, (("drop_duplicates", options),))
    table.land(["Café au lait", "other"])
    table.run()
    table.land([" cafe\u0301  AU lait! ", "new", "NEW."])
    assert table.run()["clean"]["rejected"] == {"clean/0-drop_duplicates: exact_duplicate (text)": 2}
    assert table.ids() == [0, 1, 3]
    number = {r["_row_id"]: r["id"] for r in table.lake.open("clean_input").to_pyarrow_table().to_pylist()}
    entries = [e for e in table.ledger() if e["table_name"] == "clean"]
    kept = {number[e["row_id"]]: number[dict(e["evidence"])["kept_row_id"]] for e in entries}
    assert kept == {2: 0, 4: 3}
    # The index was compacted; what it no longer needs goes with the next vacuum.
    (index,) = indexes(table.lake, "clean")
    assert len(DeltaTable(index).file_uris()) == 1
    stored = len([p for p in Path(index).rglob("*.parquet") if "_delta_log" not in p.parts])
    told = {r["table"]: r for r in vacuum(table.lake, 365, 0.0)}
    assert told["clean"]["files_removed"] == stored - 1 > 0
    table.land(["other", "newer"])
    assert table.run()["clean"]["rejected"] == {"clean/0-drop_duplicates: exact_duplicate (text)": 1}


def published(table, *columns):
    rows = Lake("lake").need_table(table).to_pyarrow_table(columns=list(columns)).to_pylist()
    return sorted((tuple(r.values()) for r in rows), key=repr)


@pytest.mark.slow
def test_text_stays_as_it_stands_whatever_comes_later(tmp_path, command):
    """What looks like a number, a day or a truth value; in any case of the endings; by the delimiter of the first."""
    folder = tmp_path / "in"
    (folder / "below").mkdir(parents=True)
    (folder / "below" / "c.csv").write_text("id\n1\n")
    for name in ("notes.txt", ".a.swp"):
        (folder / name).touch()
    head = "id;zip;sku;born;member;email;at\n"
    (folder / "b.csv").write_text(
        head + '1;00501;1E5;25/12/1990;yes;a@x;2024-01-01 10:00:00\n2;02139;"2E10, old";;no;;\n'
    )
    (folder / "C.CSV").write_text(head + "3;00501;1E5;25/12/1990;yes;a@x;2024-01-01 10:00:00\n4;7;;;;;\n")
    code, out, error = command("in", "--exact", "email", "--key", "id", "--keep", "id", "--into", "t")
    assert code == 0, error
    assert "2 rows of t_input have no value in email: not compared" in out
    assert error == (
        f"not taken up from {Path('in')}: 1 sub-folders (below), 1 hidden files (.a.swp), "
        "1 files with another ending (notes.txt)\n"
    )
    first = [
        ("1", "00501", "1E5", "25/12/1990", "yes", "a@x", "2024-01-01 10:00:00"),
        ("2", "02139", "2E10, old", None, "no", None, None),
        ("4", "7", None, None, None, None, None),
    ]
    columns = ("id", "zip", "sku", "born", "member", "email", "at")
    assert published("t", *columns) == first
    # A file that comes before the others by its name, and whose values look otherwise.
    (folder / "a.csv").write_text(head + "5;x;true;1990-12-25;1;b,c,d,e,f,g,h@x;2024-01-02\n")
    code, out, error = command("in", "--exact", "email", "--key", "id", "--keep", "id", "--into", "t")
    assert code == 0, error
    later = ("5", "x", "true", "1990-12-25", "1", "b,c,d,e,f,g,h@x", "2024-01-02")
    assert published("t", *columns) == [*first, later]
    # Another schema for the columns that are there is refused.
    code, _, error = command("in", "--exact", "email", "--key", "id", "--into", "t", "--schema", "id INT")
    assert code == 2 and "--schema: the column 'id' of table 't_input' is STRING" in error


def test_scalars_of_json_are_text_and_nested_members_json(tmp_path, command):
    file = tmp_path / "a.jsonl"
    file.write_text('{"id": 7, "n": "1E5", "b": true, "tags": ["a", {"x": 1}]}\n{"id": 8, "n": "1E5"}\n')
    arguments = ["a.jsonl", "--exact", "n", "--keep", "id", "--into", "t", "--schema", "id INT"]
    code, _, error = command(*arguments, "--nulls", "equal")
    assert code == 0, error
    (row,) = published("t", "id", "n", "b", "tags")
    assert (*row[:3], json.loads(row[3])) == (7, "1E5", "true", ["a", {"x": 1}])


def test_a_run_that_publishes_nothing_of_what_came_fails(tmp_path, command):
    (tmp_path / "a.csv").write_text("id,n\n1,x\n2,y\n")
    for _ in range(2):  # the second time the file is known
        code, _, error = command("a.csv", "--exact", "id", "--schema", "n INT", "--into", "t")
        assert code == 4 and "none of its records could be published (2 by ingest: " in error, error
        assert len(error.splitlines()) == 1


def test_files_of_several_kinds_are_understood(tmp_path):
    lake = Lake(str(tmp_path / "lake"))
    (tmp_path / "a.csv").write_text("id,text,at\n1,hello,2024-01-01\n")
    (tmp_path / "b.jsonl").write_text('{"id": 1, "text": "x", "tags": ["a"]}\n')
    pq.write_table(pa.table({"id": [1], "text": ["x"]}), tmp_path / "c.parquet")
    (tmp_path / "d.TSV.CSV").write_text('\ufeffid\ttext\t"a,b,c,d"\n')
    with gzip.open(tmp_path / "e.csv.gz", "wt") as packed:
        packed.write("id|text\n")
    (tmp_path / "f.csv").write_text("text\n")
    every = "`id` STRING, `text` STRING"
    kinds = {"a.csv": f"{every}, `at` STRING", "b.jsonl": f"{every}, `tags` STRING", "e.csv.gz": every}
    kinds |= {"d.TSV.CSV": f"{every}, `a,b,c,d` STRING", "f.csv": "`text` STRING"}
    delimiters = {"d.TSV.CSV": "\t", "e.csv.gz": "|"}
    steps = [("drop_duplicates", {"columns": ["text"]})]
    for name in (*kinds, "c.parquet"):
        if name.startswith("d"):
            with pytest.raises(UsageError, match="the column ‹a,b,c,d› cannot be published"):
                deduping.pipeline_of(one_table.Request("dedup", str(tmp_path / name), "t"), steps, lake)
            continue
        pipeline, start = deduping.pipeline_of(one_table.Request("dedup", str(tmp_path / name), "t"), steps, lake)
        source = pipeline.tables["t_input"].source
        found = (start.landing, source.path, source.columns, source.delimiter)
        assert found == (str(tmp_path), name, kinds.get(name), delimiters.get(name, ","))
    names, delimiter = given_files.header_of([tmp_path / "d.TSV.CSV"], None, [])
    assert (names, delimiter) == (["id", "text", "a,b,c,d"], "\t")


def test_rows_without_a_value_are_those_that_are_not_compared(tmp_path):
    lake = Lake(str(tmp_path))
    texts = ["a", None, "", " \u00a0\t\n", "\u200b\ufeff", "---", "a-b", " "]
    cells = {"t": texts, "b": [b"", b"x", None, b"x", b"x", b"x", b"x", b"x"], "n": [1, 1, 1, 1, 1, 1, 1, None]}
    write_deltalake(lake.path("a"), pa.table(cells))
    assert deduping.without_value(lake, "a", ["t"], every=False) == 5
    assert deduping.without_value(lake, "a", ["t"], every=False, ignore=["punctuation"]) == 6
    assert deduping.without_value(lake, "a", ["b"], every=False) == 2
    assert deduping.without_value(lake, "a", ["t", "b", "n"], every=False) == 6
    assert deduping.without_value(lake, "a", ["t", "n"], every=True) == 1


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_column_of_numbers_that_orders_as_text_is_told(tmp_path, ending):
    file, columns = tmp_path / f"a.{ending}", ("v", "year", "code", "mark")
    rows = [("9", "2023", "x9", "1"), ("10", "2024", "x10", "?"), ("", "2022", "x1", "2")]
    lines = [",".join(r) for r in (columns, *rows)]
    records = [json.dumps(dict(zip(columns, r, strict=True))) for r in rows]
    file.write_text("\n".join(lines if ending == "csv" else records) + "\n")
    lake, request = Lake(str(tmp_path / "lake")), partial(one_table.Request, "dedup", str(file), "t")
    start = one_table.start_of(request(), lake)
    told = "warning: 'v' orders rows as text, ‹10› before ‹9›; as numbers with --schema \"v BIGINT\""
    assert text_orders(start, columns) == [told]
    assert text_orders(one_table.start_of(request(schema="v BIGINT"), lake), columns) == []
    file.write_bytes(file.read_bytes() + b"\xff\xfe")
    assert text_orders(start, columns) == []  # the run says of it what is wrong


@pytest.mark.parametrize(
    ("given", "options", "told"),
    [
        ("a.csv", {"key": ["ide"]}, "--key: there is no column 'ide' — did you mean 'id'"),
        ("a.csv", {"columns": ["txt"]}, "--text: there is no column 'txt' — did you mean 'text'"),
        ("a.csv", {"keep": "idd desc"}, "--keep: there is no column 'idd' — did you mean 'id'"),
        ("a.csv", {"keep": "id downwards"}, "--keep: 'id downwards' is not an entry of ORDER BY"),
        ("a.csv", {"into": "No Name"}, "--into: 'No Name' is not a valid table name"),
        ("a.csv", {"into": "runs"}, "--into: 'runs' is a system table"),
        ("a.csv", {"cluster": "text"}, "--text: cluster: there is a column 'text' already"),
        ("a.csv", {"similarity": "high"}, "--similarity: "),
        ("a.csv", {"unit": "letters"}, "--unit: "),
        ("a.csv", {"schema": "txt INT"}, "--schema: there is no column 'txt' — did you mean 'text'"),
        ("a.csv", {"schema": "id INTT"}, "--schema: column 'id': there is no type 'INTT' — did you mean 'INT'"),
        ("a.csv", {"schema": "id"}, "--schema: 'id' is not 'name TYPE'"),
        ("a.csv", {"delimiter": "::"}, "--delimiter: '::' is not one character"),
        ("c.parquet", {"schema": "id INT"}, "--schema: parquet files have types of their own"),
        ("c.parquet", {"keep": "id, m desc"}, "--keep: 'm' is map<string,bigint>, whose values have no order"),
        ("c.parquet", {"delimiter": ";"}, "--delimiter: of csv files, not of parquet"),
        ("tie.csv", {}, "',' and ';' stand equally often in its header; say which by --delimiter"),
        ("twice.csv", {}, "its header names the column ‹ID› twice"),
        ("index.csv", {}, "column 1 of its header has no name"),
        ("utf16.csv", {}, "not a text file in UTF-8"),
        ("cut.csv.gz", {}, "cannot be read"),
        ("list.json", {}, "no line of it is a JSON object"),
        ("b.txt", {}, "ends in none of"),
        ("mixed", {}, "several kinds (.csv, .parquet)"),
        ("empty", {}, "no file in it ends in one of"),
        ("hidden", {}, "no file in it ends in one of"),
        ("table", {}, "a Delta table"),
        ("nothing.jsonl", {}, "the file is empty"),
        ("nothing.csv", {}, "the file is empty"),
        ("nowhere.csv", {}, "neither a file or folder nor a table"),
        ("broken.parquet", {}, "no readable Parquet file"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path, given, options, told):
    for name, content in {
        "a.csv": b"id,text\n1,hello\n",
        "b.txt": b"hello",
        "tie.csv": b"id,text;more\n",
        "twice.csv": b"id,text,ID\n",
        "index.csv": b",text\n0,x\n",
        "utf16.csv": "id,text\n".encode("utf-16"),
        "cut.csv.gz": gzip.compress(b"id,text\n" * 9)[:12],
        "list.json": b'[\n{"id": 1}\n]\n'.replace(b"{", b"[{").replace(b"}", b"}]"),
        "nothing.jsonl": b"",
        "nothing.csv": b"",
        "broken.parquet": b"no parquet at all",
        "mixed/a.csv": b"id,text\n1,hello\n",
        "mixed/b.parquet": b"PAR1",
        "empty/below/a.csv": b"id,text\n",
        "hidden/.a.csv": b"id,text\n",
        "table/_delta_log/0.json": b"",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    entries = pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64()))
    pq.write_table(pa.table({"id": [1], "text": ["x"], "m": entries}), tmp_path / "c.parquet")
    near = {**NEAR, **{k: v for k, v in options.items() if k in ("columns", "similarity", "keep", "cluster", "unit")}}
    into, key = options.get("into", "t"), options.get("key", [])
    lake, given = Lake(str(tmp_path / "lake")), str(tmp_path / given)
    with pytest.raises((UsageError, InputMissing)) as error:
        steps = [("drop_near_duplicates", near)]
        request = one_table.Request("dedup", given, into, key, options.get("schema", ""), options.get("delimiter"))
        deduping.pipeline_of(request, steps, lake)
    assert told in str(error.value) and "\n" not in str(error.value), str(error.value)


def test_a_table_of_another_pipeline_is_not_replaced(tmp_path):
    lake, steps = Lake(str(tmp_path / "lake")), [("drop_duplicates", {"columns": ["id"]})]
    (tmp_path / "a.csv").write_text("id\n1\n")
    for table in ("t", "u_input"):
        write_deltalake(lake.path(table), pa.table({"id": [1]}))
        with pytest.raises(UsageError, match=f"--into: the table '{table}' exists and is not of"):
            deduping.pipeline_of(one_table.Request("dedup", str(tmp_path / "a.csv"), table[0]), steps, lake)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "give exactly one of --exact and --text"),
        (["--text", "a", "--exact", "a"], "give exactly one of --exact and --text"),
        (["--text", "a", "--nulls", "equal"], "--nulls can only be combined with --exact"),
        (["--exact", "a", "--cluster", "c"], "--cluster can only be combined with --text"),
        (["--exact", " , "], "--exact: name at least one column"),
        (["--text", "text", "--similarty", "0.5"], "--similarity"),
        (["--exact", "text", "--ignore", "accent"], "--ignore: "),
        (["--exact", "txt"], "--exact: there is no column 'txt'"),
    ],
)
def test_options_that_cannot_be_combined_are_refused(tmp_path, command, arguments, told):
    (tmp_path / "x.csv").write_text("id,text\n1,hello\n")
    code, _, error = command("x.csv", "--into", "t", *arguments)
    assert code == 2 and told in error and len(error.splitlines()) == 1, error


def test_nulls_are_distinct_unless_asked_and_told_to_the_step(tmp_path, monkeypatch, command):
    asked = []
    monkeypatch.setattr(deduping, "pipeline_of", lambda request, steps, lake: asked.append(steps) or 1 / 0)
    for arguments in (["--exact", "a"], ["--exact", "a", "--nulls", "equal"], ["--text", "a", "--ignore", "case"]):
        command("x.csv", "--into", "t", *arguments)
    (((_, one),), ((_, two),), ((_, three),)) = asked
    assert (DropDuplicates(**one).nulls, two["nulls"], three["ignore"]) == ("distinct", "equal", ["case"])
    assert "nulls" not in three and "ignore" not in one


@pytest.mark.slow
def test_the_biggest_clusters_are_told(spark, tmp_path, monkeypatch):
    table = Deduped(spark, tmp_path)
    table.land(["only one"])
    table.run()
    assert deduping.clusters(table.lake, "clean", table.lake.published("clean").facts["build"]) == []
    long = " ".join(f"word{i}" for i in range(60))
    table.land([long + " a b c d e", *(f"{long} {i}" for i in range(5)), "else"])
    table.run()
    build_of = table.lake.published("clean").facts["build"]
    (found,) = deduping.clusters(table.lake, "clean", build_of)
    assert found["others"] == 5 and 0.8 <= found["weakest"] < 1 and not found["giant"]
    monkeypatch.setattr(deduping, "GIANT", 4)
    assert deduping.clusters(table.lake, "clean", build_of)[0]["giant"]
    table.steps = (("drop_near_duplicates", {**NEAR, "cluster": "like"}),)
    table.run()
    assert table.ids() == list(range(8))
    (again,) = deduping.clusters(table.lake, "clean", "", "like")
    assert again == {**found, "giant": True, "weakest": pytest.approx(found["weakest"], abs=1e-6)}


def test_two_texts_stand_side_by_side():
    one, other = ({"id": i, "text": f"same line\n{w}\nmore\nof the\nsame"} for i, w in ((1, "here"), (2, "there")))
    assert trace.side_by_side(one, other, 40) == [
        ("id", "1", "2"),
        ("text", "same line", "same line"),
        ("text", "here", "there"),
        ("text", "… 3 lines alike …", "… 3 lines alike …"),
    ]
