"""OpenLineage events and OpenTelemetry spans of a run, by its events alone; `test_nightly` has those of a real one."""

import json
import sys
from datetime import date

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from headgate.expectations.suites import Rule
from headgate.expectations.verdict import RuleResult, Verdict
from headgate.jobs.config.models import Environment, FileSource, HttpSource, JdbcSource
from headgate.jobs.errors import GateBlocked, Interrupted
from headgate.jobs.lake.lake import Lake
from headgate.jobs.notify.lineage import dataset_of
from headgate.jobs.notify.watching import watched
from headgate.jobs.pipeline.events import (
    ColumnsTraced,
    RunEnded,
    RunStarted,
    TableDone,
    TableFailed,
    TableJudged,
    TableStarted,
)
from headgate.jobs.pipeline.outcome import Outcome, TableOutcome
from headgate.jobs.progress import PhaseDone, Progress
from tests.openlineage import check_events
from tests.servers import http_server

SOURCE = FileSource(format="csv", path="orders/{date}.csv", columns="i INT")
RAW = TableOutcome("raw", "built", version=0, rows=2, rows_in=2, published=2)
ORDERS = TableOutcome("orders", "built", version=0, rows=2, rows_in=2, published=2)
RAW_DONE = {"shop.raw": "COMPLETE", "shop.raw.gate": "COMPLETE"}
UP_TO_DATE = TableOutcome("customers", "up to date", version=0, rows=7)


def verdict(success: bool, severity: str = "critical") -> Verdict:
    kwargs = {"column": "i", "min_value": 0}
    rule = Rule(0, "expect_column_values_to_be_between", kwargs, severity, "validity", False, {}, "any.yaml:1")
    return Verdict((RuleResult(rule, success, None, 2, 0 if success else 1, {}),), 0, 2, 0.05, False, {})


@pytest.fixture
def lake(tmp_path) -> Lake:
    lake = Lake(str(tmp_path / "lake"))
    for table in ("raw", "orders"):
        write_deltalake(lake.path(table), pa.table({"_row_id": ["a"], "i": [1], "tags": [["x"]]}))
    return lake


def events_of(lake, error=None):
    """The events of a run of two tables, of which the second ends by an error."""
    yield RunStarted("r1", "shop", lake, date(2024, 3, 1))
    yield PhaseDone("spark", "start", 10.0, 11.5)
    yield TableStarted("raw", {}, SOURCE)
    yield PhaseDone("raw", "stage", 12.0, 13.0)
    yield TableJudged("raw", verdict(True))
    yield TableDone(RAW)
    yield TableDone(UP_TO_DATE)
    yield TableStarted("orders", {"raw": 0}, None)
    yield TableJudged("orders", verdict(error is None, "critical"))
    if error is None:
        yield ColumnsTraced("orders", {"i": ["raw.i"], "tags": [], "_row_id": ["raw._row_id"]})
        yield TableDone(ORDERS)
    elif not isinstance(error, Interrupted):
        yield TableFailed("orders", error)
    yield RunEnded("shop", error, None if error else Outcome("r1", "shop-1", [RAW, ORDERS], 2.0, 2), 2.0)


def ran(tmp_path, lake, error=None, **options):
    progress = Progress(watched=False)
    with watched(progress, Environment.model_validate({"landing": "/landing", **options}), tmp_path / "p.yaml"):
        for event in events_of(lake, error=error):
            progress.emit(event)


