"""Reading the data files that an erasure looks through."""

import posixpath
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import timedelta, timezone
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import Schema
from pyarrow import fs

from headgate.jobs.errors import HeadgateError
from headgate.jobs.keep.optimize import OWN_FOLDER
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.log import below, commits, history, stored_files
from headgate.jobs.lake.storage import file_system
from headgate.jobs.lake.stores import scheme_of
from headgate.jobs.lake.system import now
from headgate.transforms.rows import JOINED, PARENTS, ROW_ID, is_own

SETTLED = timedelta(hours=1)  # after which nobody goes on with a file that is cut short


def schemas_by_file(table: str) -> dict[str, pa.Schema]:
    """Return the columns of the last version that names a data file, by the file's path below the table."""
    schema = pa.schema([])
    found: dict[str, pa.Schema] = {}
    active: set[str] = set()
    for _, actions in commits(table):
        before = schema
        for action in actions:
            if "metaData" in action:
                schema = pa.schema(Schema.from_json(action["metaData"]["schemaString"]).to_arrow())
            elif "remove" in action:
                path = unquote(action["remove"]["path"])
                active.discard(path)
                found[path] = before
            elif "add" in action:
                active.add(unquote(action["add"]["path"]))
    return found | dict.fromkeys(active, schema)


def whole_files(table: str) -> list[str]:
    """Return the data files of a table, referred to or not, but for those that a kill or a writer at work left unread.

    Of these no row can be read; `remove_cut_short` sees to them.
    """
    cut = cut_short(table)
    return [path for path in stored_files(table) if path not in cut]


def cut_short(table: str) -> dict[str, fs.FileInfo]:
    """Return the data files of a table that no version names and that have no end, or are not yet in their place."""
    files, _ = file_system(table)
    named: frozenset[str] = frozenset().union(*history(table).files.values())
    found = {p: info for p, info in stored_files(table).items() if p not in named and not has_footer(files, info.path)}
    return found | below(table, "", ".parquet.part")


def has_footer(files: fs.FileSystem, path: str) -> bool:
    with files.open_input_file(path) as file:
        try:
            pq.ParquetFile(file)
        except pa.ArrowInvalid:
            return False
    return True


def remove_cut_short(table: str) -> None:
    """Remove the data files of a table that are cut short; raise `HeadgateError` where one may be at work on them.

    In S3 and Google's store nobody is: an object is there when its writer has ended.
    """
    files, _ = file_system(table)
    ended = scheme_of(table) in ("s3", "gs")
    for path, info in cut_short(table).items():
        ours = ended or path.startswith(OWN_FOLDER) or path.endswith(".part")
        if not ours and info.mtime is not None and now() - info.mtime.astimezone(timezone.utc) < SETTLED:
            raise HeadgateError(
                f"{table}: {path} is not whole, and was written to in the last hour; when its writer has ended, run "
                "headgate erase --resume"
            )
        remove_file(files, info.path)


def id_columns(table: str) -> Iterable[pa.Table]:
    """Ids, parents and joined rows of every data file of a table, referred to or not."""
    files, base = file_system(table)
    for path in whole_files(table):
        yield ids_of(files, f"{base}/{path}")


def ids_of(files: fs.FileSystem, path: str) -> pa.Table:
    with files.open_input_file(path) as file:
        names = pq.ParquetFile(file).schema_arrow.names
        wanted = [c for c in (ROW_ID, PARENTS, JOINED, "row_id") if c in names]
        file.seek(0)
        return pq.read_table(file, columns=wanted)


def ids_in(ids: pa.Table, erased: set[str], parents: bool = True) -> set[str]:
    """Return the ids of the rows that are erased or, with `parents`, were made from erased ones."""
    if ROW_ID not in ids.column_names:
        return set()
    wanted = pa.array(sorted(erased), pa.string())
    hit = set(ids[ROW_ID].filter(pc.is_in(ids[ROW_ID], wanted)).to_pylist())
    if parents and PARENTS in ids.column_names:
        made = ids.filter(pc.is_valid(ids[PARENTS]))
        hit |= {r[ROW_ID] for r in made.select([ROW_ID, PARENTS]).to_pylist() if erased & set(r[PARENTS] or ())}
    return hit


def row_counts(table: str, hit: Callable[[pa.Table], pa.Array]) -> Counter[str]:
    """Return how many rows of a table that `hit` is true of have each id, in the version that has most of it.

    Several may have one, as those whose key is NaN. A file that no version names counts alone.
    """
    hits: dict[str, Counter[str]] = {}
    files, base = file_system(table)
    for path in whole_files(table):
        rows = ids_of(files, f"{base}/{path}")
        if ROW_ID in rows.column_names:
            hits[path] = Counter(rows[ROW_ID].filter(hit(rows)).to_pylist())
    most = most_of(hits.values())
    for named in history(table).files.values():
        together: Counter[str] = Counter()
        for path in hits.keys() & named:
            together.update(hits[path])
        most |= together
    return most


def most_of(counts: Iterable[Counter[str]]) -> Counter[str]:
    """Return the largest count of each."""
    most: Counter[str] = Counter()
    for each in counts:
        most |= each
    return most


def text_columns(lake: Lake, table: str) -> Iterable[tuple[tuple[fs.FileSystem, str], list[str]]]:
    """Return the user's columns that hold texts, nested ones too, of every data file of a table, referred to or not."""
    files, base = file_system(lake.path(table))
    for path in whole_files(lake.path(table)):
        with files.open_input_file(f"{base}/{path}") as file:
            schema = pq.ParquetFile(file).schema_arrow
        yield (files, f"{base}/{path}"), [f.name for f in schema if not is_own(f.name) and holds_text(f.type)]


def holds_text(kind: pa.DataType) -> bool:
    if kind.num_fields:
        return any(holds_text(kind.field(i).type) for i in range(kind.num_fields))
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or is_binary(kind))


def is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


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


def read_file(files: fs.FileSystem, path: str, columns: list[str] | None) -> pa.Table:
    with files.open_input_file(path) as file:
        names = pq.ParquetFile(file).schema_arrow.names
        file.seek(0)
        wanted = None if columns is None else [c for c in columns if c in names]
        return pq.read_table(file, columns=wanted, coerce_int96_timestamp_unit="us")


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
