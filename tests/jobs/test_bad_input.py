"""Every row of docs/bad-input.md, run as it is written there."""

import gzip
import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from headgate.jobs.errors import HeadgateError
from headgate.jobs.explore import queries
from headgate.jobs.lake.lake import Lake
from headgate.jobs.progress import Progress
from tests.conftest import same
from tests.lakes import ROOT, Faults, land, run_pipeline, write_pipeline


def documented() -> dict[str, str]:
    """input -> outcome, as the table of the documentation says."""
    lines = (ROOT / "docs" / "bad-input.md").read_text().splitlines()
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return {row[0]: row[1] for row in rows[1:]}


@dataclass
class Place:
    """A folder with landing/ and lake/, and the pipeline of one table `t`."""

    folder: Path
    spark: Any
    source: str = "format: csv, path: 't/*.csv', schema: 'id INT, v STRING', key: [id]"
    more: str = ""
    suite_of_t: str = "null"  # where the suite is what a row is about: any
    lake_at: Path | None = None
    progress: Progress | None = None

    def land(self, name: str, content: str | bytes) -> Path:
        return land(self.folder, f"t/{name}", content)

    @property
    def lake(self) -> Lake:
        return Lake(str(self.lake_at or self.folder / "lake"))

    def run(self, **options: Any) -> Any:
        more = f"    suite: {self.suite_of_t}\n    quarantine_ceiling: 1\n{self.more}"
        file = write_pipeline(self.folder, f"  t:\n    source: {{{self.source}}}\n{more}")
        return run_pipeline(self.spark, self.folder, file, self.lake_at, self.progress, **options)

    def rows(self, columns: str = "*", table: str = "t") -> list[dict[str, Any]]:
        return queries.sql(self.lake, f"select {columns} from {table} order by all", None, None).to_pylist()

    def ledger(self) -> list[dict[str, Any]]:
        found = queries.sql(self.lake, "select step, reason, evidence from ledger order by all", None, None)
        return [r | {"evidence": dict(r["evidence"])} for r in found.to_pylist()]


@dataclass
class Case:
    """How to bring about an input, and what must be so afterwards; `told` is what the refusal must say."""

    given: Callable[[Place], Any]
    told: str = ""
    then: Callable[[Place], Any] = field(default=lambda place: None)


def parquet(place: Place, name: str, **columns: pa.Array) -> None:
    file = place.folder / "landing" / "t" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), file)


def of(kind: str, schema: str | None = "id INT, v STRING", **options: str) -> Callable[[Place], None]:
    """A source of another format or with other options."""

    def change(place: Place) -> None:
        told = [f"format: {kind}", f"path: 't/*.{kind}*'", *([f"schema: '{schema}'"] if schema else [])]
        place.source = ", ".join([*told, *(f"{k}: {v}" for k, v in options.items())])

    return change


def lands(name: str, content: str | bytes, *first: Callable[[Place], Any]) -> Callable[[Place], Any]:
    def given(place: Place) -> None:
        for change in first:
            change(place)
        place.land(name, content)

    return given


def published(*expected: tuple[Any, ...], columns: str = "id, v") -> Callable[[Place], None]:
    def then(place: Place) -> None:
        found = [tuple(r.values()) for r in place.rows(columns)]
        wanted = list(expected)
        assert len(found) == len(wanted) and all(same(a, b) for a, b in zip(found, wanted, strict=True)), found

    return then


def told_by_ledger(*reasons: str, **evidence: str | None) -> Callable[[Place], None]:
    def then(place: Place) -> None:
        found = place.ledger()
        assert [r["reason"] for r in found] == list(reasons), found
        for name, value in evidence.items():
            assert found[0]["evidence"].get(name) == value, found

    return then


def both(*checks: Callable[[Place], None]) -> Callable[[Place], None]:
    return lambda place: [check(place) for check in checks] and None


GOOD = "id,v\n1,x\n"
BEFORE = (1, "x")  # what the table holds before the case, where the case starts from a published table


def grows(place: Place) -> None:
    place.land("a.csv", GOOD)
    place.run()
    file = place.land("b.csv", "id,v\n2,y\n")

    def grow() -> None:
        with file.open("a") as more:
            more.write("3,z\n")

    place.progress = Faults(before={("t", "stage"): grow})


def vanishes(place: Place) -> None:
    place.more = "  u:\n    from: t\n    suite: any\n"
    place.land("a.csv", GOOD)
    place.run(tables=("t",))
    shutil.rmtree(place.folder / "lake" / "t")
    shutil.rmtree(place.folder / "landing")


def delta_vanishes(place: Place) -> None:
    place.source = "format: delta, path: t, key: [id]"
    source = place.folder / "landing" / "t"
    write_deltalake(str(source), pa.table({"id": [1], "v": ["x"]}))
    place.run()
    shutil.rmtree(source)


