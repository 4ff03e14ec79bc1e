"""Object stores, by a real S3 API on loopback: places, keys, commits and their races, and what a user is told."""

import json
import os
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from headgate.jobs.config.environment import load_environment
from headgate.jobs.config.models import Environment
from headgate.jobs.errors import HeadgateError, InputMissing, LostRace, UsageError
from headgate.jobs.explore import queries
from headgate.jobs.keep.backup import backup, recover
from headgate.jobs.keep.erasure.files import remove_cut_short
from headgate.jobs.keep.optimize import optimize
from headgate.jobs.keep.retention import vacuum
from headgate.jobs.lake import stores
from headgate.jobs.lake.arranging import Order
from headgate.jobs.lake.conflicts import VersionTaken
from headgate.jobs.lake.datafiles import data_files, readers
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.lease import Lease
from headgate.jobs.lake.log import stored_files
from headgate.jobs.lake.probe import why_not_usable
from headgate.jobs.lake.storage import file_system, located, open_table, put, put_new, remove, storage_options
from headgate.jobs.lake.stores import Keys, Store, spark_settings, use
from headgate.jobs.lake.system import now
from headgate.jobs.lake.transaction import Change, commit
from tests.conftest import ROOT
from tests.jobs.test_cli import here  # noqa: F401  (a fixture)
from tests.lakes import write_pipeline
from tests.store_server import store_server

VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION")
VARIABLES += ("AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_SHARED_CREDENTIALS_FILE")
PLACES = ("s3://lake", "s3://landing", "s3://nobucket")
SCHEMA = json.dumps(
    {"type": "struct", "fields": [{"name": "i", "type": "long", "nullable": True, "metadata": {}}]},
)


@pytest.fixture(scope="module")
def server():
    with store_server() as running:
        yield running


