"""Classes balanced by the way that helps on held-out rows, or left as they are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headgate.transforms.balancing.advice import METHODS, STUDENT, Advice, advise, table_from
from headgate.transforms.balancing.smote import MakeMinority, is_category
from headgate.transforms.balancing.strata import SampleStrata
from headgate.transforms.balancing.targets import Target
from headgate.transforms.balancing.weights import ClassWeights
from headgate.transforms.cleaning.columns import Derive
from headgate.transforms.cleaning.scores import need_scikit
from headgate.transforms.kinds import as_text, is_number, need_kinds
from headgate.transforms.rows import ROW_ID, is_training, quoted, stable_hash, training_rows
from headgate.transforms.step import Columns, Context, Step, StepError, require_columns, with_new
from headgate.words import few_of

MOST_CLASSES = 100
ABSENT = ""


@dataclass(frozen=True, kw_only=True)
class BalanceClasses(Step):
    """Balance the classes of the training rows by the method that helps a model on held-out rows, or leave them.

    label: the class column; rows without a class are left alone.
    columns: the features: numbers, texts and booleans.
    method: `auto` (default) compares the others by cross-validation on rows in their natural proportions, and takes one
        only if its average precision is surely higher than that of doing nothing and its Brier score not surely worse;
        `advise` compares and does nothing; `nothing`, `weights`, `oversample` (copies), `undersample`, `smote`.
    into: a new column with each training row's weight (`class_weight`): that of its class with `weights`, else 1.
    sample: training rows that are compared on (5,000), those of the smallest hashes of their row id.
    seeds: how often everything is repeated with another seed (5), which the intervals are of.
    folds: of the cross-validation (3).
    within: segments of synthetic rows, as in `make_minority`.
    seed: of the rows that are drawn or made.
    What was found is in the run's summary, with each method's average precision, best F1 and Brier score, and the best
    cut of the probability (threshold moving), which with `nothing` often does what balancing is asked to do. With a
    class of fewer than twice `folds` rows in the sample nothing can be compared, and nothing is done.
    Needs the extra `models`. Cost: with `auto` and `advise`, a sample to the driver and 5 methods * seeds * folds small
    boosted trees (some minutes); then that of the step that is taken. Source: van den Goorbergh et al. 2022 (harm of
    resampling), Saito and Rehmsmeier 2015 (precision and recall).
    """

    name: ClassVar[str] = "balance_classes"
    scope: ClassVar[Literal["row", "table"]] = "table"
    by_split: ClassVar[bool] = True
    label: str
    columns: tuple[str, ...]
    method: Literal["auto", "advise", "nothing", "weights", "oversample", "undersample", "smote"] = "auto"
    into: str = "class_weight"
    sample: int = 5_000
    seeds: int = 5
    folds: int = 3
    within: tuple[str, ...] = ()
    seed: int = 0

    @property
    def maker(self) -> MakeMinority:
        return MakeMinority(label=self.label, columns=self.columns, within=self.within, seed=self.seed)

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        self.maker.columns_after(have, tables)
        require_columns([self.label], have)
        if self.seeds not in STUDENT or not 2 <= self.folds <= 10 or not 100 <= self.sample <= 1_000_000:
            raise StepError("seeds and folds must be 2 to 10, and sample 100 to 1,000,000")
        need_scikit()
        return with_new(have, {self.into: "double"})

    def check(self, df: DataFrame, context: Context) -> None:
        super().check(df, context)
        self.maker.check(df, context)
        need_kinds(df, self.name, [self.label], numbers=False)

    def for_new_rows(self) -> Step:
        return Derive(columns={self.into: "CAST(NULL AS DOUBLE)"}).at(self.id)

    def run(self, df: DataFrame, context: Context) -> DataFrame:
        rows = training_rows(df).where(F.col(quoted(self.label)).isNotNull())
        method: str = self.method
        if method in ("auto", "advise"):
            advice = self.advice(rows)
            for line in advice.lines():
                context.warn(line)
            method = "nothing" if method == "advise" else advice.method
        if method == "weights":
            weights = ClassWeights(label=self.label, into=self.into).fit(rows, context)
            return weights.at(self.id).run(df, context)
        if method in ("oversample", "undersample"):
            df = self.strata(rows, method).fit(training_rows(df), context).at(self.id).run(df, context)
        elif method == "smote":
            df = self.maker.at(self.id).run(df, context)
        return df.withColumn(self.into, F.when(is_training(df), F.lit(1.0)))

    def strata(self, rows: DataFrame, method: str) -> SampleStrata:
        """Return the step that gives every class as many rows as the largest, or the smallest, has."""
        label = as_text(F.col(quoted(self.label)), dict(rows.dtypes)[self.label])
        found = rows.groupBy(label.alias("label")).count().limit(MOST_CLASSES + 1).collect()
        if len(found) > MOST_CLASSES:
            raise StepError(f"label: '{self.label}' has more than {MOST_CLASSES} classes")
        sizes = {r["label"]: r["count"] for r in sorted(found)}
        wanted = max(sizes.values(), default=0) if method == "oversample" else min(sizes.values(), default=0)
        copies = max((-(-wanted // n) for n in sizes.values()), default=1)
        targets = tuple(Target(values=(name,), rows=wanted) for name in sizes)
        return SampleStrata(by=(self.label,), targets=targets, others="keep", max_copies=copies, seed=self.seed)

    def advice(self, rows: DataFrame) -> Advice:
        """Return what is found on a sample of the training rows."""
        kinds = dict(rows.dtypes)
        numbers = [c for c in self.columns if is_number(kinds[c])]
        texts = [c for c in self.columns if is_category(kinds[c])]
        cells = [F.col(quoted(c)).cast("double").alias(f"n{i}") for i, c in enumerate(numbers)]
        cells += [
            F.coalesce(F.col(quoted(c)).cast("string"), F.lit(ABSENT)).alias(f"t{i}") for i, c in enumerate(texts)
        ]
        label = as_text(F.col(quoted(self.label)), kinds[self.label]).alias("label")
        order = (stable_hash(rows, self.seed, [ROW_ID]).alias("hash"), F.col(ROW_ID).alias("id"))
        drawn = rows.select(*order, label, *cells)
        found = drawn.orderBy(*drawn.columns).limit(self.sample).toArrow()
        given = [found[f"n{i}"].to_numpy() for i in range(len(numbers))]
        read = [found[f"t{i}"].to_pylist() for i in range(len(texts))]
        table, names = table_from(given, read, found["label"].to_pylist())
        rare = [n for i, n in enumerate(names) if (table.labels == i).sum() < 2 * self.folds]
        if rare or len(names) < 2:
            few = f"fewer than {2 * self.folds} rows of class {few_of(rare)} are in the sample"
            return Advice("nothing", few if rare else "there is one class", {})
        return advise(table, METHODS[1:], self.seeds, self.folds)
