"""Catalogues: what is entered, changed and dropped. Glue by moto's server, Unity Catalog by its published API alone."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

import duckdb
import flask
import jsonschema
import pyarrow as pa
import pytest
import yaml
from deltalake import DeltaTable, write_deltalake
from werkzeug.serving import make_server

from headgate.jobs.cli import main as cli
from headgate.jobs.errors import UsageError
from headgate.jobs.keep.catalogues.entries import entries, is_below, register
from headgate.jobs.keep.catalogues.glue import glue
from headgate.jobs.keep.catalogues.unity import UnityCatalogue
from headgate.jobs.lake.lake import Lake
from headgate.jobs.lake.stores import Keys, Store
from tests.conftest import ROOT
from tests.store_server import store_server

ROWS = pa.table(
    {
        "id": pa.array([1], pa.int64()),
        "amount": pa.array([None], pa.decimal128(10, 2)),
        "tags": pa.array([["a"]], pa.list_(pa.string())),
    }
)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Two tables, and two releases of the first."""
    lake = Lake(str(tmp_path / "lake"))
    write_deltalake(lake.path("t"), ROWS, description="What was ordered")
    lake.publish_release("shop", "r", {"t": 0}, None, None, None)
    write_deltalake(lake.path("t"), ROWS, mode="append")
    write_deltalake(lake.path("u"), ROWS)
    lake.publish_release("shop", "r", {"t": 1, "u": 0}, None, 1, None)
    return lake


def what(rows: list[dict]) -> dict[str, str]:
    return {r["entry"]: r["what"] for r in rows}


def test_names_of_entries(lake):
    assert [(e.name, e.version) for e in entries(lake, views=True)] == [
        ("t", None),
        ("u", None),
        ("t__shop_1", 0),
        ("t__shop_2", 1),
        ("u__shop_2", 0),
    ]
    assert [e.name for e in entries(lake, True, ["shop-1"])] == ["t", "u", "t__shop_1"]
    assert [json.loads(e.marks["headgate.releases"]) for e in entries(lake, views=False)] == [
        {"shop-1": 0, "shop-2": 1},
        {"shop-2": 0},
    ]
    lake.publish_release("shop", "r", {"t": 1}, None, 2, "SHOP.2")
    with pytest.raises(UsageError, match=r"'t__shop_2' would stand for a table of shop-2 and of SHOP\.2"):
        entries(lake, views=True)
    assert is_below("file:/a/b/t", "/a/b") and is_below("s3a://b/l/t", "s3://b/l") and not is_below("/a/bc/t", "/a/b")


# -- the API of Unity Catalog, as it is published

TEXT, NUMBER = {"type": "string"}, {"type": "integer"}
KINDS = "BOOLEAN BYTE SHORT INT LONG FLOAT DOUBLE DATE TIMESTAMP TIMESTAMP_NTZ STRING BINARY DECIMAL ARRAY STRUCT MAP"
PROPERTIES = {"type": "object", "additionalProperties": TEXT}


def closed(required: str, **properties: object) -> dict[str, object]:
    return {
        "type": "object",
        "required": required.split(),
        "properties": properties,
        "additionalProperties": False,
    }


COLUMN = closed(
    "name type_text type_json type_name position",
    name=TEXT,
    type_text=TEXT,
    type_json=TEXT,
    type_name={"enum": KINDS.split()},
    type_precision=NUMBER,
    type_scale=NUMBER,
    position=NUMBER,
    comment=TEXT,
    nullable={"type": "boolean"},
)
BODIES = {
    "catalogs": closed("name", name=TEXT, comment=TEXT, properties=PROPERTIES),
    "schemas": closed("name catalog_name", name=TEXT, catalog_name=TEXT, comment=TEXT, properties=PROPERTIES),
    "tables": closed(
        "name catalog_name schema_name table_type columns",
        name=TEXT,
        catalog_name=TEXT,
        schema_name=TEXT,
        table_type={"enum": ["EXTERNAL"]},
        data_source_format={"enum": ["DELTA"]},
        columns={"type": "array", "items": COLUMN},
        storage_location=TEXT,
        comment=TEXT,
        properties=PROPERTIES,
    ),
}


@pytest.fixture
def unity():
    """A server that takes what the published API takes, and keeps it: not Unity Catalog itself."""
    app, held = flask.Flask("unity"), {kind: {} for kind in BODIES}
    base = "/api/2.1/unity-catalog"

    def error(code: int, message: str):
        return {"error_code": "X", "message": message}, code

    @app.before_request
    def with_token():
        return None if flask.request.headers.get("Authorization") == "Bearer s3cret" else error(401, "no token s3cret")

    @app.post(f"{base}/<kind>")
    def create(kind):
        body = flask.request.get_json()
        jsonschema.validate(body, BODIES[kind])
        parents = [body[k] for k in ("catalog_name", "schema_name") if k in body]
        if parents and ".".join(parents) not in held["schemas" if len(parents) == 2 else "catalogs"]:
            return error(404, "no parent")
        name = ".".join([*parents, body["name"]])
        if name in held[kind]:
            return error(409, f"{name} already exists")
        held[kind][name] = body
        return body

    @app.get(f"{base}/<kind>/<name>")
    def get(kind, name):
        return held[kind].get(name) or error(404, f"{name} does not exist")

    @app.get(f"{base}/tables")
    def tables():
        schema = f"{flask.request.args['catalog_name']}.{flask.request.args['schema_name']}"
        if schema not in held["schemas"]:
            return error(404, f"{schema} does not exist")
        names = sorted(n for n in held["tables"] if n.startswith(f"{schema}."))
        first = int(flask.request.args.get("page_token", 0))
        more = {"next_page_token": str(first + 1)} if first + 1 < len(names) else {}
        return {"tables": [held["tables"][n] for n in names[first : first + 1]], **more}

    @app.delete(f"{base}/tables/<name>")
    def delete(name):
        return {} if held["tables"].pop(name, None) else error(404, f"{name} does not exist")

    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", held
    server.shutdown()


