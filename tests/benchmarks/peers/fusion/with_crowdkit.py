"""Aggregate answers (a CSV of task, worker, label) by crowd-kit: majority vote and Dawid-Skene; writes JSON by task."""

import json
import sys
import time

import pandas as pd
from crowdkit.aggregation import DawidSkene, MajorityVote


def main(source: str, out: str) -> None:
    answers = pd.read_csv(source, dtype=str)[["task", "worker", "label"]]
    told = {}
    for name, method in (("majority", MajorityVote()), ("dawid_skene", DawidSkene(n_iter=100))):
        cpu = time.process_time()
        labels = method.fit_predict(answers)
        told[name] = {"labels": labels.to_dict(), "cpu": time.process_time() - cpu}
    with open(out, "w") as file:
        json.dump(told, file)


if __name__ == "__main__":
    main(*sys.argv[1:3])
