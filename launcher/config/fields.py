"""The building blocks of the typed config: annotated number types with units, references, documented keys."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from msgspec import Meta

Seconds: TypeAlias = Annotated[float, Meta(gt=0, extra={"unit": "s"})]
Mebibytes: TypeAlias = Annotated[int, Meta(gt=0, extra={"unit": "MiB"})]
Gibibytes: TypeAlias = Annotated[float, Meta(gt=0, extra={"unit": "GiB"})]
UsdPerHour: TypeAlias = Annotated[float, Meta(ge=0, extra={"unit": "USD per GPU-hour"})]
Usd: TypeAlias = Annotated[float, Meta(gt=0, extra={"unit": "USD"})]
GpuHours: TypeAlias = Annotated[float, Meta(gt=0, extra={"unit": "h"})]
Count: TypeAlias = Annotated[int, Meta(ge=1)]
NonNegative: TypeAlias = Annotated[int, Meta(ge=0)]
Port: TypeAlias = Annotated[int, Meta(ge=1, le=65535)]
Fraction: TypeAlias = Annotated[float, Meta(gt=0, le=1)]
Probability: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
Positive: TypeAlias = Annotated[float, Meta(gt=0)]
Temperature: TypeAlias = Annotated[float, Meta(ge=0)]
Penalty: TypeAlias = Annotated[float, Meta(ge=-2, le=2)]
"""The range of OpenAI's presence and frequency penalties."""
TopK: TypeAlias = Annotated[int, Meta(ge=-1)]
"""vLLM and SGLang take -1 for all tokens."""

Name: TypeAlias = Annotated[str, Meta(min_length=1)]


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A value that is looked up at the last moment and never written down.

    `env` names a variable of the launcher's own environment (`${oc.env:NAME}` in YAML becomes this);
    `secret` names an entry in the platform's secret store. Exactly one of the two is set.
    """

    env: str | None = None
    secret: str | None = None

    def __post_init__(self) -> None:
        if (self.env is None) == (self.secret is None):
            raise ValueError("a reference has exactly one of env and secret")

    def __str__(self) -> str:
        return f"${{oc.env:{self.env}}}" if self.env else f"secret:{self.secret}"


EnvValue: TypeAlias = str | int | float | Reference
"""A value of an environment variable as YAML may give it; numbers become their text."""

Env: TypeAlias = dict[str, str | Reference]
"""Environment variables after planning: text, or a reference."""

Arguments: TypeAlias = str | list[str]
"""Extra arguments: a list, or one string that is split as a POSIX shell would."""


def key(default: Any = dataclasses.MISSING, doc: str = "", *, factory: Callable[[], Any] | None = None) -> Any:
    """A documented config key; without default or factory the key is required."""
    metadata = {"doc": doc}
    if factory is not None:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)
