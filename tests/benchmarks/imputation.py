"""Repair, outliers and imputation on tables with a known truth, read from the shared data.

Nothing of them is kept here.
`python -m tests.benchmarks imputation` prints for each set what is measured; sets that are not there are passed over.
"""

import csv
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from headgate.transforms.cleaning.forest import fit_forest, score_forest
from headgate.transforms.cleaning.repair import Dependency, RepairCells
from headgate.transforms.cleaning.votes import parse_rules
from headgate.transforms.imputation.chain import CLASSES, fill_chain, fit_chain, unknown
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
    for line in repair(spark):
        print(line, flush=True)
    spark.stop()
    for line in (*outliers(), *fills()):
        print(line, flush=True)


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
            listed_scores = ", ".join(f"{k} {v:.3f}" for k, v in measures.items())
            yield f"{name} {file or 'no rules'} ({len(skipped)} rules skipped): {listed_scores}; {seconds:.0f} s"


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


def outliers() -> Iterator[str]:
    """The isolation forest beside scikit-learn's, fitted on the same rows: area under the curve, CPU of scoring."""
    from sklearn.ensemble import IsolationForest
    from sklearn.metrics import roc_auc_score

    for file in sorted((SHARED_DATA / "od_adbench_open").glob("*.parquet")):
        table = pd.read_parquet(file)
        labels, values = table.iloc[:, -1].to_numpy().astype(int), table.iloc[:, :-1].to_numpy(float)
        rows = np.random.default_rng(0).permutation(len(values))[:20_000]
        forest = fit_forest(values[rows], tuple(table.columns[:-1]))
        start = time.process_time()
        ours = roc_auc_score(labels, score_forest(values, forest))
        seconds = (time.process_time() - start) / len(values) * 100_000
        single = values.astype(np.float32)
        theirs = IsolationForest(random_state=0, n_jobs=1).fit(single[rows])
        beside = roc_auc_score(labels, -theirs.score_samples(single))
        yield f"{file.stem}: AUROC {ours:.3f}, scikit-learn {beside:.3f}; {seconds:.2f} CPU s a 100,000 rows"


FILLED = {  # set -> file; those without names of columns
    "mv_penguins": "penguins.csv",
    "mv_airquality": "airquality.csv",
    "mv_pima": "pima-indians-diabetes.csv",
    "mv_breast_cancer_wisconsin": "breast-cancer-wisconsin.csv",
    "mv_titanic": "titanic.csv",
    "mv_california_housing": "housing.csv.gz",
    "mv_diamonds": "diamonds.csv.gz",
}
NAMELESS = {"mv_pima", "mv_breast_cancer_wisconsin"}


def fills(most: int = 2_500, share: float = 0.1) -> Iterator[str]:
    """Errors on masked known cells, over those of mean and mode; lower is better, 1 is no better than them."""
    for name, file in FILLED.items():
        path = SHARED_DATA / name / file
        if not path.exists():
            continue
        rng = np.random.default_rng(0)
        read = pd.read_csv(path, na_values=["?", ""], header=None if name in NAMELESS else "infer")
        read = read.drop(columns="rownames", errors="ignore").iloc[np.sort(rng.permutation(len(read))[:most])]
        truth = {str(c): read[c] for c in read if 1 < read[c].nunique() < 0.99 * len(read)}
        table = {}
        for c, v in truth.items():
            number = pd.api.types.is_numeric_dtype(v) and v.dtype != bool
            table[c] = v.to_numpy(float) if number else v.astype(object).where(v.notna(), None).to_numpy(object)
        table = {c: v for c, v in table.items() if v.dtype != object or len({*v}) <= CLASSES}
        masks = {c: (rng.random(len(v)) < share) & ~unknown(v) for c, v in table.items()}
        masked = {c: np.where(masks[c], None if v.dtype == object else np.nan, v) for c, v in table.items()}
        for rounds in (0, 2):
            start = time.process_time()
            filled = fill_chain(masked, fit_chain(masked, list(masked), rounds=rounds), list(masked))
            numbers, categories = [], []
            for c, v in table.items():
                hit = masks[c]
                if v.dtype == object:
                    mode = pd.Series(masked[c]).mode()[0]
                    categories.append((filled[c] != v)[hit].mean() / max((v[hit] != mode).mean(), 1e-9))
                else:
                    base = ((v - np.nanmean(masked[c]))[hit] ** 2).mean()
                    numbers.append((((filled[c] - v)[hit] ** 2).mean() / base) ** 0.5)
            method = "trees" if rounds else "gaussian"
            means = [f"{np.mean(x):.3f}" if x else "-" for x in (numbers, categories)]
            yield (
                f"{name} {method}: numbers {means[0]} of the mean's error (worst {max(numbers, default=0):.3f}), "
                f"categories {means[1]} of the mode's; {time.process_time() - start:.0f} CPU s"
            )
