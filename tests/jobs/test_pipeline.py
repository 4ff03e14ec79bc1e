"""The main job on a cut of the real year, end to end."""

import functools
import json
import re
import shutil
import uuid
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable

from headgate.jobs.config.pipeline import load_pipeline
from headgate.jobs.errors import GateBlocked, InputMissing, LostRace, UsageError
from headgate.jobs.explore import queries
from headgate.jobs.keep.erasure import certificate as erasure
from headgate.jobs.keep.restore import restore
from headgate.jobs.pipeline.fitted import load_fitted
from headgate.jobs.pipeline.judging import Counts, beyond_ceiling
from headgate.jobs.pipeline.outcome import QUARANTINE
from headgate.jobs.pipeline.planning import plan_table
from headgate.jobs.pipeline.prepare import zoned
from headgate.jobs.pipeline.run import dry_run
from headgate.jobs.sources.files import regex_of
from headgate.transforms.rows import content_of
from tests.lakes import (
    FLIGHTS,
    ROOT,
    Faults,
    Killed,
    content,
    die,
    dies,
    environment_of,
    lake_of,
    land,
    records,
    run_pipeline,
    write_pipeline,
)


def variant(folder: Path, **edits: str) -> Path:
    """A copy of the project's pipeline and suites with texts replaced: file name -> 'old -> new'."""
    conf = folder / "variant"
    shutil.copytree(ROOT / "conf", conf / "conf")
    shutil.copytree(ROOT / "expectations" / "suites", conf / "expectations" / "suites")
    for name, edit in edits.items():
        file = next((conf).rglob(f"{name}.yaml"))
        old, new = edit.split(" -> ")
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new, 1))
    return conf / "conf" / "flights.yaml"


def test_every_row_is_accounted_for(night):
    """rows in + rows made = rows published + rows rejected, from what was written and not from what was counted."""
    lake = lake_of(night)
    ledger = DeltaTable(lake.path("ledger")).to_pyarrow_table()
    pipeline = load_pipeline(FLIGHTS)
    for name, table in pipeline.tables.items():
        published = lake.published(name)
        build = published.facts["build"]
        rejected = pc.sum(pc.equal(ledger["build"], build)).as_py() or 0
        rows_in = lake.published(table.starts[0]).rows if table.starts else published.facts["rows"]["rows_in"]
        made = published.facts["rows"]["made"]
        assert rows_in + made == published.rows + rejected, name
    landed = sum(len(f.read_text().splitlines()) - 1 for f in (night / "landing" / "flights").glob("*.csv"))
    assert lake.published("raw_flights").rows == landed == 2699


def test_the_training_table_is_what_a_model_needs(night):
    rows = DeltaTable(str(night / "lake" / "flights_training")).to_pyarrow_table().to_pylist()
    splits = {r["split"] for r in rows}
    assert splits == {"train", "valid", "test"}
    assert all(r["temp_c"] is not None and r["seats"] is not None and r["late"] is not None for r in rows)
    assert {r["split"] for r in rows if r["weight"] is not None} == {"train"}
    weights = [r["weight"] for r in rows if r["split"] == "train"]
    assert sum(weights) / len(weights) == pytest.approx(1)
    filled = [c["step"] for r in rows for c in r["_changed"] if c["column"] == "plane_age"]
    assert filled and set(filled) == {"flights_training/3-impute_median"}
    made = [r for r in rows if r["_parents"]]
    assert all(r["split"] == "train" for r in made)
    ids = {r["_row_id"] for r in rows}
    assert len(ids) == len(rows) and all(set(r["_parents"]) <= ids for r in made)


