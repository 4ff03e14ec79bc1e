"""Explaining, keeping, discarding, verifying and erasing, on a small lake of people and cities with two releases."""

import gzip
import json
import math
import os
import shutil
from datetime import date
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from deltalake import DeltaTable, write_deltalake

from headgate.jobs.config.pipeline import load_pipeline
from headgate.jobs.errors import HeadgateError, InputMissing, LostRace, UsageError
from headgate.jobs.explore import diff, lineage, trace
from headgate.jobs.keep import retention as keeping
from headgate.jobs.keep.erasure import certificate as erasure
from headgate.jobs.keep.erasure import rewrite
from headgate.jobs.keep.erasure.cells import Emptying, trace_cells
from headgate.jobs.keep.erasure.reach import reach
from headgate.jobs.keep.erasure.texts import Fingerprints
from headgate.jobs.keep.restore import restore
from headgate.jobs.keep.verify import verify
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.system import SCHEMAS
from headgate.jobs.pipeline.origins import columns_of
from headgate.jobs.progress import Progress
from tests.lakes import (
    Faults,
    Killed,
    again,
    answer,
    dies,
    environment_of,
    lake_of,
    land,
    write_pipeline,
    write_suite,
)

PLANTED = "Zanzibar Quux"
PIPELINE = """
pipeline: people
suites: .
tables:
  raw_people:
    source:
      format: csv
      path: people/*.csv
      schema: id INT, name STRING, email STRING, city STRING, age INT
      key: [id]
    suite: any
  raw_cities:
    source: {format: csv, path: 'cities/*.csv', schema: 'city STRING, mayor STRING', key: [city]}
    suite: any
  people:
    from: raw_people
    steps:
      - drop_duplicates: {columns: [email], keep: id}
      - impute_mean: {columns: [age]}
    suite: people
  placed:
    from: people
    steps:
      - join_table: {table: raw_cities, on: {city: city}, columns: {mayor: mayor}, matched: placed}
      - derive: {columns: {greeting: "concat(name, ' of ', mayor)"}}
    suite: any
"""
PEOPLE = (
    "{type: expect_column_distinct_values_to_contain_set, kwargs: {column: name, value_set: [nobody]}, "
    "severity: warning, meta: {dimension: validity}}",
    "{type: expect_column_max_to_be_between, kwargs: {column: age, max_value: 200}, meta: {dimension: validity}}",
)


@pytest.fixture(scope="module")
def built(spark, tmp_path_factory) -> Path:
    """Two nights of people; tests read it and do not write."""
    folder = tmp_path_factory.mktemp("people")
    (folder / "p.yaml").write_text(PIPELINE)
    write_suite(folder, "any")
    write_suite(folder, "people", *PEOPLE)
    head = "id,name,email,city,age\n"
    rows = [
        f"{i},n{i},e{i}@x.org,{'Atlantis' if i % 7 == 0 else 'Rome'},{'' if i % 5 == 0 else i}\n" for i in range(1, 41)
    ]
    planted = [f"42,{PLANTED},shared@x.org,Rome,90\n", "43,twin,shared@x.org,Rome,33\n", "bad,line\n"]
    land(folder, "people/a.csv", head + "".join(rows + planted))
    land(folder, "cities/a.csv", "city,mayor\nRome,Ada Mayor\nAtlantis,Poseidon Deep\n")
    again(spark, folder)
    land(folder, "people/b.csv", head + "50,n50,e50@x.org,Rome,199\n" + planted[0])
    again(spark, folder)
    return folder


@pytest.fixture
def people(built, tmp_path) -> Path:
    shutil.copytree(built, tmp_path / "own")
    return tmp_path / "own"


def id_of(folder: Path, person: int) -> str:
    return answer(folder, f"select _row_id from raw_people where id = {person}")[0][0]


# -- explain


def test_trace_tells_where_a_row_came_from_and_where_it_is(people):
    lake, landing = lake_of(people), str(people / "landing")
    story = trace.trace(lake, landing, id_of(people, 5))
    told = [(e["table"], e["event"]) for e in story]
    assert told == [
        ("raw_people", "arrived"),
        ("raw_people", "published"),
        ("people", "changed"),
        ("people", "published"),
        ("placed", "changed"),
        ("placed", "joined"),
        ("placed", "published"),
    ]
    assert story[0]["detail"] == "people/a.csv, line 6"
    assert story[2]["detail"] == "age by people/1-impute_mean" and "version 1 (people-2)" in story[3]["detail"]


def test_trace_tells_why_a_row_is_not_there(people):
    lake, landing = lake_of(people), str(people / "landing")
    story = trace.trace(lake, landing, id_of(people, 43))
    rejected = next(e for e in story if e["event"] == "rejected")
    assert rejected["table"] == "people" and rejected["evidence"]["kept_row_id"] == id_of(people, 42)
    assert "drop_duplicates: exact_duplicate (columns=email" in rejected["detail"]
    malformed = answer(people, "select row_id from ledger where reason = 'malformed_record'")[0][0]
    assert "line=44" in trace.trace(lake, landing, malformed)[0]["detail"]
    assert trace.ids_of(lake, "people", {"id": "42"}) == [id_of(people, 42)]
    assert trace.ids_of(lake, "people", {"id": "43"}) == [id_of(people, 43)]  # rejected by a step
    assert trace.ids_of(lake, "people", {"id": "43", "name": "n5"}) == []
    for table, key in (("raw_people", {"id": "bad"}), ("people", {"name": "line", "id": "bad"})):
        assert trace.ids_of(lake, table, key) == [malformed]
    with pytest.raises(InputMissing, match="no table and no ledger entry"):
        trace.trace(lake, landing, "nobody")
    with pytest.raises(UsageError, match="did you mean 'email'"):
        trace.ids_of(lake, "people", {"emial": "x"})
    with pytest.raises(UsageError, match="'x' is no int32"):
        trace.ids_of(lake, "people", {"id": "x"})


