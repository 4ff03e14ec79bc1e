"""Figures of a run for Prometheus: what is written and pushed, and that the board of Grafana asks for nothing else."""

import json
import re
from dataclasses import replace
from datetime import date, datetime, timezone

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from headgate.jobs.config.environment import load_environment
from headgate.jobs.config.models import Environment
from headgate.jobs.errors import GateBlocked, UsageError
from headgate.jobs.lake.lake import Lake
from headgate.jobs.notify.metrics import METRICS, escaped
from headgate.jobs.notify.watching import watched
from headgate.jobs.pipeline.events import FilesDue, RunEnded, RunStarted, TableDone
from headgate.jobs.pipeline.expected import Due
from headgate.jobs.pipeline.outcome import QUARANTINE, Outcome, TableOutcome
from headgate.jobs.progress import Progress
from tests.conftest import ROOT
from tests.servers import http_server

REJECTED = {QUARANTINE: 2, "orders/0-cast: bad_value (amount)": 3}
BUILT = TableOutcome("orders", "built", "new", 0, 5, 2.5, {}, 10, 0, 5, REJECTED, 4, 3, ["half is null"])
UP_TO_DATE = TableOutcome("customers", "up to date", version=0, rows=7)
DUE = Due("orders", date(2024, 3, 1), 3, 1, datetime(2024, 3, 1, 6, tzinfo=timezone.utc), False, True)


@pytest.fixture
def lake(tmp_path) -> Lake:
    lake = Lake(str(tmp_path / "lake"))
    for table in ("orders", "customers"):
        write_deltalake(lake.path(table), pa.table({"i": [1]}))
    return lake


def ran(lake, folder, error=None, again=False, **options):
    options = options or {"textfile": str(folder)}
    progress = Progress(watched=False)
    with watched(progress, Environment.model_validate({"metrics": options}), folder / "p.yaml"):
        progress.emit(RunStarted("r1", "shop", lake, None))
        progress.emit(FilesDue(DUE))
        progress.emit(TableDone(BUILT))
        progress.emit(TableDone(UP_TO_DATE))
        outcome = None if error else Outcome("r1", "shop-1", [BUILT, UP_TO_DATE], 12.5, 1)
        progress.emit(RunEnded("shop", error, outcome, 12.5, again))


def samples(text: str) -> dict[str, float]:
    """The samples of a text, each once; a text that has no help and type before a metric's samples is wrong."""
    found, head = {}, []
    for line in text.splitlines():
        if line.startswith("#"):
            head = [*head[-1:], line.split(" ")[2]]
            continue
        name, labels, value = re.fullmatch(r"(\w+)(\{.*\}) (\S+)", line).groups()
        assert head == [name, name] and name + labels not in found
        found[name + labels] = float(value)
    return found


def test_a_file_has_the_figures_of_a_run(lake, tmp_path):
    ran(lake, tmp_path)
    found = samples((tmp_path / "headgate_shop.prom").read_text())
    orders = {name: value for name, value in found.items() if 'table="orders"' in name}
    assert found['headgate_run_success{pipeline="shop"}'] == 1
    assert found['headgate_run_duration_seconds{pipeline="shop"}'] == 12.5
    assert found['headgate_run_warnings{pipeline="shop"}'] == 2  # one of a table, one for missing files
    figures = {"rows_in": 10, "rows_published": 5, "rows_rejected": 3, "rows_quarantined": 2, "rows": 5, "version": 0}
    figures |= {"expectations": 4, "expectations_passed": 3, "warnings": 1}
    assert {name: orders[f'headgate_table_{name}{{pipeline="shop",table="orders"}}'] for name in figures} == figures
    assert orders['headgate_source_files_found{pipeline="shop",table="orders"}'] == 1
    published = 'headgate_table_published_timestamp_seconds{pipeline="shop",table="customers"}'
    assert found[published] == lake.published("customers").at.timestamp()
    assert 'headgate_table_rows_in{pipeline="shop",table="customers"}' not in found
    assert {re.match(r"\w+", name)[0] for name in found} == set(METRICS)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["headgate_shop.prom", "lake"]  # and no part of a file


