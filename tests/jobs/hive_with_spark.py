"""A Hive metastore in Derby and Spark's Thrift server; `test_catalogues` starts them in a process of their own.

Spark takes one catalogue a process, and the session of the other tests has none of Hive's.
"""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from headgate.jobs.errors import UsageError
from headgate.jobs.keep.catalogues.entries import entries, register
from headgate.jobs.keep.catalogues.glue import table_input
from headgate.jobs.keep.catalogues.hive import HiveCatalogue, literal, ticked
from headgate.jobs.lake.lake import Lake
from headgate.jobs.spark.session import start
from tests.conftest import TEST_SETTINGS


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("hive")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "spark.sql.catalogImplementation": "hive",
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.hadoop.javax.jdo.option.ConnectionURL": f"jdbc:derby:;databaseName={folder}/metastore;create=true",
        "spark.hadoop.hive.server2.thrift.bind.host": "127.0.0.1",
        "spark.hadoop.hive.server2.thrift.port": str(port),
    }
    session = start(TEST_SETTINGS | settings)
    yield session
    session.stop()


def rows(*ids: int) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64()), "text": [f"it's {i}" for i in ids]})


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(str(tmp_path / "the lake's"))
    write_deltalake(lake.path("t"), rows(1), description="What's there")
    lake.publish_release("shop", "r", {"t": 0}, None, None, None)
    write_deltalake(lake.path("t"), rows(2), mode="append")
    lake.publish_release("shop", "r", {"t": 1}, None, 1, None)
    return lake


def what(told: list[dict[str, Any]]) -> dict[str, str]:
    return {r["entry"]: r["what"] for r in told}


def ids(spark: Any, query: str) -> list[int]:
    return sorted(r[0] for r in spark.sql(query).collect())


def test_tables_and_a_view_for_each_release(spark: Any, lake: Lake) -> None:
    catalogue = HiveCatalogue(spark, "shop", lake.root)
    created = {"t": "created", "t__shop_1": "created", "t__shop_2": "created"}
    assert what(register(lake, catalogue, dry_run=True)) == created and catalogue.known() == {}
    assert what(register(lake, catalogue)) == created
    assert set(what(register(lake, catalogue)).values()) == {"same"}
    assert ids(spark, "SELECT id FROM shop.t") == [1, 2]
    assert ids(spark, "SELECT id FROM shop.t__shop_1") == [1]
    write_deltalake(lake.path("t"), rows(3), mode="append")
    lake.publish_release("shop", "r", {"t": 2}, None, 2, None)
    assert what(register(lake, catalogue))["t__shop_3"] == "created"
    assert ids(spark, "SELECT id FROM shop.t") == [1, 2, 3] and ids(spark, "SELECT id FROM shop.t__shop_2") == [1, 2]
    other = Lake(f"{lake.root} other")
    write_deltalake(other.path("t"), rows(9))
    with pytest.raises(UsageError, match="has a table 't' already"):
        register(other, HiveCatalogue(spark, "shop", other.root))
    lake.open("releases").delete("number = 1")  # type: ignore[union-attr]
    assert what(register(lake, catalogue))["t__shop_1"] == "gone from the lake (--prune)"
    assert what(register(lake, catalogue, prune=True))["t__shop_1"] == "removed"
    assert sorted(catalogue.known()) == ["t", "t__shop_2", "t__shop_3"]
    for file in Path(lake.path("t"), "_delta_log").iterdir():
        file.unlink()
    lake.open("releases").delete("true")  # type: ignore[union-attr]
    assert set(what(register(lake, catalogue, prune=True)).values()) == {"removed"} and catalogue.known() == {}
    assert list(Path(lake.path("t")).glob("*.parquet")), "data stays"


def test_the_thrift_server_answers_by_jdbc(spark: Any, lake: Lake) -> None:
    register(lake, HiveCatalogue(spark, "served", lake.root))
    jvm = spark.sparkContext._jvm
    server = jvm.org.apache.spark.sql.hive.thriftserver.HiveThriftServer2.startWithSparkSession(
        spark._jsparkSession, False
    )
    port = spark.conf.get("spark.hadoop.hive.server2.thrift.port")
    connection = jvm.org.apache.hive.jdbc.HiveDriver().connect(
        f"jdbc:hive2://127.0.0.1:{port}/served", jvm.java.util.Properties()
    )
    answer = connection.createStatement().executeQuery("SELECT count(*), max(id) FROM t__shop_1")
    assert answer.next() and (answer.getLong(1), answer.getLong(2)) == (1, 1)
    connection.close()
    server.stop()


def test_spark_reads_a_table_as_it_is_entered_in_glue(spark: Any, lake: Lake) -> None:
    """Glue is a Hive metastore by another name: the same fields, written by Hive, are a table for Spark."""
    (entry,) = entries(lake, views=False)
    table = table_input(entry)
    stored = table["StorageDescriptor"]
    columns = ", ".join(f"{ticked(c['Name'])} {c['Type']}" for c in stored["Columns"])
    serde, place = stored["SerdeInfo"], literal(stored["Location"])
    spark.sql("CREATE DATABASE glued")
    hive = spark._jsparkSession.sharedState().externalCatalog().unwrapped().client()
    system = spark.sparkContext._jvm.java.lang.System
    system.setProperty("spark.testing", "true")  # Spark hands a statement to Hive in tests alone
    hive.runSqlHive(
        f"CREATE EXTERNAL TABLE glued.t ({columns}) ROW FORMAT SERDE {literal(serde['SerializationLibrary'])} "
        f"WITH SERDEPROPERTIES ({pairs(serde['Parameters'])}) STORED AS INPUTFORMAT {literal(stored['InputFormat'])} "
        f"OUTPUTFORMAT {literal(stored['OutputFormat'])} LOCATION {place} TBLPROPERTIES ({pairs(table['Parameters'])})"
    )
    system.clearProperty("spark.testing")
    assert ids(spark, "SELECT id FROM glued.t") == [1, 2]
    assert ids(spark, "SELECT id FROM glued.t VERSION AS OF 0") == [1]


def pairs(properties: dict[str, str]) -> str:
    return ", ".join(f"{literal(k)} = {literal(v)}" for k, v in properties.items())
