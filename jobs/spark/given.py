"""Sessions that the caller of the Python interface brings along."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from headgate.jobs.errors import UsageError
from headgate.jobs.lake.sessions import is_connect, need_classic
from headgate.jobs.lake.stores import PLAIN_SETTINGS, VARIABLE, for_workers, is_s3
from headgate.jobs.spark.jars import S3
from headgate.jobs.spark.session import BASE_CONF, CLASSES, has_class, of_a_session

NEEDED = ("spark.sql.extensions", "spark.sql.catalog.spark_catalog")


def need_delta(spark: Any) -> None:
    """Raise `UsageError` for a session that cannot read and write Delta tables."""
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
    far = any(map(is_s3, places))
    if far:
        need_classic(spark, "a lake or landing folder in S3")
    if is_connect(spark):
        own = spark.cloneSession()
        own.release_session_on_close = True  # PySpark 4.1 forgets it of a clone, and `stop` asks for it
    else:
        own = spark.newSession()
    if far:
        loader = spark._jvm.java.lang.Thread.currentThread().getContextClassLoader()
        if not all(has_class(loader, name) for name, jars in CLASSES.items() if jars is S3):
            raise UsageError("the Spark session has no jars for S3: start it with those of `headgate jars --with s3`")
        for name, value in PLAIN_SETTINGS.items():
            own.conf.set(name.removeprefix("spark.hadoop."), value)
        spark.sparkContext.environment[VARIABLE] = for_workers(*places)
    for name, value in of_a_session().items():
        own.conf.set(name, value)
    return own


@contextlib.contextmanager
def lent(spark: Any, *places: str) -> Iterator[Callable[..., Any]]:
    """Give a function that returns a session `beside` a given one; on Spark Connect it is closed at the end."""
    own = beside(spark, *places)
    try:
        yield lambda reads=None: own
    finally:
        if is_connect(own):
            own.stop()


def need_none() -> None:
    """Raise `UsageError` where a session runs already: one that is to be started and stopped would be that one."""
    from pyspark import SparkContext

    if SparkContext._active_spark_context is not None:  # sessions of other threads included
        raise UsageError("a Spark session is running already: pass it as spark=")