def empty_input(place: Place) -> None:
    place.source = "format: delta, path: t, key: [id]"
    write_deltalake(str(place.folder / "landing" / "t"), pa.table({"id": pa.array([], pa.int32())}))
    place.more = "  u:\n    from: t\n    suite: any\n"
    place.run(tables=("t",))


def not_writable(place: Place) -> None:
    place.land("a.csv", GOOD)
    (place.folder / "file").write_text("")
    place.lake_at = place.folder / "file" / "lake"


def full_disk(place: Place) -> None:
    """A file system of 2 MB for the lake."""
    disk = place.folder / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a small file system needs the right to mount: {done.stderr.strip()}")
    place.lake_at = disk / "lake"
    place.land("a.csv", GOOD)
    place.run()
    text = "".join(f"{i},{hash_of(i)}\n" for i in range(60_000))
    place.land("b.csv", "id,v\n" + text)


def hash_of(i: int) -> str:
    import hashlib

    return hashlib.sha256(str(i).encode()).hexdigest()


def room_again(place: Place) -> None:
    disk = place.folder / "disk"
    try:
        assert [tuple(r.values()) for r in place.rows("id, v")] == [BEFORE]
        subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
        place.run()
        assert len(place.rows()) == 60_001
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def changed(place: Place) -> None:
    place.land("a.csv", GOOD)
    place.run()
    place.land("a.csv", "id,v\n1,xx\n2,y\n")


def mended(place: Place) -> None:
    place.source += ", on_bad_file: quarantine"
    place.land("a.csv", GOOD)
    place.land("b.csv", b"id,v\n2,\xff\n")
    place.run()
    place.land("b.csv", "id,v\n2,y\n")


def avro(place: Place) -> None:
    of("avro", on_bad_file="quarantine")(place)
    folder = place.folder / "landing" / "t"
    for i, frame in enumerate(("1 AS id, 'x' AS v", "'two' AS id, 'y' AS v")):
        place.spark.sql(f"SELECT {frame}").coalesce(1).write.format("avro").save(str(folder / f"f{i}"))
        next((folder / f"f{i}").glob("*.avro")).rename(folder / f"{i}.avro")
        shutil.rmtree(folder / f"f{i}")


def narrow(place: Place) -> None:
    of("parquet", "id BIGINT, v STRING")(place)
    parquet(place, "a.parquet", id=pa.array([1], pa.int32()), v=pa.array(["x"]))


def in_two_nights(first: Callable[[Place], Any], second: Callable[[Place], Any]) -> Callable[[Place], Any]:
    def given(place: Place) -> None:
        first(place)
        place.run()
        second(place)

    return given


