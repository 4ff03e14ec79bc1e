"""Old versions: how long single tables keep them, and the archive to which they go before they are removed."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, write_deltalake

from headgate.jobs.cli import main as cli
from headgate.jobs.errors import LostRace, UsageError
from headgate.jobs.explore import queries
from headgate.jobs.keep import archive as archiving
from headgate.jobs.keep.restore import restore
from headgate.jobs.keep.retention import vacuum
from headgate.jobs.lake.lake import Lake


def rows(*ids: int) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64())})


def ids(path: str | Path, version: int | None = None) -> list[int]:
    return sorted(DeltaTable(path, version=version).to_pyarrow_table()["id"].to_pylist())


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Thirteen versions of `t`, past a checkpoint, of which a release pins number 4; two of `u`."""
    lake = Lake(str(tmp_path / "lake"))
    for version in range(13):
        write_deltalake(lake.path("t"), rows(version), mode="append" if version in (3, 6) else "overwrite")
    for version in range(2):
        write_deltalake(lake.path("u"), rows(version), mode="overwrite")
    lake.publish_release("p", "r", {"t": 4}, None, None, None)
    return lake


def test_versions_are_in_the_archive_before_they_go(lake, tmp_path):
    root = tmp_path / "archive"
    expected = {v: ids(lake.path("t"), v) for v in range(13)}
    vacuum(lake, 0, 0, archive_to=str(root), dry_run=True)
    assert not root.exists()
    vacuum(lake, 0, 0, archive_to=str(root))
    assert DeltaTable(root / "t").version() == 11 and DeltaTable(root / "u").version() == 0
    for version in set(range(12)) - {4}:
        assert ids(root / "t", version) == expected[version], version
        assert not lake.has_files("t", lake.file_sizes("t", version)) or version == 4
    assert ids(lake.path("t")) == [12] and ids(lake.path("t"), 4) == [4]
    readable = {v["version"] for v in queries.versions(Lake(str(root)), "t") if v["readable"]}
    assert readable == set(range(12)) - {4}
    assert {v["version"] for v in queries.versions(lake, "t") if v["readable"]} == {4, 12}
    # What the release held goes later, and what is there is not copied again.
    write_deltalake(lake.path("t"), rows(13), mode="overwrite")
    lake.publish_release("p", "r", {"t": 13}, None, 1, None)
    lake.open("releases").delete("number = 1")
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*.parquet")}
    vacuum(lake, 0, 0, archive_to=str(root))
    assert ids(root / "t", 4) == [4] and ids(root / "t") == [12]
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*.parquet")}.items() >= before.items()
    assert Lake(str(root)).tables() == ["t", "u"]


def test_a_kill_leaves_the_archive_and_the_lake_as_they_were(lake, tmp_path, monkeypatch):
    root, written = tmp_path / "archive", []

    def dying(folder, name, chunks, put=archiving.put_chunks):
        if len(written) == 15:
            raise KeyboardInterrupt
        written.append(name)
        put(folder, name, chunks)

    monkeypatch.setattr(archiving, "put_chunks", dying)
    with pytest.raises(KeyboardInterrupt):
        vacuum(lake, 0, 0, archive_to=str(root))
    assert lake.has_files("t", lake.file_sizes("t", 0))
    assert ids(root / "t") == ids(lake.path("t"), DeltaTable(root / "t").version())
    monkeypatch.undo()
    vacuum(lake, 0, 0, archive_to=str(root))
    assert ids(root / "t") == [11]


def test_an_archive_that_may_hold_erased_rows_is_named(lake, tmp_path):
    root = tmp_path / "archive"
    vacuum(lake, 0, 0, archive_to=str(root))
    properties = CommitProperties(custom_metadata={"userMetadata": json.dumps({"erasure": "e"})})
    write_deltalake(lake.path("t"), rows(13), mode="overwrite", commit_properties=properties)
    write_deltalake(lake.path("t"), rows(14), mode="overwrite")
    with pytest.raises(UsageError, match=f"remove {root}/t, which may hold them still"):
        vacuum(lake, 0, 0, archive_to=str(root))
    assert lake.has_files("t", lake.file_sizes("t", 12)), "nothing went"
    (file,) = lake.file_sizes("u", 0)
    for commit in Path(lake.path("u"), "_delta_log").glob("*.json"):  # as an erasure writes it again
        commit.write_text(commit.read_text().replace(file, f"erased-{file}"))
    with pytest.raises(UsageError, match=f"remove {root}/u"):
        archiving.archive(lake, "u", [1], str(root))


