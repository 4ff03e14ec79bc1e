import hashlib
import re
import stat

import pytest

from jobs import doctor, jars, java
from jobs.errors import UsageError
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
    assert listed == jars.SHA256
    pom = (ROOT / "deploy/jars/pom.xml").read_text()
    named = re.findall(r"<artifactId>([^<*]+)</artifactId><version>([^<]+)</version>\n", pom.split("<build>")[0])
    assert {f"{a}-{v}.jar" for a, v in named} == set(jars.SHA256)
    for path in jars.local_jars():
        with open(path, "rb") as file:
            assert hashlib.sha256(file.read()).hexdigest() == jars.SHA256[path.rsplit("/", 1)[1]]


def test_doctor_finds_this_installation_whole(tmp_path):
    findings = {f.what: f for f in doctor.examine(str(tmp_path / "lake"), str(tmp_path / "none"))}
    assert not findings.pop("landing").ok
    assert all(f.ok for f in findings.values()), findings
