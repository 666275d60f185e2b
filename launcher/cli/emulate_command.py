"""`nv-eval emulate`: a cloud's control plane on this machine, for tests and rehearsals."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.errors import MissingExtra

if TYPE_CHECKING:
    from launcher.emulators.deepinfra import DeepInfraEmulator
    from launcher.emulators.kubernetes import KubernetesEmulator
    from launcher.emulators.lepton import LeptonEmulator


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments."""
    parser.add_argument("platform", choices=["deepinfra", "kubernetes", "lepton"], help="which control plane")
    parser.add_argument("--port", type=_port, default=0, metavar="N", help="of the control plane; 0, the default: any")
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="YAML file of what it pretends to be: node groups or GPUs, prices, servers, faults",
    )
    parser.add_argument(
        "--images",
        choices=["smollm", "none"],
        default="smollm",
        help="smollm, the default: the embedded small model is what serves, in the other clouds in images of vLLM, "
        "SGLang, NIM and the like, while all others run with this Python; none: commands run as they are, and models "
        "of deepinfra answer without a process. What the config file says comes first",
    )


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; write a number from 0 to 65535")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Run the command: print where it serves, then serve until SIGINT or SIGTERM."""
    try:
        make = {"lepton": _lepton, "kubernetes": _kubernetes, "deepinfra": _deepinfra}[args.platform]
        emulator, lines = make(args)
    except ModuleNotFoundError as error:
        raise MissingExtra(f"the emulator needs {error.name}, which", "emulators") from None
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with emulator:
        for line in lines:
            sys.stdout.write(f"{line}\n")
        sys.stdout.write("# Paste the lines with export into another terminal. Ctrl-C ends all that runs in here.\n")
        sys.stdout.flush()
        stop.wait()
    return 0


def _lepton(args: argparse.Namespace) -> tuple[LeptonEmulator, Iterator[str]]:
    """The emulator, and what to print once it serves."""
    from launcher.emulators.lepton import Config, LeptonEmulator
    from launcher.emulators.lepton.config import load
    from launcher.emulators.lepton.images import rehearsal

    config = load(Path(args.config)) if args.config else Config()
    emulator = LeptonEmulator(rehearsal(config) if _wants_model(args) else config, port=args.port)
    return emulator, _lines_of_lepton(emulator)


def _lines_of_lepton(emulator: LeptonEmulator) -> Iterator[str]:
    config = emulator.config
    yield f"export LEPTON_WORKSPACE_URL={emulator.url}"
    yield f"export LEPTON_WORKSPACE_ID={config.workspace}"
    yield f"export LEPTON_WORKSPACE_TOKEN={config.tokens[0].value}"
    for group in config.node_groups:
        shapes = ", ".join(group.shapes or (shape.id for shape in config.shapes))
        yield f"# node group {group.name}: {shapes}"


def _kubernetes(args: argparse.Namespace) -> tuple[KubernetesEmulator, Iterator[str]]:
    """The emulator, and what to print once it serves."""
    import dataclasses

    import wsproto  # noqa: F401  without it, ports would never be forwarded, and nothing would say why

    from launcher.emulators.common.rehearsal import NETWORK
    from launcher.emulators.kubernetes import Config, KubernetesEmulator
    from launcher.emulators.kubernetes.config import load
    from launcher.emulators.lepton.images import table

    config = load(Path(args.config)) if args.config else Config()
    if _wants_model(args):
        images, inherit = (*config.images, *table()), (*config.inherit, *NETWORK)
        config = dataclasses.replace(config, images=images, inherit=inherit)
    emulator = KubernetesEmulator(config, port=args.port)
    return emulator, _lines_of_kubernetes(emulator)


def _lines_of_kubernetes(emulator: KubernetesEmulator) -> Iterator[str]:
    yield f"export KUBECONFIG={emulator.kubeconfig}"
    for node in emulator.config.nodes:
        yield f"# node {node.name}: {node.gpus} GPUs, {node.cpus:g} cores, {node.memory_gib:g} GiB"


def _deepinfra(args: argparse.Namespace) -> tuple[DeepInfraEmulator, Iterator[str]]:
    """The emulator, and what to print once it serves."""
    from launcher.emulators.deepinfra import Config, DeepInfraEmulator
    from launcher.emulators.deepinfra.config import load
    from launcher.emulators.deepinfra.rehearsal import rehearsal

    config = load(Path(args.config)) if args.config else Config()
    emulator = DeepInfraEmulator(rehearsal(config) if _wants_model(args) else config, port=args.port)
    return emulator, _lines_of_deepinfra(emulator)


def _lines_of_deepinfra(emulator: DeepInfraEmulator) -> Iterator[str]:
    config = emulator.config
    yield f"export DEEPINFRA_BASE_URL={emulator.url}"
    yield f"export DEEPINFRA_API_KEY={emulator.key}"
    for gpu in config.gpus:
        taken = "" if gpu.available else ", none available"
        yield f"# {gpu.type}: {gpu.usd_per_hour:.2f} USD per GPU and hour{taken}"
    yield f"# At most {config.gpu_limit} GPUs together. Models are called OWNER/NAME, with the owner {config.owner}."


def _wants_model(args: argparse.Namespace) -> bool:
    """Whether the small model stands in for servers; says so where it cannot."""
    wanted: bool = args.images == "smollm"
    if wanted and find_spec("cyllama") is None:
        sys.stderr.write("nv-eval: model servers will not start: pip install 'nv-eval-launcher[smollm]'\n")
    return wanted
