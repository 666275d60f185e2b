"""Everything that would keep a plan from running on this machine, found by reading alone."""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from launcher.config.execution import Local
from launcher.config.fields import Reference
from launcher.deployments.spec import ServerSpec
from launcher.errors import MissingExtra
from launcher.plan.model import Plan, TaskPlan
from launcher.platforms.base import Check, CheckState
from launcher.platforms.local import environment, gpulocks, machine, ports
from launcher.platforms.local.invocation import PYTHON, fill
from launcher.platforms.local.process import has_free_port
from launcher.platforms.secrets import references, unresolvable

if TYPE_CHECKING:
    import httpx

ANSWER_TIMEOUT = 5.0
"""Seconds an existing endpoint has to answer."""
CLASHING = ("nv-eval-launcher", "nemo-evaluator-launcher")
FULL_PATH = "give its full path in the task's command"
VIRTUAL = ("/proc", "/sys")
"""Folders of the kernel: the superuser seems to be allowed to write there, and cannot."""


async def check(plan: Plan, execution: Local) -> list[Check]:
    """All checks, each result once."""
    found = [
        *_output_folder(plan),
        *_references(plan),
        *_gpus(plan, execution),
        *_memory(plan, execution),
        *_harnesses(plan),
        *_programs(plan),
        *_installation(),
    ]
    if execution.runtime == "docker":
        found += await _engine(plan, execution)
    else:
        found += [*_commands(plan), *_modules(plan), *_files(plan), *_images(plan), *_ports(plan)]
    found += await _existing_endpoints(plan)
    return list(dict.fromkeys(found))


async def _engine(plan: Plan, execution: Local) -> list[Check]:
    if importlib.util.find_spec("docker") is None:
        return [problem("docker", str(MissingExtra("the docker client", "docker")))]
    from launcher.platforms.local.docker import preflight as docker_preflight

    return await asyncio.to_thread(docker_preflight.check, plan, execution)


def ok(name: str, message: str = "") -> Check:
    """A check that found nothing wrong."""
    return Check(name, CheckState.OK, message)


def problem(name: str, message: str) -> Check:
    """A check that found what keeps the plan from running."""
    return Check(name, CheckState.PROBLEM, message)


def servers(plan: Plan) -> list[ServerSpec]:
    """The servers of a plan, one for each endpoint."""
    return [task.endpoint.server for task in plan.served if task.endpoint is not None]


def _output_folder(plan: Plan) -> Iterator[Check]:
    wanted = Path(plan.output_dir).expanduser().absolute()
    existing = next(folder for folder in (wanted, *wanted.parents) if os.access(folder, os.F_OK))
    if not existing.is_dir():
        yield problem("output folder", f"{existing} is a file; set execution.output_dir to a folder")
    elif (why := _why_read_only(existing)) is not None:
        yield problem("output folder", f"{existing} {why}; set execution.output_dir to a folder of yours")
    else:
        yield ok("output folder", str(wanted))


def _why_read_only(folder: Path) -> str | None:
    """Why nothing can be made in a folder, as far as looking tells; None if nothing speaks against it."""
    if any(folder.resolve().is_relative_to(virtual) for virtual in VIRTUAL):
        return "belongs to the kernel"
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        return "is on a read-only file system"
    return None if os.access(folder, os.W_OK | os.X_OK) else "is not writable"


def _references(plan: Plan) -> Iterator[Check]:
    wanted = list(dict.fromkeys(references(plan)))
    problems = [message for reference in wanted if (message := unresolvable(reference, os.environ))]
    yield from (problem("references", message) for message in problems)
    if not problems and wanted:
        yield ok("references", f"{len(wanted)} resolved")


def _gpus(plan: Plan, execution: Local) -> Iterator[Check]:
    needed = machine.largest(plan)
    if needed == 0:
        return
    found = machine.gpus(execution)
    available = min(len(found), plan.max_gpus or len(found))
    if needed <= available:
        names = ", ".join(sorted({gpu.name for gpu in found if gpu.name}))
        yield ok("gpus", f"{len(found)} found{f' ({names})' if names else ''}, {needed} for the largest endpoint")
        if (others := gpulocks.holders(found)).holders:
            yield ok("gpus", f"note: in use by other runs, and not used by this one: {others.who}")
        return
    source = "limits.max_gpus allows" if needed <= len(found) else "this machine has"
    what = "a task with its auxiliary endpoints" if plan.helpers else "one endpoint"
    yield problem("gpus", f"{what} needs {needed} GPUs and {source} {available}; check the parallel sizes")


def _memory(plan: Plan, execution: Local) -> Iterator[Check]:
    needed = max((sum(e.server.memory_gib or 0.0 for e in plan.together(task)) for task in plan.tasks), default=0.0)
    available = machine.memory_gib(execution)
    if needed == 0:
        return
    if available is None:
        yield Check("memory", CheckState.SKIPPED, "this machine does not tell how much memory is available")
    elif needed > available:
        what = "a task with its auxiliary endpoints" if plan.helpers else "one endpoint"
        yield problem("memory", f"{what} needs {needed:g} GiB and {available:.1f} GiB are available")
    else:
        yield ok("memory", f"{available:.1f} GiB available, {needed:g} GiB for the largest endpoint")


