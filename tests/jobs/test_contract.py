"""What a pipeline may ask for: tables with a source and steps, several starts, another grain, steps of one's own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headgate.jobs.config.columns import seen_in
from headgate.jobs.config.models import Environment
from headgate.jobs.config.pipeline import load_pipeline
from headgate.jobs.errors import GateBlocked, UsageError
from headgate.jobs.keep.erasure.certificate import erase
from headgate.jobs.keep.erasure.reach import reach
from headgate.jobs.keep.verify import verify
from headgate.jobs.lake.lake import Lake
from headgate.jobs.pipeline.run import dry_run
from headgate.jobs.pipeline.work import described
from headgate.jobs.progress import Progress
from headgate.transforms.balancing.split import SplitByHash
from tests.conftest import ROOT, run_pipeline

SUITE = """
name: {name}
expectations:
  - {{type: expect_table_row_count_to_be_between, kwargs: {{min_value: 1}}, meta: {{dimension: completeness}}}}
  - {{type: expect_column_to_exist, kwargs: {{column: {column}}}, meta: {{dimension: consistency}}}}
"""
UNIQUE = "  - {{type: expect_column_values_to_be_unique, kwargs: {{column: {0}}}, meta: {{dimension: uniqueness}}}}\n"


def suite(folder, name, column, *more):
    (folder / f"{name}.yaml").write_text(SUITE.format(name=name, column=column) + "".join(more))


def pipeline(folder, text):
    (folder / "landing").mkdir(exist_ok=True)
    file = folder / "p.yaml"
    file.write_text("pipeline: p\nsuites: .\n" + text)
    return file


def land(folder, name, *lines):
    (folder / "landing" / name).write_text("\n".join(lines) + "\n")


def rows(folder, table, *columns):
    found = Lake(str(folder / "lake")).open(table).to_pyarrow_table().to_pylist()
    return sorted((tuple(r[c] for c in columns) for r in found), key=repr)


def statuses(outcome):
    return {t.table: t.status for t in outcome.tables}


ORDERS = """
tables:
  orders:
    source: {format: csv, path: "o_{date}.csv", schema: "id STRING, item STRING, n STRING"}
    steps:
      - cast: {columns: {id: int, n: int}}
      - drop_duplicates: {columns: [id], keep: _file}
      - split_by_hash: {key: [id]}
      - impute_median: {columns: [n]}
    suite: orders
"""


def test_a_table_with_a_source_and_steps_is_two_tables_made_right(spark, tmp_path):
    suite(tmp_path, "orders", "id", UNIQUE.format("id"))
    file = pipeline(tmp_path, ORDERS)
    land(tmp_path, "o_2024-01-01.csv", "id,item,n", "1,a,5", "2,b,", "x,c,7")
    first = run_pipeline(spark, tmp_path, file)
    assert statuses(first) == {"orders_raw": "built", "orders": "built"}
    land(tmp_path, "o_2024-01-02.csv", "id,item,n", "1,again,9", "3,d,8")
    run_pipeline(spark, tmp_path, file)
    # The row that came again on another day is a duplicate, and what is learned is learned from all days.
    assert [r[:2] for r in rows(tmp_path, "orders", "id", "item", "split", "n")] == [(1, "a"), (2, "b"), (3, "d")]
    assert len(rows(tmp_path, "orders_raw", "id")) == 5
    lake = Lake(str(tmp_path / "lake"))
    assert {t["table_name"] for t in lake.latest_release()["tables"]} == {"orders", "orders_raw"}
    reasons = {(e["table_name"], e["step"]) for e in lake.open("ledger").to_pyarrow_table().to_pylist()}
    assert reasons == {("orders", "orders/0-cast"), ("orders", "orders/1-drop_duplicates")}
    # A changed step makes the rows of every day anew.
    pipeline(tmp_path, ORDERS.replace("keep: _file}", "keep: _file desc}"))
    assert statuses(run_pipeline(spark, tmp_path, file)) == {"orders_raw": "up to date", "orders": "built"}
    assert (1, "again") in rows(tmp_path, "orders", "id", "item")
    # A changed schema is another source: what landed before stays as it was taken up, and is read as before.
    assert load_pipeline(file).tables["orders_raw"].description == "What landed for orders."
    assert lake.open("orders_raw").metadata().description == "What landed for orders."


def test_a_raw_name_that_is_taken_is_refused(tmp_path):
    suite(tmp_path, "orders", "id")
    taken = "  orders_raw: {source: {format: csv, path: x.csv, schema: 'a INT'}, suite: null}\n"
    with pytest.raises(UsageError, match="'orders_raw' stands for what lands for table 'orders'"):
        load_pipeline(pipeline(tmp_path, ORDERS + taken))


TWO = """
tables:
  raw:
    source: {format: csv, path: "r_{date}.csv", key: [id], schema: "id INT, kind STRING, n INT"}
    suite: null
  clean:
    from: raw
    steps:
      - reject_rows: {where: n < 0, reason: negative}
    suite: clean
  after:
    from: clean
    steps:
      - derive: {columns: {twice: n * 2}}
    suite: after
