"""Servers for rehearsals: every model becomes the embedded small one."""

from __future__ import annotations

import dataclasses
import sys

from launcher.emulators.common.rehearsal import NETWORK, caches
from launcher.emulators.deepinfra.config import Config, Server


def rehearsal(config: Config) -> Config:
    """The config with the small model behind its own servers."""
    stand_in = (sys.executable, "-m", "launcher.emulators.stand_in", "{port}")
    argv = (*stand_in, "--model", "{weights}", "{args}", "--served-model-name", "{model}")
    servers = (*config.servers, Server(argv=argv, env=caches()))
    return dataclasses.replace(config, servers=servers, inherit=(*config.inherit, *NETWORK))