def test_an_archive_of_a_table_that_was_made_anew_stays_as_it_is(lake, tmp_path):
    root = tmp_path / "archive"
    vacuum(lake, 0, 0, archive_to=str(root))
    shutil.rmtree(lake.path("u"))
    for version in range(3):
        write_deltalake(lake.path("u"), rows(version + 5), mode="overwrite")
    with pytest.raises(UsageError, match=f"{root}/u holds another table, .* archive it elsewhere"):
        vacuum(lake, 0, 0, archive_to=str(root))
    assert ids(root / "u", 0) == [0] and ids(lake.path("u"), 0) == [5]


def test_nothing_is_archived_or_restored_while_an_erasure_is_not_finished(lake, tmp_path):
    lake.record("erasures", [{"erasure": "e", "event": "started", "table_name": "t"}])
    with pytest.raises(LostRace, match="the erasure e is not finished: headgate erase --resume"):
        vacuum(lake, 0, 0, archive_to=str(tmp_path / "archive"))
    with pytest.raises(LostRace, match="the erasure e is not finished"):
        restore(lake, [("t", 0)], "r")


def test_a_restore_that_another_writer_overtook_says_so(lake, monkeypatch):
    known, asked = Lake.need_table, []

    def overtaken(self, table):
        delta = known(self, table)
        asked.append(table)
        if asked.count("u") == 2:
            write_deltalake(self.path("u"), rows(9), mode="append")
        return delta

    monkeypatch.setattr(Lake, "need_table", overtaken)
    with pytest.raises(LostRace, match=r"table 'u' was changed by another writer .*; run again; restored are t"):
        restore(lake, [("t", 0), ("u", 0)], "r")
    monkeypatch.undo()
    assert ids(lake.path("t")) == [0] and ids(lake.path("u")) == [1, 9]


def test_rows_that_deletion_vectors_mark_are_not_said_to_be_restored(lake):
    features = {"readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}
    actions = [
        {"commitInfo": {"operation": "SET TBLPROPERTIES", "timestamp": 1}},
        {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, **features}},
    ]
    log = Path(lake.path("u"), "_delta_log", f"{2:020}.json")
    log.write_text("".join(json.dumps(action) + "\n" for action in actions))
    with pytest.raises(UsageError, match="can only be read by Spark: it uses deletionVectors"):
        restore(lake, [("t", 0), ("u", 0)], "r")
    assert ids(lake.path("t")) == [12], "all are looked at before the first is touched"


def test_a_version_counts_as_old_from_when_it_was_replaced_though_the_clock_went_back(lake):
    log = Path(lake.path("u"), "_delta_log", f"{1:020}.json")
    actions = [json.loads(line) for line in log.read_text().splitlines()]
    for action in actions:
        if "commitInfo" in action:
            action["commitInfo"]["timestamp"] -= 400 * 86_400_000
    log.write_text("".join(json.dumps(action) + "\n" for action in actions))
    (told,) = vacuum(lake, 365, 0, ["u"])
    assert told["kept"] == 2 and ids(lake.path("u"), 0) == [0]


def test_tables_keep_their_versions_as_long_as_the_environment_says(lake, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("conf/env").mkdir(parents=True)
    Path("conf/env/local.yaml").write_text("retention_days: 0\ntable_retention_days: {u: 30, tt: 30}\n")

    def kept(*options: str) -> dict[str, int]:
        monkeypatch.setattr("sys.argv", ["headgate", "vacuum", "--dry-run", "--json", "--grace-hours", "0", *options])
        assert cli.exit_code() == 0
        out, error = capsys.readouterr()
        misspelt = "warning: table_retention_days names 'tt', which the lake does not have — did you mean 't'?\n"
        assert error == ("" if "--retain-days" in options else misspelt)
        return {r["table"]: r["kept"] for r in json.loads(out)}

    assert (kept()["t"], kept()["u"]) == (2, 2)
    assert (kept("--retain-days", "0")["u"], kept("--retain-days", "1")["t"]) == (1, 13)
