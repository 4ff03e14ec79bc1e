"""The story of one row: where it came from, what each step did to it, where it is, or why it is not. Needs no JVM."""

import csv
import difflib
import graphlib
import io
import itertools
import json
import textwrap
from collections.abc import Iterable, Mapping
from datetime import date, datetime, timezone
from decimal import Decimal, InvalidOperation
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from headgate.jobs.errors import InputMissing, UsageError
from headgate.jobs.lake.lake import Lake
from headgate.jobs.sources.landing import open_landing
from headgate.transforms.rows import CHANGED, FILE, JOINED, PARENTS, ROW_ID, is_own
from headgate.words import did_you_mean


def ids_of(lake: Lake, table: str, key: Mapping[str, str]) -> list[str]:
    """The `_row_id`s of the rows of a table whose columns have these values, written as text; at most 20."""
    delta = lake.need_table(table)
    rows = delta.to_pyarrow_dataset()
    condition = None
    for column, text in key.items():
        if column not in rows.schema.names:
            raise UsageError(
                f"--key: table '{table}' has no column '{column}'{did_you_mean(column, rows.schema.names)}"
            )
        try:
            value = pa.scalar(text).cast(rows.schema.field(column).type)
        except pa.ArrowException as e:
            raise UsageError(f"--key: '{text}' is no {rows.schema.field(column).type}, the type of {column}") from e
        same = pc.field(column) == value
        condition = same if condition is None else condition & same
    found = rows.scanner(columns=[ROW_ID], filter=condition).head(20)
    return sorted(set(found[ROW_ID].to_pylist()))


def trace(lake: Lake, landing: str, row_id: str) -> list[dict[str, Any]]:
    """What happened to a row, in the order of the pipeline; each entry has `table`, `event` and `detail`.

    Raises `InputMissing` where no table and no ledger entry knows the row.
    """
    story: list[dict[str, Any]] = []
    order = building_order(lake)
    for table in order:
        delta = lake.need_table(table)
        rows = delta.to_pyarrow_dataset()
        if ROW_ID not in rows.schema.names:
            continue
        for row in rows.to_table(filter=pc.field(ROW_ID) == row_id).to_pylist():
            story += of_row(lake, landing, table, delta.version(), row)
        story += made_from(table, rows, row_id)
        for entry in rejections(lake, table, row_id):
            story += [entry, *beside(lake, row_id, entry)]
    if not story:
        raise InputMissing(f"no table and no ledger entry of {lake.root} knows the row '{row_id}'")
    return story


def of_row(lake: Lake, landing: str, table: str, version: int, row: dict[str, Any]) -> list[dict[str, Any]]:
    """Origin, changes, joins and place of a published row."""
    told = []
    if row.get(FILE):
        line = line_of(landing, row) if "://" not in str(row[FILE]) else None
        where = f"{row[FILE]}" + (f", line {line}" if line else "")
        told.append({"table": table, "event": "arrived", "detail": where, "file": row[FILE], "line": line})
    for change in row.get(CHANGED) or []:
        told.append({"table": table, "event": "changed", "detail": f"{change['column']} by {change['step']}"})
    for other in row.get(JOINED) or []:
        told.append({"table": table, "event": "joined", "detail": f"{other['table']} row {other['row_id']}"})
    if row.get(PARENTS):
        told.append({"table": table, "event": "made", "detail": f"from {', '.join(row[PARENTS])}"})
    cells = {k: v for k, v in row.items() if not is_own(k)}
    releases = [r["release"] for r in lake.releases if {"table": table, "version": version} in r["tables"]]
    held = f" ({', '.join(releases[-3:])})" if releases else ""
    shown = ", ".join(f"{k}={v}" for k, v in cells.items() if v is not None)
    told.append({"table": table, "event": "published", "detail": f"version {version}{held}: {shown}", "row": cells})
    return told


def made_from(table: str, rows: ds.Dataset, row_id: str) -> list[dict[str, Any]]:
    """The rows that were made from this one, counted."""
    if PARENTS not in rows.schema.names:
        return []
    made: list[str] = []
    for batch in rows.to_batches(columns=[ROW_ID, PARENTS], filter=pc.field(PARENTS).is_valid()):
        made += [r[ROW_ID] for r in batch.to_pylist() if row_id in r[PARENTS]]
    if not made:
        return []
    return [{"table": table, "event": "parent", "detail": f"of {len(made)} rows: {', '.join(sorted(made)[:3])}"}]


def rejections(lake: Lake, table: str, row_id: str) -> list[dict[str, Any]]:
    """Ledger entries of builds that were published, the newest last; those of the present content are told as such."""
    ledger = lake.open("ledger")
    if ledger is None:
        return []
    wanted = (pc.field("table") == table) & (pc.field("row_id") == row_id)
    found = ledger.to_pyarrow_dataset().to_table(filter=wanted).to_pylist()
    present = lake.present_builds(table)
    told = []
    for entry in sorted(found, key=lambda r: r["build"] in present):
        evidence = dict(entry["evidence"] or ())
        shown = ", ".join(f"{k}={v}" for k, v in evidence.items())
        event = "rejected" if entry["build"] in present else "rejected earlier"
        detail = f"{entry['step']}: {entry['reason']}" + (f" ({shown})" if shown else "")
        told.append({"table": table, "event": event, "detail": detail, "evidence": evidence, "build": entry["build"]})
    return told


