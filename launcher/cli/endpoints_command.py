"""`nv-eval endpoints`: a model's endpoint for itself, without benchmarks, on any platform."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from launcher.cli import leftovers
from launcher.cli.interrupting import signals_interrupt
from launcher.cli.text import plain
from launcher.errors import LauncherError

if TYPE_CHECKING:
    from launcher.orchestrator.endpoints import EndpointStatus
    from launcher.orchestrator.journal import Journal
    from launcher.plan.model import Plan
    from launcher.platforms.base import LogLine

SCHEMA = "nv-eval.endpoints/1"
HOUR = 3600.0
POLL = 0.1
"""Seconds between two looks at the journal."""
DOWN_TIME = 180.0
_UP_EPILOG = """\
The config is that of a run; what it evaluates is left out of account. For example:
  nv-eval endpoints up deployment=vllm deployment.model_id=meta-llama/Llama-3.1-8B-Instruct --ttl 2h
A process in the background keeps the endpoint until the time is over or `nv-eval endpoints down`, deletes it then, and
makes sure that it is gone. Ctrl-C while it starts takes it down.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, (summary, define, _) in _ACTIONS.items():
        action = actions.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        action.add_argument("-v", "--verbose", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        define(action)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    return _ACTIONS[args.action][2](args)


def _define_up(parser: argparse.ArgumentParser) -> None:
    from launcher.cli.run_command import add_config_arguments

    parser.epilog = _UP_EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_config_arguments(parser)
    parser.add_argument(
        "--ttl",
        type=leftovers.span,
        default=4 * HOUR,
        metavar="T",
        help="time after which it is taken down, at most 30d; default: 4h",
    )
    parser.add_argument("--no-wait", action="store_true", help="come back before it answers")
    parser.add_argument("-y", "--yes", action="store_true", help="start it although its worst case breaks a limit")
    _define_json(parser)


def _define_ls(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-a", "--all", action="store_true", help="also those that are gone")
    _define_json(parser)


def _define_down(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("invocations", nargs="+", metavar="ID", help="id or unique prefix")
    parser.add_argument(
        "--timeout", type=leftovers.span, default=DOWN_TIME, metavar="T", help="time to wait; default: 180s"
    )
    _define_json(parser)


def _define_logs(parser: argparse.ArgumentParser) -> None:
    _define_id(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on until it ends")
    parser.add_argument("-n", "--lines", type=int, metavar="N", help="only the last N lines")
    _define_json(parser)


def _define_scale(parser: argparse.ArgumentParser) -> None:
    _define_id(parser)
    parser.add_argument("--min", type=int, required=True, metavar="N", help="fewest replicas")
    parser.add_argument("--max", type=int, required=True, metavar="N", help="most replicas")


def _define_metrics(parser: argparse.ArgumentParser) -> None:
    _define_id(parser)
    parser.add_argument(
        "--since", type=leftovers.span, default=HOUR, metavar="T", help="time that is looked back; default: 1h"
    )
    _define_json(parser)


def _define_id(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("invocation", metavar="ID", help="id or unique prefix")


def _define_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


# --- up ---------------------------------------------------------------------------------------------------------------


def _up(args: argparse.Namespace) -> int:
    from launcher.api import detach, endpoint, endpoint_plan
    from launcher.cli.run_command import request
    from launcher.config import load, located
    from launcher.plan.endpoint import refuse_ttl

    refuse_ttl(args.ttl)
    wanted = request(args)
    config = load(wanted)
    with located(wanted):
        plan = endpoint_plan(config, ttl=args.ttl)
    try:
        with signals_interrupt():
            detach(plan, yes=args.yes)
            if not args.no_wait:
                _wait(plan.invocation, quiet=args.json)
    except KeyboardInterrupt:
        return _give_up(plan, as_json=args.json)
    _show_started(endpoint(plan.invocation), as_json=args.json)
    return 0


def _wait(invocation: str, *, quiet: bool) -> None:
    """Until it answers; says what it waits for. Raises TasksFailed with the reason if it never will."""
    from launcher.api import endpoint

    said = ""
    while not (status := endpoint(invocation)).is_up:
        if status.exit_code is not None or status.state == "keeper_gone":
            raise _failed(status)
        text = f"{status.state}{f': {status.detail}' if status.detail else ''}"
        if text != said and not quiet:
            said = text
            sys.stderr.write(f"{time.strftime('%H:%M:%S')} {invocation}: {plain(text)}\n")
            sys.stderr.flush()
        time.sleep(POLL)


def _failed(status: EndpointStatus) -> LauncherError:
    """Why it never got ready, with the last lines of its server."""
    from launcher.api import record
    from launcher.cli.scores import failure
    from launcher.errors import TasksFailed

    if status.exit_code is None:
        return TasksFailed(f"{status.id}: its keeper was killed; make sure: nv-eval endpoints down {status.id}")
    if status.exit_code == 0:
        return TasksFailed(f"{status.id}: its time was over as soon as it answered; give it more: --ttl T")
    try:
        found = record(status.id)
    except LauncherError:
        return TasksFailed(f"{status.id}: {status.state.replace('_', ' ')}: {status.detail}")
    left = (
        f"may still be running: {', '.join(found.left)}; remove it: nv-eval cleanup {status.id}" if found.left else ""
    )
    error = TasksFailed(f"{failure(found.tasks[0])}{left}".strip().replace("endpoint: ", f"{status.id}: ", 1))
    error.exit_code = status.exit_code or TasksFailed.exit_code
    return error


def _give_up(plan: Plan, *, as_json: bool) -> int:
    """Take down what an interrupted `up` began; a second Ctrl-C stops waiting for it."""
    from launcher.cli.stop_command import stop
    from launcher.errors import Interrupted
    from launcher.orchestrator.journal import Journal

    invocation, journal = plan.invocation, Journal.default()
    if not _has_begun(journal, invocation):
        sys.stderr.write("nv-eval: interrupted before anything was begun\n")
        return Interrupted.exit_code
    sys.stderr.write(f"Taking {invocation} down. Once more stops waiting for it.\n")
    sys.stderr.flush()
    try:
        code = stop(journal, [invocation], journal.find, timeout=DOWN_TIME, as_json=as_json)
    except KeyboardInterrupt:
        endpoint = plan.tasks[0].endpoint
        name = endpoint.name if endpoint else invocation
        sys.stderr.write(f"nv-eval: {name} may still be there; end it: nv-eval endpoints down {invocation}\n")
        code = 0
    return code or Interrupted.exit_code


def _has_begun(journal: Journal, invocation: str) -> bool:
    """Whether a keeper has begun; one that has not is recorded as ended."""
    from launcher.errors import Interrupted, NotFound
    from launcher.orchestrator.journal import Fact

    try:
        journal.find(invocation)
    except NotFound:
        return False
    if journal.last(invocation, Fact.RUN_STARTED) is not None:
        return True
    journal.record(invocation, Fact.RUN_ENDED, exit_code=Interrupted.exit_code)
    return False


def _show_started(status: EndpointStatus, *, as_json: bool) -> None:
    if as_json:
        _print_json([status])
    elif status.url is None:
        sys.stdout.write(
            f"{status.id} is starting in the background. See it: nv-eval endpoints ls. "
            f"End it: nv-eval endpoints down {status.id}.\n"
        )
    else:
        sys.stdout.write("\n".join([*_facts(status), "", *_calls(status), "", *_next(status)]) + "\n")


def _facts(status: EndpointStatus) -> Iterator[str]:
    from launcher.plan.words import duration

    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(time.time() + status.expires_in))
    yield f"Endpoint {status.id} is up."
    yield f"  URL      {status.url}/v1"
    yield f"  model    {status.model}"
    if status.key_name:
        yield f"  key      in {status.key_name}; where that is not set:"
        yield f'           export {status.key_name}="$(nv-eval endpoints key {status.id})"'
    yield f"  expires  {when}, in {duration(max(0.0, status.expires_in))}"
    if status.usd_per_hour is not None:
        yield f"  cost     {status.usd_per_hour:.2f} USD per hour"


def _calls(status: EndpointStatus) -> Iterator[str]:
    """How to call it, ready to be pasted."""
    chat = status.endpoint_type == "chat"
    prompt = {"messages": [{"role": "user", "content": "Hello"}]} if chat else {"prompt": "Hello"}
    body = json.dumps({"model": status.model, **prompt, "max_tokens": 16})
    key = f'-H "Authorization: Bearer ${status.key_name}" ' if status.key_name else ""
    yield "With curl:"
    yield f"  curl {status.url}/v1/{'chat/completions' if chat else 'completions'} {key}\\"
    yield f"    -H 'Content-Type: application/json' -d {_quoted(body)}"
    yield "With the openai client for Python:"
    arguments = ", ".join(f"{name}={value!r}" for name, value in {"model": status.model, **prompt}.items())
    method, answer = ("chat.completions", "message.content") if chat else ("completions", "text")
    secret = f"os.environ[{status.key_name!r}]" if status.key_name else repr("none")
    yield "  import os, openai"
    yield f"  client = openai.OpenAI(base_url={f'{status.url}/v1'!r}, api_key={secret})"
    yield f"  print(client.{method}.create({arguments}, max_tokens=16).choices[0].{answer})"


def _quoted(text: str) -> str:
    import shlex

    return shlex.quote(text)


def _next(status: EndpointStatus) -> Iterator[str]:
    yield f"Its output: nv-eval endpoints logs -f {status.id}. End it: nv-eval endpoints down {status.id}."


# --- the others -------------------------------------------------------------------------------------------------------


def _ls(args: argparse.Namespace) -> int:
    from launcher.api import endpoints

    found = [status for status in endpoints() if args.all or not status.is_over]
    if args.json:
        _print_json(found)
    elif found:
        sys.stdout.write(leftovers.table(_HEAD, [_row(status) for status in found]))
    else:
        sys.stdout.write(f"No endpoint{'' if args.all else ' is up'}; start one with: nv-eval endpoints up\n")
    return 0


_HEAD = ("id", "state", "url", "model", "age", "expires in", "price", "cost", "where")


def _row(status: EndpointStatus) -> list[str]:
    from launcher.plan.words import duration, money

    expires = duration(status.expires_in) if status.expires_in > 0 else "over"
    return [
        status.id,
        _state(status),
        f"{status.url}/v1" if status.url and status.is_up else "",
        status.model,
        duration(status.age),
        "" if status.is_over else expires,
        f"{status.usd_per_hour:.2f} USD/h" if status.usd_per_hour and not status.is_over else "",
        money(status.usd) if status.usd is not None else "",
        f"{status.deployment} on {status.execution}",
    ]


def _state(status: EndpointStatus) -> str:
    """Its state in words, and whether something of it may be there though nobody keeps it."""
    words = status.state.replace("_", " ")
    if status.state == "keeper_gone":
        return f"{words}, {'server ended with it' if status.alive is False else 'may still be there'}"
    return f"{words}, may still be there" if status.exit_code is not None and status.alive is not False else words


def _print_json(found: list[EndpointStatus]) -> None:
    """Prints the schema of `up` and `ls`."""
    rows: list[dict[str, Any]] = [
        {**asdict(status), "base_url": f"{status.url}/v1" if status.url else None} for status in found
    ]
    sys.stdout.write(json.dumps({"schema": SCHEMA, "endpoints": rows}) + "\n")


def _down(args: argparse.Namespace) -> int:
    from launcher.cli.stop_command import stop
    from launcher.orchestrator.endpoints import find
    from launcher.orchestrator.journal import Journal

    journal = Journal.default()
    return stop(journal, args.invocations, lambda word: find(journal, word), timeout=args.timeout, as_json=args.json)


def _logs(args: argparse.Namespace) -> int:
    from launcher.api import endpoint, endpoint_log
    from launcher.plan.endpoint import TASK
    from launcher.platforms import RENTED

    status = endpoint(args.invocation)
    is_here = status.execution == "local" and status.deployment not in RENTED
    if is_here or status.is_over:
        from launcher.cli import logs_command

        words = {**vars(args), "invocation": status.id, "task": TASK, "endpoint": True, "job": False}
        return logs_command.run(argparse.Namespace(**words))
    endpoint_log(status.id, _json_line if args.json else _plain_line, lines=args.lines, follow=args.follow)
    return 0


def _plain_line(line: LogLine) -> None:
    sys.stdout.write(f"{plain(line.text)}\n")
    sys.stdout.flush()


def _json_line(line: LogLine) -> None:
    document = {"schema": "nv-eval.log/1", "task": "endpoint", "source": "endpoint", "line": line.text}
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def _scale(args: argparse.Namespace) -> int:
    from launcher.api import endpoint, scale_endpoint
    from launcher.errors import ConfigError

    if not 0 <= args.min <= args.max or args.max == 0:
        raise ConfigError("nv-eval endpoints scale: --min is at least 0, --max at least 1 and no less than --min")
    most = scale_endpoint(args.invocation, least=args.min, most=args.max)
    price = f" (up to {most:.2f} USD/h)" if most else ""
    sys.stdout.write(f"{endpoint(args.invocation).id}: {args.min} to {args.max} replicas{price}\n")
    return 0


def _metrics(args: argparse.Namespace) -> int:
    from launcher.api import endpoint, endpoint_metrics

    invocation = endpoint(args.invocation).id
    counted = asdict(endpoint_metrics(invocation, since=time.time() - args.since))
    if args.json:
        document = {"schema": "nv-eval.endpoint-metrics/1", "invocation": invocation, "since": args.since, **counted}
        sys.stdout.write(json.dumps(document) + "\n")
        return 0
    known = {name: value for name, value in counted.items() if value is not None}
    lines = [f"{name.replace('_', ' '):<16}  {value:g}\n" for name, value in known.items()]
    sys.stdout.write("".join(lines) or f"{invocation}: nothing is counted of it\n")
    return 0


def _key(args: argparse.Namespace) -> int:
    from launcher.api import endpoint_key

    sys.stdout.write(f"{endpoint_key(args.invocation)}\n")
    return 0


_ACTIONS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int]]] = {
    "up": ("start an endpoint and print how to call it", _define_up, _up),
    "ls": ("list the endpoints that are up", _define_ls, _ls),
    "down": ("end endpoints, and make sure that they are gone", _define_down, _down),
    "logs": ("print the server's output", _define_logs, _logs),
    "scale": ("change how many replicas it has, where the platform can", _define_scale, _scale),
    "metrics": ("print requests, latency and tokens, where the platform counts them", _define_metrics, _metrics),
    "key": ("print the key that calls it, for a variable of your shell", _define_id, _key),
}
"""Each action with its summary, what defines its arguments, and what runs it."""