def test_diff_of_versions_and_releases(people):
    lake = lake_of(people)
    told = diff.diff(lake, "people@0", "people@1")[0]
    assert (told["added"], told["removed"], told["changed"]) == (1, 0, told["columns"]["age"]["cells"])
    assert told["columns"]["age"]["cells"] == 8 and told["schema"] == []  # the mean of the ages moved
    added = next(e for e in told["examples"] if e["kind"] == "added")
    assert added["key"]["_row_id"] == id_of(people, 50)
    by_key = diff.diff(lake, "people@people-1", "people@latest", ["id"])[0]
    assert by_key["added"] == 1 and next(e for e in by_key["examples"] if e["kind"] == "added")["key"] == {"id": 50}
    releases = {t["table"]: t for t in diff.diff(lake, "people-1", "people-2")}
    assert releases["raw_people"]["added"] == 2 and not diff.is_different(releases["raw_cities"])
    assert not any(map(diff.is_different, diff.diff(lake, "people-2", "latest")))
    for wrong, told in (
        (("people@0", "placed@0"), "two versions of one table"),
        (("people@0", "people@99"), "no version 99"),
        (("people", "people@1"), "give a version, as in people@1"),
        (("people-1", "people-9"), "there is no release 'people-9'"),
    ):
        with pytest.raises((UsageError, InputMissing), match=told):
            diff.diff(lake, *wrong)


def test_columns_may_be_named_as_what_diff_works_with(tmp_path):
    lake, names = Lake(str(tmp_path)), ["kind", "cells", "a", "b", "key", "x", "pairs", "added", "c0"]
    kind = pa.schema([(n, pa.struct([("kind", pa.int64())]) if n == "a" else pa.int64()) for n in names])
    for rows in (
        [{n: {"kind": i} if n == "a" else i for n in names} for i in (1, 2)],
        [{n: {"kind": 9} if n == "a" else i for n in names} for i in (2, 3)],
    ):
        write_deltalake(lake.path("t"), pa.Table.from_pylist(rows, kind), mode="overwrite")
    (told,) = diff.diff(lake, "t@0", "t@1", ["kind", "cells"])
    assert (told["added"], told["removed"], told["changed"]) == (1, 1, 1)
    assert told["columns"] == {"a": {"cells": 1, "rate": 1 / 3}}
    assert [(e["kind"], e["key"]) for e in told["examples"]] == [
        ("added", {"kind": 3, "cells": 3}),
        ("changed", {"kind": 2, "cells": 2}),
        ("removed", {"kind": 1, "cells": 1}),
    ]
    assert told["examples"][1]["cells"] == ["a: {'kind': 2} -> {'kind': 9}"]
    others = ["b", "key", "x", "pairs", "added", "c0"]
    for example, value in ((told["examples"][0], 3), (told["examples"][2], 1)):
        a = 9 if value == 3 else value
        assert example["cells"] == [f"a: {{'kind': {a}}}", *(f"{name}: {value}" for name in others)]


def test_versions_whose_columns_have_other_types_or_names_are_compared(tmp_path):
    lake, ids = Lake(str(tmp_path)), ["a", "b", "c"]
    days = [date(2024, 1, 1), date(2024, 1, 2), None]
    for columns in (
        {"_row_id": ids, "n": [1, 2, 3], "d": ["2024-01-01", "x", None], "m": dec("1.10", 3, 2), "w": dec("1", 38, 0)},
        {"_row_id": ids, "n": ["1", "2", "x"], "d": days, "m": dec("1.1", 12, 3), "w": dec("0.1", 38, 38)},
        {"other": ids[:2]},
    ):
        write_deltalake(lake.path("t"), pa.table(columns), mode="overwrite", schema_mode="overwrite")
    (told,) = diff.diff(lake, "t@0", "t@1")
    assert told["schema"][:2] == ["n int64 -> string", "d string -> date32[day]"] and told["changed"] == 3
    assert {c: n["cells"] for c, n in told["columns"].items()} == {"n": 1, "d": 1, "w": 3}
    assert told["examples"][1]["cells"] == ["d: x -> 2024-01-02", "w: 1 -> .10000000000000000000000000000000000000"]
    (told,) = diff.diff(lake, "t@0", "t@1", ["n", "n"])
    assert (told["added"], told["removed"], told["changed"]) == (1, 1, 2)
    (told,) = diff.diff(lake, "t@1", "t@2")
    assert (told["added"], told["removed"], told["changed"], told["examples"]) == (2, 3, 0, [])
    with pytest.raises(InputMissing, match="no release yet"):
        diff.diff(lake, "t@²", "t@1")
    with pytest.raises(UsageError, match=r"no column 'N' in both versions.*columns: _row_id, n, d, m, w"):
        diff.diff(lake, "t@0", "t@1", ["N"])
    for file in Path(lake.path("t")).glob("*.parquet"):
        file.unlink()
    with pytest.raises(InputMissing, match=r"table 't': version 0 cannot be read: \S+ is gone"):
        diff.diff(lake, "t@0", "t@1")


