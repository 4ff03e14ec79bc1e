"""The same tables by DuckDB, without a gate, written as Delta by deltalake: the floor that one machine allows.

`python with_duckdb.py LANDING LAKE`.
"""

import sys
from pathlib import Path

import duckdb
import sqlglot
from deltalake import write_deltalake

from tests.benchmarks.peers import flights_tables as Q


def main(landing: Path, lake: Path) -> None:
    db = duckdb.connect()
    db.execute("SET TimeZone = 'UTC'")

    def table(name: str, query: str) -> None:
        db.execute(f"CREATE TABLE {name} AS {query}")

    def publish(name: str) -> None:
        write_deltalake(str(lake / name), db.sql(f"FROM {name}").arrow(), mode="overwrite")

    def spark(query: str) -> str:
        return sqlglot.transpile(query, read="spark", write="duckdb")[0]

    for source in Q.SOURCES:
        files = f"'{landing}/{source.removeprefix('raw_')}/*.csv'"
        read = f"read_csv({files}, all_varchar=true, nullstr='NA', filename=true)"
        table(source, f"SELECT * RENAME (filename AS _file) FROM {read}")
        publish(source)
    for name in ("airlines", "airports", "planes", "weather", "flights", "flights_fused"):
        table(name, spark(Q.CLEANED[name]))
        publish(name)
    for name, query in (("labelled", Q.LABELLED), ("by_carrier", Q.BY_CARRIER), ("by_month", Q.BY_MONTH)):
        table(name, spark(query))
    sizes = {(carrier, month): n for carrier, month, n in db.execute(spark(Q.STRATA)).fetchall()}
    db.execute("CREATE TABLE targets (carrier VARCHAR, month INT, n INT, wanted INT)")
    db.executemany("INSERT INTO targets VALUES (?, ?, ?, ?)", [(*s, sizes[s], n) for s, n in Q.targets(sizes).items()])
    table("filled", spark(Q.FILLED))
    table("sampled", spark(Q.SAMPLED))
    classes = dict(db.execute(spark(Q.CLASSES)).fetchall())
    db.execute("CREATE TABLE weights (late BOOLEAN, weight DOUBLE)")
    total = sum(classes.values()) / len(classes)
    db.executemany("INSERT INTO weights VALUES (?, ?)", [(late, total / n) for late, n in classes.items()])
    table("flights_training", spark(Q.TRAINING))
    publish("flights_training")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
