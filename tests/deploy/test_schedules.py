"""What schedules a run elsewhere than on Kubernetes, each by its own parser or schema."""

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import PurePosixPath

import botocore.loaders
import botocore.model
import botocore.validate
import click
import pytest
import yaml

from headgate.jobs.cli.main import headgate
from headgate.jobs.config.environment import load_environment
from tests.conftest import ROOT
from tests.deploy.closed import problems
from tests.deploy.settings import is_setting

DEPLOY = ROOT / "deploy"
FIELDS = {"minute": (0, 59), "hour": (0, 23), "day": (1, 31), "month": (1, 12), "weekday": (0, 7)}


def run_options(words):
    """Return pipeline and options of the words after `headgate`; raises where there are none such."""
    name, *rest = words
    command = headgate.commands[name]
    options, arguments, _ = command.make_parser(click.Context(command)).parse_args(rest)
    return {"pipeline": arguments[0] if arguments else options["pipeline"], **options}


def assert_runs_orders(words):
    given = run_options(words)
    assert PurePosixPath(given["pipeline"]).parts[-2:] == ("conf", "orders.yaml")
    assert (given["env"], given["retries"]) == ("production", "3")


def cron_times(text):
    """Return the five fields of a cron expression as sets of numbers; raises `ValueError` for another text."""
    parts = text.split()
    if len(parts) != len(FIELDS):
        raise ValueError(f"{text}: {len(parts)} fields")
    times = {}
    for (name, (low, high)), part in zip(FIELDS.items(), parts, strict=True):
        times[name] = set()
        for item in part.split(","):
            found = re.fullmatch(r"(\*|\d+)(?:-(\d+))?(?:/(\d+))?", item)
            if not found or (found[1] == "*" and found[2]):
                raise ValueError(f"{name}: {item}")
            first = low if found[1] == "*" else int(found[1])
            last = high if found[1] == "*" else int(found[2] or found[1])
            if not low <= first <= last <= high:
                raise ValueError(f"{name}: {item}")
            times[name].update(range(first, last + 1, int(found[3] or 1)))
    return times


def test_cron_times_are_read_strictly():
    assert cron_times("*/20 1-3,5 * * 0")["minute"] == {0, 20, 40} and cron_times("0 1-3,5 * * *")["hour"] == {
        1,
        2,
        3,
        5,
    }
    for text in ("0 24 * * *", "0 3 * *", "0 3 * * * x", "0 3 0 * *", "a 3 * * *", "0 5-3 * * *"):
        with pytest.raises(ValueError):
            cron_times(text)


def test_every_cron_expression_is_three_in_the_morning():
    found = [d for f in (DEPLOY / "kubernetes").rglob("*.yaml") for d in yaml.safe_load_all(f.read_text())]
    texts = [d["spec"]["schedule"] for d in found if d and "schedule" in d.get("spec", {})]
    lines = (DEPLOY / "cron" / "headgate").read_text().splitlines()
    (line,) = (line for line in lines if re.match(r"[\d*]", line))
    texts.append(" ".join(line.split()[:5]))
    assert len(texts) == 4
    for text in texts:
        times = cron_times(text)
        assert (times["minute"], times["hour"]) == ({0}, {3}) and len(times["day"]) == 31 and len(times["weekday"]) == 8
    user, command = line.split(None, 6)[5:]
    assert user == "headgate" and "%" not in command, "cron takes % for the end of a line"
    words = shlex.split(command.split(">>")[0])
    assert_runs_orders(words[words.index("/opt/headgate/venv/bin/headgate") + 1 :])


def test_mail_of_cron_is_of_failures_alone(tmp_path):
    """The line as it stands, with other folders and another program."""
    line = next(x for x in (DEPLOY / "cron" / "headgate").read_text().splitlines() if x.startswith("0 3"))
    command = line.split(None, 6)[6].replace("/srv/headgate", str(tmp_path)).replace("/var/log/headgate", str(tmp_path))
    for code, told in ((0, ""), (3, "said\n")):
        program = tmp_path / "program"
        program.write_text(f"#!/bin/sh\necho said >&2\nexit {code}\n")
        program.chmod(0o755)
        there = command.replace("/opt/headgate/venv/bin/headgate", str(program))
        done = subprocess.run(["sh", "-c", there], capture_output=True, text=True)
        assert (done.stdout, done.stderr) == (told, "")
        (tmp_path / "orders.log").unlink()


def unit(name):
    parser = configparser.RawConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read_string((DEPLOY / "systemd" / name).read_text())
    return parser


def test_the_systemd_service_runs_a_pipeline_with_secrets_that_an_environment_can_name(tmp_path, monkeypatch):
    service = unit("headgate@.service")["Service"]
    words = shlex.split(service["ExecStart"].replace("%i", "orders"))
    assert_runs_orders(words[1:])
    text = (DEPLOY / "systemd" / "headgate@.service").read_text()
    reference = re.search(r"\{file: .+?secret-key\"\}", text)[0]
    assert re.search(r"^LoadCredential=secret-key:", text, re.MULTILINE)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "secret-key").write_text("mine\n")
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "production.yaml").write_text(f"secrets: {{spark.hadoop.a: {reference}}}\n")
    environment = load_environment("production", tmp_path / "p.yaml")
    assert environment.secrets["spark.hadoop.a"].read("a") == "mine"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not here")
