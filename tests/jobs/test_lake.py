import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import duckdb
import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, write_deltalake

from headgate.jobs.errors import HeadgateError, InputMissing, LostRace, UsageError
from headgate.jobs.explore import diff, queries, trace
from headgate.jobs.keep import verify as verifying
from headgate.jobs.keep.contents import contents
from headgate.jobs.keep.restore import restore
from headgate.jobs.keep.retention import drop_releases, vacuum
from headgate.jobs.lake import releases
from headgate.jobs.lake.artifacts import read_small
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.log import commits
from headgate.jobs.lake.system import COMPACT_EVERY, DESCRIPTIONS, PINNED, SCHEMAS, now
from headgate.jobs.pipeline.run import check_release
from headgate.jobs.progress import Progress


def test_an_empty_lake_says_so(tmp_path):
    lake = Lake(str(tmp_path / "lake"))
    assert lake.tables() == [] and lake.releases == [] and lake.system("runs").num_rows == 0
    with pytest.raises(InputMissing, match="has no release yet"):
        lake.release("latest")
    with pytest.raises(InputMissing, match="has no table 'x'"):
        lake.need_table("x")
    assert not (tmp_path / "lake").exists()


def test_a_system_table_that_nothing_was_written_to_has_no_rows(tmp_path, spark):
    lake = Lake(str(tmp_path))
    write_deltalake(lake.path("t"), pa.table({"n": [1]}))
    query = "select count(*) as n, count(distinct reason) as reasons from ledger"
    for answer in (queries.sql(lake, query, None, None), queries.sql_by_spark(spark, lake, query, None, None)):
        assert answer.to_pylist() == [{"n": 0, "reasons": 0}]


def test_releases_are_numbered_named_and_never_change(tmp_path):
    lake = Lake(str(tmp_path))
    assert lake.publish_release("p", "r1", {"a": 1}, None, None, None) == "p-1"
    assert lake.publish_release("p", "r2", {"a": 2}, None, 1, "spring") == "spring"
    assert lake.release("latest")["release"] == lake.release("2")["release"] == "spring"
    with pytest.raises(UsageError, match="never changes"):
        lake.publish_release("p", "r3", {"a": 3}, None, 2, "spring")
    with pytest.raises(InputMissing, match="did you mean 'spring'"):
        lake.release("sprng")


def test_a_release_on_an_old_view_loses(tmp_path):
    lake = Lake(str(tmp_path))
    lake.publish_release("p", "r1", {"a": 1}, None, None, None)
    with pytest.raises(LostRace):
        lake.publish_release("p", "r2", {"a": 1}, None, None, None)
    assert len(lake.releases) == 1


def test_of_eight_releases_at_once_one_wins(tmp_path):
    lake = Lake(str(tmp_path))
    lake.publish_release("p", "r0", {"a": 0}, None, None, None)
    outcomes = []

    def publish(i):
        try:
            outcomes.append(Lake(str(tmp_path)).publish_release("p", f"r{i}", {"a": i}, None, 1, None))
        except LostRace:
            outcomes.append(None)

    threads = [threading.Thread(target=publish, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(outcomes, key=str) == [None] * 7 + ["p-2"] and len(lake.releases) == 2


def test_eight_pipelines_that_publish_the_first_release_at_once_all_do(tmp_path):
    def publish(i):
        return Lake(str(tmp_path)).publish_release(f"p{i}", "r", {"a": i}, None, None, None)

    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(publish, range(8)))
    assert sorted(int(n.split("-")[1]) for n in names) == list(range(1, 9))
    assert sorted(r["release"] for r in Lake(str(tmp_path)).releases) == sorted(names)


def test_other_pipelines_releases_do_not_compete(tmp_path):
    lake = Lake(str(tmp_path))
    lake.publish_release("p", "r1", {"a": 1}, None, None, None)
    assert lake.publish_release("q", "r2", {"b": 1}, None, None, None) == "q-2"
    assert lake.latest_release("p")["release"] == "p-1"


def test_system_tables_keep_their_schema(tmp_path):
    lake = Lake(str(tmp_path))
    at = datetime(2013, 1, 1, tzinfo=timezone.utc)
    lake.record("runs", [{"run_id": "r", "recorded_at": at, "status": "running"}])
    assert lake.system("runs").schema.names == SCHEMAS["runs"].names
    assert lake.system("runs").to_pylist()[0]["recorded_at"] == at
    with pytest.raises(InputMissing, match="no version 9"):
        lake.open("runs", 9)


def test_eight_writers_that_create_a_system_table_all_write(tmp_path):
    errors = []

    def write(i):
        try:
            Lake(str(tmp_path)).record("runs", [{"run_id": f"r{i}"}])
        except Exception as e:
            errors.append(e)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors and Lake(str(tmp_path)).system("runs").num_rows == 8


def test_system_tables_stay_in_few_files(tmp_path):
    lake, at = Lake(str(tmp_path)), datetime.now(timezone.utc)
    for i in range(COMPACT_EVERY + 5):
        lake.record("runs", [{"run_id": f"r{i}", "event": "started", "recorded_at": at}])
        lake.publish_release("p", f"r{i}", {"a": i}, None, i or None, None)
    assert lake.system("runs").num_rows == len(lake.releases) == COMPACT_EVERY + 5
    for table in ("runs", "releases"):
        assert len(lake.open(table).file_uris()) <= 6
        assert list((tmp_path / "_system" / table / "_delta_log").glob("*.checkpoint.parquet"))


def test_what_eight_runs_record_of_one_build_is_there_once(tmp_path):
    lake = Lake(str(tmp_path))
    rows = [{"table_name": "t", "build": "b", "input": f"i{i}"} for i in range(3)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: Lake(str(tmp_path)).record("lineage", rows, "b"), range(8)))
    lake.record("lineage", rows, "b")
    lake.record("lineage", rows[:1], "c")
    lake.record("lineage", [{**rows[0], "table_name": "other"}], "b")
    assert sorted(r["input"] for r in lake.system("lineage").to_pylist()) == ["i0", "i0", "i0", "i1", "i2"]


