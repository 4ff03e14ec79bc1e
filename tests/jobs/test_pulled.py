"""Sources that are asked for their rows: a real PostgreSQL, a server that fails on purpose, a function."""

import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from headgate.jobs.errors import GateBlocked, InputMissing, UsageError
from tests.lakes import Killed, dies, lake_of, ledger, rows, run_pipeline, write_pipeline

HAS_ID = "{type: expect_column_to_exist, kwargs: {column: id}, meta: {dimension: consistency}}"


def pipeline(folder: Path, source: str) -> Path:
    return write_pipeline(folder, f"  t:\n    source: {{{source}}}\n    suite: any\n", HAS_ID)


# -- PostgreSQL


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Postgres:
    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs, self.port = programs, free_port()
        self.url = f"jdbc:postgresql://127.0.0.1:{self.port}/postgres"
        self.data, self.secret = folder / "data", "s3cret-of-postgres"
        folder.chmod(0o755)
        self.data.mkdir()
        shutil.chown(self.data, "postgres") if os.geteuid() == 0 else None
        password = folder / "password"
        password.write_text(self.secret)
        self.call(
            "initdb", "-D", self.data, "-U", "postgres", "-A", "scram-sha-256", f"--pwfile={password}", "-E", "UTF8"
        )
        options = f"-p {self.port} -h 127.0.0.1 -k {self.data} -c fsync=off"
        self.call("pg_ctl", "-D", self.data, "-o", options, "-w", "-l", self.data / "log", "start")

    def call(self, program: str, *arguments: object, **options: object) -> str:
        command = [str(self.programs / program), *map(str, arguments)]
        if os.geteuid() == 0:  # the server refuses to run as root
            command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]
        environment = os.environ | {"PGPASSWORD": self.secret, "PGTZ": "UTC"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/", timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def sql(self, statement: str) -> str:
        return self.call("psql", "-h", "127.0.0.1", "-p", self.port, "-U", "postgres", "-qAtc", statement)

    def stop(self) -> None:
        self.call("pg_ctl", "-D", self.data, "-m", "immediate", "stop")


def postgres_programs() -> Path | None:
    found = [p.parent for p in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    on_path = shutil.which("initdb")
    return max(found, default=Path(on_path).parent if on_path else None)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory) -> Iterator[Postgres]:
    programs = postgres_programs()
    if programs is None:
        if os.environ.get("CI"):
            pytest.fail("CI tests against a real PostgreSQL: its programs are not installed")
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    folder = tmp_path_factory.mktemp("postgres")
    if os.geteuid() == 0:  # the server's user must reach its folder
        for parent in [folder, *folder.parents][:4]:
            if str(parent) not in ("/", "/tmp"):
                parent.chmod(parent.stat().st_mode | 0o011)
    server = Postgres(programs, folder)
    yield server
    server.stop()


JDBC = "format: jdbc, url: '{url}', user: {{env: PG_USER}}, password: {{env: PG_PASSWORD}}, "


@pytest.fixture
def orders(postgres, monkeypatch) -> Iterator[str]:
    monkeypatch.setenv("PG_USER", "postgres")
    monkeypatch.setenv("PG_PASSWORD", postgres.secret)
    postgres.sql('create schema "Shop"; create table "Shop"."Orders" (id int primary key, v text, at timestamptz)')
    postgres.sql(
        """insert into "Shop"."Orders" select i, 'v' || i, '2024-01-01'::timestamptz + i * '1 hour'::interval
        from generate_series(1, 1000) i"""
    )
    yield JDBC.format(url=postgres.url)
    postgres.sql('drop schema "Shop" cascade')


@pytest.mark.slow
def test_a_table_is_read_in_parts_and_then_only_what_is_new(spark, postgres, orders, tmp_path):
    table = "table: Shop.Orders, watermark: at, look_back: 2 hours, key: [id], partition_by: id, partitions: 4"
    file = pipeline(tmp_path, orders + table)
    first = run_pipeline(spark, tmp_path, file)
    assert first.tables[0].rows == 1000
    assert run_pipeline(spark, tmp_path, file).built == 0  # asked again, nothing new
    postgres.sql(
        """insert into "Shop"."Orders" values (1001, 'new', '2024-02-12 00:00Z'), (1002, 'late', '2024-02-11 15:00Z'),
        (1003, 'too late', '2024-02-11 12:00Z');
        update "Shop"."Orders" set v = 'changed', at = '2024-02-12 01:00Z' where id = 7"""
    )
    second = run_pipeline(spark, tmp_path, file)
    assert second.tables[0].rows_in == 3 and second.tables[0].rows == 1002
    assert rows(tmp_path, "id, v")[6] == (7, "changed")
    assert [r[0] for r in rows(tmp_path, "id")][-2:] == [1001, 1002]
    assert run_pipeline(spark, tmp_path, file).built == 0
    files = lake_of(tmp_path).files_of("t")
    assert files["jdbc:Shop.Orders"]["watermark"] == "2024-02-12 01:00:00"


def test_numbers_of_a_database_are_exact_and_times_of_day_refused(spark, postgres, orders, tmp_path):
    query = (
        "select 1 as id, 1.000000000000000001::numeric as v union all select 2, 0.1234567890123456789::numeric "
        "union all select 3, null"
    )
    file = pipeline(tmp_path, f'{orders}query: "{query}", key: [id]')
    (told,) = run_pipeline(spark, tmp_path, file).tables
    assert [(i, str(v)) for i, v in rows(tmp_path, "id, v")] == [(1, "1.000000000000000001"), (3, "None")]
    assert told.rejected == {"ingest: wrong_type (v)": 1}
    file = pipeline(tmp_path, f"""{orders}query: "select 1 as id, '12:30'::time as v", key: [id]""")
    with pytest.raises(InputMissing, match="'v' is a time of day"):
        run_pipeline(spark, tmp_path, file)


def test_rows_without_a_key_are_appended_once(spark, postgres, orders, tmp_path):
    file = pipeline(tmp_path, orders + "table: Shop.Orders, watermark: at, look_back: 1 day")
    run_pipeline(spark, tmp_path, file)
    postgres.sql("""insert into "Shop"."Orders" values (2000, 'x', '2024-02-12 00:00Z')""")
    assert run_pipeline(spark, tmp_path, file).tables[0].rows_in == 1
    assert len(rows(tmp_path, "id, v")) == 1001


def test_without_a_watermark_the_whole_replaces_where_it_differs(spark, postgres, orders, tmp_path):
    file = pipeline(tmp_path, orders + """query: 'select id, v from "Shop"."Orders" where id <= 3', key: [id]""")
    run_pipeline(spark, tmp_path, file)
    assert run_pipeline(spark, tmp_path, file).built == 0
    postgres.sql("""delete from "Shop"."Orders" where id = 2""")
    run_pipeline(spark, tmp_path, file)
    assert rows(tmp_path, "id, v") == [(1, "v1"), (3, "v3")]


def test_a_run_that_died_before_publishing_takes_the_rows_up_once(spark, postgres, orders, tmp_path):
    file = pipeline(tmp_path, orders + "table: Shop.Orders, watermark: at, key: [id]")
    with pytest.raises(Killed):
        run_pipeline(spark, tmp_path, file, progress=dies("t", "publish"))
    postgres.sql("""insert into "Shop"."Orders" values (2000, 'x', '2024-02-12 00:00Z')""")
    assert run_pipeline(spark, tmp_path, file).tables[0].rows == 1001


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("table: Shop.Ordrs", r"jdbc:Shop\.Ordrs: .*relation \"Shop.Ordrs\" does not exist"),
        ("table: Shop.Orders, watermark: att", "there is no column 'att'"),
        ("table: Shop.Orders, partition_by: idd", "there is no column 'idd' — did you mean 'id'"),
        ("table: 'Shop.Orders\"; drop table x'", "does not exist"),
    ],
)
def test_a_wrong_table_or_column_is_one_clear_line(spark, orders, tmp_path, table, told):
    with pytest.raises((InputMissing, UsageError), match=told) as e:
        run_pipeline(spark, tmp_path, pipeline(tmp_path, orders + table))
    assert "\n" not in str(e.value)


