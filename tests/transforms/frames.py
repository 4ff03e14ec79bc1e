"""Small frames with bookkeeping, and steps applied to them."""

import tempfile
from typing import Any

from pyspark.sql import functions as F

from headgate.jobs.pipeline.context import BuildContext
from headgate.transforms.balancing.split import fitted
from headgate.transforms.rows import REJECTED, row_id, with_bookkeeping
from headgate.transforms.step import Estimator, Step


class Knowing(BuildContext):
    """A context that knows what another recorded: its frames."""

    def recorded(self, name):
        return self.frames[f"-{name}"]


class Telling:
    """A context that keeps what it is told."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def frame(spark: Any, schema: str, *rows: tuple[Any, ...]) -> Any:
    """A frame whose row ids are those of its content."""
    df = spark.createDataFrame(list(rows), schema)
    return with_bookkeeping(df.withColumn("_row_id", row_id(df, "test", df.columns)))


def applied(step: Step, df: Any, **tables: Any) -> Any:
    """The rows after a step, checked and fitted as in a build."""
    with tempfile.TemporaryDirectory() as folder:
        context = BuildContext(df.sparkSession, folder, f"{folder}/index", f"{folder}/fitted", tables, rows=df)
        step.check(df, context)
        frozen = fitted(step, df, context) if isinstance(step, Estimator) else step
        after = frozen.run(df, context)
        if frozen.scope == "row":
            return after
        return df.sparkSession.createDataFrame(after.toArrow(), after.schema)


def largest_share(df: Any, where: str) -> float:
    """Of some rows the largest share that one of four tasks has, after the last shuffle."""
    setting, spark = "spark.sql.shuffle.partitions", df.sparkSession
    partitions = spark.conf.get(setting)
    spark.conf.set(setting, "4")
    try:
        whole = F.to_json(F.struct("*")).alias("row")  # what nobody asks for would not be made, nor shuffled
        tasks = df.where(where).select(whole, F.spark_partition_id().alias("task")).groupBy("task")
        found = [r["n"] for r in tasks.agg(F.count("*").alias("n"), F.max("row")).collect()]
    finally:
        spark.conf.set(setting, partitions)
    return max(found) / sum(found)


def columns_of(*names: str) -> dict[str, str | None]:
    """Columns whose types are not known."""
    return dict.fromkeys(names)


def rejected(df: Any, *columns: str) -> Any:
    """The marked rows: the given columns, then step, reason, evidence."""
    mark = F.col(REJECTED)
    parts = (mark["step"].alias("step"), mark["reason"].alias("reason"), mark["evidence"].alias("evidence"))
    return df.where(mark.isNotNull()).select(*columns, *parts)


def kept(df: Any) -> Any:
    return df.where(F.col(REJECTED).isNull())
