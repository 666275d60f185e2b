"""One request to the control plane, as the handlers see it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from launcher.emulators.lepton.errors import ApiError, Code
from launcher.emulators.lepton.wire import Json
from launcher.emulators.lepton.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request that is allowed. `body` is all of it; `data_plane` is the base URL of endpoints."""

    request: Request
    workspace: Workspace
    body: bytes
    data_plane: str

    def path(self, name: str) -> str:
        """A part of the path."""
        return str(self.request.path_params[name])

    def query(self, name: str, default: str = "") -> str:
        """A query parameter."""
        return self.request.query_params.get(name, default)

    def number(self, name: str, default: int) -> int:
        """A query parameter that is a number. Raises ApiError 400."""
        text = self.query(name)
        if text and not text.isdecimal():
            raise ApiError(400, Code.INVALID, f"{name} must be a number, not {text!r}")
        return int(text) if text else default

    def json(self) -> object:
        """The body. Raises ApiError 400 where it is no JSON."""
        try:
            parsed: object = msgspec.json.decode(self.body)
        except msgspec.DecodeError as error:
            raise ApiError(400, Code.INVALID, f"the body is not JSON: {error}") from None
        return parsed

    def document(self) -> Json:
        """The body, a JSON object. Raises ApiError 400."""
        parsed = self.json()
        if not isinstance(parsed, dict):
            raise ApiError(400, Code.INVALID, "the body must be an object")
        return parsed


Handler = Callable[[Call], Awaitable[Response]]
Routes = list[tuple[str, str, Handler]]
"""Method, path below the workspace, handler."""


def answer(content: object, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(msgspec.json.encode(content), status, media_type="application/json")


def part(document: Json, key: str) -> Json:
    """An object inside a document; {} where it is absent. Raises ApiError 400 for anything else."""
    inner = document.get(key)
    if inner is None:
        return {}
    if not isinstance(inner, dict):
        raise ApiError(400, Code.INVALID, f"{key} must be an object")
    return inner