def test_known_facts_of_the_year(night):
    flights = DeltaTable(str(night / "lake" / "flights")).to_pyarrow_table().to_pylist()
    first = next(r for r in flights if (r["carrier"], r["flight"], str(r["flight_date"])) == ("UA", 1545, "2013-01-01"))
    assert str(first["sched_dep_utc"]) == "2013-01-01 10:15:00+00:00"
    assert first["distance_km"] == pytest.approx(1400 * 1.609344)
    weather = DeltaTable(str(night / "lake" / "weather")).to_pyarrow_table().to_pylist()
    hour = next(r for r in weather if r["origin"] == "EWR" and str(r["time_hour"]) == "2013-01-01 06:00:00+00:00")
    assert hour["temp_c"] == pytest.approx((39.02 - 32) / 1.8)


def test_tables_are_open_to_every_reader_and_their_history_stays(night):
    for table in lake_of(night).tables():
        delta = DeltaTable(str(night / "lake" / table))
        assert delta.protocol().min_reader_version == 1
        configuration = delta.metadata().configuration
        assert configuration["delta.deletedFileRetentionDuration"] == "interval 36500 days"
        assert configuration["delta.logRetentionDuration"] == "interval 36500 days"
        assert configuration["delta.enableExpiredLogCleanup"] == "false"


def test_system_tables_tell_the_run(night):
    lake = lake_of(night)
    runs = lake.system("runs").to_pylist()
    assert [r["event"] for r in sorted(runs, key=lambda r: r["recorded_at"])] == ["started", "finished"]
    assert {r["status"] for r in runs} == {"running", "succeeded"}
    release = lake.release("latest")
    assert {t["table_name"] for t in release["tables"]} == set(load_pipeline(FLIGHTS).tables)
    lineage = lake.system("lineage").to_pylist()
    fused = {r["input"] for r in lineage if r["table_name"] == "flights_fused"}
    assert fused == {"flights", "weather", "planes", "airports", "airlines"}
    metrics = lake.system("metrics").to_pylist()
    rules = [m for m in metrics if m["table_name"] == "flights" and m["kind"] == "expectation"]
    assert len(rules) == 19 and all(r["success"] for r in rules if r["severity"] == "critical")
    dimensions = {m["name"]: m["value"] for m in metrics if m["table_name"] == "flights" and m["kind"] == "dimension"}
    assert dimensions["accuracy"] is None and dimensions["uniqueness"] == 1.0
    validation = next(m for m in metrics if m["table_name"] == "flights" and m["kind"] == "validation")
    assert json.loads(validation["result"])["statistics"]["evaluated_expectations"] == 19
    files = lake.system("files").to_pylist()
    assert all(len(f["sha256"]) == 64 and f["size"] > 0 for f in files) and len(files) == 3 + 3 + 3


def test_nothing_new_builds_nothing_and_starts_no_spark(night):
    before = len(lake_of(night).releases)
    outcome = run_pipeline(None, night)
    assert outcome.built == 0 and outcome.release == "flights-1"
    assert len(lake_of(night).releases) == before


@pytest.mark.slow
def test_a_new_day_is_taken_up_alone_and_equals_a_full_build(spark, own_night, landing_of, tmp_path):
    landing_of(own_night / "landing", "2013-01-04")
    plans = {r["table"]: r for r in dry_run_of(own_night)}
    assert plans["raw_flights"]["why"] == "1 new file" and plans["planes"]["build"] is False
    assert plans["flights_training"]["why"] == "flights_fused will be built, and may give other rows"
    built = records(run_pipeline(spark, own_night, tables=("flights",)))
    assert built["raw_flights"]["rows_in"] == 915 and built["airlines"]["status"] == "up to date"
    at_once = tmp_path / "at once"
    landing_of(at_once / "landing", "2013-01-04")
    run_pipeline(spark, at_once, tables=("flights",))
    for table in ("raw_flights", "flights"):
        assert content(own_night, table) == content(at_once, table), table
    # The release before still answers as it did.
    first = queries.tables(lake_of(own_night), "flights-1")
    assert next(r["rows"] for r in first if r["table"] == "raw_flights") == 2699
    answer = queries.sql(lake_of(own_night), "select count(*) as n from raw_flights", "flights-1", None)
    assert answer.to_pylist() == [{"n": 2699}]


