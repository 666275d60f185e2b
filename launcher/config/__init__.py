"""YAML files and command-line overrides to a typed, validated Config. Nothing here contacts anything."""

from __future__ import annotations

from launcher.config.compose import Request
from launcher.config.schema import Config
from launcher.errors import ConfigError

__all__ = ["Config", "Request", "load"]


def load(request: Request) -> Config:
    """Compose and validate a config.

    Raises:
        ConfigError: one line for each problem, with the file or `command line`, the key and the nearest valid name.
    """
    from launcher.config import references, validate
    from launcher.config.compose import compose_tree

    tree = references.settle(references.resolve(compose_tree(request)))
    try:
        return validate.validate(tree)
    except validate.Invalid as invalid:
        raise ConfigError([_located(request, problem) for problem in invalid.problems]) from None


def _located(request: Request, problem: object) -> str:
    from launcher.config import locate
    from launcher.config.validate import Problem

    assert isinstance(problem, Problem)
    place = locate.main_file(request) if problem.absent else locate.where(request, problem.key)
    return f"{place}{problem.key}: {problem.message}"
