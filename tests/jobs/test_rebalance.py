"""`headgate rebalance`: strata brought to targets and sources mixed to a budget, without YAML."""

import json
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from headgate.jobs.cli.rebalancing import (
    Request,
    before_and_after,
    number_of,
    of_option,
    pairs_of,
    pipeline_of,
    split_values,
)
from headgate.jobs.errors import GateBlocked, HeadgateError, UsageError
from headgate.jobs.lake.lake import Lake
from headgate.words import stratum_of_values
from tests import lakes
from tests.conftest import SHARED_DATA
from tests.transforms.test_mixture import tokenizer_file


@pytest.fixture
def rebalance(in_session):
    return in_session("rebalance")


answer = partial(lakes.answer, Path())


def planned(**options):
    """The step that the command asks for of a csv with the columns id, label, n."""
    Path("a.csv").write_text("id,label,n\n1,a,3\n")
    pipeline, _, _ = pipeline_of(Request(**{"given": "a.csv", "into": "t", "by": ["label"], **options}), Lake("lake"))
    return pipeline.steps["t"][-2]


@pytest.mark.parametrize(
    ("text", "number"), [("500", 500), ("20K", 20_000), ("1.5m", 1_500_000), ("2B", 2 * 10**9), ("1_000", 1000)]
)
def test_numbers_may_end_in_a_size(text, number):
    assert number_of("--budget", text) == number


@pytest.mark.parametrize("text", ["", "x", "1.5", "-3", "1KK", "0.0001K"])
def test_numbers_that_are_none_are_refused(text):
    with pytest.raises(UsageError, match=r"--budget: .* is not a whole number such as"):
        number_of("--budget", text)


def test_what_a_step_refuses_is_told_with_the_option():
    refused = UsageError("tables.t.steps[1].sample_strata: targets: no training row is of 'b].mix_sources: x'")
    assert str(of_option(refused)) == "--target: targets: no training row is of 'b].mix_sources: x'"
    other = UsageError("tables.t.steps[0].split_by_hash: no")
    assert of_option(other) is other


def test_a_stratum_of_nan_has_one_line(tmp_path):
    lake = Lake(str(tmp_path))
    for table, n in (("a", 3), ("t", 2)):
        write_deltalake(lake.path(table), pa.table({"x": [float("nan")] * n + [None, 1.5]}))
    lines = before_and_after(lake, Request(given="a", into="t", by=["x"], target="equal"), "a")
    assert [(r["stratum"], r["rows_before"], r["rows_after"]) for r in lines] == [
        ("nan", 3, 2),
        ("(null)", 1, 1),
        ("1.5", 1, 1),
    ]


def test_lists_of_labels_structs_and_bytes_are_counted_in_what_is_shown(tmp_path):
    lake = Lake(str(tmp_path))
    lists = [["a", "b"], ["b", "a", "a"], ["a"], ["a, b"], None]
    cells = {"x": lists, "s": [{"n": i % 2} for i in range(5)], "b": [b"12", b"3", b"", None, b"45"]}
    write_deltalake(lake.path("a"), pa.table(cells))
    lines = before_and_after(lake, Request(given="a", into="a", by=["x"], target="equal"), "a")
    found = {r["stratum"]: (r["rows_before"], r["rows_after"]) for r in lines}
    assert found == {"['a', 'b']": (2, 2), "['a']": (1, 1), "['a, b']": (1, 1), "(null)": (1, 1)}
    mix = Request(given="a", into="a", by=["s"], mixture="a=1", unit="bytes", column="b")
    found = {r["stratum"]: r["bytes_after"] for r in before_and_after(lake, mix, "a")}
    assert found == {"{'n': 0}": 4, "{'n': 1}": 1}


def test_a_text_that_reads_null_is_told_from_a_missing_value(tmp_path):
    lake = Lake(str(tmp_path))
    values = ["null", None, "(null)", "\\(null)", "a"]
    write_deltalake(lake.path("a"), pa.table({"x": values}))
    lines = before_and_after(lake, Request(given="a", into="a", by=["x"], target="equal"), "a")
    shown = ["(null)", "\\(null)", "\\\\(null)", "a", "null"]
    assert [r["stratum"] for r in lines] == shown
    assert {split_values(s, ["x"])[0] for s in shown} == {*values}