def dry_run_of(folder, **options):
    environment = environment_of(folder)
    given = {"tables": (), "as_of": None, "force": False} | options
    return dry_run(load_pipeline(FLIGHTS), environment, lake_of(folder), **given)


@pytest.mark.slow
def test_as_of_builds_what_stood_that_night(spark, own_night, landing_of, tmp_path):
    then = records(run_pipeline(spark, own_night, tables=("flights",), as_of=date(2013, 1, 2)))
    assert then["raw_flights"]["status"] == "up to date" and then["flights"]["rows_in"] == 842 + 943
    alone = tmp_path / "alone"
    landing_of(alone / "landing", "2013-01-04")  # later files are there, and left alone
    run_pipeline(spark, alone, tables=("flights",), as_of=date(2013, 1, 2))
    assert content(own_night, "flights") == content(alone, "flights")
    assert lake_of(alone).published("raw_flights").rows == 842 + 943
    again = records(run_pipeline(spark, own_night, tables=("flights",)))
    assert again["flights"]["rows_in"] == 2699
    assert content(own_night, "flights") == content(own_night, "flights", 0)


@pytest.mark.slow
def test_partitioning_does_not_change_a_table(spark, night, landing_of, tmp_path):
    other = tmp_path / "other"
    landing_of(other / "landing", "2013-01-03")
    settings = {"spark.sql.shuffle.partitions": "7", "spark.sql.files.maxPartitionBytes": "20000"}
    before = {k: spark.conf.get(k) for k in settings}
    try:
        for key, value in settings.items():
            spark.conf.set(key, value)
        run_pipeline(spark, other)
    finally:
        for key, value in before.items():
            spark.conf.set(key, value)
    for table in ("raw_flights", "flights", "flights_fused", "flights_training"):
        assert content(other, table) == content(night, table), table
    strip = "select row_id, step, reason, evidence from ledger order by all"
    ledgers = [queries.sql(lake_of(f), strip, None, None).to_pylist() for f in (night, other)]
    assert ledgers[0] == ledgers[1] and ledgers[0]


def test_a_blocked_gate_leaves_the_table_as_it_was(spark, own_night, tmp_path):
    before = content(own_night, "flights")
    releases = len(lake_of(own_night).releases)
    file = variant(tmp_path, flights="max_value: 10000 -> max_value: 1000")
    with pytest.raises(GateBlocked) as e:
        run_pipeline(spark, own_night, file)
    assert "expect_column_values_to_be_between (distance_km)" in str(e.value) and "version 0 stays" in str(e.value)
    assert content(own_night, "flights") == before and lake_of(own_night).published("flights").version == 0
    assert len(lake_of(own_night).releases) == releases
    assert lake_of(own_night).system("runs").to_pylist()[-1] is not None
    statuses = {r["status"] for r in lake_of(own_night).system("runs").to_pylist()}
    assert "GateBlocked" in statuses


HAS_ID = "{type: expect_column_to_exist, kwargs: {column: id}, meta: {dimension: consistency}}"
CSV = "  t:\n    source: {format: csv, path: 't/*.csv', schema: 'id INT, v STRING', key: [id]%s}\n    suite: any\n"


def small(folder: Path, tables: str) -> Path:
    return write_pipeline(folder, tables, HAS_ID)


def test_malformed_lines_go_to_the_ledger_with_file_and_line(spark, tmp_path):
    land(tmp_path, "t/a.csv", "id,v\n1,x\n2,y,z\nthree,q\n4,w\n2,y,z\n")
    outcome = run_pipeline(spark, tmp_path, small(tmp_path, CSV % ""))
    assert records(outcome)["t"]["published"] == 2 and records(outcome)["t"]["rejected"] == {
        "ingest: malformed_record": 2,
        "ingest: wrong_type (id)": 1,
    }
    ledger = queries.sql(lake_of(tmp_path), "select step, evidence from ledger", None, None).to_pylist()
    found = sorted((dict(r["evidence"])["file"], int(dict(r["evidence"])["line"])) for r in ledger)
    assert found == [("t/a.csv", 3), ("t/a.csv", 4), ("t/a.csv", 6)]


