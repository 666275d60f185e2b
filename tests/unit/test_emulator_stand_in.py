"""The small model in the place of model servers, and which images become it."""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
from pathlib import Path

import pytest

from launcher.config.deployment import Llamacpp, Nim, Server, Sglang, Trtllm, Vllm
from launcher.deployments import build_server
from launcher.deployments.spec import ServerSpec
from launcher.emulators import stand_in
from launcher.emulators.lepton import Config, Image
from launcher.emulators.lepton.container import Asked, Command, Translator
from launcher.emulators.lepton.images import NETWORK, rehearsal
from launcher.emulators.lepton.wire import Container, Port

MODEL = "meta-llama/Llama-3.1-8B-Instruct"
DEPLOYMENTS: list[Server] = [
    Vllm(model_id=MODEL, max_model_len=4096),
    Sglang(model_id=MODEL, max_model_len=4096),
    Trtllm(model_id=MODEL, max_model_len=4096),
    Llamacpp(model_id=MODEL, context_length=4096),
    Nim(model_id=MODEL, image="nvcr.io/nim/meta/llama-3.1-8b-instruct:latest", max_model_len=4096),
]


def told(options: list[str], option: str) -> str | None:
    return options[options.index(option) + 1] if option in options else None


def served(server: ServerSpec) -> list[str]:
    env = {name: value for name, value in server.env.items() if isinstance(value, str)}
    assert stand_in.is_server(server.command)
    return stand_in.options("8123", server.command, env)


@pytest.mark.parametrize("config", DEPLOYMENTS, ids=lambda config: config.type)
def test_every_server_keeps_its_models_name_its_port_and_its_context(config: Server) -> None:
    options = served(build_server(config, "a/name"))  # type: ignore[arg-type]

    assert told(options, "--served-name") == "a/name"
    assert told(options, "--port") == "8123"
    assert int(told(options, "--context") or 0) >= 4096


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("vllm serve org/model --port 8000", "org/model"),
        ("vllm serve org/model --served-model-name=short", "short"),
        ("python3 -m vllm.entrypoints.openai.api_server --model org/model", "org/model"),
        ("python3 -m sglang.launch_server --model-path org/model", "org/model"),
        ("trtllm-serve org/model", "model"),
        ("/opt/bin/llama-server -hf org/model -c 512", "org/model"),
        ("--model org/model", "org/model"),
        ("", None),
    ],
)
@pytest.mark.parametrize("in_shell", [False, True])
def test_without_a_name_of_its_own_a_server_answers_to_its_model(
    command: str, name: str | None, in_shell: bool
) -> None:
    words = ["/bin/bash", "-c", f"# starts\nexec {command}"] if in_shell and command else shlex.split(command)

    assert told(stand_in.options("1", stand_in.words_of(words), {}), "--served-name") == name


def test_a_context_beyond_the_small_model_is_cut() -> None:
    assert told(stand_in.options("1", ["vllm", "--max-model-len", "131072"], {}), "--context") == "8192"


@pytest.mark.parametrize("command", [["python3", "train.py"], ["bash", "-c", "pip list"]])
def test_other_commands_are_no_servers(command: list[str]) -> None:
    assert not stand_in.is_server(stand_in.words_of(command))


def translate(root: Path, config: Config, image: str, *command: str) -> Command:
    container = Container(image=image, command=list(command) or None, ports=[Port(container_port=8000)])
    asked = Asked(container=container, envs=(), mounts=(), pull_secrets=(), predefined={})
    return Translator(config, root, {}, {}).command(asked, root / "home", 91)


@pytest.mark.parametrize("config", DEPLOYMENTS, ids=lambda config: config.type)
def test_the_images_of_all_servers_become_the_small_model(tmp_path: Path, config: Server) -> None:
    server = build_server(config, "a/name")  # type: ignore[arg-type]

    argv = translate(tmp_path, rehearsal(Config()), server.image or "", *server.command).argv

    assert argv[:4] == (sys.executable, "-m", "launcher.emulators.stand_in", "91")


def test_any_other_image_runs_here_and_installs_into_its_own_home(tmp_path: Path) -> None:
    command = translate(tmp_path, rehearsal(Config()), "python:3.11-slim", "python3", "x.py")

    assert command.argv == ("python3", "x.py")
    assert command.env["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert command.env["PIP_TARGET"] == f"{tmp_path}/home/packages"
    assert command.env["PYTHONPATH"].split(os.pathsep)[0] == f"{tmp_path}/home/packages"


def test_a_table_of_ones_own_comes_first(tmp_path: Path) -> None:
    own = Config(images=(Image(pattern="vllm/*", instead=("mine",)),))

    found = rehearsal(own)

    assert translate(tmp_path, found, "vllm/vllm-openai:v1", "vllm", "serve", "m").argv == ("mine",)
    assert dataclasses.replace(found, images=own.images, inherit=own.inherit) == own


def test_http_to_this_machine_goes_through_no_proxy() -> None:
    assert not {name.upper() for name in NETWORK} & {"HTTP_PROXY", "ALL_PROXY"}
