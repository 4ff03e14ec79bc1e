"""What texts may show: no secret anywhere, and beyond this machine no value of data."""

import re
from collections.abc import Mapping
from typing import Any

from headgate.words import CELL

SECRETS_READ: set[str] = set()  # secrets read by this process, which no output may show

# The user info of a URL, but for Azure's, where it is the container; Oracle's has no `//` before it.
USER_INFO = re.compile(
    r"(?P<before>(?<!\w)(?!abfss?:|wasbs?:)[a-z][a-z0-9+.:-]*//)(?P<user>[^/@\s:'\"]*:)?[^/?#\s'\"]*@"
    r"|(?P<oracle>jdbc:oracle:\w+:)[^@\s]+@",
    re.IGNORECASE,
)
NAMES = (
    r"(?:passw(?:or)?d|passphrase|pwd|token|secret|credentials?|signature"
    r"|(?:api|access|account|private|shared|secret)[-_]?key|\bsig)"
)
# A parameter whose name says that it is secret, as drivers, stores and APIs call it; the same as a member of JSON.
PARAMETER = re.compile(
    rf"(?P<name>{NAMES} ?= ?)(?:\{{[^}}]*\}}|[^&;,\s'\")]+)"
    rf"|(?P<member>[{{,]\s?['\"][\w.-]*{NAMES}['\"] ?: ?['\"])[^'\"]*",
    re.IGNORECASE,
)
# A header of HTTP that proves who asks.
HEADER = re.compile(
    r"(?P<name>\b(?:(?:proxy-)?authorization|(?:set-)?cookie|x-[\w-]*(?:key|token))['\"]?: ?['\"]?)[^'\",\r\n]+"
    r"|(?P<scheme>\bbearer )[\w.~+/=-]{8,}",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """Return a text without the secrets that were read by reference, and without the sensitive parts of its URLs."""
    for secret in sorted(filter(None, SECRETS_READ), key=len, reverse=True):  # one may hold another
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
    text = USER_INFO.sub(lambda m: f"{m['oracle'] or m['before']}{m['user'] or ''}***@", text)
    text = HEADER.sub(lambda m: f"{m['name'] or m['scheme']}***", text)
    return PARAMETER.sub(lambda m: f"{m['name'] or m['member']}***", text)


def masked(value: Any) -> Any:
    """Return a value for JSON without the secrets in its texts: of JSON's own text, escapes would hide some."""
    if isinstance(value, Mapping):
        return {str(name): masked(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [masked(inner) for inner in value]
    return value if isinstance(value, int | float | None) else without_secrets(str(value))


def outward(text: str) -> str:
    """Return a text without secrets, and without the values of data that it quotes."""
    return without_secrets(CELL.sub("‹…›", text))
