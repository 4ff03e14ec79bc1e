"""Unity Catalog by its REST API: external Delta tables. Its open server has no views that name a version."""

import json
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import quote

import requests

from headgate.jobs.errors import HeadgateError, InputMissing
from headgate.jobs.keep.catalogues.entries import MARKS, Column, Entry, Known

API = "api/2.1/unity-catalog"
SECONDS = 60  # for an answer
KINDS = {  # of Delta's types, as the API has them
    "byte": "BYTE",
    "short": "SHORT",
    "integer": "INT",
    "long": "LONG",
    "float": "FLOAT",
    "double": "DOUBLE",
    "boolean": "BOOLEAN",
    "string": "STRING",
    "binary": "BINARY",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
    "timestamp_ntz": "TIMESTAMP_NTZ",
    "array": "ARRAY",
    "map": "MAP",
    "struct": "STRUCT",
}


@dataclass(frozen=True)
class UnityCatalogue:
    """A schema of a Unity Catalog. uri: of the server, without the path of its API."""

    uri: str
    catalog: str
    database: str
    token: str | None = None
    views: ClassVar[bool] = False

    def known(self) -> dict[str, Known]:
        found: dict[str, Known] = {}
        page = ""
        while True:
            asked = {"catalog_name": self.catalog, "schema_name": self.database}
            answer = self.call("GET", "tables", {**asked, **({"page_token": page} if page else {})}, missing=True)
            found |= {table["name"]: known_as(table) for table in answer.get("tables") or ()}
            page = answer.get("next_page_token") or ""
            if not page:
                return found

    def create(self, entry: Entry) -> None:
        if not self.call("GET", f"catalogs/{quote(self.catalog)}", missing=True):
            self.call("POST", "catalogs", {"name": self.catalog})
        if not self.call("GET", f"schemas/{quote(f'{self.catalog}.{self.database}')}", missing=True):
            self.call("POST", "schemas", {"name": self.database, "catalog_name": self.catalog})
        place = {"name": entry.name, "catalog_name": self.catalog, "schema_name": self.database}
        self.call("POST", "tables", {**place, **table_of(entry)})

    def replace(self, entry: Entry) -> None:
        self.drop(entry.name, Known("", {}, None))
        self.create(entry)

    def drop(self, name: str, known: Known) -> None:
        self.call("DELETE", f"tables/{quote(f'{self.catalog}.{self.database}.{name}')}")

    def call(
        self, method: str, what: str, given: dict[str, Any] | None = None, missing: bool = False
    ) -> dict[str, Any]:
        """Return an answer of the server; with `missing`, nothing for what it does not have."""
        url, headers = f"{self.uri.rstrip('/')}/{API}/{what}", {}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        as_query = {"params": given} if method == "GET" else {"json": given}
        try:
            answer = requests.request(method, url, headers=headers, timeout=SECONDS, **as_query)  # type: ignore[arg-type]
        except requests.RequestException as e:
            raise InputMissing(f"{self.uri}: the catalogue does not answer ({type(e).__name__})") from e
        if answer.status_code == 404 and missing:
            return {}
        if not answer.ok:
            raise HeadgateError(f"{method} {url}: {answer.status_code} {message_of(answer)}")
        found: dict[str, Any] = answer.json() if answer.content else {}
        return found


def message_of(answer: requests.Response) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return answer.reason


def table_of(entry: Entry) -> dict[str, Any]:
    return {
        "table_type": "EXTERNAL",
        "data_source_format": "DELTA",
        "columns": [column_of(i, c) for i, c in enumerate(entry.columns)],
        "storage_location": entry.location if "://" in entry.location else f"file://{quote(entry.location)}",
        "comment": entry.comment,
        "properties": dict(entry.marks),
    }


def column_of(position: int, column: Column) -> dict[str, Any]:
    kind = json.loads(column.json)["type"]
    name = kind if isinstance(kind, str) else kind["type"]
    found = {
        "name": column.name,
        "type_text": column.kind,
        "type_json": column.json,
        "type_name": KINDS.get(name, "DECIMAL"),
        "position": position,
        "comment": column.comment,
        "nullable": True,
    }
    if name.startswith("decimal"):
        precision, scale = name.removeprefix("decimal(").removesuffix(")").split(",")
        found |= {"type_precision": int(precision), "type_scale": int(scale)}
    return found


def known_as(table: dict[str, Any]) -> Known:
    properties = table.get("properties") or {}
    marks = {k: properties[k] for k in MARKS if k in properties}
    columns = tuple((c["name"], c.get("type_text", "")) for c in table.get("columns") or ())
    return Known(table.get("storage_location") or "", marks, columns)
