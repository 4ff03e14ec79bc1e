"""Sources whose columns are mapped to those of the table that starts from them."""

import datetime
import random
import sys

import pytest
import yaml

from headgate.jobs.cli import main as cli
from headgate.jobs.cli.suggesting import suggest
from headgate.jobs.config.pipeline import load_pipeline
from headgate.jobs.errors import UsageError
from headgate.jobs.lake.lake import Lake
from headgate.transforms.cleaning.mapping import MapColumns
from headgate.transforms.step import StepError
from headgate.transforms.steps import options_of
from tests.conftest import SHARED_DATA, plain_rows
from tests.lakes import again, answer, land, write_pipeline
from tests.transforms.frames import applied, frame, kept, rejected

TABLES = """
  crm:
    source: {format: csv, path: 'crm.csv', schema: 'id STRING, full_name STRING, dob STRING, sex STRING', key: [id]}
    suite: null
  web:
    source: {format: csv, path: 'web.csv', schema: 'id STRING, name STRING, height STRING, seen STRING', key: [id]}
    suite: null
  people:
    from: [crm, web]
    mapping:
      crm:
        columns:
          name: full_name
          born: {of: dob, type: date, date_format: dd/MM/yyyy}
          sex: {of: sex, codes: {1: male, 2: female, 9: null}}
      web:
        columns:
          height_cm: {of: height, unit: inch, to_unit: cm, decimal: ","}
          seen: {of: seen, time_zone: Europe/Zurich}
    suite: null
"""


def test_a_mapping_stands_for_a_table_for_each_source(tmp_path):
    write_pipeline(tmp_path, TABLES)
    pipeline = load_pipeline(tmp_path / "p.yaml")
    assert pipeline.tables["people"].starts == ("people_crm", "people_web")
    assert pipeline.mapped == {"people_crm": "crm", "people_web": "web"}
    assert pipeline.order.index("people_crm") < pipeline.order.index("people")


@pytest.mark.parametrize(
    ("old", "new", "line", "told"),
    [
        (
            "      web:\n",
            "      wbe:\n",
            "wbe:",
            "tables.people.mapping.wbe: 'wbe' is not in from — did you mean 'web'",
        ),
        ("full_name\n", "full_nam\n", "crm:", "there is no column 'full_nam' here — did you mean 'full_name'"),
        ("unit: inch", "units: inch", "height_cm:", "unknown option 'units' — did you mean 'unit'"),
        ("to_unit: cm", "to_unit: kg", "web:", "height_cm: cannot convert 'inch' to 'kg'"),
        ("Europe/Zurich", "Europe/Zurch", "web:", "seen: 'Europe/Zurch' is no IANA time zone"),
        ("from: [crm, web]", "source: {format: parquet, path: x}", "mapping:", "it is of a table that starts from"),
        ("  crm:\n    so", "  people_web: {from: web, suite: null}\n  crm:\n    so", "web:", "'people_web' stands for"),
    ],
)
def test_what_is_wrong_with_a_mapping_is_named_with_its_line(tmp_path, old, new, line, told):
    file = write_pipeline(tmp_path, TABLES.replace(old, new, 1))
    with pytest.raises(UsageError) as error:
        load_pipeline(file)
    (text,) = str(error.value).splitlines()
    assert told in text and file.read_text().splitlines()[int(text.split(":")[1]) - 1].strip().startswith(line), text


@pytest.mark.slow
def test_mapped_sources_become_one_table(spark, tmp_path):
    write_pipeline(tmp_path, TABLES)
    land(
        tmp_path,
        "crm.csv",
        "id,full_name,dob,sex\n1,Ada,10/12/1815,2\n2,Bob,31/02/1990,1\n3,Cy,01/01/1970,7\n4,Di,,9\n",
    )
    land(tmp_path, "web.csv", 'id,name,height,seen\n1,Eve,"70,5",2024-07-01T12:00:00\n2,Fay,tall,\n')
    again(spark, tmp_path)
    query = (
        "select _source, id, name, cast(born as text), sex, round(height_cm, 2), epoch(seen) from people order by 1, 2"
    )
    assert answer(tmp_path, query) == [
        ("crm", "1", "Ada", "1815-12-10", "female", None, None),
        ("crm", "4", "Di", None, None, None, None),
        ("web", "1", "Eve", None, None, 179.07, 1719828000.0),
    ]
    query = "select table_name, reason, evidence['column'], evidence['value'] from ledger order by 1, 2"
    assert answer(tmp_path, query) == [
        ("people_crm", "unknown_code", "sex", "7"),
        ("people_crm", "wrong_type", "born", "31/02/1990"),
        ("people_web", "wrong_type", "height_cm", "tall"),
    ]


MAPPED = {
    "number": {"of": "n", "type": "int"},
    "c": {"of": "c", "codes": {"a": "alpha"}},
    "from_where": {"value": "here"},
}


def mapped(spark, columns, **others):
    """Return rows after a mapping, and those before."""
    rows = [(1, "7", "a", "3,5", "2024-01-01 10:00:00"), (2, None, "b", None, None), (3, "x", "a", "1", None)]
    df = frame(spark, "id int, n string, c string, w string, t string", *rows)
    return applied(options_of(MapColumns).validate_python({"columns": columns, **others}), df), df


def test_columns_are_mapped(spark):
    out, _ = mapped(spark, MAPPED)
    assert plain_rows(kept(out), "id", "number", "c", "from_where", "w") == [(1, 7, "alpha", "here", "3,5")]
    marked = {(r[1], r[2]["column"], r[2]["value"]) for r in plain_rows(rejected(out), "step", "reason", "evidence")}
    assert marked == {("unknown_code", "c", "b"), ("wrong_type", "number", "x")}


