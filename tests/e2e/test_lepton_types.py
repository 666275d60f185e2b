"""Endpoints that only Lepton makes: from the command line to a score and away again; what preflight says of them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher.config.validate import validate
from launcher.emulators.lepton import Config, Image, LeptonEmulator, Refuse, Template
from launcher.errors import PlatformError
from launcher.plan.build import build
from launcher.plan.model import Plan
from launcher.platforms.base import Check, CheckState
from launcher.platforms.http import RetryPolicy
from launcher.platforms.lepton.credentials import Credentials
from launcher.platforms.lepton.platform import LeptonPlatform
from tests.e2e.cli import Home
from tests.e2e.scenario import BENCHMARK, benchmark, run

pytestmark = pytest.mark.e2e

TOKEN = "nvapi-loopbacktoken0001"
CANARY = "canary-hf-4f0c9911"
SERVER = (sys.executable, "-m", "tests.servers.openai_server")
LISTENING = (*SERVER, "--port", "{port}", "--model", "org/model")
TEMPLATE = Template(
    id="serve",
    visibility="private",
    spec={
        "container": {
            "image": "templated/server:1",
            "command": [*SERVER, "--port", "9000", "--model", "${run.model}"],
            "ports": [{"container_port": 9000}],
        },
        "resource_shape": "gpu.1xh100",
        "envs": [{"name": "FROM_TEMPLATE", "value": "1"}],
        "mounts": [{"path": "/t", "from": "node-nfs:lepton-shared-fs", "mount_path": "/templated"}],
        "ttl_seconds_after_finished": 600,
    },
)
BROKEN = Template(id="broken", spec={"envs": [{"name": "KEY", "value_from": {"secret_name_ref": "lost"}}]})
KEYS: dict[str, dict[str, Any]] = {
    "lepton_llm": {"hf_token_secret": "hf", "model_path": "/llama"},
    "lepton_template": {"template_id": "serve", "template_visibility": "private", "run": {"model": "org/model"}},
    "lepton_photon": {"photon_id": "mine-abc123", "cache_path": "/cache"},
}
KINDS = [("lepton_llm", False), ("lepton_llm", True), ("lepton_template", False), ("lepton_template", True)]
KINDS += [("lepton_photon", False)]


def workspace(*, new: bool = False, **keys: Any) -> Config:
    images = (Image(pattern="vllm/*", instead=LISTENING), Image(pattern="photon:mine-*", instead=LISTENING))
    return Config(
        **{
            "new_deployment_api": new,
            "images": images,
            "templates": (TEMPLATE, BROKEN),
            "secrets": {"hf": CANARY},
            **keys,
        }
    )


def document(kind: str, **keys: Any) -> dict[str, Any]:
    shape = {} if kind == "lepton_template" else {"resource_shape": "gpu.1xh100"}
    return {
        "execution": {"type": "lepton", "node_group": "h100-pool", "output_dir": "results", **shape},
        "deployment": {
            "type": kind,
            "model_id": "org/model",
            "start_timeout": 20,
            "health_timeout": 8,
            **KEYS[kind],
            **keys,
        },
        "evaluation": {"harness": "command", "command": ["true"], "tasks": [{"name": "a"}]},
        "pricing": {"usd_per_hour": {"gpu.1xh100": 3600.0}},
    }


@pytest.fixture
def emulator(request: pytest.FixtureRequest) -> Iterator[LeptonEmulator]:
    with LeptonEmulator(request.param) as running:
        yield running


@pytest.fixture
def lepton_home(home: Home, emulator: LeptonEmulator) -> Home:
    home.extra |= {
        "LEPTON_WORKSPACE_ID": emulator.config.workspace,
        "LEPTON_WORKSPACE_TOKEN": TOKEN,
        "LEPTON_WORKSPACE_URL": emulator.url,
    }
    return home


def write(home: Home, config: dict[str, Any]) -> None:
    program = home.folder / "bench.py"
    program.write_text(BENCHMARK)
    task = benchmark("a")
    config["evaluation"] = {
        "harness": "command",
        "tasks": [task | {"command": [str(program) if word == "bench.py" else word for word in task["command"]]}],
    }
    (home.folder / "config.yaml").write_text(yaml.safe_dump(config))


@pytest.mark.parametrize(
    ("kind", "emulator"),
    [(kind, workspace(new=new)) for kind, new in KINDS],
    ids=[f"{kind}-{'new' if new else 'legacy'}" for kind, new in KINDS],
    indirect=["emulator"],
)
def test_an_endpoint_of_each_type_serves_is_scored_and_goes(
    lepton_home: Home, emulator: LeptonEmulator, kind: str
) -> None:
    write(lepton_home, document(kind))

    code, record = run(lepton_home)

    (task,), (endpoint,) = record["tasks"], emulator.state().endpoints
    assert (code, task["reason"], task["scores"][0]["value"]) == (0, "completed", 0.5)
    assert "Ready" in [state for _, state in endpoint.states]
    assert emulator.state().alive == ()
    _check_spec(kind, endpoint.spec)
    assert (task["usd"] is not None) == (kind != "lepton_template"), "the template's own shape is not in the plan"
    assert CANARY not in "".join(path.read_text("utf-8", "replace") for path in _files(lepton_home))


def _files(home: Home) -> list[Any]:
    return [path for path in home.folder.rglob("*") if path.is_file()]


def _check_spec(kind: str, spec: dict[str, Any]) -> None:
    """What every endpoint has, and what is its type's own."""
    envs = {env["name"]: env for env in spec["envs"]}
    mounts = {mount["mount_path"]: mount["path"] for mount in spec["mounts"]}
    assert spec["auto_scaler"]["scale_down"] == {"no_traffic_timeout": 28 + 1800, "not_ready_timeout": 28 + 300}
    assert len(spec["api_tokens"]) == 1
    assert "NV_EVAL_INVOCATION" in envs
    assert spec["resource_requirement"]["resource_shape"] == "gpu.1xh100"
    if kind == "lepton_llm":
        assert spec["container"]["command"][:3] == ["vllm", "serve", "/mnt/model"]
        assert envs["HF_TOKEN"] == {"name": "HF_TOKEN", "value_from": {"secret_name_ref": "hf"}}
        assert mounts["/mnt/model"] == "/llama"
    elif kind == "lepton_template":
        assert spec["container"]["image"] == "templated/server:1"
        assert envs["FROM_TEMPLATE"]["value"] == "1"
        assert mounts == {"/templated": "/t"}
        assert "ttl_seconds_after_finished" not in spec
    else:
        assert (spec["photon_id"], spec["photon_namespace"]) == ("mine-abc123", "private")
        assert "container" not in spec
        assert mounts == {"/cache": "/nemo-evaluator-launcher-workspace/model-cache"}


