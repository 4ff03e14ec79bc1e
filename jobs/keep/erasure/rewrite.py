"""Writing data files and logs again without what is erased."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta, timezone
from typing import Any
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, write_deltalake
from pyarrow import fs

from headgate.jobs.errors import HeadgateError
from headgate.jobs.keep.erasure.files import put, read_file, remove_file, schemas_by_file, whole_files
from headgate.jobs.keep.erasure.texts import Fingerprints
from headgate.jobs.lake.artifacts import index_of
from headgate.jobs.lake.conflicts import TRIES, retrying
from headgate.jobs.lake.dataset import dataset
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.log import LOG, commits, history, paths_of, stored_files
from headgate.jobs.lake.storage import file_system, open_table
from headgate.jobs.lake.system import now
from headgate.transforms.rows import PARENTS


def remove_learned(lake: Lake, table: str) -> None:
    """Remove what steps learned from rows and know of each: the next build makes both anew."""
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
            personal = pa.array(
                [
                    e is not None and any(v is not None and v.encode() in quoted_ for _, v in e)
                    for e in evidence.to_pylist()
                ]
            )
            places = pc.if_else(personal, pa.scalar(None, pa.int64()), pa.array(range(len(rows)), pa.int64()))
            index = rows.column_names.index("evidence")
            rows = rows.set_column(index, rows.field(index), evidence.take(places))
        return rows.filter(pc.invert(gone)) if quoted_ or pc.any(gone).as_py() else None

    if lake.open("ledger") is not None:
        rewrite(lake.path("ledger"), name, change, ["row_id", "evidence"])


def scrub(lake: Lake, tables: Iterable[str]) -> None:
    """Take observed values out of the metrics of the tables touched, and messages out of runs: both may quote cells."""
    touched = pa.array(sorted(tables), pa.string())

    def metrics(rows: pa.Table) -> pa.Table | None:
        hit = pc.is_in(rows["table_name"], touched)
        personal = pc.and_(hit, pc.or_(pc.is_valid(rows["result"]), pc.equal(rows["kind"], "expectation")))
        if not pc.any(pc.and_(personal, pc.is_valid(rows["result"]))).as_py():
            return None
        observed = pc.and_(hit, pc.equal(rows["kind"], "expectation"))
        return with_nulls(with_nulls(rows, "result", hit), "value", observed)

    def runs(rows: pa.Table) -> pa.Table | None:
        personal = pc.fill_null(pc.not_equal(rows["message"], ""), False)
        texts = rows["tables"].to_pylist()
        quiet = [t and json.dumps([{**r, "warnings": [], "figures": []} for r in json.loads(t)]) for t in texts]
        if not pc.any(personal).as_py() and quiet == texts:
            return None
        index = rows.column_names.index("tables")
        return with_nulls(rows, "message", personal).set_column(index, rows.field(index), pa.array(quiet, pa.string()))

    replace_whole(lake, "metrics", metrics)
    replace_whole(lake, "runs", runs)


def replace_whole(lake: Lake, table: str, change: Callable[[pa.Table], pa.Table | None]) -> None:
    """Change the rows of a small system table, which keeps no history: nothing of the versions before is left."""
    named: frozenset[str] = frozenset()
    lost = HeadgateError(
        f"the table {table} changed {TRIES} times while it was being scrubbed; run headgate erase --resume"
    )
    for attempt in retrying(otherwise=lost):  # a run may record something meanwhile: read again
        with attempt:
            delta = lake.open(table)
            changed = change(dataset(delta).to_table()) if delta else None
            if delta is None or changed is None:
                return
            named = frozenset().union(*history(lake.path(table)).files.values())
            properties = CommitProperties(max_commit_retries=0)
            write_deltalake(delta, changed, mode="overwrite", commit_properties=properties)
    delta = open_table(lake.path(table))
    delta.create_checkpoint()
    files, base = file_system(lake.path(table))
    for info in files.get_file_info(fs.FileSelector(f"{base}/{LOG}")):
        number = info.base_name.split(".")[0]
        if number.isdigit() and int(number) < delta.version():
            files.delete_file(info.path)
    needed = set(paths_of(delta))
    settled = now() - timedelta(hours=1)  # a younger file that no version names may be of a run about to commit it
    for path, info in stored_files(lake.path(table)).items():
        if path not in needed and (path in named or (info.mtime and info.mtime.astimezone(timezone.utc) < settled)):
            remove_file(files, f"{base}/{path}")


def with_nulls(rows: pa.Table, column: str, where: pa.ChunkedArray) -> pa.Table:
    index = rows.column_names.index(column)
    cells = pc.if_else(where, pa.nulls(len(rows), rows[column].type), rows[column])
    return rows.set_column(index, rows.field(index), cells)


# -- one table, all its versions


def without_parents(rows: pa.Table, erased: set[str]) -> pa.Table:
    """Return rows whose `_parents` name no erased row."""
    index = rows.column_names.index(PARENTS)
    lists = [None if ids is None else [i for i in ids if i not in erased] for ids in rows[PARENTS].to_pylist()]
    return rows.set_column(index, rows.field(index), pa.array(lists, rows.field(index).type))


def rewrite(table: str, name: str, change: Callable[[pa.Table], pa.Table | None], columns: list[str]) -> int:
    """Write the data files anew that `change` changes, in every version of a table; returns how many.

    change: the rows of a file (first only its `columns`, to see whether it has to be read) -> its new rows, or None. A
    file without the first of the columns is left.
    Every reader finds each version as before or as after: the log first removes either file, then adds the new one.
    """
    files, base = file_system(table)
    types = pa.schema(open_table(table).schema().to_arrow())
    named = schemas_by_file(table)  # each file is of its versions, whose columns may have other types than the newest's
    replaced: dict[str, dict[str, Any]] = {}
    for path in whole_files(table):
        old = f"{base}/{path}"
        new = re.sub(r"\.parquet$", "", path)
        new = f"{re.sub('-erased-[0-9a-f]+$', '', new)}-erased-{name}.parquet"
        if path == new:  # written by this erasure, before it was killed
            continue
        info = files.get_file_info(f"{base}/{new}")
        if info.type == fs.FileType.NotFound or not info.size:
            rows = read_file(files, old, columns)
            if columns[0] not in rows.column_names:
                continue
            if not touches(rows, change, types):
                continue
            changed = change(read_file(files, old, None))
            if changed is None:
                continue
            mine = named.get(path, pa.schema([]))
            changed = changed.cast(
                pa.schema([mine.field(c) if c in mine.names else changed.field(c) for c in changed.column_names])
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
        open_table(table).create_checkpoint()
    return len(replaced)


def touches(rows: pa.Table, change: Callable[[pa.Table], pa.Table | None], types: pa.Schema) -> bool:
    """Return whether `change` would change a file, by some of its columns; the others count as null."""
    for field_ in types:
        if field_.name not in rows.column_names:
            rows = rows.append_column(field_, pa.nulls(len(rows), field_.type))
    return change(rows) is not None


def rewrite_log(table: str, replaced: Mapping[str, Mapping[str, Any]]) -> None:
    """Make every commit name the new files instead of the replaced ones."""
    files, base = file_system(table)
    versions = [v for v, _ in commits(table)]
    if versions != list(range(len(versions))):
        raise HeadgateError(f"{table}: its log does not reach back to its first version, so it cannot be rewritten")
    for info in files.get_file_info(fs.FileSelector(f"{base}/{LOG}", recursive=True)):
        # They repeat what the commits say, with the smallest and largest values of each file: checkpoints and their
        # sidecars, checksums, commits that other writers put together.
        name = info.path.removeprefix(f"{base}/{LOG}/")  # folders above may be called anything
        if info.type == fs.FileType.File and re.search(r"checkpoint|^_sidecars/|\.crc$|\.compacted\.", name):
            files.delete_file(info.path)

    def both_removed(action: dict[str, Any]) -> list[dict[str, Any]]:
        new = replaced.get(path_in(action, "remove"))
        return [action, {"remove": {**action["remove"], "path": new["path"]}}] if new else [action]

    def added(action: dict[str, Any]) -> list[dict[str, Any]]:
        changes = replaced.get(path_in(action, "cdc"))  # of other writers' change data
        if changes:
            return [{"cdc": {**action["cdc"], **{k: changes[k] for k in ("path", "size")}}}]
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
