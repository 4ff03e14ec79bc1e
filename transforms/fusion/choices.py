"""The choice of golden values among the claims of the records of an entity, in numpy."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headgate.transforms.fusion.groups import one_array, whole_groups
from headgate.transforms.fusion.learning import LEARNED, Learned
from headgate.transforms.fusion.numbers import Middle, middle_of

How = Literal[
    "vote",
    "weighted_vote",
    "truth",
    "crh",
    "dawid_skene",
    "priority",
    "recent",
    "longest",
    "complete",
    "mean",
    "median",
    "weighted_mean",
    "weighted_median",
]
MADE = ("mean", "median", "weighted_mean", "weighted_median")  # values that no record need have
EVIDENCE = pa.struct(
    {
        "source": pa.string(),
        "rule": pa.string(),
        "confidence": pa.float64(),
        "runner_up": pa.string(),
        "conflict": pa.bool_(),
        "tie": pa.bool_(),
        "majority": pa.string(),
    }
)
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is chosen: the units of columns, a rule each, given weights, and what was learned of sources, by unit."""

    units: tuple[tuple[str, ...], ...]
    rules: tuple[How, ...]
    weights: Mapping[str, float]
    learned: Mapping[int, Learned]


def by_entity(plan: Plan) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    """Return the body of a map from rows in order of entity, source and id to golden records."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        for rows in whole_groups(batches, "e"):
            yield golden(rows.combine_chunks(), plan)

    return run


def golden(rows: pa.Table, plan: Plan) -> pa.RecordBatch:
    """Make the records of whole entities."""
    codes = one_array(rows["e"]).dictionary_encode().indices.to_numpy().astype(np.int64)  # in order of appearance
    entities = int(codes.max()) + 1
    starts = np.searchsorted(codes, np.arange(entities + 1))
    parents = one_array(rows["parents"])
    flat = [sorted({x for p in parents[a:b].to_pylist() for x in p or ()}) for a, b in pairwise(starts.tolist())]
    columns: list[Any] = [
        one_array(rows["e"]).take(pa.array(starts[:-1])),
        pa.array(np.diff(starts)),
        pa.array(flat, pa.list_(pa.string())),
    ]
    keys: list[str] = []
    evidence: list[pa.StructArray] = []
    cell = 0
    names = frozenset(rows.column_names)  # asked for once: of a thousand columns that takes as long as to choose
    whole = sum((rows[f"f{i}"].to_numpy().astype(float) for i in range(len(plan.units))), np.zeros(len(codes)))
    for i, (unit, rule) in enumerate(zip(plan.units, plan.rules, strict=True)):
        chosen = Choice(rows, codes, entities, i, rule, plan, names, whole)
        for column in unit:
            values = one_array(rows[f"c{cell}"])
            columns.append(chosen.number(values) if rule in MADE else values.take(chosen.rows))
            keys.append(column)
            evidence.append(chosen.evidence())
            cell += 1
    # One column's evidence after the other, taken entity by entity.
    order = np.arange(entities * len(keys)).reshape(len(keys), entities).T.ravel()
    told = pa.concat_arrays(evidence).take(pa.array(order)) if evidence else pa.array([], EVIDENCE)
    offsets = np.arange(entities + 1, dtype=np.int32) * len(keys)
    columns.append(pa.MapArray.from_arrays(pa.array(offsets), pa.array(keys * entities, pa.string()), told))
    made = ["e", "records", "parents", *(f"o{i + 3}" for i in range(cell)), "evidence"]
    return pa.RecordBatch.from_arrays(columns, made)


class Choice:
    """The choice of a unit's value in each of some entities."""

    def __init__(
        self,
        table: pa.Table,
        entity: Ints,
        entities: int,
        unit: int,
        rule: How,
        plan: Plan,
        names: Collection[str],
        whole: Floats,
    ) -> None:
        """Choose by a rule. names: of the table's columns. whole: how many values each record has."""
        texts = one_array(table[f"t{unit}"])
        self.at: Ints = np.flatnonzero(pc.is_valid(texts).to_numpy(zero_copy_only=False))
        self.entities, self.rule, self.entity = entities, rule, entity[self.at]
        self.texts = texts.take(pa.array(self.at))
        distinct = pc.unique(self.texts)
        distinct = distinct.take(pc.sort_indices(distinct))
        self.value: Ints = pc.index_in(self.texts, distinct).to_numpy().astype(np.int64)
        # Bytes and nested values are compared by a text that only equal ones have, and shown by another.
        shown = f"s{unit}"
        self.shown = one_array(table[shown]).take(pa.array(self.at)) if shown in names else self.texts
        self.distinct = distinct
        self.source = one_array(table["source"]).take(pa.array(self.at)).to_pylist()
        pair = self.entity * max(len(distinct), 1) + self.value
        key, self.says, self.candidate = np.unique(pair, return_index=True, return_inverse=True)
        self.of, self.value_of = key // max(len(distinct), 1), key % max(len(distinct), 1)
        self.votes = np.bincount(self.candidate, minlength=len(key)).astype(float)
        self.claims = np.bincount(self.entity, minlength=entities)
        filled = table[f"f{unit}"].to_numpy()[self.at]
        self.support = self.votes
        if rule == "weighted_vote":
            weight = np.array([plan.weights.get(s, 1.0) for s in self.source])
            self.support = np.bincount(self.candidate, weight, len(key))
        elif rule in LEARNED:
            self.support = plan.learned[unit].probabilities(self.entity, self.source, self.texts)
        self.learned = plan.learned[unit] if rule in MADE and rule in LEARNED else None
        merit = self.merit(table, rule, unit, whole)
        rank, n = table["rank"].to_numpy()[self.at], np.arange(len(self.at))  # rows come in order of rank and id
        ties = (n, rank, -self.votes[self.candidate])
        self.chosen = self.first(*ties, -np.round(merit, 9), -filled)
        self.majority = self.first(*ties, -filled)
        places = np.where(self.chosen >= 0, self.at[self.chosen] if len(self.at) else 0, -1)
        self.rows = pa.array(places, mask=places < 0)
        self.merits, self.filled = merit, filled

    def first(self, *by: npt.NDArray[Any]) -> Ints:
        """Return the claim of each entity that comes first by these, the last of them before all; -1 where none is."""
        order = np.lexsort((*by, self.entity))
        begins = np.r_[True, self.entity[order][1:] != self.entity[order][:-1]] if len(order) else np.zeros(0, bool)
        found = np.full(self.entities, -1)
        found[self.entity[order[begins]]] = order[begins]
        return found

    def merit(self, table: pa.Table, rule: How, unit: int, whole: Floats) -> Floats:
        """Return what a rule goes by, the greatest first, for each claim."""
        if rule == "longest":
            return np.asarray(table[f"l{unit}"].to_numpy()[self.at], float)
        if rule == "priority":
            return -np.asarray(table["rank"].to_numpy()[self.at], float)
        if rule == "recent":
            last = one_array(table["last"])
            ordered = pc.rank(last, sort_keys="ascending", null_placement="at_start", tiebreaker="min")
            found = np.where(pc.is_valid(last).to_numpy(zero_copy_only=False), ordered.to_numpy(), 0)
            return np.asarray(found[self.at], float)
        if rule == "complete":
            return whole[self.at]
        if rule in MADE:
            return np.zeros(len(self.at))
        return np.asarray(self.support[self.candidate], float)

    def number(self, values: pa.Array) -> pa.Array:
        """Return the mean or median of each entity's numbers, weighted or not, added up in their order."""
        numbers = values.take(pa.array(self.at)).cast(pa.float64(), safe=False).to_numpy()  # beyond 2^53 the nearest
        middle: Middle = "mean" if self.rule.endswith("mean") else "median"
        weight, entity = np.ones(len(numbers)), self.entity
        if self.learned is not None:
            known = np.isfinite(numbers)  # an infinity has no say
            weight = self.learned.weights(self.source)[known]
            entity, numbers = entity[known], numbers[known]
        found = middle_of(entity, numbers, weight, self.entities, middle)
        none = (np.bincount(entity, minlength=self.entities) == 0) | np.isnan(found)  # of infinities of both signs
        return pa.array(found, pa.float64(), mask=none)

    def evidence(self) -> pa.StructArray:
        """Return what stands behind each entity's value."""
        made, none = self.rule in MADE, self.chosen < 0
        claim = np.where(none, 0, self.chosen)
        if not len(self.at):
            nothing, no = pa.nulls(self.entities, pa.string()), pa.array(np.zeros(self.entities, bool))
            parts = [nothing, self.rules(), nothing.cast(pa.float64()), nothing, no, no, nothing]
            return pa.StructArray.from_arrays(parts, fields=list(EVIDENCE))
        mine = self.candidate[claim]
        total = np.bincount(self.of, self.support, self.entities)
        share = np.divide(self.support[mine], total, out=np.zeros(self.entities), where=total > 0)
        if made:
            share = self.votes[mine] / np.maximum(self.claims, 1)
        rounded, of = np.unique(share, return_inverse=True)
        confidence = np.array([round(x, 6) for x in rounded.tolist()])[of]
        order = np.lexsort((self.value_of, -self.votes, -np.round(self.support, 9), self.of))
        ends = np.searchsorted(self.of[order], np.arange(self.entities + 1))
        begins, several = np.minimum(ends[:-1], len(order) - 1), np.diff(ends) > 1
        next_one = order[np.minimum(begins + 1, len(order) - 1)]
        other = np.where(order[begins] != mine, order[begins], next_one)
        parts = [
            pa.array(self.source, pa.string()).take(pa.array(claim, mask=none | made)),
            self.rules(),
            pa.array(confidence, mask=none),
            self.shown.take(pa.array(self.says[other], mask=none | made | ~several)),
            pa.array(several & ~none),
            pa.array((self.best_values() > 1) & ~none & (not made)),
            self.shown.take(pa.array(self.majority, mask=none)),
        ]
        return pa.StructArray.from_arrays(parts, fields=list(EVIDENCE))

    def rules(self) -> pa.Array:
        return pa.array([self.rule]).take(pa.array(np.zeros(self.entities, np.int64)))

    def best_values(self) -> Ints:
        """Count the values that are best alike by the rule, of each entity."""
        merit = np.round(self.merits, 9)
        order = np.lexsort((-merit, -self.filled, self.entity))
        first = order[np.r_[True, self.entity[order][1:] != self.entity[order][:-1]]]
        at = np.searchsorted(self.entity[first], self.entity)
        best = (self.filled == self.filled[first][at]) & (merit == merit[first][at])
        size = len(self.distinct)
        found = np.unique(self.entity[best] * size + self.value[best])
        return np.bincount(found // size, minlength=self.entities)
