"""DeepInfra's dedicated models on loopback: what we send is what runs.

with DeepInfraEmulator(Config(faults=(Fails(reason="CUDA out of memory"),))) as emulator:
    ...  # emulator.url, emulator.key, emulator.requests, emulator.state(), emulator.meter()
"""

from launcher.emulators.common.clock import After
from launcher.emulators.common.faults import Fault, LateEffect, LateListing, LoseAnswer, SlowAnswer, SlowDelete
from launcher.emulators.common.front import RequestRecord
from launcher.emulators.common.simulated import Script
from launcher.emulators.deepinfra.account import Item, Snapshot
from launcher.emulators.deepinfra.config import Config, Gpu, Repo, Server, Timing
from launcher.emulators.deepinfra.emulator import DeepInfraEmulator
from launcher.emulators.deepinfra.errors import Shape
from launcher.emulators.deepinfra.faults import Fails, FalseRefusal, NoCapacity, Refuse, Stops, StuckDownload
from launcher.emulators.deepinfra.instance import Launch, Simulation
from launcher.emulators.deepinfra.ledger import Meter, MeterLine

__all__ = [
    "After",
    "Config",
    "DeepInfraEmulator",
    "Fails",
    "FalseRefusal",
    "Fault",
    "Gpu",
    "Item",
    "LateEffect",
    "LateListing",
    "Launch",
    "LoseAnswer",
    "Meter",
    "MeterLine",
    "NoCapacity",
    "Refuse",
    "Repo",
    "RequestRecord",
    "Script",
    "Server",
    "Shape",
    "Simulation",
    "SlowAnswer",
    "SlowDelete",
    "Snapshot",
    "Stops",
    "StuckDownload",
    "Timing",
]
