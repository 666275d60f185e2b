"""Which nodes may take a pod: selectors, node affinity, taints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from launcher.emulators.kubernetes.selectors import matches

Json = dict[str, Any]
_NOT_CHOSEN = "node(s) didn't match Pod's node affinity/selector"


def unfit(pod: Json, node: Json) -> str:
    """Why a node is not for a pod, in the words of a scheduler; empty if it is."""
    spec, labels = pod["spec"], node["metadata"].get("labels") or {}
    if (node.get("spec") or {}).get("unschedulable"):
        return "node(s) were unschedulable"
    if spec.get("nodeSelector") and not matches(spec["nodeSelector"], labels):
        return _NOT_CHOSEN
    terms = (_affinity(pod).get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms")
    if terms is not None and not any(_fits(term, labels) for term in terms):
        return _NOT_CHOSEN
    for taint in (node.get("spec") or {}).get("taints") or ():
        if taint["effect"] != "PreferNoSchedule" and not any(_tolerates(t, taint) for t in spec.get("tolerations", ())):
            return f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"
    return ""


def liked(pod: Json, node: Json) -> int:
    """How much a pod prefers a node: the weights of the preferences that it meets."""
    labels = node["metadata"].get("labels") or {}
    wishes = _affinity(pod).get("preferredDuringSchedulingIgnoredDuringExecution") or ()
    return sum(int(wish["weight"]) for wish in wishes if _fits(wish["preference"], labels))


def _affinity(pod: Json) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    return found


def _fits(term: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether labels meet all of a term; an empty one is met by none."""
    wishes: Sequence[Mapping[str, Any]] = term.get("matchExpressions") or ()
    return bool(wishes) and all(_meets(wish, labels) for wish in wishes)


def _meets(wish: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    name, values = wish["key"], wish.get("values") or []
    match wish["operator"]:
        case "In":
            return labels.get(name) in values
        case "NotIn":
            return labels.get(name) not in values
        case "Exists":
            return name in labels
        case "DoesNotExist":
            return name not in labels
        case "Gt" | "Lt" as operator:
            found, bound = labels.get(name, ""), values[0]
            is_number = found.lstrip("-").isdecimal()
            return is_number and (int(found) > int(bound) if operator == "Gt" else int(found) < int(bound))
    return False


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    return bool(toleration.get("key") == taint["key"] and toleration.get("value", "") == taint.get("value", ""))
