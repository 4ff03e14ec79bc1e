"""Small files put together, and rows in another order: the same rows for every reader, in a version of their own."""

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from headgate.jobs.cli import main as cli
from headgate.jobs.errors import HeadgateError, LostRace, UsageError
from headgate.jobs.keep import optimize as optimizing
from headgate.jobs.keep.optimize import optimize
from headgate.jobs.keep.retention import vacuum
from headgate.jobs.keep.storage import storage
from headgate.jobs.lake.arranging import Order
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.lease import held
from headgate.jobs.lake.transaction import Change, commit
from tests.jobs.test_lease import NO_TIME
from tests.jobs.test_transaction import COLUMNS, SCHEMA, log, some_rows, written

NESTED = pa.schema(
    [
        ("id", pa.int64()),
        ("tags", pa.list_(pa.string())),
        ("scores", pa.map_(pa.string(), pa.float64())),
        ("place", pa.struct([("city", pa.string()), ("at", pa.timestamp("us", tz="UTC"))])),
        ("raw", pa.binary()),
    ]
)
NESTED_ROWS = [
    {"id": i, "tags": ["a", None], "scores": [("x", 0.5)], "place": {"city": "ü\0", "at": None}, "raw": b"\xff\0"}
    for i in range(9)
] + [dict.fromkeys(NESTED.names)]


