"""The command line as a careless user meets it. None of these starts Spark."""

import json
import os
import re
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import click
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from headgate.jobs.cli import main as cli
from headgate.jobs.cli import places
from headgate.jobs.config.secrets import SecretReference
from headgate.jobs.disclosure import without_secrets
from headgate.jobs.errors import HeadgateError, InputMissing, storage_failure
from headgate.jobs.explore import queries
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.processes import this_process
from headgate.jobs.lake.system import now
from headgate.jobs.pipeline import planning
from headgate.jobs.pipeline.attempt import is_dead
from headgate.jobs.spark import doctor
from tests.conftest import ROOT
from tests.waiting import soon

PIPELINE = str(ROOT / "conf" / "flights.yaml")


def headgate(*arguments, cwd=None, **environment):
    command = [sys.executable, "-m", "headgate", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "160"} | environment
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=120)


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    """Runs the command line in this process, in an empty folder; gives exit code, standard output and error."""
    monkeypatch.chdir(tmp_path)
    for name in ("HEADGATE_LAKE", "HEADGATE_LANDING", "HEADGATE_DEBUG"):
        monkeypatch.setenv(name, "")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["headgate", *arguments])
        code = cli.exit_code()
        return code, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["rnu"], 2, "there is no command 'headgate rnu' — did you mean 'run'?"),
        (["release", "dorp"], 2, "there is no command 'headgate release dorp' — did you mean 'drop'?"),
        (["run"], 2, "Missing argument 'PIPELINE'"),
        (["run", PIPELINE, "--as-off", "2013-01-01"], 2, "--as-of"),
        (["run", PIPELINE, "--as-of", "2013-13-01"], 2, "--as-of: '2013-13-01' is not a day like"),
        (["run", PIPELINE, "--lake"], 2, "requires an argument"),
        (["run", PIPELINE, "--lake", ""], 2, "--lake: the value is empty"),
        (["run", PIPELINE, "--retries", "-1"], 2, "--retries"),
        (["run", "nowhere.yaml"], 2, "nowhere.yaml: there is no such file"),
        (["run", "."], 2, ".: cannot be read: Is a directory"),
        (["run", PIPELINE, "--env", "clutser"], 2, "did you mean 'cluster'?"),
        (["run", PIPELINE, "--table", "flihgts"], 2, "did you mean 'flights'?"),
        (["run", PIPELINE, "--table", "flights", "--release", "x"], 2, "cannot be combined with --table"),
        (["run", PIPELINE, "--release", "a b"], 2, "--release: invalid name 'a b'"),
        (["run", PIPELINE, "--landing", "nowhere"], 4, "no file matches 'flights/flights_{date}.csv' in nowhere"),
        (["run", PIPELINE, "--landing", "nowhere", "--dry-run"], 4, "no file matches"),
        (["run", PIPELINE, "--lake", PIPELINE], 4, "is a file, not a folder"),
        (["dedup", "nowhere.csv", "--into", "t", "--text", "a"], 4, "neither a file or folder nor a table"),
        (["dedup", "x.csv", "--text", "a"], 2, "Missing option '--into'"),
        (["impute", "nowhere.csv", "--into", "t"], 4, "neither a file or folder nor a table"),
        (["fuse", "a=nowhere.csv", "--into", "t"], 4, "neither a file or folder nor a table"),
        (["fuse", "--into", "t"], 2, "Missing argument"),
        (["dedup", PIPELINE, "--into", "t", "--text", "a", "--measure", "x"], 2, "'--measure'"),
        (["steps", "drop_duplicate"], 2, "did you mean 'drop_duplicates'? (headgate steps lists them)"),
        (["expectations", "nosuch"], 2, "there is no expectation 'nosuch' (headgate expectations lists them)"),
        (["run", PIPELINE, "--table", "nosuch"], 2, "there is no table 'nosuch' (tables: raw_flights, "),
        (["drift", "t", "--at-most", "nan"], 2, "'--at-most': nan is not a finite number"),
        (["vacuum", "--grace-hours", "inf"], 2, "'--grace-hours': inf is not"),
        (["restore", "flights"], 2, "give TABLE with --version, or --release"),
        (["restore", "flights", "--version", "-1"], 2, "'--version'"),
        (["restore", "flights", "--version", "one"], 2, "'--version'"),
        (["sql", "select 1", "--engine", "pandas"], 2, "'--engine'"),
        (["sql", "select 1", "--limit", "-1"], 2, "'--limit'"),
        (["trace", "--key", "a=b"], 2, "give ROW_ID, or --table with --key"),
        (["erase", "--table", "t"], 2, "give --table, --reason"),
        (["release", "drop"], 2, "give the names of releases, or --keep"),
        (["optimize", "t", "--sort", "a", "--zorder", "b"], 2, "give --sort or --zorder, not both"),
        (["recover", "--from", "nowhere"], 4, "there is no backup at"),
        (["register"], 2, "give --catalog and --database, or `catalog` in the environment"),
        (["recover"], 2, "Missing option '--from'"),
        (["optimize", "--sort", "a"], 2, "--sort and --zorder need a TABLE"),
        (["optimize", "--target-size", "much"], 2, "--target-size: 'much' is not a size like 64M"),
        (["sample", "fligths", "--into", "x"], 2, "flights"),
        (["sample", "flights", "--into", "x", "--from", "2013-02-30"], 2, "--from: '2013-02-30' is not a day"),
        (["sample", "flights", "--into", "x", "--from", "2013-03-01", "--to", "2013-01-01"], 2, "--to: 2013-01-01 is"),
        (["sample", "flights", "--into", f"{PIPELINE}/x", "--to", "2013-01-01"], 1, "Not a directory"),
        (["doctor", "--env", "nowhere"], 2, "--env: there is no environment 'nowhere', no conf/env/nowhere.yaml"),
        (["tables", "--env", "../secrets"], 2, "--env: '../secrets' is not a valid name"),
    ],
)
def test_mistakes_get_one_clear_line_and_their_exit_code(tmp_path, here, arguments, code, told):
    ended, out, error = here(*arguments)
    assert (ended, out) == (code, ""), error
    assert told in error and len(error.splitlines()) == 1 and error.startswith("headgate: ")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_word_is_refused_for_every_option_and_argument(tmp_path, here):
    """A shell makes one of a variable that is not set; some would be taken for the working folder."""
    commands = dict(cli.headgate.commands)
    commands |= {f"release {name}": command for name, command in commands.pop("release").commands.items()}
    for name, command in commands.items():
        options = [p for p in command.params if isinstance(p, click.Option) and not p.is_flag]
        first = [p for p in command.params if isinstance(p, click.Argument)][:1]
        empty = {p.opts[0]: [p.opts[0], *[""] * p.nargs] for p in options} | {
            p.metavar or p.name.upper(): [""] for p in first
        }
        for named, given in empty.items():
            assert here(*name.split(), *given) == (2, "", f"headgate: {named}: the value is empty\n")
    assert here("tables", "--release=") == (2, "", "headgate: --release: the value is empty\n")
    assert list(tmp_path.iterdir()) == []