EVOLVE = of("csv", key="[id]", on_other_columns="evolve")
JSON = of("jsonl", key="[id]")
TWO = lands("a.csv", GOOD)
CASES = {
    "malformed line": Case(
        lands("a.csv", "id,v\n1,x\n2,y,z\n"),
        then=told_by_ledger("malformed_record", file="t/a.csv", line="3", text="2,y,z"),
    ),
    "malformed line of JSON": Case(
        lands("a.jsonl", '{"id": 1, "v": "x"}\n{"id": \n', JSON), then=told_by_ledger("malformed_record", line="2")
    ),
    "malformed text over two lines": Case(
        lands("a.csv", 'id,v\n1,"x\ny"\nbad,"x\ny",z\n'),
        then=told_by_ledger("malformed_record", line="4", text='bad,"x\ny",z'),
    ),
    "truncated gzip": Case(
        lands("a.csv.gz", gzip.compress(b"id,v\n" + b"1,x\n" * 999)[:-9], of("csv")),
        r"a\.csv\.gz: .*corrupt or truncated",
    ),
    "truncated gzip, on_bad_file: quarantine": Case(
        lands("b.csv.gz", gzip.compress(b"id,v\n1,x\n")[:-9], of("csv", on_bad_file="quarantine"), TWO),
        then=both(published(BEFORE), told_by_ledger("file_set_aside", file="t/b.csv.gz")),
    ),
    "set aside, then mended": Case(mended, then=published(BEFORE, (2, "y"))),
    "wrong header": Case(lands("a.csv", "x,y\n1,2\n"), "missing 'id', missing 'v', unexpected ‹x›, unexpected ‹y›"),
    "columns in another order": Case(lands("a.csv", "v,id\nx,1\n"), "'v' stands where 'id' should"),
    "columns in another order, on_other_columns: evolve": Case(
        lands("a.csv", "v,id\nx,1\n", EVOLVE), then=published(BEFORE)
    ),
    "missing column": Case(lands("a.csv", "id\n1\n"), "missing 'v'"),
    "missing column, on_other_columns: evolve": Case(
        lands("b.csv", "id\n2\n", EVOLVE, TWO), then=published(BEFORE, (2, None))
    ),
    "missing column, on_other_columns: quarantine": Case(
        lands("b.csv", "id\n2\n", of("csv", on_other_columns="quarantine"), TWO),
        then=both(published(BEFORE), told_by_ledger("file_set_aside", file="t/b.csv")),
    ),
    "extra column in the middle of the year": Case(
        in_two_nights(TWO, lands("b.csv", "id,v,w\n2,y,z\n")), "unexpected ‹w›"
    ),
    "extra column, on_other_columns: evolve": Case(
        in_two_nights(lands("a.csv", GOOD, EVOLVE), lands("b.csv", "id,v,w\n2,y,z\n")),
        then=published((1, "x", None), (2, "y", "z"), columns="id, v, w"),
    ),
    "extra member of JSON": Case(lands("a.jsonl", '{"id": 1, "v": "x", "w": {"a": 1}}\n', JSON), "unexpected ‹w›"),
    "extra member of JSON, on_other_columns: evolve": Case(
        lands("a.jsonl", '{"id": 1}\n{"id": 2, "w": {"a": 1}}\n', of("jsonl", key="[id]", on_other_columns="evolve")),
        then=published((1, None, None), (2, None, '{"a": 1}'), columns="id, v, w"),
    ),
    "extra column of Parquet, on_other_columns: evolve": Case(
        in_two_nights(
            lambda p: (of("parquet", None, on_other_columns="evolve")(p), parquet(p, "a.parquet", id=pa.array([1]))),
            lambda p: parquet(p, "b.parquet", id=pa.array([2]), w=pa.array([0.5])),
        ),
        then=published((1, None), (2, 0.5), columns="id, w"),
    ),
    "changed type in a text file": Case(
        lands("a.csv", "id,v\n1,x\none,y\n"),
        then=both(published(BEFORE), told_by_ledger("wrong_type", line="3", column="id", value="one", type="int")),
    ),
    "changed type in Parquet": Case(
        lambda p: (of("parquet")(p), parquet(p, "a.parquet", id=pa.array(["one"]), v=pa.array(["x"]))),
        "column 'id' is string, where int is expected",
    ),
    "changed type in Avro, on_bad_file: quarantine": Case(
        avro, then=both(published(BEFORE), told_by_ledger("file_set_aside", file="t/1.avro"))
    ),
    "narrower type in Parquet": Case(narrow, then=published(BEFORE)),
    "no Parquet file at all": Case(lands("a.parquet", "hello", of("parquet")), "no readable Parquet file"),
    "wrong encoding": Case(lands("a.csv", "id,v\n1,é\n".encode("latin-1")), r"line 2 is not utf-8 \(at byte 7"),
    "right encoding named": Case(
        lands("a.csv", "id,v\n1,北京\nbad,x\n".encode("gb18030"), of("csv", encoding="gb18030")),
        then=both(published((1, "北京")), told_by_ledger("wrong_type", line="3", value="bad")),
    ),
    "UTF-16 by its first bytes": Case(lands("a.csv", "id,v\n1,x\n".encode("utf-16")), "it is UTF-16"),
    "byte order mark of UTF-8": Case(lands("a.csv", b"\xef\xbb\xbf" + GOOD.encode()), then=published(BEFORE)),
    "NUL byte": Case(lands("a.csv", b"id,v\n1,x\n2,\0\n"), r"line 3 holds a NUL byte \(at byte 11\)"),
    "line of 100 MB": Case(lands("a.csv", b"id,v\n1,x\n2," + b"y" * 100_000_000 + b"\n3,z\n"), "line 3 is longer than"),
    "quoted newline": Case(
        lands("a.csv", 'id,v\n1,"x\ny"\n2,"a ""b""\nc"\n'), then=published((1, "x\ny"), (2, 'a "b"\nc'))
    ),
    "quoted newlines beside a stray quote": Case(
        lands("b.csv", 'id,v\n2,6" pipe\n', lands("a.csv", 'id,v\n1,"x\ny"\n')),
        then=published((1, "x\ny"), (2, '6" pipe')),
    ),
    "empty file": Case(lands("b.csv", "", TWO), then=published(BEFORE)),
    "day without rows": Case(
        in_two_nights(lambda p: (setattr(p, "suite_of_t", "any"), TWO(p)), lands("b.csv", "id,v\n")),
        then=published(BEFORE),
    ),
    "file that grows while it is read": Case(grows, r"b\.csv: the file changed while it was being read"),
    "other content under a known name": Case(changed, r"9 bytes then, 14 now"),
    "other content, on_changed_file: replace": Case(
        lambda p: (of("csv", key="[id]", on_changed_file="replace")(p), changed(p)), then=published((1, "xx"), (2, "y"))
    ),
    "column named twice": Case(lands("a.csv", "id,v,v\n1,x,y\n"), "names the column ‹v› twice"),
    "column named twice in the schema": Case(
        lands("a.csv", GOOD, of("csv", "id INT, v STRING, V STRING")), "duplicate column 'v'"
    ),
    "names with dots, backquotes and Chinese": Case(
        lands(
            "a.csv",
            "a.b,`q`,名,c'd\n1,x,y,z\n",
            of(
                "csv",
                "`a.b` INT, ```q``` STRING, `名` STRING, `c\\'\\'d` STRING".replace("\\'\\'", "''"),
                key="['a.b']",
            ),
        ),
        then=published((1, "x", "y", "z"), columns='"a.b", "`q`", "名", "c\'d"'),
    ),
    "name with a space": Case(lands("a.csv", "a b\n1\n", of("csv", "`a b` INT")), "'a b' cannot be published"),
    "name with a space, renamed": Case(
        lambda p: (
            lands("a.csv", "a b\n1\n", of("csv", "`a b` INT", key="[a b]"))(p),
            setattr(p, "more", "    steps:\n      - rename: {columns: {a b: c}}\n"),
        ),
        then=published((1,), columns="c"),
    ),
    "date outside 0001 to 9999": Case(
        lands(
            "a.jsonl", '{"id": 1, "v": "2020-01-01"}\n{"id": 2, "v": "+12345-01-01"}\n', of("jsonl", "id INT, v DATE")
        ),
        then=told_by_ledger("wrong_type", column="v", value="+12345-01-01"),
    ),
    "text that is no date": Case(
        lands("a.csv", "id,v\n1,2020-01-01\n2,2020-02-30\n3,0000-00-00\n", of("csv", "id INT, v DATE")),
        then=told_by_ledger("wrong_type", "wrong_type"),
    ),
    "NaN, infinities and -0.0": Case(
        lands("a.csv", "id,v\n1,NaN\n2,Infinity\n3,-Infinity\n4,-0.0\n", of("csv", "id INT, v DOUBLE")),
        then=both(
            published((1, math.nan), (2, math.inf), (3, -math.inf), (4, -0.0)),
            lambda p: math.copysign(1, p.rows("id, v")[3]["v"]) == -1.0 or pytest.fail("the sign is lost"),
        ),
    ),
    "decimal that overflows": Case(
        lands("a.csv", "id,v\n1,999.99\n2,1000.00\n", of("csv", "id INT, v DECIMAL(5,2)")),
        then=told_by_ledger("wrong_type", value="1000.00"),
    ),
    "input table that vanishes": Case(vanishes, "table 't': no file matches"),
    "Delta source that vanishes": Case(delta_vanishes, "there is no Delta table 't' any more"),
    "input table without rows": Case(empty_input, "the gate blocked table 'u'"),
    "lake that is not writable": Case(not_writable, "cannot be written"),
    "full disk": Case(full_disk, "No space left on device", then=room_again),
}


