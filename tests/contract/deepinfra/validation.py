"""Checks traffic against the reduced OpenAPI document of DeepInfra.

    contract = Contract()
    client = httpx.Client(base_url=emulator.url, transport=Validated(contract, httpx.HTTPTransport()))

Every request and every answer is checked; `contract.seen` says which routes came by, with which status.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
from jsonschema import Draft202012Validator

Json = dict[str, Any]

SCHEMA = Path(__file__).with_name("schema.json")
UNDOCUMENTED = {("GET", "/deploy/llm/suggest_name")}
"""Routes that the document lacks and that production clients use."""
TEXT = {"type": "string"}
ERROR_SHAPES = (
    {"type": "object", "required": ["error"], "properties": {"error": TEXT}},
    {
        "type": "object",
        "required": ["detail"],
        "properties": {"detail": {"anyOf": [TEXT, {"type": "object", "required": ["error"]}]}},
    },
    {
        "type": "object",
        "required": ["error"],
        "properties": {"error": {"type": "object", "required": ["message"], "properties": {"message": TEXT}}},
    },
)
"""What errors look like where the document says nothing of their status: of the gateway, and of inference."""


class ContractViolation(AssertionError):
    """Traffic that the document does not allow."""


@dataclass
class Contract:
    """The document, and what came by. `seen` holds (method, path as in the document, status)."""

    document: Json = field(default_factory=lambda: json.loads(SCHEMA.read_text(encoding="utf-8")))
    seen: set[tuple[str, str, int]] = field(default_factory=set)
    violations: list[str] = field(default_factory=list)

    def check(self, request: httpx.Request, body: bytes, response: httpx.Response) -> None:
        """Check one exchange. A request that is answered with 422 need not fit. Raises ContractViolation."""
        target = urlsplit(str(request.url))
        path = self.path_of(request.method, target.path)
        self.seen.add((request.method, path, response.status_code))
        if (request.method, path) in UNDOCUMENTED:
            return
        operation = self.document["paths"][path][request.method.lower()]
        where = f"{request.method} {target.path}"
        if response.status_code != httpx.codes.UNPROCESSABLE_ENTITY:
            self._check_query(where, operation, dict(parse_qsl(target.query, keep_blank_values=True)))
            self._check_request(where, operation, body)
        self._check_response(where, operation, response)

    def path_of(self, method: str, path: str) -> str:
        """The path as in the document; words come before parameters. Raises ContractViolation if there is none."""
        known = [found for found, methods in self.document["paths"].items() if method.lower() in methods]
        known += [found for other, found in UNDOCUMENTED if other == method]
        for candidate in (path, path.rstrip("/"), f"{path}/"):
            for found in sorted(known, key=lambda one: one.count("{")):
                if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", found), candidate):
                    return found
        raise self._violation(f"{method} {path}: no such route")

    def _check_query(self, where: str, operation: Json, query: dict[str, str]) -> None:
        parameters = {one["name"]: one for one in operation["parameters"] if one["in"] == "query"}
        if unknown := query.keys() - parameters.keys():
            raise self._violation(f"{where}: unknown query parameters {sorted(unknown)}")
        for name, parameter in parameters.items():
            if name in query:
                self._check_fits(f"{where}: {name}", parameter["schema"], _typed(query[name], parameter["schema"]))
            elif parameter["required"]:
                raise self._violation(f"{where}: query parameter {name} is missing")

    def _check_request(self, where: str, operation: Json, body: bytes) -> None:
        if operation["request"] is not None:
            self._check_fits(f"{where}: body", operation["request"], json.loads(body))
        elif body:
            raise self._violation(f"{where}: takes no body")

    def _check_response(self, where: str, operation: Json, response: httpx.Response) -> None:
        said = f"{where}: answer {response.status_code}"
        if response.headers.get("content-type", "").startswith("text/event-stream"):
            return
        schema = operation["responses"].get(str(response.status_code), {"anyOf": list(ERROR_SHAPES)})
        self._check_fits(said, schema, response.json())

    def _check_fits(self, where: str, schema: Json, document: Any) -> None:
        whole = {**schema, "components": self.document["components"]}
        for error in Draft202012Validator(whole).iter_errors(document):
            raise self._violation(f"{where}: {error.json_path}: {error.message}")

    def _violation(self, message: str) -> ContractViolation:
        self.violations.append(message)
        return ContractViolation(message)


class Validated(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A transport that checks what goes through another one, for clients of both kinds."""

    def __init__(self, contract: Contract, inner: Any) -> None:
        self._contract = contract
        self._inner = inner

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send it on and check the exchange. Raises ContractViolation."""
        body = request.read()
        response: httpx.Response = self._inner.handle_request(request)
        response.read()
        self._contract.check(request, body, response)
        return response

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send it on and check the exchange. Raises ContractViolation."""
        body = await request.aread()
        response: httpx.Response = await self._inner.handle_async_request(request)
        await response.aread()
        self._contract.check(request, body, response)
        return response

    def close(self) -> None:
        """Close the other one."""
        self._inner.close()

    async def aclose(self) -> None:
        """Close the other one."""
        await self._inner.aclose()


def _typed(text: str, schema: Json) -> Any:
    """A query parameter in the type that its schema wants."""
    types = {schema.get("type"), *(inner.get("type") for inner in schema.get("anyOf", ()))}
    if "integer" in types and re.fullmatch(r"-?\d+", text):
        return int(text)
    if "boolean" in types and text in ("true", "false"):
        return text == "true"
    return text
