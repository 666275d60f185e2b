"""What the state of pods says, in words: why they wait, why they ended, and whether waiting helps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

Json = dict[str, Any]
LONGEST = 300
_SHORT = re.compile(r"Insufficient ([\w./-]*\w)")
_SECRET = re.compile(r'secret "([^"]+)" not found|find key (\S+) in Secret (\S+)')
_NO_IMAGE = ("ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
_BROKEN = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")


@dataclass(frozen=True)
class Diagnosis:
    """Why something is not ready, in one line. `fatal`: waiting will not help."""

    detail: str = ""
    fatal: bool = False
    exit_code: int | None = None
    crashed: bool = False
    """Its container ended by itself: the log may say why."""
    preempted: bool = False


def condition(thing: Json, type_: str) -> Json | None:
    """A condition of its status that is true."""
    found = (thing.get("status") or {}).get("conditions") or []
    return next((c for c in found if c["type"] == type_ and c["status"] == "True"), None)


def is_leaving(thing: Json) -> bool:
    """Whether its deletion has begun."""
    return bool(thing["metadata"].get("deletionTimestamp"))


def is_ready(pod: Json) -> bool:
    """Whether it answers its readiness probe."""
    return condition(pod, "Ready") is not None and not is_leaving(pod)


def newest(pods: Iterable[Json]) -> Json | None:
    """The one that counts: that is not on its way out, and youngest."""
    return max(pods, key=lambda p: (not is_leaving(p), p["metadata"]["creationTimestamp"]), default=None)


def of_pod(pod: Json) -> Diagnosis:
    """What one pod says."""
    status = pod.get("status") or {}
    lost = _lost(pod, status)
    if lost is not None:
        return lost
    for container in status.get("containerStatuses") or []:
        found = _of_container(container, str(pod["spec"]["containers"][0].get("name", "")))
        if found.detail:
            return found
    scheduled = next((c for c in status.get("conditions") or [] if c["type"] == "PodScheduled"), None)
    if scheduled is not None and scheduled["status"] == "False":
        return _unschedulable(str(scheduled.get("message", "")))
    return Diagnosis()


def _lost(pod: Json, status: Json) -> Diagnosis | None:
    """A pod whose place was taken from it."""
    if status.get("reason") == "Evicted":
        return Diagnosis(f"evicted: {one_line(status.get('message', ''))}", fatal=True, preempted=True)
    disrupted = condition(pod, "DisruptionTarget")
    if disrupted is None or disrupted.get("reason") == "TerminationByKubelet":
        return None
    node = pod["spec"].get("nodeName", "its node")
    said = one_line(f"{disrupted.get('reason', '')}: {disrupted.get('message', '')}")
    return Diagnosis(f"lost with {node}: {said}", fatal=True, preempted=True)


def _of_container(container: Json, name: str) -> Diagnosis:
    waiting = container["state"].get("waiting") or {}
    reason, message = waiting.get("reason", ""), one_line(waiting.get("message", ""))
    if reason in _NO_IMAGE:
        image = container.get("image", "")
        return Diagnosis(f"the image {image} cannot be pulled: {message}; check image and pull secret", fatal=True)
    if reason == "ErrImagePull":
        return Diagnosis(f"the image cannot be pulled yet: {message}")
    if reason in _BROKEN:
        return _broken(reason, message)
    ended = container["state"].get("terminated") or (container.get("lastState") or {}).get("terminated")
    return Diagnosis() if ended is None or ended["exitCode"] == 0 else _crash(ended, name)


def _broken(reason: str, message: str) -> Diagnosis:
    secret = _SECRET.search(message)
    if secret is not None:
        what = f"secret {secret[1]}" if secret[1] else f"key {secret[2]} of secret {secret[3]}"
        return Diagnosis(
            f"{what} does not exist in the namespace ({reason}); make it, or correct the reference", fatal=True
        )
    return Diagnosis(
        f"the container cannot be made ({reason}): {message}", fatal=reason == "CreateContainerConfigError"
    )


def _crash(ended: Json, name: str) -> Diagnosis:
    code, what = ended["exitCode"], "the server" if name == "server" else "the job"
    if ended.get("reason") == "OOMKilled":
        more = f"raise execution.{'endpoint' if name == 'server' else 'job'}.memory_gib"
        return Diagnosis(f"{what} ran out of memory (OOMKilled), exited with code {code}; {more}", True, code, True)
    said = one_line(str(ended.get("message", "")))
    return Diagnosis(f"{what} exited with code {code}{f': {said}' if said else ''}", True, code, True)


def _unschedulable(message: str) -> Diagnosis:
    short = list(dict.fromkeys(_SHORT.findall(message)))
    if short:
        return Diagnosis(f"waits for a node with {', '.join(short)} free (Unschedulable: {one_line(message)})")
    tolerations = "; its tolerations are too few" if "untolerated taint" in message else ""
    return Diagnosis(f"no node takes it (Unschedulable: {one_line(message)}){tolerations}")


def refused_pods(message: str) -> Diagnosis:
    """What keeps a controller from making pods."""
    text = one_line(message)
    if "exceeded quota" in text:
        return Diagnosis(f"the namespace's quota is used up: {text}")
    if "denied the request" in text:
        return Diagnosis(f"an admission rule of the cluster refuses its pod: {text}", fatal=True)
    return Diagnosis(f"its pod is refused: {text}")


def with_last_line(found: Diagnosis, log: Sequence[str]) -> Diagnosis:
    """A diagnosis with what the log says last."""
    last = next((line for line in reversed(log) if line.strip()), "")
    return replace(found, detail=f"{found.detail}; its last line: {one_line(last)}") if last else found


def one_line(text: str) -> str:
    """Somebody else's words on one line, cut where they are long."""
    return " ".join(text.split())[:LONGEST]
