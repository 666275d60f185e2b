"""What a process of a rehearsal sees of the machine: the person's caches and way to the network.

Nothing is downloaded twice.
"""

from __future__ import annotations

import os
from pathlib import Path

SHOWN = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "PYTHONPATH")
"""Variables of the emulator's own environment that its processes see; they see no other."""
NETWORK = (
    *("HTTPS_PROXY", "https_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CERT", "PIP_CONFIG_FILE"),
)
"""How packages and data sets are reached from this machine. Without HTTP_PROXY: http is for loopback here."""


def caches() -> dict[str, str]:
    """Variables that name the caches."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    own = {name: os.environ[name] for name in ("NV_EVAL_HOME",) if name in os.environ}
    return {"XDG_CACHE_HOME": base, "HF_HOME": os.environ.get("HF_HOME") or f"{base}/huggingface", **own}
