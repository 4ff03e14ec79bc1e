"""The plan of a run, what is to be built and why: pins, build keys, new files. Needs no Spark."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

from headgate.jobs.config.columns import source_columns, stored_name
from headgate.jobs.config.models import Environment, FileSource, Frozen
from headgate.jobs.config.pipeline import Pipeline
from headgate.jobs.errors import InputMissing, UsageError
from headgate.jobs.lake.columns import columns_in
from headgate.jobs.lake.commits import Published
from headgate.jobs.lake.confirmations import confirmations
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.storage import is_remote
from headgate.jobs.pipeline.fitted import state_to_apply
from headgate.jobs.pipeline.work import Pin, build_key, digest
from headgate.jobs.sources.base import source_name
from headgate.jobs.sources.files import list_files, nearest, new_files
from headgate.jobs.sources.landing import LandedFile
from headgate.words import counted

MOST_NOTES = 3
SUITE_CHANGED = "its suite, or a table that the suite reads, changed: it is judged again"


@dataclass(frozen=True)
class TablePlan:
    """The plan for one table: build it (`why`), judge it again (not `judged`), or neither."""

    table: str
    why: str | None  # None: its rows are up to date
    current: Published | None
    build: str  # that published the present rows
    judge_key: str  # of all that decides the verdict on given rows
    judged: bool  # whether the present rows were found good by just this
    build_key: str | None = None  # None where it is only known once files were read
    state: str | None = None  # the key of the build whose fitted state is applied; None: the steps learn anew
    fitted_on: str | None = None  # the day on which that was learned
    pins: Mapping[str, Pin] = field(default_factory=dict)  # of what the rows are made from
    parents: Mapping[str, int] = field(default_factory=dict)  # of what the suite reads besides
    before: Mapping[str, Any] = field(default_factory=dict)  # the pins of the present rows, or equal later ones
    fresh: tuple[LandedFile, ...] = ()
    known: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # files taken up before
    forced: bool = False  # built anew though nothing changed
    notes: tuple[str, ...] = ()  # what a person should know though nothing stops

    @property
    def base(self) -> int:
        """The version that the build starts from; -1 for a table that does not exist."""
        return self.current.version if self.current else -1

    @property
    def why_to_act(self) -> str | None:
        """Return why anything is to be done; None if nothing is."""
        return self.why or (None if self.judged else SUITE_CHANGED)


def plan_table(
    pipeline: Pipeline, environment: Environment, lake: Lake, table: str, as_of: date | None, force: bool = False
) -> TablePlan:
    """Plan one table on the present versions of its inputs; raise `InputMissing` where there is nothing to read."""
    current = lake.published(table)
    pins = {name: pinned(pipeline, lake, table, name, as_of) for name in sorted(pipeline.made_from(table))}
    parents = suite_parents(pipeline, lake, table, pins)
    judge_key = key_of_suite(pipeline, table, parents)
    last = present_build(lake, current)
    confirmed = confirmations(lake, table, last["build"]) if last else []
    keys = {last.get("judge_key"), *(c["judge_key"] for c in confirmed)}
    judged = current is None or pipeline.suites[table] is None or judge_key in keys
    facts = {
        "table": table,
        "current": current,
        "build": last.get("build", ""),
        "judge_key": judge_key,
        "judged": judged,
        "parents": parents,
    }
    if pipeline.tables[table].source is not None:
        return plan_ingest(pipeline, environment, lake, as_of, facts)
    recorded = {n: p.as_recorded() for n, p in pins.items()}
    state = state_to_apply(pipeline, lake, table, last, as_of)
    anew, key = build_key(pipeline, table, recorded), build_key(pipeline, table, recorded, state)
    same = {key} if isinstance(pipeline.tables[table].refit, Frozen) and state != anew else {key, anew}
    later = [c["inputs"] for c in confirmed if c["inputs"] is not None]
    before = later[-1] if later else current.facts.get("inputs") if current else None
    if current is None:
        why = "it does not exist yet"
    elif force:
        why = "a rebuild was asked for"
    elif same & {current.facts.get("build_key"), *(c["build_key"] for c in confirmed if "build" in current.facts)}:
        why = None
    else:
        why = why_stale(current, before, pins)
        keys_before = {current.facts.get("build_key"), *(c["build_key"] for c in confirmed)}
        mine = {build_key(pipeline, table, before or {}, s) for s in (None, last.get("state"))}
        if before is not None and not mine & keys_before:
            before = None  # it was another configuration that gave the present rows of these inputs
    other = last.get("pipeline", pipeline.name)
    taken_over = why is not None and other != pipeline.name
    notes = (f"the rows of table '{table}' were published by pipeline '{other}': this one replaces them",)
    return TablePlan(
        **facts,
        why=why,
        build_key=key,
        state=state,
        fitted_on=last.get("fitted_on"),
        pins=pins,
        before=before or {},
        forced=force,
        notes=notes if taken_over else (),
    )


def present_build(lake: Lake, current: Published | None) -> dict[str, Any]:
    """Return what the commit of the newest build says, which an erasure or another writer may have come after."""
    if current is None or "build" in current.facts:
        return current.facts if current else {}
    return lake.last_build(current.table) or {}


def pinned(pipeline: Pipeline, lake: Lake, table: str, name: str, as_of: date | None) -> Pin:
    if name in pipeline.pins:
        version, day = pipeline.pins[name]
        return Pin(version, date.fromisoformat(day) if day else None)
    found = lake.published(name)
    if found is None:
        raise InputMissing(f"table '{table}' reads '{name}', which has not been built in {lake.root}")
    return Pin(found.rows_of, effective_as_of(pipeline, lake, name, as_of))


def suite_parents(pipeline: Pipeline, lake: Lake, table: str, pins: Mapping[str, Pin]) -> dict[str, int]:
    """Return the versions of the tables that a table's suite reads."""
    suite, versions = pipeline.suites[table], {}
    for name in suite.parents if suite else ():
        found = None if name in pins else lake.published(name)
        if name not in pins and found is None:
            raise InputMissing(f"the suite of table '{table}' reads '{name}', which has not been built")
        versions[name] = pins[name].version if name in pins else found.rows_of if found else -1
    return versions


