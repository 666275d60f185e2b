"""A model over several nodes of Kubernetes: a LeaderWorkerSet, whose pods are one server.

The controller of LeaderWorkerSets (leaderworkerset.x-k8s.io) gives each pod its index, the size of the group and the
address of the leader, which alone is asked.
"""

from __future__ import annotations

import copy
import math
from typing import Any

from launcher.config.execution import Kubernetes
from launcher.deployments.spec import ServerSpec
from launcher.errors import ConfigError

API = "leaderworkerset.x-k8s.io/v1"
_RAY = """\
if [ "$LWS_WORKER_INDEX" != 0 ]; then
  until ray start --address="$LWS_LEADER_ADDRESS:6379" --disable-usage-stats --block; do sleep 3; done
  exit
fi
ray start --head --port=6379 --disable-usage-stats
until [ "$(ray status --address="127.0.0.1:6379" | grep -c '^ *1 node_')" = "$LWS_GROUP_SIZE" ]; do sleep 3; done
exec "$@"
"""
"""vLLM: a Ray cluster of the group, and the server on its head. docs.vllm.ai: deployment/frameworks/lws."""
_RANKS = """\
exec "$@" --nnodes "$LWS_GROUP_SIZE" --node-rank "$LWS_WORKER_INDEX" --dist-init-addr "$LWS_LEADER_ADDRESS:20000"
"""
"""SGLang: the same program on each node, told its rank. docs.sglang.ai: references/multi_node_deployment."""


def geometry(config: Kubernetes, server: ServerSpec) -> tuple[int, int]:
    """Nodes of an endpoint, and GPUs on each. Raises ConfigError where they do not fit together."""
    each = config.gpus_per_node
    nodes = config.nodes or (max(1, math.ceil(server.gpus / each)) if each else 1)
    if nodes > 1 and server.type not in ("vllm", "sglang"):
        raise ConfigError(f"execution.nodes: deployment {server.type} runs on one node; use vllm or sglang")
    if server.gpus % nodes or (nodes > 1 and not server.gpus):
        raise ConfigError(f"execution.nodes: {server.gpus} GPUs cannot be spread evenly over {nodes} nodes")
    if each and server.gpus // nodes > each:
        raise ConfigError(
            f"execution.nodes: {server.gpus // nodes} GPUs on each of {nodes} nodes, and gpus_per_node is {each}; "
            "leave nodes out, or raise it"
        )
    return nodes, server.gpus // nodes


def spread(server: ServerSpec) -> list[str]:
    """The command of each pod of a group."""
    command = list(server.command)
    if server.type == "sglang":
        return ["/bin/sh", "-c", _RANKS, "sh", *command]
    backend = "--distributed-executor-backend"
    return ["/bin/sh", "-c", _RAY, "sh", *command, *([] if backend in command else [backend, "ray"])]


def group(metadata: dict[str, Any], template: dict[str, Any], nodes: int, worker_labels: dict[str, str]) -> Any:
    """The set, with the pod of the leader as a template; workers have no port and are not asked."""
    worker = copy.deepcopy(template)
    worker["metadata"]["labels"] |= worker_labels
    for container in worker["spec"]["containers"]:
        for word in ("ports", "startupProbe", "readinessProbe"):
            container.pop(word, None)
    return {
        "apiVersion": API,
        "kind": "LeaderWorkerSet",
        "metadata": metadata,
        "spec": {
            "replicas": 1,
            "startupPolicy": "LeaderCreated",
            "leaderWorkerTemplate": {
                "size": nodes,
                "restartPolicy": "None",
                "leaderTemplate": template,
                "workerTemplate": worker,
            },
        },
    }
