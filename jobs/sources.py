"""Sources: which files have landed, which of them are new, and their rows.

Listing needs no JVM, so that a night without new files costs no Spark. Checksums and rows are read on the executors.
"""

import functools
import json
import operator
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from pyarrow import fs
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import Window as W
from pyspark.sql import functions as F
from pyspark.sql import types as T

from jobs.config import DATE_PLACE, FileSource
from jobs.dialect import Dialect
from jobs.errors import InputMissing
from jobs.inspection import TEXT, inspect
from jobs.readers import CORRUPT, LINE, PLACES, PROBLEM, read
from transforms.parsing import DAYS, Marks, ddl_of, parsed, text_type, within, without_ntz
from transforms.rows import (
    FILE,
    FILE_DATE,
    OWN,
    REJECTED,
    REJECTED_TYPE,
    ROW_ID,
    content_key,
    frame_of,
    is_own,
    quoted,
    row_id,
)

MALFORMED = "malformed line"  # the reason in the ledger
NO_KEY = "no key"
WHOLE = {"tinyint": 3, "smallint": 5, "int": 10, "bigint": 20}  # digits


@dataclass(frozen=True)
class Landed:
    """A file of a source, by its path below the landing folder."""

    path: str
    date: date | None
    size: int
    modified: datetime
    sha256: str | None = None
    columns: Mapping[str, str] | None = None  # name -> type ('' where the format has none), in the file's order
    records: int = 0
    parts: tuple[tuple[int, int], ...] | None = None  # where tasks may start to read: offset (or row group), line
    watermark: str | None = None  # of a source that is asked for its rows: the highest so far
    problem: str | None = None  # why the file is set aside


def open_landing(landing: str) -> tuple[fs.FileSystem, str]:
    if "://" in landing:
        return fs.FileSystem.from_uri(landing)
    return fs.LocalFileSystem(), absolute(landing)


def absolute(landing: str) -> str:
    return landing if "://" in landing else str(Path(landing).absolute())


@dataclass(frozen=True)
class Listed:
    """What lies where a source looks: files that match its pattern, in the order of their paths, and near misses."""

    files: list[Landed]
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
    found, missed = [], []
    for info in files.get_file_info(fs.FileSelector(folder, recursive=deep, allow_not_found=True)):
        path = posixpath.relpath(info.path, root)
        match = pattern.match(path)
        if info.type != fs.FileType.File or not match:
            missed += [path] if info.type == fs.FileType.File and loose.match(path) else []
            continue
        day, problem = None, None
        try:
            day = date.fromisoformat(match[1]) if match.re.groups else None
        except ValueError:
            problem = f"{match[1]} in its name is no day"
        if as_of is None or day is None or day <= as_of:
            modified = info.mtime or datetime.fromtimestamp(0)
            found.append(Landed(path, day, info.size, modified.astimezone(timezone.utc), problem=problem))
    return Listed(sorted(found, key=lambda f: f.path), sorted(missed))


def regex_of(path: str) -> str:
    """A source's pattern as a regular expression; its first group is the day."""
    parts = re.split(r"(\{date\}|\*)", path)
    day, again = r"(\d{4}-\d{2}-\d{2})", r"\1"
    days = [i for i, part in enumerate(parts) if part == DATE_PLACE]
    wild = {DATE_PLACE: again, "*": r"[^/]*"}
    return "".join(day if i in days[:1] else wild.get(p) or re.escape(p) for i, p in enumerate(parts)) + "$"


def list_delta(landing: str, source: FileSource) -> list[Landed]:
    """A Delta source as one file, whose size is its version: a new version replaces the rows of the one before."""
    path = f"{landing}/{source.path}"
    try:
        delta = DeltaTable(path)
    except TableNotFoundError:
        return []
    except Exception as e:
        raise InputMissing(f"{source.path}: this Delta table cannot be read: {str(e).splitlines()[0]}") from e
    at = datetime.fromtimestamp(delta.history(1)[0]["timestamp"] / 1000, tz=timezone.utc)
    mark = f"{delta.metadata().id} version {delta.version()}"
    return [Landed(source.path, None, delta.version(), at, sha256=mark)]


