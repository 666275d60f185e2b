"""The command `nv-eval`: find the sub-command, run it, turn errors into one line and an exit code."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from launcher.cli.report import report
from launcher.cli.text import plain
from launcher.errors import ConfigError, LauncherError, nearest

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
TYPE_CHECKING = False  # as typing has it, which takes a third of a bare Python's time to load
if TYPE_CHECKING:
    from typing import NoReturn

COMMANDS = {
    "run": "deploy, evaluate, collect scores, tear down",
    "attach": "watch an invocation that runs in the background",
    "status": "what an invocation is doing, and what it did",
    "logs": "output of an invocation's servers and jobs",
    "results": "scores of invocations",
    "schedule": "runs that begin by themselves: at times of a calendar, within a budget, behind a gate",
    "watch": "evaluate every new checkpoint of a folder, a repository or a list, once",
    "endpoints": "a model's endpoint for yourself: start, list, scale, read, end",
    "compare": "is a run better than another, or is it chance",
    "gate": "may a run replace another, by a policy",
    "view": "a local web page of runs: live status, logs, scores, samples",
    "export": "send results to MLflow, W&B, a collector, files and others",
    "report": "runs as one file to read and to pass on: HTML, Markdown or PDF",
    "stop": "end an invocation and tear it down",
    "resume": "go on with an invocation that was interrupted or stopped, or that failed",
    "cleanup": "remove endpoints, jobs and storage of an invocation, from any machine",
    "gc": "find and remove everything of ours that nobody needs any more",
    "doctor": "what this machine can run, and how to mend what it cannot",
    "ls": "list runs, tasks, deployments, executions",
    "login": "keep a platform's credentials",
    "init": "write a commented config to start from",
    "emulate": "serve a cloud's control plane on this machine, for rehearsals",
    "completion": "print shell completion",
    "version": "print versions",
}

CARRIERS = ("schedule", "watch")
"""Commands that take another one behind `--`; what it is, they find in `behind`."""

HIDDEN = ("supervise",)
"""Commands that others start; `--help` does not list them."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are ours: one line, with the nearest valid name."""

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError instead of printing usage and exiting."""
        raise ConfigError(f"{self.prog}: {message}; see: {self.prog} --help")


def build_parser(command: str | None = None, *, alone: bool = False) -> Parser:
    """The parser; with `command`, only that sub-command's arguments are defined, and with `alone` it knows no other."""
    parser = Parser(prog="nv-eval", description="Puts a model on GPUs, runs benchmarks, brings home scores.")
    parser.add_argument("--version", action="store_true", help="print versions and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for name, summary in COMMANDS.items():
        if alone and name != command:
            continue
        sub = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        sub.add_argument("-v", "--verbose", action="store_true", help="more detail; tracebacks for defects")
        if command in (None, name):
            import_module(f"launcher.cli.{name}_command").add_arguments(sub)
    if command in HIDDEN:
        import_module(f"launcher.cli.{command}_command").add_arguments(commands.add_parser(command))
    return parser


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Arguments of one call. What argparse leaves over are overrides, or options that do not exist."""
    command = next((word for word in argv if not word.startswith("-")), None)
    if command is not None and command not in (*COMMANDS, *HIDDEN):
        raise ConfigError(f"nv-eval {command}: no such command{nearest(command, COMMANDS)}")
    parser = build_parser(command or "", alone=command is not None and argv[0] == command)
    behind: list[str] = []
    if command in CARRIERS and "--" in argv:
        cut = list(argv).index("--")
        argv, behind = argv[:cut], list(argv[cut + 1 :])
    args, rest = parser.parse_known_args(argv)
    args.behind = behind
    for word in rest:
        if word.startswith("-") or not hasattr(args, "overrides"):
            raise ConfigError(f"nv-eval {command or ''}: {_unknown(word, parser, command)}")
    if hasattr(args, "overrides"):
        args.overrides = [*args.overrides, *rest]
    return args


def _unknown(word: str, parser: Parser, command: str | None) -> str:
    sub = _subs(parser).get(command or "")
    parsers = [sub, *_subs(sub).values()] if sub else [parser]
    options = [o for found in parsers for a in found._actions for o in a.option_strings if o.startswith("--")]
    if not word.startswith("-"):
        return f"unexpected argument {word}"
    return f"unknown option {word.partition('=')[0]}{nearest(word.partition('=')[0], options)}"


def _subs(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    choices = parser._subparsers._group_actions[0].choices if parser._subparsers else None
    return choices if isinstance(choices, dict) else {}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. See launcher.errors for what the codes mean."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if "_ARGCOMPLETE" in os.environ:
        from launcher.cli.complete import autocomplete

        autocomplete(build_parser())
    try:
        return _command(argv)
    except LauncherError as error:
        return report(error, as_json="--json" in argv)
    except KeyboardInterrupt:
        sys.stderr.write("nv-eval: interrupted\n")
        return 130
    except OSError as error:
        return _unwritten(error, argv)
    except Exception as error:
        return _defect(error, argv)


def _unwritten(error: OSError, argv: Sequence[str]) -> int:
    """A pipe that was closed is no error, a full disk is the person's; all else is a defect."""
    is_closed = isinstance(error, BrokenPipeError)
    if not is_closed and error.errno not in _FULL:
        return _defect(error, argv)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at exit
    if is_closed:
        return 0
    where = f"{plain(str(error.filename))}: " if error.filename else ""
    sys.stderr.write(f"nv-eval: {where}cannot be written: {error.strerror}; make room and repeat the command\n")
    return LauncherError.exit_code


def _defect(error: Exception, argv: Sequence[str]) -> int:
    """A defect of ours is said in a line, the traceback only when asked for."""
    if {"-v", "--verbose"} & set(argv):
        raise error
    said = plain(f"internal error: {type(error).__name__}: {error}")
    sys.stderr.write(f"nv-eval: {said}; add -v for the traceback\n")
    return 1


def _command(argv: Sequence[str]) -> int:
    args = parse(argv)
    if args.command is None:
        return _no_command(args)
    code = int(import_module(f"launcher.cli.{args.command}_command").run(args))
    sys.stdout.flush()  # here, where a closed pipe is still ours to handle
    return code


def _no_command(args: argparse.Namespace) -> int:
    if args.version:
        return int(import_module("launcher.cli.version_command").run(args))
    build_parser("").print_help()
    return 0


if __name__ == "__main__":
    sys.exit(main())
