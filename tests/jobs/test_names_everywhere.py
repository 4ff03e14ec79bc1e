"""A table whose columns have the names that the code itself uses, through all that headgate does with a table."""

import ast
from pathlib import Path

import pytest

from headgate.jobs.explore import diff, trace
from headgate.jobs.keep.erasure import certificate as erasure
from headgate.jobs.keep.erasure.reach import reach
from headgate.jobs.progress import Progress
from headgate.transforms.rows import is_own
from tests.lakes import ROOT, again, lake_of

CALLS = ("alias", "col", "withColumn", "select", "groupBy", "lit", "drop", "where", "orderBy", "partitionBy", "struct")
MOST = 60  # Spark plans grow with columns
NAMED = ("count", "hash", "kept", "key", "n", "row_id", "score")  # those that suite and steps name, and Spark's own
JOINED = ("brought_here", "was_found")  # columns that the steps add, of no name of the table's own


def names_in_the_code() -> list[str]:
    """Identifiers that stand as a text in calls which make or name columns."""
    found: dict[str, int] = {}
    for folder in ("jobs", "transforms", "expectations"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                name = getattr(getattr(node, "func", None), "attr", "")
                if isinstance(node, ast.Call) and name in CALLS:
                    for argument in node.args:
                        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                            found[argument.value] = found.get(argument.value, 0) + 1
    plain = [
        n
        for n in found
        if n.isidentifier() and n.islower() and not is_own(n) and n not in ("id", "split", *JOINED, *NAMED)
    ]
    return [*NAMED, *sorted(plain, key=lambda n: (-found[n], n))][:MOST]


SUITE = """name: s
expectations:
  - {type: expect_table_row_count_to_be_between, kwargs: {min_value: 1}, meta: {dimension: completeness}}
  - {type: expect_column_to_exist, kwargs: {column: id}, meta: {dimension: completeness}}
  - {type: expect_column_values_to_be_unique, kwargs: {column: key}, meta: {dimension: uniqueness}}
  - {type: expect_column_values_to_not_be_null, kwargs: {column: count}, meta: {dimension: completeness}}
  - {type: expect_column_value_lengths_to_be_between, kwargs: {column: n, max_value: 99}, meta: {dimension: validity}}
  - type: expect_rows_to_satisfy_sql
    kwargs: {column_list: [row_id, key], predicate: "row_id <> 'bad'"}
    meta: {dimension: validity, on_row_fail: quarantine}
"""


@pytest.mark.slow
def test_every_cell_comes_as_it_came(spark, tmp_path):
    names = names_in_the_code()
    assert len(set(names)) == MOST
    value = lambda name, i: f"{name} of row {i} with words of its own"  # noqa: E731

    def land(night: int, *ids: int) -> None:
        landing = tmp_path / "landing"
        landing.mkdir(exist_ok=True)
        lines = [",".join(["id", *names]), *(",".join([str(i), *(value(n, i) for n in names)]) for i in ids)]
        (landing / f"x_2024-01-0{night}.csv").write_text("\n".join(lines) + "\n")

    schema = ", ".join(["id INT", *(f"`{n}` STRING" for n in names)])
    (tmp_path / "s.yaml").write_text(SUITE)
    (tmp_path / "p.yaml").write_text(
        f"""pipeline: p
suites: .
tables:
  t: {{source: {{format: csv, path: "x_{{date}}.csv", schema: "{schema}", key: [id]}}, suite: s}}
  one: {{from: t, steps: [{{drop_duplicates: {{columns: [key, hash]}}}}], suite: s, publish: {{mode: increment}}}}
  near: {{from: t, steps: [{{drop_near_duplicates: {{columns: [key], similarity: 1.0}}}}], suite: null,
          publish: {{mode: increment}}}}
  both:
    from: one
    steps:
    - join_table: {{table: near, on: {{id: id, key: key}}, columns: {{{JOINED[0]}: n}}, matched: {JOINED[1]}}}
    suite: null
"""
    )
    lake = lake_of(tmp_path)
    for night, ids in ((1, (1, 2)), (2, (3, 4))):
        land(night, *ids)
        again(spark, tmp_path)
    for table in ("t", "one", "near", "both"):
        rows = lake.need_table(table).to_pyarrow_table().to_pylist()
        assert sorted(r["id"] for r in rows) == [1, 2, 3, 4], table
        wrong = [(r["id"], n, r[n]) for r in rows for n in names if r[n] != value(n, r["id"])]
        assert not wrong, (table, wrong[:3])
    assert {r[JOINED[0]] for r in rows} == {value("n", i) for i in (1, 2, 3, 4)}
    (told,) = diff.diff(lake, "one@0", "one@latest")
    assert (told["added"], told["removed"], told["changed"], told["columns"]) == (2, 0, 0, {})
    (row_id,) = trace.ids_of(lake, "t", {"key": value("key", 3)})
    story = trace.trace(lake, str(tmp_path / "landing"), row_id)
    published = next(e["row"] for e in story if e["table"] == "t" and e["event"] == "published")
    assert published == {"id": 3, **{n: value(n, 3) for n in names}}
    found = reach(lake, "t", "id = 3")
    erasure.erase(spark, lake, found, "id = 3", "r", "s", "u", Progress(watched=False))
    for table in ("t", "one", "near", "both"):
        rows = lake.need_table(table).to_pyarrow_table().to_pylist()
        assert sorted(r["id"] for r in rows) == [1, 2, 4], table


def test_own_names_are_the_only_ones_taken():
    assert is_own("_hg_x") and is_own("_HG_X") and is_own("_ROW_ID")
    assert not any(map(is_own, ["_id", "__index_level_0__", "_rank", "hg_x", "row_id"]))
    assert "`_hg_`" in Path(ROOT, "docs", "lake.md").read_text()
