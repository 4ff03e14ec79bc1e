"""What an entity is made of, and which pairs people should look at. Needs no JVM."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from headgate.jobs.errors import InputMissing, UsageError
from headgate.jobs.lake.dataset import dataset
from headgate.jobs.lake.lake import Lake
from headgate.transforms.rows import PARENTS, ROW_ID, is_own
from headgate.words import did_you_mean

ENTITIES = {
    "entity_id",
    "entity_size",
    "weakest_link",
    "weakest_pair",
    ROW_ID,
}  # columns that tell a table of entities,
PAIRS = {"id_a", "id_b", "key_a", "key_b", "score", "probability", "weights", "rule", "linked"}  # of pairs,
GOLDEN = {"entity_id", "evidence", "records", PARENTS}  # of golden records
MEMBERS = 20  # records of an entity that are shown, and links of it
ENDS = ("key", "source")  # columns of records whose cells would be named as the ends of a pair
OWN = {"entity_id", "entity_size", "weakest_link", "weakest_pair"}


def holding(lake: Lake, columns: set[str], among: Iterable[str]) -> list[str]:
    """Return the tables that have all of these columns."""
    return [t for t in among if columns <= set(dataset(lake.need_table(t)).schema.names)]


def neighbours(lake: Lake, table: str) -> list[str]:
    """Return the tables that a table was built from at any distance, and those that these made."""
    entries = lake.system("lineage").select(["table_name", "input"]).to_pylist()
    found, queue = [table], [table]
    while queue:
        here = queue.pop()
        for name in sorted({e["input"] for e in entries if e["table_name"] == here} - {*found}):
            found.append(name)
            queue.append(name)
    return [t for t in found if t in set(lake.tables())]


def of_entity(lake: Lake, table: str, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the records, links, weakest bridge and claims behind the entity of a row of entities or golden records.

    Each entry has `table`, `event` (`member`, `link`, `weakest bridge`, `claim`) and `detail`. Empty for other rows.
    """
    entity = row.get("entity_id")
    if entity is None or not ({*row} >= ENTITIES or {*row} >= GOLDEN):
        return []
    near = neighbours(lake, table)
    members: list[dict[str, Any]] = []
    story: list[dict[str, Any]] = []
    for name in holding(lake, ENTITIES, near):
        rows = dataset(lake.need_table(name)).to_table(filter=pc.field("entity_id") == entity)
        members = sorted(rows.to_pylist(), key=lambda r: str(r[ROW_ID]))
        for member in members[:MEMBERS]:
            cells = ", ".join(f"{k}={v}" for k, v in member.items() if v is not None and not is_own(k) and k not in OWN)
            story.append({"table": name, "event": "member", "detail": f"{member[ROW_ID]}: {cells}"})
        if len(members) > MEMBERS:
            rest = f"and {len(members) - MEMBERS:,} more records"
            story.append({"table": name, "event": "member", "detail": rest})
    ids = pa.array([m[ROW_ID] for m in members], pa.string())
    for name in holding(lake, PAIRS, near):
        inside = pc.field("id_a").isin(ids) & pc.field("id_b").isin(ids)
        links = dataset(lake.need_table(name)).to_table(filter=inside).to_pylist()
        links.sort(key=lambda p: (p["score"], p["id_a"], p["id_b"]))
        weakest = next((set(m["weakest_pair"]) for m in members if m["weakest_pair"]), None)
        bridge = next((p for p in links if {p["id_a"], p["id_b"]} == weakest), None)
        for pair in links[:MEMBERS]:
            event = "weakest bridge" if pair is bridge else "link" if pair["linked"] else "not linked"
            story.append({"table": name, "event": event, "detail": told(pair)})
        if len(links) > MEMBERS:
            story.append({"table": name, "event": "link", "detail": f"and {len(links) - MEMBERS:,} stronger ones"})
    if {*row} >= GOLDEN:
        story += claims(table, row, members)
    return story


def told(pair: Mapping[str, Any]) -> str:
    """Return a pair with its score and the parts of that, the largest first."""
    parts = sorted(dict(pair["weights"] or ()).items(), key=lambda w: -abs(w[1]))
    shown = ", ".join(f"{name} {bits:+.1f}" for name, bits in parts if abs(bits) >= 0.05)
    ends = f"{ended(pair, 'a')} and {ended(pair, 'b')}"
    return f"{ends}: {pair['score']:.1f} bits, probability {pair['probability']:.3f} by {pair['rule']} ({shown})"


