"""Labels of many workers made one, on published sets with known truth: the majority, our Dawid-Skene, crowd-kit's.

Prints accuracies in per cent and CPU seconds of learning, without the start of Python.
"""

import csv
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from headgate.transforms.fusion.truth import Claims, Confusion, learn
from tests.benchmarks.fusion import PEERS, peers_python
from tests.conftest import SHARED_DATA

SETS = ("bluebird", "rte", "product", "face", "music", "cf_weather", "cf_amt_weather")


def run() -> None:
    print(f"{'set':16}{'answers':>9}{'majority':>10}{'ours':>8}{'CPU':>6}{'crowd-kit':>11}{'CPU':>6}")
    for name in SETS:
        measure(name)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def measure(name: str) -> None:
    folder = SHARED_DATA / f"cr_{name}"
    answers, truth = rows(folder / "answers.csv"), {r["task"]: r["label"] for r in rows(folder / "truth.csv")}
    tasks, workers, labels = (sorted({a[c] for a in answers}) for c in ("task", "worker", "label"))
    numbers = [{v: i for i, v in enumerate(values)} for values in (tasks, workers, labels)]
    columns = zip(("task", "worker", "label"), numbers, strict=True)
    claims = Claims(*(np.array([number[a[c]] for a in answers]) for c, number in columns))
    method = Confusion(sources=len(workers), values=len(labels))
    cpu = time.process_time()
    state = learn(method, lambda s: method.sums(claims, s))
    best = claims.best(method.probabilities(claims, state))
    cpu = time.process_time() - cpu
    ours = {tasks[claims.of[b]]: labels[claims.value[b]] for b in best}
    vote = {tasks[claims.of[b]]: labels[claims.value[b]] for b in claims.best(claims.votes)}
    theirs = crowdkit(folder / "answers.csv")

    def right(said: dict[str, str]) -> float:
        return 100 * float(np.mean([said.get(t) == label for t, label in truth.items() if t in numbers[0]]))

    print(
        f"{name:16}{len(answers):9}{right(vote):10.2f}{right(ours):8.2f}{cpu:6.2f}{right(theirs['labels']):11.2f}"
        f"{theirs['cpu']:6.2f}",
        flush=True,
    )


def crowdkit(answers: Path) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        subprocess.run(
            [str(peers_python()), str(PEERS / "fusion" / "with_crowdkit.py"), str(answers), str(out)], check=True
        )
        return json.loads(out.read_text())["dawid_skene"]