def test_tables_of_other_writers_are_compared_by_all_that_tells_their_rows(tmp_path):
    lake = Lake(str(tmp_path))
    for i, place in enumerate(("a", "b")):
        rows = pa.table({"id": [1, 2], "place": ["x", place]})
        write_deltalake(lake.path("t"), rows, partition_by=["place"], mode="overwrite" if i else "error")
    (told,) = diff.diff(lake, "t@0", "t@1", ["id"])
    assert (told["changed"], told["examples"][0]["cells"]) == (1, ["place: a -> b"])
    features = {"readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}
    protocol = {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, **features}}
    Path(lake.path("t"), "_delta_log", f"{2:020}.json").write_text(json.dumps(protocol))
    with pytest.raises(UsageError, match="can only be read by Spark: it uses deletionVectors"):
        diff.diff(lake, "t@1", "t@2")


def dec(text: str, precision: int, scale: int) -> pa.Array:
    return pa.array([Decimal(text)] * 3, pa.decimal128(precision, scale))


def test_diff_equals_a_plain_comparison_of_all_rows(people, spark, tmp_path):
    """Files that are shared are not read; the answer is the same as if they were."""
    lake = lake_of(people)
    rows = [
        {
            r["_row_id"]: json.dumps(r, default=str)
            for r in DeltaTable(lake.path("people"), version=v).to_pyarrow_table().to_pylist()
        }
        for v in (0, 1)
    ]
    told = diff.diff(lake, "people@0", "people@1")[0]
    assert told["added"] == len(rows[1].keys() - rows[0].keys())
    assert told["changed"] == sum(rows[0][k] != rows[1][k] for k in rows[0].keys() & rows[1].keys())


def test_lineage_of_tables_and_columns(people):
    lake = lake_of(people)
    tree = lineage.lineage(lake, "placed")
    assert [i["name"] for i in tree["inputs"]] == ["people", "raw_cities"]
    assert tree["inputs"][0]["inputs"][0]["name"] == "raw_people" and "version 1" in tree["inputs"][0]["detail"]
    assert tree["inputs"][0]["inputs"][0]["inputs"][0]["name"] == "landing:people/*.csv"
    column = lineage.lineage(lake, "placed.greeting")
    assert [i["name"] for i in column["inputs"]] == ["people.name", "raw_cities.mayor"]
    assert column["detail"] == "steps: derive"
    assert lineage.lineage(lake, "people.age")["detail"] == "steps: impute_mean"
    with pytest.raises(UsageError, match="did you mean 'greeting'"):
        lineage.lineage(lake, "placed.greting")


def test_lineage_of_a_column_goes_into_every_branch_of_a_union(spark):
    people = spark.createDataFrame([(1, "a")], "id INT, name STRING")
    cities = spark.createDataFrame([(2, "b", "c")], "id INT, city STRING, mayor STRING")
    upper = cities.selectExpr("id", "concat(city, mayor) AS name")
    both = people.unionByName(upper).unionByName(people.limit(0)).selectExpr("id", "lower(name) AS called")
    assert columns_of(both, [("people", people), ("cities", cities)]) == {
        "id": ["cities.id", "people.id"],
        "called": ["cities.city", "cities.mayor", "people.name"],
    }


# -- keep and discard


def readable(spark, folder: Path) -> dict[str, int]:
    """Every table of every release, read by deltalake and by Spark: 'release table' -> rows."""
    lake, rows = lake_of(folder), {}
    for release in lake.releases:
        for pin in release["tables"]:
            path = lake.path(pin["table_name"])
            by_rust = DeltaTable(path, version=pin["version"]).to_pyarrow_table().num_rows
            by_spark = spark.read.format("delta").option("versionAsOf", pin["version"]).load(path)
            assert len(by_spark.collect()) == by_rust
            rows[f"{release['release']} {pin['table_name']}"] = by_rust
    return rows


@pytest.mark.slow
def test_vacuum_keeps_what_releases_hold_and_nothing_else(spark, people):
    lake = lake_of(people)
    for i in range(2):
        land(people, f"people/c{i}.csv", f"id,name,email,city,age\n{60 + i},x,x{i}@x.org,Rome,1\n")
        again(spark, people)
    before = readable(spark, people)
    dropped = keeping.drop_releases(lake, keep=2, dry_run=True)
    assert [r["release"] for r in dropped] == ["people-1", "people-2"] and len(lake.releases) == 4
    assert keeping.drop_releases(lake, ["people-2"]) and keeping.drop_releases(lake, keep=2, older_than=0)
    assert [r["release"] for r in lake.releases] == ["people-3", "people-4"]
    assert keeping.vacuum(lake, 365, 0)[0]["files_removed"] == 0
    told = {r["table"]: r for r in keeping.vacuum(lake, 0, 0, dry_run=True)}
    assert told["people"]["files_removed"] > 0 and told["people"]["kept"] == 2
    keeping.vacuum(lake, 0, 0)
    after = readable(spark, people)
    assert after == {k: v for k, v in before.items() if k.split()[0] in ("people-3", "people-4")}
    with pytest.raises(UsageError, match="cannot be restored: vacuum removed"):
        restore(lake, [("people", 0)], "r")
    assert DeltaTable(lake.path("people")).version() == 3  # no commit was made, so nothing is built anew
    assert again(None, people).built == 0
    assert all(r["files_removed"] == 0 for r in keeping.vacuum(lake, 0, 0) if r["table"] in lake.tables())


def test_releases_that_may_not_be_dropped(people):
    lake = lake_of(people)
    for name, told in (("people-2", "is the newest release"), ("people-7", "did you mean"), ("latest", "cannot be")):
        with pytest.raises((UsageError, InputMissing), match=told):
            keeping.drop_releases(lake, [name])
    assert len(lake.releases) == 2
    assert keeping.drop_releases(lake, keep=1, older_than=1) == [] and keeping.drop_releases(lake, keep=1)
    assert [r["release"] for r in lake.releases] == ["people-2"]


