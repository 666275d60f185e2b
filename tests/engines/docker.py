"""Finds the Docker Engine that DOCKER_HOST names. `tests/engines/docker_up.sh` starts one."""

from __future__ import annotations

import os

import pytest

TEST_IMAGE = "nv-eval-test:1"
"""Python, a shell and busybox; made by docker_up.sh."""


def engine_socket() -> str:
    """The engine's address. Skips the test, with the reason, where none answers or the image is missing."""
    docker = pytest.importorskip("docker", reason="the docker client is not installed")
    host = os.environ.get("DOCKER_HOST")
    if not host:
        pytest.skip("DOCKER_HOST is not set; tests/engines/docker_up.sh FOLDER starts an engine")
    client = docker.DockerClient(base_url=host, timeout=10)
    try:
        client.images.get(TEST_IMAGE)
    except docker.errors.ImageNotFound:
        pytest.skip(f"the engine at {host} has no image {TEST_IMAGE}; tests/engines/docker_up.sh FOLDER makes it")
    except docker.errors.DockerException as error:
        pytest.skip(f"no engine answers at {host}: {error}")
    finally:
        client.close()
    return host