def test_a_query_is_one_that_answers_with_rows(tmp_path, here):
    lake = Lake(str(tmp_path / "lake"))
    write_deltalake(lake.path("orders"), pa.table({"id": [1]}))
    for query, code, told in (
        ("select 1; select 2", 2, "sql: give one query"),
        ("/* nothing */", 2, "sql: give one query"),
        ("create table x as select 1 as a", 2, "sql: CREATE is not a query"),
        ("select * from order_", 4, "there is no table 'order_' — did you mean 'orders'? (tables: orders, "),
    ):
        ended, out, error = here("sql", query)
        assert (ended, out) == (code, "") and told in error and len(error.splitlines()) == 1, (query, out, error)
    for query in (
        "select id from orders;",
        "describe orders",
        "summarize orders",
        "explain select 1",
        "show tables",
        "pivot orders on id",
    ):
        assert here("sql", query)[0] == 0, query


def test_what_is_given_as_a_folder_and_is_a_file_is_told_so(tmp_path, here):
    write_deltalake(Lake(str(tmp_path / "lake")).path("t"), pa.table({"_row_id": ["a"]}))
    (tmp_path / "file").touch()
    for arguments in (["backup", "--to", "file"], ["recover", "--from", "file"], ["vacuum", "--archive", "file"]):
        assert here(*arguments) == (2, "", "headgate: file is a file, not a folder\n")
    code, _, error = here("run", PIPELINE, "--landing", "file")
    assert code == 4 and error.endswith(" in file: that is not a folder\n")


