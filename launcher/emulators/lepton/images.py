"""The built-in image table, for rehearsals: model servers become the embedded small model, all else runs here as it is.

A process sees the caches and the network settings of the person who rehearses: nothing is downloaded twice. What it
installs with pip goes into its own home, not into this Python.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

from launcher.emulators.lepton.config import Config, Image

SERVERS = ("*vllm*", "*sglang*", "nvcr.io/nim/*", "*tensorrt-llm*", "*llama.cpp*")
"""Patterns of images that serve a model."""
NETWORK = (
    *("HTTPS_PROXY", "https_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CERT", "PIP_CONFIG_FILE"),
)
"""How packages and data sets are reached from this machine. Without HTTP_PROXY: http is for loopback here."""
_PACKAGES = "{home}/packages"


def rehearsal(config: Config) -> Config:
    """The config with the built-in table behind its own one."""
    table = (*config.images, *(_server(pattern) for pattern in SERVERS), _anything())
    return dataclasses.replace(config, images=table, inherit=(*config.inherit, *NETWORK))


def _server(pattern: str) -> Image:
    prefix = (sys.executable, "-m", "launcher.emulators.stand_in", "{port}")
    return Image(pattern=pattern, prefix=prefix, env=_caches())


def _anything() -> Image:
    """Any other image: `python3` is this Python, with what is installed in it."""
    path = os.pathsep.join(filter(None, (_PACKAGES, os.environ.get("PYTHONPATH"))))
    env = {**_caches(), "PIP_TARGET": _PACKAGES, "PYTHONPATH": path}
    return Image(path=(str(Path(sys.executable).parent),), env=env)


def _caches() -> dict[str, str]:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    own = {name: os.environ[name] for name in ("NV_EVAL_HOME",) if name in os.environ}
    return {"XDG_CACHE_HOME": base, "HF_HOME": os.environ.get("HF_HOME") or f"{base}/huggingface", **own}
