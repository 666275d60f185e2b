"""What would keep a plan from running in containers, found by asking the engine and the registries."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import docker
from docker.errors import APIError, ImageNotFound

from launcher.config.execution import Local
from launcher.errors import PlatformError
from launcher.plan.model import Plan
from launcher.platforms.base import Check, CheckState
from launcher.platforms.local.docker import engine


def check(plan: Plan, execution: Local) -> list[Check]:
    """All checks that need the engine."""
    host = engine.address(execution.docker.host)
    if urlsplit(host).scheme != "unix":
        return [_problem("docker", f"{host} is not on this machine; set execution.docker.host to a unix:// socket")]
    try:
        client = engine.connect(host)
    except PlatformError as error:
        return [_problem("docker", f"{error}; start it, or set execution.docker.host")]
    try:
        version = client.version()["Version"]
        return [Check("docker", CheckState.OK, f"{version} at {host}"), *_images(client, plan, execution)]
    except engine.ENGINE_ERRORS as error:
        return [_problem("docker", f"the engine at {host} does not answer as expected: {engine.explain(error)}")]
    finally:
        client.close()


def _images(client: docker.DockerClient, plan: Plan, execution: Local) -> Iterator[Check]:
    for task in plan.served:
        if task.endpoint is not None and task.endpoint.server.image is None:
            kind = task.endpoint.server.type
            yield _problem(
                "image", f"deployment {kind} has no image; set execution.runtime=process or deployment.image"
            )
    servers = [task.endpoint.server.image for task in plan.served if task.endpoint is not None]
    jobs = [task.job.image for task in plan.tasks]
    for name in dict.fromkeys(filter(None, [*servers, *jobs])):
        yield _image(client, name, execution)


def _image(client: docker.DockerClient, name: str, execution: Local) -> Check:
    policy = execution.docker.pull
    try:
        client.images.get(name)
    except ImageNotFound:
        if policy == "never":
            return _problem("image", f"{name} is not on this machine and execution.docker.pull is never")
    else:
        if policy != "always":
            return Check("image", CheckState.OK, f"{name} is on this machine")
    try:
        client.images.get_registry_data(name)
    except APIError as error:
        if error.is_client_error():
            return _problem("image", f"{name} does not exist or needs `docker login`: {engine.explain(error)}")
        return Check("image", CheckState.SKIPPED, f"{name}: its registry was not reached: {engine.explain(error)}")
    return Check("image", CheckState.OK, f"{name} will be pulled")


def _problem(name: str, message: str) -> Check:
    return Check(name, CheckState.PROBLEM, message)
