"""`nv-eval schedule`: runs that begin by themselves."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from launcher.cli import leftovers

if TYPE_CHECKING:
    from launcher.orchestrator.journal import Journal
    from launcher.schedule.firing import Firing
    from launcher.schedule.model import Fire, Schedule, Via
    from launcher.schedule.store import Store

SCHEMA = "nv-eval.schedule/1"
NEXT = 3
"""Coming times that `show` lists."""
_ADD_EPILOG = """\
What is to run stands behind --, as for nv-eval run; it is composed and planned now, with the variables that a timer
has, and a schedule that could not run is refused. For example:
  nv-eval schedule add nightly --cron "0 2 * * 1-5" --timezone Europe/Berlin -- run evaluation.limit=100
What would be written on this machine is shown first, and written with --yes or after a typed yes. See
docs/schedules.md.
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
    from launcher.errors import ConfigError

    if args.behind and args.action != "add":
        raise ConfigError(f"nv-eval schedule {args.action}: unexpected argument {args.behind[0]}")
    return _ACTIONS[args.action][2](args)


def _define_add(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _ADD_EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    _define_name(parser)
    span = leftovers.span
    parser.add_argument(
        "--cron", required=True, metavar="FIELDS", help="when: minute hour day-of-month month day-of-week"
    )
    parser.add_argument("--timezone", metavar="TZ", help="of --cron; default: this machine's")
    parser.add_argument(
        "--via",
        choices=("systemd", "crontab", "slurm", "kubernetes", "serve"),
        help="what calls it; default: the first of slurm, systemd, crontab, serve that works here",
    )
    parser.add_argument("--jitter", type=span, default=0.0, metavar="T", help="begin up to this much later")
    parser.add_argument(
        "--grace",
        type=span,
        default=900.0,
        metavar="T",
        help="a time that is called later than this was missed; default: 15min",
    )
    parser.add_argument(
        "--catch-up",
        choices=("once", "none"),
        default="once",
        help="after missed times: run once, or not; default: once",
    )
    parser.add_argument("--allow-overlap", action="store_true", help="begin although the run before still goes on")
    parser.add_argument(
        "--budget-day", type=_usd, metavar="USD", help="most that all schedules' runs may cost in a day"
    )
    parser.add_argument("--budget-month", type=_usd, metavar="USD", help="most that they may cost in a month")
    parser.add_argument("--gate", metavar="POLICY", help="compare each run with the last good one by this policy")
    parser.add_argument(
        "--notify",
        action="append",
        default=[],
        metavar="NAME",
        help="variable with an Apprise address to tell of trouble",
    )
    parser.add_argument("--env-file", metavar="FILE", help="NAME=VALUE lines with variables that the run needs")
    parser.add_argument(
        "--slurm", action="append", default=[], metavar="OPTION", help="option of Slurm's job: --slurm=-pcpu"
    )
    parser.add_argument("--image", help="with --via kubernetes: image that has nv-eval")
    parser.add_argument("--claim", help="with --via kubernetes: volume claim for state and results")
    parser.add_argument("--namespace", default="default", help="with --via kubernetes; default: default")
    parser.add_argument(
        "--secret",
        action="append",
        default=[],
        metavar="NAME",
        help="with --via kubernetes: secret whose keys are variables",
    )
    parser.add_argument("-y", "--yes", action="store_true", help="write it without asking")
    _define_json(parser)


def _usd(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no amount of USD; write for example 25")
    return value


def _define_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="name of the schedule")


def _define_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def _define_named(parser: argparse.ArgumentParser) -> None:
    _define_name(parser)
    _define_json(parser)


def _define_history(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="name of a schedule, also of one that was removed; default: all"
    )
    _define_json(parser)


def _define_fire(parser: argparse.ArgumentParser) -> None:
    _define_name(parser)
    parser.add_argument(
        "--due", metavar="TIME", help="the time that is meant, as 2026-01-31T02:00; default: what has passed"
    )
    parser.add_argument(
        "--from", dest="source", metavar="FILE", help="take the schedule from this file, as Kubernetes does"
    )


def _define_nothing(_: argparse.ArgumentParser) -> None:
    pass


# --- add and remove ---------------------------------------------------------------------------------------------------


def _add(args: argparse.Namespace) -> int:
    from launcher.cli import schedule_add

    return schedule_add.add(args)


def _remove(args: argparse.Namespace) -> int:
    from launcher.schedule import places

    store = _store()
    calling, text = _calling(store, args.name), ""
    for via in calling:
        timer = places.timer(via, args.name)
        found = timer.present() if timer is not None else ""
        if timer is not None and found:
            timer.uninstall()
            text += f"Removed the {timer.name}:\n{found}"
    store.remove(args.name)
    if args.json:
        _print_json(name=args.name, removed=True, timer=text.partition("\n")[2] or None)
    else:
        sys.stdout.write(f"{text}Removed schedule {args.name}. What it ran stays in: nv-eval schedule history\n")
        if "kubernetes" in calling:
            print(f"In the cluster: kubectl delete cronjob,configmap {places.mark(args.name)}")
    return 0


def _calling(store: Store, name: str) -> tuple[Via, ...]:
    """What calls a schedule; everything that can where it is damaged. Raises NotFound."""
    from launcher.errors import LauncherError, NotFound
    from launcher.schedule import places
    from launcher.schedule.model import Via

    try:
        return (store.find(name).definition.via,)
    except NotFound:
        raise
    except LauncherError:
        return tuple(via for via in Via if (timer := places.timer(via, name)) is None or timer.works())


# --- reading ----------------------------------------------------------------------------------------------------------


def _list(args: argparse.Namespace) -> int:
    store, _ = _settled()
    rows = [_facts(store, schedule) for schedule in store.schedules()]
    _say_damaged(store)
    if args.json:
        _print_json(schedules=rows, damaged=store.damaged)
    elif not rows:
        print("No schedules; add one with: nv-eval schedule add")
    else:
        head = ("name", "when", "timezone", "via", "next", "last")
        sys.stdout.write(leftovers.table(head, [[str(row[name] or "") for name in head] for row in rows]))
    return 0


def _say_damaged(store: Store) -> None:
    sys.stderr.writelines(f"nv-eval: {line}\n" for line in store.damaged)


def _facts(store: Store, schedule: Schedule) -> dict[str, Any]:
    from launcher.schedule import times
    from launcher.schedule.firing import told

    definition = schedule.definition
    cron = times.parse(definition.cron, definition.timezone)
    lines = store.history(schedule.name)
    coming = next(cron.after(time.time()), None)
    return {
        "name": schedule.name,
        "when": definition.cron,
        "timezone": definition.timezone,
        "via": definition.via.value,
        "paused": schedule.paused,
        "next": "paused" if schedule.paused else cron.shown(coming),
        "next_at": None if schedule.paused else coming,
        "last": told(lines[-1]) if lines else "",
    }


def _show(args: argparse.Namespace) -> int:
    from launcher.schedule import places, times

    store, _ = _settled()
    schedule = store.find(args.name)
    facts, definition = _facts(store, schedule), schedule.definition
    timer = places.timer(definition.via, schedule.name)
    text = timer.present() if timer is not None else ""
    if args.json:
        _print_json(**facts, definition=asdict(definition), timer=text or None)
        return 0
    cron = times.parse(definition.cron, definition.timezone)
    coming = cron.after(time.time())
    print(f"{schedule.name}: {definition.cron} {definition.timezone}, via {definition.via}")
    print("paused" if schedule.paused else "next: " + ", ".join(cron.shown(next(coming)) for _ in range(NEXT)))
    for name, value in asdict(definition).items():
        if name not in ("name", "cron", "timezone", "via", "run") and value not in (None, (), 0.0, False):
            print(f"  {name}: {value}")
    print(f"  run: {' '.join((definition.run.config_name, *definition.run.overrides))}")
    if timer is not None:
        sys.stdout.write(f"{timer.name}:\n{text}" if text else f"its {timer.name} is gone; add it anew\n")
    return 0


def _history(args: argparse.Namespace) -> int:
    store, _ = _settled()
    lines = store.history(args.name)
    if args.name and not lines:
        store.find(args.name)  # a name that nobody ever had is told
    _say_damaged(store)
    if args.json:
        _print_json(history=[asdict(fire) for fire in lines], damaged=store.damaged)
    elif not lines:
        print("Nothing has happened yet.")
    else:
        sys.stdout.write(_history_table(store, lines))
    return 0


def _history_table(store: Store, lines: list[Fire]) -> str:
    from launcher.schedule import times

    zones = {one.name: one.definition.timezone for one in store.schedules()}
    head = ("schedule", "due", "started", "ended", "invocation", "code", "outcome", "gate", "detail")
    rows = []
    for fire in lines:
        cron = times.Cron("", times.zone(zones.get(fire.schedule, "UTC")))
        due = cron.shown(fire.due) or "run-now"
        outcome = str(fire.outcome or ("running" if fire.invocation else "waiting"))
        if fire.count > 1:
            due, outcome = f"{cron.shown(fire.first_due)} to {due}", f"{outcome}: {fire.count} times"
        code = "" if fire.exit_code is None else str(fire.exit_code)
        detail = fire.detail.replace("\n", "; ")
        moments = (cron.shown(fire.started), cron.shown(fire.ended))
        rows.append([fire.schedule, due, *moments, fire.invocation, code, outcome, str(fire.verdict or ""), detail])
    return leftovers.table(head, rows)


# --- firing -----------------------------------------------------------------------------------------------------------


def _fire(args: argparse.Namespace) -> int:
    store = _store()
    if args.source:
        _take(store, args)
    zone = store.find(args.name).definition.timezone
    return _conclude(_firing(store).fire(args.name, due=_due(args.due, zone) if args.due else None), args.name)


def _run_now(args: argparse.Namespace) -> int:
    return _conclude(_firing(_store()).fire(args.name, manual=True), args.name, manual=True)


def _take(store: Store, args: argparse.Namespace) -> None:
    """Keep a schedule as a file has it."""
    from pathlib import Path

    import msgspec

    from launcher.decoding import decode
    from launcher.errors import ConfigError
    from launcher.schedule.model import Definition

    try:
        found = decode(Path(args.source).read_bytes(), Definition)
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"--from {args.source}: holds no schedule: {error}") from None
    if found.name != args.name:
        raise ConfigError(f"--from {args.source}: holds schedule {found.name}, not {args.name}")
    if any(one.name == found.name for one in store.schedules()):
        store.redefine(found)
    else:
        store.add(found, time.time() - found.grace)  # the time that calls it for the first time is one of its own


