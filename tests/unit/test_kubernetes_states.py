"""What pods say of themselves, in words: each diagnosis from the status that Kubernetes writes in that case.

kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle, /disruptions; tasks/debug/debug-application/debug-pods.
"""

from __future__ import annotations

from typing import Any

import pytest

from launcher.platforms.kubernetes import states
from launcher.platforms.kubernetes.states import Diagnosis

Json = dict[str, Any]


def pod(
    *,
    phase: str = "Pending",
    waiting: tuple[str, str] | None = None,
    ended: Json | None = None,
    last: Json | None = None,
    conditions: tuple[Json, ...] = (),
    name: str = "server",
    made: str = "2026-01-01T00:00:00Z",
    leaving: bool = False,
    **status: str,
) -> Json:
    state: Json = {"waiting": {"reason": waiting[0], "message": waiting[1]}} if waiting else {}
    state = {"terminated": ended} if ended else state or {"running": {}}
    container = {
        "name": name,
        "image": "acme/server:1",
        "state": state,
        "lastState": {"terminated": last} if last else {},
    }
    metadata: Json = {"name": "p", "creationTimestamp": made}
    if leaving:
        metadata["deletionTimestamp"] = made
    return {
        "metadata": metadata,
        "spec": {"nodeName": "node-7", "containers": [{"name": name}]},
        "status": {"phase": phase, "containerStatuses": [container], "conditions": list(conditions), **status},
    }


def ended(code: int, reason: str = "Error", message: str = "") -> Json:
    return {"exitCode": code, "reason": reason, "message": message}


def condition(type_: str, status: str, reason: str = "", message: str = "") -> Json:
    return {"type": type_, "status": status, "reason": reason, "message": message}


def test_a_pod_that_runs_or_is_being_made_has_nothing_to_say() -> None:
    assert states.of_pod(pod(phase="Running")) == Diagnosis()
    assert states.of_pod(pod(waiting=("ContainerCreating", ""))) == Diagnosis()
    assert states.of_pod(pod(phase="Succeeded", ended=ended(0, "Completed"))) == Diagnosis()


@pytest.mark.parametrize("reason", ["ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"])
def test_an_image_that_will_not_come_is_fatal_and_named(reason: str) -> None:
    found = states.of_pod(pod(waiting=(reason, "Back-off pulling\nimage")))

    assert found.fatal
    assert found.detail.startswith("the image acme/server:1 cannot be pulled: Back-off pulling image")


def test_the_first_failure_of_a_pull_may_pass() -> None:
    assert not states.of_pod(pod(waiting=("ErrImagePull", "rpc error"))).fatal


@pytest.mark.parametrize(
    ("message", "what"),
    [
        ('secret "hf" not found', "secret hf does not exist"),
        ("couldn't find key TOKEN in Secret team/hf", "key TOKEN of secret team/hf does not exist"),
    ],
)
def test_a_secret_that_is_missing_is_named(message: str, what: str) -> None:
    found = states.of_pod(pod(waiting=("CreateContainerConfigError", message)))

    assert found.fatal
    assert found.detail.startswith(what)


def test_other_troubles_of_making_a_container() -> None:
    config = states.of_pod(pod(waiting=("CreateContainerConfigError", "host path is no folder")))
    runtime = states.of_pod(pod(waiting=("RunContainerError", "no such device")))

    assert config.fatal and "host path is no folder" in config.detail
    assert not runtime.fatal, "a kubelet tries this again"


def test_a_crash_tells_its_code_also_while_the_kubelet_waits_to_start_it_again() -> None:
    found = states.of_pod(pod(waiting=("CrashLoopBackOff", "back-off 10s"), last=ended(3, message="bad\nflag")))

    assert (found.fatal, found.exit_code, found.crashed) == (True, 3, True)
    assert found.detail == "the server exited with code 3: bad flag"