def test_a_damaged_log_is_an_input_that_cannot_be_read(tmp_path, here):
    write_deltalake(Lake(str(tmp_path / "lake")).path("t"), pa.table({"_row_id": ["a"]}))
    (tmp_path / "lake/t/_delta_log/00000000000000000000.json").write_text("{nonsense")
    code, out, error = here("versions", "t")
    assert (code, out) == (4, "") and f"table 't' of the lake {tmp_path}/lake cannot be opened" in error


def test_an_erasure_of_nothing_says_so(tmp_path, here):
    write_deltalake(Lake(str(tmp_path / "lake")).path("t"), pa.table({"_row_id": ["a"], "id": [1]}))
    code, out, _ = here("erase", "--table", "t", "--where", "id = 2", "--reason", "x", "--yes")
    assert code == 0 and out.endswith("nothing to erase: no version of table 't' has such a row\n")


def test_a_release_that_is_there_is_refused_before_anything_is_built(tmp_path, here):
    Lake(str(tmp_path / "lake")).publish_release("p", "r", {}, None, None, "may")
    code, _, error = here("run", PIPELINE, "--lake", "lake", "--landing", "nowhere", "--release", "may")
    assert (code, error) == (2, "headgate: --release: there is a release 'may' already; a release never changes\n")


def test_a_project_that_cannot_be_written_leaves_nothing_behind(tmp_path, here, monkeypatch):
    write = Path.write_text

    def fail(self, *arguments, **options):
        if self.name == "orders.yaml" and self.parent.name == "suites":
            raise OSError(28, "No space left on device", str(self))
        return write(self, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", fail)
    code, out, error = here("init", "mine")
    assert (code, out) == (1, "") and "orders.yaml cannot be written: No space left on device" in error
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_project_in_a_folder_with_spaces_is_told_how_to_run(here):
    code, out, _ = here("init", "my 项目")
    assert code == 0 and out.endswith("next: cd 'my 项目' && headgate run conf/orders.yaml\n")


def test_help_lists_every_command_once_under_a_heading(here):
    ended, out, _ = here("--help")
    listed = re.findall(r"^  ([a-z]+)  +[A-Z]", out, re.MULTILINE)
    assert ended == 0 and sorted(listed) == sorted(cli.headgate.commands)


READING = {  # commands that read a lake, with the names that they take; what is not there is named `nosuch`
    "tables": [["--release", "nosuch"]],
    "versions": [["nosuch"]],
    "releases": [],
    "sql": [["select * from nosuch"], ["select 1", "--release", "nosuch"]],
    "restore": [
        ["nosuch", "--version", "0"],
        ["t", "--version", "99"],
        ["--release", "nosuch"],
        ["nosuch", "--release", "p-1"],
    ],
    "trace": [["nosuch"], ["--table", "nosuch", "--key", "id=1"]],
    "review": [["nosuch"]],
    "diff": [
        ["nosuch@0", "nosuch@1"],
        ["t@0", "t@99"],
        ["t@0", "t@nosuch"],
        ["other@p-1", "other@0"],
        ["p-1", "nosuch"],
    ],
    "drift": [["nosuch"], ["t", "--versions", "0:99"]],
    "lineage": [["nosuch"], ["nosuch.id"]],
    "verify": [["nosuch"]],
    "missing": [["nosuch"], ["t", "--release", "nosuch"]],
    "apply": [
        ["nosuch", "x.csv", "--into", "u"],
        ["t@nosuch", "x.csv", "--into", "u"],
        ["t@99", "x.csv", "--into", "u"],
    ],
    "optimize": [["nosuch"]],
    "storage": [["nosuch"]],
    "register": [["--catalog", "glue", "--database", "x", "--release", "nosuch"]],
    "backup": [["--to", "x", "--release", "nosuch"]],
    "vacuum": [["--table", "nosuch"]],
    "release drop": [["nosuch"]],
    "erase": [["--table", "nosuch", "--where", "true", "--reason", "x"]],
}
OTHERS = {
    "run",
    "backfill",
    "check",
    "init",
    "dedup",
    "fuse",
    "impute",
    "rebalance",
    "recover",
    "sample",
    "steps",
    "expectations",
    "schema",
    "doctor",
    "prepare",
    "jars",
    "release",
}
VALID = {"versions": ["t"], "sql": ["select 1"], "restore": ["t", "--version", "0"], "trace": ["x"], "diff": ["a", "b"]}
VALID |= {
    "drift": ["t"],
    "missing": ["t"],
    "lineage": ["t"],
    "review": ["t"],
    "verify": ["p-1"],
    "release drop": ["p-1"],
}
VALID |= {"backup": ["--to", "x"], "register": ["--catalog", "glue", "--database", "x"]}
VALID |= {"erase": READING["erase"][0]}
VALID |= {"apply": ["t", "x.csv", "--into", "u"]}


def test_what_is_not_there_is_exit_4_in_every_command(tmp_path, here):
    """A table, version, release or row that the lake has not, and a lake that is not there, a file or unreadable."""
    assert {c.split()[0] for c in READING} | OTHERS == set(cli.headgate.commands), "a new command belongs here"
    lake = Lake(str(tmp_path / "lake"))
    for name in ("t", "other"):
        for mode in ("error", "append"):
            write_deltalake(lake.path(name), pa.table({"_row_id": ["a"], "id": [1]}), mode=mode)
    for version in (0, 1):
        lake.publish_release("p", "r", {"t": version}, None, version or None, None)
    file = tmp_path / "file"
    file.touch()
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for command, examples in READING.items():
        for example in examples:
            code, out, error = here(*command.split(), *example, "--lake", lake.root)
            assert (code, out) == (4, ""), (command, example, error)
            named = "99" if "99" in str(example) else "other" if "other" in str(example) else "nosuch"
            assert named in error and error.startswith("headgate: ") and len(error.splitlines()) == 1, error
        for place, told in ((tmp_path / "nowhere", "there is no lake at"), (file, "not a folder"), (loop, "cannot be")):
            code, out, error = here(*command.split(), *VALID.get(command, []), "--lake", str(place))
            assert (code, out, len(error.splitlines())) == (4, "", 1) and told in error, (command, error)
    # What the user mistyped is another class: a column, a query.
    for arguments in (["lineage", "t.idd"], ["trace", "--table", "t", "--key", "idd=1"], ["sql", "select idd from t"]):
        code, _, error = here(*arguments, "--lake", lake.root)
        assert code == 2 and len(error.splitlines()) == 1, error


def test_debug_shows_the_chain_of_causes_and_no_secret(tmp_path, here, monkeypatch):
    monkeypatch.setenv("TOKEN", "s3cret-of-env")
    (tmp_path / "p.yaml").write_text(
        "pipeline: p\ntables:\n  t: {suite: null, source: {format: jdbc, url: 'jdbc:postgresql://h/d', table: t, "
        "password: s3cret-of-yaml}}\n"
    )
    code, _, error = here("run", "p.yaml")
    assert code == 2 and len(error.splitlines()) == 1
    for arguments in (["--debug", "run", "p.yaml"], ["run", "p.yaml", "--debug"]):
        monkeypatch.setenv("HEADGATE_DEBUG", "")
        code, _, error = here(*arguments)
        assert code == 2 and "Traceback" in error and error.splitlines()[-1].startswith("headgate: p.yaml:3:"), error
        assert "s3cret" not in error
    monkeypatch.setenv("HEADGATE_DEBUG", "1")
    code, _, error = here("run", "nowhere.yaml")
    assert code == 2 and "FileNotFoundError" in error and "direct cause" in error
    SecretReference(env="TOKEN").read("x")
    told = without_secrets("x=s3cret-of-env, jdbc://u:s3cret@h/d?password=s3cret&a=b token=s3cret")
    assert told == "x=***, jdbc://u:***@h/d?password=***&a=b token=***"


def test_an_error_of_no_class_is_one_line_too(here, monkeypatch):
    def fail(*arguments):
        raise ZeroDivisionError("of no class\nand long")

    monkeypatch.setattr(queries, "tables", fail)
    monkeypatch.setattr(places, "lake_of", lambda environment: None)
    code, _, error = here("tables")
    assert code == 1
    assert error == "headgate: failed: ZeroDivisionError: of no class (--debug shows the whole error)\n"


LAKE, LANDING = "/data/my lake", "/data/landing"


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (PermissionError(13, "Permission denied", f"{LANDING}/a.csv"), InputMissing, f"{LANDING}/a.csv cannot be read"),
        (OSError(f"Cannot list directory '{LANDING}'. Detail: [errno 13] Permission denied"), InputMissing, LANDING),
        (OSError(f"java.io.FileNotFoundException: {LANDING}/t/a.csv (Permission denied)"), InputMissing, "t/a.csv"),
        (OSError(f"Mkdirs failed to create file:{LAKE}/t/_delta_log"), HeadgateError, f"the lake {LAKE} cannot be"),
        (OSError(28, "No space left on device", f"{LAKE}/t/part-0"), HeadgateError, f"the lake {LAKE} cannot be"),
        (OSError(28, "No space left on device", "/tmp/blockmgr-1/x"), HeadgateError, "/tmp/blockmgr-1/x cannot be"),
        (OSError(28, "No space left on device", f"{LAKE}2/x"), HeadgateError, f"{LAKE}2/x cannot be"),
        (OSError(f"writing {LAKE}/t\nNo space left on device"), HeadgateError, f"the lake {LAKE} cannot be"),
        (OSError("No space left on device"), HeadgateError, "that the error does not name"),
        (ValueError("something else"), None, ""),
    ],
)
def test_a_storage_that_fails_is_named(error, kind, told):
    for caused in (error, chained(error)):
        found = storage_failure(caused, LAKE, LANDING)
        assert type(found) is (kind or type(None))
        assert found is None or (told in str(found) and "\n" not in str(found)), str(found)


