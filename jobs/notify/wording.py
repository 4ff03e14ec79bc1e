"""What an error or a warning may say beyond this machine."""

import re

from headgate.jobs.config.secrets import without_secrets
from headgate.jobs.errors import HeadgateError, Interrupted, first_line


def said(error: BaseException) -> str:
    """Return what an error says, as the command line says it."""
    if isinstance(error, HeadgateError):
        return str(error)
    if isinstance(error, Interrupted):
        return error.status
    return f"failed: {type(error).__name__}: {first_line(error)}"


def outward(text: str) -> str:
    """Return a text without secrets, and without the cells of rows that the gate quotes as examples."""
    return without_secrets(re.sub(r"; for example .*", "", text))
