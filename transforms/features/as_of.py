"""Steps that learn, made to learn for each row from earlier ones alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar, Literal

import pydantic
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headgate.transforms.periods import cut_times, need_time, period_of, place_in_time
from headgate.transforms.rows import OWN
from headgate.transforms.step import Columns, Context, Estimator, Step, StepError, require_columns
from headgate.words import did_you_mean

Written = Mapping[str, Mapping[str, Any]]  # a step as in a pipeline: its name and its options
ABLE = (  # steps that learn what cells or marks follow from, and leave the rows and their columns as they are told
    *("check_outliers_iqr", "check_outliers", "score_outliers", "null_markers"),
    *("impute_mean", "impute_median", "impute_mode", "impute_gaussian", "impute_trees", "impute_auto"),
    *("scale_min_max", "scale_standard", "scale_robust", "scale_max_abs", "transform_power", "transform_quantile"),
    "encode_ordinal",
)
UNABLE = {  # all other steps that learn, and why each is not within `learn_as_of`
    "drop_sparse": "its columns depend on what it learns",
    "encode_one_hot": "its columns depend on what it learns",
    "encode_target": "it has a `time` of its own",
    "stack_predictions": "it learns by folds, which hide each row's own answer alone",
    "link_records": "it makes other rows",
    "repair_cells": "it judges cells by all rows of their group",
    "class_weights": "it weighs rows against all others",
    "sample_strata": "it draws rows",
    "mix_sources": "it draws rows",
    "order_rows": "it puts all rows in one order",
    "learn_as_of": "it is one itself",
}


PERIOD = f"{OWN}period"


def step_of(written: Written, place: str) -> Step:
    """Return a step that is written as in a pipeline, as it stands at a place."""
    from headgate.transforms.steps import FITTED, STEPS, options_of  # these import this module

    ((name, options),) = written.items()
    step: Step = options_of((STEPS | FITTED)[name]).validate_python(options)
    return step.at(place)


@dataclass(frozen=True, kw_only=True)
class ApplyAsOf(Step):
    """Apply to each row what was learned before its period: what `learn_as_of` becomes.

    time: the column of times. borders: the times at which periods begin, after the first. steps: what was learned for
    each period, each as {name: options}; the first serves rows without a time too.
    Cost: a write of the rows, and for each period a pass over them in which one step is applied to its rows.
    """

    name: ClassVar[str] = "apply_as_of"
    scope: ClassVar[Literal["row", "table"]] = "table"  # it keeps the rows, so it runs once in a build
    time: str
    borders: tuple[float, ...]
    steps: tuple[Written, ...]

    @property
    def each(self) -> list[Step]:
        """Return the step of each period."""
        return [step_of(written, self.id) for written in self.steps]

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns | None:
        require_columns([self.time], have)
        return self.each[-1].columns_after(have, tables)

    def check(self, df: DataFrame, context: Context) -> None:
        for step in self.each:
            step.check(df, context)

    def learned(self) -> bool:
        return any(step.learned() for step in self.each)

    def for_new_rows(self) -> Step:
        return self

    def run(self, df: DataFrame, context: Context) -> DataFrame:
        # Written with the period of each row, for an expression with all borders in each part takes long to plan.
        period = F.coalesce(period_of(place_in_time(self.time, dict(df.dtypes)), self.borders), F.lit(0))
        rows = context.keep(df.withColumn(PERIOD, period), "rows")
        parts = [step.run(rows.where(F.col(PERIOD) == i).drop(PERIOD), context) for i, step in enumerate(self.each)]
        return reduce(DataFrame.unionByName, parts)


@dataclass(frozen=True, kw_only=True)
class LearnAsOf(Estimator):
    """Let a step that learns do so anew for each period, from training rows of earlier periods alone.

    time: a column of times, dates or numbers. Its training rows are cut into periods of about equally many rows.
    step: the step, as `impute_mean: {columns: [x], by: [shop]}`: one that fills, scales, encodes or checks cells.
    periods: how many (5).
    So a row is filled, scaled, encoded and checked by what was known before its period, and no later row changes it,
    but for where periods begin: at quantiles of the training rows' times. Rows of the first period, and those without a
    time, have what the step does where it learned from no rows: their gaps stay, and what is scaled or encoded is null.
    Behind the last period, all training rows are known. Steps whose columns depend on what they learn, such as
    `encode_one_hot`, and steps that draw rows are refused; `encode_target` has a `time` of its own. Cannot be undone.
    Cost: to fit, an aggregate, a write of the training rows, and for each period what the step costs: .3 s at least; to
    apply, a write of the rows and a pass over them for each period. With 100 periods, 600 rows took a minute. A run
    says beforehand how often a step learns where that is more than 20 times.
    """

    name: ClassVar[str] = "learn_as_of"
    time: str
    step: Written
    periods: int = 5

    @property
    def inner(self) -> Estimator:
        """Return the step; raise `StepError` for one that is not known, cannot be here, or has wrong options."""
        if len(self.step) != 1:
            raise StepError(f"step: name one step and its options, not {', '.join(self.step) or 'none'}")
        (name,) = self.step
        if name in UNABLE:
            raise StepError(f"step: '{name}' cannot be in learn_as_of: {UNABLE[name]}")
        if name not in ABLE:
            raise StepError(f"step: '{name}' is none of {', '.join(ABLE)}{did_you_mean(name, ABLE)}")
        try:
            found = step_of(self.step, self.id)
        except pydantic.ValidationError as e:
            first = min(e.errors(), key=lambda error: error["type"].startswith("missing"))  # a slip makes one missing
            raise StepError(f"step: {name}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from e
        assert isinstance(found, Estimator)
        return found

    @property
    def fits(self) -> int:
        return self.periods + 1

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns | None:
        if not 2 <= self.periods <= 100:
            raise StepError(f"periods: {self.periods} is not within 2 and 100")
        inner = self.inner
        require_columns([self.time], have)
        need_time(have, self.time)
        after = inner.columns_after(have, tables)
        if after is not None and after.get(self.time) != have[self.time]:
            raise StepError(f"step: {inner.name} must not change the column of times '{self.time}'")
        return after

    def check(self, df: DataFrame, context: Context) -> None:
        super().check(df, context)
        self.inner.check(df, context)

    def learns_from(self) -> tuple[str, ...]:
        return self.inner.learns_from()

    def fit(self, df: DataFrame, context: Context) -> ApplyAsOf:
        from headgate.transforms.steps import options_of

        inner, at = self.inner, place_in_time(self.time, dict(df.dtypes))
        borders = cut_times(df, at, self.periods)
        rows = context.keep(df.withColumn(PERIOD, period_of(at, borders)), "training")
        fitted = [inner.fit(rows.where(F.col(PERIOD) < i).drop(PERIOD), context) for i in range(len(borders) + 1)]
        steps = tuple({s.name: options_of(type(s)).dump_python(s, mode="json")} for s in fitted)
        return ApplyAsOf(time=self.time, borders=borders, steps=steps)
