"""Every error the launcher raises on purpose, and the exit code each one ends the program with.

LauncherError ............. 1   a defect of the launcher itself
 +- ConfigError ........... 2   config or command line is wrong; nothing was created
 +- PreflightError ........ 3   the plan cannot run here; nothing was created
 |   +- MissingExtra ...... 3   an optional package is not installed
 +- TasksFailed ........... 4   the run ended and at least one task has no scores
 +- Leftover .............. 5   something of this invocation may still be running
 +- NotFound .............. 6   no such invocation, task or log
 +- PlatformError ......... 7   the platform refused or did not answer
 |   +- ExportFailed ...... 7   a place that results were to be sent to refused, or did not answer
 +- ResultsError .......... 8   files of a harness are missing, broken or incomplete
 |   +- NotComparable ..... 8   two runs measure different things
 +- LimitReached .......... 9   a limit of the config ended the run
 +- LeaseHeld ............ 10   another nv-eval runs this invocation; nothing was done
 +- LeaseLost ............ 11   another nv-eval took this invocation over; what it made is that one's to end
 +- NoGo ................. 12   a gate found a score worse than its policy allows
 +- Inconclusive ......... 13   a gate could not tell whether the scores are as its policy asks
 +- Interrupted ......... 130   the person asked to stop
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class LauncherError(Exception):
    """An error with a message for the person and an exit code for the shell."""

    exit_code = 1


class ConfigError(LauncherError):
    """The config or the command line is wrong. Nothing was created.

    `problems` holds one line each: file or command line, key, what is wrong, the nearest valid name.
    """

    exit_code = 2

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class PreflightError(LauncherError):
    """The plan cannot run on this platform as it is. Nothing was created."""

    exit_code = 3

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class MissingExtra(PreflightError):
    """An optional package is needed. The message gives the command that installs it."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} is not installed; install it with: pip install 'nv-eval-launcher[{extra}]'")


class TasksFailed(LauncherError):
    """The run ended and at least one task has no scores."""

    exit_code = 4


class Leftover(LauncherError):
    """Something of this invocation may still be running. The message names it."""

    exit_code = 5


class NotFound(LauncherError):
    """No such invocation, task or log."""

    exit_code = 6


class PlatformError(LauncherError):
    """The platform refused a request or did not answer."""

    exit_code = 7


class ExportFailed(PlatformError):
    """Results could not be sent to a place: it refused, or did not answer. The run itself is what it was."""


class ResultsError(LauncherError):
    """Files of a harness are missing, broken or incomplete."""

    exit_code = 8


class NotComparable(ResultsError):
    """Two runs measure different things. The message names what differs, with both values."""


class LimitReached(LauncherError):
    """A limit of the config ended the run; what was scored before is kept."""

    exit_code = 9


class LeaseHeld(LauncherError):
    """Another nv-eval runs this invocation. Nothing was done."""

    exit_code = 10


class LeaseLost(LauncherError):
    """Another nv-eval has taken this invocation over. What this one made is now the other's to end."""

    exit_code = 11


class NoGo(LauncherError):
    """A gate found a score worse than its policy allows. Nothing is wrong with the command."""

    exit_code = 12


class Inconclusive(LauncherError):
    """A gate could not tell whether the scores are as its policy asks: too few samples, or a score is missing."""

    exit_code = 13


class Interrupted(LauncherError):
    """The person asked to stop (SIGINT, SIGTERM or SIGHUP)."""

    exit_code = 130


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint for a mistyped name: `; did you mean X?`, or the valid names where they are few, or nothing."""
    from difflib import get_close_matches

    names = sorted(set(valid))
    close = get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; valid: {', '.join(names)}" if 0 < len(names) <= 12 else ""
