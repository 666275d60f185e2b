"""Templates, and how values read on a page."""

from __future__ import annotations

import hashlib
import math
import time
from functools import lru_cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from launcher.orchestrator.reasons import MEANINGS, Reason
from launcher.text import plain_lines

NOTHING = "\N{EN DASH}"
"""Stands where there is no value."""
LONGEST_TEXT = 20_000
"""Characters of a prompt or an answer that a page shows."""


@lru_cache(maxsize=1)
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("launcher.view"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_clean,
    )
    made.filters |= {
        "dom": dom,
        "usd": usd,
        "number": number,
        "span": span,
        "moment": moment,
        "words": words,
        "advice": advice,
        "cut": cut,
    }
    return made


def render(template: str, **values: Any) -> str:
    """A page or a part of one."""
    return _environment().get_template(template).render(**values)


def _clean(value: Any) -> Any:
    """Text of others without what steers a terminal, reverses a line or is no character; markup of ours as it is."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return plain_lines(value)


def dom(*names: str) -> str:
    """An id for the page, of any name."""
    return "x" + hashlib.sha256("\0".join(names).encode(errors="replace")).hexdigest()[:16]


def usd(value: float | None) -> str:
    """Dollars; a dash where the cost is not known."""
    return NOTHING if value is None else f"{value:,.2f} USD"


def number(value: float | None) -> str:
    """A score; a dash where there is none."""
    return NOTHING if value is None or not math.isfinite(value) else f"{value:.4f}"


def span(seconds: float | None) -> str:
    """A duration."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60:02d} min" if hours else f"{rest // 60} min {rest % 60:02d} s"


def moment(seconds: float) -> str:
    """A time of day on this machine's clock."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def words(reason: str) -> str:
    """Why a task ended, as `nv-eval status` says it."""
    return "scored" if reason == "completed" else reason.replace("_", " ")


def advice(reason: str) -> str:
    """What to do about it."""
    try:
        return MEANINGS[Reason(reason)].advice
    except ValueError:
        return ""


def cut(text: str) -> str:
    """A long text, cut and said to be."""
    more = len(text) - LONGEST_TEXT
    return text if more <= 0 else f"{text[:LONGEST_TEXT]}\n… {more:,} more characters"
