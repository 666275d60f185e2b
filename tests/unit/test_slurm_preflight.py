"""What is said of a cluster before anything is submitted, by the real scripts and commands that answer as told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from launcher.config.execution import Slurm
from launcher.platforms.base import CheckState
from launcher.platforms.slurm import preflight
from launcher.platforms.slurm.shell import Shell
from tests.unit.test_slurm_plan import made

REFUSED = "sbatch: error: Batch job submission failed: Requested node configuration is not available"


def problems(folder: Path, *lines: str, refused: str = "", **execution: Any) -> list[str]:
    """What is wrong for an endpoint of eight GPUs, where sinfo prints these lines and sbatch what it refuses."""
    commands = {
        "sinfo": "\n".join(f"echo 'partition {line}'" for line in lines),
        "sbatch": f"cat > /dev/null; echo '{refused}' >&2; exit 1" if refused else "cat > /dev/null",
        "squeue": "echo slurm 23.11.4",
        **dict.fromkeys(("scancel", "scontrol", "srun"), ":"),
    }
    for name, text in commands.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    plan = made({"work_dir": str(folder), **execution}, {"tensor_parallel_size": 8})
    config = plan.execution_config()
    assert isinstance(config, Slurm)
    shell = Shell(None, {"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(folder)})
    checks = anyio.run(preflight.check, shell, plan, config)
    return [check.message for check in checks if check.state is CheckState.PROBLEM]


@pytest.mark.parametrize("partition", [{"partition": "batch"}, {}])
def test_a_partition_of_unlike_nodes_gives_what_its_largest_node_has(tmp_path: Path, partition: dict[str, str]) -> None:
    small, large = "batch|infinite|up|gpu:h100:4|idle", "batch|infinite|up|gpu:h100:8|idle"

    assert problems(tmp_path, large, small, **partition) == []
    assert problems(tmp_path, small, large, **partition) == []
    (said,) = problems(tmp_path, small, small, **partition)
    assert "has at most 4 GPUs, and an endpoint asks for 8" in said


@pytest.mark.parametrize(
    ("state", "hint"), [("idle", False), ("unknown*", True), ("down", True), ("idle*", True), ("mixed", False)]
)
def test_a_refusal_while_nodes_are_away_says_that_they_are(tmp_path: Path, state: str, hint: bool) -> None:
    (said,) = problems(tmp_path, f"batch|infinite|up|gpu:8|{state}", refused=REFUSED)

    assert "no node has what it asks for" in said
    assert ("some nodes are down or do not answer now: sinfo -R says why" in said) is hint
