"""Texts that stand for a missing value."""

# Markers that the readers of pandas, R, SQL dumps and UCI files take for missing. No one writes them as a value.
MARKERS = frozenset(
    ["", "?", "??", "-", "--", "---", ".", "..", "#n/a", "#na", "#null!", "#value!", "#div/0!", "#ref!", "n/a", "na",
     "n.a.", "n.a", "<na>", "nan", "-nan", "null", "<null>", "(null)", "\\n", "nil", "nul", "undefined", "nat"]
)  # fmt: skip
# Words that stand for "missing" in one table and are a value in another: proposed, never applied unasked.
WORDS = frozenset(
    ["none", "empty", "unknown", "unk", "missing", "not available", "not known", "not applicable", "not given",
     "not specified", "unspecified", "not recorded", "no data", "no value", "blank", "tbd", "tba", "xxx", "xx",
     "other/unknown", "no answer", "not reported", "unavailable"]
)  # fmt: skip


def is_marker(value: str | None) -> bool:
    """Return whether a text is a marker of a missing value; null is none, as it is missing already."""
    return value is not None and value.strip().lower() in MARKERS
