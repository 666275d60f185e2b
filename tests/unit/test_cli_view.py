"""`nv-eval view`: what it refuses, before it serves anything."""

from __future__ import annotations

import socket

import pytest

from launcher.cli import view_command
from tests.unit.conftest import Desk


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.com"])
def test_it_serves_this_machine_only(desk: Desk, host: str) -> None:
    code, out, err = desk.nv_eval("view", "--no-open", "--host", host)

    assert (code, out) == (2, "") and err.startswith(f"nv-eval: --host {host}: is no loopback address; give 127.0.0.1")


def test_a_port_that_is_taken_is_named(desk: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, err = desk.nv_eval("view", "--no-open", "--port", str(port))

    assert (code, out) == (2, "")
    assert err == f"nv-eval: --port {port}: cannot listen on 127.0.0.1: Address already in use; leave --port out\n"


@pytest.mark.parametrize("port", ["65536", "-1", "x", ""])
def test_a_port_is_a_number(desk: Desk, port: str) -> None:
    assert desk.nv_eval("view", f"--port={port}")[0] == 2


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_command, "find_spec", lambda name: None if name == "django_htmx" else object())
    code, _, err = desk.nv_eval("view")

    assert code == 3 and "pip install 'nv-eval-launcher[view]'" in err and "django-htmx" in err
