"""Duplicates in real data of many kinds: articles, citations, persons, poems, short messages, sales.

Where the truth is known it is told how much of it is found; of texts, all similar pairs are found in plain Python, and
every removal must be supported by one of them, and no pair survive.
"""

import csv
import math
import tempfile
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import duckdb
import pandas as pd

from headgate.transforms.deduplication.exact import DropDuplicates
from headgate.transforms.deduplication.near import DropNearDuplicates
from headgate.transforms.rows import ROW_ID, row_id, with_bookkeeping
from headgate.transforms.step import Step
from tests.benchmarks.dedup import Scratch, jaccard, session, timed
from tests.conftest import SHARED_DATA
from tests.transforms.test_near_duplicates import shingle_set

SURE = 0.999999


def run() -> None:
    spark = session()
    articles(spark)
    citations(spark)
    for number in (1, 2, 3):
        persons(spark, number)
    poems(spark)
    messages(spark)
    sales(spark)
    spark.stop()


def marks(spark: Any, rows: pd.DataFrame, step: Step) -> tuple[pd.DataFrame, float]:
    """Of rows of texts: their number `n`, and `kept`: the number of the row that stands for it; and CPU seconds."""
    schema = ", ".join(["n int", *(f"`{c}` string" for c in rows.columns)])
    df = spark.createDataFrame([(n, *row) for n, row in enumerate(rows.itertuples(index=False))], schema)
    df = with_bookkeeping(df.withColumn(ROW_ID, row_id(df, "set", ["n"])))
    with tempfile.TemporaryDirectory() as folder:
        found: list[pd.DataFrame] = []
        context = Scratch(spark, folder)
        _, cpu = timed(lambda: found.append(step.run(df, context).toPandas()))
    (out,) = found
    number = dict(zip(out[ROW_ID], out["n"], strict=True))
    if "cluster" in out.columns:
        out["kept"] = out["cluster"].map(number)
    else:
        gone = out["_hg_rejected"].map(lambda r: None if r is None else r["evidence"].get("kept_row_id"))
        out["kept"] = gone.map(number)
    return out.sort_values("n"), cpu


# -- where the truth is known


def articles(spark: Any) -> None:
    folder = SHARED_DATA / "nd_mccormick_articles"
    lines = (folder / "articles_1000.train").read_text().splitlines()
    names, texts = zip(*(line.split(" ", 1) for line in lines), strict=True)
    truth = [set(line.split()) for line in (folder / "articles_1000.truth").read_text().splitlines()]
    out, cpu = marks(spark, pd.DataFrame({"text": texts}), DropNearDuplicates(columns=("text",)))
    gone = out[out["kept"].notna()]
    found = [{names[a], names[int(b)]} for a, b in zip(gone["n"], gone["kept"], strict=True)]
    right = sum(pair in truth for pair in found)
    print(f"articles: {len(found)} removed, {right} of {len(truth)} true pairs, {cpu:.1f} CPU s", flush=True)
    assert right == len(truth) == len(found)


def citations(spark: Any) -> None:
    folder = SHARED_DATA / "em_cora"
    rows = pd.read_csv(folder / "cora.csv", sep="|", dtype=str, keep_default_na=False)
    with open(folder / "cora_gt.csv") as file:
        truth = {tuple(sorted(map(int, line))) for line in csv.reader(file, delimiter="|")}
    records("citations", spark, rows[["author", "title", "venue"]], truth, 0.4)


def persons(spark: Any, number: int) -> None:
    rows = pd.read_csv(SHARED_DATA / f"em_febrl{number}" / f"dataset{number}.csv", dtype=str, skipinitialspace=True)
    entity = rows["rec_id"].map(lambda name: name.split("-")[1])
    truth = {pair for _, group in entity.groupby(entity) for pair in combinations(sorted(group.index), 2)}
    columns = ["given_name", "surname", "address_1", "suburb", "date_of_birth", "soc_sec_id"]
    records(f"persons {number}", spark, rows[columns], truth, 0.4)


