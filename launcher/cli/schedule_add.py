"""`nv-eval schedule add`: everything that could keep a schedule from running is found now, not at night."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.cli import behind, env_file, timers
from launcher.errors import ConfigError, PreflightError
from launcher.schedule import places, times
from launcher.schedule.firing import refuse_unkeepable
from launcher.schedule.launching import made, plans, refuse_beyond_limits, worst
from launcher.schedule.model import Definition, RunSpec, Via, WatchSpec
from launcher.schedule.store import Store
from launcher.schedule.watching import sample

if TYPE_CHECKING:
    from launcher.plan.model import Plan
    from launcher.schedule.kubernetes import Cluster
    from launcher.sweep.model import SweepPlan

SCHEMA = "nv-eval.schedule/1"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_OWN_VARIABLES = (Via.SERVE, Via.KUBERNETES)
"""These have variables of their own: those of the shell that serves, or of secrets in the cluster."""
_SEEN = ("HF_", "CUDA_", "LD_LIBRARY_PATH", "LEPTON_", "DEEPINFRA_", "DOCKER_", "SSL_CERT_", "NV_EVAL_GPU")
"""How variables begin that change what a run finds or does."""
_KEPT = ("HOME", "USER", "LOGNAME", "LANG", "TZ")
"""Variables that every timer has."""


def add(args: argparse.Namespace) -> int:
    """Check, show, and keep it if the person says so."""
    store = Store.default()
    definition = _definition(args)
    given = env_file.read(definition.env_file) if definition.env_file else {}
    with _environment(definition.via, given) as environment:
        found = made(definition.run if definition.watch is None else sample(definition.run))
        _refuse_unrunnable(definition, found, environment)
        notes = _checks(definition, found)
    notes += _lacking(definition, given)
    if any(one.name == definition.name for one in store.schedules()):
        raise ConfigError(
            f"schedule {definition.name}: there is one already; nv-eval schedule rm {definition.name} first"
        )
    if definition.via is Via.KUBERNETES:
        return _print_manifest(definition, _cluster(args))
    return _keep(store, definition, args, [*notes, *_notes(definition)])


def _definition(args: argparse.Namespace) -> Definition:
    if not _NAME.fullmatch(args.name):
        raise ConfigError(f"schedule {args.name}: a name has a-z, 0-9 and -, begins and ends without -, and 32 at most")
    timezone = args.timezone or times.local_zone()
    cron = times.parse(args.cron, timezone)
    if args.via:
        via = Via(args.via)
        places.refuse_impossible(via, timezone, time.time(), allow_overlap=args.allow_overlap)
    else:
        via = places.choose(timezone, time.time(), allow_overlap=args.allow_overlap)
    run, watch = _behind(args)
    return Definition(
        name=args.name,
        cron=cron.expression,
        timezone=timezone,
        run=run,
        watch=watch,
        via=via,
        cwd="/state" if via is Via.KUBERNETES else str(Path.cwd()),
        env_file=timers.absolute(args.env_file) if args.env_file else None,
        jitter=args.jitter,
        grace=max(args.grace, 60.0),
        catch_up=args.catch_up,
        allow_overlap=args.allow_overlap,
        budget_day=args.budget_day,
        budget_month=args.budget_month,
        gate=timers.absolute(args.gate) if args.gate else None,
        notify=tuple(args.notify),
    )


def _behind(args: argparse.Namespace) -> tuple[RunSpec, WatchSpec | None]:
    """A run, or a watch that looks once each time."""
    if args.behind[:1] != ["watch"]:
        return behind.run_spec("schedule add", args.behind), None
    from launcher.cli.main import parse
    from launcher.cli.watch_command import watch_spec

    if args.gate or args.budget_day or args.budget_month:
        raise ConfigError("schedule add -- watch: how many checkpoints there will be is not known: no budget, no gate")
    watch = watch_spec(parse(args.behind))
    return watch.run, watch


@contextmanager
def _environment(via: Via, given: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Within, this process has the variables that the run will have."""
    before = dict(os.environ)
    kept = {name: value for name, value in before.items() if via in _OWN_VARIABLES or name in _KEPT}
    environment = {**kept, **timers.environment(), **given}
    os.environ.clear()
    os.environ.update(environment)
    try:
        yield environment
    finally:
        os.environ.clear()
        os.environ.update(before)


