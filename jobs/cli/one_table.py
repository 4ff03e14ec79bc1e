"""Commands that make one table of a file, a folder or a table: the shared front, a pipeline made of options."""

import csv
import io
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import pyarrow as pa

from headgate.jobs.cli import places
from headgate.jobs.cli.own_words import files_as_given, need_writable, not_selected
from headgate.jobs.config.columns import ARRIVES
from headgate.jobs.config.document import Yaml
from headgate.jobs.config.models import DATE_PLACE, Environment, FileSource
from headgate.jobs.config.pipeline import Pipeline, check_pipeline
from headgate.jobs.config.source_checks import ddl_columns
from headgate.jobs.errors import InputMissing, UsageError
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.system import TABLE_NAME
from headgate.jobs.pipeline import run as runs
from headgate.jobs.pipeline.outcome import Outcome
from headgate.jobs.progress import Progress
from headgate.jobs.sources.documents import Malformed, loaded
from headgate.jobs.sources.files import list_files
from headgate.jobs.sources.inspection import inspect_file
from headgate.transforms.rows import is_own, quoted
from headgate.words import cell, did_you_mean, rejected_line

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
NAMED = 3  # of the files that are passed over


@dataclass(frozen=True)
class Options(Yaml):
    """The pipeline that options ask for, whose places are told as those options."""

    named: Mapping[Any, str] = field(default_factory=dict)
    command: str = ""

    def at(self, *place: Any) -> str:
        inner = next((p for p in reversed(place[2:]) if p in self.named), None)
        return self.named.get(inner if inner is not None else ("table", *place[1:2]), self.command)


@dataclass(frozen=True)
class Request:
    """A request by options: of `given` (a file, a folder or a table of the lake) the table `into`.

    command: the one that asks. where: SQL that a row must fulfil.
    """

    command: str
    given: str
    into: str
    key: Sequence[str] = ()
    schema: str = ""
    delimiter: str | None = None
    where: str | None = None


@dataclass(frozen=True)
class Start:
    """The table that a request starts from: its columns with their types, and where it is read from files the source.

    landing: the folder of the files. given_types: of columns that --schema types.
    """

    table: str
    columns: Mapping[str, str]
    landing: str = "."
    source: Mapping[str, Any] | None = None
    given_types: Mapping[str, str] = field(default_factory=dict)


def start_of(request: Request, lake: Lake, made: Sequence[str] = ()) -> Start:
    """Return what a request starts from; raise `UsageError` where a table that it makes is there and not of its kind.

    made: the tables that are made; none: `into` alone.

    Files are taken up into a table `<into>_input`, so that new ones are told from known ones and a removed row can
    still be read there. Columns of text files are text, but for those that `schema` (DDL) gives another type; columns
    and types of later files are those of the first.
    """
    into, given = request.into, request.given
    if not re.match(TABLE_NAME, into):
        raise UsageError(f"--into: '{into}' is not a valid table name: use lower-case letters, digits and '_'")
    stands = next((t for t in (*(made or [into]), f"{into}_input") if lake.open(t) is not None), None)
    if stands and f"{request.command}_{into}" not in lake.system("runs")["pipeline"].to_pylist():
        raise UsageError(
            f"--into: the table '{stands}' exists and is not of `headgate {request.command}`; choose another name"
        )
    path = Path(given)
    if os.path.lexists(path):
        start = f"{into}_input"
        landing, source, columns = source_of(path, request.key, request.schema, request.delimiter, lake, start)
        given_types = dict(ddl_columns(request.schema, "--schema")) if request.schema else {}
        return Start(start, columns, landing, source, given_types)
    if re.match(TABLE_NAME, given) and given in lake.tables():
        return Start(given, columns_of_table(request, lake))
    raise no_such_input(given, lake)


def checked(
    request: Request,
    start: Start,
    made: Mapping[str, Sequence[tuple[str, Mapping[str, Any]]]],
    places: Mapping[Any, str],
    mode: str = "auto",
) -> Pipeline:
    """Return the pipeline that builds tables, each by some steps, checked as one written in YAML is.

    places: option of a step, or its name -> the command's own option, for messages.
    """
    tables: dict[str, Any] = {}
    if start.source is not None:
        tables[start.table] = {"source": start.source, "suite": None}
    for table, steps in made.items():
        tables[table] = {
            "from": start.table,
            "suite": None,
            "steps": [{name: dict(options)} for name, options in (*not_selected(request.where, start.columns), *steps)],
            "publish": {"mode": mode},
        }
    named: dict[Any, str] = {"path": request.given, ("table", start.table): request.given}
    named |= {("table", table): "--into" for table in made}
    named |= {option: f"--{option}" for option in ("schema", "key", "delimiter", "where")} | {"reject_rows": "--where"}
    document = Options(
        Path(request.command),
        {"pipeline": f"{request.command}_{request.into}", "tables": tables},
        {},
        {**named, **places},
        request.command,
    )
    return check_pipeline(document, {start.table: {**dict.fromkeys(start.columns), **ARRIVES}})


