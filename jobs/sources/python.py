"""Records from a Python function of the user's own."""

import datetime as dt
import json
import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from pyspark.sql.datasource import DataSource

from headgate.jobs.errors import SourceFailed, first_line
from headgate.jobs.sources.records import reader_of
from headgate.words import cell


def function_reader(code: str, path: str, function: str, after: str | None) -> type[DataSource]:
    def records() -> Iterator[tuple[str, str]]:
        names: dict[str, Any] = {"__name__": path.removesuffix(".py"), "__file__": path}
        try:
            exec(compile(code, path, "exec"), names)
            for record in names[function](after):
                if not isinstance(record, dict):
                    raise TypeError(f"a record is a dict, not {type(record).__name__}")
                yield json.dumps(with_text_keys(record), default=as_json), ""
        except Exception as e:
            raise SourceFailed(f"{function} raised {type(e).__name__}: {cell(first_line(e))}") from e

    return reader_of("headgate_python", records)


def with_text_keys(record: dict[Any, Any]) -> dict[str, Any]:
    wrong = next((k for k in record if not isinstance(k, str)), None)
    if wrong is not None:
        raise TypeError(f"the names in a record are texts, not {wrong!r}")
    return record


def as_json(value: Any) -> Any:
    """Return what json.dumps knows of a value that it does not know: times and decimals as text, numpy's as Python's.

    Pandas' NA and NaT are null, bytes their text in UTF-8. Raises `TypeError` for what has no such form.
    """
    if isinstance(value, Decimal | uuid.UUID):
        return str(value)
    if isinstance(value, dt.date | dt.time):
        return None if value != value else str(value)  # NaT is no time
    if isinstance(value, bytes):
        return value.decode()
    if hasattr(value, "tolist"):
        plain = value.tolist()
        if plain is None or getattr(getattr(value, "dtype", None), "kind", "") not in "mM":
            return plain
        return value.astype(str).tolist() if value.shape else str(value)
    if type(value).__name__ == "NAType":
        return None
    raise TypeError(f"a cell of a record is a {type(value).__name__}, which has no form in JSON")