def _harnesses(plan: Plan) -> Iterator[Check]:
    for task in plan.tasks:
        if task.job.image is None:
            missing = [module for module in task.job.run.requires if not _is_importable(module)]
            yield from (problem("harness", _missing(task, module)) for module in missing)
            if task.job.run.requires and not missing:
                yield ok("harness", f"{task.harness}: installed")


def _missing(task: TaskPlan, module: str) -> str:
    how = task.job.run.hints.get(module) or f"install it into {PYTHON}"
    return f"{task.harness} needs the Python module {module}: {how}"


def _is_importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _programs(plan: Plan) -> Iterator[Check]:
    """The programs of jobs that run beside the launcher."""
    for task in plan.tasks:
        program = fill(task.job.run.argv, {"python": PYTHON})[0]
        if task.job.image is not None or "{" in program or PurePath(program).as_posix() in task.job.run.files:
            continue
        if "/" in program and not Path(program).is_absolute():
            yield problem(
                "program",
                f"harness {task.harness} runs {program}, which is looked for in the job's own folder; {FULL_PATH}",
            )
        elif shutil.which(program, path=_search_path(task)) is None:
            yield problem(
                "program",
                f"harness {task.harness} runs {program}, which is not installed here; install it, or {FULL_PATH}",
            )
        else:
            yield ok("program", program)


def _search_path(task: TaskPlan) -> str | None:
    """PATH of a task's job."""
    own = task.job.run.env.get("PATH")
    if isinstance(own, Reference):
        own = os.environ.get(own.env or "")
    return own or environment.inherited().get("PATH")


def _modules(plan: Plan) -> Iterator[Check]:
    for server in servers(plan):
        missing = [module for module in server.requires if not _is_importable(module)]
        if missing:
            how = f"pip install 'nv-eval-launcher[{server.extra}]'" if server.extra else f"install into {PYTHON}"
            yield problem("server", f"{server.type} needs the Python modules {', '.join(missing)}: {how}")
        elif server.requires:
            yield ok("server", f"{server.type}: installed")


def _files(plan: Plan) -> Iterator[Check]:
    for key, path in dict.fromkeys(item for server in servers(plan) for item in server.files.items()):
        if not os.access(path, os.R_OK):
            yield problem("file", f"deployment.{key}: {path} does not exist or cannot be read; give its full path")
        elif Path(path).is_dir():
            yield problem("file", f"deployment.{key}: {path} is a folder; give the path of a file")
        else:
            yield ok("file", path)


def _commands(plan: Plan) -> Iterator[Check]:
    for server in servers(plan):
        if not server.command:
            yield problem(
                "command",
                f"deployment {server.type} is only an image; set execution.runtime=docker or deployment.command",
            )
        for argv in filter(None, (server.command, *server.prepare)):
            yield _executable(fill(argv, {"python": PYTHON})[0], server)


def _executable(program: str, server: ServerSpec) -> Check:
    path = environment.inherited().get("PATH")
    if shutil.which(program, path=path) is None:
        return problem(
            "command",
            f"{program} is not installed here; install it, or set deployment.command"
            + (" or execution.runtime=docker" if server.image else ""),
        )
    return ok("command", program)


def _images(plan: Plan) -> Iterator[Check]:
    for task in plan.tasks:
        if task.job.image is not None:
            yield problem("image", f"task {task.key} runs in the image {task.job.image}; set execution.runtime=docker")


def _ports(plan: Plan) -> Iterator[Check]:
    fixed = [server.port for server in servers(plan) if server.command and not has_free_port(server)]
    for port in sorted(set(fixed)):
        if fixed.count(port) > 1 and plan.max_parallel_endpoints != 1:
            yield problem(
                "port",
                f"{fixed.count(port)} endpoints want port {port}; write {{port}} in deployment.command, "
                "or set limits.max_parallel_endpoints=1",
            )
        elif not ports.is_free(port):
            yield problem("port", f"port {port} is in use; write {{port}} in deployment.command to get a free one")
        else:
            yield ok("port", f"{port} is free")


def _installation() -> Iterator[Check]:
    installed = [name for name in CLASHING if _is_installed(name)]
    if len(installed) > 1:
        yield ok("installation", f"warning: {' and '.join(installed)} both install a command nv-eval; uninstall one")


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


async def _existing_endpoints(plan: Plan) -> list[Check]:
    existing = (one for one in (*plan.tasks, *plan.auxiliary) if one.endpoint is None)
    urls = dict.fromkeys(one.target.url for one in existing if one.target.url)
    if not urls:
        return []
    import httpx

    async with httpx.AsyncClient(timeout=ANSWER_TIMEOUT) as client:
        return list(await asyncio.gather(*(_existing_endpoint(client, url) for url in urls)))


async def _existing_endpoint(client: httpx.AsyncClient, url: str) -> Check:
    """Any answer will do: the job's own probe judges it, with the key."""
    import httpx

    try:
        answer = await client.get(f"{url.rstrip('/')}/v1/models")
    except httpx.TimeoutException:
        return problem("endpoint", f"{url} did not answer within {ANSWER_TIMEOUT:g} s; is the server up?")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return problem("endpoint", f"{url} cannot be reached: {error}; check target.api_endpoint.url")
    return ok("endpoint", f"{url} answers ({answer.status_code})")