def test_a_wrong_password_and_a_server_that_is_away(spark, postgres, orders, tmp_path, monkeypatch):
    monkeypatch.setenv("PG_PASSWORD", "wr0ng-secret")
    with pytest.raises(InputMissing, match="password authentication failed") as e:
        run_pipeline(spark, tmp_path, pipeline(tmp_path, orders + "table: Shop.Orders"))
    assert "wr0ng" not in str(e.value)
    away = JDBC.format(url=f"jdbc:postgresql://127.0.0.1:{free_port()}/x")
    with pytest.raises(InputMissing, match="refused"):
        run_pipeline(spark, tmp_path, pipeline(tmp_path, away + "table: Shop.Orders"))


# -- HTTP

ALL = [{"id": i, "v": f"v{i}", "at": i} for i in range(1, 26)]


class Api(BaseHTTPRequestHandler):
    """25 records in pages of 10, by link, cursor and offset; every page fails once, in a way of its own."""

    server: "ThreadingHTTPServer"

    def do_GET(self) -> None:
        state = self.server.state
        url = urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(url.query).items()}
        state["asked"].append(self.path)
        if self.headers.get("Authorization") != "Bearer s3cret-of-api":
            return self.answer(401, {"error": "who are you"})
        if state["fails"] and self.path not in state["failed"]:
            state["failed"].add(self.path)
            kind = state["fails"].pop(0)
            if kind == "drop":
                return self.connection.shutdown(socket.SHUT_RDWR)
            return self.answer(kind, {}, {"Retry-After": "0"} if kind == 429 else {})
        since = int(query.get("since") or 0)
        found = [r for r in state["records"] if r["at"] >= since]
        start = int(query.get("from") or query.get("cursor") or query.get("offset") or 0)
        page, following = found[start : start + 10], start + 10
        more = following < len(found)
        if url.path == "/link":
            link = f'</link?from={following}&since={since}>; rel="next"'
            return self.answer(200, page, {"Link": link} if more else {})
        if url.path == "/elsewhere":
            return self.answer(200, {"data": page, "next": "http://localhost:1/steal"})
        if url.path == "/circle":
            return self.answer(200, {"data": page, "next": "/circle?x=1"})
        if url.path == "/text":
            return self.answer(200, "no json at all")
        body = {"data": {"items": page}, "meta": {"next": following if more else None}}
        return self.answer(200, body)

    def answer(self, code: int, body: object, headers: dict[str, str] | None = None) -> None:
        text = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def api(monkeypatch) -> Iterator[dict]:
    monkeypatch.setenv("API_TOKEN", "Bearer s3cret-of-api")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    server.state = {"fails": [], "failed": set(), "asked": [], "records": list(ALL)}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.state | {"url": f"http://127.0.0.1:{server.server_port}", "state": server.state}
    server.shutdown()


