import hashlib
import re
import stat
import subprocess
import sys

import pytest

from headgate.jobs.config.models import Environment
from headgate.jobs.config.pipeline import load_pipeline
from headgate.jobs.errors import UsageError
from headgate.jobs.lake.lake import Lake
from headgate.jobs.pipeline.planning import bytes_to_read
from headgate.jobs.spark import class_archive as prepare
from headgate.jobs.spark import doctor, jars, java
from tests.conftest import ROOT


def fake_java(folder, version):
    home = folder / f"java-{version}"
    (home / "bin").mkdir(parents=True)
    program = home / "bin" / "java"
    program.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}.0.1\"' >&2\n")
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    return home


def test_supported_javas_are_taken(tmp_path, monkeypatch):
    for version in java.SUPPORTED:
        home = fake_java(tmp_path, version)
        monkeypatch.setenv("JAVA_HOME", str(home))
        assert java.java_home() == home


def test_a_newer_java_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path, 25)))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(java, "packaged_home", lambda: None)
    with pytest.raises(UsageError, match="is Java 25"):
        java.java_home()


def test_no_java_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(java, "packaged_home", lambda: None)
    with pytest.raises(UsageError, match=r"no Java found.*headgate\[java\]"):
        java.java_home()


def test_a_jars_folder_that_lacks_some_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADGATE_JARS", str(tmp_path))
    with pytest.raises(UsageError, match=r"lacks delta-spark_4\.1_2\.13-4\.4\.0\.jar"):
        jars.local_jars()


def test_jars_are_those_of_the_checksums_and_the_pom():
    listed = dict(reversed(line.split()) for line in (ROOT / "deploy/jars/SHA256SUMS").read_text().splitlines())
    assert listed == jars.SHA256 | jars.S3_SHA256
    pom = (ROOT / "deploy/jars/pom.xml").read_text()
    named = re.findall(r"<artifactId>([^<*]+)</artifactId><version>([^<]+)</version>\n", pom.split("<build>")[0])
    assert {f"{a}-{v}.jar" for a, v in named} == set(listed)
    for path in jars.local_jars():
        with open(path, "rb") as file:
            assert hashlib.sha256(file.read()).hexdigest() == jars.SHA256[path.rsplit("/", 1)[1]]


def test_doctor_finds_this_installation_whole(tmp_path):
    findings = {f.what: f for f in doctor.examine(str(tmp_path / "lake"), str(tmp_path / "none"))}
    assert not findings.pop("landing").ok
    assert all(f.ok for f in findings.values()), findings


ARCHIVED_START = """
import sys
from pathlib import Path

from headgate.jobs.cli.warm_up import small_lake
from headgate.jobs.lake.stores import PLAIN_SETTINGS
from headgate.jobs.spark import class_archive as prepare
from headgate.jobs.spark import session
from headgate.jobs.spark.jars import SETS

sys.prefix, *named = sys.argv[1:]
sets = [SETS[name] for name in named]


def mapped(reads):
    settings = {"spark.master": "local[1]", "spark.driver.memory": "1g", **(PLAIN_SETTINGS if sets else {})}
    spark = session.start(settings, reads=reads)
    rows = spark.range(3).count()
    process = spark.sparkContext._jvm.java.lang.ProcessHandle.current().pid()
    maps, options = (Path(f"/proc/{process}/{name}").read_text() for name in ("maps", "cmdline"))
    session.end(spark)
    return rows, "/share/headgate/classes-" in maps, "TieredStopAtLevel" in options


made = prepare.prepare(small_lake, *sets)
assert made == prepare.prepare(None, *sets) and [*made.parent.iterdir()] == [made], "made once"
print(mapped(1000))
made.chmod(0o600)
made.write_bytes(made.read_bytes()[:100_000])
print(mapped(1 << 40))
"""


@pytest.mark.long
@pytest.mark.parametrize("sets", [(), ("s3",)], ids=["disks", "s3"])
def test_an_archive_of_classes_is_used_and_a_damaged_one_is_passed_over(tmp_path, sets):
    """Few bytes to read mean quick compilation, many do not."""
    if java.version_of(java.java_home()) != prepare.ARCHIVING:
        pytest.skip("only Java 17 takes an archive")
    command = [sys.executable, "-c", ARCHIVED_START, str(tmp_path / "environment"), *sets]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.returncode) == ("(3, True, True)\n(3, False, False)\n", 0), done.stderr


def test_no_archive_is_made_for_a_java_that_takes_none(tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path, 21)))
    assert prepare.prepare(None) is None


def test_what_is_to_be_read_is_what_landed_and_part_of_what_the_tables_hold(night, tmp_path):
    pipeline, lake = load_pipeline(ROOT / "conf" / "flights.yaml"), Lake(str(night / "lake"))
    environment = Environment(lake=lake.root, landing=str(night / "landing"))
    held = {name: lake.bytes_of(name) // 8 for name in pipeline.tables}
    assert all(held.values()) and lake.bytes_of("none") == 0
    assert bytes_to_read(pipeline, environment, lake, pipeline.tables, None) == sum(held.values())
    assert bytes_to_read(pipeline, environment, lake, ["airlines"], None) == held["airlines"] + held["raw_airlines"]
    landed = sum(f.stat().st_size for f in (night / "landing").rglob("*.csv"))
    assert bytes_to_read(pipeline, environment, Lake(str(tmp_path)), pipeline.tables, None) == landed
