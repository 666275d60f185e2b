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
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException
from omegaconf.resolvers import oc

from launcher.errors import ConfigError

_MARK = re.compile("\ue000([^\ue001]*)\ue001")
_SECRET_NAME = re.compile(r"(^|_)(TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
_NO_DEFAULT = "\ue002"


def is_secret_name(name: str) -> bool:
    """Whether a variable's name says that its value is a secret, as HF_TOKEN or NGC_API_KEY does."""
    return _SECRET_NAME.search(name) is not None


def _mark(name: str, default: str | None = _NO_DEFAULT) -> str | None:
    if name not in os.environ and default != _NO_DEFAULT:
        return default
    return f"\ue000{name}\ue001"


def _decode(text: str | None) -> Any:
    if text is None or not _MARK.search(text):
        return oc.decode(text, _parent_=OmegaConf.create())  # type: ignore[arg-type]
    decoded = oc.decode(_substitute(text), _parent_=OmegaConf.create())  # type: ignore[arg-type]
    return text if isinstance(decoded, str) else decoded


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
    """The tree as plain dictionaries and lists, with marks where values come from the environment."""
    with marked_environment():
        try:
            return OmegaConf.to_container(tree, resolve=True, throw_on_missing=False)
        except InterpolationResolutionError as error:
            raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0]}") from None
        except OmegaConfBaseException as error:
            raise ConfigError(str(error).splitlines()[0]) from None


def settle(tree: Any, key: str = "") -> Any:
    """Replace marks: references below `envs`, values elsewhere. Raises ConfigError with the key."""
    if isinstance(tree, dict):
        return {name: settle(value, f"{key}.{name}" if key else str(name)) for name, value in tree.items()}
    if isinstance(tree, list):
        return [settle(value, f"{key}[{i}]") for i, value in enumerate(tree)]
    if not isinstance(tree, str) or not _MARK.search(tree):
        return tree
    whole = _MARK.fullmatch(tree)
    if ".envs." in f".{key}":
        if whole is None:
            raise ConfigError(f"{key}: text around ${{oc.env:…}} is not possible here; reference the whole value")
        return {"env": whole.group(1)}
    for name in _MARK.findall(tree):
        if is_secret_name(name):
            raise ConfigError(
                f"{key}: ${{oc.env:{name}}} looks like a secret and this key is written to disk; "
                "give secrets by deployment.envs, evaluation.envs or target.api_endpoint.api_key_name"
            )
        if name not in os.environ:
            raise ConfigError(f"{key}: environment variable {name} is not set")
    return _substitute(tree)


def _substitute(text: str) -> str:
    return _MARK.sub(lambda match: os.environ.get(match.group(1), ""), text)