HTTP = (
    "format: http, url: '{url}', schema: 'id INT, v STRING, at INT', headers: {{Authorization: {{env: API_TOKEN}}}}, "
)


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("/link", "paging: {by: link}"),
        ("/cursor", "records: data.items, paging: {by: cursor, param: cursor, next: meta.next}"),
        ("/offset", "records: data.items, paging: {by: offset, param: offset, size: 10, size_param: limit}"),
    ],
)
@pytest.mark.slow
def test_pages_are_read_to_the_end_through_failures(spark, api, tmp_path, path, options):
    api["state"]["fails"] = [429, 503, "drop"]
    incremental = ", watermark: at, key: [id], params: {since: '{watermark}'}"
    file = pipeline(tmp_path, HTTP.format(url=api["url"] + path) + options + incremental)
    run_pipeline(spark, tmp_path, file)
    assert rows(tmp_path, "id, v") == [(r["id"], r["v"]) for r in ALL]
    assert api["state"]["fails"] == []
    assert run_pipeline(spark, tmp_path, file).built == 0
    api["state"]["records"].append({"id": 3, "v": "changed", "at": 26})
    api["state"]["records"].append({"id": 26, "v": "new", "at": 27})
    api["state"]["asked"].clear()
    assert run_pipeline(spark, tmp_path, file).tables[0].rows_in == 2
    assert len(api["state"]["asked"]) == 1 and "since=25" in api["state"]["asked"][0]
    assert rows(tmp_path, "id, v")[2] == (3, "changed") and len(rows(tmp_path, "id, v")) == 26


