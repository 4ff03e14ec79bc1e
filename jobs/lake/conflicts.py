"""Conflicts between writers: which errors are conflicts, and retries after them."""

from typing import NoReturn

import tenacity
from deltalake.exceptions import CommitFailedError, DeltaError

from headgate.jobs.errors import HeadgateError


class VersionTaken(Exception):
    """Another writer committed the version that was to be committed."""


TRIES = 20  # of a commit that other writers may disturb


def is_conflict(error: BaseException) -> bool:
    """Return whether a commit failed because another writer was first, be it headgate's own or deltalake's."""
    if isinstance(error, VersionTaken):
        return True
    if isinstance(error, DeltaError | OSError):  # of two that create a table, the slower finds it
        return isinstance(error, CommitFailedError) or "already exists" in str(error).lower()
    return False


def retrying(tries: int = TRIES, otherwise: HeadgateError | None = None) -> tenacity.Retrying:
    """Return attempts of a commit, to be used as `for attempt in retrying(): with attempt: …`.

    A conflict leads to the next attempt, after a random pause whose bound doubles from 20 ms to 1 s; other errors are
    raised at once. The last conflict is raised as it is, or `otherwise` from it.
    """

    def give_up(state: tenacity.RetryCallState) -> NoReturn:
        assert otherwise is not None and state.outcome is not None
        raise otherwise from state.outcome.exception()

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_conflict),
        stop=tenacity.stop_after_attempt(tries),
        wait=tenacity.wait_random_exponential(multiplier=0.02, max=1),
        reraise=True,
        retry_error_callback=give_up if otherwise is not None else None,
    )
