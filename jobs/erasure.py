"""Erasing rows from every table, version, release, ledger entry and fitted state of a lake, with a certificate.

Versions keep their numbers and releases keep pointing at them: the data files that hold a row are written again without
it, and the log is made to name the new files. At every moment in between, each version reads as either before or
after. What is to be done is recorded first, so that an erasure that was killed is finished by the next.

A row keeps its `_row_id` through all tables, so its id finds it everywhere; rows made from it name it in `_parents`,
and rows that took cells from it by a join name it in `_joined`: those cells become null.
"""

import hashlib
import json
import posixpath
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, write_deltalake
from pyarrow import fs
from pyspark.sql import SparkSession

from jobs.deltalog import LOG, commits, file_system, history, paths_of, stored_files
from jobs.diff import parquet_format, quoted
from jobs.errors import HeadgateError, UsageError
from jobs.increments import index_of
from jobs.lake import SYSTEM_TABLES, Lake, is_conflict, now
from jobs.progress import Progress
from jobs.publishing import content_of
from transforms.rows import FILE, JOINED, PARENTS, ROW_ID, is_own


@dataclass
class Reach:
    """What an erasure reaches."""

    table: str
    row_ids: set[str]
    rows: dict[str, set[str]] = field(default_factory=dict)  # table -> ids of its rows that go, over all versions
    joined: dict[str, set[str]] = field(default_factory=dict)  # table -> ids of rows that took cells by a join
    cells: dict[str, set[str]] = field(default_factory=dict)  # table -> columns whose cells become null in those
    entries: dict[str, int] = field(default_factory=dict)  # build -> ledger entries that go
    twins: int = 0  # rows that were rejected as repeating an erased one
    landing: set[str] = field(default_factory=set)
    texts: set[bytes] = field(default_factory=set)  # of the erased rows, that stand nowhere else and so must be gone
    elsewhere: dict[str, int] = field(default_factory=dict)  # table.column -> texts of theirs that other rows have too

    def told(self) -> list[dict[str, Any]]:
        tables = sorted({*self.rows, *self.joined})
        rows = [
            {
                "table": t,
                "rows": len(self.rows.get(t, ())),
                "cells": f"{', '.join(sorted(self.cells.get(t, ())))} of {len(self.joined[t])} rows"
                if self.joined.get(t)
                else "",
            }
            for t in tables
        ]
        return [*rows, {"table": "ledger", "rows": sum(self.entries.values()), "cells": ""}]


def reach(lake: Lake, table: str, where: str | None = None, keys: Path | None = None) -> Reach:
    """Find what belongs to the rows of a table that satisfy a condition or carry one of the keys, in any version.

    where: a condition in SQL. keys: a CSV or Parquet file whose columns are columns of the table. Raises `UsageError`
    for a condition that cannot be read. Cost: one pass over the ids of all files of all tables.
    """
    found = Reach(table, matching(lake, table, where, keys))
    tables = [t for t in lake.tables() if ROW_ID in lake.need_table(t).to_pyarrow_dataset().schema.names]
    while True:  # rows made from erased rows go too, and what was made from those
        before = len(found.row_ids)
        for name in tables:
            for ids in id_columns(lake.path(name)):
                hit = ids_in(ids, found.row_ids)
                found.rows.setdefault(name, set()).update(hit)
                found.row_ids |= hit
        if len(found.row_ids) == before:
            break
    found.rows = {name: ids for name, ids in found.rows.items() if ids}
    found.joined = takers(lake, tables, found.rows)
    if found.joined:
        columns = tainted(lake, found)
        found.joined = {name: ids for name, ids in found.joined.items() if columns.get(name)}
        found.cells = {name: columns[name] for name in found.joined}
    ledger = lake.open("ledger")
    if ledger is not None:
        wanted = pa.array(sorted(found.row_ids), pa.string())
        dataset = ledger.to_pyarrow_dataset()
        builds = dataset.to_table(columns=["build"], filter=pc.field("row_id").isin(wanted))["build"]
        found.entries = {r["values"]: r["counts"] for r in pc.value_counts(builds).to_pylist()}
        twins: set[str] = set()
        others = ~pc.field("row_id").isin(wanted)
        for batch in dataset.to_batches(columns=["row_id", "evidence"], filter=others):  # never the whole ledger
            kept = pc.map_lookup(batch["evidence"], pa.scalar("kept_row_id"), "first")
            twins |= set(batch["row_id"].filter(pc.is_in(kept, wanted)).to_pylist())
        found.twins = len(twins)
    found.landing = landing_files(lake, found)
    collect_texts(lake, found)
    return found


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


