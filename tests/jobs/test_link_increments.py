"""Pairs, entities and golden records made again from what changed are those of a full build by the same model."""

import json
import random

import pytest

from headgate.jobs.pipeline import affected
from headgate.transforms.fusion import records, renewal
from tests.jobs.test_fuse import misspelt, people
from tests.lakes import again, answer, content, lake_of, land, write_pipeline

COLUMNS = "id STRING, name STRING, street STRING, city STRING, phone STRING"
SOURCE = """
  {name}:
    source: {{format: csv, path: '{name}/*.csv', schema: '{columns}', key: [id], on_changed_file: replace}}
    suite: null
"""
DECIDED = """
  decided:
    source: {format: csv, path: 'decided.csv', schema: 'key_a STRING, key_b STRING, same BOOLEAN', key: [key_a, key_b],
             on_changed_file: replace}
    suite: null
"""
MADE = """
  pairs_{name}:
    from: {starts}
    grain: new
    refit: weekly
    steps: [{{derive: {{columns: {{who: upper(name)}}}}}}, {{drop_columns: {{columns: [who]}}}},
            {{link_records: {{key: [id], cap: 4{more}}}}}]
    suite: null
    publish: {{mode: {mode}}}
"""
REST = """
  entities_{name}:
    from: {starts}
    steps: [{{assign_entities: {{links: pairs_part}}}}]  # an id may be minted from when its links were published
    suite: null
    publish: {{mode: {mode}}}
  golden_{name}:
    from: entities_{name}
    grain: new
    steps: [{{golden_records: {{}}}}]
    suite: null
    publish: {{mode: {mode}}}
"""
SHOWN = """
  history_{name}:
    from: entities_part
    grain: new
    steps: [{{entity_history: {{key: [id]}}}}]
    suite: null
    publish: {{mode: {mode}}}
  events_{name}:
    from: history_part
    grain: new
    steps: [{{entity_events: {{}}}}]
    suite: null
    publish: {{mode: {mode}}}
  xref_{name}:
    from: entities_part
    grain: new
    steps: [{{cross_reference: {{key: [id], history: history_part}}}}]
    suite: null
    publish: {{mode: {mode}}}
  links_{name}:
    from: pairs_part
    grain: new
    steps: [{{confirm_links: {{entities: entities_part}}}}]
    suite: null
    publish: {{mode: {mode}}}
"""
ONE = ("people",)
TWO = ("left", "right")


class Town:
    """People in files of so many by source, who come, change and go, and come again misspelt."""

    def __init__(self, folder, sources, files=4, size=14):
        self.folder, self.sources, self.r, self.size, self.next = folder, sources, random.Random(5), size, 0
        self.every = list(people(3, 4000))
        self.files = {(s, f): dict(self.arrive() for _ in range(size)) for s in sources for f in range(files)}
        for place in self.files:
            self.write(place)

    def arrive(self):
        """Return a person: somebody new, or one of those before with a slip in the name."""
        known = self.r.random() < 0.4 and self.next
        row = list(self.every[self.r.randrange(self.next) if known else self.next])
        row[0] = misspelt(self.r, row[0]) if known else row[0]
        self.next += 1
        return f"p{self.next}", row

    def write(self, place):
        lines = "".join(f"{i},{','.join(row)}\n" for i, row in self.files[place].items())
        land(self.folder, f"{place[0]}/{place[1]}.csv", f"id,name,street,city,phone\n{lines}")

    def night(self):
        """Let some change, go and come."""
        for place in self.r.sample(sorted(self.files), 2):
            rows = self.files[place]
            for i in self.r.sample(sorted(rows), min(2, len(rows))):
                if self.r.random() < 0.5:
                    del rows[i]
                else:
                    rows[i][self.r.randrange(4)] = self.every[self.r.randrange(self.next)][self.r.randrange(4)]
            while len(rows) < self.size and self.r.random() < 0.8:
                i, row = self.arrive()
                rows[i] = row
            self.write(place)


def tables(sources, more="", rest=True, shown=False):
    starts = "[" + ", ".join(sources) + "]"
    text = "".join(SOURCE.format(name=s, columns=COLUMNS) for s in sources)
    for name, mode in (("part", "auto"), ("whole", "replace")):
        options = {"name": name, "starts": starts, "mode": mode, "more": more}
        text += MADE.format(**options) + (REST.format(**options) if rest else "")
        text += SHOWN.format(**options) if shown else ""
    return text


