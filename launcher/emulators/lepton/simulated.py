"""Which containers are simulated, and how."""

from __future__ import annotations

from collections.abc import Callable

from launcher.emulators.common.simulated import Script
from launcher.emulators.lepton.container import Command

Simulation = Callable[[Command], Script]
"""Decides by a container's command and environment what it does."""
