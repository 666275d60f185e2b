"""Words around a server's command: containers, several nodes, a share of a node's GPUs."""

from __future__ import annotations

from collections.abc import Sequence

from launcher.deployments.spec import ServerSpec
from launcher.errors import ConfigError

_GPU_SHARE = """\
if [ -n "${CUDA_VISIBLE_DEVICES:-}" ]; then
  CUDA_VISIBLE_DEVICES=$(printf %s "$CUDA_VISIBLE_DEVICES" | cut -d, -f"$FIRST_GPU-$LAST_GPU")
  export CUDA_VISIBLE_DEVICES
fi
exec "$@"
"""
"""Of the node's GPUs those of one instance."""
_RAY = """\
if [ "$SLURM_PROCID" != 0 ]; then
  until ray start --address="$HEAD_ADDRESS:$RENDEZVOUS_PORT" --disable-usage-stats --block; do sleep 3; done
  exit
fi
ray start --head --node-ip-address="$HEAD_ADDRESS" --port="$RENDEZVOUS_PORT" --disable-usage-stats
until [ "$(ray status --address="$HEAD_ADDRESS:$RENDEZVOUS_PORT" | grep -c '^ *1 node_')" = "$SLURM_STEP_NUM_TASKS" ]
do sleep 3; done
exec "$@"
"""
"""vLLM over several nodes: a Ray cluster in the allocation, and the server on its head. docs.vllm.ai: serving/
distributed_serving."""
_RANKS = """\
exec "$@" --nnodes "$SLURM_STEP_NUM_TASKS" --node-rank "$SLURM_PROCID" \\
  --dist-init-addr "$HEAD_ADDRESS:$RENDEZVOUS_PORT"
"""
"""SGLang over several nodes: the same program on each, told its rank."""


def refuse_several_nodes(server: ServerSpec) -> None:
    """Raises ConfigError for a server that is not known to run over several nodes."""
    if server.type not in ("vllm", "sglang"):
        raise ConfigError(
            f"execution.nodes: deployment {server.type} runs on one node; use vllm or sglang, or execution.instances "
            "for several servers"
        )


def spread(server: ServerSpec, *, nodes: int, instances: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The server's command, and the words before it that give each of its processes its part."""
    command = server.command
    if instances > 1:
        return command, _shell(_GPU_SHARE)
    if nodes == 1:
        return command, ()
    if server.type == "sglang":
        return command, _shell(_RANKS)
    backend = "--distributed-executor-backend"
    return (command if backend in command else (*command, backend, "ray")), _shell(_RAY)


def _shell(text: str) -> tuple[str, ...]:
    return ("sh", "-c", text, "sh")


def in_container(
    runtime: str, image: str | None, mounts: Sequence[str], options: Sequence[str], *, workdir: bool = False
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Words for srun, and words before the command, that put it into a container; with `workdir` in the same folder."""
    if runtime == "none" or image is None:
        return (), ()
    if runtime == "pyxis":
        where = ("--container-mounts=" + ",".join(mounts),) if mounts else ()
        inside = ("--container-workdir={pwd}",) if workdir else ()
        return (f"--container-image={enroot(image)}", *where, *inside, *options), ()
    binds = [word for mount in mounts for word in ("--bind", mount)]
    same = ("--pwd", "{pwd}") if workdir else ()
    return (), ("apptainer", "exec", "--nv", *binds, *same, *options, docker(image))


def enroot(image: str) -> str:
    """An image as Pyxis takes it: `#` stands behind the registry."""
    if image.startswith(("/", "./")) or "#" in image:
        return image
    registry, slash, rest = image.removeprefix("docker://").partition("/")
    named = slash and ("." in registry or ":" in registry or registry == "localhost")
    return f"{registry}#{rest}" if named else image.removeprefix("docker://")


def docker(image: str) -> str:
    """An image as Apptainer takes it: from a registry unless it is a file."""
    return image if image.startswith(("/", "./")) or "://" in image else f"docker://{image}"
