"""Runs whose lake and landing folder lie in an object store; `test_stores` starts them in a process of their own.

Spark has one set of jars a process, and the session of the other tests has none of S3's.
"""

import dataclasses
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from deltalake import write_deltalake
from pyarrow import fs

import headgate
from headgate.jobs.config.models import Environment
from headgate.jobs.config.pipeline import load_pipeline
from headgate.jobs.errors import InputMissing, LostRace
from headgate.jobs.explore import queries
from headgate.jobs.explore.trace import trace
from headgate.jobs.keep.erasure.certificate import erase
from headgate.jobs.keep.erasure.reach import reach
from headgate.jobs.keep.restore import restore
from headgate.jobs.keep.retention import vacuum
from headgate.jobs.keep.verify import verify
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.storage import file_system, put, storage_options
from headgate.jobs.lake.stores import SECRET_SETTINGS, Store, spark_settings, use
from headgate.jobs.pipeline.run import Outcome, run
from headgate.jobs.progress import Progress
from headgate.jobs.spark.given import beside
from headgate.jobs.spark.session import start
from tests.conftest import TEST_SETTINGS
from tests.lakes import FLIGHTS, Faults, Killed, at_once, die, write_pipeline
from tests.store_server import StoreServer, store_server

PLACES = ("s3://lake", "s3://landing")
TABLES = """
  raw:
    suite: any
    source: {format: csv, path: 'in/*.csv', schema: 'id INT, name STRING, v DOUBLE', key: [id]}
  t:
    from: raw
    suite: any
    steps: [{derive: {columns: {w: v * 2}}}, {reject_rows: {where: v < 0, reason: negative}}]
"""


def write_keys(file: Path, access: str) -> None:
    """Write a profile whose program gives a key that expires so soon that it is asked for anew at every use."""
    soon = (datetime.now(timezone.utc) + timedelta(seconds=5)).isoformat(timespec="seconds").replace("+00:00", "Z")
    keys = {"Version": 1, "AccessKeyId": access, "SecretAccessKey": "s", "SessionToken": "t", "Expiration": soon}
    file.with_suffix(".json").write_text(json.dumps(keys))
    file.write_text(f"[default]\ncredential_process = cat {file.with_suffix('.json')}\n")


@pytest.fixture(scope="module")
def store() -> Any:
    with store_server() as server:
        yield server


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: Any) -> Path:
    file: Path = tmp_path_factory.mktemp("keys") / "credentials"
    write_keys(file, "first")
    return file


@pytest.fixture(scope="module")
def spark(store: StoreServer, credentials: Path) -> Any:
    use(Store(endpoint=store.url, allow_http=True, credentials_file=str(credentials)), *PLACES)
    # A failed task is tried again; requests fail sooner than they would for a user.
    settings = TEST_SETTINGS | {"spark.master": "local[2,3]"} | spark_settings(*PLACES)
    session = start(settings | {"spark.hadoop.fs.s3a.attempts.maximum": "3"}, SECRET_SETTINGS)
    yield session
    session.stop()


@dataclasses.dataclass
class Place:
    """A pipeline with its own folders in the store."""

    spark: Any
    file: Path
    environment: Environment

    @property
    def lake(self) -> Lake:
        return Lake(self.environment.lake)

    def land(self, number: int) -> None:
        lines = "".join(f"{number * 1000 + i},n{number}-{i},{i - 3}\n" for i in range(100))
        put(f"{self.environment.landing}/in", f"{number}.csv", f"id,name,v\n{lines}".encode())

    def run(self, progress: Progress | None = None, session: Any = None, **options: Any) -> Outcome:
        pipeline, shown = load_pipeline(self.file), progress or Progress(watched=False)
        start = lambda reads: session or self.spark  # noqa: E731
        return run(pipeline, self.environment, self.lake, start, shown, **options)

    def content(self, table: str = "t") -> list[str]:
        return content(self.lake, table)


def content(lake: Lake, table: str) -> list[str]:
    found = lake.dataset(table).to_table().to_pylist()
    return sorted(json.dumps(r, default=str, sort_keys=True) for r in found)


@pytest.fixture
def place(spark: Any, store: StoreServer, credentials: Path, tmp_path: Path, request: Any) -> Any:
    write_keys(credentials, "first")
    name = request.node.name.replace("[", "-").replace("]", "")
    places = Environment(lake=f"s3://lake/{name}", landing=f"s3a://landing/{name}")
    made = Place(spark, write_pipeline(tmp_path, TABLES), places)
    made.land(1)
    store.requests()
    yield made
    store.fail("", times=0)
    store.keys()


