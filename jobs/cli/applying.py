"""The pipeline that `headgate apply` builds: new rows, and the steps of a table as one of its builds applied them."""

import dataclasses
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headgate.jobs.cli.given_files import kind_of, need_columns, source_of, typed_columns
from headgate.jobs.cli.one_table import Options, no_such_input
from headgate.jobs.config.columns import ARRIVES
from headgate.jobs.config.own_steps import code_of_step
from headgate.jobs.config.pipeline import Pipeline, check_pipeline
from headgate.jobs.errors import InputMissing, UsageError
from headgate.jobs.explore.diff import version_of as at_version
from headgate.jobs.lake.columns import columns_in, type_of
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.system import TABLE_NAME
from headgate.jobs.pipeline.new_rows import Learned, check_columns, for_new_rows, learned_by, undoing
from headgate.transforms.balancing.split import NEW, SplitByHash
from headgate.transforms.cleaning.columns import Derive
from headgate.transforms.kinds import simple
from headgate.transforms.rows import SPLIT, TRAIN, is_own, quoted
from headgate.transforms.scaling.undo import UndoStep
from headgate.transforms.step import Step


@dataclass(frozen=True, kw_only=True)
class Application:
    """A request by options: to new rows of `given` (a file, a folder or a table) the steps of `table`, into `into`.

    table: as TABLE, TABLE@RELEASE or TABLE@VERSION. without: columns that the new rows do not have. inverse: undo the
    steps. suite: the file of a suite that gates the result. steps_from: files with steps of the user's own.
    """

    table: str
    given: str
    into: str
    key: Sequence[str] = ()
    delimiter: str | None = None
    without: Sequence[str] = ()
    inverse: bool = False
    suite: str | None = None
    steps_from: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Applied:
    """What is built: the pipeline, its landing folder, the table of the new rows, and what is done to them."""

    pipeline: Pipeline
    landing: str
    begins: str
    made_by: str  # the version whose steps these are
    steps: Sequence[str]
    left_out: Sequence[str]


def pipeline_of(request: Application, lake: Lake) -> Applied:
    """Return the pipeline that builds `into`; new files are taken up into `<into>_input`.

    Raises `UsageError` for columns other than those that the steps know, and for steps that cannot be applied to new
    rows, or not be undone; `InputMissing` where table, release, state or input are not there.
    """
    into = request.into
    if not re.match(TABLE_NAME, into):
        raise UsageError(f"--into: '{into}' is not a valid table name: use lower-case letters, digits and '_'")
    table, version = version_of(lake, request.table)
    learned = learned_by(lake, table, version, [Path(f) for f in request.steps_from])
    stands = next((t for t in (into, f"{into}_input") if lake.open(t) is not None), None)
    if stands and f"apply_{into}" not in lake.system("runs")["pipeline"].to_pylist():
        raise UsageError(f"--into: the table '{stands}' exists and is not of `headgate apply`; choose another name")
    start, landing, source, found = rows_of(request, lake)
    published = published_columns(lake, learned)
    left_out: list[Step] = []
    if request.inverse:
        if request.without:
            raise UsageError("--without cannot be combined with --inverse, which undoes what is there")
        check_columns(request.given, found, published, (), all_of=False)
        wanted = published
        steps = undoing(learned, list(found), list(published))
    else:
        wanted = {c: kind for c, kind in learned.columns.items() if c != SPLIT}
        need_columns("--without", request.without, list(wanted))
        check_columns(request.given, found, wanted, request.without, all_of=True)
        steps, left_out = for_new_rows(learned)
        steps = [*made_up(request.without, learned), *steps]
    tables: dict[str, Any] = {}
    if source is not None:
        if source["format"] in ("csv", "jsonl"):
            source["schema"] = ", ".join(f"{quoted(c)} {wanted[c]}" for c in found)
            source.pop("on_other_columns", None)
        tables[start] = {"source": source, "suite": None}
    suites, suite = suite_in(request.suite)
    tables[into] = {"from": start, "suite": suite}
    places: dict[Any, str] = {"path": request.given, "key": "--key", "delimiter": "--delimiter", "suite": "--suite"}
    places |= {("table", into): "--into", ("table", start): request.given}
    written = {"pipeline": f"apply_{into}", "suites": suites, "tables": tables}
    document = Options(Path(os.curdir) / "apply", written, {}, places, "apply")
    there: dict[str, Any] = {} if source is not None else {start: {**found, **ARRIVES}}
    pipeline = check_pipeline(document, there)
    placed = tuple(step.at(f"{into}/{i}-{step.name}") for i, step in enumerate(steps))
    own = sorted((s.name, code) for s in placed if (code := code_of_step(type(s))) is not None)
    return Applied(
        pipeline=dataclasses.replace(
            pipeline,
            steps={**pipeline.steps, into: placed},
            code={**pipeline.code, into: str(own) if own else None},
            pins=learned.pins,
        ),
        landing=landing,
        begins=start,
        made_by=f"{table}@{learned.published.version}",
        steps=[told(s) for s in steps],
        left_out=[s.id for s in left_out],
    )


