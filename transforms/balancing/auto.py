"""Classes balanced by the way that helps on held-out rows, or left as they are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from headgate.transforms.balancing.advice import METHODS, STUDENT, advise, cuts_of, held_from, table_from
from headgate.transforms.balancing.smote import MakeMinority
from headgate.transforms.balancing.strata import SampleStrata
from headgate.transforms.balancing.targets import Target
from headgate.transforms.balancing.weights import ClassWeights
from headgate.transforms.cleaning.columns import Derive
from headgate.transforms.cleaning.scores import need_scikit
from headgate.transforms.kinds import as_text, is_category, is_number
from headgate.transforms.rows import ROW_ID, SPLIT, TRAIN, is_kept, is_training, quoted, stable_hash, training_rows
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
    validation: the split (`valid`) on whose rows, up to `sample`, the best cut of the probability is found.
    within: segments of synthetic rows, as in `make_minority`.
    seed: of the rows that are drawn or made.
    What `auto` and `advise` find is in the run's summary, with each method's average precision, best F1 and Brier
    score. For the method that is taken, or advised, the best cut of the probability of a class (threshold moving) is a
    figure of the run too: of the smaller of two classes, or of each of more, by the F1 of models that learned from the
    sample, on the rows of the validation split; where that has no row of the class, or none of others, by
    cross-validation, and the figure says which. With `nothing` it often does what balancing is asked to do. No row of
    another split has a say in what happens to training rows. With a class of fewer than twice `folds` rows in the
    sample nothing can be compared, and nothing is done.
    Needs the extra `models`. Cost: with `auto` and `advise`, samples to the driver and 5 methods * seeds * folds small
    boosted trees (some minutes); then that of the step that is taken. Source: van den Goorbergh et al. 2022 (harm of
    resampling), Saito and Rehmsmeier 2015 (precision and recall), Lipton et al. 2014 (cuts by F1).
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
    validation: str = "valid"
    within: tuple[str, ...] = ()
    seed: int = 0

    @property
    def maker(self) -> MakeMinority:
        return MakeMinority(label=self.label, columns=self.columns, within=self.within, seed=self.seed)

    def columns_after(self, have: Columns, tables: Mapping[str, Columns]) -> Columns:
        require_columns([self.label, *self.columns, *self.within], have)
        self.maker.need_features(have, self.name)
        self.maker.columns_after(have, tables)
        if self.seeds not in STUDENT or not 2 <= self.folds <= 10 or not 100 <= self.sample <= 1_000_000:
            raise StepError("seeds and folds must be 2 to 10, and sample 100 to 1,000,000")
        if self.validation == TRAIN:
            raise StepError(f"validation: '{TRAIN}' is what models learn from; name another split")
        need_scikit()
        return with_new(have, {self.into: "double"})

    def for_new_rows(self) -> Step:
        return Derive(columns={self.into: "CAST(NULL AS DOUBLE)"}).at(self.id)

    def run(self, df: DataFrame, context: Context) -> DataFrame:
        rows = training_rows(df).where(F.col(quoted(self.label)).isNotNull())
        method: str = self.method
        if method in ("auto", "advise"):
            advised = self.advised(df, context)
            method = "nothing" if method == "advise" else advised
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

    def advised(self, df: DataFrame, context: Context) -> str:
        """Return the method that is best on a sample of the training rows; say and record what was found."""
        numbers, texts, labels = self.drawn(training_rows(df))
        table, names = table_from(numbers, texts, labels)
        rare = [n for i, n in enumerate(names) if (table.labels == i).sum() < 2 * self.folds]
        if rare or len(names) < 2:
            few = f"fewer than {2 * self.folds} rows of class {few_of(rare)} are in the sample"
            context.warn(f"balancing classes: nothing: {few if rare else 'there is one class'}")
            return "nothing"
        advice = advise(table, METHODS[1:], self.seeds, self.folds)
        for line in advice.lines():
            context.warn(line)
        held, cross = None, "cross-validated training rows"
        if SPLIT in df.columns:
            other = self.drawn(df.where(is_kept() & (F.col(SPLIT) == self.validation)))
            held = held_from(texts, names, *other) if other[2] else None
            cross += f", as split {self.validation} lacks rows"
        for cut in cuts_of(table, names, held, advice.method, self.seeds, self.folds):
            where = f"split {self.validation}" if cut.held else cross
            context.warn(cut.line(where))
            facts = {"method": advice.method, "found_on": where, **cut.facts()}
            context.measure("best cut of the probability", cut.value, facts)
        return advice.method

    def drawn(self, rows: DataFrame) -> tuple[list[Any], list[Any], list[str]]:
        """Return the numbers, texts and labels of those rows with a class whose row ids have the smallest hashes."""
        kinds = dict(rows.dtypes)
        numbers = [c for c in self.columns if is_number(kinds[c])]
        texts = [c for c in self.columns if is_category(kinds[c])]
        cells = [F.col(quoted(c)).cast("double").alias(f"n{i}") for i, c in enumerate(numbers)]
        cells += [
            F.coalesce(F.col(quoted(c)).cast("string"), F.lit(ABSENT)).alias(f"t{i}") for i, c in enumerate(texts)
        ]
        label = as_text(F.col(quoted(self.label)), kinds[self.label]).alias("label")
        order = (stable_hash(rows, self.seed, [ROW_ID]).alias("hash"), F.col(ROW_ID).alias("id"))
        some = rows.where(F.col(quoted(self.label)).isNotNull()).select(*order, label, *cells)
        found = some.orderBy(*some.columns).limit(self.sample).toArrow()
        given = [found[f"n{i}"].to_numpy() for i in range(len(numbers))]
        return given, [found[f"t{i}"].to_pylist() for i in range(len(texts))], found["label"].to_pylist()
