"""Sessions of a Spark Connect server."""

import os
from collections.abc import Mapping
from typing import Any

from headgate.jobs.errors import HeadgateError, UsageError, first_line

REMOTE = "spark.remote"  # the setting that names a server: sc://host:15002
SETTABLE = ("spark.sql.", "spark.databricks.")  # by a session; the others are the server's own


def connected(settings: Mapping[str, str], base: Mapping[str, str]) -> Any:
    """Return a session of the server that `spark.remote` names, with the settings of `base` and the others given.

    Raises `UsageError` for a setting that a session cannot have or a server that cannot be used.
    """
    url = settings[REMOTE]
    own = {name: value for name, value in settings.items() if name != REMOTE}
    fixed = next((name for name in own if not name.startswith(SETTABLE)), None)
    if fixed is not None:
        raise UsageError(f"{fixed} is set where the server of {REMOTE} starts, not by a session of it")
    try:
        from pyspark.sql.connect.session import SparkSession
    except ImportError as e:
        raise UsageError(f"{REMOTE} needs Spark Connect's packages: pip install 'headgate[connect]'") from e
    os.environ["SPARK_CONNECT_MODE_ENABLED"] = "1"  # columns are then made for Spark Connect
    try:
        spark = SparkSession.builder.remote(url).create()
        for name, value in (*base.items(), *own.items()):
            spark.conf.set(name, value)
        code = os.environ.get("HEADGATE_ZIP")
        if code:
            spark.addArtifacts(code, pyfile=True)
    except Exception as e:
        raise HeadgateError(f"no session of the Spark Connect server: {first_line(e)}") from e
    return spark
