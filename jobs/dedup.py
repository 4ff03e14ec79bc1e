"""`headgate dedup`: one table, or what lies in a file or folder, without its duplicates; a pipeline made of options."""

import glob
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.compute as pc
import pydantic

from jobs.config import FileSource, Pipeline, Publish, Table
from jobs.errors import InputMissing, UsageError
from jobs.inspection import inspect_file
from jobs.lake import TABLE_NAME, Lake
from transforms.rows import FILE, FILE_DATE, ROW_ID, is_own, quoted
from transforms.step import Step, StepError, nearest
from transforms.steps import STEPS, options_of

FORMATS = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".avro": "avro",
}
PACKED = (".gz", ".bz2", ".zst")
# What DuckDB infers, as Spark names it; all else is read as text.
TYPES = {"BIGINT": "BIGINT", "INTEGER": "INT", "DOUBLE": "DOUBLE", "BOOLEAN": "BOOLEAN", "DATE": "DATE"}
BIGGEST = 5
GIANT = 100


def pipeline_of(
    given: str, into: str, lake: Lake, key: Sequence[str], steps: Sequence[tuple[str, Mapping[str, Any]]]
) -> tuple[Pipeline, str]:
    """The pipeline that builds `into` from a file, a folder or a table of the lake; and its landing folder.

    Files are taken up into a table `<into>_input`, so that new ones are told from known ones and a removed row can
    still be read there; `into` grows by what its input gained.
    """
    if not re.match(TABLE_NAME, into):
        raise UsageError(f"--into: '{into}' is no name of a table: lower-case letters, digits and _")
    path = Path(given)
    tables: dict[str, Table] = {}
    if path.exists():
        start = f"{into}_input"
        landing, source, columns = source_of(path, key)
        tables[start] = Table(source=source, suite=None)
        columns = [*columns, FILE, FILE_DATE]
    elif given in lake.tables():
        start, landing = given, "."
        columns = [f.name for f in lake.need_table(given).schema().fields]
        if key:
            raise UsageError(f"--key: the rows of the table '{given}' have their ids already; leave it out")
        if into == given:
            raise UsageError(f"--into: '{into}' is the input; name another table")
    else:
        known = lake.tables()
        there = f"; the lake {lake.root} has {', '.join(known)}" if known else ""
        raise InputMissing(f"{given}: neither a file or folder nor a table of the lake{nearest(given, known)}{there}")
    made: list[Step] = []
    have = [c for c in columns if not is_own(c) or c in (FILE, FILE_DATE)]
    for name, options in steps:
        try:
            step = options_of(STEPS[name]).validate_python(dict(options))
            have = step.names_after(have, {})
        except StepError as e:
            raise UsageError(str(e)) from None
        except pydantic.ValidationError as e:
            raise UsageError("; ".join(f"--{err['loc'][0]}: {err['msg']}" for err in e.errors())) from None
        made.append(step)
    tables[into] = Table.model_validate({"from": start, "suite": None, "publish": Publish(mode="increment")})
    named = dict.fromkeys(tables)
    pipeline = Pipeline(
        name=f"dedup_{into}",
        tables=tables,
        steps={**dict.fromkeys(tables, ()), into: tuple(made)},
        suites=named,
        code=dict(named),
    )
    return pipeline, landing


