"""Models of what scheduled runs need: the files that they expect, and who is told of them."""

import zoneinfo
from datetime import date, datetime, time, timedelta
from typing import Annotated, Literal, get_args

import pydantic

from headgate.jobs.config.secrets import Model, SecretReference
from headgate.words import did_you_mean

Address = Annotated[str, pydantic.Field(pattern=r"^[^@\s]+@[^@\s]+$")]
Url = Annotated[str, pydantic.Field(pattern=r"^https?://[^@\s]+$")]
Occasion = Literal["failure", "warning", "late"]


Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = get_args(Weekday)


class Expected(Model):
    """Files that are expected of every day, and until when."""

    by: str = pydantic.Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", description="The time of day, such as 06:00")
    timezone: str = pydantic.Field(default="UTC", description="Of that time, and of the days: as Europe/Berlin")
    files: int = pydantic.Field(default=1, ge=1, description="How many files of a day")
    days_before: int = pydantic.Field(
        default=0, ge=0, description="How many days before the day of the run their day is: 1 for those of yesterday"
    )
    weekdays: tuple[Weekday, ...] = pydantic.Field(
        default=WEEKDAYS, min_length=1, description="Days of the week of which there are files"
    )
    on_missing: Literal["fail", "warn"] = pydantic.Field(
        default="fail", description="What a run does after that time: end with exit code 4, or warn and go on"
    )

    @pydantic.field_validator("timezone")
    @classmethod
    def known(cls, name: str) -> str:
        try:
            zoneinfo.ZoneInfo(name)
        except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
            hint = did_you_mean(name, zoneinfo.available_timezones())
            raise ValueError(f"expected a time zone such as Europe/Berlin{hint}") from None
        return name

    @property
    def zone(self) -> zoneinfo.ZoneInfo:
        return zoneinfo.ZoneInfo(self.timezone)

    def due(self, day: date) -> tuple[date, datetime] | None:
        """Return, for the day of a run, the day of the files and when they are due; None where none are expected."""
        of = day - timedelta(days=self.days_before)
        if WEEKDAYS[of.weekday()] not in self.weekdays:
            return None
        return of, datetime.combine(day, time.fromisoformat(self.by), self.zone)


class Email(Model):
    """Alerts by e-mail."""

    host: str = pydantic.Field(description="The SMTP server")
    port: int = pydantic.Field(default=587, ge=1, le=65535)
    tls: Literal["starttls", "implicit", "none"] = pydantic.Field(
        default="starttls", description="starttls: encrypted after a greeting; implicit: from the start, as on port 465"
    )
    sender: Address = pydantic.Field(alias="from")
    to: tuple[Address, ...] = pydantic.Field(min_length=1)
    user: SecretReference | None = None
    password: SecretReference | None = None

    @pydantic.model_validator(mode="after")
    def complete(self) -> "Email":
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password are given together")
        if self.password is not None and self.tls == "none":
            raise ValueError("a password needs encryption: tls is starttls or implicit")
        return self

    def login(self) -> tuple[str, str] | None:
        """Return user and password as their references give them; None where the server asks for none."""
        if self.user is None or self.password is None:
            return None
        return self.user.read("alerts.email.user"), self.password.read("alerts.email.password")


class Alerts(Model):
    """Who is alerted after a run, and on what occasion."""

    webhook: SecretReference | None = pydantic.Field(
        default=None, description='Where the URL is found that takes a POST of JSON {"text": ...}, as Slack\'s do'
    )
    email: Email | None = None
    on: tuple[Occasion, ...] = pydantic.Field(
        default=("failure", "warning", "late"),
        min_length=1,
        description="failure: the run failed. warning: a step or a gate warned. late: expected files are missing",
    )

    @pydantic.model_validator(mode="after")
    def complete(self) -> "Alerts":
        if self.webhook is None and self.email is None:
            raise ValueError("give webhook, email or both")
        return self


class Metrics(Model):
    """Where the figures of a run go, in Prometheus' text format."""

    textfile: str | None = pydantic.Field(
        default=None,
        min_length=1,
        description="Folder of node_exporter's textfile collector; each pipeline has a file there",
    )
    pushgateway: Url | SecretReference | None = pydantic.Field(
        default=None, description="URL of a Pushgateway; by reference where it holds a password"
    )

    @pydantic.model_validator(mode="after")
    def complete(self) -> "Metrics":
        if self.textfile is None and self.pushgateway is None:
            raise ValueError("give textfile, pushgateway or both")
        return self


class OpenLineage(Model):
    """Where OpenLineage events go; without url and file, where OpenLineage's own configuration says."""

    url: Url | None = pydantic.Field(default=None, description="The server; events are sent to its api/v1/lineage")
    api_key: SecretReference | None = None
    file: str | None = pydantic.Field(
        default=None, min_length=1, description="A file to which each event is appended as a line"
    )
    namespace: str = pydantic.Field(default="headgate", min_length=1, description="Of the jobs")

    @pydantic.model_validator(mode="after")
    def complete(self) -> "OpenLineage":
        if self.url is not None and self.file is not None:
            raise ValueError("give url or file, not both")
        if self.api_key is not None and self.url is None:
            raise ValueError("api_key requires url")
        return self


class Tracing(Model):
    """Where OpenTelemetry traces of runs go; OTEL_* variables say the rest."""

    exporter: Literal["otlp", "console"] | None = pydantic.Field(
        default=None,
        description="otlp: to a collector, by HTTP. console: as JSON on standard error. Without it what "
        "OTEL_TRACES_EXPORTER says, or else otlp",
    )
    file: str | None = pydantic.Field(
        default=None,
        min_length=1,
        description="Instead of an exporter: a file to which spans are appended as lines of JSON",
    )

    @pydantic.model_validator(mode="after")
    def complete(self) -> "Tracing":
        if self.exporter is not None and self.file is not None:
            raise ValueError("give exporter or file, not both")
        return self
