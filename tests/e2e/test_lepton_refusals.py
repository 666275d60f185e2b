"""What cannot run is told before anything is created, through the real command; and no secret is ever written."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import yaml

from launcher.cli.main import main
from launcher.emulators.lepton import Config, LeptonEmulator
from launcher.emulators.lepton.config import NodeGroup, Token
from tests.e2e.cli import Home
from tests.e2e.lepton import TOKEN
from tests.e2e.scenario import BENCHMARK, benchmark, serve

pytestmark = pytest.mark.e2e
EXPIRED, EXPIRING, BRIEF = "nvapi-expired-token-01", "nvapi-expiring-token-1", "nvapi-brief-token-00001"
OTHER_GROUP = NodeGroup(id="cpu-pool-00000001", name="cpu-pool", shapes=("cpu.small",), volumes=())


def config() -> Config:
    """The workspace; its tokens live from now on."""
    return Config(
        tokens=(
            Token(),
            Token(value=EXPIRED, expires_at=time.time() - 60),
            Token(value=EXPIRING, expires_at=time.time() + 300),
            Token(value=BRIEF, expires_at=time.time() + 3600),
        ),
        foreign_tokens=("nvapi-foreign-token-01",),
        node_groups=(NodeGroup(), OTHER_GROUP),
        quota_accelerators=2,
        secrets={"my-hf": "hf_canary_of_the_workspace"},
        image_pull_secrets=("ngc",),
    )


@dataclass(frozen=True)
class Refusal:
    """Overrides that cannot run, the exit code, and what each line of the message begins with."""

    overrides: tuple[str, ...]
    lines: tuple[str, ...]
    code: int = 3
    token: str = TOKEN


def refusal(*overrides: str, says: str, code: int = 3, token: str = TOKEN) -> Refusal:
    return Refusal(overrides, (says,), code, token)


def env(name: str, value: str) -> str:
    return f"+deployment.envs.{name}={value}"


REFUSALS = {
    "a wrong token": refusal(token="nvapi-wrong-token-0001", says="Lepton: the token is not valid (any more) for work"),
    "an expired token": refusal(token=EXPIRED, says="Lepton: the token is not valid (any more) for workspace ws1"),
    "a token about to expire": refusal(token=EXPIRING, says="Lepton: the token expires in "),
    "a token of another workspace": refusal(
        token="nvapi-foreign-token-01", says="Lepton: the token may not use workspace ws1"
    ),
    "an unknown node group": refusal(
        "execution.node_group=h100-pol",
        says="Lepton: execution.node_group: no node group h100-pol; did you mean h100-pool?",
    ),
    "no node group": refusal("execution.node_group=null", says="Lepton: execution.node_group is not set; the workspa"),
    "an unknown shape": refusal(
        "execution.resource_shape=gpu.9xh100",
        says="Lepton: execution.resource_shape: the node group has no shape gpu.9xh100; it offers: cpu.small",
    ),
    "a shape that this group does not offer": refusal(
        *("execution.node_group=cpu-pool", "execution.storage.volume=null"),
        says="Lepton: execution.resource_shape: the node group has no shape gpu.1xh100; it offers: cpu.small",
    ),
    "a shape without a GPU": refusal(
        *("execution.resource_shape=cpu.small", "+deployment.gpus=1"),
        says="Lepton: execution.resource_shape: cpu.small has no GPU, and deployment container needs 1; shapes with "
        "enough: gpu.1xh100, gpu.8xh100",
    ),
    "a shape with too few GPUs": refusal(
        "+deployment.gpus=2",
        says="Lepton: execution.resource_shape: gpu.1xh100 has 1 GPU, and deployment container needs 2; shapes with "
        "enough: gpu.8xh100",
    ),
    "neither a node group nor a shape": Refusal(
        ("execution.node_group=null", "execution.resource_shape=null"),
        (
            "Lepton: execution.node_group is not set; the workspace has: cpu-pool, h100-pool",
            "Lepton: execution.resource_shape is not set; cpu-pool offers: cpu.small; h100-pool offers: cpu.small, gpu",
        ),
    ),
    "an unknown node group and no shape": Refusal(
        ("execution.node_group=h100-pol", "execution.resource_shape=null"),
        (
            "Lepton: execution.node_group: no node group h100-pol; did you mean h100-pool?",
            "Lepton: execution.resource_shape is not set; cpu-pool offers: cpu.small; h100-pool offers: cpu.small, gpu",
        ),
    ),
    "no node group and a shape with too few GPUs": Refusal(
        ("execution.node_group=null", "+deployment.gpus=2"),
        (
            "Lepton: execution.node_group is not set; the workspace has: ",
            "Lepton: execution.resource_shape: gpu.1xh100 has 1 GPU, and deployment container needs 2; shapes with",
        ),
    ),
    "a missing secret": refusal(
        env("HF_TOKEN", "{secret: my-hg}"), says="Lepton: the workspace has no secret my-hg; did you mean my-hf?"
    ),
    "a missing pull secret": refusal(
        "execution.image_pull_secrets=[ngx]", says="Lepton: the workspace has no image pull secret ngx; did you mean"
    ),
    "a variable that is not set": refusal(
        env("HF_TOKEN", "${oc.env:NOT_SET_ANYWHERE}"), says="Lepton: variable NOT_SET_ANYWHERE is not set; export"
    ),
    "a quota too small for all endpoints together": refusal(
        "evaluation.tasks=[a,b,c]", says="Lepton: 3 x gpu.1xh100 need 3 GPUs and 2 are left; set limits.max_parallel"
    ),
    "a volume that is not on that group": refusal(
        "execution.storage.volume=node-nfs:other", says="Lepton: node group h100-pool has no volume node-nfs:other"
    ),
    "a reserved variable": refusal(
        env("LEPTON_JOB_NAME", "x"), code=2, says="deployment.envs.LEPTON_JOB_NAME: Lepton sets variables that begin"
    ),
    "a forbidden mount path": refusal(
        "execution.endpoint.mounts=[{path: /models, mount_path: /usr/lib/}]",
        code=2,
        says="execution.endpoint.mounts: nothing may be mounted at /usr/lib/; choose a folder below it",
    ),
    "an unknown key": refusal("+execution.node_grop=x", code=2, says="execution.node_grop: unknown key; did you mean"),
    "many things at once": Refusal(
        ("execution.resource_shape=gpu.9xh100", env("A", "{secret: x}"), "execution.storage.volume=node-nfs:other"),
        (
            "Lepton: execution.resource_shape: ",
            "Lepton: the workspace has no secret x",
            "Lepton: node group h100-pool has no volume node-nfs:other",
        ),
    ),
    "many things in the config at once": Refusal(
        (env("LEPTON_A", "x"), "execution.endpoint.mounts=[{path: /m, mount_path: /proc}, {path: /n, mount_path: m}]"),
        ("deployment.envs.LEPTON_A: ", "execution.endpoint.mounts: nothing may", "execution.endpoint.mounts: mount_p"),
        code=2,
    ),
}


@pytest.fixture(scope="module")
def emulator() -> Iterator[LeptonEmulator]:
    with LeptonEmulator(config()) as running:
        yield running


@pytest.fixture
def program(emulator: LeptonEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a config that would run; the command works in it."""
    deployment = {"type": "container", "model_id": "m", "image": "test/server:1", "command": ["serve"], "port": 8000}
    config = {
        "execution": {"type": "lepton", "node_group": "h100-pool", "resource_shape": "gpu.1xh100"},
        "deployment": deployment,
        "evaluation": {"harness": "command", "command": ["true"], "tasks": ["a"]},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "HOME": str(tmp_path),
        "NV_EVAL_HOME": str(tmp_path / "state"),
        "LEPTON_WORKSPACE_ID": "ws1",
        "LEPTON_WORKSPACE_TOKEN": TOKEN,
        "LEPTON_WORKSPACE_URL": emulator.url,
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NOT_SET_ANYWHERE", raising=False)
    return tmp_path


def run(*words: str) -> int:
    return main(["run", "--config-dir", ".", "--config-name", "config", "execution.output_dir=results", *words])


def changes(emulator: LeptonEmulator) -> list[str]:
    """Requests that were no reading."""
    return [f"{r.method} {r.path}" for r in emulator.requests if r.method not in ("GET", "HEAD")]


@pytest.mark.parametrize("dry", [False, True], ids=["run", "dry run"])
@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_run_is_told_line_by_line_and_nothing_is_created(
    program: Path,
    emulator: LeptonEmulator,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    dry: bool,
) -> None:
    expected = REFUSALS[name]
    monkeypatch.setenv("LEPTON_WORKSPACE_TOKEN", expected.token)

    code = run(*expected.overrides, *(["--dry-run"] if dry else []))

    said = capsys.readouterr()
    text = said.out + said.err
    assert code == expected.code, text
    for line in expected.lines:
        assert sum(line in shown for shown in text.splitlines()) == 1, text
    problems = [shown for shown in said.err.splitlines() if shown and "Stop with Ctrl-C" not in shown]
    assert dry or len(problems) == len(expected.lines), said.err
    assert text.count("execution.node_group is not set") <= 1, "a note repeats the problem"
    assert text.count("execution.resource_shape is not set") <= 1, "a note repeats the problem"
    assert "Traceback" not in text
    assert expected.token not in text
    assert emulator.state().endpoints == emulator.state().jobs == ()
    assert changes(emulator) == []
    assert not (program / "results").exists()


def test_a_plan_without_fault_is_refused_nowhere(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--dry-run") == 0, capsys.readouterr()


def test_no_more_than_five_node_groups_are_asked_for_their_shapes(
    program: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    groups = tuple(NodeGroup(id=f"pool{n}-0000000{n}", name=f"pool{n}") for n in range(7))
    with LeptonEmulator(Config(node_groups=groups)) as many:
        monkeypatch.setenv("LEPTON_WORKSPACE_URL", many.url)

        code = run("execution.node_group=null", "execution.resource_shape=null")

        said = capsys.readouterr().err
        assert code == 3, said
        assert "pool4 offers: " in said
        assert "pool5 offers: " not in said
        assert len([request for request in many.requests if request.path == "/shapes"]) == 5


def test_that_a_photon_exists_is_not_said_to_be_checked(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = yaml.safe_load((program / "config.yaml").read_text())
    written["deployment"] = {"type": "lepton_photon", "model_id": "m", "photon_id": "nowhere-abc"}
    (program / "config.yaml").write_text(yaml.safe_dump(written))

    code = run("--dry-run")

    said = capsys.readouterr().out
    assert code == 0, said
    assert "Not checked: photon: the workspace speaks the legacy API; whether the photon exists was not asked\n" in said


def test_a_token_that_may_expire_before_the_end_is_a_warning(
    program: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LEPTON_WORKSPACE_TOKEN", BRIEF)

    code = run("--dry-run", "evaluation.timeout=7200")

    said = capsys.readouterr().out
    assert code == 0, said
    assert "Lepton: the token expires in " in said
    assert ", and the run may take " in said


def test_a_name_that_somebody_else_has_is_a_problem(
    program: Path, emulator: LeptonEmulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--dry-run") == 0
    with LeptonEmulator(config()) as other:
        monkeypatch.setenv("LEPTON_WORKSPACE_URL", other.url)
        monkeypatch.setattr(sys.modules["launcher.plan.build"], "new_invocation_id", lambda: "a1234567")
        spec = {"container": {"image": "x"}, "resource_requirement": {"resource_shape": "cpu.small", "min_replicas": 0}}
        body = {"metadata": {"name": "container-a-0-a1234567"}, "spec": spec}
        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert httpx.post(f"{other.url}/deployments", json=body, headers=headers, trust_env=False).status_code == 201

        code = run()

        assert code == 3
        assert "an endpoint container-a-0-a1234567 exists and is not ours" in capsys.readouterr().err
        assert len(other.state().endpoints) == 1


# --- the canary -------------------------------------------------------------------------------------------------------

SAYS = 'echo "tokens: $HF_TOKEN $NGC_API_KEY $MINE"'
NOISY = BENCHMARK + '\nprint("my key is", os.environ["OPENAI_API_KEY"], os.environ["MINE"], flush=True)\n'


@dataclass(frozen=True)
class Canaries:
    """A home and a workspace whose secrets no other test on this machine has."""

    home: Home
    emulator: LeptonEmulator
    secrets: tuple[str, ...]


@pytest.fixture
def canaries(home: Home) -> Iterator[Canaries]:
    own = uuid4().hex
    token, ngc = f"nvapi-canary-token-{own}", f"nvapi-canary-ngc-{own}"
    stored, hf, mine = f"hf_canary_stored_{own}", f"hf_canary_{own}", f"canary-of-a-reference-{own}"
    workspace = Config(tokens=(Token(value=token),), secrets={"my-hf": stored}, image_pull_secrets=("ngc",))
    with LeptonEmulator(workspace) as running:
        home.extra |= {
            "LEPTON_WORKSPACE_ID": "ws1",
            "LEPTON_WORKSPACE_TOKEN": token,
            "LEPTON_WORKSPACE_URL": running.url,
            "CANARY_HF": hf,
            "CANARY_NGC": ngc,
            "CANARY_MINE": mine,
        }
        yield Canaries(home, running, (token, ngc, stored, hf, mine))


def write_config(home: Home, server: list[str]) -> None:
    (home.folder / "bench.py").write_text(NOISY)
    tasks: list[dict[str, Any]] = [benchmark("a"), benchmark("b", "fails"), benchmark("c", "broken")]
    for task in tasks:
        task["command"] = [str(home.folder / "bench.py") if word == "bench.py" else word for word in task["command"]]
    references = {"HF_TOKEN": "CANARY_HF", "NGC_API_KEY": "CANARY_NGC", "MINE": "CANARY_MINE"}
    envs = {name: f"${{oc.env:{variable}}}" for name, variable in references.items()}
    served = serve(image="test/server:1", port=8000, envs=envs | {"STORED": {"secret": "my-hf"}})
    served["command"] = [word.replace("SERVE", " ".join(served["command"])) for word in server]
    execution = {"type": "lepton", "node_group": "h100-pool", "resource_shape": "gpu.1xh100", "output_dir": "results"}
    evaluation = {"harness": "command", "envs": {"MINE": envs["MINE"]}, "tasks": tasks}
    config = {
        "execution": {**execution, "image_pull_secrets": ["ngc"]},
        "deployment": served,
        "evaluation": evaluation,
    }
    (home.folder / "config.yaml").write_text(yaml.safe_dump(config))


def arguments() -> bytes:
    """Argument lists of all processes."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            found += [(entry / "cmdline").read_bytes()] if entry.name.isdigit() else []
        except OSError:
            continue
    return b"\n".join(found)


@pytest.mark.parametrize(
    ("server", "code"),
    [
        (["/bin/sh", "-c", f"{SAYS}; exec SERVE"], 4),
        (["/bin/sh", "-c", f'{SAYS}; echo "cannot start with $HF_TOKEN" >&2; exit 1'], 4),
    ],
    ids=["jobs fail", "servers crash"],
)
def test_no_secret_is_written_whatever_is_printed_and_whatever_fails(
    canaries: Canaries, server: list[str], code: int
) -> None:
    home, emulator = canaries.home, canaries.emulator
    write_config(home, server)
    words = ("run", "--config-dir", ".", "--config-name", "config", "-v")

    planned = home.run(*words, "--dry-run")
    process, shown = home.start(*words), b""
    while process.poll() is None:
        shown += arguments()
        time.sleep(0.05)
    out, err = process.communicate()

    endpoint_tokens = {t["value"] for item in emulator.state().endpoints for t in item.spec["api_tokens"]}
    secrets = [*canaries.secrets, *endpoint_tokens]
    assert planned.returncode == 0, planned.stderr
    assert process.returncode == code, err
    assert emulator.state().alive == ()
    assert len(endpoint_tokens) == 1
    texts = {"plan": planned.stdout + planned.stderr, "output": out + err, "arguments": shown.decode(errors="replace")}
    files = {str(path): path.read_bytes() for path in home.folder.rglob("*") if path.is_file()}
    assert any(name.endswith("journal.db") for name in files)
    assert any(name.endswith("endpoint.log") for name in files)
    for secret in secrets:
        assert [name for name, text in texts.items() if secret in text] == []
        assert [name for name, content in files.items() if secret.encode() in content] == []
    assert "***" in "".join(
        content.decode(errors="replace") for name, content in files.items() if "endpoint.log" in name
    )