@pytest.mark.parametrize("emulator", [workspace()], indirect=True)
def test_the_dry_run_shows_what_the_template_renders(lepton_home: Home, emulator: LeptonEmulator) -> None:
    write(lepton_home, document("lepton_template"))

    done = lepton_home.run("run", "--config-dir", ".", "--config-name", "config", "--dry-run")

    assert done.returncode == 0, done.stdout + done.stderr
    assert 'template  private/serve, rendered with {"model": "org/model"}' in done.stdout
    assert "Found: template private/serve renders image templated/server:1; command " in done.stdout
    assert "port 9000; shape gpu.1xh100; variables FROM_TEMPLATE; mounts node-nfs:lepton-shared-fs:/t" in done.stdout
    assert emulator.state().endpoints == ()


# --- preflight --------------------------------------------------------------------------------------------------------

INSTEAD = "use deployment=lepton_llm (vLLM or SGLang) or deployment=container instead"
REFUSED: list[tuple[str, str, dict[str, Any], dict[str, Any], str]] = [
    (
        "no template routes",
        "lepton_template",
        {},
        {"template_routes": False},
        f"Lepton: the workspace serves no templates; {INSTEAD}",
    ),
    (
        "no templates",
        "lepton_template",
        {},
        {"templates": ()},
        f"Lepton: the workspace has no private templates; {INSTEAD}",
    ),
    (
        "unknown template",
        "lepton_template",
        {"template_id": "serves"},
        {},
        "Lepton: deployment.template_id: no private template serves; did you mean serve?",
    ),
    (
        "parameter missing",
        "lepton_template",
        {"run": None},
        {},
        "Lepton: template private/serve cannot be rendered with deployment.run as it is: "
        "parameter run.model is required",
    ),
    (
        "nothing to run",
        "lepton_template",
        {"template_id": "broken", "template_visibility": "public"},
        {},
        f"Lepton: template public/broken renders no container image; set deployment.image, or {INSTEAD}",
    ),
    (
        "photon in the new API",
        "lepton_photon",
        {},
        {"new": True},
        f"Lepton: deployment lepton_photon needs the legacy /deployments API, which this workspace has left; {INSTEAD}",
    ),
    (
        "secret of the gated model",
        "lepton_llm",
        {"hf_token_secret": "hff"},
        {},
        "Lepton: the workspace has no secret hff; did you mean hf?",
    ),
    (
        "volume of the model",
        "lepton_llm",
        {"model_volume": "node-nfs:models"},
        {},
        "Lepton: node group h100-pool has no volume node-nfs:models; it has: node-local, node-nfs:lepton-shared-fs; "
        "name one of them in the mount",
    ),
]