@pytest.mark.slow
def test_a_whole_release_is_restored(spark, people):
    lake = lake_of(people)
    targets = [(t["table_name"], t["version"]) for t in lake.release("people-1")["tables"]]
    restore(lake, targets, "r")
    told = diff.diff(lake, "people@people-1", "people@latest")[0]
    assert not diff.is_different(told | {"from": 0, "to": 0})
    again(spark, people)
    assert not any(diff.is_different(t) for t in diff.diff(lake, "people-2", "latest"))


def verified(spark, folder: Path, release: str, rebuild: bool = False) -> dict[str, dict]:
    pipeline = load_pipeline(folder / "p.yaml") if rebuild else None
    told = verify(spark, lake_of(folder), release, Progress(watched=False), pipeline, environment_of(folder))
    return {t["table"]: t for t in told}


@pytest.mark.slow
def test_verify_rebuilds_a_release_from_its_pinned_inputs(spark, people):
    for release in ("people-1", "people-2"):
        told = verified(spark, people, release, rebuild=True)
        assert not any(t["failed"] for t in told.values()), json.dumps(told, default=str)
        assert {(t["files"], t["content"], t["balance"], t["rebuilt"]) for t in told.values()} == {
            ("ok", "ok", "ok", "same")
        }
    write_suite(people, "people", *(rule.replace("nobody", "anybody") for rule in PEOPLE))
    assert verified(spark, people, "people-2", rebuild=True)["people"]["rebuilt"] == "same"  # it only judges
    file = people / "p.yaml"
    file.write_text(file.read_text().replace("impute_mean", "impute_median"))
    told = verified(spark, people, "people-2", rebuild=True)
    assert "the meaning of a step changed" in told["people"]["rebuilt"] and not told["people"]["failed"]
    (people / "landing" / "people" / "b.csv").unlink()
    assert "not possible: people/b.csv" in verified(spark, people, "people-2", rebuild=True)["raw_people"]["rebuilt"]


def test_verify_sees_what_was_tampered_with(spark, people):
    lake = lake_of(people)
    delta = DeltaTable(lake.path("people"), version=1)
    file = Path(delta.file_uris()[0].removeprefix("file://"))
    rows = pq.read_table(file, coerce_int96_timestamp_unit="us")
    column = rows.column_names.index("name")
    forged = rows.set_column(column, "name", pa.array(["forged", *rows["name"].to_pylist()[1:]]))
    size = file.stat().st_size
    pq.write_table(forged, file)
    log = Path(lake.path("people"), "_delta_log")  # the log names the size of the file
    for commit in log.glob("*.json"):
        commit.write_text(commit.read_text().replace(f'"size":{size}', f'"size":{file.stat().st_size}'))
    for checksum in {*log.glob("*.crc"), *file.parent.glob("*.crc")}:
        checksum.unlink()
    told = verified(spark, people, "people-2")
    assert told["people"]["failed"] and told["people"]["content"].startswith("differs")
    file.unlink()
    told = verified(spark, people, "people-2")
    assert told["people"]["failed"] and "are gone" in told["people"]["files"] and not told["placed"]["failed"]


def test_verify_sees_a_row_too_many(spark, people):
    lake = lake_of(people)
    delta = DeltaTable(lake.path("ledger"))
    delta.delete("table_name = 'people'")
    assert verified(spark, people, "people-2")["people"]["balance"].startswith("differs: the ledger holds 0")


# -- erase


def everything(folder: Path) -> list[tuple[str, str]]:
    """Every file of a lake as text: its bytes, and what is in it where it is packed."""
    texts = []
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        data = file.read_bytes()
        text = data.decode("utf-8", "replace")
        if data[:4] == b"PAR1":
            content = pq.ParquetFile(file)
            text += str(content.metadata.to_dict())
            text += str(content.read().to_pylist())
            for g in range(content.num_row_groups):
                for c in range(content.metadata.num_columns):
                    statistics = content.metadata.row_group(g).column(c).statistics
                    text += f"{statistics.min} {statistics.max}" if statistics and statistics.has_min_max else ""
        elif data[:2] == b"\x1f\x8b":
            text += gzip.decompress(data).decode("utf-8", "replace")
        elif data[:4] == b"\x28\xb5\x2f\xfd":  # Spark's event logs
            packed = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True)
            text += packed.read().decode("utf-8", "replace")
        texts.append((str(file.relative_to(folder)), text))
    return texts


def holding(folder: Path, value: str) -> list[str]:
    return [name for name, text in everything(folder / "lake") if value in text]


def erase(spark, folder: Path, table: str, where: str) -> dict:
    lake = lake_of(folder)
    found = reach(lake, table, where)
    return erasure.erase(spark, lake, found, where, "request 7", "the officer", "tester", Progress(watched=False))


