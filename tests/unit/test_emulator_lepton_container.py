"""How specs become commands of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.emulators.lepton import Config, Image
from launcher.emulators.lepton.container import Asked, CannotStart, Command, Translator, with_folders, with_port
from launcher.emulators.lepton.wire import Container, EnvVar, Mount, Port, ValueFrom

FOLDERS = {"/results": Path("/real/r"), "/results/deep": Path("/real/d"), "/cache": Path("/real/c")}


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("/results", "/real/r"),
        ("/results/a.json", "/real/r/a.json"),
        ("/results/deep/a", "/real/d/a"),
        ("--dir=/cache", "--dir=/real/c"),
        ("cd '/results' && ls \"/cache/x\";", "cd '/real/r' && ls \"/real/c/x\";"),
        ('{"out": "/results"}', '{"out": "/real/r"}'),
        ("A=/results:/cache", "A=/real/r:/real/c"),
        ("/results2 /my/results results/x /results-old /results.txt",) * 2,
    ],
)
def test_mount_paths_become_folders(text: str, becomes: str) -> None:
    assert with_folders(text, FOLDERS) == becomes


@pytest.mark.parametrize(
    ("argv", "becomes"),
    [
        (["serve", "--port", "8000"], ["serve", "--port", "91"]),
        (["serve", "--http-port=8000"], ["serve", "--http-port=91"]),
        (["bash", "-c", "vllm serve m --port 8000"], ["bash", "-c", "vllm serve m --port 91"]),
        (["bash", "-c", "PORT=8000 run -p 8000"], ["bash", "-c", "PORT=91 run -p 91"]),
        (["serve", "http://0.0.0.0:8000/v1"], ["serve", "http://0.0.0.0:91/v1"]),
        (['{"port": 8000}'], ['{"port": 91}']),
        (["--max-len", "8000", "--port", "8000"], ["--max-len", "8000", "--port", "91"]),
        (["--port", "80001", "--port=8000.5", "--support", "x8000"],) * 2,
    ],
)
def test_the_port_is_moved_where_it_is_one(argv: list[str], becomes: list[str]) -> None:
    assert with_port(argv, {}, 8000, 91)[0] == tuple(becomes)


def test_the_port_is_moved_in_variables() -> None:
    env = {"NIM_HTTP_API_PORT": "8000", "MAX_LEN": "8000", "BASE": "http://localhost:8000/v1"}

    assert with_port([], env, 8000, 91)[1] == {
        "NIM_HTTP_API_PORT": "91",
        "MAX_LEN": "8000",
        "BASE": "http://localhost:91/v1",
    }


def translate(
    root: Path,
    *command: str,
    image: Image | None = None,
    envs: tuple[EnvVar, ...] = (),
    mounts: tuple[Mount, ...] = (),
    free: int = 91,
) -> Command:
    config = Config(images=(image,) if image else ())
    container = Container(image="vllm/vllm-openai:v1", command=list(command), ports=[Port(container_port=8000)])
    asked = Asked(container=container, envs=envs, mounts=mounts, pull_secrets=(), predefined={"LEPTON_JOB_NAME": "j"})
    return Translator(config, root, {"S": "secret-value"}, {}).command(asked, root / "home", free)


def test_without_a_hint_the_number_itself_is_the_port(tmp_path: Path) -> None:
    command = translate(tmp_path, "python", "-m", "http.server", "8000")

    assert (command.argv[-1], command.port) == ("91", 91)


def test_a_command_that_never_mentions_it_listens_on_the_container_port(tmp_path: Path) -> None:
    assert translate(tmp_path, "/opt/nim/start_server.sh").port == 8000


def test_the_image_table_puts_words_before_or_in_place_of_the_command(tmp_path: Path) -> None:
    before = Image(pattern="vllm/*", prefix=("nice", "-n", "5"), path=("/shims",), env={"ON": "{port}", "A": "table"})
    instead = Image(pattern="vllm/*", instead=("fake", "--port", "{port}"))

    found = translate(tmp_path, "vllm", "serve", image=before, envs=(EnvVar(name="A", value="spec"),))

    assert found.argv == ("nice", "-n", "5", "vllm", "serve")
    assert found.env["PATH"].startswith("/shims:")
    assert (found.env["ON"], found.env["A"], found.port) == ("91", "spec", 91)
    assert translate(tmp_path, "vllm", image=instead).argv == ("fake", "--port", "91")
    assert translate(tmp_path, "vllm", image=Image(pattern="other/*", prefix=("x",))).argv == ("vllm",)


def test_a_process_sees_its_envs_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "of-the-developer")
    envs = (EnvVar(name="A", value="1"), EnvVar(name="K", value_from=ValueFrom(secret_name_ref="S")))

    env = translate(tmp_path, "x", envs=envs).env

    assert (env["A"], env["K"], env["LEPTON_JOB_NAME"]) == ("1", "secret-value", "j")
    assert env["HOME"] == str(tmp_path / "home")
    assert "HF_TOKEN" not in env


def test_mounts_are_folders_below_the_volume(tmp_path: Path) -> None:
    mount = Mount(path="/a/b", source="node-nfs:shared", mount_path="/data/")
    env = EnvVar(name="HF_HOME", value="/data/hf")

    command = translate(tmp_path, "ls", "/data", mounts=(mount,), envs=(env,))

    folder = tmp_path / "volumes" / "node-nfs_shared" / "a" / "b"
    assert folder.is_dir()
    assert command.argv == ("ls", str(folder))
    assert command.env["HF_HOME"] == f"{folder}/hf"


def test_an_image_without_command_needs_an_entry_in_the_table(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="no command"):
        translate(tmp_path)
