"""The Lepton guide's commands, word for word, and their rehearsal: real lm-eval, a real model, the emulator."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("cyllama", reason="cyllama is not installed: pip install 'nv-eval-launcher[smollm]'")

from launcher.emulators.lepton import Config, LeptonEmulator, NodeGroup, Snapshot
from launcher.emulators.lepton.images import rehearsal
from launcher.errors import LauncherError
from launcher.servers.smollm import weights
from tests.e2e import hub
from tests.e2e.cli import ROOT, Home
from tests.servers.process import free_port

pytestmark = pytest.mark.e2e

GUIDE = "nv-eval run --config-dir examples --config-name lepton_{}_llama_3_1_8b_instruct"
GUIDE_METRICS = {"hellaswag": ["acc", "acc_norm"], "arc_challenge": ["acc", "acc_norm"], "winogrande": ["acc"]}
ACCOUNT = "  node_group: h100-pool\n  resource_shape: gpu.1xh100\n"
"""What a person adds to an example below `execution:`."""
KEYS = {"NGC_API_KEY": "canary-ngc-0001", "HF_TOKEN": "canary-hf-0001", "LEPTON_ENDPOINT_TOKEN": "canary-key-0001"}
SERVED = "meta/llama-3.1-8b-instruct"
LIMIT = 400
"""Seconds for one or two runs, on a machine that is busy."""


@pytest.fixture(scope="module")
def gguf() -> Path:
    try:
        return weights.find().path
    except LauncherError as error:
        pytest.skip(f"the model weights cannot be had: {error}")


@pytest.fixture(scope="module")
def hub_env(gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    pytest.importorskip("transformers", reason="transformers is missing: pip install 'nv-eval-launcher[hf-tokenizer]'")
    return hub.fill(tmp_path_factory.mktemp("hub"), gguf)


@dataclass
class Desk:
    """A home with the examples in it, where a person types commands."""

    home: Home

    def env(self) -> dict[str, str]:
        env = self.home.env()
        return env | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"}

    def type(self, line: str) -> subprocess.CompletedProcess[str]:
        """One command line, without a shell."""
        return self.run(shlex.split(line))

    def run(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, cwd=self.home.folder, env=self.env(), text=True, capture_output=True, timeout=LIMIT, check=False
        )

    def add_account(self) -> None:
        """Add the account's lines to each example."""
        for path in (self.home.folder / "examples").glob("lepton_*.yaml"):
            path.write_text(path.read_text().replace("execution:\n  output_dir", f"execution:\n{ACCOUNT}  output_dir"))

    def point_to(self, emulator: LeptonEmulator) -> None:
        self.home.extra |= {
            "LEPTON_WORKSPACE_ID": emulator.config.workspace,
            "LEPTON_WORKSPACE_TOKEN": emulator.config.tokens[0].value,
            "LEPTON_WORKSPACE_URL": emulator.url,
        }

    def records(self, folder: str) -> list[dict[str, Any]]:
        """The records of all runs, oldest first."""
        found = sorted((self.home.folder / folder).glob("*/results.json"), key=lambda path: path.stat().st_mtime)
        return [json.loads(path.read_text()) | {"folder": str(path.parent)} for path in found]


@pytest.fixture
def desk(home: Home, gguf: Path) -> Desk:
    shutil.copytree(ROOT / "examples", home.folder / "examples")
    models = home.folder / "state" / "cache" / "models"
    models.parent.mkdir(parents=True)
    models.symlink_to(gguf.parent)
    home.extra |= KEYS | {"LEPTON_ENDPOINT_URL": "http://127.0.0.1:9/v1/completions"}
    return Desk(home)


