"""How far the training rows have moved from those that a table's steps learned from.

The distribution of each column that a step learns from is kept as counts: of numbers by the deciles at the time of the
fit, also of times, of other values by a hash. Two of them are compared by the population stability index.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headgate.expectations.distances import DECILES, bin_of, measure_of, stability
from headgate.transforms.kinds import as_text, missing
from headgate.transforms.quantiles import spreads_of
from headgate.transforms.rows import quoted

DRIFTED = 0.1  # the index from which on a distribution counts as another
HASHED = 32  # bins of values that are neither numbers nor times


class Drifted(Exception):
    """The training rows are distributed otherwise than those that the kept state was learned from."""


@dataclass(frozen=True)
class Distribution:
    """The counts of a column's values by bins. edges: of numbers, the deciles at the time of the fit."""

    edges: tuple[float, ...] | None
    counts: Mapping[str, int]

    def plus(self, other: "Distribution") -> "Distribution":
        bins = sorted(self.counts.keys() | other.counts.keys())
        return Distribution(self.edges, {b: self.counts.get(b, 0) + other.counts.get(b, 0) for b in bins})


@dataclass(frozen=True)
class Profile:
    """The distributions of the training rows of a table, by column."""

    known: Mapping[str, Distribution] = field(default_factory=dict)

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> "Profile":
        read = {n: Distribution(d["edges"] and tuple(d["edges"]), d["counts"]) for n, d in saved.items()}
        return cls(read)

    def saved(self) -> dict[str, Any]:
        return {name: asdict(d) for name, d in self.known.items()}

    def plus(self, other: "Profile") -> "Profile":
        return Profile({n: d.plus(other.known[n]) if n in other.known else d for n, d in self.known.items()})

    def with_more(self, other: "Profile") -> "Profile":
        return Profile({**other.known, **self.known})

    def drifted(self, now: "Profile") -> dict[str, float]:
        """Return the population stability index of the columns that are distributed otherwise in the rows of `now`."""
        drift = {n: stability(d.counts, now.known[n].counts) for n, d in self.known.items() if n in now.known}
        return {n: index for n, index in drift.items() if index >= DRIFTED}


def profile(rows: DataFrame, columns: Sequence[str], like: Profile | None = None) -> Profile:
    """Return the distributions of columns of rows.

    like: an earlier profile, whose edges are taken. Cost: one aggregate, and without `like` up to three more passes for
        the deciles.
    """
    if not columns:
        return Profile()
    kinds = dict(rows.dtypes)
    values = {c: measure_of(F.col(quoted(c)), kinds[c]) for c in columns}
    numbers = [c for c in columns if values[c] is not None]
    if like is not None:
        edges = {c: d.edges or () for c, d in like.known.items() if c in numbers}
    else:
        wanted = [(value, DECILES) for value in values.values() if value is not None]
        found = spreads_of(rows, wanted)[()] if numbers else []
        edges = {c: tuple(sorted(set(s.quantiles))) if s else () for c, s in zip(numbers, found, strict=True)}
    bins = []
    for c, value in values.items():
        known = None if value is None else F.array(*map(F.lit, edges.get(c, ()))).cast("array<double>")
        text = F.when(~missing(c, kinds[c]), as_text(F.col(quoted(c)), kinds[c])) if value is None else value
        bins.append(F.struct(F.lit(c).alias("name"), bin_of(text, known, HASHED).alias("bin")))
    counted = rows.select(F.explode(F.array(*bins)).alias("b")).groupBy("b.name", "b.bin").count().collect()
    counts: dict[str, dict[str, int]] = {c: {} for c in columns}
    for name, where, n in sorted(counted):
        counts[name][where] = n
    return Profile({c: Distribution(edges.get(c), counts[c]) for c in columns})
