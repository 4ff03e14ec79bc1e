"""`headgate fuse`: sources without a common key become entities, golden records and a cross-reference."""

import csv
import json
import random
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from headgate.jobs.cli import fusing
from headgate.jobs.errors import InputMissing, UsageError
from headgate.jobs.explore import entities
from headgate.jobs.explore.trace import trace
from headgate.jobs.lake.lake import Lake
from tests import lakes

NAMES = """
ada grace alan edsger barbara donald john tony leslie niklaus ken dennis brian bjarne guido linus
lovelace hopper turing dijkstra liskov knuth backus hoare lamport wirth thompson ritchie perlis gosling
oak elm maple cedar pine birch walnut chestnut spruce willow aspen poplar
"""
FIRST, LAST, STREETS = (line.split() for line in NAMES.strip().splitlines())


@pytest.fixture
def fuse(in_session):
    return in_session("fuse")


answer = partial(lakes.answer, Path())


def people(seed, n):
    """Return records of people: name, street, city, phone."""
    r = random.Random(seed)
    for i in range(n):
        name = f"{FIRST[(i * 7 + i // 16) % 16]} {LAST[(i * 5 + i // 14) % 14]}"
        street, phone = f"{r.randint(1, 400)} {r.choice(STREETS)} street", f"{r.randint(10**6, 10**7)}"
        yield [name, street, r.choice(["bern", "zug", "chur"]), phone]


def misspelt(r, text):
    i = r.randrange(len(text) - 1)
    return text[:i] + text[i + 1] + text[i] + text[i + 2 :]


def write(path, rows, header="id,name,street,city,phone"):
    Path(path).write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")


def two_sources(n=120, shared=80):
    """Write a.csv and b.csv, of which so many people stand in both, in b with faults; return the pairs of ids."""
    r, every = random.Random(1), list(people(2, 2 * n - shared))
    write("a.csv", [[f"a{i}", *p] for i, p in enumerate(every[:n])])
    b = []
    for i, (name, street, city, phone) in enumerate(every[n - shared :]):
        faults = [misspelt(r, name) if i % 3 == 0 else name, street if i % 4 else "", city, phone if i % 5 else ""]
        b.append([f"b{i}", *faults])
    write("b.csv", b)
    return {(f"a{n - shared + i}", f"b{i}") for i in range(shared)}


def test_two_sources_become_products_with_cross_reference_and_links(fuse):
    true = two_sources()
    code, out, error = fuse("a=a.csv", "b=b.csv", "--key", "id", "--into", "persons")
    assert code == 0, error
    found = set(answer("select key_a, key_b from persons_links where source_a = 'a' and source_b = 'b'"))
    assert len(found & true) >= 0.97 * len(true) and len(found - true) <= 2
    assert answer("select count(*), count(distinct source || key) from persons_xref") == [(240, 240)]
    (n,) = answer("select count(distinct entity_id) from persons_xref")
    assert answer("select count(*), count(distinct entity_id) from persons") == [(*n, *n)]
    assert answer("select count(*) from persons where records = 2") == [(len(found),)]
    assert answer("select count(*) from persons_history where valid_to is null") == [(240,)]
    assert answer("select event, count(*), sum(records) from persons_events group by 1") == [("minted", *n, 240)]
    assert answer("select count(*) from persons_xref where valid_from is null") == [(0,)]
    columns = set(answer("select evidence['name']['source'], evidence['name']['rule'] from persons"))
    assert columns == {("a", "vote"), ("b", "vote")}
    assert "compared: name as name" in out and "matches by estimate" in out
    row = answer("select _row_id from persons where records = 2 order by 1 limit 1")[0][0]
    story = trace(Lake("lake"), ".", row)
    assert {"member", "weakest bridge", "claim"} <= {e["event"] for e in story}
    pairs = entities.pairs_of(Lake("lake"), "persons")
    assert pairs == "persons_pairs"
    columns = {"source_a", "key_a", "source_b", "key_b", "same", "probability", "name_a", "name_b", "phone_b"}
    assert all(columns <= set(r) for r in entities.uncertain(Lake("lake"), pairs, 5))


