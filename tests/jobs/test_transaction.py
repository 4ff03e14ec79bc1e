"""Commits of files that are there already: what every reader sees of them, and who is refused."""

import datetime as dt
import json
import os
import random
import time
from decimal import Decimal

import duckdb
import polars
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from headgate.jobs.errors import UsageError
from headgate.jobs.keep.retention import vacuum
from headgate.jobs.keep.verify import verify
from headgate.jobs.lake.conflicts import VersionTaken
from headgate.jobs.lake.datafiles import data_files
from headgate.jobs.lake.leftovers import claimed, remove_unnamed
from headgate.jobs.lake.log import moved_files
from headgate.jobs.lake.transaction import Change, commit
from headgate.jobs.progress import Progress
from tests.lakes import Faults, Killed, again, content, die, lake_of, land, ledger, records, rows, write_pipeline

COLUMNS = {
    "i": "long",
    "s": "string",
    "d": "date",
    "t": "timestamp",
    "n": "decimal(20,4)",
    "f": "double",
    "b": "boolean",
}
SCHEMA = json.dumps(
    {
        "type": "struct",
        "fields": [{"name": n, "type": t, "nullable": True, "metadata": {}} for n, t in COLUMNS.items()],
    }
)
UTC = dt.timezone.utc


def some_rows(choose: random.Random, number: int) -> pa.Table:
    """Rows of every type of which files have statistics, and the bits of a gate that no schema names."""
    text = ["", "a", "é" * 40, "\U0010ffff" * 33, "z" * 31 + "\U0010ffff" * 3, "北京", "a" * 32, "a" * 33]
    values = {
        "i": pa.array([choose.choice([None, -5, 2**62, choose.randint(-9, 9)]) for _ in range(number)], pa.int64()),
        "s": pa.array([choose.choice([None, *text]) for _ in range(number)], pa.string()),
        "d": pa.array([choose.choice([None, dt.date(1, 1, 1), dt.date(9999, 12, 31)]) for _ in range(number)]),
        "t": pa.array(
            [
                choose.choice([None, dt.datetime(1969, 12, 31, 23, 59, 59, choose.randint(0, 999_999), UTC)])
                for _ in range(number)
            ],
            pa.timestamp("us", tz="UTC"),
        ),
        "n": pa.array([choose.choice([None, Decimal("-0.0001"), Decimal("7.5")]) for _ in range(number)]),
        "f": pa.array([choose.choice([None, float("nan"), float("-inf"), 0.5]) for _ in range(number)], pa.float64()),
        "b": pa.array([choose.choice([None, True, False]) for _ in range(number)]),
        "_hg_mask": pa.array(range(number), pa.int64()),
    }
    table = pa.table(values)
    return table.set_column(4, "n", table["n"].cast(pa.decimal128(20, 4)))


def written(path, name: str, table: pa.Table) -> list:
    (path / name).mkdir(parents=True)
    pq.write_table(table, path / name / "part-0.parquet", row_group_size=7)
    return data_files(str(path), name)