IDS = [f"{1000 + i}" for i in range(3, 100)]


def whole(place: Place) -> bool:
    """Return whether the first file's rows are published, each once, and the others in the ledger."""
    ids = sorted(str(r["id"]) for r in place.lake.dataset("t").to_table().to_pylist())
    return ids == sorted(IDS) and place.lake.dataset("ledger").count_rows() == 3


def test_flights_as_on_disk(spark: Any, store: StoreServer, tmp_path: Path, landing_of: Any) -> None:
    """Three days, nothing new, a fourth: the same tables, releases and ledger as on disk, and all commands on them."""
    places = {
        "disk": Environment(lake=f"file:{tmp_path}/lake", landing=(tmp_path / "landing").as_uri()),
        "store": Environment(lake="s3a://lake/flights", landing="s3://landing/flights"),
    }
    made = {name: Place(spark, FLIGHTS, environment) for name, environment in places.items()}
    files, base = file_system(places["store"].landing)
    for last, built in (("2013-01-03", 12), ("2013-01-03", 0), ("2013-01-04", None)):
        local = landing_of(tmp_path / "landing", last)
        fs.copy_files(str(local), base, source_filesystem=fs.LocalFileSystem(), destination_filesystem=files)
        for name in made:
            store.requests()
            outcome = made[name].run()
            if name == "store" and outcome.built:
                requests = store.requests()
                told = f"{sum(requests.values()) / outcome.built:.0f} requests for each of {outcome.built} tables"
                print(f"{last}: {told}", dict(sorted(requests.items())))
            assert built is None or outcome.built == built
    disk, there = made["disk"].lake, made["store"].lake
    for table in there.tables():
        assert content(there, table) == content(disk, table), table
        versions = [[r["version"] for r in queries.versions(lake, table)] for lake in (there, disk)]
        assert versions[0] == versions[1], table
    ledger = "select table_name, row_id, step, reason from ledger order by all"
    assert queries.sql(there, ledger, None, None) == queries.sql(disk, ledger, None, None)

    query = "select count(*) as n from flights_training"
    assert queries.sql(there, query, "flights-1", None) == queries.sql(disk, query, "flights-1", None)
    row = there.dataset("flights").to_table(columns=["_row_id"])["_row_id"][0].as_py()
    story = trace(there, places["store"].landing, row)
    assert story == trace(disk, places["disk"].landing, row)
    assert any(event.get("line") for event in story)
    assert not any(v["failed"] for v in verify(spark, there, "latest", Progress(watched=False)))
    assert all(r["files_removed"] == 0 for r in vacuum(there, 365, 24))
    before = content(there, "weather")
    first = there.release("flights-1")["tables"]
    pinned = next(t["version"] for t in first if t["table_name"] == "weather")
    restore(there, [("weather", pinned)], "r")
    assert content(there, "weather") != before
    made["store"].run()
    assert content(there, "weather") == before


def test_a_session_of_ones_own(place: Place) -> None:
    """It has the jars and its way into the store; headgate adds what concerns its own reading and writing."""
    given = place.spark.newSession()
    own = beside(given, place.environment.lake, place.environment.landing)
    place.run(session=own)
    assert whole(place)
    found = headgate.Lake(place.environment.lake).read("t", as_="spark", spark=given)
    assert found.count() == 97


def test_rows_are_erased(place: Place) -> None:
    place.run()
    before = len(place.content())
    where, silent = "id = 1050", Progress(watched=False)
    erase(place.spark, place.lake, reach(place.lake, "raw", where, None), where, "asked", "me", "me", silent)
    assert len(place.content()) == before - 1
    assert not any(v["failed"] for v in verify(place.spark, place.lake, "latest", Progress(watched=False)))


@pytest.mark.parametrize("how", ["500", "503", "cut", "slow", "lost"])
def test_a_store_that_fails_now_and_then(place: Place, store: StoreServer, how: str) -> None:
    """Every seventh request; of those whose answer is lost, the commits."""
    lost = r"PUT .*_delta_log/\d+\.json" if how == "lost" else ""
    store.fail(how, match=lost, times=1000, every=3 if lost else 7, seconds=1.0)
    place.run()
    store.fail("", times=0)
    assert whole(place)
    assert [r["number"] for r in place.lake.releases] == [1]
    assert place.lake.system("runs")["event"].to_pylist().count("started") == 1


