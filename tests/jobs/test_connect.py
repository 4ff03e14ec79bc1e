"""Pipelines on a session of Spark Connect, and what cannot be there."""

import pytest

import headgate
from headgate.jobs.errors import UsageError
from headgate.jobs.keep.catalogues.hive import HiveCatalogue
from headgate.jobs.lake.sessions import cores
from headgate.jobs.spark.given import beside
from headgate.jobs.spark.session import start
from tests.chaos import content, write_night
from tests.lakes import again, answer, write_pipeline

pytest.importorskip("grpc")


@pytest.mark.slow
def test_a_pipeline_publishes_what_it_publishes_on_a_classic_session(spark, connect, tmp_path):
    from tests.connect import connected

    places = [tmp_path / "classic", tmp_path / "connect"]
    for night in range(2):
        for place in places:
            place.mkdir(exist_ok=True)
            write_night(place, night)
        again(spark, places[0])
        with connected(connect) as remote:
            there = {"lake": places[1] / "lake", "landing": places[1] / "landing"}
            headgate.run(places[1] / "p.yaml", remote, **there)
            assert headgate.run(places[1] / "p.yaml", remote, **there).built == 0
            read = headgate.Lake(places[1] / "lake").read("people", as_="spark", spark=remote)
            assert read.count() == answer(places[1], "select count(*) from people")[0][0] > 0
        assert content(places[1]) == content(places[0])
    traced = "select table_name, count(*) from lineage where columns <> '{}' group by all order by all"
    nightly = [("names", 2), ("people", 2), ("placed", 4)]  # a line for each input
    assert answer(places[0], traced) == nightly and answer(places[1], traced) == []


def test_tasks_at_once_are_those_of_the_cluster(spark, connect):
    from tests.connect import connected

    with connected(connect) as remote:
        assert cores(remote) == spark.sparkContext.defaultParallelism


def test_what_needs_a_classic_session_says_so(remote, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "x")
    source = "{format: jdbc, url: 'jdbc:postgresql://h/d', table: t, user: {env: SECRET}, password: {env: SECRET}}"
    write_pipeline(tmp_path, f"  t: {{suite: any, source: {source}}}\n")
    with pytest.raises(UsageError, match="the source jdbc:t needs a classic Spark session"):
        again(remote, tmp_path)
    with pytest.raises(UsageError, match="a lake or landing folder in S3 needs a classic"):
        beside(remote, "s3://bucket/lake", str(tmp_path))
    with pytest.raises(UsageError, match="a Hive catalogue needs a classic"):
        HiveCatalogue(remote, "d", str(tmp_path)).known()


def test_a_setting_that_is_the_servers_own_is_refused():
    with pytest.raises(UsageError, match=r"spark\.executor\.memory is set where the server of spark\.remote starts"):
        start({"spark.remote": "sc://127.0.0.1:1", "spark.executor.memory": "2g"})