def told(step: Step) -> str:
    return f"undo {step.step}" if isinstance(step, UndoStep) else step.id


def version_of(lake: Lake, text: str) -> tuple[str, int | None]:
    """Return table and version of TABLE, TABLE@RELEASE or TABLE@VERSION; None is the newest version."""
    if "@" in text:
        return at_version(lake, text)
    lake.need_table(text)
    return text, None


def published_columns(lake: Lake, learned: Learned) -> dict[str, str]:
    """Return the columns of the published version with their types, without headgate's own."""
    text = lake.columns_json(learned.published.table, learned.published.version)
    return {f["name"]: type_of(f["type"]) for f in json.loads(text)["fields"] if not is_own(f["name"])}


def rows_of(request: Application, lake: Lake) -> tuple[str, str, dict[str, Any] | None, dict[str, str | None]]:
    """Return the table of the new rows, its landing folder, its source (None: it is in the lake), and its columns.

    The types of text files are not known: None.
    """
    given, start = request.given, f"{request.into}_input"
    path = Path(given)
    if os.path.lexists(path):
        landing, source, columns = source_of(path, request.key, "", request.delimiter, lake, start)
        kinds: Mapping[str, Any] = {}
        if source["format"] in ("parquet", "avro"):
            files = sorted(p for p in path.iterdir() if kind_of(p)) if path.is_dir() else [path]
            kinds = {c: simple(k) for c, k in typed_columns(files, source["format"]).items()}
        source |= {"on_changed_file": "replace"}
        return start, landing, source, {c: kinds.get(c) for c in columns}
    if not re.match(TABLE_NAME, given) or given not in lake.tables():
        raise no_such_input(given, lake)
    for option, value in (("--key", request.key), ("--delimiter", request.delimiter)):
        if value:
            raise UsageError(f"{option}: '{given}' is a table, whose rows and columns are what they are; leave it out")
    if request.into == given:
        raise UsageError(f"--into: '{given}' is the input; name another table")
    return given, ".", None, {c: kind for c, kind in (columns_in(lake, given) or {}).items() if not is_own(c)}


def made_up(without: Sequence[str], learned: Learned) -> list[Step]:
    """Return the steps that add what new rows do not have: columns left out, as nulls, and the split of the others."""
    steps: list[Step] = []
    if without:
        steps.append(Derive(columns={c: f"CAST(NULL AS {learned.columns[c]})" for c in without}))
    if SPLIT in learned.columns:
        steps.append(SplitByHash(key=(), shares={TRAIN: 0.0, NEW: 1.0}))
    return steps


def suite_in(file: str | None) -> tuple[str, str | None]:
    """Return the folder of a suite's file, and the suite's name."""
    if file is None:
        return ".", None
    path = Path(file)
    if not path.is_file():
        raise InputMissing(f"--suite: there is no file {file}")
    if path.suffix != ".yaml":
        raise UsageError(f"--suite: the name of {file} does not end in .yaml")
    return str(path.parent.absolute()), path.stem
