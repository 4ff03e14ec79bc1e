"""Hostile names, paths that would leave their roots, secrets, and the modes of files."""

import json
import os
import stat
from pathlib import Path

import pytest
from deltalake import DeltaTable

from headgate.jobs.disclosure import outward, without_secrets
from headgate.jobs.errors import HeadgateError, UsageError, first_line
from headgate.jobs.explore import queries
from headgate.jobs.lake.lake import Lake
from headgate.jobs.notify.wording import said
from headgate.jobs.pipeline.commit import need_unique
from headgate.jobs.progress import Progress
from headgate.words import cell
from tests.jobs.test_cli import headgate, here  # noqa: F401  (a fixture)
from tests.jobs.test_keeping import everything
from tests.jobs.test_pulled import Api, api, postgres  # noqa: F401  (fixtures)
from tests.lakes import again, lake_of, write_suite

NAMES = ["it's", 'say"x"', "a`b", "drop--table", "x/*y*/", "$PATH", "名'前"]


def test_hostile_names_and_values_are_data(spark, tmp_path):
    """Columns, files and cells that would be SQL if they were pasted into it, through every way of publishing."""
    columns = ", ".join("`" + n.replace("`", "``") + "` STRING" for n in NAMES)
    key = "['" + "', '".join(n.replace("'", "''") for n in NAMES[:3]) + "']"
    write_suite(tmp_path, "any")
    (tmp_path / "p.yaml").write_text(
        "pipeline: p\nsuites: .\ntables:\n  raw:\n    suite: any\n    source:\n      format: csv\n"
        "      path: 'in/*.csv'\n"
        f"      schema: {yaml_text(columns)}\n      key: {key}\n      on_changed_file: replace\n"
        f"  merged:\n    from: raw\n    suite: any\n    publish: {{mode: merge, key: {key}}}\n"
        f"  kept:\n    from: raw\n    suite: any\n    steps:\n      - drop_duplicates: {{columns: {key}}}\n"
    )
    folder = tmp_path / "landing" / "in"
    folder.mkdir(parents=True)
    hostile = "'; DROP TABLE raw; --"
    file = folder / "a'b\"c`d%20+e f;--.csv"
    quoted = ",".join('"' + n.replace('"', '""') + '"' for n in NAMES)

    def land(last: str) -> None:
        cells = [hostile, "1 OR 1=1", "\\", "`", '"', "%s", last]
        file.write_text(quoted + "\n" + ",".join('"' + c.replace('"', '""') + '"' for c in cells) + "\n")

    for last in ("first", "second"):
        land(last)
        again(spark, tmp_path)
    lake = lake_of(tmp_path)
    for table in ("raw", "merged", "kept"):
        rows = DeltaTable(lake.path(table)).to_pyarrow_table().to_pylist()
        assert [(r["it's"], r["名'前"]) for r in rows] == [(hostile, "second")], table
    assert next(iter(lake.files_of("raw"))) == f"in/{file.name}"


def yaml_text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@pytest.mark.parametrize("name", ["../../etc", "/etc", "a/b", "a;b", "Ä", "_system", "x'--"])
def test_tables_are_only_names(tmp_path, name):
    with pytest.raises(UsageError, match="not a valid table name"):
        queries.versions(Lake(str(tmp_path)), name)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["versions", "../secret"], "not a valid table name"),
        (["diff", "../a@1", "../a@2"], "not a valid table name"),
        (["trace", "--table", "../a", "--key", "a=b"], "not a valid table name"),
        (["erase", "--table", "../a", "--where", "true", "--reason", "x"], "not a valid table name"),
        (["run", "p.yaml", "--release", "a'; drop"], "invalid name"),
        (["run", "p.yaml"], "may not leave the landing folder"),
    ],
)
def test_nothing_leaves_its_root(tmp_path, here, arguments, told):  # noqa: F811
    (tmp_path / "p.yaml").write_text(
        "pipeline: p\ntables:\n  t: {source: {format: csv, path: '../x/*.csv', schema: 'a INT'}, suite: null}\n"
    )
    Lake(str(tmp_path / "lake")).record("runs", [{"run_id": "r"}])
    before = sorted((tmp_path / "lake").rglob("*"))
    code, _, error = here(*arguments)
    assert code == 2 and told in error, error
    assert sorted((tmp_path / "lake").rglob("*")) == before


