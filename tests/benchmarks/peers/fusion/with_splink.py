"""Link records of persons (a CSV with FEBRL's columns, `key` and `source`) by Splink 4 on DuckDB, set by hand for them.

Writes JSON: the pairs of keys with a probability of one half and more, and the seconds that it took.
"""

import json
import sys
import time

import pandas as pd
import splink.comparison_library as cl
from splink import DuckDBAPI, Linker, SettingsCreator, block_on

RULES = [
    block_on("soc_sec_id"),
    block_on("date_of_birth"),
    block_on("given_name", "surname"),
    block_on("surname", "postcode"),
    block_on("given_name", "address_1"),
    block_on("address_1", "street_number"),
    block_on("suburb", "surname"),
]
COMPARISONS = [
    cl.JaroWinklerAtThresholds("given_name", [0.9, 0.8]).configure(term_frequency_adjustments=True),
    cl.JaroWinklerAtThresholds("surname", [0.9, 0.8]).configure(term_frequency_adjustments=True),
    cl.LevenshteinAtThresholds("date_of_birth", [1, 2]),
    cl.LevenshteinAtThresholds("soc_sec_id", [1, 2]),
    cl.ExactMatch("street_number"),
    cl.JaroWinklerAtThresholds("address_1", [0.9]).configure(term_frequency_adjustments=True),
    cl.JaroWinklerAtThresholds("suburb", [0.9]).configure(term_frequency_adjustments=True),
    cl.LevenshteinAtThresholds("postcode", [1]),
]


def main(source: str, out: str) -> None:
    started, cpu = time.monotonic(), time.process_time()
    rows = pd.read_csv(source, dtype=str)
    frames = [part.reset_index(drop=True) for _, part in rows.groupby("source")] if "source" in rows else [rows]
    settings = SettingsCreator(
        link_type="link_only" if len(frames) > 1 else "dedupe_only",
        unique_id_column_name="key",
        comparisons=COMPARISONS,
        blocking_rules_to_generate_predictions=RULES,
    )
    linker = Linker(frames if len(frames) > 1 else frames[0], settings, DuckDBAPI())
    exact = [block_on("soc_sec_id"), block_on("given_name", "surname", "date_of_birth")]
    linker.training.estimate_probability_two_random_records_match(exact, recall=0.8)
    linker.training.estimate_u_using_random_sampling(max_pairs=1e6)
    linker.training.estimate_parameters_using_expectation_maximisation(block_on("date_of_birth"))
    linker.training.estimate_parameters_using_expectation_maximisation(block_on("surname", "postcode"))
    found = linker.inference.predict(threshold_match_probability=0.01).as_pandas_dataframe()
    sure = found[found["match_probability"] >= 0.5]
    told = {
        "pairs": [*zip(sure["key_l"].tolist(), sure["key_r"].tolist(), strict=True)],
        "expected": float(found["match_probability"].sum()),
        "wall": time.monotonic() - started,
        "cpu": time.process_time() - cpu,
    }
    with open(out, "w") as file:
        json.dump(told, file)


if __name__ == "__main__":
    main(*sys.argv[1:3])
