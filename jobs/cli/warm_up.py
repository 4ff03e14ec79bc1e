"""One run on a small lake, which loads the classes that most jobs load."""

from pathlib import Path
from typing import Any

from headgate.jobs.config.models import Environment
from headgate.jobs.config.pipeline import load_pipeline
from headgate.jobs.lake.lake import Lake
from headgate.jobs.pipeline.run import run
from headgate.jobs.progress import Progress

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
      - normalize_text: {columns: [kind], case: upper}
      - cast: {columns: {id: int, size: double}}
      - drop_duplicates: {columns: [id], keep: _file desc}
      - drop_near_duplicates: {columns: [text]}
    suite: texts
    publish: {mode: increment}
"""
TEXTS = 200


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
