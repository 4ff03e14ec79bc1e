"""Waiting for what another process does, for as long as a machine that is busy with others may need."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def soon(asked: Callable[[], Found], what: str, seconds: float = 300) -> Found:
    """Return the first true answer within that time, asking ten times a second; raise `AssertionError` without one."""
    end = time.monotonic() + seconds
    while True:
        found = asked()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.1)