@pytest.mark.slow
def test_ids_last_when_a_record_is_taken_away(fuse):
    two_sources()
    assert fuse("a=a.csv", "b=b.csv", "--key", "id", "--into", "persons")[0] == 0
    before = dict(answer("select source || key, entity_id from persons_xref"))
    lines = Path("b.csv").read_text().splitlines()
    Path("b.csv").write_text("\n".join([lines[0], *lines[2:]]) + "\n")
    code, _, error = fuse("a=a.csv", "b=b.csv", "--key", "id", "--into", "persons")
    assert code == 0, error
    after = dict(answer("select source || key, entity_id from persons_xref"))
    assert after == {k: v for k, v in before.items() if k != "bb0"}
    ended = "select source || key, valid_to > valid_from from persons_history where valid_to is not null"
    assert answer(ended) == [("bb0", True)]
    since = answer("select count(distinct valid_from), count(valid_from) from persons_xref")
    assert since == [(1, len(after))], "who stays is there since the first build"


PAIRS = "key_a,key_b,same"


@pytest.mark.slow
def test_sources_of_other_types_meet_as_text(fuse):
    """As those of a csv and a Parquet file do."""
    every = list(people(4, 30))
    write("a.csv", [[i, f"{p[0]}", p[1], p[3]] for i, p in enumerate(every)], "id,name,street,phone")
    columns = {"id": [100 + i for i in range(20)], "name": [p[0] for p in every[10:]]}
    columns |= {"street": [p[1] for p in every[10:]], "phone": pa.array([int(p[3]) for p in every[10:]])}
    pq.write_table(pa.table(columns), "b.parquet")
    code, _, error = fuse("a.csv", "b.parquet", "--key", "id", "--into", "t")
    assert code == 0, error
    found = answer("select key_a, key_b from t_links")
    assert len(found) >= 18 and all(int(b) - int(a) == 90 for a, b in found)
    assert answer("select distinct typeof(id), typeof(phone) from t_b_mapped") == [("VARCHAR", "VARCHAR")]
    assert answer("select distinct typeof(phone) from t") == [("VARCHAR",)]


@pytest.mark.slow
def test_decisions_bind_later_runs(fuse):
    two_sources()
    write(
        "decided.csv", [["a40", "b0", "no"], ["a0", "b70", "yes"], ["a1", "b71", "perhaps"], ["a2", "b72", ""]], PAIRS
    )
    code, _, error = fuse("a=a.csv", "b=b.csv", "--key", "id", "--into", "persons", "--decisions", "decided.csv")
    assert code == 0, error
    of = dict(answer("select key, entity_id from persons_xref"))
    assert of["a40"] != of["b0"] and of["a0"] == of["b70"] and of["a41"] == of["b1"]
    refused = "select evidence['same'] from ledger where reason = 'neither_yes_nor_no'"
    assert answer(refused) == [("perhaps",)]
    # The next run does not name them, and other records came.
    write(
        "a.csv",
        [["a999", "no", "body", "bern", "1"], *(r.split(",") for r in Path("a.csv").read_text().splitlines()[1:])],
    )
    code, _, error = fuse("a=a.csv", "b=b.csv", "--key", "id", "--into", "persons")
    assert code == 0, error
    later = dict(answer("select key, entity_id from persons_xref"))
    assert {k: v for k, v in later.items() if k != "a999"} == of
    # Another file adds to it, also where it names the sources and the first did not.
    write("more.csv", [["b", "b71", "a", "a3", "yes"]], "source_a,key_a,source_b,key_b,same")
    code, _, error = fuse("a=a.csv", "b=b.csv", "--key", "id", "--into", "persons", "--decisions", "more.csv")
    assert code == 0, error
    of = dict(answer("select key, entity_id from persons_xref"))
    assert of["a3"] == of["b71"] and of["a40"] != of["b0"] and of["a0"] == of["b70"]