def with_delta_facts(spark: SparkSession, landing: str, file: Landed) -> Landed:
    """A Delta source with its columns and how many rows it has, as its log tells."""
    rows = read_delta(spark, absolute(landing), file)
    columns = {f.name: ddl_of(without_ntz(f.dataType)) for f in rows.schema.fields}
    return replace(file, columns=columns, records=rows.count())


def new_files(listed: Iterable[Landed], known: Mapping[str, Mapping[str, Any]]) -> list[Landed]:
    """The files that were never taken up, or look different (size or modification time) from when they were."""
    fresh = []
    for file in listed:
        before = known.get(file.path)
        if before is None or (before["size"], before["modified"]) != (file.size, file.modified):
            fresh.append(file)
    return fresh


def fingerprint(spark: SparkSession, landing: str, source: FileSource, listed: Iterable[Landed]) -> list[Landed]:
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
        told = {name: facts[name] for name in ("sha256", "columns", "records")}
        seen.append(replace(file, **told, parts=parts, problem=file.problem or facts["problem"]))
    return sorted(seen, key=lambda f: f.path)


def spread(spark: SparkSession, requests: Sequence[str]) -> DataFrame:
    """Requests to readers, over as many tasks as keep the executors busy."""
    tasks = min(len(requests), 4 * spark.sparkContext.defaultParallelism)
    return frame_of(spark, [(r,) for r in requests], "request string").repartition(max(tasks, 1))


def how_written(landing: str, source: FileSource) -> dict[str, Any]:
    """Where files lie and how they are written: what every request to a reader says."""
    return {
        "root": absolute(landing),
        "format": source.format,
        "encoding": source.encoding,
        "line_end": source.line_end,
        "max_line_bytes": source.max_line_bytes,
        "dialect": asdict(Dialect(source.delimiter, source.quote, source.escape, source.null_value)),
    }


def schema_of(source: Any) -> T.StructType:
    """The columns of a source's schema; all times are moments."""
    found = without_ntz(T.StructType.fromDDL(source.columns))
    assert isinstance(found, T.StructType)
    return found


def text_schema(schema: T.StructType) -> T.StructType:
    """What readers of text give: texts in place of plain values."""
    found = text_type(schema)
    assert isinstance(found, T.StructType)
    return found


def judged(source: FileSource, file: Landed, reference: Mapping[str, str] | None) -> Landed:
    """The file as the source's policy takes it; raises `InputMissing` where that is to refuse.

    reference: the columns of the file taken up last, for a source without a schema.
    """
    problem, option = file.problem, "on_bad_file"
    empty = source.format in TEXT and not file.columns and not file.records
    if problem is None and file.columns is not None and not empty:
        expected = columns_of_ddl(source.columns) if source.columns else reference
        problem = wrong_name(file.columns, expected or {}) or wrong_type(file.columns, expected or {})
        if problem is None and expected is not None:
            problem, option = other_columns(source, file.columns, list(expected)), "on_other_columns"
    policy = getattr(source, option)
    if problem is None or policy == "evolve":
        return file
    if policy == "refuse":
        raise InputMissing(f"{file.path}: {problem} (source.{option} says what is done with such a file)")
    return replace(file, problem=problem)


def columns_of_ddl(ddl: str) -> dict[str, str]:
    return {f.name: ddl_of(without_ntz(f.dataType)) for f in T.StructType.fromDDL(ddl).fields}


def wrong_name(found: Mapping[str, str], expected: Mapping[str, str]) -> str | None:
    """Which column of a file has a name that is headgate's own, or that another has in other letters."""
    own = next(filter(is_own, found), None)
    if own is not None:
        return f"its column '{own}' has a name that is headgate's own; names that start with '{OWN}' are, too"
    known = {n.lower(): n for n in expected}
    for name in found:
        other = known.setdefault(name.lower(), name)
        if other != name:
            return f"its column '{name}' differs from '{other}' only in the case of its letters"
    return None


