"""The cells that a join brought of erased rows: which columns become null, in which rows."""

import functools
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headgate.jobs.errors import UsageError
from headgate.transforms.rows import JOINED, ROW_ID, is_own

Brought = dict[str, set[str]]  # column -> `table.column`, as `_joined` names what was brought; *: any table or column
ANY = "*"


@dataclass
class Emptying:
    """What becomes null in rows that stay.

    A cell does where the `_joined` of its own row names an erased or emptied row, and that join brought what is in the
    cell: rows may share an id, as those whose key is NaN, and have taken cells from others.
    erased: ids that `_joined` may name. linked: table -> ids of rows that took cells from such rows, or from linked
    ones. summed: table -> ids of rows that sum up erased ones, whose cells of `whole` all go. of_erased: table -> the
    columns that hold what erased rows brought; of_linked: what emptied cells brought.
    """

    erased: set[str] = field(default_factory=set)
    linked: dict[str, set[str]] = field(default_factory=dict)
    summed: dict[str, set[str]] = field(default_factory=dict)
    whole: dict[str, set[str]] = field(default_factory=dict)
    of_erased: dict[str, Brought] = field(default_factory=dict)
    of_linked: dict[str, Brought] = field(default_factory=dict)

    def written(self) -> dict[str, Any]:
        return {part: json.loads(json.dumps(of, default=sorted)) for part, of in vars(self).items()}

    @classmethod
    def read(cls, plan: Mapping[str, Any]) -> "Emptying":
        def sets(part: str) -> dict[str, set[str]]:
            return {t: set(found) for t, found in plan[part].items()}

        def brought(part: str) -> dict[str, Brought]:
            return {t: {c: set(names) for c, names in found.items()} for t, found in plan[part].items()}

        ids = {part: sets(part) for part in ("linked", "summed", "whole")}
        return cls(set(plan["erased"]), **ids, of_erased=brought("of_erased"), of_linked=brought("of_linked"))

    def columns(self, table: str) -> set[str]:
        """Return the columns of a table of which some cells may become null."""
        return {*self.of_erased.get(table, ()), *self.of_linked.get(table, ()), *self.whole.get(table, ())}

    def places(self, table: str, rows: pa.Table) -> dict[str, pa.Array]:
        """Return, for each column of a table, whether its cell becomes null in each of some rows.

        rows: with `_row_id`, and `_joined` where the table has it. Columns without such a cell are left out.
        """
        found: dict[str, set[int]] = defaultdict(set)
        if self.summed.get(table):
            those = pc.indices_nonzero(pc.is_in(rows[ROW_ID], pa.array(sorted(self.summed[table]), pa.string())))
            for column in self.whole[table]:
                found[column].update(those.to_pylist())
        if self.columns(table) and JOINED in rows.column_names:
            emptied_by = functools.cache(functools.partial(self.emptied_by, table))
            for place, other, names, erased, linked in self.hits(rows):
                for column in emptied_by(other, tuple(names or ()), erased, linked):
                    found[column].add(place)
        return {column: pa.array(np.isin(np.arange(len(rows)), [*those])) for column, those in found.items() if those}

    def emptied_by(self, table: str, other: str, names: Iterable[str], erased: bool, linked: bool) -> list[str]:
        """Return the columns of a table that one entry of `_joined` empties."""
        brought = {f"{other}.{ANY}", *(f"{table_}.{name}" for name in names for table_ in (other, ANY))}
        parts = (self.of_erased.get(table, {}) if erased else {}, self.of_linked.get(table, {}) if linked else {})
        return [column for part in parts for column, those in part.items() if those & brought]

    def hits(self, rows: pa.Table) -> Iterable[tuple[int, str, list[str] | None, bool, bool]]:
        """Return the entries of `_joined` that name erased or linked rows: place, table, columns, and which of both."""
        lists = rows[JOINED].combine_chunks()
        entries = lists.flatten()
        others, tables, names = (pc.struct_field(entries, part) for part in ("row_id", "table", "columns"))
        erased = pc.is_in(others, pa.array(sorted(self.erased), pa.string()))
        linked = pa.array([False] * len(entries), pa.bool_())
        for table, ids in self.linked.items():
            those = pc.and_(pc.equal(tables, table), pc.is_in(others, pa.array(sorted(ids), pa.string())))
            linked = pc.or_(linked, pc.fill_null(those, False))
        parts = (pc.list_parent_indices(lists), tables, names, erased, linked)
        hit = pc.or_(erased, linked)
        return zip(*(part.filter(hit).to_pylist() for part in parts), strict=True)


