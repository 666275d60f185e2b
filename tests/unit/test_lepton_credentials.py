"""Where Lepton's credentials come from, and the file that logging in writes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from launcher.errors import PreflightError
from launcher.platforms.lepton import credentials
from launcher.platforms.lepton.credentials import Credentials, find, save

RECORD = """\
current_workspace: ws1
workspaces:
  ws1:
    id: ws1
    url: https://one.example/api/v2/workspaces/ws1
    display_name: One
    auth_token: nvapi-one
    workspace_origin_url: null
    token_expires_at: 1795277612216
  ws2: {id: ws2, url: https://two.example, auth_token: nvapi-two, workspace_origin_url: https://origin.example}
"""


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "workspace_info.yaml").write_text(RECORD)
    return {"LEPTON_CACHE_DIR": str(tmp_path)}


def test_the_current_record_is_used(env: dict[str, str]) -> None:
    found = find(env)

    assert (found.workspace, found.token, found.url) == (
        "ws1",
        "nvapi-one",
        "https://one.example/api/v2/workspaces/ws1",
    )
    assert (found.display_name, found.expires_at) == ("One", 1795277612.216)


def test_variables_win_over_the_file_and_arguments_over_variables(env: dict[str, str]) -> None:
    env |= {
        "LEPTON_WORKSPACE_ID": "ws2",
        "LEPTON_WORKSPACE_TOKEN": "nvapi-env",
        "LEPTON_WORKSPACE_URL": "https://env.example/",
        "LEPTON_WORKSPACE_ORIGIN_URL": "https://env-origin.example",
    }

    from_env = find(env)
    from_arguments = find(env, workspace="ws3:nvapi-arg", url="https://arg.example", origin="https://o.example")

    assert (from_env.workspace, from_env.token, from_env.url, from_env.origin) == (
        "ws2",
        "nvapi-env",
        "https://env.example",
        "https://env-origin.example",
    )
    assert from_env.expires_at is None
    assert (from_arguments.workspace, from_arguments.token, from_arguments.url, from_arguments.origin) == (
        "ws3",
        "nvapi-arg",
        "https://arg.example",
        "https://o.example",
    )


def test_a_record_of_another_workspace_gives_no_token(env: dict[str, str]) -> None:
    assert find(env, workspace="ws2").token == "nvapi-two"
    with pytest.raises(PreflightError, match="no token for workspace ws9; log in with: nv-eval login lepton"):
        find(env, workspace="ws9")


def test_the_url_follows_from_the_workspace_and_the_origin_from_the_url() -> None:
    found = find({"HOME": "/nowhere"}, workspace="ws1", token="nvapi-x")

    assert found.url == "https://gateway.dgxc-lepton.nvidia.com/api/v2/workspaces/ws1"
    assert found.headers() == {
        "Authorization": "Bearer nvapi-x",
        "origin": "https://gateway.dgxc-lepton.nvidia.com",
    }


def test_without_anything_the_error_says_how_to_log_in(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="Lepton: no workspace; log in with: nv-eval login lepton, or set"):
        find({"HOME": str(tmp_path)})


@pytest.mark.parametrize("content", ["{", "\x00"])
def test_a_broken_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "workspace_info.yaml").write_text(content)

    with pytest.raises(PreflightError, match=r"workspace_info\.yaml: cannot be read: it is no YAML"):
        find({"LEPTON_CACHE_DIR": str(tmp_path)})


def test_a_url_that_is_none_is_refused() -> None:
    with pytest.raises(PreflightError, match="must begin with http"):
        find({"HOME": "/nowhere"}, workspace="ws1", token="nvapi-x", url="gateway")


def test_saving_keeps_other_workspaces_and_lets_nobody_else_read(env: dict[str, str], tmp_path: Path) -> None:
    made = Credentials(
        workspace="ws3", token="nvapi-three", url="http://127.0.0.1:1/ws3", display_name="Three", expires_at=12.5
    )

    path = save(made, env)

    content = yaml.safe_load(path.read_text())
    assert path == tmp_path / "workspace_info.yaml"
    assert path.stat().st_mode & 0o777 == 0o600
    assert content["current_workspace"] == "ws3"
    assert set(content["workspaces"]) == {"ws1", "ws2", "ws3"}
    assert content["workspaces"]["ws3"] == {
        "id": "ws3",
        "url": "http://127.0.0.1:1/ws3",
        "display_name": "Three",
        "auth_token": "nvapi-three",
        "workspace_origin_url": None,
        "token_expires_at": 12500,
    }
    assert find(env) == made
    assert [left.name for left in tmp_path.iterdir()] == ["workspace_info.yaml"]


def test_the_file_lies_where_lep_has_it(tmp_path: Path) -> None:
    assert credentials.path({"HOME": str(tmp_path)}) == tmp_path / ".cache/lepton/workspace_info.yaml"


def test_a_token_is_not_shown_by_accident() -> None:
    assert "nvapi-x" not in repr(Credentials(workspace="ws1", token="nvapi-x", url="http://x"))
