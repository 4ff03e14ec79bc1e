"""`headgate apply`: new rows as a table's steps made its own, by what a release's build learned, and back."""

from datetime import datetime, timezone

import pytest

from headgate.jobs.cli.applying import Application, pipeline_of
from headgate.jobs.errors import InputMissing, UsageError
from headgate.jobs.lake.artifacts import fitted_of
from headgate.jobs.lake.commits import Published
from headgate.jobs.lake.storage import remove
from headgate.jobs.pipeline.new_rows import Learned, for_new_rows, undoing
from headgate.transforms.balancing.split import SplitByHash
from headgate.transforms.deduplication.exact import DropDuplicates
from headgate.transforms.features.aggregate import Aggregate, Summary
from headgate.transforms.imputation.series import ImputePrevious
from headgate.transforms.scaling.linear import ScaleLinear
from headgate.transforms.scaling.logs import TransformLog
from headgate.transforms.scaling.norms import ScaleUnitNorm
from tests.lakes import again, answer, lake_of, land, write_pipeline, write_suite

pytest.importorskip("sklearn")
NAMES = ("id", "shop", "size", "colour", "weight", "price")
TABLES = """
  raw:
    source:
      format: csv
      path: 'raw/*.csv'
      schema: 'id INT, shop STRING, size STRING, colour STRING, weight DOUBLE, price DECIMAL(8,2)'
      key: [id]
      on_changed_file: replace
    suite: null
  shops:
    source: {format: csv, path: shops.csv, schema: 'shop STRING, city STRING', on_changed_file: replace}
    suite: null
  t:
    from: raw
    suite: null
    steps:
      - drop_duplicates: {columns: [id]}
      - reject_rows: {where: 'weight < 0', reason: negative}
      - join_table: {table: shops, on: {shop: shop}, columns: {city: city}, matched: known_shop}
      - split_by_hash: {key: [id], shares: {train: 0.7, test: 0.3}}
      - impute_mean: {columns: [weight], by: [size]}
      - class_weights: {label: colour, into: class_weight}
      - encode_target: {columns: [shop], target: price}
      - encode_ordinal: {columns: [size], order: {size: [small, medium, large]}}
      - transform_log: {columns: [price]}
      - transform_power: {columns: [weight]}
      - scale_standard: {columns: [price], by: [size]}
      - encode_one_hot: {columns: [colour], least: 3}
"""
STAYING = "id, city, known_shop, weight, price, shop, size, colour_blue, colour_green, colour_red, colour_rare"


def goods(first: int, last: int, dearer: int = 0):
    for i in range(first, last):
        weight = "" if i % 9 == 4 else "-1" if i == 77 else f"{1 + (i * 7919 % 101) / 10}"
        colour = ["red", "blue", "green"][i * 31 % 3] if i % 40 != 7 else f"odd{i}"
        price = f"{3 + (i * 7907 % 997) / 7 + dearer:.2f}"
        yield str(i), f"s{i * 13 % 5}", ["small", "large", "medium"][i * 17 % 3], colour, weight, price


def text(rows, names=NAMES):
    return "\n".join([",".join(names), *(",".join(row) for row in rows)]) + "\n"


@pytest.fixture
def apply(in_session):
    return in_session("apply")


