"""Errors of the control plane, as clients see them."""

from __future__ import annotations

from enum import StrEnum


class Code(StrEnum):
    """`code` in an error's body."""

    INTERNAL = "InternalFailure"
    INVALID = "InvalidRequest"
    VALIDATION = "ValidationError"
    NOT_FOUND = "ResourceNotFound"
    CONFLICT = "ResourceConflict"
    UNAUTHORIZED = "Unauthorized"
    FORBIDDEN = "Forbidden"


class ApiError(Exception):
    """A request that is answered with an error. `retry_after` in seconds becomes the header."""

    def __init__(self, status: int, code: Code, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after


def not_found(kind: str, name: str) -> ApiError:
    """404."""
    return ApiError(404, Code.NOT_FOUND, f"{kind} {name} not found")