def records(name: str, spark: Any, rows: pd.DataFrame, truth: set[Any], similarity: float) -> None:
    """Clusters by pairs of characters over several columns, as pairs beside the true ones."""
    how = {"unit": "characters", "shingle": 2, "similarity": similarity, "cluster": "cluster"}
    out, cpu = marks(spark, rows, DropNearDuplicates(columns=tuple(rows.columns), **how))  # type: ignore[arg-type]
    groups = out.groupby("kept")["n"].apply(sorted)
    found = {pair for group in groups for pair in combinations(group, 2)}
    right = len(found & truth)
    precision, recall = right / len(found), right / len(truth)
    print(
        f"{name}: {len(rows):,} records, precision {precision:.3f}, recall {recall:.3f}, F1 "
        f"{2 * precision * recall / (precision + recall):.3f}, {cpu:.1f} CPU s",
        flush=True,
    )


# -- where every pair is found in plain Python


def poems(spark: Any) -> None:
    rows = duckdb.sql(f"SELECT text FROM '{SHARED_DATA / 'tx_tang_poetry_open_zh' / 'tang_poems.parquet'}'").df()
    sets = [shingle_set(unicodedata.normalize("NFC", t), 5, "characters") if t else set() for t in rows["text"]]
    texts("poems", spark, rows, sets)


def messages(spark: Any) -> None:
    rows = pd.read_csv(SHARED_DATA / "tx_sms_spam" / "sms_spam.csv", keep_default_na=False)
    texts(
        "messages",
        spark,
        rows,
        [shingle_set(unicodedata.normalize("NFC", t), 5, "words") if t else set() for t in rows["text"]],
    )
    exact(spark, "messages", rows, ["type", "text"])


def texts(name: str, spark: Any, rows: pd.DataFrame, sets: Sequence[set[Any]]) -> None:
    for similarity in (0.8, 0.5):
        step = DropNearDuplicates(columns=("text",), similarity=similarity, recall=SURE)
        out, cpu = marks(spark, rows, step)
        kept = dict(zip(out["n"], out["kept"], strict=True))
        gone = {n for n, k in kept.items() if not math.isnan(k)}
        pairs = similar(sets, similarity)
        supported = {n for a, b in pairs for n, other in ((a, b), (b, a)) if n in gone and other not in gone}
        survive = sum(a not in gone and b not in gone for a, b in pairs)
        told = all(jaccard(sets[n], sets[int(kept[n])]) >= similarity and kept[n] not in gone for n in gone)
        print(
            f"{name} at {similarity}: {len(rows):,} texts, {len(pairs):,} similar pairs, {len(gone):,} removed, "
            f"unsupported {len(gone - supported)}, surviving pairs {survive}, {cpu:.1f} CPU s",
            flush=True,
        )
        assert told and gone == supported and not survive


def similar(sets: Sequence[set[Any]], least: float) -> list[tuple[int, int]]:
    """All pairs with a Jaccard similarity of at least so much: two such sets share one of the rarest of either."""
    crowd = Counter(s for one in sets for s in one)
    rare = [
        sorted(one, key=lambda s: (crowd[s], s))[: len(one) - math.ceil(least * len(one) - 1e-9) + 1] for one in sets
    ]
    holders: dict[Any, list[int]] = defaultdict(list)
    for i, some in enumerate(rare):
        for s in some:
            holders[s].append(i)
    met = {pair for group in holders.values() for pair in combinations(group, 2)}
    return [(a, b) for a, b in met if jaccard(sets[a], sets[b]) >= least]


# -- equal rows, counted by pandas


def sales(spark: Any) -> None:
    files = str(SHARED_DATA / "sc_online_retail" / "by-day" / "*.csv.gz")
    rows = duckdb.sql(f"SELECT * FROM read_csv('{files}', all_varchar=true)").df()
    exact(spark, "sales", rows, list(rows.columns))


def exact(spark: Any, name: str, rows: pd.DataFrame, columns: list[str]) -> None:
    rows = rows[columns].astype(object).where(rows[columns].notna(), None)
    for form, told in ((), ""), (("case", "spaces", "unicode", "punctuation"), " but for their form"):
        wanted = len(rows) - len((rows.map(plain) if form else rows).drop_duplicates())
        out, cpu = marks(spark, rows, DropDuplicates(columns=tuple(columns), ignore=form, nulls="equal"))
        removed = out["kept"].notna().sum()
        print(f"{name}, equal{told}: {len(rows):,} rows, {removed:,} removed, {cpu:.1f} CPU s", flush=True)
        assert removed == wanted


def plain(text: str | None) -> str | None:
    if text is None:
        return None
    letters = unicodedata.normalize("NFKC", text).lower()
    return " ".join("".join(c for c in letters if unicodedata.category(c)[0] not in "PS").split())
