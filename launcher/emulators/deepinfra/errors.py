"""Errors of the API, in the shapes that clients meet."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec
from starlette.responses import Response


class Shape(StrEnum):
    """How the body of an error is built."""

    ERROR = "error"
    """`{"error": TEXT}`: what the OpenAPI document says."""
    DETAIL = "detail"
    """`{"detail": {"error": TEXT}}`."""
    PLAIN = "plain"
    """`{"detail": TEXT}`."""
    FIELDS = "fields"
    """`{"detail": [{"loc": [...], "msg": TEXT, "type": ...}]}`: a request that does not fit the schema."""
    OPENAI = "openai"
    """`{"error": {"message": TEXT, ...}}`: the routes of inference."""


class ApiError(Exception):
    """A request that is answered with an error. `location`: of the field at fault. `retry_after`: seconds."""

    def __init__(
        self,
        status: int,
        message: str,
        shape: Shape = Shape.ERROR,
        *,
        location: Sequence[str] = (),
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.shape = shape
        self.location = location
        self.retry_after = retry_after

    def response(self) -> Response:
        """The answer."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return answer(self._body(), self.status, headers)

    def _body(self) -> object:
        match self.shape:
            case Shape.ERROR:
                return {"error": self.message}
            case Shape.DETAIL:
                return {"detail": {"error": self.message}}
            case Shape.PLAIN:
                return {"detail": self.message}
            case Shape.FIELDS:
                return {"detail": [{"loc": list(self.location), "msg": self.message, "type": "value_error"}]}
            case Shape.OPENAI:
                kind = "invalid_request_error"
                return {"error": {"message": self.message, "type": kind, "param": None, "code": None}}


def answer(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(msgspec.json.encode(content), status, headers, media_type="application/json")


def not_found(what: str) -> ApiError:
    """404."""
    return ApiError(404, f"{what} not found")
