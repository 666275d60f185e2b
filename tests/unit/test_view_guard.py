"""Who may see the pages of `nv-eval view`, and what every answer carries."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from launcher.errors import ConfigError
from launcher.view.app import ROUTES
from launcher.view.server import loopback
from tests.unit.viewing import TOKEN, client, enter

ADDRESSES = [route.path.format(id="x", key="y", name="view.css") for route in ROUTES]


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[TestClient]:
    with client(tmp_path / "journal.db") as made:
        yield made


@pytest.mark.parametrize("address", [*ADDRESSES, "/nothing", "/?token=", "/?token=a-toke", "/?token=%FF"])
def test_nothing_is_answered_without_the_token(stranger: TestClient, address: str) -> None:
    answer = stranger.get(address)

    assert (answer.status_code, answer.headers.get("set-cookie")) == (401, None)
    assert "nv-eval view has printed" in answer.text


def test_the_token_becomes_a_cookie_and_leaves_the_address(stranger: TestClient) -> None:
    answer = stranger.get("/scores", params={"task": 'a&b"<', "token": TOKEN})

    assert answer.headers["refresh"] == "0; url=/scores?task=a%26b%22%3C" and TOKEN not in answer.text
    cookie = answer.headers["set-cookie"]
    assert cookie == f"nv-eval-view={TOKEN}; HttpOnly; Path=/; SameSite=strict"
    assert stranger.get("/scores").status_code == 200
    stranger.cookies.clear()
    stranger.cookies.set("nv-eval-view", "another")
    assert stranger.get("/scores").status_code == 401


@pytest.mark.parametrize("path", ["//evil.example/x", "/\\evil.example"])
def test_no_address_leads_to_another_site(stranger: TestClient, path: str) -> None:
    answer = stranger.get(f"http://testserver{path}?token={TOKEN}")

    assert answer.headers["refresh"].startswith("0; url=/") and answer.headers["refresh"][8:10] not in ("//", "/\\")


def test_the_token_is_compared_in_constant_time(stranger: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    compared, compare = [], hmac.compare_digest

    def watched(first: bytes, second: bytes) -> bool:
        compared.append((first, second))
        return compare(first, second)

    monkeypatch.setattr(hmac, "compare_digest", watched)
    stranger.get("/?token=guess")

    assert (b"guess", TOKEN.encode()) in compared


@pytest.mark.parametrize("host", ["evil.example", "testserver:81", "testserver.evil.example", "", "TESTSERVER@evil"])
def test_another_name_for_this_machine_is_refused(stranger: TestClient, host: str) -> None:
    enter(stranger)

    assert stranger.get("/", headers={"Host": host}).status_code == 400
    assert stranger.get("/", headers={"Host": "TestServer"}).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_nothing_but_reading_is_allowed(stranger: TestClient, method: str) -> None:
    enter(stranger)
    answer = stranger.request(method, "/")

    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    assert stranger.head("/").status_code == 200


@pytest.mark.parametrize("address", ["/", "/nothing", "/static/htmx.js", "/runs/x"])
def test_every_answer_forbids_what_a_page_does_not_need(stranger: TestClient, address: str) -> None:
    for answer in (stranger.get(address), enter(stranger).get(address)):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.0.2", "example.com", "fe80::1%lo", "", "127.0.0.1.evil.example"]
)
def test_only_loopback_is_served(host: str) -> None:
    with pytest.raises(ConfigError, match="is no loopback address"):
        loopback(host)


@pytest.mark.parametrize(
    ("host", "address"), [("localhost", "127.0.0.1"), ("127.0.0.2", "127.0.0.2"), ("[::1]", "::1")]
)
def test_names_of_loopback_are_served(host: str, address: str) -> None:
    assert loopback(host) == address
