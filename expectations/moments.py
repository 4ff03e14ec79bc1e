"""Days and moments as a suite writes them: ISO 8601, in UTC where no offset is given, down to the microsecond.

Great Expectations compares some of them as text, and Spark reads almost anything as a time ('12:30' is one of today).
"""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

MOMENT = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)"
    r"(?:[T ](?P<time>\d\d:\d\d(?::\d\d)?)(?:\.(?P<fraction>\d{1,9}))?(?P<offset>Z|[+-]\d\d:?\d\d)?)?"
)
JAVA_MOMENT = MOMENT.pattern.replace("?P<", "?<")
EPOCH = datetime(1970, 1, 1)
# The rules that compare what Python holds: GX takes a day there for the whole of it, and an offset for an error.
BY_PYTHON = ("expect_column_min_to_be_between", "expect_column_max_to_be_between")


def micros_of(text: str) -> int:
    """Return a day or moment as microseconds since 1970 in UTC, the next one where there are nanoseconds.

    Raises `ValueError` with what may be written.
    """
    wrong = ValueError(f"'{text}' is neither a day such as 2013-01-31 nor a moment such as 2013-01-31T12:00:00Z")
    found = MOMENT.fullmatch(text.strip())
    if not found:
        raise wrong
    try:
        moment = datetime.fromisoformat(f"{found['day']}T{found['time'] or '00:00'}")
    except ValueError as e:
        raise wrong from e
    micros = (moment - EPOCH) // timedelta(microseconds=1)
    micros += -(-int((found["fraction"] or "0").ljust(9, "0")) // 1000)
    if found["offset"] and found["offset"] != "Z":
        sign, hours, minutes = found["offset"][0], int(found["offset"][1:3]), int(found["offset"][-2:])
        if hours > 18 or minutes > 59:
            raise wrong
        micros -= (-1 if sign == "-" else 1) * (hours * 60 + minutes) * 60_000_000
    return micros


def text_of(micros: int) -> str:
    """Return microseconds since 1970 as Great Expectations writes a time: 2013-01-31T12:00:00, in UTC."""
    try:
        return (EPOCH + timedelta(microseconds=micros)).isoformat()
    except OverflowError:
        return f"{micros} microseconds after 1970"


def in_utc(value: Any) -> Any:
    """Return a text that is a moment with an offset as the same moment in UTC, anything else as it is."""
    found = MOMENT.fullmatch(value) if isinstance(value, str) else None
    if not found or not found["offset"]:
        return value
    try:
        return text_of(micros_of(value))
    except ValueError:
        return value


def why_unsound(kind: str, kwargs: Mapping[str, Any], kinds: Mapping[str, str]) -> str | None:
    """Say what is wrong with the values that a rule compares with a column of dates or times; None if nothing is.

    kinds: the table's columns and their types.
    """
    if any(word in kind for word in ("count", "proportion", "length")):
        return None
    values = [(kwargs.get("column"), kwargs.get(option), option) for option in ("min_value", "max_value", "value_set")]
    for pair in kwargs.get("value_pairs_set") or ():
        both = (kwargs.get("column_A"), kwargs.get("column_B"))
        values += [(column, value, "value_pairs_set") for column, value in zip(both, pair, strict=False)]
    for column, given, option in values:
        of = kinds.get(str(column).strip("`"))
        for value in given if isinstance(given, list | tuple) else [given]:
            if of in ("date", "timestamp", "timestamp_ntz") and isinstance(value, str):
                expected = unsound(kind, value, of)
                if expected:
                    return f"kwargs.{option}: '{column}' is {of}, and '{value}' is not {expected}"
    return None


def unsound(kind: str, value: str, of: str) -> str | None:
    found = MOMENT.fullmatch(value)
    try:
        micros = micros_of(value)
    except ValueError:
        found, micros = None, 0
    if of == "date":
        return None if found and not found["time"] else "a day such as 2013-01-31"
    if found and of == "timestamp_ntz" and found["offset"]:
        found = None
    if found and len(found["fraction"] or "") > 6:
        found = None
    if found and kind in BY_PYTHON and not found["time"]:
        found = None
    if found and kind == "expect_column_most_common_value_to_be_in_set" and text_of(micros) != value:
        found = None  # GX compares these as text
    return None if found else f"a moment such as 2013-01-31T12:00:00{'' if of == 'timestamp_ntz' else ', in UTC'}"