def matching(lake: Lake, table: str, where: str | None, keys: Path | None) -> set[str]:
    """Ids of the rows of any version of a table that satisfy the condition or carry one of the keys."""
    delta = lake.need_table(table)
    schema = pa.schema(delta.schema().to_arrow())
    if ROW_ID not in schema.names:
        raise UsageError(f"table '{table}' has no {ROW_ID}, so its rows cannot be followed")
    files, base = file_system(lake.path(table))
    paths = [f"{base}/{p}" for p in stored_files(lake.path(table))]
    connection = duckdb.connect()
    rows = (
        ds.dataset(paths, schema=schema, filesystem=files, format=parquet_format()) if paths else schema.empty_table()
    )
    connection.register(table, rows)
    if keys is not None:
        listed = read_keys(keys, schema, table)
        connection.register("_hg_keys", listed)
        on = " and ".join(f"_hg_t.{quoted(c)} = _hg_k.{quoted(c)}" for c in listed.column_names)
        query = f'select distinct _hg_t.{ROW_ID} as _hg_i from "{table}" _hg_t join _hg_keys _hg_k on {on}'
    else:
        query = f'select distinct {ROW_ID} as _hg_i from "{table}" where ({where})'
    connection.execute("SET enable_external_access = false")
    try:
        statements = connection.extract_statements(query)
        if len(statements) != 1:
            raise UsageError("--where: give one condition, not statements")
        return {r[0] for r in connection.execute(query).fetchall()}
    except duckdb.Error as e:
        raise UsageError(f"--where: {str(e).splitlines()[0]}") from e


def read_keys(file: Path, schema: pa.Schema, table: str) -> pa.Table:
    """A file of keys, in the types of the table's columns."""
    from pyarrow import csv

    try:
        if file.suffix == ".parquet":
            keys = pq.read_table(file)
        else:
            names = csv.open_csv(file).schema.names
            keys = csv.read_csv(
                file, convert_options=csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
            )
        missing = [c for c in keys.column_names if c not in schema.names]
        if missing:
            raise UsageError(f"--keys: {file}: table '{table}' has no column '{missing[0]}'")
        return keys.cast(pa.schema([schema.field(c) for c in keys.column_names]))
    except (OSError, pa.ArrowException) as e:
        raise UsageError(f"--keys: {file} cannot be read: {str(e).splitlines()[0]}") from e


def id_columns(table: str) -> Iterable[pa.Table]:
    """Ids, parents and joined rows of every data file of a table, referred to or not."""
    files, base = file_system(table)
    for path in stored_files(table):
        yield ids_of(files, f"{base}/{path}")


def ids_of(files: fs.FileSystem, path: str) -> pa.Table:
    with files.open_input_file(path) as file:
        names = pq.ParquetFile(file).schema_arrow.names
        wanted = [c for c in (ROW_ID, PARENTS, JOINED, "row_id") if c in names]
        file.seek(0)
        return pq.read_table(file, columns=wanted)