def test_a_raw_table_may_quarantine_rows(spark, tmp_path):
    file = small(tmp_path, CSV % "" + "    quarantine_ceiling: 0.5\n")
    rule = "{type: expect_column_values_to_be_between, kwargs: {column: id, max_value: 5}"
    with (tmp_path / "any.yaml").open("a") as suite:
        suite.write(f"  - {rule}, meta: {{dimension: validity, on_row_fail: quarantine}}}}\n")
    land(tmp_path, "t/a.csv", "id,v\n1,x\n2,y\n9,z\n")
    outcome = run_pipeline(spark, tmp_path, file)
    assert records(outcome)["t"]["rejected"] == {"gate: failed_expectation": 1} and records(outcome)["t"]["rows"] == 2
    land(tmp_path, "t/b.csv", "id,v\n3,x\nbad\n8,z\n4,z\n")
    run_pipeline(spark, tmp_path, file)
    answer = queries.sql(
        lake_of(tmp_path), "select step, count(*) as n from ledger group by all order by 1", None, None
    )
    assert answer.to_pylist() == [{"step": "gate", "n": 2}, {"step": "ingest", "n": 1}]


def test_shares_that_steps_touch_are_gated():
    counts = Counts(rows_in=10, made=2, rejected={"t/0-check_bounds: out_of_bounds (x)": 3, QUARANTINE: 6})
    assert beyond_ceiling(counts, 0.25) == ""
    assert beyond_ceiling(counts, 0.2) == (
        "3 of 12 rows are rejected, 25.0%; rejected_ceiling is 0.2 (3 by t/0-check_bounds: x is out of bounds)"
    )
    assert beyond_ceiling(Counts(), 0.0) == ""


@pytest.mark.slow
def test_what_steps_reject_and_change_is_gated(spark, tmp_path):
    steps = "    steps: [check_bounds: {columns: {id: [0, 9]}}, impute_constant: {values: {v: none}}]\n"
    rule = "predicate: \"NOT exists(_changed, c -> c.column = 'v')\", mostly: 0.5}, meta: {dimension: completeness}}"
    file = small(tmp_path, CSV % "" + steps + "    rejected_ceiling: 0.3\n")
    with (tmp_path / "any.yaml").open("a") as suite:
        suite.write(f"  - {{type: expect_rows_to_satisfy_sql, kwargs: {{column_list: [v, _changed], {rule}\n")
    land(tmp_path, "t/a.csv", "id,v\n1,\n2,\n99,z\n3,a\n")
    with pytest.raises(GateBlocked, match=r"expect_rows_to_satisfy_sql .*_changed"):
        run_pipeline(spark, tmp_path, file)
    land(tmp_path, "t/b.csv", "id,v\n98,b\n4,c\n97,d\n")
    with pytest.raises(GateBlocked, match="3 of 7 rows are rejected"):
        run_pipeline(spark, tmp_path, file)
    land(tmp_path, "t/c.csv", "id,v\n5,b\n6,c\n7,d\n")
    assert records(run_pipeline(spark, tmp_path, file))["t"]["published"] == 7


def test_a_rule_that_raises_on_some_row_blocks_by_its_name(spark, tmp_path):
    """Inside a mask it would break the staging write."""
    file = small(tmp_path, CSV % "")
    with (tmp_path / "any.yaml").open("a") as suite:
        suite.write(
            "  - {type: expect_rows_to_satisfy_sql, kwargs: {column_list: [id, v], predicate: 'cast(v as int) > 0'}, "
            "meta: {dimension: validity}}\n"
        )
    land(tmp_path, "t/a.csv", "id,v\n1,5\n2,six\n")
    with pytest.raises(GateBlocked, match=r"expect_rows_to_satisfy_sql .* could not be evaluated"):
        run_pipeline(spark, tmp_path, file)
    assert lake_of(tmp_path).published("t") is None


