"""A nightly run of a headgate pipeline, for Airflow 3.

headgate lives in an environment of its own, which HEADGATE names; Airflow calls its command. Retries belong to exit
code 5, a lost race; everything else is for people, and fails at once with the line that headgate ends with. A day that
was missed is caught up as of that day; days come one after the other.
"""

import asyncio
import json
import os
import subprocess
import tempfile
import urllib.request
from datetime import datetime, timedelta, timezone

from airflow.sdk import DAG, AsyncCallback, DeadlineAlert, DeadlineReference, get_current_context, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException

HEADGATE = os.environ.get("HEADGATE", "headgate")  # the command, as /opt/headgate/venv/bin/headgate
PIPELINE = os.environ.get("HEADGATE_PIPELINE", "/srv/headgate/conf/orders.yaml")
OPTIONS = os.environ.get("HEADGATE_OPTIONS", "--env production").split()
# One task for all tables takes one start of Spark; one for each table shows which of them takes long, or fails.
EACH_TABLE = os.environ.get("HEADGATE_EACH_TABLE", "") not in ("", "0")
START = datetime.fromisoformat(os.environ.get("HEADGATE_START", "2026-01-01")).replace(tzinfo=timezone.utc)
# By when after its start a run must be done; 0 for no deadline. (Airflow 3.3.2's `airflow dags test` ends with an error
# after a run that succeeded where there is one: its issue 73428.)
DUE = timedelta(hours=float(os.environ.get("HEADGATE_DUE_HOURS", "3")))
WEBHOOK = os.environ.get("HEADGATE_DEADLINE_WEBHOOK")  # takes {"text": ...}

LOST_RACE = 5


def headgate(*arguments: str) -> object:
    """Run headgate's command as of the day before the run's; returns what it prints as JSON.

    Raises `AirflowException` where it is safe to try again, else `AirflowFailException`.
    """
    day = (get_current_context()["dag_run"].run_after - timedelta(days=1)).date()
    command = [HEADGATE, "run", PIPELINE, *OPTIONS, "--as-of", str(day), "--json", *arguments]
    last = ""
    with tempfile.TemporaryFile("w+") as out:
        with subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, text=True) as process:
            for line in process.stderr:
                print(line.rstrip())
                last = line.strip() or last
        out.seek(0)
        told, code = out.read(), process.returncode
    if code == LOST_RACE:
        raise AirflowException(last)
    if code:
        raise AirflowFailException(f"exit code {code}: {last}")
    return json.loads(told)


async def tell_late(context: dict[str, object]) -> None:
    """Tell a webhook that the release is not there by the time it is due."""
    if WEBHOOK:
        text = json.dumps({"text": f"headgate: {PIPELINE} is not done {DUE} after its start"}).encode()
        request = urllib.request.Request(WEBHOOK, text, {"Content-Type": "application/json"})
        await asyncio.to_thread(urllib.request.urlopen, request, timeout=30)


with DAG(
    dag_id="headgate_nightly",
    schedule="0 3 * * *",
    start_date=START,
    catchup=True,
    max_active_runs=1,
    default_args={
        "retries": 3,
        "retry_delay": timedelta(minutes=1),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=30),
    },
    deadline=DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT, interval=DUE, callback=AsyncCallback(tell_late)
    )
    if DUE
    else None,
    doc_md=__doc__,
):

    @task
    def tables() -> list[str]:
        """List the tables that have something new, after the ones that they start from."""
        return [plan["table"] for plan in headgate("--dry-run") if plan["build"]]

    # In the order of the list: a table starts when those before it are done.
    @task(max_active_tis_per_dagrun=1, map_index_template="{{ table }}")
    def build(table: str) -> None:
        """Build one table; what it starts from is up to date by then."""
        get_current_context()["table"] = table
        headgate("--table", table)

    @task(trigger_rule="none_failed")  # a night without anything to build makes up for a release that failed
    def release() -> str | None:
        """Build what is not up to date, and release all tables together."""
        return headgate()["release"]

    if EACH_TABLE:
        build.expand(table=tables()) >> release()
    else:
        release()
