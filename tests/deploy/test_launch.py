"""The real pipeline through spark-submit, from an empty folder with only the archive beside it."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pyspark
import pytest

from headgate.jobs.lake.lake import Lake
from tests.lakes import ROOT, land, ledger, rows, write_pipeline
from tests.transforms.test_near_duplicates import perturbed


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    return built(tmp_path_factory.mktemp("dist"))


def built(folder):
    """What `make build` makes: the wheel's bytes under the name that executors accept."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)], check=True)
    (wheel,) = folder.glob("headgate-*.whl")
    return wheel.rename(folder / "headgate.zip")


def test_the_wheel_holds_one_package_and_nothing_else(archive):
    tops = {name.split("/")[0] for name in zipfile.ZipFile(archive).namelist()}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"headgate"}


def submitted(archive, folder, master, *arguments):
    """Submit a command from a folder; its JSON."""
    from headgate.jobs.spark.java import java_home

    (folder / "headgate.zip").write_bytes(archive.read_bytes())
    submit = Path(pyspark.__path__[0]) / "bin" / "spark-submit"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYSPARK", "PYTHONPATH", "HEADGATE_ZIP"))}
    environment |= {"JAVA_HOME": str(java_home()), "PYSPARK_PYTHON": sys.executable, "PYTHONSAFEPATH": "1"}
    command = [str(submit), "--master", master, "--conf", "spark.sql.shuffle.partitions=2"]
    command += ["--conf", "spark.databricks.delta.snapshotPartitions=2"]
    command += [str(ROOT / "deploy" / "launch.py"), *arguments, "--json"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    # spark-submit merges what the program says on both streams.
    return json.loads(next(line for line in done.stdout.splitlines() if '"release"' in line))


SMALL = """  t:
    source: {format: csv, path: 't/*.csv', schema: 'id INT, v STRING', key: [id]}
    suite: any
  clean:
    from: t
    steps: [{drop_duplicates: {columns: [v], keep: id}}]
    suite: any
"""


@pytest.mark.slow
def test_spark_submit_runs_a_pipeline(archive, tmp_path):
    """Rows are read by Python workers, which find headgate in the archive alone."""
    write_pipeline(tmp_path, SMALL)
    land(tmp_path, "t/a.csv", "id,v\n1,x\n2,x\nbad\n")
    outcome = submitted(archive, tmp_path, "local[2]", "run", "p.yaml")
    assert outcome["release"] == "p-1" and outcome["built"] == 2
    assert rows(tmp_path, "id, v", "clean") == [(1, "x")] and len(ledger(tmp_path)) == 2


@pytest.mark.long
def test_spark_submit_runs_the_real_pipeline(archive, tmp_path, landing_of):
    landing_of(tmp_path / "landing", "2013-01-02")
    outcome = submitted(
        archive,
        tmp_path,
        "local[2]",
        "run",
        str(ROOT / "conf" / "flights.yaml"),
        "--lake",
        "lake",
        "--landing",
        "landing",
    )
    assert outcome["release"] == "flights-1" and outcome["built"] == 12
    assert {p.name for p in tmp_path.iterdir()} >= {"headgate.zip", "landing", "lake"}


@pytest.mark.long
def test_two_workers_of_a_cluster_and_one_core_find_the_same_duplicates(archive, tmp_path):
    """`local-cluster` starts Spark's standalone master and two workers, with executors in processes of their own."""
    texts = perturbed(11, families=15)
    rows = [json.dumps({"id": i, "text": t}) for i, t in enumerate(texts)]
    found = {}
    for name, master, lines in (("cluster", "local-cluster[2,1,1024]", rows), ("core", "local[1]", rows[::-1])):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "docs.jsonl").write_text("\n".join(lines) + "\n")
        options = ["--key", "id", "--text", "text", "--into", "clean"]
        submitted(archive, folder, master, "dedup", "docs.jsonl", *options)
        lake = Lake(str(folder / "lake"))
        entries = lake.open("ledger").to_pyarrow_table().to_pylist()
        kept = sorted(lake.open("clean").to_pyarrow_table(columns=["id"])["id"].to_pylist())
        found[name] = kept, sorted((e["row_id"], sorted(e["evidence"])) for e in entries)
    assert found["cluster"] == found["core"]
    assert 10 < len(found["core"][1]) < len(texts) - 10


def test_without_an_archive_it_says_what_to_do(tmp_path):
    environment = os.environ | {"HEADGATE_ZIP": str(tmp_path / "none.zip")}
    command = [sys.executable, str(ROOT / "deploy" / "launch.py"), "run"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "`make build` makes it" in done.stderr
