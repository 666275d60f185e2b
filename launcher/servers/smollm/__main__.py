"""Command line: `python -m launcher.servers.smollm [--fetch | --port PORT ...]`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from launcher.errors import LauncherError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server until it is told to stop, or only fetch the weights. Returns the exit code."""
    options = _parser().parse_args(arguments)
    fetch = vars(options).pop("fetch")
    try:
        if fetch:
            _fetch(options.gguf)
        else:
            _serve(options)
    except LauncherError as error:
        print(f"error: {error}", file=sys.stderr if fetch else sys.stdout, flush=True)
        return error.exit_code
    return 0


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
        value = int(text)
        if value < least:
            raise ValueError
        return value

    number.__name__ = f"integer from {least}"  # argparse puts it into its message
    return number


def _fetch(gguf: Path | None) -> None:
    from launcher.servers.smollm import weights

    print(weights.find(gguf).path)  # noqa: T201


def _serve(options: argparse.Namespace) -> None:
    # Only here: where an optional package is missing, the import says so as a LauncherError.
    from launcher.servers.smollm.server import Options, serve

    serve(Options(**vars(options)))


if __name__ == "__main__":
    sys.exit(main())
