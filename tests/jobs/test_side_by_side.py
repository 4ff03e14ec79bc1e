"""Tables that do not need one another are built at the same time, with the same result."""

import threading
import time

import pytest

from headgate.jobs.config.pipeline import load_pipeline
from headgate.jobs.errors import GateBlocked
from headgate.jobs.pipeline.planning import plan_table
from headgate.jobs.pipeline.run import run
from headgate.jobs.pipeline.side_by_side import side_by_side
from headgate.jobs.progress import Progress
from tests.lakes import content, environment_of, lake_of, land, write_pipeline

NEEDS = {"a": set(), "b": set(), "c": {"a"}, "d": {"b", "c"}, "e": set()}


class Watched:
    """Tasks that note how many of them run at a time, and that what they need was done before."""

    def __init__(self, fails: str = "") -> None:
        self.fails, self.most, self.lock = fails, 0, threading.Lock()
        self.running, self.done = set(), []

    def task(self, name):
        def work():
            with self.lock:
                self.running.add(name)
                self.most = max(self.most, len(self.running))
                assert NEEDS[name] <= set(self.done)
            time.sleep(0.05)
            with self.lock:
                self.running.remove(name)
                self.done.append(name)
            if name == self.fails:
                raise ValueError(name)
            return name

        return work


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_each_task_waits_for_what_it_needs(at_once):
    watched = Watched()
    assert sorted(side_by_side(list(NEEDS), NEEDS, watched.task, at_once)) == list(NEEDS)
    assert watched.most == min(at_once, 3)


def test_after_an_error_nothing_is_begun_and_what_runs_is_awaited():
    watched, found = Watched(fails="a"), []
    with pytest.raises(ValueError, match="a"):
        found.extend(side_by_side(list(NEEDS), NEEDS, watched.task, 3))
    assert sorted(watched.done) == ["a", "b", "e"] and not watched.running


TABLE = """
  raw_{0}:
    source: {{format: csv, path: '{0}/*.csv', schema: 'id INT, v STRING', key: [id]}}
    suite: any
  {0}:
    from: raw_{0}
    steps: [normalize_text: {{columns: [v], case: upper}}]
    suite: any
"""
JOINED = """
  joined:
    from: x
    steps: [join_table: {table: y, on: {id: id}, columns: {w: v}, matched: found}]
    suite: any
"""
STOCK = "{type: expect_column_value_lengths_to_equal, kwargs: {column: v, value: 2}, meta: {dimension: validity}}"


@pytest.mark.slow
def test_tables_side_by_side_are_as_one_after_another(spark, tmp_path, capfd):
    write_pipeline(tmp_path, "".join(TABLE.format(name) for name in "xyz") + JOINED, STOCK)
    for n, name in enumerate("xyz"):
        land(tmp_path, f"{name}/a.csv", "id,v\n" + "".join(f"{i},{name}{i}\n" for i in range(3 + n)))
    pipeline, environment = load_pipeline(tmp_path / "p.yaml"), environment_of(tmp_path)
    found = {}
    for at_once in (1, 3):
        here = environment.model_copy(update={"tables_at_once": at_once, "lake": str(tmp_path / "lake")})
        outcome = run(pipeline, here, lake_of(tmp_path), lambda _: spark, Progress())
        assert [r.table for r in outcome.tables] == pipeline.order and outcome.built == 7
        found[at_once] = {t: content(tmp_path, t) for t in pipeline.order}
        (tmp_path / "lake").rename(tmp_path / f"lake{at_once}")
    assert found[1] == found[3] and len(found[1]["z"]) == 5
    land(tmp_path, "y/b.csv", "id,v\n9,long\n")
    (tmp_path / "lake3").rename(tmp_path / "lake")
    land(tmp_path, "x/b.csv", "id,v\n9,x9\n")
    capfd.readouterr()
    with pytest.raises(GateBlocked, match="table 'raw_y'"):
        run(pipeline, here, lake_of(tmp_path), lambda _: spark, Progress())
    assert content(tmp_path, "y") == found[1]["y"]
    told = capfd.readouterr().err
    assert "warning: published, but in no release: " in told and "raw_x version 1" in told
    assert "the newest release stays p-1" in told
    write_pipeline(tmp_path, TABLE.format("y"), STOCK)
    (tmp_path / "p.yaml").write_text((tmp_path / "p.yaml").read_text().replace("pipeline: p", "pipeline: q"))
    plan = plan_table(load_pipeline(tmp_path / "p.yaml"), environment, lake_of(tmp_path), "y", None, force=True)
    assert plan.notes == ("the rows of table 'y' were published by pipeline 'p': this one replaces them",)
