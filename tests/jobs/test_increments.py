"""Tables that grow by increments: runs that died, other writers, changed configurations."""

from pathlib import Path

import pytest
from deltalake import DeltaTable

from jobs import build, queries
from jobs.lake import Lake
from tests.conftest import run_pipeline

PIPELINE = """
pipeline: growing
suites: .
tables:
  raw:
    source: {{format: csv, path: 't/*.csv', schema: 'id INT, v STRING, w STRING', key: [id]}}
    suite: null
  clean:
    from: raw
    steps: {steps}
    suite: null
    publish: {{mode: increment}}
"""
BY_V = "[{drop_duplicates: {columns: [v], keep: id}}]"


class Killed(BaseException):
    pass


def growing(folder: Path, steps: str = BY_V) -> Path:
    (folder / "p.yaml").write_text(PIPELINE.format(steps=steps))
    return folder / "p.yaml"


def land(folder: Path, name: str, *rows: str) -> None:
    file = folder / "landing" / "t" / f"{name}.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(["id,v,w", *rows]) + "\n")


def ids(folder: Path) -> list[int]:
    rows = queries.sql(Lake(str(folder / "lake")), "select id from clean order by id", None, None)
    return rows["id"].to_pylist()


def die_after_staging(monkeypatch, spark, folder: Path, file: Path) -> None:
    """A run that ends when it has staged the table `clean`."""
    balance = build.count_staged

    def die(staged, *more):
        if "/_staging/clean/" in staged.inputFiles()[0]:
            raise Killed
        return balance(staged, *more)

    monkeypatch.setattr(build, "count_staged", die)
    with pytest.raises(Killed):
        run_pipeline(spark, folder, file)
    monkeypatch.setattr(build, "count_staged", balance)


def test_a_dead_increment_is_never_taken_for_the_whole_table(spark, tmp_path, monkeypatch):
    file, lake = growing(tmp_path), Lake(str(tmp_path / "lake"))
    land(tmp_path, "a", *(f"{i},v{i},w" for i in range(20)))
    run_pipeline(spark, tmp_path, file)
    land(tmp_path, "b", "20,v20,w", "21,v1,w")
    die_after_staging(monkeypatch, spark, tmp_path, file)
    run_pipeline(spark, tmp_path, file, force=True)
    assert ids(tmp_path) == list(range(21))
    land(tmp_path, "c", "30,v30,w", "31,v20,w")
    die_after_staging(monkeypatch, spark, tmp_path, file)
    DeltaTable(lake.path("clean")).optimize.compact()
    DeltaTable(lake.path("clean")).delete("id = 0")  # a commit in any case
    run_pipeline(spark, tmp_path, file)
    assert ids(tmp_path) == [*range(21), 30]
    assert run_pipeline(None, tmp_path, file).built == 0
