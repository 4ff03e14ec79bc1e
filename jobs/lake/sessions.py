"""What a classic session of Spark has and one of Spark Connect has not: the one place that tells them apart."""

from typing import TYPE_CHECKING, Any

from headgate.jobs.errors import UsageError

if TYPE_CHECKING:
    from pyspark.sql import Observation, SparkSession


def is_connect(spark: "SparkSession") -> bool:
    """Return whether a session is one of Spark Connect: it has neither a JVM nor a SparkContext."""
    return type(spark).__module__.startswith("pyspark.sql.connect")


def need_classic(spark: "SparkSession", what: str) -> None:
    """Raise `UsageError` for a session of Spark Connect; `what` needs a classic one."""
    if is_connect(spark):
        raise UsageError(f"{what} needs a classic Spark session, and this one is of Spark Connect")


def cores(spark: "SparkSession") -> int:
    """Return how many tasks run at once. Cost: on Spark Connect, a job of one row for each core."""
    if not is_connect(spark):
        return spark.sparkContext.defaultParallelism
    from pyspark.sql import functions as F

    many = spark.range(1 << 16).select(F.spark_partition_id().alias("part"))  # as many parts as Spark makes by itself
    return 1 + int(many.agg(F.max("part")).collect()[0][0])


def observation(spark: "SparkSession") -> "Observation":
    """Return an observation of the session's kind."""
    if not is_connect(spark):
        from pyspark.sql import Observation

        return Observation()
    from pyspark.sql.connect import observation as connect

    remote: Any = connect.Observation()
    return remote  # type: ignore[no-any-return]