def source_of(path: Path, key: Sequence[str]) -> tuple[str, FileSource, list[str]]:
    """The landing folder, the source and the columns of a file or of a folder of files of one kind."""
    files = sorted(p for p in path.iterdir() if p.is_file() and kind_of(p)) if path.is_dir() else [path]
    if not files:
        raise InputMissing(f"{path}: no file in it ends in one of {', '.join(FORMATS)}")
    endings = {"".join(p.suffixes[-2:] if p.suffix in PACKED else p.suffixes[-1:]) for p in files}
    kinds = {kind_of(p) for p in files}
    if None in kinds:
        raise UsageError(f"{path}: the file ends in none of {', '.join(FORMATS)}")
    if len(endings) > 1:
        raise UsageError(
            f"{path}: holds files of several kinds ({', '.join(sorted(endings))}); give one kind its own folder"
        )
    (ending,), (kind,) = endings, kinds
    columns = columns_of(files[0], str(kind))
    for column in key:
        if column not in columns:
            raise UsageError(
                f"--key: there is no column '{column}'{nearest(column, list(columns))} (columns: {', '.join(columns)})"
            )
    landing = path if path.is_dir() else path.parent
    options: dict[str, Any] = {"format": kind, "path": f"*{ending}" if path.is_dir() else path.name, "key": tuple(key)}
    if kind in ("csv", "jsonl"):
        options["schema"] = ", ".join(f"{quoted(c)} {t}" for c, t in columns.items())
    return str(landing), FileSource.model_validate(options), list(columns)


def kind_of(path: Path) -> str | None:
    return FORMATS.get(Path(path.stem).suffix if path.suffix in PACKED else path.suffix)


def columns_of(file: Path, kind: str) -> dict[str, str]:
    """The columns of a file with their types in Spark's words, as DuckDB reads them."""
    if kind in ("parquet", "avro"):
        told = inspect_file(str(file.parent), file.name, kind, "utf-8", 1 << 24)
        if told["problem"] or told["columns"] is None:
            raise InputMissing(f"{file}: {told['problem'] or 'cannot be read'}")
        return dict(told["columns"])
    if not file.stat().st_size:
        raise InputMissing(f"{file}: the file is empty, so it does not tell its columns")
    reader = "read_csv" if kind == "csv" else "read_json"
    extra = ", header=true" if kind == "csv" else ", format='newline_delimited'"
    name = glob.escape(str(file)).replace("'", "''")
    try:
        rows = duckdb.sql(f"DESCRIBE SELECT * FROM {reader}('{name}', sample_size=20000{extra})").fetchall()
    except duckdb.Error as e:
        raise InputMissing(f"{file}: cannot be read as {kind}: {str(e).splitlines()[0]}") from None
    return {row[0]: TYPES.get(row[1], "STRING") for row in rows}


def clusters(lake: Lake, table: str, build: str, column: str | None = None) -> list[dict[str, Any]]:
    """The rows that stand for most others, by the ledger of a build or a table's cluster column.

    weakest: the least similarity of any of the others with the row itself, null where they are equal by columns.
    giant: whether the others are more than `GIANT` and more than a hundredth of the table; then the threshold is
    perhaps too low, or the texts share a frame that `drop_repeated_lines` takes out.
    """
    rows = lake.need_table(table).to_pyarrow_dataset()
    total = rows.count_rows()
    if column is None:
        if lake.open("ledger") is None:
            return []
        wanted = (pc.field("table") == table) & (pc.field("build") == build)
        entries = lake.need_table("ledger").to_pyarrow_dataset().to_table(columns=["evidence"], filter=wanted)
        query = """SELECT evidence['kept_row_id'] AS kept, count(*) AS others,
                     min(try_cast(evidence['score'] AS DOUBLE)) AS weakest FROM entries"""
    else:
        names = [ROW_ID, column, f"{column}_similarity"]
        entries = rows.to_table(columns=names).rename_columns(["id", "kept", "score"])
        query = "SELECT kept, count(*) AS others, min(score) AS weakest FROM entries WHERE kept <> id"
    chosen = f"SELECT * FROM ({query} GROUP BY ALL) WHERE kept IS NOT NULL ORDER BY others DESC, kept LIMIT {BIGGEST}"
    found = duckdb.from_arrow(entries).query("entries", chosen)
    return [
        {"row_id": kept, "others": n, "weakest": weakest, "giant": n > GIANT and n > total / 100}
        for kept, n, weakest in found.fetchall()
    ]