@pytest.mark.slow
def test_units_and_zones_are_mapped_and_what_cannot_be_is_null(spark):
    more = {
        "grams": {"of": "w", "unit": "kg", "to_unit": "g", "decimal": ","},
        "at": {"of": "t", "time_zone": "America/New_York"},
        "t": "t",
    }
    out, df = mapped(spark, MAPPED | more, invalid="null", others="drop")
    shown = ("number", "c", "from_where", "grams", "at", "t")
    assert sorted(out.columns) == sorted([*shown, *(c for c in df.columns if c.startswith("_"))])
    assert plain_rows(out, *shown[:5]) == [
        (7, "alpha", "here", 3500.0, datetime.datetime(2024, 1, 1, 15)),
        (None, "alpha", "here", 1000.0, None),
        (None, None, "here", None, None),
    ]
    changed = {r["_row_id"]: [c["column"] for c in r["_changed"]] for r in out.collect()}
    assert sorted(changed.values()) == [[], ["c"], ["number"]]


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"x": {"of": "a", "value": 1}}, "x: give exactly one of of and value"),
        ({"x": {}}, "x: give exactly one of of and value"),
        ({"x": {"of": "a", "unit": "kg"}}, "x: give unit and to_unit together"),
        ({"x": {"of": "a", "type": "int", "time_zone": "UTC"}}, "x: give one of type, unit and time_zone"),
        ({"x": {"of": "a", "type": "itn"}}, "x: there is no type 'itn'"),
        ({"b": "a"}, "b: the source has a column 'b' itself"),
        ({"x": {"value": 1, "codes": {"a": "b"}}}, "x: value: a constant has no codes"),
    ],
)
def test_mappings_that_cannot_be(columns, told):
    step = options_of(MapColumns).validate_python({"columns": columns})
    with pytest.raises(StepError) as error:
        step.columns_after({"a": "string", "b": "string"}, {})
    assert told in str(error.value)


def write_sources(folder):
    r = random.Random(1)
    crm = ["id,full_name,date_of_birth,gender,height_cm,zip"]
    new = ["key;name;dob;sex;height;postcode;notes"]
    for i in range(200):
        who, year = r.choice(["ada", "grace", "alan"]), r.randint(1950, 2000)
        month, day = f"{r.randint(1, 12):02}", f"{r.randint(1, 28):02}"
        sex, tall = r.choice(["male", "female"]), f"{r.gauss(67, 3):.1f}".replace(".", ",")
        crm.append(f"{i},{who} x{i},{year}-{month}-{day},{sex},{r.gauss(170, 8):.1f},{i}")
        new.append(f"{i};{who} x{i + 90};{day}/{month}/{year};{sex[0].upper()};{tall};{i};hello {i}")
    (folder / "crm.csv").write_text("\n".join(crm) + "\n")
    (folder / "new.csv").write_text("\n".join(new) + "\n")


def test_a_mapping_is_suggested_and_can_be_used(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_sources(tmp_path)
    monkeypatch.setattr(sys, "argv", ["headgate", "fuse", "crm.csv", "new.csv", "--key", "id,key", "--suggest"])
    assert cli.exit_code() == 0
    printed = capsys.readouterr()[0]
    assert "perhaps unit: inch, to_unit: cm" in printed and "# not mapped: notes" in printed
    assert yaml.safe_load(printed) == {
        "mapping": {
            "new": {
                "columns": {
                    "full_name": "name",
                    "date_of_birth": {"of": "dob", "type": "date", "date_format": "dd/MM/yyyy"},
                    "gender": {"of": "sex", "codes": {"F": "female", "M": "male"}},
                    "height_cm": {"of": "height", "type": "double", "decimal": ","},
                    "zip": "postcode",
                }
            }
        }
    }
    assert sorted(p.name for p in tmp_path.iterdir()) == ["crm.csv", "new.csv"], "nothing was written"
    source = "    source: {format: csv, path: new.csv, delimiter: ';', schema: 'key STRING, name STRING, dob STRING, "
    source += "sex STRING, height STRING, postcode STRING, notes STRING', key: [key]}\n    suite: null\n"
    block = "".join(f"    {line}\n" for line in printed.splitlines())
    load_pipeline(write_pipeline(tmp_path, f"  new:\n{source}  people:\n    from: new\n{block}    suite: null\n"))


def test_real_columns_find_each_other(tmp_path, monkeypatch):
    folder = SHARED_DATA / "em_dblp_acm"
    if not folder.is_dir():
        pytest.skip(f"the data set {folder} is not there")
    dblp, acm = ((folder / f"{n}.csv").read_text(errors="replace") for n in ("dblp", "acm"))
    (tmp_path / "dblp.csv").write_text(dblp.replace("%", "\t"))
    header, rest = acm.split("\n", 1)
    assert header == "id%title%authors%venue%year"
    (tmp_path / "acm.csv").write_text("pid\tname\twritten_by\tconf\tpublished\n" + rest.replace("%", "\t"))
    monkeypatch.chdir(tmp_path)
    found = suggest(["dblp.csv", "acm.csv"], (), None, Lake("lake"))["sources"][0]
    pairs = {p.to: p.of for p in found["proposals"]}
    assert pairs == {"id": "pid", "title": "name", "authors": "written_by", "year": "published"}
    assert found["without"] == ["conf"] and found["left"] == ["venue"]


def test_codes_that_yaml_reads_as_booleans_are_texts():
    step = options_of(MapColumns).validate_python(
        {"columns": {"s": {"of": "g", "codes": {True: "m", "x": False, 7: 1}}}}
    )
    assert step.columns["s"].codes == {"true": "m", "x": "false", 7: 1}
