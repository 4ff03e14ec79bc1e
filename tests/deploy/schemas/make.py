"""Write the schemas of this folder anew from packages that publish them, closed and without their descriptions.

    uv run --no-project --with cyclonedx-python-lib==11.12.0 --with kubernetes-validate==1.37.0 \
      --with kubeflow-spark-api==2.4.0 --with google-cloud-dataproc==5.32.0 tests/deploy/schemas/make.py

`spark-apache.json` is not among them: no package has it. Its comment says where it is from.
"""

import importlib.metadata
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
KUBERNETES = "1.34.0"
Schema = dict[str, Any]


def write(name: str, package: str, comment: str, schema: Schema, roots: list[str]) -> None:
    """Write what the roots reach; where each definition is one line, changes can be read."""
    defs = schema["$defs"]
    reached: dict[str, Schema] = {}
    left = list(roots)
    while left:
        one = left.pop()
        if one not in reached:
            reached[one] = defs[one]
            left += [r.removeprefix("#/$defs/") for r in references(defs[one]) if r.startswith("#/$defs/")]
    lines = [f"{json.dumps(n)}: {json.dumps(reached[n], sort_keys=True)}" for n in sorted(reached)]
    source = f"{comment} From the package {package} {importlib.metadata.version(package)}, Apache-2.0, by make.py."
    head = '"$schema": "https://json-schema.org/draft/2020-12/schema"'
    text = f'{{\n{head},\n"$comment": {json.dumps(source)},\n"$defs": {{\n' + ",\n".join(lines) + "\n}\n}\n"
    (HERE / f"{name}.json").write_text(text, encoding="utf-8")


def references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [r for item in node for r in references(item)]
    if not isinstance(node, dict):
        return []
    return [v for k, v in node.items() if k == "$ref"] + [r for v in node.values() for r in references(v)]


def slim(node: Any) -> Any:
    """Return the schema without what explains it, and without nulls; an object with properties has no others."""
    if isinstance(node, list):
        return [slim(item) for item in node]
    if not isinstance(node, dict):
        return node
    some = [option for option in node.get("anyOf", ()) if option != {"type": "null"}]
    if len(some) == 1:
        return slim(some[0])
    dull = {"description", "title", "default", "format"}  # where they are texts; else they are fields of these names
    told = {k for k in dull & set(node) if not isinstance(node[k], dict | list)} | {"meta:enum", "examples"}
    kept = {k: v for k, v in node.items() if k not in told}
    out = {k: {n: slim(p) for n, p in v.items()} if k == "properties" else slim(v) for k, v in kept.items()}
    if isinstance(out.get("type"), list):
        out["type"] = next(t for t in out["type"] if t != "null")
    if out.get("properties"):
        out["additionalProperties"] = False
    return out


def kubernetes() -> list[str]:
    """Write Kubernetes' own objects; return the names of all definitions."""
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{KUBERNETES}-local-strict"
    whole = slim(json.loads((folder / "_definitions.json").read_text()))
    kinds = ["batch.v1.CronJob", "core.v1.ConfigMap", "core.v1.ServiceAccount", "core.v1.PersistentVolumeClaim"]
    kinds += ["rbac.v1.Role", "rbac.v1.RoleBinding", "core.v1.PodTemplateSpec"]
    roots = [f"io.k8s.api.{kind}" for kind in kinds]
    write("kubernetes", "kubernetes-validate", f"Kubernetes {KUBERNETES}.", whole, roots)
    return list(whole["$defs"])


# What the operator's types in Go say, by markers and constants, and its Python models lose.
ENUMS = {
    ("SparkV1beta2SparkApplicationSpec", "type"): ["Java", "Python", "Scala", "R"],
    ("SparkV1beta2SparkApplicationSpec", "mode"): ["cluster", "client"],
    ("SparkV1beta2SparkApplicationSpec", "pythonVersion"): ["2", "3"],
    ("SparkV1beta2RestartPolicy", "type"): ["Never", "Always", "OnFailure"],
    ("SparkV1beta2ScheduledSparkApplicationSpec", "concurrencyPolicy"): ["Allow", "Forbid", "Replace"],
}


