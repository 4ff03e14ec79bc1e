"""What is to be built, and why: pins, build keys, new files. Needs no Spark."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

from headgate.jobs.config.models import Environment, FileSource
from headgate.jobs.config.pipeline import Pipeline
from headgate.jobs.errors import InputMissing
from headgate.jobs.lake.lake import Lake, Published
from headgate.jobs.sources.base import source_name
from headgate.jobs.sources.files import list_files, new_files
from headgate.jobs.sources.landing import LandedFile
from headgate.version import VERSION

MOST_NOTES = 3


@dataclass(frozen=True)
class Pin:
    """An input at a fixed version; `as_of` where rows of later files are left out."""

    version: int
    as_of: date | None = None


@dataclass(frozen=True)
class TablePlan:
    """What a run does with one table."""

    table: str
    why: str | None  # None: up to date
    current: Published | None
    build_key: str | None = None  # None where it is only known once files were read
    pins: Mapping[str, Pin] = field(default_factory=dict)
    fresh: tuple[LandedFile, ...] = ()
    known: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # files taken up before
    forced: bool = False  # built anew though nothing changed
    notes: tuple[str, ...] = ()  # what a person should know though nothing stops

    @property
    def base(self) -> int:
        """The version that the build starts from; -1 for a table that does not exist."""
        return self.current.version if self.current else -1


def plan_table(
    pipeline: Pipeline, environment: Environment, lake: Lake, table: str, as_of: date | None, force: bool = False
) -> TablePlan:
    """Plan one table on the present versions of its inputs; raises `InputMissing` where there is nothing to read."""
    current = lake.published(table)
    if pipeline.tables[table].source is not None:
        return plan_ingest(pipeline, environment, lake, table, as_of, current)
    pins = {}
    for name in sorted(pipeline.inputs(table)):
        found = lake.published(name)
        if found is None:
            raise InputMissing(f"table '{table}' reads '{name}', which has not been built in {lake.root}")
        pins[name] = Pin(found.version, effective_as_of(pipeline, lake, name, as_of))
    key = build_key(pipeline, table, {n: [p.version, str(p.as_of or "")] for n, p in pins.items()})
    if current is None:
        why = "it does not exist yet"
    elif force:
        why = "a rebuild was asked for"
    elif current.facts.get("build_key") == key:
        why = None
    else:
        why = why_stale(current, pins)
    return TablePlan(table=table, why=why, current=current, build_key=key, pins=pins, forced=force)


def bytes_to_read(
    pipeline: Pipeline, environment: Environment, lake: Lake, tables: Iterable[str], as_of: date | None
) -> int | None:
    """About how many bytes building these tables reads at most, as they are stored; None where a source does not tell.

    These are the files that landed anew, and all that the tables and their inputs hold.
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
        total += lake.bytes_of(table)
    return total


def plan_ingest(
    pipeline: Pipeline,
    environment: Environment,
    lake: Lake,
    table: str,
    as_of: date | None,
    current: Published | None,
) -> TablePlan:
    source = pipeline.tables[table].source
    assert source is not None
    known = lake.files_of(table)
    if not isinstance(source, FileSource):
        past = as_of is not None and as_of < datetime.now(timezone.utc).date()
        if past and current is None:
            raise InputMissing(f"table '{table}': {source_name(source)} cannot be asked for what it held on {as_of}")
        why = None if past else "its source is asked for what is new"
        return TablePlan(table=table, why=why, current=current, known=known)
    found = list_files(environment.landing, source, as_of)
    listed = found.files
    notes = passed_over(found.passed_over, source.path)
    gone = "://" not in environment.landing and not Path(environment.landing).is_dir()
    if not listed and current is None:
        until = f" up to {as_of}" if as_of else ""
        near = ": there is no such folder" if gone else f" ({'; '.join(notes[:3])})" if notes else ""
        raise InputMissing(f"table '{table}': no file matches '{source.path}' in {environment.landing}{until}{near}")
    if source.format == "delta" and not listed and known:
        raise InputMissing(f"table '{table}': the Delta table '{source.path}' has vanished from {environment.landing}")
    if gone:
        notes = (f"the landing folder {environment.landing} is not there, so nothing new is seen",)
    fresh = new_files(listed, known)
    if not fresh:
        why = None
    elif known and all(f.path in known for f in fresh):
        why = f"{len(fresh)} known files look different"
    else:
        why = f"{len(fresh)} new files"
    return TablePlan(table=table, why=why, current=current, fresh=tuple(fresh), known=known, notes=notes)


def passed_over(paths: Sequence[str], pattern: str) -> tuple[str, ...]:
    """A line for each of the first files that nearly match a pattern, and one for the others."""
    told = [f"{path} is not taken up: it does not match '{pattern}' exactly" for path in paths[:MOST_NOTES]]
    more = len(paths) - len(told)
    return (*told, *([f"{more} more files are not taken up for the same reason"] if more else []))


def effective_as_of(pipeline: Pipeline, lake: Lake, table: str, as_of: date | None) -> date | None:
    """`as_of`, where the raw table holds rows of files of a later day; otherwise None, as nothing is to be left out."""
    if as_of is None or pipeline.tables[table].source is None:
        return None
    days = [f["date"] for f in lake.files_of(table).values() if f["date"]]
    return as_of if days and max(days) > as_of else None


def build_key(pipeline: Pipeline, table: str, inputs: Mapping[str, Any]) -> str:
    """A hash of all that decides a table's content: inputs, steps, suite, publishing, version of headgate."""
    configured = pipeline.tables[table]
    suite = pipeline.suites[table]
    facts = {
        "headgate": VERSION,
        "table": table,
        "inputs": inputs,
        "source": configured.source.model_dump(mode="json") if configured.source else None,
        "code": pipeline.code[table],
        "from": configured.from_,
        "steps": [{step.name: dataclasses.asdict(step)} for step in pipeline.steps[table]],
        "suite": suite.configurations() if suite else None,
        "quarantine_ceiling": configured.quarantine_ceiling,
        "publish": configured.publish.model_dump(mode="json"),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def why_stale(current: Published, pins: Mapping[str, Pin]) -> str:
    """Why a build key differs from the published one, as far as the commit tells."""
    before = current.facts.get("inputs")
    if "erasure" in current.facts:
        return "rows were erased from it"
    if before is None:
        return "its newest version was not written by headgate"
    moved = [n for n, p in pins.items() if before.get(n) != [p.version, str(p.as_of or "")]]
    if moved:
        return f"{', '.join(moved)} changed"
    return "its configuration, its suite or headgate's version changed"