@pytest.mark.slow
def test_pairs_that_people_reviewed_come_back_as_decisions(in_session):
    fuse, review = in_session("fuse"), in_session("review")
    two_sources()
    sources = ("a=a.csv", "b=b.csv", "--key", "id", "--into", "persons")
    assert fuse(*sources)[0] == 0
    code, _, error = review("persons", "--csv", "review.csv", "--limit", "6")
    assert code == 0, error
    with open("review.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    answers = {(r["key_a"], r["key_b"]): a for r, a in zip(rows, ["no", "yes", "no", "YES", "", ""], strict=True)}
    with open("review.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(r | {"same": answers[r["key_a"], r["key_b"]]} for r in rows)
    code, _, error = fuse(*sources, "--decisions", "review.csv")
    assert code == 0, error
    rules = {
        (a, b): (rule, linked) for a, b, rule, linked in answer("select key_a, key_b, rule, linked from persons_pairs")
    }
    wanted = {"no": ("cannot_link", False), "yes": ("must_link", True)}
    for pair, said in answers.items():
        assert said.lower() not in wanted or rules[pair] == wanted[said.lower()], pair
    assert sum(rule in ("must_link", "cannot_link") for rule, _ in rules.values()) == 4
    of = dict(answer("select key, entity_id from persons_xref"))
    for (a, b), said in answers.items():
        assert not said or (of[a] == of[b]) == (said.lower() == "yes")
    # Who was decided on is not asked again.
    assert review("persons", "--csv", "more.csv", "--limit", "6")[0] == 0
    with open("more.csv", newline="") as file:
        assert not {(r["key_a"], r["key_b"]) for r in csv.DictReader(file)} & {p for p, said in answers.items() if said}


@pytest.mark.slow
def test_what_suggest_prints_is_given_back(in_session):
    fuse = in_session("fuse")
    two_sources()
    lines = Path("b.csv").read_text().splitlines()
    Path("b.csv").write_text("\n".join(["number,full_name,street_address,town,telephone", *lines[1:]]) + "\n")
    code, out, error = fuse("a=a.csv", "b=b.csv", "--suggest")
    assert code == 0, error
    Path("b.yaml").write_text(out.replace("columns:", "columns:\n      id: number"))
    sources = ("a=a.csv", "b=b.csv", "--key", "id", "--into", "persons")
    code, _, error = fuse(*sources, "--mapping", "b.yaml")
    assert code == 0, error
    assert answer("select count(*), count(distinct key) from persons_xref where source = 'b'") == [(120, 120)]
    assert answer("select count(*) > 70 from persons_links where source_a = 'a' and key_a <> key_b") == [(True,)]
    assert answer("select count(*) from persons_b_mapped where name is not null and phone is not null") != [(0,)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("mapping: {x: {columns: {name: who}}}", "--mapping: m.yaml: there is no source 'x' (sources: a, c)"),
        ("mapping: {c: {columns: {name: whom}}}", "--mapping: m.yaml: c: name: there is no column 'whom' here"),
        ("mapping: {c: {columns: {name: who}, other: keep}}", "m.yaml:1: mapping.c.other: unknown option 'other'"),
        ("tables: {}", "--mapping: m.yaml does not hold a mapping of sources alone"),
        ("mapping: {c: {columns: {id: {value: 1}, name: who}}}", "id: the source has a column 'id' itself"),
    ],
)
def test_a_mapping_that_is_wrong_is_said(tmp_path, monkeypatch, text, told):
    monkeypatch.chdir(tmp_path)
    write("a.csv", [["1", "ada"]], "id,name")
    write("c.csv", [["1", "ada"]], "id,who")
    Path("m.yaml").write_text(text)
    with pytest.raises(UsageError) as error:
        fusing.pipeline_of(
            fusing.Fusion(inputs=["a.csv", "c.csv"], into="t", key=["id"], mapping="m.yaml"), Lake("lake")
        )
    assert told in str(error.value) and "\n" not in str(error.value), str(error.value)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("a=a.csv", "c=c.csv", "--key", "id"), "the sources share no column beside the key id"),
        (("a=a.csv", "a=c.csv"), "'a' names two sources"),
        (("a=a.csv", "pairs=c.csv"), "'pairs' is a name that this command uses"),
        (("a=a.csv", "c=nowhere.csv"), "nowhere.csv: neither a file or folder nor a table of the lake"),
        (("a=a.csv", "--key", "idd"), "a: --key: there is no column 'idd' — did you mean 'id'"),
        (("a=a.csv", "--columns", "nam"), "--columns: there is no column 'nam' — did you mean 'name'"),
        (("a=a.csv", "--labels", "a.csv"), "--labels: needs --key"),
        (("a=a.csv", "--key", "id", "--labels", "none.csv"), "--labels: there is no file none.csv"),
        (("a=a.csv", "--key", "id", "--labels", "c.csv"), "--labels: c.csv is not a csv with three columns"),
        (("a=a.csv", "--threshold", "1.5"), "threshold: 1.5 is not a probability"),
        (("empty.csv",), "the file is empty"),
        (
            ("a=a.csv", "d=d.csv"),
            "column 'name' of a and 'NAME' of d differ only in case: rename one",
        ),
        (("a=a.csv", "f=f.parquet"), "column 'name' is string in a and binary in f: rename one of them"),
        (("a=a.csv", "g=g.csv"), "g: 'entity_id', 'Records': this command gives columns of such names a meaning of"),
        (("a=a.csv", "--key", "song id"), "a: --key: there is no column 'song id'"),
        (("a=a.csv", "--key", "ID"), "a: --key: there is no column 'ID' — did you mean 'id'?"),
        (("a=a.csv", "labels_input=c.csv"), "'t_labels_input' would be two tables: give --into another name"),
        (("a=a.csv", "l=l.csv"), "one in Latin-1: iconv -f latin1 -t utf-8 l.csv > NEW"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    write("a.csv", [["1", "ada", "x", "y", "z"]])
    write("c.csv", [["1", "ada"]], "id,who")
    write("d.csv", [["1", "ada"]], "id,NAME")
    write("g.csv", [["1", "ada", "e", "r"]], "id,name,entity_id,Records")
    Path("l.csv").write_bytes("id,prénom,name\n".encode("latin-1"))
    pq.write_table(pa.table({"name": [b"ada"]}), "f.parquet")
    Path("empty.csv").write_text("")
    inputs = [a for i, a in enumerate(arguments) if not a.startswith("--") and not arguments[i - 1].startswith("--")]
    options = {a[2:]: arguments[i + 1] for i, a in enumerate(arguments) if a.startswith("--")}
    fusion = fusing.Fusion(
        inputs=inputs,
        into="t",
        key=[options["key"]] if "key" in options else [],
        labels=options.get("labels"),
        threshold=float(options["threshold"]) if "threshold" in options else None,
        columns=[options["columns"]] if "columns" in options else [],
    )
    with pytest.raises((UsageError, InputMissing)) as error:
        fusing.pipeline_of(fusion, Lake("lake"))
    assert told in str(error.value) and "\n" not in str(error.value), str(error.value)


SONG = {"Song ID": "Song_ID", "Song Name": "Song_Name"}


@pytest.mark.parametrize(
    ("headers", "asked", "renamed"),
    [
        (("Song ID,Song Name", "Song ID,Song Name"), "Song ID", SONG),
        (("Song ID,Song Name", "Song_ID,Song_Name"), "Song ID", SONG),
        (("Song ID,Song Name", "Song_ID,Song_Name"), "Song_ID", SONG),
        (("ltable.id,Price (USD)", "ltable.id,Price_USD"), "ltable.id", {"Price (USD)": "Price_USD"}),
        (("id,a b,a_b,A=B", "id,a_b"), "id", {"A=B": "A_B_2", "a b": "a_b_3"}),
        (("=( ),name", "column,name"), "=( )", {"=( )": "column"}),
        ((" _row_id, id,x", "id,x"), "id", {" _row_id": "_row_id_2", " id": "id"}),
    ],
)
def test_headers_that_delta_cannot_hold(tmp_path, monkeypatch, headers, asked, renamed):
    """As tables of the field have: they come under names that it can hold, and may be named either way."""
    monkeypatch.chdir(tmp_path)
    for name, header in zip("ab", headers, strict=True):
        write(f"{name}.csv", [], header)
    pipeline, _ = fusing.pipeline_of(fusing.Fusion(inputs=["a.csv", "b.csv"], into="t", key=[asked]), Lake("lake"))
    assert fusing.renamed_in(pipeline)["t_a"] == renamed
    assert pipeline.steps["t_pairs"][-1].key == (renamed.get(asked, asked),)
    landed = pipeline.tables["t_a_raw"].source
    assert list(landed.key) == ([given for given, new in renamed.items() if asked in (given, new)] or [asked])


@pytest.mark.parametrize(
    "mapping",
    [
        "{Song_ID: id_no, Song_Name: {of: the_title}, n: {value: 1}}",
        "{Song ID: id no, Song Name: {of: the title}, n: {value: 1}}",
    ],
)
def test_a_mapping_has_names_as_published_or_as_in_the_files(tmp_path, monkeypatch, mapping):
    monkeypatch.chdir(tmp_path)
    write("a.csv", [], "Song ID,Song Name")
    write("b.csv", [], "id no,the title")
    Path("m.yaml").write_text(f"mapping: {{b: {{columns: {mapping}}}}}")
    fusion = fusing.Fusion(inputs=["a.csv", "b.csv"], into="t", key=["Song ID"], mapping="m.yaml")
    pipeline, _ = fusing.pipeline_of(fusion, Lake("lake"))
    (step,) = pipeline.steps["t_b_mapped"]
    assert {new: of.of for new, of in step.columns.items()} == {"Song_ID": "id_no", "Song_Name": "the_title", "n": None}
    assert pipeline.tables["t_b_raw"].source.key == ("id no",) and pipeline.steps["t_pairs"][-1].key == ("Song_ID",)


def test_names_of_files_that_no_table_can_have(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("Données (1).csv", "2024.csv", "l.csv"):
        write(name, [], "left id,right id,same?" if name == "l.csv" else "id,name")
    inputs = ["Données (1).csv", "2024.csv"]
    fusion = fusing.Fusion(inputs=inputs, into="t", key=["id"], labels="l.csv")
    pipeline, _ = fusing.pipeline_of(fusion, Lake("lake"))
    assert pipeline.starts("t_pairs") == ("t_donnees_1", "t_source_2024")
    assert pipeline.raw_of == {"t_labels_input_raw": "t_labels_input"}, "labels under names that Delta can hold"
    assert "`left_id`" in str(pipeline.steps["t_labels"][1]), pipeline.steps["t_labels"]


def test_names_arrays_and_keys_as_files_of_the_field_have_them(fuse):
    every = list(people(4, 40))
    tags = [["x", p[1]] for p in every]
    columns = {"Song ID": [f"a{i}" if i > 1 else None for i in range(30)], "Song Name": [p[0] for p in every[:30]]}
    columns |= {"street (home)": [p[1] for p in every[:30]], "tags": tags[:30], "n": [[i] for i in range(30)]}
    pq.write_table(pa.table(columns), "a.parquet")
    rows = [
        {"Song ID": f"b{i}", "Song Name": p[0], "street (home)": p[1], "tags": t}
        for i, (p, t) in enumerate(zip(every[10:], tags[10:], strict=True))
    ]
    Path("b.jsonl").write_text("\n".join(map(json.dumps, rows)))
    sources = ("a.parquet", "b.jsonl", "--key", "Song ID", "--into", "t")
    code, _, error = fuse(*sources)
    assert code == 0, error
    names = "‹Song ID› as Song_ID, ‹Song Name› as Song_Name, ‹street (home)› as street_home"
    assert [line for line in error.splitlines() if line.startswith(("a:", "b:"))] == [
        f"a: published under names that Delta can hold: {names}",
        f"b: published under names that Delta can hold: {names}",
        "a: 2 records without Song ID: t_xref shows no key of theirs",
    ]
    found = answer("select key_a, key_b from t_links")
    assert len(found) >= 18 and all(int(a[1:]) - int(b[1:]) == 10 for a, b in found)
    assert answer("select distinct typeof(tags), typeof(n) from t") == [("VARCHAR", "BIGINT[]")]
    assert answer("select count(*), count(key) from t_xref") == [(60, 58)]
    code, out, error = fuse(*sources, "--refit")
    assert code == 0 and "up to date" in out, error
    assert error.endswith("--refit: the records are those that the present pairs were learned from\n")


def test_files_of_pairs_that_name_their_columns_otherwise_are_refused(tmp_path, monkeypatch):
    """Pairs of earlier files count as well: their columns would be read as empty."""
    monkeypatch.chdir(tmp_path)
    write("a.csv", [["1", "ada"]], "id,name")
    write("d.csv", [["1", "2", "yes"]], "key_a,key_b,same")
    lake = Lake("lake")
    write_deltalake(lake.path("t_decisions_input"), pa.table({c: ["1"] for c in ("x", "y", "z", "_row_id")}))
    lake.record("runs", [{"pipeline": "fuse_t", "run_id": "r"}])
    with pytest.raises(UsageError, match=r"d\.csv has the columns key_a, key_b, same, but files .* have x, y, z: name"):
        fusing.pipeline_of(fusing.Fusion(inputs=["a.csv"], into="t", key=["id"], decisions="d.csv"), lake)


def test_what_came_in_stays_where_nothing_can_be_compared_and_a_later_run_goes_on(fuse):
    """No release of this pipeline is not no release at all: another pipeline has one."""
    Lake("lake").publish_release("other", "r", {}, None, None, None)
    write("one.csv", [["1", "", "", "", ""], ["2", "", "", "", ""]])
    code, out, error = fuse("one=one.csv", "--key", "id", "--into", "persons")
    assert (code, out) == (2, ""), error
    assert (
        "published, but in no release: persons_one version 0; the pipeline 'fuse_persons' has no release yet" in error
    )
    assert "no column can be compared" in error.splitlines()[-1]
    assert answer("select count(*) from persons_one") == [(2,)] and Lake("lake").tables() == ["persons_one"]
