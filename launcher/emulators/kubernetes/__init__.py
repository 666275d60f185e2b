"""A Kubernetes cluster on loopback: an API server for any client, and controllers; pods are processes of this machine.

with KubernetesEmulator(Config(faults=(PullError(resource="vllm-*"),))) as emulator:
    ...  # emulator.kubeconfig, emulator.requests, emulator.objects("Pod"), emulator.left()
"""

from launcher.emulators.common.clock import After
from launcher.emulators.common.faults import Fault, LateEffect, LoseAnswer, Refuse, SlowAnswer, SlowDelete
from launcher.emulators.common.simulated import Script
from launcher.emulators.kubernetes.config import Config, Node, Timing, User
from launcher.emulators.kubernetes.emulator import KubernetesEmulator, Made
from launcher.emulators.kubernetes.faults import Crash, Deny, Evict, PullError

__all__ = [
    "After",
    "Config",
    "Crash",
    "Deny",
    "Evict",
    "Fault",
    "KubernetesEmulator",
    "LateEffect",
    "LoseAnswer",
    "Made",
    "Node",
    "PullError",
    "Refuse",
    "Script",
    "SlowAnswer",
    "SlowDelete",
    "Timing",
    "User",
]
