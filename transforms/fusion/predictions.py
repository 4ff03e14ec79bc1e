"""Tables of predictions of several models fused into one: votes, means of numbers and of probabilities."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from pyspark.sql import Column, DataFrame
from pyspark.sql import Window as W
from pyspark.sql import functions as F

from headgate.transforms.fusion.crossreference import with_made
from headgate.transforms.fusion.sources import require_sources
from headgate.transforms.kinds import is_number, is_plain, present
from headgate.transforms.rows import (
    MADE,
    PARENTS,
    ROW_ID,
    SOURCE,
    Rejection,
    content_key,
    is_kept,
    quoted,
    reject,
)
from headgate.transforms.step import Columns, Context, Step, StepError, require_columns, with_new


@dataclass(frozen=True, kw_only=True)
class CombinePredictions(Step):
    """Make one prediction of those of several models for the same item: by vote, or by mean.

    by: the columns that name an item, of plain types; a null counts as a value.
    model: the column that names the model: where the table starts from several, `_source`.
    label: the column of predicted classes, decided by vote.
    scores: columns of numbers, averaged: predicted values, or probabilities, one column for each class.
    best: name of an added column: the one of `scores` whose mean is greatest, ties falling to the one named first.
    weights: model -> weight of its vote and its numbers, not negative; others weigh 1. A name that no model has is
        refused, where there are models that are not named.
    The table's `grain` is new: a row for each item, with `by`, `models` (how many had a say), the label with
    `<label>_share` (its share of the weight) and `<label>_tie` (whether another had as much weight), the means, and
    `best`. Ties of votes fall to the class with more votes, then to the smaller one. A null label and a null or NaN
    number have no say; where none has, and of infinities of both signs, the result is null. Weights that add up to 0
    are as none. A model that predicts one item again is rejected with `repeated_prediction`, all but its smallest row
    id; a row without a model with `missing_model`. `_parents` are the predictions. Sums are added in the order of the
    models' names.
    Cost: one shuffle of the named columns by item; the predictions of one item are held by one task.
    """

    name: ClassVar[str] = "combine_predictions"
    scope: ClassVar[Literal["row", "table"]] = "table"
    grain: ClassVar[Literal["rows", "new"]] = "new"
    by: tuple[str, ...]
    model: str = SOURCE
    label: str | None = None
    scores: tuple[str, ...] = ()
    best: str | None = None
    weights: Mapping[str, float] | None = None

    @property
    def source_column(self) -> str:
        return self.model

    @property
    def named_sources(self) -> dict[str, tuple[str, ...]]:
        """Return the names of models that options say something of, by option."""
        return {"weights": tuple(self.weights)} if self.weights else {}

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        if not self.by:
            raise StepError("by: name the columns that an item is known by")
        named = [*self.by, self.model, *([self.label] if self.label else []), *self.scores]
        require_columns(named, have)
        twice = next((c for c in named if named.count(c) > 1), None)
        if twice is not None:
            raise StepError(f"'{twice}' is named twice")
        if not self.label and not self.scores:
            raise StepError("name a label to vote on, or scores to average")
        for column in named:
            kind = have[column]
            if kind is not None and column in self.scores and not is_number(kind):
                raise StepError(f"scores: '{column}' is {kind}, not a number; put a cast before")
            if kind is not None and column not in self.scores and not is_plain(kind):
                raise StepError(f"'{column}' is {kind}, not a plain value; put a cast before")
        if self.best is not None and len(self.scores) < 2:
            raise StepError("best: needs two scores or more")
        for model, weight in (self.weights or {}).items():
            if not 0 <= weight < math.inf:
                raise StepError(f"weights: {weight} of '{model}' is not 0 or above")
        after: Columns = with_new({c: have[c] for c in self.by}, {"models": "bigint"})
        if self.label:
            voted = {self.label: have[self.label], f"{self.label}_share": "double", f"{self.label}_tie": "boolean"}
            after = with_new(after, voted)
        after = with_new(after, dict.fromkeys(self.scores, "double"))
        return with_new(after, {self.best: "string"}) if self.best else after

    def run(self, df: DataFrame, context: Context) -> DataFrame:
        require_sources(df, self.model, self.named_sources)
        kinds = dict(df.dtypes)
        model = F.col(quoted(self.model)).cast("string")
        item = W.partitionBy(*map(quoted, self.by)).orderBy(~is_kept(), "_hg_model", ROW_ID)
        df = df.withColumn("_hg_model", model)
        df = df.withColumn("_hg_before", F.lag("_hg_model").over(item))
        shown = {c: F.col(quoted(c)) for c in self.by} | {"model": F.col("_hg_model")}
        again = F.col("_hg_before") == F.col("_hg_model")
        df = reject(
            df,
            self.id,
            Rejection(F.col("_hg_model").isNull(), "missing_model", {c: shown[c] for c in self.by}),
            Rejection(again, "repeated_prediction", shown),
        )
        weight = F.lit(1.0)
        for name, given in (self.weights or {}).items():
            weight = F.when(F.col("_hg_model") == F.lit(name), F.lit(float(given))).otherwise(weight)
        claim = F.struct(
            F.col("_hg_model").alias("model"),
            weight.alias("weight"),
            *([present(self.label, kinds[self.label]).alias("label")] if self.label else []),
            *(present(c, kinds[c]).cast("double").alias(f"s{i}") for i, c in enumerate(self.scores)),
        )
        parents = F.when(F.col(MADE).isNull(), F.array(ROW_ID)).otherwise(F.col(PARENTS))
        made = (
            df.where(is_kept())
            .groupBy(*map(quoted, self.by))
            .agg(
                F.array_sort(F.collect_list(claim)).alias("_hg_claims"),
                F.array_sort(F.array_distinct(F.flatten(F.collect_list(parents)))).alias(PARENTS),
            )
        )
        claims = F.col("_hg_claims")
        has = lambda c: F.greatest(*(c[m].isNotNull().cast("int") for m in self.said), F.lit(0)) == 1  # noqa: E731
        values: dict[str, Column] = {"models": F.size(F.filter(claims, has)).cast("bigint")}
        if self.label:
            made = made.withColumn("_hg_vote", vote(claims))
            values[self.label] = F.col("_hg_vote.label")
            values[f"{self.label}_share"] = F.col("_hg_vote.share")
            values[f"{self.label}_tie"] = F.coalesce(F.col("_hg_vote.tie"), F.lit(False))
        values |= {c: mean(claims, f"s{i}") for i, c in enumerate(self.scores)}
        if self.best:
            greatest = F.greatest(*(values[c] for c in self.scores))
            found = [F.when(values[c] == greatest, F.lit(c)) for c in self.scores]
            values[self.best] = F.coalesce(*found)
        row = F.md5(content_key(made, self.by, F.lit(self.id))).alias(ROW_ID)
        shown_rows = made.select(*map(quoted, self.by), *(v.alias(c) for c, v in values.items()), F.col(PARENTS), row)
        return with_made(shown_rows, df, self.id)

    @property
    def said(self) -> list[str]:
        return [*(["label"] if self.label else []), *(f"s{i}" for i in range(len(self.scores)))]


def added(claims: Column) -> Column:
    """Return the sum of the weights of claims, in their order."""
    return F.aggregate(claims, F.lit(0.0), lambda total, c: total + c["weight"])


def vote(claims: Column) -> Column:
    """Return the class of most weight as a struct of label, share and tie; null where no model says any."""
    said = F.filter(claims, lambda c: c["label"].isNotNull())
    total = added(said)

    def counted(label: Column) -> Column:
        mine = F.filter(said, lambda c: c["label"] == label)
        return F.struct((-F.round(added(mine), 9)).alias("less"), (-F.size(mine)).alias("fewer"), label.alias("label"))

    ranked = F.array_sort(F.transform(F.array_distinct(F.transform(said, lambda c: c["label"])), counted))
    first, second = F.get(ranked, F.lit(0)), F.get(ranked, F.lit(1))
    share, tie = F.try_divide(-first["less"], total), F.coalesce(second["less"] == first["less"], F.lit(False))
    return F.when(total > 0, F.struct(first["label"].alias("label"), share.alias("share"), tie.alias("tie")))


def mean(claims: Column, member: str) -> Column:
    """Return the weighted mean of a number of the claims; null where no model with a weight says one."""
    said = F.filter(claims, lambda c: c[member].isNotNull())
    total = added(said)
    summed = F.aggregate(said, F.lit(0.0), lambda sum_, c: sum_ + c["weight"] * c[member])
    return F.nanvl(F.try_divide(summed, total), F.lit(None).cast("double"))  # infinities of both signs
