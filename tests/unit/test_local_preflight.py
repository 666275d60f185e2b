"""Preflight of the process runtime: all problems at once, each with what to do, and nothing written."""

from __future__ import annotations

import ast
import contextlib
import os
import socket
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launcher.config.deployment import AnyDeployment, Llamacpp, Smollm
from launcher.config.execution import Local
from launcher.config.fields import Env, Reference
from launcher.deployments import ServerSpec, build_server
from launcher.plan.model import Plan, TaskPlan
from launcher.platforms.base import CheckState
from launcher.platforms.local.platform import LocalPlatform
from tests.contract.bench import make_plan
from tests.contract.conftest import process_bench

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def task(number: int = 1, **server: Any) -> TaskPlan:
    plain = process_bench().task("abc", number)
    assert plain.endpoint is not None
    return replace(plain, endpoint=replace(plain.endpoint, server=replace(plain.endpoint.server, **server)))


async def problems(plan: Plan, execution: Local | None = None) -> list[str]:
    checks = await LocalPlatform(execution or Local(gpus=[0], memory_gib=8)).preflight(plan)
    return [check.message for check in checks if check.state is CheckState.PROBLEM]


@pytest.mark.parametrize(
    ("server", "message"),
    [
        ({"gpus": 2}, "one endpoint needs 2 GPUs and this machine has 1; check the parallel sizes"),
        ({"memory_gib": 9.5}, "one endpoint needs 9.5 GiB and 8.0 GiB are available"),
        ({"command": ("vllmx", "{port}")}, "vllmx is not installed here; install it, or set deployment.command"),
        (
            {"command": ("vllmx", "{port}"), "image": "vllm/vllm"},
            "vllmx is not installed here; install it, or set deployment.command or execution.runtime=docker",
        ),
        (
            {"command": (), "image": "nim"},
            "deployment container is only an image; set execution.runtime=docker or deployment.command",
        ),
        (
            {"env": {"HF_TOKEN": Reference(env="NOT_SET_ANYWHERE")}},
            "variable NOT_SET_ANYWHERE is not set; export NOT_SET_ANYWHERE=... before the run",
        ),
        (
            {"env": {"HF_TOKEN": Reference(secret="hf")}},
            "secret hf: this platform has no secret store; export a variable and reference it as ${oc.env:NAME}",
        ),
        (
            {"requires": ("json", "no_such_module", "nor.this"), "extra": "smollm"},
            "container needs the Python modules no_such_module, nor.this: pip install 'nv-eval-launcher[smollm]'",
        ),
        (
            {"files": {"gguf": "/nope.gguf"}},
            "deployment.gguf: /nope.gguf does not exist or cannot be read; give its full path",
        ),
        (
            {"files": {"gguf": "/proc"}},
            "deployment.gguf: /proc is a folder; give the path of a file",
        ),
    ],
)
async def test_each_problem_says_what_to_do(server: dict[str, Any], message: str, tmp_path: Path) -> None:
    assert await problems(make_plan("abc", tmp_path, task(**server))) == [message]


async def test_all_problems_come_at_once_and_each_only_once(tmp_path: Path) -> None:
    plan = make_plan("abc", tmp_path, task(1, gpus=2, memory_gib=99), task(2, gpus=2, memory_gib=99))
    assert len(await problems(plan)) == 2


async def test_an_output_folder_below_a_file_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    plan = make_plan("abc", tmp_path / "file" / "results", task())
    assert await problems(plan) == [f"{tmp_path}/file is a file; set execution.output_dir to a folder"]


@pytest.mark.parametrize("folder", ["/proc/x", "/sys/kernel/x/y"])
async def test_an_output_folder_of_the_kernel_is_a_problem_even_for_root(folder: str) -> None:
    (found,) = await problems(make_plan("abc", Path(folder), task()))
    assert found.endswith("belongs to the kernel; set execution.output_dir to a folder of yours")


