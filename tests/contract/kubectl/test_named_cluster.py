"""The contract suite, unchanged, against a cluster that NV_EVAL_TEST_KUBECONFIG names: a program of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

pytest.importorskip("kubernetes", reason="pip install 'nv-eval-launcher[kubernetes]'")

from tests.contract.conftest import SERVER
from tests.e2e.cli import ROOT

pytestmark = pytest.mark.e2e


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Iterator[str]:
    """What `nv-eval emulate kubernetes` writes. The image of the tests has this Python."""
    config = tmp_path / "emulator.yaml"
    image = {"pattern": "test/*", "path": [str(Path(sys.executable).parent)]}
    config.write_text(yaml.safe_dump({"images": [image], "timing": {"tick": 0.02}}))
    words = ("emulate", "kubernetes", "--images", "none", "--config", str(config))
    with subprocess.Popen([sys.executable, "-m", "launcher.cli.main", *words], stdout=subprocess.PIPE, text=True) as it:
        try:
            assert it.stdout is not None
            name, _, path = it.stdout.readline().strip().removeprefix("export ").partition("=")
            assert name == "KUBECONFIG"
            yield path
        finally:
            it.terminate()
            it.wait(30)


def test_the_contract_holds_for_a_cluster_that_is_named(kubeconfig: str) -> None:
    env = {
        **os.environ,
        "NV_EVAL_TEST_KUBECONFIG": kubeconfig,
        "NV_EVAL_TEST_KUBE_IMAGE": "test/server:1",
        "NV_EVAL_TEST_KUBE_SERVER": str(SERVER),
    }
    words = ("-q", "-p", "no:cacheprovider", "-k", "cluster", "tests/contract/test_platform.py")
    command = [sys.executable, "-m", "pytest", *words]

    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=900)

    assert done.returncode == 0, done.stdout[-6000:]
    passed = next(word for line in done.stdout.splitlines() for word in line.split(",") if " passed" in word)
    assert int(passed.split()[0]) >= 14, done.stdout[-2000:]