def test_a_lake_tells_its_format_and_another_one_is_refused(tmp_path):
    lake = Lake(str(tmp_path))
    assert lake.tables() == []
    with ThreadPoolExecutor(8) as pool:  # of runs that make it at once, each writes the same
        list(pool.map(lambda i: Lake(str(tmp_path)).record("runs", [{"run_id": f"r{i}"}]), range(8)))
    file = tmp_path / "_system" / "format.json"
    assert file.read_text() == '{"format": 4}' and list(file.parent.glob("format.json*")) == [file]
    assert Lake(str(tmp_path)).system("runs").num_rows == 8
    file.write_text('{"format": 5}')
    for use in (lambda lake: lake.tables(), lambda lake: lake.releases, lambda lake: lake.record("runs", [{}])):
        with pytest.raises(UsageError, match=r"has format 5, and this version of headgate reads format 4: use a newer"):
            use(Lake(str(tmp_path)))
    file.unlink()
    with pytest.raises(UsageError, match=r"has format 1, .* build it again from its landing files in a new folder"):
        Lake(str(tmp_path)).publish_release("p", "r", {}, None, None, None)
    file.write_text("{")
    with pytest.raises(HeadgateError, match=r"format\.json cannot be read"):
        Lake(str(tmp_path)).open("runs")


ERASED = json.dumps({"t": {"versions": {"8": {"rows": 1, "content": "c8"}}}})


def test_what_a_restore_undid_is_no_part_of_a_table(tmp_path):
    """Also one by another tool, and one to a version that another tool wrote."""
    lake = Lake(str(tmp_path))

    def commit(build, **facts):
        told = CommitProperties(custom_metadata={"userMetadata": json.dumps({"build": build, **facts})})
        data = pa.table({"n": [1]})
        write_deltalake(lake.path("t"), data, mode="append", commit_properties=told if build else None)
        if build:
            file = {
                "table_name": "t",
                "path": f"{build}.csv",
                "build": build,
                "base": facts["base"],
                "recorded_at": now(),
            }
            lake.record("files", [file])

    def known():
        return sorted(lake.files_of("t"))

    commit("a", base=-1, content_total="c0")
    commit(None)  # version 1, by another writer
    commit("b", base=1, increment=True)
    assert lake.present_builds("t") == ["b", "a"] and known() == ["a.csv", "b.csv"]
    restore(lake, [("t", 1)], "r")  # version 3
    assert lake.last_build("t")["build"] == "a" and known() == ["a.csv"]
    lake.record("files", [{"table_name": "t", "path": "dead.csv", "build": "dead", "base": 0, "recorded_at": now()}])
    commit("c", base=3, increment=True)
    assert lake.present_builds("t") == ["c", "a"] and known() == ["a.csv", "c.csv"]
    lake.forget_unpublished_files("t")
    assert sorted(r["build"] for r in lake.system("files").to_pylist()) == ["a", "b", "c"]
    DeltaTable(lake.path("t")).restore(2)  # version 5
    assert lake.present_builds("t") == ["b", "a"] and known() == ["a.csv", "b.csv"]
    assert [lake.content_total("t", v) for v in (0, 1, 3, 5)] == ["c0", None, None, None]
    restore(lake, [("t", 0)], "r")  # version 6
    write_deltalake(lake.path("t"), pa.table({"n": [2]}), mode="append")
    DeltaTable(lake.path("t")).restore(6)
    DeltaTable(lake.path("t")).optimize.compact()
    assert lake.content_total("t", DeltaTable(lake.path("t")).version()) == "c0"
    # What an erasure wrote anew without counting it is not known, nor what is restored from it.
    lake.record("erasures", [{"erasure": "e", "event": "finished", "recorded_at": now(), "tables": ERASED}])
    assert [lake.content_total("t", v) for v in (0, 6, 8)] == [None, None, "c8"]


