"""Prebuilt templates: lists, one, and what one renders to."""

from __future__ import annotations

import re
from collections.abc import Mapping

from starlette.responses import Response

from launcher.emulators.lepton.api.call import Call, Routes, answer
from launcher.emulators.lepton.config import Template
from launcher.emulators.lepton.errors import ApiError, Code, not_found
from launcher.emulators.lepton.wire import Json

_PLACEHOLDER = re.compile(r"\$\{run(?:\.(\w+))?\}")


def routes() -> Routes:
    """All routes of templates."""
    return [
        ("GET", "/templates/{visibility}", listing),
        ("GET", "/templates/{visibility}/{id}", one),
        ("POST", "/templates/{visibility}/{id}/render", render),
    ]


async def listing(call: Call) -> Response:
    """Everybody's templates, or the workspace's."""
    return answer([_show(template) for template in _visible(call)])


async def one(call: Call) -> Response:
    """One template by id."""
    return answer(_show(_find(call)))


async def render(call: Call) -> Response:
    """What is to be created; nothing is."""
    template, given = _find(call), call.document().get("run")
    return answer({"metadata": {"name": template.id}, "spec": _filled(template.spec, given)})


def _visible(call: Call) -> list[Template]:
    whose = call.path("visibility")
    if whose not in ("public", "private"):
        raise not_found("route", call.request.url.path)
    return [template for template in call.workspace.config.templates if template.visibility == whose]


def _find(call: Call) -> Template:
    found = next((template for template in _visible(call) if template.id == call.path("id")), None)
    if found is None:
        raise not_found("template", call.path("id"))
    return found


def _show(template: Template) -> Json:
    return {
        "metadata": {"id": template.id, "name": template.id, "visibility": template.visibility},
        "spec": {"workload_type": template.workload_type, "content": template.spec},
        "status": {"state": "Ready"},
    }


def _filled(part: object, given: object) -> object:
    """A part of a spec with its placeholders filled in. Raises ApiError 400 for one that is not given."""
    if isinstance(part, str):
        return _PLACEHOLDER.sub(lambda match: _value(match[1], given), part)
    if isinstance(part, Mapping):
        return {key: _filled(value, given) for key, value in part.items()}
    if isinstance(part, list | tuple):
        return [_filled(item, given) for item in part]
    return part


def _value(name: str | None, given: object) -> str:
    value = given if name is None else given.get(name) if isinstance(given, Mapping) else None
    if value is None:
        wanted = "run" if name is None else f"run.{name}"
        raise ApiError(400, Code.VALIDATION, f"parameter {wanted} is required")
    return str(value)
