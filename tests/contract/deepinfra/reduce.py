"""Reduce DeepInfra's OpenAPI document to what is checked of it: routes, parameters, required fields, types, enums.

    python -m tests.contract.deepinfra.reduce openapi.json > tests/contract/deepinfra/schema.json

No sentence of the document is kept.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

Json = dict[str, Any]

ROUTES = {
    "/cli/version": ("get",),
    "/deploy/hf/": ("post",),
    "/deploy/list": ("get",),
    "/deploy/list/": ("get",),
    "/deploy/llm": ("post",),
    "/deploy/llm/gpu_availability": ("get",),
    "/deploy/stats": ("get",),
    "/deploy/{deploy_id}": ("get", "put", "delete"),
    "/deploy/{deploy_id}/start": ("post",),
    "/deploy/{deploy_id}/stats": ("get",),
    "/deploy/{deploy_id}/stats2": ("get",),
    "/deploy/{deploy_id}/stop": ("post",),
    "/models/deployment/list": ("get",),
    "/models/private/list": ("get",),
    "/payment/usage/rent": ("get",),
    "/v1/chat/completions": ("post",),
    "/v1/completions": ("post",),
    "/v1/deployment_logs/query": ("get",),
    "/v1/embeddings": ("post",),
    "/v1/logs/query": ("get",),
    "/v1/me": ("get",),
    "/v1/me/gpu_limit": ("get",),
    "/v1/me/rate_limit": ("get",),
    "/v1/models": ("get",),
    "/v1/openai/chat/completions": ("post",),
    "/v1/openai/completions": ("post",),
    "/v1/openai/embeddings": ("post",),
    "/v1/openai/models": ("get",),
}
"""The routes that the launcher, `deepctl` or OpenAI's clients use."""
KEPT = {
    "$ref", "const", "enum", "exclusiveMaximum", "exclusiveMinimum", "maxItems", "maxLength", "maximum", "minItems",
    "minLength", "minimum", "pattern", "required", "type",
}  # fmt: skip
"""Keywords of JSON Schema that are kept as they are."""
REFERENCE = "#/components/schemas/"


def reduced(schema: Any) -> Any:
    """A schema without its words."""
    if not isinstance(schema, dict):
        return schema
    kept: Json = {key: value for key, value in schema.items() if key in KEPT}
    if "properties" in schema:
        kept["properties"] = {name: reduced(inner) for name, inner in schema["properties"].items()}
    for key in ("anyOf", "prefixItems"):
        if key in schema:
            kept[key] = [reduced(inner) for inner in schema[key]]
    for key in ("items", "additionalProperties"):
        if key in schema:
            kept[key] = reduced(schema[key])
    return kept


def operation(original: Json) -> Json:
    """One method of one route."""
    parameters = [
        {"name": one["name"], "in": one["in"], "required": bool(one.get("required")), "schema": reduced(one["schema"])}
        for one in original.get("parameters", ())
        if one["in"] in ("path", "query")
    ]
    responses = {code: _body(response) for code, response in original["responses"].items()}
    return {"parameters": parameters, "request": _body(original.get("requestBody")), "responses": responses}


def _body(part: Json | None) -> Any:
    """The schema of a JSON body; None: there is none."""
    return None if part is None else reduced(part["content"]["application/json"]["schema"])


def references(part: Any) -> set[str]:
    """Names of the schemas that a part refers to."""
    if isinstance(part, list):
        return set().union(*map(references, part))
    if not isinstance(part, dict):
        return set()
    own = {part["$ref"].removeprefix(REFERENCE)} if isinstance(part.get("$ref"), str) else set()
    return own.union(*map(references, part.values()))


def reduce(document: Json) -> Json:
    """The whole document."""
    paths = {
        path: {method: operation(document["paths"][path][method]) for method in methods}
        for path, methods in ROUTES.items()
    }
    schemas: Json = {}
    missing = references(paths)
    while missing:
        schemas |= {name: reduced(document["components"]["schemas"][name]) for name in missing}
        missing = references(schemas) - schemas.keys()
    return {
        "source": f"{document['info']['title']} {document['info']['version']}",
        "paths": paths,
        "components": {"schemas": schemas},
    }


if __name__ == "__main__":
    found = reduce(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    sys.stdout.write(json.dumps(found, indent=1, sort_keys=True) + "\n")
