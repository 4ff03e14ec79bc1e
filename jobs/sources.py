"""Sources: which files have landed, which of them are new, and their rows.

Listing needs no JVM, so that a night without new files costs no Spark. Checksums and rows are read on the executors.
"""

import csv
import json
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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

from jobs.config import DATE_PLACE, FileSource, ddl_columns
from jobs.errors import InputMissing
from jobs.inspection import TEXT, inspect
from transforms.rows import FILE, FILE_DATE, REJECTED, REJECTED_TYPE, ROW_ID, frame_of, quoted, row_id

CORRUPT = "_hg_malformed"
MALFORMED = "malformed line"  # the reason in the ledger
DAYS = ("0001-01-01", "9999-12-31")  # what every reader of the tables can hold
WIDER = {  # types that are read as another without loss
    "tinyint": ("smallint", "int", "bigint", "double"),
    "smallint": ("int", "bigint", "double"),
    "int": ("bigint", "double"),
    "float": ("double",),
    "date": ("timestamp",),
}


@dataclass(frozen=True)
class Landed:
    """A file of a source, by its path below the landing folder."""

    path: str
    date: date | None
    size: int
    modified: datetime
    sha256: str | None = None
    columns: Mapping[str, str] | None = None  # name -> type ('' where the format has none), in the file's order
    quoted_newlines: bool = False
    records: int | None = None  # where they were counted already
    watermark: str | None = None  # of a source that is asked for its rows: the highest so far
    problem: str | None = None  # why the file is set aside


def open_landing(landing: str) -> tuple[fs.FileSystem, str]:
    if "://" in landing:
        return fs.FileSystem.from_uri(landing)
    return fs.LocalFileSystem(), absolute(landing)


def absolute(landing: str) -> str:
    return landing if "://" in landing else str(Path(landing).absolute())


def list_files(landing: str, source: FileSource, as_of: date | None) -> list[Landed]:
    """The files that match the source's pattern, in the order of their paths; with `as_of`, none of a later day."""
    if source.format == "delta":
        return list_delta(landing, source)
    files, root = open_landing(landing)
    pattern = re.compile(regex_of(source.path), re.IGNORECASE if source.any_case else 0)
    fixed = re.split(r"[*{]", source.path)[0]
    folder = posixpath.join(root, posixpath.dirname(fixed))
    selector = fs.FileSelector(folder, recursive=True, allow_not_found=True)
    found = []
    for info in files.get_file_info(selector):
        path = posixpath.relpath(info.path, root)
        match = pattern.match(path)
        if info.type != fs.FileType.File or not match:
            continue
        try:
            day = date.fromisoformat(match[1]) if match.re.groups else None
        except ValueError:
            continue
        if as_of is None or day is None or day <= as_of:
            modified = info.mtime or datetime.fromtimestamp(0)
            found.append(Landed(path, day, info.size, modified.astimezone(timezone.utc)))
    return sorted(found, key=lambda f: f.path)


def regex_of(path: str) -> str:
    """A source's pattern as a regular expression that Python and Java read alike; its first group is the day."""
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
        raise InputMissing(f"{source.path}: this Delta table cannot be read: {str(e).splitlines()[0]}") from None
    at = datetime.fromtimestamp(delta.history(1)[0]["timestamp"] / 1000, tz=timezone.utc)
    mark = f"{delta.metadata().id} version {delta.version()}"
    return [Landed(source.path, None, delta.version(), at, sha256=mark)]


def new_files(listed: Iterable[Landed], known: Mapping[str, Mapping[str, Any]]) -> list[Landed]:
    """The files that were never taken up, or look different (size or modification time) from when they were."""
    fresh = []
    for file in listed:
        before = known.get(file.path)
        if before is None or (before["size"], before["modified"]) != (file.size, file.modified):
            fresh.append(file)
    return fresh


