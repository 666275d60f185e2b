"""The built-in image table, for rehearsals: model servers become the embedded small model, all else runs here as it is.

A process sees the caches and the network settings of the person who rehearses: nothing is downloaded twice. What it
installs with pip goes into its own home, not into this Python.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

from launcher.emulators.common.rehearsal import NETWORK, caches
from launcher.emulators.lepton.config import Config, Image

SERVERS = ("*vllm*", "*sglang*", "nvcr.io/nim/*", "*tensorrt-llm*", "*llama.cpp*")
"""Patterns of images that serve a model."""
_PACKAGES = "{home}/packages"


def rehearsal(config: Config) -> Config:
    """The config with the built-in table behind its own one."""
    return dataclasses.replace(config, images=(*config.images, *table()), inherit=(*config.inherit, *NETWORK))


def table() -> tuple[Image, ...]:
    """The built-in table."""
    return (*(_server(pattern) for pattern in SERVERS), _anything())


def _server(pattern: str) -> Image:
    prefix = (sys.executable, "-m", "launcher.emulators.stand_in", "{port}")
    return Image(pattern=pattern, prefix=prefix, env=caches())


def _anything() -> Image:
    """Any other image: `python3` is this Python, with what is installed in it."""
    path = os.pathsep.join(filter(None, (_PACKAGES, os.environ.get("PYTHONPATH"))))
    env = {**caches(), "PIP_TARGET": _PACKAGES, "PYTHONPATH": path}
    return Image(path=(str(Path(sys.executable).parent),), env=env)
