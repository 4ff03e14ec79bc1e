"""Lists of labels as strata: rows with the same rarest labels are alike, and like strata follow each other.

What is left over when a stratum is divided goes to the part that lacks most so far. As strata are sorted by the rarest
label, then by the next rarest one, this evens out each label over the strata that have it (compare the iterative
stratification of Sechidis et al. 2011, which takes the rarest label first too).
"""

from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from headgate.transforms.batches import by_batches
from headgate.transforms.rows import canonical, quoted
from headgate.transforms.step import StepError

MOST_LABELS = 100_000  # that come to the driver and go to every task
MOST_SETS = 100_000  # strata that sets of labels make; where they are more, fewer labels of each row count
LABELS = (3, 2, 1)  # of a row that count
DIGITS = 5  # of a label's rank


def with_label_strata(df: DataFrame, rows: DataFrame, by: Sequence[str]) -> tuple[DataFrame, list[str]]:
    """Return `df` with a text in place of each list of labels among `by`, and the columns that are strata now.

    rows: those of `df` whose labels are counted. The text has the ranks of the rarest labels, each as long as any
    other; that of a null list is null. Cost: two passes over the labels.
    """
    names = []
    for column in by:
        kind = df.schema[column].dataType
        if isinstance(kind, T.ArrayType):
            labels = labels_of(column, kind)
            ranks = ranks_of(rows.select(F.explode(labels).alias("label")), column)
            code = coding(ranks, labels_that_count(rows, labels, ranks))
            column = f"_hg_labels_{column}"
            df = df.withColumn(column, by_batches(code, "string", labels))
        names.append(column)
    return df, names


def labels_of(column: str, kind: T.ArrayType) -> Column:
    """Return the labels of a list as texts, each once."""
    return F.array_distinct(F.transform(F.col(quoted(column)), lambda label: canonical(label, kind.elementType)))


def ranks_of(labels: DataFrame, column: str) -> dict[str, int]:
    """Return the place of each label from the rarest on; of equally rare ones by their text."""
    found = labels.groupBy("label").count().limit(MOST_LABELS + 1).collect()
    if len(found) > MOST_LABELS:
        raise StepError(f"by: '{column}' has more than {MOST_LABELS:,} labels")
    return {r["label"]: i for i, r in enumerate(sorted(found, key=lambda r: (r["count"], r["label"])))}


def labels_that_count(rows: DataFrame, labels: Column, ranks: Mapping[str, int]) -> int:
    """Return how many labels of each row make its stratum, so that there are not too many."""
    codes = [by_batches(coding(ranks, n), "string", labels).alias(f"c{n}") for n in LABELS]
    found = rows.select(*codes).agg(*(F.count_distinct(f"c{n}") for n in LABELS)).first() or ()
    return next((n for n, sets in zip(LABELS, found, strict=False) if sets <= MOST_SETS), LABELS[-1])


def coding(ranks: Mapping[str, int], most: int) -> Callable[[pa.Array], pa.Array]:
    """Return the function of lists of labels that gives the ranks of the rarest, rarest first."""
    nothing = f"{16**DIGITS - 1:x}"

    def code(labels: list[str]) -> str:
        rarest = sorted(ranks.get(label, len(ranks)) for label in labels)[:most]
        return "".join([*(f"{rank:0{DIGITS}x}" for rank in rarest), *[nothing] * (most - len(rarest))])

    def coded(lists: pa.Array) -> pa.Array:
        return pa.array([None if labels is None else code(labels) for labels in lists.to_pylist()], pa.string())

    return coded