@pytest.mark.slow
def test_new_rows_get_what_the_rows_of_the_test_split_got_and_come_back(spark, tmp_path, apply):
    write_pipeline(tmp_path, TABLES)
    rows = list(goods(0, 160))
    land(tmp_path, "raw/1.csv", text([*rows, *rows[:5]]))
    land(tmp_path, "shops.csv", "shop,city\n" + "".join(f"s{i},c{i}\n" for i in range(4)))
    again(spark, tmp_path)
    held_out = {str(i) for (i,) in answer(tmp_path, "select id from t where split = 'test'")}
    assert len(held_out) > 30
    (tmp_path / "new.csv").write_text(text([r for r in rows if r[0] in held_out or r[0] == "77"]))
    code, out, error = apply("t", "new.csv", "--key", "id", "--into", "u")
    assert code == 0, error
    assert "left out for new rows: t/0-drop_duplicates" in out and "by t@0: t/1-reject_rows, t/2-join_table" in out
    built = answer(tmp_path, f"select {STAYING} from t where split = 'test' order by id")
    assert answer(tmp_path, f"select {STAYING} from u order by id") == built
    assert set(answer(tmp_path, "select split, class_weight from u")) == {("new", None)}
    gone = answer(tmp_path, "select step, reason from ledger where table_name = 'u'")
    assert gone == [("u/0-reject_rows", "negative")]

    # Another build, of other training rows and another dimension, does not change what the release says.
    land(tmp_path, "raw/2.csv", text(goods(200, 300, dearer=500)))
    land(tmp_path, "shops.csv", "shop,city\n" + "".join(f"s{i},d{i}\n" for i in range(4)))
    again(spark, tmp_path)
    code, out, error = apply("t@p-1", "new.csv", "--key", "id", "--into", "of_release")
    assert code == 0 and "by t@0" in out, error
    assert answer(tmp_path, f"select {STAYING} from of_release order by id") == built

    # Predictions of the price, and the colours, of rows as the table has them, come back as they were.
    scaled = answer(tmp_path, "select id, size, price, colour_blue, colour_green, colour_red, colour_rare from u")
    names = ("id", "size", "price", "colour_blue", "colour_green", "colour_red", "colour_rare")
    (tmp_path / "scaled.csv").write_text(text([[str(c) for c in row] for row in scaled], names))
    code, out, error = apply("t@p-1", "scaled.csv", "--inverse", "--key", "id", "--into", "back")
    assert code == 0 and "undo add_indicators, undo scale_linear" in out, error
    there = {row[0]: row for row in rows}
    for i, size, colour, price in answer(tmp_path, "select id, size, colour, price from back"):
        known = there[str(i)]
        assert (size, colour) == (known[2], None if known[3].startswith("odd") else known[3])
        assert price == pytest.approx(float(known[5]), rel=1e-12)

    lake = lake_of(tmp_path)
    (tmp_path / "other.csv").write_text("id,shop,size,weight,price,extra\n1,s1,small,1,2,3\n")
    land(tmp_path, "new/a.csv", text(rows[:3]))
    told = {
        ("t", "other.csv", "v", ()): "other.csv: the columns are not those that the steps know: missing 'colour'; "
        "unexpected ‹extra›",
        ("t", "other.csv", "v", ("colour",)): "unexpected ‹extra›",
        ("t", "new.csv", "v", ("colour",)): "'colour' is there, though --without names it",
        ("t", "new.csv", "v", ("color",)): "--without: there is no column 'color' — did you mean 'colour'",
        ("t", "u", "v", ()): "'size' is int, not string",
        ("raw", "new.csv", "v", ()): "'raw@1' was not made by steps",
        ("t", "new.csv", "shops", ()): "--into: the table 'shops' exists and is not of `headgate apply`",
        ("t@2", "new.csv", "v", ()): "table 't' has no version 2",
        ("t@p-9", "new.csv", "v", ()): "there is no release 'p-9' — did you mean",
        ("t", "nowhere.csv", "v", ()): "nowhere.csv: neither a file or folder nor a table of the lake",
    }
    for (table, given, into, without), expected in told.items():
        request = Application(table=table, given=given, into=into, without=without)
        with pytest.raises((UsageError, InputMissing)) as raised:
            pipeline_of(request, lake)
        assert expected in str(raised.value) and "\n" not in str(raised.value), raised.value
    with pytest.raises(UsageError, match="unexpected ‹extra›"):
        pipeline_of(Application(table="t", given="other.csv", into="v", inverse=True), lake)
    remove(fitted_of(lake, "t", lake.published("t", 0).facts["state"]))
    with pytest.raises(InputMissing, match="what the steps of 't@0' learned is not there any more"):
        pipeline_of(Application(table="t@p-1", given="new.csv", into="v"), lake)