SECRETS = {"PG_PASSWORD": "s3cret-of-postgres", "API_TOKEN": "Bearer s3cret-of-api", "OTHER": "s3cret-of-spark"}


@pytest.fixture
def secrets_place(postgres, api, tmp_path, monkeypatch) -> Path:  # noqa: F811
    """A pipeline that reads by JDBC and HTTP, with Spark writing down all its events and plans."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PG_USER", "postgres")
    (tmp_path / "env").mkdir()
    (tmp_path / "events").mkdir()
    (tmp_path / "token").write_text("s3cret-of-file\n")
    write_suite(tmp_path, "any")
    (tmp_path / "env" / "local.yaml").write_text(
        "spark:\n  spark.master: 'local[2]'\n  spark.eventLog.enabled: 'true'\n"
        f"  spark.eventLog.dir: {tmp_path}/events\n"
        "secrets:\n  spark.hadoop.fs.s3a.secret.key: {env: OTHER}\n  spark.hadoop.plain.name: {env: OTHER}\n"
        "  spark.executorEnv.NAMED: {file: token}\n"
    )
    (tmp_path / "p.yaml").write_text(
        "pipeline: p\nsuites: .\ntables:\n  a:\n    suite: any\n    source:\n"
        f"      {{format: jdbc, url: '{postgres.url}', query: 'select 1 as id', user: {{env: PG_USER}}, "
        "password: {env: PG_PASSWORD}}\n  b:\n    suite: any\n    source:\n"
        f"      {{format: http, url: '{api['url']}/link', schema: 'id INT', "
        "headers: {Authorization: {env: API_TOKEN}}, "
        "params: {key: {file: token}}, paging: {by: link}}\n"
        "  c: {from: a, suite: any, steps: [{derive: {columns: {x: id + 1}}}]}\n"
    )
    return tmp_path


def leaks(folder: Path, *told: str) -> list[str]:
    texts = [*everything(folder), *(("output", t) for t in told)]
    allowed = {"token"}  # where the secret is kept
    return [name for name, text in texts if "s3cret-of" in text and name not in allowed]


@pytest.mark.slow
def test_secrets_appear_nowhere(secrets_place):
    (secrets_place / "planted").write_text("s3cret-of-test")
    assert leaks(secrets_place) == ["planted"]  # the search finds what is there
    (secrets_place / "planted").unlink()
    umask = os.umask(0o077)
    try:
        done = headgate("run", "p.yaml", cwd=secrets_place)
    finally:
        os.umask(umask)
    assert done.returncode == 0, done.stderr
    assert any("spark.redaction.regex" in text for _, text in everything(secrets_place / "events")), (
        "no settings are told"
    )
    assert leaks(secrets_place, done.stdout, done.stderr) == []
    open_to_others = [str(p) for p in (secrets_place / "lake").rglob("*") if stat.S_IMODE(p.lstat().st_mode) & 0o077]
    assert open_to_others == []
    # What fails tells no secret either.
    text = (secrets_place / "p.yaml").read_text()
    (secrets_place / "p.yaml").write_text(text.replace("select 1 as id", "select nosuch"))
    done = headgate("run", "p.yaml", cwd=secrets_place)
    assert done.returncode == 4 and "nosuch" in done.stderr
    assert leaks(secrets_place, done.stdout, done.stderr) == []


def test_a_secret_written_in_the_configuration_is_refused_and_not_repeated(tmp_path):
    url = "jdbc:postgresql://u:s3cret-of-url@h/d"
    for source in (
        "{format: jdbc, url: 'jdbc:postgresql://h/d', table: t, password: s3cret-of-yaml}",
        f"{{format: jdbc, url: '{url}', table: t}}",
        "{format: http, url: 'http://h', schema: 'id INT', headers: {A: [s3cret-of-yaml]}}",
    ):
        (tmp_path / "p.yaml").write_text(f"pipeline: p\ntables:\n  t: {{suite: null, source: {source}}}\n")
        with pytest.raises(HeadgateError) as e:
            again(None, tmp_path)
        assert "s3cret" not in str(e.value) and e.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("jdbc:postgresql://u:p@ss@h:5432/d?user=u&password=x;y", "jdbc:postgresql://u:***@h:5432/d?user=u&password=***;y"),
        ("jdbc:databricks://h:443/x;AuthMech=3;accessToken=dapi12;UID=u;PWD={a;b}", None),
        ("jdbc:sqlserver://h;databaseName=d;user=u;password={x;y};clientSecret=z", None),
        ("jdbc:oracle:thin:scott/tiger@//h:1521/s", "jdbc:oracle:thin:***@//h:1521/s"),
        ("https://tok3n@api.example.org/v1?api_key=abc&sig=x%3D&page=2", "https://***@api.example.org/v1?api_key=***&sig=***&page=2"),
        ("s3://b/k?X-Amz-Credential=A&X-Amz-Signature=B&X-Amz-Date=C", "s3://b/k?X-Amz-Credential=***&X-Amz-Signature=***&X-Amz-Date=C"),
        ("abfss://container@account.dfs.core.windows.net/lake", "abfss://container@account.dfs.core.windows.net/lake"),
        ("see s3://b/a, mail ada@example.org", "see s3://b/a, mail ada@example.org"),
        ("{'Authorization': 'Bearer abc.def', 'x-api-key': 'abc'}", "{'Authorization': '***', 'x-api-key': '***'}"),
        ("authorization: basic dapi12dapi12\nAccept: text/csv", "authorization: ***\nAccept: text/csv"),
        ('{"password": "p@ss", "page": "2"} password = tok3n', '{"password": "***", "page": "2"} password = ***'),
        ("password: write {env: NAME}", "password: write {env: NAME}"),
        ("tables.t.source.token: 'x' is not known", "tables.t.source.token: 'x' is not known"),
        ("column 'token': 'x' is no number", "column 'token': 'x' is no number"),
    ],
)  # fmt: skip
def test_the_sensitive_parts_of_urls_are_masked(text, shown, capsys):
    found = without_secrets(text)
    if shown is not None:
        assert found == shown
    assert not [s for s in ("p@ss", "dapi12", "a;b", "x;y}", "=z", "tiger", "tok3n", "abc") if s in found], found
    Progress(watched=False).tell("retry", message=text)
    assert capsys.readouterr().err == f"retry: {found}\n"


@pytest.mark.parametrize("secret", ['pa"ss', "back\\slash", "schlüssel"])
def test_secrets_are_masked_in_json_however_it_writes_them(secret, monkeypatch, capsys):
    monkeypatch.setattr("headgate.jobs.disclosure.SECRETS_READ", {secret})
    monkeypatch.setenv("HEADGATE_LOG", "json")
    facts = {"message": f"login as\n{secret}", "tried": [secret, {"by": secret}], "n": 1, "at_all": None}
    Progress(watched=False).tell("retry", **facts)
    told = json.loads(capsys.readouterr().err)
    assert told.pop("at") and told == {
        "event": "retry", "message": "login as\n***", "tried": ["***", {"by": "***"}], "n": 1, "at_all": None
    }  # fmt: skip


def test_a_value_of_several_lines_is_left_out_whole_even_where_a_message_was_cut():
    message = f"no row is of {cell(chr(10).join(['Ada›', 'Lovelace']))}, put another"
    assert outward(message) == outward(first_line(ValueError(message))) == "no row is of ‹…›, put another"
    assert outward(message[:20]) == "no row is of ‹…›"


def test_what_leaves_the_machine_quotes_no_value_of_data(spark):
    frame = spark.createDataFrame([("Ada",), ("Ada",)], "name string")
    told = []
    for fails in (
        lambda: need_unique("people", frame, ["name"]),
        lambda: frame.selectExpr("cast(name as int)").collect(),  # Spark quotes the cell
        lambda: frame.selectExpr("raise_error(concat('not ', name))").collect(),
    ):
        with pytest.raises(Exception, match="Ada") as raised:
            fails()
        told.append(said(raised.value))
    assert told[0].startswith("table 'people' has 2 rows with name=‹…›: ") and not [t for t in told if "Ada" in t]
    assert told[1:] == [
        "failed: NumberFormatException: CAST_INVALID_INPUT (the log of the run says more)",
        "failed: SparkRuntimeException: USER_RAISED_EXCEPTION (the log of the run says more)",
    ]
