"""What Lepton says of endpoints and jobs, in the launcher's words; and what keeps an endpoint from getting ready."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from launcher.platforms.base import ResourceState
from launcher.platforms.lepton.types import EndpointState, Event, JobState, ReadinessIssue, Termination

ENDPOINT_STATES: dict[EndpointState, ResourceState] = {
    EndpointState.READY: ResourceState.RUNNING,
    EndpointState.NOT_READY: ResourceState.PENDING,
    EndpointState.STARTING: ResourceState.PENDING,
    EndpointState.UPDATING: ResourceState.RUNNING,
    EndpointState.SCALING: ResourceState.RUNNING,
    EndpointState.MIGRATING: ResourceState.PENDING,
    EndpointState.STOPPING: ResourceState.FAILED,
    EndpointState.STOPPED: ResourceState.FAILED,
    EndpointState.DELETING: ResourceState.PENDING,
    EndpointState.RESTARTING: ResourceState.PENDING,
    EndpointState.ERROR: ResourceState.FAILED,
    EndpointState.UNKNOWN: ResourceState.PENDING,
}
"""Nobody but the dead-man switch stops an endpoint of a live run, so that `Stopped` is a failure."""

JOB_STATES: dict[JobState, ResourceState] = {
    JobState.AWAITING: ResourceState.PENDING,
    JobState.QUEUEING: ResourceState.PENDING,
    JobState.STARTING: ResourceState.PENDING,
    JobState.RUNNING: ResourceState.RUNNING,
    JobState.RESTARTING: ResourceState.RUNNING,
    JobState.PENDING_RETRY: ResourceState.RUNNING,
    JobState.STOPPING: ResourceState.RUNNING,
    JobState.TERMINATING: ResourceState.RUNNING,
    JobState.STOPPED: ResourceState.FAILED,
    JobState.COMPLETED: ResourceState.SUCCEEDED,
    JobState.FAILED: ResourceState.FAILED,
    JobState.DELETING: ResourceState.RUNNING,
    JobState.DELETED: ResourceState.GONE,
    JobState.ARCHIVED: ResourceState.SUCCEEDED,
    JobState.UNKNOWN: ResourceState.PENDING,
}

SUSPICIOUS = frozenset({EndpointState.NOT_READY, EndpointState.ERROR, EndpointState.RESTARTING})
"""States in which the reason is worth a request at once."""
CRASHES = 3
"""So many containers that ended with an error are no accident."""

_FATAL_ISSUES = ("ConfigError", "SystemError")
_FATAL_EVENTS = ("CreateContainerConfigError", "CreateContainerError")
_CRASH_EVENTS = ("BackOff", "CrashLoopBackOff", "Crashed")
_BEGINNINGS = ("Started", "Ready", "Restarted")
_WAITING_ISSUES = {
    "NoCapacity": "no capacity in the node group",
    "Queueing": "queued for quota",
    "RequireReadinessApproval": "a person must approve it in the dashboard",
    "FailedScheduling": "no node takes it",
    "FailedMount": "a volume cannot be mounted",
    "FailedAttachVolume": "a volume cannot be attached",
}
_IMAGE = re.compile(
    r"ImagePullBackOff|ErrImage|InvalidImageName|(failed to|back-off) pull(ing)? |pull access denied|manifest unknown",
    re.IGNORECASE,
)
_GATED = re.compile(
    r"GatedRepo|gated repo|Access to model .{0,200}is restricted|You must have access to it|authorized list to access",
    re.IGNORECASE,
)
_NOT_FOUND = re.compile(r"RepositoryNotFoundError|Repository Not Found for url", re.IGNORECASE)
_TOKEN_REFUSED = re.compile(r"Invalid user token|401 Client Error.{0,200}huggingface\.co", re.IGNORECASE)
_ADVICE = {
    "ConfigError": "check the image, its secrets and its mounts",
    "SystemError": "the platform's own fault: run the task again, or on another node group",
}
LONGEST = 300
"""Characters of what somebody else says that are shown."""


@dataclass(frozen=True)
class Diagnosis:
    """Why an endpoint is not ready, in one line. `fatal`: waiting will not help."""

    detail: str = ""
    fatal: bool = False
    exit_code: int | None = None
    crashed: bool = False
    """A container of it ended with an error, so its log may say why."""
    runs: bool = True
    """A container of it may be running, so its log may say how far it is."""


def diagnose(issues: Iterable[ReadinessIssue], ends: Iterable[Termination]) -> Diagnosis:
    """What readiness issues and terminations (legacy family) say."""
    failed = [end for end in ends if end.exit_code]
    waiting = ""
    for issue in issues:
        found = _of_issue(issue.reason, issue.message)
        if found.fatal:
            return replace(found, crashed=bool(failed))
        if not failed and not found.runs:
            return found
        waiting = waiting or found.detail
    return _crashes(failed) if failed else Diagnosis(waiting)


def _of_issue(reason: str, message: str) -> Diagnosis:
    text = one_line(f"{reason}: {message}" if message else reason)
    if _IMAGE.search(text):
        return Diagnosis(f"the image cannot be pulled: {text}; check image and pull secret", fatal=True, runs=False)
    if reason in _FATAL_ISSUES:
        return Diagnosis(f"{text}; {_ADVICE[reason]}", fatal=True, runs=False)
    if reason in _WAITING_ISSUES:
        return Diagnosis(one_line(f"{_WAITING_ISSUES[reason]}{': ' if message else ''}{message}"), runs=False)
    return Diagnosis(one_line(message) if reason != "Ready" else "")


def _crashes(failed: list[Termination]) -> Diagnosis:
    last = max(failed, key=lambda end: end.finished_at or 0)
    said = one_line(f"{last.reason}{': ' if last.reason and last.message else ''}{last.message}")
    how = f"exited with code {last.exit_code}{f' ({said})' if said else ''}"
    if len(failed) < CRASHES:
        return Diagnosis(f"the server {how} and was restarted", exit_code=last.exit_code, crashed=True)
    detail = f"the server crashed {len(failed)} times and last {how}"
    return Diagnosis(detail, fatal=True, exit_code=last.exit_code, crashed=True)


def from_events(events: Iterable[Event]) -> Diagnosis:
    """What the events of an endpoint (new family, which has nothing else) say: the worst of them.

    An event may carry its message beside its reason or in it.
    """
    crashes, waiting = 0, Diagnosis()
    for event in events:
        reason, _, rest = event.reason.partition(":")
        found = _of_issue(reason.strip(), one_line(f"{rest} {event.message}"))
        if found.fatal:
            return found
        if reason in _FATAL_EVENTS and event.type != "Normal":
            text = one_line(f"{event.reason}{': ' if event.message else ''}{event.message}")
            return Diagnosis(f"{text}; {_ADVICE['ConfigError']}", fatal=True, runs=False)
        crashes += (event.count or 1) if reason in _CRASH_EVENTS else 0
        waiting = found if reason in _WAITING_ISSUES else Diagnosis() if reason in _BEGINNINGS else waiting
    if crashes:
        return Diagnosis(f"the server crashed {crashes} times", fatal=crashes >= CRASHES, crashed=True)
    return waiting


def of_job(events: Iterable[Event]) -> str:
    """Why a job ended, as its last warning says; empty if there is none."""
    warnings = [event for event in events if event.type == "Warning"]
    last = warnings[-1] if warnings else None
    return one_line(f"{last.reason}{': ' if last.message else ''}{last.message}") if last is not None else ""


def from_log(found: Diagnosis, log: Sequence[str]) -> Diagnosis:
    """A diagnosis with what the server's last lines add: that the model may not be read, else the very last of them."""
    advice = gated(log) if found.crashed else None
    if advice is not None:
        return Diagnosis(advice, fatal=True, exit_code=found.exit_code, crashed=True)
    last = next((line for line in reversed(log) if line.strip()), "")
    if not last:
        return found
    said = f"its last line: {one_line(last)}" if found.detail else one_line(last)
    return replace(found, detail=f"{found.detail}{'; ' if found.detail else ''}{said}")


def gated(log: Iterable[str]) -> str | None:
    """What to do, if a server's last lines say that it may not read its model."""
    text = list(log)
    token = "a token that may read it as deployment.envs.HF_TOKEN"  # noqa: S105 - advice
    if any(map(_NOT_FOUND.search, text)):
        return f"Hugging Face has no such model, or hides it (401); check deployment.model_id, or give {token}"
    if any(map(_GATED.search, text)):
        return f"the model is gated; accept its terms, and give {token}"
    if any(map(_TOKEN_REFUSED.search, text)):
        return f"Hugging Face refused the token (401); give {token}"
    return None


def one_line(text: str) -> str:
    """Somebody else's words on one line, cut where they are long."""
    return " ".join(text.split())[:LONGEST]