def wrong_type(found: Mapping[str, str], expected: Mapping[str, str]) -> str | None:
    """Which column of a typed file is of a type that cannot be read as the expected one without loss."""
    for name, kind in found.items():
        if kind.startswith("<"):
            return f"its column '{name}' is {kind[1:-1]}, which no table can hold"
        wanted = expected.get(name, "")
        if kind and wanted not in ("", "void", kind) and not fits(type_of(kind), type_of(wanted)):
            return f"its column '{name}' is {kind}, where {wanted} is expected"
    return None


def type_of(text: str) -> T.DataType:
    return T._parse_datatype_string(text)


def fits(found: T.DataType, wanted: T.DataType) -> bool:
    """Whether a type holds every value of another one."""
    if found == wanted or isinstance(found, T.NullType):
        return True
    if isinstance(wanted, T.CharType | T.VarcharType):
        return False
    if isinstance(found, T.ArrayType) and isinstance(wanted, T.ArrayType):
        return fits(found.elementType, wanted.elementType)
    if isinstance(found, T.MapType) and isinstance(wanted, T.MapType):
        return fits(found.keyType, wanted.keyType) and fits(found.valueType, wanted.valueType)
    if isinstance(found, T.StructType) and isinstance(wanted, T.StructType):
        same = found.names == wanted.names
        return same and all(fits(a.dataType, b.dataType) for a, b in zip(found, wanted, strict=True))
    one, other = found.simpleString(), wanted.simpleString()
    if isinstance(wanted, T.DecimalType):
        digits = found.precision - found.scale if isinstance(found, T.DecimalType) else WHOLE.get(one, 99)
        scale = found.scale if isinstance(found, T.DecimalType) else 0
        return wanted.scale >= scale and wanted.precision - wanted.scale >= digits
    if one in WHOLE and other in WHOLE:
        return WHOLE[one] <= WHOLE[other]
    return (one, other) in (("float", "double"), ("date", "timestamp")) or (
        other == "double" and WHOLE.get(one, 99) <= 10
    )


def other_columns(source: FileSource, found: Mapping[str, str], expected: Sequence[str]) -> str | None:
    """How the columns of a file differ from those expected; a member that a JSON record lacks is null."""
    names = list(found)
    lacking = [n for n in expected if n not in found] if source.format != "jsonl" else []
    more = [n for n in names if n not in expected]
    if lacking or more:
        told = [f"lack '{n}'" for n in lacking[:3]] + [f"add '{n}'" for n in more[:3]]
        return f"its columns are not those of the schema ({len(expected)} columns): they {', '.join(told)}"
    if source.format == "csv" and names != list(expected):
        wrong = next(pair for pair in zip(expected, names, strict=True) if pair[0] != pair[1])
        return (
            f"its columns are in another order than those of the schema: '{wrong[1]}' stands where '{wrong[0]}' should"
        )
    return None


def columns_before(files: Iterable[Mapping[str, Any]]) -> dict[str, str] | None:
    """The columns of the file that was taken up last; of files of one run, of the one whose path comes last."""
    ordered = sorted(files, key=lambda f: (f["base"], f["path"]))
    known = [f["columns"] for f in ordered if f.get("columns") and not f.get("problem")]
    return json.loads(known[-1]) if known else None


def assert_unchanged(landing: str, files: Iterable[Landed]) -> None:
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
    files: list[Landed],
    reference: Mapping[str, str] | None = None,
) -> DataFrame:
    """The rows of the files with identity, file and day; what cannot be read comes as a rejected row.

    Columns are those of the schema (else of `reference`, the file taken up last), then those that files add
    (`on_other_columns: evolve`), then `_row_id`, `_file`, `_file_date`, `_hg_rejected`. A file that is set aside comes
    as one rejected row. Raises `InputMissing` if there is nothing that tells the columns.
    """
    readable = [f for f in files if f.problem is None]
    schema = columns_of(source, readable, reference)
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


