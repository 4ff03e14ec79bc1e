"""Three days made up for on the command line, with all observers at once: what each of them has of a real run."""

import json
import re

import pytest

from headgate.jobs.explore import queries
from headgate.jobs.lake.lease import Lease
from tests.jobs.test_metrics import samples
from tests.lakes import lake_of, land, write_pipeline
from tests.openlineage import check_events
from tests.servers import http_server

TABLES = """
  raw:
    source:
      format: csv
      path: "{date}.csv"
      schema: id INT, v STRING
      key: [id]
      expected: {by: 06:00, on_missing: warn}
    suite: null
  clean:
    from: raw
    steps:
      - normalize_text: {columns: [v], case: upper}
      - drop_duplicates: {columns: [v], keep: id}
    suite: any
    quarantine_ceiling: 0.5
"""
WARNS = (
    "{type: expect_column_values_to_be_between, kwargs: {column: id, max_value: 3}, "
    "severity: warning, meta: {dimension: validity}}"
)
QUARANTINES = (
    "{type: expect_column_values_to_not_be_null, kwargs: {column: v}, "
    "meta: {dimension: completeness, on_row_fail: quarantine}}"
)
ENVIRONMENT = """
metrics: {{textfile: '{0}'}}
openlineage: {{file: '{0}/events.jsonl'}}
tracing: {{file: '{0}/spans.jsonl'}}
alerts: {{webhook: {{env: HOOK}}}}
"""


@pytest.fixture
def place(tmp_path):
    write_pipeline(tmp_path, TABLES, WARNS, QUARANTINES)
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "local.yaml").write_text(ENVIRONMENT.format(tmp_path))
    land(tmp_path, "2024-03-01.csv", "id,v\n1,a\n2,A\n3,\n")
    land(tmp_path, "2024-03-03.csv", "id,v\n4,b\n")
    return tmp_path


def lines(file) -> list:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.slow
def test_days_that_were_missed_are_made_up_for_and_every_observer_has_them(in_session, place, monkeypatch):
    backfill = in_session("backfill")
    days = ["--from", "2024-03-01", "--to", "2024-03-03", "--json"]
    with http_server() as hook:
        monkeypatch.setenv("HOOK", f"{hook.url}/s3cret")
        code, out, error = backfill("p.yaml", *days)
    assert code == 0, error
    assert [(d["day"], d["done"], d["built"], d["release"]) for d in json.loads(out)] == [
        ("2024-03-01", "now", 2, "p-1"),
        ("2024-03-02", "now", 0, "p-1"),
        ("2024-03-03", "now", 2, "p-2"),
    ]
    lake = lake_of(place)
    assert queries.sql(lake, "select id, v from clean order by id", None, None).to_pylist() == [
        {"id": 1, "v": "A"},
        {"id": 4, "v": "B"},
    ]
    last = Lease(lake, "p", "").newest()
    assert (last.number, last.over) == (2, True)  # the day without files needed none

    # -- alerts: of the second day its file, of the third that id is above 3
    late, warned = (document["text"] for document in hook.documents)
    assert late.startswith("headgate: p lacks files\ntable 'raw': 0 of 1 expected files of 2024-03-02 are there")
    assert warned.startswith("headgate: p has warnings\ntable 'clean': expect_column_values_to_be_between (id)")
    assert "release p-2" in warned and "s3cret" not in out + error

    # -- metrics: of the last run
    found = samples((place / "headgate_p.prom").read_text())
    table = 'pipeline="p",table="clean"'
    assert found['headgate_run_success{pipeline="p"}'] == 1
    assert found[f"headgate_table_rows{{{table}}}"] == 2
    assert found[f"headgate_table_warnings{{{table}}}"] == 1
    assert found[f"headgate_table_version{{{table}}}"] == lake.open("clean").version()
    assert found['headgate_source_files_found{pipeline="p",table="raw"}'] == 1

    # -- events
    events = lines(place / "events.jsonl")
    check_events(events)
    built = ["p.raw", "p.clean.gate", "p.clean", "p"]
    ends = [e for e in events if e["eventType"] == "COMPLETE"]
    assert [e["job"]["name"] for e in ends] == [*built, "p", *built]
    assert len(events) == 2 * len(ends)
    (made,) = next(e for e in ends if e["job"]["name"] == "p.clean")["outputs"]
    (origin,) = made["facets"]["columnLineage"]["fields"]["v"]["inputFields"]
    assert (origin["name"], origin["field"]) == (lake.path("raw"), "v")
    assert made["facets"]["version"]["datasetVersion"] == "0"
    gate = [e for e in ends if e["job"]["name"] == "p.clean.gate"][-1]
    told = gate["inputs"][0]["inputFacets"]["dataQualityAssertions"]["assertions"]
    assert len(told) == 4
    assert {(a["assertion"], a.get("column"), a["severity"]) for a in told if not a["success"]} >= {
        ("expect_column_values_to_be_between", "id", "warn")
    }

    # -- spans
    spans = lines(place / "spans.jsonl")
    by_id = {s["context"]["span_id"]: s for s in spans}
    runs = [s for s in spans if s["parent_id"] is None]
    assert [s["attributes"]["headgate.as_of"] for s in runs] == ["2024-03-01", "2024-03-02", "2024-03-03"]
    phases = {s["name"] for s in spans if s["parent_id"] and by_id[s["parent_id"]]["name"] == "table clean"}
    assert {"steps", "stage", "balance", "gate", "publish"} <= phases

    # -- again: all days are done, and nothing is run
    code, out, error = backfill("p.yaml", *days)
    assert code == 0 and [d["done"] for d in json.loads(out)] == ["before"] * 3
    assert len(re.findall("done before, skipped", error)) == 3 and len(lines(place / "events.jsonl")) == len(events)
