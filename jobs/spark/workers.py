"""The process that forks Spark's Python workers on this machine: Spark's own, with another import path and warm.

Spark puts archives of pyspark and of itself first on the workers' path. Before every task a worker forgets what it
found there, and Python before 3.13 then reads their whole directories anew: 0.1 s of CPU a task, whatever the task
does. Here pyspark is imported from where it is installed. What all workers import is imported once, before the fork.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    ARCHIVES = ("pyspark.zip", "py4j-", "spark-core_")
    sys.path[:] = [p for p in sys.path if not Path(p).name.startswith(ARCHIVES)]
    sys.path_importer_cache.clear()
    import pyarrow.compute  # noqa: F401
    from pyspark import daemon

    daemon.manager()
