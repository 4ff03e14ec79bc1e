"""Reading Delta tables through pyarrow's own file systems, beside deltalake's own dataset."""

import subprocess
import sys
from datetime import date, datetime, timezone
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable, write_deltalake

from headgate.jobs.errors import HeadgateError, InputMissing
from headgate.jobs.lake.dataset import dataset
from headgate.jobs.lake.lake import Lake
from tests.conftest import ROOT

AT = datetime(2013, 1, 1, 0, 0, 0, 123456, tzinfo=timezone.utc)


def rows(**columns):
    return pa.table(columns)


def matches_deltalake(path, **options):
    """The rows of a table, which deltalake's own reader gives as well."""
    delta = DeltaTable(path, **options)
    found = dataset(delta)
    told = found.to_table()
    assert told.schema == pa.schema(delta.schema().to_arrow())
    assert sorted(map(repr, told.to_pylist())) == sorted(map(repr, delta.to_pyarrow_table().to_pylist()))
    return found


def test_partitions_with_any_text_are_read_from_the_log(tmp_path):
    path = str(tmp_path / "a b" / "é+t")
    texts = ["a b", "c%d", "é/ü", "x=y", "50%25", "", None]
    days = [date(2020, 1, i + 1) for i in range(7)]
    table = rows(name=texts, day=days, n=list(range(7)), t=pa.array([AT] * 7, pa.timestamp("us", "UTC")))
    write_deltalake(path, table, partition_by=["name", "day"])
    found = matches_deltalake(path)
    for text in ("a b", "c%d", "é/ü", "x=y", "50%25"):
        wanted = pc.field("name") == text
        assert found.to_table(filter=wanted)["n"].to_pylist() == [texts.index(text)]
        assert len(list(found.get_fragments(filter=wanted))) == 1
    assert found.to_table(columns=["t"])["t"].to_pylist() == [AT] * 7
    assert found.to_table(filter=pc.field("day") >= days[5]).num_rows == 2


KINDS = {
    pa.int32(): [1, 0, None],
    pa.int64(): [1 << 40, 0, None],
    pa.bool_(): [True, False, None],
    pa.date32(): [AT.date(), date(1969, 1, 1), None],
    pa.timestamp("us", "UTC"): [AT, AT.replace(year=1969), None],
    pa.float64(): [0.5, -1.0, None],
    pa.decimal128(10, 2): [Decimal("1.50"), Decimal("-2.00"), None],
}


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_partition_values_have_the_type_of_their_column(tmp_path, kind):
    values = pa.array(KINDS[kind], kind)
    write_deltalake(str(tmp_path), rows(p=values, n=[1, 2, 3]), partition_by=["p"])
    found = matches_deltalake(str(tmp_path)).to_table()
    assert found.schema.field("p").type == kind and set(found["p"].to_pylist()) == set(KINDS[kind])


def test_a_table_without_files_is_empty(tmp_path):
    schema = pa.schema([("a", pa.int64()), ("d", pa.decimal128(38, 18)), ("m", pa.map_(pa.string(), pa.string()))])
    DeltaTable.create(str(tmp_path), schema)
    found = matches_deltalake(str(tmp_path))
    assert found.count_rows() == 0 and found.schema == schema


def test_files_that_lack_a_later_column_have_nulls(tmp_path):
    path = str(tmp_path)
    write_deltalake(path, rows(a=[1], s=[{"x": 1}]))
    write_deltalake(path, rows(a=[2], s=[{"x": 2}], d=[Decimal("1.50")]), mode="append", schema_mode="merge")
    found = matches_deltalake(path)
    assert sorted(found.to_table().to_pylist(), key=lambda r: r["a"])[0] == {"a": 1, "s": {"x": 1}, "d": None}
    assert matches_deltalake(path, version=0).schema.names == ["a", "s"]
    DeltaTable(path).delete("a = 2")
    assert matches_deltalake(path).to_table()["a"].to_pylist() == [1]


def test_a_lake_gives_the_version_that_was_asked_for(tmp_path):
    lake = Lake(str(tmp_path))
    for n in (1, 2):
        write_deltalake(lake.path("t"), rows(a=[n]), mode="overwrite")
    assert [lake.dataset("t", v).to_table()["a"].to_pylist() for v in (0, 1, None)] == [[1], [2], [2]]
    with pytest.raises(InputMissing, match="no version 7"):
        lake.dataset("t", 7)
    with pytest.raises(InputMissing, match=r"no table 'tt' — did you mean 't'|no table 'tt'"):
        lake.dataset("tt", 1)


def test_a_table_whose_files_do_not_tell_its_rows_is_refused(tmp_path):
    mapped = {"delta.columnMapping.mode": "name", "delta.minReaderVersion": "2", "delta.minWriterVersion": "5"}
    write_deltalake(str(tmp_path), rows(a=[1]))
    delta = DeltaTable(str(tmp_path))
    log = tmp_path / "_delta_log" / f"{0:020}.json"
    text = log.read_text()
    log.write_text(text.replace('"configuration":{}', '"configuration":' + str(mapped).replace("'", '"')))
    assert log.read_text() != text
    with pytest.raises(HeadgateError, match=r"only be read by Spark: it uses columnMapping"):
        dataset(DeltaTable(str(tmp_path)))
    assert dataset(delta).count_rows() == 1


@pytest.mark.slow
def test_scripts_that_read_a_table_end_with_0(tmp_path):
    for i in range(4):
        write_deltalake(str(tmp_path / "t"), rows(a=list(range(1000)), b=[f"{i}"] * 1000), mode="append")
    script = f"import headgate; assert headgate.Lake({str(tmp_path)!r}).read('t').to_table().num_rows == 4000"
    for _ in range(10):
        done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
