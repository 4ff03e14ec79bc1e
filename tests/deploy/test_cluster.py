"""A real cluster on one machine: Spark's standalone master and two workers, and what dies in the midst of a run."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pyspark
import pytest
import requests

from headgate.jobs.spark.java import java_home
from tests.chaos import content
from tests.deploy.test_launch import archive, submitted  # noqa: F401
from tests.jobs.test_pulled import api, free_port, postgres  # noqa: F401
from tests.jobs.test_security import leaks, secrets_place  # noqa: F401
from tests.lakes import ROOT
from tests.waiting import soon

pytestmark = pytest.mark.long

SPARK = Path(pyspark.__path__[0])
LOCAL = "127.0.0.1"
DAYS = "2013-01-02"
RUN = ("run", str(ROOT / "conf" / "flights.yaml"), "--lake", "lake", "--landing", "landing")
SMALL = ("--executor-memory", "1g", "--conf", "spark.sql.shuffle.partitions=2")


def environment():
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYSPARK", "PYTHONPATH", "HEADGATE_ZIP"))}
    return kept | {"JAVA_HOME": str(java_home()), "SPARK_LOCAL_IP": LOCAL, "PYTHONSAFEPATH": "1"}


def processes():
    """Command lines of all processes, by number."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
    return found


class Cluster:
    """A master and two workers of one core each, in a folder of their own."""

    def __init__(self, folder):
        self.port = port = free_port()
        self.address = f"spark://{LOCAL}:{port}"
        self.folder, self.daemons = folder, []
        folder.mkdir()
        self.head = self.start("master.Master", "--host", LOCAL, "--port", str(port), "--webui-port", "0")
        self.workers = [self.start_worker(n) for n in range(2)]

    @property
    def master(self):
        """The master's address, once it answers there: a driver gives up after a minute, whatever else is at work."""
        soon(self.answers, "the master answers")
        return self.address

    def answers(self):
        assert self.head.poll() is None, (self.folder / "log.txt").read_text()[-3000:]
        with contextlib.suppress(OSError), socket.create_connection((LOCAL, self.port), timeout=10):
            return True
        return False

    def start(self, kind, *arguments, **more):
        command = [str(SPARK / "bin" / "spark-class"), f"org.apache.spark.deploy.{kind}", *arguments]
        log = open(self.folder / "log.txt", "a")  # noqa: SIM115
        daemon = subprocess.Popen(command, env=environment() | more, stdout=log, stderr=log, start_new_session=True)
        self.daemons.append(daemon)
        return daemon

    def start_worker(self, number):
        place = str(self.folder / f"worker-{number}")
        size = ("--cores", "1", "--memory", "1g", "--webui-port", "0", "--work-dir", place)
        return self.start("worker.Worker", "--host", LOCAL, *size, self.address)

    def start_history(self, events):
        """Start Spark's history server on a folder of event logs; returns the address of its API."""
        port = free_port()
        options = f"-Dspark.history.fs.logDirectory={events} -Dspark.history.ui.port={port}"
        self.start("history.HistoryServer", SPARK_HISTORY_OPTS=options)
        return f"http://{LOCAL}:{port}/api/v1/applications"

    def at_work(self, command):
        """Numbers of the processes of such a command that work below the folders of the workers."""
        found = []
        for number in (n for n, line in processes().items() if command in line):
            with contextlib.suppress(FileNotFoundError):  # it has ended
                if os.readlink(f"/proc/{number}/cwd").startswith(str(self.folder)):
                    found.append(number)
        return found

    def stop(self):
        for daemon in self.daemons:
            os.killpg(daemon.pid, signal.SIGKILL)
            daemon.wait()


@pytest.fixture
def cluster(tmp_path):
    started = Cluster(tmp_path / "cluster")
    yield started
    started.stop()


@pytest.fixture(scope="module")
def calm(archive, tmp_path_factory, landing_of):  # noqa: F811
    """A folder with two days of flights, and what one core publishes of them."""
    folder = tmp_path_factory.mktemp("calm")
    landing_of(folder / "landing", DAYS)
    submitted(archive, folder, "local[1]", *RUN)
    return folder, content(folder)


