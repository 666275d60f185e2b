"""Where Lepton's credentials come from, and the file that `lep login` and `nv-eval login lepton` write.

The order, for each item: argument, environment variable, record in the credentials file; the URL is made from the
workspace id where nothing gives it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from launcher.errors import PreflightError

GATEWAY = "https://gateway.dgxc-lepton.nvidia.com/api/v2/workspaces"
_HOW = "log in with: nv-eval login lepton, or set LEPTON_WORKSPACE_ID and LEPTON_WORKSPACE_TOKEN"


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """Access to one workspace. `expires_at` in seconds since 1970, where it is known."""

    workspace: str
    token: str = field(repr=False)
    url: str
    """Base URL of the workspace's API."""
    origin: str | None = None
    """Value of the `origin` header; where it is None the header is not sent."""
    display_name: str | None = None
    expires_at: float | None = None

    def headers(self) -> dict[str, str]:
        """Headers of each request."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return headers | ({"origin": self.origin} if self.origin else {})


def find(
    environment: Mapping[str, str] | None = None,
    *,
    workspace: str | None = None,
    token: str | None = None,
    url: str | None = None,
    origin: str | None = None,
) -> Credentials:
    """The credentials to use; `workspace` may be `id:token`.

    Raises PreflightError if there are none, or if the file cannot be read.
    """
    env = os.environ if environment is None else environment
    workspace, token = split(workspace, token)
    chosen = workspace or env.get("LEPTON_WORKSPACE_ID")
    record = _record(env, chosen)
    chosen = chosen or record.get("id")
    token = token or env.get("LEPTON_WORKSPACE_TOKEN") or record.get("auth_token")
    if not chosen or not token:
        missing = "workspace" if not chosen else f"token for workspace {chosen}"
        raise PreflightError(f"Lepton: no {missing}; {_HOW}")
    url = url or env.get("LEPTON_WORKSPACE_URL") or record.get("url") or f"{GATEWAY}/{chosen}"
    origin = origin or env.get("LEPTON_WORKSPACE_ORIGIN_URL") or record.get("workspace_origin_url")
    expires = record.get("token_expires_at") if record.get("auth_token") == token else None
    return Credentials(
        workspace=chosen,
        token=token,
        url=_checked(url),
        origin=origin or _derived_origin(url),
        display_name=record.get("display_name"),
        expires_at=expires / 1000 if isinstance(expires, int | float) else None,
    )


def split(workspace: str | None, token: str | None = None) -> tuple[str | None, str | None]:
    """A workspace id and a token, where the first may hold both as `id:token`."""
    if workspace and ":" in workspace:
        workspace, _, inner = workspace.partition(":")
        token = token or inner or None
    return workspace or None, token


def _checked(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PreflightError("Lepton: the workspace's URL must begin with http:// or https:// and name a host")
    return url.rstrip("/")


def _derived_origin(url: str) -> str | None:
    """DGX Cloud's gateway wants to be told where the request comes from: scheme and host of the URL."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" if "dgxc" in url else None


def path(environment: Mapping[str, str] | None = None) -> Path:
    """The credentials file."""
    env = os.environ if environment is None else environment
    folder = env.get("LEPTON_CACHE_DIR")
    return (Path(folder) if folder else Path(env.get("HOME") or Path.home()) / ".cache/lepton") / "workspace_info.yaml"


def save(credentials: Credentials, environment: Mapping[str, str] | None = None) -> Path:
    """Make these the current workspace of the credentials file, readable for its owner only; returns the file.

    Other workspaces in it are kept. Raises PreflightError if the file cannot be read or written.
    """
    file = path(environment)
    content = _read(file)
    content["current_workspace"] = credentials.workspace
    content["workspaces"] = {**_workspaces(content), credentials.workspace: _as_record(credentials)}
    try:
        _write(file, yaml.safe_dump(content, sort_keys=False))
    except OSError as error:
        raise PreflightError(f"{file}: cannot be written: {error.strerror}; set LEPTON_CACHE_DIR") from None
    return file


def _as_record(credentials: Credentials) -> dict[str, Any]:
    return {
        "id": credentials.workspace,
        "url": credentials.url,
        "display_name": credentials.display_name,
        "auth_token": credentials.token,
        "workspace_origin_url": credentials.origin,
        "token_expires_at": int(credentials.expires_at * 1000) if credentials.expires_at else None,
    }


def _write(file: Path, text: str) -> None:
    """Replace the file at once: it is never half written, and nobody else can read it at any moment."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")  # mkstemp: mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(temporary).replace(file)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise


def _record(environment: Mapping[str, str], workspace: str | None) -> dict[str, Any]:
    """The record of a workspace, or of the current one; empty if there is none."""
    content = _read(path(environment))
    record = _workspaces(content).get(workspace or content.get("current_workspace"))
    return record if isinstance(record, dict) else {}


def _workspaces(content: dict[str, Any]) -> dict[Any, Any]:
    found = content.get("workspaces")
    return found if isinstance(found, dict) else {}


def _read(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no YAML"
        raise PreflightError(f"{file}: cannot be read: {reason}; repair or remove it, then log in again") from None
    return content if isinstance(content, dict) else {}
