"""What an entity is made of, the uncertain pairs that people look at, and pictures of scores; all without Spark."""

import csv
import json
import sys

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from rich.console import Console

from headgate.jobs.cli import main as cli
from headgate.jobs.cli import reviewing
from headgate.jobs.lake.lake import Lake

PARTS = {"(prior)": -12.0, "name": 9.5, "city": 4.0}
PAIRS = [  # ids and keys, score, probability, linked, rule
    ("r1", "a1", "r2", "b1", 9.0, 0.998, True, "model"),
    ("r2", "b1", "r3", "b2", 1.5, 0.74, True, "model"),
    ("r1", "a1", "r3", "b2", -0.2, 0.46, False, "model"),
    ("r4", "a9", "r5", "b9", 0.1, 0.52, False, "cannot_link"),
]
WHY = {"source": "a", "rule": "vote", "confidence": 0.67, "runner_up": "Adda", "conflict": True}


@pytest.fixture
def lake(tmp_path):
    """A lake as `headgate fuse` leaves it: records, their pairs, entities, golden records."""
    lake = Lake(str(tmp_path / "lake"))
    people = [("r1", "a1", "Ada"), ("r2", "b1", "Ada"), ("r3", "b2", "Adda"), ("r4", "a9", "Bo"), ("r5", "b9", "Bob")]
    alone = {"entity_size": 1, "weakest_link": None, "weakest_pair": None}
    three = {"entity_id": "e1", "entity_size": 3, "weakest_link": 1.5, "weakest_pair": ["r2", "r3"]}
    of = {"r1": three, "r2": three, "r3": three, "r4": alone | {"entity_id": "e4"}, "r5": alone | {"entity_id": "e5"}}
    columns = ["_row_id", "id", "name"]
    records = [{**dict(zip(columns, p, strict=True)), "key": f"k{p[1]}", "tags": [p[2], "x"]} for p in people]
    ends = ["id_a", "key_a", "id_b", "key_b", "score", "probability", "linked", "rule"]
    pairs = [
        {**dict(zip(ends, p, strict=True)), "_row_id": f"p{i}", "source_a": "a", "source_b": "b", "pattern": "1 5"}
        for i, p in enumerate(PAIRS)
    ]
    weights = pa.array([list(PARTS.items())] * len(pairs), pa.map_(pa.string(), pa.float64()))
    entities = [r | of[r["_row_id"]] for r in records]
    golden = pa.table({"_row_id": ["g1"], "entity_id": ["e1"], "records": [3], "_parents": [["r1", "r2", "r3"]]})
    evidence = pa.array([[("name", WHY), ("tags", WHY)]], pa.map_(pa.string(), pa.infer_type([WHY])))
    golden = golden.append_column("name", [["Ada"]]).append_column("tags", [[["Ada", "x"]]])
    golden = golden.append_column("evidence", evidence)
    tables = {"t_raw": pa.Table.from_pylist(records), "t_entities": pa.Table.from_pylist(entities), "t": golden}
    tables["t_pairs"] = pa.Table.from_pylist(pairs).append_column("weights", weights)
    for name, rows in tables.items():
        write_deltalake(lake.path(name), rows)
    made = {"t_pairs": ["t_raw"], "t_entities": ["t_raw", "t_pairs"], "t": ["t_entities"]}
    lake.record("lineage", [{"table_name": t, "build": "x", "input": i} for t, inputs in made.items() for i in inputs])
    return lake


@pytest.fixture
def here(lake, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["headgate", *arguments, "--lake", lake.root])
        code = cli.exit_code()
        out, error = capsys.readouterr()
        return code, out, error

    return run


@pytest.mark.parametrize(("row", "claimed"), [("g1", True), ("r1", False)])
def test_an_entity_is_traced_to_its_records_links_and_claims(here, row, claimed):
    code, out, error = here("trace", row, "--json")
    assert code == 0, error
    story = [(e["event"], e["detail"]) for e in json.loads(out)]
    assert [d.split(":")[0] for e, d in story if e == "member"] == ["r1", "r2", "r3"]
    assert [d.split(":")[0] for e, d in story if e == "weakest bridge"] == ["a b1 and b b2"]
    assert [d.split(":")[0] for e, d in story if e == "not linked"] == ["a a1 and b b2"]
    (link,) = [d for e, d in story if e == "link"]
    assert link.endswith("9.0 bits, probability 0.998 by model ((prior) -12.0, name +9.5, city +4.0)")
    sure = "by vote of a, confidence 0.67; the records say"
    wanted = [f"name=Ada {sure} Ada (2); Adda (1)", f"tags=['Ada', 'x'] {sure} ['Ada', 'x'] (2); ['Adda', 'x'] (1)"]
    assert [d for e, d in story if e == "claim"] == (wanted if claimed else [])