@pytest.mark.parametrize(
    ("path", "options", "told"),
    [
        ("/link", "retries: 0, paging: {by: link}", "page 1: answered 503 Service Unavailable after 1 tries"),
        pytest.param(
            "/elsewhere",
            "records: data, paging: {by: link, next: next}",
            "page 1: the next page is at another host",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "/circle",
            "records: data, paging: {by: link, next: next}",
            "pagination loop: the next page was read before",
            marks=pytest.mark.slow,
        ),
        ("/text", "", "page 1: the answer is not JSON"),
        ("/cursor", "records: data.itmes", "there is no 'data.itmes' in it"),
        ("/link", "max_pages: 2, paging: {by: link}", "more than 2 pages"),
    ],
)
def test_what_an_api_can_do_wrong_is_one_clear_line(spark, api, tmp_path, path, options, told):
    api["state"]["fails"] = [503] if "retries: 0" in options else []
    with pytest.raises(InputMissing, match=told) as e:
        run_pipeline(spark, tmp_path, pipeline(tmp_path, HTTP.format(url=api["url"] + path) + options))
    assert "\n" not in str(e.value) and "s3cret" not in str(e.value)


@pytest.mark.slow
def test_a_refused_token_and_malformed_records(spark, api, tmp_path, monkeypatch):
    file = pipeline(tmp_path, HTTP.format(url=api["url"] + "/link") + "paging: {by: link}, key: [id]")
    monkeypatch.setenv("API_TOKEN", "Bearer wr0ng-secret")
    with pytest.raises(InputMissing, match="401") as e:
        run_pipeline(spark, tmp_path, file)
    assert "wr0ng" not in str(e.value)
    monkeypatch.setenv("API_TOKEN", "Bearer s3cret-of-api")
    api["state"]["records"].append({"id": "none", "v": "x", "at": 1})
    assert run_pipeline(spark, tmp_path, file).tables[0].rejected == {"ingest: wrong_type (id)": 1}
    assert ledger(tmp_path)[0]["evidence"]["file"] == api["url"] + "/link page 3"


# -- a function


@pytest.mark.slow
def test_a_function_of_the_users_own_is_a_source(spark, tmp_path):
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "own.py").write_text(
        "from datetime import datetime\n"
        "def records(after):\n"
        "    for i in range(5 if after is None else int(after), 8 if after else 6):\n"
        "        yield {'id': i, 'v': f'v{i}', 'at': i, 'when': datetime(2024, 1, i)}\n"
        "def broken(after):\n"
        "    yield from [{'id': 1}]\n"
        "    raise ValueError('no more')\n"
    )
    options = "schema: 'id INT, v STRING, at INT, `when` TIMESTAMP', key: [id], watermark: at"
    file = pipeline(tmp_path, f"format: python, function: 'own.py:records', {options}")
    run_pipeline(spark, tmp_path, file)
    assert rows(tmp_path, "id, v") == [(5, "v5")]
    run_pipeline(spark, tmp_path, file)
    assert [r[0] for r in rows(tmp_path, "id, v")] == [5, 6, 7]
    with pytest.raises(InputMissing, match=r"python:own\.py:broken: broken raised ValueError: ‹no more›"):
        run_pipeline(spark, tmp_path, pipeline(tmp_path, f"format: python, function: 'own.py:broken', {options}"))
    with pytest.raises(UsageError, match="has no function 'record' — did you mean 'records'"):
        pipeline(tmp_path, f"format: python, function: 'own.py:record', {options}")
        run_pipeline(spark, tmp_path, tmp_path / "p.yaml")


