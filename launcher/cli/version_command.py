"""`nv-eval version`: versions of the launcher and of what it works with."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from importlib import metadata

PACKAGES = ("hydra-core", "omegaconf", "lm-eval", "cyllama", "docker", "nemo-evaluator", "vllm")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from launcher import __version__

    versions: dict[str, str | None] = {"nv-eval": __version__, "python": platform.python_version()}
    versions |= {name: _version(name) for name in PACKAGES}
    if getattr(args, "json", False):
        sys.stdout.write(json.dumps(versions) + "\n")
        return 0
    for name, version in versions.items():
        sys.stdout.write(f"{name} {version or 'not installed'}\n")
    return 0


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