def test_a_person_is_erased_from_every_version_with_proof(spark, people):
    lake = lake_of(people)
    placed = {name.split("/")[0] for name in holding(people, PLANTED)}
    assert placed >= {"raw_people", "people", "placed"}  # the search finds what is there
    observed = "select count(*) from metrics where value = 90 and table_name = 'people'"
    assert answer(people, observed)[0][0] > 0
    before, releases = readable(spark, people), lake.releases
    found = reach(lake, "people", "id = 42")
    assert {t: len(ids) for t, ids in found.rows.items()} == {"raw_people": 1, "people": 1, "placed": 1}
    assert (
        found.duplicates == 1 and sum(found.entries.values()) == 1 and found.landing == {"people/a.csv", "people/b.csv"}
    )
    twin = id_of(people, 43)
    certificate = erase(spark, people, "people", "id = 42")
    assert holding(people, PLANTED) == []
    assert answer(people, observed) == [(0,)]
    assert lake.releases == releases
    after = readable(spark, people)
    gone = {"raw_people": {"people-1": 1, "people-2": 2}}
    assert after == {
        k: v - gone.get(k.split()[1], {}).get(k.split()[0], 0 if "cities" in k else 1) for k, v in before.items()
    }
    assert certificate["searched"] > 0 and certificate["certificate"] == erasure.certificate(certificate)
    assert "id = 42" not in str(lake.erasures)
    assert not any(t["failed"] for t in verified(spark, people, "people-1").values())
    # The twin that had been rejected for it comes back; the erased row does not, from whatever file.
    land(people, "people/d.csv", f"id,name,email,city,age\n42,{PLANTED},other@x.org,Rome,90\n70,n70,e70@x.org,Rome,1\n")
    again(spark, people)
    assert answer(people, "select _row_id, name from people where email = 'shared@x.org'") == [(twin, "twin")]
    assert answer(people, "select count(*) from raw_people where id = 42") == [(0,)]
    assert answer(people, "select count(*) from ledger where reason = 'erased_on_request'") == [(1,)]
    assert holding(people, PLANTED) == []
    assert not any(t["failed"] for t in verified(spark, people, "people-3").values())


@pytest.mark.slow
def test_what_was_learned_from_an_erased_row_is_named_and_learned_anew(spark, tmp_path):
    """Also by a table that never held the row: it was marked after the fit."""
    source = "{format: csv, path: 'raw/*.csv', schema: 'id INT, x DOUBLE', key: [id]}"
    steps = "[impute_mean: {columns: [x]}, reject_rows: {where: id = 1, reason: test_account}]"
    write_pipeline(
        tmp_path,
        f"  raw: {{source: {source}, suite: null}}\n  t: {{from: raw, refit: weekly, suite: null, steps: {steps}}}\n",
    )
    land(tmp_path, "raw/a.csv", "id,x\n1,1000\n2,1\n3,3\n4,\n")
    again(spark, tmp_path)
    assert answer(tmp_path, "select x from t where id = 4") == [(pytest.approx(1004 / 3),)]
    certificate = erase(spark, tmp_path, "raw", "id = 1")
    assert json.loads(certificate["tables"])["t"]["learned"] == ["t/0-impute_mean"]
    assert list((tmp_path / "lake/_system/fitted/t").iterdir()) == []
    again(spark, tmp_path)
    assert answer(tmp_path, "select x from t where id = 4") == [(2.0,)]


def test_cells_that_a_join_took_from_an_erased_row_become_null(spark, people):
    assert holding(people, "Poseidon Deep")
    erase(spark, people, "raw_cities", "city = 'Atlantis'")
    assert holding(people, "Poseidon Deep") == []
    rows = answer(
        people, "select mayor, greeting, count(*) from placed where city = 'Atlantis' group by all", "people-1"
    )
    assert rows == [(None, None, 5)]
    assert answer(people, "select count(*) from placed where mayor = 'Ada Mayor'", "people-1") == [(36,)]
    assert not any(t["failed"] for t in verified(spark, people, "people-2").values())


@pytest.mark.parametrize("moment", ["before", pytest.param("after", marks=pytest.mark.slow)])
def test_what_a_run_makes_of_rows_that_are_erased_meanwhile_is_not_published(spark, people, moment):
    """The erased row has reached the raw table alone; what is made of it is on its way."""
    land(people, "people/c.csv", f"id,name,email,city,age\n61,{PLANTED} too,e61@x.org,Rome,1\n")
    erased = {("people", "stage"): lambda: erase(spark, people, "raw_people", "id = 61")}
    with pytest.raises(HeadgateError, match="run again"):
        again(spark, people, progress=Faults(**{moment: erased}))
    assert holding(people, f"{PLANTED} too") == []
    again(spark, people)
    assert answer(people, "select count(*) from people where id in (50, 61)") == [(1,)]
    assert holding(people, f"{PLANTED} too") == []


@pytest.mark.slow
def test_cells_of_a_build_that_took_up_a_dead_runs_staging_are_erased_too(spark, people):
    land(people, "people/c.csv", "id,name,email,city,age\n61,n61,e61@x.org,Atlantis,1\n")
    with pytest.raises(Killed):
        again(spark, people, progress=dies("placed", "balance"))
    faults = dies("placed", "stage")  # it is not staged again
    again(spark, people, progress=faults)
    assert faults.before
    lake = lake_of(people)
    recorded = lake.system("lineage").to_pylist()
    assert all(r["columns"] and r["joined"] for r in recorded if r["table_name"] == "placed")
    lost = [r | {"columns": None, "joined": None, "brought": None} for r in recorded]
    write_deltalake(lake.path("lineage"), pa.Table.from_pylist(lost, SCHEMAS["lineage"]), mode="overwrite")
    with pytest.raises(UsageError, match=r"rows of table 'placed' .* has no lineage of columns"):
        erase(spark, people, "raw_cities", "city = 'Atlantis'")
    write_deltalake(lake.path("lineage"), pa.Table.from_pylist(recorded, SCHEMAS["lineage"]), mode="overwrite")
    assert not lake.unfinished_erasures
    erase(spark, people, "raw_cities", "city = 'Atlantis'")
    assert holding(people, "Poseidon Deep") == []
    assert answer(people, "select count(*), count(mayor) from placed where city = 'Atlantis'") == [(6, 0)]


