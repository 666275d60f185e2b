"""Which nodes the emulated scheduler gives a pod, and when its CronJobs are due."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("cronsim", reason="pip install 'nv-eval-launcher[emulators]'")

from launcher.emulators.kubernetes.controllers import last_due
from launcher.emulators.kubernetes.placing import liked, unfit

TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
NOT_CHOSEN = "node(s) didn't match Pod's node affinity/selector"


def node(*taints: dict[str, str], **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": "n", "labels": labels}, "spec": {"taints": [*taints]}}


def pod(**spec: Any) -> dict[str, Any]:
    return {"spec": spec}


def needing(operator: str, *values: str) -> dict[str, Any]:
    term = {"matchExpressions": [{"key": "zone", "operator": operator, "values": [*values]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    return pod(affinity={"nodeAffinity": required})


@pytest.mark.parametrize(
    ("toleration", "fits"),
    [
        ({"operator": "Exists"}, True),
        ({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}, True),
        ({"key": "nvidia.com/gpu", "value": "present"}, True),
        ({"key": "nvidia.com/gpu", "value": "absent"}, False),
        ({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "other", "operator": "Exists"}, False),
    ],
)
def test_a_taint_keeps_away_who_does_not_tolerate_it(toleration: dict[str, str], fits: bool) -> None:
    why = unfit(pod(tolerations=[toleration]), node(TAINT))

    assert why == ("" if fits else "node(s) had untolerated taint {nvidia.com/gpu: present}")


def test_a_taint_that_only_advises_keeps_nobody_away() -> None:
    assert unfit(pod(), node({**TAINT, "effect": "PreferNoSchedule"})) == ""


@pytest.mark.parametrize(
    ("wish", "labels", "fits"),
    [
        (("In", "a", "b"), {"zone": "b"}, True),
        (("In", "a"), {"zone": "b"}, False),
        (("NotIn", "a"), {}, True),
        (("NotIn", "a"), {"zone": "a"}, False),
        (("Exists",), {"zone": "x"}, True),
        (("Exists",), {}, False),
        (("DoesNotExist",), {}, True),
        (("DoesNotExist",), {"zone": "x"}, False),
        (("Gt", "3"), {"zone": "4"}, True),
        (("Gt", "3"), {"zone": "3"}, False),
        (("Lt", "3"), {"zone": "2"}, True),
        (("Lt", "3"), {"zone": "many"}, False),
        (("Unheard",), {"zone": "x"}, False),
    ],
)
def test_required_affinity_chooses_nodes(wish: tuple[str, ...], labels: dict[str, str], fits: bool) -> None:
    assert unfit(needing(*wish), node(**labels)) == ("" if fits else NOT_CHOSEN)


def test_an_empty_term_is_met_by_no_node_and_a_selector_by_its_labels() -> None:
    nothing = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{}]}}

    assert unfit(pod(affinity={"nodeAffinity": nothing}), node()) == NOT_CHOSEN
    assert unfit(pod(nodeSelector={"zone": "a"}), node(zone="b")) == NOT_CHOSEN
    assert unfit(pod(nodeSelector={"zone": "a"}), node(zone="a")) == ""


def test_preferences_are_weighed() -> None:
    def wish(zone: str, weight: int) -> dict[str, Any]:
        term = {"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]}
        return {"weight": weight, "preference": term}

    preferred = {"preferredDuringSchedulingIgnoredDuringExecution": [wish("a", 10), wish("b", 30), wish("b", 5)]}
    wanting = pod(affinity={"nodeAffinity": preferred})

    assert [liked(wanting, node(zone=zone)) for zone in "abc"] == [10, 35, 0]


def test_a_cordoned_node_takes_nobody() -> None:
    assert unfit(pod(), {"metadata": {"name": "n"}, "spec": {"unschedulable": True}}) == "node(s) were unschedulable"


@pytest.mark.parametrize(
    ("schedule", "zone", "since", "now", "due"),
    [
        ("*/15 * * * *", None, 0.0, 899.0, None),
        ("*/15 * * * *", None, 0.0, 900.0, 900.0),
        ("*/15 * * * *", None, 0.0, 3000.0, 2700.0),
        ("0 2 * * *", "Asia/Tokyo", 0.0, 86_400.0, 61_200.0),
    ],
)
def test_the_last_time_that_is_due_counts(
    schedule: str, zone: str | None, since: float, now: float, due: float | None
) -> None:
    assert last_due(schedule, zone, since, now) == due