def with_nulls_at(rows: pa.Table, places: Mapping[str, pa.Array]) -> pa.Table:
    """Return rows with nulls at the given places, of any type of column."""
    for column, those in places.items():
        if column in rows.column_names:
            index = rows.column_names.index(column)
            kept = pc.if_else(those, pa.scalar(None, pa.int64()), pa.array(range(len(rows)), pa.int64()))
            rows = rows.set_column(index, rows.field(index), rows[column].take(kept))
    return rows


def trace_cells(entries: list[dict[str, Any]], emptying: Emptying, holding: Iterable[str]) -> None:
    """Enter into `emptying` the columns whose cells joins brought of erased rows, by the recorded lineage of columns.

    entries: of the table `lineage`. holding: the tables that have erased rows. Raises `UsageError` where the lineage of
    a build of a table with linked rows is not on record, nor that of another build of the table by the same steps: then
    which cells to erase is not known.
    """
    known = {(e["table_name"], e["steps"]) for e in entries if e["columns"]}
    recorded = {e["table_name"] for e in entries}
    for table in emptying.linked:
        lost = [e["build"] for e in entries if e["table_name"] == table and (table, e["steps"]) not in known]
        if lost or table not in recorded:
            named = f"build {lost[0]} of table '{table}'" if lost else f"table '{table}'"
            raise UsageError(
                f"rows of table '{table}' took cells of erased rows by a join, but {named} has no lineage of columns, "
                f"so it is not known which cells to erase: build it again by the same steps (headgate run "
                "--rebuild), then erase"
            )
    origins = [
        (e["table_name"], *(json.loads(e.get(part) or "{}") for part in ("columns", "joined", "brought")))
        for e in entries
    ]
    held, holds = set(holding), defaultdict[str, set[str]](set)
    parts = {"of_erased": emptying.of_erased, "of_linked": emptying.of_linked}
    while True:
        before = sizes(holds, *parts.values())
        for table, columns, joined, brought in origins:
            for column, sources in columns.items():
                if is_own(column):
                    continue
                if not sources:  # lost on the way, or a constant: only its name tells that a join brought it
                    for part in parts.values():
                        enter(part, table, column, {f"{ANY}.{column}"})
                from_ = [tuple(source.split(".", 1)) for source in sources]
                if any(t in held or c in holds[t] for t, c in from_):
                    holds[table].add(column)
                for part in parts.values():  # in rows that were brought along with their `_joined`
                    for t, c in from_:
                        enter(part, table, column, part.get(t, {}).get(c, set()))
                for source in joined.get(column, ()):
                    t, c = source.split(".", 1)
                    names = {n for n in brought.get(column, ()) if n.startswith(f"{t}.")} or {f"{t}.{ANY}"}
                    if t in held or c in holds[t]:
                        enter(parts["of_erased"], table, column, names)
                    if any(c in part.get(t, {}) for part in parts.values()):
                        enter(parts["of_linked"], table, column, names)
        if sizes(holds, *parts.values()) == before:
            return


def enter(part: dict[str, Brought], table: str, column: str, names: set[str]) -> None:
    if names:
        part.setdefault(table, {}).setdefault(column, set()).update(names)


def sizes(holds: Mapping[str, set[str]], *parts: Mapping[str, Brought]) -> list[int]:
    """Return how much was found so far, to see when nothing more is."""
    inside = [sum(len(names) for found in part.values() for names in found.values()) for part in parts]
    return [sum(map(len, holds.values())), *inside]
