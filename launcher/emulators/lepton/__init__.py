"""Lepton's control and data plane on loopback: what we send is what runs.

with LeptonEmulator(Config(faults=(NoCapacity(resource="first"),))) as emulator:
    ...  # emulator.url, emulator.requests, emulator.state(), emulator.meter()
"""

from launcher.emulators.common.clock import After
from launcher.emulators.common.faults import Fault, LateEffect, LateListing, LoseAnswer, Refuse, SlowAnswer, SlowDelete
from launcher.emulators.common.front import RequestRecord
from launcher.emulators.common.simulated import Script
from launcher.emulators.lepton.config import (
    Config,
    Image,
    NodeGroup,
    Shape,
    SimulatedServer,
    Template,
    Timing,
    Token,
    Volume,
)
from launcher.emulators.lepton.emulator import LeptonEmulator
from launcher.emulators.lepton.faults import BadConfig, Crash, DelayLogs, ErrorState, HoldName, NoCapacity, SlowStart
from launcher.emulators.lepton.ledger import Meter, MeterLine
from launcher.emulators.lepton.simulated import Simulation
from launcher.emulators.lepton.workspace import Item, Snapshot

__all__ = [
    "After",
    "BadConfig",
    "Config",
    "Crash",
    "DelayLogs",
    "ErrorState",
    "Fault",
    "HoldName",
    "Image",
    "Item",
    "LateEffect",
    "LateListing",
    "LeptonEmulator",
    "LoseAnswer",
    "Meter",
    "MeterLine",
    "NoCapacity",
    "NodeGroup",
    "Refuse",
    "RequestRecord",
    "Script",
    "Shape",
    "SimulatedServer",
    "Simulation",
    "SlowAnswer",
    "SlowDelete",
    "SlowStart",
    "Snapshot",
    "Template",
    "Timing",
    "Token",
    "Volume",
]
