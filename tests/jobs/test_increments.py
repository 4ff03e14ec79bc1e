"""Tables that grow by increments: runs that died, other writers, changed configurations."""

import re
from pathlib import Path

import pytest
from deltalake import DeltaTable

from headgate.jobs.config.pipeline import load_pipeline
from headgate.jobs.errors import UsageError
from headgate.jobs.keep.optimize import optimize
from headgate.jobs.keep.retention import vacuum
from headgate.jobs.keep.verify import verify
from headgate.jobs.lake.artifacts import indexes
from headgate.jobs.progress import Progress
from tests.lakes import Killed, answer, dies, lake_of, run_pipeline
from tests.lakes import land as land_file

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


def growing(folder: Path, steps: str = BY_V) -> Path:
    (folder / "p.yaml").write_text(PIPELINE.format(steps=steps))
    return folder / "p.yaml"


def land(folder: Path, name: str, *rows: str) -> None:
    land_file(folder, f"t/{name}.csv", "\n".join(["id,v,w", *rows]) + "\n")


def ids(folder: Path) -> list[int]:
    return [row[0] for row in answer(folder, "select id from clean order by id")]


def die_after_staging(spark, folder: Path, file: Path) -> None:
    """A run that ends when it has staged the table `clean`."""
    with pytest.raises(Killed):
        run_pipeline(spark, folder, file, progress=dies("clean", "balance"))


@pytest.mark.slow
def test_a_dead_increment_is_never_taken_for_the_whole_table(spark, tmp_path, monkeypatch):
    file, lake = growing(tmp_path), lake_of(tmp_path)
    land(tmp_path, "a", *(f"{i},v{i},w" for i in range(20)))
    run_pipeline(spark, tmp_path, file)
    land(tmp_path, "b", "20,v20,w", "21,v1,w")
    die_after_staging(spark, tmp_path, file)
    run_pipeline(spark, tmp_path, file, force=True)
    assert ids(tmp_path) == list(range(21))
    land(tmp_path, "c", "30,v30,w", "31,v20,w")
    die_after_staging(spark, tmp_path, file)
    DeltaTable(lake.path("clean")).optimize.compact()
    DeltaTable(lake.path("clean")).delete("id = 0")  # a commit in any case
    run_pipeline(spark, tmp_path, file)
    assert ids(tmp_path) == [*range(21), 30]
    assert run_pipeline(None, tmp_path, file).built == 0


@pytest.mark.slow
def test_tables_grow_by_increments_after_their_files_were_put_together(spark, tmp_path):
    file, lake = growing(tmp_path), lake_of(tmp_path)
    land(tmp_path, "a", *(f"{i},v{i},w" for i in range(20)))
    run_pipeline(spark, tmp_path, file)
    land(tmp_path, "b", "20,v20,w", "21,v1,w")
    run_pipeline(spark, tmp_path, file, tables=["raw"])
    assert {r["table"]: r["files_after"] for r in optimize(lake)} == {"raw": 1, "clean": 1}
    land(tmp_path, "c", "30,v30,w", "31,v20,w")
    run_pipeline(spark, tmp_path, file)  # `clean` takes up b, which was put together with a, and c
    assert ids(tmp_path) == [*range(21), 30] and lake.published("clean").facts["increment"]
    optimize(lake)
    vacuum(lake, 0, 0)
    assert run_pipeline(None, tmp_path, file).built == 0
    assert not any(t["failed"] for t in verify(spark, lake, "latest", Progress(watched=False)))
    land(tmp_path, "d", "40,v40,w", "41,v30,w")
    run_pipeline(spark, tmp_path, file)
    assert ids(tmp_path) == [*range(21), 30, 40] and lake.published("clean").facts["increment"]


@pytest.mark.slow
def test_a_changed_step_never_meets_what_another_one_recorded(spark, tmp_path):
    """Another column in `keep` (of another type), another step before it: each has an index of its own."""
    lake = lake_of(tmp_path)
    near = "drop_near_duplicates: {columns: [%s], keep: %s, similarity: 0.8}"
    common = "one two three four five six seven eight nine ten"
    land(tmp_path, "a", f"1,{common},b", f"2,{common},a", "3,nothing like it at all here,c")
    run_pipeline(spark, tmp_path, growing(tmp_path, f"[{near % ('v', 'id')}]"))
    assert ids(tmp_path) == [1, 3]
    run_pipeline(spark, tmp_path, growing(tmp_path, f"[{near % ('v', 'w')}]"))
    assert ids(tmp_path) == [2, 3] and len(indexes(lake, "clean")) == 1
    file = growing(tmp_path, f"[rename: {{columns: {{v: build}}}}, {near % ('build', 'w')}]")
    run_pipeline(spark, tmp_path, file)
    land(tmp_path, "b", f"4,{common},A", "5,quite another text with words of its own,A")
    run_pipeline(spark, tmp_path, file)
    assert ids(tmp_path) == [2, 3, 5] and lake.published("clean").facts["increment"]
    (index,) = indexes(lake, "clean")
    assert re.search(r"/1-drop_near_duplicates-[0-9a-f]{16}-\w+$", index)


def test_append_is_refused_on_a_derived_table(tmp_path):
    file = growing(tmp_path)
    file.write_text(file.read_text().replace("mode: increment", "mode: append"))
    with pytest.raises(UsageError, match=r"tables.clean.publish.mode: append would add .* use increment, .* or merge"):
        load_pipeline(file)