def fingerprint(spark: SparkSession, landing: str, source: FileSource, listed: Iterable[Landed]) -> list[Landed]:
    """The files with their checksums, columns and problems, looked through where the executors are."""
    by_path = {f.path: f for f in listed}
    if not by_path:
        return []
    common = {
        "root": absolute(landing),
        "format": source.format,
        "encoding": source.encoding,
        "max_line_bytes": source.max_line_bytes,
    }
    requests = frame_of(spark, [(json.dumps({**common, "path": p}),) for p in by_path], "request string")
    workers = spark.sparkContext.defaultParallelism
    found = requests.repartition(min(len(by_path), 4 * workers)).mapInArrow(inspect, "found string")
    seen = []
    for facts in (json.loads(row["found"]) for row in found.collect()):
        file = by_path[facts["path"]]
        if facts["sha256"] is None:
            raise InputMissing(f"{file.path}: the file vanished, or cannot be read, while it was being taken up")
        if facts["size"] != file.size:
            raise InputMissing(f"{file.path}: the file grew or shrank while it was being taken up; run again")
        columns = facts["columns"]
        problem = facts["problem"]
        if source.format == "csv" and file.size and problem is None:
            names = next(csv.reader([facts["header"] or ""], delimiter=source.delimiter), [])
            repeated = next((n for n in names if names.count(n) > 1), None)
            problem = f"its header names the column '{repeated}' twice" if repeated is not None else None
            columns = dict.fromkeys(names, "")
        seen.append(
            replace(
                file,
                sha256=facts["sha256"],
                columns=columns,
                quoted_newlines=facts.get("quoted_newlines", False),
                problem=problem,
            )
        )
    seen.sort(key=lambda f: f.path)
    return survey_json(spark, landing, source, seen) if source.format == "jsonl" else seen


def survey_json(spark: SparkSession, landing: str, source: FileSource, files: list[Landed]) -> list[Landed]:
    """The files with how many records and which members they hold, from one pass over their lines."""
    readable = [f for f in files if f.problem is None]
    if not readable:
        return files
    root = absolute(landing)
    members = F.array_sort(F.json_object_keys("value"))
    rows = (
        read_lines(spark, source, [f"{root}/{f.path}" for f in readable])
        .where(F.trim("value") != "")
        .groupBy(relative_path(root).alias("path"))
        .agg(
            F.count("*").alias("records"), F.array_sort(F.array_distinct(F.flatten(F.collect_set(members)))).alias("n")
        )
    )
    found = {row["path"]: row for row in rows.collect()}
    return [
        f
        if f.problem
        else replace(
            f,
            records=found[f.path]["records"] if f.path in found else 0,
            columns=dict.fromkeys(found[f.path]["n"] or [], "") if f.path in found else {},
        )
        for f in files
    ]


def read_lines(spark: SparkSession, source: FileSource, paths: list[str]) -> DataFrame:
    """The lines of text files, decoded: one column `value`."""
    reader = spark.read.option("encoding", source.encoding)
    if source.encoding.lower() not in ("utf-8", "utf8"):
        # Spark's text reader knows only UTF-8; as CSV of one column without quotes a line is read in any encoding.
        return reader.csv(paths, schema="value string", sep="\u0001", quote="", escape="")
    return spark.read.text(paths)


def judged(source: FileSource, file: Landed, reference: Mapping[str, str] | None) -> Landed:
    """The file as the source's policy takes it; raises `InputMissing` where that is to refuse.

    reference: the columns of the file taken up last, for a source without a schema.
    """
    problem, option = file.problem, "on_bad_file"
    if problem is None and file.columns is not None and (file.size or source.format != "csv"):
        expected = {n: t.lower() for n, t in ddl_columns(source.columns, "")} if source.columns else reference
        if expected is not None:
            problem = wrong_type(file.columns, expected)
            if problem is None:
                problem, option = other_columns(source, file.columns, list(expected)), "on_other_columns"
    policy = getattr(source, option)
    if problem is None or policy == "evolve":
        return file
    if policy == "refuse":
        raise InputMissing(f"{file.path}: {problem} (source.{option} says what is done with such a file)")
    return replace(file, problem=problem)


