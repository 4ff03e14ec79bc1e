"""Files that a source expects of a day: found, early, late; and what a run makes of those that are missing."""

import json
import os
from datetime import date, datetime, timezone

import pytest

from headgate.jobs.config.models import Environment
from headgate.jobs.config.nightly import Expected
from headgate.jobs.config.pipeline import load_pipeline
from headgate.jobs.explore import queries
from headgate.jobs.lake.lake import Lake
from headgate.jobs.pipeline.expected import due_files
from headgate.jobs.pipeline.work import config_key
from tests.jobs.test_cli import here  # noqa: F401  (a fixture)
from tests.lakes import lake_of, land, write_pipeline
from tests.servers import http_server

FRIDAY, SATURDAY = date(2024, 3, 1), date(2024, 3, 2)


def pipeline(folder, expected: str, path: str = "{date}-*.csv"):
    source = f"{{format: csv, path: '{path}', schema: 'i INT', expected: {expected}}}"
    return write_pipeline(folder, f"  t: {{source: {source}, suite: any}}\n")


def due_in(folder, expected: str, at: datetime, as_of: date | None = None, path: str = "{date}-*.csv"):
    environment = Environment(lake=str(folder / "lake"), landing=str(folder / "landing"))
    return due_files(load_pipeline(pipeline(folder, expected, path)), environment, lake_of(folder), ["t"], as_of, at)


def at(hour: int, minute: int = 0, day: int = 1) -> datetime:
    return datetime(2024, 3, day, hour, minute, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("expected", "time", "as_of", "missing", "late"),
    [
        ("{by: 06:00, files: 2}", at(5, 59), None, 0, False),
        ("{by: 06:00, files: 3}", at(5, 59), None, 1, False),
        ("{by: 06:00, files: 3}", at(6, 0), None, 1, True),
        # 06:00 in Berlin is 05:00 here in winter; at 23:30 here the next day has begun there.
        ("{by: 06:00, files: 3, timezone: Europe/Berlin}", at(4, 59), None, 1, False),
        ("{by: 06:00, files: 3, timezone: Europe/Berlin}", at(5, 0), None, 1, True),
        ("{by: 06:00, files: 3, timezone: Europe/Berlin}", at(23, 30), None, 3, False),
        ("{by: 06:00, files: 3}", at(5, day=9), FRIDAY, 1, True),
        ("{by: 06:00, files: 2, days_before: 1}", at(5, day=2), None, 0, False),
        ("{by: 06:00, files: 3, days_before: 1}", at(7, day=2), None, 1, True),
        ("{by: 06:00, weekdays: [mon, fri]}", at(7), None, 0, True),
        ("{by: 06:00, weekdays: [mon, tue]}", at(7), None, None, None),
        ("{by: 06:00, weekdays: [sat]}", at(7, day=9), SATURDAY, 1, True),
    ],
)
def test_files_of_a_day_are_found_early_or_late(tmp_path, expected, time, as_of, missing, late):
    for name in ("2024-03-01-a.csv", "2024-03-01-b.csv", "2024-02-29-a.csv"):
        land(tmp_path, name, "i\n1\n")
    assert [(d.missing, d.late) for d in due_in(tmp_path, expected, time, as_of)] == (
        [] if missing is None else [(missing, late)]
    )


def test_a_file_without_a_day_in_its_name_is_of_the_day_of_its_last_change(tmp_path):
    """Which day that is depends on the time zone."""
    changed = at(23, 30).timestamp()
    os.utime(land(tmp_path, "orders.csv", "i\n1\n"), (changed, changed))
    for zone, of in (("UTC", FRIDAY), ("Europe/Berlin", SATURDAY)):
        for day in (FRIDAY, SATURDAY):
            (due,) = due_in(tmp_path, f"{{by: 06:00, timezone: {zone}}}", at(1), day, "*.csv")
            assert due.found == (day == of), (zone, day)


def test_a_run_without_files_that_are_late_ends_with_exit_4_before_anything_is_built(tmp_path, here, monkeypatch):  # noqa: F811
    """It is alerted once, and the table of metrics has it; expecting files changes no key of what is built."""
    land(tmp_path, "2024-03-01-a.csv", "i\n1\n")
    file = pipeline(tmp_path, "{by: 06:00, files: 3, timezone: Europe/Berlin}")
    key = config_key(load_pipeline(file), "t")
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "local.yaml").write_text("alerts: {webhook: {env: HOOK}, on: [late]}\n")
    place = ["--lake", str(tmp_path / "lake"), "--landing", str(tmp_path / "landing")]
    with http_server() as hook:
        monkeypatch.setenv("HOOK", hook.url)
        code, out, error = here("run", str(file), *place, "--as-of", "2024-03-01")
    told = "table 't': 1 of 3 expected files of 2024-03-01 are there; they were due by 2024-03-01 06:00 Europe/Berlin"
    assert (code, out, error) == (4, "", f"headgate: {told}\n")
    (alert,) = (document["text"].splitlines() for document in hook.documents)
    assert alert[:2] == ["headgate: p failed (exit code 4)", told] and len(alert) == 3
    query = "select table_name, kind, name, success, element_count, unexpected_count, value from metrics"
    (row,) = queries.sql(Lake(str(tmp_path / "lake")), query, None, None).to_pylist()
    assert list(row.values()) == ["t", "arrival", "files of 2024-03-01", False, 3, 2, 1.0]
    assert not (tmp_path / "lake" / "_system" / "runs").exists()
    assert config_key(load_pipeline(pipeline(tmp_path, "null")), "t") == key


@pytest.mark.parametrize(
    ("expected", "told"),
    [
        ("{by: 6am}", "it should match"),
        ("{by: 06:00, timezone: Mars}", "expected a time zone such as Europe/Berlin"),
        ("{by: 06:00, timezone: europe/berlin}", "such as Europe/Berlin — did you mean 'Europe/Berlin'?"),
        ("{by: 06:00, weekdays: [monday]}", "expected one of 'mon'"),
        ("{by: 06:00, weekdays: []}", "weekdays: expected at least 1 entry"),
        ("{files: 3}", "by: this option is required"),
    ],
)
def test_what_is_wrong_about_expected_files_is_said(tmp_path, here, expected, told):  # noqa: F811
    code, _, error = here("check", str(pipeline(tmp_path, expected)))
    assert code == 2 and told in error and error.count("p.yaml:") == 1, error


def test_the_schema_has_expected_files(here):  # noqa: F811
    schema = json.loads(here("schema")[1])
    assert set(schema["$defs"]["Expected"]["properties"]) == set(Expected.model_fields)
