"""Repair, outliers and imputation on tables with a known truth, read from the shared data.

Nothing of them is kept here.
`python -m tests.benchmarks imputation` prints for each set what is measured; sets that are not there are passed over.
"""

import csv
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from headgate.transforms.cleaning.repair import Dependency, RepairCells
from headgate.transforms.cleaning.votes import parse_rules
from tests.conftest import SHARED_DATA, TEST_SETTINGS
from tests.transforms.frames import applied, frame

REPAIR = (  # set, dirty, clean
    ("dq_hospital", "dirty.csv", "clean.csv"),
    ("dq_flights", "raha_dirty.csv", "raha_clean.csv"),
    ("dq_beers", "raha_dirty.csv", "raha_clean.csv"),
)
RULES = ("dc_rules_holoclean.txt", "dc_rules-validate-fd-horizon.txt", None)


def run() -> None:
    from headgate.jobs.spark.session import start

    spark = start(TEST_SETTINGS)
    for measure in (repair,):
        for line in measure(spark):
            print(line, flush=True)
    spark.stop()


def rows_of(path: Path) -> tuple[list[str], list[list[str]]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        names, *rows = csv.reader(file)
    return names, rows


def repair(spark: Any) -> Iterator[str]:
    """Detection and repair against the truth, by declared rules and without any label."""
    for name, dirty_file, clean_file in REPAIR:
        folder = SHARED_DATA / name
        if not folder.exists():
            continue
        columns, dirty = rows_of(folder / dirty_file)
        _, clean = rows_of(folder / clean_file)
        for file in RULES:
            rules, skipped = parse_rules((folder / file).read_text(), columns) if file else ([], [])
            step = RepairCells(
                columns=tuple(columns),
                dependencies=tuple(Dependency(columns=r.columns, decides=(r.decides,)) for r in rules),
                faults="_faults_",
            )
            schema = ", ".join(["place int", *(f"`{c}` string" for c in columns)])
            df = frame(spark, schema, *((i, *row) for i, row in enumerate(dirty)))
            start = time.perf_counter()
            faults = {r[0]: r[1] for r in applied(step, df).select("place", "_faults_").collect() if r[1]}
            seconds = time.perf_counter() - start
            found = [(i, f) for i, listed in faults.items() for f in listed]
            measures = scores(found, dict(enumerate(dirty)), dict(enumerate(clean)), columns)
            told = ", ".join(f"{k} {v:.3f}" for k, v in measures.items())
            yield f"{name} {file or 'no rules'} ({len(skipped)} rules skipped): {told}; {seconds:.0f} s"


def scores(
    found: Iterable[tuple[int, Any]], dirty: dict[int, list[str]], clean: dict[int, list[str]], columns: list[str]
) -> dict[str, float]:
    """Precision, recall and F1 of detection and of the changes made; empty text and null are the same."""
    wrong = sum((a or "") != (b or "") for i in dirty for a, b in zip(dirty[i], clean[i], strict=True))
    found = list(found)
    truth = {(i, c): clean[i][j] for i in clean for j, c in enumerate(columns)}
    hits = sum(truth[i, f["column"]] != (f["was"] or "") for i, f in found)
    changed = [(i, f) for i, f in found if f["changed"]]
    right = sum(truth[i, f["column"]] == (f["proposed"] or "") for i, f in changed)
    result = {}
    for name, good, given in (("detection", hits, len(found)), ("repair", right, len(changed))):
        precision, recall = good / max(given, 1), good / max(wrong, 1)
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        result |= {f"{name} precision": precision, f"{name} recall": recall, f"{name} F1": f1}
    return result
