"""What this machine has: CPU cores, memory, GPUs; and who uses which GPU."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from launcher.config.execution import Local
from launcher.errors import PlatformError
from launcher.plan.model import Plan, TaskPlan

GIB = 1024**3


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU. `visible` is what CUDA_VISIBLE_DEVICES calls it: its number on the PCI bus, or a MIG device's name.

    `uuid` is empty where there is no NVML to ask.
    """

    number: int
    visible: str
    uuid: str = ""
    name: str = ""
    memory_gib: float | None = None


def cores(execution: Local) -> int:
    """CPU cores to divide among servers: configured, else those this process may use, within its cgroup's quota."""
    if execution.cpus is not None:
        return execution.cpus
    allowed = len(os.sched_getaffinity(0))
    quota, _, period = _read("/sys/fs/cgroup/cpu.max").partition(" ")
    if quota.isdigit() and period.strip().isdigit():
        allowed = min(allowed, max(1, int(quota) // int(period)))
    return allowed


def memory_gib(execution: Local) -> float | None:
    """Memory to divide among servers in GiB: configured, else what is available now, within the cgroup's limit."""
    if execution.memory_gib is not None:
        return execution.memory_gib
    fields = dict(line.split(":", 1) for line in _read("/proc/meminfo").splitlines() if ":" in line)
    available = fields.get("MemAvailable", "").split()
    amounts = [int(available[0]) * 1024] if available else []
    limit, used = _read("/sys/fs/cgroup/memory.max").strip(), _read("/sys/fs/cgroup/memory.current").strip()
    if limit.isdigit() and used.isdigit():
        amounts.append(max(0, int(limit) - int(used)))
    return min(amounts) / GIB if amounts else None


def gpus(execution: Local, environment: Mapping[str, str] | None = None) -> tuple[Gpu, ...]:
    """GPUs to hand out: the configured numbers, else all that NVML finds and CUDA_VISIBLE_DEVICES lets us see."""
    found = _detect()
    if execution.gpus != "auto":
        known = {gpu.number: gpu for gpu in found.values()}
        numbers = dict.fromkeys(execution.gpus)
        return tuple(known.get(number) or Gpu(number=number, visible=str(number)) for number in numbers)
    visible = (os.environ if environment is None else environment).get("CUDA_VISIBLE_DEVICES")
    return tuple(found.values()) if visible is None else _restrict(found, visible)


def _restrict(found: dict[str, Gpu], visible: str) -> tuple[Gpu, ...]:
    """As CUDA reads the variable: numbers, UUIDs or their beginnings; the list ends at the first unknown entry."""
    chosen: list[Gpu] = []
    for position, entry in enumerate(part.strip() for part in visible.split(",")):
        if entry.startswith("MIG-"):
            chosen.append(Gpu(number=position, visible=entry, uuid=entry, name="MIG device"))
            continue
        match = next(
            (gpu for uuid, gpu in found.items() if entry and (entry == gpu.visible or _names(entry, uuid))), None
        )
        if match is None:
            break
        chosen.append(match)
    return tuple(chosen)


def _names(entry: str, uuid: str) -> bool:
    return entry.startswith("GPU-") and uuid.startswith(entry)


def _detect() -> dict[str, Gpu]:
    """GPUs by UUID, in PCI order; empty without driver or NVML package."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except ImportError:
        return {}
    except pynvml.NVMLError:
        return {}
    try:
        handles = [(number, pynvml.nvmlDeviceGetHandleByIndex(number)) for number in range(pynvml.nvmlDeviceGetCount())]
        return {
            (uuid := _text(pynvml.nvmlDeviceGetUUID(handle))): Gpu(
                number=number,
                visible=str(number),
                uuid=uuid,
                name=_text(pynvml.nvmlDeviceGetName(handle)),
                memory_gib=pynvml.nvmlDeviceGetMemoryInfo(handle).total / GIB,
            )
            for number, handle in handles
        }
    finally:
        pynvml.nvmlShutdown()


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


@dataclass
class GpuPool:
    """Hands out GPUs, each to one endpoint at a time."""

    gpus: tuple[Gpu, ...]
    _taken: dict[str, tuple[Gpu, ...]] = field(default_factory=dict)

    def take(self, owner: str, count: int) -> tuple[Gpu, ...]:
        """The first `count` free GPUs. Raises PlatformError if there are fewer."""
        used = {gpu.number for owned in self._taken.values() for gpu in owned}
        free = [gpu for gpu in self.gpus if gpu.number not in used]
        if len(free) < count:
            raise PlatformError(f"{owner} needs {count} GPUs and {len(free)} of {len(self.gpus)} are free")
        self._taken[owner] = tuple(free[:count])
        return self._taken[owner]

    def give_back(self, owner: str) -> None:
        """Free what an owner has; no error without."""
        self._taken.pop(owner, None)


def visible_devices(taken: tuple[Gpu, ...]) -> dict[str, str]:
    """Variables that show a server exactly these GPUs. CUDA counts in PCI order only when told so; NVML always does."""
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpu.visible for gpu in taken), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def most_at_once(plan: Plan, *, gpus: int, memory_gib: float | None) -> int:
    """Most endpoints of a plan that can be alive at the same time, at least 1."""
    served = _served(plan)
    bounds = [len(served), plan.max_parallel_endpoints or len(served)]
    if (need := min(map(gpus_of, served), default=0)) > 0:
        bounds.append(min(gpus, plan.max_gpus or gpus) // need)
    if memory_gib is not None and (size := min(map(_memory_of, served), default=0.0)) > 0:
        bounds.append(int(memory_gib // size))
    return max(1, min(bounds))


def largest(plan: Plan) -> int:
    """GPUs that a task of a plan needs at once: its endpoint's, and those of the auxiliary ones that it uses."""
    return max((sum(e.server.gpus for e in plan.together(task)) for task in plan.tasks), default=0)


def most_gpus(plan: Plan, *, gpus: int, memory_gib: float | None) -> int:
    """Most GPUs, of this many, that the endpoints of a plan can use at the same time."""
    needs = sorted(map(gpus_of, _served(plan)), reverse=True)
    at_once = most_at_once(plan, gpus=gpus, memory_gib=memory_gib)
    return min(sum(needs[:at_once]), plan.max_gpus or gpus, gpus)


def _served(plan: Plan) -> list[TaskPlan]:
    """A task for each endpoint."""
    return list({task.endpoint.name: task for task in plan.served if task.endpoint is not None}.values())


def gpus_of(task: TaskPlan) -> int:
    """GPUs of a task's own endpoint."""
    return task.endpoint.server.gpus if task.endpoint else 0


def _memory_of(task: TaskPlan) -> float:
    return (task.endpoint.server.memory_gib if task.endpoint else None) or 0.0