def key_of_suite(pipeline: Pipeline, table: str, parents: Mapping[str, int]) -> str:
    """Return a hash of what decides the verdict on given rows: the rules, the ceiling, the tables that they read."""
    suite = pipeline.suites[table]
    rules = suite.configurations() if suite else None
    return digest([rules, pipeline.tables[table].quarantine_ceiling if suite else None, parents])


def bytes_to_read(
    pipeline: Pipeline, environment: Environment, lake: Lake, tables: Iterable[str], as_of: date | None
) -> int | None:
    """Return about how many bytes building these tables reads, as stored; None where a source does not tell.

    These are the files that landed anew, and of what the tables and their inputs hold an eighth: an increment reads
    keys and what the gate needs of it.
    """
    total = 0
    for table in {*tables, *(name for t in tables for name in pipeline.inputs(t))}:
        configured = pipeline.tables.get(table)
        source = configured.source if configured else None
        if source is not None:
            if not isinstance(source, FileSource) or source.format == "delta":
                return None
            listed = list_files(environment.landing, source, as_of).files
            total += sum(f.size for f in new_files(listed, lake.files_of(table)))
        total += lake.bytes_of(table) // 8
    return total


def plan_ingest(
    pipeline: Pipeline, environment: Environment, lake: Lake, as_of: date | None, facts: dict[str, Any]
) -> TablePlan:
    table, current = facts["table"], facts["current"]
    source = pipeline.tables[table].source
    if current is not None:
        check_schema(pipeline, lake, table, present_build(lake, current).get("key"))
    known = lake.files_of(table)
    if not isinstance(source, FileSource):
        assert source is not None
        past = as_of is not None and as_of < datetime.now(timezone.utc).date()
        if past and current is None:
            raise InputMissing(f"table '{table}': {source_name(source)} does not support --as-of {as_of}")
        return TablePlan(**facts, why=None if past else "its source is asked for what is new", known=known)
    found = list_files(environment.landing, source, as_of)
    listed = found.files
    notes = passed_over(found.passed_over, source.path)
    gone = not is_remote(environment.landing) and not Path(environment.landing).is_dir()
    if not listed and current is None:
        until = f" up to {as_of}" if as_of else ""
        no_folder = "that is not a folder" if os.path.lexists(environment.landing) else "there is no such folder"
        near = f": {no_folder}" if gone else f" ({'; '.join(notes[:3])})" if notes else ""
        near = near or nearest(environment.landing, source.path)
        raise InputMissing(f"table '{table}': no file matches '{source.path}' in {environment.landing}{until}{near}")
    if source.format == "delta" and not listed and known:
        raise InputMissing(
            f"table '{table}': there is no Delta table '{source.path}' any more in {environment.landing}"
        )
    if gone:
        notes = (f"the landing folder {environment.landing} is not there, so nothing new is seen",)
    fresh = new_files(listed, known)
    if not fresh:
        why = None
    elif known and all(f.path in known for f in fresh):
        same = all(known[f.path]["size"] == f.size for f in fresh)  # perhaps it was put back as it was
        why = f"{counted(len(fresh), 'known file')} {'with another time, of the same size' if same else 'changed'}"
    else:
        why = counted(len(fresh), "new file")
    return TablePlan(**facts, why=why, fresh=tuple(fresh), known=known, notes=notes)