def test_shares_and_strata_are_read_as_written():
    assert pairs_of("--mixture", "en=0.5, zh=30%,a=b=.2", float) == {"en": 0.5, "zh": 0.3, "a=b": 0.2}
    assert pairs_of("--target", "Korea, Republic of=5,a=b, c=7,", str) == {
        "Korea, Republic of": "5",
        "a": "b",
        "c": "7",
    }
    with pytest.raises(UsageError, match="--target: 'x, y' is not NAME=NUMBER"):
        pairs_of("--target", "a=1,x, y", str)
    assert split_values("en/(null)", ["a", "b"]) == ["en", None]
    assert split_values("en/a/b", ["a", "b"]) == ["en", "a/b"]
    assert split_values("a/b", ["a"]) == ["a/b"] and split_values(r"a\/b", ["a"]) == [r"a\/b"]
    for values in (["a/b", "c"], ["a", "b/c"], ["/", "/"], [None, "x/(null)"]):
        assert split_values(stratum_of_values(values), ["a", "b"]) == values
    with pytest.raises(UsageError, match="a value for each of --by a,b"):
        split_values("en", ["a", "b"])


def test_options_become_steps(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert planned(target="equal").equal and planned(target="20").rows == 20
    assert [(t.values, t.rows) for t in planned(target="a=5,b=7").targets] == [(("a",), 5), (("b",), 7)]
    assert [t.share for t in planned(target="a=50%,b=.5").targets] == [0.5, 0.5]
    mixed = planned(mixture="a=.5,b=.5", budget="10M", unit="tokens", column="n", epochs=2.0, schema="n INT")
    assert (mixed.budget, mixed.unit, mixed.column, mixed.epochs) == (10_000_000, "tokens", "n", 2.0)
    with pytest.raises(UsageError, match="--mixture: column: 'n' is string, not a whole number"):
        planned(mixture="a=.5,b=.5", budget="10M", unit="tokens", column="n")
    assert planned(temperature=3.0, budget="1K").temperature == 3.0
    assert planned(by=["label", "n"], mixture="a/3=.5,b/4=.5").targets[0].values == ("a", "3")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({}, "give --target"),
        ({"by": ["lable"], "target": "equal"}, "--by: there is no column 'lable' — did you mean 'label'"),
        ({"by": ["split"], "target": "equal"}, "--by: 'split' is the split"),
        ({"by": ["label", "n", "label"], "target": "equal"}, "--by: 'label' is named twice"),
        ({"target": "a=-.5,b=1.5"}, "--target: '-.5' is not a share such as 0.3 or 30%"),
        ({"mixture": "a=nan,b=.5", "budget": "9"}, "--mixture: 'nan' is not a share"),
        ({"mixture": "", "budget": "9"}, "--mixture: write NAME=NUMBER"),
        ({"temperature": 0.0, "budget": "9"}, "--temperature: must be a number above 0, not 0"),
        ({"mixture": "a=1", "budget": "9", "epochs": 0.0}, "--epochs: must be a number above 0, not 0"),
        ({"mixture": "a=1", "budget": "0"}, "--budget: 0 rows would be left"),
        ({"target": "0"}, "--target: 0 rows would be left"),
        ({"target": "equal", "total": "0K"}, "--total: 0 rows would be left"),
        ({"target": "x"}, "--target: 'x' is none of equal, natural, a number"),
        ({"target": "a=5,a=6"}, "every name once"),
        ({"mixture": "a=.5,b=.4"}, "--mixture: shares: they add up to 0.9, not to 1"),
        ({"target": "equal", "budget": "1"}, "--target: rows of each stratum"),
        ({"mixture": "a=1", "unit": "tokens"}, "--column: needed for --unit tokens"),
        ({"target": "1", "total": "4"}, "--total: cannot be combined"),
        ({"temperature": 3.0}, "budget: needed"),
        ({"mixture": "a=1", "max_copies": 2}, "--max-copies can only be combined with --target"),
        ({"target": "5", "epochs": 2.0}, "--epochs can only be combined with --mixture or --budget"),
        ({"mixture": "a=1", "unit": "tokens", "column": "n", "tokenizer": "no.json"}, "no.json: cannot be read"),
        ({"mixture": "a=1", "unit": "bytes", "column": "n", "tokenizer": "no.json"}, "add --unit tokens"),
        ({"target": "equal", "into": "A b"}, "not a valid table name"),
        ({"target": "equal", "given": "b.csv"}, "neither a file or folder nor a table"),
    ],
)
def test_wrong_options_are_told_with_their_names(tmp_path, monkeypatch, options, complaint):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HeadgateError, match=complaint):
        planned(**options)


