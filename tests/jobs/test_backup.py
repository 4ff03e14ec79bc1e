"""Backups: what they hold, what is copied again, kills in the middle, damage; and lakes made of them."""

import os
import shutil
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from headgate.jobs.errors import HeadgateError, InputMissing, LostRace, UsageError
from headgate.jobs.explore import queries
from headgate.jobs.keep import backup as keeping
from headgate.jobs.keep.archive import archive
from headgate.jobs.keep.backup import backup, check, recover
from headgate.jobs.keep.retention import vacuum
from headgate.jobs.lake.artifacts import fitted_of, read_fitted, write_fitted
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.system import now
from tests.lakes import again, answer, land, write_pipeline


def rows(*ids: int) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64())})


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A lake with three versions of `t`, one of `u`, two releases, an index, what a step learned, and leftovers."""
    lake = Lake(str(tmp_path / "lake"))
    for version in range(3):
        write_deltalake(lake.path("t"), rows(*range(version, version + 3)), mode="overwrite")
        if version == 1:
            lake.publish_release("p", "r", {"t": 1}, None, None, None)
    write_deltalake(lake.path("u"), rows(7))
    lake.publish_release("p", "r", {"t": 2, "u": 0}, None, 1, None)
    for _ in range(12):  # past a checkpoint
        lake.record("runs", [{"run_id": "r", "pipeline": "p", "event": "started", "recorded_at": now()}])
    write_deltalake(f"{lake.root}/_system/index/t/seen", rows(1))
    place = f"{fitted_of(lake, 't', 'key')}/0-x/map"
    write_fitted(lake, "t", "key", {"columns": {}, "steps": [{"id": "t/0-x", "by": ["x"], "x": {"path": place}}]})
    (tmp_path / "lake" / "t" / "left-over.parquet").write_bytes(b"of a run that died")
    (tmp_path / "lake" / "_staging" / "t").mkdir(parents=True)
    (tmp_path / "lake" / "_staging" / "t" / "k.json").write_text("{}")
    return lake


def held(lake: Lake) -> dict[str, object]:
    """All that readers see of a lake."""
    versions = {t: [sorted(lake.dataset(t, v).to_table()["id"].to_pylist()) for v in (0, 1, 2)] for t in ("t",)}
    tables = queries.tables(lake, None)
    told = {name: lake.system(name).to_pylist() for name in ("runs", "releases")}
    return {**versions, **told, "tables": [{k: v for k, v in t.items() if k != "path"} for t in tables]}


def test_a_lake_made_of_a_backup_holds_the_same(lake, tmp_path):
    root = str(tmp_path / "backups")
    told = backup(lake, root)
    assert told["files_copied"] > 0 and told["backups_removed"] == told["erased_since"] == []
    assert check(root)["damaged"] == []
    new = Lake(str(tmp_path / "new"))
    assert recover(new, root)["files"] == told["files"]
    assert held(new) == held(lake)
    assert not list(Path(new.root).rglob("left-over*")) and not Path(new.root, "_staging").exists()
    assert DeltaTable(f"{new.root}/_system/index/t/seen").to_pyarrow_table() == rows(1)
    new.record("runs", [{"run_id": "new", "event": "started", "recorded_at": now()}])
    assert len(lake.system("runs")) == 12 and len(new.system("runs")) == 13


def test_what_steps_learned_is_found_where_the_lake_is_now(lake, tmp_path):
    text = Path(fitted_of(lake, "t", "key"), "steps.json").read_text()
    assert str(tmp_path) not in text
    shutil.move(lake.root, tmp_path / "moved")
    moved = Lake(str(tmp_path / "moved"))
    (entry,) = read_fitted(moved, "t", "key")["steps"]
    assert entry["x"]["path"] == f"{moved.root}/_system/fitted/t/key/0-x/map"
    # As earlier versions wrote it.
    saved = Path(fitted_of(moved, "t", "key"), "steps.json")
    saved.write_text(text.replace("/_system", f"{lake.root}/_system"))
    assert read_fitted(moved, "t", "key")["steps"] == [entry]


def test_only_what_is_new_is_copied_and_read(lake, tmp_path, monkeypatch):
    root = str(tmp_path / "backups")
    first = backup(lake, root)
    again = backup(lake, root)
    assert (again["files"], again["files_copied"], again["bytes_copied"]) == (first["files"], 0, 0)
    write_deltalake(lake.path("t"), rows(9), mode="append")
    read = []
    monkeypatch.setattr(keeping, "digest_of", lambda place, known=keeping.digest_of: read.append(place) or known(place))
    third = backup(lake, root)
    assert third["files_copied"] == 2, "a commit and a data file"
    data = [p for p in read if p.endswith(".parquet") and "_delta_log" not in p and "_system" not in p]
    assert len(data) == 1 and data[0] in {u.removeprefix("file://") for u in DeltaTable(lake.path("t")).file_uris()}
    assert len(keeping.backups(root)) == 3


def test_a_killed_backup_is_none_and_the_next_goes_on(lake, tmp_path, monkeypatch):
    root, copied = str(tmp_path / "backups"), []

    def dying(folder, name, chunks, put=keeping.put_chunks):
        if len(copied) == 5:
            raise KeyboardInterrupt
        copied.append(name)
        put(folder, name, chunks)

    monkeypatch.setattr(keeping, "AT_ONCE", 1)
    monkeypatch.setattr(keeping, "put_chunks", dying)
    with pytest.raises(KeyboardInterrupt):
        backup(lake, root)
    monkeypatch.undo()
    with pytest.raises(InputMissing, match="there is no backup"):
        recover(Lake(str(tmp_path / "new")), root)
    told = backup(lake, root)
    new = Lake(str(tmp_path / "new"))
    recover(new, root)
    assert told["files_copied"] == len(list((tmp_path / "backups" / "objects").rglob("*/*"))) - 5
    assert held(new) == held(lake)


def test_a_killed_recovery_cannot_be_opened_and_goes_on(lake, tmp_path, monkeypatch):
    root, new, brought = str(tmp_path / "backups"), str(tmp_path / "new"), []
    backup(lake, root)

    def dying(folder, name, chunks, put=keeping.put_chunks):
        if len(brought) == 20:
            raise KeyboardInterrupt
        brought.append(name)
        put(folder, name, chunks)

    monkeypatch.setattr(keeping, "AT_ONCE", 1)
    monkeypatch.setattr(keeping, "put_chunks", dying)
    with pytest.raises(KeyboardInterrupt):
        recover(Lake(new), root)
    with pytest.raises(UsageError, match="is not whole: headgate recover --from"):
        Lake(new).tables()
    Path(new, brought[0]).write_bytes(b"cut sho")
    Path(new, "t", "x.parquet#1").write_bytes(b"of an upload")
    monkeypatch.undo()
    recover(Lake(new), root)
    assert held(Lake(new)) == held(lake) and not Path(new, "t", "x.parquet#1").exists()
    with pytest.raises(UsageError, match="is not empty"):
        recover(Lake(new), root)


def test_damage_is_found(lake, tmp_path):
    root = tmp_path / "backups"
    backup(lake, str(root))
    name = next(iter(DeltaTable(lake.path("u")).get_add_actions()["path"].to_pylist()))
    digest, _ = keeping.digest_of(f"{lake.path('u')}/{name}")
    file = root / "objects" / digest[:2] / digest
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert check(str(root))["damaged"] == [f"u/{name}"]
    with pytest.raises(HeadgateError, match=f"is damaged: objects/{digest[:2]}/{digest}, of u/"):
        recover(Lake(str(tmp_path / "new")), str(root))
    file.unlink()
    assert check(str(root))["damaged"] == [f"u/{name}"]
    with pytest.raises(HeadgateError, match=r"of u/\S+, is not there\. `headgate recover --check`"):
        recover(Lake(str(tmp_path / "new")), str(root))
    (damaged,) = keeping.backups(str(root))
    assert backup(lake, str(root))["files_copied"] == 1 and check(str(root))["damaged"] == []
    with pytest.raises(UsageError, match=f"holds a part of the backup {damaged}: go on with that .--backup {damaged}"):
        recover(Lake(str(tmp_path / "new")), str(root))
    recover(Lake(str(tmp_path / "new")), str(root), damaged)  # its object is there again
    listed = min((root / "backups").glob("*.json"))
    listed.write_text(listed.read_text().replace('"u/', '"v/'))
    with pytest.raises(HeadgateError, match="is damaged: its content"):
        recover(Lake(str(tmp_path / "other")), str(root), listed.stem)


def test_a_backup_of_a_release_ends_at_its_versions(lake, tmp_path):
    root, new = str(tmp_path / "backups"), Lake(str(tmp_path / "new"))
    told = backup(lake, root, release="p-1")
    assert told["files"] < backup(lake, str(tmp_path / "all"))["files"]
    recover(new, root)
    assert new.tables() == ["t"] and [r["release"] for r in new.releases] == ["p-1"]
    assert new.published("t").version == 1 and new.dataset("t").to_table() == lake.dataset("t", 1).to_table()


def test_older_backups_are_removed_with_what_only_they_hold(lake, tmp_path):
    root = str(tmp_path / "backups")
    backup(lake, root)
    objects = keeping.objects(root)
    (name,) = DeltaTable(lake.path("t"), version=0).get_add_actions()["path"].to_pylist()
    digest, _ = keeping.digest_of(f"{lake.path('t')}/{name}")
    vacuum(lake, 0, grace_hours=0)
    for event in ("started", "finished"):
        lake.record("erasures", [{"erasure": "e1", "event": event, "recorded_at": now(), "table_name": "t"}])
    with pytest.raises(InputMissing):
        keeping.named(root, "x")
    told = backup(lake, root)
    assert told["erased_since"] == keeping.backups(root)[:1] and digest in keeping.objects(root)
    half = tmp_path / "backups" / "objects" / "zz" / "half#1"
    half.parent.mkdir()
    half.touch()
    told = backup(lake, root, keep=1)
    assert len(keeping.backups(root)) == 1 and told["erased_since"] == []
    assert digest in objects and digest not in keeping.objects(root) and half.exists()
    os.utime(half, (0, 0))
    backup(lake, root, keep=1)
    assert not half.exists()
    recover(Lake(str(tmp_path / "new")), root)


def test_the_newest_backup_is_the_last_one_though_the_clock_went_back(lake, tmp_path, monkeypatch):
    root = str(tmp_path / "backups")
    first = backup(lake, root)["backup"]
    before = now() - timedelta(days=2)
    monkeypatch.setattr(keeping, "now", lambda: before)
    write_deltalake(lake.path("u"), rows(8), mode="overwrite")
    told = backup(lake, root, keep=1)
    assert told["backups_removed"] == [first] and keeping.backups(root) == [told["backup"]]
    assert recover(Lake(str(tmp_path / "new")), root)["made"] == before.isoformat(timespec="seconds")
    assert Lake(str(tmp_path / "new")).need_table("u").version() == 1


def test_of_backups_to_one_folder_one_is_at_work(lake, tmp_path, monkeypatch):
    """Another, that ends while this one begins, would remove files that this one relies on."""
    root = str(tmp_path / "backups")

    def beside(*given, known=keeping.contents):
        with pytest.raises(LostRace, match=f"another backup to {root} is at work: run backup-[0-9a-f]+ "):
            backup(lake, root, keep=1)
        return known(*given)

    monkeypatch.setattr(keeping, "contents", beside)
    assert backup(lake, root)["files_copied"] > 0 and check(root)["damaged"] == []


@pytest.mark.slow
def test_deletion_vectors_and_checkpoints_of_other_writers_come_along(spark, lake, tmp_path):
    place = lake.path("marked")
    options = (
        "'delta.enableDeletionVectors' = 'true', 'delta.checkpointPolicy' = 'v2', 'delta.checkpointInterval' = '3'"
    )
    spark.sql(f"CREATE TABLE delta.`{place}` (id long) USING delta TBLPROPERTIES ({options})")
    spark.range(100).coalesce(1).write.format("delta").mode("append").save(place)
    for one in (7, 8, 9):
        spark.sql(f"DELETE FROM delta.`{place}` WHERE id = {one}")
    found = {p.name.partition("_")[0] + p.suffix for p in Path(place).rglob("*") if not p.name.startswith(".")}
    assert "deletion.bin" in found and list(Path(place).rglob("_delta_log/_sidecars/*.parquet"))
    before = {v: sorted(spark.read.option("versionAsOf", v).load(place, "delta").toPandas()["id"]) for v in (1, 2, 4)}
    root, archived = str(tmp_path / "backups"), str(tmp_path / "archive")
    backup(lake, root)
    assert archive(lake, "marked", range(5), archived) > 0 and archive(lake, "marked", range(5), archived) == 0
    recover(Lake(str(tmp_path / "new")), root)
    for other in (f"{tmp_path}/new/marked", f"{archived}/marked"):
        (Path(other) / "_delta_log" / f"{0:020}.json").unlink()  # the checkpoint stands for it
        newest = spark.read.load(other, "delta").toPandas()["id"]
        assert sorted(newest) == before[4] and not {7, 8, 9} & set(newest), other
    recovered = f"{tmp_path}/new/marked"
    assert sorted(spark.read.option("versionAsOf", 4).load(recovered, "delta").toPandas()["id"]) == before[4]


def test_an_erasure_meanwhile_ends_it(lake, tmp_path, monkeypatch):
    def erasing(lake, release, known=keeping.contents):
        found = known(lake, release)
        lake.record("erasures", [{"erasure": "e", "event": "started", "table_name": "t"}])
        return found

    monkeypatch.setattr(keeping, "contents", erasing)
    for _ in range(2):
        with pytest.raises(LostRace):
            backup(lake, str(tmp_path / "backups"))
    with pytest.raises(UsageError, match="must not lie in each other"):
        backup(lake, f"{lake.root}/backups")


@pytest.mark.slow
def test_a_run_on_a_recovered_lake_finds_nothing_to_do(spark, tmp_path):
    write_pipeline(
        tmp_path / "a",
        """
  t:
    source: {format: csv, path: 't/*.csv', schema: 'id INT, kind STRING, v INT', key: [id]}
    steps:
      - split_by_hash: {key: [id], shares: {train: 0.8, test: 0.2}}
      - impute_mean: {columns: [v]}
      - sample_strata: {by: [kind], equal: true}
    suite: any
    refit: weekly
""",
    )
    land(tmp_path / "a", "t/1.csv", "id,kind,v\n" + "".join(f"{i},k{i % 1500},{i}\n" for i in range(4500)))
    again(spark, tmp_path / "a")
    backup(Lake(str(tmp_path / "a" / "lake")), str(tmp_path / "backups"))
    shutil.copytree(tmp_path / "a", tmp_path / "b", ignore=shutil.ignore_patterns("lake"))
    recover(Lake(str(tmp_path / "b" / "lake")), str(tmp_path / "backups"))
    shutil.rmtree(tmp_path / "a")
    assert again(None, tmp_path / "b").built == 0
    (saved,) = (tmp_path / "b" / "lake" / "_system" / "fitted" / "t").rglob("steps.json")
    assert '"stored": "/_system/fitted/t/' in saved.read_text()
    land(tmp_path / "b", "t/2.csv", "id,kind,v\n9000,k0,\n")
    again(spark, tmp_path / "b")
    assert answer(tmp_path / "b", "select count(*) from t_raw") == [(4501,)]
