"""Words that every part of headgate says alike."""

import difflib
import re
from collections.abc import Callable, Iterable, Sequence

# Why a row is not in the table, by the code that stands in the ledger; the columns at fault are in its evidence.
REASONS = {
    "malformed_record": "cannot be read as a record",
    "wrong_type": "{columns} does not convert to its type",
    "null_value": "{columns} must not be null",
    "missing_key": "a key column is null",
    "unsupported_date": "{columns} is outside the years that every reader can hold",
    "file_set_aside": "the whole file was set aside",
    "superseded_record": "superseded by a newer version of the same record in the delivery",
    "erased_on_request": "erased on request",
    "invalid_local_time": "{columns} is no date and time, or its time zone is not known",
    "out_of_bounds": "{columns} is out of bounds",
    "outlying_row": "is outlying in {columns}",
    "unseen_category": "has a category in {columns} that no training row has",
    "too_many_missing": "lacks {columns}",
    "exact_duplicate": "repeats another row in {columns}",
    "near_duplicate": "is a near duplicate of another row in {columns}",
    "contained_duplicate": "is contained in another row's {columns}",
    "duplicate_row_id": "has the id of another row",
    "not_sampled": "not drawn for its stratum",
    "thinned": "of a large class, and left out by its neighbours",
    "unknown_code": "{columns} holds a code that is not in its list",
    "repeated_prediction": "predicts an item that its model predicted before",
    "missing_model": "does not say which model predicted it",
    "no_split": "is of no split by {columns}",
    "failed_expectation": "fails a row expectation",
}


CELL = re.compile("‹[^›]*(?:›|$)")  # a value of data as messages quote it, or what a cut left of it
NAMED = 5  # values that a message names of many


def cell(value: object) -> str:
    """Return a value of data as messages quote it, in one line: ‹Ada›. What leaves the machine is without it."""
    return f"‹{' '.join(str(value).replace('›', '>').splitlines())}›"


NULL = "(null)"  # a missing value, where values stand as texts
LIKE_NULL = re.compile(r"\\*\(null\)")  # a text that would read as one, and those that are written for such


def value_or_null(value: object) -> str:
    r"""Return a value as tables and messages show it: a null as `(null)`, a text of just that as `\(null)`."""
    text = str(value)
    return NULL if value is None else f"\\{text}" if LIKE_NULL.fullmatch(text) else text


def read_value(text: str) -> str | None:
    """Return the value that `value_or_null` shows so."""
    return None if text == NULL else text[1:] if LIKE_NULL.fullmatch(text) else text


def stratum_of_values(values: Iterable[object]) -> str:
    """Return a stratum as tables and messages show it: en/(null)."""
    return stratum_of_texts([*map(value_or_null, values)])


def stratum_of_texts(texts: Sequence[str]) -> str:
    r"""Return the values of a stratum as one text; of several values, a / within one is written \/."""
    return "/".join(text.replace("/", r"\/") for text in texts) if len(texts) > 1 else "".join(texts)


def few_of(values: Sequence[str]) -> str:
    """Return some values of data for a message."""
    named = ", ".join(map(cell, values[:NAMED]))
    return named + (f", … ({len(values):,} in all)" if len(values) > NAMED else "")


def rejected_line(why: str, rows: int) -> str:
    """Return how many rows were rejected for one reason, `step: code (columns)`, with a sentence for the code.

    A code that is a user's own stays as it is.
    """
    step, _, reason = why.partition(": ")
    code, _, columns = reason.partition(" (")
    sentence = REASONS[code].format(columns=columns.removesuffix(")") or "a value") if code in REASONS else reason
    return f"{rows:,} by {step}: {sentence}"


def did_you_mean(word: str, known: Iterable[str], quote: Callable[[str], str] = "'{}'".format) -> str:
    """A hint naming the closest known word, or an empty string; `quote`: `cell`, where the words are values of data."""
    words = list(known)
    match = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    match = match or [w for w in words if w.lower() == word.lower()]
    return f" — did you mean {quote(match[0])}?" if match else ""


def counted(number: int, what: str) -> str:
    """Return a number of things in words: `1 new file`, `2 new files`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
