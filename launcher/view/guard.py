"""What every request has to pass, and what every answer carries."""

from __future__ import annotations

import hmac
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
_ENTER = """<!doctype html><html lang="en"><head><title>nv-eval</title><link rel="icon" href="/static/icon.svg"></head>
<body><p>Opening <a href="{}">nv-eval</a> …</p></body></html>"""
_ANOTHER_NAME = "Ask by a name of this machine's loopback and this port; a tunnel needs the same port on both sides.\n"


class Guard:
    """Lets through who reads, knows the token, and asked for this machine by its own name.

    The token comes once in the address, which then becomes a cookie; another page's name for this machine (DNS
    rebinding) shows in the Host header.
    """

    def __init__(self, app: ASGIApp, *, token: str, hosts: frozenset[str], cookie: str) -> None:
        self._app, self._token, self._hosts, self._cookie = app, token.encode(), hosts, cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let the application answer."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if [host.lower() for host in headers.getlist("host")] not in [[host] for host in self._hosts]:
            return PlainTextResponse(_ANOTHER_NAME, 400)
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("This page only shows.\n", 405, {"Allow": "GET, HEAD"})
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = next((value for name, value in query if name == "token"), None)
        if given is not None and self._fits(given):
            return self._enter(scope, [(name, value) for name, value in query if name != "token"])
        if not self._fits(HTTPConnection(scope).cookies.get(self._cookie, "")):
            return PlainTextResponse("Open the address that nv-eval view has printed; it holds a token.\n", 401)
        return None

    def _fits(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(errors="replace"), self._token)

    def _enter(self, scope: Scope, query: list[tuple[str, str]]) -> Response:
        """Keep the token and take it out of the address.

        Not by a redirect: of one that another site has led to, a browser would withhold the cookie.
        """
        path = "/" + scope["raw_path"].decode("latin-1").partition("?")[0].lstrip("/\\")
        address = path + (f"?{urlencode(query)}" if query else "")
        safe = address.replace("&", "&amp;").replace('"', "%22").replace("<", "%3C").replace(">", "%3E")
        response = HTMLResponse(_ENTER.format(safe), headers={"Refresh": f"0; url={address}"})
        response.set_cookie(self._cookie, self._token.decode(), httponly=True, samesite="strict", path="/")
        return response
