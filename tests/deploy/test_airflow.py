"""The nightly DAG, imported and run by a real Airflow in an environment of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from headgate.jobs.lake.lake import Lake
from tests.lakes import ROOT, land, rows, write_pipeline

pytestmark = pytest.mark.long

AIRFLOW = "apache-airflow>=3.3,<3.4"
DAG = ROOT / "deploy" / "airflow"
TABLES = """  orders:
    source: {format: csv, path: 'orders/orders_{date}.csv', schema: 'id INT, v STRING', key: [id]}
    suite: any
  clean:
    from: orders
    steps: [{drop_duplicates: {columns: [v], keep: id}}]
    suite: any
"""


@pytest.fixture(scope="module")
def airflow(tmp_path_factory):
    """Gives what runs Airflow's commands, with a database of its own; AIRFLOW_ENVIRONMENT may name its environment."""
    folder = tmp_path_factory.mktemp("airflow")
    place = Path(os.environ.get("AIRFLOW_ENVIRONMENT", folder / "environment"))
    if not place.exists():
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        install = [str(place / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", AIRFLOW]
        subprocess.run(install, check=True)
    settings = {
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAG),
        "HEADGATE": str(Path(sys.executable).parent / "headgate"),
    }

    def run(*arguments, **more):
        command = [str(place / "bin" / "airflow"), *arguments]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | settings | more
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
        return done.returncode, done.stdout + done.stderr

    assert run("db", "migrate")[0] == 0
    return run


def of(folder, **more):
    return {
        "HEADGATE_PIPELINE": str(folder / "p.yaml"),
        "HEADGATE_OPTIONS": f"--lake {folder}/lake --landing {folder}/landing",
        "HEADGATE_START": "2026-01-01",
        "HEADGATE_DUE_HOURS": "0",
    } | more


def test_the_dag_is_imported_with_its_deadline(airflow, tmp_path):
    code, told = airflow("dags", "reserialize", **of(tmp_path, HEADGATE_DUE_HOURS="3"))
    assert code == 0, told
    code, told = airflow("dags", "list-import-errors", **of(tmp_path, HEADGATE_DUE_HOURS="3"))
    assert code == 0 and "No data found" in told, told
    assert "headgate_nightly" in airflow("dags", "list", **of(tmp_path))[1]


@pytest.mark.parametrize("each", ["0", "1"])
def test_a_night_runs_as_of_the_day_before(airflow, tmp_path, each):
    write_pipeline(tmp_path, TABLES)
    for day in (1, 2, 3):
        land(tmp_path, f"orders/orders_2026-01-0{day}.csv", f"id,v\n{day},x{day}\n{day + 10},x{day}\n")
    settings = of(tmp_path, HEADGATE_EACH_TABLE=each)
    code, told = airflow("dags", "test", "headgate_nightly", "2026-01-03T03:00:00", **settings)
    assert code == 0, told[-3000:]
    assert rows(tmp_path, "id", "clean") == [(1,), (2,)], "the files of the third day are of the next night"
    assert [r["release"] for r in Lake(str(tmp_path / "lake")).releases] == ["p-1"]
    assert len(set(re.findall(r"task_id=build map_index=(\d)", told))) == (2 if each == "1" else 0)
    code, told = airflow("dags", "test", "headgate_nightly", "2026-01-04T03:00:00", **settings)
    assert code == 0, told[-3000:]
    assert rows(tmp_path, "id", "clean") == [(1,), (2,), (3,)]


def test_a_gate_that_blocks_fails_the_task_at_once_and_says_why(airflow, tmp_path):
    rule = "type: expect_column_max_to_be_between, kwargs: {column: id, max_value: 5}, meta: {dimension: validity}"
    write_pipeline(tmp_path, TABLES, f"{{{rule}}}")
    land(tmp_path, "orders/orders_2026-01-01.csv", "id,v\n7,x\n")
    _, told = airflow("dags", "test", "headgate_nightly", "2026-01-02T03:00:00", **of(tmp_path))
    assert "exit code 3" in told and "the gate blocked table 'orders'" in told, told[-2000:]
    assert "up_for_retry" not in told.lower()


def test_a_lost_race_alone_is_tried_again(airflow, tmp_path):
    """The command is a script that ends with 5, and then as a run with nothing to do."""
    command = tmp_path / "headgate"
    command.write_text(
        "#!/bin/sh\n"
        f"echo run >> {tmp_path}/calls\n"
        f'if [ "$(wc -l < {tmp_path}/calls)" -lt 2 ]; then echo "lost the race" >&2; exit 5; fi\n'
        "echo '{\"release\": null}'\n"
    )
    command.chmod(0o755)
    code, told = airflow(
        "dags", "test", "headgate_nightly", "2026-01-02T03:00:00", **of(tmp_path, HEADGATE=str(command))
    )
    assert code == 0, told[-3000:]
    assert (tmp_path / "calls").read_text() == "run\n" * 2
    assert "lost the race" in told and "up_for_retry" in told.lower()
