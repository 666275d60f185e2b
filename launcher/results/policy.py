"""The policy of a gate: which scores must hold, and how surely."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import msgspec
import yaml

from launcher.config.describe import expected
from launcher.config.fields import Count
from launcher.config.files import line_of, shorten, steps
from launcher.config.validate import problems_in
from launcher.decoding import convert
from launcher.errors import ConfigError
from launcher.harnesses.spec import Score

Drop = Annotated[float, msgspec.Meta(ge=0)]
Level = Annotated[float, msgspec.Meta(gt=0, lt=0.5)]
LIMITS = ("max_drop", "margin", "min_value", "max_value")
"""Keys of a rule that a score can break."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a score must hold. A drop is a change for the worse, in the metric's own unit, whichever way that is."""

    max_drop: Drop | None = None
    """NO-GO if the score surely dropped by more; INCONCLUSIVE if it dropped by more, not surely; else GO."""
    margin: Drop | None = None
    """Non-inferiority: GO only if the score surely dropped by less; NO-GO if surely by more."""
    min_value: float | None = None
    """NO-GO if the candidate's score is below."""
    max_value: float | None = None
    """NO-GO if the candidate's score is above."""
    min_samples: Count | None = None
    """INCONCLUSIVE if fewer pairs of samples are behind `max_drop` or `margin`."""
    alpha: Level | None = None
    """Surely: outside an interval of 1 - alpha; the policy's where not set."""
    higher_is_better: bool | None = None
    """For metrics of which the harness does not say."""

    @property
    def checks(self) -> list[tuple[str, float]]:
        """Limits that are set, by name."""
        return [(name, value) for name in LIMITS if (value := getattr(self, name)) is not None]


@dataclass(frozen=True, kw_only=True)
class Rule(Limits):
    """Limits of the scores that fit all three patterns, such as `mmlu_*`. One without limits exempts them."""

    task: str = "*"
    metric: str = "*"
    filter: str = "*"

    def fits(self, names: set[str], score: Score) -> bool:
        """Whether it is about a score, whose task goes by any of `names`."""
        is_task = any(fnmatchcase(name, self.task) for name in names)
        return is_task and fnmatchcase(score.metric, self.metric) and fnmatchcase(score.filter, self.filter)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Rules in their order: the first that fits a score is the one for it; `default` where none fits.

    `require`: patterns of tasks that must have scores in the candidate.
    """

    alpha: Level = 0.05
    require: list[str] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    default: Limits | None = None

    def rule_for(self, names: set[str], score: Score) -> tuple[str, Limits]:
        """The limits of a score, and where in the policy they are; none where it says nothing of it."""
        for place, rule in enumerate(self.rules):
            if rule.fits(names, score):
                return f"rules[{place}]", rule
        return "default", self.default or Limits()


def load(path: Path) -> Policy:
    """Read a policy.

    Raises ConfigError for a file that cannot be read, with everything that is wrong in it, each with its line.
    """
    document = _document(path)
    if not isinstance(document, dict):
        raise ConfigError(f"{shorten(path)}: {expected(Policy, document)}")
    problems = problems_in(document, Policy)
    if problems:
        raise ConfigError([f"{_at(path, problem.key)}: {problem.message}" for problem in problems])
    policy = convert(document, Policy)
    if not (policy.require or policy.rules or policy.default):
        raise ConfigError(f"{shorten(path)}: asks for nothing; give it rules, default or require")
    return policy


def _document(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{shorten(path)}: cannot be read: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ConfigError(f"{shorten(path)}:{line}: not valid YAML: {error.problem or error.context}") from None
    except (UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{shorten(path)}: cannot be read: {str(error).splitlines()[0]}") from None


def _at(path: Path, key: str) -> str:
    line = line_of(path, steps(key))
    return f"{shorten(path)}{f':{line}' if line else ''}: {key}"