def test_the_documentation_and_the_cases_are_the_same():
    assert list(CASES) == list(documented())


@pytest.mark.parametrize("name", CASES)
def test_bad_input(spark, tmp_path, name):
    outcome, case = documented()[name], CASES[name]
    place = Place(tmp_path / "place", spark)
    place.folder.mkdir()
    case.given(place)
    kind, _, code = outcome.partition(" ")
    before = state(place)
    if kind in ("refused", "blocked"):
        with pytest.raises(HeadgateError, match=case.told) as e:
            place.run()
        assert e.value.exit_code == int(code)
        assert state(place) == before, "a published table changed"
    else:
        assert kind in ("ledger", "set", "evolved", "taken"), outcome
        place.run()
    case.then(place)


def state(place: Place) -> dict[str, Any]:
    """Version and content of every table that is published."""
    if place.lake_at is not None and not place.lake_at.is_dir():
        return {}
    told = {}
    for table in place.lake.tables():
        if table == "t":
            delta = DeltaTable(place.lake.path(table))
            told[table] = (
                delta.version(),
                sorted(json.dumps(r, default=str) for r in delta.to_pyarrow_table().to_pylist()),
            )
    return told


@pytest.mark.slow
def test_a_refusal_is_one_line_on_the_command_line(tmp_path):
    """The exit code and the message as a person meets them."""
    from tests.jobs.test_cli import headgate

    place = Place(tmp_path, None)
    place.land("a.csv", b"id,v\n1,\0\n")
    with pytest.raises(Exception, match="NoneType"):
        place.run()
    done = headgate("run", "p.yaml", cwd=tmp_path)
    assert done.returncode == 4, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert re.match(r"headgate: t/a\.csv: line 2 holds a NUL byte", last), done.stderr
    assert "Traceback" not in done.stderr