def plan(kind: str, **keys: Any) -> Plan:
    return build(validate(document(kind, **keys)))


def opened(made: Plan, running: LeptonEmulator) -> LeptonPlatform:
    access = Credentials(workspace=running.config.workspace, token=TOKEN, url=running.url)
    policy = RetryPolicy(deadline=1.0, first_wait=0.01, longest_wait=0.05)
    return LeptonPlatform(made.execution_config(), credentials=access, policy=policy)  # type: ignore[arg-type]


def checked(made: Plan, config: Config) -> list[Check]:
    async def check() -> list[Check]:
        async with LeptonEmulator(config) as running:
            platform = opened(made, running)
            try:
                return await platform.preflight(made)
            finally:
                await platform.close()
                assert not [r for r in running.requests if r.method == "POST" and not r.path.endswith("/render")]

    return asyncio.run(check())


@pytest.mark.parametrize(
    ("kind", "keys", "config", "message"), [case[1:] for case in REFUSED], ids=[c[0] for c in REFUSED]
)
def test_what_the_workspace_does_not_serve_is_one_line_that_names_what_to_use(
    kind: str, keys: dict[str, Any], config: dict[str, Any], message: str
) -> None:
    found = checked(plan(kind, **keys), workspace(**config))

    assert [check.message for check in found if check.state is CheckState.PROBLEM] == [message]


def test_secrets_and_shapes_of_a_template_are_checked_like_our_own() -> None:
    template = {"template_id": "broken", "template_visibility": "public", "image": "mine:1", "run": None}

    found = checked(plan("lepton_template", **template), workspace())

    assert [check.message for check in found if check.state is CheckState.PROBLEM] == [
        "Lepton: execution.resource_shape is not set; the node group offers: cpu.small, gpu.1xh100, gpu.8xh100",
        "Lepton: the workspace has no secret lost; valid: hf",
    ]


@pytest.mark.parametrize("kind", ["lepton_template", "lepton_photon"])
def test_without_preflight_nothing_is_created_either(kind: str, tmp_path: Path) -> None:
    config = workspace(new=True, template_routes=False)

    async def begin() -> None:
        async with LeptonEmulator(config) as running:
            platform = opened(plan(kind), running)
            try:
                with pytest.raises(PlatformError, match="deployment=lepton_llm"):
                    await platform.open(plan(kind), tmp_path)
            finally:
                await platform.close()
            assert running.state().endpoints == ()

    asyncio.run(begin())


def test_rendering_is_repeated_as_a_reading_is() -> None:
    config = workspace(faults=(Refuse(route="POST /templates/*", status=503, times=2),))

    found = checked(plan("lepton_template"), config)

    assert [check.state for check in found if check.name == "template"] == [CheckState.NOTE]


def test_a_template_that_nobody_can_ask_about_is_not_checked() -> None:
    found = checked(plan("lepton_template"), workspace(faults=(Refuse(route="* /templates/*", status=503),)))

    (check,) = [check for check in found if check.name == "template"]
    assert check.state is CheckState.SKIPPED
    assert "503" in check.message
