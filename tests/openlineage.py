"""OpenLineage's rules for events, checked; in full by its own JSON Schemas where the folder of its `spec` is at hand.

`OPENLINEAGE_SPEC=…/OpenLineage/spec` names a checkout's folder; without it the rules are those that are written here.
"""

import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

STATES = {"START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"}


def check_events(events: Iterable[Mapping[str, Any]]) -> None:
    """Assert that events are well formed, and that every run has one start, and one end after it."""
    states: dict[str, list[str]] = {}
    for event in events:
        assert {"eventTime", "producer", "schemaURL", "run", "job", "eventType"} <= set(event)
        assert event["eventType"] in STATES
        assert datetime.fromisoformat(event["eventTime"]).tzinfo is not None
        assert urlsplit(event["producer"]).scheme and urlsplit(event["schemaURL"]).scheme
        uuid.UUID(event["run"]["runId"])
        for named in (event["job"], *event.get("inputs", ()), *event.get("outputs", ())):
            assert named["namespace"] and named["name"]
        for name, facet in facets(event):
            assert urlsplit(facet["_producer"]).scheme, name
            assert urlsplit(facet["_schemaURL"]).scheme == "https", name
        states.setdefault(event["run"]["runId"], []).append(event["eventType"])
        if "OPENLINEAGE_SPEC" in os.environ:
            check_by_schema(event, Path(os.environ["OPENLINEAGE_SPEC"]))
    assert states
    for told in states.values():
        assert told[0] == "START" and len(told) == 2 and told[1] in ("COMPLETE", "FAIL", "ABORT"), told


def facets(event: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for holder in (event["run"], event["job"], *event.get("inputs", ()), *event.get("outputs", ())):
        for kind in ("facets", "inputFacets", "outputFacets"):
            yield from holder.get(kind, {}).items()


def check_by_schema(event: Mapping[str, Any], spec: Path) -> None:
    """Assert that an event, and each of its facets by itself, is valid by the schemas of a checkout."""
    from jsonschema import Draft202012Validator
    from referencing import Registry, Resource

    documents = [
        json.loads(f.read_text()) for f in (spec / "OpenLineage.json", *sorted((spec / "facets").glob("*.json")))
    ]
    core = Resource.from_contents(documents[0])

    def retrieve(uri: str) -> Any:  # a facet may name another version of the core
        assert uri.endswith("/OpenLineage.json"), uri
        return core

    known = {name: d["$id"] for d in documents[1:] for name in d["properties"]}
    registry = Registry(retrieve=retrieve).with_resources([(d["$id"], Resource.from_contents(d)) for d in documents])
    Draft202012Validator({"$ref": documents[0]["$id"]}, registry=registry).validate(event)
    for name, facet in facets(event):
        if name in known:
            Draft202012Validator({"$ref": known[name]}, registry=registry).validate({name: facet})