def test_unity_catalog_by_its_published_api(lake, unity, tmp_path, monkeypatch, capsys):
    url, held = unity
    catalogue = UnityCatalogue(url, "main", "shop", "s3cret")
    assert what(register(lake, catalogue, dry_run=True)) == {"t": "created", "u": "created"}
    assert held == {"catalogs": {}, "schemas": {}, "tables": {}}
    assert what(register(lake, catalogue)) == {"t": "created", "u": "created"}
    table = held["tables"]["main.shop.t"]
    assert [(c["name"], c["type_name"], c["type_text"]) for c in table["columns"]] == [
        ("id", "LONG", "bigint"),
        ("amount", "DECIMAL", "decimal(10,2)"),
        ("tags", "ARRAY", "array<string>"),
    ]
    assert (table["columns"][1]["type_precision"], table["columns"][1]["type_scale"]) == (10, 2)
    assert table["comment"] == "What was ordered"
    assert read(urlsplit(table["storage_location"]).path) == 2
    assert what(register(lake, catalogue)) == {"t": "same", "u": "same"}
    checked(lake, catalogue)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UC_TOKEN", "wrong")
    Path("conf/env").mkdir(parents=True)
    options = {"kind": "unity", "database": "shop", "name": "main", "uri": url, "token": {"env": "UC_TOKEN"}}
    Path("conf/env/local.yaml").write_text(yaml.safe_dump({"catalog": options}))
    monkeypatch.setattr("sys.argv", ["headgate", "register"])
    assert cli.exit_code() == 1 and "401 no token" in capsys.readouterr().err
    monkeypatch.setenv("UC_TOKEN", "s3cret")
    assert cli.exit_code() == 0
    options["uri"] = "http://127.0.0.1:1"
    Path("conf/env/local.yaml").write_text(yaml.safe_dump({"catalog": options}))
    capsys.readouterr()
    assert cli.exit_code() == 4 and "does not answer" in capsys.readouterr().err


def read(place: str) -> int:
    """Rows of what is registered, by deltalake and DuckDB."""
    rows = DeltaTable(place).to_pyarrow_dataset()
    (found,) = duckdb.connect().from_arrow(rows).count("*").fetchall()[0]
    assert found == rows.count_rows()
    return found


def checked(lake, catalogue):
    """What changes in a lake changes in the catalogue; what is gone goes when it is asked for; others' tables stay."""
    write_deltalake(lake.path("t"), ROWS.append_column("more", pa.array(["x"])), mode="append", schema_mode="merge")
    assert what(register(lake, catalogue)) == {"t": "changed", "u": "same"}
    assert [c[0] for c in catalogue.known()["t"].columns] == ["id", "amount", "tags", "more"]
    lake.publish_release("shop", "r", {"t": 2}, None, 2, None)
    assert what(register(lake, catalogue)) == {"t": "changed", "u": "same"}
    other = Lake(f"{lake.root}-other")
    write_deltalake(other.path("u"), ROWS)
    write_deltalake(other.path("w"), ROWS)
    with pytest.raises(UsageError, match=r"has a table 'u' already, at .*lake/u"):
        register(other, catalogue)
    assert "w" not in catalogue.known(), "nothing was done"
    write_deltalake(lake.path("v"), ROWS)
    register(lake, catalogue)
    for file in Path(lake.path("v"), "_delta_log").iterdir():
        file.unlink()
    assert what(register(lake, catalogue))["v"] == "gone from the lake (--prune)" and "v" in catalogue.known()
    assert what(register(lake, catalogue, prune=True, dry_run=True))["v"] == "removed" and "v" in catalogue.known()
    assert what(register(lake, catalogue, prune=True))["v"] == "removed" and "v" not in catalogue.known()


def test_glue_by_its_server(lake):
    store = Store(keys=lambda: Keys("key-of-test", "secret-of-test"))
    with store_server() as server, glue(server.url, store, "shop") as catalogue:
        assert what(register(lake, catalogue, dry_run=True)) == {"t": "created", "u": "created"}
        assert catalogue.known() == {}
        assert what(register(lake, catalogue)) == {"t": "created", "u": "created"}
        assert what(register(lake, catalogue)) == {"t": "same", "u": "same"}
        table = catalogue.client.get_table(DatabaseName="shop", Name="t")["Table"]
        assert (table["TableType"], table["Parameters"]["table_type"]) == ("EXTERNAL_TABLE", "DELTA")
        assert [(c["Name"], c["Type"]) for c in table["StorageDescriptor"]["Columns"]] == [
            ("id", "bigint"),
            ("amount", "decimal(10,2)"),
            ("tags", "array<string>"),
        ]
        assert read(table["StorageDescriptor"]["Location"]) == 2
        checked(lake, catalogue)


@pytest.mark.slow
def test_hive_by_a_metastore_of_its_own():
    """See `hive_with_spark`."""
    command = [sys.executable, "-m", "pytest", "-m", "", "-p", "no:cacheprovider", "tests/jobs/hive_with_spark.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-10_000:]


def test_what_is_wrong_with_glue_is_one_line(lake, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        "sys.argv", ["headgate", "register", "--catalog", "glue", "--database", "x", "--lake", lake.root]
    )
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    assert cli.exit_code() == 4 and "Glue: You must specify a region" in capsys.readouterr().err
