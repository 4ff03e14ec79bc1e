"""Sources: which files have landed, which of them are new, and their rows.

Listing needs no JVM, so that a night without new files costs no Spark. Checksums and rows are read on the executors.
"""

import hashlib
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from pyarrow import fs
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.config import DATE_PLACE, Source, ddl_columns
from jobs.errors import InputMissing
from transforms.rows import FILE, FILE_DATE, REJECTED, REJECTED_TYPE, quoted, row_id

CHUNK = 8 << 20
CORRUPT = "_malformed"


@dataclass(frozen=True)
class Landed:
    """A file of a source, by its path below the landing folder."""

    path: str
    date: date | None
    size: int
    modified: datetime
    sha256: str | None = None
    header: str | None = None


def open_landing(landing: str) -> tuple[fs.FileSystem, str]:
    if "://" in landing:
        return fs.FileSystem.from_uri(landing)
    return fs.LocalFileSystem(), absolute(landing)


def absolute(landing: str) -> str:
    return landing if "://" in landing else str(Path(landing).absolute())


def list_files(landing: str, source: Source, as_of: date | None) -> list[Landed]:
    """The files that match the source's pattern, in the order of their paths; with `as_of`, none of a later day."""
    if source.format == "delta":
        return list_delta(landing, source)
    files, root = open_landing(landing)
    pattern = re.compile(regex_of(source.path))
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


def list_delta(landing: str, source: Source) -> list[Landed]:
    """A Delta source as one file, whose size is its version: a new version replaces the rows of the one before."""
    path = f"{landing}/{source.path}"
    try:
        delta = DeltaTable(path)
    except TableNotFoundError:
        return []
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


def fingerprint(spark: SparkSession, landing: str, listed: Iterable[Landed]) -> list[Landed]:
    """The files with their checksums and first lines, read where the executors are."""
    by_path = {f.path: f for f in listed}
    if not by_path:
        return []
    workers = spark.sparkContext.defaultParallelism
    paths = spark.createDataFrame([(landing, p) for p in by_path], "landing string, path string")
    read = paths.repartition(min(len(by_path), 4 * workers)).mapInArrow(
        digest, "path string, sha256 string, header string, size long"
    )
    seen = []
    for row in read.collect():
        file = by_path[row["path"]]
        if row["sha256"] is None:
            raise InputMissing(f"{file.path}: the file vanished, or cannot be read, while it was being taken up")
        if row["size"] != file.size:
            raise InputMissing(f"{file.path}: the file grew or shrank while it was being taken up; run again")
        seen.append(replace(file, sha256=row["sha256"], header=row["header"]))
    return sorted(seen, key=lambda f: f.path)


