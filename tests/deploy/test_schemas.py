"""The schemas of this folder are those that the packages publish."""

import re
import shutil
import subprocess
import sys

import pytest

from tests.deploy.closed import SCHEMAS


@pytest.mark.slow
def test_the_schemas_are_what_their_packages_say(tmp_path):
    script = SCHEMAS / "make.py"
    packages = re.findall(r"--with (\S+==\S+)", script.read_text())
    assert len(packages) == 4
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
    (tmp_path / "schemas").mkdir()
    subprocess.run([str(python), shutil.copy(script, tmp_path / "schemas")], check=True)
    made = {file.name: file.read_text() for file in (tmp_path / "schemas").glob("*.json")}
    kept = {file.name: file.read_text() for file in SCHEMAS.glob("*.json") if file.name != "spark-apache.json"}
    assert made == kept
