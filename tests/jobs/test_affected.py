"""What a change of the inputs affects, made again, is what a full build gives, over random nights."""

import random
from collections import Counter

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from headgate.jobs.config.pipeline import load_pipeline
from headgate.jobs.keep.optimize import optimize
from headgate.jobs.lake.arranging import Order
from headgate.jobs.lake.frames import frame
from headgate.jobs.pipeline import affected, changed
from headgate.jobs.pipeline.context import BuildContext
from headgate.jobs.pipeline.run import dry_run
from headgate.transforms.rows import content_of
from headgate.transforms.step import MakeAll
from tests.lakes import Faults, Killed, again, answer, content, die, environment_of, lake_of, land, rows, write_pipeline

STEPS = """
    steps:
      - normalize_text: {columns: [name]}
      - cast: {columns: {at: int}}
      - drop_duplicates: {columns: [name], keep: "at desc"}
      - drop_duplicates: {columns: [city, at], keep: name}
      - join_table: {table: raw_cities, on: {city: city}, columns: {mayor: mayor}, matched: found}
      - split_by_hash: {key: [id], shares: {train: 0.8, test: 0.2}}
    suite: any
    quarantine_ceiling: 0.9
"""
TABLES = f"""
  raw_people:
    source:
      format: csv
      path: 'people/*.csv'
      schema: 'id INT, name STRING, city STRING, at STRING'
      key: [id]
      on_changed_file: replace
    suite: null
  raw_cities:
    source:
      format: csv
      path: 'cities/*.csv'
      schema: 'city STRING, mayor STRING'
      key: [city]
      on_changed_file: replace
    suite: null
  part:
    from: raw_people{STEPS}
  whole:
    from: raw_people{STEPS}    publish: {{mode: replace}}
  later:
    from: part
    steps:
      - derive: {{columns: {{shout: upper(name)}}}}
      - drop_duplicates: {{columns: [shout, mayor], keep: id}}
    suite: any
  later_whole:
    from: whole
    steps:
      - derive: {{columns: {{shout: upper(name)}}}}
      - drop_duplicates: {{columns: [shout, mayor], keep: id}}
    suite: any
    publish: {{mode: replace}}
"""
YOUNG = (
    "{type: expect_column_values_to_not_be_in_set, kwargs: {column: city, value_set: [c4]}, "
    "meta: {dimension: validity, on_row_fail: quarantine}}"
)


@pytest.fixture(autouse=True)
def changes_alone_of_small_tables_too(monkeypatch):
    monkeypatch.setattr(affected, "SMALL", 0)


def people(choose: random.Random, first: int, number: int) -> str:
    lines = [
        f"{i},{choose.choice(['n', ' N ', 'n '])}{choose.randint(0, 25)},c{choose.randint(0, 5)},"
        f"{choose.choice(['', 'x', *map(str, range(6))])}"
        for i in range(first, first + number)
    ]
    return "\n".join(["id,name,city,at", *lines]) + "\n"


def named(row: str) -> str:
    """A row of a table of which parts are built, with the names that its twin's steps have."""
    return row.replace('"part/', '"whole/').replace('"later/', '"later_whole/')


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 3, 4])
def test_what_changed_alone_gives_what_a_full_build_gives(spark, tmp_path, monkeypatch, seed):
    choose = random.Random(seed)
    if seed == 3:
        monkeypatch.setattr(affected, "TIES_AT_ONCE", 0)
        monkeypatch.setattr(changed, "AT_ONCE", 0)
    looked, differing = Counter(), changed.differing
    monkeypatch.setattr(changed, "differing", lambda run, *at: looked.update([(run.run_id, at)]) or differing(run, *at))
    write_pipeline(tmp_path, TABLES, YOUNG)
    land(tmp_path, "cities/all.csv", "city,mayor\n" + "".join(f"c{i},m{i}\n" for i in range(5)))
    for n in range(4):
        land(tmp_path, f"people/{n}.csv", people(choose, n * 30, 30))
    again(spark, tmp_path)
    ways = set()
    for night in range(3):
        if night:
            optimize(lake_of(tmp_path), order=Order(("_row_id",)) if night == 1 else None)
            assert again(None, tmp_path).built == 0, "the rows are in other files, and that is all"
        if night != 1:
            land(tmp_path, f"people/{4 + night}.csv", people(choose, (4 + night) * 30, 8))
        if night in (1, 2):  # a file that was there comes with other rows
            land(tmp_path, f"people/{night}.csv", people(choose, night * 30 + choose.randint(0, 5), 20))
        if night == 1:
            land(tmp_path, "cities/all.csv", "city,mayor\n" + "".join(f"c{i},m{i % 3}{i == 2}\n" for i in range(6)))
        if night == 2:
            with pytest.raises(Killed):
                again(spark, tmp_path, progress=Faults(before={("part", "balance"): die}))
        again(spark, tmp_path)
        for part, whole in (("part", "whole"), ("later", "later_whole")):
            found = [named(r) for r in content(tmp_path, part)]
            assert found == content(tmp_path, whole), (night, part)
            published = lake_of(tmp_path).published(part)
            ways.add((part, published.facts["moved"] is not None))
            total = content_of(frame(spark, lake_of(tmp_path), part, published.version))
            assert published.facts["content_total"] == total[1]
            assert published.rows == len(rows(tmp_path, "_row_id", part))
    assert seed == 3 or max(looked.values()) == 1, "what differs in a table is found once in a run"
    assert ("part", True) in ways, "some night must have been built from what changed alone"
    assert answer(tmp_path, "select count(*) from part")[0][0] > 20


