"""Files that a command is given: of which kind they are, their columns, and the source that they make, as in YAML."""

import csv
import io
import itertools
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from headgate.jobs.cli.own_words import need_writable
from headgate.jobs.config.columns import name_of
from headgate.jobs.config.models import DATE_PLACE
from headgate.jobs.config.source_checks import ddl_columns
from headgate.jobs.errors import InputMissing, UsageError
from headgate.jobs.lake.lake import Lake
from headgate.jobs.sources.documents import Malformed, loaded
from headgate.jobs.sources.inspection import inspect_file
from headgate.transforms.rows import is_own, quoted
from headgate.words import cell, did_you_mean

FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".avro": "avro",
}
PACKED = (".gz", ".bz2", ".zst")
DELIMITERS = (",", ";", "\t", "|")
SAMPLE = 20_000  # records whose members tell those of JSON lines


def need_columns(option: str, wanted: Iterable[str], columns: Sequence[str]) -> None:
    seen: set[str] = set()
    for column in wanted:
        if column in seen:
            raise UsageError(f"{option}: '{column}' is named twice")
        seen.add(column)
        if column not in columns:
            there = f" (columns: {', '.join(columns)})"
            raise UsageError(f"{option}: there is no column '{column}'{did_you_mean(column, columns)}{there}")


def source_of(
    path: Path,
    key: Sequence[str],
    schema: str,
    delimiter: str | None,
    lake: Lake,
    table: str,
    raw: bool = False,
) -> tuple[str, dict[str, Any], dict[str, str]]:
    """The landing folder, the source as in YAML, and columns with types of a file or of a folder of files of one kind.

    What the table holds already decides columns and types, what was taken up first the delimiter. raw: the table stands
    for a source with steps, so that columns may have names that cannot be published.
    """
    if (path / "_delta_log").is_dir():
        raise UsageError(f"{path}: a Delta table; give a table of the lake by its name, another as a source in YAML")
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.is_file() and kind_of(p) and not p.name.startswith("."))
        if not files:
            raise InputMissing(f"{path}: no file in it ends in one of {', '.join(FORMATS)}")
    else:
        files = [path]
        if "*" in path.name or DATE_PLACE in path.name:
            raise UsageError(f"{path}: '*' and '{DATE_PLACE}' in a name stand for others; rename the file")
    kinds = {kind_of(p) for p in files}
    if None in kinds:
        raise UsageError(f"{path}: the file ends in none of {', '.join(FORMATS)}")
    endings = {ending_of(p).lower() for p in files}
    if len(endings) > 1:
        raise UsageError(
            f"{path}: holds files of several kinds ({', '.join(sorted(endings))}); give one kind its own folder"
        )
    (ending,), (kind,) = endings, kinds
    if schema and kind not in ("csv", "jsonl"):
        raise UsageError(f"--schema: {kind} files have types of their own; leave it out")
    if delimiter is not None and kind != "csv":
        raise UsageError(f"--delimiter: of csv files, not of {kind}")
    source: dict[str, Any] = {"format": kind, "path": path.name, "key": list(key)}
    if path.is_dir():
        source |= {"path": f"*{ending}", "any_case": any(ending_of(p) != ending for p in files)}
    known = lake.files_of(table)
    # Those taken up before come first, so that one of later nights changes nothing.
    order = {p: (f["base"], p) for p, f in known.items()}
    files.sort(key=lambda p: (p.name not in order, order.get(p.name, ()), p.name))
    delta = lake.open(table)
    before = types_of(pa.schema(delta.schema().to_arrow())) if delta else {}
    before = {name_of(c): kind for c, kind in before.items()} if raw else before
    given_types = dict(ddl_columns(schema, "--schema")) if schema else {}
    if kind in ("parquet", "avro"):
        columns = typed_columns(files, str(kind))
    elif kind == "csv":
        names, source["delimiter"] = header_of(files, delimiter, list(before))
        columns = dict.fromkeys(before or names, "STRING")
    else:
        names = members_of(files, {*key, *given_types})
        columns = dict.fromkeys([*before, *names], "STRING")
        source["on_other_columns"] = "evolve"  # a record names the members that it has; another may have more
    if not raw:
        need_writable(path, columns)
    need_columns("--schema", given_types, list(columns))
    need_columns("--key", key, list(columns))
    if kind in ("csv", "jsonl"):
        for name, wanted in given_types.items():
            if name in before and same_type(before[name]) != same_type(wanted):
                raise UsageError(
                    f"--schema: the column '{name}' of table '{table}' is {before[name]} since its first file, not "
                    f"{wanted}; give --into another name"
                )
        columns |= given_types | {n: t for n, t in before.items() if n in columns}
        source["schema"] = ", ".join(f"{quoted(c)} {t}" for c, t in columns.items())
    return str(path if path.is_dir() else path.parent), source, columns


