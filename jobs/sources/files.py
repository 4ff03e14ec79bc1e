"""Sources: which files have landed, which of them are new, and their rows.

Listing needs no JVM, so that a run without new files starts no Spark. Checksums and rows are read on the executors.
"""

import itertools
import json
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timezone
from typing import Any

from pyarrow import fs
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from headgate.jobs.config.models import DATE_PLACE, FileSource
from headgate.jobs.errors import InputMissing
from headgate.jobs.lake.sessions import cores
from headgate.jobs.sources.delta import delta_rows, list_delta
from headgate.jobs.sources.dialect import Dialect
from headgate.jobs.sources.inspection import TEXT, inspect
from headgate.jobs.sources.landing import LandedFile, absolute, open_landing
from headgate.jobs.sources.policy import type_of
from headgate.jobs.sources.readers import LINE, PLACES, read
from headgate.jobs.sources.rows import mark, schema_of, text_schema, typed, with_identity
from headgate.transforms.rows import FILE, FILE_DATE, REJECTED, ROW_ID, local_frame, quoted, row_id, struct_of
from headgate.words import cell, did_you_mean

SHOWN = 5  # names of a folder that a hint tells


@dataclass(frozen=True)
class Listed:
    """The listing of a source: files that match its pattern, in the order of their paths, and near misses."""

    files: list[LandedFile]
    passed_over: list[str]


def list_files(landing: str, source: FileSource, as_of: date | None) -> Listed:
    """List the files that match the source's pattern; with `as_of`, none of a later day.

    A name with a day that the calendar has not is a match with a problem. Passed over are names that match only in
    other letters, or with something else in place of the day.
    """
    if source.format == "delta":
        return Listed(list_delta(landing, source), [])
    files, root = open_landing(landing)
    pattern = re.compile(regex_of(source.path), re.IGNORECASE if source.any_case else 0)
    loose = re.compile(regex_of(source.path.replace(DATE_PLACE, "*")), re.IGNORECASE)
    folder = posixpath.join(root, posixpath.dirname(re.split(r"[*{]", source.path)[0]))
    deep = "/" in source.path[len(re.split(r"[*{]", source.path)[0]) :]
    named = not source.path.endswith("*")
    found, missed = [], []
    for info in entries(files, folder, deep):
        path = posixpath.relpath(info.path, root)
        match = pattern.match(path)
        if info.type != fs.FileType.File or not match:
            missed += [path] if info.type == fs.FileType.File and loose.match(path) else []
            missed += [f"{path}/"] if info.type == fs.FileType.Directory and match and named else []
            continue
        day, problem = None, None
        try:
            day = date.fromisoformat(match[1]) if match.re.groups else None
        except ValueError:
            problem = f"{match[1]} in its name is no day"
        if as_of is None or day is None or day <= as_of:
            modified = info.mtime or datetime.fromtimestamp(0)
            found.append(LandedFile(path, day, info.size, modified.astimezone(timezone.utc), problem=problem))
    return Listed(sorted(found, key=lambda f: f.path), sorted(missed))


def entries(files: fs.FileSystem, folder: str, deep: bool) -> list[fs.FileInfo]:
    """Return what lies in a folder; raises `InputMissing` for a name that is no text."""
    found: list[fs.FileInfo] = files.get_file_info(fs.FileSelector(folder, recursive=deep, allow_not_found=True))
    try:
        return [info for info in found if info.path]  # read here: a path is decoded when it is asked for
    except UnicodeDecodeError as e:
        name = e.object.decode("utf-8", "backslashreplace")
        raise InputMissing(f"{folder}: a name in it is not UTF-8: {cell(name)}; rename it") from e


def nearest(landing: str, pattern: str) -> str:
    """Return a hint at what lies where no file matches a pattern: the nearest name in the last folder that is there."""
    files, root = open_landing(landing)
    folder = root
    for name in pattern.split("/"):
        there = {f.base_name: f for f in entries(files, folder, deep=False)}
        found = there.get(name)
        if found is None or found.type != fs.FileType.Directory:
            break
        folder = found.path
    if not there:
        return f": the folder {folder} is empty"
    known = sorted(there)[:SHOWN]
    example = name.replace(DATE_PLACE, "2000-01-01").replace("*", "")
    return f"{did_you_mean(example, there)} (in {folder}: {', '.join(known)}{', …' if len(there) > SHOWN else ''})"


