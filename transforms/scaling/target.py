"""Categories replaced by the mean target of other training rows that have them: target encoding."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.transforms.batches import by_batches
from headgate.transforms.cleaning.outliers import finite
from headgate.transforms.kinds import is_number, known_kinds
from headgate.transforms.periods import cut_times, need_time, period_of, place_in_time
from headgate.transforms.rows import ROW_ID, SPLIT, TRAIN, drop_values, quoted, stable_hash, with_values
from headgate.transforms.scaling.categories import MOST, code_of, need_categories, require_categories, text_of, texts_of
from headgate.transforms.scaling.exact import Moments, moments
from headgate.transforms.step import Columns, Context, Estimator, Step, StepError, require_columns

Means = Sequence[float | None]  # by fold, and last of all training rows; or by period


def encoded(category: Moments, whole: Moments, smooth: float | None) -> float | None:
    """Return the smoothed mean target of a category, within rows of given moments; null where there are none.

    smooth: rows of the overall mean that are added; None: an empirical Bayes estimate, the overall variance against
    that of the category (Micci-Barreca 2001, equations 3 to 6; as in scikit-learn).
    """
    if not whole.n:
        return None
    mean = whole.mean
    if not category.n:
        return mean
    if smooth is not None:
        return (category.n * category.mean + smooth * mean) / (category.n + smooth)
    known = whole.variance * category.n
    doubt = category.squared_deviations / category.n
    share = known / (known + doubt) if known + doubt > 0 else 0.0
    return share * category.mean + (1 - share) * mean


def by_fold(groups: Mapping[int, Moments], folds: int) -> list[Moments]:
    """Return the moments of the rows of all folds but one, for each; then those of all folds."""
    whole = sum(groups.values(), Moments())
    return [*(whole - groups.get(fold, Moments()) for fold in range(folds)), whole]


def by_period(groups: Mapping[int, Moments], periods: int) -> list[Moments]:
    """Return the moments of the rows of the periods before each of `periods + 1`."""
    upto = [Moments()]
    for period in range(periods):
        upto.append(upto[-1] + groups.get(period, Moments()))
    return upto


@dataclass(frozen=True, kw_only=True)
class AssignTargetMeans(Step):
    """Replace categories by fitted means of a target: what `encode_target` becomes.

    columns: column -> {"categories": [texts, null for nulls], "means": [[one for each fold and for all rows] for each
        category]}. overall: the same for categories that no training row has.
    folds, key, seed: the fold of a training row, whose own rows its mean leaves out. crossed: whether training rows
        have such means at all.
    time, borders: with `time`, the times at which periods begin; means are then by period, of the training rows before
        it, and hold for all rows.
    Cost: one pass in Arrow batches.
    """

    name: ClassVar[str] = "assign_target_means"
    columns: Mapping[str, Mapping[str, Any]]
    overall: tuple[float | None, ...]
    folds: int
    key: tuple[str, ...] = ()
    seed: int = 0
    crossed: bool = True
    time: str | None = None
    borders: tuple[float, ...] = ()

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns([*self.columns, *([self.time] if self.time else []), *self.key], have)
        need_categories(have, self.name, self.columns)
        return {**have, **dict.fromkeys(self.columns, "double")}

    def learned(self) -> bool:
        return any(mean is not None for mean in self.overall)

    def for_new_rows(self) -> Step:
        return self if self.time else dataclasses.replace(self, crossed=False, key=()).at(self.id)

    def apply(self, df: DataFrame) -> DataFrame:
        before, kinds = df.columns, dict(df.dtypes)
        cells = F.struct(self.place(df).alias("place"), texts_of(self.columns, kinds).alias("texts"))
        returns = f"struct<{','.join(f'c{i}:double' for i in range(len(self.columns)))}>"
        df, (found,) = with_values(df, [by_batches(meaning(self.columns, self.overall), returns, cells)])
        values = {c: found[f"c{i}"] for i, c in enumerate(self.columns)}
        return drop_values(df.withColumns(values), [found]).select(*map(quoted, before))

    def place(self, df: DataFrame) -> Column:
        """Return which of the means a row takes: that of its period, of its fold, or the last; null: none."""
        if self.time:
            return period_of(place_in_time(self.time, dict(df.dtypes)), self.borders)
        whole = F.lit(self.folds)
        if not self.crossed:
            return whole
        fold = fold_of(df, self.key, self.folds, self.seed)
        return F.when(F.col(SPLIT) == TRAIN, fold).otherwise(whole) if SPLIT in df.columns else fold


def fold_of(df: DataFrame, key: Sequence[str], folds: int, seed: int) -> Column:
    return F.pmod(stable_hash(df, seed, key or [ROW_ID]), F.lit(folds)).cast("int")


def meaning(columns: Mapping[str, Mapping[str, Any]], overall: Means) -> Callable[[pa.Array], pa.Array]:
    """Return the function of a batch of (place, texts) that gives the mean of each text at that place."""
    tables = []
    for column in columns.values():
        texts: list[str | None] = column["categories"]
        codes = code_of([t for t in texts if t is not None])
        named = [row for t, row in zip(texts, column["means"], strict=True) if t is not None]
        nulls = [row for t, row in zip(texts, column["means"], strict=True) if t is None]
        tables.append((codes, np.array([*named, *(nulls or [overall]), overall], float)))

    def means(cells: pa.Array) -> pa.Array:
        places = cells.field(0).to_numpy(zero_copy_only=False).astype(float)
        nowhere = np.isnan(places)
        where = np.where(nowhere, 0, places).astype(np.int64)
        arrays = []
        for i, (codes, table) in enumerate(tables):
            texts = cells.field(1).field(i)
            found = codes(texts)
            found = np.where(found == -1, len(table) - 1, found)
            found = np.where(texts.is_null().to_numpy(zero_copy_only=False), len(table) - 2, found)
            values = table[found, where]
            arrays.append(pa.array(values, pa.float64(), mask=nowhere | np.isnan(values)))
        return pa.StructArray.from_arrays(arrays, [f"c{i}" for i in range(len(arrays))])

    return means


@dataclass(frozen=True, kw_only=True)
class EncodeTarget(Estimator):
    """Replace categories by the mean target of the training rows that have them, smoothed toward the overall mean.

    columns: columns of any plain type and any number of categories (100,000 in all), which become doubles.
    target: the column whose mean it is: a number or a boolean; of a class of several values, `derive` one boolean each.
    folds: a training row gets the mean of the training rows of other folds alone, so that its own target is not in it;
        rows of other splits, and new ones, that of all training rows.
    key: columns whose equal values are in one fold (default: the row id); seed: another one makes other folds.
    smooth: rows of the overall mean that are added to each category (default: by how the variance within a category
        compares with the overall one, an empirical Bayes estimate).
    time: a column of times, dates or numbers, for data where a row must not know what came later: the training rows are
        then cut into `folds` periods of about equally many rows, and any row gets the mean of the training rows of the
        periods before its own. Rows of the first period, and without a time, know nothing: null.
    Null and NaN are a category of their own. A category that no training row has gets the overall mean. Rows without a
    finite target are left out. Sums are exact, so that neither order nor partitioning matters. Not noted in `_changed`,
    as all cells are changed; cannot be undone. Same numbers as scikit-learn's `TargetEncoder` with the same folds.
    Source: Micci-Barreca 2001. Cost: one pass in Arrow batches over all columns to fit (with `time`, an aggregate
    before), which shuffles and brings to the driver sums by category and fold; one pass in Arrow batches to apply.
    """

    name: ClassVar[str] = "encode_target"
    columns: tuple[str, ...]
    target: str
    folds: int = 5
    key: tuple[str, ...] = ()
    seed: int = 0
    smooth: float | None = None
    time: str | None = None

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_categories(self.columns, have)
        require_columns([self.target, *self.key, *([self.time] if self.time else [])], have)
        read = {self.target, self.time, *self.key} & set(self.columns)
        if read:
            raise StepError(f"'{min(map(str, read))}' cannot be encoded and be target, time or key as well")
        if not 2 <= self.folds <= 1_000:
            raise StepError("folds must be 2 to 1,000")
        if self.smooth is not None and not 0 <= self.smooth < math.inf:
            raise StepError(f"smooth: {self.smooth} is not a number of at least 0")
        if self.time and self.key:
            raise StepError("time makes periods in place of folds, so key cannot be combined with it")
        need_categories(have, self.name, self.columns)
        for _, kind in known_kinds(have, [self.target]):
            if not is_number(kind) and kind != "boolean":
                raise StepError(f"target: '{self.target}' is {kind}, not a number or a boolean")
        if self.time:
            need_time(have, self.time)
        return {**have, **dict.fromkeys(self.columns, "double")}

    def learns_from(self) -> tuple[str, ...]:
        return (*self.columns, self.target)

    def fit(self, df: DataFrame, context: Context) -> AssignTargetMeans:
        kinds = dict(df.dtypes)
        columns = tuple(dict.fromkeys(self.columns))
        borders: tuple[float, ...] = ()
        if self.time:
            borders = cut_times(df, place_in_time(self.time, kinds), self.folds)
            fold = period_of(place_in_time(self.time, kinds), borders)
        else:
            fold = fold_of(df, self.key, self.folds, self.seed)
        cells = [F.struct(F.lit(str(i)).alias("c"), text_of(c, kinds[c]).alias("t")) for i, c in enumerate(columns)]
        target = finite(self.target, kinds[self.target])
        rows = df.select(target.alias("y"), fold.cast("string").alias("f"), F.explode(F.array(*cells)).alias("cell"))
        rows = rows.where(F.col("y").isNotNull() & F.col("f").isNotNull())
        keys = [F.col("cell.c"), F.col("cell.t"), F.col("f")]
        found = moments(rows, [F.col("y")], keys, f"categories of {', '.join(columns)}")
        groups: dict[str, dict[str | None, dict[int, Moments]]] = {c: {} for c in columns}
        for (place, text, where), (counted,) in found.items():
            groups[columns[int(place)]].setdefault(text, {})[int(where)] = counted
        if sum(map(len, groups.values())) > MOST:
            raise StepError(f"encode_target: {', '.join(columns)} have more than {MOST:,} categories")
        whole = self.gathered(together(groups[columns[0]].values()), borders)
        means = {}
        for column, categories in groups.items():
            texts = sorted(categories, key=lambda t: (t is None, t or ""))
            sums = [zip(self.gathered(categories[t], borders), whole, strict=True) for t in texts]
            means[column] = {"categories": texts, "means": [[encoded(m, w, self.smooth) for m, w in s] for s in sums]}
        return AssignTargetMeans(
            columns=means,
            overall=tuple(encoded(Moments(), w, self.smooth) for w in whole),
            folds=self.folds,
            key=self.key,
            seed=self.seed,
            time=self.time,
            borders=borders,
        )

    def gathered(self, groups: Mapping[int, Moments], borders: Sequence[float]) -> list[Moments]:
        return by_period(groups, len(borders)) if self.time else by_fold(groups, self.folds)


def together(groups: Iterable[Mapping[int, Moments]]) -> dict[int, Moments]:
    """Return the moments of all categories together, by fold."""
    found: dict[int, Moments] = {}
    for group in groups:
        for fold, counted in group.items():
            found[fold] = found.get(fold, Moments()) + counted
    return found
