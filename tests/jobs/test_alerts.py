"""Observers of a run, and alerts: to a webhook, by e-mail, on which occasions, and no secret in any of it."""

from dataclasses import replace

import pytest
import yaml

from headgate.jobs.config.environment import load_environment
from headgate.jobs.config.models import Environment
from headgate.jobs.errors import GateBlocked, Interrupted, LostRace, OtherRun, Terminated, UsageError
from headgate.jobs.lake.lake import Lake
from headgate.jobs.notify import alerts
from headgate.jobs.notify.watching import watched
from headgate.jobs.pipeline.events import RunEnded, RunStarted, TableDone
from headgate.jobs.pipeline.outcome import Outcome, TableOutcome
from headgate.jobs.progress import PhaseDone, Progress
from tests.jobs.test_cli import here  # noqa: F401  (a fixture)
from tests.servers import certificate, http_server, mail_server

REFERENCE = {"env": "X"}
TABLE = TableOutcome("orders", "built", version=3, rows=2)
WARNED = replace(TABLE, warnings=["column 'amount' is null in 40.0 % of the rows"])
FINE = Outcome("r1", "p-3", [TABLE], 12.0, 1)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(alerts, "PAUSE", 0.01)
    monkeypatch.setattr("headgate.jobs.disclosure.SECRETS_READ", set())


@pytest.fixture
def hook(monkeypatch):
    with http_server() as server:
        monkeypatch.setenv("HOOK", f"{server.url}/services/s3cret-path")
        yield server


def environment(**more):
    return Environment.model_validate({"lake": "/lakes/shop", "alerts": {"webhook": {"env": "HOOK"}, **more}})


def run_of(environment, tmp_path, *, table=TABLE, error=None, again=False):
    """A run by its events alone, as `run` emits them."""
    progress = Progress(watched=False)
    with watched(progress, environment, tmp_path / "p.yaml"):
        progress.emit(RunStarted("r1", "shop", Lake(str(tmp_path)), None))
        progress.emit(TableDone(table))
        progress.emit(RunEnded("shop", error, None if error else FINE, 12.0, again))
    return progress


@pytest.mark.parametrize(
    ("facts", "on", "said"),
    [
        ({}, ["failure", "warning", "late"], None),
        ({"error": GateBlocked("the gate blocked table 'orders'")}, ["warning"], None),
        (
            {"error": GateBlocked("the gate blocked table 'orders'")},
            ["failure"],
            "shop failed (exit code 3)\nthe gate b",
        ),
        ({"table": WARNED}, ["warning"], "shop has warnings\ntable 'orders': column 'amount' is null"),
        ({"table": WARNED}, ["failure", "late"], None),
        (
            {"error": GateBlocked("2 of 4 rows fail; for example ‹name=Ada›")},
            ["failure"],
            "\n2 of 4 rows fail; for example ‹…›\n(",
        ),
        (
            {"error": ZeroDivisionError("Ada")},
            ["failure"],
            "(exit code 1)\nfailed: ZeroDivisionError (the log of the run",
        ),
        ({"error": Terminated()}, ["failure"], "(exit code 143)\nterminated"),
        ({"error": Interrupted()}, ["failure"], None),
        ({"error": LostRace("another run was first"), "again": True}, ["failure"], None),
        ({"error": LostRace("another run was first")}, ["failure"], "(exit code 5)"),
        ({"error": OtherRun("another run of 'shop' is at work")}, ["failure"], None),
    ],
)
def test_an_alert_is_sent_on_the_occasions_that_are_asked_for(hook, tmp_path, facts, on, said):
    run_of(environment(on=on), tmp_path, **facts)
    assert len(hook.requests) == (said is not None)
    for (method, path, _), document in zip(hook.requests, hook.documents, strict=True):
        assert (method, path, list(document)) == ("POST", "/services/s3cret-path", ["text"])
        assert said in document["text"] and "lake /lakes/shop" in document["text"]


def test_a_webhook_is_tried_again_and_what_fails_is_told_without_its_address(hook, tmp_path, capsys):
    hook.statuses = [503, 429]
    run_of(environment(), tmp_path, table=WARNED)
    assert len(hook.requests) == 3 and capsys.readouterr().err == ""
    hook.statuses = [404]
    run_of(environment(), tmp_path, table=WARNED)
    assert capsys.readouterr().err == "warning: alerts: not sent by webhook: it answered 404\n"


def test_no_server_and_no_secret_are_told_and_the_run_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOOK", "http://127.0.0.1:9/s3cret-path")
    run_of(environment(), tmp_path, table=WARNED)
    monkeypatch.delenv("HOOK")
    run_of(environment(), tmp_path, table=WARNED)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "warning: alerts: not sent by webhook: no answer (ConnectionError)"
    assert second == "warning: alerts: alerts.webhook: the environment variable HOOK is not set"


