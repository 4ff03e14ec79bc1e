"""Secrets by reference; the model that all models of configuration are."""

import os
from pathlib import Path

import pydantic

from headgate.jobs.disclosure import SECRETS_READ
from headgate.jobs.errors import UsageError


class Model(pydantic.BaseModel):
    # An input may be a secret, written by mistake where its reference belongs.
    model_config = pydantic.ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, hide_input_in_errors=True, allow_inf_nan=False
    )


class SecretReference(Model):
    """A secret by reference: the name of an environment variable, or of a file."""

    env: str | None = pydantic.Field(default=None, min_length=1)
    file: str | None = pydantic.Field(default=None, min_length=1)

    def read(self, name: str) -> str:
        """Return the secret, which no output of this process shows from then on; `name`: its option, for errors."""
        value = self.value(name)
        SECRETS_READ.add(value)
        return value

    def value(self, name: str) -> str:
        if (self.env is None) == (self.file is None):
            raise UsageError(f"{name}: give exactly one of env and file")
        if self.env is not None:
            if self.env not in os.environ:
                raise UsageError(f"{name}: the environment variable {self.env} is not set")
            return os.environ[self.env]
        try:
            return Path(self.file or "").read_text(encoding="utf-8").strip()
        except OSError as e:
            raise UsageError(f"{name}: cannot read {self.file}: {e.strerror}") from e
        except UnicodeDecodeError:
            raise UsageError(f"{name}: {self.file} is not UTF-8 text") from None  # the error quotes the secret
