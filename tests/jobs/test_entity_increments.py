"""Entities made again from what changed alone are those of a full build, with the same ids."""

import random

import pytest

from headgate.jobs.pipeline import affected
from tests.lakes import again, answer, content, lake_of, land, write_pipeline

TABLES = """
  people:
    source: {format: csv, path: 'people/*.csv', schema: 'id INT, name STRING', key: [id], on_changed_file: replace}
    suite: null
  links:
    source:
      format: csv
      path: 'links/*.csv'
      schema: 'id_a STRING, id_b STRING, score DOUBLE, rule STRING, linked BOOLEAN'
      on_changed_file: replace
    suite: null
  part:
    from: people
    steps: [{derive: {columns: {who: upper(name)}}}, {assign_entities: {links: links}}]
    suite: null
  whole:
    from: people
    steps: [{derive: {columns: {who: upper(name)}}}, {assign_entities: {links: links}}]
    suite: null
    publish: {mode: replace}
"""


def people(ids):
    return "id,name\n" + "".join(f"{i},n{i}\n" for i in ids)


def links(pairs, row):
    lines = (f"{min(row[a], row[b])},{max(row[a], row[b])},{score},model,{score > 0}".lower() for a, b, score in pairs)
    return "id_a,id_b,score,rule,linked\n" + "\n".join(lines) + "\n"


@pytest.mark.slow
def test_entities_of_what_changed_are_those_of_a_full_build(spark, tmp_path, monkeypatch):
    monkeypatch.setattr(affected, "SMALL", 0)
    monkeypatch.setattr(affected, "LARGEST", 2)  # so little lies in one file
    r = random.Random(3)
    write_pipeline(tmp_path, TABLES)
    for n in range(6):
        land(tmp_path, f"people/{n}.csv", people(range(n * 20, n * 20 + 20)))
    again(spark, tmp_path, tables=["people"])
    row = dict(answer(tmp_path, "select id, _row_id from people"))

    def pairs(n, count):
        base = range(n * 20, n * 20 + 20)
        return [(*r.sample(base, 2), r.choice([9, 8, 9, -2])) for _ in range(count)]

    for n in range(6):
        land(tmp_path, f"links/{n}.csv", links(pairs(n, 14), row))
    again(spark, tmp_path)
    before = dict(answer(tmp_path, "select id, entity_id from part"))
    for night in range(3):
        if night == 0:  # some are gone, and a few links are others
            land(tmp_path, "people/1.csv", people(range(26, 40)))
        if night == 1:
            land(tmp_path, "links/2.csv", links(pairs(2, 10), row))
        if night == 2:  # they come back, and two groups are tied
            land(tmp_path, "people/1.csv", people(range(20, 40)))
            land(tmp_path, "links/6.csv", links([(45, 65, 30), (46, 66, 30)], row))
        again(spark, tmp_path)
        found = [x.replace('"part/', '"whole/') for x in content(tmp_path, "part")]
        assert found == content(tmp_path, "whole"), night
        assert lake_of(tmp_path).published("part").facts["moved"] is not None, night
        now = dict(answer(tmp_path, "select id, entity_id from part"))
        untouched = [i for i in now if not 20 <= i < 80]
        assert {i: now[i] for i in untouched} == {i: before[i] for i in untouched}
        before = now