def test_the_log_of_a_table_below_checkpoints_stays(tmp_path):
    table = tmp_path / "checkpoints" / "_sidecars" / "t"
    write_deltalake(table, pa.table({"i": [1]}))
    write_deltalake(table, pa.table({"i": [2]}), mode="append")
    DeltaTable(table).create_checkpoint()
    rewrite.rewrite_log(str(table), {})
    assert sorted(p.name for p in (table / "_delta_log").iterdir()) == [f"{0:020}.json", f"{1:020}.json"]
    assert DeltaTable(table).version() == 1


def test_what_kills_left_is_erased_too(spark, people):
    """Files that no version names: whole ones lose the row, others go; so do checkpoints of other writers."""
    lake = lake_of(people)
    table = Path(lake.path("people"))
    (source,) = [p for p in table.rglob("*.parquet") if PLANTED in str(pq.read_table(p).to_pylist())][:1]
    whole, part = table / "optimized-77" / "optimized-77-00000.parquet", source.with_name("x-erased-0.parquet.part")
    whole.parent.mkdir()
    pq.write_table(pq.read_table(source), whole, compression="none")
    (table / "optimized-77" / "optimized-77-00001.parquet").write_bytes(whole.read_bytes()[:-99])
    others = table / "other.parquet"
    for file in (part, others):
        file.write_bytes(whole.read_bytes()[:-99])
    sidecar = table / "_delta_log" / "_sidecars" / "s.parquet"
    sidecar.parent.mkdir()
    sidecar.write_bytes(whole.read_bytes())
    (table / "_delta_log" / f"{0:020}.{1:020}.compacted.json").write_text(PLANTED)
    with pytest.raises(HeadgateError, match=r"other\.parquet is not whole, and was written to in the last hour"):
        erase(spark, people, "people", "id = 42")
    os.utime(others, (0, 0))
    erasure.finish(spark, lake, lake.unfinished_erasures[0], Progress(watched=False))
    assert holding(people, PLANTED) == [] and not others.exists()


def test_an_erasure_whose_texts_are_still_found_fails_and_is_finished_later(spark, people, monkeypatch):
    lake = lake_of(people)
    told = pa.array([[("value", PLANTED)], [("value", "kept")]], pa.map_(pa.string(), pa.string()))
    entries = {n: [f"{n} 0", f"{n} 1"] for n in ("run_id", "build", "row_id", "step", "reason")}
    entries = pa.table(entries | {"table_name": ["other", "other"], "evidence": told})
    write_deltalake(lake.path("ledger"), entries, mode="append")
    city = DeltaTable(lake.path("raw_cities")).to_pyarrow_table().slice(0, 1)
    planted = city.set_column(1, "mayor", pa.array([PLANTED]))
    scrub = erasure.scrub
    monkeypatch.setattr(erasure, "content_of", lambda rows: (0, ""))  # not what this is about
    monkeypatch.setattr(erasure, "scrub", lambda *a: write_deltalake(lake.path("raw_cities"), planted, mode="append"))
    with pytest.raises(HeadgateError, match=r"^raw_cities\.mayor: .* still holds 1 texts of erased rows"):
        erase(spark, people, "people", "id = 42")
    monkeypatch.setattr(erasure, "scrub", scrub)
    (waiting,) = lake.unfinished_erasures
    assert PLANTED not in str(waiting) and not lake.erasures
    with pytest.raises(HeadgateError, match=r"^raw_cities\.mayor"):
        erasure.finish(spark, lake, waiting, Progress(watched=False))
    delta = DeltaTable(lake.path("raw_cities"))
    delta.delete(f"mayor = '{PLANTED}'")
    delta.vacuum(0, enforce_retention_duration=False, dry_run=False, keep_versions=[0])
    done = erasure.finish(spark, lake, waiting, Progress(watched=False))
    assert not [f for f in holding(people, PLANTED) if f.endswith(".parquet")] and not lake.unfinished_erasures
    assert '"hashes"' not in str(lake.system("erasures").to_pylist())  # nothing is left to guess the texts by
    assert json.loads(done["tables"])["raw_people"]["elsewhere"] == {"email": 1}  # the twin's
    assert answer(people, "select step, evidence['value'] from ledger where table_name = 'other' order by all") == [
        ("step 0", None),
        ("step 1", "kept"),
    ]


def test_texts_are_found_however_deep_they_are_nested():
    cells = [{"a": [{"k": "deep"}, {"other": "x"}]}, None, {"a": None}, {"a": [{"inner": None}]}]
    nested = pa.array(cells, pa.struct([("a", pa.list_(pa.map_(pa.string(), pa.string())))]))
    looked_for = Fingerprints.of([b"deep", b"inner", "ü".encode()])
    assert looked_for.found_in(nested) == {b"deep", b"inner"}
    assert looked_for.found_in(pa.array(["ü", "u", None])) == {"ü".encode()}
    assert looked_for.found_in(pa.array([b"deep"])) == {b"deep"} and looked_for.found_in(pa.array([1])) == set()
    assert Fingerprints.read(looked_for.written()) == looked_for