def kubeflow(kubernetes_names: list[str]) -> None:
    """Write the objects of Kubeflow's Spark operator, which refer to Kubernetes' own."""
    from kubeflow_spark_api import models

    whole: Schema = {"$defs": {}}
    for name in ("SparkV1beta2SparkApplication", "SparkV1beta2ScheduledSparkApplication"):
        schema = getattr(models, name).model_json_schema(by_alias=True)
        whole["$defs"] |= schema.pop("$defs") | {name: schema}
    theirs = {"".join(part[0].upper() + part[1:] for part in n.split(".")): n for n in kubernetes_names}
    text = json.dumps(slim(whole))
    for model, name in theirs.items():
        text = text.replace(f'"#/$defs/{model}"', f'"kubernetes.json#/$defs/{name}"')
    whole = json.loads(text)
    for (name, field), values in ENUMS.items():
        whole["$defs"][name]["properties"][field]["enum"] = values
    roots = ["SparkV1beta2SparkApplication", "SparkV1beta2ScheduledSparkApplication"]
    write("spark-kubeflow", "kubeflow_spark_api", "sparkoperator.k8s.io/v1beta2.", whole, roots)


def cyclonedx() -> None:
    """Write CycloneDX 1.5, without signatures and licences, which are schemas of their own and not used."""
    whole = json.loads((files("cyclonedx") / "schema/_res/bom-1.5.SNAPSHOT.schema.json").read_text())
    text = json.dumps(slim({"$defs": whole.pop("definitions") | {"bom": whole}})).replace("#/definitions/", "#/$defs/")
    whole = json.loads(text)
    for unused in ("signature", "license", "licenseChoice"):
        whole["$defs"][unused] = False
    for name in ("$schema", "$id", "$comment"):
        whole["$defs"]["bom"].pop(name, None)
    write("cyclonedx", "cyclonedx-python-lib", "CycloneDX 1.5.", whole, ["bom"])


def dataproc() -> None:
    """Write Dataproc's batches and workflow templates as its REST interface takes them."""
    from google.cloud import dataproc_v1

    plain = {"string": 9, "integer": (3, 4, 5, 13, 17, 18), "boolean": 8, "number": (1, 2)}
    known = {
        "google.protobuf.Duration": {"type": "string", "pattern": r"^\d+(\.\d+)?s$"},
        "google.protobuf.Timestamp": {"type": "string"},
        "google.protobuf.StringValue": {"type": "string"},
    }
    defs: dict[str, Schema] = {}

    def of(field: Any) -> Schema:
        if field.message_type is not None:
            entry = field.message_type
            if entry.GetOptions().map_entry:
                return {"type": "object", "additionalProperties": of(entry.fields_by_name["value"])}
            schema = known.get(entry.full_name) or {"$ref": f"#/$defs/{define(entry)}"}
        elif field.enum_type is not None:
            schema = {"enum": [value.name for value in field.enum_type.values]}
        else:
            kinds = (k for k, n in plain.items() if field.type in (n if isinstance(n, tuple) else (n,)))
            schema = {"type": next(kinds, "string")}
        return {"type": "array", "items": schema} if field.is_repeated else schema

    def define(message: Any) -> str:
        name = message.full_name.removeprefix("google.cloud.dataproc.v1.")
        if name not in defs:
            defs[name] = {}
            properties = {field.json_name: of(field) for field in message.fields}
            defs[name] = {"type": "object", "properties": properties, "additionalProperties": False}
        return str(name)

    roots = [define(kind.pb().DESCRIPTOR) for kind in (dataproc_v1.Batch, dataproc_v1.WorkflowTemplate)]
    write("dataproc", "google-cloud-dataproc", "Google Dataproc v1.", {"$defs": defs}, roots)


if __name__ == "__main__":
    kubeflow(kubernetes())
    cyclonedx()
    dataproc()
