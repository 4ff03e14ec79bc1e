"""`headgate impute`: what it takes, what it fills and says of it, and what it refuses."""

import json
import math
import random
import statistics
import sys
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from headgate.jobs.cli import imputing, one_table, places
from headgate.jobs.cli import main as cli
from headgate.jobs.cli.text_types import type_of
from headgate.jobs.errors import InputMissing, UsageError
from headgate.jobs.lake.lake import Lake
from tests import lakes

QUICK = ("--rounds", "1", "--key", "id")


@pytest.fixture
def impute(in_session):
    return in_session("impute")


answer = partial(lakes.answer, Path())


def land(rows=240):
    """Write a.csv: y is three times x, the colour tells the size; some cells are gone, in several ways."""
    r = random.Random(0)
    lines = ["id,x,y,size,colour,name,day,n"]
    for i in range(rows):
        x = round(r.gauss(0, 1), 3)
        y = {0: "?", 1: "-999", 2: ""}.get(i % 20, str(round(3 * x, 3)))
        colour = "" if i % 11 == 0 else "red" if x > 0 else "blue"
        day = "" if i % 30 == 0 else f"2024-01-{1 + i % 28:02}"
        lines.append(f"{i},{x},{y},{'big' if x > 0 else 'small'},{colour},name {i % 90},{day},{i % 3 or ''}")
    Path("a.csv").write_text("\n".join(lines) + "\n")


def test_gaps_of_all_kinds_are_filled_and_told(impute):
    land()
    code, out, error = impute("a.csv", "--into", "t", *QUICK)
    assert code == 0, error
    (row,) = answer(
        """select count(*), max(abs(y - 3 * x)),
        count(*) filter (y is null or colour is null or day is null or n is null),
        count(*) filter ((colour = 'red') <> (x > 0)), count(*) filter (len(_changed) > 0),
        typeof(any_value(day)), typeof(any_value(n)) from t"""
    )
    assert row[0] == 240 and row[1] < 0.5 and row[2] == 0 and row[3] <= 3 and row[4] > 60
    assert row[5:] == ("DATE", "BIGINT")
    lines = {line.split()[0]: line for line in out.splitlines() if line.split()}
    assert "36 (15.0%)" in lines["y"] and "double" in lines["y"] and "22 (9.2%)" in lines["colour"]
    assert "trees" in lines["colour"] and "mean" not in lines["y"] and "‹-999› (12 rows, sentinel)" in out
    # Again: nothing to build, the same report.
    code, again, error = impute("a.csv", "--into", "t", *QUICK, "--json")
    assert code == 0, error
    report = {r["column"]: r for r in json.loads(again)["columns"]}
    assert report["y"]["missing"] == 36 and report["y"]["left"] == 0 and report["y"]["error"] < 0.3
    assert report["y"]["scores"]["simple"] == 1 and report["x"]["method"] == ""
    assert "id" not in report and report["name"]["method"] == ""


@pytest.mark.slow
def test_later_files_and_tables_of_the_lake(impute):
    land()
    Path("in").mkdir()
    Path("a.csv").rename("in/a.csv")
    assert impute("in", "--into", "t", *QUICK)[0] == 0
    Path("in/b.csv").write_text(
        "id,x,y,size,colour,name,day,n\n900,1.5,,big,,new,,\n901,2,twelve,big,red,new,2024-01-01,1\n"
    )
    code, out, error = impute("in", "--into", "t", *QUICK)
    assert code == 0 and "y does not convert to its type" in out, error
    assert answer("select count(*), count(*) filter (id = 900 and abs(y - 4.5) < 1 and colour = 'red') from t") == [
        (241, 1)
    ]
    Path("in/b.csv").write_text("id,x,y,size,colour,name,day,n\n900,1.5,7,big,red,new,2024-01-01,1\n")
    code, out, error = impute("in", "--into", "t", *QUICK)  # what was mended is taken up in place of what it was
    assert code == 0 and answer("select y, len(_changed) from t where id = 900") == [(7.0, 0)], error
    # A table of the lake, whose types stand; only one column, by groups.
    code, out, error = impute(
        "t_input", "--into", "u", "--columns", "size", "--group-by", "colour", "--method", "group"
    )
    assert code == 0 and "no cell is missing" in out, error


@pytest.mark.slow
def test_draws_differ_where_cells_were_missing_and_nowhere_else(impute):
    land()
    code, out, error = impute("a.csv", "--into", "t", "--draws", "3", "--key", "id")
    assert code == 0, error
    known = "select count(*) from t_1 join t_2 using (id) join t_3 using (id) where t_1.y = t_2.y and t_2.y = t_3.y"
    assert answer(known) == [(204,)]
    assert answer("select count(*) from t_1 where y is null or abs(y - 3 * x) > 1") == [(0,)]
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line.split()}
    assert float(lines["y"][3]) < 0.01 < float(lines["n"][3]) and float(lines["x"][3]) == 0


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (["1", "2", "NA"], "BIGINT"),
        (["007", "12"], "STRING"),
        (["1.5", "2", " 3 "], "DOUBLE"),
        (["1e5", "nan", "-inf"], "DOUBLE"),
        (["3.2e-120", "1E+200", "2e289"], "DOUBLE"),
        (["1e999"], "STRING"),
        (["true", "FALSE"], "BOOLEAN"),
        (["2024-01-01", "?"], "DATE"),
        (["2024-01-01", "2024-01-01T10:00:00Z"], "TIMESTAMP"),
        (["2024-13-01"], "STRING"),
        (["12345678901234567890"], "STRING"),
        (["?", "NA", ""], "STRING"),
        ([], "STRING"),
        (["yes", "no"], "STRING"),
    ],
)
def test_a_column_is_of_the_type_that_all_its_texts_have(texts, kind):
    assert type_of(dict.fromkeys(texts, 1)) == (kind, "")