@pytest.mark.parametrize("table", SCHEMAS)
def test_system_tables_and_their_columns_are_described(tmp_path, table):
    lake = Lake(str(tmp_path))
    delta = lake.open_or_create(table)
    metadata = delta.metadata()
    assert metadata.description == DESCRIPTIONS[table] and metadata.description
    comments = {f.name: f.metadata.get("comment") for f in delta.schema().fields}
    assert list(comments) == SCHEMAS[table].names and all(comments.values())
    assert metadata.partition_columns == (["table_name"] if table == "ledger" else [])


def test_recording_changes_no_schema(tmp_path):
    lake = Lake(str(tmp_path))
    for i in range(3):
        lake.record("runs", [{"run_id": f"r{i}"}])
        lake.publish_release("p", f"r{i}", {"a": i}, None, i or None, None)
    for table in ("runs", "releases"):
        actions = [a for _, commit in commits(lake.path(table)) for a in commit]
        assert sum("metaData" in a for a in actions) == 1 and sum("add" in a for a in actions) == 3
        assert all(f.metadata.get("comment") for f in lake.open(table).schema().fields)


QUERIES = (
    "select {n} from t",
    "select {n} from t where {n} = 'x' order by {n}",
    "select max({n}) from t group by {n}",
    "select a.{n} from t a join t b using ({n})",
    "select {n} as y from t",
    "with q as (select {n} from t) select q.{n} from q",
)


def column_names():
    names = {n for schema in SCHEMAS.values() for n in schema.names}
    return sorted(names | {f.name for f in PINNED.value_type})


@pytest.mark.parametrize("name", column_names())
def test_names_of_system_columns_need_no_quotes(name):
    connection = duckdb.connect()
    connection.execute(f"create table t as select 'x' as \"{name}\"")
    for query in QUERIES:
        assert connection.execute(query.format(n=name)).fetchall() == [("x",)], query


def test_names_of_system_columns_need_no_quotes_in_spark(spark):
    """Where the reserved words of ANSI are enforced as well."""
    own = spark.newSession()
    own.conf.set("spark.sql.ansi.enforceReservedKeywords", "true")
    names = column_names()
    own.sql(f"select {', '.join(f'{n!r} as `{n}`' for n in names)}").createOrReplaceTempView("t")
    told = own.sql(f"select {', '.join(names)} from t where {' and '.join(f'{n} is not null' for n in names)}")
    assert list(told.first()) == names


def test_what_many_record_at_once_is_there_once(tmp_path):
    """In tables that none of them finds made, with and without a build by which a row is known."""

    def record(n):
        lake = Lake(str(tmp_path))
        lake.record("runs", [{"run_id": f"r{n}", "event": "started", "recorded_at": now()}])
        for table in ("lineage", "metrics", "files"):
            lake.record(table, [{"table_name": f"t{n}", "build": "b", "run_id": f"r{n}"}], "b")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(record, range(6)))
    for table in ("runs", "lineage", "metrics", "files"):
        found = Lake(str(tmp_path)).system(table)
        assert sorted(found["run_id"].to_pylist()) == [f"r{n}" for n in range(6)], table


def test_rows_are_found_by_nan_and_those_of_other_writers_have_no_story(tmp_path):
    lake = Lake(str(tmp_path))
    write_deltalake(lake.path("t"), pa.table({"_row_id": ["a", "b"], "f": [float("nan"), 1.0]}))
    assert trace.ids_of(lake, "t", {"f": "nan"}) == ["a"]
    many = pa.table({"_row_id": [f"r{i:06}" for i in range(300_000)], "f": [float("nan")] * 300_000})
    write_deltalake(lake.path("many"), many)
    assert len(trace.matching(lake.dataset("many"), {"f": "nan"})) < 300_000  # it stops when it has enough
    write_deltalake(lake.path("others"), pa.table({"f": [1.0]}))
    with pytest.raises(UsageError, match="table 'others' has no _row_id"):
        trace.ids_of(lake, "others", {"f": "1"})


def test_names_that_stand_for_other_releases_are_refused_and_a_name_goes_before_a_number(tmp_path):
    for name in ("latest", "2", "07"):
        with pytest.raises(UsageError, match=f"'{name}' stands for"):
            check_release(name, ())
    lake = Lake(str(tmp_path))
    for i, name in enumerate((None, None, "1")):
        lake.publish_release("p", f"r{i}", {"a": i}, None, i or None, name)
    assert lake.release("1")["tables"] == [{"table_name": "a", "version": 2}] and lake.release("2")["release"] == "p-2"


