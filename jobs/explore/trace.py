"""The story of one row: where it came from, what each step did to it, where it is, or why it is not. Needs no JVM."""

import contextlib
import csv
import difflib
import functools
import graphlib
import io
import itertools
import json
import re
import textwrap
from collections.abc import Iterable, Mapping
from datetime import date, datetime, timezone
from decimal import Decimal, InvalidOperation
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from headgate.jobs.errors import InputMissing, UsageError
from headgate.jobs.explore.entities import of_entity
from headgate.jobs.lake.confirmations import later_builds
from headgate.jobs.lake.dataset import dataset
from headgate.jobs.lake.lake import Lake
from headgate.jobs.sources.landing import open_landing
from headgate.transforms.rows import CHANGED, FILE, JOINED, PARENTS, ROW_ID, is_own
from headgate.words import did_you_mean

MOST = 20  # rows that one key finds


def ids_of(lake: Lake, table: str, key: Mapping[str, str]) -> list[str]:
    """Return the ids of the rows of a table whose columns have these values, written as text; at most `MOST`.

    A row that is not in the table is found as well, in this order: among the rows of the tables that it was built from
    and that it rejected; among the ledger's malformed records of the table and of those, by their text.
    """
    rows = lake.dataset(table)
    for column in key:
        if column not in rows.schema.names:
            known = [c for c in rows.schema.names if not is_own(c)]
            hint = f"{did_you_mean(column, known)} (columns: {', '.join(known)})"
            raise UsageError(f"--key: table '{table}' has no column '{column}'{hint}")
    if ROW_ID not in rows.schema.names:
        raise UsageError(f"table '{table}' has no {ROW_ID}: another writer made it, and its rows have no story here")
    no_value: UsageError | None = None  # a malformed record may have what no value of the column can be
    found: set[str] = set()
    try:
        found = matching(rows, key)
    except UsageError as e:
        no_value = e
    above = inputs_of(lake, table)
    for name in above:
        source = lake.dataset(name)
        if {*key, ROW_ID} <= set(source.schema.names):
            with contextlib.suppress(UsageError):  # a raw column may have a type that the value is none of
                found |= matching(source, key) & rejected_from(lake, {table, *above})
    found |= malformed(lake, {table, *above}, key)
    if no_value is not None and not found:
        raise no_value
    return sorted(found)[:MOST]


def matching(rows: ds.Dataset, key: Mapping[str, str]) -> set[str]:
    """Return the ids of the rows with these values; raise `UsageError` for a text that is no value of its column."""
    condition, nan = None, []  # NaN is not in Parquet's statistics: a filter by it would skip files that hold it
    for column, text in key.items():
        try:
            value = pa.scalar(text).cast(rows.schema.field(column).type)
        except pa.ArrowException as e:
            raise UsageError(f"--key: '{text}' is no {rows.schema.field(column).type}, the type of {column}") from e
        if value.as_py() != value.as_py():
            nan.append(column)
            continue
        same = pc.field(column) == value
        condition = same if condition is None else condition & same
    if not nan:
        return set(rows.scanner(columns=[ROW_ID], filter=condition).head(MOST)[ROW_ID].to_pylist())
    found: set[str] = set()
    for batch in rows.to_batches(columns=[ROW_ID, *nan], filter=condition):
        found |= set(batch.filter(functools.reduce(pc.and_, (pc.is_nan(batch[c]) for c in nan)))[ROW_ID].to_pylist())
        if len(found) >= MOST:
            break
    return found


def inputs_of(lake: Lake, table: str) -> list[str]:
    """Return the tables that a table was built from, and those that these were built from."""
    entries = lake.system("lineage").select(["table_name", "input"]).to_pylist()
    found: list[str] = []
    there, queue = set(lake.tables()), [table]
    while queue:
        below = queue.pop()
        for name in sorted({e["input"] for e in entries if e["table_name"] == below} & there - {table, *found}):
            found.append(name)
            queue.append(name)
    return found


def rejected_from(lake: Lake, tables: set[str]) -> set[str]:
    ledger = lake.open("ledger")
    if ledger is None:
        return set()
    entries = dataset(ledger).to_table(["row_id"], filter=pc.field("table_name").isin(sorted(tables)))
    return set(entries["row_id"].to_pylist())


def malformed(lake: Lake, tables: set[str], key: Mapping[str, str]) -> set[str]:
    """Return the ids of the records that a source refused and whose text or cell has all the values as whole words."""
    ledger = lake.open("ledger")
    if ledger is None:
        return set()
    wanted = pc.field("table_name").isin(sorted(tables)) & (pc.field("step") == "ingest")
    words = [re.compile(rf"(?<!\w){re.escape(value)}(?!\w)") for value in key.values()]
    found = set()
    for batch in dataset(ledger).to_batches(columns=["row_id", "evidence"], filter=wanted):
        for entry in batch.to_pylist():
            evidence = dict(entry["evidence"] or ())
            text = str(evidence.get("text") or evidence.get("value") or "")
            if all(word.search(text) for word in words):
                found.add(entry["row_id"])
    return found