def test_numbers_with_a_few_others_are_text_and_that_is_said():
    kind, notice = type_of({"1": 50, "2": 48, "twelve": 2})
    assert kind == "STRING" and "2 of 100 values" in notice and "'twelve'" in notice


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("a.csv", "--columns", "yy"), "--columns: there is no column 'yy' — did you mean 'y'"),
        (("a.csv", "--group-by", "colours"), "--group-by: there is no column 'colours' — did you mean 'colour'"),
        (("a.csv", "--columns", "x,x"), "--columns: 'x' is named twice"),
        (("a.csv", "--method", "group"), "--method group: name the columns of the groups in --group-by"),
        (("a.csv", "--columns", "x,colour", "--group-by", "colour"), "'colour' cannot be filled and be in --group-by"),
        (("a.csv", "--share", "0.7"), "share: 0.7 is not above 0 and at most .5"),
        (("a.csv", "--sample", "1"), "sample: 1 is not within 2 and 1,000,000"),
        (("a.csv", "--rounds", "0"), "rounds: 0 is not within 1 and 10"),
        (("a.csv", "--schema", "y INTT"), "there is no type 'INTT'"),
        (("wide.csv",), "impute: columns: name one or more, with `using` at most 200, not 300"),
        (("key.csv", "--key", "id"), "key.csv: no column can be filled"),
        (("a.csv", "--draws", "3", "--method", "trees"), "--draws cannot be combined with --method"),
        (("a.csv", "--draws", "3", "--columns", "size"), "--columns: 'size' is STRING; draws fill"),
        (("a.csv", "--where", "x >"), "--where: 'x >' cannot be read: something is missing"),
        (("a.csv", "--where", "x > 1) or (y > 1"), "--where: 'x > 1) or (y > 1' cannot be read"),
        (
            ("a.parquet", "--columns", "l"),
            "--columns: 'l' is ARRAY<BIGINT>; expected a number, a date, a time",
        ),
        (("a.parquet", "--group-by", "l"), "--group-by: 'l' is ARRAY<BIGINT>; expected a number, a date, a time"),
        (("spaced.csv",), "spaced.csv: the column ‹x y› cannot be published"),
        (("none.csv",), "none.csv: neither a file or folder nor a table"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    land(10)
    Path("wide.csv").write_text(",".join(f"c{i}" for i in range(300)) + "\n" + ",".join("1" for _ in range(300)) + "\n")
    Path("key.csv").write_text("id\n1\n")
    Path("spaced.csv").write_text("x y,b\n1,2\n")
    pq.write_table(pa.table({"x": [1.5, None], "l": [[1], None]}), "a.parquet")
    monkeypatch.setattr(places, "spark_of", lambda environment: pytest.fail("Spark was started"))
    monkeypatch.setattr(sys, "argv", ["headgate", "impute", *arguments, "--lake", "lake", "--into", "t"])
    with pytest.raises((UsageError, InputMissing)) as error:
        cli.headgate.main(args=sys.argv[1:], standalone_mode=False)
    assert told in str(error.value) and "\n" not in str(error.value), str(error.value)


def test_a_type_once_published_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    land(10)
    plan = imputing.pipeline_of(one_table.Request("impute", "a.csv", "t", ["id"]), imputing.Asked(), Lake("lake"))
    assert plan.types["y"] == "DOUBLE" and plan.types["id"] == "STRING" and plan.types["day"] == "DATE"
    (cast, markers, fill) = plan.pipeline.tables["t"].steps
    assert "y" in cast["cast"]["columns"] and "id" not in fill["impute_auto"]["columns"]
    assert markers["null_markers"]["learn"] == "apply"


def test_of_files_with_types_all_columns_that_can_be_filled_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    day = pa.array([0, None], pa.date32())
    cells = {"id": [1, 2], "x": [0.5, None], "s": ["a", None], "b": [True, None], "day": day, "l": [[1], None]}
    pq.write_table(pa.table(cells), "p.parquet")
    plan = imputing.pipeline_of(one_table.Request("impute", "p.parquet", "t", ["id"]), imputing.Asked(), Lake("lake"))
    assert plan.columns == ["x", "s", "b", "day"] and plan.types["x"] == "DOUBLE"
    with pytest.raises(UsageError, match="--columns: 's' is STRING; draws fill"):
        asked = imputing.Asked(columns=["s"], draws=2)
        imputing.pipeline_of(one_table.Request("impute", "p.parquet", "t", ["id"]), asked, Lake("lake"))


def test_draws_are_pooled_by_rubins_rules(tmp_path):
    lake = Lake(str(tmp_path / "lake"))
    for i in (1, 2):
        write_deltalake(lake.path(f"t_{i}"), pa.table({"x": [1.0, 2.0, 3.0 + i], "y": [1, 2, 3], "b": [True] * 3}))
    x, y = imputing.pooled(lake, ["t_1", "t_2"], ["x", "y", "b"], {"x": "DOUBLE", "y": "BIGINT", "b": "BOOLEAN"})
    within, between = (statistics.variance([1, 2, 4]) + statistics.variance([1, 2, 5])) / 2 / 3, (1 / 3) ** 2 / 2
    assert x["mean"] == pytest.approx(2.5) and x["error"] == pytest.approx(math.sqrt(within + 1.5 * between))
    assert x["lost"] == pytest.approx(1.5 * between / (within + 1.5 * between), abs=1e-4)
    assert y == {"column": "y", "mean": 2.0, "error": pytest.approx(math.sqrt(1 / 3)), "lost": 0.0}
