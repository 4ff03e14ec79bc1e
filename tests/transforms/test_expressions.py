"""Expressions are judged without Spark: what reads the row alone passes, everything else is named."""

import subprocess
import sys

import pytest

from headgate.transforms.cleaning.expressions import FUNCTIONS, checked
from headgate.transforms.step import StepError

HAVE = ["a", "b", "arr", "m", "d", "A b", "user", "current_date"]


@pytest.mark.parametrize(
    ("expression", "used"),
    [
        ("a + b", ["a", "b"]),
        ("A > 1 and B is not null", ["a", "b"]),
        ("a like '% over %' or a = 'rand() now('", ["a"]),
        ("a not like any ('x', 'y')", ["a"]),
        ("transform(arr, x -> x.f + a)", ["a", "arr"]),
        ("aggregate(arr, 0, (acc, x) -> acc + x)", ["arr"]),
        ("filter(arr, (x, i) -> i > 1)[0].z", ["arr"]),
        ("map_filter(m, (k, v) -> v > 1)['k']", ["m"]),
        ("a.b.c", ["a"]),
        ("`A b`.c <=> a", ["A b", "a"]),
        ("cast(a as decimal(10,2)) + a::int", ["a"]),
        ("cast(a as struct<x:int, y:array<int>>)", ["a"]),
        ("case when a in (1, 2) then b else a end", ["a", "b"]),
        ("d + interval '1' day > date '2020-01-01'", ["d"]),
        ("timestampdiff(DAY, d, make_date(2020, 1, 1))", ["d"]),
        ("extract(year from d) = year(d)", ["d"]),
        ("trim(both 'x' from a) = substring(a from 1 for 2)", ["a"]),
        ("if(a rlike r'^\\d+$', try_cast(a as int), null)", ["a"]),
        ("named_struct('x', a, 'y', struct(b as z))", ["a", "b"]),
        ("a DIV b % 2 = 1L -- a comment", ["a", "b"]),
        ("user = 'x'", ["user"]),
        ("`current_date` = 1", ["current_date"]),
        ("unix_timestamp(d)", ["d"]),
        ("a = 'today'", ["a"]),
        ("_row_id = 'x' or size(_changed) > 2", ["_row_id", "_changed"]),
        ("(a, b) = (1, 2)", ["a", "b"]),
        ("true", []),
    ],
)
def test_what_reads_one_row_passes(expression, used):
    assert sorted(checked(expression, HAVE, ["d"])) == sorted(used)
    if "user" not in expression:  # which may be a function where the columns are not known
        assert sorted(c.lower() for c in checked(expression, None)) == sorted(c.lower() for c in used)


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        *((e, "random") for e in ("rand()", "rand ()", "rand/*x*/()", "`rand`()", "uuid()", "shuffle(arr)")),
        *((e, "random") for e in ("case when rand() > .5 then 1 end", "typeof(randn())", "uniform(1, 2)")),
        *((e, "run to run") for e in ("now()", "current_date()", "current_timestamp", "curdate()", "unix_timestamp()")),
        *((e, "run to run") for e in ("date_trunc('DAY', now())", "cast('now' as timestamp)", "date'today'")),
        *((e, "run to run") for e in ("to_date('today')", "timestamp 'now UTC'", "d < 'today'", "d in ('tomorrow')")),
        *((e, "machine") for e in ("input_file_name()", "spark_partition_id()", "version()", "current_user()")),
        *((e, "machine") for e in ("session_user()", "current_timezone()", "java_method('a', 'b')")),
        *((e, "other rows") for e in ("max(a)", "count(a)", "sum(a) over (partition by b)", "mode(a)", "lag(a)")),
        *((e, "other rows") for e in ("row_number() over ()", "a in (select b from t)", "exists(select 1)")),
        *((e, "name the columns") for e in ("count(*)", "struct(a.*)")),
        *((e, "not one expression") for e in ("a as b", "select 1", "drop table x", "a; b", "set a = 1", "")),
        *((e, "no function allowed") for e in ("explode(arr)", "nosuch(a)", "x.f(a)", "any(arr)", "try_sum(a)")),
        *((e, "parameter") for e in (":p", "?", "${x}")),
        ("uper(a)", "did you mean 'upper'?"),
        ("a +", "at character 3"),
        ("a > 1\n and ++)", "line 2, character"),
        ("'open", "not closed"),
        ("abc.x + 1", "there is no column 'abc' here"),
        ("usr = 1", "did you mean 'user'?"),
        ("transform(arr, x -> y)", "there is no column 'y'"),
        ("_hg_rejected is null", "there is no column '_hg_rejected'"),
        ("(" * 3000 + "a" + ")" * 3000, ""),
    ],
)
def test_everything_else_is_named(expression, told):
    with pytest.raises(StepError) as e:
        checked(expression, HAVE, ["d"])
    assert told in str(e.value) and "\n" not in str(e.value).replace(expression, "")


@pytest.mark.parametrize("expression", ["current_date", "user", "localtimestamp", "session_user"])
def test_words_that_stand_for_a_function_are_refused_where_columns_are_not_known(expression):
    with pytest.raises(StepError):
        checked(expression, None)


def test_spark_knows_every_allowed_function(spark):
    known = {r[0] for r in spark.sql("SHOW FUNCTIONS").collect()}
    syntax = {"try_cast", "timestampadd", "timestampdiff"}  # of Spark's grammar
    assert FUNCTIONS - known - syntax == set()


def test_the_parser_is_read_only_when_it_is_needed():
    code = "import headgate.jobs.cli.main, headgate.transforms.steps, sys; assert 'sqlglot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
