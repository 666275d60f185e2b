"""`nv-eval completion`: the line a shell needs to complete options, config groups and keys."""

from __future__ import annotations

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments."""
    parser.epilog = 'in a start-up file of the shell, for bash: eval "$(nv-eval completion bash)"'
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell to print for")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from argcomplete.shell_integration import shellcode

    sys.stdout.write(shellcode(["nv-eval"], shell=args.shell))
    return 0
