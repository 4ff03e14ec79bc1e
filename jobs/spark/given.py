"""Sessions that the caller of the Python interface brings along."""

from typing import Any

from headgate.jobs.errors import UsageError
from headgate.jobs.lake.stores import PLAIN_SETTINGS, VARIABLE, for_workers, is_s3
from headgate.jobs.spark.jars import S3
from headgate.jobs.spark.session import BASE_CONF, CLASSES, has_class

NEEDED = ("spark.sql.extensions", "spark.sql.catalog.spark_catalog")
OF_A_SESSION = (
    "spark.sql.session.timeZone",
    "spark.sql.parquet.",
    "spark.sql.caseSensitive",
    "spark.sql.maxConcurrent",
)


def need_delta(spark: Any) -> None:
    """Raise `UsageError` for a session that cannot read and write Delta tables, or that is a remote one."""
    if type(spark).__module__.startswith("pyspark.sql.connect"):
        raise UsageError("the session is one of Spark Connect; headgate needs a classic one")
    missing = [n for n in NEEDED if BASE_CONF[n] not in (spark.conf.get(n, None) or "").split(",")]
    if missing:
        settings = ", ".join(f"{n}={BASE_CONF[n]}" for n in missing)
        raise UsageError(f"the Spark session lacks Delta: start it with {settings} and Delta's jars (`headgate jars`)")


def beside(spark: Any, *places: str) -> Any:
    """Return a session of the same Spark with headgate's settings; those of the given one stay as they are.

    places: of the lake and the landing folder. Raises `UsageError` where one lies in S3 and Spark has no jars for it:
    how it gets in there is up to the given session.
    """
    need_delta(spark)
    own = spark.newSession()
    if any(map(is_s3, places)):
        loader = spark._jvm.java.lang.Thread.currentThread().getContextClassLoader()
        if not all(has_class(loader, name) for name, jars in CLASSES.items() if jars is S3):
            raise UsageError("the Spark session has no jars for S3: start it with those of `headgate jars --with s3`")
        for name, value in PLAIN_SETTINGS.items():
            own.conf.set(name.removeprefix("spark.hadoop."), value)
        spark.sparkContext.environment[VARIABLE] = for_workers(*places)
    for name, value in BASE_CONF.items():
        if name.startswith(OF_A_SESSION):
            own.conf.set(name, value)
    return own


def need_none() -> None:
    """Raise `UsageError` where a session runs already: one that is to be started and stopped would be that one."""
    from pyspark import SparkContext

    if SparkContext._active_spark_context is not None:  # sessions of other threads included
        raise UsageError("a Spark session is running already: pass it as spark=")
