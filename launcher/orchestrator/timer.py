"""A timer of this machine that runs a command again and again: systemd's for the user, else a line in the crontab."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from launcher.errors import ConfigError, PlatformError, PreflightError

NAME = "nv-eval-gc"
"""Of the timer of `nv-eval gc`."""
MINUTE = 7
"""Minute of the hour: most timers of this world go off at 0."""
PERIODS = "5, 10, 15, 20 or 30min, 1, 2, 3, 4, 6, 8 or 12h, or 1d"
_HOUR = 60
_PATIENCE = 30.0
"""Seconds for one answer of systemctl or crontab."""
_LONGEST_LINE = 900
"""Characters of a command that every cron takes."""


@dataclass(frozen=True, kw_only=True)
class Moments:
    """When a timer goes off: the five fields of a crontab, and what systemd calls calendar events."""

    cron: str
    calendars: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What is to run, and when: `every` so many seconds, one of PERIODS, or at `moments`. `log` gets what it says."""

    argv: Sequence[str]
    log: Path
    every: float = 0
    moments: Moments | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    about: str = "Removes what nv-eval has left and nobody needs"

    def __post_init__(self) -> None:
        minutes, rest = divmod(self.every, 60)
        periods = {5, 10, 15, 20, 30, *(60 * hours for hours in (1, 2, 3, 4, 6, 8, 12, 24))}
        if self.moments is None and (rest or int(minutes) not in periods):
            raise ConfigError(f"--every: a timer can go off every {PERIODS}; choose one of these")
        odd = next((text for text in (*self.argv, *self.env.values(), str(self.log)) if not text.isprintable()), None)
        if odd is not None:
            raise ConfigError(f"{odd!a}: a timer takes no line breaks or other control characters; use another name")

    @property
    def command(self) -> str:
        """One line for /bin/sh that needs nothing of its environment."""
        env = " ".join(f"{name}={shlex.quote(value)}" for name, value in self.env.items())
        folder, log = shlex.quote(str(self.log.parent)), shlex.quote(str(self.log))
        return f"mkdir -p {folder}; {{ date -u; cd /; {env} {shlex.join(self.argv)}; }} >> {log} 2>&1"

    @property
    def when(self) -> Moments:
        """When it runs."""
        minutes = int(self.every // 60)
        return self.moments or Moments(cron=f"{_cron(minutes)} * * *", calendars=(_calendar(minutes),))


def _hours(minutes: int, step: str) -> str:
    """Hours of the day at which a period of an hour or more begins."""
    return {_HOUR: "*", 24 * _HOUR: "0"}.get(minutes, f"{step}{minutes // _HOUR}")


class Systemd:
    """A timer unit of the user's own systemd."""

    name = "systemd user timer"

    def __init__(self, unit: str = NAME) -> None:
        self._unit = unit
        config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        self._folder = config / "systemd/user"

    @staticmethod
    def works() -> bool:
        """Whether the user's systemd answers."""
        return _ask("systemctl", "--user", "show-environment") is not None

    @staticmethod
    def lingers() -> bool:
        """Whether it runs while the user is not logged in."""
        return "yes" in (_ask("loginctl", "show-user", str(os.getuid()), "--property=Linger") or "")

    def present(self) -> str:
        """The unit files that are there, for the person; empty if there are none."""
        return "".join(_shown(path, path.read_text(encoding="utf-8")) for path in self._files() if path.exists())

    def text(self, entry: Entry) -> str:
        """The unit files that `install` would write."""
        return "".join(_shown(path, content) for path, content in self._units(entry).items())

    def install(self, entry: Entry) -> None:
        """Write the unit files and start the timer. Raises PlatformError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for path, content in self._units(entry).items():
            path.write_text(content, encoding="utf-8")
        _do("systemctl", "--user", "daemon-reload")
        _do("systemctl", "--user", "enable", f"{self._unit}.timer")
        _do("systemctl", "--user", "restart", f"{self._unit}.timer")

    def uninstall(self) -> None:
        """Stop the timer and remove its files. Raises PlatformError."""
        _do("systemctl", "--user", "disable", "--now", f"{self._unit}.timer")
        for path in self._files():
            path.unlink(missing_ok=True)
        _do("systemctl", "--user", "daemon-reload")

    def _files(self) -> list[Path]:
        return [self._folder / f"{self._unit}.{kind}" for kind in ("service", "timer")]

    def _units(self, entry: Entry) -> dict[Path, str]:
        about = f"[Unit]\nDescription={entry.about.replace('%', '%%')}\n\n"
        service = f"{about}[Service]\nType=oneshot\n{_exec(entry)}\n"
        when = "".join(f"OnCalendar={moment}\n" for moment in entry.when.calendars)
        timer = f"{about}[Timer]\n{when}Persistent=true\n\n[Install]\nWantedBy=timers.target\n"
        return dict(zip(self._files(), (service, timer), strict=True))


def _calendar(minutes: int) -> str:
    """A period as systemd's calendar has it."""
    if minutes < _HOUR:
        return f"*:0/{minutes}"
    return f"*-*-* {_hours(minutes, '0/')}:{MINUTE:02}"


def _exec(entry: Entry) -> str:
    """The command as systemd reads it: no variables, no specifiers, escapes of its own."""
    escapes = {"\\": "\\\\", '"': '\\"', "%": "%%", "$": "$$"}
    escaped = re.sub(r'[\\"%$]', lambda found: escapes[found[0]], entry.command)
    return f'ExecStart=/bin/sh -c "{escaped}"'


class Crontab:
    """A line in the user's crontab, with a mark at its end: a comment to the shell that runs it."""

    name = "crontab"
    program = "crontab"

    def __init__(self, mark: str = NAME) -> None:
        self._mark = mark

    @classmethod
    def works(cls) -> bool:
        """Whether there is a crontab that this user may read."""
        try:
            cls._lines()
        except PlatformError:
            return False
        return True

    def present(self) -> str:
        """What is ours, if it is there. Raises PlatformError."""
        return "".join(filter(self._is_ours, self._lines()))

    def text(self, entry: Entry) -> str:
        """The line that `install` would write. Raises PreflightError if it is too long."""
        if re.search(r"\\[\\%]", entry.command):
            raise PreflightError("crons differ in what a backslash before a backslash or a % is; use paths without it")
        command = entry.command.replace("%", "\\%")  # to cron a bare one is the end of the line
        if len(command) > _LONGEST_LINE:
            raise PreflightError(f"the command has {len(command)} characters, and cron may cut it; use shorter paths")
        return f"{entry.when.cron} {command} # {self._mark}\n"

    def install(self, entry: Entry) -> None:
        """Write the crontab anew, with our line at its end. Raises PlatformError."""
        self._write([*self._others(), self.text(entry)])

    def uninstall(self) -> None:
        """Write the crontab anew, without our line. Raises PlatformError."""
        self._write(self._others())

    def _is_ours(self, line: str) -> bool:
        return line.rstrip().endswith(f"# {self._mark}")

    def _others(self) -> list[str]:
        lines = [line for line in self._lines() if not self._is_ours(line)]
        return [line if line.endswith("\n") else f"{line}\n" for line in lines]

    @classmethod
    def _lines(cls) -> list[str]:
        """Lines of the user's table. Raises PlatformError where it cannot be read, which is not the same as empty."""
        done = _call(cls.program, "-l")
        if done.returncode == 0:
            return re.findall(r"[^\n]*\n|[^\n]+", done.stdout)  # to cron nothing else ends a line
        if re.search("no (s?crontab|such file)", done.stderr, re.IGNORECASE):
            return []
        raise PlatformError(f"{cls.program} -l: {_last_line(done)}")

    @classmethod
    def _write(cls, lines: Sequence[str]) -> None:
        _do(cls.program, "-", text="".join(lines))


class Scrontab(Crontab):
    """A line in Slurm's table of jobs that come again, with the job's options in a line before it."""

    name = "scrontab"
    program = "scrontab"

    def __init__(self, mark: str, *, options: Sequence[str] = ()) -> None:
        super().__init__(mark)
        self._options = options

    def text(self, entry: Entry) -> str:
        """Both lines. Raises PreflightError for a command that Slurm may read otherwise than the shell."""
        if "%" in entry.command or len(entry.command) > _LONGEST_LINE:
            raise PreflightError("scrontab: the command is too long or holds a %; use short paths without it")
        options = shlex.join([*self._options, f"--job-name={self._mark}"])
        return f"#SCRON {options}\n{entry.when.cron} {entry.command} # {self._mark}\n"

    def _is_ours(self, line: str) -> bool:
        is_option = line.startswith("#SCRON") and line.rstrip().endswith(f"--job-name={self._mark}")
        return is_option or super()._is_ours(line)


def _cron(minutes: int) -> str:
    """A period as cron's minutes and hours."""
    return f"*/{minutes} *" if minutes < _HOUR else f"{MINUTE} {_hours(minutes, '*/')}"


# --- which there are --------------------------------------------------------------------------------------------------


def choose() -> Systemd | Crontab:
    """The timer to use on this machine. Raises PreflightError if there is none."""
    if Systemd.works():
        return Systemd()
    if Crontab.works():
        return Crontab()
    raise PreflightError(
        "neither `systemctl --user` nor `crontab` works here; install cron, or let another timer run nv-eval gc --yes"
    )


def installed() -> list[Systemd | Crontab]:
    """The timers of ours that are in place. Raises PlatformError."""
    systemd, crontab = Systemd(), Crontab()
    return [*([systemd] if systemd.present() else []), *([crontab] if crontab.works() and crontab.present() else [])]


def _shown(path: Path, content: str) -> str:
    return f"{path}:\n" + "".join(f"  {line}".rstrip() + "\n" for line in content.splitlines())


# --- other programs ---------------------------------------------------------------------------------------------------


def _ask(*argv: str) -> str | None:
    """What a program says; None if it fails."""
    try:
        done = _call(*argv)
    except PlatformError:
        return None
    return done.stdout if done.returncode == 0 else None


def _do(*argv: str, text: str | None = None) -> None:
    done = _call(*argv, text=text)
    if done.returncode != 0:
        raise PlatformError(f"{' '.join(argv)}: {_last_line(done)}")


def _call(*argv: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "LC_ALL": "C"}  # its messages are read
    try:
        done = subprocess.run(
            argv, input=_bytes(text or ""), capture_output=True, timeout=_PATIENCE, check=False, env=env
        )
    except OSError as error:
        raise PlatformError(f"{argv[0]}: cannot be started: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise PlatformError(f"{' '.join(argv)}: no answer within {_PATIENCE:g} s") from None
    return subprocess.CompletedProcess(argv, done.returncode, _text(done.stdout), _text(done.stderr))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(said: bytes) -> str:
    """As it is, whatever bytes and line ends a person's crontab has: it is written back."""
    return said.decode("utf-8", "surrogateescape")


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