def test_what_a_failed_attempt_wrote_is_not_published(place: Place, store: StoreServer) -> None:
    """An upload that fails for good ends the task's first attempt; the second one's files are all there is."""
    store.fail("500", match=r"PUT /lake/.*/t/.*parquet.*partNumber", times=30)
    seen = threading.Event()
    place.run(Faults(after={("t", "steps"): seen.set}))
    store.fail("", times=0)
    assert seen.is_set() and whole(place)
    delta = place.lake.need_table("t")
    files, base = file_system(place.lake.path("t"))
    there = [f.path for f in files.get_file_info(fs.FileSelector(base, recursive=True)) if f.path.endswith(".parquet")]
    assert len(there) == len(delta.file_uris())


@pytest.mark.parametrize("phase", ["stage", "gate", "publish"])
def test_a_killed_run_is_taken_up(place: Place, phase: str) -> None:
    with pytest.raises(Killed):
        place.run(Faults(before={("t", phase): die}))
    assert place.lake.open("t") is None
    place.run()
    assert whole(place)


def test_credentials_that_expire_and_are_renewed_in_time(place: Place, store: StoreServer, credentials: Path) -> None:
    """The old keys end in the midst of a run: Spark, its workers and Python go on with the new."""

    def renew() -> None:
        write_keys(credentials, "second")
        store.keys("second")

    store.keys("first")
    place.run(Faults(after={("raw", "stage"): renew}))
    assert whole(place)


@pytest.mark.parametrize("phase", [("raw", "ingest"), ("raw", "stage"), ("t", "stage"), ("t", "publish")])
def test_credentials_that_expire(place: Place, store: StoreServer, credentials: Path, phase: tuple[str, str]) -> None:
    """One line says so, and with new ones the next run goes on where this one stopped."""
    store.keys("first")
    with pytest.raises(InputMissing) as e:
        place.run(Faults(before={phase: lambda: store.keys("third")}))
    assert "credential" in str(e.value) and "\n" not in str(e.value) and place.lake.root in str(e.value)
    write_keys(credentials, "third")
    place.run()
    assert whole(place)


@pytest.mark.parametrize("runs", [2, 8])
def test_of_runs_at_once_one_publishes_each_version(place: Place, runs: int) -> None:
    ended = at_once(place.spark, runs, lambda session: place.run(session=session))
    for e in ended:
        assert e is None or (isinstance(e, LostRace) and "\n" not in str(e)), e
    place.run()
    assert whole(place)
    assert [r["number"] for r in place.lake.releases] == [1]


def at_stage(what: Callable[[], object]) -> Faults:
    return Faults(after={("t", "stage"): what})


def test_a_run_beside_a_vacuum(place: Place) -> None:
    place.run()
    place.land(2)
    place.run(at_stage(lambda: vacuum(place.lake, 0, grace_hours=1)))
    assert len(place.content()) == 2 * 97


def test_a_run_beside_a_restore_and_a_foreign_writer(place: Place) -> None:
    place.run()
    place.land(2)
    place.run()
    place.land(3)
    rows = place.lake.dataset("t").head(1)
    path = place.lake.path("t")
    foreign = lambda: write_deltalake(path, rows, mode="append", storage_options=storage_options(path))  # noqa: E731
    for other in (lambda: restore(place.lake, [("t", 0)], "r"), foreign):
        with pytest.raises(LostRace, match="table 't' was changed by another writer"):
            place.run(at_stage(other))
    place.run()
    assert len(place.content()) == 3 * 97


def test_a_run_beside_an_erasure(place: Place) -> None:
    place.run()
    place.land(2)
    where, silent = "id = 1050", Progress(watched=False)
    found = reach(place.lake, "raw", where, None)
    with pytest.raises(LostRace):
        place.run(at_stage(lambda: erase(place.spark, place.lake, found, where, "asked", "me", "me", silent)))
    place.run()
    assert len(place.content()) == 2 * 97 - 1


def test_two_pipelines_on_one_lake(place: Place, tmp_path: Path) -> None:
    """Each publishes its tables and its release; the system tables have what both recorded."""
    other = write_pipeline(tmp_path / "other", TABLES.replace("  raw:", "  raw2:").replace("  t:", "  t2:"))
    other.write_text(other.read_text().replace("from: raw", "from: raw2").replace("pipeline: p", "pipeline: q"))
    second = dataclasses.replace(place, file=other, spark=place.spark.newSession())
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda p: p.run(retries=3), (place, second)))
    assert {r["pipeline"] for r in place.lake.releases} == {"p", "q"}
    assert [r["number"] for r in place.lake.releases] == [1, 2]
    assert len(place.content("t")) == len(place.content("t2")) == 97
    assert queries.sql(place.lake, "select count(distinct table_name) as n from files", None, None)["n"][0].as_py() == 2