def test_classes_are_brought_to_targets(rebalance):
    rows = [f"{i},{'rare' if i % 10 == 0 else 'often'}" for i in range(200)]
    Path("a.csv").write_text("\n".join(["id,label", *rows]) + "\n")
    code, out, error = rebalance("a.csv", "--by", "label", "--target", "equal", "--into", "even", "--key", "id")
    assert code == 0, error
    assert answer("SELECT label, count(*) FROM even GROUP BY ALL ORDER BY 1") == [("often", 20), ("rare", 20)]
    assert "160 by even/1-sample_strata: not drawn for its stratum" in out
    assert "rows_before" in out and "rare" in out and [*answer("SELECT * FROM even LIMIT 0")] == []
    target = ("--target", "rare=50,often=30", "--max-copies", "3", "--json")
    code, out, error = rebalance("even_input", "--by", "label", *target, "--into", "more")
    assert code == 0, error
    strata = {s["stratum"]: (s["rows_before"], s["rows_after"]) for s in json.loads(out)["strata"]}
    assert strata == {"often": (180, 30), "rare": (20, 50)}
    assert answer("SELECT count(*) FROM more WHERE _parents IS NOT NULL") == [(30,)]


@pytest.mark.slow
def test_the_shares_that_sources_reach_are_in_the_summary_and_the_metrics(rebalance):
    rows = [f"{i},{'en' if i % 4 else 'zh'},{'x' * (1 + i % 9)}" for i in range(400)]
    Path("a.csv").write_text("\n".join(["id,lang,text", *rows]) + "\n")
    options = ["--mixture", "en=0.5,zh=0.5", "--budget", "601", "--unit", "characters", "--column", "text"]
    code, out, error = rebalance("a.csv", "--by", "lang", "--key", "id", *options, "--into", "mix")
    assert code == 0, error
    found = dict(answer("SELECT lang, sum(length(text))::BIGINT FROM mix GROUP BY ALL"))
    total = sum(found.values())
    about = f"(source en, asked 0.5, characters {found['en']})"
    assert f"mix: 1-mix_sources: share of a source: {found['en'] / total:,.4g} {about}" in out, out
    query = "SELECT result->>'source', value, (result->>'characters')::BIGINT FROM metrics WHERE kind = 'figure'"
    assert answer(f"{query} ORDER BY ALL") == [(s, n / total, n) for s, n in sorted(found.items())]
    ((told,),) = answer("SELECT tables FROM runs WHERE tables IS NOT NULL")
    (mix,) = (t for t in json.loads(told) if t["table"] == "mix")
    assert [f["facts"]["source"] for f in mix["figures"]] == ["en", "zh"]


@pytest.mark.slow
def test_a_table_whose_test_texts_were_seen_in_training_is_blocked(spark, tmp_path):
    table = """
  t:
    source: {format: csv, path: a.csv, schema: 'id INT, part STRING, text STRING', key: [id], on_changed_file: replace}
    steps:
      - split_by_column: {column: part}
      - find_leaks: {columns: [text]}
    suite: any
"""
    rule = "{type: expect_column_values_to_be_null, kwargs: {column: leak_of}, meta: {dimension: consistency}}"
    file = lakes.write_pipeline(tmp_path, table, rule)
    seen, other = (" ".join(f"{topic}{i}" for i in range(60)) for topic in "ab")
    lakes.land(tmp_path, "a.csv", f"id,part,text\n1,train,{seen}\n2,test,{seen} too\n3,test,{other}\n")
    with pytest.raises(GateBlocked, match="expect_column_values_to_be_null"):
        lakes.run_pipeline(spark, tmp_path, file)
    lakes.land(tmp_path, "a.csv", f"id,part,text\n1,train,{seen}\n2,train,{seen} too\n3,test,{other}\n")
    lakes.run_pipeline(spark, tmp_path, file)
    assert lakes.answer(tmp_path, "SELECT count(*), count(leak_of) FROM t") == [(3, 0)]


