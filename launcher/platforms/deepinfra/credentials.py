"""Where DeepInfra's key comes from: the environment, else the file that `deepctl` keeps."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from launcher.errors import PreflightError

KEY_VARIABLES = ("DEEPINFRA_API_KEY", "DEEPINFRA_TOKEN", "DEEPINFRA_API_TOKEN")
"""Variables that hold the key, the first that is set counts."""
BASE_URL = "https://api.deepinfra.com"
_HOW = "make one at https://deepinfra.com/dash/api_keys and set DEEPINFRA_API_KEY"


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """Access to one account. `source`: the variable or file that the key is from. `url`: base URL without a path."""

    key: str = field(repr=False)
    source: str
    url: str = BASE_URL

    def headers(self) -> dict[str, str]:
        """Headers of each request."""
        return {"Authorization": f"Bearer {self.key}"}


def find(environment: Mapping[str, str] | None = None) -> Credentials:
    """The credentials to use. Raises PreflightError if there are none."""
    env = os.environ if environment is None else environment
    url = _checked(env.get("DEEPINFRA_BASE_URL") or env.get("DEEPINFRA_HOST") or BASE_URL)
    for name in KEY_VARIABLES:
        if key := env.get(name, "").strip():
            return Credentials(key=key, source=name, url=url)
    file = Path(env.get("HOME") or Path.home()) / ".deepinfra/config.yaml"
    if key := _kept(file):
        return Credentials(key=key, source=str(file), url=url)
    raise PreflightError(f"DeepInfra: no API key; {_HOW}")


def _checked(url: str) -> str:
    url = url if "://" in url else f"https://{url}"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PreflightError("DeepInfra: DEEPINFRA_BASE_URL must begin with http:// or https:// and name a host")
    return url.rstrip("/")


def _kept(file: Path) -> str:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no YAML"
        raise PreflightError(f"{file}: cannot be read: {reason}; repair it, or set DEEPINFRA_API_KEY") from None
    found = content.get("access_token") if isinstance(content, dict) else None
    return found.strip() if isinstance(found, str) else ""
