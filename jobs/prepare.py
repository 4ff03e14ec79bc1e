"""Make what quickens every later start of Spark: an archive of its classes, as Java has them once parsed and verified.

Java's class data sharing (JEP 350): at its end a JVM writes the classes that it loaded into a file, and later ones map
it instead of reading 300 jars. What a night of a small lake loads is what most jobs load.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobs.config import Environment, load_pipeline
from jobs.errors import HeadgateError
from jobs.jars import local_jars
from jobs.java import archive_place, class_archive, java_home, version_of
from jobs.lake import Lake
from jobs.progress import Progress
from jobs.run import run

SUITE = """
name: texts
expectations:
  - {type: expect_table_row_count_to_be_between, kwargs: {min_value: 1}, meta: {dimension: completeness}}
  - {type: expect_column_to_exist, kwargs: {column: text}, meta: {dimension: consistency}}
  - {type: expect_column_values_to_not_be_null, kwargs: {column: text}, meta: {dimension: completeness}}
  - {type: expect_column_values_to_be_unique, kwargs: {column: id}, meta: {dimension: uniqueness}}
  - {type: expect_column_values_to_be_between, kwargs: {column: size, min_value: 0}, meta: {dimension: validity}}
"""
PIPELINE = """
pipeline: prepare
suites: .
tables:
  raw:
    source:
      format: csv
      path: texts_{date}.csv
      key: [id]
      schema: id STRING, kind STRING, size STRING, text STRING
    suite: null
  texts:
    from: raw
    steps:
      - normalise_text: {columns: [kind], case: upper}
      - cast: {columns: {id: int, size: double}}
      - drop_duplicates: {columns: [id], keep: _file desc}
      - drop_near_duplicates: {columns: [text]}
    suite: texts
    publish: {mode: increment}
"""
TEXTS = 200
ARCHIVING = 17  # Java 21 makes an archive, but finds its class path another one at the next start, and passes it over


def prepare(start: Callable[..., Any], end: Callable[[Any], None]) -> Path | None:
    """Archive the classes of a night of a small lake; the archive's place, or None where this Java takes none.

    start, end: of a session and its JVM. An archive that is there is left alone; a new one replaces those that this
    environment had for other jars or another Java, and appears whole or not at all.
    """
    home = java_home()
    if version_of(home) != ARCHIVING:
        return None
    jars = local_jars()
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
    spark = start({"spark.driver.extraJavaOptions": f'"-XX:ArchiveClassesAtExit={fresh}" {quiet}'}, reads=0)
    try:
        with tempfile.TemporaryDirectory() as folder:
            small_lake(spark, Path(folder))
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


def small_lake(spark: Any, folder: Path) -> None:
    (folder / "texts.yaml").write_text(SUITE)
    (folder / "pipeline.yaml").write_text(PIPELINE)
    pipeline = load_pipeline(folder / "pipeline.yaml")
    environment = Environment(lake=str(folder / "lake"), landing=str(folder / "landing"))
    (folder / "landing").mkdir()
    lines = ["id,kind,size,text"]
    for i in range(TEXTS):
        words = " ".join(f"word{(i - (i % 10 == 0)) * k % 997}" for k in range(30))  # every tenth text twice
        lines.append(f"{i},kind{i % 3},{i % 7 or ''},{words}")
    (folder / "landing" / "texts_2024-01-01.csv").write_text("\n".join(lines) + "\n")
    run(pipeline, environment, Lake(environment.lake), lambda reads: spark, Progress(watched=True))