def test_an_alert_by_mail_and_both_at_once(hook, tmp_path, monkeypatch, capsys):
    """The server wants TLS and a password; a client trusts its certificate by a variable of OpenSSL's."""
    pem = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    monkeypatch.setenv("MAIL_USER", "robot")
    monkeypatch.setenv("MAIL_PASSWORD", "s3cret-of-mail")
    with mail_server(pem, "robot", "s3cret-of-mail") as box:
        email = {
            "host": "127.0.0.1",
            "port": box.port,
            "from": "headgate@example.org",
            "to": ["a@example.org", "b@x.y"],
        }
        email |= {"user": {"env": "MAIL_USER"}, "password": {"env": "MAIL_PASSWORD"}}
        error = UsageError("jdbc:postgresql://h/d?password=s3cret-of-mail is wrong")
        run_of(environment(email=email), tmp_path, error=error, table=WARNED)
        (message,) = box.messages
        assert message["Subject"] == "headgate: shop failed (exit code 2)"
        assert (message["From"], message["To"]) == ("headgate@example.org", "a@example.org, b@x.y")
        text = message.get_payload(decode=True).decode()
        assert "password=*** is wrong" in text and "is null in 40.0 %" in text and "s3cret" not in text
        assert "s3cret" not in hook.documents[0]["text"]
        monkeypatch.setenv("MAIL_PASSWORD", "s3cret-of-old")
        run_of(environment(email=email), tmp_path, table=WARNED)
        assert len(box.messages) == 1 and len(hook.requests) == 2  # the other channel works on
        assert capsys.readouterr().err == "warning: alerts: not sent by email: 127.0.0.1 answered 535\n"
        monkeypatch.setenv("MAIL_PASSWORD", "s3cret-of-mail")
        monkeypatch.delenv("HOOK")
        run_of(environment(email=email), tmp_path, table=WARNED)
        assert len(box.messages) == 2 and len(hook.requests) == 2
    assert capsys.readouterr().err == "warning: alerts: alerts.webhook: the environment variable HOOK is not set\n"


def test_a_run_that_cannot_begin_is_alerted(hook, tmp_path, here, monkeypatch):  # noqa: F811
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "local.yaml").write_text("alerts: {webhook: {env: HOOK}}\n")
    (tmp_path / "broken.yaml").write_text("pipeline: p\ntables: {t: {suit: x}}\n")
    for arguments, times in ((["--dry-run"], 0), ([], 1)):
        code, _, error = here("run", str(tmp_path / "broken.yaml"), *arguments)
        assert code == 2 and "suit" in error and len(hook.requests) == times
    assert hook.documents[0]["text"].startswith("headgate: p failed (exit code 2)\n")  # as the file names it
    assert "unknown option 'suit'" in hook.documents[0]["text"]


@pytest.mark.parametrize(
    ("alerts", "told"),
    [
        ({"on": ["failure"]}, "give webhook, email or both"),
        ({"webhook": "https://hooks.example.org/s3cret"}, "expected a mapping"),
        ({"webhook": {"env": ""}}, "it should have at least 1 character"),
        ({"webhook": {"env": "HOOK"}, "on": ["failed"]}, "expected one of 'failure', 'warning' or 'late'"),
        ({"email": {"host": "h", "from": "a@b", "to": []}}, "expected at least 1 entry"),
        ({"email": {"host": "h", "from": "s3cret", "to": ["a@b"]}}, "it should match"),
        ({"email": {"host": "h", "from": "a@b", "to": ["a@b"], "user": {"env": "X"}}}, "are given together"),
        (
            {
                "email": {"host": "h", "from": "a@b", "to": ["a@b"], "tls": "none"}
                | {key: {"env": "X"} for key in ("user", "password")}
            },
            "a password needs encryption",
        ),
    ],
)
def test_what_is_wrong_about_alerts_is_said_with_its_line(tmp_path, alerts, told):
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "local.yaml").write_text(f"lake: lake\n{yaml.safe_dump({'alerts': alerts})}")
    with pytest.raises(UsageError) as e:
        load_environment(None, tmp_path / "p.yaml")
    assert told in str(e.value) and "s3cret" not in str(e.value) and "local.yaml:" in str(e.value)


def test_an_observer_that_fails_is_told_of_once_and_harms_nothing(monkeypatch, capsys):
    progress, seen = Progress(watched=False), []

    def bad(event):
        raise OSError("disk\nfull")

    progress.observers |= {"bad": bad, "good": seen.append}
    with progress.phase("t", "stage"):
        pass
    with progress.phase("t", "publish"):
        pass
    assert [(e.table, e.phase) for e in seen] == [("t", "stage"), ("t", "publish")]
    assert all(isinstance(e, PhaseDone) and e.began <= e.ended for e in seen)
    assert capsys.readouterr().err == "warning: bad: disk\n"
