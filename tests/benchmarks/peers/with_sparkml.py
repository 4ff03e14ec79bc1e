"""Near-duplicate removal with Spark ML: MinHashLSH and its approximate similarity self-join."""

import json
import sys
import tempfile
from importlib.metadata import version

from pyspark.ml import Pipeline
from pyspark.ml.feature import HashingTF, MinHashLSH, NGram, RegexTokenizer
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

TABLES = 20


def main(corpus, out):
    with tempfile.TemporaryDirectory() as tmp:
        spark = (
            SparkSession.builder.master("local[2]")
            .config("spark.driver.memory", "4g")
            .config("spark.local.dir", tmp)
            .config("spark.ui.enabled", "false")
            .config("spark.sql.shuffle.partitions", "16")
            .getOrCreate()
        )
        spark.sparkContext.setLogLevel("ERROR")
        docs = spark.read.parquet(corpus).select("id", "text").repartition(16)
        lengths = dict(docs.select("id", F.length("text")).collect())
        prepare = Pipeline(
            stages=[
                RegexTokenizer(inputCol="text", outputCol="words", pattern=r"(?U)\w+", gaps=False, toLowercase=True),
                NGram(n=5, inputCol="words", outputCol="ngrams"),
                HashingTF(inputCol="ngrams", outputCol="features", numFeatures=1 << 20, binary=True),
            ]
        )
        features = (
            prepare.fit(docs)
            .transform(docs)
            .where(F.size("ngrams") > 0)  # MinHashLSH refuses empty vectors
            .select("id", "features")
            .cache()
        )
        lsh = MinHashLSH(inputCol="features", outputCol="hashes", numHashTables=TABLES, seed=42).fit(features)
        pairs = (
            lsh.approxSimilarityJoin(features, features, 0.2, distCol="distance")
            .select(F.col("datasetA.id").alias("a"), F.col("datasetB.id").alias("b"))
            .where("a < b")
            .collect()
        )
        spark.stop()
    similar = {}
    for a, b in pairs:
        similar.setdefault(a, []).append(b)
        similar.setdefault(b, []).append(a)
    removed = set()
    for i in sorted(similar, key=lambda d: (-lengths[d], d)):
        if i not in removed:
            removed.update(similar[i])
    note = (
        f"word 5-grams (\\w+, lower-cased) hashed to 2^20 binary features, {TABLES} tables of one MinHash each, exact "
        "Jaccard > 0.8 of the hashed features; longest-first greedy in the driver; local[2], 4 GB"
    )
    with open(out, "w") as f:
        json.dump({"tool": "sparkml", "version": version("pyspark"), "removed": sorted(removed), "note": note}, f)


if __name__ == "__main__":
    main(*sys.argv[1:3])