def regex_of(path: str) -> str:
    """A source's pattern as a regular expression; its first group is the day."""
    parts = re.split(r"(\{date\}|\*)", path)
    day, again = r"(\d{4}-\d{2}-\d{2})", r"\1"
    days = [i for i, part in enumerate(parts) if part == DATE_PLACE]
    wild = {DATE_PLACE: again, "*": r"[^/]*"}
    return "".join(day if i in days[:1] else wild.get(p) or re.escape(p) for i, p in enumerate(parts)) + "$"


def new_files(listed: Iterable[LandedFile], known: Mapping[str, Mapping[str, Any]]) -> list[LandedFile]:
    """The files that were never taken up, or look different (size or modification time) from when they were."""
    fresh = []
    for file in listed:
        before = known.get(file.path)
        if before is None or (before["size"], before["modified"]) != (file.size, file.modified):
            fresh.append(file)
    return fresh


def fingerprint(
    spark: SparkSession, landing: str, source: FileSource, listed: Iterable[LandedFile]
) -> list[LandedFile]:
    """The files with their checksums, columns, records and problems, looked through where the executors are."""
    by_path = {f.path: f for f in listed}
    if not by_path:
        return []
    schema = text_schema(schema_of(source)).json() if source.format == "jsonl" else None
    common = {**how_written(landing, source), "schema": schema}
    requests = spread(spark, [json.dumps({**common, "path": p}) for p in by_path])
    seen = []
    for facts in (json.loads(row["found"]) for row in requests.mapInArrow(inspect, "found string").collect()):
        file = by_path[facts["path"]]
        if facts["sha256"] is None:
            why = facts.get("why", "it cannot be read")
            raise InputMissing(f"{file.path}: the file disappeared or became unreadable during ingestion ({why})")
        if facts["size"] != file.size:
            raise InputMissing(f"{file.path}: the file grew or shrank while it was being taken up; run again")
        parts = tuple((at, line) for at, line in facts["parts"])
        facts_of_file = {name: facts[name] for name in ("sha256", "columns", "records")}
        seen.append(replace(file, **facts_of_file, parts=parts, problem=file.problem or facts["problem"]))
    return sorted(seen, key=lambda f: f.path)


def spread(spark: SparkSession, requests: Sequence[str]) -> DataFrame:
    """Requests to readers, over as many tasks as keep the executors busy."""
    tasks = min(len(requests), 4 * cores(spark))
    return local_frame(spark, [(r,) for r in requests], "request string").repartition(max(tasks, 1))


def how_written(landing: str, source: FileSource) -> dict[str, Any]:
    """Return the place and format of files, as every request to a reader states them."""
    return {
        "root": absolute(landing),
        "format": source.format,
        "encoding": source.encoding,
        "line_end": source.line_end,
        "max_line_bytes": source.max_line_bytes,
        "dialect": asdict(Dialect(source.delimiter, source.quote, source.escape, source.null_value)),
    }


def columns_before(files: Iterable[Mapping[str, Any]]) -> dict[str, str] | None:
    """The columns of the file that was taken up last; of files of one run, of the one whose path comes last."""
    known = [json.loads(f["columns"]) for f in in_order(files)]
    return known[-1] if known else None