def wrong_type(found: Mapping[str, str], expected: Mapping[str, str]) -> str | None:
    """Which column of a typed file is of a type that cannot be read as the expected one."""
    for name, kind in found.items():
        wanted = simple(expected.get(name, ""))
        if kind and wanted and simple(kind) != wanted and wanted not in WIDER.get(simple(kind), ()):
            return f"its column '{name}' is {kind}, where {expected[name]} is expected"
    return None


def simple(kind: str) -> str:
    """A type in the one form in which types are compared; decimals of any size are one type."""
    text = re.sub(r"\s+", "", kind.lower())
    if text.startswith(("decimal", "numeric", "array", "map", "struct")):
        return "decimal" if text.startswith(("decimal", "numeric")) else text.split("<")[0]
    aliases = {"integer": "int", "long": "bigint", "short": "smallint", "byte": "tinyint", "real": "float"}
    aliases |= {"timestamp_ltz": "timestamp", "varchar": "string", "char": "string"}
    text = text.split("(")[0]
    return aliases.get(text, text)


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


def read_files(spark: SparkSession, landing: str, source: FileSource, table: str, files: list[Landed]) -> DataFrame:
    """The rows of the files with identity, file and day; a malformed line comes as a rejected row.

    Columns are those of the schema, then those that files add (`on_other_columns: evolve`), then `_row_id`, `_file`,
    `_file_date`, `_rejected`. A file that is set aside comes as one rejected row. Raises `InputMissing` if there is
    nothing that tells the columns.
    """
    root = absolute(landing)
    readable = [f for f in files if f.problem is None]
    groups: dict[Any, list[Landed]] = {}
    for file in readable:
        layout = tuple(file.columns or ()) if source.format != "jsonl" else ()
        groups.setdefault((layout, file.quoted_newlines), []).append(file)
    frames = [read_group(spark, root, source, group) for group in groups.values()]
    if not frames:
        if source.columns is None:
            raise InputMissing("\n".join(f"{f.path}: {f.problem}" for f in files))
        frames = [
            frame_of(spark, [], f"{source.columns}, {CORRUPT} STRING").withColumn(FILE, F.lit(None).cast("string"))
        ]
    rows = frames[0]
    for frame in frames[1:]:
        rows = rows.unionByName(frame, allowMissingColumns=True)
    columns = [c for c in rows.columns if c not in (CORRUPT, FILE)]
    configured = [n for n, _ in ddl_columns(source.columns, "")] if source.columns else []
    columns = [*configured, *(c for c in columns if c not in configured)]
    dated = DATE_PLACE in source.path
    day = F.regexp_extract(FILE, regex_of(source.path), 1).try_cast("date") if dated else F.lit(None).cast("date")
    identified = with_identity(rows, table, columns, source.key).withColumn(FILE_DATE, day)
    result = identified.select(*(F.col(quoted(c)) for c in columns), ROW_ID, FILE, FILE_DATE, REJECTED)
    aside = [f for f in files if f.problem is not None]
    return result.unionByName(set_aside(spark, table, aside), allowMissingColumns=True) if aside else result


def with_identity(rows: DataFrame, table: str, columns: Sequence[str], key: Sequence[str]) -> DataFrame:
    """Rows of a source with `_row_id` and, for malformed records and days that no reader can hold, `_hg_rejected`."""
    malformed = F.col(CORRUPT).isNotNull()
    identity = F.when(malformed, row_id(rows, f"{table} malformed", [CORRUPT])).otherwise(
        row_id(rows, table, key or columns)
    )
    marks = [
        F.when(malformed, mark(MALFORMED, {"file": F.col(FILE), "text": F.col(CORRUPT)})),
        *(
            F.when(
                ~F.col(quoted(c)).between(F.lit(DAYS[0]).cast(kind), F.lit(f"{DAYS[1]} 23:59:59.999999").cast(kind)),
                mark(
                    f"outside {DAYS[0]} to {DAYS[1]}",
                    {"file": F.col(FILE), "column": F.lit(c), "text": F.col(quoted(c)).cast("string")},
                ),
            )
            for c, kind in rows.dtypes
            if kind in ("date", "timestamp")
        ),
    ]
    rejected = F.coalesce(*marks)
    held = {  # what no reader can hold stands in the ledger, as text
        c: F.when(rejected.isNull(), F.col(quoted(c))) for c, kind in rows.dtypes if kind in ("date", "timestamp")
    }
    rows = rows.withColumns({ROW_ID: identity, REJECTED: rejected})
    return rows.withColumns(held) if held else rows


