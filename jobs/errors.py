"""Errors that a user can act on, each with the exit code of its class.

HeadgateError           1  the program failed
├── UsageError          2  wrong usage or configuration
├── GateBlocked         3  a suite refused what was staged; nothing was published
├── InputMissing        4  an input is missing or unreadable
└── LostRace            5  another run won; safe to try again
"""

import re


class HeadgateError(Exception):
    exit_code = 1


class UsageError(HeadgateError):
    exit_code = 2


class GateBlocked(HeadgateError):
    exit_code = 3


class InputMissing(HeadgateError):
    exit_code = 4


class LostRace(HeadgateError):
    exit_code = 5


FAILED = "source failed: "  # marks the line of an error on an executor that is for people


class SourceFailed(Exception):
    """Records cannot be read, where they are read: on an executor."""

    def __init__(self, message: str) -> None:
        super().__init__(FAILED + message)


def source_failure(error: BaseException) -> InputMissing | None:
    """The error as a source that cannot be read, in one line; None if it is something else."""
    marked = re.search(re.escape(FAILED) + r"(.*)", str(error))
    return InputMissing(marked[1].strip()) if marked else None


STORAGE = ("No space left on device", "Disk quota exceeded", "Read-only file system", "Permission denied")
STORAGE += ("Not a directory", "AccessDenied", "Mkdirs failed", "Input/output error")


def storage_failure(error: BaseException, place: str) -> HeadgateError | None:
    """The error as a storage that cannot be written, in one line; None if it is something else."""
    text = f"{error} {getattr(error, 'java_exception', '')}"
    seen: list[BaseException] = []
    while error.__cause__ is not None and error not in seen:
        seen.append(error)
        error = error.__cause__
        text += str(error)
    why = next((s for s in STORAGE if s.lower() in text.lower()), None)
    return HeadgateError(f"{place} cannot be written: {why}. Published tables stay as they were") if why else None
