"""Which cluster a config names, and what is said where it names none."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("kubernetes", reason="pip install 'nv-eval-launcher[kubernetes]'")

from launcher.config.execution import Kubernetes
from launcher.errors import PreflightError
from launcher.platforms.kubernetes.client import access


def test_a_kubeconfig_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match=r"execution\.kubeconfig: there is no file .*/nowhere$"):
        access(Kubernetes(kubeconfig=str(tmp_path / "nowhere")))
