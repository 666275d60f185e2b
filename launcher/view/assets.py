"""Files beside the pages: our own, and htmx from the package that carries it."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

from launcher.errors import NotFound

_OURS, _HTMX = ("launcher.view", "static"), ("django_htmx", "static/django_htmx")
ASSETS = {
    "view.css": (*_OURS, "view.css", "text/css"),
    "view.js": (*_OURS, "view.js", "text/javascript"),
    "icon.svg": (*_OURS, "icon.svg", "image/svg+xml"),
    "htmx.js": (*_HTMX, "htmx-2.min.js", "text/javascript"),
    "htmx-sse.js": (*_HTMX, "ext/hx-sse-2.min.js", "text/javascript"),
}
"""By the name in the address: package, folder in it, file, media type. django_htmx carries htmx; no Django runs."""


def asset(request: Request) -> Response:
    """`/static/NAME`."""
    name = request.path_params["name"]
    if name not in ASSETS:
        raise NotFound("There is no such file.")
    return Response(_content(name), media_type=ASSETS[name][3])


@lru_cache(maxsize=len(ASSETS))
def _content(name: str) -> bytes:
    package, folder, file, _ = ASSETS[name]
    return files(package).joinpath(folder, file).read_bytes()
