"""Link records of persons (a CSV with FEBRL's columns, `key` and `source`) by Splink 4, set by hand for them.

On DuckDB or on Spark, with so many cores. Writes JSON: the pairs of keys with a probability of one half and more, and
how many are expected.
"""

import json
import os
import sys
import tempfile
from typing import Any

import pandas as pd
import splink.comparison_library as cl
from splink import DuckDBAPI, Linker, SettingsCreator, SparkAPI, block_on

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


def on_duckdb(source: str, cores: int) -> tuple[Any, list[Any]]:
    import duckdb

    rows = pd.read_csv(source, dtype=str)
    frames = [part.reset_index(drop=True) for _, part in rows.groupby("source")] if "source" in rows else [rows]
    return DuckDBAPI(duckdb.connect(config={"threads": cores})), frames


def on_spark(source: str, cores: int) -> tuple[Any, list[Any]]:
    from pyspark.sql import SparkSession
    from splink.backends.spark import similarity_jar_location

    settings = {
        "spark.driver.memory": "4g",
        "spark.jars": similarity_jar_location(),
        "spark.sql.shuffle.partitions": str(2 * cores),
        "spark.default.parallelism": str(2 * cores),
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
    }
    builder = SparkSession.builder.master(f"local[{cores}]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    spark.sparkContext.setCheckpointDir(tempfile.mkdtemp(dir=os.getcwd()))
    rows = spark.read.csv(source, header=True)
    names = sorted(r[0] for r in rows.select("source").distinct().collect()) if "source" in rows.columns else []
    return SparkAPI(spark_session=spark), [rows.where(rows["source"] == n) for n in names] or [rows]


def main(source: str, out: str, backend: str, cores: int) -> None:
    api, frames = on_spark(source, cores) if backend == "spark" else on_duckdb(source, cores)
    settings = SettingsCreator(
        link_type="link_only" if len(frames) > 1 else "dedupe_only",
        unique_id_column_name="key",
        comparisons=COMPARISONS,
        blocking_rules_to_generate_predictions=RULES,
    )
    linker = Linker(frames if len(frames) > 1 else frames[0], settings, api)
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
    }
    with open(out, "w") as file:
        json.dump(told, file)


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]))