"""


def test_a_changed_suite_judges_again_and_equal_rows_are_not_published_again(spark, tmp_path):
    for name in ("clean", "after"):
        suite(tmp_path, name, "id")
    file = pipeline(tmp_path, TWO)
    land(tmp_path, "r_2024-01-01.csv", "id,kind,n", "1,a,5", "2,b,6")
    run_pipeline(spark, tmp_path, file)
    lake = Lake(str(tmp_path / "lake"))
    environment = Environment(lake=lake.root, landing=str(tmp_path / "landing"))
    # Another suite: judged again, nothing built; and once is enough.
    suite(tmp_path, "clean", "id", UNIQUE.format("id"))
    told = {t["table"]: t["why"] for t in dry_run(load_pipeline(file), environment, lake, (), None, False)}
    assert "judged again" in told["clean"] and told["after"] == "up to date"
    again = run_pipeline(spark, tmp_path, file)
    assert statuses(again) == {"raw": "up to date", "clean": "judged", "after": "up to date"} and again.built == 0
    assert again.release == "p-1"
    assert set(statuses(run_pipeline(spark, tmp_path, file)).values()) == {"up to date"}
    # A suite that the rows do not pass blocks, and what is published stays.
    suite(
        tmp_path,
        "clean",
        "id",
        UNIQUE.format("kind"),
        "  - {type: expect_column_values_to_be_between, kwargs: "
        "{column: n, max_value: 5}, meta: {dimension: validity}}\n",
    )
    with pytest.raises(GateBlocked, match="version 0 stays"):
        run_pipeline(spark, tmp_path, file)
    suite(tmp_path, "clean", "id", UNIQUE.format("id"))
    # A new row that is rejected changes nothing that readers see: no version, nothing downstream; it is in the ledger.
    land(tmp_path, "r_2024-01-02.csv", "id,kind,n", "3,c,-1")
    told = {t["table"]: t["why"] for t in dry_run(load_pipeline(file), environment, lake, (), None, False)}
    assert "may give other rows" in told["after"]
    cut = run_pipeline(spark, tmp_path, file)
    assert statuses(cut) == {"raw": "built", "clean": "same rows", "after": "up to date"}
    assert lake.published("clean").version == 0 and lake.open("ledger").to_pyarrow_table().num_rows == 1
    assert set(statuses(run_pipeline(spark, tmp_path, file)).values()) == {"up to date"}
    checked = verify(spark, lake, "latest", Progress(watched=False), load_pipeline(file), environment)
    assert not any(t["failed"] for t in checked)
    # A rebuild puts back what was lost.
    (data,) = (tmp_path / "lake" / "after").rglob("*.parquet")
    data.unlink()
    assert statuses(run_pipeline(spark, tmp_path, file, force=True))["after"] == "built"
    assert rows(tmp_path, "after", "id", "twice") == [(1, 10), (2, 12)]
    # Another type of a column is told before anything is read.
    with pytest.raises(UsageError, match="column 'n' is int since its first file, and its source's schema says string"):
        run_pipeline(None, tmp_path, pipeline(tmp_path, TWO.replace("n INT", "n STRING")))
    # So is another key, by which new rows would be known otherwise than those that are there.
    for wrong, now in (("key: [id, kind]", "id, kind"), ("key: []", "their content")):
        with pytest.raises(UsageError, match=f"table 'raw': its rows are known by id since .* key now says {now}"):
            run_pipeline(None, tmp_path, pipeline(tmp_path, TWO.replace("key: [id]", wrong)))
    # Options at their defaults, and a description, are nothing new.
    pipeline(
        tmp_path, TWO.replace("reason: negative}", "reason: negative, show: []}").replace("from: raw", "from: [raw]")
    )
    assert set(statuses(run_pipeline(spark, tmp_path, file)).values()) == {"up to date"}


def test_an_increment_is_judged_with_the_rows_that_it_joins(spark, tmp_path):
    suite(tmp_path, "clean", "id", UNIQUE.format("kind"))
    suite(tmp_path, "after", "id")
    file = pipeline(tmp_path, TWO.replace("    suite: clean\n", "    suite: clean\n    publish: {mode: increment}\n"))
    land(tmp_path, "r_2024-01-01.csv", "id,kind,n", "1,a,5")
    run_pipeline(spark, tmp_path, file)
    land(tmp_path, "r_2024-01-02.csv", "id,kind,n", "2,a,6")
    with pytest.raises(GateBlocked, match="expect_column_values_to_be_unique"):
        run_pipeline(spark, tmp_path, file)
    assert rows(tmp_path, "clean", "id") == [(1,)]
    suite(tmp_path, "clean", "id")  # the suite was wrong: what is staged is taken up, and judged by the new one
    assert statuses(run_pipeline(spark, tmp_path, file))["clean"] == "built"
    assert rows(tmp_path, "clean", "id") == [(1,), (2,)]


UNION = """
tables:
  shops: {source: {format: csv, path: shops.csv, key: [id], schema: "id INT, town STRING"}, suite: null}
  web: {source: {format: csv, path: web.csv, key: [id], schema: "id INT, url STRING"}, suite: null}
  sales: {source: {format: csv, path: sales.csv, schema: "shop INT, n INT, price DECIMAL(8,2)"}, suite: null}
  places:
    from: [shops, web]
    steps:
      - derive: {columns: {is_web: "_source = 'web'"}}
    suite: null
  totals:
    from: sales
    grain: new
    steps:
      - reject_rows: {where: n < 0, reason: negative}
      - aggregate:
          by: [shop]
          columns: {sales: {how: count}, n: {how: sum, of: n}, price: {how: max, of: price}, mean: {how: mean, of: n}}
    suite: totals
  rated:
    from: places
    steps:
      - join_table: {table: totals, on: {id: shop}, columns: {sold: n}, matched: has_sales}
    suite: null
  best:
    from: totals
    steps:
      - derive: {columns: {good: n > 4}}
    suite: null