def test_every_reader_sees_the_rows_and_skips_no_file_wrongly(spark, tmp_path):
    choose = random.Random(5)
    parts = [some_rows(choose, n) for n in (20, 1, 13)]
    for base, part in enumerate(parts, start=-1):
        schema = SCHEMA if base < 0 else None
        assert (
            commit(
                str(tmp_path),
                base,
                Change("WRITE", written(tmp_path, f"p{base + 1}", part), (), ("t", base + 1), {}, schema),
            )
            == base + 1
        )
    whole = pa.concat_tables(parts).drop(["_hg_mask"])
    delta = DeltaTable(str(tmp_path))
    assert delta.protocol().min_reader_version == 1 and delta.schema().to_arrow().names == list(COLUMNS)
    ordered = [(c, "ascending") for c in ("i", "s", "t")]
    assert delta.to_pyarrow_table().select(["i", "s", "t"]).sort_by(ordered) == whole.select(["i", "s", "t"]).sort_by(
        ordered
    )
    frame = spark.read.format("delta").load(str(tmp_path))
    assert frame.columns == list(COLUMNS) and frame.count() == len(whole)
    lazy = polars.scan_delta(str(tmp_path))
    both = duckdb.connect()
    both.register("w", whole)
    both.register("t", delta.to_pyarrow_dataset())
    for where in (
        "i >= 5", "i < -5", "i is null", "s > 'zz'", f"s >= '{'a' * 33}'", "s < 'a'", f"s > '{'é' * 39}'",
        "d >= date '9999-12-31'", "d < date '0002-01-01'", "n < 0", "b",
        "t > timestamp '1969-12-31 23:59:59.9'", "t <= timestamp '1969-12-31 23:59:59.1'",
    ):  # fmt: skip
        expected = both.sql(f"select count(*) from w where {where}").fetchall()[0][0]
        assert both.sql(f"select count(*) from t where {where}").fetchall()[0][0] == expected, where
        assert frame.where(where).count() == expected, where
    DeltaTable(str(tmp_path)).optimize.compact()  # by another writer
    written(tmp_path, "more", parts[1])
    later = data_files(str(tmp_path), "more")
    commit(str(tmp_path), 3, Change("WRITE", later, (), ("t", 3), {}))
    delta, whole = DeltaTable(str(tmp_path)), pa.concat_tables([whole, parts[1].drop(["_hg_mask"])])
    for column, least in (("b", False), ("f", 0.0), ("s", "b"), ("i", 0)):
        kept = pc.field(column) > pa.scalar(least)
        assert delta.to_pyarrow_dataset().count_rows(filter=kept) == ds.dataset(whole).count_rows(filter=kept), column
    assert lazy.filter(polars.col("i") >= 5).collect().height == frame.where("i >= 5").count()


def log(path, version: int) -> list[str]:
    return (path / "_delta_log" / f"{version:020}.json").read_text().splitlines()


def test_files_in_which_old_rows_were_mixed_with_new_ones_are_no_change_of_builds(tmp_path):
    """A build takes from a table a file in which another writer put rows that it held with rows that came since."""
    choose, table = random.Random(4), str(tmp_path)
    for base in (-1, 0, 1):
        files = written(tmp_path, f"p{base}", some_rows(choose, 3))
        commit(table, base, Change("WRITE", files, (), ("t", base + 1), {"build": "b"}, SCHEMA if base < 0 else None))
    DeltaTable(table).optimize.compact()
    (whole,) = DeltaTable(table).get_add_actions()["path"].to_pylist()
    commit(table, 3, Change("WRITE", written(tmp_path, "next", some_rows(choose, 3)), (), ("t", 4), {"build": "b"}))
    lost, gained = moved_files(table, 1, 4) or ({}, {})
    assert not lost and {p.partition("/")[0] for p in gained} == {"p1", "next"}
    commit(
        table, 4, Change("WRITE", written(tmp_path, "last", some_rows(choose, 3)), (whole,), ("t", 5), {"build": "b"})
    )
    assert moved_files(table, 1, 5) is None
    assert moved_files(table, 3, 5)[0].keys() == {whole}  # rows that the table held then, and no others


def test_of_two_writers_from_one_version_the_second_is_refused(tmp_path):
    files = written(tmp_path, "p", some_rows(random.Random(1), 3))
    commit(str(tmp_path), -1, Change("WRITE", files, (), ("t", 0), {}, SCHEMA))
    for _ in range(2):
        with pytest.raises(VersionTaken):
            commit(str(tmp_path), -1, Change("WRITE", files, (), ("t", 0), {}, SCHEMA))
    more = written(tmp_path, "q", some_rows(random.Random(2), 4))
    assert commit(str(tmp_path), 0, Change("WRITE", more, None, ("t", 1), {"a": 1})) == 1
    assert DeltaTable(str(tmp_path)).to_pyarrow_table().num_rows == 4
    assert DeltaTable(str(tmp_path), version=0).to_pyarrow_table().num_rows == 3
    for version in range(2, 12):  # past a checkpoint
        commit(str(tmp_path), version - 1, Change("WRITE", [], (), ("t", version), {}))
    assert list((tmp_path / "_delta_log").glob("*.checkpoint.parquet"))
    assert DeltaTable(str(tmp_path)).to_pyarrow_table().num_rows == 4