def beside(lake: Lake, row_id: str, entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The cells of a row that was rejected for another one, and that one's, where an input of the table has both."""
    kept = entry["evidence"].get("kept_row_id")
    if kept in (None, row_id):
        return []
    lineage = lake.system("lineage").select(["table", "input"]).to_pylist()
    for table in sorted({r["input"] for r in lineage if r["table"] == entry["table"]} & set(lake.tables())):
        rows = lake.need_table(table).to_pyarrow_dataset()
        if ROW_ID in rows.schema.names:
            pair = rows.to_table(filter=pc.field(ROW_ID).isin([row_id, kept])).to_pylist()
            cells = {r[ROW_ID]: {k: v for k, v in r.items() if not is_own(k)} for r in pair}
            if len(cells) == 2:
                detail = f"row {kept} of {table} stayed instead"
                both = {"row": cells[row_id], "kept": cells[kept]}
                return [{"table": entry["table"], "event": "compared", "detail": detail, **both}]
    return []


def side_by_side(one: Mapping[str, Any], other: Mapping[str, Any], width: int) -> list[tuple[str, str, str]]:
    """Two rows' cells, wrapped to a width, as (column, line of one, line of the other); alike lines are left out."""
    told: list[tuple[str, str, str]] = []
    for column in dict.fromkeys([*one, *other]):
        a, b = (wrapped(cells.get(column), width) for cells in (one, other))
        matcher = difflib.SequenceMatcher(None, a, b, autojunk=False)
        for kind, a1, a2, b1, b2 in matcher.get_opcodes():
            if kind == "equal":
                alike = f"… {a2 - a1} lines alike …" if a2 - a1 > 1 else "".join(a[a1:a2])
                told.append((column, alike, alike))
            else:
                told += [(column, *pair) for pair in itertools.zip_longest(a[a1:a2], b[b1:b2], fillvalue="")]
    return told


def wrapped(value: Any, width: int) -> list[str]:
    lines = "" if value is None else str(value)
    return [part for line in lines.splitlines() for part in textwrap.wrap(line, width) or [""]]


def building_order(lake: Lake) -> list[str]:
    """The lake's tables, each after those that it was built from."""
    tables = lake.tables()
    inputs: dict[str, set[str]] = {t: set() for t in tables}
    for entry in lake.system("lineage").select(["table", "input"]).to_pylist():
        if entry["table"] in inputs and entry["input"] in inputs:
            inputs[entry["table"]].add(entry["input"])
    try:
        return list(graphlib.TopologicalSorter(inputs).static_order())
    except graphlib.CycleError:  # a table that changed sides over the years
        return tables


def line_of(landing: str, row: Mapping[str, Any]) -> int | None:
    """The line of a text file on which the record of a raw row starts; None where the file does not tell."""
    path = str(row[FILE])
    wanted = {k: v for k, v in row.items() if not is_own(k)}
    files, root = open_landing(landing)
    kind = path.removesuffix(".gz").removesuffix(".bz2").removesuffix(".zst").rsplit(".", 1)[-1]
    if kind not in ("csv", "jsonl", "json", "txt", "tsv"):
        return None
    try:
        with files.open_input_stream(f"{root}/{path}", compression="detect") as stream:
            text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
            records = json_records(text) if kind in ("jsonl", "json") else csv_records(text)
            for line, record in records:
                shared = [k for k in wanted if k in record]
                if shared and all(is_same(record[k], wanted[k]) for k in shared):
                    return line
    except (OSError, UnicodeDecodeError, csv.Error):
        pass
    return None


def json_records(text: Iterable[str]) -> Iterable[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text, 1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            yield number, record


def csv_records(text: io.TextIOWrapper) -> Iterable[tuple[int, dict[str, Any]]]:
    first = text.readline()
    delimiter = max(",;\t|", key=first.count)
    header = next(csv.reader([first], delimiter=delimiter), [])
    reader = csv.reader(text, delimiter=delimiter)
    line = 2
    for record in reader:
        yield line, dict(zip(header, record, strict=False))
        line = reader.line_num + 2


def is_same(text: Any, value: Any) -> bool:
    """Whether a value of a file is the value of a typed cell."""
    if value is None:
        return text in (None, "", "NA", "null")
    if isinstance(value, bool):
        return str(text).lower() == str(value).lower()
    if isinstance(value, int | float | Decimal):
        try:
            return Decimal(str(text)) == Decimal(str(value))
        except InvalidOperation:
            return False
    if isinstance(value, datetime):
        try:
            read = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
        except ValueError:
            return False
        aware = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
        return (read if read.tzinfo else read.replace(tzinfo=timezone.utc)) == aware
    if isinstance(value, date):
        return str(text).strip() == value.isoformat()
    return str(text) == str(value)
