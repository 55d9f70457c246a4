"""Generate the client's records and options from the OpenAPI document: ``python tools/client_schema.py``.

`densityd/client/records.py` has what the service returns, as pydantic models; `options.py` what it takes,
as typed dictionaries. With `--check` nothing is written, and the exit status says if they are current.
"""

import copy
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.main import create_app
from app.settings import ApiSettings

_CLIENT = Path(__file__).parents[1] / "densityd" / "client"
_HEADER = '''"""{}"""
# Generated from the OpenAPI document by tools/client_schema.py; do not edit.'''
_REFERENCE = "#/components/schemas/"
Json = dict[str, Any]

_RECORDS = [
    *(
        "AliasChangeView",
        "AliasView",
        "AuditRecordView",
        "ColumnPage",
        "DatasetSummaryView",
        "DatasetView",
        "DeliveryView",
    ),
    *("EventPage", "JobSummaryView", "JobView", "KeyList", "MeView", "ModelView", "NewKeyView"),
    *("ReviewView", "SecretWebhookView", "TargetPreview", "UnusualView", "UsageView"),
    *("VersionComparisonView", "VersionInfo", "VersionSummaryView"),
    *("MonitoringView", "PreviewView", "ProjectList", "TrainingEstimate", "VersionView"),
    *("WebhookPage",),
]
# What has members by the kind of job, flow or column stays a dictionary, as it came.
_AS_CAME = {"data", "flow", "metrics", "preprocessing", "request", "resources", "target", "types"}
_BASES = {
    "Alias": "AliasRecord",
    "Dataset": "DatasetRecord",
    "Job": "JobRecord",
    "JobSummary": "JobRecord",
    "Reason": "ReasonRecord",
    "Unusual": "UnusualRecord",
    "Version": "VersionRecord",
    "VersionSummary": "VersionRecord",
}
# Bodies of requests, without what the methods of the client have arguments for.
_OPTIONS = {
    "TrainingOptions": ("TrainingRequest", "model_name", "dataset_id"),
    "SweepOptions": ("SweepRequest", "model_name", "dataset_id", "ranges"),
    "VariationalOptions": ("VariationalRequest", "model_name", "target"),
    "ScoringOptions": ("ScoringRequest", "model", "dataset_id"),
    "ImputationOptions": ("ImputationRequest", "model", "dataset_id"),
    "SamplingOptions": ("SamplingRequest", "model", "n"),
    "Labels": ("LabelsRequest",),
}
_JSON_OF_QUERY = re.compile(r",? (repeated or )?as a JSON (object|list)")
_COMMON = ["--use-annotated", "--target-python-version=3.11", "--use-union-operator"]
_COMMON += ["--use-standard-collections", "--use-schema-description", "--disable-timestamp"]
_COMMON += ["--input-file-type=openapi", "--formatters=builtin", "--enum-field-as-literal=all"]


def main() -> None:
    """Write both modules; with --check, exit with 1 if one is stale."""
    document = create_app(ApiSettings()).openapi()
    bases = {name: f"densityd.client.record.{base}" for name, base in _BASES.items()}
    texts = {
        "records.py": _generate(
            _records(document),
            "Responses of the service; members that a newer one adds are kept.",
            "--output-model-type=pydantic_v2.BaseModel",
            "--strict-nullable",
            "--base-class=densityd.client.record.Record",
            f"--base-class-map={json.dumps(bases)}",
            "--use-double-quotes",
        ),
        "options.py": _generate(
            _options(document),
            "Options of requests; the service chooses what is left out.",
            "--output-model-type=typing.TypedDict",
            "--no-use-closed-typed-dict",
            "--use-generic-container-types",
        ),
    }
    for name, text in texts.items():
        path = _CLIENT / name
        if "--check" not in sys.argv:
            path.write_text(text, "utf-8")
        elif path.read_text("utf-8") != text:
            sys.exit(f"{path} is stale: run python tools/client_schema.py")


