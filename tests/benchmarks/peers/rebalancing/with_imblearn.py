"""SMOTE with imbalanced-learn: rows, rows of the small class, CPU seconds."""

import sys
import time
from importlib.metadata import version

import numpy as np
from imblearn.over_sampling import SMOTE


def main(large, small):
    random = np.random.default_rng(0)
    matrix = random.uniform(-1, 1, size=(large + small, 10))
    labels = np.repeat([0, 1], [large, small])
    start = time.process_time()
    _, made = SMOTE(random_state=0).fit_resample(matrix, labels)
    print(len(made), int((made == 1).sum()), time.process_time() - start, version("imbalanced-learn"))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