"""


@pytest.mark.slow
def test_a_table_starts_from_several_and_another_has_rows_of_another_grain(spark, tmp_path):
    suite(tmp_path, "totals", "shop", UNIQUE.format("shop"))
    file = pipeline(tmp_path, UNION)
    land(tmp_path, "shops.csv", "id,town", "1,Ulm", "2,Bonn")
    land(tmp_path, "web.csv", "id,url", "7,example.org")
    land(tmp_path, "sales.csv", "shop,n,price", "1,2,1.50", "1,3,2.50", "2,4,9.00", "2,-1,0.00")
    outcome = run_pipeline(spark, tmp_path, file)
    assert rows(tmp_path, "places", "id", "town", "url", "is_web", "_source") == [
        (1, "Ulm", None, False, "shops"),
        (2, "Bonn", None, False, "shops"),
        (7, None, "example.org", True, "web"),
    ]
    told = {t.table: t.asdict() for t in outcome.tables}
    assert told["places"]["rows_in"] == 3 and told["totals"]["made"] == 2 and told["totals"]["rows_in"] == 4
    lake = Lake(str(tmp_path / "lake"))
    totals = lake.open("totals").to_pyarrow_table().sort_by("shop").to_pylist()
    assert [(t["shop"], t["sales"], t["n"], str(t["price"]), t["mean"]) for t in totals] == [
        (1, 2, 5, "2.50", 2.5),
        (2, 1, 4, "9.00", 4.0),
    ]
    arrived = {(r["shop"], r["n"]): r["_row_id"] for r in lake.open("sales").to_pyarrow_table().to_pylist()}
    assert totals[0]["_parents"] == sorted([arrived[1, 2], arrived[1, 3]])
    assert list(totals[0]) == ["shop", "sales", "n", "price", "mean", "_row_id", "_changed", "_parents"]
    metrics = lake.open("metrics").to_pyarrow_table().to_pylist()
    assert [m["value"] for m in metrics if m["kind"] == "coverage"] == [0.75]
    environment = Environment(lake=lake.root, landing=str(tmp_path / "landing"))
    checked = verify(spark, lake, "latest", Progress(watched=False), load_pipeline(file), environment)
    assert not any(t["failed"] for t in checked) and {t["rebuilt"] for t in checked} == {"same"}
    # One of the rows that a total sums up is erased: the total stays, without its cells, until the next run.
    found = reach(lake, "sales", "shop = 1 and n = 3")
    assert {t: len(ids) for t, ids in found.rows.items()} == {"sales": 1}
    assert found.summed == {t: {totals[0]["_row_id"]} for t in ("totals", "best")}
    erase(spark, lake, found, "asked", "request 1", "who", "who", Progress(watched=False))
    left = lake.open("totals").to_pyarrow_table().to_pylist()
    (blank,) = [t for t in left if t["_row_id"] == totals[0]["_row_id"]]
    assert blank["n"] is None and blank["_parents"] == [arrived[1, 2]] and len(left) == 2
    assert {r["id"]: r["sold"] for r in lake.open("rated").to_pyarrow_table().to_pylist()}[1] is None
    run_pipeline(spark, tmp_path, file)
    assert rows(tmp_path, "totals", "shop", "sales", "n") == [(1, 1, 2), (2, 1, 4)]
    assert rows(tmp_path, "best", "shop", "good") == [(1, False), (2, False)]
    assert rows(tmp_path, "rated", "id", "sold") == [(1, 2), (2, 4), (7, None)]


@pytest.mark.parametrize(
    ("wrong", "by", "told"),
    [
        ("    grain: new\n", "", "add grain: new to the table"),
        (
            "    from: places\n",
            "    from: places\n    grain: new\n",
            "makes rows of another grain",
        ),
        ("from: [shops, web]", "from: [shops, shops]", "duplicate table 'shops'"),
        ("from: [shops, web]", "from: [shops, wbe]", "did you mean 'web'"),
        (
            'key: [id], schema: "id INT, url',
            'key: [id], schema: "id STRING, url',
            "column 'id' is string in table 'web'",
        ),
        ("{how: sum, of: n}", "{how: sum}", "sum needs a column"),
        ("{how: sum, of: n}", "{how: summ, of: n}", "expected one of"),
        ("{how: count}", "{how: count, off: n}", "unknown option 'off'"),
    ],
)
def test_wrong_starts_and_grains_are_refused_before_spark(tmp_path, wrong, by, told):
    suite(tmp_path, "totals", "shop")
    assert wrong in UNION
    with pytest.raises(UsageError, match=told.replace("(", r"\(")):
        load_pipeline(pipeline(tmp_path, UNION.replace(wrong, by)))


OWN = '''
"""Steps of one's own."""

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
from pyspark.sql import functions as F

