"""Names of deployments: all that a launcher on another machine needs to know is in them.

`NAME-x{expiry}`: NAME is the endpoint's name in its plan, which begins with our mark and ends with the invocation, and
the expiry is the minute since 1970, in base 36, from which `nv-eval gc` may remove it.
"""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from launcher.plan.deepinfra import EXPIRY
from launcher.plan.names import MARK

MINUTE = 60.0
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_OURS = re.compile(
    rf"(?:(?P<owner>[^/]+)/)?(?P<name>{MARK}-[a-z0-9-]+-\d+(?:r\d+)?-(?P<invocation>[a-f][0-9a-f]{{7}}))"
    r"-x(?P<expiry>[0-9a-z]{5,6})"
)
_EARLIEST = datetime(2025, 1, 1, tzinfo=UTC).timestamp()
_FARTHEST = 5 * 366 * 86_400.0
"""Seconds ahead of now beyond which nothing of ours expires."""


@dataclass(frozen=True, kw_only=True)
class Ours:
    """What the name of a deployment of ours says. `expires`: seconds since 1970."""

    name: str
    """The endpoint's name in its plan."""
    invocation: str
    expires: float
    owner: str = ""
    """The account, which the service puts in front; empty where it did not."""

    @property
    def has_expired(self) -> bool:
        """Whether `nv-eval gc` may remove it now."""
        return self.expires <= time.time()


def expiring(model_name: str, lifetime: float, now: float) -> str:
    """A plan's model name with its expiry filled in, which is never early. `lifetime` in seconds, `now` since 1970."""
    return model_name.replace(EXPIRY, _base36(math.ceil((now + lifetime) / MINUTE)))


def parse(model_name: str) -> Ours | None:
    """What a deployment's name says, with or without its owner; None if it is not ours.

    A name that resembles ours and has an expiry that no launcher gave is somebody else's: nobody may delete it. The
    time of its creation says nothing here: the clock of the machine that made it may have been wrong, and it costs.
    """
    found = _OURS.fullmatch(model_name)
    if found is None:
        return None
    expires = int(found["expiry"], 36) * MINUTE
    if not _EARLIEST <= expires <= time.time() + _FARTHEST:
        return None
    return Ours(name=found["name"], invocation=found["invocation"], expires=expires, owner=found["owner"] or "")


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, last = divmod(number, 36)
        digits = _DIGITS[last] + digits
    return digits or "0"