def mark(reason: str, evidence: Mapping[str, Column]) -> Column:
    """A rejection by the ingestion."""
    pairs = [part for name, value in evidence.items() for part in (F.lit(name), value)]
    fields = (F.lit("ingest").alias("step"), F.lit(reason).alias("reason"), F.create_map(*pairs).alias("evidence"))
    return F.struct(*fields).cast(REJECTED_TYPE)


def set_aside(spark: SparkSession, table: str, files: Sequence[Landed]) -> DataFrame:
    """One rejected row for each file that is set aside."""
    rows = [(f.path, f.date, f.problem, f.sha256, str(f.size)) for f in files]
    named = frame_of(spark, rows, f"{FILE} string, {FILE_DATE} date, problem string, sha256 string, bytes string")
    evidence = {"file": F.col(FILE), "problem": F.col("problem"), "sha256": F.col("sha256"), "bytes": F.col("bytes")}
    return named.select(
        row_id(named, f"{table} set aside", [FILE, "sha256"]).alias(ROW_ID),
        FILE,
        FILE_DATE,
        mark("file set aside", evidence).alias(REJECTED),
    )


def read_group(spark: SparkSession, root: str, source: FileSource, files: list[Landed]) -> DataFrame:
    """The records of files with the same columns: columns of the schema and of the files, `_hg_malformed`, `_file`."""
    paths = [f"{root}/{f.path}" for f in files]
    if source.format == "delta":
        rows = read_delta(spark, root, files[0]).withColumn(CORRUPT, F.lit(None).cast("string"))
        return rows.withColumn(FILE, F.lit(source.path))
    types = {f.name: f.dataType for f in T.StructType.fromDDL(source.columns)} if source.columns else {}
    found = dict.fromkeys(c for f in files for c in (f.columns or {}))
    if source.format in TEXT:
        names = list(dict.fromkeys([*(types if source.format == "jsonl" else ()), *found])) or list(types)
        schema = T.StructType([T.StructField(n, types.get(n, T.StringType())) for n in names])
        reader = spark.read.schema(schema.add(CORRUPT, "string")).options(
            mode="PERMISSIVE", columnNameOfCorruptRecord=CORRUPT
        )
        if source.encoding.lower() not in ("utf-8", "utf8"):
            reader = reader.option("encoding", source.encoding).option("lineSep", "\n")
        if source.format == "csv":
            rows = reader.options(**csv_options(source, files[0])).csv(paths)
        else:
            rows = reader.json(paths)
    else:
        plain = spark.read.schema(source.columns) if source.columns and source.format == "parquet" else spark.read
        rows = plain.parquet(*paths) if source.format == "parquet" else plain.format("avro").load(paths)
        if source.columns:
            read = {n: F.col(quoted(n)).cast(t) if n in rows.columns else F.lit(None).cast(t) for n, t in types.items()}
            rows = rows.select(
                *(value.alias(n) for n, value in read.items()),
                *(F.col(quoted(c)) for c in rows.columns if c not in types),
                "_metadata",
            )
        rows = rows.withColumn(CORRUPT, F.lit(None).cast("string"))
    rows = rows.withColumn(FILE, relative_path(root))
    missing = {n: F.lit(None).cast(t) for n, t in types.items() if n not in rows.columns}
    return rows.withColumns(missing).drop("_metadata") if missing else rows.drop("_metadata")