@pytest.mark.parametrize(
    ("path", "name", "day"),
    [
        ("a/{date}.csv", "a/2013-01-31.csv", "2013-01-31"),
        ("a_2012-01-01/x_{date}_*.csv", "a_2012-01-01/x_2013-01-31_7.csv", "2013-01-31"),
        ("{date}/f_{date}.csv", "2013-01-31/f_2013-01-31.csv", "2013-01-31"),
        ("{date}/f_{date}.csv", "2013-01-31/f_2013-02-01.csv", None),
        ("a/*.csv", "a/b/c.csv", None),
    ],
)
def test_patterns_find_files_and_their_day(path, name, day):
    match = re.match(regex_of(path), name)
    assert (match[1] if match else None) == day


def test_a_changed_file_is_refused_or_replaced(spark, tmp_path):
    file = small(tmp_path, CSV % "")
    land(tmp_path, "t/a.csv", "id,v\n1,x\n2,y\n")
    land(tmp_path, "t/b.csv", "id,v\n3,z\n")
    run_pipeline(spark, tmp_path, file)
    land(tmp_path, "t/a.csv", "id,v\n1,x\n")
    with pytest.raises(InputMissing, match=r"t/a\.csv: the file shrank since it was taken up"):
        run_pipeline(spark, tmp_path, file)
    file = small(tmp_path, CSV % ", on_changed_file: replace")
    run_pipeline(spark, tmp_path, file)
    answer = queries.sql(lake_of(tmp_path), "select id from t order by id", None, None).to_pylist()
    assert answer == [{"id": 1}, {"id": 3}]
    assert run_pipeline(None, tmp_path, file).built == 0


def test_a_touched_file_is_known_again_by_its_checksum(spark, tmp_path):
    import os

    file = small(tmp_path, CSV % "")
    land(tmp_path, "t/a.csv", "id,v\n1,x\n")
    run_pipeline(spark, tmp_path, file)
    os.utime(tmp_path / "landing" / "t" / "a.csv", (1, 1))
    assert run_pipeline(spark, tmp_path, file).built == 0
    assert run_pipeline(None, tmp_path, file).built == 0


def test_a_wrong_header_is_refused_by_file_and_column(spark, tmp_path):
    land(tmp_path, "t/a.csv", "v,id\nx,1\n")
    with pytest.raises(
        InputMissing, match=r"t/a\.csv: its columns are in another order .* 'v' stands where 'id' should"
    ):
        run_pipeline(spark, tmp_path, small(tmp_path, CSV % ""))


def test_no_files_are_named_with_pattern_and_folder(tmp_path):
    with pytest.raises(InputMissing, match=r"table 't': no file matches 't/\*\.csv' in"):
        run_pipeline(None, tmp_path, small(tmp_path, CSV % ""))
    assert not (tmp_path / "lake").exists()


def test_an_empty_table_is_blocked_by_its_floor(spark, tmp_path):
    land(tmp_path, "t/a.csv", "id,v\n")
    with pytest.raises(GateBlocked, match="nothing was published"):
        run_pipeline(spark, tmp_path, small(tmp_path, CSV % ""))
    assert lake_of(tmp_path).published("t") is None