@pytest.fixture(autouse=True)
def own_store(monkeypatch, tmp_path):
    """Let no test have another's store, or that of the machine."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(stores, "CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setattr(stores, "STORES", {})


@pytest.fixture
def root(server, request):
    """A folder of the store for one test."""
    use(Store(endpoint=server.url, allow_http=True, keys=lambda: Keys("key-of-test", "secret-of-test")), *PLACES)
    yield f"s3://lake/{request.node.name.partition('[')[0]}"
    server.fail("", times=0)
    server.keys()


# -- places and settings


@pytest.mark.parametrize(
    ("place", "one"),
    [
        ("s3a://b/x/", "s3://b/x"),
        ("S3://b", "s3://b"),
        ("gs://b/x y", "gs://b/x y"),
        ("abfss://c@account.dfs.core.windows.net/x", "abfss://c@account.dfs.core.windows.net/x"),
        ("hdfs://node:8020/x", "hdfs://node:8020/x"),
        ("file:/x/y", "/x/y"),
        ("file:///x/a%20b", "/x/a b"),
        ("/x", "/x"),
        ("a:b", f"{os.getcwd()}/a:b"),
    ],
)
def test_a_place_has_one_name(place, one):
    assert located(place) == one and located(one) == one


@pytest.mark.parametrize(
    ("place", "told"), [("abfs://c@a/x", "unknown scheme 'abfs' — did you mean 'abfss'"), ("s3:///x", "no bucket")]
)
def test_other_places_are_refused(place, told):
    with pytest.raises(UsageError, match=told):
        Lake(place)


def test_files_are_named_by_uri(tmp_path):
    lake = Lake(tmp_path.as_uri())
    assert lake.root == str(tmp_path)
    put(lake.root, "a/b", b"1")
    assert (tmp_path / "a" / "b").read_bytes() == b"1"
    (tmp_path / "conf" / "env").mkdir(parents=True)
    (tmp_path / "conf" / "env" / "x.yaml").write_text(f"lake: file:{tmp_path}/l\nlanding: s3a://b/in\n")
    environment = load_environment("x", tmp_path / "conf" / "p.yaml")
    assert (environment.lake, environment.landing) == (f"{tmp_path}/l", "s3://b/in")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("endpoitn: x", "unknown option 'endpoitn' — did you mean 'endpoint'? (allowed: endpoint, region, "),
        ("access_key: s3cret", "store.access_key: expected a mapping"),
        ("secret_key: {file: x}", "access_key and secret_key are given together"),
        ("endpoint: 'http://h:1'", "http://h:1 is not encrypted; allow_http: true allows that"),
        ("endpoint: 'https://u:s3cret@h'", "store.endpoint"),
        ("{access_key: {env: A}, secret_key: {env: B}, profile: p}", "cannot be combined with credentials_file"),
    ],
)
def test_wrong_options_of_a_store_are_refused(tmp_path, options, told):
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "x.yaml").write_text(f"store: {options}\n" if options[0] == "{" else f"store:\n  {options}\n")
    with pytest.raises(UsageError) as e:
        load_environment("x", tmp_path / "p.yaml")
    assert told in str(e.value) and "s3cret" not in str(e.value)


def test_keys_come_from_references_variables_or_a_profile(tmp_path, monkeypatch):
    """They are read when they are used, so that a change counts; what is named goes before what is found."""
    file, secret = tmp_path / "credentials", tmp_path / "secret"
    assert Store().current_keys() is None
    secret.write_text("of-file\n")
    monkeypatch.setenv("KEY", "by-reference")
    store = Environment.model_validate({"store": {"access_key": {"env": "KEY"}, "secret_key": {"file": str(secret)}}})
    assert store.store.store().current_keys() == Keys("by-reference", "of-file")
    secret.write_text("changed\n")
    assert store.store.store().current_keys() == Keys("by-reference", "changed")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "by-variable")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    assert Store().current_keys() == Keys("by-variable", "s")
    by_profile = Store(credentials_file=str(file), profile="p")
    with pytest.raises(UsageError, match="has no profile 'p' with aws_access_key_id"):
        by_profile.current_keys()
    for name in ("one", "two"):
        file.write_text(f"[p]\naws_access_key_id={name}\naws_secret_access_key=s%s\naws_session_token=t\n")
        assert by_profile.current_keys() == Keys(name, "s%s", "t")
        # Executors find it where it lies; Java reads it again as well.
        assert stores.from_facts(by_profile.facts()).current_keys() == Keys(name, "s%s", "t")
    (tmp_path / "keys.json").write_text('{"AccessKeyId": "given", "SecretAccessKey": "s%s"}')
    file.write_text(f"[p]\ncredential_process = cat {tmp_path}/keys.json\n")
    assert by_profile.current_keys() == Keys("given", "s%s")
    file.write_text(f"[p]\ncredential_process = cat {tmp_path}/none.json\n")
    with pytest.raises(UsageError, match=r"credential_process `cat .*none.json` gave no keys \(exit code 1\)"):
        by_profile.current_keys()
    use(by_profile, "s3a://b/x")
    found = spark_settings("s3a://b/x")
    assert found["spark.headgate.java.aws.sharedCredentialsFile"] == str(file)
    assert found["spark.headgate.java.aws.profile"] == "p" and not any("s%s" in value for value in found.values())


def test_a_bucket_is_named_in_the_path_or_in_the_host():
    def endpoint(**options):
        found = Store(endpoint="https://h:1", **options).options("b")
        return found["aws_endpoint"], "aws_virtual_hosted_style_request" in found

    assert endpoint() == endpoint(path_style=True) == ("https://h:1", False)
    assert endpoint(path_style=False) == ("https://b.h:1", True)
    assert Store().options("b") == {"aws_virtual_hosted_style_request": "true"}


def test_spark_gets_the_store_only_where_a_place_lies_in_it():
    use(Store(endpoint="https://h", region="r", keys=lambda: Keys("k", "s", "t")), "s3://b")
    assert spark_settings("/x", "gs://b/x") == {}
    found = spark_settings("/x", "s3a://b/x")
    shown = {name: value for name, value in found.items() if name not in stores.SECRET_SETTINGS}
    assert found["spark.hadoop.fs.s3a.session.token"] == "t" and found["spark.hadoop.fs.s3a.endpoint"] == "https://h"
    assert {"k", "s", "t"}.isdisjoint(shown.values()) and "Temporary" in "".join(shown.values())
    assert set(stores.SECRET_SETTINGS) <= set(Environment().secret_settings())


def test_each_environment_has_its_own_store(tmp_path, monkeypatch):
    """A later one does not change how the buckets of another are opened; a worker needs one variable."""
    (tmp_path / "env").mkdir()
    for name, bucket, region in (("a", "one", "r1"), ("b", "two", "r2")):
        text = f"lake: s3://{bucket}/x\nlanding: s3a://{bucket}-in\nstore: {{region: {region}}}\n"
        (tmp_path / "env" / f"{name}.yaml").write_text(text)
        load_environment(name, tmp_path / "p.yaml")
    (tmp_path / "env" / "local.yaml").write_text("lake: s3://one/x\n")
    load_environment(None, tmp_path / "p.yaml")
    wanted = {"s3://one/y": "r1", "s3a://two-in/y": "r2", "s3://three": None}
    assert {place: stores.store_at(place).region for place in wanted} == wanted
    monkeypatch.setenv(stores.VARIABLE, stores.for_workers("s3://two/x", "/x", "s3://two-in"))
    stores.STORES.clear()
    assert [stores.store_at(f"s3://{bucket}").region for bucket in ("two", "two-in", "one")] == ["r2", "r2", None]


# -- what a lake does in a store


def written(root, name, number):
    """Write a data file of one row below a table, which no commit names yet."""
    put(f"{root}/t", f"{name}/part-0.parquet", one_row(number))
    return data_files(f"{root}/t", name)


def one_row(number):
    out = pa.BufferOutputStream()
    pq.write_table(pa.table({"i": pa.array([number], pa.int64())}), out)
    return out.getvalue().to_pybytes()


def test_many_footers_are_read_at_once_from_a_store_and_few_from_a_disk(server, root, tmp_path):
    for number in range(48):
        put(f"{root}/t", f"x/part-{number:02}.parquet", one_row(number))
    server.most_at_once()
    server.fail("slow", match=r"HEAD .*/part-", times=48, seconds=1.0)
    assert len(data_files(f"{root}/t", "x")) == 48
    assert server.most_at_once() > 32 > readers(file_system(str(tmp_path))[0])


def test_an_object_that_is_cut_short_has_no_writer_at_work_on_it(root):
    commit(f"{root}/t", -1, Change("WRITE", written(root, "first", 1), (), ("first", 1), {}, SCHEMA))
    put(f"{root}/t", "other/part-0.parquet", one_row(2)[:-9])
    remove_cut_short(f"{root}/t")
    assert [*stored_files(f"{root}/t")] == ["first/part-0.parquet"]


def publish(root, name, number):
    """Commit a row on top of whatever is the newest version, however often another writer is first."""
    files, tries = written(root, name, number), 0
    while True:
        base = open_table(f"{root}/t").version()
        try:
            return commit(f"{root}/t", base, Change("WRITE", files, (), (f"app-{name}", 1), {"by": name}))
        except VersionTaken:
            tries += 1
            assert tries < 100


@pytest.mark.parametrize("writers", [2, 8])
def test_of_racing_publishers_one_wins_each_version_and_none_is_lost(root, writers):
    root = f"{root}-{writers}"
    commit(f"{root}/t", -1, Change("WRITE", written(root, "first", -1), (), ("first", 1), {}, SCHEMA))
    barrier = threading.Barrier(writers)

    def one(number):
        barrier.wait()
        return publish(root, f"w{number}", number)

    with ThreadPoolExecutor(writers) as pool:
        versions = list(pool.map(one, range(writers)))
    assert sorted(versions) == list(range(1, writers + 1))
    delta = open_table(f"{root}/t")
    assert sorted(Lake(root).dataset("t").to_table()["i"].to_pylist()) == list(range(-1, writers))
    by = [json.loads(c["userMetadata"]).get("by") for c in delta.history() if "userMetadata" in c]
    assert {f"w{n}" for n in range(writers)} <= set(by)


@pytest.mark.parametrize("how", ["", "lost"])
def test_a_lease_on_a_store_has_one_owner_too(server, root, how):
    """Also where the store wrote a term, and its answer was lost."""
    lake = Lake(f"{root}-{how}")
    for turn in (1, 2):
        if how:
            server.fail(how, match=r"PUT .*_system/leases", times=1)
        barrier = threading.Barrier(4)

        def take(number, turn=turn, barrier=barrier):
            lease = Lease(lake, "p", f"{turn}-{number}")
            barrier.wait()
            return lease if lease.take() is None else None

        with ThreadPoolExecutor(4) as pool:
            (winner,) = filter(None, pool.map(take, range(4)))
        assert (winner.newest().run_id, winner.number, winner.numbers()) == (winner.run_id, turn, [turn])
        winner.end()


@pytest.mark.parametrize("how", ["500", "503", "cut", "lost"])
def test_a_commit_that_meets_faults_happens_once(server, root, how):
    root = f"{root}-{how}"
    files = written(root, "a", 1)
    server.fail(how, match=r"PUT .*_delta_log", times=2, every=1)
    assert commit(f"{root}/t", -1, Change("WRITE", files, (), ("a", 1), {}, SCHEMA)) == 0
    server.fail("", times=0)
    with pytest.raises(VersionTaken):
        commit(f"{root}/t", -1, Change("WRITE", files, (), ("b", 1), {}, SCHEMA))
    assert open_table(f"{root}/t").version() == 0


def test_of_releases_at_once_one_wins_and_a_lost_answer_loses_nothing(server, root):
    lake = Lake(root)
    lake.publish_release("p", "r0", {"a": 0}, None, None, None)
    server.fail("lost", match=r"PUT .*_delta_log", times=1)
    assert lake.publish_release("p", "r1", {"a": 1}, None, 1, None) == "p-2"
    server.fail("lost", match=r"PUT .*_delta_log", times=1)
    lake.record("runs", [{"run_id": "r1", "event": "started", "recorded_at": now()}])
    lake.record("runs", [{"run_id": "r1", "event": "finished", "recorded_at": now()}])
    assert lake.system("runs")["event"].to_pylist().count("started") == 1

    def release(i):
        try:
            return Lake(root).publish_release("p", f"s{i}", {"a": i}, None, 2, None)
        except LostRace:
            return None

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(release, range(4)), key=str) == [None] * 3 + ["p-3"]
    assert [r["release"] for r in lake.releases] == ["p-1", "p-2", "p-3"]


def test_a_lake_is_read_kept_and_cleaned_without_spark(server, root):
    path = f"{root}/t"
    assert put_new(root, "once", b"1") and not put_new(root, "once", b"2")
    Lake(root).record("runs", [{"run_id": "r", "event": "started", "recorded_at": now()}])
    for i in range(3):
        rows = pa.table({"i": pa.array([i], pa.int64())})
        write_deltalake(path, rows, mode="overwrite", storage_options=storage_options(path))
    lake = Lake(root.replace("s3:", "s3a:"))
    assert lake.root == root and lake.tables() == ["t"]
    assert queries.sql(lake, "select i from t", None, None).to_pylist() == [{"i": 2}]
    assert lake.dataset("t", 0).to_table()["i"].to_pylist() == [0]
    server.requests()
    lake.dataset("t").to_table()
    assert sum(server.requests().values()) <= 12
    vacuum(lake, 0, grace_hours=0)
    files, base = file_system(path)
    left = [f for f in stored(files, base) if f.endswith(".parquet")]
    assert len(left) == 1
    write_deltalake(path, rows, mode="append", storage_options=storage_options(path))
    for order in (None, Order(("i",))):
        assert optimize(lake, ["t"], order)[0]["files_after"] == 1
    assert lake.dataset("t").to_table()["i"].to_pylist() == [2, 2] and lake.published("t").version == 5
    assert backup(lake, f"{root}-backups")["files_copied"] > 5
    assert backup(lake, f"{root}-backups")["files_copied"] == 0
    new = Lake(f"{root}-new")
    recover(new, f"{root}-backups")
    assert new.dataset("t").to_table()["i"].to_pylist() == [2, 2] and len(new.system("runs")) == 1
    remove(path)
    assert Lake(root).tables() == []


def stored(files, base):
    from pyarrow import fs

    return [f.path for f in files.get_file_info(fs.FileSelector(base, recursive=True, allow_not_found=True))]


# -- what a user is told


def test_the_probe_of_a_store(server, root):
    assert why_not_usable(root) is None
    files, base = file_system(root)
    assert stored(files, base) == []
    server.call("careless", on=True)
    assert "two runs could both publish a version" in why_not_usable(root)
    server.call("careless", on=False)
    assert why_not_usable("s3://nobucket/x").startswith("s3://nobucket/x: there is no such bucket (")
    server.keys("another")
    assert why_not_usable(root).startswith(f"{root}: its credentials have expired: renew them (")


@pytest.mark.parametrize("command", ["tables", "sql", "run", "vacuum", "doctor"])
def test_what_is_wrong_with_a_store_is_one_line(server, here, tmp_path, monkeypatch, command):  # noqa: F811
    write_pipeline(tmp_path, "  t: {source: {format: csv, path: '*.csv', schema: 'i INT'}, suite: any}\n")
    (tmp_path / "conf" / "env").mkdir(parents=True)
    environment = tmp_path / "conf" / "env" / "local.yaml"
    monkeypatch.setenv("SECRET", "s3cret-of-store")

    def told(endpoint, *places, keys=()):
        server.keys(*keys)
        environment.write_text(
            f"lake: s3://lake/none\nlanding: s3://landing\nstore: {{endpoint: '{endpoint}', allow_http: true, "
            "access_key: {env: SECRET}, secret_key: {env: SECRET}}\n"
        )
        arguments = {"sql": ["select 1"], "run": ["p.yaml"]}.get(command, [])
        code, out, error = here(command, *arguments, *places)
        text = out if command == "doctor" else error
        assert "s3cret" not in out + error and "Traceback" not in text
        assert command == "doctor" or text.count("\n") == 1, text
        return code, " ".join(text.split())

    codes = (1,) if command == "doctor" else (4,)
    code, line = told(server.url, "--lake", "s3://nobucket/x")
    assert code in codes and "s3://nobucket/x: there is no such bucket" in line
    code, line = told(server.url, "--lake", "s3://lake/x", keys=["other"])
    assert code in codes and "s3://lake/x: " in line and "credentials" in line
    server.keys()


@pytest.mark.slow
def test_a_store_that_does_not_answer_is_one_line(tmp_path, here, monkeypatch):  # noqa: F811
    monkeypatch.setenv("SECRET", "s")
    (tmp_path / "conf" / "env").mkdir(parents=True)
    (tmp_path / "conf" / "env" / "local.yaml").write_text(
        "lake: s3://lake/x\nstore: {endpoint: 'http://127.0.0.1:9', allow_http: true, access_key: {env: SECRET}, "
        "secret_key: {env: SECRET}}\n"
    )
    code, _, error = here("tables")
    assert code == 4 and "s3://lake/x: it does not answer: is the endpoint right?" in error and error.count("\n") == 1


@pytest.mark.slow
def test_processes_race_as_threads_do(server, root):
    """Eight processes, five commits each: every version has one winner, and no row is lost."""
    commit(f"{root}/t", -1, Change("WRITE", written(root, "first", -1), (), ("first", 1), {}, SCHEMA))
    code = (
        "import sys; from headgate.jobs.lake.stores import Keys, Store, use\n"
        "from tests.jobs.test_stores import publish\n"
        "use(Store(endpoint=sys.argv[1], allow_http=True, keys=lambda: Keys('k', 's')), 's3://lake')\n"
        "[publish(sys.argv[2], f'w{sys.argv[3]}-{i}', int(sys.argv[3]) * 10 + i) for i in range(5)]"
    )
    arguments = [server.url, root]
    started = [
        subprocess.Popen([sys.executable, "-c", code, *arguments, str(n)], cwd=ROOT, stderr=subprocess.PIPE)
        for n in range(8)
    ]
    told = [process.communicate(timeout=300)[1] for process in started]
    assert [process.returncode for process in started] == [0] * 8, told
    wanted = sorted([-1, *(n * 10 + i for n in range(8) for i in range(5))])
    assert sorted(Lake(root).dataset("t").to_table()["i"].to_pylist()) == wanted
    assert open_table(f"{root}/t").version() == 40


@pytest.mark.slow
def test_a_run_on_the_command_line_tells_no_secret(server, root, tmp_path):
    """Keys by variables in the environment file; Spark's events, which hold plans and settings, included."""
    write_pipeline(tmp_path, "  t: {source: {format: csv, path: '*.csv', schema: 'i INT'}, suite: any}\n")
    (tmp_path / "events").mkdir()
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "local.yaml").write_text(
        f"lake: {root}\nlanding: s3a://landing/secrets\nstore:\n  endpoint: {server.url}\n  allow_http: true\n"
        "  access_key: {env: K}\n  secret_key: {env: S}\n  session_token: {env: T}\n"
        "spark:\n  spark.master: 'local[2]'\n  spark.eventLog.enabled: 'true'\n"
        f"  spark.eventLog.dir: {tmp_path}/events\n"
    )
    put("s3://landing/secrets", "a.csv", b"i\n1\n2\n")
    secrets = {name: f"s3cret-{name}-{random.Random(1).random()}" for name in ("K", "S", "T")}
    command = [sys.executable, "-m", "headgate", "run", "p.yaml"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | secrets
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    assert Lake(root).dataset("t").count_rows() == 2
    texts = [p.read_text(errors="replace") for p in (tmp_path / "events").rglob("*") if p.is_file()]
    assert texts and not any("s3cret" in text for text in (*texts, done.stdout, done.stderr))
    files, base = file_system(root)
    for path in stored(files, base):
        if path.endswith(".json"):
            with files.open_input_stream(path) as stream:
                assert b"s3cret" not in stream.readall(), path


@pytest.mark.long
def test_runs_on_a_store():
    """See `stores_with_spark`."""
    command = [sys.executable, "-m", "pytest", "-m", "", "-p", "no:cacheprovider", "tests/jobs/stores_with_spark.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout[-10_000:]


def test_unknown_errors_are_no_store_failures():
    from headgate.jobs.errors import store_failure

    assert store_failure(["AccessDenied", "/x/y"], "/x") is None
    found = store_failure(["When listing in bucket 'b': AWS Error ACCESS_DENIED during"], "s3://a/x", "s3://b/y")
    assert isinstance(found, InputMissing) and isinstance(found, HeadgateError) and str(found).startswith("s3://b/y: ")