@pytest.mark.slow
def test_rows_without_the_label_are_gated_and_taken_up_once(spark, tmp_path, apply):
    write_pipeline(tmp_path, TABLES)
    land(tmp_path, "raw/1.csv", text(goods(0, 160)))
    land(tmp_path, "shops.csv", "shop,city\ns1,c1\n")
    again(spark, tmp_path)
    land(tmp_path, "new/a.jsonl", '{"id": 900, "shop": "s1", "size": "huge", "colour": "pink", "weight": 2.5}\n')
    rule = "{type: expect_column_values_to_not_be_null, kwargs: {column: size}, meta: {dimension: completeness}}"
    write_suite(tmp_path, "gate", rule)
    arguments = ("t", str(tmp_path / "landing" / "new"), "--key", "id", "--without", "price", "--into", "u")
    code, _, error = apply(*arguments, "--suite", "gate.yaml")
    assert code == 3 and "size" in error, error
    code, _, error = apply(*arguments)
    assert code == 0, error
    assert answer(tmp_path, "select id, size, price, colour_rare, city from u") == [(900, None, None, 0, "c1")]
    land(tmp_path, "new/b.jsonl", '{"id": 901, "shop": "s9", "size": "small", "colour": "red", "weight": null}\n')
    code, _, error = apply(*arguments)
    assert code == 0 and answer(tmp_path, "select count(*), count(weight) from u") == [(2, 2)], error
    land(tmp_path, "new/b.jsonl", '{"id": 902, "shop": "s9", "size": "small", "colour": "red", "weight": null}\n')
    code, _, error = apply(*arguments)
    assert code == 0 and answer(tmp_path, "select id from u order by id") == [(900,), (902,)], error


def learned(*steps):
    placed = [step.at(f"t/{i}-{step.name}") for i, step in enumerate(steps)]
    published = Published("t", "", 0, 1, datetime.now(timezone.utc), "", {}, 0)
    return Learned(published=published, columns={"x": "double"}, steps=placed, pins={})


SCALED = ScaleLinear(columns={"x": (1.0, 2.0)}, kinds={"x": "double"})


def test_steps_that_look_at_other_rows_are_refused_by_name():
    series = ImputePrevious(columns=("x",), by=("g",), order="at")
    with pytest.raises(UsageError, match="'t/0-impute_previous' compares rows"):
        for_new_rows(learned(series))
    with pytest.raises(UsageError, match="'t/1-aggregate' compares rows or sums them up"):
        for_new_rows(learned(SCALED, Aggregate(by=("g",), columns={"n": Summary(how="count")})))
    applied, left_out = for_new_rows(learned(DropDuplicates(columns=("x",)), SCALED))
    assert [s.id for s in applied] == ["t/1-scale_linear"] and [s.id for s in left_out] == ["t/0-drop_duplicates"]


def test_what_cannot_be_undone_is_refused_by_name():
    unit, other = ScaleUnitNorm(columns=("x", "y")), ScaleUnitNorm(columns=("y", "z"))
    with pytest.raises(UsageError, match="'t/1-scale_unit_norm' cannot be undone, and it has to do with x"):
        undoing(learned(SCALED, unit), ["x"], ["x"])
    steps = undoing(learned(unit, SCALED, other, SplitByHash(key=("x",)), TransformLog(columns=("z",))), ["x"], ["x"])
    assert [s.step for s in steps] == ["transform_log", "scale_linear"]
    with pytest.raises(UsageError, match="no step of table 't' can be undone: t/0-scale_unit_norm"):
        undoing(learned(unit), ["x"], ["x"])
    with pytest.raises(UsageError, match=r"none of the columns that can be undone is there \(x\)"):
        undoing(learned(SCALED), ["y"], ["x", "y"])
