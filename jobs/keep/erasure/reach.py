"""The reach of an erasure: rows, cells, ledger entries, files."""

import functools
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from headgate.jobs.keep.erasure.asked import matching
from headgate.jobs.keep.erasure.cells import Emptying, trace_cells
from headgate.jobs.keep.erasure.files import (
    id_columns,
    ids_in,
    leaves,
    most_of,
    read_file,
    row_counts,
    text_columns,
)
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.log import history
from headgate.jobs.lake.storage import open_table
from headgate.transforms.rows import FILE, JOINED, ROW_ID, is_own


@dataclass
class Reach:
    """The reach of an erasure."""

    table: str
    row_ids: set[str]
    rows: dict[str, set[str]] = field(default_factory=dict)  # table -> ids of its rows that go, over all versions
    emptying: Emptying = field(default_factory=Emptying)  # the cells that become null in rows that stay
    cells: dict[str, set[str]] = field(default_factory=dict)  # table -> the columns that have such cells
    emptied: dict[str, int] = field(default_factory=dict)  # table -> rows with such cells
    counts: dict[str, Counter[str]] = field(default_factory=dict)  # table -> how many rows have each of the erased ids
    entries: dict[str, int] = field(default_factory=dict)  # build -> ledger entries that go
    duplicates: int = 0  # rows that were rejected as repeating an erased one
    landing: set[str] = field(default_factory=set)
    texts: set[bytes] = field(default_factory=set)  # of the erased rows, that stand nowhere else and so must be gone
    elsewhere: dict[str, int] = field(default_factory=dict)  # table.column -> texts of theirs that other rows have too

    def rows_of(self, table: str, ids: Iterable[str]) -> int:
        """Return how many rows of a table have these ids: several may have one, as those without a value as key."""
        return sum(self.counts[table][i] for i in ids)

    def by_table(self) -> list[dict[str, Any]]:
        tables = sorted({*self.rows, *self.emptied})
        rows = [
            {
                "table": t,
                "rows": self.rows_of(t, self.rows.get(t, ())),
                "cells": f"{', '.join(sorted(self.cells[t]))} of {self.emptied[t]:,} rows" if t in self.emptied else "",
            }
            for t in tables
        ]
        return [*rows, {"table": "ledger", "rows": sum(self.entries.values()), "cells": ""}]


def reach(lake: Lake, table: str, where: str | None = None, keys: Path | None = None) -> Reach:
    """Find what belongs to the rows of a table that satisfy a condition or carry one of the keys, in any version.

    where: a condition in SQL. keys: a CSV or Parquet file whose columns are columns of the table. Raises `UsageError`
    for a condition that cannot be read, `InputMissing` for a file that is not there. Cost: one pass over the ids of
    all files of all tables.
    """
    found = Reach(table, matching(lake, table, where, keys))
    tables = [t for t in lake.tables() if ROW_ID in lake.dataset(t).schema.names]
    coarser = coarser_tables(lake, tables)
    while True:  # rows made from erased rows go too, and what was made from those; not what sums up others as well
        before = len(found.row_ids)
        for name in tables:
            for ids in id_columns(lake.path(name)):
                hit = ids_in(ids, found.row_ids, parents=name not in coarser)
                found.rows.setdefault(name, set()).update(hit)
                found.row_ids |= hit
        if len(found.row_ids) == before:
            break
    found.rows = {name: ids for name, ids in found.rows.items() if ids}
    find_emptied(lake, tables, coarser, found)
    for name, ids in found.rows.items():
        found.counts[name] = row_counts(lake.path(name), functools.partial(has_id, pa.array(sorted(ids), pa.string())))
    if lake.open("ledger") is not None:
        wanted = pa.array(sorted(found.row_ids), pa.string())
        entries = lake.dataset("ledger")
        builds = entries.to_table(columns=["build"], filter=pc.field("row_id").isin(wanted))["build"]
        found.entries = {r["values"]: r["counts"] for r in pc.value_counts(builds).to_pylist()}
        repeated: dict[str, Counter[str]] = {}
        others = ~pc.field("row_id").isin(wanted)
        for batch in entries.to_batches(columns=["build", "row_id", "evidence"], filter=others):  # not all at once
            kept = pc.map_lookup(batch["evidence"], pa.scalar("kept_row_id"), "first")
            for entry in batch.select(["build", "row_id"]).filter(pc.is_in(kept, wanted)).to_pylist():
                repeated.setdefault(entry["build"], Counter())[entry["row_id"]] += 1
        found.duplicates = most_of(repeated.values()).total()
    found.landing = landing_files(lake, found)
    collect_texts(lake, found)
    return found


def coarser_tables(lake: Lake, tables: Iterable[str]) -> set[str]:
    """Return the tables whose rows sum up others, and those that are made from such tables: `_parents` goes along."""
    found = {t for t in tables if any(facts.get("grain") == "new" for facts in lake.builds(t))}
    inputs = lake.system("lineage").select(["table_name", "input"]).to_pylist() if found else []
    while True:
        more = {e["table_name"] for e in inputs if e["input"] in found} - found
        if not more:
            return found
        found |= more


def summing(lake: Lake, tables: Iterable[str], coarser: Collection[str], found: Reach) -> dict[str, set[str]]:
    """Return the rows that sum up erased rows among others, and what was made from such rows, by table.

    They stay, as they are of others too; their cells become null, and the next run makes them again.
    """
    summed: dict[str, set[str]] = {}
    while coarser:
        made = set().union(*summed.values())
        for name in tables:
            erased = made | (found.row_ids if name in coarser else set())
            for ids in id_columns(lake.path(name)):
                new = ids_in(ids, erased) - found.row_ids
                if new:
                    summed.setdefault(name, set()).update(new)
        if len(set().union(*summed.values())) == len(made):
            break
    return summed


