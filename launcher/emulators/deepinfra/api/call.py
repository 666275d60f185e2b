"""One request, as the handlers see it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from launcher.emulators.deepinfra.account import Account
from launcher.emulators.deepinfra.deployment import Deployment
from launcher.emulators.deepinfra.errors import ApiError, Shape
from launcher.emulators.deepinfra.wire import decode, read

S = TypeVar("S", bound=Struct)

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "M": 30 * 86400}
"""Seconds in the units of a time like `now-5h`."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request that is allowed. `body` is all of it."""

    request: Request
    account: Account
    body: bytes

    @property
    def deployment(self) -> Deployment:
        """The deployment that the path names. Raises ApiError 404."""
        return self.account.present(self.request.path_params["deploy_id"])

    def query(self, name: str, default: str = "") -> str:
        """A query parameter."""
        return self.request.query_params.get(name, default)

    def needed(self, name: str) -> str:
        """A query parameter that must be there. Raises ApiError 422."""
        if name not in self.request.query_params:
            raise _unfit(name, "Field required")
        return self.query(name)

    def read(self, type_: type[S], shape: Shape = Shape.FIELDS) -> S:
        """The body; its Content-Type does not matter. Raises ApiError 422."""
        return read(decode(self.body), type_, shape)

    def period(self) -> tuple[float, float]:
        """`from` and `to` in seconds since 1970. Raises ApiError 422."""
        return self._time("from", self.needed("from")), self._time("to", self.query("to", "now"))

    def _time(self, name: str, text: str) -> float:
        now = self.account.clock.now()
        relative = re.fullmatch(r"now(?:-(\d+)([smhdwM]))?", text)
        if relative is not None:
            return now - (int(relative[1]) * UNITS[relative[2]] if relative[1] else 0)
        return number(name, text)


Handler = Callable[[Call], Response]
Routes = list[tuple[str, str, Handler]]
"""Method, path, handler."""


def number(name: str, text: str) -> float:
    """A query parameter that is a number. Raises ApiError 422."""
    try:
        return float(text)
    except ValueError:
        raise _unfit(name, f"Input should be a valid time, not {text!r}") from None


def _unfit(name: str, message: str) -> ApiError:
    return ApiError(422, message, Shape.FIELDS, location=["query", name])