def columns_of_table(request: Request, lake: Lake) -> dict[str, str]:
    """Return the user's columns of a table that is the input, with types; refuse options that only files take."""
    given = request.given
    for option, value in (("--key", request.key), ("--schema", request.schema), ("--delimiter", request.delimiter)):
        if value:
            raise UsageError(f"{option}: '{given}' is a table, whose rows and columns are what they are; leave it out")
    if request.into == given:
        raise UsageError(f"--into: '{given}' is the input; name another table")
    return types_of(pa.schema(lake.need_table(given).schema().to_arrow()))


def need_columns(option: str, wanted: Iterable[str], columns: Sequence[str]) -> None:
    seen: set[str] = set()
    for column in wanted:
        if column in seen:
            raise UsageError(f"{option}: '{column}' is named twice")
        seen.add(column)
        if column not in columns:
            there = f" (columns: {', '.join(columns)})"
            raise UsageError(f"{option}: there is no column '{column}'{did_you_mean(column, columns)}{there}")


def no_such_input(given: str, lake: Lake) -> InputMissing:
    """Return the error of an input that is neither a file or folder nor a table, with the nearest name of either."""
    known, folder = lake.tables(), Path(given).parent
    beside = [str(p) for p in folder.iterdir()] if folder.is_dir() else []
    held = f"; the lake {lake.root} has {', '.join(known)}" if known else ""
    hint = did_you_mean(given, [*known, *beside])
    return InputMissing(f"{given}: neither a file or folder nor a table of the lake{hint}{held}")


def source_of(
    path: Path, key: Sequence[str], schema: str, delimiter: str | None, lake: Lake, table: str
) -> tuple[str, dict[str, Any], dict[str, str]]:
    """The landing folder, the source as in YAML, and columns with types of a file or of a folder of files of one kind.

    What the table holds already decides columns and types, what was taken up first the delimiter.
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
        raise InputMissing(f"{file}: not a text file in UTF-8 ({e.reason})") from e
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


def passed_over(folder: str, source: FileSource) -> str:
    """Return what lies in a folder and is not taken up, and why; nothing where all is."""
    taken = {f.path for f in list_files(folder, source, None).files}
    groups: dict[str, list[str]] = {"sub-folders": [], "hidden files": [], "files with another ending": []}
    for path in sorted(Path(folder).iterdir()):
        if path.name not in taken:
            hidden = "hidden files" if path.name.startswith((".", "_")) else "files with another ending"
            groups["sub-folders" if path.is_dir() else hidden].append(path.name)
    parts = [
        f"{len(found)} {why} ({', '.join(found[:NAMED])}{', …' if len(found) > NAMED else ''})"
        for why, found in groups.items()
        if found
    ]
    return f"not taken up from {folder}: {', '.join(parts)}" if parts else ""


def need_some_rows(lake: Lake, outcome: Outcome, given: str, table: str) -> None:
    """Raise `InputMissing` with the reasons in the ledger, where records came in and none could be published."""
    record = next((r for r in outcome.tables if r.table == table), None)
    if record is None:
        return
    if record.built:
        reasons = {} if record.published else record.rejected
    else:
        facts = (lake.last_build(table) or {}) if record.rows == 0 else {}
        reasons = facts.get("rows", {}).get("rejected", {})
    if reasons:
        given_types = ", ".join(rejected_line(why, n) for why, n in sorted(reasons.items(), key=lambda r: -r[1]))
        raise InputMissing(
            f"{given}: none of its records could be published ({given_types}); the ledger has each with its text"
        )


def built(request: Request, start: Start, pipeline: Pipeline, environment: Environment, lake: Lake) -> Outcome:
    """Run a request's pipeline, say what was passed over, and return what the run did.

    Raises `InputMissing` where records came in and none could be published.
    """
    taken = pipeline.tables[start.table].source if start.table in pipeline.tables else None
    if isinstance(taken, FileSource) and Path(request.given).is_dir():
        notice = passed_over(start.landing, taken)
        if notice:
            click.echo(notice, err=True)
    environment = environment.model_copy(update={"landing": start.landing})
    with places.spark_of(environment) as spark, files_as_given():
        outcome = runs.run(pipeline, environment, lake, spark, Progress())
    need_some_rows(lake, outcome, request.given, start.table)
    return outcome
