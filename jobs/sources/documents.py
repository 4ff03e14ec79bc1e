"""JSON records as cells of text: strict about shape, exact about numbers.

Spark's reader drops nested members that the schema lacks, rounds numbers on their way to a text and takes an object for
an array of one. Here numbers stay the text that they are, a duplicate member is an error, and what has not the
shape of its column's type is malformed.
"""

import json
from typing import Any

from pyspark.sql import types as T

DEEPEST = 200  # brackets that may be open at once in a record


class Malformed(ValueError):
    """A text is not a record; the message says why."""


class Number(str):
    """A number of JSON, as it is written."""


class Members(dict[str, Any]):
    """The members of an object, some of which may be duplicates."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


def as_written(text: bytes) -> Any:
    """Return JSON with its numbers and its repeated members as `written` gives them back; raises `ValueError`."""
    twice = lambda pairs: dict(pairs) if len(dict(pairs)) == len(pairs) else Members(pairs)  # noqa: E731
    return json.loads(text, parse_float=Number, parse_int=Number, parse_constant=Number, object_pairs_hook=twice)


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [n for n, _ in pairs]
        raise Malformed(f"duplicate member '{next(n for n in names if names.count(n) > 1)}'")
    return members


def loaded(text: str) -> dict[str, Any]:
    """Return the members of a record; raises `Malformed` for a text that is no object with members."""
    try:
        record = json.loads(text, parse_float=Number, parse_int=Number, parse_constant=Number, object_pairs_hook=unique)
    except Malformed:
        raise
    except (ValueError, RecursionError) as e:
        raise Malformed(f"not JSON: {e}") from e
    if not isinstance(record, dict) or not record:
        raise Malformed("not an object with members")
    if text.count("{") + text.count("[") > DEEPEST and depth(record) > DEEPEST:
        raise Malformed(f"nested more than {DEEPEST} levels deep")
    if "\\ud" in text.lower():
        try:
            json.dumps(record, ensure_ascii=False).encode()
        except UnicodeEncodeError as e:
            raise Malformed("half of a surrogate pair, which is no character") from e
    return record


def depth(value: Any) -> int:
    """Return how many objects and arrays lie within each other, without recursion."""
    deepest, waiting = 0, [(value, 1)]
    while waiting:
        one, level = waiting.pop()
        if isinstance(one, dict | list):
            deepest = max(deepest, level)
            waiting += [(v, level + 1) for v in (one.values() if isinstance(one, dict) else one)]
    return deepest


def cells(record: dict[str, Any], columns: T.StructType) -> list[Any]:
    """Return the record's cells, in the order of the columns, with texts in place of plain values (see `text_type`).

    A member that is not there is null. Raises `Malformed` for a member that has not the shape of its column.
    """
    return [shaped(record.get(c.name), c.dataType, c.name) for c in columns]


def shaped(value: Any, kind: T.DataType, place: str) -> Any:
    if value is None:
        return None
    if isinstance(kind, T.ArrayType) and isinstance(value, list):
        return [shaped(v, kind.elementType, place) for v in value]
    if isinstance(kind, T.MapType) and isinstance(value, dict):
        return [(k, shaped(v, kind.valueType, place)) for k, v in value.items()]
    if isinstance(kind, T.StructType) and isinstance(value, dict):
        names = [f.name for f in kind]
        more = next((k for k in value if k not in names), None)
        if more is not None:
            raise Malformed(f"'{place}' has a member '{more}' that its type lacks")
        return {f.name: shaped(value.get(f.name), f.dataType, f"{place}.{f.name}") for f in kind}
    if isinstance(kind, T.ArrayType | T.MapType | T.StructType) or (
        isinstance(value, dict | list) and not isinstance(kind, T.StringType)
    ):
        shape = "an array" if isinstance(kind, T.ArrayType) else "an object"
        plain = not isinstance(kind, T.ArrayType | T.MapType | T.StructType)
        raise Malformed(f"'{place}' is not {'a plain value' if plain else shape}")
    return written(value) if isinstance(value, dict | list | bool) else str(value)


def written(value: Any) -> str:
    """A value as JSON, its numbers as they were written."""
    if isinstance(value, dict):
        members = value.pairs if isinstance(value, Members) else value.items()
        inside = ", ".join(f"{json.dumps(k, ensure_ascii=False)}: {written(v)}" for k, v in members)
        return f"{{{inside}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(written, value))}]"
    return value if isinstance(value, Number) else json.dumps(value, ensure_ascii=False)


def unexpected(record: Any, kind: T.DataType, place: str) -> list[str]:
    """Return the members, at any depth below a place, that the type has not, as dotted paths."""
    if isinstance(kind, T.ArrayType) and isinstance(record, list):
        return [path for v in record for path in unexpected(v, kind.elementType, place)]
    if isinstance(kind, T.MapType) and isinstance(record, dict):
        return [path for v in record.values() for path in unexpected(v, kind.valueType, place)]
    if not isinstance(kind, T.StructType) or not isinstance(record, dict):
        return []
    known = {f.name: f.dataType for f in kind}
    found = [f"{place}{name}" for name in record if name not in known]
    for name, member in record.items():
        if isinstance(member, dict | list) and name in known:
            found += unexpected(member, known[name], f"{place}{name}.")
    return found