def lines(file) -> list:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_events_of_a_run_tell_datasets_versions_columns_and_verdicts(lake, tmp_path):
    ran(tmp_path, lake, openlineage={"file": str(tmp_path / "events.jsonl"), "namespace": "night"})
    events = lines(tmp_path / "events.jsonl")
    check_events(events)
    told = [(e["job"]["name"], e["eventType"]) for e in events]
    assert told == [
        ("shop", "START"),
        ("shop.raw", "START"),
        ("shop.raw.gate", "START"),
        ("shop.raw.gate", "COMPLETE"),
        ("shop.raw", "COMPLETE"),
        ("shop.orders", "START"),
        ("shop.orders.gate", "START"),
        ("shop.orders.gate", "COMPLETE"),
        ("shop.orders", "COMPLETE"),
        ("shop", "COMPLETE"),
    ]
    runs = {name: {e["run"]["runId"] for e in events if e["job"]["name"] == name} for name, _ in told}
    assert all(len(ids) == 1 for ids in runs.values()) and len({*map(tuple, runs.values())}) == 5
    (run,) = runs["shop"]
    assert {e["run"]["facets"]["parent"]["run"]["runId"] for e in events if e["job"]["name"] != "shop"} == {run}
    assert {e["job"]["namespace"] for e in events} == {"night"}
    facets = events[-1]["run"]["facets"]
    own = {(t["key"], t["value"]) for t in facets["tags"]["tags"] if t["source"] == "HEADGATE"}
    assert own == {("run_id", "r1"), ("release", "shop-1")}
    assert facets["nominalTime"]["nominalStartTime"] == "2024-03-01T00:00:00Z"
    raw, gate, orders = events[4], events[7], events[8]
    assert [(d["namespace"], d["name"]) for d in raw["inputs"]] == [("file", "/landing/orders/{date}.csv")]
    (made,) = orders["outputs"]
    assert (made["namespace"], made["name"]) == ("file", lake.path("orders"))
    assert (
        made["facets"]["version"]["datasetVersion"] == "0" and made["outputFacets"]["outputStatistics"]["rowCount"] == 2
    )
    assert [(f["name"], f["type"]) for f in made["facets"]["schema"]["fields"]] == [
        ("_row_id", "string"),
        ("i", "bigint"),
        ("tags", "array<string>"),
    ]
    columns = made["facets"]["columnLineage"]["fields"]
    (origin,) = columns["i"]["inputFields"]
    assert set(columns) == {"i", "_row_id"} and (origin["name"], origin["field"]) == (lake.path("raw"), "i")
    assert set(raw["outputs"][0]["facets"]["columnLineage"]["fields"]) == {"i", "tags"}
    (read,) = orders["inputs"]
    assert (read["name"], read["facets"]["version"]["datasetVersion"]) == (lake.path("raw"), "0")
    (judged,) = gate["inputs"]
    (assertion,) = judged["inputFacets"]["dataQualityAssertions"]["assertions"]
    assert judged["name"] == lake.path("orders")
    assert (assertion["assertion"], assertion["column"], assertion["success"], assertion["severity"]) == (
        "expect_column_values_to_be_between",
        "i",
        True,
        "error",
    )


@pytest.mark.parametrize(
    ("error", "states"),
    [
        (
            GateBlocked("1 of 2 rows fail; for example ‹name: Ada›"),
            {"shop": "FAIL", "shop.orders": "FAIL", "shop.orders.gate": "FAIL"},
        ),
        (Interrupted(), {"shop": "ABORT", "shop.orders": "ABORT"}),
    ],
)
def test_a_run_that_fails_or_is_interrupted_says_so(lake, tmp_path, error, states):
    ran(tmp_path, lake, error, openlineage={"file": str(tmp_path / "events.jsonl")})
    events = lines(tmp_path / "events.jsonl")
    check_events(events)
    ends = {e["job"]["name"]: e for e in events if e["eventType"] != "START"}
    assert {name: e["eventType"] for name, e in ends.items()} == {**states, **RAW_DONE}
    if isinstance(error, GateBlocked):
        assert ends["shop"]["run"]["facets"]["errorMessage"]["message"] == "1 of 2 rows fail; for example ‹…›"
        assert "version" not in ends["shop.orders.gate"]["inputs"][0].get("facets", {})  # what it judged has none


def test_events_go_to_a_server_with_a_key_that_nothing_shows(lake, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KEY", "s3cret-of-lineage")
    with http_server() as server:
        ran(tmp_path, lake, openlineage={"url": server.url, "api_key": {"env": "KEY"}})
    assert [path for _, path, _ in server.requests] == ["/api/v1/lineage"] * 10
    check_events(server.documents)
    assert server.headers[0]["Authorization"] == "Bearer s3cret-of-lineage"
    ran(tmp_path, lake, openlineage={"url": server.url, "api_key": {"env": "KEY"}})  # nobody is there any more
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith("warning: openlineage: ") and "s3cret" not in told


def test_without_url_and_file_openlineage_is_configured_in_its_own_way(lake, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "file")
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__LOG_FILE_PATH", str(tmp_path / "own.jsonl"))
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__APPEND", "true")
    ran(tmp_path, lake, openlineage={})
    assert len(lines(tmp_path / "own.jsonl")) == 10


@pytest.mark.parametrize(
    ("module", "package", "extra", "options"),
    [
        ("lineage", "openlineage.client", "lineage", {"openlineage": {"file": "unused"}}),
        ("tracing", "opentelemetry.sdk.trace", "tracing", {"tracing": {"file": "unused"}}),
    ],
)
def test_a_package_that_is_missing_is_told_with_its_extra(
    lake, tmp_path, monkeypatch, capsys, module, package, extra, options
):
    monkeypatch.delitem(sys.modules, f"headgate.jobs.notify.{module}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    ran(tmp_path, lake, **options)
    (told,) = capsys.readouterr().err.splitlines()
    assert told == f"warning: {next(iter(options))}: the package {package} is missing: pip install 'headgate[{extra}]'"


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("/lake/orders", ("file", "/lake/orders")),
        ("s3://b/lake/orders", ("s3://b", "lake/orders")),
        ("hdfs://node:8020/lake", ("hdfs://node:8020", "/lake")),
        ("gs://b", ("gs://b", "/")),
    ],
)
def test_datasets_are_named_by_the_rules_of_openlineage(place, name):
    assert dataset_of(place) == name


