"""YAML files and command-line overrides to a typed, validated Config. Nothing here contacts anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from launcher.config.problems import Invalid, Problem
from launcher.config.schema import Config
from launcher.errors import ConfigError

if TYPE_CHECKING:
    from launcher.config.compose import Composition, Request

__all__ = ["Config", "Request", "load", "located"]


def __getattr__(name: str) -> Any:
    """`Request` lies beside Hydra, which those who only want the schema must not pay for."""
    if name == "Request":
        from launcher.config.compose import Request

        return Request
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load(request: Request) -> Config:
    """Compose and validate a config.

    Raises:
        ConfigError: one line for each problem, with the file or `command line`, the key and the nearest valid name.
    """
    from launcher.config.compose import compose

    return typed(compose(request), request)


def typed(composition: Composition, request: Request) -> Config:
    """The validated config of what was composed from `request`. Raises ConfigError as `load` does."""
    from launcher.config import references, validate

    try:
        tree = references.settle(references.resolve(composition.tree))
        _refuse_clash(composition, tree)
        return validate.validate(tree)
    except Invalid as invalid:
        from launcher.config.locate import Locator

        locator = Locator(request)
        raise ConfigError([locator.line(problem) for problem in _at_their_source(composition, invalid)]) from None


def _at_their_source(composition: Composition, invalid: Invalid) -> list[Problem]:
    """The problems without those of keys that only repeat, by an interpolation, the value of another bad key."""
    from launcher.config.references import is_interpolation

    repeated = [problem for problem in invalid.problems if is_interpolation(composition.tree, problem.key)]
    source = {problem.message for problem in invalid.problems if problem not in repeated}
    return [problem for problem in invalid.problems if problem not in repeated or problem.message not in source]


@contextmanager
def located(request: Request) -> Iterator[None]:
    """Within, a ConfigError about a config loaded from `request` says where its keys were set."""
    try:
        yield
    except ConfigError as error:
        from launcher.config.locate import Locator

        locator = Locator(request)
        raise ConfigError([locator.in_words(line) for line in error.problems]) from None


def _refuse_clash(composition: Composition, tree: Any) -> None:
    """Refuse a `type` that is not the one of the packaged option that was chosen: one of them would go unheard."""
    from launcher.config.deployment import DEPLOYMENTS
    from launcher.config.execution import EXECUTIONS

    for section, types in (("execution", EXECUTIONS), ("deployment", DEPLOYMENTS)):
        option, values = composition.choices.get(section), tree.get(section)
        chosen = values.get("type") if isinstance(values, dict) else None
        if option in types and chosen in list(types) and chosen != option:
            raise Invalid(
                [
                    Problem(
                        f"{section}.type",
                        f"{chosen} contradicts {section}={option}, which is chosen; "
                        f"remove this key, or choose {section}={chosen}",
                    )
                ]
            )
