"""The manifests of deploy/kubernetes by the published schemas, closed: what no schema knows is refused."""

import copy
import re
import shutil
import subprocess
import zipfile
from pathlib import Path, PurePosixPath

import click
import pyspark
import pytest
import yaml

from headgate.jobs.cli.main import headgate
from headgate.jobs.config.environment import load_environment
from headgate.jobs.config.pipeline import load_pipeline
from headgate.jobs.lake import stores
from headgate.version import SPARK, VERSION
from tests.conftest import ROOT
from tests.deploy.closed import problems
from tests.deploy.settings import is_setting

KUBERNETES = ROOT / "deploy" / "kubernetes"
BASE = KUBERNETES / "base"
OVERLAYS = ("plain", "kubeflow", "apache")
CORE = "io.k8s.api"
SCHEMAS = {
    ("v1", "ConfigMap"): ("kubernetes", f"{CORE}.core.v1.ConfigMap"),
    ("v1", "ServiceAccount"): ("kubernetes", f"{CORE}.core.v1.ServiceAccount"),
    ("rbac.authorization.k8s.io/v1", "Role"): ("kubernetes", f"{CORE}.rbac.v1.Role"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): ("kubernetes", f"{CORE}.rbac.v1.RoleBinding"),
    ("batch/v1", "CronJob"): ("kubernetes", f"{CORE}.batch.v1.CronJob"),
    ("sparkoperator.k8s.io/v1beta2", "SparkApplication"): ("spark-kubeflow", "SparkV1beta2SparkApplication"),
    ("sparkoperator.k8s.io/v1beta2", "ScheduledSparkApplication"): (
        "spark-kubeflow",
        "SparkV1beta2ScheduledSparkApplication",
    ),
    ("spark.apache.org/v1", "SparkApplication"): ("spark-apache", "SparkApplication"),
}
FREE = {"annotations", "data", "labels", "limits", "matchLabels", "requests", "sparkConf"}  # maps of any names


def documents(file):
    return [d for d in yaml.safe_load_all(file.read_text(encoding="utf-8")) if d]


FILES = [
    f for f in sorted(KUBERNETES.rglob("*.yaml")) if f.name != "kustomization.yaml" and "apiVersion" in f.read_text()
]
OBJECTS = [pytest.param(d, id=f"{f.parent.name}/{f.name}:{d['kind']}") for f in FILES for d in documents(f)]


def wrong(document):
    """Return what a Kubernetes server would not take of a document."""
    return problems(document, *SCHEMAS[document["apiVersion"], document["kind"]])


def mappings(node, free=False):
    """Yield every mapping whose names a schema knows, outermost first."""
    if isinstance(node, dict):
        if not free:
            yield node
        for name, value in node.items():
            yield from mappings(value, name in FREE)
    if isinstance(node, list):
        for item in node:
            yield from mappings(item)


@pytest.mark.parametrize("document", OBJECTS)
def test_every_object_is_one_that_its_server_takes(document):
    assert wrong(document) == []


