"""What calls a schedule on this machine: a timer of systemd's, a line in a crontab, a job in Slurm's scrontab."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from launcher.errors import PreflightError
from launcher.orchestrator.timer import Crontab, Entry, Scrontab, Systemd
from launcher.schedule import times
from launcher.schedule.model import Definition, Via

Timer = Systemd | Crontab
_ONE_AT_A_TIME = {Via.SYSTEMD: "systemd starts no timer's command", Via.SLURM: "Slurm starts no scrontab's job"}
_MACHINES_ZONE = {Via.CRONTAB: "a crontab", Via.SLURM: "a scrontab"}


def mark(name: str) -> str:
    """What a schedule is called on the machine."""
    return f"nv-eval-schedule-{name}"


def timer(via: Via, name: str, options: Sequence[str] = ()) -> Timer | None:
    """What would hold the timer of a schedule; None where nothing on the machine does. `options`: of Slurm's job."""
    if via is Via.SYSTEMD:
        return Systemd(mark(name))
    if via is Via.CRONTAB:
        return Crontab(mark(name))
    return Scrontab(mark(name), options=options) if via is Via.SLURM else None


def entry(definition: Definition, argv: Sequence[str], env: dict[str, str], log_folder: str) -> Entry:
    """What the timer runs and when. Raises ConfigError for what no timer can hold."""
    from pathlib import Path

    return Entry(
        argv=argv,
        env=env,
        log=Path(log_folder) / f"schedule-{definition.name}.log",
        moments=times.parse(definition.cron, definition.timezone).moments(),
        about=f"nv-eval schedule {definition.name}",
    )


def choose(timezone: str, now: float, *, allow_overlap: bool) -> Via:
    """The first of Slurm, systemd and crontab that works here and can do what is asked, else `schedule serve`."""
    works = ((Via.SLURM, Scrontab.works), (Via.SYSTEMD, Systemd.works), (Via.CRONTAB, Crontab.works))
    for via, answers in works:
        if not list(_limits(via, timezone, now, allow_overlap=allow_overlap)) and answers():
            return via
    return Via.SERVE


def refuse_impossible(via: Via, timezone: str, now: float, *, allow_overlap: bool) -> None:
    """Raises PreflightError for what this kind of timer cannot do, or if there is none of it here."""
    problems = list(_limits(via, timezone, now, allow_overlap=allow_overlap))
    made = timer(via, "any")
    if made is not None and not made.works():
        problems.append(f"--via {via}: {made.name} does not work here; leave --via out to take what does")
    if problems:
        raise PreflightError(problems)


def _limits(via: Via, timezone: str, now: float, *, allow_overlap: bool) -> Iterator[str]:
    if allow_overlap and via in _ONE_AT_A_TIME:
        yield f"--allow-overlap: {_ONE_AT_A_TIME[via]} while it still runs; use --via crontab or --via serve"
    if via in _MACHINES_ZONE and not times.same(timezone, times.local_zone(), now):
        yield (
            f"--timezone {timezone}: {_MACHINES_ZONE[via]} knows only the machine's own, {times.local_zone()}; "
            "use --via systemd or --via serve"
        )
