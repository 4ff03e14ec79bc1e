"""Entities of few records, at once on the driver: what `entities` says, without its shuffles."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame

from headgate.transforms.fusion.clusters import grouped
from headgate.transforms.fusion.components import LABELS, label_all

AT_ONCE = 500_000  # records, links, and records of before, that the driver may hold, some 500 bytes each


@dataclass(frozen=True, kw_only=True)
class Fates:
    """How many entities there are, and what became of those of before (None: there were none).

    giants: of the largest above a size, the id, the size, and the score and the two records of the weakest link.
    """

    entities: int
    several: int
    largest: int
    minted: int
    merged: int | None = None
    split: int | None = None
    gone: int | None = None
    giants: Sequence[tuple[str, int, float | None, list[str] | None]] = ()


def held(frames: Sequence[DataFrame]) -> list[pa.Table] | None:
    """Return the rows of frames; None where one has more than `AT_ONCE`."""
    found: list[pa.Table] = []
    for rows in frames:
        found.append(rows.limit(AT_ONCE + 1).toArrow())
        if len(found[-1]) > AT_ONCE:
            return None
    return found


def links_there(links: pa.Table, there: pa.Table) -> pa.Table:
    """Return the links between records that are there, with the sources of both."""
    ends = [pc.index_in(links[e], there["id"].combine_chunks()) for e in ("id_a", "id_b")]
    links = links.append_column("source_a", there["source"].take(ends[0]))
    links = links.append_column("source_b", there["source"].take(ends[1]))
    return links.filter(pc.and_(pc.is_valid(ends[0]), pc.is_valid(ends[1])))


def groups_of(links: pa.Table, apart: bool) -> pa.Table:
    """Return the groups of records that hold together, of those with links: id, grp, weakest, pair."""
    sure = links.filter(pc.and_(links["linked"], pc.not_equal(links["id_a"], links["id_b"])))
    edges = sure.select(["id_a", "id_b"]).rename_columns(["a", "b"])
    of = pa.Table.from_batches(list(label_all(edges.to_batches())), LABELS)
    label = of["component"].take
    one, other = (label(pc.index_in(links[e], of["id"].combine_chunks())) for e in ("id_a", "id_b"))
    order = [(c, "ascending") for c in ("component", "id_a", "id_b")]
    inside = links.append_column("component", one).filter(pc.equal(one, other)).sort_by(order)
    return grouped(inside, apart)


def named(
    groups: pa.Table, there: pa.Table, before: pa.Table | None, moment: datetime, giant: int, most: int
) -> tuple[pa.Table, Fates]:
    """Return every record with its entity: id, entity_id, entity_size, weakest_link, weakest_pair; and the fates.

    before: id and entity_id of the records of before. most: giants that are told.
    """
    cells = zip(*(groups[c].to_pylist() for c in ("id", "grp", "weakest", "pair")), strict=True)
    found = {record: rest for record, *rest in cells}
    rows = dict(zip(there["id"].to_pylist(), there["rows"].to_pylist(), strict=True))
    members: dict[str, list[str]] = defaultdict(list)
    for record in sorted(rows):
        members[found[record][0] if record in found else record].append(record)
    known = before.to_pydict() if before is not None else {"id": [], "entity_id": []}
    used = set(known["entity_id"]) - {None}
    old: dict[str, str] = {}
    for record, entity in zip(known["id"], known["entity_id"], strict=True):
        if entity is not None and record in rows:
            old[record] = min(entity, old.get(record, entity))
    # An id stays with the group that has most of its records; a group keeps the one of which it has most.
    goes: dict[str, tuple[int, str, str]] = {}
    for group, records in members.items():
        counts: dict[str, int] = defaultdict(int)
        first: dict[str, str] = {}
        for record in records:
            if record in old:
                counts[old[record]] += 1
                first.setdefault(old[record], record)
        for entity, n in counts.items():
            place = (-n, first[entity], group)
            goes[entity] = min(place, goes.get(entity, place))
    stays: dict[str, tuple[int, str, str]] = {}
    for entity, (less, start, group) in goes.items():
        stays[group] = min((less, start, entity), stays.get(group, (less, start, entity)))
    entity_of: dict[str, str] = {}
    for group, records in members.items():
        entity_of[group] = stays[group][2] if group in stays else minted(records, used, moment)
    size = {group: sum(rows[r] for r in records) for group, records in members.items()}
    into: dict[str, set[str]] = defaultdict(set)
    nothing = (None, None, None)
    out: list[tuple[str, str, int, float | None, list[str] | None]] = []
    for group, records in members.items():
        for record in records:
            _, weakest, pair = found.get(record, nothing)
            out.append((record, entity_of[group], size[group], weakest, pair))
            if record in old:
                into[old[record]].add(entity_of[group])
    names = ("id", "entity_id", "entity_size", "weakest_link", "weakest_pair")
    columns = zip(*out, strict=True) if out else ([] for _ in names)
    table = pa.table([pa.array(list(c), kind) for c, kind in zip(columns, KINDS, strict=True)], names=list(names))
    large = sorted((-size[g], entity_of[g], g) for g in members if size[g] > giant)[:most]
    weakest_of = {g: found.get(members[g][0], nothing) for *_, g in large}
    lives = {entity for entity, now in into.items() if entity in now}
    fates = Fates(
        entities=len(members),
        several=sum(n > 1 for n in size.values()),
        largest=max(size.values(), default=0),
        minted=len(members) - len(lives),
        merged=None if before is None else len(into) - len(lives),
        split=None if before is None else sum(len(now) > 1 for now in into.values()),
        gone=None if before is None else len(used - into.keys()),
        giants=[(entity, -less, *weakest_of[g][1:]) for less, entity, g in large],
    )
    return table, fates


KINDS = (pa.string(), pa.string(), pa.int64(), pa.float64(), pa.list_(pa.string()))


def minted(records: Sequence[str], used: set[str], moment: datetime) -> str:
    """Return a new id, of the smallest record whose id no entity of before has; if all are taken, from the time too."""
    for record in records:
        entity = md5(f"entity:{record}")
        if entity not in used:
            return entity
    return md5(f"entity:{records[0]}:{moment.isoformat()}")


def md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def broken(links: pa.Table, groups: pa.Table) -> list[tuple[str, str]]:
    """Return the pairs that people decided to be one and that are not, in order."""
    of = dict(zip(groups["id"].to_pylist(), groups["grp"].to_pylist(), strict=True))
    must = links.filter(pc.equal(links["rule"], "must_link"))
    pairs = zip(must["id_a"].to_pylist(), must["id_b"].to_pylist(), strict=True)
    return sorted((a, b) for a, b in pairs if a in of and b in of and of[a] != of[b])
