"""The types of columns of text files, as their texts show them."""

import contextlib
import csv
import itertools
import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from headgate.jobs.cli.given_files import lines_of
from headgate.jobs.cli.one_table import Start
from headgate.jobs.errors import InputMissing
from headgate.jobs.sources.documents import Malformed, loaded
from headgate.transforms.cleaning.markers import is_marker
from headgate.words import cell

SAMPLE = 20_000  # records whose texts tell the types of columns
DAY = r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
EXPONENT = r"[eE](-\d{1,3}|[+]?(\d{1,2}|1\d\d|2[0-8]\d))"  # with 18 digits before the point a double still
TYPES = {  # what all texts of a column are -> its type; the first that fits
    "BOOLEAN": re.compile(r"(?i:true|false)"),
    "BIGINT": re.compile(r"[+-]?(0|[1-9]\d{0,17})"),  # a number that begins with 0 is a code
    "DOUBLE": re.compile(rf"[+-]?((0|[1-9]\d{{0,17}})(\.\d*)?|\.\d+)({EXPONENT})?|(?i:nan|[+-]?inf)"),
    "DATE": re.compile(DAY),
    "TIMESTAMP": re.compile(DAY + r"([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)?)?"),
}
ALMOST = 0.9  # of the texts of a column of numbers; less is text


def columns_of_files(start: Start, columns: Collection[str]) -> dict[str, dict[str, int]]:
    """Return the counts of the texts of columns in the first records of text files, nulls and empty ones left out."""
    assert start.source is not None
    folder, name = Path(start.landing), start.source["path"]
    ending = name[1:].lower()
    files = [folder / name]
    if name.startswith("*"):
        files = sorted(p for p in folder.iterdir() if p.name.lower().endswith(ending) and not p.name.startswith("."))
    found: dict[str, dict[str, int]] = {c: defaultdict(int) for c in columns}
    for record in itertools.islice(records_of(files, start.source), SAMPLE):
        for column, value in record.items():
            if column in found and value not in (None, ""):
                found[column][value if isinstance(value, str) else json.dumps(value)] += 1
    return found


def records_of(files: Iterable[Path], source: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for file in files:
        lines = lines_of(file)
        if source["format"] == "csv":
            with contextlib.suppress(csv.Error):  # the run sets aside what cannot be read
                yield from csv.DictReader(lines, delimiter=source["delimiter"])
        else:
            for line in lines:
                try:
                    yield loaded(line)
                except Malformed:
                    continue


def type_of(texts: Mapping[str, int]) -> tuple[str, str]:
    """Return the type that all texts of a column are of, markers left out; a notice where almost all are numbers."""
    known = {t.strip(): n for t, n in texts.items() if not is_marker(t)}
    if not known:
        return "STRING", ""
    for kind, form in TYPES.items():
        if all(form.fullmatch(t) for t in known):
            return kind, ""
    total = sum(known.values())
    wrong = {t: n for t, n in known.items() if not TYPES["DOUBLE"].fullmatch(t)}
    if sum(wrong.values()) > (1 - ALMOST) * total or any(re.fullmatch(r"0\d+", t) for t in known):
        return "STRING", ""
    some = ", ".join(repr(t) for t in sorted(wrong, key=lambda t: (-wrong[t], t))[:3])
    return "STRING", (
        f"is text, as {sum(wrong.values()):,} of {total:,} values looked at are no numbers ({some}); with "
        "--schema it is a number, and such rows go to the ledger"
    )


def text_orders(start: Start, columns: Sequence[str]) -> list[str]:
    """Return a notice for each column of text files by which rows are ordered as text, though all of it is numbers."""
    if start.source is None or start.source["format"] not in ("csv", "jsonl"):
        return []
    texts = [c for c in columns if start.columns.get(c) == "STRING"]
    notices, looked_at = [], {}
    with contextlib.suppress(InputMissing):  # the run says of a file what is wrong with it
        looked_at = columns_of_files(start, texts) if texts else {}
    for column, found in looked_at.items():
        kind, known = type_of(found)[0], sorted(t for t in found if not is_marker(t))
        if kind in ("BIGINT", "DOUBLE"):
            wrong = next((pair for pair in itertools.pairwise(known) if float(pair[0]) > float(pair[1])), None)
            if wrong:
                one, other = map(cell, wrong)
                notices.append(
                    f"warning: '{column}' orders rows as text, {one} before {other}; as numbers with --schema "
                    f'"{column} {kind}"'
                )
    return notices
