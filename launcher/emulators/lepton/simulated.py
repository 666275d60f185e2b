"""Which containers are simulated, and how."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from starlette.types import ASGIApp

from launcher.emulators import stand_in
from launcher.emulators.common import canned
from launcher.emulators.common.simulated import Script
from launcher.emulators.lepton.config import SimulatedServer
from launcher.emulators.lepton.container import Command

Simulation = Callable[[Command], Script]
"""Decides by a container's command and environment what it does."""


def serve(server: SimulatedServer, command: Command) -> Script:
    """What the container of a simulated server does."""
    name = server.model or stand_in.served_name(stand_in.words_of(command.argv), command.env)
    return Script(output="simulated\n", opens_after=server.opens_after, application=answering(name))


@cache
def answering(model: str | None) -> ASGIApp:
    """What answers for all servers of a model."""
    return canned.serving(model)