@pytest.mark.parametrize(
    ("why", "flag", "free"), [("No space left", 0, 0), ("Read-only file system", os.ST_RDONLY, 99)]
)
def test_a_storage_that_the_error_does_not_name_is_the_one_that_is_full(tmp_path, monkeypatch, why, flag, free):
    class Found:
        f_flag, f_frsize = 0, 1 << 20

        def __init__(self, place):
            broken = place == str(tmp_path / "broken")
            self.f_flag, self.f_bavail = (flag, free) if broken else (0, 99)

    (tmp_path / "broken").mkdir()
    monkeypatch.setattr(os, "statvfs", Found)
    error, broken, fine = OSError(f"{why} on device" if not flag else why), str(tmp_path / "broken/x"), str(tmp_path)
    assert f"the lake {broken} cannot be written: {why}" in str(storage_failure(error, broken, fine))
    assert str(storage_failure(error, fine, None, broken)).startswith(f"{broken} cannot be written: {why}")
    assert "does not name" in str(storage_failure(error, fine, "s3://bucket/x"))


def chained(error):
    outer = RuntimeError("a task failed")
    outer.__cause__ = error
    return outer


def test_a_landing_folder_that_cannot_be_read_is_not_told_as_the_lake(tmp_path, here, monkeypatch):
    def refuse(*arguments):
        raise PermissionError(13, "Permission denied", str(tmp_path / "landing" / "flights"))

    (tmp_path / "landing").mkdir()
    monkeypatch.setattr(planning, "list_files", refuse)
    for arguments in (["run", PIPELINE], ["run", PIPELINE, "--dry-run"]):
        code, _, error = here(*arguments, "--landing", "landing")
        assert code == 4 and error.startswith(f"headgate: {tmp_path}/landing/flights cannot be read"), error