def test_systemd_takes_the_units_and_refuses_a_misspelt_key(tmp_path):
    def refused():
        command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no"]
        command += ["headgate@orders.service", "headgate@orders.timer"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        return done.stderr if done.returncode else ""

    for file in (DEPLOY / "systemd").iterdir():
        text = file.read_text().replace("/opt/headgate/venv/bin/headgate", sys.executable)
        (tmp_path / file.name).write_text(text)
    assert refused() == ""
    service = tmp_path / "headgate@.service"
    service.write_text(service.read_text().replace("UMask=", "UMasc="))
    assert "UMasc" in refused()


def aws(operation, given):
    """Return what AWS's own model of an operation does not take."""
    loader = botocore.loaders.Loader()
    model = botocore.model.ServiceModel(loader.load_service_model("emr-serverless", "service-2"))
    report = botocore.validate.ParamValidator().validate(given, model.operation_model(operation).input_shape)
    return report.generate_report() if report.has_errors() else ""


def test_emr_serverless_takes_the_application_and_the_run():
    """`clientToken` is required, and made by whoever calls."""
    token = {"clientToken": "x"}
    application = json.loads((DEPLOY / "emr" / "application.json").read_text())
    run = json.loads((DEPLOY / "emr" / "job-run.json").read_text())
    assert aws("CreateApplication", application | token) == "" and aws("StartJobRun", run | token) == ""
    assert application["schedulerConfiguration"]["maxConcurrentRuns"] == 1 and run["retryPolicy"]["maxAttempts"] == 1
    assert_runs_orders(run["jobDriver"]["sparkSubmit"]["entryPointArguments"])
    words = shlex.split(run["jobDriver"]["sparkSubmit"]["sparkSubmitParameters"])
    options = dict(zip(words[::2], words[1::2], strict=True))
    assert set(options) == {"--archives", "--conf"}
    settings = [
        value.partition("=")[0] for name, value in zip(words[::2], words[1::2], strict=True) if name == "--conf"
    ]
    assert [name for name in settings if not is_setting(name)] == []
    run["jobDriver"]["sparkSubmit"]["entryPointArgument"] = []
    assert "entryPointArgument" in aws("StartJobRun", run | token)
    assert "misspelt" in aws("CreateApplication", application | token | {"misspelt": 1})


def test_dataproc_takes_the_batch_and_the_workflow():
    batch = json.loads((DEPLOY / "dataproc" / "batch.json").read_text())
    workflow = yaml.safe_load((DEPLOY / "dataproc" / "workflow.yaml").read_text())
    assert problems(batch, "dataproc", "Batch") == [] and problems(workflow, "dataproc", "WorkflowTemplate") == []
    assert_runs_orders(batch["pysparkBatch"]["args"])
    (job,) = workflow["jobs"]
    assert_runs_orders(job["pysparkJob"]["args"])
    settings = [*batch["runtimeConfig"]["properties"], *job["pysparkJob"]["properties"]]
    assert [name for name in settings if not is_setting(name)] == []
    job["pysparkJob"]["fileUri"] = job["pysparkJob"].pop("fileUris")
    batch["environmentConfig"]["executionConfig"]["ttl"] = "6h"
    assert problems(workflow, "dataproc", "WorkflowTemplate") and problems(batch, "dataproc", "Batch")


def test_the_bundle_of_databricks_names_what_it_declares():
    text = (DEPLOY / "databricks" / "databricks.yml").read_text()
    bundle = yaml.safe_load(text)
    assert set(bundle) == {"bundle", "variables", "resources", "targets"}
    named = set(re.findall(r"\$\{(.+?)\}", text))
    known = {f"var.{name}" for name in bundle["variables"]} | {"workspace.file_path", "bundle.name"}
    assert named == known
    (job,) = bundle["resources"]["jobs"].values()
    clusters = {c["job_cluster_key"] for c in job["job_clusters"]}
    assert {t["job_cluster_key"] for t in job["tasks"]} == clusters and job["max_concurrent_runs"] == 1
    (task,) = job["tasks"]
    assert_runs_orders(task["spark_python_task"]["parameters"])
    assert task["max_retries"] == 0
    assert all(is_setting(name) for c in job["job_clusters"] for name in c["new_cluster"]["spark_conf"])


PARSED = """
import sys, yaml
from databricks.bundles.jobs import Job
text = open(sys.argv[1]).read()
(job,) = yaml.safe_load(text)["resources"]["jobs"].values()
Job.from_dict(job)
for spoil in (job["tasks"][0]["spark_python_task"], job["job_clusters"][0]["new_cluster"], job["schedule"], job):
    spoil["misspelt"] = 1
    try:
        Job.from_dict(job)
    except ValueError as e:
        assert "misspelt" in str(e), e
    else:
        raise SystemExit("a misspelt field was taken")
    del spoil["misspelt"]
print("taken")
"""


@pytest.mark.slow
def test_databricks_own_models_take_the_job(tmp_path):
    """In an environment of their own: their licence is for those who use Databricks."""
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    wanted = ["databricks-bundles==1.22.1", "pyyaml"]
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *wanted], check=True)
    command = [str(python), "-c", PARSED, str(DEPLOY / "databricks" / "databricks.yml")]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "taken\n"
