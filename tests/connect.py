"""Spark Connect for tests: its server in the JVM of a classic session, so that both are of one Spark."""

import contextlib
import os
import socket
from collections.abc import Iterator
from typing import Any

CONNECT_MODE = "SPARK_CONNECT_MODE_ENABLED"


@contextlib.contextmanager
def serving(spark: Any) -> Iterator[str]:
    """Start Spark Connect's server beside a classic session; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = spark.sparkContext._jsc.sc()
    context.conf().set("spark.connect.grpc.binding.address", "127.0.0.1")
    context.conf().set("spark.connect.grpc.binding.port", str(port))
    service = spark.sparkContext._jvm.org.apache.spark.sql.connect.service.SparkConnectService
    service.start(context)
    yield f"sc://127.0.0.1:{port}"
    nothing = spark.sparkContext._jvm.scala.Option.empty()
    service.stop(nothing, nothing)


@contextlib.contextmanager
def connected(url: str) -> Iterator[Any]:
    """Give a session of a server, as an environment with `spark.remote` has it; columns are made for it meanwhile."""
    from headgate.jobs.spark.session import start

    session = start({"spark.remote": url, "spark.sql.shuffle.partitions": "1"})
    try:
        yield session
        session.stop()
    finally:
        os.environ.pop(CONNECT_MODE, None)
