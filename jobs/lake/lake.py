"""The lake: a folder of Delta tables with their commits, releases and system tables.

Versions, releases and the other small tables are read and written without a JVM, by `deltalake`; rows move through
Spark.
"""

from headgate.jobs.lake.erasures import Erasures
from headgate.jobs.lake.files import Files
from headgate.jobs.lake.releases import Releases


class Lake(Files, Erasures, Releases):
    """A folder (or object-store prefix) of Delta tables with their system tables."""