def _records(document: Json) -> Json:
    """Return the schemas of responses, without constraints: the service has checked what it sends."""
    schemas = copy.deepcopy(document["components"]["schemas"])
    for job in ("JobView", "JobSummaryView"):
        progress = schemas[job]["properties"]["progress"]
        schemas["Progress"] = _merged(progress["anyOf"][:-1], schemas, "Progress of a job.")
        progress["anyOf"] = [{"$ref": f"{_REFERENCE}Progress"}, {"type": "null"}]
    events = schemas["EventPage"]["properties"]["items"]
    schemas["Event"] = _merged(events["items"]["oneOf"], schemas, "Event of a job.")
    schemas["Event"]["required"].remove("created_at")  # a stream of events lacks it
    events["items"] = {"$ref": f"{_REFERENCE}Event"}
    for schema in schemas.values():
        for name, field in schema.get("properties", {}).items():
            opened = _opened(field) if name in _AS_CAME else _inlined(field, schemas)
            schema["properties"][name] = {
                key: value for key, value in opened.items() if key != "description"
            }
    return _renamed(_loosened(_reached(schemas, [*_RECORDS, "Event"])))


def _options(document: Json) -> Json:
    """Return the schemas of the bodies of requests, and one of the parameters of an upload."""
    schemas = copy.deepcopy(document["components"]["schemas"])
    del schemas["VariationalOptions"]  # of a response; the client has others of that name
    flow = schemas["TrainingRequest"]["properties"]["flow"]
    schemas["FlowOptions"] = {"anyOf": flow["anyOf"], "description": "Flow: its family and fields."}
    for request in ("TrainingRequest", "SweepRequest"):
        choices = [{"$ref": f"{_REFERENCE}FlowOptions"}, {"const": "auto", "type": "string"}]
        schemas[request]["properties"]["flow"] = {
            "anyOf": choices,
            "description": 'Family of the flow and its fields, or `"auto"` for a search.',
        }
    for schema in schemas.values():
        # The guide has the rest, such as equations.
        schema["description"] = schema.get("description", "").split("\n\n")[0]
        if "const" in schema.get("properties", {}).get("family", {}):
            schema["required"] = ["family"]
    wanted = []
    for name, (source, *left_out) in _OPTIONS.items():
        schema = copy.deepcopy(schemas[source])
        schema["properties"] = {
            field: one for field, one in schema["properties"].items() if field not in left_out
        }
        schema.pop("required", None)
        schemas[name] = _documented(schema, f"Options of a request, as of `{source}`.")
        wanted.append(name)
    upload = document["paths"]["/v1/datasets"]["post"]["parameters"]
    properties = {one["name"]: _parsed(one) for one in upload if one["in"] == "query"}
    properties.pop("name")
    upload_options = {"type": "object", "properties": properties}
    schemas["UploadOptions"] = _documented(upload_options, "Options of an upload.")
    targets = schemas["VariationalRequest"]["properties"]["target"]["oneOf"]
    schemas["Target"] = {"anyOf": targets, "description": "Density that a flow is fitted to."}
    ranges = schemas["SweepRequest"]["properties"]["ranges"]["additionalProperties"]
    schemas["Range"] = {**ranges, "description": "Values that a field takes in a sweep."}
    reached = _reached(schemas, [*wanted, "FlowOptions", "Range", "Target", "UploadOptions"])
    text = json.dumps(_loosened(reached, literals=True))
    text = re.sub(rf'"(({_REFERENCE})?(\w*Optimisation|Split))Request"', r'"\1"', text)
    return dict(json.loads(text))


def _documented(schema: Json, title: str) -> Json:
    """Return a schema whose description has that of each member: a typed dictionary keeps no others."""
    members = {
        name: _JSON_OF_QUERY.sub("", field.get("description", "").split(". ")[0].rstrip("."))
        for name, field in schema["properties"].items()
    }
    lines = [f"    {name}: {text}." for name, text in members.items() if text]
    return {**schema, "description": "\n".join([title, "", "Attributes:", *lines])}


def _parsed(parameter: Json) -> Json:
    """Return the schema of a parameter as the client takes it: objects where the query has their JSON."""
    schema = dict(parameter["schema"])
    if parameter["name"] in ("tags", "types"):
        values = {"type": "object", "additionalProperties": {"type": "string"}}
        return {**values, "description": schema.get("description", "")}
    return schema


def _inlined(field: Json, schemas: Json) -> Json:
    """Return a field with text in place of a reference to texts, such as the states of a job."""
    name = field.get("$ref", "").removeprefix(_REFERENCE)
    if schemas.get(name, {}).get("type") == "string":
        return {"type": "string"}
    parts = {
        way: [_inlined(one, schemas) for one in field[way]] for way in ("anyOf",) if way in field
    }
    return {**field, **parts}


