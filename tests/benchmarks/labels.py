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
from tests.benchmarks.dedup import PEERS
from tests.benchmarks.splink import peers_python
from tests.conftest import SHARED_DATA

Answers = list[tuple[str, str, str]]  # task, worker, label
SETS = ("bluebird", "rte", "product", "face", "music", "cf_weather", "cf_amt_weather", "labelme", "gal_barzanmozafari")


def run() -> None:
    print(f"{'set':20}{'answers':>9}{'majority':>10}{'ours':>8}{'CPU':>6}{'crowd-kit':>11}{'CPU':>6}")
    for name in SETS:
        measure(name)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def read(folder: Path) -> tuple[Answers, dict[str, str]]:
    """Return the answers of a set and its true labels by task."""
    if (folder / "LabelMe_Z_train.txt").exists():  # a line a task, a column a worker
        lines = [line.split() for line in (folder / "answers.txt").read_text().splitlines()]
        told = [(str(i), str(j), v) for i, line in enumerate(lines) for j, v in enumerate(line) if v != "-1"]
        return told, {str(i): v for i, v in enumerate((folder / "LabelMe_Z_train.txt").read_text().split())}
    if (folder / "labels.txt").exists():
        cells = [line.split() for line in (folder / "labels.txt").read_text().splitlines()]
        truth = [line.split() for line in (folder / "evaluation.txt").read_text().splitlines()]
        return [(task, worker, label) for worker, task, label in cells], {task: label for task, label in truth}
    answers = [(r["task"], r["worker"], r["label"]) for r in rows(folder / "answers.csv")]
    return answers, {r["task"]: r["label"] for r in rows(folder / "truth.csv")}


def measure(name: str) -> None:
    answers, truth = read(SHARED_DATA / f"cr_{name}")
    tasks, workers, labels = (sorted(set(column)) for column in zip(*answers, strict=True))
    numbers = [{v: i for i, v in enumerate(values)} for values in (tasks, workers, labels)]
    claims = Claims(*(np.array([number[a[i]] for a in answers]) for i, number in enumerate(numbers)))
    method = Confusion(sources=len(workers), values=len(labels))
    cpu = time.process_time()
    state = learn(method, lambda s: method.sums(claims, s))
    best = claims.best(method.probabilities(claims, state))
    cpu = time.process_time() - cpu
    ours = {tasks[claims.of[b]]: labels[claims.value[b]] for b in best}
    vote = {tasks[claims.of[b]]: labels[claims.value[b]] for b in claims.best(claims.votes)}
    theirs = crowdkit(answers)

    def right(said: dict[str, str]) -> float:
        return 100 * float(np.mean([said.get(t) == label for t, label in truth.items() if t in numbers[0]]))

    print(
        f"{name:20}{len(answers):9}{right(vote):10.2f}{right(ours):8.2f}{cpu:6.2f}{right(theirs['labels']):11.2f}"
        f"{theirs['cpu']:6.2f}",
        flush=True,
    )


def crowdkit(answers: Answers) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        given, out = Path(folder) / "answers.csv", Path(folder) / "out.json"
        with given.open("w", newline="") as file:
            csv.writer(file).writerows([("task", "worker", "label"), *answers])
        script = str(PEERS / "fusion" / "with_crowdkit.py")
        subprocess.run([str(peers_python()), script, str(given), str(out)], check=True)
        return json.loads(out.read_text())["dawid_skene"]
