"""Command line: `python -m launcher.servers.smollm [--fetch | --port PORT ...]`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from launcher.errors import LauncherError, MissingExtra


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server until it is told to stop, or only fetch the weights. Returns the exit code."""
    options = _parser().parse_args(arguments)
    fetch = vars(options).pop("fetch")
    try:
        if fetch:
            _fetch(options.gguf)
        else:
            _serve(options)
    except ModuleNotFoundError as missing:
        error: LauncherError = MissingExtra(missing.name or "a package", "smollm")
    except LauncherError as refused:
        error = refused
    else:
        return 0
    (sys.stderr if fetch else sys.stdout).write(f"error: {error}\n")
    return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m launcher.servers.smollm",
        description="OpenAI-compatible server for one small GGUF model on CPU, with exact prompt log-probabilities.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--fetch", action="store_true", help="only get the weights, print their path, and end")
    add("--host", default="127.0.0.1", help="address to bind")
    add("--port", type=_at_least(0), default=8000, help="port to bind; 0 takes a free one")
    add("--served-name", help="name the server answers to; the model id if not given")
    add("--context", type=_at_least(2), default=2048, help="longest prompt plus answer, in tokens")
    add("--threads", type=_at_least(1), default=len(os.sched_getaffinity(0)), help="CPU threads")
    add("--gguf", type=Path, help="another GGUF file to serve")
    add("--model-id", help="name of the model, for the record")
    return parser


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer from {least}")
        return int(text)

    return number


def _fetch(gguf: Path | None) -> None:
    from launcher.servers.smollm import weights  # imported late: `main` reports a package that is not installed

    sys.stdout.write(f"{weights.find(gguf).path}\n")


def _serve(options: argparse.Namespace) -> None:
    from launcher.servers.smollm.server import Options, serve  # as above

    serve(Options(**vars(options)))


if __name__ == "__main__":
    sys.exit(main())