def _opened(field: Json) -> Json:
    """Return a field with any members, which may be null or a list if it may be."""
    anything: Json = {"type": "object", "additionalProperties": True}
    choices = field.get("anyOf", [field])
    if any(one.get("type") == "array" for one in choices):
        anything = {"type": "array", "items": anything}
    if any(one.get("type") == "null" for one in choices):
        return {"anyOf": [anything, {"type": "null"}]}
    return anything


def _merged(references: list[Json], schemas: Json, description: str) -> Json:
    """Return one schema for several: what only some have is optional."""
    parts = [schemas[one["$ref"].removeprefix(_REFERENCE)] for one in references]
    properties: Json = {}
    for part in parts:
        properties |= {
            name: one for name, one in part["properties"].items() if name not in properties
        }
    required = [
        name for name in properties if all(name in part.get("required", []) for part in parts)
    ]
    return {
        "type": "object",
        "properties": {
            name: {key: value for key, value in one.items() if key != "const"}
            for name, one in properties.items()
        },
        "required": required,
        "description": description,
    }


def _reached(schemas: Json, names: list[str]) -> Json:
    """Return the named schemas and those that they refer to."""
    found: Json = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = schemas[name]
            waiting += _references(schemas[name])
    return {name: found[name] for name in sorted(found)}


def _references(value: object) -> Iterator[str]:
    for found in re.findall(rf'"\$ref": "{_REFERENCE}(\w+)"', json.dumps(value)):
        yield str(found)


_CONSTRAINTS = {"examples", "title", "pattern", "discriminator", "format", "propertyNames"}
_BOUNDS = re.compile(r"(max|min|exclusiveMax|exclusiveMin)(imum|Length|Items|Properties)")


def _loosened(value: Any, *, literals: bool = False) -> Any:  # noqa: ANN401  of JSON
    """Return schemas without constraints and, unless `literals`, with text in place of its values."""
    if isinstance(value, list):
        return [_loosened(one, literals=literals) for one in value]
    if not isinstance(value, dict):
        return value
    is_time = value.get("format") == "date-time"
    kept = {
        key: _loosened(one, literals=literals)
        for key, one in value.items()
        if (key not in _CONSTRAINTS and not _BOUNDS.fullmatch(key)) or isinstance(one, dict)
    }
    if is_time:
        kept["format"] = "date-time"
    if not literals:
        kept.pop("const", None)
        if kept.get("additionalProperties") is False:
            del kept["additionalProperties"]
        if isinstance(kept.get("enum"), list):
            del kept["enum"]
    return kept


def _renamed(schemas: Json) -> Json:
    """Return schemas whose names do not say that the service shows them."""
    text = json.dumps(schemas).replace('WarningView"', 'TableWarning"')
    text = re.sub(rf'"(({_REFERENCE})?\w+)View"', r'"\1"', text)
    return dict(json.loads(text))


def _generate(schemas: Json, title: str, *options: str) -> str:
    document = {
        "openapi": "3.1.0",
        "info": {"title": "densityd", "version": "1"},
        "paths": {},
        "components": {"schemas": schemas},
    }
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "openapi.json", Path(folder) / "generated.py"
        source.write_text(json.dumps(document), "utf-8")
        command = ["datamodel-codegen", f"--input={source}", f"--output={target}", *_COMMON]
        command[0] = str(Path(sys.executable).with_name(command[0]))
        command += ["--disable-future-imports", f"--custom-file-header={_HEADER.format(title)}"]
        subprocess.run([*command, *options], check=True)  # noqa: S603 - our own command
        text = target.read_text("utf-8")
    return _styled(text)


def _styled(text: str) -> str:
    ruff = [sys.executable, "-m", "ruff"]
    check = ["check", "--fix", "--quiet", "--select=I,UP,F401,TC,D200,D209,D212"]
    for arguments in ([*check, "--unsafe-fixes"], ["format", "--quiet"]):
        command = [*ruff, *arguments, f"--stdin-filename={_CLIENT / 'x.py'}", "-"]
        text = subprocess.run(  # noqa: S603 - our own interpreter
            command, input=text, stdout=subprocess.PIPE, check=False, encoding="utf-8"
        ).stdout
    return text


if __name__ == "__main__":
    os.environ.setdefault("DENSITYD_DATA_DIR", "data")
    main()