def test_an_input_that_is_not_there_is_told_with_the_nearest_name(tmp_path, here):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "orders.csv").write_text("a\n1\n")
    for command in ("dedup in/order.csv --exact a --into t", "fuse in/order.csv --into t"):
        code, _, error = here(*command.split())
        assert code == 4 and error.endswith(" — did you mean 'in/orders.csv'?\n"), error


def test_where_no_file_matches_the_nearest_name_is_told(tmp_path, here):
    (tmp_path / "p.yaml").write_text(
        "pipeline: p\ntables:\n  t: {suite: null, source: {format: csv, path: 'order/o_{date}.csv', schema: 'a INT'}}\n"
    )
    (tmp_path / "landing" / "orders").mkdir(parents=True)
    code, _, error = here("run", "p.yaml", "--dry-run")
    assert code == 4 and error.endswith(f" — did you mean 'orders'? (in {tmp_path}/landing: orders)\n")
    (tmp_path / "landing" / "order").mkdir()
    assert here("run", "p.yaml", "--dry-run")[2].endswith(f": the folder {tmp_path}/landing/order is empty\n")
    (tmp_path / "landing" / "order" / "o-2024-01-01.csv").touch()
    assert " — did you mean 'o-2024-01-01.csv'? (in " in here("run", "p.yaml", "--dry-run")[2]


