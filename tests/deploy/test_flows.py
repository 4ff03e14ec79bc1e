"""The snippets of deploy/README.md for Dagster and Prefect, run by both in an environment of their own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lakes import ROOT

pytestmark = pytest.mark.long

PACKAGES = ("dagster>=1.13,<1.14", "prefect>=3.9,<4")
RUN = "run conf/orders.yaml --env production --as-of 2026-01-02\n"
PROGRAMS = {
    "dagster": """
import dagster as dg
import page
with dg.DagsterInstance.ephemeral() as instance:
    done = dg.materialize([page.orders], partition_key="2026-01-02", instance=instance, raise_on_error=False)
print("ended well" if done.success else "ended badly")
""",
    "prefect": """
import page
done = page.night("2026-01-02", return_state=True)
print("ended well" if done.is_completed() else "ended badly")
""",
}
# What the command gives one after the other, whether all ends well, how often it ran. A retry waits for a minute.
ENDS = (("0", True, 1), ("5\n0", True, 2), ("3", False, 1))


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """An environment with both; FLOWS_ENVIRONMENT may name one."""
    place = Path(os.environ.get("FLOWS_ENVIRONMENT", tmp_path_factory.mktemp("flows") / "environment"))
    if not place.exists():
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        pip = [str(place / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *PACKAGES], check=True)
    return place


@pytest.mark.parametrize("tool", PROGRAMS)
@pytest.mark.parametrize(("codes", "well", "calls"), ENDS)
def test_a_lost_race_alone_is_tried_again(environment, tmp_path, tool, codes, well, calls):
    """The command is a script that notes how it is called and ends with the next of some exit codes."""
    text = (ROOT / "deploy" / "README.md").read_text().partition("## Dagster and Prefect")[2].partition("\n## ")[0]
    (snippet,) = (block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if tool in block)
    (tmp_path / "page.py").write_text(snippet)
    (tmp_path / "program.py").write_text(PROGRAMS[tool])
    (tmp_path / "codes").write_text(f"{codes}\n")
    command = tmp_path / "bin" / "headgate"
    command.parent.mkdir()
    command.write_text('#!/bin/sh\necho "$@" >> calls\ncode=$(head -n 1 codes)\nsed -i 1d codes\nexit "$code"\n')
    command.chmod(0o755)
    settings = {"PREFECT_HOME": str(tmp_path / "prefect"), "DO_NOT_TRACK": "1", "DAGSTER_DISABLE_TELEMETRY": "1"}
    settings["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] = "180"
    settings |= {"PATH": f"{command.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        [str(environment / "bin" / "python"), "program.py"],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | settings,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ("ended well" if well else "ended badly") in done.stdout, done.stdout[-2000:] + done.stderr[-3000:]
    assert (tmp_path / "calls").read_text() == RUN * calls
