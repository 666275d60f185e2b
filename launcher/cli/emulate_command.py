"""`nv-eval emulate`: a cloud's control plane on this machine, for tests and rehearsals."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from launcher.errors import MissingExtra


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments."""
    parser.add_argument("platform", choices=["lepton"], help="which control plane")
    parser.add_argument("--port", type=int, default=0, metavar="N", help="of the control plane; 0, the default: any")
    parser.add_argument("--config", metavar="FILE", help="YAML file: node groups, shapes, secrets, images, faults")


def run(args: argparse.Namespace) -> int:
    """Run the command: print where it serves, then serve until SIGINT or SIGTERM."""
    try:
        from launcher.emulators.lepton import Config, LeptonEmulator
        from launcher.emulators.lepton.config import load
    except ModuleNotFoundError as error:
        raise MissingExtra(f"the emulator needs {error.name}, which", "emulators") from None
    config = load(Path(args.config)) if args.config else Config()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with LeptonEmulator(config, port=args.port) as emulator:
        sys.stdout.write(f"LEPTON_WORKSPACE_URL={emulator.url}\n")
        sys.stdout.write(f"LEPTON_WORKSPACE_ID={config.workspace}\n")
        sys.stdout.write(f"LEPTON_WORKSPACE_TOKEN={config.tokens[0].value}\n")
        sys.stdout.flush()
        stop.wait()
    return 0