def ended(pair: Mapping[str, Any], end: str) -> str:
    source = pair.get(f"source_{end}")
    return f"{source} {pair[f'key_{end}']}" if source else str(pair[f"key_{end}"])


def claims(table: str, row: Mapping[str, Any], members: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return each golden value with its evidence and all that the records claim."""
    found = []
    for column, why in dict(row["evidence"] or ()).items():
        said = [m.get(column) for m in members]
        times = Counter(str(v) for v in said if v is not None)  # as text: an array, a struct and NaN count too
        counts = sorted(((n, v) for v, n in times.items()), key=lambda c: (-c[0], c[1]))
        every = "; ".join(f"{value} ({n})" for n, value in counts[:5]) or "nothing"
        sure = "" if why["confidence"] is None else f", confidence {why['confidence']:.2f}"
        source = f" of {why['source']}" if why["source"] else ""
        detail = f"{column}={row.get(column)} by {why['rule']}{source}{sure}; the records say {every}"
        found.append({"table": table, "event": "claim", "detail": detail})
    return found


def pairs_of(lake: Lake, table: str) -> str:
    """Return the table of pairs behind a table: itself, or the one that it was built from."""
    lake.need_table(table)
    found = holding(lake, PAIRS, neighbours(lake, table))
    if len(found) != 1:
        hint = f"; name one of {', '.join(found)}" if found else did_you_mean(f"{table}_pairs", lake.tables())
        raise UsageError(f"'{table}' has {'several tables' if found else 'no table'} of pairs behind it{hint}")
    return found[0]


def uncertain(lake: Lake, pairs: str, most: int) -> list[dict[str, Any]]:
    """Return the pairs that are least sure and that nobody decided: the ends, their cells side by side, `same` empty.

    The nearest to a probability of one half come first, ties in order of the records' ids.
    """
    open_ = pc.field("rule").isin(["model", "supervised"])
    columns = [c for c in dataset(lake.need_table(pairs)).schema.names if not is_own(c) and c != "weights"]
    rows = dataset(lake.need_table(pairs)).to_table(columns, filter=open_)
    far = pc.abs(pc.subtract(rows["probability"], 0.5))
    rows = rows.append_column("far", far).sort_by([(c, "ascending") for c in ("far", "id_a", "id_b")]).slice(0, most)
    cells = records(lake, pairs, {*rows["id_a"].to_pylist(), *rows["id_b"].to_pylist()})
    shared = [c for c in dict.fromkeys(c for r in cells.values() for c in r)]
    found = []
    named = [c for c in ("source_a", "key_a", "source_b", "key_b") if {*rows[c].to_pylist()} - {None, ""}]
    for pair in rows.to_pylist():
        ends = {c: pair[c] for c in named}
        judged = {"same": None, "probability": pair["probability"], "score": round(pair["score"], 2)}
        both = [(c, end) for c in shared for end in ("a", "b")]
        sides = {
            f"its_{c}_{end}" if c in ENDS else f"{c}_{end}": cells.get(pair[f"id_{end}"], {}).get(c) for c, end in both
        }
        found.append(ends | judged | sides)
    return found


def records(lake: Lake, pairs: str, ids: set[str]) -> dict[str, dict[str, Any]]:
    """Return the cells of records by their ids, from the tables that the pairs were built from."""
    entries = lake.system("lineage").select(["table_name", "input"]).to_pylist()
    found: dict[str, dict[str, Any]] = {}
    for table in sorted({e["input"] for e in entries if e["table_name"] == pairs} & {*lake.tables()}):
        rows = dataset(lake.need_table(table))
        if ROW_ID in rows.schema.names:
            wanted = rows.to_table(filter=pc.field(ROW_ID).isin(pa.array(sorted(ids), pa.string())))
            found |= {r[ROW_ID]: {c: v for c, v in r.items() if not is_own(c)} for r in wanted.to_pylist()}
    return found


def pair(lake: Lake, pairs: str, one: str, other: str) -> dict[str, Any]:
    """Return the pair of two keys, in either order; raise `InputMissing` where it is no row."""
    rows = dataset(lake.need_table(pairs))
    found: list[dict[str, Any]] = []
    for a, b in ((one, other), (other, one)):
        found += rows.to_table(filter=(pc.field("key_a") == a) & (pc.field("key_b") == b)).to_pylist()
    if not found:
        raise InputMissing(f"table '{pairs}' has no pair of {one} and {other}: nothing speaks for their being one")
    return min(found, key=lambda p: (p["id_a"], p["id_b"]))


def scores(lake: Lake, pairs: str) -> pa.Table:
    return dataset(lake.need_table(pairs)).to_table(["score", "linked", "rule"])
