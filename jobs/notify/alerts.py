"""Alerts after a run: by a webhook, by e-mail."""

import os
import smtplib
import socket
import ssl
from collections.abc import Callable
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from functools import partial

import requests
import tenacity

from headgate.jobs.config.nightly import Alerts, Email
from headgate.jobs.disclosure import outward
from headgate.jobs.errors import HeadgateError, Interrupted, OtherRun
from headgate.jobs.lake.storage import is_remote
from headgate.jobs.notify.wording import said
from headgate.jobs.pipeline.events import FilesDue, RunEnded, RunStarted, TableDone

SECONDS = 10  # for which a server is waited for
TRIES = 3
PAUSE = 1.0  # seconds before the second try; twice as many before the third
LONGEST = 3000  # characters of a text; chats cut longer ones


class NotTaken(Exception):
    """A server did not take an alert; the text quotes nothing that may be secret."""


class NotNow(NotTaken):
    """A server did not take an alert, and may take it in a moment."""


class Alerting:
    """Sends one alert after a run that gave an occasion for it, to all that are to be told.

    A channel whose secrets are not there keeps no other from telling; `faults` says what it lacks.
    """

    def __init__(self, options: Alerts, lake: str) -> None:
        self.occasions, self.lake = options.on, lake if is_remote(lake) else os.path.abspath(lake)
        self.channels: dict[str, Callable[[str, str], None]] = {}
        self.faults: list[str] = []
        if options.webhook is not None:
            webhook = options.webhook
            self.open("webhook", lambda: partial(post, webhook.read("alerts.webhook")))
        if options.email is not None:
            email = options.email
            self.open("email", lambda: partial(mail, email, email.login()))
        self.run: RunStarted | None = None
        self.found: dict[str, list[str]] = {}  # occasion -> lines

    def open(self, name: str, made: Callable[[], Callable[[str, str], None]]) -> None:
        try:
            self.channels[name] = made()
        except HeadgateError as e:
            self.faults.append(str(e))

    def __call__(self, event: object) -> None:
        if isinstance(event, RunStarted):
            self.run, self.found = event, {}
        elif isinstance(event, TableDone):
            for warning in event.outcome.warnings:
                self.found.setdefault("warning", []).append(f"table '{event.outcome.table}': {warning}")
        elif isinstance(event, FilesDue) and event.due.missing:
            self.found.setdefault("late", []).append(event.due.sentence())
        elif isinstance(event, RunEnded) and not event.again:
            self.end(event)

    def end(self, event: RunEnded) -> None:
        if event.error is not None and type(event.error) not in (Interrupted, OtherRun):  # who presses Ctrl-C knows it
            self.found["failure"] = [said(event.error)]
        if any(self.found.get(occasion) for occasion in self.occasions):
            self.send(*self.text(event))

    def text(self, event: RunEnded) -> tuple[str, str]:
        """Return the first line of an alert, and the others."""
        failed = "failure" in self.found
        what = f"failed (exit code {event.exit_code})" if failed else "has warnings"
        if not failed and "warning" not in self.found:
            what = "lacks files"
        lines = [line for occasion in ("failure", "late", "warning") for line in self.found.get(occasion, ())]
        lines = [line for i, line in enumerate(lines) if i == 0 or line not in lines[0]]  # late files are an error, too
        facts = [f"lake {self.lake}", f"on {socket.gethostname()}", f"after {event.seconds:.0f} s"]
        if self.run is not None:
            facts += [f"run {self.run.run_id}", *([f"as of {self.run.as_of}"] if self.run.as_of else [])]
        if event.outcome is not None:
            facts.append(f"release {event.outcome.release or 'none'}")
        body = outward("\n".join(lines))
        body = body if len(body) <= LONGEST else body[:LONGEST] + "…"
        return f"headgate: {event.pipeline} {what}", f"{body}\n({outward(', '.join(facts))})"

    def send(self, first: str, others: str) -> None:
        """Send a text by every channel; raise `HeadgateError` that names those that did not take it."""
        failures = []
        for name, channel in self.channels.items():
            try:
                patiently(channel, first, others)
            except NotTaken as e:
                failures.append(f"{name}: {e}")
        if failures:
            raise HeadgateError(f"not sent by {'; '.join(failures)}")


def patiently(channel: Callable[[str, str], None], first: str, others: str) -> None:
    tries = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(NotNow),
        stop=tenacity.stop_after_attempt(TRIES),
        wait=tenacity.wait_exponential(multiplier=PAUSE),
        reraise=True,
    )
    tries(channel, first, others)


def post(url: str, first: str, others: str) -> None:
    """POST a text as Slack's incoming webhooks take it, and those of others that are made after them."""
    try:
        text = {"text": f"{first}\n{others}"}
        answer = requests.post(url, json=text, timeout=SECONDS, allow_redirects=False)
    except requests.ConnectionError as e:
        raise NotNow(f"no answer ({type(e).__name__})") from None  # it quotes the URL
    except requests.RequestException as e:
        raise NotTaken(type(e).__name__) from None
    if answer.status_code == 429 or answer.status_code >= 500:
        raise NotNow(f"it answered {answer.status_code}")
    if answer.status_code >= 300:
        raise NotTaken(f"it answered {answer.status_code}")


def mail(options: Email, login: tuple[str, str] | None, first: str, others: str) -> None:
    """Send a text as plain e-mail, its first line as the subject."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = options.sender, ", ".join(options.to), first
    message["Date"], message["Message-ID"] = formatdate(), make_msgid(domain=options.sender.rpartition("@")[2])
    message.set_content(others)
    encrypted = ssl.create_default_context()
    try:
        if options.tls == "implicit":
            server: smtplib.SMTP = smtplib.SMTP_SSL(options.host, options.port, timeout=SECONDS, context=encrypted)
        else:
            server = smtplib.SMTP(options.host, options.port, timeout=SECONDS)
        with server:
            if options.tls == "starttls":
                server.starttls(context=encrypted)
            if login is not None:
                server.login(*login)
            server.send_message(message)
    except smtplib.SMTPResponseException as e:
        kind = NotNow if 400 <= e.smtp_code < 500 else NotTaken
        raise kind(f"{options.host} answered {e.smtp_code}") from None  # it may quote what it was sent
    except (OSError, smtplib.SMTPException) as e:
        raise NotNow(f"{options.host}: {type(e).__name__}") from None
