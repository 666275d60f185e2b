"""Which names of variables say that the value is a secret; one rule for all rooms."""

from __future__ import annotations

import re

_SECRET_NAME = re.compile(
    r"(^|_)(TOKENS?|SECRETS?|PASSWORDS?|PASSWD|PASSPHRASE|CREDENTIALS?|AUTH|API_?KEY|KEYS?|PAT)(_?\d+)?$"
    r"|(^|_)(SECRET|API_?KEY|PASSWORD|PASSWD|PASSPHRASE)_",
    re.IGNORECASE,
)
"""Any of these words at the end of a name, numbered or not, or one of the strong ones anywhere."""


def is_secret_name(name: str) -> bool:
    """Whether a variable's name says that its value is a secret, as HF_TOKEN or NGC_API_KEY does."""
    return _SECRET_NAME.search(name) is not None