from headgate.transforms.rows import change_cells, quoted
from headgate.transforms.step import Estimator, Step, require_columns


def shout(batches):
    for batch in batches:
        texts = pa.array([None if t is None else t.upper() + SIGN for t in batch["kind"].to_pylist()])
        yield batch.set_column(batch.schema.get_field_index("kind"), "kind", texts)


SIGN = "!"


@dataclass(frozen=True, kw_only=True)
class Shout(Step):
    """Shout. Cost: one pass."""

    name: ClassVar[str] = "shout"
    times: int = 1

    def apply(self, df):
        return df.mapInArrow(shout, df.schema)


@dataclass(frozen=True, kw_only=True)
class CountBefore(Step):
    """Write how many rows the table had before."""

    name: ClassVar[str] = "count_before"
    scope: ClassVar[str] = "table"
    reads_previous: ClassVar[bool] = True
    into: str

    def columns_after(self, have, tables):
        return {**have, self.into: "int"}

    def run(self, df, context):
        before = context.previous()
        return df.withColumn(self.into, F.lit(-1 if before is None else before.count()))


@dataclass(frozen=True, kw_only=True)
class FromMap(Step):
    """What `learn_map` becomes: a join with a side file."""

    name: ClassVar[str] = "from_map"
    path: str

    def run(self, df, context):
        learned = df.sparkSession.read.parquet(self.path)
        return df.join(F.broadcast(learned), on="kind", how="left")