def kind_of(path: Path) -> str | None:
    ending = path.suffix.lower()
    return FORMATS.get(Path(path.stem).suffix.lower() if ending in PACKED else ending)


def ending_of(path: Path) -> str:
    return "".join(path.suffixes[-2:] if path.suffix.lower() in PACKED else path.suffixes[-1:])


def types_of(schema: pa.Schema) -> dict[str, str]:
    """The columns of a table but headgate's own, with their types as in DDL."""
    from pyspark.sql.pandas.types import from_arrow_type

    return {f.name: as_ddl(from_arrow_type(f.type).simpleString()) for f in schema if not is_own(f.name)}


def as_ddl(kind: str) -> str:
    return kind.upper().replace("TIMESTAMP_NTZ", "TIMESTAMP")


def same_type(kind: str) -> str:
    words = {"INTEGER": "INT", "LONG": "BIGINT", "SHORT": "SMALLINT", "BYTE": "TINYINT", "REAL": "FLOAT"}
    text = re.sub(r"\s+", "", kind.upper())
    return words.get(text, text.replace("NUMERIC", "DECIMAL"))


def typed_columns(files: Sequence[Path], kind: str) -> dict[str, str]:
    """The columns of the first file that has a problem or columns."""
    file = next((f for f in files if f.stat().st_size), files[0])
    given_types = inspect_file(str(file.parent), file.name, kind)
    if given_types["problem"] or given_types["columns"] is None:
        raise InputMissing(f"{file}: {given_types['problem'] or 'cannot be read'}")
    return {name: as_ddl(kind) for name, kind in given_types["columns"].items()}


def lines_of(file: Path) -> Iterator[str]:
    """The lines of a text file with their ends, unpacked by its ending; raises `InputMissing` where it is none."""
    packed = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}.get(file.suffix.lower())
    try:
        with pa.input_stream(str(file), compression=packed) as raw:
            yield from io.TextIOWrapper(raw, "utf-8-sig", newline="")
    except UnicodeDecodeError as e:
        convert = f"iconv -f latin1 -t utf-8 {shlex.quote(str(file))}"
        raise InputMissing(f"{file}: not a text file in UTF-8 ({e.reason}); one in Latin-1: {convert} > NEW") from e
    except (OSError, EOFError, pa.ArrowException) as e:
        raise InputMissing(f"{file}: cannot be read: {e}") from e


def header_of(files: Sequence[Path], delimiter: str | None, before: Sequence[str]) -> tuple[list[str], str]:
    """The columns of the first file with a header, and its delimiter.

    The delimiter is the one that stands most often in the header outside quotes; of a table that has columns, the one
    that gives those. None: one column. Raises `UsageError` where two stand equally often.
    """
    for file in files:
        lines = lines_of(file)
        first = next(lines, None)
        if first is None:
            continue
        bare = re.sub(r'"[^"]*"', "", first)
        counts = {d: bare.count(d) for d in DELIMITERS if d in bare}
        often = [d for d, n in counts.items() if n == max(counts.values())]
        if delimiter is None and before:
            often = [
                d for d in DELIMITERS if sorted(next(csv.reader([first], delimiter=d), [])) == sorted(before)
            ] or often
        if delimiter is None and len(often) > 1:
            seen = " and ".join(repr(d) for d in often)
            raise UsageError(f"{file}: {seen} stand equally often in its header; say which by --delimiter")
        chosen = delimiter if delimiter is not None else often[0] if often else ","
        if len(chosen) != 1 or chosen in '"\r\n':
            raise UsageError(f"--delimiter: {chosen!r} is not one character other than a quote or a line break")
        try:
            names = next(csv.reader(itertools.chain([first], lines), delimiter=chosen, strict=True), [])
        except csv.Error as e:
            raise InputMissing(f"{file}: its header cannot be read: {e}") from e
        for i, name in enumerate(names):
            if not name:
                raise InputMissing(f"{file}: column {i + 1} of its header has no name")
            if name.lower() in (n.lower() for n in names[:i]):
                raise InputMissing(f"{file}: its header names the column {cell(name)} twice")
        if names:
            return names, chosen
    raise InputMissing(f"{files[0]}: the file is empty, so it does not tell its columns")


def members_of(files: Sequence[Path], wanted: set[str]) -> list[str]:
    """The members of the first records of JSON lines; of all records where one of the wanted ones was not yet seen."""
    names: dict[str, None] = {}
    seen = 0
    for line in itertools.chain.from_iterable(map(lines_of, files)):
        try:
            names |= dict.fromkeys(loaded(line))
            seen += 1
        except Malformed:
            continue
        if seen >= SAMPLE and wanted <= set(names):
            break
    if not names:
        empty = not any(f.stat().st_size for f in files)
        why = "the file is empty, so it does not tell its columns" if empty else "no line of it is a JSON object"
        raise InputMissing(f"{files[0]}: {why}")
    return list(names)
