"""What DeepInfra says of deployments and of requests it refuses, in the launcher's words."""

from __future__ import annotations

import re
from collections.abc import Callable

from launcher.errors import PlatformError
from launcher.platforms.base import ResourceState
from launcher.platforms.deepinfra.types import Deployment, Status
from launcher.platforms.http import RequestFailed

_BOOTING = {
    Status.INITIALIZING: "initializing: resources are being found",
    Status.DOWNLOADING: "downloading the weights",
    Status.DEPLOYING: "deploying: its server is starting",
}
EXPIRED = "its expiry has passed: `nv-eval gc` of any machine may delete it"
_STOPPED = "somebody stopped it; delete it, or start it in the dashboard"
KEY_REFUSED = "the key is not valid (any more); make one at https://deepinfra.com/dash/api_keys"
LONGEST = 300
"""Characters of what the service says that are shown."""

_TOKEN = "set deployment.hf_token_name to the variable that holds a Hugging Face token"  # noqa: S105 - advice
_ADVICE = {
    r"gated|restricted|access to (the )?(model|repo)|authorized list": (
        f"accept the model's terms on Hugging Face, and {_TOKEN} that may read it"
    ),
    r"(repo\w*|model|revision)\b.{0,200}\b(not found|do(es)?(n't| not) exist)|no such (repo|model|revision)": (
        f"check deployment.model_id and deployment.revision; if the model is private, {_TOKEN} that may read it"
    ),
    r"\bgpus?\b.{0,80}\b(limit|quota)|\b(limit|quota)\b.{0,80}\bgpus?\b": (
        "give some back (nv-eval gc), set limits.max_gpus, or ask for more in DeepInfra's dashboard"
    ),
    r"hugging ?face.{0,80}token|invalid (user )?token|token.{0,40}(invalid|refused)": f"{_TOKEN} that is valid",
    r"out of memory": "choose a larger deployment.gpu, or more of them: deployment.num_gpus",
}
"""What to do, by what the service says; the first that fits."""


def state_of(found: Deployment) -> ResourceState:
    """Its state. That it is up is not enough: an instance has to run."""
    if found.state is Status.DELETED:
        return ResourceState.GONE
    if found.stands_still:
        return ResourceState.FAILED
    if not found.status:
        return ResourceState.UNKNOWN
    return ResourceState.RUNNING if found.serves else ResourceState.PENDING


def why(found: Deployment, redact: Callable[[str], str] = str) -> str:
    """Why it does not serve, in one line; empty if it does. `redact` sees what the service says before it is cut."""
    if found.serves:
        return ""
    if found.state is Status.FAILED:
        return _advised(f"failed: {redact(found.fail_reason) or 'DeepInfra gives no reason'}")
    if found.state is Status.STOPPED:
        return _STOPPED
    return _waiting(found) if found.is_up else _BOOTING.get(found.state, redact(_called(found)))


def _called(found: Deployment) -> str:
    return f"DeepInfra calls it {found.status}" if found.status else "DeepInfra does not say what its state is"


def _waiting(found: Deployment) -> str:
    """Why one that is up has no instance: those that are asked for may wait for GPUs as long as it takes."""
    wanted = found.instances.pending if found.instances is not None else 0
    return f"waiting for a GPU: {wanted} x {found.gpu_config} asked for" if wanted else "running, without an instance"


def explained(error: RequestFailed, name: str) -> PlatformError:
    """Why a deployment was not created, in one line that says what to do next."""
    said = one_line(error.message)
    if error.maybe_done:
        return PlatformError(f"{error}; it may exist: nv-eval gc shows and removes it")
    if error.status in (401, 403):
        return PlatformError(f"DeepInfra: {KEY_REFUSED} ({said})")
    if error.status == 402:
        text = f"no payment method or balance: {said}; add one at https://deepinfra.com/dash/billing"
        return PlatformError(f"DeepInfra: {text}")
    if error.status == 409:
        return PlatformError(f"DeepInfra: {name} was not created: {_advised(said)} (409); run again later")
    if error.status is not None and error.status < 500:
        return PlatformError(f"DeepInfra: {name} was not created: {_advised(said)} ({error.status})")
    return PlatformError(str(error))


def _advised(said: str) -> str:
    said = one_line(said)
    advice = next((advice for pattern, advice in _ADVICE.items() if re.search(pattern, said, re.IGNORECASE)), "")
    return f"{said}; {advice}" if advice else said


def one_line(text: str) -> str:
    """Somebody else's words on one line, cut where they are long."""
    return " ".join(text.split())[:LONGEST]