def texts(table: pa.Table) -> list[str]:
    return sorted(map(str, table.to_pylist()))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A lake with table `t` of three builds, and `nested` of two."""
    lake, choose = Lake(str(tmp_path)), random.Random(5)
    for base in (-1, 0, 1):
        rows = some_rows(choose, (40, 1, 13)[base + 1])
        files = written(Path(lake.path("t")), f"p{base + 1}", rows)
        facts = {"build": f"b{base + 1}", "base": base, "content_total": f"c{base + 1}"}
        change = Change("WRITE", files, (), ("t", base + 1), facts, SCHEMA if base < 0 else None)
        commit(lake.path("t"), base, change)
    for mode in ("error", "append"):
        write_deltalake(lake.path("nested"), pa.Table.from_pylist(NESTED_ROWS, NESTED), mode=mode)
    return lake


@pytest.mark.parametrize(
    "order",
    [None, Order(("i", "s")), Order(("s", "t", "f", "n"), zorder=True), Order(("d", "b"), zorder=True)],
    ids=["together", "sorted", "z", "z-coarse"],
)
def test_the_rows_stay_and_the_version_tells_of_its_build(lake, order):
    path = lake.path("t")
    before = DeltaTable(path).to_pyarrow_table()
    (told,) = optimize(lake, ["t"], order)
    after = DeltaTable(path)
    assert (told["version"], told["files"], told["files_after"]) == (3, 3, 1) and len(after.file_uris()) == 1
    assert told["bytes_after"] == Path(after.file_uris()[0].removeprefix("file://")).stat().st_size
    (file,) = (Path(u) for u in after.file_uris())
    assert file.name.startswith(file.parent.name), "builds find files by names, so no two optimizations share any"
    assert texts(after.to_pyarrow_table()) == texts(before) and after.to_pyarrow_table().schema == before.schema
    assert texts(lake.dataset("t").to_table()) == texts(before)
    assert pq.read_schema(after.file_uris()[0].removeprefix("file://")).names == list(COLUMNS)
    assert after.protocol().min_reader_version == 1
    actions = [json.loads(line) for line in log(Path(path), 3)]
    changes = [a[kind]["dataChange"] for a in actions for kind in ("add", "remove") if kind in a]
    assert changes == [False] * 4
    assert [json.loads(a["add"]["stats"]) for a in actions if "add" in a] == [{"numRecords": 54}]
    published = lake.published("t")
    assert (published.version, published.rows_of, published.rows) == (3, 2, 54) and published.facts["build"] == "b2"
    assert lake.content_total("t", 3) == "c2" and lake.last_build("t")["build"] == "b2"
    assert optimize(lake, ["t"], order)[0]["version"] == 3, "there is nothing left to do"
    assert texts(DeltaTable(path, version=2).to_pyarrow_table()) == texts(before), "the old version stays readable"
    assert lake.rearranged("t", 2) == 3 and lake.rearranged("t", 1) == 1
    Path(after.file_uris()[0].removeprefix("file://")).unlink()
    assert lake.rearranged("t", 2) == 2


def test_every_type_comes_through_a_sort(lake):
    before = DeltaTable(lake.path("nested")).to_pyarrow_table()
    optimize(lake, ["nested"], Order(("id", "raw")))
    after = DeltaTable(lake.path("nested")).to_pyarrow_table()
    assert after.schema == before.schema and texts(after) == texts(before)
    assert after["id"].to_pylist() == [*sorted([*range(9)] * 2), None, None]


def test_rows_are_sorted_through_all_files_and_files_have_their_size(lake, monkeypatch):
    monkeypatch.setattr("headgate.jobs.lake.arranging.GROUP_ROWS", 2_000)
    monkeypatch.setattr("headgate.jobs.lake.arranging.BATCH_ROWS", 500)
    choose = random.Random(1)
    rows = pa.table({"a": [choose.random() for _ in range(40_000)], "b": [choose.random() for _ in range(40_000)]})
    write_deltalake(lake.path("wide"), rows)
    size = 100_000
    optimize(lake, ["wide"], Order(("a",)), size)
    delta = DeltaTable(lake.path("wide"))
    sizes = sorted(delta.get_add_actions()["size_bytes"].to_pylist())
    assert len(sizes) > 3 and all(0.8 * size < n < 1.6 * size for n in sizes[1:])
    files = sorted(u.removeprefix("file://") for u in delta.file_uris())
    assert [v for f in files for v in pq.read_table(f)["a"].to_pylist()] == sorted(rows["a"].to_pylist())
    optimize(lake, ["wide"], Order(("a", "b"), zorder=True), size)

    def share(column: str) -> float:
        """The share of row groups that a search for one value must read, by Parquet's own statistics."""
        groups = [
            pq.ParquetFile(u.removeprefix("file://")).metadata.row_group(g).column(column == "b").statistics
            for u in DeltaTable(lake.path("wide")).file_uris()
            for g in range(pq.ParquetFile(u.removeprefix("file://")).metadata.num_row_groups)
        ]
        return sum(g.min <= 0.3 <= g.max for g in groups) / len(groups)

    assert share("a") < 0.5 and share("b") < 0.5