def _due(text: str, zone: str) -> float:
    from launcher.errors import ConfigError
    from launcher.schedule import times

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"--due {text}: write a time as 2026-01-31T02:00, in the schedule's time zone") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=times.zone(zone))).timestamp()


def _firing(store: Store) -> Firing:
    from launcher.cli import env_file
    from launcher.orchestrator.journal import Journal
    from launcher.schedule.firing import Firing
    from launcher.schedule.launching import Real

    launch = Real(read_env=env_file.read, say=_say)
    return Firing(store=store, journal=Journal.default(), launch=launch, say=_say)


def _say(text: str) -> None:
    sys.stderr.write(f"nv-eval: {text}\n")
    sys.stderr.flush()


def _conclude(fire: Fire | None, name: str, *, manual: bool = False) -> int:
    """Print what was decided; the exit code is the run's, or the gate's where the run is complete."""
    from launcher.errors import Inconclusive, LeaseHeld, LimitReached, NoGo, ResultsError
    from launcher.schedule.firing import told
    from launcher.schedule.model import Outcome, Verdict

    if fire is None:
        print(f"{name}: nothing is due")
        return 0
    print(f"{name}: {told(fire)}")
    verdicts = {
        Verdict.NO_GO: NoGo.exit_code,
        Verdict.INCONCLUSIVE: Inconclusive.exit_code,
        Verdict.UNDECIDED: ResultsError.exit_code,
    }
    outcomes = {Outcome.BUDGET: LimitReached.exit_code, Outcome.OVERLAP: LeaseHeld.exit_code if manual else 0}
    found = [verdicts[fire.verdict]] if fire.verdict in verdicts else []
    found += [outcomes[fire.outcome]] if fire.outcome in outcomes else []
    return next(iter(found), fire.exit_code or 0)


