"""What a catalogue should say of a lake: its tables at their places, and for each release the tables that it pins."""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

from headgate.jobs.errors import UsageError
from headgate.jobs.lake.columns import type_of
from headgate.jobs.lake.lake import Lake

LAKE, RELEASE, VERSION, PINNED = MARKS = (  # of what is ours
    "headgate.lake",
    "headgate.release",
    "headgate.version",
    "headgate.releases",
)


@dataclass(frozen=True)
class Column:
    name: str
    kind: str  # as Spark and Hive write it
    json: str  # as Delta's schema has it
    comment: str


@dataclass(frozen=True)
class Entry:
    """A table of a catalogue: the newest version of a table of the lake or, with `release`, the one pinned by it."""

    name: str
    location: str
    columns: tuple[Column, ...]
    comment: str
    marks: Mapping[str, str]

    @property
    def version(self) -> int | None:
        return int(self.marks[VERSION]) if VERSION in self.marks else None


@dataclass(frozen=True)
class Known:
    """A table that a catalogue has. columns: names and types, where the catalogue tells them."""

    location: str
    marks: Mapping[str, str]
    columns: tuple[tuple[str, str], ...] | None


class Catalogue(Protocol):
    """A database of a catalogue. What is created, replaced or dropped are entries alone, never data."""

    views: ClassVar[bool]  # whether it has any for versions

    def known(self) -> dict[str, Known]: ...

    def create(self, entry: Entry) -> None: ...

    def replace(self, entry: Entry) -> None: ...

    def drop(self, name: str, known: Known) -> None: ...


def entries(lake: Lake, views: bool, releases: Collection[str] = ()) -> list[Entry]:
    """Return what a catalogue should have: every table and, with `views`, those of releases (default: of all).

    Without, the mark `headgate.releases` of a table is a JSON object: release -> the version that it pins.
    A table `t` of release `shop-7` is `t__shop_7`. Raises `UsageError` where two would have one name.
    """
    found = [entry(lake, table, None, None) for table in lake.tables()]
    chosen = [lake.release(name) for name in releases] or lake.releases
    if not views:
        return [replace(e, marks={**e.marks, PINNED: json.dumps(pinned(chosen, e.name))}) for e in found]
    for release in chosen:
        found += [entry(lake, t, release["release"], v) for t, v in lake.pins(release["release"]).items()]
    names: dict[str, Entry] = {}
    for each in found:
        other = names.setdefault(each.name, each)
        if other is not each:
            first, second = (e.marks.get(RELEASE, "no release") for e in (other, each))
            raise UsageError(f"'{each.name}' would stand for a table of {first} and of {second}: choose with --release")
    return found


def entry(lake: Lake, table: str, release: str | None, version: int | None) -> Entry:
    delta = lake.open(table, version) or lake.need_table(table)
    fields: list[dict[str, Any]] = json.loads(delta.schema().to_json())["fields"]
    columns = tuple(Column(f["name"], type_of(f["type"]), json.dumps(f), comment_of(f)) for f in fields)
    marks = {LAKE: lake.root}
    marks |= {RELEASE: release, VERSION: str(version)} if release is not None else {}
    name = table if release is None else f"{table}__{re.sub('[^a-z0-9]+', '_', release.lower())}"
    return Entry(name, lake.path(table), columns, delta.metadata().description or "", marks)


def pinned(releases: Iterable[Mapping[str, Any]], table: str) -> dict[str, int]:
    return {r["release"]: t["version"] for r in releases for t in r["tables"] if t["table_name"] == table}


def comment_of(field: Mapping[str, Any]) -> str:
    return str(field.get("metadata", {}).get("comment", ""))


def register(
    lake: Lake, catalogue: Catalogue, releases: Collection[str] = (), prune: bool = False, dry_run: bool = False
) -> list[dict[str, Any]]:
    """Make a catalogue say what a lake holds; tell what was done to each entry.

    prune: drop entries of this lake that it has no more. Raises `UsageError`, before anything is changed, where a name
    is taken by another table than the lake's.
    """
    wanted = {e.name: e for e in entries(lake, catalogue.views, releases)}
    known = catalogue.known()
    for name, there in known.items():
        if name in wanted and there.marks.get(LAKE) != lake.root:
            raise UsageError(f"the catalogue has a table '{name}' already, at {there.location or 'another place'}")
    told = []
    for name, each in wanted.items():
        what = "created" if name not in known else "same" if is_same(each, known[name]) else "changed"
        if what != "same" and not dry_run:
            (catalogue.create if what == "created" else catalogue.replace)(each)
        told.append({"entry": name, "release": each.marks.get(RELEASE), "version": each.version, "what": what})
    others = {r["release"] for r in lake.releases} if releases else set()  # not asked for, and not gone
    for name in sorted(known.keys() - wanted.keys()):
        marks = known[name].marks
        if marks.get(LAKE) == lake.root and marks.get(RELEASE) not in others:
            if prune and not dry_run:
                catalogue.drop(name, known[name])
            what = "removed" if prune else "gone from the lake (--prune)"
            version = int(marks[VERSION]) if VERSION in marks else None
            told.append({"entry": name, "release": marks.get(RELEASE), "version": version, "what": what})
    return told


def is_below(place: str, root: str) -> bool:
    """Return whether a location of a catalogue, with whatever scheme it has there, lies in a lake."""
    plain = [re.sub("^file:/+", "/", re.sub("^s3[an]://", "s3://", p)) for p in (place, root)]
    return plain[0].startswith(f"{plain[1]}/")


def is_same(entry: Entry, known: Known) -> bool:
    columns = tuple((c.name, c.kind) for c in entry.columns)
    return dict(known.marks) == dict(entry.marks) and known.columns in (None, columns)
