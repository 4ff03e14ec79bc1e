"""What golden records learn of sources, from all entities: on the driver where the claims are few, else in Spark."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headgate.transforms.fusion.groups import one_array, whole_groups
from headgate.transforms.fusion.numbers import Deviation
from headgate.transforms.fusion.truth import Accuracy, Claims, Confusion, Distance, Method, learn
from headgate.transforms.step import Context, StepError

LEARNED = ("truth", "crh", "dawid_skene", "weighted_mean", "weighted_median")
CLAIMS_AT_ONCE = 1_000_000  # that the driver may hold, some 100 bytes each
VALUES = 50  # distinct ones at most, for a matrix of confusions
SOURCES = 100_000
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What was learned of sources: the method and its state. values: of a matrix of confusions, in order."""

    method: Method
    state: Any
    sources: Mapping[str | None, int]
    values: tuple[str, ...] = ()

    def claims(self, entity: Ints, source: Sequence[str | None], texts: pa.Array) -> Claims:
        values = pa.array(self.values, pa.string()) if self.values else pc.unique(texts)
        if not self.values:
            values = values.take(pc.sort_indices(values))
        numbers = pc.index_in(texts, values).to_numpy().astype(np.int64)
        told = np.array(texts.to_pylist(), float) if isinstance(self.method, Deviation) else None
        return Claims(entity, np.array([self.sources[s] for s in source], np.int64), numbers, told)

    def weights(self, source: Sequence[str | None]) -> npt.NDArray[np.float64]:
        """Return the weight of each claim's source, of a rule for numbers."""
        assert isinstance(self.method, Deviation)
        return self.method.weights(np.array([self.sources[s] for s in source], np.int64), self.state)

    def probabilities(self, entity: Ints, source: Sequence[str | None], texts: pa.Array) -> npt.NDArray[np.float64]:
        """Return the probability of each distinct (entity, value), in order."""
        return self.method.probabilities(self.claims(entity, source, texts), self.state)


def learned_from(rows: DataFrame, text: str, rule: str, column: str, context: Context) -> Learned:
    """Learn by a rule from all rows: e (entity), source and a text."""
    claims = rows.where(F.col(text).isNotNull()).select("e", "source", F.col(text).alias("text"))
    names = claims.groupBy("source").agg(F.count(F.lit(1)).alias("n")).limit(SOURCES + 1).collect()
    if len(names) > SOURCES:
        raise StepError(f"'{column}' has claims of more than {SOURCES:,} sources; the rule {rule} takes no more")
    sources = {s: i for i, s in enumerate(sorted((r["source"] for r in names), key=lambda s: (s is not None, s)))}
    values: tuple[str, ...] = ()
    n = max(len(sources), 1)
    methods: dict[str, Method] = {
        "truth": Accuracy(sources=n),
        "crh": Distance(sources=n),
        "weighted_mean": Deviation(sources=n, middle="mean"),
        "weighted_median": Deviation(sources=n, middle="median"),
    }
    if rule == "dawid_skene":
        found = [r["text"] for r in claims.select("text").distinct().limit(VALUES + 1).collect()]
        if len(found) > VALUES:
            raise StepError(f"'{column}' has more than {VALUES} values: the rule dawid_skene is not for it; take truth")
        values = tuple(sorted(found))
        methods[rule] = Confusion(sources=n, values=max(len(found), 1))
    method = methods[rule]
    before = Learned(method=method, state=None, sources=sources, values=values)
    if sum(r["n"] for r in names) <= CLAIMS_AT_ONCE:
        table = claims.toArrow().sort_by([("e", "ascending")])  # few claims: see `CLAIMS_AT_ONCE`
        whole = claims_of(before, table) if table.num_rows else None
        state = learn(method, lambda s: method.sums(whole, s)) if whole is not None else None
        return Learned(method=method, state=state, sources=sources, values=values)
    parts = context.keep(claims.repartition("e").sortWithinPartitions("e"), f"claims_{text}")

    def summed(state: Any) -> Ints:
        made = parts.sortWithinPartitions("e").mapInArrow(partial_sums(before, state), "sums binary").collect()
        found: Ints = np.sum([np.frombuffer(row["sums"], np.int64) for row in made], axis=0)
        return found

    return Learned(method=method, state=learn(method, summed), sources=sources, values=values)


def claims_of(before: Learned, table: pa.Table) -> Claims:
    """Return the claims of rows in order of entity."""
    codes = one_array(table["e"]).dictionary_encode().indices.to_numpy().astype(np.int64)
    return before.claims(codes, table["source"].to_pylist(), one_array(table["text"]))


def partial_sums(before: Learned, state: Any) -> Any:
    """Return the body of a map from claims in order of entity to the sums over them, one row for some entities."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        for claims in whole_groups(batches, "e"):
            yield as_row(before.method.sums(claims_of(before, claims), state))

    def as_row(sums: Ints) -> pa.RecordBatch:
        return pa.RecordBatch.from_arrays([pa.array([sums.tobytes()], pa.binary())], ["sums"])

    return run
