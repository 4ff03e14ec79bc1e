"""The schemas of `schemas/`, which refuse every field that they do not know."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import referencing

SCHEMAS = Path(__file__).parent / "schemas"


@cache
def registry() -> referencing.Registry[Any]:
    found = {file.name: json.loads(file.read_text(encoding="utf-8")) for file in SCHEMAS.glob("*.json")}
    resources = [(name, referencing.Resource.from_contents(schema)) for name, schema in found.items()]
    return referencing.Registry[Any]().with_resources(resources)


def problems(document: Any, file: str, definition: str) -> list[str]:
    """Return what a document says that its definition does not take, each with its place."""
    schema = {"$ref": f"{file}.json#/$defs/{definition}"}
    found = jsonschema.Draft202012Validator(schema, registry=registry()).iter_errors(document)
    return [f"{error.json_path}: {error.message}" for error in found]
