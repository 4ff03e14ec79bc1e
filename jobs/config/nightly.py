"""Models of what an environment says of scheduled runs: who is told of them, and how."""

from typing import Annotated, Literal

import pydantic

from headgate.jobs.config.secrets import Model, SecretReference

Address = Annotated[str, pydantic.Field(pattern=r"^[^@\s]+@[^@\s]+$")]
Occasion = Literal["failure", "warning", "late"]


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