def test_what_joins_brought_over_two_tables_is_erased_and_nothing_else(spark, tmp_path):
    """A table that looks up itself: what a row has of its own stays, what it took from the erased row goes."""
    (tmp_path / "p.yaml").write_text(
        """
pipeline: staff
tables:
  raw:
    source: {format: csv, path: 'p/*.csv', schema: 'id INT, name STRING, boss INT', key: [id]}
    suite: null
  staff:
    from: raw
    steps: [{join_table: {table: raw, on: {boss: id}, columns: {boss_name: name}, matched: has_boss}}]
    suite: null
  notes:
    from: raw
    steps: [{join_table: {table: staff, on: {id: id}, columns: {chief: boss_name}, matched: found}}]
    suite: null
"""
    )
    land(tmp_path, "p/a.csv", "id,name,boss\n1,Big Boss,\n2,Two,1\n3,Three,2\n")
    again(spark, tmp_path)
    erase(spark, tmp_path, "raw", "id = 1")
    assert holding(tmp_path, "Big Boss") == []
    assert answer(tmp_path, "select id, name, boss_name from staff order by id") == [
        (2, "Two", None),
        (3, "Three", "Two"),
    ]
    assert answer(tmp_path, "select id, name, chief from notes order by id") == [(2, "Two", None), (3, "Three", "Two")]
    tree = lineage.lineage(lake_of(tmp_path), "staff.boss_name")
    assert [i["name"] for i in tree["inputs"]] == ["raw.name"]


@pytest.mark.parametrize(
    ("brought", "emptied"),
    [
        ({"a": ["u.a"], "b": ["u.b"], "c": ["u.a", "u.b"]}, {"a": [0], "b": [3], "c": [0, 3], "lost": [2]}),
        (None, {"a": [0, 2, 3], "b": [0, 2, 3], "c": [0, 2, 3], "lost": [2]}),  # of an earlier version of headgate
    ],
)
def test_each_rows_own_joins_decide_which_of_its_cells_go(brought, emptied):
    """Rows may share an id; a column of unknown origin goes where a join brought one of its name."""
    origins = {c: ["u.x"] for c in "abc"}
    told = (origins | {"lost": [], "own": ["t.own"]}, origins, brought)
    entry = {"table_name": "t", "build": "1", "steps": "", "input": "u"}
    entry |= {k: v and json.dumps(v) for k, v in zip(("columns", "joined", "brought"), told, strict=True)}
    emptying = Emptying({"gone"}, linked={"t": {"nan"}})
    trace_cells([entry], emptying, {"u"})
    emptying = Emptying.read(json.loads(json.dumps(emptying.written())))
    took = (("gone", "a"), ("other", "a"), ("gone", "lost"), ("gone", "b"))
    joined = [[{"table": "u", "row_id": i, "columns": [c]}] for i, c in took]
    kind = pa.list_(pa.struct({"table": pa.string(), "row_id": pa.string(), "columns": pa.list_(pa.string())}))
    rows = pa.table({"_row_id": ["nan"] * 4, "_joined": pa.array(joined, kind)})
    found = {
        c: [i for i, hit in enumerate(those.to_pylist()) if hit] for c, those in emptying.places("t", rows).items()
    }
    assert found == emptied and emptying.places("v", rows) == {}


@pytest.mark.slow
def test_only_cells_that_came_of_an_erased_row_are_emptied(spark, tmp_path, capsys):
    """Rows may share an id, as those whose key is NaN: each loses what its own joins brought.

    Two joins of one table are told apart. What is made of such cells later goes with them, also in tables behind, and
    where rows were written and read again on the way, as `learn_as_of` does.
    """
    columns = "x DOUBLE, name STRING, home STRING, work STRING, age INT, pay INT"
    join = "join_table: {table: cities, on: {%s: city}, columns: {%s: mayor}, matched: %s}"
    write_pipeline(
        tmp_path,
        f"""
  cities: {{source: {{format: csv, path: 'c/*.csv', schema: 'city STRING, mayor STRING', key: [city]}}, suite: null}}
  raw:
    source: {{format: csv, path: 'p/*.csv', schema: '{columns}', key: [x]}}
    suite: null
  people:
    from: raw
    steps:
      - {join % ("home", "at_home", "h")}
      - {join % ("work", "at_work", "w")}
      - derive: {{columns: {{pair: "concat_ws('/', at_home, at_work)"}}}}
      - rename: {{columns: {{at_work: boss}}}}
      - learn_as_of: {{time: age, periods: 21, step: {{impute_mean: {{columns: [pay]}}}}}}
    suite: null
  behind:
    from: people
    steps: [derive: {{columns: {{chief: lower(boss)}}}}]
    suite: null
""",
    )
    land(tmp_path, "c/a.csv", "city,mayor\nRome,Ada\nOslo,Olaf\nParis,Anne\n")
    rows = ("NaN,a,Rome,Oslo,1,1", "NaN,b,Paris,Oslo,2,", "NaN,c,Oslo,Rome,,2", "1,d,Rome,Rome,3,4")
    land(tmp_path, "p/a.csv", "\n".join(("x,name,home,work,age,pay", *rows)))
    again(spark, tmp_path)
    assert "people: learn_as_of learns 22 times" in capsys.readouterr().err
    assert answer(tmp_path, "select count(distinct _row_id) from people") == [(2,)]
    found = reach(lake_of(tmp_path), "cities", "city = 'Rome'")
    cells = {r["table"]: r["cells"] for r in found.by_table() if r["cells"]}
    assert cells == {"people": "at_home, boss, pair of 3 rows", "behind": "at_home, boss, chief, pair of 3 rows"}
    erase(spark, tmp_path, "cities", "city = 'Rome'")
    assert answer(tmp_path, "select name, at_home, boss, pair, chief from behind order by name") == [
        ("a", None, "Olaf", None, "olaf"),
        ("b", "Anne", "Olaf", "Anne/Olaf", "olaf"),
        ("c", "Olaf", None, None, None),
        ("d", None, None, None, None),
    ]


