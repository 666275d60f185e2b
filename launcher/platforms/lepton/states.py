"""What Lepton says of endpoints and jobs, in the launcher's words; and what keeps an endpoint from getting ready."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

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

_FATAL_ISSUES = frozenset({"ConfigError", "SystemError"})
_WAITING_ISSUES = {
    "NoCapacity": "no capacity in the node group",
    "Queueing": "queued for quota",
    "RequireReadinessApproval": "a person must approve it in the dashboard",
}
_IMAGE = re.compile(r"ImagePullBackOff|ErrImage|InvalidImageName|pull access denied|manifest unknown", re.IGNORECASE)
_GATED = re.compile(r"GatedRepo|gated repo|Access to model .* is restricted", re.IGNORECASE)


@dataclass(frozen=True)
class Diagnosis:
    """Why an endpoint is not ready, in one line. `fatal`: waiting will not help."""

    detail: str = ""
    fatal: bool = False
    exit_code: int | None = None
    crashed: bool = False
    """A container of it ended with an error, so its log may say why."""


def diagnose(issues: Iterable[ReadinessIssue], ends: Iterable[Termination]) -> Diagnosis:
    """What readiness issues and terminations (legacy family) say."""
    failed = [end for end in ends if end.exit_code]
    for issue in issues:
        text = f"{issue.reason}: {issue.message}" if issue.message else issue.reason
        if _IMAGE.search(text):
            return Diagnosis(f"the image cannot be pulled: {_one_line(text)}; check image and pull secret", fatal=True)
        if issue.reason in _FATAL_ISSUES:
            return Diagnosis(_one_line(text), fatal=True, crashed=bool(failed))
        if issue.reason in _WAITING_ISSUES and not failed:
            said = f": {issue.message}" if issue.message else ""
            return Diagnosis(_one_line(f"{_WAITING_ISSUES[issue.reason]}{said}"))
    return _crashes(failed)


def _crashes(failed: list[Termination]) -> Diagnosis:
    if not failed:
        return Diagnosis()
    last = max(failed, key=lambda end: end.finished_at or 0)
    said = _one_line(f" ({last.reason}{': ' if last.reason and last.message else ''}{last.message})")
    how = f"exited with code {last.exit_code}{said if said != ' ()' else ''}"
    if len(failed) < CRASHES:
        return Diagnosis(f"the server {how} and was restarted", exit_code=last.exit_code, crashed=True)
    detail = f"the server crashed {len(failed)} times and last {how}"
    return Diagnosis(detail, fatal=True, exit_code=last.exit_code, crashed=True)


def from_events(events: Iterable[Event]) -> Diagnosis:
    """What the events of an endpoint (new family) say: the worst of them."""
    crashes = 0
    waiting = ""
    for event in events:
        text = f"{event.reason}: {event.message}" if event.message else event.reason
        if _IMAGE.search(text):
            return Diagnosis(f"the image cannot be pulled: {_one_line(text)}; check image and pull secret", fatal=True)
        if text.startswith(tuple(_FATAL_ISSUES)):
            return Diagnosis(_one_line(text), fatal=True)
        if event.reason in ("BackOff", "CrashLoopBackOff", "Crashed"):
            crashes += event.count or 1
        if text.startswith(("FailedScheduling", *_WAITING_ISSUES)):
            waiting = _one_line(text)
    if crashes:
        fatal = crashes >= CRASHES
        return Diagnosis(f"the server crashed {crashes} times", fatal=fatal, crashed=True)
    return Diagnosis(waiting)


def gated(log: Iterable[str]) -> str | None:
    """What to do, if a server's last lines say that its model is gated."""
    if any(_GATED.search(line) for line in log):
        return "the model is gated; accept its terms, and give a token that may read it as deployment.envs.HF_TOKEN"
    return None


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300] if not text.startswith(" ") else f" {' '.join(text.split())[:300]}"
