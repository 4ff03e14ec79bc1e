"""Runs as of one day after the other: which days there are, and which are done."""

import json
from datetime import date, timedelta

import pytest

from headgate.jobs.config.pipeline import load_pipeline
from headgate.jobs.errors import UsageError
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.system import now
from headgate.jobs.pipeline.backfill import days_between, done_days
from tests.jobs.test_cli import here  # noqa: F401  (a fixture)
from tests.lakes import write_pipeline

TABLES = "  t: {source: {format: csv, path: '{date}.csv', schema: 'i INT'}, suite: any}\n  u: {from: t, suite: any}\n"


def test_days_are_those_from_the_first_to_the_last_and_none_to_come():
    first = date(2024, 2, 28)
    assert days_between(first, first) == [first]
    assert [d.day for d in days_between(first, date(2024, 3, 1))] == [28, 29, 1]
    for last, told in ((date(2024, 2, 27), "is before --from"), (now().date() + timedelta(days=1), "is after today")):
        with pytest.raises(UsageError, match=told):
            days_between(first, last)


def test_a_day_is_done_by_a_run_of_all_tables_that_succeeded(tmp_path, here):  # noqa: F811
    file = write_pipeline(tmp_path, TABLES)
    lake = Lake(str(tmp_path / "lake"))

    def ran(day: int, tables=("t", "u"), pipeline="p", status="succeeded"):
        records = json.dumps([{"table": table} for table in tables])
        row = {"run_id": f"r{day}", "pipeline": pipeline, "event": "finished", "status": status, "recorded_at": now()}
        lake.record("runs", [{**row, "as_of": date(2024, 1, day) if day else None, "tables": records}])

    ran(1)
    ran(2, tables=("t",))
    ran(3, pipeline="q")
    ran(4, status="GateBlocked")
    ran(0)
    assert done_days(lake, load_pipeline(file)) == {date(2024, 1, 1)}
    code, out, _ = here(
        "backfill", str(file), "--lake", lake.root, "--from", "2024-01-01", "--to", "2024-01-02", "--dry-run", "--json"
    )
    assert code == 0
    assert json.loads(out) == [{"day": "2024-01-01", "done": True}, {"day": "2024-01-02", "done": False}]


def test_a_backfill_stops_at_the_first_error_with_its_exit_code_and_goes_on_there(tmp_path, here):  # noqa: F811
    """A day that is done is skipped; a day without files is what it stops at."""
    file = write_pipeline(tmp_path, TABLES)
    lake = Lake(str(tmp_path / "lake"))
    done = {"run_id": "r", "pipeline": "p", "event": "finished", "status": "succeeded", "recorded_at": now()}
    lake.record("runs", [{**done, "as_of": date(2024, 1, 1), "tables": '[{"table": "t"}, {"table": "u"}]'}])
    days = ["--from", "2024-01-01", "--to", "2024-01-03"]
    code, out, error = here("backfill", str(file), "--lake", lake.root, *days, "--json")
    skipped, stopped, failed = error.splitlines()
    assert skipped == "day: 2024-01-01: done before, skipped (1 of 3)"
    assert stopped == "warning: the backfill stopped at 2024-01-02 (2 of 3)"
    assert code == 4 and failed.startswith("headgate: table 't': no file matches '{date}.csv'"), failed
    assert json.loads(out) == [{"day": "2024-01-01", "done": "before", "built": None, "release": None}]
    code, _, error = here("backfill", str(file), "--lake", lake.root, *days, "--again", "--json")
    assert code == 4 and "stopped at 2024-01-01" in error