def check_schema(pipeline: Pipeline, lake: Lake, table: str, key: list[str] | None) -> None:
    """Raise `UsageError` where a source that adds rows has another key, or another type of a column, than its table.

    key: by which the table's rows are known; None where earlier versions did not record it.
    """
    source = pipeline.tables[table].source
    adds = (
        source.format != "delta" if isinstance(source, FileSource) else getattr(source, "watermark", None) is not None
    )
    if adds and source and key is not None and key != list(source.key):
        was, now = (", ".join(k) if k else "their content (no key)" for k in (key, source.key))
        raise UsageError(
            f"table '{table}': its rows are known by {was} since the first of them came, and its source's key now says "
            f"{now}: keep the key, or give the table another name"
        )
    ddl = getattr(source, "columns", None)
    there = columns_in(lake, table) or {}
    for column, kind in source_columns(ddl, table).items() if adds and ddl else ():
        name = stored_name(column) if table in pipeline.raw_of else column
        wanted = "string" if (kind or "").startswith(("char", "varchar")) else kind
        if name in there and there[name] != wanted:
            raise UsageError(
                f"table '{table}': column '{column}' is {there[name]} since its first file, and its source's schema "
                f"says {kind}: put a cast into a table that starts from it, or give the table another name"
            )


def passed_over(paths: Sequence[str], pattern: str) -> tuple[str, ...]:
    """Return a line for each of the first files that nearly match a pattern, and one for the others."""
    folder, other = f"it is a folder; '{pattern}/*' names the files in it", f"it does not match '{pattern}' exactly"
    notes = [f"{p} is not taken up: {folder if p.endswith('/') else other}" for p in paths[:MOST_NOTES]]
    more = len(paths) - len(notes)
    return (*notes, *([f"{more} more files are not taken up for the same reason"] if more else []))


def effective_as_of(pipeline: Pipeline, lake: Lake, table: str, as_of: date | None) -> date | None:
    """Return `as_of` where the raw table holds rows of files of a later day; else None: nothing is to be left out."""
    if as_of is None or table not in pipeline.tables or pipeline.tables[table].source is None:
        return None
    days = [f["date"] for f in lake.files_of(table).values() if f["date"]]
    return as_of if days and max(days) > as_of else None


def why_stale(current: Published, before: Mapping[str, Any] | None, pins: Mapping[str, Pin]) -> str:
    """Return why a build key differs from the published one, as far as the commit tells."""
    if "erasure" in current.facts:
        return "rows were erased from it"
    if before is None:
        return "its newest version was not written by headgate"
    moved = [n for n, p in pins.items() if before.get(n) != p.as_recorded()]
    if moved:
        return f"{', '.join(moved)} changed"
    return "its configuration, or the meaning of a step, changed"