def alike(folder, table, name):
    """Return the rows of a table but for the ids that steps give them, which hold the table's name."""
    rows = [json.loads(r) for r in content(folder, f"{table}_{name}")]
    return sorted(json.dumps(r | ({"_row_id": ""} if table != "entities" else {}), sort_keys=True) for r in rows)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(affected, "SMALL", 0)
    monkeypatch.setattr(affected, "LARGEST", 2)
    monkeypatch.setattr(renewal, "SHARE", 1)


def by_nights(spark, folder, town, nights, rest, shown=False):
    again(spark, folder)
    states = {name: lake_of(folder).published(f"pairs_{name}").facts["state"] for name in ("part", "whole")}
    made = ["pairs", *(["entities", "golden"] if rest else [])]
    made += ["history", "events", "xref", "links"] if shown else []
    before = groups(folder) if rest else {}
    for night in range(nights):
        town.night()
        again(spark, folder)
        for name, state in states.items():
            assert lake_of(folder).published(f"pairs_{name}").facts["state"] == state, "nothing was learned anew"
        for table in made:
            assert lake_of(folder).published(f"{table}_part").facts["moved"] is not None, (night, table)
            assert alike(folder, table, "part") == alike(folder, table, "whole"), (night, table)
        if rest:
            now = groups(folder)
            stay = now.keys() & before.keys()
            assert {g: now[g] for g in stay} == {g: before[g] for g in stay}, "who stays together keeps the id"
            assert not {i for g in now.keys() - stay for i in [now[g]]} & {before[g] for g in stay}
            assert len(stay) > len(now) / 2
            before = now


def groups(folder):
    """Return the id of each entity by its records."""
    of = answer(folder, "select entity_id, list(_row_id order by _row_id) from entities_part group by 1")
    return {frozenset(members): entity for entity, members in of}


@pytest.mark.parametrize("nights", [2, pytest.param(30, marks=pytest.mark.long)])
def test_pairs_of_what_changed_are_those_of_a_full_build(spark, tmp_path, small, nights):
    rest = nights > 2
    write_pipeline(tmp_path, tables(ONE, rest=rest))
    by_nights(spark, tmp_path, Town(tmp_path, ONE), nights, rest)


@pytest.mark.slow
@pytest.mark.parametrize("more", ["", ", one_to_one: true", ", one_to_one: true, decisions: decided"])
def test_pairs_of_two_sources(spark, tmp_path, small, monkeypatch, more):
    if more:
        monkeypatch.setattr(records, "FEW", 0)
        monkeypatch.setattr(renewal, "FEW", 0)
        monkeypatch.setattr(renewal, "KEYS", 0 if "decisions" in more else renewal.KEYS)
    write_pipeline(tmp_path, tables(TWO, more, rest=not more, shown=not more) + (DECIDED if "decided" in more else ""))
    town = Town(tmp_path, TWO)
    night = town.night

    def decide():
        left, right = (sorted(i for (s, _), rows in town.files.items() if s == side for i in rows) for side in TWO)
        lines = [f"{town.r.choice(left)},{town.r.choice(right)},{town.r.choice(['true', 'false'])}\n" for _ in range(4)]
        land(tmp_path, "decided.csv", "key_a,key_b,same\n" + "".join(lines))
        night()

    if "decided" in more:
        town.night = decide
        decide()
    by_nights(spark, tmp_path, town, 5, not more, not more)


@pytest.mark.slow
def test_what_was_learned_of_few_is_learned_anew_of_many(spark, tmp_path, small):
    write_pipeline(tmp_path, tables(ONE, rest=False))
    town = Town(tmp_path, ONE)
    again(spark, tmp_path)
    before = lake_of(tmp_path).published("pairs_part").facts["state"]
    for f in range(4, 8):
        town.files["people", f] = dict(town.arrive() for _ in range(town.size))
        town.write(("people", f))
    outcome = again(spark, tmp_path)
    now = lake_of(tmp_path).published("pairs_part").facts
    assert now["state"] not in (None, before) and now["moved"] is None
    (told,) = (w for r in outcome.tables if r.table == "pairs_part" for w in r.warnings if "anew" in w)
    assert told.startswith("there are 112 records, and it was learned from 56") and told.endswith("learn anew")
