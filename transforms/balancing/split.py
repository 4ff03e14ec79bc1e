"""The split into training, validation and test rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from transforms.rows import SPLIT, TRAIN, stable_hash
from transforms.step import Step, StepError, need


@dataclass(frozen=True, kw_only=True)
class SplitByHash(Step):
    """Assign rows to splits by a hash of a stable key, into the column `split`.

    key: columns whose equal values must fall into the same split (all flights of one aircraft, say).
    shares: split -> share of the keys; they add up to 1 and one of them is `train`.
    seed: another seed gives another assignment.
    The shares hold in expectation over keys, not exactly. A null in the key counts as a value. The assignment of a key
    never changes as data grow. Steps that learn look at `train` alone from here on. Cost: one pass, no shuffle.
    """

    name: ClassVar[str] = "split_by_hash"
    key: tuple[str, ...]
    shares: Mapping[str, float] = field(default_factory=lambda: {TRAIN: 0.8, "valid": 0.1, "test": 0.1})
    seed: int = 0

    def names_after(self, have: Sequence[str], tables: Mapping[str, Sequence[str]]) -> list[str]:
        need(self.key, have)
        if TRAIN not in self.shares:
            raise StepError(f"shares: one of them must be named '{TRAIN}' (given: {', '.join(self.shares)})")
        if any(s < 0 for s in self.shares.values()) or abs(sum(self.shares.values()) - 1) > 1e-9:
            raise StepError(f"shares must be positive and add up to 1, not {sum(self.shares.values())}")
        return [*have, *([SPLIT] if SPLIT not in have else [])]

    def apply(self, df: DataFrame, tables: Mapping[str, DataFrame]) -> DataFrame:
        resolution = 1_000_000_000
        place = F.pmod(stable_hash(df, self.seed, self.key), F.lit(resolution))
        chosen, upto = None, 0.0
        names = list(self.shares)
        for name in names[:-1]:
            upto += self.shares[name]
            inside = place < F.lit(round(upto * resolution))
            chosen = F.when(inside, F.lit(name)) if chosen is None else chosen.when(inside, F.lit(name))
        last = F.lit(names[-1])
        return df.withColumn(SPLIT, last if chosen is None else chosen.otherwise(last))