def ids_in(ids: pa.Table, erased: set[str]) -> set[str]:
    """The ids of the rows that are erased or were made from erased ones."""
    if ROW_ID not in ids.column_names:
        return set()
    wanted = pa.array(sorted(erased), pa.string())
    hit = set(ids[ROW_ID].filter(pc.is_in(ids[ROW_ID], wanted)).to_pylist())
    if PARENTS in ids.column_names:
        made = ids.filter(pc.is_valid(ids[PARENTS]))
        hit |= {r[ROW_ID] for r in made.select([ROW_ID, PARENTS]).to_pylist() if erased & set(r[PARENTS] or ())}
    return hit


def tainted(lake: Lake, found: Reach) -> dict[str, set[str]]:
    """For each table with rows that took cells, the columns that hold values which a join brought of erased rows.

    By the recorded lineage of columns. Raises `UsageError` where that of a build is not on record, nor that of another
    build of the table by the same steps: then which cells to erase is not known.
    """
    entries = lake.system("lineage").to_pylist()
    known = {(e["table"], e["steps"]) for e in entries if e["columns"]}
    recorded = {e["table"] for e in entries}
    for table in found.joined:
        lost = [e["build"] for e in entries if e["table"] == table and (table, e["steps"]) not in known]
        if lost or table not in recorded:
            named = f"build {lost[0]} of table '{table}'" if lost else f"table '{table}'"
            raise UsageError(
                f"rows of table '{table}' took cells of erased rows by a join, but {named} has no lineage of columns, "
                f"so it is not known which cells to erase: build it again by the same steps (headgate run "
                "--rebuild), then erase"
            )
    holds: dict[str, set[str]] = {}
    brought: dict[str, set[str]] = {}

    def grow(reached: dict[str, set[str]], part: str, comes: Callable[[str, str], bool]) -> bool:
        grown = False
        for entry in entries:
            mine = reached.setdefault(entry["table"], set())
            for column, origins in json.loads(entry.get(part) or "{}").items():
                if not is_own(column) and column not in mine and any(comes(*o.split(".", 1)) for o in origins):
                    mine.add(column)
                    grown = True
        return grown

    while grow(holds, "columns", lambda table, column: table in found.rows or column in holds.get(table, ())):
        pass
    grow(brought, "joined", lambda table, column: table in found.rows or column in holds.get(table, ()))
    while grow(brought, "columns", lambda table, column: column in brought.get(table, ())):
        pass
    return brought


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
        nulled = pa.array(sorted(found.joined.get(table, ())), pa.string())
        for path, names in text_columns(lake, table):
            ids = read_file(*path, [ROW_ID])
            have = ROW_ID in ids.column_names
            for name in names:
                column = read_file(*path, [name])[name]
                if have:
                    gone = pc.is_in(ids[ROW_ID], wanted)
                    if name in found.cells.get(table, ()):
                        gone = pc.or_(gone, pc.is_in(ids[ROW_ID], nulled))
                    column = column.filter(pc.invert(gone))
                for leaf in leaves(column.combine_chunks()):
                    there = pc.unique(leaf.filter(pc.is_in(leaf, candidates)))
                    others.setdefault((table, name), set()).update(there.to_pylist())
    telling = set().union(*(texts - others.get(place, set()) for place, texts in own.items()))
    shared = {place: texts & telling for place, texts in others.items() if texts & telling}
    found.elsewhere = {".".join(place): len(texts) for place, texts in sorted(shared.items())}
    found.texts = telling.difference(*shared.values())


def text_columns(lake: Lake, table: str) -> Iterable[tuple[tuple[fs.FileSystem, str], list[str]]]:
    """Of every data file of a table, referred to or not, the columns of the user's that hold texts, nested ones too."""
    files, base = file_system(lake.path(table))
    for path in stored_files(lake.path(table)):
        with files.open_input_file(f"{base}/{path}") as file:
            schema = pq.ParquetFile(file).schema_arrow
        yield (files, f"{base}/{path}"), [f.name for f in schema if not is_own(f.name) and holds_text(f.type)]


