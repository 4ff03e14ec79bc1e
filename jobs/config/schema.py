"""JSON Schemas, of a pipeline file and of a suite, for editors."""

from typing import Any

from headgate.jobs.config.models import PipelineFile
from headgate.transforms.steps import STEPS, options_of


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a pipeline file, with the options of every step."""
    schema = PipelineFile.model_json_schema(by_alias=True)
    definitions = schema.setdefault("$defs", {})
    choices = []
    for name, step in STEPS.items():
        options = options_of(step).json_schema(ref_template="#/$defs/{model}")
        definitions |= options.pop("$defs", {})
        definitions[f"step_{name}"] = options
        choices.append(
            {
                "type": "object",
                "properties": {name: {"$ref": f"#/$defs/step_{name}"}},
                "required": [name],
                "additionalProperties": False,
            }
        )
    definitions["Table"]["properties"]["steps"]["items"] = {"oneOf": choices}
    definitions["Table"]["properties"]["mapping"]["additionalProperties"] = {"$ref": "#/$defs/step_map_columns"}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def suite_schema() -> dict[str, Any]:
    """Return the JSON Schema of a suite, with the options of every expectation."""
    from headgate.expectations import schema  # Great Expectations takes seconds to import

    return schema.suite_schema()
