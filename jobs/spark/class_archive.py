"""Make what quickens every later start of Spark: an archive of its classes, as Java has them once parsed and verified.

Java's class data sharing (JEP 350): at its end a JVM writes the classes that it loaded into a file, and later ones map
it instead of reading 300 jars. What a run on a small lake loads is what most jobs load.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headgate.jobs.errors import HeadgateError
from headgate.jobs.lake.stores import PLAIN_SETTINGS
from headgate.jobs.spark.jars import BASE, S3, Jars, local_jars
from headgate.jobs.spark.java import archive_place, class_archive, java_home, version_of
from headgate.jobs.spark.session import end, start

ARCHIVING = 17  # Java 21 makes an archive, but finds its class path another one at the next start, and passes it over


def prepare(work: Callable[[Any, Path], None], *sets: Jars) -> Path | None:
    """Archive the classes that a run on a small lake loads; the archive's place, or None where this Java takes none.

    work: what is done meanwhile, given the session and an empty folder. sets: jars that sessions have beside the base;
    Java takes an archive for the same jars alone. An archive that is there is left alone; a new one replaces those that
    this environment had for other jars or another Java, and appears whole or not at all.
    """
    home = java_home()
    if version_of(home) != ARCHIVING:
        return None
    jars = local_jars(BASE, *sets)
    made = class_archive(home, jars)
    if made:
        return made
    place = archive_place(home, jars)
    fresh = place.with_suffix(f".{os.getpid()}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh.touch()
        fresh.unlink()
    except OSError as e:
        raise HeadgateError(f"{place.parent}: the archive of classes cannot be written here: {e.strerror}") from e
    quiet = "-Xlog:disable -Xlog:all=error:stderr"
    settings = PLAIN_SETTINGS if S3 in sets else {}
    archiving = f'"-XX:ArchiveClassesAtExit={fresh}" {quiet}'
    spark = start({**settings, "spark.driver.extraJavaOptions": archiving}, reads=0)
    try:
        with tempfile.TemporaryDirectory() as folder:
            work(spark, Path(folder))
    except BaseException:
        end(spark)
        fresh.unlink(missing_ok=True)
        raise
    end(spark)
    if not fresh.is_file():
        return None
    for other in place.parent.glob("classes-*"):
        if other != fresh:
            other.unlink(missing_ok=True)
    return fresh.replace(place.with_name(f"{place.name}-{fresh.stat().st_size}.jsa"))