def test_erasing_one_record_leaves_those_that_only_look_like_it(spark, tmp_path):
    source = "{format: jsonl, path: 't/*.jsonl', schema: 'tags ARRAY<STRING>, n INT'}"
    (tmp_path / "p.yaml").write_text(f"pipeline: tags\ntables:\n  raw:\n    source: {source}\n    suite: null\n")
    rows = (["a, b"], ["a", "b"], ["c"], [None], ["null"], None)
    land(tmp_path, "t/a.jsonl", "".join(json.dumps({"tags": tags, "n": 1}) + "\n" for tags in rows))
    again(spark, tmp_path)
    erase(spark, tmp_path, "raw", "len(tags) = 1 and (tags[1] = 'a, b' or tags[1] is null)")
    left = [r[0] for r in answer(tmp_path, "select tags from raw")]
    assert sorted(map(str, left)) == sorted(map(str, [["a", "b"], ["c"], ["null"], None]))


def test_rows_that_share_an_id_count_each(tmp_path):
    """As those whose key is NaN; a row that several versions hold counts once, in whatever files it lies."""
    lake = lake_of(tmp_path)
    twice = pa.table({"_row_id": ["nan", "nan", "one"], "x": [math.nan, math.nan, 1.0]})
    write_deltalake(lake.path("t"), twice)
    write_deltalake(lake.path("t"), twice.slice(0, 1), mode="append")
    write_deltalake(lake.path("t"), twice.slice(1), mode="overwrite")
    found = reach(lake, "t", "isnan(x)")
    assert found.row_ids == {"nan"} and found.by_table()[0] == {"table": "t", "rows": 3, "cells": ""}


@pytest.mark.slow
def test_a_certificate_counts_rows_not_ids(spark, tmp_path):
    source = "{format: csv, path: 'raw/*.csv', schema: 'x DOUBLE, name STRING', key: [x]}"
    write_pipeline(tmp_path, f"  raw: {{source: {source}, suite: null}}\n")
    land(tmp_path, "raw/a.csv", "x,name\nNaN,a\nNaN,b\nNaN,c\n1,d\n")
    again(spark, tmp_path)
    assert answer(tmp_path, "select count(*), count(distinct _row_id) from raw") == [(4, 2)]
    certificate = erase(spark, tmp_path, "raw", "isnan(x)")
    assert json.loads(certificate["tables"])["raw"]["rows"] == 3
    assert answer(tmp_path, "select name from raw") == [("d",)]


def test_people_are_erased_by_a_file_of_keys(spark, people, tmp_path):
    keys = tmp_path / "keys.csv"
    keys.write_text("id,city\n42,Rome\n1,Rome\n2,Atlantis\n")
    found = reach(lake_of(people), "raw_people", keys=keys)
    assert found.row_ids == {id_of(people, 42), id_of(people, 1)}
    keys.write_text("nosuch\n42\n")
    with pytest.raises(UsageError, match="no column 'nosuch'"):
        reach(lake_of(people), "raw_people", keys=keys)
    pq.write_table(pa.table({"id": pa.array([42, None], pa.int32())}), tmp_path / "keys.parquet")
    with pytest.raises(UsageError, match="'id' is null in some row"):
        reach(lake_of(people), "raw_people", keys=tmp_path / "keys.parquet")


@pytest.mark.parametrize(
    ("module", "point"),
    [(rewrite, "put"), pytest.param(erasure, "search", marks=pytest.mark.slow)],
    ids=["put", "search"],
)
def test_an_erasure_that_was_killed_is_finished_by_the_next(spark, people, monkeypatch, module, point):
    lake = lake_of(people)

    class Killed(BaseException):
        pass

    real, calls = getattr(module, point), []

    def die(*arguments):
        calls.append(arguments)
        if len(calls) > 2 or point == "search":
            raise Killed
        return real(*arguments)

    monkeypatch.setattr(module, point, die)
    with pytest.raises(Killed):
        erase(spark, people, "people", "id = 42")
    monkeypatch.setattr(module, point, real)
    rows = {v: DeltaTable(lake.path("people"), version=v).to_pyarrow_table().num_rows for v in (0, 1)}
    assert rows[0] in (40, 41) and rows[1] in (41, 42)  # every version reads, as before or as after
    land(people, "people/d.csv", "id,name,email,city,age\n70,n70,e70@x.org,Rome,1\n")
    with pytest.raises(LostRace, match="erase --resume"):
        again(spark, people)
    for waiting in lake.unfinished_erasures:
        erasure.finish(spark, lake, waiting, Progress(watched=False))
    assert holding(people, PLANTED) == [] and not lake.unfinished_erasures
    assert not any(t["failed"] for t in verified(spark, people, "people-2").values())


def test_an_erasure_that_another_version_began_is_not_guessed_at(tmp_path):
    begun = {"erasure": "e1", "row_ids": ["x"], "tables": json.dumps({"rows": {}, "cells": {}, "emptied": {}})}
    with pytest.raises(HeadgateError, match="erasure e1: another version of headgate began it"):
        erasure.finish(None, Lake(str(tmp_path)), begun, Progress(watched=False))


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("nosuch = 1", "nosuch"),
        ("id = 1; drop table people", "--where"),
        ("id in (select id from read_csv('/etc/passwd'))", "--where"),
    ],
)
def test_a_wrong_condition_is_refused(people, where, told):
    with pytest.raises(UsageError, match=told):
        reach(lake_of(people), "people", where)


def test_nothing_is_found_where_nothing_is(people):
    assert reach(lake_of(people), "people", "id = 4242").row_ids == set()
    with pytest.raises(HeadgateError, match="no table 'peeple'"):
        reach(lake_of(people), "peeple", "true")