async def test_an_output_folder_that_only_leads_through_the_kernel_s_is_fine(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/proc/self")
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        assert await problems(make_plan("abc", tmp_path / "link" / "fd" / str(descriptor) / "x", task())) == []
    finally:
        os.close(descriptor)


async def test_an_output_folder_on_a_read_only_file_system_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=os.ST_RDONLY | os.ST_NOSUID))
    assert await problems(make_plan("abc", tmp_path, task())) == [
        f"{tmp_path} is on a read-only file system; set execution.output_dir to a folder of yours"
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
async def test_an_output_folder_of_somebody_else_is_a_problem(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert await problems(make_plan("abc", tmp_path / "x", task())) == [
        f"{tmp_path} is not writable; set execution.output_dir to a folder of yours"
    ]


def job(*argv: str, **settings: Any) -> TaskPlan:
    plain = task()
    return replace(plain, job=replace(plain.job, run=replace(plain.job.run, argv=argv, **settings)))


@pytest.mark.parametrize(
    ("program", "advice"),
    [
        ("no-such-program", "which is not installed here; install it, or give its full path in the task's command"),
        ("/no/such", "which is not installed here; install it, or give its full path in the task's command"),
        ("./eval.sh", "which is looked for in the job's own folder; give its full path in the task's command"),
    ],
)
async def test_a_job_s_program_that_does_not_exist_is_a_problem(program: str, advice: str, tmp_path: Path) -> None:
    plan = make_plan("abc", tmp_path, job(program, "--url", "{url}"))
    assert await problems(plan) == [f"harness command runs {program}, {advice}"]
    assert f"harness command runs {program}, {advice}" in await problems(plan, Local(runtime="docker", memory_gib=8))


async def test_a_job_s_program_is_looked_for_where_the_job_will_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "my-eval"
    program.parent.mkdir()
    program.touch(mode=0o755)
    monkeypatch.setenv("ELSEWHERE", str(program.parent))
    here: Env = {"PATH": str(program.parent)}
    by_reference: Env = {"PATH": Reference(env="ELSEWHERE")}
    for found in (
        job("{python}", "x.py"),
        job(str(program)),
        job("my-eval", env=here),
        job("my-eval", env=by_reference),
        job("./run.sh", files={"run.sh": "#!/bin/sh"}),
        job("{work_dir}/run.sh", files={"run.sh": "#!/bin/sh"}),
    ):
        assert await problems(make_plan("abc", tmp_path, found)) == []
    assert len(await problems(make_plan("abc", tmp_path, job("my-eval")))) == 1
    image = job("my-eval")
    assert not any("my-eval" in found for found in await problems(make_plan("abc", tmp_path, in_image(image))))


def in_image(plain: TaskPlan) -> TaskPlan:
    return replace(plain, job=replace(plain.job, image="eval:1"))


def built(config: AnyDeployment) -> ServerSpec:
    server = build_server(config, "name")
    assert server is not None
    return server


def test_the_files_that_deployments_name_are_known() -> None:
    assert built(Smollm(gguf="/nope.gguf")).files == {"gguf": "/nope.gguf"}
    assert built(Smollm()).files == {}
    assert built(Smollm()).extra == "smollm"
    local = Llamacpp(model_id="/nope.gguf", chat_template="/nope.jinja")
    assert built(local).files == {"model_id": "/nope.gguf", "chat_template": "/nope.jinja"}
    assert built(Llamacpp(model_id="org/name")).files == {}
    own = Llamacpp(model_id="/inside.gguf", command="my-server {port}")
    assert built(own).files == {}


def test_the_modules_that_smollm_asks_for_are_those_that_it_imports() -> None:
    folder = Path(__file__).parents[2] / "launcher" / "servers" / "smollm"
    trees = [ast.parse(path.read_text()) for path in folder.glob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    others = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) - {"launcher", "msgspec"}
    assert set(built(Smollm()).requires) == others


async def test_a_fixed_port_in_use_is_a_problem(tmp_path: Path) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        plan = make_plan("abc", tmp_path, task(command=("{python}", "server.py"), port=port))
        assert await problems(plan) == [
            f"port {port} is in use; write {{port}} in deployment.command to get a free one"
        ]


async def test_two_endpoints_on_one_fixed_port_need_to_take_turns(tmp_path: Path) -> None:
    tasks = [task(number, command=("{python}", "server.py"), port=18123) for number in (1, 2)]
    plan = make_plan("abc", tmp_path, *tasks)
    assert await problems(plan) == [
        "2 endpoints want port 18123; write {port} in deployment.command, or set limits.max_parallel_endpoints=1"
    ]
    assert await problems(replace(plan, max_parallel_endpoints=1)) == []


async def test_a_harness_that_is_not_installed_is_named(tmp_path: Path) -> None:
    plain = task()
    lacking = replace(plain, job=replace(plain.job, run=replace(plain.job.run, requires=("no_such_module",))))
    found = await problems(make_plan("abc", tmp_path, lacking))
    assert len(found) == 1
    assert found[0].startswith("command needs the Python module no_such_module: install it into ")


async def test_a_missing_module_is_named_with_what_its_harness_says_of_it(tmp_path: Path) -> None:
    plain = task()
    run = replace(plain.job.run, requires=("no_such_module",), hints={"no_such_module": "do without"})
    plan = make_plan("abc", tmp_path, replace(plain, job=replace(plain.job, run=run)))
    assert await problems(plan) == ["command needs the Python module no_such_module: do without"]


async def test_a_job_with_an_image_needs_containers(tmp_path: Path) -> None:
    plain = task()
    plan = make_plan("abc", tmp_path, replace(plain, job=replace(plain.job, image="eval:1")))
    assert await problems(plan) == ["task task-1 runs in the image eval:1; set execution.runtime=docker"]


async def test_an_existing_endpoint_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}"
    plain = task()
    plan = make_plan("abc", tmp_path, replace(plain, endpoint=None, target=replace(plain.target, url=url)))
    found = await problems(plan)
    assert len(found) == 1
    assert found[0].startswith(f"{url} cannot be reached: ")
    assert found[0].endswith("; check target.api_endpoint.url")


async def test_a_good_plan_has_no_problem_and_nothing_is_written(tmp_path: Path) -> None:
    assert await problems(make_plan("abc", tmp_path / "new", task(gpus=1))) == []
    assert os.listdir(tmp_path) == []