def holds_text(kind: pa.DataType) -> bool:
    if kind.num_fields:
        return any(holds_text(kind.field(i).type) for i in range(kind.num_fields))
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or is_binary(kind)


def is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def leaves(array: pa.Array) -> Iterable[pa.Array]:
    """The texts and bytes of an array, however deep they are nested, as bytes."""
    kind = array.type
    if pa.types.is_map(kind):
        yield from leaves(array.keys)
        yield from leaves(array.items)
    elif pa.types.is_struct(kind):
        for part in array.flatten():
            yield from leaves(part)
    elif kind.num_fields:
        yield from leaves(array.flatten())
    elif holds_text(kind):
        yield array.cast(pa.large_binary())


@dataclass(frozen=True)
class Fingerprints:
    """Texts to be looked for, of which only salted hashes and lengths are written down."""

    salt: str
    sizes: frozenset[int]
    hashes: frozenset[str]

    @classmethod
    def of(cls, texts: Iterable[bytes]) -> "Fingerprints":
        empty = cls(uuid.uuid4().hex, frozenset(), frozenset())
        listed = list(texts)
        return cls(empty.salt, frozenset(map(len, listed)), frozenset(map(empty.hash, listed)))

    @classmethod
    def read(cls, plan: Mapping[str, Any]) -> "Fingerprints":
        return cls(plan["salt"], frozenset(plan["sizes"]), frozenset(plan["hashes"]))

    def written(self) -> dict[str, Any]:
        return {"salt": self.salt, "sizes": sorted(self.sizes), "hashes": sorted(self.hashes)}

    def hash(self, text: bytes) -> str:
        return hashlib.blake2b(text, key=self.salt.encode(), digest_size=12).hexdigest()

    def found_in(self, column: pa.Array) -> set[bytes]:
        """The texts of a column that are among them."""
        sizes = pa.array(sorted(self.sizes), pa.int64())
        hits: set[bytes] = set()
        for leaf in leaves(column) if self.hashes else ():
            likely = leaf.filter(pc.is_in(pc.binary_length(leaf).cast(pa.int64()), sizes))
            hits |= {t for t in pc.unique(likely).to_pylist() if t is not None and self.hash(t) in self.hashes}
        return hits


def landing_files(lake: Lake, found: Reach) -> set[str]:
    """The files that brought the erased rows."""
    brought: set[str] = set()
    for table, ids in found.rows.items():
        rows = lake.need_table(table).to_pyarrow_dataset()
        if FILE in rows.schema.names:
            wanted = pc.field(ROW_ID).isin(pa.array(sorted(ids), pa.string()))
            brought |= set(rows.to_table(columns=[FILE], filter=wanted)[FILE].to_pylist())
    return {b for b in brought if b}


def erase(
    spark: SparkSession,
    lake: Lake,
    found: Reach,
    asked: str,
    reason: str,
    signed_by: str,
    user: str,
    progress: Progress,
) -> dict[str, Any]:
    """Erase what was found; returns the certificate. Raises `HeadgateError` if anything of it is left at the end.

    Cost: the files that hold an erased row are written again; each version that a release holds or that is the newest,
    of the tables touched, is read once for its content.
    """
    plan = {
        "joined": {t: sorted(ids) for t, ids in found.joined.items()},
        "cells": {t: sorted(columns) for t, columns in found.cells.items()},
        "rows": {t: len(ids) for t, ids in found.rows.items()},
        "texts": Fingerprints.of(found.texts).written(),
        "elsewhere": found.elsewhere,
    }
    started = {
        "erasure": uuid.uuid4().hex[:12],
        "event": "started",
        "at": now(),
        "user": user,
        "signed_by": signed_by,
        "reason": reason,
        "table": found.table,
        "asked_sha256": hashlib.sha256(asked.encode()).hexdigest(),
        "row_ids": sorted(found.row_ids),
        "tables": json.dumps(plan),
        "entries": json.dumps(found.entries),
        "landing": sorted(found.landing),
    }
    lake.record("erasures", [started])
    return finish(spark, lake, started, progress)