def test_features_that_plain_files_would_break_are_refused(tmp_path):
    for name, change in {
        "constraint": lambda t: t.alter.add_constraint({"positive": "i > 0"}),
        "partitions": None,
        "null": None,
    }.items():
        path = tmp_path / name
        schema = pa.schema([pa.field("i", pa.int64(), nullable=name != "null"), ("p", pa.string())])
        write_deltalake(
            path, pa.table({"i": [1], "p": ["a"]}, schema=schema), partition_by=["p"] if name == "partitions" else None
        )
        if change is not None:
            change(DeltaTable(path))
        base = DeltaTable(path).version()
        with pytest.raises(UsageError, match="does not support"):
            commit(str(path), base, Change("WRITE", [], (), ("t", 1), {}))
        assert DeltaTable(path).version() == base


# -- what builds leave


EVOLVING = """
  t:
    source: {format: csv, path: 't/*.csv', schema: 'id INT, v STRING', on_other_columns: evolve, key: [id]}
    suite: null
  fates:
    from: t
    steps:
      - derive: {columns: {Fate: upper(v)}}
      - reject_rows: {where: v = 'gone', reason: gone}
    suite: null
"""


def test_columns_that_come_and_go_keep_the_content_right(spark, tmp_path):
    write_pipeline(tmp_path, EVOLVING)
    for name, text in {
        "1": "id,v\n1,a\n", "2": "id,v,w\n2,b,x\n", "3": "id,v\n3,gone\n", "4": "id,v,w\n4,d,y\n"
    }.items():  # fmt: skip
        land(tmp_path, f"t/{name}.csv", text)
        again(spark, tmp_path)
    assert rows(tmp_path, "id, v, w") == [(1, "a", None), (2, "b", "x"), (3, "gone", None), (4, "d", "y")]
    assert rows(tmp_path, "id, Fate", "fates") == [(1, "A"), (2, "B"), (4, "D")]
    assert not any(v["failed"] for v in verify(spark, lake_of(tmp_path), "latest", Progress(watched=False)))


KEYED = """
  t:
    source: {format: csv, path: 't/*.csv', schema: 'id INT, v STRING', key: [id], on_changed_file: replace}
    suite: null
  m:
    from: t
    steps: [reject_rows: {where: v = 'gone', reason: gone}]
    suite: null
    publish: {mode: merge, key: [id]}
"""


def test_rows_replace_others_in_a_table_without_files(spark, tmp_path):
    write_pipeline(tmp_path, KEYED)
    land(tmp_path, "t/1.csv", "id,v\n1,gone\n")
    again(spark, tmp_path)
    assert rows(tmp_path, "id", "m") == [] and lake_of(tmp_path).published("m").rows == 0
    land(tmp_path, "t/1.csv", "id,v\n1,a\n2,b\n")
    again(spark, tmp_path)
    assert rows(tmp_path, "id, v", "m") == [(1, "a"), (2, "b")]
    land(tmp_path, "t/1.csv", "id,v\n1,c\n")
    again(spark, tmp_path)
    assert rows(tmp_path, "id, v", "m") == [(1, "c"), (2, "b")] and rows(tmp_path, "id, v") == [(1, "c")]


def test_what_dead_runs_staged_is_found_and_removed(spark, tmp_path):
    write_pipeline(tmp_path, KEYED)
    land(tmp_path, "t/1.csv", "id,v\n1,a\n2,gone\n")
    with pytest.raises(Killed):
        again(spark, tmp_path, progress=Faults(before={("t", "balance"): die}))
    lake = lake_of(tmp_path)
    (folder,) = claimed(lake, "t")
    assert list((tmp_path / "lake" / "t" / folder).rglob("*.parquet")) and lake.tables() == []
    vacuum(lake, 0, 1)  # young: a run may be about to commit it
    assert claimed(lake, "t") == {folder}
    long_ago = time.time() - 7200
    for file in (tmp_path / "lake" / "_staging").rglob("*.json"):
        os.utime(file, (long_ago, long_ago))
    vacuum(lake, 0, 1)
    assert not claimed(lake, "t") and not list((tmp_path / "lake" / "t").rglob("*.parquet"))
    again(spark, tmp_path)
    before = content(tmp_path, "t")
    named = next(iter(lake_of(tmp_path).file_sizes("t", 0))).split("/")[0]
    remove_unnamed(lake_of(tmp_path), "t", named)  # nothing that a commit names goes
    assert content(tmp_path, "t") == before and [e["reason"] for e in ledger(tmp_path)] == ["gone"]
    assert records(again(spark, tmp_path))["t"]["status"] == "up to date"
    assert not list((tmp_path / "lake" / "_staging" / "t").iterdir())