@pytest.mark.parametrize(
    ("name", "key"), [("server", "execution.endpoint.memory_gib"), ("job", "execution.job.memory_gib")]
)
def test_out_of_memory_names_the_key_to_raise(name: str, key: str) -> None:
    found = states.of_pod(pod(ended=ended(137, "OOMKilled"), name=name))

    assert "OOMKilled" in found.detail and found.detail.endswith(f"raise {key}")
    assert found.exit_code == 137


def test_the_last_line_of_the_log_follows_a_crash() -> None:
    found = states.of_pod(pod(ended=ended(1)))

    assert states.with_last_line(found, ["first", "no such file", "  "]).detail.endswith(
        "; its last line: no such file"
    )
    assert states.with_last_line(found, []) == found


def test_an_evicted_pod_lost_its_place() -> None:
    found = states.of_pod(pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory."))

    assert (found.fatal, found.preempted) == (True, True)
    assert found.detail == "evicted: The node was low on resource: memory."


@pytest.mark.parametrize("reason", ["PreemptionByScheduler", "DeletionByTaintManager", "DeletionByPodGC"])
def test_a_pod_that_is_disrupted_is_lost_with_its_node(reason: str) -> None:
    found = states.of_pod(pod(phase="Running", conditions=(condition("DisruptionTarget", "True", reason, "why"),)))

    assert found.preempted
    assert found.detail == f"lost with node-7: {reason}: why"


def test_what_the_kubelet_ended_by_itself_is_no_disruption_of_its_own() -> None:
    disrupted = condition("DisruptionTarget", "True", "TerminationByKubelet")

    assert not states.of_pod(pod(phase="Failed", ended=ended(1), conditions=(disrupted,))).preempted


def test_what_no_node_has_is_named_once() -> None:
    message = (
        "0/3 nodes are available: 2 Insufficient nvidia.com/gpu, 1 Insufficient cpu, 1 Insufficient nvidia.com/gpu."
    )
    waiting = {**pod(), "status": {"conditions": [condition("PodScheduled", "False", "Unschedulable", message)]}}

    found = states.of_pod(waiting)

    assert not found.fatal
    assert found.detail.startswith("waits for a node with nvidia.com/gpu, cpu free (Unschedulable: 0/3 nodes")


def test_a_selector_that_no_node_matches_is_told_as_it_is() -> None:
    message = "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector."
    waiting = {**pod(), "status": {"conditions": [condition("PodScheduled", "False", "Unschedulable", message)]}}

    assert states.of_pod(waiting).detail.startswith("no node takes it (Unschedulable: 0/3")


@pytest.mark.parametrize(
    ("message", "words", "fatal"),
    [
        ('pods "x" is forbidden: exceeded quota: team, requested: pods=1', "the namespace's quota is used up", False),
        ('admission webhook "p" denied the request: no', "an admission rule of the cluster refuses its pod", True),
        ("something else", "its pod is refused: something else", False),
    ],
)
def test_why_a_controller_makes_no_pod(message: str, words: str, fatal: bool) -> None:
    found = states.refused_pods(message)

    assert found.detail.startswith(words)
    assert found.fatal is fatal


def test_the_pod_that_counts_is_the_youngest_that_stays() -> None:
    old, new = pod(made="2026-01-01T00:00:00Z"), pod(made="2026-01-02T00:00:00Z", leaving=True)

    assert states.newest([old, new]) is old
    assert states.newest([]) is None


def test_a_pod_on_its_way_out_is_not_ready() -> None:
    ready = (condition("Ready", "True"),)

    assert states.is_ready(pod(conditions=ready))
    assert not states.is_ready(pod(conditions=ready, leaving=True))
    assert not states.is_ready(pod(conditions=(condition("Ready", "False"),)))


def test_somebody_elses_words_fit_on_a_line() -> None:
    assert states.one_line("a\n b\t c") == "a b c"
    assert len(states.one_line("x" * 1000)) == states.LONGEST