@contextmanager
def small_model(desk: Desk) -> Iterator[str]:
    """An endpoint that runs already; yields its URL."""
    options = ("--port", "0", "--threads", "1", "--served-name", SERVED)
    command = [sys.executable, "-m", "launcher.servers.smollm", *options]
    with subprocess.Popen(command, env=desk.env(), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().split(",")[0].rpartition(":")[2]
            yield f"http://127.0.0.1:{port}/v1/completions"
        finally:
            process.kill()


# --- the guide's commands, word for word ------------------------------------------------------------------------------


@pytest.fixture
def guide_emulator(hub_env: dict[str, str]) -> Iterator[LeptonEmulator]:
    """Job images find the hub's data sets and tokenizers on disk; servers are the small model."""
    table = rehearsal(Config()).images
    jobs = replace(table[-1], pattern="python:*", env={**table[-1].env, **hub_env})
    with LeptonEmulator(rehearsal(Config(images=(jobs,)))) as emulator:
        yield emulator


@pytest.mark.parametrize("kind", ["nim", "vllm", "none"])
def test_the_guides_command_scores_its_three_tasks(desk: Desk, guide_emulator: LeptonEmulator, kind: str) -> None:
    desk.point_to(guide_emulator)
    desk.add_account()

    if kind == "none":
        with small_model(desk) as url:
            desk.home.extra["LEPTON_ENDPOINT_URL"] = url
            done = desk.type(GUIDE.format(kind))
    else:
        done = desk.type(GUIDE.format(kind))

    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = desk.records("cloud_results")
    assert metrics(record) == GUIDE_METRICS
    assert {score["n"] for task in record["tasks"] for score in task["scores"]} == {hub.ITEMS}
    assert_deployed(guide_emulator.state(), 0 if kind == "none" else 3, SERVED if kind == "nim" else None)
    assert not any(key in path.read_text(errors="replace") for key in KEYS.values() for path in files(desk, record))


def metrics(record: dict[str, Any]) -> dict[str, list[str]]:
    return {task["key"]: sorted(score["metric"] for score in task["scores"]) for task in record["tasks"]}


def assert_deployed(state: Snapshot, endpoints: int, served: str | None) -> None:
    """So many endpoints and three jobs were created; nothing is left."""
    assert (len(state.endpoints), len(state.jobs)) == (endpoints, 3)
    assert state.alive == ()
    for endpoint in state.endpoints if served else ():
        env = {entry["name"]: entry.get("value") for entry in endpoint.spec["envs"]}
        assert (env["NIM_SERVED_MODEL_NAME"], env["NGC_API_KEY"]) == (served, KEYS["NGC_API_KEY"])


def files(desk: Desk, record: dict[str, Any]) -> list[Path]:
    folders = (Path(record["folder"]), desk.home.folder / "state")
    return [path for folder in folders for path in folder.rglob("*") if path.is_file() and path.suffix != ".gguf"]


@pytest.mark.parametrize("kind", ["nim", "vllm"])
def test_a_run_without_the_accounts_lines_names_what_there_is_and_creates_nothing(desk: Desk, kind: str) -> None:
    groups = (NodeGroup(), NodeGroup(id="a10-pool-ef56ab78", name="a10-pool", shapes=("cpu.small",)))
    with LeptonEmulator(Config(node_groups=groups)) as emulator:
        desk.point_to(emulator)

        no_group = desk.type(GUIDE.format(kind))
        no_shape = desk.type(f"{GUIDE.format(kind)} execution.node_group=h100-pool")
        checked = desk.type(
            f"{GUIDE.format(kind)} execution.node_group=h100-pool execution.resource_shape=gpu.1xh100 --dry-run"
        )

        assert (no_group.returncode, no_shape.returncode, checked.returncode) == (3, 3, 0), checked.stdout
        assert "execution.node_group is not set; the workspace has: a10-pool, h100-pool" in no_group.stderr
        assert "execution.resource_shape is not set; " in no_shape.stderr
        assert "cpu.small, gpu.1xh100, gpu.8xh100" in no_shape.stderr
        assert {request.method for request in emulator.requests} == {"GET"}


def test_the_guides_whole_yaml_is_accepted_as_it_stands(desk: Desk) -> None:
    shutil.copy(ROOT / "tests" / "unit" / "data" / "lepton" / "guide.yaml", desk.home.folder / "guide.yaml")
    with LeptonEmulator() as emulator:
        desk.point_to(emulator)
        account = "execution.node_group=h100-pool execution.resource_shape=gpu.1xh100"

        done = desk.type(f"nv-eval run --config-dir . --config-name guide {account} --dry-run --json")

    assert done.returncode == 0, done.stdout + done.stderr
    plan = json.loads(done.stdout)["plan"]
    assert [task["name"] for task in plan["tasks"]] == list(GUIDE_METRICS)
    assert plan["output_dir"] == str(desk.home.folder / "cloud_results")
    for task in plan["tasks"]:
        assert task["target"]["model"] == SERVED
        words = task["endpoint"]["request"]["spec"]["container"]["command"]
        assert words[:3] == ["vllm", "serve", "meta-llama/Llama-3.1-8B-Instruct"]
        assert words[words.index("--served-model-name") + 1] == SERVED


# --- the rehearsal, as docs/lepton.md tells it ------------------------------------------------------------------------


@dataclass(frozen=True)
class Rehearsal:
    """Blocks of the page: the emulator, two examples, the same on this machine, the third example, a late endpoint."""

    emulate: str
    deployed: str
    local: str
    existing: str
    barrier: str
    late: str

    @staticmethod
    def read() -> Rehearsal:
        page = (ROOT / "docs" / "lepton.md").read_text().partition("## A rehearsal without an account")[2]
        late = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[-1]
        return Rehearsal(*re.findall(r"```bash\n(.*?)```", page, re.DOTALL), late)


@contextmanager
def emulating(desk: Desk, command: str) -> Iterator[subprocess.Popen[str]]:
    """The emulator as the page starts it; what it prints to be pasted is in the desk's environment."""
    words = shlex.split(command)
    with subprocess.Popen(words, cwd=desk.home.folder, env=desk.env(), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            exports = [process.stdout.readline().strip().removeprefix("export ") for _ in range(3)]
            desk.home.extra |= dict(line.split("=", 1) for line in exports)
            yield process
        finally:
            process.kill()


def shell(desk: Desk, block: str) -> str:
    """Run a block in one shell, stop what it left in the background, and return what it printed."""
    script = f"set -e\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{block}"
    done = desk.run(["bash", "-c", script])
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_documented_rehearsal_gives_the_scores_of_a_run_on_this_machine(desk: Desk) -> None:
    page = Rehearsal.read()
    assert ":8000/" in page.existing

    with emulating(desk, page.emulate) as emulator:
        deployed = shell(desk, page.deployed)
        existing = shell(desk, page.existing.replace("8000", str(free_port())))
        left = left_in_workspace(desk)
        emulator.send_signal(signal.SIGINT)
        assert emulator.wait(20) == 0
    shell(desk, page.local)

    (local,) = desk.records("results")
    on_lepton = desk.records("cloud_results")
    assert (deployed + existing).count("3 of 3 tasks scored") == len(on_lepton) == 3
    assert left == []
    for record in on_lepton:
        assert scores(record) == scores(local)
        assert likelihoods(record) == pytest.approx(likelihoods(local), abs=1e-4)


def test_jobs_wait_for_an_endpoint_that_comes_late_as_the_page_says(desk: Desk) -> None:
    page = Rehearsal.read()
    (desk.home.folder / "late.yaml").write_text(page.late.replace("20", "1").replace("60", "5"))

    with emulating(desk, f"{page.emulate.strip()} --config late.yaml") as emulator:
        said = shell(desk, page.barrier)
        left = left_in_workspace(desk)
        emulator.send_signal(signal.SIGINT)
        assert emulator.wait(20) == 0

    assert "2 of 2 tasks scored" in said
    assert left == []


def left_in_workspace(desk: Desk) -> list[Any]:
    """Everything that the control plane still lists, finished jobs included."""
    base, token = desk.home.extra["LEPTON_WORKSPACE_URL"], desk.home.extra["LEPTON_WORKSPACE_TOKEN"]
    with httpx.Client(headers={"Authorization": f"Bearer {token}"}, trust_env=False) as client:
        endpoints = client.get(f"{base}/deployments").json()
        jobs = client.get(f"{base}/jobs", params={"job_query_mode": "alive_and_archive"}).json()["jobs"]
    return [*endpoints, *jobs]


def scores(record: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Everything that is said of every score."""
    keys = ("metric", "filter", "value", "stderr", "n")
    return [(task["key"], *(score[key] for key in keys)) for task in record["tasks"] for score in task["scores"]]


def likelihoods(record: dict[str, Any]) -> list[float]:
    """The log-likelihood of every choice of every sample."""
    found: list[float] = []
    for path in sorted(Path(record["folder"]).rglob("samples_*_100_*.jsonl")):
        for line in path.read_text().splitlines():
            answers = json.loads(line)["filtered_resps"]
            found += [float(answer[0]) for answer in answers if not isinstance(answer, str)]
    assert len(found) > 10
    return found