@dataclass(frozen=True, kw_only=True)
class LearnMap(Estimator):
    """Learn the number of rows of each kind into a side file."""

    name: ClassVar[str] = "learn_map"

    def columns_after(self, have, tables):
        return None  # only a fit can tell

    def fit(self, training, context):
        kept = context.keep(training.groupBy("kind").count(), "counts")
        kept.write.mode("overwrite").parquet(context.artifact("map"))
        return FromMap(path=context.artifact("map"))
'''
OWN_PIPELINE = """
steps_from: [my_steps.py]
tables:
  raw: {source: {format: csv, path: r.csv, key: [id], schema: "id INT, kind STRING"}, suite: null}
  mine:
    from: raw
    steps:
      - shout: {}
      - normalize_text: {columns: [kind], case: lower}
      - shout: {}
      - normalize_text: {columns: [kind], case: lower}
      - count_before: {into: before}
      - learn_map: {}
    suite: null
"""


def test_steps_of_ones_own_run_on_executors_and_their_text_enters_the_key(spark, tmp_path):
    (tmp_path / "my_steps.py").write_text(OWN)
    file = pipeline(tmp_path, OWN_PIPELINE)
    land(tmp_path, "r.csv", "id,kind", "1,a", "2,a", "3,b")
    run_pipeline(spark, tmp_path, file)
    assert rows(tmp_path, "mine", "id", "kind", "before", "count") == [
        (1, "a!!", -1, 2),
        (2, "a!!", -1, 2),
        (3, "b!!", -1, 1),
    ]
    lake = Lake(str(tmp_path / "lake"))
    changed = lake.open("mine").to_pyarrow_table()["_changed"][0].as_py()
    assert [c["step"] for c in changed] == ["mine/1-normalize_text", "mine/3-normalize_text"]
    artifacts = list(Path(lake.root, "_system", "fitted", "mine").rglob("*.parquet"))
    assert any("learn_map" in str(p) for p in artifacts)
    # The version before is pinned, and does not make the table stale by itself.
    assert statuses(run_pipeline(spark, tmp_path, file))["mine"] == "up to date"
    environment = Environment(lake=lake.root, landing=str(tmp_path / "landing"))
    (tmp_path / "my_steps.py").write_text(OWN.replace('SIGN = "!"', 'SIGN = "?"'))
    assert statuses(run_pipeline(spark, tmp_path, file))["mine"] == "built"
    assert rows(tmp_path, "mine", "id", "kind", "before")[0] == (1, "a??", 3)
    told = verify(spark, lake, "latest", Progress(watched=False), load_pipeline(file), environment)
    assert {t["table"]: t["rebuilt"] for t in told}["mine"] == "same"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import nothing_like_this", "cannot be run: ModuleNotFoundError"),
        ("x = 1", "defines no step"),
        (OWN.replace('"shout"', '"cast"'), "there is a step 'cast' already"),
        (OWN.replace('"shout"', '"Shout it"'), "must be lower-case letters"),
        (OWN.replace("@dataclass(frozen=True, kw_only=True)\nclass Shout", "class Shout"), "must be a dataclass"),
    ],
)
def test_files_of_steps_that_are_none_are_refused(tmp_path, text, told):
    (tmp_path / "my_steps.py").write_text(text)
    with pytest.raises(UsageError, match=told):
        load_pipeline(pipeline(tmp_path, OWN_PIPELINE))
    (tmp_path / "my_steps.py").unlink()
    with pytest.raises(UsageError, match=r"my_steps\.py cannot be read"):
        load_pipeline(pipeline(tmp_path, OWN_PIPELINE))


@pytest.mark.slow
def test_packages_of_a_user_that_are_named_as_headgates_folders_are_in_nobodys_way(tmp_path):
    for name in ("jobs/__init__.py", "transforms.py", "expectations/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise ImportError('this is not the package that was meant')\n")
    (tmp_path / "my_steps.py").write_text(OWN)
    pipeline(tmp_path, OWN_PIPELINE)
    land(tmp_path, "r.csv", "id,kind", "1,a")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "headgate", "run", "p.yaml", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["built"] == 2


def test_steps_behind_parquet_are_checked_before_spark_once_it_was_read(spark, tmp_path):
    text = """
tables:
  raw: {source: {format: parquet, path: "*.parquet", key: [id]}, suite: null}
  clean:
    from: raw
    steps:
      - derive: {columns: {more: "n + 1", day: "to_date(at)"}}
      - join_table: {table: raw, on: {id: id}, columns: {n2: n}, matched: found}
    suite: null
"""
    file = pipeline(tmp_path, text)
    nested = pa.array([[{"a": 1}]], pa.list_(pa.struct([("a", pa.int64())])))
    columns = {
        "id": pa.array([1], pa.int32()),
        "n": pa.array([2.5]),
        "at": pa.array([0], pa.timestamp("us")),
        "l": nested,
    }
    pq.write_table(pa.table(columns), tmp_path / "landing" / "a.parquet")
    run_pipeline(spark, tmp_path, file)
    seen = seen_in(Lake(str(tmp_path / "lake")))
    kinds = {"id": "int", "n": "double", "at": "timestamp", "l": "array<struct<a:bigint>>"}
    assert seen("raw") == {**kinds, "_file": "string", "_file_date": "date"} and seen("other") is None
    assert load_pipeline(file, seen) and load_pipeline(pipeline(tmp_path, text.replace("n + 1", "m + 1")))
    for wrong, told in (
        (("n + 1", "m + 1"), "no column 'm'"),
        (("on: {id: id}", "on: {n: id}"), "'n' is double and 'id'"),
    ):
        file = pipeline(tmp_path, text.replace(*wrong))
        with pytest.raises(UsageError, match=told):
            load_pipeline(file, seen)
        assert load_pipeline(file, seen, ["raw"]), "what is not wanted is not followed"


def test_names_that_delta_cannot_hold_reach_the_steps_as_they_are(spark, tmp_path):
    text = """
tables:
  t:
    source: {format: csv, path: "t_{date}.csv", key: [no 1], schema: "`no 1` INT, `50% (net)` STRING"}
    steps:
      - rename: {columns: {"no 1": no, "50% (net)": net}}
    suite: null
    publish: {mode: increment}
"""
    file = pipeline(tmp_path, text)
    for day, line in (("01", "1,a"), ("02", "2,b")):
        land(tmp_path, f"t_2024-01-{day}.csv", "no 1,50% (net)", line)
        run_pipeline(spark, tmp_path, file)
    assert rows(tmp_path, "t", "no", "net") == [(1, "a"), (2, "b")]
    assert rows(tmp_path, "t_raw", "no%201", "50%25%20%28net%29") == [(1, "a"), (2, "b")]
    with pytest.raises(UsageError, match="'no 1' cannot be published"):
        load_pipeline(pipeline(tmp_path, text.replace('"no 1": no, ', "")))


def test_the_order_of_shares_decides_and_enters_the_key():
    shares = {"train": 0.8, "valid": 0.1, "test": 0.1}
    one, same = SplitByHash(key=("a",)), SplitByHash(key=("a",), shares=shares)
    other = SplitByHash(key=("a",), shares=dict(reversed(shares.items())))
    assert described(one) == described(same) != described(other)