def digest(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        rows = [digest_file(r["landing"], r["path"]) for r in batch.to_pylist()]
        yield pa.RecordBatch.from_pylist(
            rows,
            pa.schema([("path", pa.string()), ("sha256", pa.string()), ("header", pa.string()), ("size", pa.int64())]),
        )


def digest_file(landing: str, path: str) -> dict[str, Any]:
    files, root = open_landing(landing)
    checksum, size, head = hashlib.sha256(), 0, b""
    try:
        with files.open_input_stream(posixpath.join(root, path), compression=None) as stream:
            while chunk := stream.read(CHUNK):
                if not size:
                    head = chunk[: 1 << 16]
                checksum.update(chunk)
                size += len(chunk)
    except OSError:
        return {"path": path, "sha256": None, "header": None, "size": 0}
    first = head.split(b"\n", 1)[0].rstrip(b"\r").decode("utf-8-sig", errors="replace")
    return {"path": path, "sha256": checksum.hexdigest(), "header": first, "size": size}


def check_header(source: Source, file: Landed) -> None:
    """Refuse a CSV file whose first line does not name the columns of the schema in their order."""
    import csv

    if source.format != "csv" or file.size == 0:
        return
    expected = [n for n, _ in ddl_columns(source.columns or "", file.path)]
    found = next(csv.reader([file.header or ""], delimiter=source.delimiter), [])
    if found != expected:
        wrong = next((pair for pair in zip(expected, found, strict=False) if pair[0] != pair[1]), None)
        detail = f"'{wrong[1]}' stands where '{wrong[0]}' should" if wrong else f"{len(found)} columns"
        raise InputMissing(f"{file.path}: its header is not that of the schema ({len(expected)} columns): {detail}")


def read_files(spark: SparkSession, landing: str, source: Source, table: str, files: list[Landed]) -> DataFrame:
    """The rows of the files with identity, file and day; a malformed line comes as a rejected row.

    Columns are those of the schema, then `_row_id`, `_file`, `_file_date`, `_rejected`.
    """
    root = absolute(landing)
    paths = [f"{root}/{f.path}" for f in files]
    if source.format == "delta":
        rows = read_delta(spark, root, files[0]).withColumn(CORRUPT, F.lit(None).cast("string"))
    elif source.format == "parquet":
        reader = spark.read.schema(source.columns) if source.columns else spark.read
        rows = reader.parquet(*paths).withColumn(CORRUPT, F.lit(None).cast("string"))
    elif source.format == "csv":
        rows = spark.read.csv(
            paths,
            schema=f"{source.columns}, {CORRUPT} STRING",
            header=True,
            sep=source.delimiter,
            nullValue=source.null_value,
            emptyValue="",
            mode="PERMISSIVE",
            columnNameOfCorruptRecord=CORRUPT,
            enforceSchema=True,
            escape='"',
            ignoreLeadingWhiteSpace=False,
            ignoreTrailingWhiteSpace=False,
        )
    else:
        rows = spark.read.json(
            paths,
            schema=f"{source.columns}, {CORRUPT} STRING",
            mode="PERMISSIVE",
            columnNameOfCorruptRecord=CORRUPT,
        )
    columns = [c for c in rows.columns if c != CORRUPT]
    path = relative_path(root)
    dated = DATE_PLACE in source.path
    day = F.regexp_extract(FILE, regex_of(source.path), 1).try_cast("date") if dated else F.lit(None).cast("date")
    rows = rows.withColumn(FILE, F.lit(source.path) if source.format == "delta" else path)
    malformed = F.col(CORRUPT).isNotNull()
    identity = F.when(malformed, row_id(f"{table} malformed", [CORRUPT])).otherwise(
        row_id(table, source.key or columns)
    )
    mark = F.struct(
        F.lit("ingest").alias("step"),
        F.lit("malformed line").alias("reason"),
        F.create_map(F.lit("file"), F.col(FILE), F.lit("text"), F.col(CORRUPT)).alias("evidence"),
    ).cast(REJECTED_TYPE)
    return rows.select(
        *(F.col(quoted(c)) for c in columns),
        identity.alias("_row_id"),
        F.col(FILE),
        day.alias(FILE_DATE),
        F.when(malformed, mark).alias(REJECTED),
    )


def read_delta(spark: SparkSession, root: str, file: Landed) -> DataFrame:
    return spark.read.format("delta").option("versionAsOf", file.size).load(f"{root}/{file.path}")


def count_records(spark: SparkSession, landing: str, source: Source, files: list[Landed]) -> int:
    """How many records the files hold, malformed ones included, counted apart from `read_files`."""
    root = absolute(landing)
    paths = [f"{root}/{f.path}" for f in files]
    if source.format == "delta":
        return read_delta(spark, root, files[0]).count()
    if source.format == "parquet":
        return spark.read.parquet(*paths).count()
    if source.format == "csv":
        return spark.read.csv(paths, header=True, sep=source.delimiter, escape='"').count()
    return spark.read.text(paths).where(F.trim("value") != "").count()


def relative_path(root: str) -> Any:
    """The path of each row's file below the landing folder."""
    name = F.url_decode(F.regexp_replace(F.col("_metadata.file_path"), r"\+", "%2B"))
    prefix = re.escape(root.split("://", 1)[-1].rstrip("/"))
    return F.regexp_replace(name, rf"^.*?{prefix}/", "")


def with_line_numbers(spark: SparkSession, landing: str, rejected: DataFrame) -> DataFrame:
    """Ledger entries of malformed lines, one for each line of the files that holds such a text, with its number.

    Only the files that have malformed lines are read again.
    """
    root = absolute(landing)
    wanted = rejected.select(
        "row_id", "step", "reason", F.col("evidence")["file"].alias("file"), F.col("evidence")["text"].alias("text")
    ).distinct()
    paths = [f"{root}/{r['file']}" for r in wanted.select("file").distinct().collect()]
    if not paths:
        return rejected
    lines = (
        spark.read.text(paths, wholetext=True)
        .select(relative_path(root).alias("file"), F.posexplode(F.split("value", "\r?\n")))
        .select("file", (F.col("pos") + 1).alias("line"), F.col("col").alias("text"))
    )
    return (
        wanted.alias("w")
        .join(lines.alias("l"), on=["file", "text"], how="left")
        .select(
            "row_id",
            "step",
            "reason",
            F.create_map(
                F.lit("file"), F.col("file"), F.lit("line"), F.col("line").cast("string"), F.lit("text"), F.col("text")
            ).alias("evidence"),
        )
    )
