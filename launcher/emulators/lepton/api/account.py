"""The workspace itself: what it is, what it has, who may enter."""

from __future__ import annotations

from starlette.responses import Response

from launcher.emulators.common.clock import milliseconds
from launcher.emulators.lepton.api.call import Call, Routes, answer
from launcher.emulators.lepton.config import NodeGroup, Shape
from launcher.emulators.lepton.errors import ApiError, Code, not_found
from launcher.emulators.lepton.wire import Json, SecretItem, read


def routes() -> Routes:
    """The routes of everything that endpoints and jobs build on."""
    group = "/dedicated-node-groups/{id}"
    return [
        ("GET", "", about),
        ("GET", "/workspace", workspace),
        ("GET", "/tokens", tokens),
        ("GET", "/dedicated-node-groups", node_groups),
        ("GET", group, node_group),
        ("GET", f"{group}/nodes", nodes),
        *(("GET", f"{group}/{what}", nothing) for what in ("machines", "reservations", "datasources")),
        ("GET", "/shapes", shapes),
        ("GET", "/usersecrets", secrets),
        ("POST", "/usersecrets", create_secrets),
        ("DELETE", "/usersecrets/{name}", delete_secret),
        ("GET", "/imagepullsecrets", pull_secrets),
        ("POST", "/imagepullsecrets", create_pull_secret),
        ("DELETE", "/imagepullsecrets/{name}", delete_pull_secret),
    ]


async def about(call: Call) -> Response:
    """What `lep login` asks for."""
    name = call.workspace.config.workspace
    return answer({"id": name, "display_name": name})


async def workspace(call: Call) -> Response:
    """The union of what all clients want to know."""
    space, config = call.workspace, call.workspace.config
    used = space.used()
    return answer(
        {
            "build_time": "2026-10-01T00:00:00Z",
            "git_commit": "0.1.2",
            "workspace_name": config.workspace,
            "workspace_tier": "enterprise",
            "workspace_state": config.state,
            "supported_shapes": {shape.id: _supported(shape) for shape in config.shapes},
            "workspace_disk_usage_bytes": 0,
            "workloads": {
                "num_deployments": len(space.endpoints),
                "num_jobs": len(space.jobs),
                "num_pods": 0,
                "num_secrets": len(space.secrets),
                "num_image_pull_secrets": len(space.pull_secrets),
                "num_photons": 0,
            },
            "resource_quota": {
                "limit": {
                    "cpu": config.quota_cpu,
                    "memory": config.quota_memory,
                    "accelerator_num": config.quota_accelerators,
                },
                "used": {"cpu": used.cpu, "memory": used.memory, "accelerator_num": used.accelerators},
            },
            "service_quota": {
                "limit": {"kv_store_num": 0, "queue_num": 0},
                "used": {"kv_store_num": 0, "queue_num": 0},
            },
            "dedicated_node_group_only": True,
            "features": {
                "enable_new_deployment_api": config.new_deployment_api,
                "enable_secure_endpoint_defaults": config.secure_endpoint_defaults,
            },
        }
    )


async def tokens(call: Call) -> Response:
    """All workspace tokens, masked, with their ends in ms."""
    return answer(
        [
            {
                "masked_value": f"{token.value[:8]}...{token.value[-4:]}",
                "expires_at": None if token.expires_at is None else milliseconds(token.expires_at),
            }
            for token in call.workspace.config.tokens
        ]
    )


async def node_groups(call: Call) -> Response:
    """All node groups."""
    return answer([_group(group, call) for group in call.workspace.config.node_groups])


async def node_group(call: Call) -> Response:
    """One node group by id."""
    return answer(_group(_find_group(call), call))


async def nodes(call: Call) -> Response:
    """The one node that a group pretends to have."""
    group = _find_group(call)
    name = f"{group.name}-node-1"
    spec = {"dedicated_node_group": group.id, "unschedulable": False}
    return answer([{"metadata": {"id": name, "name": name}, "spec": spec, "status": {"status": ["Ready"]}}])


async def nothing(_: Call) -> Response:
    """An empty list."""
    return answer([])


async def shapes(call: Call) -> Response:
    """Shapes, of one node group where the query names it."""
    config = call.workspace.config
    wanted = call.request.query_params.getlist("node_groups")
    groups = [group for group in config.node_groups if not wanted or {group.id, group.name} & set(wanted)]
    return answer(
        [
            _shape(shape, group)
            for group in groups
            for shape in config.shapes
            if not group.shapes or shape.id in group.shapes
        ]
    )


async def secrets(call: Call) -> Response:
    """Secrets without their values."""
    found = call.workspace.secrets.values()
    return answer([{"name": item.name, "tags": item.tags, "visibility": item.visibility} for item in found])


async def create_secrets(call: Call) -> Response:
    """A list of new secrets."""
    call.workspace.add_secrets(read(call.json(), list[SecretItem]))
    return Response(status_code=201)


async def delete_secret(call: Call) -> Response:
    """Remove a secret that nothing uses."""
    call.workspace.delete_secret(call.path("name"))
    return Response()


async def pull_secrets(call: Call) -> Response:
    """Image pull secrets without their passwords."""
    return answer(list(call.workspace.pull_secrets.values()))


async def create_pull_secret(call: Call) -> Response:
    """A new image pull secret."""
    return answer(call.workspace.add_pull_secret(call.document()), 201)


async def delete_pull_secret(call: Call) -> Response:
    """Remove an image pull secret."""
    if call.workspace.pull_secrets.pop(call.path("name"), None) is None:
        raise not_found("image pull secret", call.path("name"))
    return Response()


async def unknown(call: Call) -> Response:
    """Any other route."""
    raise ApiError(404, Code.NOT_FOUND, f"no route {call.request.method} {call.request.url.path}")


def _find_group(call: Call) -> NodeGroup:
    group = call.workspace.config.node_group(call.path("id"))
    if group is None:
        raise not_found("dedicated node group", call.path("id"))
    return group


def _supported(shape: Shape) -> Json:
    return {
        "description": "",
        "cpu": shape.cpu,
        "memory": shape.memory,
        "accelerator_type": shape.accelerator_type,
        "accelerator_num": shape.accelerators,
        "accelerator_fraction": 0,
    }


def _shape(shape: Shape, group: NodeGroup) -> Json:
    return {
        "metadata": {"id": shape.id, "name": shape.id},
        "spec": {
            "name": shape.id,
            "description": "",
            "listable_in": ["deployment", "pod", "job"],
            "cpu": shape.cpu,
            "memory_in_mb": shape.memory,
            "accelerator_type": shape.accelerator_type,
            "accelerator_num": shape.accelerators,
            "node_group_id": group.id,
        },
    }


def _group(group: NodeGroup, call: Call) -> Json:
    volumes = [{"from": volume.kind, "name": volume.name, "size_in_gb": volume.size_in_gb} for volume in group.volumes]
    return {
        "metadata": {"id": group.id, "name": group.name},
        "spec": {
            "workspaces": [call.workspace.config.workspace],
            "volumes": volumes,
            "allocation_mode": "static",
            "networking": {"external_endpoint_subdomain": "loopback"},
            "desired_nodes": 1,
        },
        "status": {"ready_nodes": 1, "quota_enabled": group.quota_enabled},
    }