@pytest.mark.parametrize("kind", ["jsonl", "parquet", pytest.param("delta", marks=pytest.mark.slow)])
def test_other_formats_are_taken_up_once(spark, tmp_path, kind):
    rows = spark.createDataFrame([(1, "x"), (2, None)], "id INT, v STRING").coalesce(1)
    target = tmp_path / "landing" / "t"
    if kind == "jsonl":
        land(tmp_path, "t/a.jsonl", '{"id": 1, "v": "x"}\n{"id": 2}\n{"id": \n')
        source = "{format: jsonl, path: 't/*.jsonl', schema: 'id INT, v STRING', key: [id]}"
    elif kind == "parquet":
        rows.write.parquet(str(target))
        source = "{format: parquet, path: 't/*.parquet', key: [id]}"
    else:
        rows.write.format("delta").save(str(target))
        source = "{format: delta, path: t, key: [id]}"
    file = small(tmp_path, f"  t:\n    source: {source}\n    suite: any\n")
    outcome = run_pipeline(spark, tmp_path, file)
    assert records(outcome)["t"]["published"] == 2
    assert sum(records(outcome)["t"]["rejected"].values()) == (1 if kind == "jsonl" else 0)
    assert run_pipeline(None, tmp_path, file).built == 0
    if kind == "delta":
        spark.createDataFrame([(3, "z")], "id INT, v STRING").write.format("delta").mode("append").save(str(target))
        run_pipeline(spark, tmp_path, file)
        answer = queries.sql(lake_of(tmp_path), "select count(*) as n from t", None, None).to_pylist()
        assert answer == [{"n": 3}]


def test_merge_updates_inserts_and_keeps(spark, tmp_path):
    """By a key and columns that are named as what a merge works with; a map among them."""
    schema = "key INT, t STRING, s STRING, build MAP<STRING, INT>"
    tables = f"  raw:\n    source: {{format: jsonl, path: 't/*.jsonl', schema: '{schema}'}}\n    suite: null\n"
    tables += "  m:\n    from: raw\n    steps:%s\n    suite: null\n    publish: {mode: merge, key: [key]}\n"
    steps = "\n      - drop_duplicates: {columns: [key], keep: _file desc}"
    file = small(tmp_path, tables % steps)
    one, two, three = ('{"key": %s, "t": "%s", "s": "%s", "build": {"%s": 1}}\n' for _ in range(3))
    land(tmp_path, "t/a.jsonl", one % (1, "x", "x", "x") + two % (2, "y", "y", "y") + three % ("null", "z", "z", "z"))
    run_pipeline(spark, tmp_path, file)
    land(tmp_path, "t/b.jsonl", one % (2, "y", "y", "Y") + two % (3, "w", "w", "w") + three % ("null", "z", "z", "Z"))
    run_pipeline(spark, tmp_path, file)
    lake = lake_of(tmp_path)
    answer = queries.sql(lake, "select key, t, s, map_keys(build)[1] as b from m order by key", None, None).to_pylist()
    assert [tuple(r.values()) for r in answer] == [
        (1, "x", "x", "x"),
        (2, "y", "y", "Y"),
        (3, "w", "w", "w"),
        (None, "z", "z", "Z"),
    ]
    found = DeltaTable(lake.path("m"))
    rows = spark.read.format("delta").load(lake.path("m"))
    assert content_of(rows) == (4, lake.content_total("m", found.version()))
    assert run_pipeline(None, tmp_path, file).built == 0
    with pytest.raises(UsageError, match="table 'm' has 2 rows with key=‹None›: the key of a merge must be unique"):
        run_pipeline(spark, tmp_path, small(tmp_path, tables % " []"))


def test_times_without_a_zone_are_published_as_timestamps(spark, tmp_path):
    noon = "timestamp_ntz'2024-07-01 12:00:00'"
    rows = spark.sql(
        f"select 1 as id, {noon} as at, array(named_struct('at', {noon})) as deep, map({noon}, {noon}) as m"
    )
    path = str(tmp_path / "t")
    zoned("t", rows).write.format("delta").save(path)
    found = DeltaTable(path)
    assert found.protocol().min_reader_version == 1
    (row,) = found.to_pyarrow_table().to_pylist()
    at = datetime(2024, 7, 1, 12, tzinfo=UTC)
    assert row == {"id": 1, "at": at, "deep": [{"at": at}], "m": [(at, at)]}


