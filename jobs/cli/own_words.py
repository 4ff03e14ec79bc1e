"""What goes wrong in a command that makes one table, in the words of the command: no YAML, no options of a source."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from headgate.jobs.config.columns import ARRIVES, NOT_HELD, UNWRITABLE
from headgate.jobs.errors import FileRefused, InputMissing, UsageError
from headgate.transforms.cleaning.expressions import checked
from headgate.transforms.step import StepError
from headgate.words import cell


def not_selected(where: str | None, columns: Mapping[str, str | None]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the step that rejects the rows that `--where` leaves out; none without it.

    columns: of the input, with their types where these are known. Raises `UsageError` that quotes what was written.
    """
    if not where:
        return []
    times = [c for c, kind in columns.items() if (kind or "").lower().startswith(("date", "timestamp"))]
    try:
        checked(where, [*columns, *ARRIVES], times)
    except StepError as e:
        raise UsageError(f"--where: {e}") from e
    return [("reject_rows", {"where": f"NOT coalesce(({where}), false)", "reason": "not_selected"})]


def need_writable(given: object, columns: Iterable[str]) -> None:
    """Raise `UsageError` for a column of an input whose name no published table can hold."""
    name = next((c for c in columns if set(c) & set(UNWRITABLE)), None)
    if name is not None:
        raise UsageError(f"{given}: the column {cell(name)} {NOT_HELD}. Rename it in the file")


@contextlib.contextmanager
def files_as_given() -> Iterator[None]:
    """Say of a file that is refused what to do with it, as the command has no options of its source."""
    try:
        yield
    except FileRefused as e:
        raise InputMissing(f"{e.problem}; {e.remedy}") from e
