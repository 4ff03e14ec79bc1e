"""Plain Spark, Delta and stock Great Expectations: what a careful engineer writes by hand for the same tables.

`python plain_spark.py flights|rows|tables LANDING LAKE SUITES`. Each table is computed once into the cache, judged
there by the rules that Great Expectations itself has (headgate's own by plain queries), and written.
"""

import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import great_expectations as gx
import yaml
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from headgate.jobs.spark.session import start
from tests.benchmarks.peers import flights_tables as Q

logging.getLogger("great_expectations").setLevel(logging.ERROR)


class Rival:
    def __init__(self, spark: SparkSession, lake: Path, suites: Path):
        self.spark, self.lake, self.suites = spark, lake, suites
        self.context = gx.get_context(mode="ephemeral")
        self.context.variables.progress_bars = {"globally": False}
        source = self.context.data_sources.add_spark("frames", persist=False)
        self.batch = source.add_dataframe_asset("tables").add_batch_definition_whole_dataframe("all")

    def publish(self, name: str, df: DataFrame, suite: str | None = None) -> None:
        df = df.cache()
        self.judge(df, yaml.safe_load((self.suites / f"{suite or name}.yaml").read_text())["expectations"])
        path = str(self.lake / name)
        df.write.format("delta").mode("overwrite").save(path)
        df.unpersist()
        self.spark.read.format("delta").load(path).createOrReplaceTempView(name)

    def judge(self, df: DataFrame, rules: Iterable[dict[str, Any]]) -> None:
        stock, failed = gx.ExpectationSuite(name="stock"), []
        for rule in rules:
            kwargs = rule["kwargs"]
            if rule["type"] == "expect_rows_to_satisfy_sql":
                bad = df.where(f"not ({kwargs['predicate']})").count()
                if bad > (1 - kwargs.get("mostly", 1)) * df.count():
                    failed.append(rule)
            elif rule["type"] == "expect_foreign_key_to_exist":
                on = [
                    F.col(f"c.{c}") == F.col(f"p.{p}")
                    for c, p in zip(kwargs["columns"], kwargs["parent_columns"], strict=True)
                ]
                parent = self.spark.table(kwargs["parent_table"]).alias("p")
                if df.alias("c").join(parent, on, "left_anti").where(F.col(kwargs["columns"][0]).isNotNull()).count():
                    failed.append(rule)
            elif rule["type"] == "expect_newest_timestamp_to_be_at_least":
                if df.agg(F.max(F.col(kwargs["column"]).cast("timestamp"))).first()[0] is None:
                    failed.append(rule)
            elif rule["type"] != "expect_row_count_to_stay_near_previous" and kwargs.get("column") != "_row_id":
                stock.add_expectation_configuration(
                    gx.expectations.expectation_configuration.ExpectationConfiguration(type=rule["type"], kwargs=kwargs)
                )
        result = self.batch.get_batch({"dataframe": df}).validate(stock, result_format="BOOLEAN_ONLY")
        for rule in [*failed, *(r.expectation_config for r in result.results if not r.success)]:
            print(f"failed: {rule}", file=sys.stderr)


def flights(rival: Rival, landing: Path) -> None:
    spark = rival.spark
    for source in Q.SOURCES:
        folder = source.removeprefix("raw_")
        read = spark.read.option("header", True).option("nullValue", "NA").csv(f"{landing}/{folder}")
        rival.publish(source, read.withColumn("_file", F.input_file_name()))
    for name in ("airlines", "airports", "planes", "weather", "flights", "flights_fused"):
        rival.publish(name, spark.sql(Q.CLEANED[name]))
    spark.sql(Q.LABELLED).cache().createOrReplaceTempView("labelled")
    for name, query in (("by_carrier", Q.BY_CARRIER), ("by_month", Q.BY_MONTH)):
        rows = spark.sql(query)
        spark.createDataFrame(rows.collect(), rows.schema).createOrReplaceTempView(name)
    sizes = {(r.carrier, r.month): r.n for r in spark.sql(Q.STRATA).collect()}
    wanted = [(*stratum, sizes[stratum], n) for stratum, n in Q.targets(sizes).items()]
    spark.createDataFrame(wanted, "carrier string, month int, n int, wanted int").createOrReplaceTempView("targets")
    spark.sql(Q.FILLED).createOrReplaceTempView("filled")
    spark.sql(Q.SAMPLED).cache().createOrReplaceTempView("sampled")
    classes = {r.late: r.n for r in spark.sql(Q.CLASSES).collect()}
    weights = [(late, sum(classes.values()) / (len(classes) * n)) for late, n in classes.items()]
    spark.createDataFrame(weights, "late boolean, weight double").createOrReplaceTempView("weights")
    rival.publish("flights_training", spark.sql(Q.TRAINING))


def rows(rival: Rival, landing: Path) -> None:
    """One wide table: trimmed, bounded, rid of repeats, judged by twenty rules."""
    rival.publish("raw", rival.spark.read.parquet(str(landing)))
    read = rival.spark.table("raw")
    texts = [F.trim(F.regexp_replace(c, r"\s+", " ")).alias(c) for c, t in read.dtypes if t == "string"]
    others = [F.col(c) for c, t in read.dtypes if t != "string"]
    df = read.select(*others, *texts).where("x1 between 0 and 1000000")
    rival.publish("clean", df.dropDuplicates(["id"]))


def tables(rival: Rival, landing: Path) -> None:
    """Many small tables."""
    for file in sorted(landing.glob("*.csv")):
        df = rival.spark.read.option("header", True).csv(str(file))
        rival.publish(
            file.stem, df.selectExpr("cast(id as int) as id", "trim(name) as name", "cast(x as double) as x"), "small"
        )


if __name__ == "__main__":
    work, landing, lake, suites = sys.argv[1], *map(Path, sys.argv[2:5])
    session = start({"spark.master": "local[*]"})
    {"flights": flights, "rows": rows, "tables": tables}[work](Rival(session, lake, suites), landing)
    session.stop()
