"""Stacking: a model of models' predictions, which tells rows it learned from by a model that did not see them."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.transforms.balancing.folds import fold_of, need_keys
from headgate.transforms.batches import by_batches
from headgate.transforms.cleaning.scores import need_scikit
from headgate.transforms.kinds import as_text, is_number, is_plain, present
from headgate.transforms.rows import ROW_ID, drop_values, is_training, stable_hash, with_values
from headgate.transforms.step import Columns, Context, Estimator, Step, StepError, require_columns, with_new

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
How = Literal["logistic", "ridge"]
CLASSES = 100  # most
UNSEEN = -700.0  # log odds of a class that a fold's model never saw


@dataclass(frozen=True, kw_only=True)
class PredictStack(Step):
    """Predict from predictions by a fitted stack: what `stack_predictions` becomes.

    columns, target, by, into, folds, seed: as there; without a target no row is of a fold.
    classes: of a logistic stack, in order; none of a ridge.
    weights: of each fold's model, and last of the one of all rows, for each class its intercept and a weight for each
        column; null if nothing was learned.
    Cost: one pass in Arrow batches.
    """

    name: ClassVar[str] = "predict_stack"
    columns: tuple[str, ...]
    target: str
    by: tuple[str, ...]
    into: str
    folds: int
    seed: int
    classes: tuple[str, ...]
    how: How
    weights: tuple[tuple[tuple[float, ...], ...], ...] | None

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns([*self.columns, *self.by], have)
        return with_new(have, added(self.into, self.how))

    def learned(self) -> bool:
        return self.weights is not None

    def for_new_rows(self) -> Step:
        return dataclasses.replace(self, target="", by=()).at(self.id)

    def apply(self, df: DataFrame) -> DataFrame:
        kinds = dict(df.dtypes)
        names = list(added(self.into, self.how))
        if self.weights is None:
            nothing = zip(names, added(self.into, self.how).values(), strict=True)
            return df.withColumns({c: F.lit(None).cast(kind) for c, kind in nothing})
        fold = F.lit(None).cast("int")
        if self.target in kinds:
            known = is_training(df) & present(self.target, kinds[self.target]).isNotNull()
            fold = F.when(known, fold_of(df, self.by, self.folds, self.seed))
        cells = F.struct(F.coalesce(fold, F.lit(self.folds)).alias("fold"), features(self.columns, kinds).alias("x"))
        returns = "struct<p:array<double>>"
        df, (found,) = with_values(df, [by_batches(predicting(self.weights, self.how), returns, cells)])
        if self.how == "ridge":
            values = {names[0]: F.get(found["p"], F.lit(0)), names[1]: fold}
        else:
            p = found["p"]
            best = F.array_position(p, F.array_max(p))  # of equal ones the first
            labels = F.array(*map(F.lit, self.classes))
            values = {names[0]: F.get(labels, (best - 1).cast("int")), names[1]: F.map_from_arrays(labels, p)}
            values |= {names[2]: fold}
        return drop_values(df.withColumns(values), [found])


@dataclass(frozen=True, kw_only=True)
class StackPredictions(Estimator):
    """Learn how to weigh the predictions of several models by a model of them (stacking).

    columns: the predictions, one column for each model or class: numbers, such as probabilities. They must come from
        models that did not learn from the row itself (`assign_folds` makes folds for those).
    target: what is to be predicted: a class for `logistic`, a number for `ridge`.
    by: the columns that name an entity: its rows are in one fold.
    how: `logistic` (default) or `ridge`, scikit-learn's.
    into: name of the added column. Of a logistic stack it is the likeliest class as a text, with
        `<into>_probabilities` (class -> probability); of a ridge the number. `<into>_fold` says which fold's model was
        left out, null where all rows were learned from.
    folds: how many (5), by a hash of `by` and `seed`.
    strength: of the penalty (1): of the standardised weights' squares.
    sample: training rows to fit on (50,000), those of the smallest hashes of their row id.
    seed: of the sample and the folds.
    A training row with a target is predicted by the model that saw no row of its fold: so its prediction is as good as
    that of a new row, and can be learned from again. All others are predicted by the model of all rows. Rows with a
    null, NaN or infinity in `columns` are not learned from and predicted as null; an infinite target is none. Ties fall
    to the class that comes first. The run's summary says how well it does out of fold, beside the plain mean. The
    weights are saved as plain values; only the fit needs the extra `models`. More than 100 classes, or a target of one
    value, are an error.
    Cost: one pass to draw the sample, which comes to the driver, and folds + 1 small fits; one pass to apply. Source:
    Wolpert 1992; van der Laan, Polley, Hubbard 2007.
    """

    name: ClassVar[str] = "stack_predictions"
    columns: tuple[str, ...]
    target: str
    by: tuple[str, ...]
    into: str
    how: How = "logistic"
    folds: int = 5
    strength: float = 1.0
    sample: int = 50_000
    seed: int = 0

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns([*self.columns, self.target], have)
        need_keys(self.by, have)
        if not self.columns or len(set(self.columns)) < len(self.columns) or self.target in self.columns:
            raise StepError("columns: name one or more, each once, and not the target")
        for column in [*self.columns, *([self.target] if self.how == "ridge" else [])]:
            kind = have[column]
            if kind is not None and not is_number(kind):
                raise StepError(f"'{column}' is {kind}, not a number; put a cast before")
        kind = have[self.target]
        if kind is not None and not is_plain(kind):
            raise StepError(f"target: '{self.target}' is {kind}, not a plain value")
        if not 2 <= self.folds <= 1000 or not 2 <= self.sample <= 1_000_000 or not 0 < self.strength < float("inf"):
            raise StepError("folds must be 2 to 1,000, sample 2 to 1,000,000, and strength above 0")
        need_scikit()
        return with_new(have, added(self.into, self.how))

    def learns_from(self) -> tuple[str, ...]:
        return (*self.columns, self.target)

    def fit(self, df: DataFrame, context: Context) -> PredictStack:
        kinds = dict(df.dtypes)
        target = present(self.target, kinds[self.target])
        target = finite(target.cast("double")) if self.how == "ridge" else as_text(target, kinds[self.target])
        drawn = df.select(
            stable_hash(df, self.seed, [ROW_ID]).alias("_hg_hash"),
            ROW_ID,
            target.alias("_hg_target"),
            fold_of(df, self.by, self.folds, self.seed).alias("_hg_fold"),
            features(self.columns, kinds).alias("_hg_x"),
        ).where("_hg_target IS NOT NULL AND forall(_hg_x, x -> x IS NOT NULL)")
        table = drawn.orderBy("_hg_hash", ROW_ID, "_hg_fold", "_hg_target", "_hg_x").limit(self.sample).toArrow()
        classes: tuple[str, ...] = ()
        weights = None
        if table.num_rows:
            x = np.array(table["_hg_x"].to_pylist(), float)
            fold = table["_hg_fold"].to_numpy().astype(np.int64)
            try:
                classes, weights, told = fit_stack(x, table["_hg_target"].to_pylist(), fold, self)
            except ValueError as e:
                raise StepError(f"target: '{self.target}' {e}") from e
            context.warn(f"{self.into}: out of fold {told}")
        return PredictStack(
            columns=self.columns,
            target=self.target,
            by=self.by,
            into=self.into,
            folds=self.folds,
            seed=self.seed,
            classes=classes,
            how=self.how,
            weights=weights,
        )


def added(into: str, how: How) -> dict[str, str]:
    """Return the columns that a stack adds."""
    if how == "ridge":
        return {into: "double", f"{into}_fold": "int"}
    return {into: "string", f"{into}_probabilities": "map<string,double>", f"{into}_fold": "int"}


def features(columns: Sequence[str], kinds: Mapping[str, str]) -> Column:
    return F.array(*(finite(present(c, kinds[c]).cast("double")) for c in columns))


def finite(number: Column) -> Column:
    return F.when(F.abs(number) < F.lit(math.inf), number)


Weights = tuple[tuple[tuple[float, ...], ...], ...]


def fit_stack(
    x: Floats, target: Sequence[Any], fold: Ints, step: StackPredictions
) -> tuple[tuple[str, ...], Weights, str]:
    """Return the classes, the weights of each fold's model and of all rows', and how well the former do.

    A fold without rows, or whose removal leaves none, has the model of all rows. Raises `ValueError` where the target
    does not tell rows apart.
    """
    classes = tuple(sorted(set(target))) if step.how == "logistic" else ()
    if len(set(target)) < 2:
        raise ValueError("has one value in all rows to learn from")
    if len(classes) > CLASSES:
        raise ValueError(f"has {len(classes):,} classes in the rows to learn from, more than {CLASSES}")
    y = np.array([classes.index(t) for t in target] if classes else target, float)
    whole = fit_one(x, y, len(classes), step)
    models = []
    for k in range(step.folds):
        others = fold != k
        models.append(fit_one(x[others], y[others], len(classes), step) if 0 < others.sum() < len(x) else whole)
    models.append(whole)
    return classes, tuple(models), how_well(predicted(models, step.how, fold, x), x, y, step.how)


def fit_one(x: Floats, y: Floats, classes: int, step: StackPredictions) -> tuple[tuple[float, ...], ...]:
    """Return for each class, or for the number, the intercept and the weight of each column."""
    from sklearn.linear_model import LogisticRegression, Ridge

    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale[scale == 0] = 1.0
    z = (x - mean) / scale
    rows = max(classes, 1)
    coef, bias = np.zeros((rows, x.shape[1])), np.full(rows, UNSEEN if classes else 0.0)
    if not classes:
        ridge = Ridge(alpha=step.strength).fit(z, y)
        coef[0], bias[0] = ridge.coef_, ridge.intercept_
    else:
        seen = np.unique(y).astype(int)
        if len(seen) == 1:
            bias[seen] = 0.0
        else:
            fit = LogisticRegression(C=1 / step.strength, max_iter=1000).fit(z, y)
            if len(seen) == 2:  # one row of weights, for the second class
                bias[seen[0]] = 0.0
                coef[seen[1]], bias[seen[1]] = fit.coef_[0], fit.intercept_[0]
            else:
                coef[seen], bias[seen] = fit.coef_, fit.intercept_
    coef = coef / scale
    bias = bias - (coef * mean).sum(axis=1)
    return tuple((float(b), *map(float, c)) for b, c in zip(bias, coef, strict=True))


def predicted(models: Sequence[Any], how: How, model: Ints, x: Floats) -> Floats:
    """Return for each row the number, or the probability of each class, by the model that is named for it.

    Columns are added one after the other, so that no row's result depends on those beside it; NaN where one is missing.
    """
    weights = np.array(models, float)[model]  # rows, classes, 1 + columns
    total = weights[:, :, 0].copy()
    for j in range(x.shape[1]):
        total += weights[:, :, j + 1] * x[:, j, None]
    if how == "ridge":
        return total
    e = np.exp(total - total.max(axis=1, keepdims=True))
    summed = np.zeros(len(e))
    for j in range(e.shape[1]):
        summed += e[:, j]
    found: Floats = e / summed[:, None]
    return found


def how_well(p: Floats, x: Floats, y: Floats, how: How) -> str:
    """Return the measure of predictions out of fold, beside that of a plain one."""
    if how == "ridge":
        error, plain = (float(np.sqrt(np.mean((a - y) ** 2))) for a in (p[:, 0], x.mean(axis=1)))
        return f"its error (RMSE) is {error:.4g}, that of the plain mean of its columns {plain:.4g}"
    right, usual = float((p.argmax(axis=1) == y).mean()), float(np.bincount(y.astype(int)).max() / len(y))
    return f"{right:.1%} are right; the most frequent class is {usual:.1%}"


def predicting(weights: Weights, how: How) -> Callable[[pa.Array], pa.Array]:
    """Return the function of a batch of rows (fold, x) that gives p, null where a column is missing."""

    def predict(cells: pa.Array) -> pa.Array:
        lists = cells.field("x").to_pylist()
        x = np.array([[np.nan if v is None else v for v in row] for row in lists], float).reshape(len(lists), -1)
        fold = cells.field("fold").to_numpy(zero_copy_only=False).astype(np.int64)
        p = predicted(weights, how, fold, x)
        missing = np.isnan(x).any(axis=1).tolist()
        rows = [None if gone else row for gone, row in zip(missing, p.tolist(), strict=True)]
        return pa.StructArray.from_arrays([pa.array(rows, pa.list_(pa.float64()))], ["p"])

    return predict