def test_a_run_that_died_before_publishing_is_taken_up(spark, tmp_path):
    file = small(tmp_path, CSV % "" + "  m:\n    from: t\n    suite: any\n")
    land(tmp_path, "t/a.csv", "id,v\n1,x\n2,y\nbad\n")
    with pytest.raises(Killed):
        run_pipeline(spark, tmp_path, file, progress=dies("t", "publish"))
    assert lake_of(tmp_path).published("t") is None
    # What was staged is taken up, not staged again; table m, which had not been staged, is.
    faults = Faults(before={(table, "stage"): die for table in ("t", "m")})
    with pytest.raises(Killed):
        run_pipeline(spark, tmp_path, file, progress=faults)
    assert list(faults.before) == [("t", "stage")] and lake_of(tmp_path).published("t").rows == 2
    outcome = run_pipeline(spark, tmp_path, file)
    assert records(outcome)["m"]["rows"] == 2
    counted = "select count(*) as n, count(distinct build) as builds from ledger"
    assert queries.sql(lake_of(tmp_path), counted, None, None).to_pylist() == [{"n": 1, "builds": 1}]
    assert len(lake_of(tmp_path).system("files").to_pylist()) == 1
    assert not list((tmp_path / "lake" / "_staging" / "t").iterdir())


def test_a_table_changed_meanwhile_loses_the_race(spark, tmp_path):
    file = small(tmp_path, CSV % "")
    land(tmp_path, "t/a.csv", "id,v\n1,x\n")
    run_pipeline(spark, tmp_path, file)
    land(tmp_path, "t/b.csv", "id,v\n2,y\n")

    def another_writer():
        DeltaTable(lake_of(tmp_path).path("t")).delete("id = 1")
        erasure.write_marker_commit(lake_of(tmp_path), "t", uuid.uuid4().hex)  # a commit each time

    def losing(what):
        return Faults(after={("t", "stage"): what})

    with pytest.raises(LostRace, match="changed by another writer"):
        run_pipeline(spark, tmp_path, file, progress=losing(another_writer))

    def and_removes():  # as a run that won does with what it took up
        another_writer()
        for claim in (tmp_path / "lake" / "_staging" / "t").glob("*-*.json"):
            shutil.rmtree(tmp_path / "lake" / "t" / json.loads(claim.read_text())["folder"])

    with pytest.raises(LostRace, match="another run published table 't' first") as lost:
        run_pipeline(spark, tmp_path, file, progress=losing(and_removes))
    assert lost.value.__cause__ is not None

    def and_breaks():
        another_writer()
        raise ValueError("the disk burns")

    with pytest.raises(ValueError, match="the disk burns"):  # a fault of its own is no lost race
        run_pipeline(spark, tmp_path, file, progress=losing(and_breaks))
    run_pipeline(spark, tmp_path, file)
    answer = queries.sql(lake_of(tmp_path), "select id from t order by id", None, None).to_pylist()
    assert answer == [{"id": 2}]  # what the other writer did stands


def test_files_of_a_run_that_lost_are_taken_up_by_the_next(spark, tmp_path):
    """Another run took this one for dead and publishes first, without a file that this one had seen and recorded."""
    file = small(tmp_path, CSV % "")
    land(tmp_path, "t/a.csv", "id,v\n1,x\n")
    run_pipeline(spark, tmp_path, file)
    land(tmp_path, "t/b.csv", "id,v\n2,y\n")
    land(tmp_path, "t/c.csv", "id,v\n3,z\n")

    def other_wins():
        (tmp_path / "landing" / "t" / "c.csv").rename(tmp_path / "c.csv")
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("headgate.jobs.lake.lease.Term.is_gone", True)
            run_pipeline(spark, tmp_path, file)
        (tmp_path / "c.csv").rename(tmp_path / "landing" / "t" / "c.csv")

    with pytest.raises(LostRace, match="changed by another writer"):
        run_pipeline(spark, tmp_path, file, progress=Faults(before={("t", "publish"): other_wins}))
    run_pipeline(spark, tmp_path, file)
    answer = queries.sql(lake_of(tmp_path), "select id from t order by id", None, None).to_pylist()
    assert answer == [{"id": 1}, {"id": 2}, {"id": 3}]
    assert run_pipeline(None, tmp_path, file).built == 0


