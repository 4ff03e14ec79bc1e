"""Record linkage on published sets with known truth: full tables, no labels, one setting for all.

Prints pair F1 of the links and of the entities, expected against true matches, the recall of blocking by its own
estimate, and CPU seconds of links and of entities (of the JVM and its workers). `HEADGATE_FUSION=cora,febrl3` chooses
sets; `persons_100000` makes so many records. The benchmark `splink` runs Splink beside.
"""

import csv
import io
import os
import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from headgate.jobs.pipeline.context import BuildContext
from headgate.transforms.balancing.split import fitted
from headgate.transforms.fusion.entities import AssignEntities
from headgate.transforms.fusion.links import LinkRecords
from headgate.transforms.rows import ROW_ID, SOURCE, row_id, with_bookkeeping
from tests.benchmarks import persons
from tests.benchmarks.dedup import session, timed
from tests.conftest import SHARED_DATA

Rows = list[dict[str, str | None]]
Pairs = set[tuple[str, str]]  # of keys "source/number", in order
GOALS = {"febrl4": 0.999, "febrl3": 0.998, "dblp_acm": 0.99, "fodors_zagats": 0.98, "cora": 0.90, "abt_buy": 0.80}


def read(path: str, separator: str = ",", quote: str | None = '"') -> Rows:
    """Read a file of text; empty cells and NA are null."""
    raw = (SHARED_DATA / path).read_bytes()
    if quote == "'":
        raw = raw.replace(b"\\'", b"`")
    text = raw.decode("utf-8", errors="replace")
    options: dict[str, Any] = {"quotechar": quote} if quote else {"quoting": csv.QUOTE_NONE}
    lines = csv.reader(io.StringIO(text), delimiter=separator, **options)
    names = [re.split(r"[#/]", c.strip())[-1] or c.strip() for c in next(lines)]
    rows = ([c.strip(" '\"") for c in line] for line in lines if line)
    return [{n: v if v not in ("", "NA") else None for n, v in zip(names, row, strict=False) if n} for row in rows]


def two(folder: str, a: str, b: str, truth: str, separator: str, quote: str | None = '"', drop: str = "") -> Any:
    """Read two sources and the pairs of their ids."""
    names = Path(a).stem, Path(b).stem
    sources = {n: read(f"{folder}/{f}", separator, quote) for n, f in zip(names, (a, b), strict=True)}
    at = {n: {r["id"]: i for i, r in enumerate(rows)} for n, rows in sources.items()}
    pairs = set()
    for row in read(f"{folder}/{truth}", separator, quote):
        one, other, *_ = row.values()
        pairs.add((f"{names[0]}/{at[names[0]][one]}", f"{names[1]}/{at[names[1]][other]}"))
    return {n: without(rows, "id", drop) for n, rows in sources.items()}, pairs


def without(rows: Rows, *columns: str) -> Rows:
    return [{c: v for c, v in row.items() if c not in columns} for row in rows]


def one(path: str, entity: str, *drop: str, separator: str = ",", of: Callable[[str], str] = str) -> Any:
    """Read one source and the pairs of rows of one entity."""
    rows = read(path, separator)
    members = defaultdict(list)
    for i, row in enumerate(rows):
        if row[entity] is not None:
            members[of(str(row[entity]))].append(i)
    pairs = {(f"/{a}", f"/{b}") for m in members.values() for i, a in enumerate(m) for b in m[i + 1 :]}
    return {"": without(rows, entity, *drop)}, pairs


def cora() -> Any:
    rows = read("em_cora/cora.csv", "|", None)
    at = {r["Entity Id"]: i for i, r in enumerate(rows)}
    lines = (SHARED_DATA / "em_cora/cora_gt.csv").read_text().splitlines()
    pairs = {tuple(sorted(at[x] for x in line.split("|")[:2])) for line in lines if line}
    return {"": without(rows, "Entity Id")}, {(f"/{a}", f"/{b}") for a, b in pairs}


def febrl(number: int) -> Any:
    return one(f"em_febrl{number}/dataset{number}.csv", "rec_id", of=lambda x: x.split("-")[1])


SETS: Mapping[str, Callable[[], Any]] = {
    "fodors_zagats": lambda: two(
        "em_fodors_zagats", "fodors.csv", "zagats.csv", "matches_fodors_zagats.csv", ",", "'", "class"
    ),
    "restaurant_864": lambda: one("em_restaurant_864/restaurant-nophone-training.csv", "unique_id"),
    "abt_buy": lambda: two("em_abt_buy", "abt.csv", "buy.csv", "gt.csv", "|", None),
    "restaurants_d1": lambda: two("em_restaurants_d1", "rest1.csv", "rest2.csv", "gt.csv", "|"),
    "rldata500": lambda: one("em_rldata/RLdata500.csv", "ent_id", "rec_id"),
    "cora": cora,
    "splink_fake1000": lambda: one("em_splink_fake1000/fake_1000_from_splink_demos.csv", "cluster", "unique_id"),
    "febrl1": lambda: febrl(1),
    "dblp_acm": lambda: two("em_dblp_acm", "dblp.csv", "acm.csv", "gt.csv", "%"),
    "imdb_tmdb": lambda: two("em_imdb_tmdb", "imdb.csv", "tmdb.csv", "gt.csv", "|"),
    "febrl3": lambda: febrl(3),
    "early_childhood": lambda: one("em_early_childhood/csv_example_input_with_true_ids.csv", "True Id", "Id"),
    "rldata10000": lambda: one("em_rldata/RLdata10000.csv", "ent_id", "rec_id"),
    "febrl2": lambda: febrl(2),
    "imdb_tvdb": lambda: two("em_imdb_tvdb", "imdb.csv", "tvdb.csv", "gt.csv", "|"),
    "tmdb_tvdb": lambda: two("em_tmdb_tvdb", "tmdb.csv", "tvdb.csv", "gt.csv", "|"),
}


