"""Commands that make one table of a file, a folder or a table: the shared front, a pipeline made of options."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import pyarrow as pa

from headgate.jobs.cli import places
from headgate.jobs.cli.given_files import source_of, types_of
from headgate.jobs.cli.own_words import files_as_given, not_selected
from headgate.jobs.config.columns import ARRIVES
from headgate.jobs.config.document import Yaml
from headgate.jobs.config.models import Environment, FileSource
from headgate.jobs.config.pipeline import Pipeline, check_pipeline
from headgate.jobs.config.source_checks import ddl_columns
from headgate.jobs.errors import InputMissing, UsageError
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.system import TABLE_NAME
from headgate.jobs.pipeline import run as runs
from headgate.jobs.pipeline.outcome import Outcome
from headgate.jobs.progress import Progress
from headgate.jobs.sources.files import list_files
from headgate.words import did_you_mean, rejected_line

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


def no_such_input(given: str, lake: Lake) -> InputMissing:
    """Return the error of an input that is neither a file or folder nor a table, with the nearest name of either."""
    known, folder = lake.tables(), Path(given).parent
    beside = [str(p) for p in folder.iterdir()] if folder.is_dir() else []
    held = f"; the lake {lake.root} has {', '.join(known)}" if known else ""
    hint = did_you_mean(given, [*known, *beside])
    return InputMissing(f"{given}: neither a file or folder nor a table of the lake{hint}{held}")


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