def test_restore_brings_back_content_and_later_files_come_again(spark, tmp_path):
    file = small(tmp_path, CSV % "")
    land(tmp_path, "t/a.csv", "id,v\n1,x\n")
    run_pipeline(spark, tmp_path, file)
    land(tmp_path, "t/b.csv", "id,v\n2,y\n")
    run_pipeline(spark, tmp_path, file)
    lake = lake_of(tmp_path)
    assert restore(lake, [("t", 0)], "r") == [{"table": "t", "version": 2, "content_of": 0, "rows": 1}]
    assert len(content(tmp_path, "t")) == 1 and len(content(tmp_path, "t", 1)) == 2
    assert records(run_pipeline(spark, tmp_path, file))["t"]["rows_in"] == 1
    assert len(content(tmp_path, "t")) == 2
    with pytest.raises(InputMissing, match="no version 99"):
        restore(lake, [("t", 99)], "r")


def test_a_field_that_only_spark_can_miss_is_a_usage_error(spark, tmp_path):
    tables = CSV % "" + "  m:\n    from: t\n    steps:\n      - derive: {columns: {w: id.nosuch + 1}}\n    suite: any\n"
    land(tmp_path, "t/a.csv", "id,v\n1,x\n")
    with pytest.raises(UsageError, match=r"tables\.m\.steps\[0\]\.derive: .*extract a value from .id"):
        run_pipeline(spark, tmp_path, small(tmp_path, tables))


def test_fitted_steps_can_be_loaded_and_applied(spark, night):
    lake = lake_of(night)
    key, steps = lake.published("flights_training").facts["state"], load_pipeline(FLIGHTS).steps["flights_training"]
    names = [s.name for s in load_fitted(lake, "flights_training", steps, key)]
    assert names.count("fill_missing") == 3 and "resample_strata" in names and "assign_weights" in names


def test_versions_tables_and_sql_answer(spark, night):
    lake = lake_of(night)
    row = next(r for r in queries.tables(lake, None) if r["table"] == "flights_training")
    assert row["version"] == 0 and row["release"] == "flights-1" and row["rows"] > 0
    version = queries.versions(lake, "flights")[0]
    assert version["releases"] == ["flights-1"] and version["rows_in"] == 2699
    with pytest.raises(UsageError, match="sql:"):
        queries.sql(lake, "select nope from flights", None, None)
    with pytest.raises(UsageError, match="sql:"):
        queries.sql(lake, "select * from read_csv('/etc/passwd')", None, None)
    for engine in (queries.sql, functools.partial(queries.sql_by_spark, spark)):
        with pytest.raises(InputMissing, match=r"sql: .*flihgts") as e:
            engine(lake, "select * from flihgts", None, None)
        assert "\n" not in str(e.value)
    with pytest.raises(InputMissing, match="did you mean 'flights'"):
        queries.versions(lake, "flihgts")


def test_spark_answers_the_same(spark, night):
    lake = lake_of(night)
    query = "select origin, count(*) as n from flights group by origin order by origin"
    by_duckdb, by_spark = queries.sql(lake, query, None, None), queries.sql_by_spark(spark, lake, query, "latest", None)
    assert by_duckdb.to_pylist() == by_spark.to_pylist()


def test_a_table_alone_makes_no_release(spark, tmp_path, landing_of):
    landing_of(tmp_path / "landing", "2013-01-01")
    outcome = run_pipeline(spark, tmp_path, tables=("airlines",))
    assert {r.table for r in outcome.tables} == {"raw_airlines", "airlines"} and outcome.release is None
    with pytest.raises(UsageError, match="did you mean 'airlines'"):
        run_pipeline(spark, tmp_path, tables=("airlnes",))


def test_plans_say_why(night):
    environment = environment_of(night)
    plan = plan_table(load_pipeline(FLIGHTS), environment, lake_of(night), "flights", None, force=True)
    assert plan.why == "a rebuild was asked for" and plan.pins["raw_flights"].version == 0
