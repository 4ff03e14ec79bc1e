"""Words that every part of headgate says alike."""

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint naming the closest known word, or an empty string."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" — did you mean '{match[0]}'?" if match else ""


def counted(number: int, what: str) -> str:
    """Return a number of things in words: `1 new file`, `2 new files`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