def has_id(ids: pa.Array, rows: pa.Table) -> pa.Array:
    return pc.is_in(rows[ROW_ID], ids)


def find_emptied(lake: Lake, tables: list[str], coarser: Collection[str], found: Reach) -> None:
    """Find the cells that become null, and how many rows have some."""
    summed = summing(lake, tables, coarser, found)
    holding = {t: found.rows.get(t, set()) | summed.get(t, set()) for t in {*found.rows, *summed}}
    emptying = Emptying(found.row_ids.union(*summed.values()), summed=summed)
    emptying.linked = takers(lake, tables, holding)
    emptying.whole = {t: {c for c in columns_of(lake, t) if not is_own(c)} for t in summed}
    if emptying.linked:
        trace_cells(lake.system("lineage").to_pylist(), emptying, holding)
    found.emptying = emptying
    for name in {*emptying.linked, *summed}:

        def hit(rows: pa.Table, name: str = name) -> pa.Array:
            places = emptying.places(name, rows)
            found.cells.setdefault(name, set()).update(places)
            return functools.reduce(pc.or_, places.values(), pa.array([False] * len(rows), pa.bool_()))

        number = row_counts(lake.path(name), hit).total()
        if number:
            found.emptied[name] = number


def columns_of(lake: Lake, table: str) -> set[str]:
    """Return the columns that any version of a table has."""
    names: set[str] = set()
    delta = lake.need_table(table)
    for version in history(lake.path(table), ()).at:
        names |= {f.name for f in open_table(lake.path(table), version=version).schema().fields}
    return names | {f.name for f in delta.schema().fields}


def takers(lake: Lake, tables: Iterable[str], rows: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Ids of the rows of each table that took cells by a join from the given rows, or from rows that did so."""
    erased = set().union(*rows.values())
    took: dict[str, set[str]] = {}
    while True:
        before = sum(map(len, took.values()))
        for name in tables:
            for ids in id_columns(lake.path(name)):
                if JOINED in ids.column_names:
                    lists = ids[JOINED].combine_chunks()
                    entries = lists.flatten()
                    others, names = (pc.struct_field(entries, part) for part in ("row_id", "table"))
                    hit = pc.is_in(others, pa.array(sorted(erased), pa.string()))
                    for other, linked in took.items():
                        theirs = pc.is_in(others, pa.array(sorted(linked), pa.string()))
                        hit = pc.or_(hit, pc.and_(theirs, pc.equal(names, other)))
                    places = pc.list_parent_indices(lists).filter(pc.fill_null(hit, False))
                    new = set(ids[ROW_ID].take(pc.unique(places)).to_pylist()) - rows.get(name, set())
                    if new:
                        took.setdefault(name, set()).update(new)
        if sum(map(len, took.values())) == before:
            return took


# -- texts of the erased rows


def collect_texts(lake: Lake, found: Reach) -> None:
    """Find the texts of the erased rows that stand in no row that stays, to be looked for at the end.

    Only texts that no other row has in the same column tell anything of a row. Of these, what other rows have in
    another column or table is theirs as well: that stays, and is told.
    """
    wanted = pa.array(sorted(set().union(*found.rows.values())), pa.string())
    own: dict[tuple[str, str], set[bytes]] = {}
    for table in found.rows:
        for path, names in text_columns(lake, table):
            rows = read_file(*path, [ROW_ID, *names])
            if ROW_ID not in rows.column_names:
                continue
            rows = rows.filter(pc.is_in(rows[ROW_ID], wanted))
            for name in names:
                texts = own.setdefault((table, name), set())
                for leaf in leaves(rows[name].combine_chunks()):
                    texts |= set(pc.unique(leaf).to_pylist()) - {None, b""}
    candidates = pa.array(sorted(set().union(*own.values())), pa.large_binary())
    others: dict[tuple[str, str], set[bytes]] = {}
    for table in lake.tables() if len(candidates) else ():
        for path, names in text_columns(lake, table):
            ids = read_file(*path, [ROW_ID, JOINED])
            have = ROW_ID in ids.column_names
            emptied = found.emptying.places(table, ids) if have else {}
            for name in names:
                column = read_file(*path, [name])[name]
                if have:
                    gone = pc.is_in(ids[ROW_ID], wanted)
                    if name in emptied:
                        gone = pc.or_(gone, emptied[name])
                    column = column.filter(pc.invert(gone))
                for leaf in leaves(column.combine_chunks()):
                    there = pc.unique(leaf.filter(pc.is_in(leaf, candidates)))
                    others.setdefault((table, name), set()).update(there.to_pylist())
    telling = set().union(*(texts - others.get(place, set()) for place, texts in own.items()))
    shared = {place: texts & telling for place, texts in others.items() if texts & telling}
    found.elsewhere = {".".join(place): len(texts) for place, texts in sorted(shared.items())}
    found.texts = telling.difference(*shared.values())


def landing_files(lake: Lake, found: Reach) -> set[str]:
    """The files that brought the erased rows."""
    brought: set[str] = set()
    for table, ids in found.rows.items():
        rows = lake.dataset(table)
        if FILE in rows.schema.names:
            wanted = pc.field(ROW_ID).isin(pa.array(sorted(ids), pa.string()))
            brought |= set(rows.to_table(columns=[FILE], filter=wanted)[FILE].to_pylist())
    return {b for b in brought if b}