def test_a_dry_run_tells_where_a_run_could_not_write(tmp_path, here, monkeypatch):
    text = "pipeline: p\ntables:\n  t: {suite: null, source: {format: csv, path: '*.csv', schema: 'a INT'}}\n"
    (tmp_path / "p.yaml").write_text(text)
    (tmp_path / "landing").mkdir()
    (tmp_path / "landing" / "a.csv").write_text("a\n1\n")
    code, out, error = here("run", "p.yaml", "--dry-run")
    assert (code, error) == (0, "") and "1 new file" in out and not (tmp_path / "lake").exists()
    monkeypatch.setattr(os, "access", lambda place, mode: not mode & os.W_OK)
    code, out, error = here("run", "p.yaml", "--dry-run")
    assert (code, error) == (0, f"warning: the lake {tmp_path}/lake cannot be written: a run would fail\n") and out


def test_help_teaches():
    done = headgate("--help")
    assert done.returncode == 0 and "Exit codes" in done.stdout and "headgate sample flights" in done.stdout
    assert "--as-of" in headgate("run", "--help").stdout


def test_steps_are_listed_and_shown():
    listed = json.loads(headgate("steps", "--json").stdout)
    assert {"drop_duplicates", "impute_median", "join_table", "sample_strata"} <= {s["step"] for s in listed}
    shown = headgate("steps", "impute_median").stdout
    assert "the median of the training rows" in shown and "\n  columns: list: text (required)\n" in shown


def test_the_schema_is_json():
    assert json.loads(headgate("schema").stdout)["title"] == "PipelineFile"


def test_a_dry_run_says_what_and_why(night, tmp_path):
    folders = ["--landing", str(night / "landing"), "--lake", str(tmp_path / "lake")]
    rows = json.loads(headgate("run", PIPELINE, "--dry-run", "--json", "--table", "raw_flights", *folders).stdout)
    assert rows == [{"table": "raw_flights", "build": True, "why": "3 new files", "what": ""}]
    assert not (tmp_path / "lake").exists()


def test_what_is_there_is_told_as_table_and_as_json(night):
    lake = ["--lake", str(night / "lake")]
    rows = json.loads(headgate("tables", "--json", *lake).stdout)
    training = next(r for r in rows if r["table"] == "flights_training")
    assert set(training) == {"table", "path", "version", "rows", "release"} and training["version"] == 0
    assert "flights_training" in headgate("tables", *lake).stdout
    assert "flights-1" in headgate("releases", *lake).stdout
    assert json.loads(headgate("versions", "flights", "--json", *lake).stdout)[0]["version"] == 0
    query = "select count(*) as n from raw_flights"
    assert json.loads(headgate("sql", query, "--json", "--release", "flights-1", *lake).stdout) == [{"n": 2699}]
    up_to_date = headgate("run", PIPELINE, "--landing", str(night / "landing"), *lake)
    assert up_to_date.returncode == 0 and "nothing to build" in up_to_date.stdout


WAITING = """
import sys, time
from pathlib import Path
from headgate.jobs.cli import main as cli
from headgate.jobs.spark import session

def start(*arguments):
    Path("started").touch()
    time.sleep(60)

session.start = start
cli.main()
"""
SLOW = """
import time
from pathlib import Path

def rows(after):
    Path({started!r}).touch()
    time.sleep(60)
    yield {{"id": 1}}
"""
PULLED = """
pipeline: p
tables:
  t: {suite: null, source: {format: python, function: "slow.py:rows", schema: "id INT"}}
"""


def ended_by(number, folder, *command, group=False):
    """A run that gets a signal once it waits, with `group` Java as well; its exit code and standard error."""
    (folder / "started").unlink(missing_ok=True)
    (folder / "p.yaml").write_text(PULLED)
    (folder / "slow.py").write_text(SLOW.format(started=str(folder / "started")))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, *command, "run", "p.yaml"],
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=group,
    )
    soon(lambda: (folder / "started").exists() or process.poll() is not None, "the run is at work")
    if group:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    error = process.communicate(timeout=60)[1]
    return process.returncode, error


