"""Servers and jobs get what they need of the launcher's environment, and none of its secrets."""

from __future__ import annotations

import pytest
import requests

from launcher.config.secret_names import is_secret_name
from launcher.config.values import environment
from launcher.errors import ConfigError
from launcher.platforms.local.environment import inherited

CANARY = "canary-8f3a1b"


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN",
        "HF_HUB_TOKEN",
        "OPENAI_API_KEY",
        "VLLM_API_KEY",
        "LLAMA_ARG_API_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "PIP_PASSWORD",
        "GITHUB_PAT",
        "NV_EVAL_API_KEY",
        "MY_OWN_SETTING",
        "DATABASE_URL",
    ],
)
def test_a_secret_or_unknown_variable_is_not_passed_on(name: str) -> None:
    assert CANARY not in inherited({name: CANARY}).values()


@pytest.mark.parametrize(
    "name",
    ["PATH", "HOME", "LC_ALL", "HF_HOME", "HF_HUB_OFFLINE", "NCCL_DEBUG", "TOKENIZERS_PARALLELISM", "SSL_CERT_FILE",
     "PIP_INDEX_URL", "VLLM_LOGGING_LEVEL", "https_proxy", "XDG_CACHE_HOME"],
)  # fmt: skip
def test_what_servers_and_jobs_need_is_passed_on(name: str) -> None:
    assert inherited({name: "value"})[name] == "value"


@pytest.mark.parametrize(
    "name", ["TOKENIZER", "MONKEY", "KEYBOARD", "AUTHOR", "PATH", "MAX_TOKEN_LENGTH", "SSH_AUTH_SOCK"]
)
def test_a_harmless_name_does_not_look_secret(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    "name", ["GITHUB_PAT", "BASIC_AUTH", "SSH_PASSPHRASE", "hf_token", "HF_TOKEN_2", "OPENAI_APIKEY", "NGC_API_KEY_EU"]
)
def test_a_secrets_name_is_refused_a_value_in_a_config_and_is_not_passed_on(name: str) -> None:
    with pytest.raises(ConfigError, match="give it by reference"):
        environment("envs", {name: "x"})
    assert name not in inherited({name: "x", "PIP_" + name: "x"})
    assert "PIP_" + name not in inherited({"PIP_" + name: "x"})


def test_loopback_never_goes_through_a_proxy() -> None:
    passed = inherited({"HTTP_PROXY": "http://proxy:3128", "no_proxy": "intranet"})
    assert passed["no_proxy"] == "intranet,127.0.0.1,localhost"
    assert passed["NO_PROXY"] == "127.0.0.1,localhost"


def test_requests_finds_no_password_in_the_persons_netrc(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / ".netrc").write_text(f"machine 127.0.0.1 login me password {CANARY}\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)
    assert requests.utils.get_netrc_auth("http://127.0.0.1:8000/v1") == ("me", CANARY)
    monkeypatch.setenv("NETRC", inherited({})["NETRC"])
    assert requests.utils.get_netrc_auth("http://127.0.0.1:8000/v1") is None
