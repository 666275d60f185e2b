"""`nv-eval emulate kubernetes`: what it needs."""

from __future__ import annotations

import sys

import pytest

from launcher.cli.main import main


def test_what_forwards_ports_is_asked_for_before_it_serves(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wsproto", None)

    assert main(["emulate", "kubernetes"]) == 3

    assert "pip install 'nv-eval-launcher[emulators]'" in capsys.readouterr().err
