"""GPUs are counted as CUDA would count them and handed to one endpoint at a time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from launcher.config.execution import Local
from launcher.errors import PlatformError
from launcher.platforms.local import machine, platform
from launcher.platforms.local.machine import Gpu, GpuPool, visible_devices
from launcher.platforms.local.unit import Ending

FOUND = {f"GPU-{letter * 4}": Gpu(number=number, visible=str(number)) for number, letter in enumerate("abcd")}


@pytest.fixture(autouse=True)
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_detect", lambda: FOUND)


@pytest.mark.parametrize(
    ("visible", "numbers"),
    [
        (None, [0, 1, 2, 3]),
        ("2,0", [2, 0]),
        ("", []),
        ("-1", []),
        ("GPU-cc,GPU-aaaa", [2, 0]),
        ("1,9,2", [1]),
    ],
)
def test_cuda_visible_devices_of_the_launcher_is_respected(visible: str | None, numbers: list[int]) -> None:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert [gpu.number for gpu in machine.gpus(Local(), environment)] == numbers


def test_a_mig_device_is_handed_out_by_its_name() -> None:
    taken = machine.gpus(Local(), {"CUDA_VISIBLE_DEVICES": "MIG-1234,MIG-5678"})
    assert visible_devices(taken)["CUDA_VISIBLE_DEVICES"] == "MIG-1234,MIG-5678"


def test_configured_gpus_win_over_detection() -> None:
    assert [gpu.number for gpu in machine.gpus(Local(gpus=[7, 9]), {"CUDA_VISIBLE_DEVICES": "0"})] == [7, 9]


def test_a_gpu_belongs_to_one_endpoint_until_it_is_given_back() -> None:
    pool = GpuPool(tuple(FOUND.values())[:3])
    first, second = pool.take("a", 1), pool.take("b", 2)
    assert [gpu.number for gpu in (*first, *second)] == [0, 1, 2]
    with pytest.raises(PlatformError, match="c needs 1 GPUs and 0 of 3 are free"):
        pool.take("c", 1)
    pool.give_back("a")
    assert [gpu.number for gpu in pool.take("c", 1)] == [0]


def test_an_endpoint_without_gpus_sees_none() -> None:
    assert visible_devices(()) == {"CUDA_VISIBLE_DEVICES": "", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def test_cores_and_memory_are_what_this_process_may_use() -> None:
    assert 1 <= machine.cores(Local()) <= len(os.sched_getaffinity(0))
    assert machine.cores(Local(cpus=3)) == 3
    assert machine.memory_gib(Local(memory_gib=2.5)) == 2.5
    available = machine.memory_gib(Local())
    assert available is not None
    assert 0 < available < 100_000


def test_what_fails_where_the_disk_is_full_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ended:
        id = "1"
        is_silent = is_over = True

        def look(self) -> Ending:
            return Ending(exit_code=20, detail="exited with code 20")

    entry = platform._Entry("job", "j", Ended(), tmp_path / "job.log")  # type: ignore[arg-type]

    assert entry.resource().detail == "exited with code 20"
    monkeypatch.setattr(platform, "_ROOM", 2**63)
    assert entry.resource().detail == "exited with code 20; the disk that holds its folder is full"