@pytest.mark.slow
def test_real_texts_are_mixed_by_tokens(rebalance, tmp_path):
    source = SHARED_DATA / "tx_sms_spam" / "sms_spam.csv"
    if not source.exists():
        pytest.skip(f"no data in {source}")
    options = ["--mixture", "ham=0.6,spam=0.4", "--unit", "tokens", "--column", "text", "--epochs", "1.5"]
    options += ["--tokenizer", str(tokenizer_file(tmp_path)), "--json"]
    code, out, error = rebalance(str(source), "--by", "type", *options, "--budget", "30K", "--into", "mix")
    assert code == 0, error
    strata = {s["stratum"]: s for s in json.loads(out)["strata"]}
    wanted = {"ham": 18_000, "spam": 12_000}
    assert all(abs(strata[s]["tokens_after"] - n) <= 0.005 * n for s, n in wanted.items()), strata
    assert all(strata[s]["rows_after"] < strata[s]["rows_before"] for s in wanted)
    assert answer("SELECT sum(tokens) FROM mix WHERE type = 'ham'") == [(strata["ham"]["tokens_after"],)]


@pytest.mark.slow
def test_bad_strata_are_strata_or_are_told_with_what_is_allowed(rebalance):
    values = ["1.5", "1.50", "-0.0", "0", "NaN", "NaN", "", "7"]
    rows = [f"{i},{x},{'test' if i == 1 else 'train'}" for i, x in enumerate(values)]
    Path("a.csv").write_text("\n".join(["id,x,split", *rows]) + "\n")
    schema = ("--schema", "id INT, x DOUBLE, split STRING", "--key", "id", "--by", "x")
    code, out, error = rebalance("a.csv", *schema, "--target", "1", "--into", "one")
    assert code == 0, error  # a float, a zero of either sign, NaN and null are a stratum each
    found = answer("SELECT (x + 0)::VARCHAR, count(*) FROM one WHERE split = 'train' GROUP BY ALL ORDER BY ALL")
    assert found == [("0.0", 1), ("1.5", 1), ("7.0", 1), ("nan", 1), (None, 1)]
    code, out, error = rebalance("a.csv", *schema, "--target", "3", "--max-copies", "2", "--into", "more")
    assert code == 0 and "fewer rows than asked for, as copies do not reach: ‹(null)›, ‹1.5›, ‹7.0›" in out
    Path("b.csv").write_text(
        "id,x\n1,a\n2,A\n3,A\n4,a \n5,\n6,null\n7,(null)\n"
    )  # names that differ by case, or a blank
    code, out, error = rebalance("b.csv", "--by", "x", "--target", "1", "--key", "id", "--into", "alike", "--json")
    assert code == 0, error
    strata = [(s["stratum"], s["rows_before"], s["rows_after"]) for s in json.loads(out)["strata"]]
    assert strata == [("A", 2, 1), *((s, 1, 1) for s in ("(null)", "\\(null)", "a", "a ", "null"))]
    code, _, error = rebalance("b.csv", "--by", "x", "--target", "a=1,B=1", "--key", "id", "--into", "unknown")
    assert code == 2 and "--target: targets: no training row is of 'B'" in error, error
    Path("c.csv").write_text("id,x\n1,a\n2,a\n")
    code, out, error = rebalance("c.csv", "--by", "x", "--target", "equal", "--key", "id", "--into", "one_class")
    assert code == 0 and answer("SELECT x, count(*) FROM one_class GROUP BY ALL") == [("a", 2)], error
    code, _, error = rebalance("a.csv", *schema, "--target", "equals", "--into", "bad")
    assert code == 2 and "did you mean 'equal'?" in error
    code, _, error = rebalance("a.csv", *schema, "--target", "1.5=.5,7=.4", "--others", "drop", "--into", "bad")
    assert code == 2 and "--target: targets: they add up to 0.9, not to 1" in error
    code, _, error = rebalance("a.csv", *schema, "--mixture", "1.5=50%,8=50%", "--budget", "2", "--into", "bad")
    assert code == 2 and "no training row is of '8.0'" in error
    Path("a.csv").write_text(Path("a.csv").read_text().replace("train", "validation"))
    code, _, error = rebalance("a.csv", *schema, "--target", "1", "--into", "none")
    assert code == 2 and "no row is in the split 'train'" in error and "validation: 7 rows, test: 1 rows" in error