@pytest.mark.parametrize("document", OBJECTS)
def test_a_misspelt_field_is_refused_wherever_it_stands(document):
    for place in range(len(list(mappings(document)))):
        spoilt = copy.deepcopy(document)
        list(mappings(spoilt))[place]["misspelt"] = "x"
        assert any("misspelt" in problem for problem in wrong(spoilt)), list(mappings(document))[place]


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kustomize comes with kubectl")
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kustomize_makes_of_an_overlay_what_its_files_say(overlay):
    command = ["kubectl", "kustomize", str(KUBERNETES / overlay)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = list(yaml.safe_load_all(done.stdout))
    assert [problem for document in made for problem in wrong(document)] == []
    files = [yaml.safe_load((KUBERNETES / f / "kustomization.yaml").read_text()) for f in ("base", overlay)]
    listed = {(d["kind"], d["metadata"]["name"]) for f, k in zip(("base", overlay), files, strict=True)
              for r in k["resources"] if r.endswith(".yaml") for d in documents(KUBERNETES / f / r)}  # fmt: skip
    listed |= {("ConfigMap", g["name"]) for k in files for g in k.get("configMapGenerator", [])}
    assert {(d["kind"], d["metadata"]["name"]) for d in made} == listed
    assert {d["metadata"]["namespace"] for d in made} == {"headgate"}


def found(document, name):
    """Return all that stands under a name, at any depth."""
    return [node[name] for node in mappings(document) if name in node]


def test_pods_mount_the_files_that_are_generated_where_the_command_looks_for_them():
    kustomization = yaml.safe_load((BASE / "kustomization.yaml").read_text())
    (generated,) = kustomization["configMapGenerator"]
    files = dict(entry.split("=") for entry in generated["files"])
    pods = 0
    for document in (p.values[0] for p in OBJECTS):
        for volumes in found(document, "volumes"):
            for volume in (v for v in volumes if v.get("configMap", {}).get("name") == generated["name"]):
                assert {i["path"]: i["key"] for i in volume["configMap"]["items"]} == {p: k for k, p in files.items()}
                pods += 1
        for mounts in found(document, "volumeMounts"):
            places = {m["name"]: m["mountPath"] for m in mounts}
            assert places.get("pipeline", "/etc/headgate") == "/etc/headgate"
            assert places.get("store", "/run/secrets/headgate") == "/run/secrets/headgate"
    assert pods == 5, "plain, Kubeflow's two, and driver and executor of Apache's"
    assert {PurePosixPath(p) for p in files.values()} == {
        PurePosixPath(f.relative_to(BASE)) for f in BASE.rglob("*.yaml") if f.parent != BASE
    }


def commands():
    """Yield the words of every command that runs headgate, after its name."""
    for document in (p.values[0] for p in OBJECTS):
        for name in ("arguments", "driverArgs"):
            yield from found(document, name)
        for words in found(document, "command"):
            if "headgate" in words:
                yield words[words.index("headgate") + 1 :]


def test_commands_have_options_that_there_are_and_a_pipeline_that_is_valid(monkeypatch):
    monkeypatch.chdir(BASE)
    monkeypatch.setattr(stores, "STORES", {})
    seen = list(commands())
    assert len(seen) == 4
    for name, *words in seen:
        command = headgate.commands[name]
        options, rest, _ = command.make_parser(click.Context(command)).parse_args(list(words))
        file = BASE / PurePosixPath(rest[0] if rest else options["pipeline"]).relative_to("/etc/headgate")
        assert load_pipeline(file).order and load_environment(options["env"], file).lake == "s3://lake/shop"


def test_secrets_are_files_that_pods_mount():
    environment = yaml.safe_load((BASE / "conf" / "env" / "production.yaml").read_text())
    for name in ("access_key", "secret_key"):
        assert environment["store"][name] == {"file": f"/run/secrets/headgate/{name.replace('_', '-')}"}


def test_only_a_lost_race_is_tried_again_and_no_two_runs_are_under_way():
    (job,) = (p.values[0] for p in OBJECTS if "plain" in p.id)
    rules = job["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    codes = [
        (r["action"], r["onExitCodes"]["operator"], r["onExitCodes"]["values"]) for r in rules if "onExitCodes" in r
    ]
    assert codes == [("Count", "In", [5]), ("FailJob", "NotIn", [5])]
    scheduled = [p.values[0]["spec"] for p in OBJECTS if "schedule" in p.values[0].get("spec", {})]
    assert [spec["concurrencyPolicy"] for spec in scheduled] == ["Forbid"] * 3
    for document in (p.values[0] for p in OBJECTS if p.values[0]["kind"].endswith("SparkApplication")):
        spec = document["spec"].get("template", document["spec"])
        policy = spec.get("restartPolicy") or spec["applicationTolerations"]["restartConfig"]
        assert set(policy.values()) == {"Never"}
        assert (spec.get("arguments") or spec["driverArgs"])[-2:] == ["--retries", "3"]


def test_one_run_by_hand_is_the_run_of_the_night():
    (once,) = documents(KUBERNETES / "kubeflow" / "once.yaml")
    (scheduled,) = documents(KUBERNETES / "kubeflow" / "scheduled.yaml")
    assert scheduled["spec"]["template"] == once["spec"]


def test_versions_are_headgates_own():
    text = "".join(f.read_text() for f in (*KUBERNETES.rglob("*.yaml"), ROOT / "deploy" / "image" / "Dockerfile"))
    assert set(re.findall(r"headgate:([\d.]+)", text)) | set(re.findall(r"newTag: (.+)", text)) == {VERSION}
    assert set(re.findall(r"sparkVersion: (\S+)", text)) | set(re.findall(r"apache/spark:([\d.]+)", text)) == {SPARK}


def test_settings_are_those_that_spark_knows():
    settings = {name for p in OBJECTS for conf in found(p.values[0], "sparkConf") for name in conf}
    assert len(settings) > 20 and [name for name in sorted(settings) if not is_setting(name)] == []
    assert not is_setting("spark.executor.memoryOverhaed") and not is_setting("spark.kubernetes.driver.reusePersistent")


def test_spark_is_told_all_that_it_needs_to_make_a_disk():
    """Of a claim on demand it makes a disk only where class and size are named."""
    for conf in (conf for p in OBJECTS for conf in found(p.values[0], "sparkConf")):
        disk = "spark.kubernetes.executor.volumes.persistentVolumeClaim.spark-local-dir-1"
        assert conf[f"{disk}.options.claimName"] == "OnDemand" and conf[f"{disk}.mount.path"] == "/scratch"
        assert conf[f"{disk}.options.storageClass"] and conf[f"{disk}.options.sizeLimit"]
        plugin = conf["spark.shuffle.sort.io.plugin.class"].rpartition(".")[2]
        (jar,) = Path(pyspark.__path__[0], "jars").glob("spark-kubernetes_*.jar")
        assert f"org/apache/spark/shuffle/{plugin}.class" in zipfile.ZipFile(jar).namelist()
