"""The pairs that changed records make again: those of records whose keys changed, or whose keys block otherwise now.

A pair follows from its two records, from which of their keys block, and from what linkage learned. A key blocks by how
many records hold it. So the pairs of a record that did not change are made again only where a key of it came to make
too many pairs, or no longer does; all others are as they are published.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headgate.transforms.fusion.asked import ASKED_AT_ONCE, known_at_once, name_in
from headgate.transforms.fusion.blocking import Blocks
from headgate.transforms.fusion.few import Few, Known, with_others
from headgate.transforms.fusion.holders import (
    FEW,
    KEYED,
    FewHolders,
    Held,
    Hits,
    Holders,
    ManyHolders,
    Tally,
    at_most,
    doubles,
    held,
    keyed,
    pairs_of,
    some_of,
)
from headgate.transforms.fusion.keys import Ints, member
from headgate.transforms.fusion.learned import Knowledge
from headgate.transforms.fusion.levels import Frequencies
from headgate.transforms.fusion.meetings import Limits, TooMany, paired
from headgate.transforms.fusion.records import Records
from headgate.transforms.fusion.rivals import rejudged
from headgate.transforms.rows import ROW_ID, arrow_frame
from headgate.transforms.step import Changes, Context, LearnAnew, MakeAll

MOST = 100_000  # records that changed
KEYS = 10_000_000  # of all records that the driver may hold, some 75 bytes each
SHARE = 0.1  # of all, up to which their pairs alone are made again
PAIRS = 5_000_000  # of these records and others that the driver may compare, some 100 bytes each
AT_ONCE = 1_000_000  # pairs under keys, of which those of other records are left out


class Asks(Protocol):
    """The options of a step that finds pairs by what was learned."""

    @property
    def key(self) -> tuple[str, ...]: ...
    @property
    def source(self) -> str | None: ...
    @property
    def labels(self) -> str | None: ...
    @property
    def decisions(self) -> str | None: ...
    @property
    def minhash(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Touched:
    """The records whose pairs are made again, in order, with the keys that block for them now."""

    rid: Ints
    single: Ints
    double: Ints
    hits: Sequence[Hits]  # of double keys


def renewed(step: Asks, known: Knowledge, df: DataFrame, changes: Changes, context: Context) -> DataFrame:
    """Return the pairs worth a look that changes reach, and say which rows of the previous version they replace.

    Cost: the keys of all records are made and counted, two passes over them, one over all records for those compared.
    Up to `FEW` records, or `KEYS` keys, the driver holds the keys.
    """
    before = context.previous()
    if before is None:
        raise MakeAll("there is no previous version")
    raw = known.raw(df, step.key, step.source)
    ids = changes.ids.select(F.xxhash64(ROW_ID).alias("rid")).limit(MOST + 1).toArrow()
    gone = np.unique(ids["rid"].to_numpy())
    changed = len(gone)
    if changed > MOST:
        raise MakeAll(f"more than {MOST:,} records changed")
    limits, frequencies = known.loaded(context)
    number = F.array_position(F.array(*map(F.lit, known.sources)), F.col("source")).cast("int") - 1
    body = keyed(known.comparisons, step.minhash)

    def keys(rows: DataFrame) -> DataFrame:
        cells = (f"c{j}" for j in range(len(known.comparisons)))
        return rows.select("rid", number.alias("src"), "id", name_in("key"), *cells).mapInArrow(body, KEYED)

    holders: Holders
    if sum(known.sizes) <= FEW:
        rows = at_most(keys(raw), FEW + MOST, "records are there")
        holders = FewHolders(rows, len(known.sources))
    else:
        many = ManyHolders(context.keep(keys(raw), "keys"), len(known.sources), context)
        few = many.keys() <= KEYS
        holders = FewHolders(many.rows.toArrow(), len(known.sources)) if few else many
    sizes, n = counted_sources(known, holders)
    if changed > SHARE * n:
        raise MakeAll(f"{changed:,} of {n:,} records changed")
    old = at_most(keys(known.raw(changes.before, step.key, step.source)), MOST, "records changed")
    new = holders.named("rid", pa.array(gone))
    touched = reached(held(old), held(new), gone, asked_again(step, changes, holders), holders, limits)
    labels, decisions = (
        named(option, step, known, holders, touched.rid, context) for option in ("labels", "decisions")
    )
    met = meetings(touched, holders, len(known.sources) > 1)
    found = compared(known, raw, met, (labels, decisions), sizes, limits, frequencies)
    found.judge(known.first, alone=False)
    shown = found.shown(known.first, known.parts, known.cut, alone=False)
    context.warn(
        f"{changed:,} of {n:,} records changed: {len(found.one):,} pairs of {len(touched.rid):,} records compared, by "
        f"what was learned from {sum(known.sizes):,} records"
    )
    mine = arrow_frame(raw.sparkSession, pa.table({"rid": touched.rid}))
    ends = [before.join(F.broadcast(mine), on=F.xxhash64(e) == F.col("rid"), how="left_semi") for e in ("id_a", "id_b")]
    replaced = ends[0].select(ROW_ID).union(ends[1].select(ROW_ID))
    if not known.alone:
        context.replace(replaced)
        return arrow_frame(raw.sparkSession, shown)
    result = rejudged(known, shown, before, mine, raw, context)
    context.replace(replaced.union(result.replaced))
    return result.rows


def counted_sources(known: Knowledge, holders: Holders) -> tuple[tuple[int, ...], int]:
    """Return how many records each source has, and all; raise where what was learned, or published, is not of such."""
    of_sources = holders.sizes()
    if any(src < 0 for src, *_ in of_sources):
        raise LearnAnew("there is a new source")
    if any(rows > ids for _, rows, ids in of_sources):
        raise MakeAll("rows repeat the row ids of others")
    sizes = known.sizes_now({known.sources[src]: rows for src, rows, _ in of_sources})
    return sizes, sum(sizes)


def asked_again(step: Asks, changes: Changes, holders: Holders) -> pa.Table | None:
    """Return the keys of the records that changed decisions, or labels, are about."""
    names: set[str] = set()
    for table in (step.labels, step.decisions):
        rows = changes.other(table) if table is not None else None
        if rows is not None:
            for end in ("key_a", "key_b"):
                names |= set(rows.select(name_in(end)).limit(MOST + 1).toArrow()[end].to_pylist())
    if len(names) > MOST:
        raise MakeAll("too many decisions changed")
    return holders.named("name", pa.array(sorted(x for x in names if x is not None), pa.string())) if names else None


def reached(old: Held, new: Held, gone: Ints, asked: pa.Table | None, holders: Holders, limits: Limits) -> Touched:
    """Return the records whose pairs are made again.

    old, new: the keys of changed records, as they were and as they are. gone: the ids of all of these. asked: the keys
    of other records that people decided on.
    """
    sources, limit, double_limit = holders.sources, limits.single**2 // 2, limits.double**2 // 2
    mine = np.unique(np.r_[old.key, new.key])
    now = holders.count(mine, limit)
    at = now.at(mine)
    before = at - Tally.of(new, sources).at(mine) + Tally.of(old, sources).at(mine)
    is_over, was_over = pairs_of(at) > limit, pairs_of(before) > limit
    over = now.key[pairs_of(now.n) > limit]
    over_before = np.sort(np.r_[over[~member(over, mine)], mine[was_over]])
    # Records with a key that came to be common, or is no more: others of their common keys are combined now.
    turned = mine[is_over != was_over]
    others = [asked] if asked is not None else []
    if len(turned):
        found = holders.singles(turned)["rid"]
        others.append(holders.named("rid", pc.unique(found)))
    same = alike(others, gone)
    double_now, double_before = doubles(new.plus(same), over, limits), doubles(old.plus(same), over_before, limits)
    two = np.unique(np.r_[double_now.key, double_before.key])
    hits = [holders.doubles(two, np.unique(old.plus(new, same).key), over, limits)]
    counted = hits[0].tally()
    was = counted.at(two) - Tally.of(double_now, sources).at(two) + Tally.of(double_before, sources).at(two)
    turned = two[(pairs_of(counted.at(two)) > double_limit) != (pairs_of(was) > double_limit)]
    if len(turned):
        found = hits[0].of(turned)["rid"]
        more = alike([holders.named("rid", pc.unique(found))], np.union1d(gone, same.rid))
        same, double_more = same.plus(more), doubles(more, over, limits)
        double_now = double_now.plus(double_more)
        rest = np.setdiff1d(double_more.key, two)
        if len(rest):
            hits.append(holders.doubles(rest, np.unique(more.key), over, limits))
            later = hits[1].tally()
            counted = Tally(key=np.r_[counted.key, later.key], n=np.r_[counted.n, later.n])
            order = np.argsort(counted.key)
            counted = Tally(key=counted.key[order], n=counted.n[order])
    every = new.plus(same)
    single = np.unique(every.key[every.fine & ~member(every.key, over)])
    double = np.unique(double_now.key)
    return Touched(
        rid=np.union1d(gone, same.rid),
        single=single,
        double=double[pairs_of(counted.at(double)) <= double_limit],
        hits=hits,
    )


def alike(records: Sequence[pa.Table], but: Ints) -> Held:
    """Return the keys of records, each once, without those that changed."""
    tables = [t.select(["rid", "src", "keys", "families", "fine"]) for t in records]
    if not tables:
        return NOTHING
    rows = pa.concat_tables(tables)
    rid, first = np.unique(rows["rid"].to_numpy(), return_index=True)
    return held(rows.take(pa.array(first[~member(rid, but)])))


NOTHING = Held(**{c: np.zeros(0, np.int64) for c in ("rid", "src", "family", "key")}, fine=np.zeros(0, np.bool_))


def meetings(touched: Touched, holders: Holders, linking: bool) -> tuple[Ints, Ints, Ints]:
    """Return the pairs of touched records and others that meet under a key that blocks: one, other, family."""
    single = holders.singles(touched.single)
    hits = pa.concat_tables([single, *(h.of(touched.double) for h in touched.hits)])
    key, src, rid, family = (hits[c].to_numpy().astype(np.int64) for c in ("key", "src", "rid", "family"))
    double = (np.arange(len(key)) >= len(single)).astype(np.int64)
    order = np.lexsort((rid, src, key, double))
    key, src, rid, family, double = (c[order] for c in (key, src, rid, family, double))
    ends = np.flatnonzero(np.r_[(key[1:] != key[:-1]) | (double[1:] != double[:-1]), True][: len(key)]) + 1
    is_touched = member(rid, touched.rid)
    made = np.cumsum(np.diff(np.r_[0, ends]) ** 2 // 2)  # pairs at most, up to each block
    found, first, n = [(rid[:0], rid[:0], family[:0])], 0, 0
    for some in np.split(ends, np.flatnonzero(np.diff(made // AT_ONCE)) + 1) if len(ends) else []:
        one, other, _ = paired(src[first : some[-1]], some - first, linking)
        kept = np.flatnonzero(is_touched[first + one] | is_touched[first + other])
        one, other = first + one[kept], first + other[kept]
        found.append((rid[one], rid[other], family[one] | family[other]))
        first, n = int(some[-1]), n + len(kept)
        if n > PAIRS:
            raise MakeAll(f"changed records meet others more than {PAIRS:,} times")
    one, other, both = (np.concatenate(c) for c in zip(*found, strict=True))
    return one, other, both


def named(option: str, step: Asks, known: Knowledge, holders: Holders, touched: Ints, context: Context) -> Known | None:
    """Return the pairs of touched records that people named: the ids of two, and whether they are the same."""
    table: str | None = getattr(step, option)
    if table is None:
        return None
    given = context.table(table)
    keys = given.select(name_in("key_a").alias("name")).union(given.select(name_in("key_b")))
    names = keys.where("name IS NOT NULL").distinct().limit(2 * ASKED_AT_ONCE + 1).toArrow()["name"]
    there = holders.named("name", pc.unique(names)).select(["rid", "src", "name"]).sort_by("rid")
    records = Records(
        raw=given,
        cells=(),
        table=there.rename_columns(["rid", "src", "key"]),
        sources=known.sources,
        sizes=known.sizes,
        comparisons=known.comparisons,
        left_out={},
    )
    try:
        pairs = known_at_once(option, table, records, context) or {}
    except TooMany as e:
        raise MakeAll("people decided on too many pairs") from e
    rid, mine = there["rid"].to_pylist(), set(touched.tolist())
    by_id = {(rid[a], rid[b]): same for (a, b), same in pairs.items()}
    return {(a, b): same for (a, b), same in by_id.items() if a in mine or b in mine}


def compared(
    known: Knowledge,
    raw: DataFrame,
    met: tuple[Ints, Ints, Ints],
    asked: Sequence[Known | None],
    sizes: tuple[int, ...],
    limits: Limits,
    frequencies: Sequence[Frequencies],
) -> Few:
    """Return pairs of some records, compared. met: those of keys; asked: labels and decisions; by ids."""
    ends = np.array([pair for known_pairs in asked for pair in known_pairs or ()], np.int64).ravel()
    wanted = np.unique(np.r_[met[0], met[1], ends])
    records = known.ready(raw, some_of(raw, wanted, len(known.comparisons)), sizes)
    assert records.table is not None
    rid = records.table["rid"].to_numpy()
    n = len(rid)
    pair, of = np.unique(np.searchsorted(rid, met[0]) * n + np.searchsorted(rid, met[1]), return_inverse=True)
    mask = np.zeros(len(pair), np.int64)
    np.bitwise_or.at(mask, of, met[2])
    place = {int(x): i for i, x in enumerate(rid.tolist())}
    labels, decisions = (k and {(place[a], place[b]): same for (a, b), same in k.items()} for k in asked)
    named_pairs = np.array([a * n + b for k in (labels, decisions) for a, b in k or ()], np.int64)
    pair, mask = with_others(pair, mask, named_pairs[:0], named_pairs)
    blocks = Blocks(space=0, found=len(pair), trimmed=False, limits=limits, refined=0, dropped=0, lost=0, skew=())
    ends_of = {"one": pair // max(n, 1), "other": pair % max(n, 1)}
    return Few(records, labels, decisions, **ends_of, mask=mask, blocks=blocks, frequencies=frequencies)
