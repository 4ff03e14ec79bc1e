"""The JSON Schema of a suite."""

from typing import Any

from headgate.expectations.catalogue import known_types
from headgate.expectations.suites import DIMENSIONS, MAX_RULES, ON_ROW_FAIL, PRESENCE, ROW_FLOORS, SEVERITIES


def suite_schema() -> dict[str, Any]:
    """Return the JSON Schema of a suite: the known expectations with their options, severities and dimensions."""
    from great_expectations.expectations.registry import get_expectation_impl

    from headgate.expectations import balance, drift, own  # noqa: F401  (register headgate's own expectations)

    definitions: dict[str, Any] = {}
    choices = []
    for name, about in known_types().items():
        options = tuple(about["arguments"])
        model = get_expectation_impl(name).schema()
        properties = {option: option_schema(option, model["properties"][option]) for option in options}
        definitions |= model.get("definitions", {})
        required = [option for option in model.get("required", ()) if option in options]
        kwargs = {"properties": properties, "required": required, "additionalProperties": False}
        then = {"properties": {"kwargs": kwargs}, **({"required": ["kwargs"]} if required else {})}
        choices.append({"if": {"properties": {"type": {"const": name}}}, "then": then})
    meta = {
        "type": "object",
        "properties": {"dimension": {"enum": list(DIMENSIONS)}, "on_row_fail": {"enum": list(ON_ROW_FAIL)}},
        "required": ["dimension"],
    }
    expectation = {
        "type": "object",
        "properties": {
            "type": {"enum": list(known_types())},
            "kwargs": {"type": "object"},
            "severity": {"enum": list(SEVERITIES), "default": SEVERITIES[0]},
            "meta": meta,
            "notes": {},
            "description": {"type": "string"},
        },
        "required": ["type", "meta"],
        "additionalProperties": False,
        "allOf": choices,
    }
    expectations = {"type": "array", "minItems": 1, "maxItems": MAX_RULES, "items": expectation}
    needed = [
        {"properties": {"expectations": {"contains": {"properties": {"type": {"enum": list(types)}}}}}}
        for types in (ROW_FLOORS, PRESENCE)
    ]
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",  # the draft of Great Expectations' own schemas
        "title": "Suite",
        "type": "object",
        "properties": {"name": {"type": "string"}, "expectations": expectations, "meta": {}, "notes": {}},
        "required": ["name", "expectations"],
        "additionalProperties": False,
        "allOf": needed,
        "definitions": definitions,
    }


def option_schema(name: str, declared: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an option, without what Great Expectations declares and does not enforce."""
    if name == "value_set":  # declared as texts alone or numbers alone, none of them empty
        return {"anyOf": [{"type": "array"}, {"type": "object"}]}
    return {key: value for key, value in declared.items() if key != "multipleOf"}
