"""`nv-eval emulate`: a cloud's control plane on this machine, for tests and rehearsals."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.errors import MissingExtra

if TYPE_CHECKING:
    from launcher.emulators.lepton import Config, LeptonEmulator


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments."""
    parser.add_argument("platform", choices=["lepton"], help="which control plane")
    parser.add_argument("--port", type=_port, default=0, metavar="N", help="of the control plane; 0, the default: any")
    parser.add_argument("--config", metavar="FILE", help="YAML file: node groups, shapes, secrets, images, faults")
    parser.add_argument(
        "--images",
        choices=["smollm", "none"],
        default="smollm",
        help="smollm, the default: images of vLLM, SGLang, NIM and the like run the embedded small model, all others "
        "run with this Python; none: commands run as they are. Images in the config file come first",
    )


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; write a number from 0 to 65535")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Run the command: print where it serves, then serve until SIGINT or SIGTERM."""
    try:
        from launcher.emulators.lepton import LeptonEmulator
    except ModuleNotFoundError as error:
        raise MissingExtra(f"the emulator needs {error.name}, which", "emulators") from None
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with LeptonEmulator(_config(args), port=args.port) as emulator:
        _tell(emulator)
        stop.wait()
    return 0


def _config(args: argparse.Namespace) -> Config:
    from launcher.emulators.lepton import Config
    from launcher.emulators.lepton.config import load
    from launcher.emulators.lepton.images import rehearsal

    config = load(Path(args.config)) if args.config else Config()
    if args.images == "none":
        return config
    if find_spec("cyllama") is None:
        sys.stderr.write("nv-eval: model servers will not start: pip install 'nv-eval-launcher[smollm]'\n")
    return rehearsal(config)


def _tell(emulator: LeptonEmulator) -> None:
    """What a shell needs to know, then what a person does."""
    config = emulator.config
    sys.stdout.write(f"export LEPTON_WORKSPACE_URL={emulator.url}\n")
    sys.stdout.write(f"export LEPTON_WORKSPACE_ID={config.workspace}\n")
    sys.stdout.write(f"export LEPTON_WORKSPACE_TOKEN={config.tokens[0].value}\n")
    for group in config.node_groups:
        shapes = ", ".join(group.shapes or (shape.id for shape in config.shapes))
        sys.stdout.write(f"# node group {group.name}: {shapes}\n")
    sys.stdout.write("# Paste the first three lines into another terminal. Ctrl-C ends all that runs in here.\n")
    sys.stdout.flush()