def test_the_least_sure_pairs_are_shown_side_by_side(here, tmp_path):
    code, out, error = here("review", "t", "--csv", "review.csv", "--limit", "2")
    assert code == 0 and "2 pairs in review.csv" in out, error
    rows = list(csv.DictReader((tmp_path / "review.csv").open()))
    assert [(r["key_a"], r["key_b"], r["same"], r["name_a"], r["name_b"]) for r in rows] == [
        ("a1", "b2", "", "Ada", "Adda"),
        ("b1", "b2", "", "Ada", "Adda"),
    ], "nothing that people decided"
    assert rows[0]["its_key_a"] == "ka1" and rows[0]["its_key_b"] == "kb2", "a column `key` of the records"
    code, out, _ = here("review", "t_pairs", "--json")
    assert code == 0 and len(json.loads(out)) == 3


def test_pairs_fit_a_terminal(here, lake, monkeypatch):
    """Each by itself: of many and long columns those that differ, from where they do."""
    long = "the same words again and again, and once more, " * 3
    records = [
        {"_row_id": f"r{i}", "id": f"k{i}", "text": f"{long}{i}", "tags": [i], "none": None, "city": "Bern"}
        | {f"c{j}": f"{i if j == 7 else 0}" for j in range(20)}
        for i in (1, 2, 3)
    ]
    write_deltalake(lake.path("t_raw"), pa.Table.from_pylist(records), mode="overwrite", schema_mode="overwrite")
    monkeypatch.setattr(reviewing, "console", lambda: Console(width=80, highlight=False, markup=False))
    code, out, error = here("review", "t", "--limit", "2")
    assert code == 0, error
    assert out.startswith("-- pair 1: probability 0.460, score -0.2 bits\n      a a1")
    assert all(len(line) <= 80 for line in out.splitlines())
    first = [line.split() for line in out.split("-- pair 2")[0].splitlines()]
    assert [cells[0] for cells in first[2:-1]] == ["id", "text", "tags", "c7"]
    assert first[3][-1].endswith("3") and first[-1][:3] == ["alike:", "city,", "c0,"], out


def test_pairs_of_records_without_a_key(here, lake, tmp_path):
    pairs = lake.need_table("t_pairs").to_pyarrow_table().to_pylist()
    keys = {"r1": None}
    pairs = [p | {"key_a": keys.get(p["id_a"], p["key_a"]), "weights": None} for p in pairs]
    kinds = lake.need_table("t_pairs").schema().to_arrow()
    table = pa.Table.from_pylist(pairs, schema=pa.schema(kinds))
    write_deltalake(lake.path("t_pairs"), table, mode="overwrite")
    assert here("review", "t", "--csv", "review.csv")[0] == 0
    rows = list(csv.DictReader((tmp_path / "review.csv").open()))
    assert sorted((r["key_a"], r["key_b"]) for r in rows) == [("", "b1"), ("", "b2"), ("b1", "b2")]
    code, out, error = here("review", "t")
    assert code == 0 and ["a", "b", "b2"] in [line.split() for line in out.splitlines()], error + out


def test_one_pair_is_explained(here):
    code, out, error = here("review", "t", "--pair", "b1", "a1")
    assert code == 0, error
    assert [line.split() for line in out.splitlines() if line.split()[-1:] in (["9.5"], ["9.0"])] == [
        ["name", "9.5"],
        ["score", "9.0"],
    ]


@pytest.mark.slow
def test_pictures(here, tmp_path):
    pytest.importorskip("matplotlib")
    code, _, error = here("review", "t", "--pair", "b1", "a1", "--plot", "why.png")
    assert code == 0, error
    assert (tmp_path / "why.png").read_bytes().startswith(b"\x89PNG")
    assert here("review", "t", "--plot", "x.nope")[2].startswith("headgate: --plot: x.nope cannot be written")
    assert here("review", "t", "--plot", "scores.svg")[0] == 0 and "<svg" in (tmp_path / "scores.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["t_raw"], 2, "'t_raw' has no table of pairs behind it"),
        (["t", "--pair", "a1", "zz"], 4, "has no pair of a1 and zz"),
        (["t", "--pair", "a1", "b1", "--csv", "x.csv"], 2, "--csv cannot be combined with --pair"),
        (["t", "--csv", "no/where.csv"], 2, "--csv: no/where.csv cannot be written: No such file or directory"),
    ],
)
def test_what_cannot_be_reviewed(here, arguments, code, told):
    ended, out, error = here("review", *arguments)
    assert (ended, out) == (code, "") and told in error and len(error.splitlines()) == 1, error