def trace(lake: Lake, landing: str, row_id: str) -> list[dict[str, Any]]:
    """Return what happened to a row, in the order of the pipeline; each entry has `table`, `event` and `detail`.

    Raises `InputMissing` where no table and no ledger entry knows the row.
    """
    story: list[dict[str, Any]] = []
    order = building_order(lake)
    for table in order:
        delta = lake.need_table(table)
        rows = dataset(delta)
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
    events = []
    if row.get(FILE):
        line = line_of(landing, row) if "://" not in str(row[FILE]) else None
        where = f"{row[FILE]}" + (f", line {line}" if line else "")
        events.append({"table": table, "event": "arrived", "detail": where, "file": row[FILE], "line": line})
    for change in row.get(CHANGED) or []:
        events.append({"table": table, "event": "changed", "detail": f"{change['column']} by {change['step']}"})
    for other in row.get(JOINED) or []:
        events.append({"table": table, "event": "joined", "detail": f"{other['table']} row {other['row_id']}"})
    if row.get(PARENTS):
        events.append({"table": table, "event": "made", "detail": f"from {', '.join(row[PARENTS])}"})
    cells = {k: v for k, v in row.items() if not is_own(k)}
    releases = [r["release"] for r in lake.releases if {"table_name": table, "version": version} in r["tables"]]
    held = f" ({', '.join(releases[-3:])})" if releases else ""
    shown = ", ".join(f"{k}={v}" for k, v in cells.items() if v is not None)
    events.append({"table": table, "event": "published", "detail": f"version {version}{held}: {shown}", "row": cells})
    return events + of_entity(lake, table, row)


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
    """Ledger entries of a row, the newest last; those of builds that led to the present content are told as such."""
    ledger = lake.open("ledger")
    if ledger is None:
        return []
    wanted = (pc.field("table_name") == table) & (pc.field("row_id") == row_id)
    found = dataset(ledger).to_table(filter=wanted).to_pylist()
    builds = lake.present_builds(table)
    moved = any(f.get("moved") is not None for f in lake.builds(table) if f["build"] in builds)
    if moved and found and lake.dataset(table).count_rows(filter=pc.field(ROW_ID) == row_id):
        builds = []  # it was made again since, and is published
    present = [b for build in builds for b in (build, *later_builds(lake, table, build))]
    events = []
    for entry in sorted(found, key=lambda r: r["build"] in present):
        evidence = dict(entry["evidence"] or ())
        shown = ", ".join(f"{k}={v}" for k, v in evidence.items())
        event = "rejected" if entry["build"] in present else "rejected earlier"
        detail = f"{entry['step']}: {entry['reason']}" + (f" ({shown})" if shown else "")
        events.append({"table": table, "event": event, "detail": detail, "evidence": evidence, "build": entry["build"]})
    return events


def beside(lake: Lake, row_id: str, entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The cells of a row that was rejected for another one, and that one's, where an input of the table has both."""
    kept = entry["evidence"].get("kept_row_id")
    if kept in (None, row_id):
        return []
    lineage = lake.system("lineage").select(["table_name", "input"]).to_pylist()
    for table in sorted({r["input"] for r in lineage if r["table_name"] == entry["table"]} & set(lake.tables())):
        rows = lake.dataset(table)
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
    lines: list[tuple[str, str, str]] = []
    for column in dict.fromkeys([*one, *other]):
        a, b = (wrapped(cells.get(column), width) for cells in (one, other))
        matcher = difflib.SequenceMatcher(None, a, b, autojunk=False)
        for kind, a1, a2, b1, b2 in matcher.get_opcodes():
            if kind == "equal":
                alike = f"… {a2 - a1} lines alike …" if a2 - a1 > 1 else "".join(a[a1:a2])
                lines.append((column, alike, alike))
            else:
                lines += [(column, *pair) for pair in itertools.zip_longest(a[a1:a2], b[b1:b2], fillvalue="")]
    return lines


def wrapped(value: Any, width: int) -> list[str]:
    lines = "" if value is None else str(value)
    return [part for line in lines.splitlines() for part in textwrap.wrap(line, width) or [""]]


def building_order(lake: Lake) -> list[str]:
    """The lake's tables, each after those that it was built from."""
    tables = lake.tables()
    inputs: dict[str, set[str]] = {t: set() for t in tables}
    for entry in lake.system("lineage").select(["table_name", "input"]).to_pylist():
        if entry["table_name"] in inputs and entry["input"] in inputs:
            inputs[entry["table_name"]].add(entry["input"])
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
    """Return whether a value of a file is the value of a typed cell."""
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