def columns_of(source: FileSource, files: Sequence[Landed], reference: Mapping[str, str] | None) -> T.StructType:
    """The columns that files come with: those of the schema or the reference, then what they add."""
    kinds: dict[str, T.DataType] = {}
    if source.columns:
        kinds = {f.name: f.dataType for f in schema_of(source)}
    for columns in ([] if source.columns else [reference or {}]) + [f.columns or {} for f in files]:
        for name, kind in columns.items():
            if name not in kinds or (isinstance(kinds[name], T.NullType) and kind):
                kinds[name] = type_of(kind) if kind else T.StringType()
    held = {n: T.StringType() if isinstance(k, T.NullType) else k for n, k in kinds.items()}
    return T.StructType([T.StructField(n, k) for n, k in held.items()])


def file_rows(
    spark: SparkSession, landing: str, source: FileSource, files: Sequence[Landed], schema: T.StructType
) -> DataFrame:
    """What the readers give: cells (of text formats as text), then `PLACES`."""
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
    whole = T.StructType([*read_as.fields, *T.StructType.fromDDL(PLACES).fields])
    return spread(spark, requests).mapInArrow(read, whole)


def delta_rows(spark: SparkSession, landing: str, source: FileSource, file: Landed, schema: T.StructType) -> DataFrame:
    rows = read_delta(spark, absolute(landing), file)
    have = set(rows.columns)
    cells = [(F.col(quoted(f.name)) if f.name in have else F.lit(None)).cast(f.dataType).alias(f.name) for f in schema]
    kinds = {f.name: f.dataType for f in T.StructType.fromDDL(PLACES) if f.name != LINE}
    places = [F.lit(source.path if n == FILE else None).cast(kind).alias(n) for n, kind in kinds.items()]
    return numbered(rows.select(*cells, *places), source.key)


def lacks(columns: Sequence[str]) -> Column:
    """Whether a record lacks a value of its key; without a key, none does."""
    return functools.reduce(operator.or_, (F.col(quoted(c)).isNull() for c in columns), F.lit(False))


def numbered(rows: DataFrame, key: Sequence[str]) -> DataFrame:
    """Number the rows without a place in a file among those of their content, where nothing else tells them apart.

    These are malformed records and those that lack a value of their key; they are shuffled by a hash of their content.
    """
    apart = lacks(key) | F.col(CORRUPT).isNotNull()
    content = content_key(rows, [c for c in rows.columns if c not in (REJECTED, FILE)])
    nth = F.row_number().over(W.partitionBy(F.md5(content)).orderBy(F.lit(1))).cast("bigint")
    others = rows.where(~apart).withColumn(LINE, F.lit(None).cast("bigint"))
    return others.unionByName(rows.where(apart).withColumn(LINE, nth))


def typed(rows: DataFrame, schema: T.StructType, source: Any) -> DataFrame:
    """Rows of text with values of the schema's types; one with a text that is none has `REJECTED`.

    An empty cell of csv is null where the type is no text.
    """
    csv = getattr(source, "format", "") == "csv"
    marks = Marks(
        decimal=getattr(source, "decimal", "."),
        thousands=getattr(source, "thousands", ""),
        date_format=getattr(source, "date_format", None),
        timestamp_format=getattr(source, "timestamp_format", None),
    )
    texts = {f.name: F.col(quoted(f.name)) for f in schema}
    others = [f for f in schema if not isinstance(f.dataType, T.StringType)]
    for f in others if csv else ():
        texts[f.name] = F.when(F.trim(texts[f.name]) != "", texts[f.name])
    # Under names of their own first, so that each value is made once, however often it is looked at.
    rows = rows.withColumns({f"{OWN}value_{i}": parsed(texts[f.name], f.dataType, marks) for i, f in enumerate(others)})
    marked = []
    for i, f in enumerate(others):
        given = texts[f.name].cast("string")
        evidence = {"column": F.lit(f.name), "value": given, "type": F.lit(f.dataType.simpleString())}
        fails = texts[f.name].isNotNull() & F.col(f"{OWN}value_{i}").isNull()
        marked.append(F.when(fails, mark(f"{f.name} is not {f.dataType.simpleString()}", evidence)))
    values = {f.name: F.col(f"{OWN}value_{i}") for i, f in enumerate(others)}
    rejected = F.coalesce(*marked) if marked else F.lit(None).cast(REJECTED_TYPE)
    rows = rows.withColumns({REJECTED: rejected, **values})
    return rows.drop(*(f"{OWN}value_{i}" for i in range(len(others))))