def test_a_release_never_gives_a_table_that_was_made_anew_for_the_one_that_it_names(tmp_path, monkeypatch):
    lake = Lake(str(tmp_path / "lake"))
    for table, ids in {"t": [1], "u": [1], "v": [7]}.items():
        write_deltalake(lake.path(table), pa.table({"id": ids}))
    lake.publish_release("p", "r", {"t": 0, "u": 0, "v": 0}, None, None, None)
    lake.publish_release("p", "s", {"t": 0, "u": 0}, None, 1, None)
    assert lake.made_anew(lake.release("p-1")) == {}
    shutil.rmtree(lake.path("t"))
    shutil.rmtree(lake.path("u"))
    time.sleep(0.01)
    write_deltalake(lake.path("t"), pa.table({"id": [2]}))
    assert [*lake.made_anew(lake.release("p-1"))] == ["t"]
    assert lake.pins("p-1", ["t"]) == {"t": 0}, "clocks of machines may differ by minutes"
    for module in (releases, queries, verifying):
        monkeypatch.setattr(module, "CLOCKS", timedelta(0))
    anew, gone = (
        "version 0 of a table 't' that is gone: the one in lake .* was made anew at",
        "'p-1' names table 'u', wh",
    )
    for table, why in (("t", anew), ("u", gone)):
        with pytest.raises(InputMissing, match=why):
            queries.sql(lake, f"select * from {table}", "p-1", None)
        with pytest.raises(InputMissing, match=why):
            lake.pinned_version(table, "p-1")
    assert queries.sql(lake, "select * from v", "p-1", None).to_pylist() == [{"id": 7}]
    for read in (queries.tables, contents, lambda lake, name: diff.diff(lake, name, name)):
        with pytest.raises(InputMissing, match=anew):
            read(lake, "p-1")
    of_t, of_u = verifying.verify(None, lake, "p-2", Progress(watched=False))
    assert "of another table, made at" in of_t["files"] and of_u["files"] == "no such table"
    assert of_t["failed"] and of_u["failed"]


def test_a_table_that_another_writer_replaced_in_a_later_version_is_the_same(tmp_path):
    lake = Lake(str(tmp_path))
    write_deltalake(lake.path("t"), pa.table({"id": [1]}))
    lake.publish_release("p", "r", {"t": 0}, None, None, None)
    log = tmp_path / "t" / "_delta_log"
    actions = [json.loads(line) for line in (log / f"{0:020}.json").read_text().splitlines()]
    (table,) = (a["metaData"] for a in actions if "metaData" in a)
    later = {"metaData": table | {"id": "another", "createdTime": table["createdTime"] + 86_400_000}}
    (log / f"{1:020}.json").write_text(json.dumps(later))
    assert lake.need_table("t").version() == 1 and lake.made_anew(lake.release("p-1")) == {}
    assert lake.pins("p-1") == {"t": 0}


def test_names_of_what_is_dropped_are_looked_at(tmp_path):
    lake = Lake(str(tmp_path))
    for i in range(3):
        lake.publish_release("shop", f"r{i}", {"a": i}, None, i or None, None)
    with pytest.raises(InputMissing, match=r"of a pipeline 'shp' — did you mean 'shop'\? \(pipelines: shop\)"):
        drop_releases(lake, keep=1, pipeline="shp")
    assert [r["release"] for r in drop_releases(lake, ["shop-1", "shop-1"])] == ["shop-1"]
    write_deltalake(lake.path("t"), pa.table({"id": [1]}))
    with pytest.raises(InputMissing, match=r"has no table 'T' — did you mean 't'\? \(tables: t\)"):
        vacuum(lake, 1, 1.0, ["T"])


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("delete from t", "DELETE"),
        ("-- all\n /* of\nit */ Truncate table t", "TRUNCATE"),
        ("insert into t values (1)", "INSERT"),
        ("", "this"),
    ],
)
def test_a_lake_is_not_changed_by_a_query_of_spark(tmp_path, query, word):
    with pytest.raises(UsageError, match=f"sql: {word} is not a query; a lake is read here, not changed"):
        queries.sql_by_spark(None, Lake(str(tmp_path)), query, None, None)
    for fine in ("with x as (select 1) select * from x", "(select 1)", "-- n\nselect 1", "describe t"):
        with pytest.raises(AttributeError):  # there is no session to ask
            queries.sql_by_spark(None, Lake(str(tmp_path)), fine, None, None)


@pytest.mark.parametrize("cut", ["", '{"folder": "k-r'])
def test_what_a_crash_of_the_machine_cut_short_counts_as_not_written(tmp_path, cut):
    (tmp_path / "key.json").write_text(cut)
    assert read_small(f"{tmp_path}/key.json") is None