def submit(archive, folder, master, *options, run=RUN):  # noqa: F811
    """Start spark-submit in a folder, as the README of deploy says."""
    (folder / "headgate.zip").write_bytes(archive.read_bytes())
    command = [str(SPARK / "bin" / "spark-submit"), "--master", master, *SMALL, *options]
    return subprocess.Popen(
        [*command, str(ROOT / "deploy" / "launch.py"), *run],
        cwd=folder,
        env={"PYSPARK_PYTHON": sys.executable} | environment() | {"HEADGATE_LOG": "json"},
        stdout=subprocess.PIPE,  # spark-submit puts together what the program says on both streams
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def until(process, table, phase):
    """Read what a run tells until a phase of a table is over."""
    told = []
    for line in process.stdout:
        told.append(line)
        if f'"table": "{table}", "phase": "{phase}"' in line:
            return
    process.wait()
    raise AssertionError("".join(told)[-3000:])


def ended(process, code=0):
    told = process.stdout.read()
    assert process.wait(timeout=600) == code, told[-3000:]
    return told


def test_a_packed_environment_brings_python_to_the_executors(archive, calm, cluster, tmp_path):  # noqa: F811
    """The commands of deploy/README.md: the workers' machines need Spark and Java alone."""
    subprocess.run([sys.executable, "-m", "venv", "environment"], cwd=tmp_path, check=True)
    wheel = tmp_path / "headgate-0.1.0-py3-none-any.whl"
    wheel.write_bytes(archive.read_bytes())
    pip = [str(tmp_path / "environment" / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--disable-pip-version-check", str(wheel), "venv-pack2"], cwd=tmp_path, check=True)
    pack = [str(tmp_path / "environment" / "bin" / "venv-pack"), "--quiet", "--prefix", "environment"]
    subprocess.run([*pack, "--compress-level", "1", "--output", "environment.tar.gz"], cwd=tmp_path, check=True)
    folder, published = calm
    (tmp_path / "landing").symlink_to(folder / "landing")
    process = submit(
        archive,
        tmp_path,
        cluster.master,
        "--archives",
        "environment.tar.gz#environment",
        "--conf",
        "spark.pyspark.python=./environment/bin/python",
        "--conf",
        f"spark.pyspark.driver.python={sys.executable}",
    )
    until(process, "raw_flights", "stage")
    python = cluster.at_work("./environment/bin/python")
    ended(process)
    assert content(tmp_path) == published
    assert python, "executors ran another Python"


@pytest.mark.parametrize("victim", ["executor", "worker", "master", "driver"])
def test_a_run_survives_what_dies(archive, calm, cluster, tmp_path, victim):  # noqa: F811
    folder, published = calm
    (tmp_path / "landing").symlink_to(folder / "landing")
    process = submit(archive, tmp_path, cluster.master)
    until(process, "flights", "steps")
    time.sleep(1)  # into the midst of the pass that stages the rows
    if victim == "executor":
        os.kill(cluster.at_work("CoarseGrainedExecutorBackend")[0], signal.SIGKILL)
    elif victim == "worker":
        os.killpg(cluster.workers[0].pid, signal.SIGKILL)
    elif victim == "master":
        os.killpg(cluster.head.pid, signal.SIGKILL)
    else:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process = submit(archive, tmp_path, cluster.master)
    ended(process)
    assert content(tmp_path) == published


def asked(history, number):
    """Ask a history server until it lists so many applications."""

    def listed():
        with contextlib.suppress(requests.ConnectionError, requests.Timeout):
            found = requests.get(history, timeout=10).json()
            return found if len(found) == number else None

    return soon(listed, f"the history server lists {number} applications")


def test_no_log_of_a_cluster_tells_a_secret(archive, cluster, secrets_place):  # noqa: F811
    """Logs of master, workers, driver and executors, event logs, and what Spark's history server shows of them.

    The first run ends well, the second one fails.
    """
    for query, code in (("select 1 as id", 0), ("select nosuch", 4)):
        pipeline = secrets_place / "p.yaml"
        pipeline.write_text(pipeline.read_text().replace("select 1 as id", query))
        told = ended(submit(archive, secrets_place, cluster.master, run=("run", "p.yaml")), code)
        assert leaks(secrets_place, told) == []
    logs = "".join(p.read_text() for p in cluster.folder.rglob("stderr"))
    assert logs.count("CoarseGrainedExecutorBackend") > 1 and "Running task" in logs, "executors log what they do"
    history = cluster.start_history(secrets_place / "events")
    runs = asked(history, 2)
    shown = [
        requests.get(f"{history}/{run['id']}/{part}", timeout=60).text
        for run in runs
        for part in ("environment", "sql")
    ]
    assert "(redacted)" in shown[0] and "spark.executorEnv.NAMED" in shown[0], "the settings are shown"
    assert "s3cret-of" not in "".join(shown)
    (cluster.folder / "planted").write_text("s3cret-of-test")
    assert leaks(secrets_place) == ["cluster/planted"]  # the search finds what is there
