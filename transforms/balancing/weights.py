"""Class weights: cost-sensitive learning without touching a row."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headgate.transforms.imputation.simple import LARGEST_STATE
from headgate.transforms.kinds import as_text, key_texts, need_kinds
from headgate.transforms.rows import SPLIT, TRAIN, quoted
from headgate.transforms.step import Columns, Context, Estimator, Step, StepError, require_columns, with_new


@dataclass(frozen=True, kw_only=True)
class AssignWeights(Step):
    """Give each training row the weight of its class: what `class_weights` becomes once fitted.

    label: the class column; weights: class (as text) -> weight; into: the new column. A text is read as a value of the
        label's type: of a double, 1 and 1.0 are one class.
    Rows of other splits, and rows whose class is null or unseen, get null. Cost: one pass.
    """

    name: ClassVar[str] = "assign_weights"
    by_split: ClassVar[bool] = True
    label: str
    weights: Mapping[str, float]
    into: str = "class_weight"

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns([self.label], have)
        return with_new(have, {self.into: "double"})

    def check(self, df: DataFrame, context: Context) -> None:
        super().check(df, context)
        need_kinds(df, self.name, [self.label], numbers=False)
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
class ClassWeights(Estimator):
    """Learn the balanced weight of each class from the training rows: n / (classes * rows of the class).

    label: the class column; into: the new column (double), null outside the training split.
    The weights' mean over the training rows is 1 (King and Zeng, 2001; scikit-learn's `balanced`).
    Null labels are left out and get null. Cost: one aggregate to fit, one pass to apply.
    """

    name: ClassVar[str] = "class_weights"
    label: str
    into: str = "class_weight"

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns([self.label], have)
        return with_new(have, {self.into: "double"})

    def check(self, df: DataFrame, context: Context) -> None:
        super().check(df, context)
        need_kinds(df, self.name, [self.label], numbers=False)

    def learns_from(self) -> tuple[str, ...]:
        return (self.label,)

    def fit(self, df: DataFrame, context: Context) -> AssignWeights:
        label, kind = F.col(quoted(self.label)), dict(df.dtypes)[self.label]
        counts = df.where(label.isNotNull()).groupBy(as_text(label, kind).alias("label")).count()
        rows = counts.limit(LARGEST_STATE + 1).collect()
        if len(rows) > LARGEST_STATE:
            raise StepError(f"label: '{self.label}' has more than {LARGEST_STATE:,} classes")
        total = sum(r["count"] for r in rows)
        weights = {r["label"]: total / (len(rows) * r["count"]) for r in sorted(rows, key=lambda r: r["label"])}
        return AssignWeights(label=self.label, weights=weights, into=self.into)