def with_identity(rows: DataFrame, table: str, schema: T.StructType, source: Any) -> DataFrame:
    """Rows of a source with `_row_id` and, for what cannot be read or held, `_hg_rejected`.

    A record that lacks a value of its key has the id of its content and its place, so that it is equal to no other.
    """
    malformed = F.col(CORRUPT).isNotNull()
    marks = [
        F.when(malformed, mark(MALFORMED, {"text": F.col(CORRUPT), "problem": F.col(PROBLEM)})),
        F.col(REJECTED) if REJECTED in rows.columns else F.lit(None).cast(REJECTED_TYPE),
    ]
    days = [f for f in schema if isinstance(f.dataType, T.DateType | T.TimestampType)]
    for f in days:
        value, kind = F.col(quoted(f.name)), f.dataType.simpleString()
        evidence = {"column": F.lit(f.name), "text": value.cast("string")}
        out = value.isNotNull() & within(value, kind).isNull()
        marks.append(F.when(out, mark(f"outside {DAYS[0]} to {DAYS[1]}", evidence)))
    declared = schema_of(source) if getattr(source, "columns", None) else ()
    for f in declared:
        if not f.nullable:
            marks.append(F.when(F.col(quoted(f.name)).isNull(), mark(f"{f.name} is null", {"column": F.lit(f.name)})))
    key, without = list(source.key), lacks(source.key)
    if key and source.on_missing_key == "quarantine":
        marks.append(F.when(without, mark(NO_KEY, {"key": F.lit(", ".join(key))})))
    # With the content of two records also their places must be the same: there is nothing else to tell them apart by.
    place = [FILE, LINE] if isinstance(source, FileSource) else [LINE]  # a page of an answer is no place that lasts
    placed = row_id(rows, f"{table} by place", [*schema.names, CORRUPT, *place])
    rejected = F.coalesce(*marks)
    identity = F.when(rejected.isNotNull() | without, placed).otherwise(row_id(rows, table, key or schema.names))
    rows = rows.withColumns({ROW_ID: identity, REJECTED: rejected})
    # What no reader can hold stands in the ledger, as text.
    held = {f.name: F.when(F.col(REJECTED).isNull(), F.col(quoted(f.name))) for f in days}
    return rows.withColumns(held) if held else rows


def mark(reason: str, evidence: Mapping[str, Column]) -> Column:
    """A rejection by the ingestion, with the place of the record."""
    place = {"file": F.col(FILE), "line": F.col(LINE).cast("string")}
    pairs = [part for name, value in {**place, **evidence}.items() for part in (F.lit(name), value)]
    present = F.map_filter(F.create_map(*pairs), lambda _, value: value.isNotNull())
    fields = (F.lit("ingest").alias("step"), F.lit(reason).alias("reason"), present.alias("evidence"))
    return F.struct(*fields).cast(REJECTED_TYPE)


def set_aside(spark: SparkSession, table: str, files: Sequence[Landed]) -> DataFrame:
    """One rejected row for each file that is set aside."""
    rows = [(f.path, f.date, None, f.problem, f.sha256, str(f.size)) for f in files]
    columns = f"{FILE} string, {FILE_DATE} date, {LINE} bigint, problem string, sha256 string, bytes string"
    named = frame_of(spark, rows, columns)
    evidence = {"problem": F.col("problem"), "sha256": F.col("sha256"), "bytes": F.col("bytes")}
    return named.select(
        row_id(named, f"{table} set aside", [FILE, "sha256"]).alias(ROW_ID),
        FILE,
        FILE_DATE,
        mark("file set aside", evidence).alias(REJECTED),
    )


def read_delta(spark: SparkSession, root: str, file: Landed) -> DataFrame:
    return spark.read.format("delta").option("versionAsOf", file.size).load(f"{root}/{file.path}")


def count_records(files: Iterable[Landed]) -> int:
    """How many records the files hold, malformed ones included, as they were counted when they were looked through.

    A file that is set aside counts as one.
    """
    return sum(f.records if f.problem is None else 1 for f in files)
