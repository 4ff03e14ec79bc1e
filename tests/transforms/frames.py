"""Small frames with bookkeeping, and steps applied to them."""

import tempfile
from typing import Any

from pyspark.sql import functions as F

from headgate.jobs.pipeline.increments import BuildSpace
from headgate.transforms.balancing.split import fitted
from headgate.transforms.rows import REJECTED, is_own, row_id, with_bookkeeping
from headgate.transforms.step import Comparer, Estimator, Step


def frame(spark: Any, schema: str, *rows: tuple[Any, ...]) -> Any:
    """A frame whose row ids are those of its content."""
    df = spark.createDataFrame(list(rows), schema)
    return with_bookkeeping(df.withColumn("_row_id", row_id(df, "test", df.columns)))


def applied(step: Step, df: Any, **tables: Any) -> Any:
    step.names_after([c for c in df.columns if not is_own(c)], {n: t.columns for n, t in tables.items()})
    step.check(df, tables)
    if isinstance(step, Comparer):
        with tempfile.TemporaryDirectory() as folder:
            space = BuildSpace(df.sparkSession, folder, f"{folder}/index")
            marked = step.compare(df, space)
            return df.sparkSession.createDataFrame(marked.toArrow(), marked.schema)
    frozen = fitted(step, df) if isinstance(step, Estimator) else step
    return frozen.apply(df, tables)


def rejected(df: Any, *columns: str) -> Any:
    """The marked rows: the given columns, then step, reason, evidence."""
    mark = F.col(REJECTED)
    parts = (mark["step"].alias("step"), mark["reason"].alias("reason"), mark["evidence"].alias("evidence"))
    return df.where(mark.isNotNull()).select(*columns, *parts)


def kept(df: Any) -> Any:
    return df.where(F.col(REJECTED).isNull())
