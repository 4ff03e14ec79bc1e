"""Rows that are outlying as a whole: an isolation forest fitted on a hash sample."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headgate.transforms.batches import by_batches, drawn, matrix_of
from headgate.transforms.cleaning.forest import Forest, fit_forest, score_forest
from headgate.transforms.kinds import need_kinds
from headgate.transforms.rows import Rejection, drop_values, quoted, reject, with_values
from headgate.transforms.step import Columns, Context, Estimator, Step, StepError, require_columns, with_new

Judgement = Literal["score", "flag", "reject"]


@dataclass(frozen=True, kw_only=True)
class ScoreByForest(Step):
    """Score rows by a fitted isolation forest: what `score_outliers` becomes.

    columns: those that it was fitted on. forest: its trees, as plain values; null if there was no row to fit.
    into, action: as in `score_outliers`. cut: the score above which a row is outlying.
    Cost: one pass in Arrow batches; the trees are sent to the workers.
    """

    name: ClassVar[str] = "score_by_forest"
    columns: tuple[str, ...]
    forest: Mapping[str, Any] | None
    cut: float
    into: str = "outlier_score"
    action: Judgement = "score"

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns(self.columns, have)
        need_kinds(have, self.name, self.columns, numbers=True)
        return with_new(have, new_columns(self.into, self.action))

    def learned(self) -> bool:
        return self.forest is not None

    def apply(self, df: DataFrame) -> DataFrame:
        score = F.lit(None).cast("double")
        if self.forest is not None:
            score = by_batches(scoring(self.forest), "double", numbers_of(self.columns))
        df, (found,) = with_values(df, [score])
        beyond = F.coalesce(found > F.lit(self.cut), F.lit(False))
        df = df.withColumn(self.into, found)
        if self.action == "flag":
            df = df.withColumn(f"is_{self.into}", beyond)
        if self.action == "reject":
            evidence = {
                "columns": F.lit(", ".join(self.columns)),
                "score": F.col(quoted(self.into)),
                "threshold": F.lit(self.cut),
            }
            df = reject(df, self.id, Rejection(beyond, "outlying_row", evidence))
        return drop_values(df, [found])


@dataclass(frozen=True, kw_only=True)
class ScoreOutliers(Estimator):
    """Add a score of how outlying a row is, by an isolation forest, and act on the highest ones.

    columns: numeric columns; nulls, NaN and infinities take the column's median.
    into: the new column (`outlier_score`), within 0 and 1: about .5 for a row like most, more for one that few random
        cuts set apart; scikit-learn's `-score_samples`.
    action: `score` (default) adds the column alone; `flag` a boolean column `is_<into>` too; `reject` marks the row.
    share: the share of the training rows that is outlying (.01): a row is when its score is above theirs.
    above: the score above which a row is outlying, in place of `share`.
    trees: number of trees (100); sample: training rows from which they are grown and the share is read, those of the
        smallest hashes of their row id (50,000; each tree sees 256 of them); seed: another one grows other trees.
    Neither order nor partitioning matters. Needs the extra `models` to fit, not to apply. Cost: one pass to draw the
    sample, which comes to the driver; one pass to apply. Source: Liu, Ting, Zhou 2008.
    """

    name: ClassVar[str] = "score_outliers"
    columns: tuple[str, ...]
    into: str = "outlier_score"
    action: Judgement = "score"
    share: float = 0.01
    above: float | None = None
    trees: int = 100
    sample: int = 50_000
    seed: int = 0

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns(self.columns, have)
        if not self.columns:
            raise StepError("columns: name one or more")
        if not 0 < self.share < 1 or (self.above is not None and not 0 <= self.above <= 1):
            raise StepError("share must be within 0 and 1, and above as well")
        if not 1 <= self.trees <= 1000 or not 2 <= self.sample <= 1_000_000:
            raise StepError("trees must be 1 to 1,000, and sample 2 to 1,000,000")
        need_scikit()
        need_kinds(have, self.name, self.columns, numbers=True)
        return with_new(have, new_columns(self.into, self.action))

    def learns_from(self) -> tuple[str, ...]:
        return self.columns

    def fit(self, df: DataFrame, context: Context) -> ScoreByForest:
        values = sampled_numbers(df, self.columns, self.sample, self.seed)
        options: dict[str, Any] = {"columns": self.columns, "into": self.into, "action": self.action}
        if not len(values):
            return ScoreByForest(forest=None, cut=1.0, **options)
        forest = fit_forest(values, self.columns, share=self.share, trees=self.trees, seed=self.seed)
        cut = forest.cut if self.above is None else self.above
        return ScoreByForest(forest=forest.state(), cut=cut, **options)


def new_columns(into: str, action: str) -> dict[str, str]:
    return {into: "double"} | ({f"is_{into}": "boolean"} if action == "flag" else {})


def need_scikit() -> None:
    """Raise `StepError` where scikit-learn is missing."""
    try:
        import sklearn  # noqa: F401
    except ImportError as e:
        raise StepError("the library scikit-learn is missing: pip install 'headgate[models]'") from e


def numbers_of(columns: Iterable[str]) -> Column:
    """Return numeric cells as a struct of doubles."""
    return F.struct(*(F.col(quoted(c)).cast("double").alias(f"c{i}") for i, c in enumerate(columns)))


def sampled_numbers(df: DataFrame, columns: Iterable[str], most: int, seed: int) -> Any:
    """Return (n, k) doubles of the rows of the smallest hashes, NaN for null, in the order of their hashes."""
    return matrix_of(drawn(df, numbers_of(columns), most, seed))


def scoring(state: Mapping[str, Any]) -> Callable[[pa.Array], pa.Array]:
    """Return the function of a batch of rows that scores each."""
    forest = Forest.of(state)

    def score(cells: pa.Array) -> pa.Array:
        return pa.array(score_forest(matrix_of(cells), forest), pa.float64())

    return score
