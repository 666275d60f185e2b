"""The section `sweep` of a composed config, before its points are known: the rest may lack what only they give."""

from __future__ import annotations

from omegaconf import DictConfig

from launcher.config import Request
from launcher.config.compose import Composition, compose
from launcher.config.locate import Locator
from launcher.config.problems import Invalid
from launcher.config.references import resolve
from launcher.config.sweep import Sweep
from launcher.config.validate import sweep_section
from launcher.errors import ConfigError


def section(request: Request) -> Sweep:
    """The typed section of the config that a request composes. Raises ConfigError if it is wrong."""
    found = compose(request).tree.get("sweep")
    if found is None:
        return Sweep()
    try:
        return sweep_section(resolve(found))
    except Invalid as invalid:
        locator = Locator(request)
        raise ConfigError([locator.line(problem) for problem in invalid.problems]) from None


def has_points(composition: Composition) -> bool:
    """Whether a composed config has a section that by itself makes a sweep, be it right or wrong."""
    found = composition.tree.get("sweep")
    return isinstance(found, DictConfig) and bool(found.get("grids") or found.get("points"))
