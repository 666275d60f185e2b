"""Amounts of resources as Kubernetes writes them."""

from __future__ import annotations

from launcher.emulators.kubernetes.selectors import Json

_SUFFIXES = {
    **{"n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18},
    **{"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60},
}


def number(text: str | float) -> float:
    """An amount."""
    text = str(text)
    suffix = text.lstrip("+-.0123456789")
    if suffix not in _SUFFIXES:
        return float(text)  # without one, or with an exponent
    return float(text.removesuffix(suffix)) * _SUFFIXES[suffix]


def requested(pod: Json) -> dict[str, float]:
    """What the containers of a pod's spec request together."""
    found: dict[str, float] = {}
    for container in pod["spec"]["containers"]:
        resources = container.get("resources") or {}
        for name, amount in {**(resources.get("limits") or {}), **(resources.get("requests") or {})}.items():
            found[name] = found.get(name, 0.0) + number(amount)
    return found


def shown(amount: float) -> str:
    """An amount as messages have it."""
    return f"{amount:g}"