def columns_known(files: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The columns of all files that were taken up, each of the type that the table has."""
    known: dict[str, str] = {}
    for _, run in itertools.groupby(in_order(files), key=lambda f: f["base"]):
        for file in run:
            known = with_columns_of(known, json.loads(file["columns"]))
        known = {name: "string" if kind == "void" else kind for name, kind in known.items()}
    return known


def in_order(files: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    taken = [f for f in files if f.get("columns") and not f.get("problem")]
    return sorted(taken, key=lambda f: (f["base"], f["path"]))


def with_columns_of(known: Mapping[str, str], columns: Mapping[str, str]) -> dict[str, str]:
    """The columns known so far, then those of another file; where types differ, the first one holds both."""
    new = {name: kind for name, kind in columns.items() if known.get(name, "void") == "void"}
    return {**known, **new}


def assert_unchanged(landing: str, files: Iterable[LandedFile]) -> None:
    """Raise `InputMissing` if a file is no longer what was looked through."""
    system, root = open_landing(landing)
    for file in files:
        if file.modified is None or file.sha256 is None or " version " in file.sha256:
            continue
        info = system.get_file_info(posixpath.join(root, file.path))
        changed = info.type != fs.FileType.File or info.size != file.size
        if changed or (info.mtime and info.mtime.astimezone(timezone.utc) != file.modified):
            raise InputMissing(f"{file.path}: the file changed while it was being read; run again")


def read_files(
    spark: SparkSession,
    landing: str,
    source: FileSource,
    table: str,
    files: list[LandedFile],
    known: Mapping[str, str],
) -> DataFrame:
    """The rows of the files with identity, file and day; what cannot be read comes as a rejected row.

    Columns are those of the schema (else `known`, those of the files before), then those that files add
    (`on_other_columns: evolve`), then `_row_id`, `_file`, `_file_date`, `_hg_rejected`. A file that is set aside comes
    as one rejected row. Raises `InputMissing` if there is nothing that tells the columns.
    """
    readable = [f for f in files if f.problem is None]
    schema = columns_of(source, readable, known)
    if not schema.fields:
        raise InputMissing("\n".join(f"{f.path}: {f.problem or 'it does not tell its columns'}" for f in files))
    if source.format == "delta" and readable:
        rows = delta_rows(spark, landing, source, readable[0], schema)
    else:
        rows = file_rows(spark, landing, source, readable, schema)
    text = source.format in TEXT
    rows = with_identity(typed(rows, schema, source) if text else rows, table, schema, source)
    result = rows.select(*(F.col(quoted(c)) for c in schema.names), ROW_ID, FILE, FILE_DATE, REJECTED)
    aside = [f for f in files if f.problem is not None]
    return result.unionByName(set_aside(spark, table, aside), allowMissingColumns=True) if aside else result


def columns_of(source: FileSource, files: Sequence[LandedFile], known: Mapping[str, str]) -> T.StructType:
    """The columns that files come with: those of the schema, else those known before, then what they add."""
    kinds = {f.name: f.dataType for f in schema_of(source)} if source.columns else {}
    found: Mapping[str, str] = {} if source.columns else known
    for file in files:
        found = with_columns_of(found, file.columns or {})
    for name, kind in found.items():
        if name not in kinds:
            kinds[name] = type_of(known.get(name) or kind or "string")
    held = {n: T.StringType() if isinstance(k, T.NullType) else k for n, k in kinds.items()}
    return T.StructType([T.StructField(n, k) for n, k in held.items()])


def file_rows(
    spark: SparkSession, landing: str, source: FileSource, files: Sequence[LandedFile], schema: T.StructType
) -> DataFrame:
    """Return what the readers give: cells (of text formats as text), then `PLACES`."""
    read_as = text_schema(schema) if source.format in TEXT else schema
    common = {**how_written(landing, source), "schema": read_as.json()}
    requests = []
    for file in files:
        if source.format in ("parquet", "avro") and not file.records:
            continue  # there may be nothing in it that a reader could open
        parts = file.parts or ((0, 1),)
        ends = [at for at, _ in parts[1:]] + [None]
        for (start, line), end in zip(parts, ends, strict=True):
            place = {
                "path": file.path,
                "date": file.date.isoformat() if file.date else None,
                "columns": list(file.columns or ()),
            }
            requests.append(json.dumps({**common, **place, "start": start, "end": end, "line": line}))
    whole = T.StructType([*read_as.fields, *struct_of(PLACES).fields])
    return spread(spark, requests).mapInArrow(read, whole)


def set_aside(spark: SparkSession, table: str, files: Sequence[LandedFile]) -> DataFrame:
    """One rejected row for each file that is set aside."""
    rows = [(f.path, f.date, None, f.problem, f.sha256, str(f.size)) for f in files]
    columns = f"{FILE} string, {FILE_DATE} date, {LINE} bigint, problem string, sha256 string, bytes string"
    named = local_frame(spark, rows, columns)
    evidence = {"problem": F.col("problem"), "sha256": F.col("sha256"), "bytes": F.col("bytes")}
    return named.select(
        row_id(named, f"{table} set aside", [FILE, "sha256"]).alias(ROW_ID),
        FILE,
        FILE_DATE,
        mark("file_set_aside", evidence).alias(REJECTED),
    )


def count_records(files: Iterable[LandedFile]) -> int:
    """Return how many records the files hold, malformed ones included, as counted when they were inspected.

    A file that is set aside counts as one.
    """
    return sum(f.records if f.problem is None else 1 for f in files)