def test_an_error_of_the_program_is_none_of_the_source(spark, tmp_path, monkeypatch):
    """It keeps its type, so that it ends with exit code 1 and its chain of causes, not as an input that is missing."""
    (tmp_path / "own.py").write_text("def records(after):\n    yield {'id': 1}\n")
    source = "format: python, function: 'own.py:records', schema: 'id INT'"

    def wrong(*given):
        raise KeyError("of the program")

    monkeypatch.setattr("headgate.jobs.sources.pull.ask", wrong)
    with pytest.raises(KeyError):
        run_pipeline(spark, tmp_path, pipeline(tmp_path, source))


def test_what_a_function_yields_is_taken_as_it_is_meant(spark, tmp_path):
    (tmp_path / "own.py").write_text(
        "import datetime as dt, decimal\n"
        "import numpy as np, pandas as pd\n"
        "zone = dt.timezone(dt.timedelta(hours=2))\n"
        "def records(after):\n"
        "    yield {'id': np.int64(1), 'v': np.float64(1.5), 'at': dt.datetime(2024, 1, 1, 12, tzinfo=zone)}\n"
        "    yield {'id': 2, 'v': decimal.Decimal('2.25'), 'at': pd.NaT}\n"
        "    yield {'id': 3, 'v': np.nan, 'at': np.datetime64('2024-01-02T03:04:05')}\n"
        "    yield {'id': 4, 'v': 'x', 'at': None}\n"
        "    yield {'id': 5, 'w': 1.0}\n"
        "    yield {'id': 6, 'v': pd.NA, 'at': '\\ud800'}\n"
    )
    file = pipeline(tmp_path, "format: python, function: 'own.py:records', schema: 'id INT, v DOUBLE, at TIMESTAMP'")
    (told,) = run_pipeline(spark, tmp_path, file).tables
    found = rows(tmp_path, "id, v, strftime(\"at\", '%d %H:%M:%S') as moment")
    assert [(i, str(v), at) for i, v, at in found] == [
        (1, "1.5", "01 10:00:00"),
        (2, "2.25", None),
        (3, "nan", "02 03:04:05"),
    ]
    assert told.rejected == {"ingest: malformed_record": 2, "ingest: wrong_type (v)": 1}


def test_a_source_that_has_nothing_any_more_replaces_what_it_had(spark, tmp_path):
    (tmp_path / "own.py").write_text(
        "import pathlib\ndef records(after):\n"
        f"    yield from [{{'id': 1}}] if pathlib.Path({str(tmp_path / 'there')!r}).exists() else []\n"
    )
    (tmp_path / "there").touch()
    file = pipeline(tmp_path, "format: python, function: 'own.py:records', schema: 'id INT'")
    run_pipeline(spark, tmp_path, file)
    (tmp_path / "there").unlink()
    with pytest.raises(GateBlocked, match="row_count"):
        run_pipeline(spark, tmp_path, file)
    assert rows(tmp_path, "id") == [(1,)]


def test_a_watermark_is_a_number_or_a_time(spark, tmp_path):
    (tmp_path / "own.py").write_text("def records(after):\n    yield {'id': 1, 'at': '99'}\n")
    file = pipeline(
        tmp_path, "format: python, function: 'own.py:records', schema: 'id INT, at STRING', key: [id], watermark: at"
    )
    with pytest.raises(UsageError, match="'at' is string; a watermark is a number, a date or a time"):
        run_pipeline(spark, tmp_path, file)