def ends(folder):
    rows = Lake(str(folder / "lake")).system("runs").sort_by("recorded_at").to_pylist()
    return [r["status"] for r in rows if r["event"] == "finished"]


@pytest.mark.slow
def test_a_run_that_is_ended_says_so_in_one_line_and_in_the_table_of_runs(tmp_path):
    waiting = ["-c", WAITING]
    assert ended_by(signal.SIGTERM, tmp_path, *waiting) == (143, "headgate: terminated\n")
    assert ended_by(signal.SIGKILL, tmp_path, *waiting) == (-9, "")
    assert ends(tmp_path) == ["terminated"]
    # The next run of the pipeline tells of the one that could not.
    assert ended_by(signal.SIGTERM, tmp_path, *waiting)[0] == 143
    assert ends(tmp_path) == ["terminated", "abandoned", "terminated"]


@pytest.mark.slow
def test_an_interruption_of_spark_is_one_line_too(tmp_path):
    assert ended_by(signal.SIGINT, tmp_path, "-m", "headgate") == (130, "headgate: interrupted\n")
    assert ended_by(signal.SIGTERM, tmp_path, "-m", "headgate", group=True) == (143, "headgate: terminated\n")
    assert ends(tmp_path) == ["interrupted", "terminated"]


@pytest.mark.slow
def test_a_java_that_does_not_start_is_told_in_one_line(tmp_path):
    for settings, told in (("spark.master: nosuch", "Master must"), ("spark.driver.memory: 9x", "heap size")):
        (tmp_path / "env").mkdir(exist_ok=True)
        (tmp_path / "env" / "local.yaml").write_text(f"spark: {{{settings}}}\n")
        (tmp_path / "p.yaml").write_text(PULLED)
        (tmp_path / "slow.py").write_text("def rows(after):\n    yield {}\n")
        done = headgate("run", "p.yaml", cwd=tmp_path)
        assert done.returncode == 1 and told in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_a_run_is_dead_when_its_process_is_gone():
    at = now()
    host, pid, began = this_process().split(" ")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for process, age, dead in (
        (f"{host} {pid} {began}", 0, False),
        (f"{host} {pid} 1", 0, True),  # the number was given to another process since
        (f"{host} {ended.pid} {began}", 0, True),
        (f"another-host {pid} {began}", 6, False),
        (f"another-host {pid} {began}", 8, True),
        (None, 8, True),
    ):
        assert is_dead({"process": process, "recorded_at": at - timedelta(days=age)}, at) is dead, process


def test_doctor_says_what_it_found_and_fails_where_anything_needed_is_missing(tmp_path, here, monkeypatch):
    def states(*arguments):
        code, out, _ = here("doctor", "--json", *arguments)
        return code, {f["what"]: f["state"] for f in json.loads(out)}

    code, found = states()
    assert code == 0 and set(found) >= {"java", "jars", "pyspark", "lake"} and found["landing"] == "not there yet"
    (tmp_path / "file").touch()
    assert states("--lake", "file")[1]["lake"] == "missing" and states("--lake", "file/x")[0] == 1
    assert states("--lake", "/proc/nowhere") == (1, {**found, "lake": "missing"})  # where even root cannot write
    monkeypatch.setenv("HEADGATE_JARS", str(tmp_path))
    assert states() == (1, {**found, "jars": "missing"})
    monkeypatch.delenv("HEADGATE_JARS")
    monkeypatch.setattr(doctor, "missing_jars", lambda folder, wanted: ["a.jar"])
    monkeypatch.setattr(doctor, "jars_folder", lambda wanted: tmp_path / "jars")
    monkeypatch.setattr(doctor, "CENTRAL", "http://127.0.0.1:9/")
    assert states() == (1, {**found, "jars": "missing"})
    monkeypatch.setattr(doctor, "CENTRAL", (tmp_path / "file").as_uri())
    assert states() == (0, found)


def test_a_list_of_names_that_names_nothing_is_refused(tmp_path, here):
    write_deltalake(Lake(str(tmp_path / "lake")).path("t"), pa.table({"id": [1]}))
    code, _, error = here("optimize", "t", "--sort", " , ")
    assert (code, error) == (2, "headgate: --sort: name at least one column\n")
