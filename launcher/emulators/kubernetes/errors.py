"""Refusals as an API server words them: a Status."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """A refusal. `code` is the HTTP status, `reason` the word that clients act on."""

    def __init__(self, code: int, reason: str, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.retry_after = code, reason, message, retry_after

    def status(self) -> dict[str, Any]:
        """It as an object."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }


def not_found(resource: str, name: str) -> ApiError:
    """404."""
    return ApiError(404, "NotFound", f'{resource} "{name}" not found')


def conflict(resource: str, name: str) -> ApiError:
    """409 of an update on an old version."""
    text = "the object has been modified; please apply your changes to the latest version and try again"
    return ApiError(409, "Conflict", f'Operation cannot be fulfilled on {resource} "{name}": {text}')


def forbidden(resource: str, name: str, why: str) -> ApiError:
    """403."""
    what = f'{resource} "{name}"' if name else resource
    return ApiError(403, "Forbidden", f"{what} is forbidden: {why}")


def invalid(kind: str, name: str, why: str) -> ApiError:
    """422."""
    return ApiError(422, "Invalid", f'{kind} "{name}" is invalid: {why}')


def expired(version: int) -> ApiError:
    """410 for a version that is not kept any more."""
    return ApiError(410, "Expired", f"too old resource version: {version}")
