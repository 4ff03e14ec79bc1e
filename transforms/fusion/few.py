"""Candidate pairs of few records, all at once in numpy: what `many` says, without its shuffles."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession

from headgate.transforms.fusion import model, scoring, supervised
from headgate.transforms.fusion.blocking import CAPS, REFINED, SKEWED, SMALL_BUDGET, Blocks, space_of
from headgate.transforms.fusion.clusters import DECIDED, one_to_one
from headgate.transforms.fusion.groups import one_array
from headgate.transforms.fusion.keys import keys_of, member
from headgate.transforms.fusion.levels import Frequencies, patterns
from headgate.transforms.fusion.meetings import Limits, best, meet
from headgate.transforms.fusion.neighbourhood import met_at_once, worth_of
from headgate.transforms.fusion.records import Records, drawn_pairs, frequencies_of
from headgate.transforms.fusion.scoring import (
    ASKED,
    LINK,
    PARTS,
    SHOWN,
    STEPS,
    Counted,
    Floats,
    Levels,
    Scored,
    Scorer,
)
from headgate.transforms.fusion.values import JOINED
from headgate.transforms.rows import arrow_frame

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Known = Mapping[tuple[int, int], bool | None]  # places of two records -> whether they are the same


class Few:
    """Blocked and compared pairs; see `Pairs`. Records are known by their places in order of their ids.

    labels, decisions: pairs that people named. one, other, mask: candidates in order, and pairs drawn at random.
    """

    def __init__(
        self,
        records: Records,
        labels: Known | None,
        decisions: Known | None,
        *,
        one: Ints,
        other: Ints,
        mask: Ints,
        blocks: Blocks,
        frequencies: Sequence[Frequencies],
    ) -> None:
        assert records.table is not None
        self.records, self.labels, self.decisions, self.table = records, labels, decisions, records.table
        self.one, self.other, self.mask, self.blocks, self.frequencies = one, other, mask, blocks, frequencies
        self.src: Ints = self.table["src"].to_numpy().astype(np.int64)
        values = [one_array(self.table[f"v{j}"]) for j in range(len(records.comparisons))]
        levels = patterns(records.comparisons, frequencies, values, one, other)
        self.patterns, self.of = self.without = distinct_rows(levels)
        self.candidates = np.flatnonzero(self.mask > 0)
        self.score: Floats = np.zeros(0)
        self.probability: Floats = np.zeros(0)
        self.lead: Floats = np.zeros(0)

    @classmethod
    def blocked(
        cls,
        records: Records,
        labels: Known | None,
        decisions: Known | None,
        *,
        limits: Limits | None = None,
        frequencies: Sequence[Frequencies] | None = None,
        cap: int | None,
        per_record: int,
        minhash: int,
        neighbours: int,
        seed: int,
    ) -> "Few":
        """Return the candidates that keys propose, and pairs at random to learn from.

        limits, frequencies: those that were learned before: nothing is drawn at random then. Raises `TooMany` where the
        pairs under all keys are too many.
        """
        assert records.table is not None
        values = [one_array(records.table[f"v{j}"]) for j in range(len(records.comparisons))]
        src = records.table["src"].to_numpy().astype(np.int64)
        space, n = space_of(records.sizes), len(src)
        budget = max(per_record * n, SMALL_BUDGET)
        keys = keys_of(records.comparisons, values, minhash)
        options: dict[str, Any] = {"cap": cap, "caps": CAPS, "budget": budget, "refined": REFINED, "skewed": SKEWED}
        near = met_at_once(records.comparisons, values, src, neighbours, records.linking) if neighbours else None
        also = None if near is None else (*near, worth_of(n, neighbours, space))
        met = meet(keys, src, len(records.sizes), space, limits=limits, also=also, **options)
        one, other, mask = met.one, met.other, met.mask
        trimmed = len(one) > 2 * budget
        if trimmed:
            kept = best(one, other, met.bits, max(1, budget // n), n)
            one, other, mask = one[kept], other[kept], mask[kept]
        drawn = np.zeros(0, np.int64)
        if frequencies is None:
            at_random, rid = drawn_pairs(records, seed), records.table["rid"].to_numpy()
            ends = [np.searchsorted(rid, at_random[c].to_numpy()) for c in ("one", "other")]
            drawn = ends[0] * n + ends[1]
        asked = np.array([a * n + b for known in (labels, decisions) for a, b in known or ()], np.int64)
        found, mask = with_others(one * n + other, mask, drawn, asked)
        blocks = Blocks(
            space=space,
            found=int((mask > 0).sum()),  # those that people named count as candidates
            trimmed=trimmed,
            limits=met.limits,
            refined=met.refined,
            dropped=met.dropped,
            lost=met.lost,
            skew=met.skew,
        )
        given = frequencies_of(records) if frequencies is None else frequencies
        return cls(
            records,
            labels,
            decisions,
            one=found // n,
            other=found % n,
            mask=mask,
            blocks=blocks,
            frequencies=given,
        )

    @property
    def spark(self) -> SparkSession:
        return self.records.raw.sparkSession

    def counts(self, *, started: bool) -> Counted:
        size, share = len(self.patterns), scoring.learnt_share(self.blocks.found)
        rid = self.table["rid"].to_numpy()
        some = self.candidates
        drawn = np.mod(rid[self.one[some]] ^ rid[self.other[some]], PARTS) < share
        blocked = np.bincount(self.of[some[drawn]], minlength=size).astype(float)
        at_random = np.bincount(self.of[self.mask == 0], minlength=size).astype(float)
        sure: Floats = np.zeros(size)
        if started:
            of = self.of[some[drawn]]
            sure = np.bincount(of, np.floor(self.probability[drawn] * PARTS + 0.5), size).astype(float)
        seen = np.flatnonzero(blocked + at_random)
        unseen = float(max(self.blocks.space - self.blocks.found, 0))
        return scoring.counted_from(
            self.patterns[seen],
            blocked[seen],
            at_random[seen],
            sure[seen] if started else None,
            self.blocks.found,
            unseen,
        )

    def labelled(self) -> tuple[Levels, Bools]:
        known = {p: same for p, same in (self.labels or {}).items() if same is not None}
        n = len(self.src)
        pair = np.array([a * n + b for a, b in known], np.int64)
        at = np.searchsorted(self.one * n + self.other, pair)
        return self.patterns[self.of[at]], np.array(list(known.values()), bool)

    def judge(self, scorer: Scorer, *, alone: bool) -> Scored:
        some = self.candidates
        self.score = scorer.score(self.patterns)[self.of[some]] if len(some) else np.zeros(0)
        odds = scoring.odds_of(self.score)
        if alone:
            shown = np.where(self.score >= SHOWN, odds, 0.0)
            one, other = self.one[some], self.other[some]
            all_one, rival_one = rivals_of(one, self.src[other], other, self.score, shown)
            all_other, rival_other = rivals_of(other, self.src[one], one, self.score, shown)
            rated = odds / (1.0 + all_one + all_other - shown)
            self.lead = self.score - np.maximum(rival_one, rival_other)
        else:
            rated = odds / (1 + odds)
        self.probability = np.floor(rated * PARTS + 0.5) / PARTS
        step = np.floor(self.probability * STEPS).astype(np.int64)
        levels = self.patterns[:, : len(self.records.comparisons)]
        ways = scoring.ways_of(self.mask[some], levels[self.of[some]])
        n = np.bincount(step * 4 + ways)
        sure = np.bincount(step * 4 + ways, np.floor(self.probability * PARTS + 0.5))
        there = np.flatnonzero(n).tolist()
        return scoring.summary([(k // 4, k % 4, int(n[k]), int(sure[k])) for k in there])

    def add_lead(self) -> None:
        self.without = self.patterns, self.of
        level = np.ones(len(self.one), np.int64)
        level[self.candidates] = 1 + (self.lead[:, None] > model.GAPS).sum(axis=1)
        kept, self.of = np.unique(self.of * 8 + level, return_inverse=True)
        self.patterns = np.column_stack([self.patterns[kept // 8], (kept % 8).astype(np.int8)])

    def drop_lead(self) -> None:
        self.patterns, self.of = self.without

    def rows(self, scorer: Scorer, names: Sequence[str], cut: float, *, alone: bool) -> DataFrame:
        return arrow_frame(self.spark, self.shown(scorer, names, cut, alone=alone))

    def shown(self, scorer: Scorer, names: Sequence[str], cut: float, *, alone: bool) -> pa.Table:
        """Return the pairs worth a look: the columns of `LINK`."""
        some = self.candidates
        same = self._decided(some)
        shown = np.flatnonzero((self.score >= SHOWN) | (same >= 0))
        some, same = some[shown], same[shown]
        score, probability = self.score[shown], self.probability[shown]
        linked = np.where(same >= 0, same == 1, probability >= cut)
        if alone:
            linked = self._one_partner_each(some, linked, np.where(same == 1, DECIDED, score))
        usual = "supervised" if isinstance(scorer, supervised.Supervised) else "model"
        rule = np.where(same == 1, "must_link", np.where(same == 0, "cannot_link", usual))
        ids = one_array(self.table["id"])
        one, other = self.one[some], self.other[some]
        if not self.records.linking:
            swap = pc.greater(ids.take(pa.array(one)), ids.take(pa.array(other))).to_numpy(zero_copy_only=False)
            one, other = np.where(swap, other, one), np.where(swap, one, other)
        used, of = np.unique(self.of[some], return_inverse=True)
        texts = pa.array([" ".join(map(str, p)) for p in self.patterns[used].tolist()], pa.string())
        parts = scorer.weights(self.patterns[used]) if len(used) else np.zeros((0, len(names)))
        offsets = np.arange(len(some) + 1, dtype=np.int32) * len(names)
        keys = pa.DictionaryArray.from_arrays(np.tile(np.arange(len(names)), len(some)), pa.array(list(names)))
        weights = pa.MapArray.from_arrays(pa.array(offsets), keys.cast(pa.string()), pa.array(parts[of].ravel()))
        sources, key = pa.array(self.records.sources), one_array(self.table["key"])
        cells = {
            "source_a": sources.take(pa.array(self.src[one])),
            "id_a": ids.take(pa.array(one)),
            "source_b": sources.take(pa.array(self.src[other])),
            "id_b": ids.take(pa.array(other)),
            "key_a": key.take(pa.array(one)),
            "key_b": key.take(pa.array(other)),
            "score": pa.array(score),
            "probability": pa.array(probability),
            "pattern": texts.take(pa.array(of)),
            "weights": weights,
            "rule": pa.array(rule.tolist(), pa.string()),
            "linked": pa.array(linked),
        }
        return pa.table({c: cells[c] for c in LINK})

    def _decided(self, some: Ints) -> Ints:
        """Return what people decided of candidates: 1 the same, 0 not, -1 nothing."""
        found = np.full(len(some), -1)
        known = {p: same for p, same in (self.decisions or {}).items() if same is not None}
        n = len(self.src)
        pair = np.array([a * n + b for a, b in known], np.int64)
        found[np.searchsorted(self.one[some] * n + self.other[some], pair)] = list(known.values())
        return found

    def _one_partner_each(self, some: Ints, linked: Bools, rank: Floats) -> Bools:
        """Leave of linked pairs those of the greedy choice, as `partners` does."""
        at = np.flatnonzero(linked)
        one, other = self.one[some[at]], self.other[some[at]]
        common = shared_words(self.table, len(self.records.comparisons), one, other)
        side = self.src[one] * (1 << 31) + self.src[other]
        stays = np.zeros(len(linked), np.bool_)
        stays[at[one_to_one(one, other, side, rank[at], common)]] = True
        return stays


def rivals_of(mine: Ints, source: Ints, theirs: Ints, score: Floats, odds: Floats) -> tuple[Floats, Floats]:
    """Return the odds of all pairs of a record with a source together, and the best score of another pair of it."""
    order = np.lexsort((theirs, -score, source, mine))
    new = (mine[order][1:] != mine[order][:-1]) | (source[order][1:] != source[order][:-1])
    first = np.flatnonzero(np.r_[True, new][: len(mine)])
    of = np.repeat(np.arange(len(first)), np.diff(np.r_[first, len(mine)]))
    total = np.bincount(of, odds[order], len(first))
    size = np.diff(np.r_[first, len(mine)])
    second = np.full(len(first), -99.0)
    several = size > 1
    second[several] = score[order[first[several] + 1]]
    best_of = score[order[first]]
    every, rival = np.empty(len(odds)), np.empty(len(odds))
    every[order] = total[of]
    rival[order] = np.where(score[order] >= best_of[of], second[of], best_of[of])
    return every, rival


def shared_words(records: pa.Table, columns: int, one: Ints, other: Ints) -> Floats:
    """Return the share of the words of two records, by their places, that both have."""
    used = np.unique(np.r_[one, other])
    cells = zip(*(one_array(records[f"v{j}"]).take(pa.array(used)).to_pylist() for j in range(columns)), strict=True)
    said = [set(" ".join(v for v in row if v is not None).replace(JOINED, " ").split(" ")) for row in cells]
    words = dict(zip(used.tolist(), said, strict=True))
    return np.array([len(words[a] & words[b]) / len(words[a] | words[b]) for a, b in zip(one, other, strict=True)])


def with_others(pair: Ints, mask: Ints, drawn: Ints, asked: Ints) -> tuple[Ints, Ints]:
    """Return pairs in order, each one number, with those drawn at random and those that people named, and the masks."""
    others = np.unique(np.concatenate([drawn, asked]))
    found = np.sort(np.concatenate([pair, others[~member(others, pair)]]))
    masks = np.zeros(len(found), np.int64)
    masks[np.searchsorted(found, pair)] = mask
    masks[np.searchsorted(found, asked)] |= ASKED
    return found, masks


def distinct_rows(levels: Levels) -> tuple[Levels, Ints]:
    """Return the distinct rows, and the number of each row among them."""
    code = np.zeros(len(levels), np.int64)
    most = 1
    for j in range(levels.shape[1]):
        size = int(levels[:, j].max(initial=0)) + 1
        if most * size > 1 << 62:
            _, code = np.unique(code, return_inverse=True)
            most = int(code.max(initial=0)) + 1
        code, most = code * size + levels[:, j], most * size
    _, first, back = np.unique(code, return_index=True, return_inverse=True)
    return levels[first], back