def finish(spark: SparkSession, lake: Lake, started: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Carry out a recorded erasure, from whatever point it has come to."""
    name, ids, plan = started["erasure"], set(started["row_ids"]), json.loads(started["tables"])
    wanted, texts = pa.array(sorted(ids), pa.string()), Fingerprints.read(plan["texts"])
    tables = sorted({*plan["rows"], *plan["joined"]})
    for table in tables:
        mark(lake, table, name)  # a build that runs now loses its race, and the tables made of this one are built anew
    told: dict[str, Any] = {}
    for table in tables:
        nulled = pa.array(plan["joined"].get(table, []), pa.string())
        columns = plan["cells"].get(table, [])

        def change(rows: pa.Table, nulled: pa.Array = nulled, columns: list[str] = columns) -> pa.Table | None:
            gone = pc.is_in(rows[ROW_ID], wanted)
            took = pc.is_in(rows[ROW_ID], nulled)
            if not pc.any(pc.or_(gone, took)).as_py():
                return None
            for column in columns:
                if column in rows.column_names:
                    index = rows.column_names.index(column)
                    places = pc.if_else(took, pa.scalar(None, pa.int64()), pa.array(range(len(rows)), pa.int64()))
                    rows = rows.set_column(index, rows.field(index), rows[column].take(places))
            return rows.filter(pc.invert(gone))

        with progress.phase(table, "erase"):
            remove_learned(lake, table)
            files = rewrite(lake.path(table), name, change, [ROW_ID])
        told[table] = {"rows": plan["rows"].get(table, 0), "cells": columns, "files": files, "versions": {}}
    remove_folders(f"{lake.root}/_staging")
    erase_entries(lake, name, wanted, texts)
    scrub(lake, tables)
    pinned = {(t["table"], t["version"]) for r in lake.releases for t in r["tables"]}
    for table in tables:
        versions = {v for t, v in pinned if t == table} | {lake.need_table(table).version()}
        with progress.phase(table, "content"):
            for version in sorted(versions):
                rows = spark.read.format("delta").option("versionAsOf", version).load(lake.path(table))
                count, content = content_of(rows)
                told[table]["versions"][version] = {"rows": count, "content": content}
    searched = search(lake, wanted, texts)
    for place, number in plan["elsewhere"].items():
        table, _, column = place.partition(".")
        told.setdefault(table, {}).setdefault("elsewhere", {})[column] = number
    finished = {**started, "event": "finished", "at": now(), "tables": json.dumps(told)}
    finished["searched"] = searched
    finished["certificate"] = certificate(finished)
    record_finished(lake, finished)
    return finished


def record_finished(lake: Lake, finished: Mapping[str, Any]) -> None:
    """Record the end of an erasure and, in the same commit, forget the hashes of its texts."""

    def change(rows: pa.Table) -> pa.Table:
        listed = rows.to_pylist()
        for row in listed:
            if row["erasure"] == finished["erasure"]:
                plan = {k: v for k, v in json.loads(row["tables"]).items() if k != "texts"}
                row["tables"] = json.dumps(plan)
        return pa.Table.from_pylist([*listed, dict(finished)], schema=rows.schema)

    replace_whole(lake, "erasures", change)


def certificate(row: Mapping[str, Any]) -> str:
    """The SHA-256 of a certificate's fields, by which a change of it shows."""
    facts = {k: str(v) for k, v in sorted(row.items()) if k not in ("certificate", "at")}
    return hashlib.sha256(json.dumps(facts, ensure_ascii=False).encode()).hexdigest()


def mark(lake: Lake, table: str, name: str) -> None:
    """An empty commit that says so, once."""
    delta = lake.need_table(table)
    if any(json.loads(c.get("userMetadata") or "{}").get("erasure") == name for c in delta.history(20)):
        return
    properties = CommitProperties(custom_metadata={"userMetadata": json.dumps({"erasure": name})})
    delta.create_write_transaction(
        [], mode="append", schema=delta.schema(), partition_by=[], commit_properties=properties
    )


def remove_learned(lake: Lake, table: str) -> None:
    """What steps learned from rows, and what they know of each: the next build makes both anew."""
    remove_folders(f"{lake.root}/_system/fitted/{table}")
    remove_folders(index_of(lake, table))


def remove_folders(folder: str) -> None:
    files, base = file_system(folder)
    for child in files.get_file_info(fs.FileSelector(base, allow_not_found=True)):
        if child.type == fs.FileType.Directory:
            files.delete_dir(child.path)


def erase_entries(lake: Lake, name: str, wanted: pa.Array, texts: Fingerprints) -> None:
    """Take the erased rows' entries out of the ledger and all its versions, and their texts from others' evidence."""

    def change(rows: pa.Table) -> pa.Table | None:
        gone = pc.is_in(rows["row_id"], wanted)
        evidence = rows["evidence"].combine_chunks()
        quoted_ = texts.found_in(evidence)
        if quoted_:
            told = pa.array(
                [
                    e is not None and any(v is not None and v.encode() in quoted_ for _, v in e)
                    for e in evidence.to_pylist()
                ]
            )
            places = pc.if_else(told, pa.scalar(None, pa.int64()), pa.array(range(len(rows)), pa.int64()))
            index = rows.column_names.index("evidence")
            rows = rows.set_column(index, rows.field(index), evidence.take(places))
        return rows.filter(pc.invert(gone)) if quoted_ or pc.any(gone).as_py() else None

    if lake.open("ledger") is not None:
        rewrite(lake.path("ledger"), name, change, ["row_id", "evidence"])


def scrub(lake: Lake, tables: Iterable[str]) -> None:
    """Take observed values out of the metrics of the tables touched, and messages out of runs: both may quote cells."""
    touched = pa.array(sorted(tables), pa.string())

    def metrics(rows: pa.Table) -> pa.Table | None:
        hit = pc.is_in(rows["table"], touched)
        told = pc.and_(hit, pc.or_(pc.is_valid(rows["result"]), pc.equal(rows["kind"], "expectation")))
        if not pc.any(pc.and_(told, pc.is_valid(rows["result"]))).as_py():
            return None
        observed = pc.and_(hit, pc.equal(rows["kind"], "expectation"))
        return with_nulls(with_nulls(rows, "result", hit), "value", observed)

    def runs(rows: pa.Table) -> pa.Table | None:
        told = pc.fill_null(pc.not_equal(rows["message"], ""), False)
        texts = rows["tables"].to_pylist()
        quiet = [t and json.dumps([{**r, "warnings": []} for r in json.loads(t)]) for t in texts]
        if not pc.any(told).as_py() and quiet == texts:
            return None
        index = rows.column_names.index("tables")
        return with_nulls(rows, "message", told).set_column(index, rows.field(index), pa.array(quiet, pa.string()))

    replace_whole(lake, "metrics", metrics)
    replace_whole(lake, "runs", runs)


def replace_whole(lake: Lake, table: str, change: Callable[[pa.Table], pa.Table | None]) -> None:
    """Change the rows of a small system table, which keeps no history: nothing of the versions before is left."""
    named: frozenset[str] = frozenset()
    for _ in range(20):
        delta = lake.open(table)
        changed = change(delta.to_pyarrow_table()) if delta else None
        if delta is None or changed is None:
            return
        named = frozenset().union(*history(lake.path(table)).files.values())
        try:
            properties = CommitProperties(max_commit_retries=0)
            write_deltalake(delta, changed, mode="overwrite", commit_properties=properties)
            break
        except Exception as e:  # a run that records something meanwhile: read again
            if not is_conflict(e):
                raise
    else:
        raise HeadgateError(
            f"the table {table} changed 20 times while it was being scrubbed; run headgate erase --resume"
        )
    delta = DeltaTable(lake.path(table))
    delta.create_checkpoint()
    files, base = file_system(lake.path(table))
    for info in files.get_file_info(fs.FileSelector(f"{base}/{LOG}")):
        number = info.base_name.split(".")[0]
        if number.isdigit() and int(number) < delta.version():
            files.delete_file(info.path)
    needed = set(map(unquote, paths_of(delta)))
    settled = now() - timedelta(hours=1)  # a younger file that no version names may be of a run about to commit it
    for path, info in stored_files(lake.path(table)).items():
        if path not in needed and (path in named or (info.mtime and info.mtime.astimezone(timezone.utc) < settled)):
            remove_file(files, f"{base}/{path}")


def with_nulls(rows: pa.Table, column: str, where: pa.ChunkedArray) -> pa.Table:
    index = rows.column_names.index(column)
    cells = pc.if_else(where, pa.nulls(len(rows), rows[column].type), rows[column])
    return rows.set_column(index, rows.field(index), cells)


# -- one table, all its versions


def rewrite(table: str, name: str, change: Callable[[pa.Table], pa.Table | None], columns: list[str] | None) -> int:
    """Write the data files anew that `change` changes, in every version of a table; returns how many.

    change: the rows of a file (first only its `columns`, to see whether it has to be read) -> its new rows, or None.
    Every reader finds each version as before or as after: the log first removes either file, then adds the new one.
    """
    files, base = file_system(table)
    types = pa.schema(DeltaTable(table).schema().to_arrow())
    replaced: dict[str, dict[str, Any]] = {}
    for path in stored_files(table):
        old = f"{base}/{path}"
        new = re.sub(r"\.parquet$", "", path)
        new = f"{re.sub('-erased-[0-9a-f]+$', '', new)}-erased-{name}.parquet"
        if path == new:  # written by this erasure, before it was killed
            continue
        info = files.get_file_info(f"{base}/{new}")
        if info.type == fs.FileType.NotFound or not info.size:
            rows = read_file(files, old, columns)
            if set(columns) - set(rows.column_names):
                continue
            if not touches(rows, change, types):
                continue
            changed = change(read_file(files, old, None))
            if changed is None:
                continue
            changed = changed.cast(
                pa.schema([types.field(c) if c in types.names else changed.field(c) for c in changed.column_names])
            )
            part = f"{base}/{new}.part"
            with files.open_output_stream(part) as out:
                pq.write_table(changed, out, compression="zstd", coerce_timestamps="us")
            files.move(part, f"{base}/{new}")
        with files.open_input_file(f"{base}/{new}") as file:
            count = pq.ParquetFile(file).metadata.num_rows
        size = files.get_file_info(f"{base}/{new}").size
        replaced[path] = {"path": quote(new, safe="/=-_.~"), "size": size, "stats": json.dumps({"numRecords": count})}
    if replaced:
        rewrite_log(table, replaced)
        for path in replaced:
            remove_file(files, f"{base}/{path}")
        DeltaTable(table).create_checkpoint()
    return len(replaced)


def touches(rows: pa.Table, change: Callable[[pa.Table], pa.Table | None], types: pa.Schema) -> bool:
    """Whether `change` would change a file, by some of its columns; the others count as null."""
    for field_ in types:
        if field_.name not in rows.column_names:
            rows = rows.append_column(field_, pa.nulls(len(rows), field_.type))
    return change(rows) is not None


def read_file(files: fs.FileSystem, path: str, columns: list[str] | None) -> pa.Table:
    with files.open_input_file(path) as file:
        names = pq.ParquetFile(file).schema_arrow.names
        file.seek(0)
        wanted = None if columns is None else [c for c in columns if c in names]
        return pq.read_table(file, columns=wanted, coerce_int96_timestamp_unit="us")


def rewrite_log(table: str, replaced: Mapping[str, Mapping[str, Any]]) -> None:
    """Make every commit name the new files instead of the replaced ones."""
    files, base = file_system(table)
    versions = [v for v, _ in commits(table)]
    if versions != list(range(len(versions))):
        raise HeadgateError(f"{table}: its log does not reach back to its first version, so it cannot be rewritten")
    for info in files.get_file_info(fs.FileSelector(f"{base}/{LOG}")):
        # Checkpoints and checksums repeat what the commits say, with the smallest and largest values of each file.
        stale = info.base_name == "_last_checkpoint" or info.base_name.endswith((".crc", ".checkpoint.parquet"))
        if info.type == fs.FileType.File and (stale or ".checkpoint." in info.base_name):
            files.delete_file(info.path)

    def both_removed(action: dict[str, Any]) -> list[dict[str, Any]]:
        new = replaced.get(path_in(action, "remove"))
        return [action, {"remove": {**action["remove"], "path": new["path"]}}] if new else [action]

    def added(action: dict[str, Any]) -> list[dict[str, Any]]:
        new = replaced.get(path_in(action, "add"))
        return [{"add": {**action["add"], **new}}] if new else [action]

    def new_removed(action: dict[str, Any]) -> list[dict[str, Any]]:
        return [] if path_in(action, "remove") in replaced else [action]

    for step in (both_removed, added, new_removed):
        for version, actions in commits(table):
            done = [new for action in actions for new in step(action)]
            unique = list({json.dumps(a, sort_keys=True): a for a in done}.values())
            if unique != actions:
                put(files, f"{base}/{LOG}/{version:020d}.json", "".join(json.dumps(a) + "\n" for a in unique))


def path_in(action: Mapping[str, Any], kind: str) -> str:
    return unquote(action[kind]["path"]) if kind in action else ""


def put(files: fs.FileSystem, path: str, text: str) -> None:
    """Replace a file in one step."""
    part = f"{path}.part"
    with files.open_output_stream(part) as out:
        out.write(text.encode())
    files.move(part, path)


def remove_file(files: fs.FileSystem, path: str) -> None:
    """Remove a data file and the checksum that Hadoop keeps beside it."""
    files.delete_file(path)
    side = f"{posixpath.dirname(path)}/.{posixpath.basename(path)}.crc"
    if files.get_file_info(side).type == fs.FileType.File:
        files.delete_file(side)


def search(lake: Lake, wanted: pa.Array, texts: Fingerprints) -> int:
    """Look for the erased rows, by their ids and their texts, in every data file; returns how many were searched.

    Raises `HeadgateError` naming table and column where anything is found.
    """
    searched = 0
    again = "remove it there and run headgate erase --resume"
    for table in (*lake.tables(), *(t for t in SYSTEM_TABLES if t != "erasures" and lake.open(t) is not None)):
        files, base = file_system(lake.path(table))
        for path in stored_files(lake.path(table)):
            ids = ids_of(files, f"{base}/{path}")
            searched += 1
            column = "row_id" if table in SYSTEM_TABLES else ROW_ID
            if column in ids.column_names and pc.any(pc.is_in(ids[column], wanted)).as_py():
                raise HeadgateError(f"{table}.{column}: {path} still holds an erased row; {again}")
        if table in SYSTEM_TABLES and table != "ledger":
            continue
        for path, names in text_columns(lake, table):
            for name in names if table != "ledger" else ["evidence"]:
                left = texts.found_in(read_file(*path, [name])[name].combine_chunks())
                if left:
                    where = posixpath.basename(path[1])
                    raise HeadgateError(
                        f"{table}.{name}: {where} still holds {len(left)} texts of erased rows; {again}"
                    )
    return searched
