"""Class weights: cost-sensitive learning without touching a row."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headgate.transforms.imputation.simple import LARGEST_STATE
from headgate.transforms.kinds import as_text, key_texts, named_values, need_kinds
from headgate.transforms.rows import SPLIT, TRAIN, quoted
from headgate.transforms.step import Columns, Context, Estimator, Step, StepError, require_columns, with_new
from headgate.words import few_of


@dataclass(frozen=True, kw_only=True)
class OfClasses(Step):
    """A step that adds a column with a weight of each row's class."""

    label: str
    into: str = "class_weight"

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns([self.label], have)
        need_kinds(have, self.name, [self.label], numbers=False)
        return with_new(have, {self.into: "double"})


@dataclass(frozen=True, kw_only=True)
class AssignWeights(OfClasses):
    """Give each training row the weight of its class: what `class_weights` becomes once fitted.

    label: the class column; weights: class (as text) -> weight; into: the new column. A text is read as a value of the
        label's type: of a double, 1 and 1.0 are one class.
    Rows of other splits, and rows whose class is null or unseen, get null. Cost: one pass.
    """

    name: ClassVar[str] = "assign_weights"
    by_split: ClassVar[bool] = True
    weights: Mapping[str, float]

    def check(self, df: DataFrame, context: Context) -> None:
        super().check(df, context)
        key_texts(self.weights, dict(df.dtypes)[self.label], self.label)

    def learned(self) -> bool:
        return bool(self.weights)

    def for_new_rows(self) -> Step:
        return dataclasses.replace(self, weights={}).at(self.id)

    def apply(self, df: DataFrame) -> DataFrame:
        weight, kind = F.lit(None).cast("double"), dict(df.dtypes)[self.label]
        if self.weights:
            texts = key_texts(self.weights, kind, self.label)
            pairs = [x for label, weight in self.weights.items() for x in (texts[label], F.lit(float(weight)))]
            weight = F.try_element_at(F.create_map(*pairs), as_text(F.col(quoted(self.label)), kind))
        if SPLIT in df.columns:
            weight = F.when(F.col(SPLIT) == TRAIN, weight)
        return df.withColumn(self.into, weight)


@dataclass(frozen=True, kw_only=True)
class ClassWeights(OfClasses, Estimator):
    """Give each training row a weight of its class, for cost-sensitive learning.

    label: the class column; into: the new column (double), null outside the training split.
    method: `balanced` (default): n / (classes * rows of the class), as scikit-learn has it; `effective`: in proportion
        to (1 - beta) / (1 - beta^(rows of the class)), the inverse of the effective number of samples.
    beta: of `effective`, from 0 (all alike) to below 1 (0.999).
    weights: class -> weight of your own, in place of a method; they are taken as they are, and every class needs one.
    The weights' mean over the training rows is 1, but for your own. Null labels are left out and get null. Weights are
    the first thing to try: they cost nothing and change no row. Cost: one aggregate to fit, one pass to apply. Source:
    King and Zeng 2001; Cui et al. 2019 (effective numbers).
    """

    name: ClassVar[str] = "class_weights"
    method: Literal["balanced", "effective"] = "balanced"
    beta: float = 0.999
    weights: Mapping[str, float] | None = None

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        if not 0 <= self.beta < 1:
            raise StepError("beta must be at least 0 and below 1")
        if any(not math.isfinite(w) or w < 0 for w in (self.weights or {}).values()):
            raise StepError("weights must be at least 0")
        return super().columns_after(have, tables)

    def learns_from(self) -> tuple[str, ...]:
        return (self.label,)

    def fit(self, df: DataFrame, context: Context) -> AssignWeights:
        label, kind = F.col(quoted(self.label)), dict(df.dtypes)[self.label]
        counts = df.where(label.isNotNull()).groupBy(as_text(label, kind).alias("label")).count()
        rows = counts.limit(LARGEST_STATE + 1).collect()
        if len(rows) > LARGEST_STATE:
            raise StepError(f"label: '{self.label}' has more than {LARGEST_STATE:,} classes")
        sizes = {r["label"]: r["count"] for r in sorted(rows, key=lambda r: r["label"])}
        if self.weights is None:
            found = weights_of(sizes, self.method, self.beta)
            return AssignWeights(label=self.label, weights=found, into=self.into)
        named = named_values(df.sparkSession, self.weights, kind, self.label, "weights")
        own = {value: self.weights[name] for value, name in named.items()}
        missing = [name for name in sizes if name not in own]
        if missing:
            raise StepError(f"weights: none for class {few_of(missing)}")
        return AssignWeights(label=self.label, weights=own, into=self.into)


def weights_of(sizes: Mapping[str, int], method: str, beta: float) -> dict[str, float]:
    """Return the weight of each class, of which the mean over all rows is 1."""
    total = sum(sizes.values())
    if method == "balanced":
        return {name: total / (len(sizes) * n) for name, n in sizes.items()}
    # -expm1(n log(beta)) is 1 - beta^n, exact also where beta is near 1.
    raw = {name: 1.0 if beta == 0 else (1 - beta) / -math.expm1(n * math.log(beta)) for name, n in sizes.items()}
    mean = sum(raw[name] * n for name, n in sizes.items()) / total if total else 1.0
    return {name: weight / mean for name, weight in raw.items()}