# --- the rest ---------------------------------------------------------------------------------------------------------


def _pause(args: argparse.Namespace) -> int:
    return _set_paused(args, paused=True)


def _resume(args: argparse.Namespace) -> int:
    return _set_paused(args, paused=False)


def _set_paused(args: argparse.Namespace, *, paused: bool) -> int:
    """Times that have passed are decided before: what passed in a pause is no misfire."""
    store, _ = _settled()
    is_new = store.find(args.name).paused != paused
    if is_new:
        _firing(store).pass_over(args.name)
        store.pause(args.name, paused=paused)
    word = "paused; its times pass until nv-eval schedule resume" if paused else "goes on"
    if args.json:
        _print_json(name=args.name, paused=paused, changed=is_new)
    else:
        print(f"{args.name}: {word if is_new else 'is paused already' if paused else 'is not paused'}")
    return 0


def _serve(_: argparse.Namespace) -> int:
    from launcher.cli import timers
    from launcher.schedule.serve import Server

    server = Server(program=[*timers.PROGRAM, "schedule", "fire"], say=_say)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, server.stop)
    server.run()
    return 0


def _store() -> Store:
    from launcher.schedule.store import Store

    return Store.default()


def _settled() -> tuple[Store, Journal]:
    from launcher.orchestrator.journal import Journal
    from launcher.schedule.settling import settle

    store, journal = _store(), Journal.default()
    settle(store, journal, time.time())
    return store, journal


def _print_json(**facts: Any) -> None:
    sys.stdout.write(json.dumps({"schema": SCHEMA, "exit_code": 0, **facts}) + "\n")


_ACTIONS = {
    "add": ("keep a run and when it begins", _define_add, _add),
    "ls": ("schedules, when each comes next, and what became of its last time", _define_json, _list),
    "show": ("one schedule, with its timer", _define_named, _show),
    "history": ("what became of each time", _define_history, _history),
    "run-now": ("run a schedule now, within its budget and gate", _define_name, _run_now),
    "pause": ("let times pass", _define_named, _pause),
    "resume": ("let it run again", _define_named, _resume),
    "rm": ("remove a schedule and its timer", _define_named, _remove),
    "fire": ("what timers call: decide about the times that have passed, and run", _define_fire, _fire),
    "serve": ("call schedules while this runs, where the machine has no timers", _define_nothing, _serve),
}
