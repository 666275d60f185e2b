"""A GPU belongs to one launcher of the machine at a time, as long as anything of it can use the GPU."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from launcher.config.execution import Local
from launcher.platforms.base import Capacity
from launcher.platforms.local import machine
from launcher.platforms.local.gpulocks import FOLDER_VARIABLE, GATE, GpuLocks, holders
from launcher.platforms.local.machine import Gpu
from launcher.platforms.local.platform import GPU_POLL, LocalPlatform
from tests.contract.bench import make_plan
from tests.contract.conftest import process_bench

ROOT = Path(__file__).parents[2]
GPUS = tuple(Gpu(number=number, visible=str(number)) for number in range(4))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "gpu locks"))
    return tmp_path / "gpu locks"


def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def numbers(gpus: tuple[Gpu, ...]) -> list[int]:
    return [gpu.number for gpu in gpus]


def test_what_one_has_reserved_no_other_gets_until_it_is_released(folder: Path) -> None:
    first, second = GpuLocks("aaa"), GpuLocks("bbb")
    assert numbers(first.take(GPUS, least=1, most=3).taken) == [0, 1, 2]
    attempt = second.take(GPUS, least=1, most=3)
    assert numbers(attempt.taken) == [3]
    assert [who.rpartition(" of ")[0] for who in attempt.holders.values()] == ["invocation aaa"] * 3
    first.release()
    assert numbers(GpuLocks("ccc").take(GPUS, least=1, most=4).taken) == [0, 1, 2]


def test_too_few_are_not_kept(folder: Path) -> None:
    first, second, third = GpuLocks("aaa"), GpuLocks("bbb"), GpuLocks("ccc")
    first.take(GPUS, least=1, most=1)
    attempt = second.take(GPUS, least=4, most=4)
    assert (attempt.taken, list(attempt.holders)) == ((), [0])
    assert numbers(third.take(GPUS, least=3, most=3).taken) == [1, 2, 3]


def test_while_another_reserves_nothing_is_taken(folder: Path) -> None:
    import fcntl

    locks = GpuLocks("aaa")
    locks.take(GPUS, least=1, most=1)
    with (folder / GATE).open() as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        assert GpuLocks("bbb").take(GPUS, least=1, most=1).taken == ()
    assert numbers(GpuLocks("bbb").take(GPUS, least=1, most=1).taken) == [1]


def test_the_same_gpu_is_known_by_its_uuid_whatever_it_is_called(folder: Path) -> None:
    GpuLocks("aaa").take([Gpu(number=0, visible="0", uuid="GPU-1234")], least=1, most=1)
    assert GpuLocks("bbb").take([Gpu(number=5, visible="GPU-12", uuid="GPU-1234")], least=1, most=1).taken == ()
    assert numbers(GpuLocks("bbb").take([Gpu(number=0, visible="0", uuid="GPU-5678")], least=1, most=1).taken) == [0]


def test_every_user_can_use_the_folder_and_its_files(folder: Path) -> None:
    locks = GpuLocks("aaa")
    before = os.umask(0o077)
    try:
        locks.take(GPUS, least=1, most=1)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o666}
    locks.release()


def test_looking_changes_nothing_and_names_who_holds_what(folder: Path) -> None:
    assert holders(GPUS).holders == {}
    assert not folder.exists()
    locks = GpuLocks("abc123")
    locks.take(GPUS, least=2, most=2)
    assert list(holders(GPUS).holders) == [0, 1]
    assert holders(GPUS).who.startswith("GPU 0 by invocation abc123 of ")
    locks.release()
    assert holders(GPUS).holders == {}


def test_a_note_of_another_user_cannot_steer_the_terminal(folder: Path) -> None:
    locks = GpuLocks("aaa")
    locks.take(GPUS, least=1, most=1)
    (folder / "gpu-0").write_bytes(b"\x1b[31mx \x1b]0;title\x07\n")
    assert "\x1b" not in holders(GPUS).who
    (folder / "gpu-0").write_bytes(b"")
    assert holders(GPUS).who == "GPU 0 by another run"
    locks.release()


HOLDER = """
import os, sys, time
from pathlib import Path
from launcher.platforms.local.gpulocks import GpuLocks
from launcher.platforms.local.machine import Gpu
from launcher.platforms.local.supervised import Command, Mark, Supervised
locks, folder = GpuLocks(sys.argv[1]), Path(sys.argv[2])
gpus = locks.take([Gpu(number=0, visible="0"), Gpu(number=1, visible="1")], least=2, most=2).taken
code = "import os; print('open:', sorted(os.listdir('/proc/self/fd')), flush=True); import time; time.sleep(300)"
log = folder / "server.log"
command = Command(argv=(sys.executable, "-c", code), env=dict(os.environ), cwd=folder, log=log, grace=60)
unit = Supervised(Mark(invocation=sys.argv[1], name="s", kind="endpoint"), command, None, locks.descriptors(gpus[:1]))
print(unit.id.removeprefix("pid:"), flush=True)
time.sleep(30)
"""


def test_kill_9_frees_what_is_idle_at_once_and_the_rest_when_the_server_is_dead(folder: Path, tmp_path: Path) -> None:
    argv = [sys.executable, "-c", HOLDER, uuid4().hex[:12], str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=ROOT) as launcher:
        assert launcher.stdout is not None
        supervisor = int(launcher.stdout.readline())
        log = tmp_path / "server.log"
        until(lambda: log.exists() and log.read_text().endswith("\n"), 20)
        assert log.read_text() == "open: ['0', '1', '2', '3']\n"  # 3 is the listing itself: no lock came through
        os.kill(supervisor, signal.SIGSTOP)  # its server is still there
        os.kill(launcher.pid, signal.SIGKILL)
        launcher.wait()
    assert list(holders(GPUS).holders) == [0]
    os.kill(supervisor, signal.SIGCONT)
    until(lambda: holders(GPUS).holders == {}, 2)


# --- the platform -----------------------------------------------------------------------------------------------------


async def capacity(platform: LocalPlatform, folder: Path, *gpus: int, **limits: Any) -> Capacity:
    name = uuid4().hex[:10]
    tasks = [process_bench().task(name, number, gpus=count) for number, count in enumerate(gpus, 1)]
    return await platform.open(replace(make_plan(name, folder, *tasks), **limits), folder / name)


@pytest.mark.parametrize(
    ("needs", "limits", "reserved"),
    [
        ([1, 1], {}, 2),
        ([0, 0], {}, 0),
        ([1, 2, 1], {}, 4),
        ([2, 2, 2], {}, 4),
        ([1, 2, 1], {"max_parallel_endpoints": 1}, 2),
        ([1, 1, 1], {"max_gpus": 2}, 2),
        ([0, 3], {"max_parallel_endpoints": 1}, 3),
        ([5], {}, 4),
    ],
)
def test_a_run_reserves_what_it_can_use_at_once(
    folder: Path, tmp_path: Path, needs: list[int], limits: dict[str, int], reserved: int
) -> None:
    async def check() -> None:
        platform = LocalPlatform(Local(gpus=[0, 1, 2, 3], memory_gib=1000))
        assert (await capacity(platform, tmp_path, *needs, **limits)).gpus == reserved
        assert len(holders(GPUS).holders) == reserved
        await platform.close()
        assert holders(GPUS).holders == {}

    asyncio.run(check())


def test_a_run_takes_what_is_left_and_waits_only_if_its_largest_endpoint_needs_more(
    folder: Path, tmp_path: Path
) -> None:
    async def check() -> None:
        said: list[str] = []
        has_said = asyncio.Event()

        def say(text: str) -> None:
            said.append(text)
            has_said.set()

        others = GpuLocks("other1")
        others.take(GPUS, least=3, most=3)
        modest, large = (LocalPlatform(Local(gpus=[0, 1, 2, 3], memory_gib=1000)) for _ in range(2))
        assert (await capacity(modest, tmp_path, 1, 1)).gpus == 1
        large.attend(say, creates=True)
        opening = asyncio.create_task(capacity(large, tmp_path, 2, 1))
        await has_said.wait()
        await asyncio.sleep(3 * GPU_POLL)  # further tries, which say nothing
        assert not opening.done()
        others.release()
        assert (await opening).gpus == 3
        assert len(said) == 1
        assert said[0].startswith("Waiting for 2 free GPUs (Ctrl-C ends it): GPU 0 by invocation other1 of ")
        await modest.close()
        await large.close()

    asyncio.run(check())


def test_waiting_can_be_cancelled_and_leaves_nothing_reserved(folder: Path, tmp_path: Path) -> None:
    async def check() -> None:
        others = GpuLocks("other1")
        others.take(GPUS[:1], least=1, most=1)
        platform = LocalPlatform(Local(gpus=[0, 1], memory_gib=1000))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(capacity(platform, tmp_path, 2), 0.3)
        await platform.close()
        assert list(holders(GPUS).holders) == [0]

    asyncio.run(check())


def test_a_teardown_reserves_nothing(folder: Path, tmp_path: Path) -> None:
    async def check() -> None:
        GpuLocks("other1").take(GPUS[:1], least=1, most=1)
        platform = LocalPlatform(Local(gpus=[0], memory_gib=1000))
        platform.attend(lambda _: None, creates=False)
        assert (await capacity(platform, tmp_path, 1)).gpus == 0
        await platform.close()

    asyncio.run(check())


def test_where_nothing_can_be_shared_the_run_says_so_and_goes_on(folder: Path, tmp_path: Path) -> None:
    async def check() -> None:
        folder.write_text("not a folder")
        said: list[str] = []
        platform = LocalPlatform(Local(gpus=[0, 1], memory_gib=1000))
        platform.attend(said.append, creates=True)
        assert (await capacity(platform, tmp_path, 1)).gpus == 2
        await platform.close()
        assert said == [f"GPUs cannot be reserved, so another run may use the same: {folder}: Not a directory."]

    asyncio.run(check())


def test_preflight_notes_who_has_gpus(folder: Path, tmp_path: Path) -> None:
    locks = GpuLocks("other1")
    locks.take(GPUS[1:2], least=1, most=1)
    plan = make_plan("abc", tmp_path, process_bench().task("abc", gpus=1))
    checks = asyncio.run(LocalPlatform(Local(gpus=[0, 1], memory_gib=8)).preflight(plan))
    notes = [check.message for check in checks if check.name == "gpus" and check.message.startswith("note")]
    assert len(notes) == 1
    assert notes[0].startswith("note: in use by other runs, and not used by this one: GPU 1 by invocation other1 of ")
    locks.release()


def test_a_configured_gpu_is_the_same_as_a_detected_one(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"GPU-aaaa": Gpu(number=0, visible="0", uuid="GPU-aaaa")}
    monkeypatch.setattr(machine, "_detect", lambda: found)
    assert machine.gpus(Local(gpus=[0, 0, 7])) == (found["GPU-aaaa"], Gpu(number=7, visible="7"))
