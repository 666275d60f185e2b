"""The role that nv-eval prints: it suffices for whole runs, and no verb of it is there for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import yaml

pytest.importorskip("kubernetes", reason="pip install 'nv-eval-launcher[kubernetes]'")

from launcher.cli.main import main
from launcher.emulators.common.front import RequestRecord
from launcher.emulators.kubernetes import Config, KubernetesEmulator, LoseAnswer
from launcher.orchestrator.reasons import Reason
from launcher.platforms.base import CheckState
from launcher.platforms.kubernetes.rbac import COLLECTING, NEEDED, Right, role
from tests.e2e.cluster_bench import FAST, Bench, bench
from tests.e2e.lepton import job_output
from tests.e2e.test_kubernetes_refusals import fetched, stored_results
from tests.e2e.test_kubernetes_runs import wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]
PLURALS = {"ServiceAccount": "serviceaccounts", "Role": "roles", "RoleBinding": "rolebindings"}
_VERBS = {"POST": "create", "PATCH": "patch", "DELETE": "delete", "GET": "get"}
LOST = tuple(
    LoseAnswer(route=f"POST *{plural}", times=1)
    for plural in ("configmaps", "secrets", "services", "deployments", "jobs")
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.orchestrator.decide.SLACK", 1.0)
    monkeypatch.setattr("launcher.platforms.kubernetes.platform.RENEW", 0.5)
    monkeypatch.setattr("launcher.platforms.kubernetes.things.QUIET", 0.5)
    monkeypatch.setenv("CANARY_TOKEN", "canary-5e1f0c77")


def install(emulator: KubernetesEmulator, rights: tuple[Right, ...], name: str) -> str:
    """A service account with these rights; its token."""
    for manifest in role(name, "default", rights):
        group = "/apis/rbac.authorization.k8s.io/v1" if manifest["kind"].startswith("Role") else "/api/v1"
        path = f"{group}/namespaces/default/{PLURALS[manifest['kind']]}"
        httpx.post(f"{emulator.url}{path}", json=manifest).raise_for_status()
    return emulator.add_account(name)


def used(requests: Iterable[RequestRecord]) -> set[str]:
    """The verbs of requests in the namespace, as rights are written."""
    found = set()
    for request in requests:
        parts = request.path.strip("/").split("/")
        if "namespaces" not in parts or len(parts) < parts.index("namespaces") + 3:
            continue
        group = parts[1] if parts[0] == "apis" else ""
        plural, *rest = parts[parts.index("namespaces") + 2 :]
        verb = _VERBS[request.method]
        if request.method == "GET" and not rest:
            verb = "watch" if "watch=true" in request.query else "list"
        resource = "/".join([plural, *rest[1:]])
        found.add(f"{verb} {resource}{f'.{group}' if group else ''}")
    return found


async def everything(made: Bench) -> None:
    """A run with secrets, a volume and answers that get lost; then one whose job never gets a pod."""
    made.output = lambda _: job_output(not_printed=True)
    made.lasts = lambda _: 1.5
    plan = made.plan(
        storage={"claim": "results"},
        deployment={"envs": {"HF_TOKEN": {"env": "CANARY_TOKEN"}}, "start_timeout": 60},
    )
    job, printed = made.job, stored_results()
    made.job = lambda c: job(c) if "fetch" not in c.env["HOSTNAME"] else fetched(c.argv, printed)  # type: ignore[method-assign]
    platform = made.open(plan)
    checks = await platform.preflight(plan)
    assert [check for check in checks if check.state is CheckState.PROBLEM] == []
    await platform.close()
    before = len(made.emulator.requests)
    outcome = await made.run(plan)
    assert outcome.tasks[0].reason is Reason.COMPLETED, outcome.tasks[0].detail
    stranger = made.open(plan)
    assert await stranger.sweep() == []
    await stranger.close()
    made.emulator.limit({"pods": "1"})
    assert (await made.task(deployment={"start_timeout": 4})).reason is not Reason.COMPLETED
    made.requests = used(made.emulator.requests[before:])


async def test_the_role_suffices_for_whole_runs_and_each_of_its_verbs_is_used(tmp_path: Path) -> None:
    with bench(tmp_path, Config(timing=FAST)) as made:
        made.token = install(made.emulator, NEEDED, "nv-eval")
        made.emulator.inject(*LOST)
        await everything(made)
        wait_for(lambda: not made.emulator.left(), "nothing is left")
        refused = [r for r in made.emulator.requests if r.status == 403 and "/namespaces/default/" in r.path]

    assert made.requests == {str(right) for right in NEEDED}
    assert {r.path.rpartition("/")[2] for r in refused} <= {"results", "resourcequotas"}, (
        "what preflight may go without"
    )


@pytest.mark.parametrize("missing", [right for right in NEEDED if not right.only_with_claim], ids=str)
async def test_a_role_without_one_verb_is_told_before_anything_is_made(missing: Right, tmp_path: Path) -> None:
    with bench(tmp_path, Config(timing=FAST)) as made:
        rest = tuple(right for right in NEEDED if right != missing)
        made.token = install(made.emulator, rest, "nv-eval")
        plan = made.plan(deployment={"envs": {"HF_TOKEN": {"env": "CANARY_TOKEN"}}})
        platform = made.open(plan)
        checks = [check.message for check in await platform.preflight(plan) if check.state is CheckState.PROBLEM]
        await platform.close()

    assert checks == [
        f"Kubernetes: not allowed in default: {missing}; `nv-eval gc --manifest` prints a role that allows it"
    ]


async def test_the_collectors_role_removes_what_has_expired_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with bench(tmp_path, Config(timing=FAST)) as made:
        plan = made.plan()
        platform = made.open(plan)
        await platform.open(plan, tmp_path)
        await platform.create_endpoint(plan.tasks[0], plan.tasks[0].endpoint)  # type: ignore[arg-type]
        await platform.close()
        token = install(made.emulator, COLLECTING, "nv-eval-gc")
        monkeypatch.setenv("KUBECONFIG", str(made.emulator.kubeconfig_of(token)))
        monkeypatch.setenv("NV_EVAL_HOME", str(tmp_path / "elsewhere"))
        words = ["gc", "--place=kubernetes", "--yes", "--older-than=never", "--timeout=20"]

        before = len(made.emulator.requests)
        young = await asyncio.to_thread(main, words)
        assert made.emulator.left()
        monkeypatch.setattr("launcher.platforms.kubernetes.sweeping.time", SimpleNamespace(time=lambda: 4e9))
        old = await asyncio.to_thread(main, words)
        assert (young, old) == (0, 0), capsys.readouterr()
        wait_for(lambda: not made.emulator.left(), "nothing is left")
        collected = used(made.emulator.requests[before:])
    assert collected <= {str(right) for right in COLLECTING}


def test_the_manifest_is_a_role_a_collector_and_its_timetable(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gc", "--manifest", "evaluations"]) == 0

    manifests = list(yaml.safe_load_all(capsys.readouterr().out))

    kinds = [f"{one['kind']} {one['metadata']['name']}" for one in manifests]
    assert kinds == [
        *("ServiceAccount nv-eval", "Role nv-eval", "RoleBinding nv-eval"),
        *("ServiceAccount nv-eval-gc", "Role nv-eval-gc", "RoleBinding nv-eval-gc", "CronJob nv-eval-gc"),
    ]
    assert {one["metadata"]["namespace"] for one in manifests} == {"evaluations"}
    assert not any("*" in str(one) for one in manifests if one["kind"] == "Role")