CHAIN = """
  raw:
    source: {format: csv, path: 'raw/*.csv', schema: 'id INT, v STRING', key: [id], on_changed_file: replace}
    suite: null
  t:
    from: raw
    steps: [drop_duplicates: {columns: [v]}]
    suite: null
"""


def tied(number: int) -> pa.Table:
    """Rows 0, 1, 2, …, each tied to the next one by one of two values in turn, and as many that are tied to nobody."""
    ids, alone = list(range(number)), [None] * number
    names = pa.array([f"r{i}" for i in range(2 * number)])
    one, other = ([*((i + odd) // 2 for i in ids), *alone] for odd in (0, 1))
    return pa.table({"_row_id": names, "one": pa.array(one, pa.int64()), "other": pa.array(other, pa.int64())})


@pytest.mark.parametrize("links", [0, 1, 3, 100])
def test_a_chain_of_ties_is_followed_to_its_end(monkeypatch, links):
    monkeypatch.setattr(affected, "LINKS", links)
    found = affected.closed_at_once(pa.array(["r3", "new"]), tied(30))
    assert sorted(found.to_pylist()) == sorted(["new", *(f"r{i}" for i in range(30))])
    assert affected.closed_at_once(pa.array(["r40", "r50"]), tied(30)).to_pylist() == ["r40", "r50"]


def test_a_long_chain_of_very_many_ties_has_all_made_anew(spark, tmp_path, monkeypatch):
    monkeypatch.setattr(affected, "TIES_AT_ONCE", 0)
    monkeypatch.setattr(affected, "LINKS", 3)
    context = BuildContext(spark, str(tmp_path))
    ids = spark.createDataFrame(pa.table({"_row_id": ["r0"]}))
    name = affected.closed(ids, spark.createDataFrame(tied(3)), context)
    kept = spark.read.parquet(f"{tmp_path}/{context.state}/{name}")
    assert sorted(r["_row_id"] for r in kept.collect()) == ["r0", "r1", "r2"]
    with pytest.raises(MakeAll, match="through more than 3 others"):
        affected.closed(ids, spark.createDataFrame(tied(9)), context)


def what(folder) -> str:
    file = folder / "p.yaml"
    return dry_run(load_pipeline(file), environment_of(folder), lake_of(folder), ["t"], None, False)[-1]["what"]


def test_why_all_of_a_table_is_built(spark, tmp_path, monkeypatch):
    write_pipeline(tmp_path, CHAIN)
    for n in range(4):
        land(tmp_path, f"raw/{n}.csv", "id,v\n" + "".join(f"{n * 20 + i},v{i}{n}\n" for i in range(20)))
    again(spark, tmp_path)
    land(tmp_path, "raw/4.csv", "id,v\n99,v00\n")
    again(spark, tmp_path, tables=["raw"])
    monkeypatch.setattr(affected, "SMALL", 1 << 20)
    assert what(tmp_path) == "all of it: there is little of it"
    monkeypatch.setattr(affected, "SMALL", 0)
    assert what(tmp_path) == "what changed in raw"
    DeltaTable(lake_of(tmp_path).path("raw")).delete("id = 3")
    assert what(tmp_path) == "all of it: 'raw' changed otherwise than by builds, or has other columns"
    again(spark, tmp_path, tables=["t"])
    assert lake_of(tmp_path).published("t").facts["moved"] is None
    write_pipeline(tmp_path, CHAIN.replace("columns: [v]", "columns: [v], keep: id desc"))
    assert "configuration" in what(tmp_path)