def made_persons(n: int) -> Any:
    """Return records of persons by known error rates, and the pairs of one person."""
    rows, members = [], defaultdict(list)
    for i, (entity, cells) in enumerate(persons.persons(n)):
        rows.append(dict(zip(persons.COLUMNS, cells, strict=True)))
        members[entity].append(f"/{i}")
    return {"": rows}, set(pairs_within(members.values()))


def frame_of(spark: Any, sources: Mapping[str, Rows]) -> Any:
    """Return all sources as a frame with bookkeeping, whose row ids are those of `ref`: source/number."""
    common = [c for c in next(iter(sources.values()))[0] if all(c in rows[0] for rows in sources.values())]
    cells = [
        (f"{name}/{i}", name, *(row.get(c) for c in common))
        for name, rows in sources.items()
        for i, row in enumerate(rows)
    ]
    schema = ", ".join(["ref string", f"{SOURCE} string", *(f"`{c}` string" for c in common)])
    df = spark.createDataFrame(cells, schema)
    df = with_bookkeeping(df.withColumn(ROW_ID, row_id(df, "set", ["ref"])))
    return df.drop(SOURCE) if len(sources) == 1 else df


def f1_of(found: Pairs, true: Pairs) -> tuple[float, float, float]:
    right = len(found & true)
    precision, recall = right / max(len(found), 1), right / max(len(true), 1)
    return precision, recall, 2 * precision * recall / max(precision + recall, 1e-9)


def pairs_within(groups: Iterable[list[str]]) -> Iterable[tuple[str, str]]:
    return ((a, b) for m in groups for i, a in enumerate(m) for b in m[i + 1 :])


def run() -> None:
    spark = session()
    print(
        f"{'set':16}{'rows':>7}{'pairs':>9}{'b.rec':>8}{'prec':>7}{'rec':>7}{'F1':>8}{'goal':>6}{'ent F1':>8}"
        f"{'est':>8}{'true':>7}{'err%':>7}{'CPU':>6}{'ent':>6}"
    )
    chosen = os.environ.get("HEADGATE_FUSION")
    for name in chosen.split(",") if chosen else SETS:
        measure(spark, name)
    spark.stop()


def measure(spark: Any, name: str) -> None:
    sources, true = made_persons(int(name.removeprefix("persons_"))) if name.startswith("persons_") else SETS[name]()
    df = frame_of(spark, sources)
    order = {s: i for i, s in enumerate(sources)}

    def place(ref: str) -> tuple[int, int]:
        source, number = ref.rsplit("/", 1)
        return order[source], int(number)

    def in_order(pairs: Iterable[Any]) -> Pairs:
        return {(a, b) for a, b in (sorted(p, key=place) for p in pairs)}

    with tempfile.TemporaryDirectory() as folder:
        context, made = BuildContext(spark, f"{folder}/links", fitted=f"{folder}/fitted"), []
        step = LinkRecords(key=("ref",))
        _, cpu = timed(lambda: made.append(context.keep(fitted(step, df, context).run(df, context), "links")))
        (links,) = made
        found = in_order(links.where("linked").select("key_a", "key_b").collect())
        with_links = BuildContext(spark, f"{folder}/entities", frames={"links": links}, reads_previous=True)
        assign, rows = AssignEntities(links="links"), []
        _, cpu_of_entities = timed(lambda: rows.extend(assign.run(df, with_links).select("ref", "entity_id").collect()))
    members = defaultdict(list)
    for row in rows:
        members[row["entity_id"]].append(row["ref"])
    said = " ".join(context.warnings)
    candidates, expected = (
        float(m.replace(",", "")) for m in re.findall(r"([\d,]+) candidate pairs .* among them ([\d,]+)", said)[0]
    )
    recall_of_blocking = (re.findall(r"blocking found ([\d.]+%)", said) or ["?"])[0]
    precision, recall, f1 = f1_of(found, true)
    entities = f1_of({p for p in in_order(pairs_within(members.values())) if len(order) == 1 or across(p)}, true)[2]
    print(
        f"{name:16}{sum(map(len, sources.values())):7}{candidates:9.0f}{recall_of_blocking:>8}"
        f"{precision:7.3f}{recall:7.3f}{f1:8.4f}{GOALS.get(name, ''):>6}{entities:8.4f}{expected:8.0f}{len(true):7}"
        f"{100 * (expected / len(true) - 1):7.1f}{cpu:6.1f}{cpu_of_entities:6.1f}",
        flush=True,
    )


def across(pair: tuple[str, str]) -> bool:
    return pair[0].rsplit("/", 1)[0] != pair[1].rsplit("/", 1)[0]
