"""Repair, outliers and imputation on tables with a known truth, read from the shared data.

Nothing of them is kept here.
`python -m tests.benchmarks imputation` prints for each set what is measured; sets that are not there are passed over.
"""

import csv
import math
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from headgate.transforms.cleaning.forest import fit_forest, score_forest
from headgate.transforms.cleaning.repair import Dependency, RepairCells
from headgate.transforms.cleaning.votes import parse_rules
from headgate.transforms.imputation.chain import CLASSES, unknown
from headgate.transforms.imputation.choice import MODELS, blended, candidates, choose
from tests.conftest import SHARED_DATA, TEST_SETTINGS
from tests.transforms.frames import applied, frame

REPAIR = (  # set, dirty, clean
    ("dq_hospital", "dirty.csv", "clean.csv"),
    ("dq_flights", "raha_dirty.csv", "raha_clean.csv"),
    ("dq_beers", "raha_dirty.csv", "raha_clean.csv"),
)
DISCOVERED = "discovered rules"
RULES = ("dc_rules_holoclean.txt", "dc_rules-validate-fd-horizon.txt", DISCOVERED, "no rules")


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
            there = (folder / file).exists()
            rules, skipped = parse_rules((folder / file).read_text(), columns) if there else ([], [])
            step = RepairCells(
                columns=tuple(columns),
                dependencies=tuple(Dependency(columns=r.columns, decides=(r.decides,)) for r in rules),
                discover="apply" if file == DISCOVERED else "nothing",
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
            yield f"{name} {file} ({len(skipped)} rules skipped): {listed_scores}; {seconds:.0f} s"


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
    "mv_auto_imports": "auto_imports.csv",
    "mv_adult_census": "adult-train.csv.gz",
}
METHODS = ("simple", "median", "gaussian", "trees", "auto")
NAMELESS = {"mv_pima", "mv_breast_cancer_wisconsin", "mv_auto_imports", "mv_adult_census"}


def fills(most: int = 2_500, share: float = 0.1, cells: int = 1_000) -> Iterator[str]:
    """Errors of `impute_auto`'s choice beside those of each method alone, over those of mean and mode; lower is better.

    On known cells that the choice never saw, of three to eight masks, the more the smaller a table. The worst column is
    told as well.
    """
    for name, file in FILLED.items():
        path = SHARED_DATA / name / file
        if not path.exists():
            continue
        rng = np.random.default_rng(0)
        header = None if name in NAMELESS else "infer"
        read = pd.read_csv(path, na_values=["?", ""], header=header, skipinitialspace=True)
        read = read.drop(columns="rownames", errors="ignore").iloc[np.sort(rng.permutation(len(read))[:most])]
        truth = {str(c): read[c] for c in read if 1 < read[c].nunique() < 0.99 * len(read)}
        table = {}
        for c, v in truth.items():
            number = pd.api.types.is_numeric_dtype(v) and v.dtype != bool
            table[c] = v.to_numpy(float) if number else v.astype(object).where(v.notna(), None).to_numpy(object)
        table = {c: v for c, v in table.items() if v.dtype != object or len({*v}) < CLASSES}
        start = time.process_time()
        losses: dict[tuple[str, str], float] = defaultdict(float)
        for _ in range(min(max(math.ceil(cells / (share * len(read))), 3), 8)):
            hit = {c: (rng.random(len(v)) < share) & ~unknown(v) for c, v in table.items()}
            seen = {c: np.where(hit[c], None if v.dtype == object else np.nan, v) for c, v in table.items()}
            found = candidates(seen, list(seen), None, "auto", 2, 0)
            chosen, _ = choose(seen, list(seen))
            for c, v in table.items():
                guesses = {m: filled[c] for m, filled in found.items() if c in filled}
                weights = chosen.get(c, {"simple": 1.0})
                constant = next((m for m in weights if m not in MODELS), None if v.dtype != object else "trees")
                guesses["auto"] = guesses[constant] if constant else blended(guesses, weights)
                for method in METHODS:
                    guess = guesses.get(method, guesses["simple"])[hit[c]]
                    wrong = guess != v[hit[c]] if v.dtype == object else (guess - v[hit[c]]) ** 2
                    losses[c, method] += float(wrong.sum())
        parts = []
        for kind in ("numbers", "categories"):
            columns = [c for c, v in table.items() if (v.dtype == object) == (kind == "categories")]
            ratios = {
                m: {c: losses[c, m] / losses[c, "simple"] for c in columns if losses[c, "simple"]} for m in METHODS
            }
            root = 0.5 if kind == "numbers" else 1.0
            if ratios["auto"]:
                means = {m: float(np.mean([r**root for r in each.values()])) for m, each in ratios.items()}
                best = min(v for m, v in means.items() if m != "auto")
                worst = max(r**root for r in ratios["auto"].values())
                alone = ", ".join(f"{m} {v:.3f}" for m, v in means.items() if m not in ("auto", "simple"))
                parts.append(
                    f"{kind}: auto {means['auto']:.3f} (best single x {means['auto'] / best:.3f}; worst column "
                    f"{worst:.3f}); {alone}"
                )
        yield f"{name} {'; '.join(parts)}; {time.process_time() - start:.0f} CPU s"
