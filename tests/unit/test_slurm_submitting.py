"""Batch jobs that are submitted together, or alone where that is not possible."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from launcher.errors import PlatformError
from launcher.platforms.slurm import cancelling, scripts, submitting
from launcher.platforms.slurm.cancelling import Canceller
from launcher.platforms.slurm.shell import Answer, ConnectionLost, Shell
from launcher.platforms.slurm.submitting import Submitter
from tests.fakes.slurm import FakeConfig, FakeFaults, FakeSlurm

ID = "a1b2c3d4"
SCRIPT = "#!/bin/bash\ntrue\n"


@dataclass
class Cluster:
    """Takes what it is asked for; `refuses` says what it takes no array for, `loses` how many answers get lost."""

    refuses: str = ""
    loses: int = 0
    asked: list[tuple[str, tuple[str, ...], bytes]] = field(default_factory=list)

    async def run(self, script: str, *arguments: str, payload: bytes = b"", timeout: float = 60.0) -> Answer:
        self.asked.append((script, arguments, payload))
        number = len(self.asked)
        await asyncio.sleep(0)
        if self.loses:
            self.loses -= 1
            raise ConnectionLost("the connection was lost")
        if self.refuses and script == scripts.SUBMIT_ARRAY:
            return Answer(1, b"", self.refuses)
        return Answer(0, f"{number}\n".encode(), "")

    ask = run


def submitted(cluster: Cluster, jobs: list[tuple[str, str]], *, arrays: bool = True) -> list[str]:
    """What Slurm calls jobs that are wanted at once, each a name and an option of its own."""

    async def all_at_once() -> list[str]:
        submitter = Submitter(cluster, "/shared/a1b2c3d4", ID, arrays=arrays)  # type: ignore[arg-type]
        wishes = [
            submitter.submit(name, name, [f"--job-name={name}", option], SCRIPT, {"job.json": name.encode()})
            for name, option in jobs
        ]
        try:
            return await asyncio.gather(*wishes)
        finally:
            await submitter.close()

    return asyncio.run(all_at_once())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitting, "GATHERING", 0.0)


def test_equal_requests_are_one_array_and_another_is_alone() -> None:
    cluster = Cluster()

    labels = submitted(cluster, [("a", "--mem=1"), ("b", "--mem=1"), ("c", "--mem=2")])

    (array, options, payload), (alone, _, _) = cluster.asked
    assert (array, alone) == (scripts.SUBMIT_ARRAY, scripts.SUBMIT)
    assert labels == ["1_0", "1_1", "2"]
    nonce = options[1]
    assert {"--mem=1", "--array=0-1", f"--job-name=array-{nonce}-{ID}"} <= set(options)
    with tarfile.open(fileobj=io.BytesIO(payload)) as files:
        assert sorted(files.getnames()) == [
            f"arrays/{nonce}/batch.sh",
            f"arrays/{nonce}/names",
            "jobs/a/job.json",
            "jobs/b/job.json",
        ]
        names = files.extractfile(f"arrays/{nonce}/names")
        assert names is not None and names.read() == b"a a\nb b\n"


def test_more_than_an_array_holds_are_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitting, "MOST", 2)
    cluster = Cluster()

    labels = submitted(cluster, [(name, "--mem=1") for name in "abcde"])

    assert labels == ["1_0", "1_1", "2_0", "2_1", "3"]


def test_a_cluster_that_takes_no_such_array_gets_them_one_by_one() -> None:
    cluster = Cluster(refuses="sbatch: error: Batch job submission failed: Invalid job array specification")

    labels = submitted(cluster, [("a", "--mem=1"), ("b", "--mem=1")])

    assert labels == ["2", "3"]


def test_without_arrays_each_is_alone() -> None:
    assert submitted(Cluster(), [("a", "--mem=1"), ("b", "--mem=1")], arrays=False) == ["1", "2"]


def test_an_answer_that_was_lost_is_asked_for_again_with_the_same_nonce(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitting, "PAUSE", 0.0)
    cluster = Cluster(loses=1)

    labels = submitted(cluster, [("a", "--mem=1"), ("b", "--mem=1")])

    first, second = (arguments[1] for _, arguments, _ in cluster.asked)
    assert (labels, first) == (["2_0", "2_1"], second)


def test_nobody_waits_for_a_submission_that_cannot_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitting, "PATIENCE", -1.0)

    with pytest.raises(PlatformError, match="lost"):
        submitted(Cluster(loses=9), [("a", "--mem=1"), ("b", "--mem=1")])


def test_what_is_cancelled_at_once_is_one_question(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster()

    async def cancelled() -> None:
        canceller = Canceller(cluster, "/shared/a1b2c3d4")  # type: ignore[arg-type]
        await asyncio.gather(canceller.cancel("a", "7_0"), canceller.cancel("b"))
        await canceller.cancel("a", "7_0")
        await canceller.close()

    monkeypatch.setattr(cancelling, "GATHERING", 0.0)
    asyncio.run(cancelled())

    assert [payload for _, _, payload in cluster.asked] == [b"a 7_0\nb\n", b"a 7_0\n"]


def test_the_script_cancels_exactly_what_is_named(tmp_path: Path) -> None:
    for name, said in (("a", "n 7_0"), ("b", "n 9"), ("c", "n 7_1")):
        (tmp_path / "jobs" / name).mkdir(parents=True)
        (tmp_path / "jobs" / name / "id").write_text(f"{said}\n")
        (tmp_path / "jobs" / name / "server.secrets").touch()
    (tmp_path / "squeue").write_text("#!/bin/sh\nprintf '7_0 array-n-x\\n7_1 array-n-x\\n9 b\\n11 b more\\n'\n")
    (tmp_path / "scancel").write_text(f"#!/bin/sh\necho \"$@\" >> '{tmp_path}/cancelled'\n")
    for name in ("squeue", "scancel"):
        (tmp_path / name).chmod(0o755)

    def cancel(names: str) -> list[str]:
        (tmp_path / "cancelled").write_text("")
        script = f"set -- '{tmp_path}'\n{scripts.CANCEL}"
        env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
        subprocess.run(["/bin/sh", "-c", script], input=names.encode(), env=env, check=True)
        return (tmp_path / "cancelled").read_text().split()

    assert cancel("a\nb\nz\n") == ["9", "7_0"], "an element is found by what its submission wrote down"
    assert sorted(path.parent.name for path in tmp_path.rglob("*.secrets")) == ["c"]
    assert cancel("c 7_1\n") == ["7_1"]
    assert cancel("array-n-x\n") == ["7_0", "7_1"]
    assert cancel("nothing\n") == []


@pytest.mark.parametrize("names", [["a"], ["a", "b"]], ids=["alone", "array"])
def test_a_submission_that_timed_out_is_looked_for_before_it_is_asked_again(
    names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm's controller may have taken it: a second one would cost GPUs that nobody knows of."""
    monkeypatch.setattr(submitting, "PAUSE", 0.01)
    folder = tmp_path / "it's shared"
    folder.mkdir()
    config = FakeConfig(simulated=True, lasts=600.0, faults=FakeFaults(lose=1.0))
    with FakeSlurm(tmp_path / "cluster", config) as slurm:

        async def all_at_once() -> list[str]:
            shell = Shell(None, {**os.environ, **slurm.environment})
            submitter = Submitter(shell, str(folder), ID, arrays=True)
            wishes = []
            for name in names:
                place = folder / "jobs" / name
                options = [f"--job-name={name}", f"--chdir={place}", f"--output={place}/batch.log"]
                files = {"server.secrets": b"export TOKEN=x"}
                wishes.append(submitter.submit(name, name, options, SCRIPT, files))
            try:
                return await asyncio.gather(*wishes)
            finally:
                await submitter.close()

        labels = asyncio.run(all_at_once())
        jobs = slurm.jobs()

    assert labels == [job["label"] for job in jobs], "each is there once, and is known"
    kept = [(folder / "jobs" / name / "server.secrets").exists() for name in names]
    assert all(kept), "the job that was taken after all needs its secrets"