def test_of_a_dry_run_nothing_is_written(lake, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    told = {r["table"]: r for r in optimize(lake, dry_run=True)}
    assert sorted(tmp_path.rglob("*")) == before
    assert (told["t"]["version"], told["t"]["files"], told["t"]["files_after"]) == (2, 3, 1)
    assert optimize(lake, ["t"], size=1)[0]["files_after"] == 3, "none is small"


def test_a_writer_who_was_first_wins_and_the_table_is_as_he_left_it(lake, monkeypatch):
    write_again = optimizing.write_again

    def overtaken(path, *others):
        write_again(path, *others)
        commit(path, 2, Change("WRITE", written(Path(path), "p3", some_rows(random.Random(2), 5)), (), ("t", 3), {}))

    monkeypatch.setattr(optimizing, "write_again", overtaken)
    with pytest.raises(LostRace, match="run again"):
        optimize(lake, ["t"])
    assert DeltaTable(lake.path("t")).version() == 3 and lake.published("t").rows == 59
    assert not list(Path(lake.path("t")).glob("optimized-*"))


def test_a_run_of_its_pipeline_and_it_keep_each_other_out(lake, monkeypatch):
    files = written(Path(lake.path("t")), "p3", some_rows(random.Random(2), 5))
    commit(lake.path("t"), 2, Change("WRITE", files, (), ("t", 3), {"build": "b3", "base": 2, "pipeline": "p"}))
    with held(lake, "p", "night", NO_TIME, print):
        with pytest.raises(LostRace, match="another run of 'p' is at work: run night "):
            optimize(lake, ["t"])
        assert optimize(lake, ["t"], dry_run=True)[0]["files_after"] == 1
    write_again = optimizing.write_again

    def beside(*given):
        with pytest.raises(LostRace, match="run optimize-"), held(lake, "p", "night", NO_TIME, print):
            pass
        write_again(*given)

    monkeypatch.setattr(optimizing, "write_again", beside)
    assert optimize(lake, ["t"])[0]["version"] == 4


@pytest.mark.slow
def test_files_keep_their_size_when_they_are_ordered(lake):
    commit(lake.path("t"), 2, Change("WRITE", written(Path(lake.path("t")), "p3", many_rows()), (), ("t", 3), {}))
    size, order = 100_000, Order(("i",))
    told = optimize(lake, ["t"], order, size)[0]
    sizes = [n / size for n in lake.file_sizes("t", told["version"]).values()]
    assert len(sizes) > 5 and all(0.9 < n < 2.1 for n in sizes[:-1]), sizes
    assert optimize(lake, ["t"], order, size)[0]["version"] == told["version"]  # nothing to do
    assert optimize(lake, ["t"], order, 8 * size)[0]["files_after"] < len(sizes)
    assert optimize(lake, ["t"], order, size)[0]["files_after"] == len(sizes)


def many_rows() -> pa.Table:
    choose, rows = random.Random(3), some_rows(random.Random(3), 1)
    values = {"i": [choose.getrandbits(62) for _ in range(120_000)]}
    columns = [pa.array(values.get(f.name, [None] * 120_000), f.type) for f in rows.schema]
    return pa.Table.from_arrays(columns, schema=rows.schema)


def test_an_erasure_that_began_meanwhile_stops_it(lake, monkeypatch):
    write_again = optimizing.write_again

    def erasing(*given):
        write_again(*given)
        lake.record("erasures", [{"erasure": "e", "event": "started", "table_name": "t"}])

    monkeypatch.setattr(optimizing, "write_again", erasing)
    with pytest.raises(LostRace):
        optimize(lake, ["t"])
    with pytest.raises(LostRace, match="headgate erase --resume"):
        optimize(lake, ["t"])
    assert lake.published("t").version == 2 and not list(Path(lake.path("t")).glob("optimized-*"))


def test_files_that_a_vacuum_removed_are_never_committed(lake, monkeypatch):
    def vacuumed(*given, known=optimizing.data_files):
        found = known(*given)
        vacuum(lake, 0, 0, ["t"])
        return found

    monkeypatch.setattr(optimizing, "data_files", vacuumed)
    with pytest.raises(LostRace):
        optimize(lake, ["t"])
    assert lake.published("t").version == 2 and len(lake.dataset("t").to_table()) == 54


def test_a_kill_leaves_the_table_as_it_was(lake, monkeypatch):
    def killed(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(optimizing, "commit", killed)
    with pytest.raises(KeyboardInterrupt):
        optimize(lake, ["t"])
    monkeypatch.undo()
    assert lake.published("t").version == 2 and list(Path(lake.path("t")).glob("optimized-*"))
    assert optimize(lake, ["t"])[0]["version"] == 3


@pytest.mark.parametrize(
    ("order", "told"),
    [
        (Order(("idd",)), "--sort: table 'nested' has no column 'idd' — did you mean 'id'"),
        (Order(("tags",)), "--sort: column 'tags' is list"),
        (Order(tuple("abcdefghi"), zorder=True), "--zorder: at most 8 columns, not 9"),
    ],
)
def test_what_has_no_order_is_refused(lake, order, told):
    with pytest.raises(UsageError, match=told):
        optimize(lake, ["nested"], order)


def test_tables_of_others_keep_none_of_the_own_ones_out(lake):
    write_deltalake(lake.path("parts"), pa.table({"k": ["a", "b"], "v": [1, 2]}), partition_by=["k"])
    told: list[str] = []
    assert [r["table"] for r in optimize(lake, tell=told.append)] == ["nested", "t"]
    assert len(told) == 1 and told[0].startswith("table 'parts' is left as it is: ") and "partitions (k)" in told[0]
    with pytest.raises(UsageError, match=r"partitions \(k\), which headgate does not support"):
        optimize(lake, ["parts"])


def test_a_fault_is_not_passed_over_with_tables_of_others(lake, monkeypatch):
    monkeypatch.setattr(optimizing, "write_again", lambda *given: None)
    with pytest.raises(HeadgateError, match="rows were read, but 0 were written"):
        optimize(lake)


def test_the_room_of_tables_is_what_lies_in_their_folders(lake, tmp_path):
    before = {r["table"]: r for r in storage(lake, 365)}
    on_disk = sum(f.stat().st_size for f in (tmp_path / "t").rglob("*.parquet"))
    told = before["t"]
    assert (told["rows"], told["files"], told["small_files"], told["files_after"]) == (54, 3, 3, 1)
    assert (told["bytes"], told["other_bytes"], told["vacuum_bytes"]) == (on_disk, 0, 0)
    assert told["bytes_per_row"] == round(on_disk / 54, 1)
    columns = {c["column"]: c for c in told["columns"]}
    assert columns.keys() == {*COLUMNS, "_hg_mask"} and 0 < sum(c["bytes"] for c in columns.values()) < on_disk
    assert {c["column"] for c in before["nested"]["columns"]} == set(NESTED.names)
    text = pa.table({"text": ["again and again"] * 10_000, "number": pa.array(range(10_000), pa.int64())})
    write_deltalake(lake.path("squeezed"), text)
    squeezed = {c["column"]: c["ratio"] for c in storage(lake, 365, ["squeezed"])[0]["columns"]}
    assert squeezed["number"] > 1
    optimize(lake, ["t"])
    (after,) = storage(lake, 0, ["t"], grace_hours=0)
    assert (after["files"], after["other_bytes"], after["vacuum_bytes"]) == (1, on_disk, on_disk)
    assert (after["versions"], after["versions_kept"]) == (4, 1)
    vacuum(lake, 0, 0, ["t"])
    (freed,) = storage(lake, 0, ["t"], grace_hours=0)
    assert (freed["bytes"], freed["other_bytes"]) == (after["bytes"], 0)


def test_the_commands_that_maintain_a_lake(lake, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def told(*arguments: str) -> list[dict]:
        monkeypatch.setattr("sys.argv", ["headgate", *arguments, "--lake", lake.root, "--json"])
        assert cli.exit_code() == 0
        return json.loads(capsys.readouterr().out)

    assert told("optimize", "t", "--dry-run", "--target-size", "1k")[0]["files_after"] == 3
    assert told("optimize", "t", "--zorder", "i, s")[0]["version"] == 3
    assert {r["table"]: r["small_files"] for r in told("storage")} == {"t": 1, "nested": 2}
    (made,) = told("backup", "--to", f"{lake.root}-copies")
    recover = ["headgate", "recover", "--from", f"{lake.root}-copies"]
    monkeypatch.setattr("sys.argv", [*recover, "--lake", f"{lake.root}-new"])
    assert cli.exit_code() == 0 and made["backup"] in capsys.readouterr().out
    assert Lake(f"{lake.root}-new").published("t").rows == 54
    for file in Path(f"{lake.root}-copies", "objects").rglob("*/*"):
        file.write_bytes(b"")
    monkeypatch.setattr("sys.argv", [*recover, "--check"])
    assert cli.exit_code() == 1