def _refuse_unrunnable(definition: Definition, found: Plan | SweepPlan, environment: Mapping[str, str]) -> None:
    """Raises ConfigError or PreflightError for whatever would be refused when its time comes."""
    from launcher.platforms.secrets import references

    named = {reference.env for plan in plans(found) for reference in references(plan)}
    missing = sorted(name for name in named if name and name not in environment)
    if missing and definition.via is not Via.KUBERNETES:
        raise PreflightError(
            f"the run needs {', '.join(missing)}, and a timer has none of your shell's variables; write them as "
            "NAME=VALUE lines into a file of yours, chmod 600 it, and add --env-file FILE"
        )
    refuse_unkeepable(definition, worst(found))
    if not definition.run.yes:
        refuse_beyond_limits(found)
    if definition.gate:
        if len(plans(found)) > 1:
            raise ConfigError("--gate: compares two runs, and this is a sweep; add a schedule for each point")
        _refuse_gate(definition.gate)
    if definition.notify and definition.via is not Via.KUBERNETES:
        from launcher.notify import refuse_unknown

        refuse_unknown(definition.notify, environment)


def _refuse_gate(policy: str) -> None:
    from launcher.api import refuse_without_statistics
    from launcher.results.policy import load

    load(Path(policy))
    refuse_without_statistics("gate")


def _cluster(args: argparse.Namespace) -> Cluster:
    from launcher.schedule.kubernetes import Cluster

    if not args.image or not args.claim:
        raise ConfigError("--via kubernetes: needs --image, which has nv-eval, and --claim, which keeps its state")
    if args.env_file:
        raise ConfigError("--via kubernetes: --env-file is a file of this machine; name a secret with --secret")
    return Cluster(image=args.image, claim=args.claim, namespace=args.namespace, secrets=tuple(args.secret))


def _print_manifest(definition: Definition, cluster: Cluster) -> int:
    """Everything it needs travels in the manifest: nothing is kept on this machine."""
    from launcher.schedule.kubernetes import manifest

    sys.stdout.write(manifest(definition, cluster))
    sys.stderr.write("nv-eval: nothing was written; hand it to the cluster with: ... | kubectl apply -f -\n")
    return 0


def _checks(definition: Definition, found: Plan | SweepPlan) -> list[str]:
    """What would keep it from running now. It is told and not refused: by the time that it runs it may be otherwise."""
    from launcher.api import preflight
    from launcher.platforms.base import BUDGET, CheckState

    if definition.via is Via.KUBERNETES or definition.watch is not None:
        return []
    first = plans(found)[:1]  # of a sweep: its points differ in little
    checks = [check for plan in first for check in preflight(plan)]
    problems = [check.message for check in checks if check.state is CheckState.PROBLEM and check.name != BUDGET]
    return [f"as things are it could not run: {problem}" for problem in problems]


def _lacking(definition: Definition, given: Mapping[str, str]) -> list[str]:
    missing = [] if definition.via in _OWN_VARIABLES else timers.missing(_SEEN, given)
    how = "if the run needs them, write them as NAME=VALUE lines into a file, chmod 600 it, and add --env-file FILE"
    return [f"a timer has none of your shell's variables; it would lack {', '.join(missing)}: {how}"] if missing else []


def _keep(store: Store, definition: Definition, args: argparse.Namespace, notes: Sequence[str]) -> int:
    timer = places.timer(definition.via, definition.name, args.slurm)
    text = ""
    if timer is not None:
        environment = timers.environment()
        command = (*timers.PROGRAM, "schedule", "fire", definition.name)
        entry = places.entry(definition, command, environment, environment["NV_EVAL_HOME"])
        text = timer.text(entry)
        if not args.json:
            sys.stdout.write(f"{timer.name} to be written:\n{text}")
            sys.stderr.writelines(f"nv-eval: {note}\n" for note in notes)
        if not (args.yes or (not args.json and timers.agrees())):
            return _told(definition, text, args, notes, written=False)
    store.add(definition, time.time())
    if timer is not None:
        try:
            timer.install(entry)
        except BaseException:
            store.remove(definition.name)
            raise
    return _told(definition, text, args, notes, written=True)


def _told(definition: Definition, text: str, args: argparse.Namespace, notes: Sequence[str], *, written: bool) -> int:
    cron = times.parse(definition.cron, definition.timezone)
    coming = next(cron.after(time.time()))
    if args.json:
        facts = {"name": definition.name, "via": definition.via.value, "timer": text or None, "written": written}
        document = {"schema": SCHEMA, "exit_code": 0, **facts, "next_at": coming, "notes": list(notes)}
        sys.stdout.write(json.dumps(document) + "\n")
    elif not written:
        sys.stdout.write("Nothing was written; to write it, repeat the command with --yes\n")
    else:
        sys.stdout.write(f"Schedule {definition.name}: next {cron.shown(coming)} {definition.timezone}\n")
        if not text:  # else they were told before the question
            sys.stderr.writelines(f"nv-eval: {note}\n" for note in notes)
    return 0


def _notes(definition: Definition) -> Iterator[str]:
    from launcher.orchestrator.timer import Systemd

    if definition.via is Via.SERVE:
        yield "nothing on this machine calls it: let `nv-eval schedule serve` run"
    if definition.via is Via.SYSTEMD and not Systemd.lingers():
        yield "it stops when you log out, unless you say once: loginctl enable-linger"