def csv_options(source: FileSource, file: Landed) -> dict[str, Any]:
    return {
        "header": True,
        "sep": source.delimiter,
        "nullValue": source.null_value,
        "emptyValue": "",
        "enforceSchema": True,
        "escape": '"',
        "ignoreLeadingWhiteSpace": False,
        "ignoreTrailingWhiteSpace": False,
        # Only where a quoted value holds a line break: such a file is read by one task.
        "multiLine": file.quoted_newlines,
        "maxCharsPerColumn": -1,
    }


def read_delta(spark: SparkSession, root: str, file: Landed) -> DataFrame:
    return spark.read.format("delta").option("versionAsOf", file.size).load(f"{root}/{file.path}")


def count_records(spark: SparkSession, landing: str, source: FileSource, files: list[Landed]) -> int:
    """How many records the files hold, malformed ones included, counted apart from `read_files`.

    A file that is set aside counts as one.
    """
    root = absolute(landing)
    readable = [f for f in files if f.problem is None]
    aside = len(files) - len(readable)
    paths = [f"{root}/{f.path}" for f in readable]
    if not paths:
        return aside
    if source.format == "delta":
        return read_delta(spark, root, files[0]).count()
    if source.format == "jsonl":
        return aside + sum(f.records or 0 for f in readable)
    if source.format == "parquet":
        return aside + spark.read.parquet(*paths).count()
    if source.format == "avro":
        return aside + spark.read.format("avro").load(paths).count()
    total = aside
    for broken in (False, True):
        group = [f for f in readable if f.quoted_newlines is broken]
        if group:
            reader = spark.read.options(**csv_options(source, group[0]))
            if source.encoding.lower() not in ("utf-8", "utf8"):
                reader = reader.option("encoding", source.encoding).option("lineSep", "\n")
            total += reader.csv([f"{root}/{f.path}" for f in group], schema="value string").count()
    return total


def relative_path(root: str) -> Any:
    """The path of each row's file below the landing folder."""
    name = F.url_decode(F.regexp_replace(F.col("_metadata.file_path"), r"\+", "%2B"))
    prefix = re.escape(root.split("://", 1)[-1].rstrip("/"))
    return F.regexp_replace(name, rf"^.*?{prefix}/", "")


def with_line_numbers(spark: SparkSession, landing: str, source: FileSource, rejected: DataFrame) -> DataFrame:
    """Ledger entries of malformed lines, one for each line of the files that holds such a text, with its number.

    Only the files that have malformed lines are read again. A text over several lines has no number.
    """
    root = absolute(landing)
    texts = rejected.select(
        "row_id", "step", "reason", F.col("evidence")["file"].alias("file"), F.col("evidence")["text"].alias("text")
    )
    files = [r["file"] for r in texts.select("file").distinct().collect()]
    if not files:
        return rejected
    line = F.col("line").cast("string")
    evidence = F.create_map(F.lit("file"), F.col("file"), F.lit("line"), line, F.lit("text"), F.col("text"))
    charset = "utf-8" if source.encoding.lower() in ("utf-8", "utf8") else source.encoding
    binary = (
        spark.read.format("binaryFile").load([f"{root}/{f}" for f in files if not packed(f)])
        if any(not packed(f) for f in files)
        else None
    )
    if binary is None:
        numbers = frame_of(spark, [], "file string, line int, text string")
    else:
        numbers = (
            binary.select(relative_path(root).alias("file"), F.decode("content", charset).alias("value"))
            .select("file", F.posexplode(F.split("value", "\r?\n")))
            .select("file", (F.col("pos") + 1).alias("line"), F.col("col").alias("text"))
        )
    # The same text on two lines is two rows and two lines: the n-th row goes with the n-th line.
    nth = F.row_number().over(W.partitionBy("file", "text").orderBy("line"))
    again = F.row_number().over(W.partitionBy("file", "text").orderBy("row_id"))
    return (
        texts.withColumn("n", again)
        .alias("w")
        .join(numbers.withColumn("n", nth).alias("l"), on=["file", "text", "n"], how="left")
        .select("row_id", "step", "reason", evidence.alias("evidence"))
    )


def packed(path: str) -> bool:
    return path.endswith((".gz", ".bz2", ".zst", ".lz4", ".snappy", ".deflate"))