def test_a_run_that_fails_keeps_when_one_last_succeeded(lake, tmp_path):
    file = tmp_path / "headgate_shop.prom"
    ran(lake, tmp_path)
    before = samples(file.read_text())
    for _ in range(2):
        ran(lake, tmp_path, GateBlocked("the gate blocked"))
        after = samples(file.read_text())
        assert after['headgate_run_success{pipeline="shop"}'] == 0
        assert after['headgate_run_exit_code{pipeline="shop"}'] == 3
        last = 'headgate_last_success_timestamp_seconds{pipeline="shop"}'
        assert after[last] == before[last]
    ran(lake, tmp_path, again=True)  # a try that another follows
    assert samples(file.read_text()) == after


def test_a_pushgateway_gets_a_whole_group_or_only_what_a_run_that_failed_has(lake, tmp_path, capsys):
    with http_server() as gateway:
        ran(lake, tmp_path, pushgateway=gateway.url)
        ran(lake, tmp_path, GateBlocked("no"), pushgateway=gateway.url)
        gateway.statuses = [400]
        ran(lake, tmp_path, pushgateway=gateway.url)
    (put, path, whole), (post, again, part), _ = gateway.requests
    assert (put, post) == ("PUT", "POST") and path == again == "/metrics/job/headgate/pipeline/shop"
    last = b"headgate_last_success_timestamp_seconds{"
    assert last in whole and last not in part and whole.endswith(b"\n")
    ran(lake, tmp_path, pushgateway=gateway.url, textfile=str(tmp_path / "nosuch"))
    first, second = capsys.readouterr().err.splitlines()
    assert first == "warning: metrics: the Pushgateway answered 400"
    assert second == (
        f"warning: metrics: {tmp_path}/nosuch cannot be written: No such file or directory; "
        "the Pushgateway gave no answer (ConnectionError)"
    )


def test_relative_places_of_an_environment_start_where_its_lake_does(tmp_path, monkeypatch):
    (tmp_path / "conf" / "env").mkdir(parents=True)
    (tmp_path / "conf" / "env" / "local.yaml").write_text(
        "metrics: {textfile: figures}\nopenlineage: {file: /var/events.jsonl}\ntracing: {file: spans.jsonl}\n"
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = load_environment(None, tmp_path / "conf" / "p.yaml")
    assert found.lake == str(tmp_path / "lake")
    places = (found.metrics.textfile, found.openlineage.file, found.tracing.file)
    assert places == (str(tmp_path / "figures"), "/var/events.jsonl", str(tmp_path / "spans.jsonl"))


def test_names_are_escaped():
    assert escaped('a"b\\c\nd') == r"a\"b\\c\nd"


def test_the_board_of_grafana_asks_for_metrics_that_are_written(lake, tmp_path):
    ran(lake, tmp_path)
    written = {re.match(r"\w+", name)[0] for name in samples((tmp_path / "headgate_shop.prom").read_text())}
    board = json.loads((ROOT / "deploy" / "grafana" / "headgate.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    asked += [v["query"]["query"] for v in board["templating"]["list"] if v["type"] == "query"]
    assert len(asked) > len(board["panels"]) and all("headgate_" in query for query in asked)
    assert {name for query in asked for name in re.findall(r"\bheadgate_\w+", query)} <= written
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in board["panels"]]
    assert len(set(places)) == len(places) and len({p["id"] for p in board["panels"]}) == len(places)


def test_figures_of_what_was_judged_again_have_no_rows_of_a_build(lake, tmp_path, monkeypatch):
    judged = replace(UP_TO_DATE, status="judged", seconds=1.0, expectations=2, passed=2)
    monkeypatch.setattr("tests.jobs.test_metrics.UP_TO_DATE", judged)
    ran(lake, tmp_path)
    found = samples((tmp_path / "headgate_shop.prom").read_text())
    customers = {name for name in found if 'table="customers"' in name}
    assert any("expectations_passed" in name for name in customers) and not any("rows_in" in name for name in customers)


@pytest.mark.parametrize("place", ["metrics: {textfile: ''}", "openlineage: {file: ''}", "tracing: {file: ''}"])
def test_a_place_that_is_empty_is_not_the_working_folder(tmp_path, place):
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "local.yaml").write_text(f"{place}\n")
    with pytest.raises(UsageError, match=r"local.yaml:1: .*it should have at least 1 character"):
        load_environment(None, tmp_path / "p.yaml")
