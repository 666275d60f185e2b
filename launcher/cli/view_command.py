"""`nv-eval view`: a local web page over the state folder."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from launcher.errors import MissingExtra

_NEEDED = {"starlette": "starlette", "uvicorn": "uvicorn", "jinja2": "jinja2", "django_htmx": "django-htmx"}

_SCREENS = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
"""Without any of these a browser would be one that takes this terminal."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments."""
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="H", help="loopback address to serve on; default: 127.0.0.1"
    )
    parser.add_argument("--port", type=_port, default=0, metavar="N", help="port to serve on; default: a free one")
    parser.add_argument("--no-open", action="store_true", help="print the address only, open no browser")


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; write a number from 0 to 65535")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Run the command: print where it serves, then serve until SIGINT or SIGTERM."""
    for module, package in _NEEDED.items():
        if find_spec(module) is None:
            raise MissingExtra(f"{package}, which view needs,", "view")
    from launcher.orchestrator.journal import state_folder
    from launcher.view.server import serve

    with tempfile.TemporaryDirectory(prefix="nv-eval-view-") as folder:

        def ready(address: str) -> None:
            sys.stdout.write(f"{address}\n")
            sys.stdout.write("The address holds a token: who has it can read your runs. Ctrl-C ends this.\n")
            sys.stdout.flush()
            if not args.no_open and any(os.environ.get(name) for name in _SCREENS):
                _open(address, Path(folder) / "open.html")

        serve(state_folder() / "journal.db", host=args.host, port=args.port, ready=ready)
    return 0


def _open(address: str, page: Path) -> None:
    """Open a browser by a page that leads on: other users of this machine can read a program's arguments."""
    import threading
    import webbrowser

    page.touch(mode=0o600)
    page.write_text(f'<!doctype html><meta http-equiv="refresh" content="0; url={address}">')
    threading.Thread(target=webbrowser.open, args=(page.as_uri(),), daemon=True).start()
