"""Values from the environment stay references from the YAML to the moment of use.

While a config is resolved, `${oc.env:NAME}` yields a mark that travels through further interpolations. In a key that
may hold a secret (an environment value) the mark becomes a Reference. In any other key it is replaced by its value,
because the key is shown and written down; there a secret-looking name is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    InterpolationKeyError,
    InterpolationResolutionError,
    OmegaConfBaseException,
    UnsupportedInterpolationType,
)
from omegaconf.resolvers import oc

from launcher.config.problems import Invalid, Problem
from launcher.config.secret_names import is_secret_name

_MARK = re.compile("\ue000([^\ue001]*)\ue001")
_DECODE = "\ue003"
"""In front of a text with marks that `oc.decode` was asked to decode."""
_NO_DEFAULT = "\ue002"


def _mark(name: Any, default: Any = _NO_DEFAULT) -> Any:
    if str(name) not in os.environ and default != _NO_DEFAULT:
        return default
    return f"\ue000{name}\ue001"


def _decode(text: str | None) -> Any:
    if isinstance(text, str) and _MARK.search(text):
        return f"{_DECODE}{text}"
    return _decoded(text)


def _decoded(text: str | None) -> Any:
    parent = OmegaConf.create({"text": ""})
    arguments = (text, parent, parent._get_node("text"))
    known = signature(oc.decode).parameters  # OmegaConf 2.3.1 asks for the node, 2.3.0 does not
    value = oc.decode(*arguments[: len(known)])  # type: ignore[arg-type]
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


@contextmanager
def marked_environment() -> Iterator[None]:
    """Within, `${oc.env:…}` yields marks instead of values."""
    OmegaConf.register_new_resolver("oc.env", _mark, replace=True)
    OmegaConf.register_new_resolver("oc.decode", _decode, replace=True)
    try:
        yield
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)
        OmegaConf.register_new_resolver("oc.decode", oc.decode, replace=True)


def resolve(tree: DictConfig) -> Any:
    """The tree as plain dictionaries and lists, with marks where values come from the environment.

    Raises Invalid for an interpolation that leads nowhere.
    """
    with marked_environment():
        try:
            return OmegaConf.to_container(tree, resolve=True, throw_on_missing=False)
        except OmegaConfBaseException as error:
            raise Invalid([Problem(_key(error), _unresolved(error))]) from None
        except RecursionError:
            raise Invalid([Problem("", "interpolations refer to each other in a circle")]) from None


def is_interpolation(tree: DictConfig, key: str) -> bool:
    """Whether the value of a dotted key refers to another one."""
    parent, _, name = re.sub(r"\[(\d+)\]", r".\1", key).rpartition(".")
    try:
        node = OmegaConf.select(tree, parent)
        return OmegaConf.is_config(node) and OmegaConf.is_interpolation(node, int(name) if name.isdecimal() else name)
    except OmegaConfBaseException:
        return False


def _key(error: OmegaConfBaseException) -> str:
    return str(error.full_key or "")


def _unresolved(error: OmegaConfBaseException) -> str:
    text = _readable(str(error).splitlines()[0])
    missing = re.search(r"Interpolation key '([^']*)' not found", text)
    if isinstance(error, InterpolationKeyError) and missing:
        return f"refers to {missing.group(1)}, which does not exist"
    if "Recursive interpolation" in text:
        return "refers to itself, directly or in a circle"
    unsupported = re.search(r"Unsupported interpolation type (\S+)", text)
    if isinstance(error, UnsupportedInterpolationType) and unsupported:
        kind = unsupported.group(1)
        return f"${{{kind}:…}} is not known; for an environment variable write ${{oc.env:NAME}}"
    if isinstance(error, InterpolationResolutionError):
        return f"cannot be resolved: {text.partition(' raised while resolving interpolation: ')[2] or text}"
    return text


def _readable(text: str) -> str:
    """A text with marks as it was written."""
    return _MARK.sub(r"${oc.env:\1}", text.replace(_DECODE, ""))


def settle(tree: Any) -> Any:
    """Replace marks: references below `envs`, values elsewhere. Raises Invalid with every key that cannot be."""
    problems: list[Problem] = []
    settled = _settle(tree, "", problems)
    if problems:
        raise Invalid(problems)
    return settled


def _settle(tree: Any, key: str, problems: list[Problem]) -> Any:
    if isinstance(tree, dict):
        return {name: _settle(value, f"{key}.{name}" if key else str(name), problems) for name, value in tree.items()}
    if isinstance(tree, list):
        return [_settle(value, f"{key}[{i}]", problems) for i, value in enumerate(tree)]
    if not isinstance(tree, str) or not _MARK.search(tree):
        return tree
    refusal = _refusal(tree, key)
    if refusal is not None:
        problems.append(Problem(key, refusal))
        return None
    whole = _MARK.fullmatch(tree.removeprefix(_DECODE))
    return {"env": whole.group(1)} if whole and _may_be_secret(key) else _value(tree, key, problems)


def _may_be_secret(key: str) -> bool:
    return ".envs." in f".{key}"


def _refusal(text: str, key: str) -> str | None:
    """Why the marks of `text` cannot be replaced in `key`; None if they can."""
    if _may_be_secret(key):
        whole = _MARK.fullmatch(text.removeprefix(_DECODE))
        return None if whole else "text around ${oc.env:…} is not possible here; reference the whole value"
    for name in _MARK.findall(text):
        if is_secret_name(name):
            return (
                f"${{oc.env:{name}}} looks like a secret and this key is written to disk; "
                "give secrets by deployment.envs, evaluation.envs or target.api_endpoint.api_key_name"
            )
        if name not in os.environ:
            return f"environment variable {name} is not set"
    return None


def _value(text: str, key: str, problems: list[Problem]) -> Any:
    plain = _MARK.sub(lambda match: os.environ[match.group(1)], text.removeprefix(_DECODE))
    if not text.startswith(_DECODE):
        return plain
    try:
        return _decoded(plain)
    except OmegaConfBaseException:
        problems.append(Problem(key, f"{_readable(text)} cannot be decoded to a value"))
        return None