def test_sources_are_named_without_secrets():
    from headgate.jobs.config.nightly import OpenLineage
    from headgate.jobs.notify.lineage import Emitting

    emitting = Emitting(OpenLineage(file="unused"), "s3://landing/shop")
    jdbc = JdbcSource(format="jdbc", url="jdbc:postgresql://host:5432/shop", table="public.orders")
    http = HttpSource(format="http", url="https://api.example.org/v1/orders?key=x", columns="i INT")
    for url, name in (
        (
            "jdbc:databricks://h:443/d;AuthMech=3;accessToken=s3cret;PWD=s3cret",
            ("databricks://h:443", "d.public.orders"),
        ),
        ("jdbc:sqlserver://u:s3cret@h;databaseName=shop;password={s3;cret}", ("sqlserver://h", "shop.public.orders")),
        ("jdbc:oracle:thin:scott/s3cret@//h:1521/shop", ("oracle://h:1521", "shop.public.orders")),
        ("jdbc:oracle:thin:scott/s3cret@h:1521:shop", ("oracle", "h:1521:shop.public.orders")),
        ("jdbc:mysql://(host=h,password=s3cret)/shop", ("mysql://(host=h,password=***)", "shop.public.orders")),
        ("jdbc:h2:mem:shop;PASSWORD=s3cret", ("h2", "mem:shop.public.orders")),
    ):
        assert emitting.source(JdbcSource(format="jdbc", url=url, table="public.orders")) == name
    assert emitting.source(SOURCE) == ("s3://landing", "shop/orders/{date}.csv")
    assert emitting.source(jdbc) == ("postgres://host:5432", "shop.public.orders")
    assert emitting.source(http) == ("https://api.example.org", "/v1/orders")


# -- traces


def test_spans_of_a_run_its_tables_and_their_phases(lake, tmp_path, monkeypatch):
    caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    monkeypatch.setenv("TRACEPARENT", caller)
    ran(tmp_path, lake, GateBlocked("blocked"), tracing={"file": str(tmp_path / "spans.jsonl")})
    spans = lines(tmp_path / "spans.jsonl")
    by_id = {s["context"]["span_id"]: s for s in spans}
    tree = {s["name"]: by_id.get(s["parent_id"], {}).get("name") for s in spans}
    assert tree == {
        "run shop": None,
        "start": "run shop",
        "table raw": "run shop",
        "stage": "table raw",
        "table orders": "run shop",
    }
    run = next(s for s in spans if s["name"] == "run shop")
    assert run["parent_id"] == "0xb7ad6b7169203331" and run["context"]["trace_id"].endswith("b211c80319c")
    assert (run["status"]["status_code"], run["attributes"]["headgate.exit_code"]) == ("ERROR", 3)
    assert run["resource"]["attributes"]["service.name"] == "headgate"
    start = next(s for s in spans if s["name"] == "start")
    assert (start["start_time"], start["end_time"]) == ("1970-01-01T00:00:10.000000Z", "1970-01-01T00:00:11.500000Z")


def test_spans_go_where_the_variables_of_opentelemetry_say(lake, tmp_path, monkeypatch, capsys):
    with http_server() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        ran(tmp_path, lake, tracing={})
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
        ran(tmp_path, lake, tracing={})
    ((method, path, body),) = collector.requests
    assert (method, path) == ("POST", "/v1/traces") and b"run shop" in body and b"table orders" in body
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    ran(tmp_path, lake, tracing={})
    assert len(capsys.readouterr().err.splitlines()) == 5
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "jaeger")
    ran(tmp_path, lake, tracing={})
    assert "unknown exporter 'jaeger'" in capsys.readouterr().err


def test_spans_that_nobody_takes_are_told_of(lake, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    ran(tmp_path, lake, tracing={"exporter": "otlp"})
    assert capsys.readouterr().err == "warning: tracing: 5 spans could not be exported\n"
