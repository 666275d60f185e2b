"""Rules for values that deployments and harnesses share: environments, argument lists, numbers as text."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence

from launcher.config.fields import Arguments, Env, EnvValue, Reference
from launcher.config.secret_names import is_secret_name
from launcher.errors import ConfigError

_SECRET_FLAG = re.compile(
    r"--?(?:[a-z0-9]+[-_])*(?:api[-_]?key|(?:hf|auth|access)[-_]token|password|secret)|-hft", re.IGNORECASE
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def text(value: str | float) -> str:
    """A value as a program expects it in an argument or variable: 10.0 is 10, True is true."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return str(int(value))
    return str(value)


def environment(key: str, values: Mapping[str, EnvValue] | None) -> Env:
    """Environment variables as a plan holds them. `key` is the config key, for messages.

    Raises ConfigError for a name no shell could set, and for a secret given by value.
    """
    return {name: _variable(f"{key}.{name}", name, value) for name, value in (values or {}).items()}


def _variable(key: str, name: str, value: EnvValue) -> str | Reference:
    if not _VARIABLE.fullmatch(name):
        raise ConfigError(f"{key}: {name!r} is no name of an environment variable")
    if isinstance(value, Reference):
        return value
    if value != "" and is_secret_name(name):
        raise ConfigError(f"{key}: give it by reference: ${{oc.env:{name}}}")
    return text(value)


def arguments(key: str, value: Arguments | None) -> list[str]:
    """An argument list, split as a POSIX shell would if it is one string. `key` is the config key, for messages.

    Raises ConfigError for an open quote, and for an argument that would show a secret in the process list.
    """
    words = _words(key, value or [])
    for word in words:
        flag = word.partition("=")[0]
        if _SECRET_FLAG.fullmatch(flag):
            raise ConfigError(
                f"{key}: {flag} would show a secret in the process list; "
                "name its variable in target.api_endpoint.api_key_name, or use envs with ${oc.env:NAME}"
            )
    return words


def _words(key: str, value: str | Sequence[str]) -> list[str]:
    if not isinstance(value, str):
        return list(value)
    try:
        return shlex.split(value)
    except ValueError as error:
        raise ConfigError(f"{key}: cannot be split as a shell would: {str(error).lower()}") from None
